"""What several processes share, in Redis or Valkey. Needs the extra ``state``; nothing here is imported unless it is used."""

"""What operators revoke or block elsewhere, and how a guard learns of it: by a watched file, or by the server of ``[state]``."""

from __future__ import annotations

from mcp_fastguard.revocations.entry import Entry, EntryError
from mcp_fastguard.revocations.settings import RevocationSettings

__all__ = ["Entry", "EntryError", "RevocationSettings"]

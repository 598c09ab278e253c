//! Room `limits`.

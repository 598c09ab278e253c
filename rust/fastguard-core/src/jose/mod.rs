//! Room `jose`.

//! Room `audit`.

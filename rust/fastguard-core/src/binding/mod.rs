//! Room `binding`.

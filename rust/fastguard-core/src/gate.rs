//! The hot corridor.

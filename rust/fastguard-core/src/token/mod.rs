//! Room 1: verifies the token.

mod claims;

pub use claims::{Caller, ScopeBits};

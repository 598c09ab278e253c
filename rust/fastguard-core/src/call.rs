//! The proofs, in the order in which a call earns them. Each is defined in its own room, which alone can build it.

pub use crate::token::Caller;

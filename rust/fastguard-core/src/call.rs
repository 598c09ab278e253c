//! The proofs, in the order in which a call earns them. Each is defined in its own room, which alone can build it.

pub use crate::binding::BoundToken;
pub use crate::limits::AdmittedCall;
pub use crate::policy::AllowedCall;
pub use crate::request::{Received, Target, ToolRequest, Trace};
pub use crate::token::{Caller, VerifiedToken};

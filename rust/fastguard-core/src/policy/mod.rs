//! Room 4: decides by rule whether this caller may do this.

mod decide;
mod rule;

pub use decide::{AllowedCall, Policy};
pub use rule::{CodeRule, CompiledRule};

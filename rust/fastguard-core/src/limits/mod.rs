//! Room 3: admits the call, if every window that counts it has room.

mod admit;
mod applied;
mod asking;
mod charges;
mod cost;
mod dues;
mod lease;
mod locks;
#[cfg(test)]
mod model;
mod overflow;
mod own;
mod permits;
mod rules;
mod shard;
mod shared;
mod sliding;
mod table;
mod window;

pub use admit::{AdmittedCall, Limits, MAX_RULES, MAX_WINDOWS, Standing};
pub use applied::AppliedLimit;
pub use asking::{Asking, AtHand, Begun, Spent, Unusable};
pub use charges::{Charges, PlannedCharge};
pub(crate) use dues::Dues;
pub use dues::{EndedCall, EndedCharge};
pub use lease::{Given, LEASE_PART, Question};
pub use permits::{Permits, Wanted};
pub(crate) use rules::Call;
pub(crate) use shared::{Asked, Counted};
pub use shared::{SharedCharge, SharedPlace, Verdict};
pub use sliding::{MeteredWindow, SlidingWindow};
pub use table::{Admitted, Charge, ClockSource, Refusal, Refused, WindowTable};
pub use window::{Admission, LONGEST_WINDOW, SHORTEST_WINDOW, WindowSpec};

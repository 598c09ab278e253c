//! Room 3: admits the call, if every window that counts it has room.

mod admit;
mod charges;
mod cost;
mod dues;
mod rules;
mod shard;
mod shared;
mod sliding;
mod table;
mod window;

pub use admit::{AdmittedCall, Limits, MAX_RULES, MAX_WINDOWS, Standing};
pub use charges::{Charges, PlannedCharge};
pub(crate) use dues::Dues;
pub(crate) use shared::Counted;
pub use shared::{SharedCharge, Verdict};
pub use sliding::SlidingWindow;
pub use table::{Admitted, Charge, ClockSource, Refusal, Refused, WindowTable};
pub use window::{Admission, LONGEST_WINDOW, SHORTEST_WINDOW, WindowSpec};

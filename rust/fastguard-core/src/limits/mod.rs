//! Room 3: admits the call, if every window that counts it has room.

mod admit;
mod table;
mod window;

pub use admit::{AdmittedCall, Limits, MAX_RULES, Standing};
pub use table::{Admitted, Charge, ClockSource, Refusal, Refused, SlidingWindow, WindowTable};
pub use window::{Admission, LONGEST_WINDOW, SHORTEST_WINDOW, WindowSpec};

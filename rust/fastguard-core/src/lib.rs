//! Decides, in microseconds and without a network, whether an MCP call may run.
//!
//! The rooms, in the order in which a call walks through them; [`gate`] is the corridor:
//!
//! | room | verb | refuses with |
//! |---|---|---|
//! | [`request`] | `receive` | 400, 404, 405, 413, 415 |
//! | [`token`] | `verify` | 401 |
//! | [`binding`] | `confirm` | 401 |
//! | [`limits`] | `admit` | 429 |
//! | [`policy`] | `decide` | 403 |
//! | [`audit`] | `open`, `close` | a fault: no record, no call |
//!
//! Below the rooms lie [`jose`], [`json`], [`uri`], [`config`], [`denial`], [`blocks`], [`clock`] and [`bounds`].
#![forbid(unsafe_code)]

pub mod audit;
pub mod binding;
pub mod blocks;
pub mod bounds;
pub mod call;
pub mod clock;
pub mod config;
pub mod denial;
pub mod gate;
pub mod hashing;
pub mod jose;
pub mod json;
pub mod limits;
pub mod policy;
pub mod request;
pub mod scopes;
mod sync;
pub mod token;
pub mod uri;

pub use call::{AdmittedCall, AllowedCall, BoundToken, Caller, ToolRequest, VerifiedToken};
pub use clock::{FakeClock, Now, Tick, UnixTime};
pub use config::{Config, ConfigError};
pub use denial::{Denial, Fault, GateError, Room};
pub use gate::{Decision, Gate};

//! Reads `fastguard.toml`: one schema for Rust and Python.

mod certificates;
mod check;
mod cost;
mod dpop;
mod error;
mod glob;
mod limits;
mod read;
mod schema;
mod values;

pub use certificates::{CertificateSource, Certificates};
pub use cost::Cost;
pub use dpop::{Dpop, DpopMode, NonceMode, NonceSecret};
pub use error::{ConfigError, Problem, Warning};
pub use glob::{Glob, Named};
pub(crate) use limits::Counted;
pub use limits::{LimitRule, Limits, Per};
pub use schema::{
    Audit, Binding, Config, Issuer, Observe, ObservedRoom, OnAuditFailure, Proxies, Resource, Rule, Scope, Stdio, Tier,
    Tokens,
};
pub use values::{Date, Network, Quota, Required, Span};

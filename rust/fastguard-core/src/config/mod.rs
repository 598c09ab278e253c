//! Reads `fastguard.toml`: one schema for Rust and Python.

mod admin;
mod certificates;
mod check;
mod cost;
mod dpop;
mod error;
mod glob;
mod limits;
mod read;
mod revocations;
mod schema;
mod secret;
mod ship;
mod signatures;
mod state;
mod values;

pub use admin::{ADMIN_METHODS, Admin};
pub use certificates::{CertificateSource, Certificates, CertifiedClient};
pub(crate) use check::split_url;
pub use cost::Cost;
pub use dpop::{DigestMode, Dpop, DpopMode, NonceMode, ReplayStore};
pub use error::{ConfigError, Problem, Warning};
pub use glob::{Glob, Named};
pub(crate) use limits::{Counted, Measure};
pub use limits::{LimitAnswer, LimitMode, LimitRule, Limits, Meter, OnStoreFailure, Per};
pub use revocations::{OnStale, Revocations};
pub use schema::{
    Audit, Binding, Config, Durability, Issuer, Observe, ObservedRoom, OnAuditFailure, Proxies, Resource, Rule, Scope,
    Stdio, Tier, Tokens,
};
pub use secret::Secret;
pub use ship::{ObjectLock, Ship, ShipFormat, Sink};
pub use signatures::{SignatureMode, Signatures, SigningClient};
pub use state::State;
pub use values::{Date, Network, Quota, Required, Span};

//! Reads `fastguard.toml`: one schema for Rust and Python.

mod error;
mod schema;
mod values;

pub use error::ConfigError;
pub use schema::{
    Audit, Config, Dpop, DpopMode, Issuer, LimitRule, Limits, OnAuditFailure, Per, Proxies, Resource, Rule, Scope,
    Stdio, Tier, Tokens,
};
pub use values::{Network, Quota, Required, Span};

//! `[dpop]`: tokens bound to a key (RFC 9449).

use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use super::schema::Config;
use super::secret::Secret;
use super::signatures::SignatureMode;
use super::values::Span;
use crate::bounds::REPLAY_ENTRIES;
use crate::jose::Algorithms;

/// `[dpop]`: tokens bound to a key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Dpop {
    /// Whether tokens may or must be bound. Default: optional.
    pub mode: DpopMode,
    /// Largest distance between a proof's `iat` and now; the leeway of `[tokens]` is added, to 5m in all at most. Default: 5m.
    pub max_age: Span,
    /// Algorithms of proofs: `ES256`, `ES384`, `ES512`, `EdDSA`, `Ed25519`, `PS256`, `RS256`. Default: `ES256`, `EdDSA`.
    /// The two names of Ed25519 come together.
    pub algorithms: Vec<String>,
    /// Whether a proof must carry a nonce of ours. Default: off.
    pub nonce: NonceMode,
    /// Whether a proof of a request with a body must have `content_digest` (MCP's extension, an earlier draft). Default: optional, and one
    /// that comes along must match.
    pub content_digest: DigestMode,
    /// A file beside this one with the secret that nonces are made of, the same for all processes. Default: `FASTGUARD_DPOP_NONCE_SECRET`,
    /// or a secret of each process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce_secret_file: Option<String>,
    /// Used proofs that are remembered at once. Default: 1000000.
    pub replay_entries: usize,
    /// Who remembers used proofs: `local`, each process its own; `shared`, all of them by the server of `[state]`. Default:
    /// `shared` with `[state]`, else `local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replays: Option<ReplayStore>,
    /// Comes by file or environment, and has no place in the digest.
    #[serde(skip)]
    pub nonce_secret: Secret,
}

impl Default for Dpop {
    fn default() -> Self {
        Self {
            mode: DpopMode::Optional,
            max_age: Span::from_seconds(300),
            algorithms: ["ES256", "EdDSA"].map(str::to_owned).to_vec(),
            nonce: NonceMode::Off,
            content_digest: DigestMode::Optional,
            nonce_secret_file: None,
            replay_entries: REPLAY_ENTRIES,
            replays: None,
            nonce_secret: Secret::default(),
        }
    }
}

impl Dpop {
    /// Checks algorithms and sizes, for verifiers that are built without a file.
    pub fn check(&self) -> Result<(), ConfigError> {
        super::check::check_dpop(self)
    }

    /// The algorithms of proofs that are accepted, each by every name it has.
    pub fn accepted_algorithms(&self) -> Algorithms {
        Algorithms::from_names(self.algorithms.iter().map(String::as_str)).unwrap_or_default().with_both_names()
    }
}

/// Whether tokens may or must be bound to a key.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DpopMode {
    /// Bound tokens are refused.
    Off,
    /// Bound tokens need a proof, others pass.
    Optional,
    /// Only bound tokens with a proof pass.
    Required,
}

/// Whether a proof must say what the body is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DigestMode {
    /// A digest that comes along must match.
    Optional,
    /// Proofs of requests with a body are refused without one.
    Required,
}

/// Who remembers used proofs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ReplayStore {
    /// Each process its own: a proof passes once in each.
    Local,
    /// All processes together: a proof passes once.
    Shared,
}

impl Config {
    /// Whether several processes remember used proofs together.
    pub fn shares_proofs(&self) -> bool {
        let unsaid = if self.state.is_some() { ReplayStore::Shared } else { ReplayStore::Local };
        let has_proofs = self.dpop.mode != DpopMode::Off || self.signatures.mode != SignatureMode::Off;
        has_proofs && self.dpop.replays.unwrap_or(unsaid) == ReplayStore::Shared
    }
}

/// Whether a proof must carry a nonce of ours.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum NonceMode {
    /// None is asked for.
    Off,
    /// Proofs without one of the last minutes are refused (RFC 9449 section 9).
    Required,
}

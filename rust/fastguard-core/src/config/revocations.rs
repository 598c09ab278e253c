//! `[revocations]`: how a guard learns of what others have revoked.

use serde::{Deserialize, Serialize};

use super::values::Span;

/// `[revocations]`: how a guard learns what operators have revoked or blocked elsewhere.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Revocations {
    /// A file that is watched: one JSON object a line, which `fastguard revoke` appends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whether processes tell each other by the server of `[state]`. Default: no.
    #[serde(default)]
    pub shared: bool,
    /// For how long a guard may have heard nothing of the file or the server. Default: 60s.
    #[serde(default = "default_max_staleness")]
    pub max_staleness: Span,
    /// What then holds: `refuse`, every call is refused; `continue`, what is known goes on to count. Default: refuse.
    #[serde(default)]
    pub on_stale: OnStale,
}

/// What holds for a guard that cannot know what was revoked lately.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnStale {
    /// Every call is refused.
    #[default]
    Refuse,
    /// What is known goes on to count.
    Continue,
}

const fn default_max_staleness() -> Span {
    Span::from_seconds(60)
}

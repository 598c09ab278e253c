//! Values that are written in more than one way: durations, quotas, networks, required claims.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration: seconds, or "15m", "24h", "500ms".
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Span(Duration);

impl Span {
    pub(crate) const fn from_seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

/// "100/minute", "5/10s": at most `count` in any `window`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quota {
    count: u64,
    window: Duration,
}

impl Quota {
    /// At most `count` in any `window`.
    pub const fn new(count: u64, window: Duration) -> Self {
        Self { count, window }
    }

    /// How many.
    pub const fn count(self) -> u64 {
        self.count
    }

    /// In which time.
    pub const fn window(self) -> Duration {
        self.window
    }
}

/// An address or a network in CIDR form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// What a claim must be: present, or equal to a value.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Required {
    /// `true`: the claim is present.
    Present(bool),
    /// The claim equals this.
    Equal(serde_json::Value),
}

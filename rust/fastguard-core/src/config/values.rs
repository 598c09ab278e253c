//! Values that are written in more than one way: durations, quotas, networks, required claims.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A day of the calendar, by UTC: 2026-12-15.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// Its beginning, in seconds since the epoch.
    pub const fn begins_at(self) -> i64 {
        // Years begin in March, so that the leap day is their last.
        let year = if self.month <= 2 { self.year as i64 - 1 } else { self.year as i64 };
        let month = (self.month as i64 + 9) % 12;
        let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + self.day as i64 - 1;
        // Days from 0000-03-01 to 1970-01-01.
        (days - 719_468) * 86_400
    }

    const fn days_of_month(year: u16, month: u8) -> u8 {
        match month {
            4 | 6 | 9 | 11 => 30,
            2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
            2 => 28,
            _ => 31,
        }
    }
}

impl FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut parts = text.split('-');
            let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
            let has_form = parts.next().is_none() && (year.len(), month.len(), day.len()) == (4, 2, 2);
            let date = Self { year: year.parse().ok()?, month: month.parse().ok()?, day: day.parse().ok()? };
            let is_day = (1..=12).contains(&date.month)
                && (1..=Self::days_of_month(date.year, date.month)).contains(&date.day)
                && date.year >= 1970;
            (has_form && is_day).then_some(date)
        };
        parse().ok_or_else(|| format!("`{text}` is no day: write 2026-12-15"))
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// TOML has dates, JSON has texts.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Date(toml::value::Datetime),
        }

        let text = match Written::deserialize(deserializer)? {
            Written::Text(text) => text,
            Written::Date(date) => date.to_string(),
        };
        text.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Date {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Date".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date"})
    }
}

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

/// The units of durations, by every name they go by.
const UNITS: [(&str, u64); 20] = [
    ("ms", 1),
    ("millisecond", 1),
    ("milliseconds", 1),
    ("s", 1_000),
    ("sec", 1_000),
    ("second", 1_000),
    ("seconds", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("minute", 60_000),
    ("minutes", 60_000),
    ("h", 3_600_000),
    ("hour", 3_600_000),
    ("hours", 3_600_000),
    ("d", 86_400_000),
    ("day", 86_400_000),
    ("days", 86_400_000),
    ("w", 604_800_000),
    ("week", 604_800_000),
    ("weeks", 604_800_000),
];

fn unit(name: &str) -> Option<u64> {
    UNITS.iter().find_map(|(known, millis)| (*known == name).then_some(*millis))
}

/// A number with a unit; without a number, one of it.
fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, name) = text.split_at_checked(split)?;
    let count: u64 = if number.is_empty() { 1 } else { number.parse().ok()? };
    Some(Duration::from_millis(count.checked_mul(unit(name)?)?))
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let starts_with_digit = text.starts_with(|character: char| character.is_ascii_digit());
        let duration = parse_duration(text).filter(|_| starts_with_digit);
        duration.map(Self).ok_or_else(|| {
            format!("`{text}` is no duration: write seconds, or \"500ms\", \"30s\", \"15m\", \"24h\", \"7d\"")
        })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpanVisitor;

        impl Visitor<'_> for SpanVisitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration: seconds, or \"15m\"")
            }

            fn visit_i64<E: Error>(self, seconds: i64) -> Result<Span, E> {
                u64::try_from(seconds).map(Span::from_seconds).map_err(|_| E::custom("a duration is not negative"))
            }

            fn visit_u64<E: Error>(self, seconds: u64) -> Result<Span, E> {
                Ok(Span::from_seconds(seconds))
            }

            fn visit_f64<E: Error>(self, seconds: f64) -> Result<Span, E> {
                Duration::try_from_secs_f64(seconds).map(Span).map_err(|_| E::custom("no duration"))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(SpanVisitor)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis.is_multiple_of(1_000) { write!(f, "{}s", millis / 1_000) } else { write!(f, "{millis}ms") }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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

impl FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').or_else(|| text.split_once("_per_")).and_then(|(count, window)| {
            let is_number = count.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
            let count: String = count.chars().filter(|character| *character != '_').collect();
            Some(Self { count: count.parse().ok().filter(|_| is_number)?, window: parse_duration(window)? })
        });
        parsed.ok_or_else(|| format!("`{text}` is no quota: write \"100/minute\", \"5/10s\""))
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, Span(self.window))
    }
}

/// Reads and writes a value by its text.
macro_rules! by_text {
    ($type:ty) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

by_text!(Quota);
by_text!(Network);

/// An address or a network in CIDR form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// The length of the prefix, in bits.
    pub const fn prefix(self) -> u32 {
        self.prefix
    }

    /// Whether this is a network of IPv4.
    pub const fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether the address lies in the network. An IPv4 address in IPv6 form counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix).unwrap_or(0);
                (network.to_bits() ^ address.to_bits()) & mask == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix).unwrap_or(0);
                (network.to_bits() ^ address.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is neither an address nor a network like \"10.0.0.0/8\"");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), |prefix| prefix.parse().map_err(|_| wrong()))?;
        if prefix > longest {
            return Err(wrong());
        }
        let has_host_bits = match address {
            IpAddr::V4(address) => address.to_bits().checked_shl(prefix).unwrap_or(0) != 0,
            IpAddr::V6(address) => address.to_bits().checked_shl(prefix).unwrap_or(0) != 0,
        };
        if has_host_bits {
            return Err(format!("`{text}` has bits set behind its prefix"));
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
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

/// A value, or a list of values.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

pub(super) fn one_or_many<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(value) => Ok(vec![value]),
        OneOrMany::Many(values) => Ok(values),
    }
}

/// Writes a list of one value as the value.
pub(super) fn as_one_or_many<T: Serialize, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    match values {
        [value] => value.serialize(serializer),
        values => values.serialize(serializer),
    }
}

#[cfg(feature = "schema")]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{Network, Quota, Span};

    impl JsonSchema for Span {
        fn schema_name() -> Cow<'static, str> {
            "Duration".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "description": "A duration: seconds, or \"500ms\", \"30s\", \"15m\", \"24h\", \"7d\".",
                "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+[a-z]+$"}],
            })
        }
    }

    impl JsonSchema for Quota {
        fn schema_name() -> Cow<'static, str> {
            "Quota".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "description": "How many in which time: \"100/minute\", \"5/10s\".",
                "type": "string",
                "pattern": "^[0-9_]+(/|_per_)[0-9]*[a-z]+$",
            })
        }
    }

    impl JsonSchema for Network {
        fn schema_name() -> Cow<'static, str> {
            "Network".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({"description": "An address, or a network like \"10.0.0.0/8\".", "type": "string"})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, millis) in
            [("500ms", 500), ("30s", 30_000), ("15m", 900_000), ("24h", 86_400_000), ("7d", 604_800_000)]
        {
            assert_eq!(text.parse::<Span>().map(Span::get), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "15", "-1s", "1.5h", "15 m", "1x", "99999999999999999999s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn quotas_are_read_in_both_spellings() {
        for (text, count, seconds) in [
            ("100/minute", 100, 60),
            ("5/10s", 5, 10),
            ("100_per_minute", 100, 60),
            ("50_000/hour", 50_000, 3_600),
            ("0/s", 0, 1),
        ] {
            assert_eq!(text.parse(), Ok(Quota::new(count, Duration::from_secs(seconds))), "{text}");
        }
        for text in ["", "100", "/minute", "a/minute", "1/", "1/fortnight", "-1/s", "1/minute/2"] {
            assert!(text.parse::<Quota>().is_err(), "{text}");
        }
    }

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let network: Network = "10.0.0.0/8".parse().unwrap();
        assert!(network.contains("10.255.0.1".parse().unwrap()));
        assert!(network.contains("::ffff:10.0.0.1".parse().unwrap()));
        assert!(!network.contains("11.0.0.0".parse().unwrap()));
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.1.2.3".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
        let one: Network = "2001:db8::1".parse().unwrap();
        assert!(one.contains("2001:db8::1".parse().unwrap()) && !one.contains("2001:db8::2".parse().unwrap()));
        for text in ["10.0.0.1/8", "10.0.0.0/33", "::/129", "x", "10.0.0.0/", "1.2.3.4/-1"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}

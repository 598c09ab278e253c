//! Counts refusals that are not written one by one.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::record::Event;

/// Most pairs of address and code that are told apart between two reports; further ones are counted together.
const MAX_COUNTED: usize = 512;

/// Refusals by address and code.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: HashMap<(Address, &'static str), u64>,
    other: u64,
}

/// Where calls come from. IPv6 counts by /64, because whoever has one such network has all its addresses.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Address {
    Unknown,
    V4(Ipv4Addr),
    V6([u16; 4]),
}

impl Address {
    pub(super) fn of(peer: Option<IpAddr>) -> Self {
        match peer.map(|address| address.to_canonical()) {
            None => Self::Unknown,
            Some(IpAddr::V4(address)) => Self::V4(address),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unknown => formatter.write_str("unknown"),
            Self::V4(address) => write!(formatter, "{address}"),
            Self::V6(network) => {
                let bits = network.iter().fold(0, |bits: u128, segment| bits << 16 | u128::from(*segment));
                write!(formatter, "{}/64", Ipv6Addr::from_bits(bits << 64))
            }
        }
    }
}

impl Tally {
    pub(super) fn add(&mut self, event: &Event) {
        let key = match event {
            Event::Decision(decision) => (Address::of(decision.peer), decision.result.code().unwrap_or("allowed")),
            Event::Ending(_) => (Address::Unknown, "ending"),
            Event::Notice(notice) => (Address::Unknown, notice.event_type),
        };
        self.add_many(key, 1);
    }

    fn add_many(&mut self, key: (Address, &'static str), count: u64) {
        if self.counts.len() < MAX_COUNTED || self.counts.contains_key(&key) {
            *self.counts.entry(key).or_default() += count;
        } else {
            self.other += count;
        }
    }

    /// Counts what could not be told apart.
    pub(super) const fn add_other(&mut self, count: u64) {
        self.other += count;
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.other += other.other;
        for (key, count) in other.counts {
            self.add_many(key, count);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.other == 0 && self.counts.is_empty()
    }

    pub(super) fn total(&self) -> u64 {
        self.other + self.counts.values().sum::<u64>()
    }

    pub(super) const fn other(&self) -> u64 {
        self.other
    }

    /// The counts, the largest first.
    pub(super) fn sorted(&self) -> Vec<(Address, &'static str, u64)> {
        let mut counts: Vec<_> = self.counts.iter().map(|((address, code), count)| (*address, *code, *count)).collect();
        counts.sort_unstable_by_key(|(address, code, count)| (std::cmp::Reverse(*count), *address, *code));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        assert_eq!(Address::of("2001:db8::1".parse().ok()), Address::of("2001:db8::ffff:2".parse().ok()));
        assert_ne!(Address::of("2001:db8::1".parse().ok()), Address::of("2001:db8:0:1::1".parse().ok()));
        assert_eq!(Address::of("2001:db8:1:2:3::4".parse().ok()).to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn an_ipv4_address_is_the_same_inside_ipv6() {
        assert_eq!(Address::of("::ffff:192.0.2.7".parse().ok()), Address::of("192.0.2.7".parse().ok()));
        assert_eq!(Address::of(None), Address::Unknown);
    }
}

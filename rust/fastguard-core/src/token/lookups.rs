//! Who may have an issuer asked about a token that nobody knows yet, and what was refused lately.
//!
//! Everybody can make up texts, and each costs a request to the issuer. So first lookups are counted by address and in all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::addresses::{Addresses, spend};
use crate::bounds::{MAX_OPEN_LOOKUPS, MAX_REFUSED_TOKENS};
use crate::clock::Tick;
use crate::config::Quota;
use crate::denial::Denial;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// A refusal by the issuer is believed for this long: one that is right again meanwhile is known so much later.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// A lookup counts as under way for this long; the request itself ends after 5 s.
const LOOKUP_BOUND: Duration = Duration::from_secs(10);

/// After a failure of the endpoint nobody asks for so long, twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause that the endpoint may ask for.
const LONGEST_WISH: Duration = Duration::from_secs(300);

/// How many lookups may begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) per_address: Quota,
    pub(super) everyone: Quota,
}

/// A text and the configuration that it is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// A keyed hash, so that no text is kept and nobody can make two of them meet.
    pub(super) text: u128,
    pub(super) generation: u64,
}

/// What outlives a change of the configuration.
#[derive(Debug, Default)]
pub(super) struct Lookups(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Since when.
    open: HashMap<u128, Tick>,
    refused: Refused,
    addresses: Addresses,
    everyone: Tick,
    paused_until: Tick,
    failures: u32,
}

/// Refusals in two halves: when the young one is full, it becomes the old one.
#[derive(Debug, Default)]
struct Refused {
    young: HashMap<u128, Refusal>,
    old: HashMap<u128, Refusal>,
}

#[derive(Debug)]
struct Refusal {
    until: Tick,
    generation: u64,
    denial: Denial,
}

impl Lookups {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a lookup begin, or joins the one under way. `is_known`: the text was a token in force before, so that no stranger can
    /// have made it up, and it counts for nobody.
    pub(super) fn admit(
        &self,
        asked: Asked,
        is_known: bool,
        address: Option<IpAddr>,
        rates: Rates,
        own: Tick,
    ) -> Result<(), Denial> {
        let mut state = self.state();
        if let Some(denial) = state.refused.find(asked, own) {
            return Err(denial);
        }
        if state.open.get(&asked.text).is_some_and(|since| own < since.plus(LOOKUP_BOUND)) {
            return Ok(());
        }
        let pause = state.paused_until.since(own);
        if !pause.is_zero() {
            return Err(unavailable(pause, "its endpoint has failed a moment ago"));
        }
        if state.open.len() >= MAX_OPEN_LOOKUPS {
            state.open.retain(|_, since| own < since.plus(LOOKUP_BOUND));
        }
        if state.open.len() >= MAX_OPEN_LOOKUPS {
            return Err(unavailable(Duration::from_secs(1), "too many lookups are under way"));
        }
        if !is_known {
            state.charge(address, rates, own)?;
        }
        state.open.insert(asked.text, own);
        Ok(())
    }

    /// Why the token was refused a moment ago.
    pub(super) fn refusal(&self, asked: Asked, own: Tick) -> Option<Denial> {
        self.state().refused.find(asked, own)
    }

    /// A lookup has ended with an answer.
    pub(super) fn answered(&self, asked: Asked, refusal: Option<&Denial>, own: Tick) {
        let mut state = self.state();
        state.open.remove(&asked.text);
        state.failures = 0;
        state.paused_until = Tick::default();
        if let Some(denial) = refusal {
            state.refused.insert(asked, denial.clone(), own.plus(REFUSED_FOR));
        }
    }

    /// A lookup has ended without one. `is_endpoint`: that is not about this token, so nobody else asks for a while; `wish`: for
    /// how long the endpoint wants to be left alone. Gives the time to come back in.
    pub(super) fn failed(&self, asked: Asked, is_endpoint: bool, wish: Option<Duration>, own: Tick) -> Duration {
        let mut state = self.state();
        state.open.remove(&asked.text);
        if !is_endpoint && wish.is_none() {
            return Duration::from_secs(1);
        }
        // Many that were under way fail together, and count as one.
        if state.paused_until <= own {
            state.failures = state.failures.saturating_add(1);
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << state.failures.saturating_sub(1).min(5)).min(LONGEST_PAUSE);
        let pause = doubled.max(wish.unwrap_or_default().min(LONGEST_WISH));
        state.paused_until = state.paused_until.max(own.plus(pause));
        state.paused_until.since(own)
    }
}

fn unavailable(retry_after: Duration, reason: &'static str) -> Denial {
    Denial::IntrospectionUnavailable { retry_after: retry_after.max(Duration::from_secs(1)), reason }
}

impl State {
    fn charge(&mut self, address: Option<IpAddr>, rates: Rates, own: Tick) -> Result<(), Denial> {
        if let Some(address) = address {
            spend(self.addresses.of(address, own), rates.per_address, own)
                .map_err(|retry_after| Denial::IntrospectionLimited { retry_after })?;
        }
        spend(&mut self.everyone, rates.everyone, own)
            .map_err(|wait| unavailable(wait, "too many unknown tokens were presented"))
    }
}

impl Refused {
    fn find(&self, asked: Asked, own: Tick) -> Option<Denial> {
        let found = self.young.get(&asked.text).or_else(|| self.old.get(&asked.text))?;
        (own < found.until && found.generation == asked.generation).then(|| found.denial.clone())
    }

    fn insert(&mut self, asked: Asked, denial: Denial, until: Tick) {
        if self.young.len() >= MAX_REFUSED_TOKENS / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(asked.text, Refusal { until, generation: asked.generation, denial });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Tick = Tick::from_nanos(1_000_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn rates(per_address: &str, everyone: &str) -> Rates {
        Rates { per_address: per_address.parse().unwrap(), everyone: everyone.parse().unwrap() }
    }

    fn asked(text: u128) -> Asked {
        Asked { text, generation: 0 }
    }

    fn address(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    fn code(result: Result<(), Denial>) -> (&'static str, Duration) {
        result
            .map_or_else(|denial| (denial.code(), denial.retry_after().unwrap_or_default()), |()| ("", Duration::ZERO))
    }

    #[test]
    fn address_spends_its_allowance_and_gets_one_back_in_each_part_of_the_window() {
        let (lookups, rates, here) = (Lookups::default(), rates("3/minute", "100/minute"), address("192.0.2.1"));
        for text in 0..3 {
            assert_eq!(code(lookups.admit(asked(text), false, here, rates, START)).0, "");
        }
        let refused = lookups.admit(asked(3), false, here, rates, START.plus(5 * SECOND));
        assert_eq!(code(refused), ("introspection_limited", 15 * SECOND));
        let just_before = START.plus(Duration::from_millis(19_999));
        assert_eq!(code(lookups.admit(asked(3), false, here, rates, just_before)).0, "introspection_limited");
        assert_eq!(code(lookups.admit(asked(3), false, here, rates, START.plus(20 * SECOND))).0, "");
        assert_eq!(
            code(lookups.admit(asked(4), false, here, rates, START.plus(20 * SECOND))).0,
            "introspection_limited"
        );
        // Another address has its own.
        assert_eq!(code(lookups.admit(asked(4), false, address("192.0.2.2"), rates, START.plus(20 * SECOND))).0, "");
    }

    #[test]
    fn addresses_of_one_household_count_as_one_and_neighbours_do_not() {
        let (lookups, rates) = (Lookups::default(), rates("1/minute", "100/minute"));
        let of = |text, name: &str| code(lookups.admit(asked(text), false, address(name), rates, START)).0;
        assert_eq!(of(1, "2001:db8:0:1::1"), "");
        assert_eq!(of(2, "2001:db8:0:1:ffff::2"), "introspection_limited");
        assert_eq!(of(3, "2001:db8:0:2::1"), "");
        assert_eq!(of(4, "192.0.2.1"), "");
        assert_eq!(of(5, "::ffff:192.0.2.1"), "introspection_limited");
    }

    #[test]
    fn all_addresses_together_are_bounded_too() {
        let (lookups, rates) = (Lookups::default(), rates("2/minute", "3/minute"));
        let of = |text, name: &str| code(lookups.admit(asked(text), false, address(name), rates, START));
        assert_eq!((of(1, "192.0.2.1").0, of(2, "192.0.2.1").0, of(3, "192.0.2.2").0), ("", "", ""));
        assert_eq!(of(4, "192.0.2.3"), ("introspection_unavailable", 20 * SECOND));
        // Without an address the sum alone counts.
        assert_eq!(code(lookups.admit(asked(5), false, None, rates, START)).0, "introspection_unavailable");
    }

    #[test]
    fn token_that_was_known_costs_nobody_anything() {
        let (lookups, rates, here) = (Lookups::default(), rates("1/minute", "1/minute"), address("192.0.2.1"));
        assert_eq!(code(lookups.admit(asked(1), false, here, rates, START)).0, "");
        for text in 2..100 {
            assert_eq!(code(lookups.admit(asked(text), true, here, rates, START)).0, "");
        }
        assert_eq!(code(lookups.admit(asked(100), false, here, rates, START)).0, "introspection_limited");
    }

    #[test]
    fn lookup_under_way_is_joined_and_charged_once() {
        let (lookups, rates, here) = (Lookups::default(), rates("1/minute", "1/minute"), address("192.0.2.1"));
        for _ in 0..1_000 {
            assert_eq!(code(lookups.admit(asked(1), false, here, rates, START)).0, "");
        }
        // One that never ended is forgotten.
        let later = START.plus(LOOKUP_BOUND);
        assert_eq!(code(lookups.admit(asked(1), false, here, rates, later)).0, "introspection_limited");
    }

    #[test]
    fn lookups_under_way_are_bounded() {
        let (lookups, rates) = (Lookups::default(), rates("1/minute", "100000/minute"));
        for text in 0..MAX_OPEN_LOOKUPS as u128 {
            assert_eq!(code(lookups.admit(asked(text), true, None, rates, START)).0, "");
        }
        let over = asked(u128::MAX);
        assert_eq!(code(lookups.admit(over, true, None, rates, START)), ("introspection_unavailable", SECOND));
        lookups.answered(asked(0), None, START);
        assert_eq!(code(lookups.admit(over, true, None, rates, START)).0, "");
        // Those that never ended make room.
        let later = START.plus(LOOKUP_BOUND);
        assert_eq!(code(lookups.admit(asked(1 << 100), true, None, rates, later)).0, "");
    }

    #[test]
    fn refusal_is_kept_for_ten_seconds_under_its_configuration_alone() {
        let (lookups, rates) = (Lookups::default(), rates("100/minute", "100/minute"));
        lookups.answered(asked(1), Some(&Denial::TokenInactive), START);
        let of = |asked, own| code(lookups.admit(asked, false, None, rates, own)).0;
        assert_eq!(of(asked(1), START.plus(Duration::from_millis(9_999))), "token_inactive");
        assert_eq!(of(Asked { text: 1, generation: 1 }, START), "");
        lookups.answered(asked(1), Some(&Denial::TokenInactive), START);
        assert_eq!(of(asked(1), START.plus(REFUSED_FOR)), "");
    }

    #[test]
    fn refusals_and_addresses_of_strangers_take_bounded_room() {
        let (lookups, rates) = (Lookups::default(), rates("1/hour", "100000000/minute"));
        for text in 0..20_000_u32 {
            let here = Some(IpAddr::V4((0x0a00_0000 + text).into()));
            let _ = lookups.admit(asked(text.into()), false, here, rates, START);
            lookups.answered(asked(text.into()), Some(&Denial::TokenInactive), START);
        }
        let state = lookups.state();
        assert!(state.refused.young.len() + state.refused.old.len() <= MAX_REFUSED_TOKENS);
        // One place more is the one that newcomers share.
        assert!(state.addresses.len() <= crate::bounds::MAX_COUNTED_ADDRESSES + 1, "{}", state.addresses.len());
        drop(state);
        // When their allowance is whole again, they make room.
        let later = START.plus(3_700 * SECOND);
        assert_eq!(code(lookups.admit(asked(1 << 90), false, address("192.0.2.1"), rates, later)).0, "");
        assert_eq!(lookups.state().addresses.len(), 1);
    }

    #[test]
    fn endpoint_that_fails_is_left_alone_twice_as_long_each_time_and_at_most_thirty_seconds() {
        let (lookups, rates) = (Lookups::default(), rates("100/minute", "100/minute"));
        let mut own = START;
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let pause = seconds * SECOND;
            assert_eq!(lookups.failed(asked(1), true, None, own), pause);
            // Others that were under way fail with it, and count as one.
            assert_eq!(lookups.failed(asked(2), true, None, own), pause);
            let just_before = own.plus(pause.saturating_sub(Duration::from_nanos(1)));
            assert_eq!(
                code(lookups.admit(asked(3), true, None, rates, just_before)),
                ("introspection_unavailable", SECOND)
            );
            own = own.plus(pause);
        }
        assert_eq!(code(lookups.admit(asked(3), true, None, rates, own)).0, "");
        lookups.answered(asked(3), None, own);
        assert_eq!(lookups.failed(asked(1), true, None, own), SECOND);
    }

    #[test]
    fn failure_that_is_one_tokens_own_stops_nobody_else() {
        let (lookups, rates) = (Lookups::default(), rates("100/minute", "100/minute"));
        assert_eq!(lookups.failed(asked(1), false, None, START), SECOND);
        assert_eq!(code(lookups.admit(asked(2), false, None, rates, START)).0, "");
    }

    #[test]
    fn endpoint_may_ask_for_time_and_not_for_too_much() {
        let lookups = Lookups::default();
        assert_eq!(lookups.failed(asked(1), false, Some(40 * SECOND), START), 40 * SECOND);
        assert_eq!(Lookups::default().failed(asked(1), false, Some(86_400 * SECOND), START), LONGEST_WISH);
    }
}

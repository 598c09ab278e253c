//! The keys of one issuer as they stand now, and when more may be asked for (decision 7).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::issuer::KeySource;
use crate::bounds::MAX_UNKNOWN_KEY_IDS;
use crate::clock::{Now, Tick};
use crate::denial::Denial;
use crate::jose::KeySet;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, PoisonError};

/// At most one fetch per issuer is caused by unknown keys in this time (F6).
const COOL_DOWN: Duration = Duration::from_secs(30);

/// A fetch that was asked for counts as under way for this long; the fetch itself ends after 5 s.
const FETCH_BOUND: Duration = Duration::from_secs(10);

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct IssuerKeys {
    source: KeySource,
    set: ArcSwapOption<KeySet>,
    epoch: AtomicU64,
    /// Till when the set need not be replaced, in nanoseconds of the process's own clock.
    fresh_until: AtomicU64,
    /// How many tokens were refused because their key was not there.
    misses: AtomicU64,
    asking: Mutex<Asking>,
}

#[derive(Debug, Default)]
struct Asking {
    /// When an unknown key last caused a fetch.
    asked: Option<Tick>,
    /// Whether that fetch has not ended yet.
    is_open: bool,
    /// Whether the last fetch brought a set.
    has_succeeded: bool,
    /// When the next fetch begins, after one that failed.
    due: Option<Tick>,
    /// Keys that the newest set does not have.
    unknown: HashSet<Box<str>>,
}

impl Asking {
    /// In what time the next fetch will have begun, at least a second: a client that comes at once comes in vain.
    fn next_fetch(&self, own: Tick) -> Duration {
        let wait = self.due.map(|due| due.since(own)).filter(|wait| !wait.is_zero());
        wait.unwrap_or(FETCH_BOUND).max(Duration::from_secs(1))
    }
}

/// What to do about a key that is not there.
pub(super) enum Absent {
    /// Wait for a fetch, then verify again.
    Wait,
    /// Refuse.
    Refuse(Denial),
}

impl IssuerKeys {
    pub(super) fn given(set: Arc<KeySet>) -> Self {
        let keys = Self::unneeded();
        keys.set.store(Some(set));
        keys
    }

    /// For tokens that no key here signs: nothing that could grow old.
    pub(super) fn unneeded() -> Self {
        let keys = Self::fetched(KeySource::Given);
        keys.fresh_until.store(u64::MAX, Ordering::Release);
        keys
    }

    /// For a verdict of the issuer itself, which grows old at this time of the process's own clock.
    pub(super) fn vouched_until(until: Tick) -> Self {
        let keys = Self::fetched(KeySource::Given);
        keys.fresh_until.store(until.as_nanos(), Ordering::Release);
        keys
    }

    pub(super) fn fetched(source: KeySource) -> Self {
        Self {
            source,
            set: ArcSwapOption::empty(),
            epoch: AtomicU64::new(0),
            fresh_until: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            asking: Mutex::default(),
        }
    }

    pub(super) const fn source(&self) -> &KeySource {
        &self.source
    }

    /// Counts the changes that took a key away. Read before a key is looked up, so that what is then cached can be
    /// recognised as too old.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(super) fn set(&self) -> arc_swap::Guard<Option<Arc<KeySet>>> {
        self.set.load()
    }

    /// Whether there is a set that is not older than `max_stale` allows (F1). Keys that are given with the configuration never
    /// grow old.
    pub(super) fn is_usable(&self, max_stale: Duration, own: Tick) -> bool {
        let fresh_until = Tick::from_nanos(self.fresh_until.load(Ordering::Acquire));
        own < fresh_until.plus(max_stale)
    }

    /// How many tokens were refused because their key was not there.
    pub(super) fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Takes a new set in, to be replaced at `fresh_until`. A set that lacks a key of the old one ends every verdict that was cached.
    pub(super) fn replace(&self, set: KeySet, fresh_until: Tick) {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.set.load_full();
        let withdrawn = before.iter().flat_map(|old| old.keys()).filter(|key| !set.holds(key));
        // A key that was taken away is known not to be there: its tokens are refused at once, not told to wait.
        asking.unknown = withdrawn.filter_map(|key| key.key_id().map(Box::from)).take(MAX_UNKNOWN_KEY_IDS).collect();
        let removes = before.as_ref().is_some_and(|old| !set.holds_all_of(old));
        self.set.store(Some(set.into()));
        self.fresh_until.store(fresh_until.as_nanos(), Ordering::Release);
        if removes {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        asking.is_open = false;
        asking.has_succeeded = true;
        asking.due = None;
    }

    /// Takes note that a fetch ended without a set, and that the next one begins at `due`. The old set stays.
    pub(super) fn failed(&self, due: Tick) {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.is_open = false;
        asking.has_succeeded = false;
        asking.due = Some(due);
    }

    /// Decides what an absent key means now. `has_set`: there are keys, but not this one. `has_waited`: a fetch has ended since the
    /// call came.
    pub(super) fn absent(&self, key_id: Option<&str>, has_set: bool, has_waited: bool, now: Now) -> Absent {
        let found = self.judge_absent(key_id, has_set, has_waited, now);
        if matches!(found, Absent::Refuse(_)) {
            self.misses.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    fn judge_absent(&self, key_id: Option<&str>, has_set: bool, has_waited: bool, now: Now) -> Absent {
        let unknown = || Absent::Refuse(Denial::KeyUnknown { key_id: key_id.unwrap_or_default().to_owned() });
        if self.source == KeySource::Given {
            return unknown();
        }
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if !has_set {
            // The first set is on its way by itself, and so is the next where the last is too old. Waiting for it uses up
            // nobody's turn to ask.
            return if has_waited {
                Absent::Refuse(Denial::KeysUnavailable { retry_after: asking.next_fetch(now.own) })
            } else {
                Absent::Wait
            };
        }
        let name = key_id.unwrap_or_default();
        if asking.unknown.contains(name) {
            return unknown();
        }
        if has_waited && asking.has_succeeded && !asking.is_open {
            if asking.unknown.len() < MAX_UNKNOWN_KEY_IDS {
                asking.unknown.insert(name.into());
            }
            return unknown();
        }
        let since = asking.asked.map(|asked| now.tick.since(asked));
        match since {
            Some(since) if asking.is_open && since < FETCH_BOUND && !has_waited => Absent::Wait,
            // Whether this key is new cannot be known before the next fetch: not the token's fault, so no 401.
            Some(since) if since < COOL_DOWN => {
                Absent::Refuse(Denial::KeysUnavailable { retry_after: COOL_DOWN.saturating_sub(since) })
            }
            _ => {
                asking.asked = Some(now.tick);
                asking.is_open = true;
                Absent::Wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FakeClock;

    const HOUR: Duration = Duration::from_secs(3_600);
    const SET: &[u8] = br#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "key-1",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn set() -> KeySet {
        KeySet::from_jwks(SET, false).unwrap()
    }

    fn fetched() -> IssuerKeys {
        IssuerKeys::fetched(KeySource::Fetched(Box::default()))
    }

    fn retry_after(absent: &Absent) -> Option<Duration> {
        match absent {
            Absent::Refuse(Denial::KeysUnavailable { retry_after }) => Some(*retry_after),
            _ => None,
        }
    }

    #[test]
    fn set_is_used_until_max_stale_after_its_freshness_has_passed_and_not_on_that_moment() {
        let (keys, mut clock) = (fetched(), FakeClock::at(0));
        keys.replace(set(), clock.now().own.plus(HOUR));

        clock.advance(HOUR.saturating_sub(Duration::from_nanos(1)));
        assert!(keys.is_usable(Duration::ZERO, clock.now().own));
        clock.advance(Duration::from_nanos(1));
        assert!(!keys.is_usable(Duration::ZERO, clock.now().own));

        clock.advance(HOUR.saturating_sub(Duration::from_nanos(1)));
        assert!(keys.is_usable(HOUR, clock.now().own));
        clock.advance(Duration::from_nanos(1));
        assert!(!keys.is_usable(HOUR, clock.now().own));
    }

    #[test]
    fn given_keys_are_always_usable_and_none_are_not() {
        let (given, mut clock) = (IssuerKeys::given(set().into()), FakeClock::at(0));
        clock.advance(HOUR * 1_000_000);

        assert!(given.is_usable(Duration::ZERO, clock.now().own));
        assert!(!fetched().is_usable(Duration::ZERO, clock.now().own));
    }

    #[test]
    fn call_without_a_set_is_told_when_the_next_fetch_begins_but_at_least_a_second() {
        let (keys, mut clock) = (fetched(), FakeClock::at(0));
        assert!(matches!(keys.absent(None, false, false, clock.now()), Absent::Wait));
        assert_eq!(keys.misses(), 0);

        keys.failed(clock.now().own.plus(Duration::from_secs(40)));
        clock.advance(Duration::from_secs(10));
        let told = keys.absent(None, false, true, clock.now());
        assert_eq!(retry_after(&told), Some(Duration::from_secs(30)));

        clock.advance(Duration::from_millis(29_500));
        let told = keys.absent(None, false, true, clock.now());
        assert_eq!(retry_after(&told), Some(Duration::from_secs(1)));

        clock.advance(Duration::from_secs(10));
        let told = keys.absent(None, false, true, clock.now());
        assert_eq!(retry_after(&told), Some(FETCH_BOUND));
        assert_eq!(keys.misses(), 3);
    }
}

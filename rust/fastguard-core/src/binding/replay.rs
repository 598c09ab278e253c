//! Proofs that were used: each passes once (RFC 9449 §11.1).

use std::collections::HashMap;
use std::time::Duration;

use hashbrown::HashTable;

use super::Use;
use crate::bounds::TABLE_SHARE;
use crate::clock::{Tick, UnixTime};
use crate::denial::Denial;
use crate::hashing::KeyHasher;
use crate::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// As many proofs can be remembered at once.
const SHARDS: usize = 32;

/// Proofs are forgotten by the span of time in which they came, a whole span at once. With four, none stays longer than 4/3 of the
/// time that it must.
const SPANS: usize = 4;

type Shards<T> = Box<[Mutex<Ring<T>>]>;

/// A bounded store. None is forgotten while it could be used again: a full store refuses.
#[derive(Debug)]
pub struct Replays {
    hasher: KeyHasher,
    span: Duration,
    /// The number of the present span. It never goes back, whatever the clock does.
    present: AtomicU64,
    /// The span in which all shards were last freed of what is over.
    swept: AtomicU64,
    /// Proofs made at this time or before may have been forgotten.
    floor: Floor,
    used: Shards<HashTable<u128>>,
    holders: Shards<HashMap<u128, u32>>,
    count: AtomicUsize,
    capacity: AtomicUsize,
    lifetime: Duration,
}

/// A proof to be remembered.
#[derive(Clone, Copy, Debug)]
pub struct Used<'a> {
    /// The thumbprint of its key.
    pub thumbprint: &'a str,
    /// `jti`.
    pub id: &'a str,
    /// `iat`.
    pub issued_at: UnixTime,
    /// Who used it: a keyed hash.
    pub principal: u128,
}

impl Replays {
    /// An empty store. `lifetime`: how long a proof can be good for, counted from its first use.
    pub fn new(capacity: usize, lifetime: Duration) -> Self {
        let spans = u32::try_from(SPANS - 1).unwrap_or(1);
        Self {
            hasher: KeyHasher::random(),
            // At least a millisecond, so that it divides.
            span: (lifetime / spans).max(Duration::from_millis(1)),
            present: AtomicU64::new(0),
            swept: AtomicU64::new(0),
            floor: Floor::default(),
            used: (0..SHARDS).map(|_| Mutex::default()).collect(),
            holders: (0..SHARDS).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            capacity: AtomicUsize::new(capacity),
            lifetime,
        }
    }

    /// How long a proof is remembered at least.
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Changes how many proofs are remembered at once. Those that are too many already stay.
    pub fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    /// Remembers a proof, or only looks whether it could be remembered.
    pub(super) fn take(&self, used: &Used<'_>, now: Tick, usage: Use) -> Result<(), Denial> {
        match usage {
            Use::Once => self.record(used, now),
            Use::Look => self.check(used, now),
        }
    }

    /// Whether the proof could still be recorded as its first use. Changes nothing.
    pub fn check(&self, used: &Used<'_>, now: Tick) -> Result<(), Denial> {
        let key = self.key(used);
        let mut ring = lock(&self.used, key);
        self.advance(&mut ring, self.present(now));
        self.check_fresh(&ring, key, used)
    }

    /// Remembers a proof, or refuses because it is remembered already or no room is left.
    pub fn record(&self, used: &Used<'_>, now: Tick) -> Result<(), Denial> {
        let key = self.key(used);
        let present = self.present(now);
        let capacity = self.capacity.load(Ordering::Relaxed);
        // Before any lock is taken: it takes them all, one by one.
        let is_full = self.count.load(Ordering::Relaxed) >= capacity;
        // Once in a span: what is over does not become more before the next one.
        if is_full && self.swept.swap(present, Ordering::AcqRel) != present {
            self.sweep(present);
        }
        // INVARIANT: holders are locked before proofs, everywhere.
        let mut holders = lock(&self.holders, used.principal);
        drop(holders.advance(present));
        let mut ring = lock(&self.used, key);
        self.advance(&mut ring, present);
        self.check_fresh(&ring, key, used)?;
        let held: u32 = holders.spans.iter().filter_map(|span| span.content.get(&used.principal)).sum();
        let full = Denial::ReplaysFull { retry_after: self.span };
        if held as usize >= (capacity / TABLE_SHARE).max(1) {
            return Err(full);
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= capacity {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(full);
        }
        *holders.newest().content.entry(used.principal).or_default() += 1;
        let newest = ring.newest();
        newest.latest = newest.latest.max(Some(used.issued_at));
        newest.content.insert_unique(half(key), key, |key| half(*key));
        Ok(())
    }

    /// How many proofs are remembered.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn key(&self, used: &Used<'_>) -> u128 {
        self.hasher.hash(&[used.thumbprint.as_bytes(), used.id.as_bytes()])
    }

    fn present(&self, now: Tick) -> u64 {
        let spans = u128::from(now.as_nanos()) / self.span.as_nanos();
        let number = u64::try_from(spans).unwrap_or(u64::MAX);
        self.present.fetch_max(number, Ordering::AcqRel).max(number)
    }

    fn check_fresh(&self, ring: &Ring<HashTable<u128>>, key: u128, used: &Used<'_>) -> Result<(), Denial> {
        let is_known = |span: &Span<HashTable<u128>>| span.content.find(half(key), |other| *other == key).is_some();
        if ring.spans.iter().any(is_known) {
            return Err(Denial::ProofReplayed);
        }
        // Only after the wall clock went back can a proof be in time and yet as old as forgotten ones.
        if self.floor.is_at_or_over(used.issued_at) {
            return Err(Denial::ProofExpired { issued_at: used.issued_at });
        }
        Ok(())
    }

    fn advance(&self, ring: &mut Ring<HashTable<u128>>, present: u64) {
        for forgotten in ring.advance(present) {
            self.count.fetch_sub(forgotten.content.len(), Ordering::Relaxed);
            if let Some(latest) = forgotten.latest {
                self.floor.raise(latest);
            }
        }
    }

    fn sweep(&self, present: u64) {
        for shard in &self.used {
            self.advance(&mut shard.lock().unwrap_or_else(PoisonError::into_inner), present);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "half of a keyed hash is one too")]
const fn half(key: u128) -> u64 {
    key as u64
}

/// The shard of a key. Its index is taken from other bits than the table's own.
fn lock<T>(shards: &[Mutex<T>], key: u128) -> MutexGuard<'_, T> {
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is small")]
    let index = ((key >> 64) % SHARDS as u128) as usize;
    #[expect(clippy::indexing_slicing, reason = "the remainder is under the count of shards")]
    shards[index].lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came in each of the last spans of time.
#[derive(Debug, Default)]
struct Ring<T> {
    spans: [Span<T>; SPANS],
    present: u64,
}

#[derive(Debug, Default)]
struct Span<T> {
    content: T,
    /// The latest `iat` in it.
    latest: Option<UnixTime>,
}

impl<T: Default> Ring<T> {
    /// Goes on to the present span, and gives those that are over.
    fn advance(&mut self, present: u64) -> Vec<Span<T>> {
        let passed = present.saturating_sub(self.present);
        let turns = usize::try_from(passed).unwrap_or(SPANS).min(SPANS);
        if turns == 0 {
            return Vec::new();
        }
        self.present = present;
        self.spans.rotate_right(turns);
        self.spans.iter_mut().take(turns).map(std::mem::take).collect()
    }

    const fn newest(&mut self) -> &mut Span<T> {
        let [newest, ..] = &mut self.spans;
        newest
    }
}

/// A time that only rises, in milliseconds; at first before all others.
#[derive(Debug)]
struct Floor(AtomicI64);

impl Default for Floor {
    fn default() -> Self {
        Self(i64::MIN.into())
    }
}

impl Floor {
    fn raise(&self, to: UnixTime) {
        self.0.fetch_max(to.as_millis(), Ordering::AcqRel);
    }

    fn is_at_or_over(&self, time: UnixTime) -> bool {
        time.as_millis() <= self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(600);

    fn used(id: &str, at: i64, principal: u128) -> Used<'_> {
        Used { thumbprint: "t", id, issued_at: UnixTime::from_seconds(at), principal }
    }

    fn tick(seconds: u64) -> Tick {
        Tick::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn proof_is_used_once_until_its_lifetime_has_passed() {
        let replays = Replays::new(1_024, LIFETIME);
        assert_eq!(replays.record(&used("a", 1_000, 1), tick(1_199)), Ok(()));
        // The last moment at which it must be known, come what may of where the spans begin.
        assert_eq!(replays.record(&used("a", 1_000, 1), tick(1_799)), Err(Denial::ProofReplayed));
        assert_eq!(replays.check(&used("a", 1_000, 1), tick(1_799)), Err(Denial::ProofReplayed));
        assert_eq!(replays.len(), 1);
    }

    #[test]
    fn proofs_are_forgotten_at_last_so_that_their_room_is_free() {
        let replays = Replays::new(64, LIFETIME);
        for principal in 0..64 {
            assert_eq!(
                replays.record(&used("a", 1_000, principal), tick(0)),
                if principal == 0 { Ok(()) } else { Err(Denial::ProofReplayed) }
            );
        }
        for principal in 1..64_u128 {
            assert_eq!(replays.record(&used(&principal.to_string(), 1_000, principal), tick(0)), Ok(()));
        }
        let full = Err(Denial::ReplaysFull { retry_after: Duration::from_secs(200) });
        assert_eq!(replays.record(&used("b", 1_000, 99), tick(799)), full);
        assert_eq!(replays.record(&used("b", 2_000, 99), tick(800)), Ok(()));
        assert_eq!(replays.len(), 1);
    }

    #[test]
    fn principal_holds_its_share_and_no_more() {
        let replays = Replays::new(64 * 3, LIFETIME);
        for id in ["a", "b", "c"] {
            assert_eq!(replays.record(&used(id, 1_000, 1), tick(0)), Ok(()));
        }
        let full = Err(Denial::ReplaysFull { retry_after: Duration::from_secs(200) });
        assert_eq!(replays.record(&used("d", 1_000, 1), tick(0)), full);
        assert_eq!(replays.record(&used("d", 1_000, 2), tick(0)), Ok(()));
        assert_eq!(replays.record(&used("e", 2_000, 1), tick(800)), Ok(()));
    }

    #[test]
    fn same_id_under_another_key_is_another_proof() {
        let replays = Replays::new(1_024, LIFETIME);
        assert_eq!(replays.record(&used("a", 1_000, 1), tick(0)), Ok(()));
        assert_eq!(replays.record(&Used { thumbprint: "u", ..used("a", 1_000, 1) }, tick(0)), Ok(()));
    }

    #[test]
    fn clock_that_goes_back_brings_no_forgotten_proof_to_life() {
        let replays = Replays::new(1_024, LIFETIME);
        assert_eq!(replays.record(&used("a", 1_000, 1), tick(0)), Ok(()));
        assert_eq!(replays.record(&used("b", 2_000, 1), tick(1_000)), Ok(()));
        let expired = Err(Denial::ProofExpired { issued_at: UnixTime::from_seconds(1_000) });
        assert_eq!(replays.record(&used("a", 1_000, 1), tick(0)), expired);
        assert_eq!(replays.record(&used("c", 1_001, 1), tick(0)), Ok(()));
    }

    #[test]
    fn store_is_cut_to_a_new_capacity_by_refusals() {
        let replays = Replays::new(64 * 64, LIFETIME);
        assert_eq!(replays.record(&used("a", 1_000, 1), tick(0)), Ok(()));
        replays.set_capacity(1);
        assert!(matches!(replays.record(&used("b", 1_000, 2), tick(0)), Err(Denial::ReplaysFull { .. })));
        assert_eq!(replays.record(&used("a", 1_000, 1), tick(0)), Err(Denial::ProofReplayed));
    }
}

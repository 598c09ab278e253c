//! A table in shards, each under a lock of its own.

use super::shard::halves;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Most shards; as many calls can be in the table at once. For 33,554,432 entries; in a larger table shards have more.
const MAX_SHARDS: usize = 65_536;

/// A shard is worth its lock from this many entries on. The more shards, the fewer calls of two threads meet in one, where its lock
/// must go from one core to the other: where each goes round 64 keys of its own, one in 30 do in a table of 1,000,000.
const ENTRIES_PER_SHARD: usize = 512;

/// Keys are numbered below this when their shards are put in order.
const MOST_KEYS: usize = 64;

/// Two cache lines, so that neighbouring locks do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(Mutex<T>);

/// The shards of a table, by half of a key.
#[derive(Debug)]
pub(super) struct Shards<T>(Box<[Padded<T>]>);

impl<T: Default> Shards<T> {
    /// As many as are worth their locks in a table of at most so many entries.
    pub(super) fn of_table(most: usize) -> Self {
        let count = (most / ENTRIES_PER_SHARD).clamp(1, MAX_SHARDS).next_power_of_two();
        Self((0..count).map(|_| Padded::default()).collect())
    }
}

impl<T> Shards<T> {
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// The shard of a key.
    #[expect(clippy::cast_possible_truncation, reason = "masked by the count of shards")]
    pub(super) const fn of(&self, key: u128) -> usize {
        halves(key)[1] as usize & (self.0.len() - 1)
    }

    /// Locks the shard of a key.
    pub(super) fn lock(&self, key: u128) -> Option<MutexGuard<'_, T>> {
        self.lock_at(self.of(key))
    }

    fn lock_at(&self, shard: usize) -> Option<MutexGuard<'_, T>> {
        // A panic under the lock leaves counts that are at worst too high; refusing all calls after it would be worse.
        self.0.get(shard).map(|padded| padded.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Locks one after the other.
    pub(super) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        (0..self.len()).filter_map(|shard| self.lock_at(shard))
    }

    /// Locks the shards of at most `MOST` keys in ascending order, each once, so that no two calls wait for each other.
    pub(super) fn lock_all<const MOST: usize>(&self, keys: impl Iterator<Item = u128>) -> Held<'_, T, MOST> {
        const { assert!(MOST <= MOST_KEYS, "numbers of keys stand below their shards") }
        let mut order = [usize::MAX; MOST];
        let mut count = 0;
        for (slot, key) in order.iter_mut().zip(keys) {
            *slot = self.of(key) * MOST_KEYS + count;
            count += 1;
        }
        order.sort_unstable();
        let (mut places, mut guards) = ([0; MOST], [const { None }; MOST]);
        let (mut last, mut first) = (usize::MAX, 0);
        for (place, (guard, key)) in guards.iter_mut().zip(order).enumerate().take(count) {
            let shard = key / MOST_KEYS;
            if shard != last {
                *guard = self.lock_at(shard);
                (last, first) = (shard, place);
            }
            if let Some(of_key) = places.get_mut(key % MOST_KEYS) {
                *of_key = first;
            }
        }
        Held { shards: self, order, places, guards }
    }
}

/// The shards of a call's keys, locked.
pub(super) struct Held<'a, T, const MOST: usize> {
    shards: &'a Shards<T>,
    /// The shard of each key and the key's number, in ascending order.
    order: [usize; MOST],
    /// Where the lock of each key is, by the key's number.
    places: [usize; MOST],
    guards: [Option<MutexGuard<'a, T>>; MOST],
}

impl<T, const MOST: usize> Held<'_, T, MOST> {
    /// The shard of the key with this number.
    pub(super) fn of(&mut self, number: usize) -> Option<&mut T> {
        self.at(*self.places.get(number)?)
    }

    fn at(&mut self, place: usize) -> Option<&mut T> {
        self.guards.get_mut(place)?.as_deref_mut()
    }

    pub(super) fn shard(&mut self, key: u128) -> Option<&mut T> {
        // Where in the order a shard stands first is where its guard is.
        let shard = self.shards.of(key);
        self.at(self.order.partition_point(|other| other / MOST_KEYS < shard))
    }
}

//! Many windows: sharded, bounded, charged all together or not at all.

use std::collections::HashMap;
use std::collections::hash_map::Entry as HolderEntry;
use std::time::Duration;

use super::admit::MAX_WINDOWS;
use super::shard::{Entry, Part, Shard, halves};
use super::window::{Counter, Window, WindowSpec};
use crate::bounds::TABLE_SHARE;
use crate::clock::Tick;
use crate::denial::Fault;
use crate::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Most shards; as many calls can be charged at once.
const MAX_SHARDS: usize = 64;

/// Charges of an ordinary call, and the most of any: a rule per role counts once for each role.
const FEW_CHARGES: usize = 4;
const MAX_CHARGES: usize = 64;

/// A shard is worth its lock from this many windows on.
const WINDOWS_PER_SHARD: usize = 1_024;

/// One charge of a call.
#[derive(Clone, Copy, Debug)]
pub struct Charge<'a> {
    /// The window's key: a keyed hash.
    pub key: u128,
    /// Its quota.
    pub spec: &'a WindowSpec,
    /// How much.
    pub cost: u32,
    /// The principal, which may hold only its share of the table.
    pub holder: u128,
    /// Whether it is only asked for room: what is charged will be known when the call ends.
    pub is_look: bool,
}

impl Charge<'_> {
    /// Of nobody, in no window.
    pub(super) const NONE: Self = Self { key: 0, spec: &WindowSpec::CLOSED, cost: 0, holder: 0, is_look: false };
}

/// Every charge was made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Admitted {
    /// Which of the charges left the least.
    pub tightest: usize,
    /// What it left; [`u64::MAX`] where none was charged.
    pub remaining: u64,
}

/// No charge was made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refused {
    /// Which of the charges must wait longest.
    pub index: usize,
    /// Why.
    pub reason: Refusal,
    /// What is left of its quota.
    pub remaining: u64,
    /// How long; `None` where no time helps, because the cost is above the quota.
    pub retry_after: Option<Duration>,
}

impl Refused {
    /// Nothing is longer than for ever.
    fn waits_longer_than(&self, other: &Self) -> bool {
        other.retry_after.is_some_and(|wait| self.retry_after.is_none_or(|own| own > wait))
    }
}

/// Why a charge was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The quota is spent.
    Spent,
    /// No window is free, and none is idle.
    TableFull,
    /// The holder has its share of the table already.
    ShareFull,
}

/// Whose time a table is given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum ClockSource {
    /// The system's monotonic clock.
    System = 1,
    /// The caller's.
    Caller = 2,
}

/// Windows by key.
#[derive(Debug)]
pub struct WindowTable {
    shards: Box<[Padded]>,
    windows_per_shard: usize,
    holders: Box<[Mutex<HashMap<u64, u32>>]>,
    /// How many windows one holder may have.
    share: Option<u32>,
    count: AtomicUsize,
    clock: AtomicU8,
}

/// Two cache lines, so that neighbouring locks do not slow each other down.
#[derive(Debug)]
#[repr(align(128))]
struct Padded(Mutex<Shard>);

impl WindowTable {
    /// A table of at most `max_keys` windows.
    pub fn new(max_keys: usize) -> Self {
        let share = u32::try_from(max_keys.div_ceil(TABLE_SHARE)).unwrap_or(u32::MAX);
        Self { share: Some(share), ..Self::without_shares(max_keys) }
    }

    /// A table that does not count whose its windows are.
    pub fn without_shares(max_keys: usize) -> Self {
        let max_keys = max_keys.max(1);
        let shards = (max_keys / WINDOWS_PER_SHARD).clamp(1, MAX_SHARDS).next_power_of_two().min(MAX_SHARDS);
        Self {
            shards: (0..shards).map(|_| Padded(Mutex::default())).collect(),
            windows_per_shard: max_keys.div_ceil(shards),
            holders: (0..shards).map(|_| Mutex::default()).collect(),
            share: None,
            count: AtomicUsize::new(0),
            clock: AtomicU8::new(0),
        }
    }

    /// How many windows there are, idle ones included.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes note of whose time the table is given. Times of two clocks in one table would tell lies.
    pub fn bind_clock(&self, source: ClockSource) -> Result<(), Fault> {
        let source = source as u8;
        if self.clock.load(Ordering::Relaxed) == source {
            return Ok(());
        }
        match self.clock.compare_exchange(0, source, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(bound) if bound == source => Ok(()),
            Err(_) => Err(Fault::ClockMixed),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "masked by the count of shards")]
    const fn shard_of(&self, key: u128) -> usize {
        (key >> 64) as usize & (self.shards.len() - 1)
    }

    fn lock(&self, shard: usize) -> Option<MutexGuard<'_, Shard>> {
        // A panic under the lock leaves counts that are at worst too high; refusing all calls after it would be worse.
        self.shards.get(shard).map(|padded| padded.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Charges one window.
    pub fn admit_one(&self, charge: &Charge<'_>, now: Tick) -> Result<Admitted, Refused> {
        let Some(mut shard) = self.lock(self.shard_of(charge.key)) else { return Err(full(0, charge)) };
        let position = self.check(&mut shard, 0, charge, now)?;
        let remaining = shard.charge(charge, position);
        Ok(Admitted { tightest: 0, remaining })
    }

    /// Checks all charges, then makes them all, or none. The shards are locked in ascending order, each once.
    pub fn admit(&self, charges: &[Charge<'_>], now: Tick) -> Result<Admitted, Refused> {
        match charges {
            [charge] => self.admit_one(charge, now),
            charges if charges.len() <= FEW_CHARGES => self.admit_at_most::<FEW_CHARGES>(charges, now),
            charges if charges.len() <= MAX_WINDOWS => self.admit_at_most::<MAX_WINDOWS>(charges, now),
            charges if charges.len() <= MAX_CHARGES => self.admit_at_most::<MAX_CHARGES>(charges, now),
            charges => Err(full(0, charges.first().unwrap_or(&Charge::NONE))),
        }
    }

    fn admit_at_most<const MOST: usize>(&self, charges: &[Charge<'_>], now: Tick) -> Result<Admitted, Refused> {
        let mut order = [usize::MAX; MOST];
        for (slot, charge) in order.iter_mut().zip(charges) {
            *slot = self.shard_of(charge.key);
        }
        order.sort_unstable();
        let mut guards: [Option<MutexGuard<'_, Shard>>; MOST] = [const { None }; MOST];
        let mut held = usize::MAX;
        for (guard, shard) in guards.iter_mut().zip(order) {
            if shard != held {
                *guard = self.lock(shard);
                held = shard;
            }
        }
        // Where in the order a shard stands first is where its guard is.
        let place = |key: u128| order.partition_point(|shard| *shard < self.shard_of(key));
        let mut refused: Option<Refused> = None;
        for (index, charge) in charges.iter().enumerate().take(MOST) {
            // Two charges of one window must fit together.
            let same = charges.iter().take(index).filter(|other| other.key == charge.key);
            let cost = same.fold(charge.cost, |sum, other| sum.saturating_add(other.cost));
            let outcome = match guards.get_mut(place(charge.key)).and_then(Option::as_mut) {
                Some(shard) => self.check(shard, index, &Charge { cost, ..*charge }, now),
                None => Err(full(index, charge)),
            };
            if let Err(refusal) = outcome
                && refused.is_none_or(|worst| refusal.waits_longer_than(&worst))
            {
                refused = Some(refusal);
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        let mut admitted = Admitted { tightest: 0, remaining: u64::MAX };
        for (index, charge) in charges.iter().enumerate().take(MOST) {
            if let Some(shard) = guards.get_mut(place(charge.key)).and_then(Option::as_mut) {
                let Some(position) = shard.position(charge) else { continue };
                let remaining = shard.charge(charge, position);
                if remaining < admitted.remaining {
                    admitted = Admitted { tightest: index, remaining };
                }
            }
        }
        Ok(admitted)
    }

    /// Charges what is known only afterwards, whether it fits or not. `charge.cost` is 1, so that a window can be made for it.
    // Where the table is full meanwhile, and the call has outlived its window, the charge is lost.
    pub(super) fn overdraw(&self, charge: &Charge<'_>, cost: u64, now: Tick) {
        let Some(mut shard) = self.lock(self.shard_of(charge.key)) else { return };
        // The refusal of a spent window is meant for the next call.
        let _ = self.check(&mut shard, 0, charge, now);
        if let Some(position) = shard.position(charge) {
            shard.overdraw(charge, position, cost);
        }
    }

    /// Brings the window to `now`, makes it where there is none, and says where it is if it has room.
    fn check(&self, shard: &mut Shard, index: usize, charge: &Charge<'_>, now: Tick) -> Result<u32, Refused> {
        if charge.spec.is_narrow() {
            self.check_part(shard, |shard| &mut shard.narrow, index, charge, now)
        } else {
            self.check_part(shard, |shard| &mut shard.wide, index, charge, now)
        }
    }

    fn check_part<C: Counter>(
        &self,
        shard: &mut Shard,
        part: fn(&mut Shard) -> &mut Part<C>,
        index: usize,
        charge: &Charge<'_>,
        now: Tick,
    ) -> Result<u32, Refused> {
        let position = match part(shard).find(charge.key) {
            Some(position) => position,
            None => self.make(shard, part, index, charge, now)?,
        };
        let Some(entry) = part(shard).entry_mut(position) else { return Err(full(index, charge)) };
        entry.window.advance(charge.spec, now);
        // INVARIANT: a window that is about to be charged is not idle, so making another cannot sweep it away.
        entry.idle_from = entry.window.idle_from(charge.spec);
        if entry.window.has_room(charge.spec, charge.cost) {
            return Ok(position);
        }
        let retry_after = entry.window.retry_after(charge.spec, charge.cost, now);
        let remaining = entry.window.remaining(charge.spec);
        Err(Refused { index, reason: Refusal::Spent, remaining, retry_after })
    }

    /// Makes a window, in the place of idle ones where the table or the holder's share of it is full.
    fn make<C: Counter>(
        &self,
        shard: &mut Shard,
        part: fn(&mut Shard) -> &mut Part<C>,
        index: usize,
        charge: &Charge<'_>,
        now: Tick,
    ) -> Result<u32, Refused> {
        if !charge.spec.quota().ge(&charge.cost.max(1)) {
            // Nothing can ever be charged here: a window for it would only take room.
            let remaining = u64::from(charge.spec.quota());
            return Err(Refused { index, reason: Refusal::Spent, remaining, retry_after: None });
        }
        let mut freed = Vec::new();
        shard.narrow.sweep(now, &mut freed);
        shard.wide.sweep(now, &mut freed);
        for holder in freed {
            self.give_back(holder);
        }
        if shard.narrow.len() + shard.wide.len() >= self.windows_per_shard {
            return Err(full(index, charge));
        }
        if !self.take_share(halves(charge.holder)[0]) {
            return Err(Refused { reason: Refusal::ShareFull, ..full(index, charge) });
        }
        let mut window = Window::new();
        window.advance(charge.spec, now);
        let idle_from = window.idle_from(charge.spec);
        let entry = Entry { key: halves(charge.key), holder: halves(charge.holder)[0], idle_from, window };
        self.count.fetch_add(1, Ordering::Relaxed);
        part(shard).insert(entry).ok_or_else(|| full(index, charge))
    }

    fn holders_of(&self, holder: u64) -> Option<MutexGuard<'_, HashMap<u64, u32>>> {
        let holders = self.holders.get(self.shard_of(u128::from(holder) << 64))?;
        Some(holders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take_share(&self, holder: u64) -> bool {
        let Some(share) = self.share else { return true };
        let Some(mut holders) = self.holders_of(holder) else { return false };
        let held = holders.entry(holder).or_default();
        let has_room = *held < share;
        *held += u32::from(has_room);
        has_room
    }

    fn give_back(&self, holder: u64) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        if self.share.is_none() {
            return;
        }
        let Some(mut holders) = self.holders_of(holder) else { return };
        if let HolderEntry::Occupied(mut held) = holders.entry(holder) {
            *held.get_mut() = held.get().saturating_sub(1);
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

const fn full(index: usize, charge: &Charge<'_>) -> Refused {
    let retry_after = Some(charge.spec.longest_wait());
    Refused { index, reason: Refusal::TableFull, remaining: 0, retry_after }
}

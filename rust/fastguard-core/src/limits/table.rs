//! Many windows: sharded, bounded, charged all together or not at all.

use std::collections::HashMap;
use std::collections::hash_map::Entry as HolderEntry;
use std::time::Duration;

use super::admit::MAX_WINDOWS;
use super::locks::{Held, Shards};
use super::overflow::{Newcomers, Overflow};
use super::shard::{Entry, Part, Place, Shard, halves};
use super::window::{Counter, Window, WindowSpec};
use crate::bounds::TABLE_SHARE;
use crate::clock::Tick;
use crate::denial::Fault;
use crate::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Charges of an ordinary call, whose lists stand on the stack; and the most of any: a rule per role counts once for each role.
pub(super) const FEW_CHARGES: usize = 4;
pub(super) const MAX_CHARGES: usize = 64;

/// Most parts of the table of holders, each under a lock that is taken where a window is made or removed.
const MAX_HOLDER_PARTS: usize = 64;

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
    /// Which window newcomers share with it when the table is full: the same for all keys of a rule's window.
    pub overflow: u128,
}

impl Charge<'_> {
    /// Of nobody, in no window.
    pub(super) const NONE: Self =
        Self { key: 0, spec: &WindowSpec::CLOSED, cost: 0, holder: 0, is_look: false, overflow: 0 };
}

/// Every charge was made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Admitted {
    /// Which of the charges left the least.
    pub tightest: usize,
    /// What it left; [`u64::MAX`] where none was charged.
    pub remaining: u64,
    /// Whether one of them was made in a window that newcomers share.
    pub is_together: bool,
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
    pub(super) const fn full(index: usize, charge: &Charge<'_>) -> Self {
        let retry_after = Some(charge.spec.longest_wait());
        Self { index, reason: Refusal::TableFull, remaining: 0, retry_after }
    }

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
    /// The quota of the window that newcomers share is spent, because the table is full.
    SpentTogether,
    /// No window is free, none is idle, and newcomers can share none.
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
    shards: Shards<Shard>,
    max_keys: usize,
    windows_per_shard: usize,
    /// How many windows each holder has, by its hash; nothing where that does not matter.
    holders: Box<[Mutex<HashMap<u64, u32>>]>,
    /// How many windows one holder may have.
    share: Option<u32>,
    overflow: Overflow,
    count: AtomicUsize,
    clock: AtomicU8,
}

impl WindowTable {
    /// A table of at most `max_keys` windows.
    pub fn new(max_keys: usize) -> Self {
        let share = u32::try_from(max_keys.div_ceil(TABLE_SHARE)).unwrap_or(u32::MAX);
        let table = Self::without_shares(max_keys);
        let parts = table.shards.len().min(MAX_HOLDER_PARTS);
        Self { share: Some(share), holders: (0..parts).map(|_| Mutex::default()).collect(), ..table }
    }

    /// A table that does not count whose its windows are.
    pub fn without_shares(max_keys: usize) -> Self {
        let max_keys = max_keys.max(1);
        let shards = Shards::of_table(max_keys);
        let mean = max_keys.div_ceil(shards.len());
        Self {
            max_keys,
            // Hashes are not spread evenly: of shards that have 500 on average, one in 70,000 has 94 more.
            windows_per_shard: mean + mean / 8 + 32,
            holders: Box::default(),
            shards,
            share: None,
            overflow: Overflow::default(),
            count: AtomicUsize::new(0),
            clock: AtomicU8::new(0),
        }
    }

    /// How many windows there are, idle ones included.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// How often newcomers were charged in a window that they share, because the table was full.
    pub fn overflowed(&self) -> u64 {
        self.overflow.charged()
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

    /// Charges one window.
    pub fn admit_one(&self, charge: &Charge<'_>, now: Tick) -> Result<Admitted, Refused> {
        let Some(mut shard) = self.shards.lock(charge.key) else { return Err(Refused::full(0, charge)) };
        if let Some(remaining) = shard.charge_found(charge, now) {
            return Ok(Admitted { tightest: 0, remaining, is_together: false });
        }
        let mut newcomers = None;
        if self.check(&mut shard, 0, charge, &mut newcomers, now)? {
            let remaining = shard.charge_found(charge, now).ok_or_else(|| Refused::full(0, charge))?;
            return Ok(Admitted { tightest: 0, remaining, is_together: false });
        }
        let newcomers = newcomers.get_or_insert_with(|| self.overflow.lock());
        newcomers.check(0, charge, now)?;
        Ok(Admitted { tightest: 0, remaining: newcomers.charge(charge), is_together: true })
    }

    /// Checks all charges, then makes them all, or none. The shards are locked in ascending order, each once.
    pub fn admit(&self, charges: &[Charge<'_>], now: Tick) -> Result<Admitted, Refused> {
        match charges {
            [charge] => self.admit_one(charge, now),
            charges if charges.len() <= FEW_CHARGES => self.admit_at_most::<FEW_CHARGES>(charges, now),
            charges if charges.len() <= MAX_WINDOWS => self.admit_at_most::<MAX_WINDOWS>(charges, now),
            charges if charges.len() <= MAX_CHARGES => self.admit_at_most::<MAX_CHARGES>(charges, now),
            charges => Err(Refused::full(0, charges.first().unwrap_or(&Charge::NONE))),
        }
    }

    fn admit_at_most<const MOST: usize>(&self, charges: &[Charge<'_>], now: Tick) -> Result<Admitted, Refused> {
        let mut held: Held<'_, Shard, MOST> = self.shards.lock_all(charges.iter().map(|charge| charge.key));
        Self::charge_found(charges, &mut held, now).map_or_else(|| self.check_all(charges, &mut held, now), Ok)
    }

    /// Charges one window after the other, as long as each is there and has room; else takes everything back. In one pass, because
    /// that is how nearly all calls go, and under locks that let nobody see what was taken back.
    fn charge_found<const MOST: usize>(
        charges: &[Charge<'_>],
        held: &mut Held<'_, Shard, MOST>,
        now: Tick,
    ) -> Option<Admitted> {
        let mut admitted = Admitted { tightest: 0, remaining: u64::MAX, is_together: false };
        for (index, charge) in charges.iter().enumerate() {
            let Some(remaining) = held.of(index).and_then(|shard| shard.charge_found(charge, now)) else {
                for (before, charge) in charges.iter().enumerate().take(index) {
                    held.of(before)?.take_back(charge);
                }
                return None;
            };
            if remaining < admitted.remaining {
                (admitted.tightest, admitted.remaining) = (index, remaining);
            }
        }
        Some(admitted)
    }

    /// Checks every charge, makes the windows that are missing, and makes all charges if each has room.
    // Kept out of the way of calls whose windows are there and have room.
    #[inline(never)]
    fn check_all<const MOST: usize>(
        &self,
        charges: &[Charge<'_>],
        held: &mut Held<'_, Shard, MOST>,
        now: Tick,
    ) -> Result<Admitted, Refused> {
        // Which of them will be made in a window that newcomers share.
        let mut together = [false; MOST];
        let (mut refused, mut newcomers): (Option<Refused>, _) = (None, None);
        for (index, charge) in charges.iter().enumerate().take(MOST) {
            // Two charges of one window must fit together.
            let before = || charges.iter().zip(together).take(index);
            let sum = |sum: u32, (other, _): (&Charge<'_>, bool)| sum.saturating_add(other.cost);
            let cost = before().filter(|(other, _)| other.key == charge.key).fold(charge.cost, sum);
            let outcome = match held.of(index) {
                Some(shard) => self.check(shard, index, &Charge { cost, ..*charge }, &mut newcomers, now),
                None => Err(Refused::full(index, charge)),
            };
            let outcome = outcome.and_then(|is_own| {
                if !is_own {
                    let same = before().filter(|(other, there)| *there && other.overflow == charge.overflow);
                    let cost = same.fold(charge.cost, sum);
                    let newcomers = newcomers.get_or_insert_with(|| self.overflow.lock());
                    newcomers.check(index, &Charge { cost, ..*charge }, now)?;
                }
                Ok(!is_own)
            });
            match outcome {
                Ok(is_together) => together.iter_mut().skip(index).take(1).for_each(|slot| *slot = is_together),
                Err(refusal) if refused.is_none_or(|worst| refusal.waits_longer_than(&worst)) => {
                    refused = Some(refusal);
                }
                Err(_) => {}
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        Ok(Self::charge_all(charges, &together, held, newcomers, now))
    }

    /// Makes charges that were all checked under these locks.
    fn charge_all<const MOST: usize>(
        charges: &[Charge<'_>],
        together: &[bool],
        held: &mut Held<'_, Shard, MOST>,
        mut newcomers: Option<Newcomers<'_>>,
        now: Tick,
    ) -> Admitted {
        let mut admitted = Admitted { tightest: 0, remaining: u64::MAX, is_together: false };
        for (index, (charge, is_together)) in charges.iter().zip(together).enumerate() {
            admitted.is_together |= *is_together;
            let remaining = match &mut newcomers {
                Some(newcomers) if *is_together => Some(newcomers.charge(charge)),
                // Found once more: making the window of another charge may have moved this one.
                _ => held.of(index).and_then(|shard| shard.charge_found(charge, now)),
            };
            if let Some(remaining) = remaining.filter(|remaining| *remaining < admitted.remaining) {
                (admitted.tightest, admitted.remaining) = (index, remaining);
            }
        }
        admitted
    }

    /// Charges what is known only afterwards, whether it fits or not. `charge.cost` is 1, so that a window can be made for it.
    pub(super) fn overdraw(&self, charge: &Charge<'_>, cost: u64, now: Tick) {
        let Some(mut shard) = self.shards.lock(charge.key) else { return };
        let mut newcomers = None;
        // The refusal of a spent window is meant for the next call.
        let outcome = self.check(&mut shard, 0, charge, &mut newcomers, now);
        if !shard.overdraw(charge, cost) && matches!(outcome, Ok(false)) {
            let newcomers = newcomers.get_or_insert_with(|| self.overflow.lock());
            let _ = newcomers.check(0, charge, now);
            newcomers.overdraw(charge, cost);
        }
    }

    /// How a window stands: what is left, and in what time there is room for the cost where there is none. Makes and charges nothing.
    pub fn look(&self, charge: &Charge<'_>, now: Tick) -> (u64, Option<Duration>) {
        let spec = charge.spec;
        let whole = (u64::from(spec.quota()), None);
        let Some(shard) = self.shards.lock(charge.key) else { return whole };
        if let Some(found) = shard.look(charge, now) {
            return found;
        }
        let is_full = shard.len() >= self.windows_per_shard || self.len() >= self.max_keys;
        if !is_full && self.overflow.is_idle(now) {
            return whole;
        }
        self.overflow.lock().standing(charge, now).map_or(whole, |window| window.look(spec, charge.cost, now))
    }

    /// Brings the window to `now`, makes it where there is none, and refuses where it has no room. `false` where there is none
    /// because the table is full: then newcomers share one.
    fn check<'a>(
        &'a self,
        shard: &mut Shard,
        index: usize,
        charge: &Charge<'_>,
        newcomers: &mut Option<Newcomers<'a>>,
        now: Tick,
    ) -> Result<bool, Refused> {
        if charge.spec.is_narrow() {
            self.check_part(shard, |shard| &mut shard.narrow, index, charge, newcomers, now)
        } else {
            self.check_part(shard, |shard| &mut shard.wide, index, charge, newcomers, now)
        }
    }

    fn check_part<'a, C: Counter>(
        &'a self,
        shard: &mut Shard,
        part: fn(&mut Shard) -> &mut Part<C>,
        index: usize,
        charge: &Charge<'_>,
        newcomers: &mut Option<Newcomers<'a>>,
        now: Tick,
    ) -> Result<bool, Refused> {
        let place = match part(shard).find(charge.key) {
            Some(place) => place,
            None => match self.make(shard, part, index, charge, newcomers, now)? {
                Some(place) => place,
                None => return Ok(false),
            },
        };
        let Some(entry) = part(shard).entry_mut(place) else { return Err(Refused::full(index, charge)) };
        // INVARIANT: a window that is about to be charged is not idle, so making another cannot sweep it away.
        entry.window.advance(charge.spec, now);
        if entry.window.has_room(charge.spec, charge.cost) {
            return Ok(true);
        }
        let retry_after = entry.window.retry_after(charge.spec, charge.cost, now);
        let remaining = entry.window.remaining(charge.spec);
        Err(Refused { index, reason: Refusal::Spent, remaining, retry_after })
    }

    /// Makes a window, in the place of idle ones where the table or the holder's share of it is full. `None` where all are in use.
    fn make<'a, C: Counter>(
        &'a self,
        shard: &mut Shard,
        part: fn(&mut Shard) -> &mut Part<C>,
        index: usize,
        charge: &Charge<'_>,
        newcomers: &mut Option<Newcomers<'a>>,
        now: Tick,
    ) -> Result<Option<Place>, Refused> {
        if !charge.spec.quota().ge(&charge.cost.max(1)) {
            // Nothing can ever be charged here: a window for it would only take room.
            let remaining = u64::from(charge.spec.quota());
            return Err(Refused { index, reason: Refusal::Spent, remaining, retry_after: None });
        }
        for holder in shard.sweep(now) {
            self.give_back(holder);
        }
        let holder = halves(charge.holder)[0];
        let is_full = shard.len() >= self.windows_per_shard || !self.take_room();
        let has_share = if is_full { self.has_share(holder) } else { !self.take_share(holder) };
        // Whoever has its share of the table already is none of the newcomers, and must not spend what they have.
        if has_share {
            if !is_full {
                self.give_room_back();
            }
            return Err(Refused { reason: Refusal::ShareFull, ..Refused::full(index, charge) });
        }
        if is_full {
            return Ok(None);
        }
        let mut window = Window::new();
        if !self.overflow.is_idle(now) {
            let newcomers = newcomers.get_or_insert_with(|| self.overflow.lock());
            window = newcomers.standing(charge, now).map_or(window, Window::like);
        }
        window.advance(charge.spec, now);
        let entry = Entry { key: halves(charge.key), holder, window };
        part(shard).insert(entry).map(Some).ok_or_else(|| Refused::full(index, charge))
    }

    fn holders_of(&self, holder: u64) -> Option<MutexGuard<'_, HashMap<u64, u32>>> {
        #[expect(clippy::cast_possible_truncation, reason = "the remainder is below the count")]
        let part = holder.checked_rem(self.holders.len() as u64)? as usize;
        let holders = self.holders.get(part)?;
        Some(holders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts one more window, if the table has room for it.
    fn take_room(&self) -> bool {
        let has_room = self.count.fetch_add(1, Ordering::Relaxed) < self.max_keys;
        if !has_room {
            self.give_room_back();
        }
        has_room
    }

    fn give_room_back(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    fn take_share(&self, holder: u64) -> bool {
        let Some(share) = self.share else { return true };
        let Some(mut holders) = self.holders_of(holder) else { return false };
        let held = holders.entry(holder).or_default();
        let has_room = *held < share;
        *held += u32::from(has_room);
        has_room
    }

    fn has_share(&self, holder: u64) -> bool {
        let Some(share) = self.share else { return false };
        self.holders_of(holder).is_none_or(|holders| holders.get(&holder).is_some_and(|held| *held >= share))
    }

    fn give_back(&self, holder: u64) {
        self.give_room_back();
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

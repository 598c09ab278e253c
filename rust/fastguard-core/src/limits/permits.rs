//! The leases of a process, by window: used where they have permits, asked for outside where they have not.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashTable;

use super::asking::{Asking, AtHand, Begun, Reserved, Spent};
use super::lease::{Lease, Question, Terms, is_leasable};
use super::locks::{Held, Shards};
use super::own::OwnWindows;
use super::shard::halves;
use super::sliding::SlidingWindow;
use super::table::{FEW_CHARGES, MAX_CHARGES};
use crate::clock::Tick;
use crate::sync::MutexGuard;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Leases of a process. Beyond them, rules run exact.
const MAX_LEASES: usize = 100_000;

/// Keys in the process's own windows of one rule.
const MAX_KEYS: usize = 1_000_000;

/// A question that has been under way for so long is no longer waited for: whoever asked it may stand still.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a call is charged in one window of all processes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// The window's key, the same in every process.
    pub key: u128,
    /// The most that any window of the length may hold.
    pub quota: u32,
    /// The window's length.
    pub window: Duration,
    /// How much is charged.
    pub cost: u32,
    /// Whether the rule takes permits in advance.
    pub is_leased: bool,
}

impl Wanted {
    /// Nothing of nobody.
    pub(super) const NONE: Self = Self { key: 0, quota: 0, window: Duration::ZERO, cost: 0, is_leased: false };

    fn is_of(&self, entry: &Entry) -> bool {
        entry.key == self.key && entry.quota == self.quota && entry.window == self.window
    }

    fn is_same_window(&self, other: &Self) -> bool {
        self.is_leased
            && other.is_leased
            && (self.key, self.quota, self.window) == (other.key, other.quota, other.window)
    }
}

/// The permits of a process. All its threads and event loops share them.
#[derive(Debug)]
pub struct Permits {
    /// Replaced in a child process, whose parent may have held any of the locks.
    table: ArcSwap<Table>,
    pub(super) own: OwnWindows,
    numbers: AtomicU64,
    terms: fn(&Wanted, u32) -> Terms,
}

#[derive(Debug)]
pub(super) struct Table {
    shards: Shards<Shard>,
    most_per_shard: usize,
}

#[derive(Debug, Default)]
pub(super) struct Shard {
    leases: HashTable<Entry>,
    /// Calls that [`Permits::take`] has decided.
    answered: u64,
}

/// A lease, and what becomes of its permits.
#[derive(Debug)]
pub(super) struct Entry {
    key: u128,
    quota: u32,
    window: Duration,
    pub(super) terms: Terms,
    pub(super) lease: Lease,
    /// Used, and not yet charged in the process's own windows.
    pub(super) unsettled: u32,
    /// In the hand of calls that wait for the store because of another rule, and until when they can be used.
    pub(super) reserved: u32,
    pub(super) reserved_until: Tick,
    /// Who asks for more, and since when.
    pub(super) asking: Option<(u64, Tick)>,
    /// By whose question the lease was granted.
    pub(super) granted_by: u64,
}

impl Entry {
    fn new(wanted: &Wanted, terms: Terms) -> Self {
        let &Wanted { key, quota, window, .. } = wanted;
        Self {
            key,
            quota,
            window,
            terms,
            lease: Lease::default(),
            unsettled: 0,
            reserved: 0,
            reserved_until: Tick::default(),
            asking: None,
            granted_by: 0,
        }
    }

    /// Keeps permits for a call that waits. Gives when they can be used no more.
    fn reserve(&mut self, cost: u32) -> Tick {
        self.lease.take(cost);
        self.reserved = self.reserved.saturating_add(cost);
        self.reserved_until = self.lease.ends_at();
        self.reserved_until
    }

    /// Uses permits.
    pub(super) const fn take(&mut self, cost: u32) {
        self.lease.take(cost);
        self.unsettled = self.unsettled.saturating_add(cost);
    }

    /// Charges the process's own windows for what was used. Nothing was used after the lease has ended.
    pub(super) fn settle(&mut self, own: &OwnWindows, now: Tick) {
        let used = std::mem::take(&mut self.unsettled);
        if used > 0 {
            own.used(self.key, self.quota, self.window, used, now.min(self.lease.ends_at()));
        }
    }

    /// What the store may grant before this process has used its whole quota, whatever it says.
    pub(super) fn room(&self, own: &OwnWindows, now: Tick) -> u32 {
        let reserved = if now < self.reserved_until { self.reserved } else { 0 };
        own.room(self.key, self.quota, self.window, now).saturating_sub(reserved)
    }

    /// Whether nobody would miss it.
    fn is_over(&self, now: Tick) -> bool {
        now >= self.lease.ends_at() && self.asking.is_none() && self.reserved == 0
    }

    const fn hash(&self) -> u64 {
        halves(self.key)[0]
    }
}

impl Shard {
    pub(super) fn find(&mut self, wanted: &Wanted) -> Option<&mut Entry> {
        self.leases.find_mut(halves(wanted.key)[0], |entry| wanted.is_of(entry))
    }

    /// The lease of a window; `None` where there are too many that run. One that is over leaves, and what it did not use stays
    /// counted in the store.
    fn make(&mut self, wanted: &Wanted, permits: &Permits, most: usize, now: Tick) -> Option<&mut Entry> {
        let own = &permits.own;
        if self.find(wanted).is_none() {
            if self.leases.len() >= most {
                self.leases.retain(|entry| {
                    let is_over = entry.is_over(now);
                    if is_over {
                        entry.settle(own, now);
                    }
                    !is_over
                });
            }
            if self.leases.len() >= most {
                return None;
            }
            let terms = (permits.terms)(wanted, own.processes());
            self.leases.insert_unique(halves(wanted.key)[0], Entry::new(wanted, terms), Entry::hash);
        }
        self.find(wanted)
    }
}

impl Table {
    fn new(most: usize) -> Self {
        let shards = Shards::of_table(most);
        Self { most_per_shard: most.div_ceil(shards.len()), shards }
    }

    pub(super) fn shard(&self, wanted: &Wanted) -> Option<MutexGuard<'_, Shard>> {
        self.shards.lock(wanted.key)
    }

    fn lock_all<const MOST: usize>(&self, wanted: &[Wanted]) -> Held<'_, Shard, MOST> {
        self.shards.lock_all(wanted.iter().filter(|charge| charge.is_leased).map(|charge| charge.key))
    }
}

impl<const MOST: usize> Held<'_, Shard, MOST> {
    fn entry(&mut self, wanted: &Wanted) -> Option<&mut Entry> {
        self.shard(wanted.key)?.find(wanted)
    }
}

impl Permits {
    /// None yet. `processes`: how many share the quotas.
    pub fn new(processes: u32) -> Self {
        let terms = |wanted: &Wanted, processes| Terms::of(wanted.quota, wanted.window, processes);
        Self::with_terms(processes, terms, MAX_LEASES, MAX_KEYS)
    }

    pub(super) fn with_terms(
        processes: u32,
        terms: fn(&Wanted, u32) -> Terms,
        max_leases: usize,
        max_keys: usize,
    ) -> Self {
        let table = ArcSwap::from_pointee(Table::new(max_leases));
        Self { table, own: OwnWindows::new(processes, max_keys), numbers: AtomicU64::new(0), terms }
    }

    /// Whether a rule of this quota and window takes permits in advance; others are counted exactly.
    pub fn is_leasable(&self, quota: u64, window: Duration) -> bool {
        is_leasable(quota, window, self.own.processes())
    }

    /// The process's own window that holds what the store admits: the whole quota over 7/8 of the window.
    pub fn bound(&self, quota: u64, window: Duration) -> Result<Arc<SlidingWindow>, &'static str> {
        self.own.bound(quota, window)
    }

    /// The process's share of the quota, for when the store is away.
    pub fn share(&self, quota: u64, window: Duration) -> Result<Arc<SlidingWindow>, &'static str> {
        self.own.share(quota, window)
    }

    /// Uses the permits at hand for all charges, or for none. `left` is told the place of each and what its window has left.
    pub fn take(&self, wanted: &[Wanted], now: Tick, left: impl FnMut(usize, u64)) -> AtHand {
        self.take_as(wanted, now, 1, left)
    }

    /// The same, for whoever counts by itself what it has decided.
    pub fn take_uncounted(&self, wanted: &[Wanted], now: Tick, left: impl FnMut(usize, u64)) -> AtHand {
        self.take_as(wanted, now, 0, left)
    }

    fn take_as(&self, wanted: &[Wanted], now: Tick, answers: u64, left: impl FnMut(usize, u64)) -> AtHand {
        match wanted {
            [_] => self.take_at_most::<1>(wanted, now, answers, left),
            wanted if wanted.len() <= FEW_CHARGES => self.take_at_most::<FEW_CHARGES>(wanted, now, answers, left),
            wanted if wanted.len() <= MAX_CHARGES => self.take_at_most::<MAX_CHARGES>(wanted, now, answers, left),
            _ => AtHand::Lacking,
        }
    }

    fn take_at_most<const COUNT: usize>(
        &self,
        wanted: &[Wanted],
        now: Tick,
        answers: u64,
        mut left: impl FnMut(usize, u64),
    ) -> AtHand {
        if wanted.is_empty() || !wanted.iter().all(|charge| charge.is_leased) {
            return AtHand::Lacking;
        }
        let table = self.table.load();
        let mut locked = table.lock_all::<COUNT>(wanted);
        let (mut has_all, mut spent) = (true, None);
        for (place, charge) in wanted.iter().enumerate() {
            let Some(entry) = locked.entry(charge) else {
                has_all = false;
                continue;
            };
            if !entry.lease.has(cost_until(wanted, place), now, &entry.terms) {
                has_all = false;
                spent = longest(spent, place, charge, entry, now);
            }
        }
        if !has_all && spent.is_none() {
            return AtHand::Lacking;
        }
        if let Some(shard) = wanted.first().and_then(|first| locked.shard(first.key)) {
            shard.answered += answers;
        }
        if let Some(spent) = spent {
            return AtHand::Spent(spent);
        }
        for (place, charge) in wanted.iter().enumerate() {
            if let Some(entry) = locked.entry(charge) {
                entry.take(charge.cost);
                left(place, entry.lease.standing());
            }
        }
        AtHand::Taken
    }

    /// Uses the permits at hand, or says what the store is asked for. `must_ask`: the call needs its word in any case.
    pub fn begin(self: &Arc<Self>, wanted: &[Wanted], must_ask: bool, now: Tick) -> Begun {
        let mut left = Vec::with_capacity(wanted.len());
        if !must_ask {
            match self.take_uncounted(wanted, now, |_, remaining| left.push(remaining)) {
                AtHand::Taken => return Begun::Taken(left),
                AtHand::Spent(spent) => return Begun::Spent(spent),
                AtHand::Lacking => {}
            }
        }
        self.ask(wanted, must_ask, now)
    }

    fn ask(self: &Arc<Self>, wanted: &[Wanted], must_ask: bool, now: Tick) -> Begun {
        let table = self.table.load_full();
        let mut locked = table.lock_all::<MAX_CHARGES>(wanted);
        let (mut lacking, mut at_hand) = (Vec::new(), Vec::new());
        let (mut spent, mut busy) = (None, None);
        for (place, charge) in wanted.iter().enumerate().take(MAX_CHARGES).filter(|(_, charge)| charge.is_leased) {
            let Some(shard) = locked.shard(charge.key) else { continue };
            // Where there is no room for one more, the window is asked for exactly.
            let Some(entry) = shard.make(charge, self, table.most_per_shard, now) else { continue };
            if entry.lease.has(cost_until(wanted, place), now, &entry.terms) {
                at_hand.push(place);
                continue;
            }
            lacking.push(place);
            spent = longest(spent, place, charge, entry, now);
            busy = busy.or(entry.asking.filter(|(_, since)| now.since(*since) < PATIENCE));
        }
        match (spent, busy) {
            (Some(spent), _) => return Begun::Spent(spent),
            (None, Some((number, _))) => return Begun::Busy(number),
            (None, None) => {}
        }
        if !must_ask && at_hand.len() == wanted.len() {
            // Somebody has brought them since the first look.
            let take = |charge| {
                let entry = locked.entry(charge)?;
                entry.take(charge.cost);
                Some(entry.lease.standing())
            };
            return Begun::Taken(wanted.iter().filter_map(take).collect());
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let reserve = |place: usize| {
            let charge = wanted.get(place)?;
            Some(Reserved { place, ends_at: locked.entry(charge)?.reserve(charge.cost) })
        };
        let reserved = at_hand.into_iter().filter_map(reserve).collect();
        let mut ask = |place: usize| {
            let charge = wanted.get(place)?;
            let entry = locked.entry(charge)?;
            entry.settle(&self.own, now);
            entry.asking = Some((number, now));
            Some(entry.lease.ask(place, charge.cost, &entry.terms))
        };
        let questions: Vec<Question> = lacking.into_iter().filter_map(&mut ask).collect();
        drop(locked);
        Begun::Asking(Box::new(Asking::new(Arc::clone(self), table, (number, now), wanted, questions, reserved)))
    }

    /// Charges the process's own windows for what was used of these leases, so that they tell the truth.
    pub fn settle(&self, wanted: &[Wanted], now: Tick) {
        let table = self.table.load();
        for charge in wanted.iter().filter(|charge| charge.is_leased) {
            if let Some(entry) = table.shard(charge).as_mut().and_then(|shard| shard.find(charge)) {
                entry.settle(&self.own, now);
            }
        }
    }

    /// How many calls [`Permits::take`] has decided.
    pub fn answered(&self) -> u64 {
        self.table.load().shards.each().map(|shard| shard.answered).sum()
    }

    /// How many leases there are, those that have ended included.
    pub fn len(&self) -> usize {
        self.table.load().shards.each().map(|shard| shard.leases.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In a child process: the permits are the parent's.
    pub fn after_fork(&self) {
        let table = self.table.load();
        self.table.store(Arc::new(Table::new(table.most_per_shard * table.shards.len())));
    }

    /// What the model must know of a window.
    #[cfg(test)]
    pub(super) fn with_entry<T>(&self, wanted: &Wanted, what: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let table = self.table.load_full();
        let mut shard = table.shard(wanted)?;
        shard.find(wanted).map(what)
    }
}

/// What the charges up to this one cost in its window.
fn cost_until(wanted: &[Wanted], place: usize) -> u32 {
    let Some(charge) = wanted.get(place) else { return u32::MAX };
    let before = wanted.iter().take(place).filter(|other| other.is_same_window(charge));
    before.fold(charge.cost, |sum, other| sum.saturating_add(other.cost))
}

/// Of those without room the one that waits longest.
fn longest(spent: Option<Spent>, place: usize, charge: &Wanted, entry: &Entry, now: Tick) -> Option<Spent> {
    let Some(retry_after) = entry.lease.wait(charge.cost, now) else { return spent };
    if spent.is_some_and(|spent| spent.retry_after >= retry_after) {
        return spent;
    }
    Some(Spent { place, remaining: entry.lease.permits().into(), retry_after })
}

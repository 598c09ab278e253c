//! What a call owes until it ends: its place among those that run, and what its result will have counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::table::{Charge, WindowTable};
use super::window::WindowSpec;
use crate::clock::Tick;
use crate::config::Meter;
use crate::denial::Denial;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// How many calls run, by key. It holds no more entries than calls that run have places, so it needs no bound of its own.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<HashMap<u128, u32>>);

/// One place that a call needs.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) rule: Arc<str>,
    pub(super) key: u128,
    /// How many may run at once.
    pub(super) most: u32,
}

/// The counts under their lock, so that what is checked and what is taken are one step.
pub(super) struct Places<'a>(MutexGuard<'a, HashMap<u128, u32>>);

impl Running {
    pub(super) fn lock(&self) -> Places<'_> {
        Places(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Places<'_> {
    pub(super) fn check(&self, wanted: &[Place]) -> Result<(), Denial> {
        let has_room = |place: &&Place| self.0.get(&place.key).copied().unwrap_or(0) < place.most;
        match wanted.iter().find(|place| !has_room(place)) {
            Some(full) => Err(Denial::ConcurrencySpent { rule: full.rule.to_string(), concurrent: full.most }),
            None => Ok(()),
        }
    }

    pub(super) fn left(&self, key: u128, most: u32) -> u64 {
        u64::from(most.saturating_sub(self.0.get(&key).copied().unwrap_or(0)))
    }

    pub(super) fn take(&mut self, wanted: &[Place]) -> Box<[u128]> {
        for place in wanted {
            *self.0.entry(place.key).or_default() += 1;
        }
        wanted.iter().map(|place| place.key).collect()
    }

    fn free(&mut self, taken: &[u128]) {
        for key in taken {
            if let Entry::Occupied(mut count) = self.0.entry(*key) {
                *count.get_mut() = count.get().saturating_sub(1);
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }
}

/// A window that the result will be charged to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    pub(super) meter: Meter,
    pub(super) key: u128,
    pub(super) spec: WindowSpec,
    pub(super) window: Duration,
    pub(super) holder: u128,
    pub(super) overflow: u128,
}

/// A call that has ended, for those who share its places and windows.
#[derive(Clone, Debug)]
pub struct EndedCall {
    /// The number that the call had when they were asked.
    pub ticket: u64,
    /// What its result is charged. Empty where it never ran.
    pub charges: Box<[EndedCharge]>,
}

/// What the result of a call is charged in one window.
#[derive(Clone, Copy, Debug)]
pub struct EndedCharge {
    /// The window's key.
    pub key: u128,
    /// How many the window holds, where nothing is overdrawn.
    pub quota: u64,
    /// Its length.
    pub window: Duration,
    /// How much.
    pub amount: u64,
}

/// Calls that have ended and of which the other processes were not told. It holds no more than once ran at a time, since whoever
/// begins one takes them all.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    tickets: AtomicU64,
    ended: Mutex<Vec<EndedCall>>,
}

impl Outbox {
    /// A number that no other call of this process has.
    pub(super) fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// What ended since it was last taken.
    pub(super) fn take(&self) -> Vec<EndedCall> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, ended: EndedCall) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
    }
}

/// What a call owes until it ends. Its places are free when it is settled, and at the latest when nobody has the call any more.
#[derive(Debug)]
pub(crate) struct Dues {
    pub(super) places: Box<[u128]>,
    pub(super) owed: Box<[Owed]>,
    pub(super) running: Arc<Running>,
    pub(super) table: Arc<WindowTable>,
    /// Where places and windows are those of all processes: the call's number, and where its ending is told.
    pub(super) shared: Option<(u64, Arc<Outbox>)>,
    pub(super) since: Tick,
    pub(super) is_settled: AtomicBool,
}

impl Dues {
    /// The call has ended: its places are free, and what its result has is charged. Only the first time counts.
    pub(crate) fn settle(&self, rows: Option<u64>, bytes: Option<u64>, lasted: Duration) {
        if self.is_settled.swap(true, Ordering::AcqRel) {
            return;
        }
        self.running.lock().free(&self.places);
        let counted = self.owed.iter().filter_map(|owed| match owed.meter {
            Meter::Rows => rows.filter(|rows| *rows > 0).map(|rows| (owed, rows)),
            Meter::Bytes => bytes.filter(|bytes| *bytes > 0).map(|bytes| (owed, bytes)),
        });
        if let Some((ticket, outbox)) = &self.shared {
            let charges = counted.map(|(owed, amount)| {
                let (key, quota, window) = (owed.key, u64::from(owed.spec.quota()), owed.window);
                EndedCharge { key, quota, window, amount }
            });
            return outbox.put(EndedCall { ticket: *ticket, charges: charges.collect() });
        }
        let now = self.since.plus(lasted);
        for (Owed { key, spec, holder, overflow, .. }, amount) in counted {
            let (key, holder, overflow) = (*key, *holder, *overflow);
            let charge = Charge { key, spec, cost: 1, holder, is_look: false, overflow };
            self.table.overdraw(&charge, amount, now);
        }
    }

    /// The number by which others are told of the ending.
    pub(crate) fn ticket(&self) -> Option<u64> {
        self.shared.as_ref().map(|(ticket, _)| *ticket)
    }

    /// The call does not run after all.
    pub(crate) fn give_up(&self) {
        self.settle(None, None, Duration::ZERO);
    }
}

impl Drop for Dues {
    fn drop(&mut self) {
        self.give_up();
    }
}

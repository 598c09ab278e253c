//! The log as a series of files: what is written when, and what happens when it cannot be. Reads no clock and
//! knows no file system; `writer` lends it both.

mod draft;
mod store;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::line::Object;
use super::merkle::{Hash, Tree};
use super::record::Event;
use super::registry::Entry;
use super::scribe::Scribe;
use super::tally::Tally;
use super::tree::publish::Publisher;
use crate::clock::{Now, Tick, UnixTime};
pub(super) use draft::Repaired;
use draft::{Counted, Draft, Item};
pub(super) use store::{File, Store};

/// Most bytes that are written between two syncs.
const MAX_COMMIT_BYTES: usize = 8 * 1024 * 1024;
/// Pauses between attempts to write again: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// How long refusals before a token was verified share one budget, and are counted before a report.
const BUDGET_WINDOW: Duration = Duration::from_secs(60);

/// What the journal is told at each call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Now,
    /// Records refused so far, since the log was opened.
    pub(super) refused: u64,
    /// Records of calls that ran without one so far.
    pub(super) unrecorded: u64,
}

/// Sizes that the owner sets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_file_bytes: u64,
    pub(super) unverified_bytes_per_minute: u64,
}

/// Why nothing is written at the moment.
pub(super) struct Failure {
    pub(super) reason: String,
    since: UnixTime,
    refused_before: u64,
    unrecorded_before: u64,
    pause: Duration,
    pub(super) retry_at: Tick,
    /// Whether what was written in part is gone from the file.
    cut: bool,
}

struct Budget {
    window: Now,
    spent: u64,
    tally: Tally,
    /// [`Moment::refused`] at the last report.
    refused_before: u64,
}

/// What one commit did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Committed {
    pub(super) records: u64,
    /// The weight of the events, to be given back to the queue, and their number.
    pub(super) weight: u64,
    pub(super) events: u64,
}

impl Committed {
    fn count(&mut self, item: &Item) {
        if let Item::Event(event) = item {
            self.events += 1;
            self.weight += event.weight();
        }
    }
}

/// The writer's state.
pub(super) struct Journal<S: Store> {
    store: S,
    scribe: Scribe,
    bounds: Bounds,
    file: Option<S::File>,
    number: u32,
    length: u64,
    tree: Tree,
    waiting: VecDeque<Item>,
    buffer: Vec<u8>,
    budget: Budget,
    failure: Option<Failure>,
    sealed: bool,
    publisher: Publisher,
}

impl<S: Store> Journal<S> {
    pub(super) fn new(store: S, scribe: Scribe, bounds: Bounds, publisher: Publisher, opened_at: Now) -> Self {
        let budget = Budget { window: opened_at, spent: 0, tally: Tally::default(), refused_before: 0 };
        Self {
            store,
            scribe,
            bounds,
            file: None,
            number: 0,
            length: 0,
            tree: Tree::default(),
            waiting: VecDeque::new(),
            buffer: Vec::new(),
            budget,
            failure: None,
            sealed: false,
            publisher,
        }
    }

    /// Goes on after `number` files with the records of `tree`, in a file of its own. `sealed`: only tiles and the checkpoint
    /// are left to write.
    pub(super) fn resume(self, number: u32, tree: Tree, sealed: bool) -> Self {
        Self { number, tree, sealed, ..self }
    }

    /// Goes on in the last file, which is open and has `length` bytes.
    pub(super) fn append_to(&mut self, file: S::File, length: u64) {
        self.file = Some(file);
        self.length = length;
    }

    /// Takes an entry of the registry.
    pub(super) fn enter(&mut self, entry: Entry, moment: Moment) {
        self.waiting.push_back(Item::Entry(moment.now.unix, entry));
    }

    /// Enters the end of a log that began in the registry of its place.
    pub(super) fn enter_end(&mut self) -> io::Result<()> {
        if self.sealed && self.number > 0 { self.store.enter_end(self.tree.size(), &self.tree.root()) } else { Ok(()) }
    }

    /// Has the log say that it was repaired.
    pub(super) fn repaired(&mut self, repaired: Repaired, moment: Moment) {
        self.waiting.push_back(Item::Repaired(moment.now.unix, repaired));
    }

    pub(super) const fn store(&self) -> &S {
        &self.store
    }

    /// How many records are durable.
    pub(super) const fn records(&self) -> u64 {
        self.tree.size()
    }

    /// The root over them.
    pub(super) fn root(&self) -> Hash {
        self.tree.root()
    }

    pub(super) const fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    #[cfg(test)]
    pub(super) const fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Whether refusals before a token was verified are only counted until the window ends.
    pub(super) const fn budget_is_spent(&self) -> bool {
        self.budget.spent >= self.bounds.unverified_bytes_per_minute
    }

    /// When [`Self::report`] or a checkpoint has something to do, if one will.
    pub(super) fn due(&self) -> Option<Tick> {
        let report = self.budget.window.tick.plus(BUDGET_WINDOW);
        let report = (self.budget.spent > 0 || !self.budget.tally.is_empty()).then_some(report);
        [report, self.publisher.due(self.tree.size())].into_iter().flatten().min()
    }

    pub(super) fn take(&mut self, event: Event) {
        self.waiting.push_back(Item::Event(event));
    }

    /// Takes a refusal before a token was verified; `false` where it is only counted.
    pub(super) fn take_unverified(&mut self, event: &Event) -> bool {
        if self.failure.is_none() && !self.budget_is_spent() {
            let mut members = Vec::with_capacity(1_024);
            self.scribe.write(event, &mut Object::inside(&mut members));
            let cost = members.len() as u64;
            if self.budget.spent + cost <= self.bounds.unverified_bytes_per_minute {
                self.budget.spent += cost;
                self.waiting.push_back(Item::Members(members));
                return true;
            }
            // Smaller ones would still fit; one refusal that is only counted ends the window's budget for all,
            // so that the order of the written ones has no holes.
            self.budget.spent = self.bounds.unverified_bytes_per_minute;
        }
        self.budget.tally.add(event);
        false
    }

    /// Takes refusals that were counted elsewhere.
    pub(super) fn count(&mut self, tally: Tally) {
        self.budget.tally.merge(tally);
    }

    /// Gives the store back, for a log that never began.
    pub(super) fn into_store(self) -> S {
        self.store
    }

    /// Begins a new window when the last one is over, or at once where `force` says so, and reports the old one.
    pub(super) fn report(&mut self, moment: Moment, force: bool) {
        let Now { unix, tick, .. } = moment.now;
        // While nothing can be written, one tally goes on, so that reports do not pile up.
        if !force && (self.failure.is_some() || tick.since(self.budget.window.tick) < BUDGET_WINDOW) {
            return;
        }
        let unrecorded = moment.refused - self.budget.refused_before;
        let window = Budget { window: moment.now, spent: 0, tally: Tally::default(), refused_before: moment.refused };
        let Budget { window: from, tally, .. } = std::mem::replace(&mut self.budget, window);
        if !tally.is_empty() || unrecorded > 0 {
            let counted = Counted { from: from.unix, to: unix, tally, unrecorded };
            self.waiting.push_back(Item::Counted(Box::new(counted)));
        }
    }

    /// Ends the log: the last record holds the root over all others. A log that never began has none.
    pub(super) fn seal(&mut self, moment: Moment) {
        self.report(moment, true);
        if self.number == 0 && self.waiting.is_empty() {
            self.sealed = true;
        } else {
            self.waiting.push_back(Item::Seal(moment.now.unix));
        }
    }

    /// Makes the next [`Self::commit`] try, however short ago the last failure was.
    pub(super) const fn retry_now(&mut self) {
        if let Some(failure) = &mut self.failure {
            failure.retry_at = Tick::from_nanos(0);
        }
    }

    /// Writes all that waits, and makes it durable. What could not be written stays, and [`Self::failure`] says why.
    pub(super) fn commit(&mut self, moment: Moment) -> Committed {
        let mut total = Committed::default();
        self.commit_each(moment, |committed| {
            total.records += committed.records;
            total.weight += committed.weight;
            total.events += committed.events;
        });
        total
    }

    /// The same; `durable` is told after each sync, so that room is given back before all is written.
    pub(super) fn commit_each(&mut self, moment: Moment, mut durable: impl FnMut(Committed)) {
        if self.failure.as_ref().is_some_and(|failure| moment.now.tick < failure.retry_at) {
            return;
        }
        // After a tile or a checkpoint failed nothing may wait; the record of it begins a new file all the same.
        while !self.waiting.is_empty() || self.failure.is_some() && !self.sealed {
            match self.commit_some(moment) {
                Ok(committed) => durable(committed),
                Err(error) => return self.fail(&error, moment),
            }
            if !self.publish(moment) {
                return;
            }
        }
        self.publish(moment);
    }

    /// Writes tiles and a checkpoint that are due, of what is durable; `false` where that failed.
    fn publish(&mut self, moment: Moment) -> bool {
        let done = self.publisher.publish(&mut self.store, &self.tree, moment.now.tick, self.sealed);
        done.inspect_err(|error| self.fail(error, moment)).is_ok()
    }

    /// Writes as much as goes into one file and one sync. Nothing of the state changes unless all of it succeeded.
    fn commit_some(&mut self, moment: Moment) -> io::Result<Committed> {
        if self.length >= self.bounds.max_file_bytes {
            // Its lines are durable already.
            self.file = None;
        }
        let mut draft = Draft { lines: &mut self.buffer, tree: self.tree.clone() };
        draft.lines.clear();
        if self.file.is_none() {
            let number = self.number + 1;
            let file = self.store.create(number);
            if file.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
                // The remains of an attempt that failed; the next one takes the next number.
                self.number = number;
            }
            self.file = Some(file?);
            self.number = number;
            self.length = 0;
            draft.open(&self.scribe, number, moment.now.unix);
            if let Some(failure) = &self.failure {
                draft.recover(failure, self.waiting.len(), moment);
            }
        }
        let room = self.bounds.max_file_bytes.saturating_sub(self.length);
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(MAX_COMMIT_BYTES);
        let mut committed = Committed::default();
        let mut seals = false;
        let mut taken = 0;
        self.scribe.begin();
        // Nothing but its first line stands in a log before the registry knows of it.
        let is_born = self.store.is_entered();
        for item in &self.waiting {
            if !is_born || taken > 0 && draft.lines.len() >= room {
                break;
            }
            taken += 1;
            draft.item(item, &mut self.scribe);
            committed.count(item);
            seals |= matches!(item, Item::Seal(_));
        }
        let Draft { mut tree, .. } = draft;
        if let Some(error) = self.scribe.take_failure() {
            return Err(error);
        }
        if let Some(file) = &mut self.file {
            file.append(self.length, &self.buffer)?;
            file.sync()?;
        }
        if !is_born {
            self.store.enter_birth()?;
        }
        committed.records = tree.size() - self.tree.size();
        self.length += self.buffer.len() as u64;
        self.publisher.add(&tree.take_completed());
        self.tree = tree;
        self.waiting.drain(..taken);
        self.failure = None;
        if seals {
            self.sealed = true;
            self.file = None;
        }
        Ok(committed)
    }

    /// An error of a write or a sync is final for the file: what the kernel still holds of it is not known.
    fn fail(&mut self, error: &io::Error, moment: Moment) {
        let mut cut = true;
        if let Some(mut file) = self.file.take() {
            cut = file.cut(self.length).and_then(|()| file.sync()).is_ok();
            drop(file);
            if self.length == 0 && self.store.remove(self.number).is_ok() {
                self.number -= 1;
                cut = true;
            }
        }
        let before = self.failure.take();
        let pause = before.as_ref().map_or(FIRST_PAUSE, |before| LAST_PAUSE.min(before.pause * 2));
        self.failure = Some(Failure {
            reason: error.to_string(),
            since: before.as_ref().map_or(moment.now.unix, |before| before.since),
            refused_before: before.as_ref().map_or(moment.refused, |before| before.refused_before),
            unrecorded_before: before.as_ref().map_or(moment.unrecorded, |before| before.unrecorded_before),
            cut: cut && before.is_none_or(|before| before.cut),
            pause,
            retry_at: moment.now.tick.plus(pause),
        });
    }
}

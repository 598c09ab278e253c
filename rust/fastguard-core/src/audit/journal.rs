//! The log as a series of files: what is written when, and what happens when it cannot be. Reads no clock and
//! knows no file system; `writer` lends it both.

mod draft;
mod files;
mod store;

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
use draft::{Counted, Drafts, Group, Item};
use files::Files;
pub(super) use store::{File, Store};

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
    files: Files<S>,
    drafts: Drafts,
    bounds: Bounds,
    budget: Budget,
    failure: Option<Failure>,
    sealed: bool,
}

impl<S: Store> Journal<S> {
    pub(super) fn new(store: S, scribe: Scribe, bounds: Bounds, publisher: Publisher, opened_at: Now) -> Self {
        let budget = Budget { window: opened_at, spent: 0, tally: Tally::default(), refused_before: 0 };
        Self {
            files: Files::new(store, publisher),
            drafts: Drafts::new(scribe, bounds.max_file_bytes),
            bounds,
            budget,
            failure: None,
            sealed: false,
        }
    }

    /// Goes on after `number` files with the records of `tree`, in a file of its own. `sealed`: only tiles and the checkpoint
    /// are left to write.
    pub(super) fn resume(mut self, number: u32, tree: Tree, sealed: bool) -> Self {
        self.files.number = number;
        self.files.tree = tree;
        Self { sealed, ..self }
    }

    /// Goes on in the last file, which is open and has `length` bytes.
    pub(super) fn append_to(&mut self, file: S::File, length: u64) {
        self.files.file = Some(file);
        self.files.length = length;
    }

    /// Takes an entry of the registry.
    pub(super) fn enter(&mut self, entry: Entry, moment: Moment) {
        self.drafts.add(Item::Entry(moment.now.unix, Box::new(entry)));
    }

    /// Enters the end of a log that began in the registry of its place.
    pub(super) fn enter_end(&mut self) -> io::Result<()> {
        let Files { store, number, tree, .. } = &mut self.files;
        if self.sealed && *number > 0 { store.enter_end(tree.size(), &tree.root()) } else { Ok(()) }
    }

    /// Has the log say that it was repaired.
    pub(super) fn repaired(&mut self, repaired: Repaired, moment: Moment) {
        self.drafts.add(Item::Repaired(moment.now.unix, repaired));
    }

    pub(super) const fn store(&self) -> &S {
        &self.files.store
    }

    /// How many records are durable.
    pub(super) const fn records(&self) -> u64 {
        self.files.tree.size()
    }

    /// The root over them.
    pub(super) fn root(&self) -> Hash {
        self.files.tree.root()
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
        [report, self.files.publisher.due(self.files.tree.size())].into_iter().flatten().min()
    }

    pub(super) fn take(&mut self, event: Event) {
        self.drafts.add(Item::Event(event));
    }

    /// Takes a refusal before a token was verified; `false` where it is only counted.
    pub(super) fn take_unverified(&mut self, event: &Event) -> bool {
        if self.failure.is_none() && !self.budget_is_spent() {
            let mut members = Vec::with_capacity(1_024);
            self.drafts.scribe.write(event, &mut Object::inside(&mut members));
            let cost = members.len() as u64;
            if self.budget.spent + cost <= self.bounds.unverified_bytes_per_minute {
                self.budget.spent += cost;
                self.drafts.add(Item::Members(members));
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
        self.files.store
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
            self.drafts.add(Item::Counted(Box::new(counted)));
        }
    }

    /// Ends the log: the last record holds the root over all others. A log that never began has none.
    pub(super) fn seal(&mut self, moment: Moment) {
        self.report(moment, true);
        if self.files.number == 0 && !self.drafts.has_more() {
            self.sealed = true;
        } else {
            self.drafts.add(Item::Seal(moment.now.unix));
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
    pub(super) fn commit_each(&mut self, moment: Moment, mut durable: impl FnMut(Committed) + Send) {
        if self.failure.as_ref().is_some_and(|failure| moment.now.tick < failure.retry_at) {
            return;
        }
        let mut drafted = None;
        // After a tile or a checkpoint failed nothing may wait; the record of it begins a new file all the same.
        while drafted.is_some() || self.drafts.has_more() || self.failure.is_some() && !self.sealed {
            let next = || self.drafts.next(self.files.place(), self.failure.as_ref(), moment);
            let mut group = match drafted.take().unwrap_or_else(next) {
                Ok(group) => group,
                Err(error) => return self.fail(&error, moment),
            };
            let (written, next) = self.write(&mut group, moment, &mut durable);
            if written.is_ok() {
                self.failure = None;
                self.sealed |= group.seals;
            }
            if let Err(error) = written.flatten() {
                // What was formatted to follow would say of a wrong file that it goes on.
                if let Some(Ok(next)) = next {
                    self.drafts.put_back(next);
                }
                self.drafts.put_back(group);
                return self.fail(&error, moment);
            }
            self.drafts.put_back(group);
            drafted = next;
        }
        if let Err(error) = self.files.publish(moment.now.tick, self.sealed) {
            self.fail(&error, moment);
        }
    }

    /// Makes a group durable; where that takes a while and more waits, the next one is formatted meanwhile.
    fn write(
        &mut self,
        group: &mut Group,
        moment: Moment,
        durable: &mut (impl FnMut(Committed) + Send),
    ) -> (io::Result<io::Result<()>>, Option<io::Result<Group>>) {
        let Self { files, drafts, .. } = self;
        let (place, is_long) = (group.place_after(), group.lines().len() >= S::MIN_BYTES_BESIDE);
        let mut write = || files.write(group, moment.now.tick, durable);
        if !is_long || !drafts.has_more() {
            return (write(), None);
        }
        let (written, next) = S::beside(write, || drafts.next(place, None, moment));
        (written, Some(next))
    }

    fn fail(&mut self, error: &io::Error, moment: Moment) {
        let cut = self.files.abandon();
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

//! The thread that writes the log: the one place of this crate with files, a thread and a clock.

mod asks;
mod beside;
mod folder;
mod held;
mod subjects;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub(super) use asks::{answered, ask, asked, is_answered};
pub(super) use folder::{
    Folder, content, failed, files, folders, open, open_at, open_base, open_folder, partial_tiles, read_or_make_key,
    replace, sync_folder, tail,
};
pub(super) use held::Held;
pub(super) use subjects::SubjectKeys;

use super::journal::{Journal, Moment, Store};
use super::queue::{Phase, Queue, lock};
use crate::clock::{Now, Tick, UnixTime};
use crate::denial::Fault;
use crate::sync::Mutex;
use crate::sync::thread::{self, Thread};

/// How long after the last record the writer still looks for more by itself. Until then no caller pays for a
/// wake-up, which costs some microseconds.
const LINGER: Duration = Duration::from_millis(250);

/// The system's clocks.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    pub(super) fn now(&self) -> Now {
        let unix =
            SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        let tick = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now { unix: UnixTime::from_millis(unix), tick: Tick::from_nanos(tick), own: Tick::from_nanos(tick) }
    }
}

/// A journal that waits for its thread.
pub(super) type Slot<S> = Arc<Mutex<Option<Box<Journal<S>>>>>;

/// Starts the thread.
pub(super) fn spawn<S>(queue: &Arc<Queue>, slot: &Slot<S>, clock: Clock, interval: Duration) -> Result<Thread, Fault>
where
    S: Store + 'static,
    S::File: 'static,
{
    let (queue, slot) = (Arc::clone(queue), Arc::clone(slot));
    let run = move || {
        let _ended = Ended(&queue);
        let journal = lock(&slot).take();
        if let Some(mut journal) = journal {
            Writer { queue: &queue, journal: &mut journal, clock, interval }.run();
        }
    };
    // Nobody joins it: joining cannot be given up after two seconds, and a child process has no thread to join.
    let thread = thread::Builder::new().name("fastguard-audit".to_owned()).spawn(run);
    let thread = thread.map_err(|error| Fault::AuditFailed { reason: format!("the writer's thread: {error}") })?;
    Ok(thread.thread().clone())
}

/// Tells that the thread is gone, also where it panicked.
struct Ended<'q>(&'q Queue);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.end(Phase::Dead);
    }
}

struct Writer<'w, S: Store> {
    queue: &'w Queue,
    journal: &'w mut Journal<S>,
    clock: Clock,
    interval: Duration,
}

impl<S: Store> Writer<'_, S> {
    fn run(&mut self) {
        let mut last_record = Tick::default();
        loop {
            let (closing, wanted) = self.queue.orders();
            let moment = self.moment();
            self.journal.report(moment, false);
            if self.take_all() {
                last_record = moment.now.tick;
            }
            if closing {
                self.journal.retry_now();
            }
            self.commit(moment, wanted);
            if closing {
                if self.close() {
                    return;
                }
            } else {
                self.pause(moment.now.tick, last_record);
            }
        }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.clock.now(), refused: self.queue.refused(), unrecorded: self.queue.unrecorded() }
    }

    /// Takes what waits; no more of it than the queue holds, because room is given back by commits alone.
    fn take_all(&mut self) -> bool {
        let mut took = false;
        while let Some(event) = self.queue.pop() {
            self.journal.take(event);
            took = true;
        }
        while let Some(event) = self.queue.pop_unverified() {
            if !self.journal.take_unverified(&event) {
                self.queue.note_counted();
            }
            took = true;
        }
        self.journal.count(self.queue.take_tally());
        took
    }

    fn commit(&mut self, moment: Moment, wanted: u64) {
        self.journal.commit_each(moment, |committed| self.queue.release(committed));
        let failure = self.journal.failure().map(|failure| failure.reason.as_str());
        self.queue.only_count(failure.is_some() || self.journal.budget_is_spent());
        self.queue.settle(failure, wanted);
    }

    /// Seals the log once all is durable; `true` where the thread is done.
    fn close(&mut self) -> bool {
        if self.journal.failure().is_none() {
            if self.queue.pending() > 0 {
                // A caller is between being admitted and handing over.
                thread::yield_now();
                return false;
            }
            let moment = self.moment();
            self.take_all();
            self.journal.seal(moment);
            self.queue.release(self.journal.commit(moment));
            if self.journal.failure().is_none() {
                // What cannot be entered now, the next start enters: the seal says it all.
                if let Err(error) = self.journal.enter_end() {
                    self.queue.leave_end(error.to_string());
                }
            }
        }
        let outcome = match self.journal.failure() {
            Some(failure) => Err(failure.reason.clone()),
            None => Ok(()),
        };
        self.queue.end(Phase::Closed(outcome));
        true
    }

    fn pause(&self, began: Tick, last_record: Tick) {
        let now = self.clock.now().tick;
        if let Some(failure) = self.journal.failure() {
            // Records are refused meanwhile; a flush or the end wakes this thread.
            thread::park_timeout(failure.retry_at.since(now));
        } else if now.since(last_record) < LINGER {
            thread::park_timeout(self.interval.saturating_sub(now.since(began)));
        } else if self.queue.may_sleep() {
            match self.journal.due() {
                Some(due) => thread::park_timeout(due.since(now)),
                None => thread::park(),
            }
        }
    }
}

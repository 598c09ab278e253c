//! What stands between the callers' threads and the writer's: a bounded queue that refuses, and never waits.

use std::sync::OnceLock;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use super::journal::Committed;
use super::record::Event;
use super::tally::Tally;
use crate::denial::Fault;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use crate::sync::thread::Thread;
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Set in [`Queue::admitted`] unless the log takes records: the caller must look at the phase.
const SHUT: u64 = 1 << 63;
/// One record in [`Queue::admitted`], above the bytes.
const RECORD: u64 = 1 << 40;
const BYTES: u64 = RECORD - 1;
/// Refusals before a token was verified that wait at most, and how many bytes each may hold: 8 MiB in all.
const MAX_UNVERIFIED: usize = 1_024;
const MAX_UNVERIFIED_WEIGHT: u64 = 8 * 1_024;

/// What the log is doing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Nothing was recorded yet; no thread runs.
    Unstarted,
    Running,
    /// It cannot be written; the writer tries again.
    Failed(String),
    Closing,
    /// Sealed; or not, and why.
    Closed(Result<(), String>),
    /// The writer's thread is gone.
    Dead,
}

struct State {
    phase: Phase,
    flush_wanted: u64,
    flush_done: u64,
}

/// Why an event was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    Full,
    Shut,
}

pub(super) struct Queue {
    /// Records and bytes that were taken and are not durable yet, and [`SHUT`]. In one word, so that a record
    /// costs one atomic addition, and so that after `SHUT` is set the writer can tell when the last one that was
    /// admitted before has arrived.
    admitted: AtomicU64,
    max_records: u64,
    max_bytes: u64,
    events: ArrayQueue<Event>,
    unverified: ArrayQueue<Event>,
    /// The writer waits until somebody wakes it.
    sleeping: AtomicBool,
    writer: OnceLock<Thread>,
    /// Refusals before a token was verified are only counted.
    counting: AtomicBool,
    tally: Mutex<Tally>,
    uncounted: AtomicU64,
    written: AtomicU64,
    refused: AtomicU64,
    unrecorded: AtomicU64,
    unverified_counted: AtomicU64,
    /// Why the registry does not know of the log's end.
    end_left: OnceLock<String>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Figures of a log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    /// Records that were taken and are not durable yet.
    pub queued: u64,
    /// Lines that are durable, those of the log itself included.
    pub written: u64,
    /// Records that were refused because the queue was full or the log could not be written.
    pub refused: u64,
    /// Records of calls that ran without one, because the log could not be written.
    pub unrecorded: u64,
    /// Whether the log cannot be written at the moment.
    pub failed: bool,
    /// Refusals before a token was verified that were counted instead of written.
    pub unverified_counted: u64,
}

/// A panic of another thread leaves these values whole: none is changed in more than one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    pub(super) fn new(max_records: usize, max_bytes: usize) -> Self {
        // More would not fit in the word beside the bytes.
        let max_records = max_records.clamp(1, 1 << 22);
        Self {
            admitted: AtomicU64::new(SHUT),
            max_records: max_records as u64,
            max_bytes: (max_bytes as u64).min(BYTES / 2),
            events: ArrayQueue::new(max_records),
            unverified: ArrayQueue::new(MAX_UNVERIFIED),
            sleeping: AtomicBool::new(false),
            writer: OnceLock::new(),
            counting: AtomicBool::new(false),
            tally: Mutex::default(),
            uncounted: AtomicU64::new(0),
            written: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unrecorded: AtomicU64::new(0),
            unverified_counted: AtomicU64::new(0),
            end_left: OnceLock::new(),
            state: Mutex::new(State { phase: Phase::Unstarted, flush_wanted: 0, flush_done: 0 }),
            changed: Condvar::new(),
        }
    }

    // --- the callers' side -----------------------------------------------------------------------------------

    /// Takes the event or gives it back, at once.
    pub(super) fn push(&self, event: Event) -> Result<(), (Event, Refusal)> {
        if !self.is_open() {
            return Err((event, Refusal::Shut));
        }
        let weight = event.weight().min(BYTES / 4);
        let before = self.admitted.fetch_add(RECORD + weight, Ordering::SeqCst);
        let (records, bytes) = ((before & !SHUT) / RECORD, before & BYTES);
        if before & SHUT != 0 || records >= self.max_records || bytes + weight > self.max_bytes {
            self.admitted.fetch_sub(RECORD + weight, Ordering::SeqCst);
            let refusal = if before & SHUT == 0 { Refusal::Full } else { Refusal::Shut };
            return Err((event, refusal));
        }
        // INVARIANT: no more are admitted than the queue holds, so this never gives the event back.
        if let Err(event) = self.events.push(event) {
            self.admitted.fetch_sub(RECORD + weight, Ordering::SeqCst);
            return Err((event, Refusal::Full));
        }
        // The addition above and this load, and the writer's store and load in `may_sleep`, are sequentially
        // consistent: either the writer sees the record, or this sees that it sleeps.
        if self.sleeping.load(Ordering::SeqCst) || records > self.max_records / 2 {
            self.wake();
        }
        Ok(())
    }

    /// Whether a record would be taken, with some left for the calls that are on their way.
    pub(super) fn has_room(&self) -> bool {
        let admitted = self.admitted.load(Ordering::Relaxed);
        let (records, bytes) = ((admitted & !SHUT) / RECORD, admitted & BYTES);
        records + self.max_records / 64 < self.max_records && bytes + self.max_bytes / 64 < self.max_bytes
    }

    /// Whether the log takes anything at the moment.
    pub(super) fn is_open(&self) -> bool {
        self.admitted.load(Ordering::Relaxed) & SHUT == 0
    }

    /// Takes a refusal before a token was verified, or counts it.
    pub(super) fn push_unverified(&self, event: Event) {
        if self.counting.load(Ordering::Relaxed) || event.weight() > MAX_UNVERIFIED_WEIGHT {
            self.count(&event);
        } else if let Err(event) = self.unverified.push(event) {
            self.count(&event);
        }
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Counts a refusal that is not written, without waiting for anybody.
    pub(super) fn count(&self, event: &Event) {
        self.unverified_counted.fetch_add(1, Ordering::Relaxed);
        match self.tally.try_lock() {
            Ok(mut tally) => tally.add(event),
            Err(_) => _ = self.uncounted.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_unrecorded(&self) {
        self.unrecorded.fetch_add(1, Ordering::Relaxed);
    }

    #[cold]
    fn wake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    pub(super) fn phase(&self) -> Phase {
        lock(&self.state).phase.clone()
    }

    /// Lets `start` make the writer's thread, if none runs.
    pub(super) fn start(&self, start: impl FnOnce() -> Result<Thread, Fault>) -> Result<(), Fault> {
        let mut state = lock(&self.state);
        if state.phase == Phase::Unstarted {
            // The thread changes nothing here before the lock is free.
            let writer = start()?;
            let _ = self.writer.set(writer);
            state.phase = Phase::Running;
            self.admitted.fetch_and(!SHUT, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Waits until all that was taken before is durable.
    pub(super) fn flush(&self, timeout: Duration) -> Result<(), Fault> {
        let mut state = lock(&self.state);
        if state.phase == Phase::Unstarted {
            return Ok(());
        }
        state.flush_wanted += 1;
        let mine = state.flush_wanted;
        self.wake();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, timeout, |state| {
                state.flush_done < mine && matches!(state.phase, Phase::Running | Phase::Closing)
            })
            .unwrap_or_else(PoisonError::into_inner);
        if state.flush_done >= mine {
            return Ok(());
        }
        match &state.phase {
            Phase::Failed(reason) | Phase::Closed(Err(reason)) => Err(Fault::AuditFailed { reason: reason.clone() }),
            Phase::Closed(Ok(())) | Phase::Unstarted => Ok(()),
            Phase::Dead => Err(dead()),
            Phase::Running | Phase::Closing => {
                Err(Fault::AuditFailed { reason: format!("not on disk after {} ms", timeout.as_millis()) })
            }
        }
    }

    /// Takes no more records, and waits until the writer has sealed the log. `Ok(true)` where it never began.
    pub(super) fn close(&self, timeout: Duration) -> Result<bool, Fault> {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Unstarted => {
                state.phase = Phase::Closed(Ok(()));
                return Ok(true);
            }
            Phase::Running | Phase::Failed(_) => {
                state.phase = Phase::Closing;
                self.admitted.fetch_or(SHUT, Ordering::SeqCst);
            }
            Phase::Closing | Phase::Closed(_) | Phase::Dead => {}
        }
        self.wake();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, timeout, |state| state.phase == Phase::Closing)
            .unwrap_or_else(PoisonError::into_inner);
        match &state.phase {
            Phase::Closed(Err(reason)) => Err(Fault::AuditFailed { reason: reason.clone() }),
            Phase::Dead => Err(dead()),
            Phase::Closing => {
                Err(Fault::AuditFailed { reason: format!("not sealed after {} ms", timeout.as_millis()) })
            }
            _ => Ok(false),
        }
    }

    pub(super) fn statistics(&self) -> Statistics {
        Statistics {
            queued: self.pending(),
            written: self.written.load(Ordering::Relaxed),
            refused: self.refused(),
            unrecorded: self.unrecorded(),
            failed: matches!(self.phase(), Phase::Failed(_) | Phase::Closed(Err(_)) | Phase::Dead),
            unverified_counted: self.unverified_counted.load(Ordering::Relaxed),
        }
    }

    // --- the writer's side -----------------------------------------------------------------------------------

    pub(super) fn pop(&self) -> Option<Event> {
        self.events.pop()
    }

    pub(super) fn pop_unverified(&self) -> Option<Event> {
        self.unverified.pop()
    }

    /// What was counted since the last time.
    pub(super) fn take_tally(&self) -> Tally {
        let mut tally = std::mem::take(&mut *lock(&self.tally));
        tally.add_other(self.uncounted.swap(0, Ordering::Relaxed));
        tally
    }

    /// A refusal that the writer counted.
    pub(super) fn note_counted(&self) {
        self.unverified_counted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn only_count(&self, only: bool) {
        self.counting.store(only, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn unrecorded(&self) -> u64 {
        self.unrecorded.load(Ordering::Relaxed)
    }

    /// Records that were admitted and are not durable.
    pub(super) fn pending(&self) -> u64 {
        (self.admitted.load(Ordering::SeqCst) & !SHUT) / RECORD
    }

    /// Gives back the room of what is durable.
    pub(super) fn release(&self, committed: Committed) {
        self.written.fetch_add(committed.records, Ordering::Relaxed);
        self.admitted.fetch_sub(committed.events * RECORD + committed.weight, Ordering::SeqCst);
    }

    /// Whether the log is being closed, and up to which flush it is asked.
    pub(super) fn orders(&self) -> (bool, u64) {
        let state = lock(&self.state);
        (state.phase == Phase::Closing, state.flush_wanted)
    }

    /// Tells how the last commit went.
    pub(super) fn settle(&self, failure: Option<&str>, flushed: u64) {
        let mut state = lock(&self.state);
        match (failure, &state.phase) {
            (Some(reason), Phase::Running) => {
                self.admitted.fetch_or(SHUT, Ordering::SeqCst);
                state.phase = Phase::Failed(reason.to_owned());
            }
            (None, Phase::Failed(_)) => {
                state.phase = Phase::Running;
                self.admitted.fetch_and(!SHUT, Ordering::SeqCst);
            }
            _ => {}
        }
        if failure.is_none() {
            state.flush_done = flushed;
        }
        self.changed.notify_all();
    }

    /// Tells that the writer's thread ends.
    pub(super) fn end(&self, phase: Phase) {
        let mut state = lock(&self.state);
        self.admitted.fetch_or(SHUT, Ordering::SeqCst);
        if !matches!(state.phase, Phase::Closed(_)) {
            state.phase = phase;
        }
        self.changed.notify_all();
    }

    /// Tells that the registry could not be told of the end.
    pub(super) fn leave_end(&self, reason: String) {
        let _ = self.end_left.set(reason);
    }

    /// Why the registry does not know of the end of a log that is closed, where it does not.
    pub(super) fn end_left(&self) -> Option<&str> {
        self.end_left.get().map(String::as_str)
    }

    /// Whether the writer may wait to be woken. After `true`, whoever hands something over wakes it.
    pub(super) fn may_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let has_orders = {
            let state = lock(&self.state);
            state.phase == Phase::Closing || state.flush_wanted > state.flush_done
        };
        let may = self.pending() == 0 && self.unverified.is_empty() && !has_orders;
        if !may {
            self.sleeping.store(false, Ordering::SeqCst);
        }
        may
    }
}

pub(super) fn dead() -> Fault {
    Fault::AuditFailed { reason: "the writer's thread is gone".to_owned() }
}

//! The queue between callers and the writer, in orders that a model checker chooses (`make models`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::sync::Arc;
use std::time::Duration;

use super::journal::Committed;
use super::queue::{Phase, Queue};
use super::record::{Event, Notice};
use crate::clock::UnixTime;
use crate::sync::thread;

const RUNS: usize = 2_000;

/// Time stands still for the checker: whoever waits so long waits for ever, which it finds.
const LONG: Duration = Duration::from_secs(3_600);

fn event() -> Event {
    Notice { at: UnixTime::EPOCH, event_type: "reloaded", fields: Vec::new() }.into()
}

fn explore(model: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(model.clone(), RUNS);
    shuttle::check_pct(model, RUNS, 3);
}

/// What the writer's thread does, in the order of `Writer::run`, without files and without lingering: it sleeps as soon as it may.
fn write(queue: &Queue) -> u64 {
    let mut written = 0;
    loop {
        let (is_closing, wanted) = queue.orders();
        let mut committed = Committed::default();
        while let Some(event) = queue.pop() {
            committed.events += 1;
            committed.weight += event.weight();
        }
        written += committed.events;
        queue.release(committed);
        queue.settle(None, wanted);
        if !is_closing {
            if queue.may_sleep() {
                thread::park();
            } else {
                // A caller is between being admitted and handing over; the checker must let it.
                thread::yield_now();
            }
        } else if queue.pending() > 0 {
            thread::yield_now();
        } else {
            queue.end(Phase::Closed(Ok(())));
            return written;
        }
    }
}

/// A queue of so many records with a writer, which gives how many it has written.
fn begun(max_records: usize) -> (Arc<Queue>, thread::JoinHandle<u64>) {
    let queue = Arc::new(Queue::new(max_records, 1 << 20));
    let mut writer = None;
    let start = || {
        let queue = Arc::clone(&queue);
        let thread = thread::spawn(move || write(&queue));
        let handle = thread.thread().clone();
        writer = Some(thread);
        Ok(handle)
    };
    queue.start(start).unwrap();
    (queue, writer.unwrap())
}

/// Hands over two records, and tells how many were taken.
fn push_two(queue: &Arc<Queue>) -> thread::JoinHandle<u64> {
    let queue = Arc::clone(queue);
    thread::spawn(move || (0..2).filter(|_| queue.push(event()).is_ok()).count() as u64)
}

#[test]
fn record_that_was_taken_is_written_whatever_the_writer_does_at_that_moment() {
    explore(|| {
        let (queue, writer) = begun(8);
        let callers = [push_two(&queue), push_two(&queue)];
        let taken: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        assert_eq!(taken, 4);
        // A writer that sleeps on a record never answers this.
        queue.flush(LONG).unwrap();
        assert_eq!(queue.pending(), 0);
        assert_eq!(queue.close(LONG), Ok(false));
        assert_eq!(writer.join().unwrap(), taken);
    });
}

#[test]
fn end_of_the_log_writes_what_was_taken_and_refuses_the_rest() {
    explore(|| {
        let (queue, writer) = begun(8);
        let callers = [push_two(&queue), push_two(&queue)];
        assert_eq!(queue.close(LONG), Ok(false));
        let taken: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        assert_eq!(writer.join().unwrap(), taken);
        assert_eq!(queue.pending(), 0);
        assert!(queue.push(event()).is_err());
    });
}

#[test]
fn queue_that_is_full_loses_nothing_that_it_took_and_has_room_again() {
    explore(|| {
        let (queue, writer) = begun(1);
        let callers = [push_two(&queue), push_two(&queue)];
        let taken: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        queue.flush(LONG).unwrap();
        assert!(queue.push(event()).is_ok());
        assert_eq!(queue.close(LONG), Ok(false));
        assert_eq!(writer.join().unwrap(), taken + 1);
    });
}

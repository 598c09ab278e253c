//! Locks, counters and threads: the standard library's, or those of a model checker that tries the orders in which threads can run.
//!
//! What several threads change stands on these names, so that `make models` runs the code itself and no copy of it. Lock-free tables of
//! other crates (`arc-swap`, `dashmap`, `crossbeam-queue`) are single steps there.

#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, atomic};
#[cfg(not(feature = "shuttle"))]
pub(crate) use std::thread;

#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, atomic};
#[cfg(feature = "shuttle")]
pub(crate) use shuttle::thread;

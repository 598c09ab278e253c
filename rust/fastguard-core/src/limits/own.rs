//! A process's own windows, which stand in where the store cannot be asked or believed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::sliding::SlidingWindow;
use super::table::ClockSource;
use super::window::Admission;
use crate::clock::Tick;
use crate::sync::{Mutex, PoisonError};

/// Windows by quota and length.
type Windows = Mutex<HashMap<(u64, Duration), Arc<SlidingWindow>>>;

/// What the store admits to this process at most, and the process's share for when the store is away.
#[derive(Debug)]
pub(super) struct OwnWindows {
    processes: u32,
    max_keys: usize,
    bounds: Windows,
    shares: Windows,
}

impl OwnWindows {
    /// `max_keys`: in the windows of one rule.
    pub(super) fn new(processes: u32, max_keys: usize) -> Self {
        Self { processes: processes.max(1), max_keys, bounds: Windows::default(), shares: Windows::default() }
    }

    pub(super) const fn processes(&self) -> u32 {
        self.processes
    }

    /// The whole quota over 7/8 of the window: an eighth shorter, so that it never refuses what an honest store admits. Its
    /// slots begin elsewhere, answers arrive late, and what a lease has is charged when the lease is over.
    pub(super) fn bound(&self, quota: u64, window: Duration) -> Result<Arc<SlidingWindow>, &'static str> {
        self.of(&self.bounds, quota, window / 8 * 7)
    }

    /// The quota divided by the number of processes.
    pub(super) fn share(&self, quota: u64, window: Duration) -> Result<Arc<SlidingWindow>, &'static str> {
        self.of(&self.shares, quota / u64::from(self.processes), window)
    }

    /// What the bound has left.
    pub(super) fn room(&self, key: u128, quota: u32, window: Duration, now: Tick) -> u32 {
        let look = |bound: Arc<SlidingWindow>| bound.admit(&key.to_le_bytes(), 0, now, ClockSource::System).ok();
        let left = self.bound(quota.into(), window).ok().and_then(look).map_or(0, |found| found.remaining);
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// In what time the bound has room for the cost.
    pub(super) fn wait(&self, (key, quota, window): (u128, u32, Duration), cost: u32, now: Tick) -> Duration {
        let look = |bound: Arc<SlidingWindow>| bound.look(&key.to_le_bytes(), cost, now, ClockSource::System).ok();
        let found: Option<Admission> = self.bound(quota.into(), window).ok().and_then(look);
        found.and_then(|found| found.retry_after).unwrap_or(window)
    }

    /// Charges both for what was used until then.
    pub(super) fn used(&self, key: u128, quota: u32, window: Duration, amount: u32, at: Tick) {
        for own in [self.bound(quota.into(), window), self.share(quota.into(), window)].into_iter().flatten() {
            // What does not fit fills it: should the store fail now, this process has had its share.
            let _ = own.fill(&key.to_le_bytes(), amount, at, ClockSource::System);
        }
    }

    fn of(&self, windows: &Windows, quota: u64, window: Duration) -> Result<Arc<SlidingWindow>, &'static str> {
        let mut windows = windows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = windows.get(&(quota, window)) {
            return Ok(Arc::clone(found));
        }
        let made = Arc::new(SlidingWindow::new(quota, window, self.max_keys)?);
        windows.insert((quota, window), Arc::clone(&made));
        Ok(made)
    }
}

//! Where newcomers count when the table is full: all together, in one window for each rule.
//!
//! The window has the quota of one of them, so none is admitted more than its own. Who gets a window later begins it with what all of them
//! were charged, because its own charges are among those.

use std::collections::HashMap;

use super::table::{Charge, Refusal, Refused};
use super::window::Window;
use crate::clock::Tick;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Most of these windows. A configuration has fewer, and those of one before it leave when they are idle.
const MOST: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Overflow {
    windows: Mutex<HashMap<u128, Shared>>,
    /// The tick from which on nothing is charged in any of them.
    idle_from: AtomicU64,
    charged: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    idle_from: u64,
    window: Window<u32>,
}

/// The windows under their lock, which is taken after those of all shards of a call.
#[derive(Debug)]
pub(super) struct Newcomers<'a> {
    overflow: &'a Overflow,
    windows: MutexGuard<'a, HashMap<u128, Shared>>,
}

impl Overflow {
    pub(super) fn lock(&self) -> Newcomers<'_> {
        Newcomers { overflow: self, windows: self.windows.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Whether nobody has been charged here for as long as any of the windows is.
    // Relaxed: what a key was charged here was stored under the lock of its shard, and so is this asked for it.
    pub(super) fn is_idle(&self, now: Tick) -> bool {
        self.idle_from.load(Ordering::Relaxed) <= now.as_nanos()
    }

    /// How often somebody was charged here.
    pub(super) fn charged(&self) -> u64 {
        self.charged.load(Ordering::Relaxed)
    }
}

impl Newcomers<'_> {
    /// The window of a rule as it stands now, if there is one.
    pub(super) fn standing(&mut self, charge: &Charge<'_>, now: Tick) -> Option<&Window<u32>> {
        let shared = self.windows.get_mut(&charge.overflow)?;
        shared.window.advance(charge.spec, now);
        Some(&shared.window)
    }

    /// Whether there is room for so much.
    pub(super) fn check(&mut self, index: usize, charge: &Charge<'_>, now: Tick) -> Result<(), Refused> {
        if !self.windows.contains_key(&charge.overflow) {
            self.windows.retain(|_, shared| shared.idle_from > now.as_nanos());
            if self.windows.len() >= MOST {
                return Err(Refused::full(index, charge));
            }
            self.windows.insert(charge.overflow, Shared { idle_from: 0, window: Window::new() });
        }
        let Some(window) = self.standing(charge, now) else { return Err(Refused::full(index, charge)) };
        if window.has_room(charge.spec, charge.cost) {
            return Ok(());
        }
        let (remaining, retry_after) =
            (window.remaining(charge.spec), window.retry_after(charge.spec, charge.cost, now));
        Err(Refused { index, reason: Refusal::SpentTogether, remaining, retry_after })
    }

    /// Makes a charge that was checked under the same lock, and tells what it left.
    pub(super) fn charge(&mut self, charge: &Charge<'_>) -> u64 {
        if charge.is_look {
            return u64::MAX;
        }
        self.charged(charge, |window| window.charge(charge.cost)).map_or(0, |window| window.remaining(charge.spec))
    }

    /// Charges what is known only afterwards.
    pub(super) fn overdraw(&mut self, charge: &Charge<'_>, cost: u64) {
        self.charged(charge, |window| window.overdraw(cost));
    }

    fn charged(&mut self, charge: &Charge<'_>, how: impl FnOnce(&mut Window<u32>)) -> Option<&Window<u32>> {
        let shared = self.windows.get_mut(&charge.overflow)?;
        how(&mut shared.window);
        shared.idle_from = shared.window.idle_from();
        self.overflow.idle_from.fetch_max(shared.idle_from, Ordering::Relaxed);
        self.overflow.charged.fetch_add(1, Ordering::Relaxed);
        Some(&shared.window)
    }
}

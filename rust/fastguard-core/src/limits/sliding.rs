//! One window per key, for direct use.

use std::time::Duration;

use super::table::{Charge, ClockSource, Refused, WindowTable};
use super::window::{Admission, WindowSpec};
use crate::clock::Tick;
use crate::denial::Fault;
use crate::hashing::KeyHasher;

/// One window per key, for direct use.
#[derive(Debug)]
pub struct SlidingWindow {
    spec: WindowSpec,
    table: WindowTable,
    hasher: KeyHasher,
}

impl SlidingWindow {
    /// At most `quota` in any `window`, for each of at most `max_keys` keys.
    pub fn new(quota: u64, window: Duration, max_keys: usize) -> Result<Self, &'static str> {
        let spec = WindowSpec::new(quota, window)
            .ok_or("the window must last between 1 ms and 31 days, and the quota be at most 4294967295")?;
        if max_keys == 0 {
            return Err("a table of no windows admits nothing");
        }
        Ok(Self { spec, table: WindowTable::without_shares(max_keys), hasher: KeyHasher::random() })
    }

    /// Charges the key's window, if it has room.
    pub fn admit(&self, key: &[u8], cost: u32, now: Tick, source: ClockSource) -> Result<Admission, Fault> {
        self.admit_as(key, cost, false, now, source)
    }

    fn admit_as(
        &self,
        key: &[u8],
        cost: u32,
        is_look: bool,
        now: Tick,
        source: ClockSource,
    ) -> Result<Admission, Fault> {
        self.table.bind_clock(source)?;
        let key = self.hasher.hash(&[key]);
        let charge = Charge { key, spec: &self.spec, cost, holder: key, is_look, overflow: 0 };
        Ok(match self.table.admit_one(&charge, now) {
            Ok(admitted) => Admission { allowed: true, remaining: admitted.remaining, retry_after: None },
            Err(Refused { remaining, retry_after, .. }) => Admission { allowed: false, remaining, retry_after },
        })
    }

    /// The same, and charges nothing.
    pub(super) fn look(&self, key: &[u8], cost: u32, now: Tick, source: ClockSource) -> Result<Admission, Fault> {
        self.admit_as(key, cost, true, now, source)
    }

    /// Charges as much as fits.
    pub(super) fn fill(&self, key: &[u8], amount: u32, now: Tick, source: ClockSource) -> Result<(), Fault> {
        let found = self.admit(key, amount, now, source)?;
        if !found.allowed {
            self.admit(key, u32::try_from(found.remaining).unwrap_or(u32::MAX), now, source)?;
        }
        Ok(())
    }

    /// How many keys have a window.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

/// One window per key of what is known only afterwards, and may be more than the quota.
#[derive(Debug)]
pub struct MeteredWindow(SlidingWindow);

impl MeteredWindow {
    /// A quota for any `window`, for each of at most `max_keys` keys.
    pub fn new(quota: u64, window: Duration, max_keys: usize) -> Result<Self, &'static str> {
        let found = SlidingWindow::new(quota, window, max_keys)?;
        // A slot may hold more than the quota.
        Ok(Self(SlidingWindow { spec: found.spec.as_wide_as(u64::from(u32::MAX)), ..found }))
    }

    /// Whether the key's window has room for 1. Charges nothing.
    pub fn look(&self, key: &[u8], now: Tick, source: ClockSource) -> Result<Admission, Fault> {
        let found = self.0.admit_as(key, 1, true, now, source)?;
        if !found.allowed {
            return Ok(found);
        }
        Ok(Admission { remaining: self.0.admit_as(key, 0, false, now, source)?.remaining, ..found })
    }

    /// Charges the key's window, whether it has room or not.
    pub fn charge(&self, key: &[u8], amount: u64, now: Tick, source: ClockSource) -> Result<(), Fault> {
        self.0.table.bind_clock(source)?;
        let key = self.0.hasher.hash(&[key]);
        let charge = Charge { key, spec: &self.0.spec, cost: 1, holder: key, is_look: false, overflow: 0 };
        self.0.table.overdraw(&charge, amount, now);
        Ok(())
    }

    /// How many keys have a window.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

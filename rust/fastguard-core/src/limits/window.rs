//! One sliding window with a hard promise (decision 5).
//!
//! Time is cut into slots of 1/64 of the window. A window keeps the running slot and the 64 before it, each with what was charged
//! in it. Any interval of the window's length that ends now lies within those 65 slots, so it never holds more than the quota;
//! and what was charged is given back when its slot is 65 behind, at most 1/64 of the window late.

use std::time::Duration;

use crate::clock::Tick;

/// Slots that a window spans.
const SPAN: u64 = 64;

/// Slots that are kept: those of the span, and the running one.
const KEPT: usize = 65;

/// Longest window: a quota over more than a month belongs into a bill.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(31 * 24 * 3_600);

/// Shortest window: slots of 15 µs.
pub const SHORTEST_WINDOW: Duration = Duration::from_millis(1);

/// A quota in a window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WindowSpec {
    quota: u32,
    /// Whether every slot needs 32 bits.
    is_wide: bool,
    slot_nanos: u64,
}

impl WindowSpec {
    /// Admits nothing.
    pub const CLOSED: Self = Self { quota: 0, is_wide: false, slot_nanos: 1_000_000_000 / SPAN };

    /// At most `quota` in any `window`. `None` where the window is not between 1 ms and 31 days, or the quota above 4294967295.
    pub fn new(quota: u64, window: Duration) -> Option<Self> {
        if !(SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&window) {
            return None;
        }
        let nanos = u64::try_from(window.as_nanos()).ok()?;
        // Rounded up: 64 slots must not be shorter than the window.
        let spec = Self { quota: u32::try_from(quota).ok()?, is_wide: false, slot_nanos: nanos.div_ceil(SPAN) };
        Some(spec.as_wide_as(quota))
    }

    /// For what has no window: so many, at once.
    pub(super) const fn at_once(quota: u32) -> Self {
        Self { quota, ..Self::CLOSED }
    }

    /// The same with counters that hold `quota`, for quotas that share a window.
    pub(super) const fn as_wide_as(self, quota: u64) -> Self {
        Self { is_wide: self.is_wide || quota > u16::MAX as u64, ..self }
    }

    /// How many.
    pub const fn quota(&self) -> u32 {
        self.quota
    }

    /// Whether 16 bits suffice for every slot.
    pub(super) const fn is_narrow(&self) -> bool {
        !self.is_wide
    }

    fn slot(&self, now: Tick) -> u64 {
        now.as_nanos() / self.slot_nanos
    }

    /// From the end of a slot until nothing of it is charged any more.
    const fn span_nanos(&self) -> u64 {
        self.slot_nanos.saturating_mul(SPAN)
    }

    /// From `now` until `slot` begins; at least a nanosecond, because the slot has not begun.
    fn until(&self, slot: u64, now: Tick) -> Duration {
        Duration::from_nanos(slot.saturating_mul(self.slot_nanos).saturating_sub(now.as_nanos()).max(1))
    }

    /// The longest that anything charged stays charged.
    pub(super) const fn longest_wait(&self) -> Duration {
        Duration::from_nanos(self.slot_nanos.saturating_mul(SPAN + 1))
    }
}

/// What one window says to a charge.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Admission {
    /// Whether it was charged.
    pub allowed: bool,
    /// What is left of the quota.
    pub remaining: u64,
    /// Where it was not: after exactly this time it is, when nobody else charges meanwhile. `None` where no time helps.
    pub retry_after: Option<Duration>,
}

/// A counter of one slot, as wide as the quota needs.
pub(super) trait Counter: Copy + Default {
    fn get(self) -> u32;
    fn plus(self, cost: u32) -> Self;
    fn minus(self, cost: u32) -> Self;
}

impl Counter for u16 {
    fn get(self) -> u32 {
        u32::from(self)
    }

    fn plus(self, cost: u32) -> Self {
        // INVARIANT: a slot never holds more than its quota, which fits.
        self.saturating_add(Self::try_from(cost).unwrap_or(Self::MAX))
    }

    fn minus(self, cost: u32) -> Self {
        self.saturating_sub(Self::try_from(cost).unwrap_or(Self::MAX))
    }
}

impl Counter for u32 {
    fn get(self) -> u32 {
        self
    }

    fn plus(self, cost: u32) -> Self {
        self.saturating_add(cost)
    }

    fn minus(self, cost: u32) -> Self {
        self.saturating_sub(cost)
    }
}

/// What was charged in the newest 65 slots.
#[derive(Clone, Debug)]
pub(super) struct Window<C> {
    /// The newest slot that was seen. Time that goes back is taken for this one.
    head: u64,
    /// The tick from which on nothing is charged any more: 65 slots after the newest began. Zero before the first was seen.
    idle_from: u64,
    /// The sum of all slots.
    total: u32,
    slots: [C; KEPT],
}

impl<C: Counter> Window<C> {
    pub(super) fn new() -> Self {
        Self { head: 0, idle_from: 0, total: 0, slots: [C::default(); KEPT] }
    }

    /// One that was charged the same.
    pub(super) fn like(other: &Window<u32>) -> Self {
        let slots = other.slots.map(|counter| C::default().plus(counter));
        Self { head: other.head, idle_from: other.idle_from, total: other.total, slots }
    }

    /// Gives back what lies too far behind.
    pub(super) fn advance(&mut self, spec: &WindowSpec, now: Tick) {
        // Most calls come before the end of the newest slot, which is told without a division.
        if now.as_nanos() >= self.idle_from.saturating_sub(spec.span_nanos()) {
            self.advance_to(spec.slot(now));
            self.idle_from = (self.head + KEPT as u64).saturating_mul(spec.slot_nanos);
        }
    }

    fn advance_to(&mut self, slot: u64) {
        let steps = slot.saturating_sub(self.head);
        if steps == 0 {
            return;
        }
        if steps >= KEPT as u64 {
            self.slots = [C::default(); KEPT];
            self.total = 0;
        } else {
            for passed in self.head + 1..=slot {
                if let Some(counter) = self.slots.get_mut(index(passed)) {
                    self.total = self.total.saturating_sub(counter.get());
                    *counter = C::default();
                }
            }
        }
        self.head = slot;
    }

    /// Whether the quota has room for the cost. The window must stand at `now`.
    pub(super) fn has_room(&self, spec: &WindowSpec, cost: u32) -> bool {
        self.total.checked_add(cost).is_some_and(|sum| sum <= spec.quota)
    }

    pub(super) fn charge(&mut self, cost: u32) {
        if let Some(counter) = self.slots.get_mut(index(self.head)) {
            *counter = counter.plus(cost);
            self.total = self.total.saturating_add(cost);
        }
    }

    /// Takes back what had room and was charged since the window was brought to its time.
    pub(super) fn take_back(&mut self, cost: u32) {
        if let Some(counter) = self.slots.get_mut(index(self.head)) {
            *counter = counter.minus(cost);
            self.total = self.total.saturating_sub(cost);
        }
    }

    /// Charges what is known only afterwards, whether it fits or not. A window counts to 4294967295.
    pub(super) fn overdraw(&mut self, cost: u64) {
        let room = u32::MAX - self.total;
        self.charge(u32::try_from(cost).unwrap_or(u32::MAX).min(room));
    }

    pub(super) const fn remaining(&self, spec: &WindowSpec) -> u64 {
        spec.quota.saturating_sub(self.total) as u64
    }

    /// When enough will have been given back for the cost; `None` where it never fits.
    pub(super) fn retry_after(&self, spec: &WindowSpec, cost: u32, now: Tick) -> Option<Duration> {
        let mut left = self.total;
        for slot in self.head.saturating_sub(SPAN)..=self.head {
            left = left.saturating_sub(self.slots.get(index(slot)).map_or(0, |counter| counter.get()));
            if left.checked_add(cost).is_some_and(|sum| sum <= spec.quota) {
                return Some(spec.until(slot + KEPT as u64, now));
            }
        }
        // The cost is above the quota: it never fits.
        None
    }

    /// What is left, and in what time there is room for the cost where there is none.
    pub(super) fn look(&self, spec: &WindowSpec, cost: u32, now: Tick) -> (u64, Option<Duration>) {
        let wait = if self.has_room(spec, cost) { None } else { self.retry_after(spec, cost, now) };
        (self.remaining(spec), wait)
    }

    /// The tick from which on nothing is charged any more.
    pub(super) const fn idle_from(&self) -> u64 {
        self.idle_from
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the remainder is below 65")]
const fn index(slot: u64) -> usize {
    (slot % KEPT as u64) as usize
}

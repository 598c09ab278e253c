//! The permits of one window that a process holds in advance (decision 6): what it asks for, what it may still use, what it gives back.
//!
//! A lease begins when it is asked for, so that it ends here before the store can think so. The store counts its permits for the
//! window and a lease more than that. Permits that were not used go back once, with the next question; where that is lost, they
//! stay counted. `model` searches what can come of it.

use std::time::Duration;

use crate::clock::Tick;

/// A lease lasts this part of the window.
pub const LEASE_PART: u32 = 20;

/// Permits of one lease: at most the quota over this many times the number of processes. Seven idle processes of eight then
/// hold less than a sixteenth of the quota.
const SHARE_PART: u32 = 16;

/// Permits that a rule needs for each process; and the shortest window. Smaller rules are counted exactly.
const LEAST_FOR_EACH: u64 = 128;
const SHORTEST_LEASED: Duration = Duration::from_secs(10);

/// What a lease must have left to be used: the time of a call is read at its beginning, and its permit is used when it is
/// decided, behind signatures that are verified and threads that wait for each other.
const LEAST_LEFT: Duration = Duration::from_millis(100);

/// Where the store had no room, it is not asked again for this part of a lease: what others give back makes room sooner than it says.
const REST_PART: u32 = 8;

/// Whether a rule is large enough for leases.
pub(super) fn is_leasable(quota: u64, window: Duration, processes: u32) -> bool {
    quota >= LEAST_FOR_EACH * u64::from(processes) && window >= SHORTEST_LEASED
}

/// How long the leases of a rule last, and how many permits they have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    lease: Duration,
    least_left: Duration,
    most: u32,
}

impl Terms {
    pub(super) fn of(quota: u32, window: Duration, processes: u32) -> Self {
        let most = (quota / SHARE_PART.saturating_mul(processes).max(1)).max(1);
        Self { lease: window / LEASE_PART, least_left: LEAST_LEFT, most }
    }

    /// Leases of a model, which are used to their last moment.
    #[cfg(test)]
    pub(super) const fn of_model(lease: Duration, most: u32) -> Self {
        Self { lease, least_left: Duration::ZERO, most }
    }

    /// When a lease ends that was asked for then.
    pub(super) fn end(&self, sent: Tick) -> Tick {
        sent.plus(self.lease)
    }
}

/// What the store is asked for one window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Question {
    /// Which of the charges it is about.
    pub place: usize,
    /// What must be granted, or the call is refused.
    pub need: u32,
    /// What is granted when there is room.
    pub want: u32,
    /// The slot that something is given back to.
    pub back_to: i64,
    /// How much.
    pub back: u32,
}

/// What the store granted in one window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Given {
    /// How many permits: at least what was needed.
    pub granted: u32,
    /// What the window has left.
    pub remaining: u32,
    /// The slot that was charged.
    pub slot: i64,
}

/// The permits of one window in this process.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Lease {
    permits: u32,
    ends_at: Tick,
    slot: i64,
    /// What the store had left when it was last asked.
    remaining: u32,
    /// Until then the store has no room for a call of this cost, and is not asked again.
    refused: Option<(u32, Tick)>,
    /// When there is room, if nobody gives anything back before.
    free_at: Tick,
    /// Permits used under the running lease, from which the next is sized.
    used: u32,
    wanted: u32,
}

impl Lease {
    /// Whether there are so many permits, to be used now.
    pub(super) fn has(&self, cost: u32, now: Tick, terms: &Terms) -> bool {
        self.permits >= cost && now.plus(terms.least_left) < self.ends_at
    }

    /// When its permits may no longer be used.
    pub(super) const fn ends_at(&self) -> Tick {
        self.ends_at
    }

    /// Uses permits that it [`has`](Self::has).
    pub(super) const fn take(&mut self, cost: u32) {
        self.permits = self.permits.saturating_sub(cost);
        self.used = self.used.saturating_add(cost);
    }

    /// Undoes `take` for a call that another rule refused; nothing, where the lease is another by now.
    pub(super) fn put_back(&mut self, cost: u32, ends_at: Tick) {
        if self.ends_at == ends_at {
            self.permits = self.permits.saturating_add(cost);
            self.used = self.used.saturating_sub(cost);
        }
    }

    /// What is left in all, as far as this process knows.
    pub(super) const fn standing(&self) -> u64 {
        self.remaining as u64 + self.permits as u64
    }

    /// How many permits are at hand.
    pub(super) const fn permits(&self) -> u32 {
        self.permits
    }

    /// What a process would do that gave permits back and kept them, for the model.
    #[cfg(test)]
    pub(super) const fn keep(&mut self, given_back: u32) {
        self.permits = given_back;
    }

    /// The slot of its grant, for the model.
    #[cfg(test)]
    pub(super) const fn slot(&self) -> i64 {
        self.slot
    }

    /// In what time there is room for the cost, where the store has said that there is none.
    pub(super) fn wait(&self, cost: u32, now: Tick) -> Option<Duration> {
        let is_known = self.refused.is_some_and(|(refused, until)| refused == cost && now < until);
        is_known.then(|| self.free_at.since(now))
    }

    /// Asks for at least the cost, and as much as the last lease needed, and half again. What is at hand goes back.
    pub(super) fn ask(&mut self, place: usize, cost: u32, terms: &Terms) -> Question {
        // A lease that was used up before its end was too small; one that was not, too large.
        let wanted = if self.permits < cost {
            self.wanted.max(1).saturating_mul(2)
        } else {
            self.used.saturating_add(self.used / 2).saturating_add(1)
        };
        self.wanted = wanted.min(terms.most);
        let back = std::mem::take(&mut self.permits);
        Question { place, need: cost, want: self.wanted.max(cost), back_to: self.slot, back }
    }

    /// Begins a lease. Its clock ran from before the question was sent.
    pub(super) fn grant(&mut self, given: Given, sent: Tick, terms: &Terms) {
        (self.permits, self.slot, self.remaining) = (given.granted, given.slot, given.remaining);
        (self.ends_at, self.used, self.refused) = (terms.end(sent), 0, None);
    }

    /// Remembers for a while that there was no room.
    pub(super) fn refuse(&mut self, cost: u32, retry_after: Duration, now: Tick, terms: &Terms) {
        self.wanted = 1;
        self.free_at = now.plus(retry_after);
        self.refused = Some((cost, now.plus(retry_after.min(terms.lease / REST_PART))));
    }
}

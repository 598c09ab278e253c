//! What permits at hand say to a call; and one question to the store where they do not suffice, with what comes of its answer.

use std::sync::Arc;
use std::time::Duration;

use super::lease::{Given, Question};
use super::permits::{Entry, Permits, Table, Wanted};
use crate::clock::Tick;

/// What the permits at hand say to a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AtHand {
    /// All were there, and are used.
    Taken,
    /// The store has said a moment ago that one has no room.
    Spent(Spent),
    /// The store must be asked. Nothing is used.
    Lacking,
}

/// Which of the charges has no room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spent {
    /// Its place.
    pub place: usize,
    /// What it has left here.
    pub remaining: u64,
    /// In what time it has room.
    pub retry_after: Duration,
}

/// The same, where the store can be asked.
#[derive(Debug)]
pub enum Begun {
    /// All permits were there, and are used. What each window has left.
    Taken(Vec<u64>),
    /// One has no room.
    Spent(Spent),
    /// Somebody else asks for what is lacking: by this number [`Asking::number`] tells who.
    Busy(u64),
    /// The store is to be asked.
    Asking(Box<Asking>),
}

/// What the store grants is not used, or only in part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unusable {
    /// The answer came after a lease had ended.
    Late,
    /// The store has granted this process more than the whole quota.
    Overdrawn(Spent),
}

/// Permits at hand that the call holds while it waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserved {
    pub(super) place: usize,
    pub(super) ends_at: Tick,
}

/// What can be used of one grant.
#[derive(Clone, Copy, Debug)]
struct Usable {
    place: usize,
    given: Given,
    ends_at: Tick,
    overdrawn: Option<Spent>,
}

/// A call that waits for the store. Dropped without an answer, it gives back what it holds; what the store has granted stays counted.
#[derive(Debug)]
pub struct Asking {
    permits: Arc<Permits>,
    table: Arc<Table>,
    number: u64,
    pub(super) sent: Tick,
    wanted: Box<[Wanted]>,
    questions: Vec<Question>,
    reserved: Vec<Reserved>,
}

impl Asking {
    pub(super) fn new(
        permits: Arc<Permits>,
        table: Arc<Table>,
        (number, sent): (u64, Tick),
        wanted: &[Wanted],
        questions: Vec<Question>,
        reserved: Vec<Reserved>,
    ) -> Self {
        Self { permits, table, number, sent, wanted: wanted.into(), questions, reserved }
    }

    /// By which others know that it is under way.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// What is asked for leases. Charges that are neither here nor [held](Self::holds) are to be made exactly, with the same question.
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// Whether the permits of a charge are at hand.
    pub fn holds(&self, place: usize) -> bool {
        self.reserved.iter().any(|reserved| reserved.place == place)
    }

    /// When the lease ends of which it holds permits, for the model.
    #[cfg(test)]
    pub(super) fn held_until(&self, place: usize) -> Tick {
        self.reserved.iter().find(|reserved| reserved.place == place).map_or(self.sent, |reserved| reserved.ends_at)
    }

    /// The store has granted all, in the order of the questions. Gives place and rest of each leased window.
    pub fn granted(mut self, given: &[Given], now: Tick) -> Result<Vec<(usize, u64)>, Unusable> {
        if given.len() != self.questions.len() {
            return Err(Unusable::Late);
        }
        let usable: Vec<Usable> = self.questions.iter().zip(given).map(|asked| self.usable(asked, now)).collect();
        let is_late = self.reserved.iter().any(|reserved| reserved.ends_at <= now)
            || usable.iter().any(|usable| usable.ends_at <= now);
        let overdrawn = usable.iter().filter_map(|usable| usable.overdrawn).max_by_key(|spent| spent.retry_after);
        let is_used = !is_late && overdrawn.is_none();
        let mut left = Vec::with_capacity(self.wanted.len());
        for Usable { place, given, .. } in usable {
            let standing = self.with(place, |charge, entry| {
                let stands = self.install(entry, given);
                match (is_used, stands) {
                    (true, true) => entry.take(charge.cost),
                    // A newer lease stands, and what this one has granted to the call is used all the same.
                    (true, false) => entry.unsettled = entry.unsettled.saturating_add(charge.cost),
                    (false, _) => {}
                }
                entry.lease.standing()
            });
            left.extend(standing.map(|standing| (place, standing)));
        }
        if is_late {
            return Err(Unusable::Late);
        }
        if let Some(spent) = overdrawn {
            return Err(Unusable::Overdrawn(spent));
        }
        for Reserved { place, .. } in std::mem::take(&mut self.reserved) {
            let standing = self.with(place, |charge, entry| {
                entry.reserved = entry.reserved.saturating_sub(charge.cost);
                entry.unsettled = entry.unsettled.saturating_add(charge.cost);
                entry.lease.standing()
            });
            left.extend(standing.map(|standing| (place, standing)));
        }
        Ok(left)
    }

    /// What of a grant can be used: no more than the whole quota, whatever the store says.
    fn usable(&self, (question, given): (&Question, &Given), now: Tick) -> Usable {
        let (place, own) = (question.place, &self.permits.own);
        let found = self.with(place, |charge, entry| {
            entry.settle(own, now);
            let room = entry.room(own, now);
            let overdrawn = (room < charge.cost).then(|| Spent {
                place,
                remaining: room.into(),
                retry_after: own.wait((charge.key, charge.quota, charge.window), charge.cost, now),
            });
            let given = Given { granted: given.granted.min(room), ..*given };
            Usable { place, given, ends_at: entry.terms.end(self.sent), overdrawn }
        });
        // A lease leaves the table where nobody asks for it any more: this question was given up for one that has ended since.
        found.unwrap_or(Usable { place, given: Given { granted: 0, ..*given }, ends_at: self.sent, overdrawn: None })
    }

    /// The store has no room: in the window of this question, or for what was asked beside the leases.
    pub fn refused(self, question: Option<usize>, retry_after: Duration, now: Tick) {
        let place = question.and_then(|question| self.questions.get(question)).map(|question| question.place);
        if let Some(place) = place {
            self.with(place, |charge, entry| entry.lease.refuse(charge.cost, retry_after, now, &entry.terms));
        }
    }

    /// Begins the lease, unless a later question has brought another. Whether it stands.
    fn install(&self, entry: &mut Entry, given: Given) -> bool {
        if entry.granted_by > self.number {
            return false;
        }
        entry.granted_by = self.number;
        entry.lease.grant(given, self.sent, &entry.terms);
        if entry.asking.is_some_and(|(number, _)| number == self.number) {
            entry.asking = None;
        }
        true
    }

    fn with<T>(&self, place: usize, what: impl FnOnce(&Wanted, &mut Entry) -> T) -> Option<T> {
        let charge = self.wanted.get(place)?;
        let mut shard = self.table.shard(charge)?;
        Some(what(charge, shard.find(charge)?))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        for Question { place, .. } in std::mem::take(&mut self.questions) {
            self.with(place, |_, entry| {
                if entry.asking.is_some_and(|(number, _)| number == self.number) {
                    entry.asking = None;
                }
            });
        }
        for Reserved { place, ends_at } in std::mem::take(&mut self.reserved) {
            self.with(place, |charge, entry| {
                entry.reserved = entry.reserved.saturating_sub(charge.cost);
                entry.lease.put_back(charge.cost, ends_at);
            });
        }
    }
}

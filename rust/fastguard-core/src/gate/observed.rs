//! Refusals that are recorded and not enforced (decision 16). They never become an `AllowedCall`.

use std::sync::Arc;

use crate::call::{BoundToken, Caller, Target};
use crate::clock::UnixTime;
use crate::config::{Config, ObservedRoom};
use crate::denial::{Denial, Room};
use crate::limits::Dues;

/// The rooms that are observed, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct ObservedRooms {
    rooms: u8,
    until: UnixTime,
}

impl ObservedRooms {
    /// Everything is enforced.
    pub(super) const NONE: Self = Self { rooms: 0, until: UnixTime::EPOCH };

    pub(super) fn new(config: &Config) -> Self {
        let Some(observe) = &config.observe else { return Self::NONE };
        let bits = observe.rooms.iter().map(|room| match room {
            ObservedRoom::Token => bit(Room::Token),
            ObservedRoom::Binding => bit(Room::Binding),
            ObservedRoom::Limits => bit(Room::Limits),
            // Who waits for an approval was sent there by a rule of the policy.
            ObservedRoom::Policy => bit(Room::Policy) | bit(Room::Approval),
        });
        let until = UnixTime::from_seconds(observe.until.begins_at());
        Self { rooms: bits.fold(0, |rooms, bits| rooms | bits), until }
    }

    /// These rooms before the day, none from then on.
    pub(super) fn at(self, now: UnixTime) -> Self {
        if now < self.until { self } else { Self::NONE }
    }

    pub(super) const fn is_empty(self) -> bool {
        self.rooms == 0
    }

    pub(super) const fn contains(self, room: Room) -> bool {
        self.rooms & bit(room) != 0
    }
}

const fn bit(room: Room) -> u8 {
    match room {
        Room::Request => 0,
        Room::Token => 1,
        Room::Binding => 2,
        Room::Limits => 4,
        Room::Policy => 8,
        Room::Approval => 16,
    }
}

/// A call that a room refused and that runs all the same.
#[derive(Clone, Debug)]
pub struct ObservedCall {
    bound: Option<BoundToken>,
    target: Target,
    denial: Denial,
    record: u64,
    dues: Option<Arc<Dues>>,
}

impl ObservedCall {
    pub(super) const fn new(
        bound: Option<BoundToken>,
        target: Target,
        denial: Denial,
        record: u64,
        dues: Option<Arc<Dues>>,
    ) -> Self {
        Self { bound, target, denial, record, dues }
    }

    /// Whether a rule counts the call until it ends.
    pub const fn owes(&self) -> bool {
        self.dues.is_some()
    }

    pub(super) const fn dues(&self) -> Option<&Arc<Dues>> {
        self.dues.as_ref()
    }

    /// The token and its binding; `None` where they were refused: then the call is nobody's.
    pub const fn bound(&self) -> Option<&BoundToken> {
        self.bound.as_ref()
    }

    /// The caller, if the token names one.
    pub fn caller(&self) -> Option<&Caller> {
        self.bound.as_ref().map(BoundToken::caller)
    }

    /// What the call is about.
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Why it would have been refused.
    pub const fn denial(&self) -> &Denial {
        &self.denial
    }

    /// The number of the record in the audit log; 0 without one.
    pub const fn record(&self) -> u64 {
        self.record
    }
}

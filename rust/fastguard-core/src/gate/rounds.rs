//! Which calls are rounds of one: a server that asks for something first ends a call, and the client makes it again with the
//! answers, under a new id (MCP 2026-07-28, multi round-trip requests).

use std::collections::{HashMap, VecDeque};

use super::trail::arguments;
use crate::audit::{Audit, RoundDigest};
use crate::call::{Caller, Target, ToolRequest};

/// Rounds that are remembered until the next one comes; the oldest is forgotten first.
const MAX_WAITING: usize = 4_096;

/// What a message layer has seen of a call that is a round of one.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// The call as it was decided.
    pub request: &'a ToolRequest,
    /// The state that the client came with, as the server once gave it; empty where it came with answers alone.
    pub came_with: Option<&'a str>,
    /// The state that the server gave, where it asks for something; empty where it gave none.
    pub asks: Option<&'a str>,
}

/// How the rounds of one call are known in their records.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Rounds {
    first: HashMap<RoundDigest, u64>,
    order: VecDeque<RoundDigest>,
}

impl Rounds {
    fn first_of(&self, digest: &RoundDigest) -> Option<u64> {
        self.first.get(digest).copied()
    }

    /// Takes note that a round waits for its next one. What one caller is given twice is one round: no more can be told.
    fn wait(&mut self, digest: RoundDigest, first: u64) {
        if self.first.insert(digest, first).is_none() {
            self.order.push_back(digest);
        }
        if self.order.len() > MAX_WAITING
            && let Some(oldest) = self.order.pop_front()
        {
            self.first.remove(&oldest);
        }
    }

    /// What the ending of the call that was decided under `record` says of its rounds.
    pub(super) fn told(
        &mut self,
        audit: &Audit,
        round: &Round<'_>,
        (caller, target): (&Caller, &Target),
        record: u64,
    ) -> crate::audit::RoundTold {
        let digest = |state: &str| {
            let named = [
                caller.issuer(),
                caller.subject().unwrap_or_default(),
                caller.client_id().unwrap_or_default(),
                target.method_name(),
                target.name(),
                state,
            ];
            audit.round_digest(&named, &arguments(round.request))
        };
        let (continues, asks) = (round.came_with.map(digest), round.asks.map(digest));
        let known = continues.as_ref().and_then(|digest| self.first_of(digest));
        // The first round of all is the call's own.
        let first = if continues.is_none() { Some(record) } else { known };
        if let (Some(asks), Some(first)) = (asks, first) {
            self.wait(asks, first);
        }
        crate::audit::RoundTold { call: first, continues, asks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_round_is_forgotten_first() {
        let mut rounds = Rounds::default();
        let digest = |number: usize| u128::try_from(number).unwrap().to_be_bytes();
        for number in 0..=MAX_WAITING {
            rounds.wait(digest(number), number as u64);
        }

        assert_eq!(rounds.first_of(&digest(0)), None);
        assert_eq!(rounds.first_of(&digest(1)), Some(1));
        assert_eq!((rounds.first.len(), rounds.order.len()), (MAX_WAITING, MAX_WAITING));
    }
}

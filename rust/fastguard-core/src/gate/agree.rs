//! What several processes must agree on before a call is decided: that its proof is new, and that its windows have room.

use std::sync::Arc;
use std::time::Duration;

use crate::binding::ProofClaim;
use crate::call::BoundToken;
use crate::denial::Denial;
use crate::limits::{Counted, Dues, SharedCharge, SharedPlace, Verdict};

/// A call whose token and binding are proved, as far as this process can tell. The others are asked outside the core.
#[derive(Clone, Debug)]
pub struct Agreeing {
    pub(super) bound: BoundToken,
    /// Whether its proofs must be claimed: the message of a call that was decided before brings none of its own.
    pub(super) is_new: bool,
    pub(super) charges: Box<[SharedCharge]>,
    pub(super) places: Box<[SharedPlace]>,
    /// What the call owes already.
    pub(super) dues: Option<Arc<Dues>>,
}

impl Agreeing {
    /// What is needed, in a word.
    pub const NEED: &'static str = "the word of other processes";

    /// The proof and the signature that no other process may take.
    pub fn claims(&self) -> &[ProofClaim] {
        if self.is_new { self.bound.claims() } else { &[] }
    }

    /// What the call is charged. To be made after the claim, and only where the proof is new.
    pub fn charges(&self) -> &[SharedCharge] {
        &self.charges
    }

    /// The places that the call needs among those that run. To be taken with the charges, all or none.
    pub fn places(&self) -> &[SharedPlace] {
        &self.places
    }

    /// By which number [`Gate::take_ended`](super::Gate::take_ended) will tell that the call has ended; `None` where it owes nothing then.
    pub fn ticket(&self) -> Option<u64> {
        self.dues.as_ref().and_then(|dues| dues.ticket())
    }
}

/// What became of the claims to a call's proofs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClaimAnswer {
    /// Nobody has used them before.
    New,
    /// The one in this place of [`Agreeing::claims`] was used.
    Used(usize),
    /// The store is away.
    Unknown,
}

/// What the store said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Of the claims; counts for nothing where there is none.
    pub claim: ClaimAnswer,
    /// Of the charges, and in which mode they were made; `None` where they were not.
    pub limits: Option<(Verdict, &'static str)>,
}

/// The same, as refusals.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) proof: Result<(), Denial>,
    /// `None` where no window is shared.
    pub(super) counted: Option<Counted>,
    pub(super) dues: Option<Arc<Dues>>,
}

impl Agreed {
    pub(super) fn new(agreeing: &Agreeing, answer: &Answer) -> Self {
        let retry_after = Duration::from_secs(1);
        let proof = match (agreeing.claims(), answer.claim) {
            ([], _) | (_, ClaimAnswer::New) => Ok(()),
            (claims, ClaimAnswer::Used(place)) => Err(match claims.get(place) {
                Some(claim) if claim.is_of_signature => Denial::SignatureReplayed,
                _ => Denial::ProofReplayed,
            }),
            (_, ClaimAnswer::Unknown) => Err(Denial::ReplaysUnavailable { retry_after }),
        };
        let (charges, places) = (&agreeing.charges, &agreeing.places);
        let counted = (!charges.is_empty() || !places.is_empty()).then(|| match &answer.limits {
            Some((verdict, mode)) => Counted::new(charges, places, verdict, mode),
            None => Counted::new(charges, places, &Verdict::Unavailable { retry_after }, "refuse"),
        });
        Self { proof, counted, dues: agreeing.dues.clone() }
    }
}

/// What of a call was proved before its walk.
#[derive(Clone, Copy)]
pub(super) struct Proved<'a> {
    pub(super) bound: &'a BoundToken,
    /// What the processes have agreed on; `None` for the message of a call that was decided before.
    pub(super) agreed: Option<&'a Agreed>,
}

impl<'a> Proved<'a> {
    pub(super) const fn by(bound: &'a BoundToken) -> Self {
        Self { bound, agreed: None }
    }

    /// How shared windows were counted.
    pub(super) fn limits_mode(self) -> Option<&'static str> {
        self.agreed?.counted.as_ref().map(|counted| counted.mode)
    }
}

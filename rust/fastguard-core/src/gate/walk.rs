//! The walk through the hot rooms. Each takes the proof that the one before it gave.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::State;
use super::agree::{Agreed, Agreeing, Proved};
use super::trail::Trail;
use crate::binding::{Presented, Use};
use crate::call::{AllowedCall, BoundToken, Received, Target, ToolRequest};
use crate::clock::Now;
use crate::denial::{Denial, Fault};
use crate::limits::{AdmittedCall, Asked, Call, Counted, Limits};
use crate::request::Scheme;
use crate::token::{Answered, Detach, Need, Tokens, Unverified};

/// Why the walk ended before its end.
pub(super) enum Stop {
    Denied(Denial),
    Faulted(Fault),
    Needs(Need),
    Agrees(Agreeing),
}

impl From<Denial> for Stop {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<Unverified> for Stop {
    fn from(unverified: Unverified) -> Self {
        match unverified {
            Unverified::Denied(denial) => Self::Denied(denial),
            Unverified::Needs(need) => Self::Needs(need),
        }
    }
}

/// Walks the hot rooms in order. Each takes the proof that the one before it gave.
pub(super) fn walk(
    state: &State,
    request: &ToolRequest,
    proved: Option<Proved<'_>>,
    answered: Answered<'_>,
    now: Now,
    trail: &mut Trail,
    detach: &impl Detach,
) -> Result<AllowedCall, Stop> {
    let received = state.receiver.receive(request)?;
    trail.peer = received.peer();
    trail.session = received.session().map(Box::from);
    let bound = match proved {
        None => identify(state, &received, answered, now, Use::Once, trail, detach)?,
        Some(Proved { bound, agreed }) => {
            trail.dues = agreed.and_then(|agreed| agreed.dues.clone());
            state.tokens.recheck(bound.token(), now.unix)?;
            trail.caller = Some(Arc::clone(bound.token().caller()));
            bound.clone()
        }
    };
    trail.keep(&bound);
    if state.must_know && now.own.as_nanos() >= state.known_until.load(Ordering::Acquire) {
        return Err(Denial::RevocationsStale { retry_after: Duration::from_secs(1) }.into());
    }
    if let Some(Agreed { proof: Err(denial), .. }) = proved.and_then(|proved| proved.agreed) {
        return Err(denial.clone().into());
    }
    let target = received.target()?;
    if let Err(denial) = state.blocks.check(bound.caller(), Some(&target), now.unix) {
        trail.target = Some(target);
        return Err(denial.into());
    }
    if !trail.ends
        && let Some(rule) = state.limits.owed_by(&bound, &target)
    {
        return Err(Stop::Faulted(Fault::NeedsCall { rule: rule.to_owned() }));
    }
    let admitted = if proved.is_none() && bound.claims().is_empty() && !state.limits.is_shared() {
        let (session, peer) = (received.session(), received.peer());
        state.limits.admit(bound, target, request.payload(), session, peer, now.tick)
    } else if let Some(counted) = at_hand(state, (request, &received), proved, &bound, &target, now) {
        match counted {
            Ok(counted) => {
                trail.limits_mode = Some(counted.mode);
                Limits::admit_counted(bound, target, counted, None)
            }
            Err(denial) => Err(Box::new((target, denial))),
        }
    } else {
        trail.limits_mode = proved.and_then(Proved::limits_mode);
        admit_together(state, (request, &received), proved, bound, target, now)?
    };
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(refused) => {
            let (target, denial) = *refused;
            trail.target = Some(target);
            return Err(denial.into());
        }
    };
    state.policy.decide(admitted, now.unix).map_err(|(admitted, denial)| {
        trail.target = Some(admitted.target().clone());
        trail.dues = admitted.dues().cloned();
        denial.into()
    })
}

/// Room 3, where this process has permits of all of them: nobody is asked. A call with proofs of its own is none of these: they are
/// claimed first.
fn at_hand(
    state: &State,
    (request, received): (&ToolRequest, &Received<'_>),
    proved: Option<Proved<'_>>,
    bound: &BoundToken,
    target: &Target,
    now: Now,
) -> Option<Result<Counted, Denial>> {
    if proved.is_some_and(|proved| proved.agreed.is_some()) || proved.is_none() && !bound.claims().is_empty() {
        return None;
    }
    let call = Call::new(bound, target, received.session(), received.peer());
    state.limits.at_hand(&call, request.payload(), now.own).transpose()
}

/// Room 3, where there are other processes. A new call for which other processes must be asked stops here; one that they have agreed on goes by their word.
// Kept out of the way of calls that ask nobody: beside a round trip a jump is nothing.
#[cold]
fn admit_together(
    state: &State,
    (request, received): (&ToolRequest, &Received<'_>),
    proved: Option<Proved<'_>>,
    bound: BoundToken,
    target: Target,
    now: Now,
) -> Result<Result<AdmittedCall, Box<(Target, Denial)>>, Stop> {
    let (session, peer, payload) = (received.session(), received.peer(), request.payload());
    let agreed = proved.and_then(|proved| proved.agreed);
    if let Some(agreed) = agreed
        && let Some(counted) = &agreed.counted
    {
        return Ok(Limits::admit_counted(bound, target, counted.clone(), agreed.dues.clone()));
    }
    // The message of a call that was decided before brings no proof of its own.
    let is_new = proved.is_none() && !bound.claims().is_empty();
    if !state.limits.is_shared() && !is_new {
        return Ok(state.limits.admit(bound, target, payload, session, peer, now.tick));
    }
    let before = agreed.and_then(|agreed| agreed.dues.clone());
    let Asked { charges, places, dues } = if state.limits.is_shared() {
        match state.limits.asked(&Call::new(&bound, &target, session, peer), payload, agreed.is_none(), now.tick) {
            Ok(asked) => asked,
            Err(denial) => return Ok(Err(Box::new((target, denial)))),
        }
    } else {
        Asked::default()
    };
    let dues = dues.or(before);
    if charges.is_empty() && places.is_empty() && !is_new {
        return Ok(Ok(Limits::admit_uncounted(bound, target, dues)));
    }
    Err(Stop::Agrees(Agreeing { bound, is_new, charges, places, dues }))
}

/// Rooms 1 and 2: from the presented token to its holder.
pub(super) fn identify(
    state: &State,
    received: &Received<'_>,
    answered: Answered<'_>,
    now: Now,
    usage: Use,
    trail: &mut Trail,
    detach: &impl Detach,
) -> Result<BoundToken, Stop> {
    let presented = |scheme| Presented {
        scheme,
        proof: received.proof(),
        certificate: received.certificate(),
        method: received.http_method(),
        fields: received.fields(),
        body: received.body(),
    };
    let Some((scheme, text)) = received.credentials() else {
        let local = answered.attested.ok_or(Denial::TokenMissing)?.as_ref().map_err(Denial::clone)?;
        if !Tokens::is_local(local) {
            return Err(Denial::TokenMissing.into());
        }
        state.tokens.recheck(local, now.unix)?;
        trail.caller = Some(Arc::clone(local.caller()));
        return Ok(state.bindings.confirm(local.clone(), &presented(Scheme::Bearer), now, usage, detach)?);
    };
    let token = state.tokens.verify(text, answered.from(received.peer()), now, detach)?;
    trail.caller = Some(Arc::clone(token.caller()));
    Ok(state.bindings.confirm(token, &presented(scheme), now, usage, detach)?)
}

//! What is known of a call when its walk ends, for its record.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::audit::{self, Arguments, Checks, Decision, Ending, Event, RoundTold};
use crate::call::{AllowedCall, BoundToken, Caller, Target, ToolRequest};
use crate::clock::UnixTime;
use crate::config::Tier;
use crate::denial::{Denial, Room};
use crate::limits::Dues;
use crate::request::Payload;

/// How records call what newcomers are counted in, when the table of windows is full.
const TOGETHER: &str = "overflow";

/// How far a call came.
pub(super) struct Trail {
    pub(super) caller: Option<Arc<Caller>>,
    pub(super) target: Option<Target>,
    pub(super) peer: Option<IpAddr>,
    pub(super) session: Option<Box<str>>,
    /// How shared windows were counted.
    pub(super) limits_mode: Option<&'static str>,
    /// False where a refusal is only observed.
    pub(super) is_enforced: bool,
    /// Kept only where a refusal may be observed.
    pub(super) bound: Option<BoundToken>,
    keeps_bound: bool,
    /// Whether whoever asks tells of the call's ending.
    pub(super) ends: bool,
    /// What a call owes that was refused after all.
    pub(super) dues: Option<Arc<Dues>>,
}

impl Trail {
    /// `keeps_bound`: a refusal may be observed, and its call needs the identity. `ends`: whoever asks tells of the call's ending.
    pub(super) const fn new(keeps_bound: bool, ends: bool) -> Self {
        Self {
            caller: None,
            target: None,
            peer: None,
            session: None,
            limits_mode: None,
            is_enforced: true,
            bound: None,
            keeps_bound,
            ends,
            dues: None,
        }
    }

    pub(super) fn keep(&mut self, bound: &BoundToken) {
        if self.keeps_bound {
            self.bound = Some(bound.clone());
        }
    }

    pub(super) fn allowed(
        self,
        call: &AllowedCall,
        request: &ToolRequest,
        policy: &Arc<str>,
        record: u64,
        at: UnixTime,
    ) -> Event {
        let rule = call.rule();
        let standing = call.admitted().standing();
        Decision {
            rule: Some(Arc::clone(rule.key())),
            tier: tier_name(rule.tier()),
            log_arguments: Arc::clone(rule.log_arguments()),
            limit: standing.map(|standing| (Arc::clone(&standing.rule), standing.remaining)),
            limits_mode: self.limits_mode.or_else(|| standing.filter(|it| it.is_together).map(|_| TOGETHER)),
            checks: Checks::passed_through(Room::Policy),
            ..self.decision(Some(call.target()), audit::Outcome::Allowed, request, policy, record, at)
        }
        .into()
    }

    pub(super) fn denied(
        mut self,
        denial: &Denial,
        request: &ToolRequest,
        policy: &Arc<str>,
        record: u64,
        at: UnixTime,
    ) -> Event {
        let target = self.target.take();
        Decision {
            checks: Checks::refused_by(denial.room()),
            limit: denial.limit().map(|(rule, left)| (Arc::from(rule), left)),
            limits_mode: self.limits_mode.or_else(|| denial.is_together().then_some(TOGETHER)),
            ..self.decision(target.as_ref(), audit::Outcome::from(denial), request, policy, record, at)
        }
        .into()
    }

    fn decision(
        self,
        target: Option<&Target>,
        result: audit::Outcome,
        request: &ToolRequest,
        policy: &Arc<str>,
        record: u64,
        at: UnixTime,
    ) -> Decision {
        Decision {
            at,
            elapsed_nanos: None,
            id: record,
            result,
            enforced: self.is_enforced,
            // What an unverified caller sent is not kept: it would let strangers write what they like into the log.
            arguments: if self.caller.is_some() { arguments(request) } else { Arguments::None },
            // What proxies on the way have made of it comes first: its span is the nearest.
            trace: self.caller.as_ref().and_then(|_| request.trace().or_else(|| target.and_then(Target::trace))),
            caller: self.caller,
            peer: self.peer,
            kind: target.map_or("http", |target| target.kind().name()),
            method: target.map_or(Cow::Borrowed(""), Target::shared_method),
            target: target.and_then(Target::shared_name),
            session: self.session,
            request_id: target.and_then(|target| target.id().map(Box::from)),
            rule: None,
            tier: tier_name(Tier::Auto),
            log_arguments: Arc::default(),
            policy: Arc::clone(policy),
            checks: Checks::default(),
            limit: None,
            limits_mode: self.limits_mode,
        }
    }
}

/// What the call was given, for its record.
pub(super) fn arguments(request: &ToolRequest) -> Arguments {
    match request.payload() {
        Payload::None => Arguments::None,
        Payload::Arguments(text) => Arguments::Text(Arc::clone(text)),
        Payload::Params(text) => Arguments::Params(Arc::clone(text)),
        Payload::Message(text) => Arguments::Message(Arc::clone(text)),
    }
}

const fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Auto => "auto",
        Tier::Log => "log",
        Tier::Approve => "approve",
        Tier::Block => "block",
    }
}

/// How an allowed call ended: counts and sizes, never the result.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `ok`, `error`, `cancelled`, `unused`.
    pub status: Box<str>,
    /// The class of an error, never its text.
    pub error: Option<Box<str>>,
    /// From the decision to the end.
    pub duration: Duration,
    /// Rows of the result, if it has any.
    pub rows: Option<u64>,
    /// Bytes of the result.
    pub bytes: Option<u64>,
    /// Content items of the result.
    pub items: Option<u64>,
    /// Whether the tool's own summary of its result failed.
    pub summary_failed: bool,
}

/// The record of an ending.
pub(super) fn ended(
    target: &Target,
    caller: Option<Arc<Caller>>,
    decision: u64,
    outcome: Outcome,
    round: Option<RoundTold>,
    at: UnixTime,
) -> Event {
    Ending {
        at,
        decision,
        round: round.map(Box::new),
        duration: outcome.duration,
        execution: None,
        status: outcome.status,
        error: outcome.error,
        rows: outcome.rows,
        bytes: outcome.bytes,
        items: outcome.items,
        summary_failed: outcome.summary_failed,
        kind: target.kind().name(),
        method: target.shared_method(),
        target: target.shared_name(),
        caller,
        session: None,
        request_id: target.id().map(Box::from),
    }
    .into()
}

//! The hot corridor: walks a call through rooms 0 to 4 and has the decision recorded. No network, no clock of its own.

mod agree;
mod observed;
mod rounds;
mod trail;
mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};

use crate::audit::{Audit, Event, Notice};
use crate::binding::{Bindings, Use};
use crate::blocks::{Block, Blocks};
use crate::call::{AllowedCall, BoundToken, Target, ToolRequest, VerifiedToken};
use crate::clock::{Now, Tick, UnixTime};
use crate::config::{Config, ConfigError, Durability, OnStale};
use crate::denial::{Denial, Fault, GateError, Room};
use crate::hashing::KeyHasher;
use crate::limits::{AppliedLimit, Call, Dues, EndedCall, Limits, Permits};
use crate::policy::{CodeRule, Policy};
use crate::request::{Kind, Receiver};
use crate::scopes::ScopeTable;
use crate::sync::{Mutex, PoisonError};
use crate::token::{Answered, Attached, Detach, Identity, Need, Revocation, Tokens};
use agree::{Agreed, Proved};
use observed::ObservedRooms;
use rounds::Rounds;
use trail::Trail;
use walk::{Stop, identify, walk};

pub use agree::{Agreeing, Answer, ClaimAnswer};
pub use observed::ObservedCall;
pub use rounds::Round;
pub use trail::Outcome;

/// What the gate says of a call that it does not refuse.
#[derive(Debug)]
pub enum Decision {
    /// The call may run.
    Allowed(AllowedCall),
    /// A room that is only observed refused the call: it is recorded, and may run all the same.
    Observed(ObservedCall),
    /// Something must be fetched first; then [`Gate::resume`].
    Waiting(Waiting),
    /// Other processes must be asked first; then [`Gate::agreed`].
    Agreeing(Agreeing),
}

/// A call that waits, with the proof so far: none is needed to fetch keys, so nothing was charged or remembered.
#[derive(Debug)]
pub struct Waiting {
    need: Need,
}

impl Waiting {
    /// What is needed.
    pub const fn need(&self) -> &Need {
        &self.need
    }
}

/// How whoever asks goes on with a call.
#[derive(Clone, Copy)]
struct Asker {
    /// Rooms whose refusals are let pass.
    observed: ObservedRooms,
    /// Whether the call's ending will be told.
    ends: bool,
}

impl Asker {
    const STRICT: Self = Self { observed: ObservedRooms::NONE, ends: true };
}

/// The guard's hot part. Shared by all threads.
pub struct Gate {
    state: ArcSwap<State>,
    /// Replaced in a child process, which writes a log of its own.
    audit: ArcSwapOption<Audit>,
    /// Calls whose server has asked for something, until they come again.
    rounds: Mutex<Rounds>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("state", &*self.state()).finish_non_exhaustive()
    }
}

/// The rooms, compiled from one configuration. Replaced whole, or not at all.
#[derive(Debug)]
pub struct State {
    config: Config,
    code: Vec<CodeRule>,
    digest: Arc<str>,
    receiver: Receiver,
    tokens: Tokens,
    bindings: Bindings,
    limits: Limits,
    policy: Policy,
    observed: ObservedRooms,
    blocks: Arc<Blocks>,
    /// Until when what is revoked elsewhere counts as known, by the process's own clock.
    known_until: Arc<AtomicU64>,
    /// Whether calls are refused after that.
    must_know: bool,
    /// The rooms of the administrators' endpoint.
    admin: Option<Box<State>>,
}

impl State {
    /// The configuration in force.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Its digest, as records name it.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Room 0.
    pub const fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Room 1.
    pub const fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// How many windows are kept.
    pub fn windows(&self) -> usize {
        self.limits.table().len()
    }

    /// How often newcomers were charged in a window that they share, because the table of windows was full.
    pub fn overflowed(&self) -> u64 {
        self.limits.table().overflowed()
    }

    /// How many used proofs are remembered.
    pub fn replays(&self) -> usize {
        self.bindings.replays()
    }

    /// What operators have blocked.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Room 4.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The path of the administrators' endpoint, where there is one.
    pub fn admin_path(&self) -> Option<&str> {
        self.admin.as_deref().map(|admin| admin.receiver.path())
    }

    /// The rooms that a request has to pass: administrators' requests have a path, and rooms, of their own.
    fn of(&self, request: &ToolRequest) -> &Self {
        match self.admin.as_deref() {
            Some(admin) if request.path() == Some(admin.receiver.path()) => admin,
            _ => self,
        }
    }

    /// Compiles the rooms of the administrators' endpoint: by `[admin]`, with what the others know of keys, revocations and
    /// blocks.
    fn with_admin(mut self, before: Option<&Self>, hasher: KeyHasher) -> Result<Self, ConfigError> {
        let Some(config) = self.config.of_admin() else { return Ok(self) };
        let scopes = Arc::new(ScopeTable::new(&config, &[]));
        self.admin = Some(Box::new(Self {
            digest: Arc::clone(&self.digest),
            receiver: Receiver::of_admin(&config),
            tokens: self.tokens.beside(&config, Arc::clone(&scopes), before.map(Self::tokens))?,
            bindings: match before {
                Some(before) => before.bindings.reload(&config)?,
                None => Bindings::new(&config, hasher.clone())?,
            },
            limits: before.map_or_else(|| Limits::new(&config, hasher), |before| before.limits.reload(&config)),
            policy: Policy::new(&config, &[], scopes),
            code: Vec::new(),
            observed: ObservedRooms::NONE,
            blocks: Arc::clone(&self.blocks),
            known_until: Arc::clone(&self.known_until),
            must_know: self.must_know,
            config,
            admin: None,
        }));
        Ok(self)
    }
}

impl Gate {
    /// Compiles a configuration. `audit` is where decisions are recorded; `None` only where it says `enabled = false`.
    pub fn new(config: Config, audit: Option<Audit>) -> Result<Self, ConfigError> {
        Self::with_identity(config, audit, Identity::Issuers)
    }

    /// The same, with identities proved as `identity` says.
    pub fn with_identity(config: Config, audit: Option<Audit>, identity: Identity) -> Result<Self, ConfigError> {
        let hasher = match config.state.as_ref().map(|state| state.secret.bytes()) {
            None => KeyHasher::random(),
            Some(Some(secret)) => KeyHasher::from_secret(secret, "mcp-fastguard: names of what processes share, 1"),
            Some(None) => {
                let message = "needed, or `FASTGUARD_STATE_SECRET`: processes agree by it";
                return Err(ConfigError::at("state.secret_file", message));
            }
        };
        let scopes = Arc::new(ScopeTable::new(&config, &[]));
        let state = State {
            digest: config.digest().into(),
            receiver: Receiver::new(&config),
            tokens: Tokens::new(&config, Arc::clone(&scopes), hasher.clone(), identity)?,
            bindings: Bindings::new(&config, hasher.clone())?,
            limits: Limits::new(&config, hasher.clone()),
            policy: Policy::new(&config, &[], scopes),
            code: Vec::new(),
            observed: ObservedRooms::new(&config),
            blocks: Arc::default(),
            known_until: Arc::default(),
            must_know: must_know(&config),
            config,
            admin: None,
        };
        let state = state.with_admin(None, hasher)?;
        let audit = ArcSwapOption::from_pointee(audit);
        Ok(Self { state: ArcSwap::from_pointee(state), audit, rounds: Mutex::default() })
    }

    /// Swaps the configuration whole, or keeps the old one and says why. Windows, revocations and keys live on.
    pub fn reload(&self, config: Config) -> Result<(), ConfigError> {
        self.replace(config, self.state().code.clone())
    }

    /// Adds a rule that stands beside a tool's code. It holds in addition to the configuration's.
    pub fn add_rule(&self, rule: CodeRule) -> Result<(), ConfigError> {
        let state = self.state();
        let mut code = state.code.clone();
        code.push(rule);
        self.replace(state.config.clone(), code)
    }

    fn replace(&self, config: Config, code: Vec<CodeRule>) -> Result<(), ConfigError> {
        let before = self.state();
        if config.state != before.config.state {
            return Err(ConfigError::at("state", "cannot change while the guard runs: start it anew"));
        }
        let scopes = Arc::new(ScopeTable::new(&config, &code));
        let state = State {
            digest: config.digest().into(),
            receiver: Receiver::new(&config),
            tokens: before.tokens.reload(&config, Arc::clone(&scopes))?,
            bindings: before.bindings.reload(&config)?,
            limits: before.limits.reload(&config),
            policy: Policy::new(&config, &code, scopes),
            code,
            observed: ObservedRooms::new(&config),
            blocks: Arc::clone(&before.blocks),
            known_until: Arc::clone(&before.known_until),
            must_know: must_know(&config),
            config,
            admin: None,
        };
        let state = state.with_admin(before.admin.as_deref(), before.bindings.hasher().clone())?;
        self.state.store(Arc::new(state));
        Ok(())
    }

    /// The rooms as they stand.
    pub fn state(&self) -> Guard<Arc<State>> {
        self.state.load()
    }

    /// The audit log, unless the configuration does without.
    pub fn audit(&self) -> Guard<Option<Arc<Audit>>> {
        self.audit.load()
    }

    /// Begins a log of its own in a child process. Nothing of the parent's thread, queue or locks is used.
    pub fn after_fork(&self) -> Result<(), Fault> {
        // The parent tells of the endings of its calls, and its permits are its own.
        drop(self.take_ended());
        self.permits().after_fork();
        if let Some(audit) = &*self.audit() {
            let own = audit.reopen_after_fork()?;
            self.audit.store(Some(Arc::new(own)));
        }
        Ok(())
    }

    /// Decides a call, or says what it must wait for.
    pub fn check(&self, request: &ToolRequest, now: Now) -> Result<Decision, GateError> {
        self.decide(request, None, Answered::default(), now, &Attached, Asker::STRICT)
    }

    /// The same, with the work of many microseconds done through `detach`. `answered`: what this call has waited
    /// for already.
    pub fn check_through(
        &self,
        request: &ToolRequest,
        answered: Answered<'_>,
        now: Now,
        detach: &impl Detach,
    ) -> Result<Decision, GateError> {
        self.decide(request, None, answered, now, detach, Asker::STRICT)
    }

    /// The same for one who does not tell of the call's ending: what a rule counts until then, is not decided.
    pub fn check_alone(
        &self,
        request: &ToolRequest,
        answered: Answered<'_>,
        now: Now,
        detach: &impl Detach,
    ) -> Result<Decision, GateError> {
        self.decide(request, None, answered, now, detach, Asker { ends: false, ..Asker::STRICT })
    }

    /// Continues after the need of `waiting` was answered, well or not.
    pub fn resume(&self, request: &ToolRequest, _waiting: Waiting, now: Now) -> Result<Decision, GateError> {
        self.decide(request, None, Answered::by_fetch(), now, &Attached, Asker::STRICT)
    }

    /// The same for a transport that lets pass what observed rooms refuse (decision 16): `[observe]`, until its day.
    /// `within`: the proofs of the call that this one runs in.
    pub fn check_observed(
        &self,
        request: &ToolRequest,
        within: Option<&BoundToken>,
        answered: Answered<'_>,
        now: Now,
        detach: &impl Detach,
    ) -> Result<Decision, GateError> {
        let observed = self.state().of(request).observed.at(now.unix);
        self.decide(request, within.map(Proved::by), answered, now, detach, Asker { observed, ..Asker::STRICT })
    }

    /// Goes on with a call after other processes were asked. `request` is the one that `agreeing` came of. `lets_pass`: what
    /// observed rooms refuse, as [`Gate::check_observed`] does.
    pub fn agreed(
        &self,
        request: &ToolRequest,
        agreeing: &Agreeing,
        answer: &Answer,
        now: Now,
        detach: &impl Detach,
        lets_pass: bool,
    ) -> Result<Decision, GateError> {
        let observed = if lets_pass { self.state().of(request).observed.at(now.unix) } else { ObservedRooms::NONE };
        let agreed = Agreed::new(agreeing, answer);
        let proved = Proved { bound: &agreeing.bound, agreed: Some(&agreed) };
        self.decide(request, Some(proved), Answered::default(), now, detach, Asker { observed, ..Asker::STRICT })
    }

    /// Whether a room's refusals are only observed now.
    pub fn is_observed(&self, room: Room, now: UnixTime) -> bool {
        self.state().observed.at(now).contains(room)
    }

    /// Decides another message of a caller whose token and binding were proved by `parent`: a nested call, a mounted server,
    /// a background task. Expiry and revocation are checked again, limits and policy anew. Never [`Decision::Waiting`].
    pub fn check_nested(&self, parent: &AllowedCall, request: &ToolRequest, now: Now) -> Result<Decision, GateError> {
        let proved = Some(Proved::by(parent.admitted().bound()));
        self.decide(request, proved, Answered::default(), now, &Attached, Asker::STRICT)
    }

    /// Checks headers, token and binding alone, before a long body is read (decision 9). Charges and records nothing
    /// unless it refuses.
    pub fn check_head(
        &self,
        request: &ToolRequest,
        answered: Answered<'_>,
        now: Now,
        detach: &impl Detach,
    ) -> Result<Option<Waiting>, GateError> {
        let whole = self.state();
        let state = whole.of(request);
        let mut trail = Trail::new(false, false);
        let walked = state.receiver.receive(request).map_err(Stop::from).and_then(|received| {
            trail.peer = received.peer();
            identify(state, &received, answered, now, Use::Look, &mut trail, detach)
        });
        match walked {
            // Nothing is charged for a look.
            Ok(_) | Err(Stop::Agrees(_)) => Ok(None),
            Err(Stop::Faulted(fault)) => Err(fault.into()),
            Err(Stop::Needs(need)) => Ok(Some(Waiting { need })),
            Err(Stop::Denied(denial)) => Err(self.refuse(state, request, trail, denial, now)),
        }
    }

    /// Every rule of `[limits]` that counts a call, and how it stands in this process. Charges and records nothing.
    pub fn applied_limits(&self, request: &ToolRequest, now: Now) -> Result<Vec<AppliedLimit>, GateError> {
        let whole = self.state();
        let state = whole.of(request);
        let mut trail = Trail::new(false, false);
        let found = state.receiver.receive(request).map_err(Stop::from).and_then(|received| {
            let bound = identify(state, &received, Answered::default(), now, Use::Look, &mut trail, &Attached)?;
            let target = received.target()?;
            let call = Call::new(&bound, &target, received.session(), received.peer());
            Ok(state.limits.applied(&call, request.payload(), now.tick)?)
        });
        found.map_err(|stop| match stop {
            Stop::Denied(denial) => denial.into(),
            Stop::Faulted(fault) => fault.into(),
            Stop::Needs(need) => Fault::NeedsAuthorize { need: need.name() }.into(),
            Stop::Agrees(_) => Fault::NeedsAuthorize { need: Agreeing::NEED }.into(),
        })
    }

    /// Refuses a request for what only its transport can see, and has it recorded.
    pub fn deny(&self, request: &ToolRequest, denial: Denial, now: Now) -> GateError {
        self.refuse(self.state().of(request), request, Trail::new(false, false), denial, now)
    }

    /// The challenge of a request's refusal, where one is due.
    pub fn challenge(&self, request: &ToolRequest, denial: &Denial) -> Option<String> {
        self.state().of(request).receiver.challenge(denial)
    }

    /// Takes in what a verifier outside has found of a token: its claims, as JSON text. Then [`Gate::check_through`] again.
    pub fn attest(&self, text: &str, claims: &str, now: UnixTime) -> Result<VerifiedToken, Denial> {
        self.state().tokens.attest(text, claims, now)
    }

    /// Names the caller of a server on standard input and output that has no token: claims, as JSON text.
    pub fn attest_local(&self, claims: &str, now: UnixTime) -> Result<VerifiedToken, Denial> {
        self.state().tokens.attest_local(claims, now)
    }

    /// Whether a call that was allowed still may go on: the token's times, its key and the revocations (decision 3).
    pub fn recheck(&self, call: &AllowedCall, now: UnixTime) -> Result<(), Denial> {
        self.recheck_bound(call.admitted().bound(), Some(call.target()), now)
    }

    /// The same for a token and its binding, and a target where there is one.
    pub fn recheck_bound(&self, bound: &BoundToken, target: Option<&Target>, now: UnixTime) -> Result<(), Denial> {
        let state = self.state();
        state.tokens.recheck(bound.token(), now)?;
        state.blocks.check(bound.caller(), target, now)
    }

    /// Whether a list may show the target to the caller.
    pub fn may_see(&self, kind: Kind, name: &str, token: &VerifiedToken) -> bool {
        self.state().policy.may_see(kind, name, token.caller())
    }

    /// Records the ending of a call that was allowed.
    ///
    /// What counts the call until it ends is settled first. A call that is dropped unfinished frees its places too.
    pub fn finish(&self, call: &AllowedCall, outcome: Outcome, at: UnixTime) -> Result<(), Fault> {
        self.finish_round(call, outcome, None, at)
    }

    /// The same for a call that may be one of several rounds.
    pub fn finish_round(
        &self,
        call: &AllowedCall,
        outcome: Outcome,
        round: Option<&Round<'_>>,
        at: UnixTime,
    ) -> Result<(), Fault> {
        settle(call.admitted().dues(), &outcome);
        self.ended(call.target(), Some(call.admitted().bound()), call.record(), (outcome, round), at)
    }

    /// Records the ending of a call that was only observed.
    pub fn finish_observed(
        &self,
        call: &ObservedCall,
        outcome: Outcome,
        round: Option<&Round<'_>>,
        at: UnixTime,
    ) -> Result<(), Fault> {
        settle(call.dues(), &outcome);
        self.ended(call.target(), call.bound(), call.record(), (outcome, round), at)
    }

    /// Refuses from the next call on the tokens that a revocation hits.
    pub fn revoke(&self, revocation: Revocation, now: UnixTime) -> Result<(), &'static str> {
        self.state().tokens.revoke(revocation, now)
    }

    /// Takes note that everything revoked elsewhere is known now, and counts as known until then.
    pub fn revocations_known(&self, until: Tick) {
        self.state().known_until.fetch_max(until.as_nanos(), Ordering::AcqRel);
    }

    /// Refuses from the next call on what a block names; `until` is when it ends by itself. [`Blocks::lift`] ends it.
    pub fn block(&self, block: Block, until: Option<UnixTime>, now: UnixTime) -> Result<(), &'static str> {
        self.state().blocks.add(block, until, now)
    }

    /// Calls that have ended since this was asked last, where places and windows are those of all processes: whoever was asked by
    /// [`Agreeing`] frees the places of each, by its ticket, and charges what its result had. To be taken before every question that has a
    /// ticket, and now and then besides, for calls that nobody finishes.
    pub fn take_ended(&self) -> Vec<EndedCall> {
        self.state().limits.take_ended()
    }

    /// What this process may use of shared windows without asking. Whoever asks for an [`Agreeing`] asks for more of them too.
    pub fn permits(&self) -> Arc<Permits> {
        Arc::clone(self.state().limits.permits())
    }

    /// Whether the record of a call must be on disk before it runs: with durability `each`, or where it writes and intents are
    /// kept. [`Audit::keep`] waits for it.
    pub fn must_keep(&self, target: &Target) -> bool {
        let audit = self.audit();
        let Some(audit) = &*audit else { return false };
        audit.durability() == Durability::Each || audit.keeps_intents() && self.state().policy.writes(target)
    }

    /// Has an operator's act recorded.
    pub fn note(&self, notice: Notice) -> Result<(), Fault> {
        match &*self.audit() {
            Some(audit) => audit.record(notice.into()),
            None => Ok(()),
        }
    }

    fn decide(
        &self,
        request: &ToolRequest,
        proved: Option<Proved<'_>>,
        answered: Answered<'_>,
        now: Now,
        detach: &impl Detach,
        Asker { observed, ends }: Asker,
    ) -> Result<Decision, GateError> {
        let whole = self.state();
        let state = whole.of(request);
        let audit = self.audit();
        if let Some(audit) = &*audit {
            audit.ready()?;
        }
        let mut trail = Trail::new(!observed.is_empty(), ends);
        match walk(state, request, proved, answered, now, &mut trail, detach) {
            Ok(call) => {
                let Some(audit) = &*audit else { return Ok(Decision::Allowed(call)) };
                let record = audit.next_id();
                audit.record(trail.allowed(&call, request, &state.digest, record, now.unix))?;
                Ok(Decision::Allowed(call.recorded_as(record)))
            }
            Err(Stop::Faulted(fault)) => Err(fault.into()),
            Err(Stop::Needs(need)) => Ok(Decision::Waiting(Waiting { need })),
            Err(Stop::Agrees(agreeing)) => Ok(Decision::Agreeing(agreeing)),
            Err(Stop::Denied(denial)) if observed.contains(denial.room()) && !denial.is_always_enforced() => {
                self.let_pass(state, request, trail, denial, now).map(Decision::Observed)
            }
            Err(Stop::Denied(denial)) => Err(self.refuse(state, request, trail, denial, now)),
        }
    }
}

impl Gate {
    /// Has a refusal recorded that is not enforced. What is no message of MCP is refused all the same.
    fn let_pass(
        &self,
        state: &State,
        request: &ToolRequest,
        mut trail: Trail,
        denial: Denial,
        now: Now,
    ) -> Result<ObservedCall, GateError> {
        let target = match trail.target.clone() {
            Some(target) => target,
            None => match state.receiver.receive(request).and_then(|received| received.target()) {
                Ok(target) => target,
                Err(denial) => return Err(self.refuse(state, request, trail, denial, now)),
            },
        };
        let bound = trail.bound.take();
        trail.is_enforced = false;
        let dues = trail.dues.take();
        let audit = self.audit();
        let record = audit.as_ref().map_or(0, |audit| audit.next_id());
        if let Some(audit) = &*audit {
            let is_known = trail.caller.is_some();
            keep(audit, trail.denied(&denial, request, &state.digest, record, now.unix), is_known)?;
        }
        Ok(ObservedCall::new(bound, target, denial, record, dues))
    }

    fn ended(
        &self,
        target: &Target,
        bound: Option<&BoundToken>,
        decision: u64,
        (outcome, round): (Outcome, Option<&Round<'_>>),
        at: UnixTime,
    ) -> Result<(), Fault> {
        let audit = self.audit();
        let Some(audit) = &*audit else { return Ok(()) };
        let caller = bound.map(|bound| Arc::clone(bound.token().caller()));
        let round = round.zip(caller.as_deref()).map(|(round, caller)| {
            let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
            rounds.told(audit, round, (caller, target), decision)
        });
        keep(audit, trail::ended(target, caller, decision, outcome, round, at), bound.is_some())
    }

    /// Has a refusal recorded. One of a verified caller that cannot be recorded becomes a fault.
    fn refuse(&self, state: &State, request: &ToolRequest, mut trail: Trail, denial: Denial, now: Now) -> GateError {
        if let Some(dues) = trail.dues.take() {
            dues.give_up();
        }
        let audit = self.audit();
        let Some(audit) = &*audit else { return denial.into() };
        trail.peer = trail.peer.or_else(|| state.receiver().address(request));
        let is_known = trail.caller.is_some();
        let record = audit.next_id();
        let event = trail.denied(&denial, request, &state.digest, record, now.unix);
        match keep(audit, event, is_known) {
            // A stranger's refusal may only be counted, and then nothing is there to be quoted.
            Ok(()) => GateError::Denied(denial, is_known.then_some(record)),
            Err(fault) => fault.into(),
        }
    }
}

fn settle(dues: Option<&Arc<Dues>>, outcome: &Outcome) {
    if let Some(dues) = dues {
        dues.settle(outcome.rows, outcome.bytes, outcome.duration);
    }
}

/// Has an event of a known caller recorded. A stranger's is counted where it cannot be written, so that strangers cannot
/// stop the callers who are known.
fn keep(audit: &Audit, event: Event, is_known: bool) -> Result<(), Fault> {
    if is_known {
        return audit.record(event);
    }
    audit.record_unverified(event);
    Ok(())
}

fn must_know(config: &Config) -> bool {
    config.revocations.as_ref().is_some_and(|table| table.on_stale == OnStale::Refuse)
}

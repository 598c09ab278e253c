use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastguard_core::audit::{Audit, Notice, Settings, rfc3339};
use fastguard_core::blocks::Block;
use fastguard_core::clock::{Now, UnixTime};
use fastguard_core::config::{DpopMode, Durability, LimitAnswer, Rule, Tier};
use fastguard_core::denial::{Denial, Fault, GateError, Room};
use fastguard_core::gate::{Agreeing as AgreeingCore, Answer, ClaimAnswer, Decision, Gate as Core, Outcome, Round};
use fastguard_core::jose::Algorithm;
use fastguard_core::policy::CodeRule;
use fastguard_core::request::{Kind, ToolRequest as CoreRequest};
use fastguard_core::token::{Answered, Identity, KeyPlace, KeySource, LOCAL_AUDIENCE, Revocation, unavailable};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::audit::told;
use crate::call::{AllowedCall, ObservedCall, Proof};
use crate::config::{StateFields, read, state_fields};
#[cfg(debug_assertions)]
use crate::error::provoked;
use crate::error::{caught, faulted, misconfigured, misused, recorded};
use crate::limits::{AppliedFields, applied_fields};
use crate::permits::Permits;
use crate::request::{ToolRequest, address};
use crate::time;
use crate::token::{Released, VerifiedToken};
use crate::waiting::{Agreeing, Attested, EndedFields, MODES, Waiting, answered, ended_fields, verdict};

#[pyclass(frozen, weakref, module = "mcp_fastguard")]
pub(crate) struct Gate {
    pub(crate) core: Core,
    clock: time::Clock,
    /// Tells the time in the system's place, for a test.
    teller: OnceLock<Py<PyAny>>,
    is_closed: AtomicBool,
    /// Whether `check` answers only once its record is on disk.
    keeps_each: bool,
    folder: PathBuf,
}

/// What Python's `KeySource` is made of, in its order.
type KeySourceFields<'py> = (
    String,
    Option<String>,
    bool,
    Bound<'py, PyTuple>,
    Option<PathBuf>,
    Option<PathBuf>,
    Option<PathBuf>,
    Option<PathBuf>,
);

/// What Python's `IntrospectionSource` is made of, in its order.
type IntrospectionFields<'py> = (KeySourceFields<'py>, Option<String>, String, Option<PathBuf>);

impl Gate {
    fn source<'py>(&self, py: Python<'py>, issuer: &str, place: &KeyPlace) -> PyResult<KeySourceFields<'py>> {
        let path = |name: &Option<String>| name.as_ref().map(|name| self.folder.join(name));
        Ok((
            issuer.to_owned(),
            place.jwks_uri.clone(),
            place.allow_http_loopback,
            PyTuple::new(py, place.allow_networks.iter().map(ToString::to_string))?,
            path(&place.ca_file),
            path(&place.client_certificate),
            path(&place.client_key),
            path(&place.bearer_file),
        ))
    }

    pub(crate) fn now(&self, given: Option<f64>) -> PyResult<Now> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(faulted(&Fault::Closed));
        }
        self.clock.now(self.told(given)?)
    }

    fn wall(&self, given: Option<f64>) -> PyResult<UnixTime> {
        self.told(given)?.map_or_else(|| Ok(time::wall()), time::unix)
    }

    /// The time that was given, else the teller's; none where the system's counts.
    fn told(&self, given: Option<f64>) -> PyResult<Option<f64>> {
        match self.teller.get() {
            Some(teller) if given.is_none() => Python::attach(|py| teller.bind(py).call0()?.extract()).map(Some),
            _ => Ok(given),
        }
    }

    /// Looks again at a call that was let through.
    pub(crate) fn look_again(&self, call: &Proof<'_>, now: Option<f64>) -> PyResult<()> {
        let now = self.now(now)?.unix;
        let recheck = |bound| self.core.recheck_bound(bound, Some(call.target()), now);
        caught(|| call.bound().map_or(Ok(()), recheck))?.map_err(|denial| self.denied(&denial, call.record()))
    }

    /// Has the ending of a call recorded.
    pub(crate) fn ended(&self, call: &Proof<'_>, outcome: Outcome, round: Option<&Round<'_>>) -> PyResult<()> {
        let finished = caught(|| match call {
            Proof::Allowed(call) => self.core.finish_round(&call.get().core, outcome, round, time::wall()),
            Proof::Observed(call) => self.core.finish_observed(&call.get().core, outcome, round, time::wall()),
        })?;
        finished.map_err(|fault| faulted(&fault))
    }

    /// Has an operator's act recorded, which is done already: a log that fails undoes no revocation. `by`: who did it.
    fn noted<const COUNT: usize>(
        &self,
        event_type: &'static str,
        named: [(&'static str, Option<Box<str>>); COUNT],
        by: Option<Administrator<'_>>,
        at: UnixTime,
    ) -> PyResult<()> {
        let of_admin = by.map(Administrator::fields).into_iter().flatten();
        let fields = named.into_iter().chain(of_admin).filter_map(|(name, value)| Some((name, value?))).collect();
        self.core.note(Notice { at, event_type, fields }).map_err(|fault| faulted(&fault))
    }

    fn noted_block(
        &self,
        event_type: &'static str,
        block: Block,
        until: Option<UnixTime>,
        by: Option<Administrator<'_>>,
        at: UnixTime,
    ) -> PyResult<()> {
        let named = [
            ("tool_name", block.tool),
            ("issuer", block.issuer),
            ("subject", block.subject),
            ("client_id", block.client_id),
            ("until", moment(until)),
        ];
        self.noted(event_type, named, by, at)
    }

    fn metadata_url(&self) -> String {
        self.core.state().receiver().metadata_url().to_owned()
    }

    /// The decision of a request, which may be to wait. `observes` and `ends`: see [`Self::decide`].
    pub(crate) fn weigh(
        &self,
        py: Python<'_>,
        request: &ToolRequest,
        answered: Answered<'_>,
        (observes, ends): (bool, bool),
        now: Now,
    ) -> PyResult<Result<Decision, GateError>> {
        let (core, detach) = (&request.core, Released(py));
        #[cfg(debug_assertions)]
        if let Some(fault) = provoked::fault() {
            return Ok(Err(GateError::Faulted(fault)));
        }
        caught(|| {
            if observes {
                self.core.check_observed(core, None, answered, now, &detach)
            } else if ends {
                self.core.check_through(core, answered, now, &detach)
            } else {
                self.core.check_alone(core, answered, now, &detach)
            }
        })
    }

    pub(crate) fn decided<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, ToolRequest>,
        decision: Result<Decision, GateError>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match decision {
            Ok(Decision::Allowed(core)) => Ok(Bound::new(py, AllowedCall { core })?.into_any()),
            Ok(Decision::Observed(core)) => Ok(Bound::new(py, ObservedCall { core })?.into_any()),
            Ok(Decision::Waiting(waiting)) => Ok(Bound::new(py, Waiting { need: waiting.need().clone() })?.into_any()),
            Ok(Decision::Agreeing(core)) => Ok(Bound::new(
                py,
                Agreeing { core, request: request.clone().unbind(), is_spent: AtomicBool::new(false) },
            )?
            .into_any()),
            Err(error) => Err(self.refused(&request.get().core, &error)),
        }
    }

    /// A refusal of a call whose decision is on record under this number.
    fn denied(&self, denial: &Denial, record: u64) -> PyErr {
        let challenge = self.core.state().receiver().challenge(denial);
        recorded(denial, challenge, self.record_id(record))
    }

    fn refused(&self, request: &CoreRequest, error: &GateError) -> PyErr {
        match error {
            GateError::Denied(denial, record) => {
                let record = record.and_then(|record| self.record_id(record));
                recorded(denial, self.core.challenge(request, denial), record)
            }
            GateError::Faulted(fault) => faulted(fault),
        }
    }

    /// The id of a record of this process's log; 0 is the number of none.
    fn record_id(&self, record: u64) -> Option<String> {
        let audit = self.core.audit();
        Some(audit.as_ref().filter(|_| record > 0)?.record_id(record))
    }
}

/// Whether a decision has a record of its own: refusals before a token was verified have a budget instead, and nobody waits for
/// their disk. A call that must wait has none yet.
fn is_of_known_caller(decision: &Result<Decision, GateError>) -> bool {
    match decision {
        Ok(Decision::Allowed(_) | Decision::Observed(_)) => true,
        Err(GateError::Denied(denial, _)) => !matches!(denial.room(), Room::Request | Room::Token),
        Ok(Decision::Waiting(_) | Decision::Agreeing(_)) | Err(GateError::Faulted(_)) => false,
    }
}

fn moment(time: Option<UnixTime>) -> Option<Box<str>> {
    time.map(|time| rfc3339(time).into())
}

/// Who said so by the endpoint of `[admin]`: of this process, or as another one tells it.
#[derive(FromPyObject)]
enum Administrator<'py> {
    Here(PyRef<'py, AllowedCall>),
    /// Issuer, subject and client. The number of the decision says nothing in another log than its own.
    Elsewhere(String, Option<String>, Option<String>),
}

impl Administrator<'_> {
    fn fields(self) -> [(&'static str, Option<Box<str>>); 4] {
        let (issuer, subject, client_id, record) = match &self {
            Self::Here(call) => {
                let caller = call.core.admitted().bound().caller();
                (caller.issuer(), caller.subject(), caller.client_id(), Some(call.core.record()))
            }
            Self::Elsewhere(issuer, subject, client_id) => {
                (issuer.as_str(), subject.as_deref(), client_id.as_deref(), None)
            }
        };
        [
            ("admin_issuer", Some(issuer.into())),
            ("admin_subject", subject.map(Box::from)),
            ("admin_client_id", client_id.map(Box::from)),
            ("admin_record", record.map(|record| record.to_string().into())),
        ]
    }
}

fn block(tool: Option<&str>, issuer: Option<&str>, subject: Option<&str>, client_id: Option<&str>) -> Block {
    Block {
        tool: tool.map(Box::from),
        issuer: issuer.map(Box::from),
        subject: subject.map(Box::from),
        client_id: client_id.map(Box::from),
    }
}

#[pymethods]
impl Gate {
    #[new]
    #[pyo3(signature = (text, *, folder, file = None, is_json = false, has_verifier = false))]
    fn new(
        py: Python<'_>,
        text: &str,
        folder: PathBuf,
        file: Option<&str>,
        is_json: bool,
        has_verifier: bool,
    ) -> PyResult<Self> {
        let config = read(text, file, is_json, &folder)?;
        let audit = if config.audit.enabled {
            let settings = Settings::from_config(&config.audit, &folder);
            // Logs of killed processes are read whole.
            Some(py.detach(|| Audit::open_log(settings)).map_err(|fault| faulted(&fault))?)
        } else {
            None
        };
        let identity = if has_verifier { Identity::Outside } else { Identity::Issuers };
        let keeps_each = audit.as_ref().is_some_and(|audit| audit.durability() == Durability::Each);
        let core = Core::with_identity(config, audit, identity).map_err(misconfigured)?;
        let (clock, teller, is_closed) = (time::Clock::default(), OnceLock::new(), AtomicBool::new(false));
        Ok(Self { core, clock, teller, is_closed, keeps_each, folder })
    }

    /// Has the time told by a test's clock wherever none is given: in seconds since the epoch.
    fn tell_time_by(&self, clock: Py<PyAny>) -> PyResult<()> {
        self.teller.set(clock).map_err(|_| misused("the gate has a clock already"))
    }

    #[pyo3(signature = (request, now = None))]
    fn check(&self, py: Python<'_>, request: &ToolRequest, now: Option<f64>) -> PyResult<AllowedCall> {
        let now = self.now(now)?;
        let decision = caught(|| self.core.check_alone(&request.core, Answered::default(), now, &Released(py)))?;
        if self.keeps_each && is_of_known_caller(&decision) {
            self.keep(py)?;
        }
        match decision {
            Ok(Decision::Allowed(core)) => Ok(AllowedCall { core }),
            Ok(Decision::Observed(observed)) => Err(self.denied(observed.denial(), observed.record())),
            Ok(Decision::Waiting(waiting)) => Err(faulted(&Fault::NeedsAuthorize { need: waiting.need().name() })),
            Ok(Decision::Agreeing(_)) => Err(faulted(&Fault::NeedsAuthorize { need: AgreeingCore::NEED })),
            Err(error) => Err(self.refused(&request.core, &error)),
        }
    }

    /// `ends`: whoever asks will `finish` the call. Where it `observes`, it always does.
    #[pyo3(signature = (request, *, has_waited = false, attested = None, observes = false, ends = false, now = None))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments, as Python passes them")]
    fn decide<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, ToolRequest>,
        has_waited: bool,
        attested: Option<&Attested>,
        observes: bool,
        ends: bool,
        now: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (now, answered) = (self.now(now)?, answered(has_waited, attested));
        let decision = self.weigh(py, request.get(), answered, (observes, ends), now)?;
        self.decided(py, request, decision)
    }

    /// Goes on with a call after other processes were asked. `claim`: what became of the proofs, `claim_place`: of which. `mode`: how the windows were
    /// counted; none where no window is shared. `place`: of the window with the least left, or of the one that has no room; none
    /// where the store is away and such calls are refused. An answer counts once, unless the gate itself fails.
    #[pyo3(signature = (
        agreeing, *, claim, claim_place = 0, mode = None, place = None, is_admitted = false, remaining = 0, retry_after = None, observes = false,
        now = None,
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments, as Python passes them")]
    fn agreed<'py>(
        &self,
        py: Python<'py>,
        agreeing: &Agreeing,
        claim: &str,
        claim_place: usize,
        mode: Option<&str>,
        place: Option<usize>,
        is_admitted: bool,
        remaining: u64,
        retry_after: Option<f64>,
        observes: bool,
        now: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let now = self.now(now)?;
        let claim = match claim {
            "new" => ClaimAnswer::New,
            "used" => ClaimAnswer::Used(claim_place),
            "unknown" => ClaimAnswer::Unknown,
            _ => return Err(misused("the answer to the claim is not known")),
        };
        let verdict = verdict(place, is_admitted, remaining, retry_after)?;
        let limits = match mode {
            None => None,
            Some(mode) => {
                let known = MODES.into_iter().find(|known| *known == mode);
                Some((verdict, known.ok_or_else(|| misused("the mode of the limits is not known"))?))
            }
        };
        if agreeing.is_spent.swap(true, Ordering::AcqRel) {
            return Err(faulted(&Fault::Internal { reason: "the answer to a call was used already".to_owned() }));
        }
        let (request, answer, detach) = (agreeing.request.bind(py), Answer { claim, limits }, Released(py));
        let core = &request.get().core;
        let decision = caught(|| self.core.agreed(core, &agreeing.core, &answer, now, &detach, observes))?;
        if matches!(decision, Err(GateError::Faulted(_))) {
            agreeing.is_spent.store(false, Ordering::Release);
        }
        self.decided(py, request, decision)
    }

    /// Calls that have ended and of which the other processes must be told, each once.
    fn take_ended<'py>(&self, py: Python<'py>) -> Vec<EndedFields<'py>> {
        self.core.take_ended().iter().map(|ended| ended_fields(py, ended)).collect()
    }

    /// What this process may use of shared windows without asking.
    #[getter]
    fn permits(&self) -> Permits {
        Permits { core: self.core.permits() }
    }

    #[pyo3(signature = (request, *, has_waited = false, attested = None, now = None))]
    fn check_head(
        &self,
        py: Python<'_>,
        request: &ToolRequest,
        has_waited: bool,
        attested: Option<&Attested>,
        now: Option<f64>,
    ) -> PyResult<Option<Waiting>> {
        let now = self.now(now)?;
        let answered = answered(has_waited, attested);
        let waiting = caught(|| self.core.check_head(&request.core, answered, now, &Released(py)))?;
        let waiting = waiting.map_err(|error| self.refused(&request.core, &error))?;
        Ok(waiting.map(|waiting| Waiting { need: waiting.need().clone() }))
    }

    /// Every rule of the limits that counts a call: what Python's `AppliedLimit` is made of, in its order.
    #[pyo3(signature = (request, now = None))]
    fn applied_limits<'py>(
        &self,
        py: Python<'py>,
        request: &ToolRequest,
        now: Option<f64>,
    ) -> PyResult<Vec<AppliedFields<'py>>> {
        let now = self.now(now)?;
        let applied = caught(|| self.core.applied_limits(&request.core, now))?;
        let applied = applied.map_err(|error| self.refused(&request.core, &error))?;
        Ok(applied.iter().map(|limit| applied_fields(py, limit)).collect())
    }

    /// Refuses a request of the administrators' endpoint for what only its transport can see, and has it recorded.
    fn deny(&self, request: &ToolRequest, code: &str) -> PyResult<()> {
        let denial = match code {
            "origin_refused" => Denial::OriginRefused,
            "body_type_refused" => Denial::BodyTypeRefused,
            "body_too_large" => Denial::BodyTooLarge,
            "http_method_refused" => Denial::HttpMethodRefused,
            _ => return Err(misused("no transport refuses for that")),
        };
        let now = self.now(None)?;
        let error = caught(|| self.core.deny(&request.core, denial, now))?;
        Err(self.refused(&request.core, &error))
    }

    /// Takes in what a verifier has found of a token: claims, as JSON text; none where it failed.
    #[pyo3(signature = (text, claims, now = None))]
    fn attest(&self, text: &str, claims: Option<&str>, now: Option<f64>) -> PyResult<Attested> {
        let now = self.now(now)?.unix;
        let Some(claims) = claims else { return Ok(Attested { core: Err(unavailable()) }) };
        caught(|| self.core.attest(text, claims, now)).map(|core| Attested { core })
    }

    /// Takes in what an issuer has answered about an opaque token. Ends the lookup.
    fn introspected(&self, text: &str, answer: &[u8]) -> PyResult<Attested> {
        let now = time::now(None)?;
        caught(|| self.core.state().tokens().introspected(text, answer, now)).map(|core| Attested { core })
    }

    /// Takes note that a lookup has ended without an answer. `wish`: in how many seconds the endpoint wants to be asked again.
    #[pyo3(signature = (text, *, is_endpoint, wish = None))]
    fn introspection_failed(&self, text: &str, is_endpoint: bool, wish: Option<f64>) -> PyResult<Attested> {
        let now = time::now(None)?;
        let wish = wish.map(Duration::try_from_secs_f64).transpose().map_err(misused)?;
        let denial = caught(|| self.core.state().tokens().introspection_failed(text, is_endpoint, wish, now))?;
        Ok(Attested { core: Err(denial) })
    }

    /// Where an issuer is asked about opaque tokens, and as whom: what Python's `IntrospectionSource` is made of, in its order.
    fn introspection_source<'py>(&self, py: Python<'py>) -> PyResult<Option<IntrospectionFields<'py>>> {
        let state = self.core.state();
        let Some(table) = state.config().issuers.iter().find(|issuer| issuer.introspects()) else { return Ok(None) };
        let place = KeyPlace::from(table);
        let client_id = table.introspection_client_id.clone().unwrap_or_default();
        let secret = table.introspection_client_secret_file.as_ref().map(|name| self.folder.join(name));
        Ok(Some((self.source(py, &table.issuer, &place)?, table.introspection_endpoint.clone(), client_id, secret)))
    }

    /// Names the caller of a server on standard input and output that has no token.
    #[pyo3(signature = (subject, scopes, now = None))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts lists by value")]
    fn attest_local(&self, subject: &str, scopes: Vec<String>, now: Option<f64>) -> PyResult<Attested> {
        /// Every message names the caller anew.
        const LIFE: i64 = 60;
        let now = self.now(now)?.unix;
        let at = now.as_millis() / 1_000;
        // Without `iat`: it counts as issued at 0, so that a revocation hits every later message too.
        let claims = serde_json::json!({
            "iss": LOCAL_AUDIENCE, "aud": LOCAL_AUDIENCE, "sub": subject, "scope": scopes, "exp": at + LIFE,
        });
        caught(|| self.core.attest_local(&claims.to_string(), now)).map(|core| Attested { core })
    }

    #[pyo3(signature = (parent, request, *, observes = false, now = None))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts by value")]
    fn check_nested<'py>(
        &self,
        py: Python<'py>,
        parent: Proof<'py>,
        request: &Bound<'py, ToolRequest>,
        observes: bool,
        now: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let now = self.now(now)?;
        let core = &request.get().core;
        let decision = caught(|| match &parent {
            Proof::Allowed(parent) if !observes => self.core.check_nested(&parent.get().core, core, now),
            parent => self.core.check_observed(core, parent.bound(), Answered::default(), now, &Released(py)),
        })?;
        self.decided(py, request, decision)
    }

    #[pyo3(signature = (call, now = None))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts by value")]
    fn recheck(&self, call: Proof<'_>, now: Option<f64>) -> PyResult<()> {
        self.look_again(&call, now)
    }

    /// Whether a room's refusals are only observed now.
    fn is_observed(&self, room: &str) -> bool {
        let rooms = [Room::Token, Room::Binding, Room::Limits, Room::Policy];
        rooms.into_iter().any(|known| known.name() == room && self.core.is_observed(known, time::wall()))
    }

    fn may_see(&self, kind: &str, name: &str, caller: &Bound<'_, PyAny>) -> PyResult<bool> {
        let kind = Kind::from_name(kind).ok_or_else(|| misused(format!("unknown kind `{kind}`")))?;
        if let Ok(call) = caller.extract::<Proof<'_>>() {
            // Nobody's call sees what nobody in particular may: nothing.
            return caught(|| call.bound().is_some_and(|bound| self.core.may_see(kind, name, bound.token())));
        }
        let token = caller.cast::<VerifiedToken>()?.get();
        caught(|| self.core.may_see(kind, name, &token.core))
    }

    /// `request` came with the state `came_with`, and the server `asks` for something with another one: see [`Round`].
    #[pyo3(signature = (call, status, duration, error = None, rows = None, bytes = None, items = None, summary_failed = false, *,
        request = None, came_with = None, asks = None))]
    #[expect(clippy::too_many_arguments, reason = "all but the call are fields of the record")]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts by value")]
    fn finish(
        &self,
        call: Proof<'_>,
        status: &str,
        duration: f64,
        error: Option<&str>,
        rows: Option<u64>,
        bytes: Option<u64>,
        items: Option<u64>,
        summary_failed: bool,
        request: Option<&ToolRequest>,
        came_with: Option<&str>,
        asks: Option<&str>,
    ) -> PyResult<()> {
        let request = request.filter(|_| came_with.is_some() || asks.is_some());
        let round = request.map(|request| Round { request: &request.core, came_with, asks });
        let duration = Duration::try_from_secs_f64(duration).map_err(misused)?;
        let error = error.map(Box::from);
        let outcome = Outcome { status: status.into(), error, duration, rows, bytes, items, summary_failed };
        self.ended(&call, outcome, round.as_ref())
    }

    #[pyo3(signature = (*, issuer = None, token_id = None, subject = None, client_id = None, session = None, key_id = None,
        issued_before = None, by = None, now = None))]
    #[expect(clippy::too_many_arguments, reason = "what a token can be named by")]
    fn revoke(
        &self,
        issuer: Option<&str>,
        token_id: Option<&str>,
        subject: Option<&str>,
        client_id: Option<&str>,
        session: Option<&str>,
        key_id: Option<&str>,
        issued_before: Option<f64>,
        by: Option<Administrator<'_>>,
        now: Option<f64>,
    ) -> PyResult<()> {
        let before = issued_before.map(time::unix).transpose()?;
        let revocation = Revocation {
            issuer: issuer.map(Box::from),
            token_id: token_id.map(Box::from),
            subject: subject.map(Box::from),
            client_id: client_id.map(Box::from),
            session: session.map(Box::from),
            key_id: key_id.map(Box::from),
            issued_before: before,
        };
        let at = self.wall(now)?;
        let named = revocation.clone();
        caught(|| self.core.revoke(revocation, at))?.map_err(misused)?;
        let named = [
            ("issuer", named.issuer),
            ("token_id", named.token_id),
            ("subject", named.subject),
            ("client_id", named.client_id),
            ("session", named.session),
            ("key_id", named.key_id),
            ("issued_before", moment(before)),
        ];
        self.noted("revoked", named, by, at)
    }

    #[pyo3(signature = (*, tool = None, issuer = None, subject = None, client_id = None, until = None, by = None, now = None))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments, as Python passes them")]
    fn block(
        &self,
        tool: Option<&str>,
        issuer: Option<&str>,
        subject: Option<&str>,
        client_id: Option<&str>,
        until: Option<f64>,
        by: Option<Administrator<'_>>,
        now: Option<f64>,
    ) -> PyResult<()> {
        let (until, at) = (until.map(time::unix).transpose()?, self.wall(now)?);
        let block = block(tool, issuer, subject, client_id);
        caught(|| self.core.block(block.clone(), until, at))?.map_err(misused)?;
        self.noted_block("blocked", block, until, by, at)
    }

    #[pyo3(signature = (*, tool = None, issuer = None, subject = None, client_id = None, by = None, now = None))]
    fn unblock(
        &self,
        tool: Option<&str>,
        issuer: Option<&str>,
        subject: Option<&str>,
        client_id: Option<&str>,
        by: Option<Administrator<'_>>,
        now: Option<f64>,
    ) -> PyResult<bool> {
        let block = block(tool, issuer, subject, client_id);
        let was_there = caught(|| self.core.state().blocks().lift(&block))?;
        if was_there {
            self.noted_block("unblocked", block, None, by, self.wall(now)?)?;
        }
        Ok(was_there)
    }

    /// `[state]`: what Python's `StateSettings` is made of, in its order.
    fn state_settings(&self) -> Option<StateFields> {
        state_fields(self.core.state().config(), &self.folder)
    }

    /// Whether there is a `[revocations]`.
    #[getter]
    fn learns_revocations(&self) -> bool {
        self.core.state().config().revocations.is_some()
    }

    /// Takes note that everything revoked elsewhere is known now, and counts as known for so many seconds.
    fn revocations_known(&self, seconds: f64) -> PyResult<()> {
        let span = Duration::try_from_secs_f64(seconds).map_err(misused)?;
        let known_until = time::now(None)?.own.plus(span);
        caught(|| self.core.revocations_known(known_until))
    }

    fn key_sources<'py>(&self, py: Python<'py>) -> PyResult<Vec<KeySourceFields<'py>>> {
        let state = self.core.state();
        let mut sources = Vec::new();
        for (issuer, source) in state.tokens().sources() {
            let KeySource::Fetched(place) = source else { continue };
            sources.push(self.source(py, issuer, place)?);
        }
        Ok(sources)
    }

    /// `fresh`: in how many seconds the set should be replaced; negative where that is past.
    #[pyo3(signature = (issuer, jwks, fresh = 600.0))]
    fn replace_keys(&self, issuer: &str, jwks: &[u8], fresh: f64) -> PyResult<()> {
        let fresh_until = time::from_now(fresh).map_err(misused)?;
        caught(|| self.core.state().tokens().replace_keys(issuer, jwks, fresh_until))?.map_err(misused)
    }

    #[pyo3(signature = (issuer, reason = "", retry_after = 0.0))]
    fn keys_failed(&self, issuer: &str, reason: &str, retry_after: f64) -> PyResult<()> {
        // The service has logged it.
        let _ = reason;
        let due = time::from_now(retry_after).map_err(misused)?;
        caught(|| self.core.state().tokens().keys_failed(issuer, due))
    }

    /// For each issuer: its name, how many tokens were refused because their key was not there, whether its keys can be used now.
    fn key_figures(&self) -> Vec<(String, u64, bool)> {
        let state = self.core.state();
        let figures = state.tokens().key_figures(time::tick());
        figures.map(|(issuer, misses, is_usable)| (issuer.to_owned(), misses, is_usable)).collect()
    }

    #[pyo3(signature = (text, *, file = None, is_json = false))]
    fn reload(&self, text: &str, file: Option<&str>, is_json: bool) -> PyResult<()> {
        let config = read(text, file, is_json, &self.folder)?;
        caught(|| self.core.reload(config))?.map_err(misconfigured)
    }

    #[pyo3(signature = (kind, name, *, scopes, any_scopes, is_open, tier, is_read_only = false))]
    #[expect(clippy::too_many_arguments, reason = "the fields of a rule by keyword")]
    fn add_rule(
        &self,
        kind: &str,
        name: &str,
        scopes: Vec<String>,
        any_scopes: Vec<String>,
        is_open: bool,
        tier: &str,
        is_read_only: bool,
    ) -> PyResult<()> {
        let kind = Kind::from_name(kind).ok_or_else(|| misused(format!("unknown kind `{kind}`")))?;
        let tier = [("auto", Tier::Auto), ("log", Tier::Log), ("approve", Tier::Approve), ("block", Tier::Block)]
            .into_iter()
            .find_map(|(name, known)| (name == tier).then_some(known))
            .ok_or_else(|| misused(format!("unknown tier `{tier}`")))?;
        let mut rule = Rule::beside_code(scopes, any_scopes, is_open, tier).map_err(misused)?;
        rule.read_only = is_read_only.then_some(true);
        self.core.add_rule(CodeRule { kind, name: name.to_owned(), rule }).map_err(misconfigured)
    }

    /// Where the rules stand that speak of a target: `tools."run_query"`, the configuration's before those beside the code.
    fn rule_keys(&self, kind: &str, name: &str) -> PyResult<Vec<String>> {
        let kind = Kind::from_name(kind).ok_or_else(|| misused(format!("unknown kind `{kind}`")))?;
        let state = self.core.state();
        Ok(state.policy().rules(kind, name).iter().map(|rule| rule.key().to_string()).collect())
    }

    /// The configuration in force, as JSON text.
    fn config_json(&self) -> PyResult<String> {
        serde_json::to_string(self.core.state().config()).map_err(misused)
    }

    fn warnings(&self) -> Vec<(String, String)> {
        let warnings = self.core.state().config().warnings();
        warnings.into_iter().map(|warning| (warning.key, warning.message)).collect()
    }

    #[getter]
    fn path(&self) -> String {
        self.core.state().receiver().path().to_owned()
    }

    /// The path of the administrators' endpoint, where there is one.
    #[getter]
    fn admin_path(&self) -> Option<String> {
        self.core.state().admin_path().map(str::to_owned)
    }

    #[getter(metadata_url)]
    fn metadata_url_of_python(&self) -> String {
        self.metadata_url()
    }

    #[getter]
    fn folder(&self) -> &PathBuf {
        &self.folder
    }

    #[getter]
    fn policy_digest(&self) -> String {
        self.core.state().digest().to_owned()
    }

    /// Whether what a peer says of its client's certificate may reach the app.
    #[pyo3(signature = (peer))]
    fn passes_certificates_of(&self, peer: Option<&str>) -> PyResult<bool> {
        Ok(self.core.state().receiver().passes_certificates_of(address(peer)?))
    }

    /// Whether a spent limit is told as a result of the tool.
    #[getter]
    fn tells_limits_by_result(&self) -> bool {
        self.core.state().config().limits.answer == LimitAnswer::Result
    }

    /// The algorithms of proofs, where they are taken.
    #[getter]
    fn dpop_algorithms(&self) -> Vec<&'static str> {
        let state = self.core.state();
        let dpop = &state.config().dpop;
        if dpop.mode == DpopMode::Off {
            return Vec::new();
        }
        dpop.accepted_algorithms().iter().map(Algorithm::name).collect()
    }

    /// Logs that had no seal when this one's was opened, and what became of them.
    fn repaired_logs(&self) -> Vec<(String, bool, String)> {
        self.core.audit().as_ref().map_or_else(Vec::new, |audit| told(audit.repaired()))
    }

    /// The folder in which this process writes its log, once it does.
    #[getter]
    fn audit_folder(&self) -> Option<PathBuf> {
        self.core.audit().as_ref().map(|audit| audit.folder().to_path_buf())
    }

    /// Whether every decision is on disk before it is answered.
    #[getter]
    fn keeps_each(&self) -> bool {
        self.keeps_each
    }

    /// Whether the record of a call that passed must be on disk before it runs.
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts by value")]
    fn must_keep(&self, call: Proof<'_>) -> bool {
        self.core.must_keep(call.target())
    }

    /// Waits until all that was recorded before is on disk, for at most two seconds.
    fn keep(&self, py: Python<'_>) -> PyResult<()> {
        match &*self.core.audit() {
            Some(audit) => py.detach(|| audit.keep()).map_err(|fault| faulted(&fault)),
            None => Ok(()),
        }
    }

    #[pyo3(signature = (timeout = 2.0))]
    fn flush(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let timeout = Duration::try_from_secs_f64(timeout).map_err(misused)?;
        match &*self.core.audit() {
            Some(audit) => py.detach(|| audit.flush(timeout)).map_err(|fault| faulted(&fault)),
            None => Ok(()),
        }
    }

    /// Refuses every call from now on; the log takes the endings of those that run until it is closed.
    fn refuse(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Why the registry of logs does not know that the log has ended, where it does not.
    fn close(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.refuse();
        match &*self.core.audit() {
            Some(audit) => {
                py.detach(|| audit.close()).map_err(|fault| faulted(&fault))?;
                Ok(audit.end_left().map(str::to_owned))
            }
            None => Ok(None),
        }
    }

    fn after_fork(&self) -> PyResult<()> {
        caught(|| self.core.after_fork())?.map_err(|fault| faulted(&fault))
    }

    /// Figures for metrics: (name, value).
    fn statistics(&self) -> Vec<(&'static str, u64)> {
        let state = self.core.state();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let mut figures = vec![
            ("tokens_cached", count(state.tokens().cached())),
            ("windows", count(state.windows())),
            ("windows_overflowed", state.overflowed()),
            ("replays", count(state.replays())),
            ("revocations", count(state.tokens().revocations())),
            ("blocks", count(state.blocks().len())),
        ];
        if let Some(audit) = &*self.core.audit() {
            let audit = audit.statistics();
            figures.extend([
                ("audit_queued", audit.queued),
                ("audit_written", audit.written),
                ("audit_refused", audit.refused),
                ("audit_unrecorded", audit.unrecorded),
                ("audit_failed", u64::from(audit.failed)),
                ("unverified_counted", audit.unverified_counted),
            ]);
        }
        figures
    }
}

use std::borrow::Cow;
use std::time::Instant;

use fastguard_core::denial::{Fault, GateError};
use fastguard_core::gate::{Decision, Outcome, Round};
use fastguard_core::token::Answered;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt};

use crate::audit::{Counts, state_brought, state_given};
use crate::call::{AllowedCall, ObservedCall, Proof};
use crate::error::{faulted, misused};
use crate::gate::Gate;
use crate::request::ToolRequest;
use crate::waiting::Attested;

/// What an ending says before anything has happened.
const UNUSED: &str = "unused";

/// Methods whose results are lists of targets.
const LISTS: [&str; 4] = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"];

/// What is known of a call on its way, and its steps that wait for nothing. Python's `Call` walks it through the rooms.
#[pyclass(subclass, module = "mcp_fastguard")]
#[expect(clippy::struct_excessive_bools, reason = "each step is noted apart")]
pub(crate) struct OpenCall {
    #[pyo3(get)]
    guard: Py<PyAny>,
    gate: Py<Gate>,
    #[pyo3(get)]
    request: Py<ToolRequest>,
    proof: Option<Held>,
    /// With what `authorize` goes on.
    decision: Option<Py<PyAny>>,
    #[pyo3(get, name = "_observes")]
    observes: bool,
    #[pyo3(get, name = "_attested")]
    attested: Option<Py<Attested>>,
    started: Instant,
    status: Cow<'static, str>,
    error: Option<Box<str>>,
    items: Option<u64>,
    rows: Option<u64>,
    bytes: Option<u64>,
    summary_failed: bool,
    /// MCP 2026-07-28, multi round-trip requests: the state that the client came with, and the one that the server gives.
    came_with: Option<String>,
    asks: Option<String>,
    #[pyo3(get)]
    is_settled: bool,
    /// Whether the message layer has taken this call; it can be taken once.
    #[pyo3(get, set)]
    is_taken: bool,
    /// Whether the ending is recorded.
    #[pyo3(get)]
    is_closed: bool,
}

/// A proof, for as long as the call lasts.
enum Held {
    Allowed(Py<AllowedCall>),
    Observed(Py<ObservedCall>),
}

impl Held {
    fn bind<'py>(&self, py: Python<'py>) -> Proof<'py> {
        match self {
            Self::Allowed(call) => Proof::Allowed(call.bind(py).clone()),
            Self::Observed(call) => Proof::Observed(call.bind(py).clone()),
        }
    }
}

impl From<Proof<'_>> for Held {
    fn from(proof: Proof<'_>) -> Self {
        match proof {
            Proof::Allowed(call) => Self::Allowed(call.unbind()),
            Proof::Observed(call) => Self::Observed(call.unbind()),
        }
    }
}

fn internal(reason: &str) -> PyErr {
    faulted(&Fault::Internal { reason: reason.to_owned() })
}

/// A count of any size; beyond what 64 bits hold it is as large as can be.
fn count(given: &Bound<'_, PyInt>) -> PyResult<u64> {
    match given.extract() {
        Ok(count) => Ok(count),
        Err(_) if given.lt(0)? => Err(misused("a count is negative")),
        Err(_) => Ok(u64::MAX),
    }
}

/// Parameters of a message, which mostly are a dict.
fn as_dict<'py>(params: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    if let Ok(dict) = params.cast::<PyDict>() {
        return Ok(dict.clone());
    }
    PyDict::from_sequence(&params.call_method0(intern!(params.py(), "items"))?.try_iter()?.into_any())
}

impl OpenCall {
    fn known(&self) -> PyResult<&Held> {
        self.proof.as_ref().ok_or_else(|| internal("the call was not authorized"))
    }

    fn prove(&mut self, proof: Held) {
        self.proof = Some(proof);
        self.started = Instant::now();
    }

    /// A notification is answered before it is handled, so its ending may stand in the log already.
    fn is_notification(&self, py: Python<'_>) -> bool {
        self.proof.as_ref().is_some_and(|proof| proof.bind(py).target().method_name().starts_with("notifications/"))
    }

    /// Whether a rule counts the call until it ends, which other processes may have to know.
    fn is_owing(&self) -> bool {
        self.proof.as_ref().is_some_and(|proof| match proof {
            Held::Allowed(call) => call.get().core.admitted().owes(),
            Held::Observed(call) => call.get().core.owes(),
        })
    }

    fn outcome(&mut self) -> Outcome {
        Outcome {
            status: std::mem::take(&mut self.status).into(),
            error: self.error.take(),
            duration: self.started.elapsed(),
            rows: self.rows,
            bytes: self.bytes,
            items: self.items,
            summary_failed: self.summary_failed,
        }
    }
}

#[pymethods]
impl OpenCall {
    #[new]
    #[pyo3(signature = (guard, request, proof = None, *, observes = false, attested = None))]
    fn new(
        guard: &Bound<'_, PyAny>,
        request: Py<ToolRequest>,
        proof: Option<Proof<'_>>,
        observes: bool,
        attested: Option<Py<Attested>>,
    ) -> PyResult<Self> {
        Ok(Self {
            gate: guard.getattr(intern!(guard.py(), "gate"))?.cast_into::<Gate>()?.unbind(),
            guard: guard.clone().unbind(),
            request,
            proof: proof.map(Held::from),
            decision: None,
            observes,
            attested,
            started: Instant::now(),
            status: Cow::Borrowed(UNUSED),
            error: None,
            items: None,
            rows: None,
            bytes: None,
            summary_failed: false,
            came_with: None,
            asks: None,
            is_settled: false,
            is_taken: false,
            is_closed: false,
        })
    }

    #[getter]
    fn proof(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(match self.known()? {
            Held::Allowed(call) => call.clone_ref(py).into_any(),
            Held::Observed(call) => call.clone_ref(py).into_any(),
        })
    }

    #[getter]
    fn _is_proved(&self) -> bool {
        self.proof.is_some()
    }

    #[getter]
    fn _owes(&self) -> bool {
        self.is_owing()
    }

    /// Whether the call may not pass without a message layer: lists are filtered there, since without it they would show what the
    /// caller may not see; and a call that is counted until it ends must be seen to end.
    #[getter]
    fn needs_layer(&self, py: Python<'_>) -> bool {
        let is_list = |proof: &Held| LISTS.contains(&proof.bind(py).target().method_name());
        self.is_owing() || self.proof.as_ref().is_some_and(is_list)
    }

    /// Whether the gate lets the call pass at once. What it decides otherwise is kept for [`Self::_take_decision`].
    fn _decide(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let (gate, request, attested, observes) = {
            let call = slf.borrow();
            let attested = call.attested.as_ref().map(|attested| attested.clone_ref(py));
            (call.gate.clone_ref(py), call.request.clone_ref(py), attested, call.observes)
        };
        let gate = gate.get();
        let answered =
            Answered { attested: attested.as_ref().map(|attested| &attested.get().core), ..Answered::default() };
        let decision = gate.weigh(py, request.get(), answered, (observes, true), gate.now(None)?)?;
        if matches!(decision, Err(GateError::Faulted(Fault::AuditQueueFull))) {
            // Nothing was charged; whoever can wait asks again.
            return Ok(false);
        }
        let is_let = matches!(&decision, Ok(Decision::Allowed(call)) if !gate.core.must_keep(call.target()));
        let decided = gate.decided(py, request.bind(py), decision)?;
        let mut call = slf.borrow_mut();
        if is_let {
            call.prove(Held::Allowed(decided.cast_into::<AllowedCall>()?.unbind()));
        } else {
            call.decision = Some(decided.unbind());
        }
        Ok(is_let)
    }

    fn _take_decision(&mut self) -> Option<Py<PyAny>> {
        self.decision.take()
    }

    fn _prove(&mut self, proof: Proof<'_>) {
        self.prove(proof.into());
    }

    /// Room approval lets it pass.
    fn _settle(&mut self) {
        self.is_settled = true;
    }

    /// The last look before room execute: the token may have died while the call waited.
    fn _look_again(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (gate, proof) = {
            let (py, call) = (slf.py(), slf.borrow());
            let proof = call.known()?.bind(py);
            if !call.is_settled || (call.is_closed && !call.is_notification(py)) {
                return Err(internal("the call was not settled, or has ended"));
            }
            (call.gate.clone_ref(py), proof)
        };
        gate.get().look_again(&proof, None)
    }

    /// Adds counts to the ending's record.
    #[pyo3(signature = (*, rows = None, bytes_scanned = None))]
    fn note(&mut self, rows: Option<&Bound<'_, PyInt>>, bytes_scanned: Option<&Bound<'_, PyInt>>) -> PyResult<()> {
        if self.is_closed {
            return Err(PyRuntimeError::new_err("the call has ended"));
        }
        let (rows, bytes) = (rows.map(count).transpose()?, bytes_scanned.map(count).transpose()?);
        let sum = |known: Option<u64>, more: Option<u64>| match more {
            Some(more) => Some(known.unwrap_or_default().saturating_add(more)),
            None => known,
        };
        (self.rows, self.bytes) = (sum(self.rows, rows), sum(self.bytes, bytes));
        Ok(())
    }

    /// `summary`: of the result, by the tool itself; what Python's `Summary` has, in its order.
    #[pyo3(signature = (result, status = None, error = None, summary = None))]
    fn _finish(
        slf: &Bound<'_, Self>,
        result: &Bound<'_, PyAny>,
        status: Option<String>,
        error: Option<&str>,
        summary: Option<SummaryFields>,
    ) -> PyResult<()> {
        let (found, has_failed) = match summary {
            None => (Counts::of(result)?, false),
            Some((items, bytes, is_error, rows, needs_input, has_failed)) => {
                (Counts { items, bytes, is_error, rows, needs_input }, has_failed)
            }
        };
        let asks =
            if status.is_none() && !found.is_error && found.needs_input { Some(state_given(result)?) } else { None };
        let mut call = slf.borrow_mut();
        call.items = found.items;
        // What the tool has noted itself while it ran comes first.
        call.bytes = call.bytes.or(found.bytes);
        call.rows = call.rows.or(found.rows);
        call.summary_failed = has_failed;
        if let Some(status) = status {
            call.status = Cow::Owned(status);
        } else if found.is_error {
            call.status = Cow::Borrowed("error");
        } else if found.needs_input {
            (call.status, call.asks) = (Cow::Borrowed("input_required"), asks);
        } else if call.status == UNUSED {
            call.status = Cow::Borrowed("ok");
        }
        if let Some(error) = error {
            call.error = Some(error.into());
        }
        Ok(())
    }

    /// Takes note that the tool has run.
    fn _ran(&mut self) {
        self.status = Cow::Borrowed("ok");
    }

    /// Takes note that the call has passed, unless something else is known of it.
    fn _pass(&mut self) {
        if self.status == UNUSED {
            self.status = Cow::Borrowed("ok");
        }
    }

    fn _fail(&mut self, status: String, error: &str) {
        (self.status, self.error) = (Cow::Owned(status), Some(error.into()));
    }

    /// Records the ending, once. Without a proof there is nothing to end.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (proof, outcome, round, is_owing) = {
            let mut call = slf.borrow_mut();
            if std::mem::replace(&mut call.is_closed, true) {
                return Ok(());
            }
            let Some(proof) = call.proof.as_ref().map(|proof| proof.bind(py)) else { return Ok(()) };
            (proof, call.outcome(), (call.came_with.take(), call.asks.take()), call.is_owing())
        };
        let (guard, gate, request) = {
            let call = slf.borrow();
            (call.guard.clone_ref(py), call.gate.clone_ref(py), call.request.clone_ref(py))
        };
        let (came_with, asks) = (round.0.as_deref(), round.1.as_deref());
        let round =
            (came_with.is_some() || asks.is_some()).then(|| Round { request: &request.get().core, came_with, asks });
        let ended = gate.get().ended(&proof, outcome, round.as_ref());
        if is_owing {
            guard.call_method0(py, intern!(py, "_ended"))?;
        }
        ended
    }

    /// Whether this call is the proof for a message, and was not spent before. Taking spends it.
    #[pyo3(signature = (method, params))]
    fn take(slf: &Bound<'_, Self>, method: &str, params: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let params = params.map(as_dict).transpose()?;
        let params = params.as_ref();
        let (py, mut call) = (slf.py(), slf.borrow_mut());
        if call.proof.is_none() || call.is_taken || (call.is_closed && !call.is_notification(py)) {
            return Ok(false);
        }
        if !call.request.get().is_message(method, params)? {
            return Ok(false);
        }
        call.came_with = params.map_or(Ok(None), state_brought)?;
        call.is_taken = true;
        Ok(true)
    }

    /// Takes note of what a client brings that was asked for something (MCP 2026-07-28, multi round-trip requests), so that the
    /// records of all rounds of one call are joined. Of the state a keyed digest is recorded, of the answers nothing.
    fn comes_with(&mut self, params: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        if let Some(params) = params {
            self.came_with = state_brought(&as_dict(params)?)?;
        }
        Ok(())
    }
}

/// Items, bytes, whether it is an error, rows, whether the server asks for something, whether the tool's own summary failed.
type SummaryFields = (Option<u64>, Option<u64>, bool, Option<u64>, bool, bool);

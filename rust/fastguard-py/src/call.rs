use fastguard_core::call::{AllowedCall as Core, BoundToken, Caller, Target};
use fastguard_core::config::Tier;
use fastguard_core::gate::ObservedCall as ObservedCore;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::token::VerifiedToken;

#[pyclass(frozen, module = "mcp_fastguard")]
pub(crate) struct AllowedCall {
    pub(crate) core: Core,
}

#[pymethods]
impl AllowedCall {
    #[getter]
    fn subject(&self) -> Option<&str> {
        self.core.caller().subject()
    }

    #[getter]
    fn client_id(&self) -> Option<&str> {
        self.core.caller().client_id()
    }

    #[getter]
    fn issuer(&self) -> &str {
        self.core.caller().issuer()
    }

    #[getter]
    fn organisation(&self) -> Option<&str> {
        self.core.caller().organisation()
    }

    #[getter]
    fn actor(&self) -> Option<&str> {
        self.core.caller().actor()
    }

    #[getter]
    fn scopes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.core.caller().scopes().iter().map(|scope| &**scope))
    }

    #[getter]
    fn kind(&self) -> &'static str {
        self.core.target().kind().name()
    }

    #[getter]
    fn method(&self) -> &str {
        self.core.target().method_name()
    }

    #[getter]
    fn target(&self) -> &str {
        self.core.target().name()
    }

    #[getter]
    fn tool(&self) -> Option<&str> {
        let target = self.core.target();
        (target.kind() == fastguard_core::request::Kind::Tool).then(|| target.name())
    }

    #[getter]
    fn request_id(&self) -> Option<&str> {
        self.core.target().id()
    }

    #[getter]
    fn tier(&self) -> &'static str {
        match self.core.rule().tier() {
            Tier::Auto => "auto",
            Tier::Log => "log",
            Tier::Approve => "approve",
            Tier::Block => "block",
        }
    }

    #[getter]
    fn rule(&self) -> &str {
        self.core.rule().key()
    }

    #[getter]
    fn remaining(&self) -> Option<u64> {
        self.core.admitted().standing().map(|standing| standing.remaining)
    }

    #[getter]
    fn limit(&self) -> Option<&str> {
        self.core.admitted().standing().map(|standing| &*standing.rule)
    }

    #[getter]
    fn owes(&self) -> bool {
        self.core.admitted().owes()
    }

    #[getter]
    fn record(&self) -> u64 {
        self.core.record()
    }

    #[getter]
    fn dpop_nonce(&self) -> Option<&str> {
        self.core.admitted().bound().nonce()
    }

    #[getter]
    fn token(&self) -> VerifiedToken {
        VerifiedToken { core: self.core.admitted().bound().token().clone() }
    }

    fn __repr__(&self) -> String {
        let caller = self.core.caller();
        let who = caller.subject().or(caller.client_id()).unwrap_or_default();
        format!("<AllowedCall {} of {who:?} by {}>", self.core.target().name(), self.core.rule().key())
    }
}

#[pyclass(frozen, module = "mcp_fastguard")]
pub(crate) struct ObservedCall {
    pub(crate) core: ObservedCore,
}

impl ObservedCall {
    fn caller(&self) -> Option<&Caller> {
        self.core.caller()
    }
}

#[pymethods]
impl ObservedCall {
    #[getter]
    fn owes(&self) -> bool {
        self.core.owes()
    }

    #[getter]
    fn code(&self) -> &'static str {
        self.core.denial().code()
    }

    #[getter]
    fn room(&self) -> &'static str {
        self.core.denial().room().name()
    }

    #[getter]
    fn detail(&self) -> String {
        self.core.denial().to_string()
    }

    #[getter]
    fn subject(&self) -> Option<&str> {
        self.caller()?.subject()
    }

    #[getter]
    fn client_id(&self) -> Option<&str> {
        self.caller()?.client_id()
    }

    #[getter]
    fn issuer(&self) -> Option<&str> {
        self.caller().map(Caller::issuer)
    }

    #[getter]
    fn organisation(&self) -> Option<&str> {
        self.caller()?.organisation()
    }

    #[getter]
    fn actor(&self) -> Option<&str> {
        self.caller()?.actor()
    }

    #[getter]
    fn scopes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.caller().map_or(&[][..], Caller::scopes).iter().map(|scope| &**scope))
    }

    #[getter]
    fn kind(&self) -> &'static str {
        self.core.target().kind().name()
    }

    #[getter]
    fn method(&self) -> &str {
        self.core.target().method_name()
    }

    #[getter]
    fn target(&self) -> &str {
        self.core.target().name()
    }

    #[getter]
    fn tool(&self) -> Option<&str> {
        let target = self.core.target();
        (target.kind() == fastguard_core::request::Kind::Tool).then(|| target.name())
    }

    #[getter]
    fn request_id(&self) -> Option<&str> {
        self.core.target().id()
    }

    #[getter]
    fn record(&self) -> u64 {
        self.core.record()
    }

    #[getter]
    fn dpop_nonce(&self) -> Option<&str> {
        self.core.bound()?.nonce()
    }

    #[getter]
    fn token(&self) -> Option<VerifiedToken> {
        self.core.bound().map(|bound| VerifiedToken { core: bound.token().clone() })
    }

    fn __repr__(&self) -> String {
        format!("<ObservedCall {} refused by {}>", self.core.target().name(), self.core.denial().code())
    }
}

/// What lets a call run: it was allowed, or its refusal is only observed.
#[derive(FromPyObject)]
pub(crate) enum Proof<'py> {
    Allowed(Bound<'py, AllowedCall>),
    Observed(Bound<'py, ObservedCall>),
}

impl Proof<'_> {
    /// The token and its binding, if they were proved.
    pub(crate) fn bound(&self) -> Option<&BoundToken> {
        match self {
            Self::Allowed(call) => Some(call.get().core.admitted().bound()),
            Self::Observed(call) => call.get().core.bound(),
        }
    }

    /// The number of the decision's record; 0 without a log.
    pub(crate) fn record(&self) -> u64 {
        match self {
            Self::Allowed(call) => call.get().core.record(),
            Self::Observed(call) => call.get().core.record(),
        }
    }

    pub(crate) fn target(&self) -> &Target {
        match self {
            Self::Allowed(call) => call.get().core.target(),
            Self::Observed(call) => call.get().core.target(),
        }
    }
}

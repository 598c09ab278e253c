use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use fastguard_core::audit::{Audit, Settings};
use fastguard_core::clock::Now;
use fastguard_core::config::{Config, ConfigError, Rule, Tier};
use fastguard_core::denial::{Denial, Fault, GateError};
use fastguard_core::gate::{Decision, Gate as Core, Outcome};
use fastguard_core::policy::CodeRule;
use fastguard_core::request::Kind;
use fastguard_core::token::{KeySource, Revocation};
use pyo3::prelude::*;

use crate::call::AllowedCall;
use crate::error::{caught, denied, faulted, misconfigured, misused};
use crate::request::ToolRequest;
use crate::time;
use crate::token::{Released, VerifiedToken};

/// Which clock a gate was given first: windows that have seen both would tell lies (decision 5).
const UNSET: u8 = 0;
const SYSTEM: u8 = 1;
const CALLER: u8 = 2;

#[pyclass(frozen, weakref, module = "mcp_fastguard")]
pub(crate) struct Gate {
    core: Core,
    clock: AtomicU8,
    is_closed: AtomicBool,
    folder: PathBuf,
}

#[pyclass(frozen, module = "mcp_fastguard")]
pub(crate) struct Waiting {
    issuer: String,
}

#[pymethods]
impl Waiting {
    #[getter]
    fn issuer(&self) -> &str {
        &self.issuer
    }
}

fn read(text: &str, file: Option<&str>, is_json: bool, folder: &Path) -> PyResult<Config> {
    let config = if is_json { Config::from_json(text) } else { Config::from_toml(text, file) };
    let mut config = config.map_err(misconfigured)?;
    config.apply_environment(std::env::vars()).map_err(misconfigured)?;
    for (index, issuer) in config.issuers.iter_mut().enumerate() {
        if let Some(name) = issuer.jwks_file.take() {
            let text = std::fs::read_to_string(folder.join(&name));
            let at = || format!("issuers[{index}].jwks_file");
            issuer.jwks =
                Some(text.map_err(|error| misconfigured(ConfigError::at(at(), format!("`{name}`: {error}"))))?.into());
        }
    }
    Ok(config)
}

impl Gate {
    fn now(&self, given: Option<f64>) -> PyResult<Now> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(faulted(&Fault::Closed));
        }
        let source = if given.is_some() { CALLER } else { SYSTEM };
        let seen = self.clock.load(Ordering::Relaxed);
        if seen != source {
            let bound = self.clock.compare_exchange(UNSET, source, Ordering::Relaxed, Ordering::Relaxed);
            if bound.is_err_and(|bound| bound != source) {
                return Err(faulted(&Fault::ClockMixed));
            }
        }
        time::now(given)
    }

    fn metadata_url(&self) -> String {
        self.core.state().receiver().metadata_url().to_owned()
    }

    fn denied(&self, denial: &Denial) -> PyErr {
        denied(denial, self.core.state().receiver().challenge(denial))
    }

    fn refused(&self, error: &GateError) -> PyErr {
        match error {
            GateError::Denied(denial) => self.denied(denial),
            GateError::Faulted(fault) => faulted(fault),
        }
    }
}

#[pymethods]
impl Gate {
    #[new]
    #[pyo3(signature = (text, *, folder, file = None, is_json = false))]
    fn new(text: &str, folder: PathBuf, file: Option<&str>, is_json: bool) -> PyResult<Self> {
        let config = read(text, file, is_json, &folder)?;
        let audit = if config.audit.enabled {
            let settings = Settings::from_config(&config.audit, &folder);
            Some(Audit::open_log(settings).map_err(|fault| faulted(&fault))?)
        } else {
            None
        };
        let core = Core::new(config, audit).map_err(misconfigured)?;
        Ok(Self { core, clock: AtomicU8::new(UNSET), is_closed: AtomicBool::new(false), folder })
    }

    #[pyo3(signature = (request, now = None))]
    fn check(&self, py: Python<'_>, request: &ToolRequest, now: Option<f64>) -> PyResult<AllowedCall> {
        let now = self.now(now)?;
        match caught(|| self.core.check_through(&request.core, false, now, &Released(py)))? {
            Ok(Decision::Allowed(core)) => Ok(AllowedCall { core }),
            Ok(Decision::Waiting(_)) => Err(faulted(&Fault::NeedsAuthorize { need: "keys" })),
            Err(error) => Err(self.refused(&error)),
        }
    }

    #[pyo3(signature = (request, *, has_waited = false, now = None))]
    fn decide<'py>(
        &self,
        py: Python<'py>,
        request: &ToolRequest,
        has_waited: bool,
        now: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let now = self.now(now)?;
        match caught(|| self.core.check_through(&request.core, has_waited, now, &Released(py)))? {
            Ok(Decision::Allowed(core)) => Ok(Bound::new(py, AllowedCall { core })?.into_any()),
            Ok(Decision::Waiting(waiting)) => {
                Ok(Bound::new(py, Waiting { issuer: waiting.issuer().to_owned() })?.into_any())
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    #[pyo3(signature = (request, *, has_waited = false, now = None))]
    fn check_head(
        &self,
        py: Python<'_>,
        request: &ToolRequest,
        has_waited: bool,
        now: Option<f64>,
    ) -> PyResult<Option<Waiting>> {
        let now = self.now(now)?;
        let waiting = caught(|| self.core.check_head(&request.core, has_waited, now, &Released(py)))?;
        let waiting = waiting.map_err(|error| self.refused(&error))?;
        Ok(waiting.map(|waiting| Waiting { issuer: waiting.issuer().to_owned() }))
    }

    #[pyo3(signature = (parent, request, now = None))]
    fn check_nested(&self, parent: &AllowedCall, request: &ToolRequest, now: Option<f64>) -> PyResult<AllowedCall> {
        let now = self.now(now)?;
        let nested = caught(|| self.core.check_nested(&parent.core, &request.core, now))?;
        nested.map(|core| AllowedCall { core }).map_err(|error| self.refused(&error))
    }

    #[pyo3(signature = (call, now = None))]
    fn recheck(&self, call: &AllowedCall, now: Option<f64>) -> PyResult<()> {
        let now = self.now(now)?.unix;
        self.core.recheck(&call.core, now).map_err(|denial| self.denied(&denial))
    }

    fn may_see(&self, kind: &str, name: &str, caller: &Bound<'_, PyAny>) -> PyResult<bool> {
        let kind = Kind::from_name(kind).ok_or_else(|| misused(format!("unknown kind `{kind}`")))?;
        if let Ok(call) = caller.cast::<AllowedCall>() {
            return Ok(self.core.may_see(kind, name, call.get().core.admitted().bound().token()));
        }
        Ok(self.core.may_see(kind, name, &caller.cast::<VerifiedToken>()?.get().core))
    }

    #[pyo3(signature = (call, *, status, duration, error = None, rows = None, bytes = None, items = None))]
    #[expect(clippy::too_many_arguments, reason = "all but the call are fields of the record by keyword")]
    fn finish(
        &self,
        call: &AllowedCall,
        status: &str,
        duration: f64,
        error: Option<&str>,
        rows: Option<u64>,
        bytes: Option<u64>,
        items: Option<u64>,
    ) -> PyResult<()> {
        let duration = Duration::try_from_secs_f64(duration).map_err(misused)?;
        let outcome = Outcome { status: status.into(), error: error.map(Box::from), duration, rows, bytes, items };
        self.core.finish(&call.core, outcome, time::wall()).map_err(|fault| faulted(&fault))
    }

    #[pyo3(signature = (*, issuer = None, token_id = None, subject = None, client_id = None, session = None, now = None))]
    fn revoke(
        &self,
        issuer: Option<&str>,
        token_id: Option<&str>,
        subject: Option<&str>,
        client_id: Option<&str>,
        session: Option<&str>,
        now: Option<f64>,
    ) -> PyResult<()> {
        let boxed = |text: Option<&str>| text.map(Box::from);
        let revocation = Revocation {
            issuer: boxed(issuer),
            token_id: boxed(token_id),
            subject: boxed(subject),
            client_id: boxed(client_id),
            session: boxed(session),
        };
        let at = match now {
            Some(_) => time::now(now)?.unix,
            None => time::wall(),
        };
        self.core.revoke(revocation, at).map_err(misused)
    }

    fn key_sources(&self) -> Vec<(String, Option<String>, bool)> {
        let state = self.core.state();
        let fetched = state.tokens().sources().filter_map(|(issuer, source)| match source {
            KeySource::Given => None,
            KeySource::Fetched { jwks_uri, allow_http_loopback } => {
                Some((issuer.to_owned(), jwks_uri.clone(), *allow_http_loopback))
            }
        });
        fetched.collect()
    }

    fn replace_keys(&self, issuer: &str, jwks: &[u8]) -> PyResult<()> {
        self.core.state().tokens().replace_keys(issuer, jwks).map_err(misused)
    }

    #[pyo3(signature = (issuer, reason = "", retry_after = 0.0))]
    fn keys_failed(&self, issuer: &str, reason: &str, retry_after: f64) {
        let _ = (reason, retry_after);
        self.core.state().tokens().keys_failed(issuer);
    }

    #[pyo3(signature = (text, *, file = None, is_json = false))]
    fn reload(&self, text: &str, file: Option<&str>, is_json: bool) -> PyResult<()> {
        self.core.reload(read(text, file, is_json, &self.folder)?).map_err(misconfigured)
    }

    #[pyo3(signature = (kind, name, *, scopes, any_scopes, is_open, tier))]
    fn add_rule(
        &self,
        kind: &str,
        name: &str,
        scopes: Vec<String>,
        any_scopes: Vec<String>,
        is_open: bool,
        tier: &str,
    ) -> PyResult<()> {
        let kind = Kind::from_name(kind).ok_or_else(|| misused(format!("unknown kind `{kind}`")))?;
        let tier = [("auto", Tier::Auto), ("log", Tier::Log), ("approve", Tier::Approve), ("block", Tier::Block)]
            .into_iter()
            .find_map(|(name, known)| (name == tier).then_some(known))
            .ok_or_else(|| misused(format!("unknown tier `{tier}`")))?;
        let rule = Rule::beside_code(scopes, any_scopes, is_open, tier).map_err(misused)?;
        self.core.add_rule(CodeRule { kind, name: name.to_owned(), rule }).map_err(misconfigured)
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

    /// The folder in which this process writes its log, once it does.
    #[getter]
    fn audit_folder(&self) -> Option<PathBuf> {
        self.core.audit().as_ref().map(|audit| audit.folder().to_path_buf())
    }

    #[pyo3(signature = (timeout = 2.0))]
    fn flush(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let timeout = Duration::try_from_secs_f64(timeout).map_err(misused)?;
        match &*self.core.audit() {
            Some(audit) => py.detach(|| audit.flush(timeout)).map_err(|fault| faulted(&fault)),
            None => Ok(()),
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.is_closed.store(true, Ordering::Relaxed);
        match &*self.core.audit() {
            Some(audit) => py.detach(|| audit.close()).map_err(|fault| faulted(&fault)),
            None => Ok(()),
        }
    }

    fn after_fork(&self) -> PyResult<()> {
        self.core.after_fork().map_err(|fault| faulted(&fault))
    }

    /// Figures for metrics: (name, value).
    fn statistics(&self) -> Vec<(&'static str, u64)> {
        let state = self.core.state();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let mut figures = vec![("tokens_cached", count(state.tokens().cached())), ("windows", count(state.windows()))];
        if let Some(audit) = &*self.core.audit() {
            let audit = audit.statistics();
            figures.extend([
                ("audit_queued", audit.queued),
                ("audit_written", audit.written),
                ("audit_refused", audit.refused),
                ("audit_failed", u64::from(audit.failed)),
                ("unverified_counted", audit.unverified_counted),
            ]);
        }
        figures
    }
}

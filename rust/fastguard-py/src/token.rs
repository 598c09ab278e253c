use std::time::Duration;

use fastguard_core::bounds::TOKEN_CACHE_ENTRIES;
use fastguard_core::config::Required;
use fastguard_core::denial::Denial;
use fastguard_core::jose::{self, Algorithms};
use fastguard_core::json::Json;
use fastguard_core::token::{Answered, Detach, IssuerOptions, Tokens, Unverified, VerifiedToken as Core};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use crate::error::{caught, denied, misused};
use crate::{json, time};

/// Lets other threads of Python run during work of many microseconds.
pub(crate) struct Released<'py>(pub(crate) Python<'py>);

impl Detach for Released<'_> {
    fn detached<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.detach(work)
    }
}

#[pyclass(frozen, module = "mcp_fastguard.token")]
pub(crate) struct KeySet {
    core: std::sync::Arc<jose::KeySet>,
}

#[pymethods]
impl KeySet {
    #[staticmethod]
    #[pyo3(signature = (jwks, *, allow_symmetric = false))]
    fn from_jwks(jwks: &Bound<'_, PyAny>, allow_symmetric: bool) -> PyResult<Self> {
        let text = if let Ok(text) = jwks.cast::<PyString>() {
            text.to_str()?.as_bytes().to_vec()
        } else if let Ok(bytes) = jwks.cast::<PyBytes>() {
            bytes.as_bytes().to_vec()
        } else {
            json::to_text(jwks)?
        };
        let core = caught(|| jose::KeySet::from_jwks(&text, allow_symmetric))?.map_err(misused)?;
        Ok(Self { core: core.into() })
    }

    #[getter]
    fn skipped(&self) -> Vec<(usize, Option<String>, String)> {
        let skipped = self.core.skipped().iter();
        skipped.map(|key| (key.index, key.key_id.as_deref().map(String::from), key.reason.to_string())).collect()
    }

    fn __len__(&self) -> usize {
        self.core.keys().len()
    }
}

#[pyfunction]
#[pyo3(signature = (compact, keys, *, algorithms))]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts lists by value")]
pub(crate) fn verify_compact<'py>(
    py: Python<'py>,
    compact: &str,
    keys: &KeySet,
    algorithms: Vec<String>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyBytes>)> {
    let algorithms = read_algorithms(&algorithms, true)?;
    let verify = || jose::verify_compact(compact.as_bytes(), &keys.core, algorithms);
    let verified = caught(|| Released(py).detached(verify))?;
    let (_, payload) = verified.map_err(|denial| denied(&denial, None))?;
    let segment = compact.split('.').next().unwrap_or_default();
    let text = jose::decode_segment(segment.as_bytes()).unwrap_or_default();
    let header = Json::parse(&text, fastguard_core::bounds::MAX_JOSE_HEADER_DEPTH).map_err(|_| misused("no header"))?;
    Ok((json::to_python(py, &header)?, PyBytes::new(py, &payload)))
}

fn read_algorithms(names: &[String], allow_symmetric: bool) -> PyResult<Algorithms> {
    let algorithms = Algorithms::from_names(names.iter().map(String::as_str))
        .map_err(|name| misused(format!("unknown algorithm `{name}`")))?;
    if names.is_empty() {
        return Err(misused("`algorithms` is empty"));
    }
    if !allow_symmetric && algorithms.iter().any(jose::Algorithm::is_symmetric) {
        return Err(misused("symmetric algorithms cannot verify what another party issued"));
    }
    Ok(algorithms)
}

#[pyclass(frozen, module = "mcp_fastguard.token")]
pub(crate) struct TokenVerifier {
    tokens: Tokens,
}

#[pymethods]
impl TokenVerifier {
    #[new]
    #[pyo3(signature = (*, issuer, audience, keys, algorithms, leeway = 30.0, types = None, max_lifetime = 3600.0,
        cache_size = None, require = None))]
    #[expect(clippy::too_many_arguments, reason = "all but the first four are options by keyword")]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts lists by value")]
    fn new(
        issuer: &str,
        audience: &Bound<'_, PyAny>,
        keys: &KeySet,
        algorithms: Vec<String>,
        leeway: f64,
        types: Option<Vec<String>>,
        max_lifetime: f64,
        cache_size: Option<usize>,
        require: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let audiences: Vec<String> = match audience.cast::<PyString>() {
            Ok(one) => vec![one.to_str()?.to_owned()],
            Err(_) => audience.extract()?,
        };
        if issuer.is_empty() || audiences.is_empty() || audiences.iter().any(String::is_empty) {
            return Err(misused("`issuer` and `audience` must not be empty"));
        }
        // As in the configuration: more than 5 minutes is no tolerance for clocks.
        let leeway = span(leeway, 0.0..=300.0).ok_or_else(|| misused("`leeway` is not between 0 and 300 seconds"))?;
        let longest = span(max_lifetime, 1.0..=86_400.0);
        let max_lifetime = longest.ok_or_else(|| misused("`max_lifetime` is not between 1 and 86400 seconds"))?;
        let types = types.unwrap_or_else(|| vec!["at+jwt".to_owned()]);
        let require = read_required(require)?;
        let is_loose = types.iter().any(|name| name.is_empty() || name.eq_ignore_ascii_case("jwt"));
        if types.is_empty() || (is_loose && require.is_empty()) {
            return Err(misused("`types` with \"JWT\" or \"\" needs `require`, so that an ID token cannot pass"));
        }
        let options = IssuerOptions {
            audiences: audiences.into_iter().map(String::into_boxed_str).collect(),
            algorithms: read_algorithms(&algorithms, true)?,
            types: types.iter().map(|name| fastguard_core::token::media_type(name).into()).collect(),
            require,
            max_lifetime,
            ..IssuerOptions::new(issuer, "")
        };
        Ok(Self {
            tokens: Tokens::single(
                options,
                std::sync::Arc::clone(&keys.core),
                leeway,
                cache_size.unwrap_or(TOKEN_CACHE_ENTRIES),
            ),
        })
    }

    #[pyo3(signature = (text, now = None))]
    fn verify(&self, py: Python<'_>, text: &str, now: Option<f64>) -> PyResult<VerifiedToken> {
        let now = time::now(now)?;
        match caught(|| self.tokens.verify(text, Answered::default(), now, &Released(py)))? {
            Ok(core) => Ok(VerifiedToken { core }),
            Err(Unverified::Denied(denial)) => Err(denied(&denial, None)),
            Err(Unverified::Needs(_)) => Err(denied(&Denial::KeyUnknown { key_id: String::new() }, None)),
        }
    }
}

fn span(seconds: f64, range: std::ops::RangeInclusive<f64>) -> Option<Duration> {
    range.contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

fn read_required(require: Option<&Bound<'_, PyDict>>) -> PyResult<Vec<(Box<str>, Required)>> {
    let Some(require) = require else { return Ok(Vec::new()) };
    let text = json::to_text(require)?;
    let claims: std::collections::BTreeMap<Box<str>, Required> = serde_json::from_slice(&text).map_err(misused)?;
    if claims.values().any(|value| *value == Required::Present(false)) {
        return Err(misused("`require` takes true or a value, not false"));
    }
    Ok(claims.into_iter().collect())
}

#[pyclass(frozen, module = "mcp_fastguard.token")]
pub(crate) struct VerifiedToken {
    pub(crate) core: Core,
}

#[pymethods]
impl VerifiedToken {
    #[getter]
    fn subject(&self) -> Option<&str> {
        self.core.subject()
    }

    #[getter]
    fn client_id(&self) -> Option<&str> {
        self.core.client_id()
    }

    #[getter]
    fn issuer(&self) -> &str {
        self.core.issuer()
    }

    #[getter]
    fn audience<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.core.audience().iter().map(|name| &**name))
    }

    #[getter]
    fn scopes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.core.scopes().iter().map(|scope| &**scope))
    }

    #[getter]
    fn expires_at(&self) -> f64 {
        self.core.expires_at().as_seconds_f64()
    }

    #[getter]
    fn issued_at(&self) -> Option<f64> {
        self.core.issued_at().map(fastguard_core::UnixTime::as_seconds_f64)
    }

    #[getter]
    fn token_id(&self) -> &str {
        self.core.token_id()
    }

    #[getter]
    fn thumbprint(&self) -> Option<&str> {
        self.core.thumbprint()
    }

    #[getter]
    fn organisation(&self) -> Option<&str> {
        self.core.organisation()
    }

    #[getter]
    fn claims<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let claims = Json::parse(self.core.claims(), fastguard_core::bounds::MAX_CLAIMS_DEPTH);
        json::to_python(py, &claims.map_err(|_| misused("no claims"))?)
    }

    /// Two are the same where they come of one verification.
    fn __eq__(&self, other: &Self) -> bool {
        std::sync::Arc::ptr_eq(self.core.caller(), other.core.caller())
    }

    fn __hash__(&self) -> u64 {
        std::sync::Arc::as_ptr(self.core.caller()) as usize as u64
    }

    fn __repr__(&self) -> String {
        let who = self.core.subject().or(self.core.client_id()).unwrap_or_default();
        format!("<VerifiedToken of {who:?} from {:?}>", self.core.issuer())
    }
}

use std::sync::Arc;
use std::time::Duration;

use fastguard_core::clock::Tick;
use fastguard_core::limits::{
    Admission as CoreAdmission, AppliedLimit, ClockSource, MeteredWindow as Metered, SlidingWindow as Core,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::error::{caught, faulted, misused};
use crate::time;

/// Does nothing: what every call across the boundary costs at least. For benches.
#[pyfunction]
#[pyo3(signature = (key, cost = 1, now = None))]
pub(crate) fn empty_call(key: &Bound<'_, PyAny>, cost: u32, now: Option<f64>) {
    let _ = (key, cost, now);
}

#[pyclass(frozen, module = "mcp_fastguard.limits")]
pub(crate) struct Admission {
    #[pyo3(get)]
    allowed: bool,
    #[pyo3(get)]
    remaining: u64,
    retry_after: Option<Duration>,
}

impl From<CoreAdmission> for Admission {
    fn from(core: CoreAdmission) -> Self {
        Self { allowed: core.allowed, remaining: core.remaining, retry_after: core.retry_after }
    }
}

#[pymethods]
impl Admission {
    #[getter]
    fn retry_after(&self) -> Option<f64> {
        self.retry_after.map(|after| after.as_secs_f64())
    }

    fn __bool__(&self) -> bool {
        self.allowed
    }

    fn __repr__(&self) -> String {
        format!("<Admission allowed={} remaining={}>", self.allowed, self.remaining)
    }
}

#[pyclass(frozen, module = "mcp_fastguard.limits")]
pub(crate) struct SlidingWindow {
    pub(crate) core: Arc<Core>,
}

#[pymethods]
impl SlidingWindow {
    #[new]
    #[pyo3(signature = (quota, window, *, max_keys = 1_000_000))]
    fn new(quota: u64, window: f64, max_keys: usize) -> PyResult<Self> {
        let window = Duration::try_from_secs_f64(window).map_err(misused)?;
        Ok(Self { core: Arc::new(Core::new(quota, window, max_keys).map_err(misused)?) })
    }

    #[pyo3(signature = (key, cost = 1, now = None))]
    fn admit(&self, key: &Bound<'_, PyAny>, cost: u32, now: Option<f64>) -> PyResult<Admission> {
        let ((tick, source), key) = (moment(now)?, bytes_of(key)?);
        caught(|| self.core.admit(key, cost, tick, source))?.map(Admission::from).map_err(|fault| faulted(&fault))
    }

    fn __len__(&self) -> usize {
        self.core.len()
    }
}

/// One window per key of what is known only afterwards, and may be more than the quota.
#[pyclass(frozen, module = "mcp_fastguard.limits")]
pub(crate) struct MeteredWindow {
    core: Metered,
}

#[pymethods]
impl MeteredWindow {
    #[new]
    #[pyo3(signature = (quota, window, *, max_keys = 1_000_000))]
    fn new(quota: u64, window: f64, max_keys: usize) -> PyResult<Self> {
        let window = Duration::try_from_secs_f64(window).map_err(misused)?;
        Ok(Self { core: Metered::new(quota, window, max_keys).map_err(misused)? })
    }

    #[pyo3(signature = (key, now = None))]
    fn look(&self, key: &Bound<'_, PyAny>, now: Option<f64>) -> PyResult<Admission> {
        let ((tick, source), key) = (moment(now)?, bytes_of(key)?);
        caught(|| self.core.look(key, tick, source))?.map(Admission::from).map_err(|fault| faulted(&fault))
    }

    #[pyo3(signature = (key, amount, now = None))]
    fn charge(&self, key: &Bound<'_, PyAny>, amount: u64, now: Option<f64>) -> PyResult<()> {
        let ((tick, source), key) = (moment(now)?, bytes_of(key)?);
        caught(|| self.core.charge(key, amount, tick, source))?.map_err(|fault| faulted(&fault))
    }

    fn __len__(&self) -> usize {
        self.core.len()
    }
}

fn moment(now: Option<f64>) -> PyResult<(Tick, ClockSource)> {
    Ok(match now {
        None => (time::tick(), ClockSource::System),
        Some(seconds) => {
            let tick = Tick::from_seconds_f64(seconds);
            (tick.ok_or_else(|| misused("`now` is not a time in seconds"))?, ClockSource::Caller)
        }
    })
}

fn bytes_of<'a>(key: &'a Bound<'_, PyAny>) -> PyResult<&'a [u8]> {
    Ok(match key.cast::<PyString>() {
        Ok(text) => text.to_str()?.as_bytes(),
        Err(_) => key.cast::<PyBytes>()?.as_bytes(),
    })
}

/// What Python's `AppliedLimit` is made of, in its order: the rule, what it has a window of its own for, (unit, quota, window in seconds, cost),
/// (key, what is left, in how many seconds there is room).
pub(crate) type AppliedFields<'py> = (
    String,
    Vec<(&'static str, Option<String>)>,
    (&'static str, u64, f64, u32),
    (Bound<'py, PyBytes>, u64, Option<f64>),
);

pub(crate) fn applied_fields<'py>(py: Python<'py>, limit: &AppliedLimit) -> AppliedFields<'py> {
    let per = limit.per.iter().map(|(word, name)| (*word, name.as_deref().map(str::to_owned))).collect();
    let counted = (limit.unit, limit.quota, limit.window.as_secs_f64(), limit.cost);
    let key = PyBytes::new(py, &limit.key.to_le_bytes());
    let stands = (key, limit.remaining, limit.retry_after.map(|after| after.as_secs_f64()));
    (limit.rule.to_string(), per, counted, stands)
}

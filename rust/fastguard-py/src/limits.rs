use std::time::Duration;

use fastguard_core::clock::Tick;
use fastguard_core::limits::{ClockSource, SlidingWindow as Core};
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
    core: Core,
}

#[pymethods]
impl SlidingWindow {
    #[new]
    #[pyo3(signature = (quota, window, *, max_keys = 1_000_000))]
    fn new(quota: u64, window: f64, max_keys: usize) -> PyResult<Self> {
        let window = Duration::try_from_secs_f64(window).map_err(misused)?;
        Ok(Self { core: Core::new(quota, window, max_keys).map_err(misused)? })
    }

    #[pyo3(signature = (key, cost = 1, now = None))]
    fn admit(&self, key: &Bound<'_, PyAny>, cost: u32, now: Option<f64>) -> PyResult<Admission> {
        let (tick, source) = match now {
            None => (time::tick(), ClockSource::System),
            Some(seconds) => {
                let tick = Tick::from_seconds_f64(seconds);
                (tick.ok_or_else(|| misused("`now` is not a time in seconds"))?, ClockSource::Caller)
            }
        };
        let key = match key.cast::<PyString>() {
            Ok(text) => text.to_str()?.as_bytes(),
            Err(_) => key.cast::<PyBytes>()?.as_bytes(),
        };
        let admission = caught(|| self.core.admit(key, cost, tick, source))?;
        let admission = admission.map_err(|fault| faulted(&fault))?;
        let (allowed, remaining, retry_after) = (admission.allowed, admission.remaining, admission.retry_after);
        Ok(Admission { allowed, remaining, retry_after })
    }

    fn __len__(&self) -> usize {
        self.core.len()
    }
}

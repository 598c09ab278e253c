//! Reads the clocks, unless the caller brings the time.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fastguard_core::clock::{Now, Tick, UnixTime};
use pyo3::PyResult;

use crate::error::misused;

/// Where ticks begin.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(crate) fn now(given: Option<f64>) -> PyResult<Now> {
    match given {
        None => Ok(Now { unix: wall(), tick: tick() }),
        Some(seconds) => {
            let unix = UnixTime::from_seconds_f64(seconds);
            let tick = Tick::from_seconds_f64(seconds);
            let both = unix.zip(tick).map(|(unix, tick)| Now { unix, tick });
            both.ok_or_else(|| misused("`now` is not a time in seconds"))
        }
    }
}

pub(crate) fn wall() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

pub(crate) fn tick() -> Tick {
    Tick::from_nanos(u64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

//! Reads the clocks, unless the caller brings the time.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastguard_core::clock::{Now, Tick, UnixTime};
use fastguard_core::denial::Fault;
use pyo3::PyResult;

use crate::error::{faulted, misused};

/// Where the monotonic clock begins.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The tick of that moment, so that what is past by then has a tick as well: a key set may be older by `max_stale`, 7 days.
const HEAD_START: Duration = Duration::from_secs(8 * 86_400);

/// Milliseconds of the wall clock at the origin, as seen at `LOOKED_AT`. Between two looks the monotonic clock carries on, so that
/// a call reads one clock and not two.
static WALL_AT_ORIGIN: AtomicI64 = AtomicI64::new(0);
static LOOKED_AT: AtomicU64 = AtomicU64::new(0);

/// A step of the wall clock is seen at most this much later, in nanoseconds. Claims count whole seconds.
const LOOK_INTERVAL: u64 = 50_000_000;

pub(crate) fn now(given: Option<f64>) -> PyResult<Now> {
    match given {
        None => {
            let tick = tick();
            Ok(Now { unix: wall_at(tick), tick, own: tick })
        }
        Some(seconds) => {
            let unix = UnixTime::from_seconds_f64(seconds);
            let tick = Tick::from_seconds_f64(seconds);
            let both = unix.zip(tick).map(|(unix, tick)| Now { unix, tick, own: self::tick() });
            both.ok_or_else(|| misused("`now` is not a time in seconds"))
        }
    }
}

fn wall_at(tick: Tick) -> UnixTime {
    let nanos = tick.as_nanos();
    let since_origin = i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX);
    let looked_at = LOOKED_AT.load(Ordering::Acquire);
    if looked_at != 0 && nanos.saturating_sub(looked_at) < LOOK_INTERVAL {
        return UnixTime::from_millis(WALL_AT_ORIGIN.load(Ordering::Relaxed).saturating_add(since_origin));
    }
    let wall = wall();
    WALL_AT_ORIGIN.store(wall.as_millis().saturating_sub(since_origin), Ordering::Relaxed);
    LOOKED_AT.store(nanos.max(1), Ordering::Release);
    wall
}

pub(crate) fn wall() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

pub(crate) fn unix(seconds: f64) -> PyResult<UnixTime> {
    UnixTime::from_seconds_f64(seconds).ok_or_else(|| misused("not a time in seconds since the epoch"))
}

pub(crate) fn tick() -> Tick {
    Tick::from_nanos(u64::try_from((HEAD_START + ORIGIN.elapsed()).as_nanos()).unwrap_or(u64::MAX))
}

/// Which clock a guard or verifier was given first: a store that has seen both would tell lies (decision 5).
#[derive(Default)]
pub(crate) struct Clock(AtomicU8);

const SYSTEM: u8 = 1;
const CALLER: u8 = 2;

impl Clock {
    pub(crate) fn now(&self, given: Option<f64>) -> PyResult<Now> {
        let source = if given.is_some() { CALLER } else { SYSTEM };
        let seen = self.0.load(Ordering::Relaxed);
        if seen != source {
            let bound = self.0.compare_exchange(0, source, Ordering::Relaxed, Ordering::Relaxed);
            if bound.is_err_and(|bound| bound != source) {
                return Err(faulted(&Fault::ClockMixed));
            }
        }
        now(given)
    }
}

/// So many seconds from now; negative ones are past.
pub(crate) fn from_now(seconds: f64) -> Result<Tick, &'static str> {
    let distance = Duration::try_from_secs_f64(seconds.abs()).map_err(|_| "not a number of seconds")?;
    let now = tick();
    if seconds >= 0.0 {
        return Ok(now.plus(distance));
    }
    let nanos = u64::try_from(distance.as_nanos()).map_err(|_| "not a number of seconds")?;
    Ok(Tick::from_nanos(now.as_nanos().saturating_sub(nanos)))
}

//! Time comes in as an argument; nothing in this crate but `audit::writer` reads a clock.

use std::time::Duration;

/// Wall-clock time: milliseconds since the Unix epoch. Judges `exp`, `nbf`, `iat`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UnixTime(i64);

impl UnixTime {
    /// The epoch itself.
    pub const EPOCH: Self = Self(0);

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From whole seconds since the epoch.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }

    /// From fractional seconds (a `NumericDate`, RFC 7519 §2), rounded down.
    /// `None` where the value is not finite or beyond the year 9999.
    pub fn from_seconds_f64(seconds: f64) -> Option<Self> {
        // 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
        const LAST: f64 = 253_402_300_799.0;
        if !seconds.is_finite() || !(-LAST..=LAST).contains(&seconds) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the range was checked above")]
        let millis = (seconds * 1_000.0).floor() as i64;
        Some(Self(millis))
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds until 9999 fit in 53 bits")]
    pub fn as_seconds_f64(self) -> f64 {
        self.0 as f64 / 1_000.0
    }

    /// This time moved forward, at most to the end of time.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis_of(duration)))
    }

    /// This time moved back.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis_of(duration)))
    }

    /// How long after `earlier` this is; zero if it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Monotonic time: nanoseconds since an origin that the caller keeps. Judges windows.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Tick(u64);

impl Tick {
    /// From nanoseconds since the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// From seconds since the origin; `None` where not finite, negative or beyond 500 years.
    pub fn from_seconds_f64(seconds: f64) -> Option<Self> {
        const LAST: f64 = 15_768_000_000.0;
        if !seconds.is_finite() || !(0.0..=LAST).contains(&seconds) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked above")]
        let nanos = (seconds * 1e9) as u64;
        Some(Self(nanos))
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This tick moved forward.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not after.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The time of one call, read once at its start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Now {
    /// For claims and records.
    pub unix: UnixTime,
    /// For windows and cool-downs.
    pub tick: Tick,
    /// For the age of what others store beside the calls, such as key sets: the clock of the process, also where the caller
    /// brings the time of a call (decision 5).
    pub own: Tick,
}

/// A clock for tests: stands still until it is told to move.
#[derive(Clone, Debug)]
pub struct FakeClock {
    now: Now,
}

impl FakeClock {
    /// Starts at `seconds` since the epoch.
    pub const fn at(seconds: i64) -> Self {
        let unix = UnixTime::from_seconds(seconds);
        Self { now: Now { unix, tick: Tick::from_nanos(1), own: Tick::from_nanos(1) } }
    }

    /// The time it shows.
    pub const fn now(&self) -> Now {
        self.now
    }

    /// Moves all clocks forward.
    pub fn advance(&mut self, by: Duration) {
        self.now.unix = self.now.unix.plus(by);
        self.now.tick = self.now.tick.plus(by);
        self.now.own = self.now.own.plus(by);
    }

    /// Moves the wall clock alone, as NTP or an operator would.
    pub fn step_wall_to(&mut self, unix: UnixTime) {
        self.now.unix = unix;
    }
}

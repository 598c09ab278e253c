use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastguard_core::limits::{Asking as CoreAsking, AtHand, Begun, Given, Permits as Core, Spent, Unusable, Wanted};
use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{caught, misused};
use crate::limits::SlidingWindow;
use crate::time;

/// The permits of a process in shared windows.
#[pyclass(frozen, module = "mcp_fastguard")]
pub(crate) struct Permits {
    pub(crate) core: Arc<Core>,
}

/// What is read of Python's `Charge`.
#[derive(FromPyObject)]
struct Charge<'py> {
    key: Bound<'py, PyBytes>,
    quota: u32,
    window: f64,
    cost: u32,
    is_look: bool,
}

impl Permits {
    /// A window that is only looked at has no lease.
    fn wanted(&self, charges: &[Charge<'_>]) -> PyResult<Vec<Wanted>> {
        let is_twice = |(place, charge): (usize, &Charge<'_>)| {
            charges.iter().take(place).any(|other| other.key.as_bytes() == charge.key.as_bytes())
        };
        if charges.iter().enumerate().any(is_twice) {
            return Err(misused("two charges have the same key"));
        }
        let wanted = charges.iter().map(|charge| {
            if charge.cost == 0 {
                return Err(misused("a charge costs at least 1"));
            }
            let key = charge.key.as_bytes().try_into().map(u128::from_le_bytes);
            let window = Duration::try_from_secs_f64(charge.window).map_err(misused)?;
            Ok(Wanted {
                key: key.map_err(|_| misused("a key is 16 bytes long"))?,
                quota: charge.quota,
                window,
                cost: charge.cost,
                is_leased: !charge.is_look && self.core.is_leasable(charge.quota.into(), window),
            })
        });
        wanted.collect()
    }
}

/// What Python's `Refused` is made of: place, seconds until there is room, what is left.
type SpentFields = (usize, f64, u64);

fn spent_fields(spent: &Spent) -> SpentFields {
    (spent.place, spent.retry_after.as_secs_f64(), spent.remaining)
}

#[pymethods]
impl Permits {
    #[new]
    fn new(processes: u32) -> PyResult<Self> {
        if processes == 0 {
            return Err(misused("`processes` must be at least 1"));
        }
        Ok(Self { core: Arc::new(Core::new(processes)) })
    }

    /// Whether a rule of this quota and window (seconds) takes permits in advance.
    fn is_leased(&self, quota: u64, window: f64) -> PyResult<bool> {
        Ok(self.core.is_leasable(quota, Duration::try_from_secs_f64(window).map_err(misused)?))
    }

    /// Uses the permits at hand: what each window has left; none where they do not suffice, and then nothing is used.
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts lists by value")]
    fn take(&self, charges: Vec<Charge<'_>>) -> PyResult<Option<Vec<u64>>> {
        let wanted = self.wanted(&charges)?;
        let mut left = Vec::with_capacity(wanted.len());
        let found = caught(|| self.core.take_uncounted(&wanted, time::tick(), |_, remaining| left.push(remaining)))?;
        Ok((found == AtHand::Taken).then_some(left))
    }

    /// Decides a call by the permits at hand, or begins a question to the store: what each window has left (a list); the charge that has no room (a
    /// tuple); the number of somebody else's question that must be waited for; or a question. `must_ask`: the call needs the
    /// store's word besides.
    #[pyo3(signature = (charges, *, must_ask = false))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts lists by value")]
    fn begin<'py>(&self, py: Python<'py>, charges: Vec<Charge<'py>>, must_ask: bool) -> PyResult<Bound<'py, PyAny>> {
        let wanted = self.wanted(&charges)?;
        let must_ask = must_ask || !wanted.iter().all(|charge| charge.is_leased);
        Ok(match caught(|| self.core.begin(&wanted, must_ask, time::tick()))? {
            Begun::Taken(left) => left.into_pyobject(py)?,
            Begun::Spent(spent) => spent_fields(&spent).into_pyobject(py)?.into_any(),
            Begun::Busy(number) => number.into_pyobject(py)?.into_any(),
            Begun::Asking(core) => {
                let number = core.number();
                Bound::new(py, Asking { number, count: wanted.len(), core: Mutex::new(Some(core)) })?.into_any()
            }
        })
    }

    /// Charges the process's own windows for what was used of leases.
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts lists by value")]
    fn settle(&self, charges: Vec<Charge<'_>>) -> PyResult<()> {
        let wanted = self.wanted(&charges)?;
        caught(|| self.core.settle(&wanted, time::tick()))
    }

    /// The process's own window that holds what the store admits: the whole quota over 7/8 of the window.
    fn bound(&self, quota: u64, window: f64) -> PyResult<SlidingWindow> {
        let window = Duration::try_from_secs_f64(window).map_err(misused)?;
        Ok(SlidingWindow { core: self.core.bound(quota, window).map_err(misused)? })
    }

    /// The process's share of the quota, for when the store is away.
    fn share(&self, quota: u64, window: f64) -> PyResult<SlidingWindow> {
        let window = Duration::try_from_secs_f64(window).map_err(misused)?;
        Ok(SlidingWindow { core: self.core.share(quota, window).map_err(misused)? })
    }

    /// How many calls the gate has decided by them alone.
    #[getter]
    fn answered(&self) -> u64 {
        self.core.answered()
    }

    fn __len__(&self) -> usize {
        self.core.len()
    }

    /// In a child process: the permits are the parent's.
    fn after_fork(&self) {
        self.core.after_fork();
    }
}

/// A question to the store for a call that lacks permits. It ends once, by one of its methods.
#[pyclass(frozen, module = "mcp_fastguard")]
pub(crate) struct Asking {
    number: u64,
    count: usize,
    core: Mutex<Option<Box<CoreAsking>>>,
}

impl Asking {
    fn with<T>(&self, what: impl FnOnce(&CoreAsking) -> T) -> Option<T> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner).as_deref().map(what)
    }

    fn take(&self) -> PyResult<CoreAsking> {
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner).take();
        core.map(|core| *core).ok_or_else(|| misused("the question was answered already"))
    }
}

#[pymethods]
impl Asking {
    /// By which others know that it is under way.
    #[getter]
    fn number(&self) -> u64 {
        self.number
    }

    /// What leases ask for: the place of the charge, what is needed, what is wanted, the slot that something is given back to, how
    /// much.
    #[getter]
    fn questions(&self) -> Vec<(usize, u32, u32, i64, u32)> {
        let fields = |core: &CoreAsking| {
            let questions = core.questions().iter();
            questions.map(|asked| (asked.place, asked.need, asked.want, asked.back_to, asked.back)).collect()
        };
        self.with(fields).unwrap_or_default()
    }

    /// The places of the charges that the same question is to make exactly.
    #[getter]
    fn exact(&self) -> Vec<usize> {
        let is_exact = |core: &CoreAsking, place: usize| {
            !core.holds(place) && !core.questions().iter().any(|asked| asked.place == place)
        };
        self.with(|core| (0..self.count).filter(|place| is_exact(core, *place)).collect()).unwrap_or_default()
    }

    /// The store has granted all: for each question how much, what is left, and the slot. Gives what each leased window has left, or
    /// the one that has more than the whole quota would be, as a tuple.
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts lists by value")]
    fn granted<'py>(&self, py: Python<'py>, given: Vec<(u32, u32, i64)>) -> PyResult<Bound<'py, PyAny>> {
        let core = self.take()?;
        let given: Vec<Given> =
            given.iter().map(|&(granted, remaining, slot)| Given { granted, remaining, slot }).collect();
        match caught(|| core.granted(&given, time::tick()))? {
            Ok(left) => left.into_pyobject(py),
            Err(Unusable::Overdrawn(spent)) => Ok(spent_fields(&spent).into_pyobject(py)?.into_any()),
            Err(Unusable::Late) => Err(PyTimeoutError::new_err("the answer came after a lease had ended")),
        }
    }

    /// The store has no room: in the window of this question, or for what was asked beside the leases.
    fn refused(&self, question: Option<usize>, retry_after: f64) -> PyResult<()> {
        let retry_after = Duration::try_from_secs_f64(retry_after).map_err(misused)?;
        let core = self.take()?;
        caught(|| core.refused(question, retry_after, time::tick()))
    }

    /// There is no answer. May come after one.
    fn give_up(&self) {
        drop(self.take());
    }
}

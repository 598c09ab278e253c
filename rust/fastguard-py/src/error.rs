//! The only exit to Python: its exceptions are declared there and imported here.

use fastguard_core::config::ConfigError;
use fastguard_core::denial::{Denial, Fault, Room};
use pyo3::exceptions::PyValueError;
use pyo3::import_exception;
use pyo3::prelude::*;

import_exception!(mcp_fastguard.errors, RequestDenied);
import_exception!(mcp_fastguard.errors, TokenDenied);
import_exception!(mcp_fastguard.errors, BindingDenied);
import_exception!(mcp_fastguard.errors, LimitDenied);
import_exception!(mcp_fastguard.errors, PolicyDenied);
import_exception!(mcp_fastguard.errors, ApprovalDenied);
import_exception!(mcp_fastguard.errors, GuardFault);
import_exception!(mcp_fastguard.errors, GuardConfigError);

/// A denial, with the challenge of the resource that it belongs to.
pub(crate) fn denied(denial: &Denial, challenge: Option<String>) -> PyErr {
    recorded(denial, challenge, None)
}

/// The same with the id of the decision's record.
pub(crate) fn recorded(denial: &Denial, challenge: Option<String>, record: Option<String>) -> PyErr {
    let retry_after = denial.retry_after().map(|after| after.as_secs_f64());
    let (key, nonce) = (denial.config_key().map(str::to_owned), denial.nonce().map(str::to_owned));
    let spent =
        denial.spent().map(|(rule, quota, window, left, of)| (rule.to_owned(), quota, window.as_secs_f64(), left, of));
    let (code, detail, status) = (denial.code(), denial.to_string(), denial.status());
    let arguments = (code, detail, status, challenge, retry_after, key, nonce, spent, record);
    match denial.room() {
        Room::Request => RequestDenied::new_err(arguments),
        Room::Token => TokenDenied::new_err(arguments),
        Room::Binding => BindingDenied::new_err(arguments),
        Room::Limits => LimitDenied::new_err(arguments),
        Room::Policy => PolicyDenied::new_err(arguments),
        Room::Approval => ApprovalDenied::new_err(arguments),
    }
}

/// Does the core's work. A panic is a mistake of ours: the call is refused by an `Exception`, which PyO3's own is not, so that a
/// server that catches exceptions goes on.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> PyResult<T> {
    let work = || {
        #[cfg(debug_assertions)]
        provoked::panic_if_asked();
        work()
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .map_err(|_| faulted(&Fault::Internal { reason: "panic".to_owned() }))
}

/// Lets a test provoke what must never happen. Not in releases.
#[cfg(debug_assertions)]
pub(crate) mod provoked {
    use std::cell::Cell;

    use fastguard_core::denial::Fault;
    use pyo3::prelude::*;

    use super::misused;

    thread_local! {
        static NEXT: Cell<bool> = const { Cell::new(false) };
        static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// The next decision on this thread is none, because of the log.
    #[pyfunction]
    pub(crate) fn fault_next(code: &str) -> PyResult<()> {
        let faults = [Fault::AuditQueueFull, Fault::AuditFailed { reason: "a test asked for this".to_owned() }];
        let found = faults.into_iter().find(|fault| fault.code() == code);
        FAULT.set(Some(found.ok_or_else(|| misused("no such fault can be provoked"))?));
        Ok(())
    }

    pub(crate) fn fault() -> Option<Fault> {
        FAULT.take()
    }

    /// The next work of the core on this thread panics.
    #[pyfunction]
    pub(crate) fn panic_next() {
        NEXT.set(true);
    }

    pub(super) fn panic_if_asked() {
        assert!(!NEXT.take(), "a test asked for this");
    }
}

pub(crate) fn faulted(fault: &Fault) -> PyErr {
    GuardFault::new_err((fault.code(), fault.to_string()))
}

#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
pub(crate) fn misconfigured(error: ConfigError) -> PyErr {
    GuardConfigError::new_err(error.to_string())
}

pub(crate) fn misused(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

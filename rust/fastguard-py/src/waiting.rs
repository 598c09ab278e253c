use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fastguard_core::gate::Agreeing as AgreeingCore;
use fastguard_core::limits::Verdict;
use fastguard_core::token::{Answered, Need};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::misused;
use crate::request::ToolRequest;

/// A call that waits for keys, or for what somebody finds of its token.
#[pyclass(frozen, module = "mcp_fastguard")]
pub(crate) struct Waiting {
    pub(crate) need: Need,
}

#[pymethods]
impl Waiting {
    /// The issuer whose keys are needed.
    #[getter]
    fn issuer(&self) -> Option<&str> {
        match &self.need {
            Need::Keys(issuer) => Some(issuer),
            Need::Identity(_) | Need::Introspection(_) => None,
        }
    }

    /// The text of the token of which the verifier, or its issuer, must say whose it is.
    #[getter]
    fn credential(&self) -> Option<&str> {
        match &self.need {
            Need::Keys(_) => None,
            Need::Identity(text) | Need::Introspection(text) => Some(text),
        }
    }
}

/// A call for which other processes must be asked: outside, once, and then `Gate.agreed`.
#[pyclass(frozen, module = "mcp_fastguard")]
pub(crate) struct Agreeing {
    pub(crate) core: AgreeingCore,
    /// What it came of, so that no verdict lets another request pass.
    pub(crate) request: Py<ToolRequest>,
    pub(crate) is_spent: AtomicBool,
}

#[pymethods]
impl Agreeing {
    /// The proof and the signature that no other process may take: a key (16 bytes), and for how many seconds it must be remembered.
    #[getter]
    fn claims<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, f64)> {
        let claims = self.core.claims().iter();
        claims.map(|claim| (PyBytes::new(py, &claim.key.to_le_bytes()), claim.lifetime.as_secs_f64())).collect()
    }

    /// One for each shared window: the rule's name, the key (16 bytes), the quota, the window in seconds, the cost.
    #[getter]
    fn charges<'py>(&self, py: Python<'py>) -> Vec<ChargeFields<'py>> {
        let charges = self.core.charges().iter().map(|charge| {
            let key = PyBytes::new(py, &charge.key.to_le_bytes());
            (charge.rule.to_string(), key, charge.quota, charge.window.as_secs_f64(), charge.cost)
        });
        charges.collect()
    }
}

/// What Python's `Charge` is made of, in its order.
type ChargeFields<'py> = (String, Bound<'py, PyBytes>, u64, f64, u32);

/// The modes that a record may name.
pub(crate) const MODES: [&str; 5] = ["exact", "leased", "local", "refuse", "overdrawn"];

pub(crate) fn verdict(
    place: Option<usize>,
    is_admitted: bool,
    remaining: u64,
    retry_after: Option<f64>,
) -> PyResult<Verdict> {
    let retry_after = retry_after.map(Duration::try_from_secs_f64).transpose().map_err(misused)?;
    Ok(match (place, is_admitted) {
        (Some(tightest), true) => Verdict::Admitted { tightest, remaining },
        (Some(place), false) => Verdict::Refused { place, remaining, retry_after },
        (None, _) => Verdict::Unavailable { retry_after: retry_after.unwrap_or(Duration::from_secs(1)) },
    })
}

/// What a call has waited for already, as Python says it.
pub(crate) fn answered(has_waited: bool, attested: Option<&Attested>) -> Answered<'_> {
    Answered { has_waited, attested: attested.map(|attested| &attested.core), address: None }
}

/// What a verifier has found of a token: whose it is, or why it is refused.
#[pyclass(frozen, module = "mcp_fastguard")]
pub(crate) struct Attested {
    pub(crate) core: fastguard_core::token::Attested,
}

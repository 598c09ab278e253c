use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fastguard_core::gate::Agreeing as AgreeingCore;
use fastguard_core::limits::{EndedCall, EndedCharge, SharedPlace, Verdict};
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

    /// One for each shared window: the rule's name, the key (16 bytes), the quota, the window in seconds, the cost; and whether it is
    /// only asked for room, because it counts what results have.
    #[getter]
    fn charges<'py>(&self, py: Python<'py>) -> Vec<ChargeFields<'py>> {
        let charges = self.core.charges().iter().map(|charge| {
            let key = key_of(py, charge.key);
            let is_look = charge.meter.is_some();
            (charge.rule.to_string(), key, charge.quota, charge.window.as_secs_f64(), charge.cost, is_look)
        });
        charges.collect()
    }

    /// One for each place among the calls that run: the rule's name, the key (16 bytes), how many may run at once.
    #[getter]
    fn places<'py>(&self, py: Python<'py>) -> Vec<PlaceFields<'py>> {
        let places = self.core.places().iter();
        let fields = |place: &SharedPlace| (place.rule.to_string(), key_of(py, place.key), place.most);
        places.map(fields).collect()
    }

    /// By which number `Gate.take_ended` will tell of the call's ending; none where it owes nothing then.
    #[getter]
    fn ticket(&self) -> Option<u64> {
        self.core.ticket()
    }
}

fn key_of(py: Python<'_>, key: u128) -> Bound<'_, PyBytes> {
    PyBytes::new(py, &key.to_le_bytes())
}

/// What Python's `Charge` is made of, in its order.
type ChargeFields<'py> = (String, Bound<'py, PyBytes>, u64, f64, u32, bool);

/// What Python's `Place` is made of, in its order.
type PlaceFields<'py> = (String, Bound<'py, PyBytes>, u32);

/// An ending's ticket, and what it is charged: what Python's `Debt` is made of, in its order.
pub(crate) type EndedFields<'py> = (u64, Vec<(Bound<'py, PyBytes>, u64, f64, u64)>);

pub(crate) fn ended_fields<'py>(py: Python<'py>, ended: &EndedCall) -> EndedFields<'py> {
    let fields =
        |charge: &EndedCharge| (key_of(py, charge.key), charge.quota, charge.window.as_secs_f64(), charge.amount);
    (ended.ticket, ended.charges.iter().map(fields).collect())
}

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

use std::time::Duration;

use fastguard_core::binding::{
    BoundToken as Core, DpopVerifier, Nonces, PresentedProof, ProofOptions, RequestUrl, Use,
};
use fastguard_core::bounds::{MAX_PROOF_AGE, MIN_SECRET_BYTES, REPLAY_ENTRIES};
use fastguard_core::config::Dpop;
use fastguard_core::denial::{Challenger, Denial};
use fastguard_core::jose::Algorithm;
use pyo3::prelude::*;

use crate::error::{caught, denied, misused};
use crate::time;
use crate::token::{Released, VerifiedToken};

#[pyclass(frozen, module = "mcp_fastguard.binding")]
pub(crate) struct BoundToken {
    core: Core,
}

#[pymethods]
impl BoundToken {
    #[getter]
    fn token(&self) -> VerifiedToken {
        VerifiedToken { core: self.core.token().clone() }
    }

    #[getter]
    fn thumbprint(&self) -> Option<&str> {
        self.core.token().thumbprint()
    }

    #[getter]
    fn nonce(&self) -> Option<&str> {
        self.core.nonce()
    }

    fn __repr__(&self) -> String {
        format!("<BoundToken to {:?}>", self.core.token().thumbprint().unwrap_or_default())
    }
}

#[pyclass(frozen, module = "mcp_fastguard.binding")]
pub(crate) struct DPoPVerifier {
    core: DpopVerifier,
    clock: time::Clock,
    challenger: Challenger,
}

#[pymethods]
impl DPoPVerifier {
    #[new]
    #[pyo3(signature = (*, max_age = 300.0, algorithms = None, leeway = 30.0, replay_entries = None, nonce_secret = None))]
    fn new(
        max_age: f64,
        algorithms: Option<Vec<String>>,
        leeway: f64,
        replay_entries: Option<usize>,
        nonce_secret: Option<&[u8]>,
    ) -> PyResult<Self> {
        let replay_entries = replay_entries.unwrap_or(REPLAY_ENTRIES);
        let longest = MAX_PROOF_AGE.as_secs_f64();
        if !(1.0..=longest).contains(&max_age) {
            return Err(misused(format!("`max_age` is not between 1 and {longest} seconds")));
        }
        if !(0.0..=longest).contains(&leeway) {
            return Err(misused(format!("`leeway` is not between 0 and {longest} seconds")));
        }
        let mut table = Dpop { replay_entries, ..Dpop::default() };
        table.algorithms = algorithms.unwrap_or(table.algorithms);
        table.check().map_err(misused)?;
        let accepted = table.accepted_algorithms();
        let names: Vec<_> = accepted.iter().map(Algorithm::name).collect();
        let options = ProofOptions::new(accepted, Duration::from_secs_f64(max_age), Duration::from_secs_f64(leeway));
        let challenger = Challenger { proof_algorithms: Some(names.join(" ").into()), ..Challenger::default() };
        let mut core = DpopVerifier::new(options, replay_entries);
        if let Some(secret) = nonce_secret {
            if secret.len() < MIN_SECRET_BYTES {
                return Err(misused(format!("`nonce_secret` must have at least {MIN_SECRET_BYTES} bytes")));
            }
            core = core.with_nonces(Nonces::new(secret));
        }
        Ok(Self { core, clock: time::Clock::default(), challenger })
    }

    #[pyo3(signature = (token, proof, *, method, url, access_token, body = None, now = None))]
    #[expect(clippy::too_many_arguments, reason = "all but the first two are given by keyword")]
    fn confirm(
        &self,
        py: Python<'_>,
        token: &VerifiedToken,
        proof: &str,
        method: &str,
        url: &str,
        access_token: &str,
        body: Option<&[u8]>,
        now: Option<f64>,
    ) -> PyResult<BoundToken> {
        let now = self.clock.now(now)?;
        let url = RequestUrl::new(url).ok_or_else(|| misused("`url` is not an absolute URL of http or https"))?;
        let refused = |denial: &Denial| denied(denial, self.challenger.challenge(denial));
        if token.core.text() != access_token {
            return Err(refused(&Denial::ProofTokenMismatch));
        }
        let presented = PresentedProof { proof, method, url: &url, body };
        let confirmed = caught(|| self.core.confirm(token.core.clone(), &presented, now, Use::Once, &Released(py)))?;
        confirmed.map(|core| BoundToken { core }).map_err(|denial| refused(&denial))
    }

    #[pyo3(signature = (*, now = None))]
    fn nonce(&self, now: Option<f64>) -> PyResult<String> {
        let now = self.clock.now(now)?;
        self.core.nonce(now.unix).ok_or_else(|| misused("the verifier was built without `nonce_secret`"))
    }

    /// How many used proofs are remembered.
    fn __len__(&self) -> usize {
        self.core.replays().len()
    }
}

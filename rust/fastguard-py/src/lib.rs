//! The Python extension module. Converts, calls the core, wraps; decides nothing.

// Records are made on one thread and freed on the writer's, which the system's allocator does not love.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod audit;
mod binding;
mod call;
mod config;
mod error;
mod gate;
mod json;
mod limits;
mod open_call;
mod permits;
mod request;
mod scope;
mod time;
mod token;
mod waiting;

#[pyo3::pymodule(gil_used = false)]
mod _fastguard {
    use fastguard_core::request::Header;
    use pyo3::prelude::*;
    use pyo3::types::{PyBytes, PyFrozenSet};

    #[pymodule_export]
    use super::audit::{
        MergedLogs, Pseudonyms, check_proof, cosign, cosigned_at, forget_log, prove_growth, prove_record, prune_log,
        registered_logs, repair_logs, result_counts, verify_log, verify_logs, witness_key,
    };
    #[pymodule_export]
    use super::binding::{BoundToken, DPoPVerifier};
    #[pymodule_export]
    use super::call::{AllowedCall, ObservedCall};
    #[pymodule_export]
    use super::config::{config_json_schema, config_warnings, revocation_settings, ship_settings};
    #[cfg(debug_assertions)]
    #[pymodule_export]
    use super::error::provoked::{fault_next, panic_next};
    #[pymodule_export]
    use super::gate::Gate;
    #[pymodule_export]
    use super::limits::{Admission, MeteredWindow, SlidingWindow, empty_call};
    #[pymodule_export]
    use super::open_call::OpenCall;
    #[pymodule_export]
    use super::permits::{Asking, Permits};
    #[pymodule_export]
    use super::request::ToolRequest;
    #[pymodule_export]
    use super::scope::whole_body;
    #[pymodule_export]
    use super::token::{KeySet, TokenVerifier, VerifiedToken, verify_compact};
    #[pymodule_export]
    use super::waiting::{Agreeing, Attested, Waiting};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("MAX_BODY_BYTES", fastguard_core::bounds::MAX_BODY_BYTES)?;
        module.add("MAX_BODY_BYTES_BEFORE_TOKEN", fastguard_core::bounds::MAX_BODY_BYTES_BEFORE_TOKEN)?;
        let certificates = Header::CERTIFICATES.map(|header| PyBytes::new(module.py(), header.name().as_bytes()));
        module.add("CERTIFICATE_HEADERS", PyFrozenSet::new(module.py(), certificates)?)?;
        module.add("LEASE_PART", 1.0 / f64::from(fastguard_core::limits::LEASE_PART))?;
        module.add("MAX_INTROSPECTION_BYTES", fastguard_core::bounds::MAX_INTROSPECTION_BYTES)?;
        module.add("MAX_KEY_SET_BYTES", fastguard_core::bounds::MAX_KEY_SET_BYTES)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

use fastguard_core::config::Config;
use pyo3::prelude::*;

use crate::error::misconfigured;

#[pyfunction]
pub(crate) fn config_json_schema() -> String {
    Config::json_schema().to_string()
}

/// The warnings of a configuration that would start: (key, message).
#[pyfunction]
#[pyo3(signature = (text, file = None))]
pub(crate) fn config_warnings(text: &str, file: Option<&str>) -> PyResult<Vec<(String, String)>> {
    let config = Config::from_toml(text, file).map_err(misconfigured)?;
    Ok(config.warnings().into_iter().map(|warning| (warning.key, warning.message)).collect())
}

/// Whether the files of a log are whole: (records, root, sealed, problem).
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts paths by value")]
pub(crate) fn verify_log(path: std::path::PathBuf) -> PyResult<(u64, String, bool, Option<String>)> {
    let verdict = fastguard_core::audit::log::verify(&path)?;
    let problem =
        verdict.problem.map(|problem| format!("file {}, byte {}: {}", problem.file, problem.offset, problem.what));
    Ok((verdict.records, verdict.root, verdict.sealed, problem))
}

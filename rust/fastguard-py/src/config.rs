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

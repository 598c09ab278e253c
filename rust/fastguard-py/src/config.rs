use std::path::{Path, PathBuf};

use fastguard_core::config::{Config, ConfigError, Ship};
use fastguard_core::jose::Mac;
use pyo3::prelude::*;

use crate::error::misconfigured;

/// What Python's `StateSettings` is made of, in its order.
pub(crate) type StateFields = (
    (String, Option<String>, Option<PathBuf>, Option<PathBuf>),
    (Option<PathBuf>, Option<PathBuf>),
    (String, f64, u32),
    (&'static str, &'static str),
);

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

/// `[revocations]`: the file, whether processes tell each other, for how many seconds nothing may be heard, the key of the entries'
/// MAC, and what Python's `StateSettings` is made of.
type RevocationFields = (Option<PathBuf>, bool, f64, Option<[u8; 32]>, Option<StateFields>);

/// What `[revocations]` of a configuration says; none without the table.
#[pyfunction]
#[pyo3(signature = (text, *, folder, file = None, is_json = false))]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts by value")]
pub(crate) fn revocation_settings(
    text: &str,
    folder: PathBuf,
    file: Option<&str>,
    is_json: bool,
) -> PyResult<Option<RevocationFields>> {
    let config = read(text, file, is_json, &folder)?;
    let Some(table) = &config.revocations else { return Ok(None) };
    let secret = config.state.as_ref().and_then(|state| state.secret.bytes());
    let key = secret.map(|secret| Mac::new(secret).tag(b"mcp-fastguard: entries of revocations, 1"));
    let path = table.file.as_ref().map(|name| folder.join(name));
    let staleness = table.max_staleness.get().as_secs_f64();
    Ok(Some((path, table.shared, staleness, key, state_fields(&config, &folder))))
}

/// What Python's `ShipSettings` is made of, in its order.
type ShipFields = (
    (String, &'static str, &'static str),
    (Option<String>, bool),
    (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>, Option<PathBuf>),
    Option<PathBuf>,
    (Option<String>, String, Option<String>),
    (&'static str, Option<f64>),
);

/// What `[[audit.ship]]` of a configuration says, and the folder of the logs; none where no log is kept.
#[pyfunction]
#[pyo3(signature = (text, *, folder, file = None, is_json = false))]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts by value")]
pub(crate) fn ship_settings(
    text: &str,
    folder: PathBuf,
    file: Option<&str>,
    is_json: bool,
) -> PyResult<Option<(PathBuf, Vec<ShipFields>)>> {
    // Files of secrets that other keys name are none of its business: a shipper may run as somebody else.
    let config = if is_json { Config::from_json(text) } else { Config::from_toml(text, file) };
    let audit = config.map_err(misconfigured)?.audit;
    if !audit.enabled {
        return Ok(None);
    }
    for (index, ship) in audit.ship.iter().enumerate() {
        for (key, name) in ship.files() {
            let at = || format!("audit.ship[{index}].{key}");
            std::fs::File::open(folder.join(name))
                .map_err(|error| misconfigured(ConfigError::at(at(), format!("`{name}`: {error}"))))?;
        }
    }
    let path = |name: &Option<String>| name.as_ref().map(|name| folder.join(name));
    let fields = |ship: &Ship| {
        (
            (ship.own_name().to_owned(), ship.sink.name(), ship.format.name()),
            (ship.url.clone(), ship.allow_http_loopback),
            (path(&ship.ca_file), path(&ship.client_certificate), path(&ship.client_key), path(&ship.bearer_file)),
            path(&ship.path),
            (ship.bucket.clone(), ship.prefix.clone().unwrap_or_default(), ship.region.clone()),
            (ship.object_lock.unwrap_or_default().name(), ship.retention.map(|span| span.get().as_secs_f64())),
        )
    };
    Ok(Some((folder.join(&audit.path), audit.ship.iter().map(fields).collect())))
}

/// What Python's `StateSettings` is made of, in its order.
pub(crate) fn state_fields(config: &Config, folder: &Path) -> Option<StateFields> {
    let store = config.state.as_ref()?;
    let path = |name: &Option<String>| name.as_ref().map(|name| folder.join(name));
    let place = (store.url.clone(), store.user.clone(), path(&store.password_file), path(&store.ca_file));
    let certificate = (path(&store.client_certificate), path(&store.client_key));
    let bounds = (store.prefix.clone(), store.budget.get().as_secs_f64(), store.processes);
    let degrade = config.limits.degrade.unwrap_or_default();
    Some((place, certificate, bounds, (config.limit_mode().name(), degrade.name())))
}

/// Reads a configuration with what stands in files beside it.
pub(crate) fn read(text: &str, file: Option<&str>, is_json: bool, folder: &Path) -> PyResult<Config> {
    let config = if is_json { Config::from_json(text) } else { Config::from_toml(text, file) };
    let mut config = config.map_err(misconfigured)?;
    config.apply_environment(std::env::vars()).map_err(misconfigured)?;
    for (index, issuer) in config.issuers.iter_mut().enumerate() {
        if let Some(name) = issuer.jwks_file.take() {
            let text = std::fs::read_to_string(folder.join(&name));
            let at = || format!("issuers[{index}].jwks_file");
            issuer.jwks =
                Some(text.map_err(|error| misconfigured(ConfigError::at(at(), format!("`{name}`: {error}"))))?.into());
        }
        for (key, name) in issuer.files() {
            std::fs::File::open(folder.join(name)).map_err(|error| {
                misconfigured(ConfigError::at(format!("issuers[{index}].{key}"), format!("`{name}`: {error}")))
            })?;
        }
    }
    for (index, client) in config.signatures.clients.iter_mut().enumerate() {
        if let Some(name) = client.jwks_file.take() {
            let text = std::fs::read_to_string(folder.join(&name));
            let at = || format!("signatures.clients[{index}].jwks_file");
            client.jwks =
                Some(text.map_err(|error| misconfigured(ConfigError::at(at(), format!("`{name}`: {error}"))))?.into());
        }
    }
    if let Some(name) = config.dpop.nonce_secret_file.clone() {
        let key = "dpop.nonce_secret_file";
        let secret = std::fs::read(folder.join(&name));
        let secret = secret.map_err(|error| misconfigured(ConfigError::at(key, format!("`{name}`: {error}"))))?;
        config.set_nonce_secret(key, &secret).map_err(misconfigured)?;
    }
    if let Some(state) = config.state.clone() {
        for (key, name) in state.files() {
            let at = || format!("state.{key}");
            std::fs::File::open(folder.join(name))
                .map_err(|error| misconfigured(ConfigError::at(at(), format!("`{name}`: {error}"))))?;
        }
        if let Some(name) = state.secret_file {
            let key = "state.secret_file";
            let secret = std::fs::read(folder.join(&name));
            let secret = secret.map_err(|error| misconfigured(ConfigError::at(key, format!("`{name}`: {error}"))))?;
            config.set_state_secret(key, &secret).map_err(misconfigured)?;
        }
    }
    Ok(config)
}

//! `[state]`: where processes keep what they share.

use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::values::Span;

/// `[state]`: the Redis or Valkey server in which several processes keep what they share.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct State {
    /// `rediss://host:port/0`, `redis://…` without TLS, or `unix:///path`; `rediss+sentinel://host:port,host:port/NAME` for the master
    /// that sentinels name, `rediss+cluster://host:port,host:port` for nodes of a cluster. Without user and password.
    pub url: String,
    /// How many processes share it at most. While the server is away, each admits the quotas divided by this.
    pub processes: u32,
    /// The user of the server's access list. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A file with the password; read anew for each connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// Certificates (PEM) of the authorities that may vouch for the server; no others may. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// The certificate (PEM) that is shown to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// Its key (PEM, not encrypted), where it is not in the same file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    /// A file with a secret of at least 32 bytes, the same in all processes: the names of keys are made of it. Default:
    /// `FASTGUARD_STATE_SECRET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<String>,
    /// What the names of all keys begin with. Default: fastguard.
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// How long a call waits for the server, connecting included. Default: 50ms.
    #[serde(default = "default_budget")]
    pub budget: Span,
    /// Comes by file or environment, and has no place in the digest.
    #[serde(skip)]
    pub secret: Secret,
}

impl State {
    /// The files that speaking to the server needs, each with its key in the table.
    pub fn files(&self) -> Vec<(&'static str, &str)> {
        let named = [
            ("password_file", &self.password_file),
            ("ca_file", &self.ca_file),
            ("client_certificate", &self.client_certificate),
            ("client_key", &self.client_key),
        ];
        named.into_iter().filter_map(|(key, file)| Some((key, file.as_deref()?))).collect()
    }
}

fn default_prefix() -> String {
    "fastguard".to_owned()
}

const fn default_budget() -> Span {
    Span::from_millis(50)
}

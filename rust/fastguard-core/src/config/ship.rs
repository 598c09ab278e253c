//! `[[audit.ship]]`: where records and checkpoints go beside the disk.

use serde::{Deserialize, Serialize};

use super::values::Span;

/// `[[audit.ship]]`: a place that `fastguard audit ship` copies records and checkpoints to.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Ship {
    /// Names it in its cursor, in metrics and in messages. Default: the sink's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How records get there.
    pub sink: Sink,
    /// What is written of a record. Default: json, the line of the log as it is.
    #[serde(default)]
    pub format: ShipFormat,
    /// `otlp`: the URL of logs, which mostly ends with `/v1/logs`; `syslog`: `tls://host:6514`; `s3`: the endpoint, where it is not
    /// Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `http` is allowed for this place, on loopback only.
    #[serde(default)]
    pub allow_http_loopback: bool,
    /// Certificates (PEM) of the authorities that may vouch for the host, instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// The certificate (PEM) that is shown to the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// The key (PEM, not encrypted) of `client_certificate`, where it is not in the same file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    /// `otlp`: a file that holds the bearer token; read anew for each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_file: Option<String>,
    /// `file`: the folder that files are written into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `s3`: the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// `s3`: what the names of all objects begin with. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// `s3`: the region. Default: as the environment says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `s3`: how objects are locked until `retention` is over. Default: compliance, which nobody can lift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_lock: Option<ObjectLock>,
    /// `s3`: for how long objects are locked; at least 1d. Required unless `object_lock = "off"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Span>,
}

/// How records get somewhere.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Sink {
    /// OTLP over HTTP, in JSON.
    Otlp,
    /// RFC 5424 over TLS (RFC 5425).
    Syslog,
    /// Objects of a bucket.
    S3,
    /// Files of a folder.
    #[default]
    File,
}

/// What is written of a record.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ShipFormat {
    /// The line as it is.
    #[default]
    Json,
    /// Events of the Open Cybersecurity Schema Framework.
    Ocsf,
    /// The Common Event Format.
    Cef,
}

/// How objects are locked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ObjectLock {
    /// Nobody can delete them before their time.
    #[default]
    Compliance,
    /// Only those can who have the right to.
    Governance,
    /// They are not.
    Off,
}

impl Sink {
    /// As the file spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Otlp => "otlp",
            Self::Syslog => "syslog",
            Self::S3 => "s3",
            Self::File => "file",
        }
    }
}

impl ShipFormat {
    /// As the file spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ocsf => "ocsf",
            Self::Cef => "cef",
        }
    }
}

impl ObjectLock {
    /// As the file spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compliance => "compliance",
            Self::Governance => "governance",
            Self::Off => "off",
        }
    }
}

impl Ship {
    /// The name that is its own.
    pub fn own_name(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.sink.name())
    }

    /// The files that speaking to it needs, each with its key in the table.
    pub fn files(&self) -> Vec<(&'static str, &str)> {
        let named = [
            ("ca_file", &self.ca_file),
            ("client_certificate", &self.client_certificate),
            ("client_key", &self.client_key),
            ("bearer_file", &self.bearer_file),
        ];
        named.into_iter().filter_map(|(key, file)| Some((key, file.as_deref()?))).collect()
    }
}

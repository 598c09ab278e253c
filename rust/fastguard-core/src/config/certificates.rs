//! `[certificates]`: tokens bound to a client's certificate (RFC 8705).

use serde::{Deserialize, Serialize};

/// `[certificates]`: where the client's certificate is found.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Certificates {
    /// How a proxy of `[proxies]` hands on the certificate of its client. Default: off, and tokens bound to one are refused.
    pub source: CertificateSource,
}

/// The header of a proxy that ends TLS. The proxy must set or remove it in every request.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CertificateSource {
    /// None is believed.
    #[default]
    Off,
    /// `Client-Cert` (RFC 9440).
    ClientCert,
    /// `x-forwarded-client-cert` with one element.
    Envoy,
    /// `ssl-client-cert` with `$ssl_client_escaped_cert`.
    Nginx,
}

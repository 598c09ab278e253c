//! `[certificates]`: tokens bound to a client's certificate (RFC 8705).

use serde::{Deserialize, Serialize};

/// `[certificates]`: where the client's certificate is found.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Certificates {
    /// How a proxy of `[proxies]` hands on the certificate of its client. Default: off, and tokens bound to one are refused.
    pub source: CertificateSource,
    /// Whether every call comes with a certificate: one that its token is bound to, or one with a name of `clients`. Default: false.
    pub required: bool,
    /// Clients whose calls come with a certificate of a certain name, whether their tokens are bound to it or not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<CertifiedClient>,
}

/// `[[certificates.clients]]`: the names of one client.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CertifiedClient {
    /// The client, as its tokens name it.
    pub client_id: String,
    /// Whose tokens name it so. Left out: the one issuer there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Its certificate has one of these as subject alternative name: a URI such as `spiffe://example.org/agent`, or a name of the DNS.
    pub subject_alt_names: Vec<String>,
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
    /// None of a proxy's: the ASGI server itself has ended TLS, and says so in its `tls` extension.
    Tls,
}

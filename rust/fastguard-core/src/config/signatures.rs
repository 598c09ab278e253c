//! `[signatures]`: signed requests (RFC 9421).

use serde::{Deserialize, Serialize};

use super::values::Span;
use crate::jose::KeySet;

/// `[signatures]`: requests that their client has signed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Signatures {
    /// Whether requests may or must be signed. Default: off, and signatures are not looked at.
    pub mode: SignatureMode,
    /// Algorithms: `ecdsa-p256-sha256`, `ecdsa-p384-sha384`, `ed25519`, `rsa-pss-sha512`, `rsa-v1_5-sha256`. Default: the first four.
    pub algorithms: Vec<String>,
    /// What a signature must cover. `content-digest` counts where there is a body. Default: `@method`, `@target-uri`, `content-digest`,
    /// `authorization`.
    pub components: Vec<String>,
    /// How long before now `created` may be; the leeway of `[tokens]` is added. Default: 5m, and at most so.
    pub max_age: Span,
    /// Only signatures with this `tag` count; others may be of proxies. Default: all count, and there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The clients that sign by keys of their own. Others sign by the key that their token is bound to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<SigningClient>,
}

impl Default for Signatures {
    fn default() -> Self {
        Self {
            mode: SignatureMode::Off,
            algorithms: ["ecdsa-p256-sha256", "ecdsa-p384-sha384", "ed25519", "rsa-pss-sha512"]
                .map(str::to_owned)
                .to_vec(),
            components: ["@method", "@target-uri", "content-digest", "authorization"].map(str::to_owned).to_vec(),
            max_age: Span::from_seconds(300),
            tag: None,
            clients: Vec::new(),
        }
    }
}

/// Whether requests may or must be signed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SignatureMode {
    /// Signatures are not looked at.
    Off,
    /// A signature that comes along must match; requests without one pass.
    Optional,
    /// Only signed requests pass.
    Required,
}

/// `[[signatures.clients]]`: the keys of one client.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SigningClient {
    /// The client, as its tokens name it.
    pub client_id: String,
    /// Whose tokens name it so. Left out: the one issuer there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Its public keys, inline: a set as a table, or its JSON text. `keyid` is the `kid` or the thumbprint of one.
    #[serde(default)]
    pub jwks: Option<serde_json::Value>,
    /// Its public keys, in a file beside this one.
    #[serde(default)]
    pub jwks_file: Option<String>,
}

impl super::schema::Config {
    /// The issuer of a client that a table names: the one that stands there, or the one there is.
    pub(crate) fn issuer_of_client<'a>(&'a self, named: Option<&'a str>) -> Option<&'a str> {
        let sole = match self.issuers.as_slice() {
            [issuer] => Some(issuer.issuer.as_str()),
            _ => None,
        };
        named.or(sole)
    }
}

impl SigningClient {
    /// Its keys, where they are inline or were read already.
    pub(crate) fn keys(&self) -> Result<KeySet, String> {
        let text = match self.jwks.as_ref() {
            None => return Err("`jwks` or `jwks_file` is needed".to_owned()),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        KeySet::from_jwks(text.as_bytes(), false).and_then(KeySet::without_published).map_err(|error| error.to_string())
    }
}

//! The tables of `fastguard.toml`. Every key is documented here; the JSON Schema for editors is made from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::admin::Admin;
use super::certificates::Certificates;
use super::cost::Cost;
use super::dpop::Dpop;
use super::error::ConfigError;
use super::limits::Limits;
use super::revocations::Revocations;
use super::ship::Ship;
use super::signatures::Signatures;
use super::state::State;
use super::values::{Date, Network, Quota, Required, Span};

/// The whole file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The version of this schema: 1.
    pub version: u32,
    /// What is guarded.
    pub resource: Resource,
    /// Who may issue tokens.
    #[serde(default)]
    pub issuers: Vec<Issuer>,
    /// What holds for the tokens of every issuer.
    #[serde(default)]
    pub tokens: Tokens,
    /// Tokens bound to a key (RFC 9449).
    #[serde(default)]
    pub dpop: Dpop,
    /// Tokens bound to a client's certificate (RFC 8705).
    #[serde(default)]
    pub certificates: Certificates,
    /// Requests that their client has signed (RFC 9421).
    #[serde(default)]
    pub signatures: Signatures,
    /// Peers that are believed about addresses and certificates.
    #[serde(default)]
    pub proxies: Proxies,
    /// Scopes that imply others.
    #[serde(default)]
    pub scopes: BTreeMap<String, Scope>,
    /// How often.
    #[serde(default)]
    pub limits: Limits,
    /// Where several processes keep what they share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// How the guard learns what was revoked elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocations: Option<Revocations>,
    /// Rules for tools, by name or glob.
    #[serde(default)]
    pub tools: BTreeMap<String, Rule>,
    /// Rules for prompts, by name or glob.
    #[serde(default)]
    pub prompts: BTreeMap<String, Rule>,
    /// Rules for resources, by URI or glob.
    #[serde(default)]
    pub resources: BTreeMap<String, Rule>,
    /// Rules for methods of MCP and its extensions, by name or glob.
    #[serde(default)]
    pub methods: BTreeMap<String, Rule>,
    /// The record of every decision.
    #[serde(default)]
    pub audit: Audit,
    /// Where the token comes from when the server runs on standard input and output.
    #[serde(default)]
    pub stdio: Option<Stdio>,
    /// Rooms whose refusals are recorded and not enforced, until a day.
    #[serde(default)]
    pub observe: Option<Observe>,
    /// An endpoint by which operators revoke and block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
}

/// `[resource]`: what is guarded.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// The public URL of the MCP endpoint: the guarded path and the default audience (RFC 8707).
    pub url: String,
    /// Other paths that pass unguarded, exactly as given.
    #[serde(default)]
    pub public: Vec<String>,
    /// The scopes that a client should ask for first. Named in the challenge of every 401 (MCP 2026-07-28, authorization).
    #[serde(default)]
    pub scopes: Vec<String>,
    /// A name for people, in the metadata (RFC 9728).
    #[serde(default)]
    pub name: Option<String>,
    /// Authorization servers that the metadata names (RFC 9728). Default: the issuers.
    #[serde(default)]
    pub authorization_servers: Option<Vec<String>>,
    /// A page for developers, in the metadata (RFC 9728).
    #[serde(default)]
    pub documentation: Option<String>,
}

/// `[[issuers]]`: who may issue tokens, and which.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// The exact value of `iss`.
    pub issuer: String,
    /// Where its keys are. Left out: discovered (RFC 8414, `OpenID` Connect Discovery).
    #[serde(default)]
    pub jwks_uri: Option<String>,
    /// Its keys, inline: a set as a table, or its JSON text.
    #[serde(default)]
    pub jwks: Option<serde_json::Value>,
    /// Its keys, in a file beside this one.
    #[serde(default)]
    pub jwks_file: Option<String>,
    /// `http` is allowed for this issuer, on loopback only.
    #[serde(default)]
    pub allow_http_loopback: bool,
    /// Networks that the hosts of this issuer may be in beside the Internet, such as "10.2.0.0/16".
    #[serde(default)]
    pub allow_networks: Vec<Network>,
    /// How long a key set is used after it should have been replaced, while fetching fails. Default: 24h; 0: not at all.
    #[serde(default = "default_max_stale")]
    pub max_stale: Span,
    /// Certificates (PEM) of the authorities that may vouch for this issuer's hosts, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// The certificate (PEM) that is shown to this issuer's hosts.
    #[serde(default)]
    pub client_certificate: Option<String>,
    /// The key (PEM) of `client_certificate`, where it is not in the same file.
    #[serde(default)]
    pub client_key: Option<String>,
    /// A file that holds the bearer token with which keys and metadata are asked for; read anew for each fetch.
    #[serde(default)]
    pub bearer_file: Option<String>,
    /// Keys that are refused though they are published, by `kid` or thumbprint (RFC 7638).
    #[serde(default)]
    pub denied_keys: Vec<String>,
    /// Where it is asked about opaque tokens (RFC 7662). Left out: discovered (RFC 8414). Only with `introspection_client_id`.
    #[serde(default)]
    pub introspection_endpoint: Option<String>,
    /// The client that this server is when it asks about opaque tokens. Without it they are refused. Such an issuer has no key
    /// set unless `jwks_uri`, `jwks` or `jwks_file` says where; one issuer at most may be asked.
    #[serde(default)]
    pub introspection_client_id: Option<String>,
    /// A file that holds the secret of that client, sent by HTTP Basic; read anew for each lookup.
    #[serde(default)]
    pub introspection_client_secret_file: Option<String>,
    /// How long an answer is believed, and never beyond `exp`. Default: 60s, at most 10m; 0: every call asks.
    #[serde(default = "default_introspection_cache")]
    pub introspection_cache: Span,
    /// How many tokens that were never seen before are looked up in which time. Default: 600/minute.
    #[serde(default = "default_introspection_lookups")]
    pub introspection_lookups: Quota,
    /// The same for each address; IPv6 by /64. Default: 60/minute.
    #[serde(default = "default_introspection_lookups_per_address")]
    pub introspection_lookups_per_address: Quota,
    /// Signature algorithms that are accepted. Default: `ES256`, `RS256`, `EdDSA`.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<String>,
    /// Accepted values of `aud`. Default: the resource's URL.
    #[serde(default)]
    pub audiences: Option<Vec<String>>,
    /// The claim that is held against `audiences`. Default: `aud`. Another only with `audiences`, for issuers whose access tokens
    /// have none: Amazon Cognito's name their `client_id` alone.
    #[serde(default)]
    pub audience_claim: Option<String>,
    /// Accepted values of `typ`, without `application/`. Default: `at+jwt` (RFC 9068). `JWT`, and "" for none, only with `require`.
    #[serde(default = "default_types")]
    pub types: Vec<String>,
    /// Claims that must be there (`true`) or equal a value.
    #[serde(default)]
    pub require: BTreeMap<String, Required>,
    /// Claims that hold the scopes, as a string or a list; the first one present counts.
    #[serde(default = "default_scope_claims")]
    pub scope_claims: Vec<String>,
    /// Claims that hold the client's id; the first one present counts.
    #[serde(default = "default_client_claims")]
    pub client_claims: Vec<String>,
    /// The claim that holds the organisation.
    #[serde(default)]
    pub organisation_claim: Option<String>,
    /// The claim that holds the roles.
    #[serde(default)]
    pub roles_claim: Option<String>,
    /// Longest accepted `exp` minus `iat`. Default: 60m.
    #[serde(default = "default_max_lifetime")]
    pub max_lifetime: Span,
    /// Longest accepted `exp` minus `iat` of tokens with a scope of this name or glob, at most `max_lifetime`.
    #[serde(default)]
    pub scope_lifetimes: BTreeMap<String, Span>,
    /// How long after its `iat` a token is accepted at most, whatever its `exp`. Default: until `exp`.
    #[serde(default)]
    pub max_token_age: Option<Span>,
    /// Values of `sub` that are accepted, by name or glob. Default: all.
    #[serde(default)]
    pub subjects: Option<Vec<String>>,
    /// Values of `sub` that are refused, by name or glob, though `subjects` names them.
    #[serde(default)]
    pub denied_subjects: Vec<String>,
    /// Scopes that this issuer may assert, by name or glob; others in its tokens are ignored.
    /// Required where there is more than one issuer.
    #[serde(default)]
    pub asserts_scopes: Option<Vec<String>>,
}

fn default_algorithms() -> Vec<String> {
    ["ES256", "RS256", "EdDSA"].map(str::to_owned).to_vec()
}

fn default_types() -> Vec<String> {
    vec!["at+jwt".to_owned()]
}

fn default_scope_claims() -> Vec<String> {
    ["scope", "scp"].map(str::to_owned).to_vec()
}

fn default_client_claims() -> Vec<String> {
    ["client_id", "azp"].map(str::to_owned).to_vec()
}

const fn default_introspection_cache() -> Span {
    Span::from_seconds(60)
}

const fn default_introspection_lookups() -> Quota {
    Quota::new(600, std::time::Duration::from_secs(60))
}

const fn default_introspection_lookups_per_address() -> Quota {
    Quota::new(60, std::time::Duration::from_secs(60))
}

const fn default_max_stale() -> Span {
    Span::from_seconds(24 * 3_600)
}

const fn default_max_lifetime() -> Span {
    Span::from_seconds(3_600)
}

/// `[tokens]`: what holds for the tokens of every issuer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Tokens {
    /// Tolerance for the clocks of others. Default: 30s, at most 5m.
    pub leeway: Span,
    /// Verified tokens that are kept. Default: 10000; 0 keeps none.
    pub cache_size: usize,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { leeway: Span::from_seconds(30), cache_size: crate::bounds::TOKEN_CACHE_ENTRIES }
    }
}

/// `[proxies]`: peers that are believed.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Proxies {
    /// Networks whose `Forwarded` and `X-Forwarded-For` headers are believed.
    pub addresses: Vec<Network>,
}

/// `[scopes."NAME"]`: what a scope implies.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Scopes that a token with this one has as well; by transitivity theirs too.
    pub implies: Vec<String>,
}

/// `[tools."…"]` and its likes: who may.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// The token must have all of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The token must have one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub any_scopes: Option<Vec<String>>,
    /// Any verified caller may.
    pub open: bool,
    /// What happens beside the scopes. Default: auto.
    pub tier: Tier,
    /// Arguments whose values are recorded; all others by name and keyed hash only.
    pub log_arguments: Vec<String>,
    /// What the token must be bound to. Default: as `dpop.mode` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// Only signed requests may. Default: as `signatures.mode` says.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub signed: bool,
    /// The class that limits with `per = "class"` count a tool in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Whether the tool changes nothing: then its call need not wait until its record is on disk. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// What a call of the tool costs in every limit: a number, or "`arguments.max_rows` / 1000". Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// The person was authenticated in one of these ways: values of `acr` (RFC 9470).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acr_values: Option<Vec<String>>,
    /// The person was authenticated at most so long ago, by `auth_time` (RFC 9470).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// The token was issued at most so long ago, by `iat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_token_age: Option<Span>,
}

/// What a token must be bound to for one target.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Binding {
    /// A key, and every request brings a proof of it (RFC 9449).
    Dpop,
}

impl Rule {
    /// The scopes of which the token must have all.
    pub fn scopes(&self) -> &[String] {
        self.scopes.as_deref().unwrap_or_default()
    }

    /// The scopes of which the token must have one.
    pub fn any_scopes(&self) -> &[String] {
        self.any_scopes.as_deref().unwrap_or_default()
    }

    /// A rule as it stands beside a tool's code, checked as one of the file is.
    pub fn beside_code(
        scopes: Vec<String>,
        any_scopes: Vec<String>,
        open: bool,
        tier: Tier,
    ) -> Result<Self, ConfigError> {
        let some = |list: Vec<String>| if list.is_empty() { None } else { Some(list) };
        let rule = Self { scopes: some(scopes), any_scopes: some(any_scopes), open, tier, ..Self::default() };
        super::check::check_rule(&rule, "rule")?;
        Ok(rule)
    }
}

/// The four tiers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Proceeds.
    #[default]
    Auto,
    /// Proceeds, and is logged aloud.
    Log,
    /// Waits for a human.
    Approve,
    /// Is refused.
    Block,
}

/// `[audit]`: the record of every decision.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// False keeps no record. Said aloud at the start.
    pub enabled: bool,
    /// The folder of the log, relative to the file. Default: audit.
    pub path: String,
    /// A file of the log is closed at this size, in bytes. Default: 67108864 (64 MiB).
    pub max_file_bytes: u64,
    /// Records are on disk at most this long after the decision. Default: 5ms.
    pub flush_interval: Span,
    /// Bytes that refusals before a verified token may write each minute. Default: 1048576; beyond, they are counted.
    pub unverified_bytes_per_minute: u64,
    /// When records are on disk. Default: batched.
    pub durability: Durability,
    /// Whether the record of a call that writes is on disk before its tool runs. Default: true.
    pub intent: bool,
    /// What happens to calls when the log cannot be written. Default: refuse.
    pub on_failure: OnAuditFailure,
    /// A signed checkpoint is written after this many records. Default: 16384.
    pub checkpoint_records: u64,
    /// A signed checkpoint is written this long after the last one, if there are new records. Default: 10s.
    pub checkpoint_interval: Span,
    /// The name of the key that signs checkpoints and the start of each log's origin: a URL without its scheme.
    pub origin: String,
    /// The file of the key that signs checkpoints, relative to this file. Default: checkpoint.key in `path`.
    pub key_file: Option<String>,
    /// Whether subjects, and what belongs to one, are written as pseudonyms, under keys that can be destroyed. Default: false.
    pub pseudonyms: bool,
    /// The folder of these keys, relative to this file. Default: subjects in `path`.
    pub pseudonyms_path: Option<String>,
    /// Places that `fastguard audit ship` copies records and checkpoints to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ship: Vec<Ship>,
}

impl Issuer {
    /// Whether it is asked about opaque tokens.
    pub const fn introspects(&self) -> bool {
        self.introspection_client_id.is_some()
    }

    /// Whether it signs nothing that is accepted here.
    pub(crate) const fn has_no_keys(&self) -> bool {
        self.introspects() && self.jwks_uri.is_none() && self.jwks.is_none() && self.jwks_file.is_none()
    }

    /// The files that fetching its keys needs, each with its key in the table.
    pub fn files(&self) -> Vec<(&'static str, &str)> {
        let named = [
            ("ca_file", &self.ca_file),
            ("client_certificate", &self.client_certificate),
            ("client_key", &self.client_key),
            ("bearer_file", &self.bearer_file),
            ("introspection_client_secret_file", &self.introspection_client_secret_file),
        ];
        named.into_iter().filter_map(|(key, file)| Some((key, file.as_deref()?))).collect()
    }

    /// The text of the key set that stands in the configuration or in a file beside it.
    pub fn inline_jwks(&self) -> Option<String> {
        match self.jwks.as_ref()? {
            serde_json::Value::String(text) => Some(text.clone()),
            value => Some(value.to_string()),
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            enabled: true,
            path: "audit".to_owned(),
            max_file_bytes: 64 * 1024 * 1024,
            flush_interval: Span::from_millis(5),
            unverified_bytes_per_minute: 1024 * 1024,
            durability: Durability::Batched,
            intent: true,
            on_failure: OnAuditFailure::Refuse,
            checkpoint_records: 16_384,
            checkpoint_interval: Span::from_millis(10_000),
            origin: "mcp-fastguard/audit".to_owned(),
            key_file: None,
            pseudonyms: false,
            pseudonyms_path: None,
            ship: Vec::new(),
        }
    }
}

/// When records are on disk.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Many at once, at most `flush_interval` and one write after the decision.
    #[default]
    Batched,
    /// Before the decision is answered.
    Each,
}

/// What happens to calls when the log cannot be written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnAuditFailure {
    /// No record, no call.
    #[default]
    Refuse,
    /// Calls run without a record, and the log says how many once it can be written again.
    ContinueAndCount,
}

/// `[observe]`: refusals that are recorded and not enforced by a server's layers (decision 16).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Observe {
    /// The rooms. A token that was presented and refused never becomes an identity: its call runs as nobody's.
    pub rooms: Vec<ObservedRoom>,
    /// The day, by UTC, from whose beginning on everything is enforced: 2026-12-15.
    pub until: Date,
}

/// A room whose refusals can be observed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ObservedRoom {
    /// No token, or one that is refused.
    Token,
    /// A bound token without its proof.
    Binding,
    /// Quotas.
    Limits,
    /// Scopes and tiers, those that wait for an approval too.
    Policy,
}

/// `[stdio]`: where the token comes from.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Stdio {
    /// A file that holds the token; read again when it changes.
    #[serde(default)]
    pub token_file: Option<String>,
    /// The environment variable that holds the token.
    #[serde(default)]
    pub token_variable: Option<String>,
    /// A command that prints the token, as a list of its words; no shell reads it. Run again before the token expires.
    #[serde(default)]
    pub token_command: Option<Vec<String>>,
    /// The caller's name, where there is no token: whoever started the server.
    #[serde(default)]
    pub principal: Option<String>,
    /// What `principal` may do.
    #[serde(default)]
    pub scopes: Vec<String>,
}

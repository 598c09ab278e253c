//! One issuer: what its tokens must look like, and its keys.

use std::sync::Arc;
use std::time::Duration;

use super::keys::IssuerKeys;
use crate::config::{self, Glob, Network, Required, Span};
use crate::denial::Denial;
use crate::jose::{Algorithms, KeySet};
use crate::json::Json;

/// What the tokens of one issuer must look like.
#[derive(Clone, Debug)]
pub struct IssuerOptions {
    /// The exact value of `iss`.
    pub issuer: Arc<str>,
    /// Accepted values of `aud`; one must be there.
    pub audiences: Vec<Box<str>>,
    /// The claim that says whom the token is for: `aud`, but for issuers that leave it out.
    pub audience_claim: Box<str>,
    /// Accepted signature algorithms.
    pub algorithms: Algorithms,
    /// Accepted values of `typ`, in lower case without `application/`; "" for none.
    pub types: Vec<Box<str>>,
    /// Claims that must be there, or equal a value.
    pub require: Vec<(Box<str>, Required)>,
    /// Claims that hold the scopes.
    pub scope_claims: Vec<Box<str>>,
    /// Claims that hold the client's id.
    pub client_claims: Vec<Box<str>>,
    /// The claim that holds the organisation.
    pub organisation_claim: Option<Box<str>>,
    /// The claim that holds the roles.
    pub roles_claim: Option<Box<str>>,
    /// Longest accepted `exp` minus `iat`.
    pub max_lifetime: Duration,
    /// The same for tokens with a scope of a pattern.
    pub scope_lifetimes: Vec<(Glob, Duration)>,
    /// Longest accepted time since `iat`; `None`: until `exp`.
    pub max_token_age: Option<Duration>,
    /// Accepted values of `sub`; `None` for all.
    pub subjects: Option<Vec<Glob>>,
    /// Refused values of `sub`.
    pub denied_subjects: Vec<Glob>,
    /// Scopes that the issuer may assert; `None` for all.
    pub asserts_scopes: Option<Vec<Glob>>,
    /// Keys that are refused, by `kid` or thumbprint.
    pub denied_keys: Vec<Box<str>>,
    /// How long a fetched set is used after it should have been replaced.
    pub max_stale: Duration,
}

impl IssuerOptions {
    /// The defaults for one issuer and audience, those of `[[issuers]]`.
    pub fn new(issuer: &str, audience: &str) -> Self {
        let texts = |list: &[&str]| list.iter().copied().map(Box::from).collect();
        Self {
            issuer: issuer.into(),
            audiences: vec![audience.into()],
            audience_claim: "aud".into(),
            algorithms: Algorithms::from_names(["ES256", "RS256", "EdDSA"]).unwrap_or_default(),
            types: texts(&["at+jwt"]),
            require: Vec::new(),
            scope_claims: texts(&["scope", "scp"]),
            client_claims: texts(&["client_id", "azp"]),
            organisation_claim: None,
            roles_claim: None,
            max_lifetime: Duration::from_secs(3_600),
            scope_lifetimes: Vec::new(),
            max_token_age: None,
            subjects: None,
            denied_subjects: Vec::new(),
            asserts_scopes: None,
            denied_keys: Vec::new(),
            max_stale: Duration::from_secs(24 * 3_600),
        }
    }

    /// Compiles one of `[[issuers]]`, which the configuration has checked.
    pub fn from_config(issuer: &config::Issuer, resource_url: &str) -> Self {
        let boxed = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
        let audiences = issuer.audiences.clone().unwrap_or_else(|| vec![resource_url.to_owned()]);
        let globs = |names: &[String]| names.iter().map(|name| Glob::new(name)).collect();
        let lifetimes = issuer.scope_lifetimes.iter();
        Self {
            issuer: issuer.issuer.as_str().into(),
            audiences: boxed(&audiences),
            audience_claim: issuer.audience_claim.as_deref().unwrap_or("aud").into(),
            algorithms: Algorithms::from_names(issuer.algorithms.iter().map(String::as_str)).unwrap_or_default(),
            types: issuer.types.iter().map(|name| media_type(name).into()).collect(),
            require: issuer.require.iter().map(|(claim, value)| (claim.as_str().into(), value.clone())).collect(),
            scope_claims: boxed(&issuer.scope_claims),
            client_claims: boxed(&issuer.client_claims),
            organisation_claim: issuer.organisation_claim.as_deref().map(Box::from),
            roles_claim: issuer.roles_claim.as_deref().map(Box::from),
            max_lifetime: issuer.max_lifetime.get(),
            scope_lifetimes: lifetimes.map(|(scope, longest)| (Glob::new(scope), longest.get())).collect(),
            max_token_age: issuer.max_token_age.map(Span::get),
            subjects: issuer.subjects.as_deref().map(globs),
            denied_subjects: globs(&issuer.denied_subjects),
            asserts_scopes: issuer.asserts_scopes.as_deref().map(globs),
            denied_keys: boxed(&issuer.denied_keys),
            max_stale: issuer.max_stale.get(),
        }
    }
}

/// Where an issuer's keys come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeySource {
    /// Given with the configuration; only a reload changes them.
    Given,
    /// Fetched.
    Fetched(Box<KeyPlace>),
}

/// Where the keys of an issuer are fetched, and with what.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeyPlace {
    /// Where the set is; left out: found by discovery.
    pub jwks_uri: Option<String>,
    /// Lets the host be on loopback, and `http` there.
    pub allow_http_loopback: bool,
    /// Networks that the host may be in beside the Internet.
    pub allow_networks: Vec<Network>,
    /// The authorities that vouch for the host, instead of the system's.
    pub ca_file: Option<String>,
    /// The certificate that is shown to the host.
    pub client_certificate: Option<String>,
    /// Its key, where it is not in the same file.
    pub client_key: Option<String>,
    /// Holds the bearer token that is shown to the host.
    pub bearer_file: Option<String>,
}

impl From<&config::Issuer> for KeyPlace {
    fn from(table: &config::Issuer) -> Self {
        Self {
            jwks_uri: table.jwks_uri.clone(),
            allow_http_loopback: table.allow_http_loopback,
            allow_networks: table.allow_networks.clone(),
            ca_file: table.ca_file.clone(),
            client_certificate: table.client_certificate.clone(),
            client_key: table.client_key.clone(),
            bearer_file: table.bearer_file.clone(),
        }
    }
}

/// One issuer with its keys.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) options: IssuerOptions,
    pub(super) keys: Arc<IssuerKeys>,
}

impl Issuer {
    pub(super) fn with_keys(options: IssuerOptions, keys: Arc<KeySet>) -> Self {
        Self { options, keys: Arc::new(IssuerKeys::given(keys)) }
    }

    /// `iss` exactly as configured (RFC 9068 §4).
    pub(super) fn check_issuer(&self, claims: &Json<'_>) -> Result<(), Denial> {
        match claims.member("iss") {
            None => Err(Denial::ClaimMissing { claim: "iss".to_owned() }),
            Some(Json::String(issuer)) if **issuer == *self.options.issuer => Ok(()),
            Some(Json::String(issuer)) => Err(Denial::IssuerUnknown { found: issuer.to_string() }),
            Some(_) => Err(Denial::ClaimInvalid { claim: "iss".to_owned() }),
        }
    }

    /// `typ` (RFC 9068 §4), so that no other kind of token passes for an access token (RFC 8725 §3.11).
    pub(super) fn check_type(&self, found: Option<&str>) -> Result<(), Denial> {
        let name = found.map(media_type).unwrap_or_default();
        if self.options.types.iter().any(|accepted| **accepted == *name) {
            return Ok(());
        }
        Err(Denial::TypeRefused { found: found.unwrap_or_default().to_owned() })
    }

    /// Whether the configuration refuses the key of this name.
    pub(super) fn denies(&self, name: &str) -> bool {
        self.options.denied_keys.iter().any(|denied| **denied == *name)
    }

    /// Whom the issuer may speak of. A token without a subject is of none that is named.
    pub(super) fn check_subject(&self, subject: Option<&str>) -> Result<(), Denial> {
        let is_of = |globs: &[Glob]| subject.is_some_and(|subject| globs.iter().any(|glob| glob.matches(subject)));
        let key = if is_of(&self.options.denied_subjects) {
            "issuers.denied_subjects"
        } else if self.options.subjects.as_deref().is_some_and(|globs| !is_of(globs)) {
            "issuers.subjects"
        } else {
            return Ok(());
        };
        Err(Denial::SubjectRefused { found: subject.unwrap_or_default().to_owned(), key })
    }

    pub(super) fn may_assert(&self, scope: &str) -> bool {
        self.options.asserts_scopes.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.matches(scope)))
    }
}

/// A media type as RFC 7515 §4.1.9 abbreviates it, in lower case.
pub fn media_type(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    match lower.strip_prefix("application/") {
        Some(short) if !short.contains('/') => short.to_owned(),
        _ => lower,
    }
}

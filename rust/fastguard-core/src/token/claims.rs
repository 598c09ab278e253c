//! What a verified token says about its caller.

use std::sync::Arc;
use std::time::Duration;

use super::issuer::Issuer;
use crate::bounds::{MAX_IDENTITY_BYTES, MAX_SCOPES};
use crate::clock::UnixTime;
use crate::config::Required;
use crate::denial::Denial;
use crate::hashing::KeyHasher;
use crate::json::Json;
use crate::scopes::{ScopeBits, ScopeTable};

/// The caller, as the verified token names it. Computed once per token and configuration.
#[derive(Debug)]
pub struct Caller {
    pub(super) issuer: Arc<str>,
    pub(super) subject: Option<Box<str>>,
    pub(super) client_id: Option<Box<str>>,
    pub(super) organisation: Option<Box<str>>,
    pub(super) actor: Option<Box<str>>,
    pub(super) session: Option<Box<str>>,
    pub(super) token_id: Box<str>,
    pub(super) key_id: Option<Box<str>>,
    pub(super) audience: Vec<Box<str>>,
    pub(super) scopes: Vec<Box<str>>,
    pub(super) roles: Vec<Box<str>>,
    pub(super) confirmations: Vec<Confirmation>,
    pub(super) issued_at: Option<UnixTime>,
    pub(super) valid_from: Option<UnixTime>,
    pub(super) expires_at: UnixTime,
    /// From here on the token is refused: its `exp`, or before it the age that its issuer's tokens may reach.
    pub(super) dead_at: UnixTime,
    pub(super) authenticated_at: Option<UnixTime>,
    pub(super) acr: Option<Box<str>>,
    pub(super) granted: ScopeBits,
    pub(super) principal: u128,
    pub(super) client_key: u128,
    pub(super) claims: Box<[u8]>,
}

/// What a token is bound to: a member of `cnf` (RFC 7800).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Confirmation {
    /// `jkt`, a key's thumbprint (RFC 9449 §6.1).
    Key(Box<str>),
    /// `x5t#S256`, a certificate's (RFC 8705 §3.1).
    Certificate(Box<str>),
    /// Any other member.
    Unknown(Box<str>),
}

impl Confirmation {
    /// The member's name.
    pub fn member(&self) -> &str {
        match self {
            Self::Key(_) => "jkt",
            Self::Certificate(_) => "x5t#S256",
            Self::Unknown(member) => member,
        }
    }
}

macro_rules! optional_text {
    ($($(#[$doc:meta])* $field:ident),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $field(&self) -> Option<&str> {
            self.$field.as_deref()
        }
    )*};
}

impl Caller {
    optional_text! {
        /// `sub`.
        subject,
        /// The client, by the issuer's `client_claims`.
        client_id,
        /// The organisation, by the issuer's `organisation_claim`.
        organisation,
        /// `act.sub` (RFC 8693 §4.1).
        actor,
        /// `sid`.
        session,
        /// `kid` of the token's header.
        key_id,
        /// `acr`: how the person was authenticated (RFC 9068 §2.2.1). What is no string counts as absent.
        acr,
    }

    /// `iss`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `jti`; for a token without one, `sha-256:` and the digest of its header and payload.
    pub fn token_id(&self) -> &str {
        &self.token_id
    }

    /// `aud`, as a list.
    pub fn audience(&self) -> &[Box<str>] {
        &self.audience
    }

    /// The scopes as the token gives them; those that its issuer may not assert are left out.
    pub fn scopes(&self) -> &[Box<str>] {
        &self.scopes
    }

    /// The roles, by the issuer's `roles_claim`.
    pub fn roles(&self) -> &[Box<str>] {
        &self.roles
    }

    /// What the token is bound to.
    pub fn confirmations(&self) -> &[Confirmation] {
        &self.confirmations
    }

    /// `cnf.jkt`, the thumbprint of the key that the token is bound to.
    pub fn thumbprint(&self) -> Option<&str> {
        self.confirmations.iter().find_map(|confirmation| match confirmation {
            Confirmation::Key(thumbprint) => Some(&**thumbprint),
            _ => None,
        })
    }

    /// `iat`.
    pub const fn issued_at(&self) -> Option<UnixTime> {
        self.issued_at
    }

    /// `exp`.
    pub const fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    /// `auth_time`: when the person was authenticated (RFC 9068 §2.2.1). What is no time counts as absent.
    pub const fn authenticated_at(&self) -> Option<UnixTime> {
        self.authenticated_at
    }

    /// The scopes as bits, implied ones included.
    pub const fn granted(&self) -> &ScopeBits {
        &self.granted
    }

    /// A keyed hash of the principal: (issuer, subject), or (issuer, client) without a subject (decision 4).
    pub const fn principal(&self) -> u128 {
        self.principal
    }

    /// A keyed hash of (issuer, client); of the principal where the token names no client.
    pub const fn client_key(&self) -> u128 {
        self.client_key
    }

    /// The claims set, as its JSON text.
    pub const fn claims(&self) -> &[u8] {
        &self.claims
    }
}

/// What stands beside the claims when they are read.
pub(super) struct Reading<'a> {
    pub(super) issuer: &'a Issuer,
    pub(super) scopes: &'a ScopeTable,
    pub(super) hasher: &'a KeyHasher,
    pub(super) key_id: Option<Box<str>>,
    /// Digest of header and payload, for tokens without `jti`.
    pub(super) digest: &'a dyn Fn() -> String,
}

impl Reading<'_> {
    /// Reads everything that does not depend on the time of the call.
    pub(super) fn caller(self, text: &[u8], claims: &Json<'_>) -> Result<Caller, Denial> {
        let options = &self.issuer.options;
        self.issuer.check_issuer(claims)?;
        let audience = audience(claims, &options.audience_claim, &options.audiences)?;
        let expires_at = time(claims, "exp")?.ok_or_else(|| missing("exp"))?;
        let issued_at = time(claims, "iat")?;
        check_required(claims, &options.require)?;
        let subject = identity(claims, "sub")?;
        let client_id = first_identity(claims, &options.client_claims)?;
        let principal = self.principal(subject.as_deref(), client_id.as_deref())?;
        let client_key = self.client_key(client_id.as_deref(), principal);
        self.issuer.check_subject(subject.as_deref())?;
        let dead_at = dead_at(expires_at, issued_at, options.max_token_age)?;
        let scopes = self.scope_names(claims)?;
        let granted = self.scopes.bits(scopes.iter().map(|scope| &**scope));
        let token_id = identity(claims, "jti")?;
        Ok(Caller {
            issuer: Arc::clone(&options.issuer),
            subject,
            client_id,
            organisation: optional_claim(claims, options.organisation_claim.as_deref(), identity)?,
            actor: actor(claims)?,
            session: identity(claims, "sid")?,
            token_id: token_id.unwrap_or_else(|| (self.digest)().into_boxed_str()),
            key_id: self.key_id,
            audience,
            scopes,
            roles: optional_claim(claims, options.roles_claim.as_deref(), texts)?.unwrap_or_default(),
            confirmations: confirmations(claims)?,
            issued_at,
            valid_from: time(claims, "nbf")?,
            expires_at,
            dead_at,
            authenticated_at: claims.member("auth_time").and_then(Json::as_numeric_date),
            acr: identity(claims, "acr").unwrap_or_default(),
            granted,
            principal,
            client_key,
            claims: text.into(),
        })
    }

    fn principal(&self, subject: Option<&str>, client_id: Option<&str>) -> Result<u128, Denial> {
        let (mark, name) = match (subject, client_id) {
            (Some(subject), _) => (&b"subject"[..], subject),
            (None, Some(client_id)) => (&b"client"[..], client_id),
            (None, None) => return Err(Denial::PrincipalMissing),
        };
        Ok(self.hasher.hash(&[mark, self.issuer.options.issuer.as_bytes(), name.as_bytes()]))
    }

    /// Never the principal's, whose mark is another.
    fn client_key(&self, client_id: Option<&str>, principal: u128) -> u128 {
        match client_id {
            Some(name) => self.hasher.hash(&[b"of client", self.issuer.options.issuer.as_bytes(), name.as_bytes()]),
            None => self.hasher.hash(&[b"of client", &principal.to_le_bytes()]),
        }
    }

    /// The scopes, split at U+0020 and nothing else (RFC 6749 §3.3), or a list of them.
    fn scope_names(&self, claims: &Json<'_>) -> Result<Vec<Box<str>>, Denial> {
        let options = &self.issuer.options;
        let Some((claim, value)) = options.scope_claims.iter().find_map(|claim| Some((claim, claims.member(claim)?)))
        else {
            return Ok(Vec::new());
        };
        let names: Vec<&str> = match value {
            Json::String(text) => text.split(' ').filter(|name| !name.is_empty()).collect(),
            Json::Array(list) => {
                list.iter().map(|name| name.as_str().ok_or_else(|| invalid(claim))).collect::<Result<_, _>>()?
            }
            _ => return Err(invalid(claim)),
        };
        if names.len() > MAX_SCOPES {
            return Err(invalid(claim));
        }
        let asserted = names.into_iter().filter(|name| self.issuer.may_assert(name));
        Ok(asserted.map(Box::from).collect())
    }
}

/// When a token dies: on its `exp`, or as soon as it is older than its issuer's tokens may be.
fn dead_at(
    expires_at: UnixTime,
    issued_at: Option<UnixTime>,
    max_token_age: Option<Duration>,
) -> Result<UnixTime, Denial> {
    let Some(age) = max_token_age else { return Ok(expires_at) };
    let issued_at = issued_at.ok_or_else(|| missing("iat"))?;
    // Times count milliseconds: the one after the last that is allowed.
    Ok(expires_at.min(issued_at.plus(age + Duration::from_millis(1))))
}

fn missing(claim: &str) -> Denial {
    Denial::ClaimMissing { claim: claim.to_owned() }
}

fn invalid(claim: &str) -> Denial {
    Denial::ClaimInvalid { claim: claim.to_owned() }
}

/// `aud`: a string or a list of strings, one of which must be ours exactly (RFC 7519 §4.1.3, RFC 8707 §2).
fn audience(claims: &Json<'_>, claim: &str, accepted: &[Box<str>]) -> Result<Vec<Box<str>>, Denial> {
    if claims.member(claim).is_none() {
        return Err(missing(claim));
    }
    let audience = texts(claims, claim)?.unwrap_or_default();
    if audience.iter().any(|name| accepted.contains(name)) {
        return Ok(audience);
    }
    Err(Denial::AudienceMismatch { found: audience.join(" ") })
}

/// A `NumericDate` (RFC 7519 §2). Present but no finite number is refused, never passed over (CVE-2026-25537).
fn time(claims: &Json<'_>, claim: &str) -> Result<Option<UnixTime>, Denial> {
    let Some(value) = claims.member(claim) else { return Ok(None) };
    value.as_numeric_date().map(Some).ok_or_else(|| invalid(claim))
}

/// A claim that names somebody: a string that is not empty and not too long.
fn identity(claims: &Json<'_>, claim: &str) -> Result<Option<Box<str>>, Denial> {
    match claims.member(claim) {
        None => Ok(None),
        Some(Json::String(text)) if !text.is_empty() && text.len() <= MAX_IDENTITY_BYTES => Ok(Some((&**text).into())),
        Some(_) => Err(invalid(claim)),
    }
}

fn first_identity(claims: &Json<'_>, names: &[Box<str>]) -> Result<Option<Box<str>>, Denial> {
    match names.iter().find(|name| claims.member(name).is_some()) {
        Some(name) => identity(claims, name),
        None => Ok(None),
    }
}

fn optional_claim<T>(
    claims: &Json<'_>,
    name: Option<&str>,
    read: impl Fn(&Json<'_>, &str) -> Result<Option<T>, Denial>,
) -> Result<Option<T>, Denial> {
    name.map_or(Ok(None), |name| read(claims, name))
}

/// A string, or a list of strings.
fn texts(claims: &Json<'_>, claim: &str) -> Result<Option<Vec<Box<str>>>, Denial> {
    let one = |value: &Json<'_>| match value {
        Json::String(text) if text.len() <= MAX_IDENTITY_BYTES => Ok((&**text).into()),
        _ => Err(invalid(claim)),
    };
    match claims.member(claim) {
        None => Ok(None),
        Some(Json::Array(list)) if list.len() <= MAX_SCOPES => list.iter().map(one).collect::<Result<_, _>>().map(Some),
        Some(value) => one(value).map(|text| Some(vec![text])),
    }
}

/// `act.sub` (RFC 8693 §4.1): who acts for the subject.
fn actor(claims: &Json<'_>) -> Result<Option<Box<str>>, Denial> {
    match claims.member("act") {
        None => Ok(None),
        Some(actor @ Json::Object(_)) => identity(actor, "sub").map_err(|_| invalid("act")),
        Some(_) => Err(invalid("act")),
    }
}

fn confirmations(claims: &Json<'_>) -> Result<Vec<Confirmation>, Denial> {
    let members = match claims.member("cnf") {
        None => return Ok(Vec::new()),
        Some(Json::Object(members)) if !members.is_empty() => members,
        Some(_) => return Err(invalid("cnf")),
    };
    let read = |(name, value): &(std::borrow::Cow<'_, str>, Json<'_>)| {
        let text = || value.as_str().filter(|text| text.len() <= 128).map(Box::from).ok_or_else(|| invalid("cnf"));
        match &**name {
            "jkt" => text().map(Confirmation::Key),
            "x5t#S256" => text().map(Confirmation::Certificate),
            other => Ok(Confirmation::Unknown(other.chars().take(64).collect::<String>().into())),
        }
    };
    members.iter().map(read).collect()
}

fn check_required(claims: &Json<'_>, required: &[(Box<str>, Required)]) -> Result<(), Denial> {
    for (claim, expected) in required {
        let value = claims.member(claim).ok_or_else(|| missing(claim))?;
        let is_met = match expected {
            Required::Present(_) => !matches!(value, Json::Null),
            Required::Equal(expected) => equals(value, expected),
        };
        if !is_met {
            return Err(Denial::ClaimRefused { claim: claim.to_string() });
        }
    }
    Ok(())
}

/// A scalar of the configuration against a claim: the same type and value.
fn equals(value: &Json<'_>, expected: &serde_json::Value) -> bool {
    match (value, expected) {
        (Json::String(text), serde_json::Value::String(expected)) => **text == **expected,
        (Json::Bool(value), serde_json::Value::Bool(expected)) => value == expected,
        (Json::Number(value), serde_json::Value::Number(expected)) => value == expected,
        _ => false,
    }
}

#[cfg(test)]
impl Caller {
    /// A caller for the tests of other rooms.
    pub(crate) fn example() -> Self {
        Self {
            issuer: "https://auth.example.com".into(),
            subject: Some("alice".into()),
            client_id: Some("agent-7".into()),
            organisation: Some("acme".into()),
            actor: None,
            session: None,
            token_id: "jti-1".into(),
            key_id: Some("key-1".into()),
            audience: vec!["https://mcp.example.com/mcp".into()],
            scopes: vec!["warehouse:query:read".into()],
            roles: vec!["analyst".into()],
            confirmations: Vec::new(),
            issued_at: Some(UnixTime::from_seconds(1_795_219_000)),
            valid_from: None,
            expires_at: UnixTime::from_seconds(1_795_222_600),
            dead_at: UnixTime::from_seconds(1_795_222_600),
            authenticated_at: None,
            acr: None,
            granted: ScopeBits::default(),
            principal: 7,
            client_key: 8,
            claims: Box::default(),
        }
    }

    /// The same with another subject.
    pub(crate) fn of(subject: &str) -> Self {
        Self { subject: Some(subject.into()), ..Self::example() }
    }

    /// The same with other scopes.
    pub(crate) fn with_scopes(scopes: &[String]) -> Self {
        Self { scopes: scopes.iter().map(|scope| scope.as_str().into()).collect(), ..Self::example() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_met(claim: &str, expected: serde_json::Value) -> bool {
        let claims = Json::parse(claim.as_bytes(), 4).unwrap();
        check_required(&claims, &[("a".into(), Required::Equal(expected))]).is_ok()
    }

    #[test]
    fn required_value_is_met_by_the_same_type_and_value_alone() {
        assert!(is_met(r#"{"a":true}"#, true.into()));
        assert!(!is_met(r#"{"a":false}"#, true.into()));
        assert!(!is_met(r#"{"a":"true"}"#, true.into()));
        assert!(is_met(r#"{"a":5}"#, 5.into()));
        assert!(!is_met(r#"{"a":6}"#, 5.into()));
        assert!(is_met(r#"{"a":"x"}"#, "x".into()));
        assert!(!is_met(r#"{"a":"y"}"#, "x".into()));
    }

    #[test]
    fn list_of_names_at_its_bounds_is_read_and_beyond_is_not() {
        let of = |names: usize, letters: usize| {
            let name = format!("\"{}\"", "x".repeat(letters));
            let text = format!(r#"{{"roles":[{}]}}"#, vec![name; names].join(","));
            texts(&Json::parse(text.as_bytes(), 4).unwrap(), "roles").map(|found| found.map(|names| names.len()))
        };
        assert_eq!(of(MAX_SCOPES, 1), Ok(Some(MAX_SCOPES)));
        assert!(of(MAX_SCOPES + 1, 1).is_err());
        assert_eq!(of(1, MAX_IDENTITY_BYTES), Ok(Some(1)));
        assert!(of(1, MAX_IDENTITY_BYTES + 1).is_err());
    }

    #[test]
    fn claim_is_read_where_the_configuration_names_it() {
        let claims = Json::parse(br#"{"org":"acme"}"#, 4).unwrap();
        assert_eq!(optional_claim(&claims, Some("org"), identity).unwrap().as_deref(), Some("acme"));
        assert_eq!(optional_claim(&claims, None, identity).unwrap(), None);
    }
}

//! What a verified token says about its caller.

use std::sync::Arc;

use crate::clock::UnixTime;

/// Scopes as bits, one per scope that the configuration names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ScopeBits(Box<[u64]>);

/// The caller, as the verified token names it. Computed once per token and configuration.
#[derive(Debug)]
pub struct Caller {
    pub(super) issuer: Arc<str>,
    pub(super) subject: Option<Box<str>>,
    pub(super) client_id: Option<Box<str>>,
    pub(super) organisation: Option<Box<str>>,
    pub(super) actor: Option<Box<str>>,
    pub(super) session: Option<Box<str>>,
    pub(super) token_id: Option<Box<str>>,
    pub(super) key_id: Option<Box<str>>,
    pub(super) audience: Vec<Box<str>>,
    pub(super) scopes: Vec<Box<str>>,
    pub(super) roles: Vec<Box<str>>,
    pub(super) thumbprint: Option<Box<str>>,
    pub(super) issued_at: Option<UnixTime>,
    pub(super) expires_at: UnixTime,
    pub(super) granted: ScopeBits,
    pub(super) principal: u128,
    pub(super) claims: Box<[u8]>,
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
    /// `iss`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

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
        /// `jti`.
        token_id,
        /// `kid` of the key that signed.
        key_id,
        /// `cnf.jkt` (RFC 9449 §6.1).
        thumbprint,
    }

    /// `aud`, as a list.
    pub fn audience(&self) -> &[Box<str>] {
        &self.audience
    }

    /// The scopes as the token gives them, those that its issuer may not assert left out.
    pub fn scopes(&self) -> &[Box<str>] {
        &self.scopes
    }

    /// The roles, by the issuer's `roles_claim`.
    pub fn roles(&self) -> &[Box<str>] {
        &self.roles
    }

    /// `iat`.
    pub const fn issued_at(&self) -> Option<UnixTime> {
        self.issued_at
    }

    /// `exp`.
    pub const fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    /// The scopes as bits, implied ones included.
    pub const fn granted(&self) -> &ScopeBits {
        &self.granted
    }

    /// A keyed hash of the principal: (issuer, subject), or (issuer, client) without a subject.
    pub const fn principal(&self) -> u128 {
        self.principal
    }

    /// The claims set, as its JSON text.
    pub fn claims(&self) -> &[u8] {
        &self.claims
    }
}

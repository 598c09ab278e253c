//! Identities that a verifier outside the core has proved: reference tokens, an existing login.
//!
//! The verdict takes the same way as a verified JWT from there on: cached until the token expires, rechecked and revocable.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::claims::Reading;
use super::issuer::{Issuer, IssuerOptions};
use super::keys::IssuerKeys;
use super::verify::{Answered, Entry, Identity, Need, Tokens, Unverified, VerifiedToken, parse_claims};
use crate::bounds::MAX_TOKEN_BYTES;
use crate::clock::UnixTime;
use crate::config::{Config, ConfigError};
use crate::denial::Denial;
use crate::jose::Compact;
use crate::json::Json;
use crate::sync::atomic::AtomicU64;

/// The verifier outside failed: a matter of moments, or of its operator.
pub const fn unavailable() -> Denial {
    Denial::VerifierUnavailable { retry_after: Duration::from_secs(1) }
}

/// The audience of a caller without a token.
pub const LOCAL_AUDIENCE: &str = "stdio";

/// What holds for tokens that are proved outside.
#[derive(Debug)]
pub(super) struct Outside {
    resource: Box<str>,
    /// No key signs these tokens, so no epoch of keys ever ends a verdict.
    keys: Arc<IssuerKeys>,
}

impl Outside {
    /// Reference tokens say nothing of how long they live; a revocation is kept for the longest that a window may last.
    pub(super) const LONGEST_LIFE: Duration = Duration::from_secs(31 * 86_400);

    pub(super) fn new(config: &Config, identity: Identity) -> Result<Option<Self>, ConfigError> {
        if identity == Identity::Issuers {
            return Ok(None);
        }
        if !config.issuers.is_empty() {
            let message = "a verifier stands in the place of `[[issuers]]`: leave them out";
            return Err(ConfigError::at("issuers", message));
        }
        let keys = Arc::new(IssuerKeys::unneeded());
        Ok(Some(Self { resource: config.resource.url.as_str().into(), keys }))
    }
}

impl Tokens {
    /// Reads what a verifier outside has found of a token: `iss`, `aud`, `exp`, `sub`, `client_id`, `scope` and what else
    /// it knows, as claims are read (RFC 9068 §2.2). Nothing is believed before the call is checked with it.
    pub fn attest(&self, text: &str, claims: &str, now: UnixTime) -> Result<VerifiedToken, Denial> {
        let Some(outside) = &self.outside else { return Err(Denial::VerifierRefused) };
        self.entry_of(text, claims, &outside.resource, Arc::clone(&outside.keys), now)
    }

    /// The caller of a server on standard input and output that has no token: whoever started it. Proves nothing for a
    /// request that brings one.
    pub fn attest_local(&self, claims: &str, now: UnixTime) -> Result<VerifiedToken, Denial> {
        self.entry_of("", claims, LOCAL_AUDIENCE, Arc::new(IssuerKeys::unneeded()), now)
    }

    /// Whether a finding is one of [`Tokens::attest_local`].
    pub(crate) fn is_local(token: &VerifiedToken) -> bool {
        token.entry.text.is_empty()
    }

    fn entry_of(
        &self,
        text: &str,
        claims: &str,
        audience: &str,
        keys: Arc<IssuerKeys>,
        now: UnixTime,
    ) -> Result<VerifiedToken, Denial> {
        let payload = Compact::split(text.as_bytes()).and_then(|compact| compact.payload());
        let mut json = parse_claims(claims.as_bytes())?;
        bind_as(&mut json, payload.as_deref().unwrap_or_default());
        let Some(Json::String(issuer)) = json.member("iss") else {
            return Err(Denial::ClaimMissing { claim: "iss".to_owned() });
        };
        let issuer = Issuer { options: IssuerOptions::new(issuer, audience), keys: Arc::clone(&keys) };
        let cleared_at = self.kept.revocations.epoch();
        let digest = || crate::jose::digest_name(text.as_bytes());
        let hasher = &self.kept.hasher;
        let reading = Reading { issuer: &issuer, scopes: &self.scopes, hasher, key_id: None, digest: &digest };
        let caller = Arc::new(reading.caller(claims.as_bytes(), &json)?);
        self.check_times(&caller, now)?;
        if self.kept.revocations.hits(&caller) {
            return Err(Denial::TokenRevoked);
        }
        let generation = self.generation;
        let cleared_at = AtomicU64::new(cleared_at);
        let (text_hash, proof_key, key_epoch) = (OnceLock::new(), OnceLock::new(), keys.epoch());
        let text = text.into();
        let max_stale = issuer.options.max_stale;
        let entry = Entry { text, caller, keys, key_epoch, max_stale, generation, cleared_at, text_hash, proof_key };
        Ok(VerifiedToken { entry: Arc::new(entry) })
    }

    /// Takes what the verifier has found of this very text under this configuration, or says that it must be asked.
    pub(super) fn take_attested(
        &self,
        text: &str,
        answered: Answered<'_>,
        now: UnixTime,
    ) -> Result<VerifiedToken, Unverified> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Denial::TokenTooLarge.into());
        }
        match answered.attested {
            Some(Ok(token)) if *token.entry.text == *text && token.entry.generation == self.generation => {
                self.recheck(token, now)?;
                self.kept.cache.insert(&token.entry);
                Ok(token.clone())
            }
            Some(Err(denial)) => Err(denial.clone().into()),
            // The configuration has changed meanwhile: what was found was read by the old one.
            Some(Ok(_)) => Err(unavailable().into()),
            None if answered.has_waited => Err(Denial::VerifierRefused.into()),
            None => Err(Unverified::Needs(Need::Identity(text.into()))),
        }
    }
}

/// Many a verifier hands on who the caller is, and not what the token is bound to: a token that says so itself would pass without
/// its proof. The verifier has checked the signature over this payload, or there is none.
fn bind_as<'a>(found: &mut Json<'a>, payload: &'a [u8]) {
    let is_told = found.member("cnf").is_some();
    let (Json::Object(members), Ok(own)) = (found, parse_claims(payload)) else { return };
    if let Some(binding) = own.member("cnf").filter(|_| !is_told) {
        members.push(("cnf".into(), binding.clone()));
    }
}

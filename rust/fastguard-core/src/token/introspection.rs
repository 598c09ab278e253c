//! Opaque tokens, whose issuer must be asked about them (RFC 7662).
//!
//! The question and its answer travel outside the core, by [`Need::Introspection`] and [`Tokens::introspected`]. The answer
//! is read as claims are, and passes the same checks.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::claims::Reading;
use super::issuer::{Issuer, media_type};
use super::keys::IssuerKeys;
use super::lookups::{Asked, Rates};
use super::verify::{Answered, Attested, Entry, Need, Tokens, Unverified, VerifiedToken};
use crate::bounds::{MAX_CLAIMS_DEPTH, MAX_INTROSPECTION_BYTES, MAX_TOKEN_BYTES};
use crate::clock::Now;
use crate::config;
use crate::denial::Denial;
use crate::json::Json;
use crate::sync::atomic::AtomicU64;

/// One issuer that is asked about its tokens.
#[derive(Debug)]
pub(super) struct Introspection {
    issuer: Arc<str>,
    rates: Rates,
    /// For how long an answer is believed at most.
    cache: Duration,
}

impl Introspection {
    /// The configuration allows one such issuer at most.
    pub(super) fn new(config: &config::Config) -> Option<Self> {
        let table = config.issuers.iter().find(|issuer| issuer.introspects())?;
        let rates =
            Rates { per_address: table.introspection_lookups_per_address, everyone: table.introspection_lookups };
        Some(Self { issuer: table.issuer.as_str().into(), rates, cache: table.introspection_cache.get() })
    }
}

/// Whether a text is, or pretends to be, a JWS or a JWE in compact serialisation. Such a text is judged here or not at all: its issuer
/// might still call a token active that the checks here refuse.
pub(super) fn is_jws_shaped(text: &str) -> bool {
    // `{"` in base64url, with which every JOSE header begins that JSON libraries write.
    text.starts_with("eyJ") || matches!(text.bytes().filter(|byte| *byte == b'.').count(), 2 | 4)
}

fn unusable(reason: &'static str) -> Denial {
    Denial::IntrospectionUnavailable { retry_after: Duration::from_secs(1), reason }
}

impl Tokens {
    /// Takes what was found of this very text under this configuration, or says that its issuer must be asked.
    pub(super) fn take_introspected(
        &self,
        introspection: &Introspection,
        text: &str,
        answered: Answered<'_>,
        now: Now,
    ) -> Result<VerifiedToken, Unverified> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Denial::TokenTooLarge.into());
        }
        match answered.attested {
            Some(Ok(token)) if *token.entry.text == *text && token.entry.generation == self.generation => {
                self.recheck(token, now.unix)?;
                return Ok(token.clone());
            }
            Some(Err(denial)) => return Err(denial.clone().into()),
            // The configuration has changed meanwhile: what was found was read by the old one.
            Some(Ok(_)) => return Err(unusable("the configuration has changed meanwhile").into()),
            None => {}
        }
        let asked = self.asked(text);
        if answered.has_waited {
            let refusal = self.kept.lookups.refusal(asked, now.own);
            return Err(refusal.unwrap_or_else(|| unusable("nobody has asked it")).into());
        }
        // A verdict that has grown old is that of a token which was in force: no stranger's text.
        let is_known = self.kept.cache.find(text).is_some();
        self.kept.lookups.admit(asked, is_known, answered.address, introspection.rates, now.own)?;
        Err(Unverified::Needs(Need::Introspection(text.into())))
    }

    fn asked(&self, text: &str) -> Asked {
        Asked { text: self.kept.hasher.hash(&[b"introspection", text.as_bytes()]), generation: self.generation }
    }

    /// Reads what an issuer has answered about a token (RFC 7662 §2.2). Ends the lookup.
    pub fn introspected(&self, text: &str, answer: &[u8], now: Now) -> Attested {
        let Some(introspection) = &self.introspection else {
            return Err(unusable("no issuer is asked"));
        };
        let found = match self.issuers.get(&introspection.issuer) {
            Some(issuer) => self.read_answer(issuer, introspection.cache, text, answer, now),
            None => Err(unusable("the issuer is not configured")),
        };
        match &found {
            Ok(token) => {
                self.kept.lookups.answered(self.asked(text), None, now.own);
                // At once, so that no call that comes before the first waiter goes on asks again.
                self.kept.cache.insert(&token.entry);
            }
            // The endpoint says nothing that can be used: that is not about the token.
            Err(Denial::IntrospectionUnavailable { .. }) => {
                self.kept.lookups.failed(self.asked(text), false, None, now.own);
            }
            // What time alone will change is not kept.
            Err(Denial::TokenNotYetValid { .. } | Denial::TokenFromFuture { .. }) => {
                self.kept.lookups.answered(self.asked(text), None, now.own);
            }
            Err(denial) => self.kept.lookups.answered(self.asked(text), Some(&shortened(denial)), now.own),
        }
        found
    }

    /// Takes note that a lookup has ended without an answer. `is_endpoint`: the endpoint cannot be reached or refuses us, which is not
    /// about this token; `wish`: in what time it wants to be asked again.
    pub fn introspection_failed(&self, text: &str, is_endpoint: bool, wish: Option<Duration>, now: Now) -> Denial {
        let retry_after = self.kept.lookups.failed(self.asked(text), is_endpoint, wish, now.own);
        Denial::IntrospectionUnavailable { retry_after, reason: "its endpoint gave no answer that can be used" }
    }

    fn read_answer(&self, issuer: &Issuer, cache: Duration, text: &str, answer: &[u8], now: Now) -> Attested {
        if answer.len() > MAX_INTROSPECTION_BYTES {
            return Err(unusable("its answer is too large"));
        }
        let Ok(json @ Json::Object(_)) = Json::parse(answer, MAX_CLAIMS_DEPTH) else {
            return Err(unusable("its answer is not one JSON object without repeated members"));
        };
        match json.member("active") {
            Some(Json::Bool(true)) => {}
            Some(Json::Bool(false)) => return Err(Denial::TokenInactive),
            _ => return Err(unusable("`active` of its answer is no boolean")),
        }
        check_kind(issuer, &json)?;
        let cleared_at = self.kept.revocations.epoch();
        let digest = || crate::jose::digest_name(text.as_bytes());
        let hasher = &self.kept.hasher;
        let reading = Reading { issuer, scopes: &self.scopes, hasher, key_id: None, digest: &digest };
        let caller = Arc::new(reading.caller(answer, &json)?);
        // RFC 9449 §6.2: such an answer says to which key. Without it the token would pass for one that is bound to none.
        let is_bound = json.member("token_type").is_some_and(|value| is_one_of(value, &["DPoP"]));
        if is_bound && caller.thumbprint().is_none() {
            return Err(Denial::ClaimMissing { claim: "cnf.jkt".to_owned() });
        }
        self.check_times(&caller, now.unix)?;
        self.check_lifetime(issuer, &caller, now.unix)?;
        if self.kept.revocations.hits(&caller) {
            return Err(Denial::TokenRevoked);
        }
        let keys = Arc::new(IssuerKeys::vouched_until(now.own.plus(cache)));
        let entry = Entry {
            text: text.into(),
            caller,
            key_epoch: keys.epoch(),
            keys,
            max_stale: Duration::ZERO,
            generation: self.generation,
            cleared_at: AtomicU64::new(cleared_at),
            text_hash: OnceLock::new(),
            proof_key: OnceLock::new(),
        };
        Ok(VerifiedToken { entry: Arc::new(entry) })
    }
}

/// RFC 7662 §2.2: `token_type` is that of RFC 6749 §5.1; some servers name the kind there.
const TYPES: [&str; 4] = ["Bearer", "DPoP", "access_token", "at+jwt"];

fn is_one_of(value: &Json<'_>, names: &[&str]) -> bool {
    value.as_str().is_some_and(|text| names.iter().any(|name| text.eq_ignore_ascii_case(name)))
}

/// No other kind of token passes for an access token, where the answer says which it is: servers call refresh tokens active too.
fn check_kind(issuer: &Issuer, answer: &Json<'_>) -> Result<(), Denial> {
    let refused = |found: &Json<'_>| Denial::TypeRefused { found: found.as_str().unwrap_or_default().to_owned() };
    if let Some(value) = answer.member("token_type").filter(|value| !is_one_of(value, &TYPES)) {
        return Err(refused(value));
    }
    if let Some(value) = answer.member("token_use").filter(|value| !is_one_of(value, &["access", "access_token"])) {
        return Err(refused(value));
    }
    match answer.member("typ") {
        Some(value) if !is_one_of(value, &TYPES) => {
            let name = value.as_str().map(media_type);
            let is_accepted = name.is_some_and(|name| issuer.options.types.iter().any(|accepted| **accepted == *name));
            if is_accepted { Ok(()) } else { Err(refused(value)) }
        }
        _ => Ok(()),
    }
}

/// What others wrote into a refusal is cut before it is kept: the records show no more of it.
fn shortened(denial: &Denial) -> Denial {
    const KEPT: usize = 129;
    let cut = |text: &str| text.chars().take(KEPT).collect::<String>();
    match denial {
        Denial::AudienceMismatch { found } => Denial::AudienceMismatch { found: cut(found) },
        Denial::IssuerUnknown { found } => Denial::IssuerUnknown { found: cut(found) },
        Denial::TypeRefused { found } => Denial::TypeRefused { found: cut(found) },
        Denial::SubjectRefused { found, key } => Denial::SubjectRefused { found: cut(found), key },
        Denial::ScopeLifetimeTooLong { scope, lifetime, longest } => {
            Denial::ScopeLifetimeTooLong { scope: cut(scope), lifetime: *lifetime, longest: *longest }
        }
        other => other.clone(),
    }
}

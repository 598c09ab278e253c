//! One proof of possession, held against the request and the token that it came with (RFC 9449 §4.3).

use std::borrow::Cow;
use std::time::Duration;

use super::signature::check_digest;
use super::{PresentedProof, Use};
use crate::bounds::{MAX_PROOF_AGE, MAX_PROOF_BYTES, MAX_PROOF_DEPTH, MAX_PROOF_ID_BYTES};
use crate::call::VerifiedToken;
use crate::clock::UnixTime;
use crate::denial::Denial;
use crate::jose::{Algorithm, Algorithms, Compact, Header, HeaderKey, Key, is_published};
use crate::json::Json;
use crate::uri::Uri;

/// What proofs may look like.
#[derive(Clone, Copy, Debug)]
pub struct ProofOptions {
    /// Accepted algorithms.
    pub algorithms: Algorithms,
    /// Largest distance between `iat` and now.
    pub max_age: Duration,
    /// Tolerance for the clocks of others, added to it.
    pub leeway: Duration,
    /// Whether a proof of a request with a body must say the digest of it.
    pub demands_digest: bool,
    /// Takes keys whose private half stands in an RFC. For tests with the examples of RFCs, and nothing else.
    pub dangerous_allow_published_keys: bool,
}

impl ProofOptions {
    /// Options with nothing dangerous.
    pub const fn new(algorithms: Algorithms, max_age: Duration, leeway: Duration) -> Self {
        Self { algorithms, max_age, leeway, demands_digest: false, dangerous_allow_published_keys: false }
    }

    /// Whether a key that was confirmed before passes here too: another verifier of the same token may have taken it.
    fn takes(&self, known: &HeaderKey) -> bool {
        self.algorithms.contains(known.algorithm()) && self.takes_key(known.thumbprint())
    }

    fn takes_key(&self, thumbprint: &str) -> bool {
        self.dangerous_allow_published_keys || !is_published(thumbprint)
    }

    /// Holds the digest that a proof brings against the body. `usage`: a body that is read later is judged then.
    pub(super) fn check_body(&self, proof: &Proof, presented: &PresentedProof<'_>, usage: Use) -> Result<(), Denial> {
        let Some(digest) = &proof.content_digest else {
            // Only POST has a body that counts for MCP.
            let has_body = presented.method == "POST" || presented.body.is_some_and(|body| !body.is_empty());
            return if self.demands_digest && has_body { Err(Denial::ProofDigestMissing) } else { Ok(()) };
        };
        match presented.body {
            None if usage == Use::Look => Ok(()),
            None => Err(Denial::BodyMissing),
            Some(body) => check_digest(digest.as_bytes(), body).map_err(|denial| match denial {
                Denial::DigestMalformed { .. } => malformed("`content_digest` has no `sha-256` or `sha-512`"),
                _ => Denial::ProofDigestMismatch,
            }),
        }
    }

    /// How far `iat` may be from now, on either side.
    pub(super) fn window(&self) -> Duration {
        (self.max_age + self.leeway).min(MAX_PROOF_AGE)
    }
}

/// The URL that requests are made to, as clients know it.
#[derive(Clone, Debug)]
pub struct RequestUrl {
    text: Box<str>,
    uri: Uri,
}

impl RequestUrl {
    /// Reads an absolute URL of `http` or `https`; query and fragment count for nothing.
    pub fn new(text: &str) -> Option<Self> {
        Some(Self { text: text.into(), uri: Uri::parse(text)? })
    }

    /// Its parts, in normal form.
    pub(super) const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Most clients write it as the configuration does; others are parsed and compared in normal form.
    fn is(&self, htu: &str) -> bool {
        *self.text == *htu || Uri::parse(htu).is_some_and(|uri| uri == self.uri)
    }
}

/// A proof that is in order but for its nonce and for whether it is new.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) id: Box<str>,
    pub(super) issued_at: UnixTime,
    pub(super) nonce: Option<Box<str>>,
    /// What the body must be, by MCP's extension: as `Content-Digest` has it (RFC 9530).
    pub(super) content_digest: Option<Box<str>>,
}

const fn malformed(what: &'static str) -> Denial {
    Denial::ProofMalformed { what }
}

/// A proof's header is read as a token's is; what was wrong is said of the proof.
fn of_proof(denial: Denial) -> Denial {
    match denial {
        Denial::TokenMalformed { what } => malformed(what),
        Denial::AlgorithmRefused { algorithm } => Denial::ProofAlgorithmRefused { algorithm },
        Denial::HeaderParameterRefused { .. } => malformed("the header has `crit`, `b64`, `zip` or `enc`"),
        _ => malformed("no compact JWS"),
    }
}

/// Verifies a proof. The signature comes before the claims, and what costs little before the signature.
pub(super) fn verify(
    options: &ProofOptions,
    presented: &PresentedProof<'_>,
    token: &VerifiedToken,
    now: UnixTime,
) -> Result<Proof, Denial> {
    let text = presented.proof;
    if text.len() > MAX_PROOF_BYTES {
        return Err(malformed("longer than 8 KiB"));
    }
    let compact = Compact::split(text.as_bytes()).map_err(of_proof)?;
    // A client writes the same header into all its proofs, so its key is prepared once for a token.
    let known = token.proof_key().filter(|known| known.segment() == compact.header_segment() && options.takes(known));
    let read = match known {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(read_key(options, &compact, token)?),
    };
    if !read.verify(compact.signing_input(), compact.signature()) {
        return Err(Denial::ProofSignatureInvalid);
    }
    let payload = compact.payload().map_err(of_proof)?;
    let Ok(claims @ Json::Object(_)) = Json::parse(&payload, MAX_PROOF_DEPTH) else {
        return Err(malformed("the payload is not one JSON object without repeated members"));
    };
    let proof = check_claims(options, &claims, presented, token, now)?;
    if let Cow::Owned(key) = read {
        token.keep_proof_key(key);
    }
    Ok(proof)
}

/// The header: type, algorithm, and a public key that is the one that the token is bound to.
fn read_key(options: &ProofOptions, compact: &Compact<'_>, token: &VerifiedToken) -> Result<HeaderKey, Denial> {
    let text = compact.header_text().map_err(of_proof)?;
    let (header, members) = Header::parse(&text).map_err(of_proof)?;
    if header.typ.as_deref() != Some("dpop+jwt") {
        return Err(malformed("`typ` is not `dpop+jwt`"));
    }
    let algorithm = header.algorithm;
    if algorithm.is_symmetric() || !options.algorithms.contains(algorithm) {
        return Err(Denial::ProofAlgorithmRefused { algorithm: algorithm.name().to_owned() });
    }
    let key = key_of(&members, algorithm)?;
    if !options.takes_key(key.thumbprint()) {
        let reason = "its private half stands in an RFC or a test vector".to_owned();
        return Err(Denial::ProofKeyRefused { reason });
    }
    if token.thumbprint() != Some(key.thumbprint()) {
        return Err(Denial::ProofKeyMismatch { found: key.thumbprint().to_owned() });
    }
    Ok(HeaderKey::new(compact.header_segment(), algorithm, key))
}

fn key_of(header: &Json<'_>, algorithm: Algorithm) -> Result<Key, Denial> {
    let jwk = header.member("jwk").ok_or(malformed("the header has no `jwk`"))?;
    Key::from_proof(jwk, algorithm).map_err(|error| Denial::ProofKeyRefused { reason: error.to_string() })
}

fn check_claims(
    options: &ProofOptions,
    claims: &Json<'_>,
    presented: &PresentedProof<'_>,
    token: &VerifiedToken,
    now: UnixTime,
) -> Result<Proof, Denial> {
    let id = text(claims, "jti", "`jti` is missing or no string")?;
    if id.is_empty() || id.len() > MAX_PROOF_ID_BYTES {
        return Err(malformed("`jti` is empty or longer than 256 bytes"));
    }
    // RFC 9110 §9.1: methods are case-sensitive.
    let found = text(claims, "htm", "`htm` is missing or no string")?;
    if found != presented.method {
        return Err(Denial::ProofMethodMismatch { found: found.to_owned() });
    }
    let found = text(claims, "htu", "`htu` is missing or no string")?;
    if !presented.url.is(found) {
        return Err(Denial::ProofUrlMismatch { found: found.to_owned() });
    }
    if text(claims, "ath", "`ath` is missing or no string")? != token.text_hash() {
        return Err(Denial::ProofTokenMismatch);
    }
    let optional = |name, what| claims.member(name).map(|_| text(claims, name, what).map(Box::from)).transpose();
    let nonce = optional("nonce", "`nonce` is no string")?;
    let content_digest = optional("content_digest", "`content_digest` is no string")?;
    check_unread(claims)?;
    let issued_at = time(claims, "iat")?.ok_or(malformed("`iat` is missing"))?;
    check_times(options, claims, issued_at, now)?;
    Ok(Proof { id: id.into(), issued_at, nonce, content_digest })
}

/// What nothing reads must still be of its type, else this is no JWT (RFC 7519 §4.1).
fn check_unread(claims: &Json<'_>) -> Result<(), Denial> {
    let is_text = |value: &Json<'_>| value.as_str().is_some();
    let is_list = |value: &Json<'_>| value.as_array().is_some_and(|elements| elements.iter().all(is_text));
    let are_in_order = ["iss", "sub"].into_iter().all(|name| claims.member(name).is_none_or(is_text))
        && claims.member("aud").is_none_or(|value| is_text(value) || is_list(value));
    if are_in_order { Ok(()) } else { Err(malformed("`iss`, `sub` or `aud` is of the wrong type")) }
}

/// `iat` within the window on both sides; `exp` and `nbf`, which proofs need not have, as in any JWT (RFC 7519 §4.1).
fn check_times(options: &ProofOptions, claims: &Json<'_>, issued_at: UnixTime, now: UnixTime) -> Result<(), Denial> {
    let window = options.window();
    let is_expired = time(claims, "exp")?.is_some_and(|expires_at| now >= expires_at.plus(options.leeway));
    if is_expired || now > issued_at.plus(window) {
        return Err(Denial::ProofExpired { issued_at });
    }
    let is_early = time(claims, "nbf")?.is_some_and(|valid_from| now.plus(options.leeway) < valid_from);
    if is_early || now.plus(window) < issued_at {
        return Err(Denial::ProofFromFuture { issued_at });
    }
    Ok(())
}

fn text<'a>(claims: &'a Json<'_>, name: &str, what: &'static str) -> Result<&'a str, Denial> {
    claims.member(name).and_then(Json::as_str).ok_or(malformed(what))
}

fn time(claims: &Json<'_>, name: &str) -> Result<Option<UnixTime>, Denial> {
    let Some(value) = claims.member(name) else { return Ok(None) };
    value.as_numeric_date().map(Some).ok_or(malformed("`iat`, `exp` or `nbf` is no time"))
}

//! `[signatures]`, compiled: which requests must be signed, by whom, and over what.

use std::collections::HashMap;
use std::time::Duration;

use super::dictionary::combined;
use super::{
    SignatureAlgorithm, SignatureAlgorithms, SignatureInput, SignedMessage, StartLine, check_digest, read_signatures,
};
use crate::binding::{Presented, RequestUrl, Use};
use crate::call::VerifiedToken;
use crate::clock::UnixTime;
use crate::config::{Config, ConfigError, SignatureMode};
use crate::denial::Denial;
use crate::jose::{HeaderKey, Key, KeySet};
use crate::token::Detach;

const CONTENT_DIGEST: &str = "content-digest";

/// Judges the signatures of requests.
#[derive(Debug)]
pub(in crate::binding) struct Signatures {
    mode: SignatureMode,
    algorithms: SignatureAlgorithms,
    components: Vec<Box<str>>,
    max_age: Duration,
    leeway: Duration,
    tag: Option<Box<str>>,
    /// By issuer, then by client.
    clients: HashMap<Box<str>, HashMap<Box<str>, KeySet>>,
}

/// A signature that is in order but for whether it is new.
#[derive(Debug)]
pub(in crate::binding) struct Signature {
    /// The thumbprint of its key.
    pub(in crate::binding) thumbprint: Box<str>,
    pub(in crate::binding) nonce: Box<str>,
    pub(in crate::binding) created_at: UnixTime,
}

/// The key of one signature: registered for the token's client, or the one of the proof that came with the token.
enum Signer<'a> {
    Registered(&'a Key),
    OfProof(&'a HeaderKey),
}

const fn malformed(what: &'static str) -> Denial {
    Denial::SignatureMalformed { what }
}

impl Signatures {
    pub(in crate::binding) fn new(config: &Config) -> Result<Self, ConfigError> {
        let table = &config.signatures;
        let mut clients: HashMap<Box<str>, HashMap<Box<str>, KeySet>> = HashMap::new();
        for (index, client) in table.clients.iter().enumerate() {
            let at = |key: &str| format!("signatures.clients[{index}].{key}");
            let keys = client.keys().map_err(|message| ConfigError::at(at("jwks"), message))?;
            let issuer = config.issuer_of_client(client.issuer.as_deref());
            let issuer = issuer.ok_or_else(|| ConfigError::at(at("issuer"), "needed: there is not one issuer"))?;
            clients.entry(issuer.into()).or_default().insert(client.client_id.as_str().into(), keys);
        }
        Ok(Self {
            mode: table.mode,
            algorithms: SignatureAlgorithms::from_names(table.algorithms.iter().map(String::as_str)),
            components: table.components.iter().map(|name| name.as_str().into()).collect(),
            max_age: table.max_age.get(),
            leeway: config.tokens.leeway.get(),
            tag: table.tag.as_deref().map(Box::from),
            clients,
        })
    }

    pub(in crate::binding) fn are_off(&self) -> bool {
        self.mode == SignatureMode::Off
    }

    /// How long before now, and how long after it, a signature that passes may have been made.
    pub(in crate::binding) fn window(&self) -> (Duration, Duration) {
        if self.are_off() { (Duration::ZERO, Duration::ZERO) } else { (self.max_age + self.leeway, self.leeway) }
    }

    /// Confirms that the token's client has signed this request. `None` where it is not signed, and need not be.
    pub(in crate::binding) fn confirm(
        &self,
        token: &VerifiedToken,
        presented: &Presented<'_>,
        url: &RequestUrl,
        (now, usage): (UnixTime, Use),
        detach: &impl Detach,
    ) -> Result<Option<Signature>, Denial> {
        let Some(fields) = presented.fields else { return self.unsigned() };
        let lines = fields.lines().ok_or(malformed("the headers are too long, or one has no name in ASCII"))?;
        let Some(input) = self.choose(&lines)? else { return self.unsigned() };
        let (created_at, nonce) = self.check_parameters(&input, now)?;
        let has_body = presented.method == "POST" || presented.body.is_some_and(|body| !body.is_empty());
        self.check_components(&input, has_body)?;
        let signer = self.signer(token, input.key_id().unwrap_or_default())?;
        self.check_algorithm(&signer, &input)?;
        let uri = url.uri();
        let authority = uri.authority();
        let message = SignedMessage {
            start: StartLine::Request {
                method: presented.method,
                scheme: uri.scheme(),
                authority: &authority,
                path: uri.path(),
                query: fields.query(),
                request_target: None,
            },
            fields: &lines,
            trailers: &[],
            request: None,
        };
        let base = input.base(&message)?;
        if !detach.detached(|| self.matches(&signer, base.as_bytes(), input.signature())) {
            return Err(Denial::SignatureMismatch);
        }
        check_body(&lines, presented.body, usage)?;
        Ok(Some(Signature { thumbprint: signer.thumbprint().into(), nonce, created_at }))
    }

    fn unsigned<T>(&self) -> Result<Option<T>, Denial> {
        if self.mode == SignatureMode::Required { Err(Denial::SignatureMissing) } else { Ok(None) }
    }

    /// The one signature that is asked for: all others are none of ours, and two would be one too many.
    fn choose(&self, lines: &[(&str, &[u8])]) -> Result<Option<SignatureInput>, Denial> {
        let Some(input) = combined(lines, "signature-input") else { return Ok(None) };
        let signature = combined(lines, "signature").ok_or(malformed("there is no `Signature`"))?;
        let mut found = read_signatures(&input, &signature, self.tag.as_deref())?.into_iter();
        let first = found.next();
        if found.next().is_some() { Err(Denial::SignatureDuplicated) } else { Ok(first) }
    }

    /// S3: made within the window, not expired, and with a nonce.
    fn check_parameters(&self, input: &SignatureInput, now: UnixTime) -> Result<(UnixTime, Box<str>), Denial> {
        let created_at = input.created().ok_or(malformed("`created` is missing"))?;
        let nonce = input.nonce().filter(|nonce| !nonce.is_empty()).ok_or(malformed("`nonce` is missing or empty"))?;
        input.key_id().ok_or(malformed("`keyid` is missing"))?;
        let is_over = input.expires().is_some_and(|expires_at| now >= expires_at.plus(self.leeway));
        if is_over || now > created_at.plus(self.max_age + self.leeway) {
            return Err(Denial::SignatureExpired { created_at });
        }
        if now.plus(self.leeway) < created_at {
            return Err(Denial::SignatureFromFuture { created_at });
        }
        Ok((created_at, nonce.into()))
    }

    /// S1: what must be covered is, and nothing is covered that a request has not.
    fn check_components(&self, input: &SignatureInput, has_body: bool) -> Result<(), Denial> {
        let refused = |component: &str, what| Denial::SignatureComponents { component: component.to_owned(), what };
        for name in &self.components {
            let is_due = has_body || **name != *CONTENT_DIGEST;
            if is_due && !input.covers(name) {
                return Err(refused(name, "it is required, whole, and not covered"));
            }
        }
        if input.reaches_beyond() {
            return Err(refused("req, tr", "a request answers none, and its trailers are not read"));
        }
        Ok(())
    }

    /// The key by this name. A client that has registered keys signs by those; another by the key that its token is bound to, whose
    /// proof came with this request.
    fn signer<'a>(&'a self, token: &'a VerifiedToken, key_id: &str) -> Result<Signer<'a>, Denial> {
        let unknown = || Denial::SignatureKeyUnknown { key_id: key_id.to_owned() };
        let of_issuer = self.clients.get(token.issuer());
        let registered = token.client_id().and_then(|client_id| of_issuer?.get(client_id));
        let Some(registered) = registered else {
            let key = token.proof_key().filter(|key| key.thumbprint() == key_id).ok_or_else(unknown)?;
            return Ok(Signer::OfProof(key));
        };
        let is_named = |key: &&Key| key.key_id() == Some(key_id) || key.thumbprint() == key_id;
        let mut named = registered.keys().iter().filter(is_named);
        match (named.next(), named.next()) {
            (Some(key), None) => Ok(Signer::Registered(key)),
            _ => Err(unknown()),
        }
    }

    fn check_algorithm(&self, signer: &Signer<'_>, input: &SignatureInput) -> Result<(), Denial> {
        let refused = |algorithm: &str| Denial::SignatureAlgorithmRefused { algorithm: algorithm.to_owned() };
        let own = self.algorithm_of(signer).ok_or_else(|| refused(input.algorithm().unwrap_or("of the key")))?;
        match input.algorithm() {
            // RFC 9421 §7.3.6: the key decides, and the message may only say the same.
            Some(said) if said != own.name() => Err(refused(said)),
            _ => Ok(()),
        }
    }

    fn algorithm_of(&self, signer: &Signer<'_>) -> Option<SignatureAlgorithm> {
        match signer {
            Signer::Registered(key) => self.algorithms.of_key(key),
            Signer::OfProof(key) => self.algorithms.first(|algorithm| key.is_for(algorithm.in_jose())),
        }
    }

    fn matches(&self, signer: &Signer<'_>, base: &[u8], signature: &[u8]) -> bool {
        match (signer, self.algorithm_of(signer)) {
            (Signer::Registered(key), Some(algorithm)) => key.verify(algorithm.in_jose(), base, signature),
            (Signer::OfProof(key), Some(_)) => key.verify(base, signature),
            (_, None) => false,
        }
    }
}

impl Signer<'_> {
    fn thumbprint(&self) -> &str {
        match self {
            Self::Registered(key) => key.thumbprint(),
            Self::OfProof(key) => key.thumbprint(),
        }
    }
}

/// S2: the digest of the bytes as they came. A body that is read later is judged then.
fn check_body(lines: &[(&str, &[u8])], body: Option<&[u8]>, usage: Use) -> Result<(), Denial> {
    let Some(digest) = combined(lines, CONTENT_DIGEST) else { return Ok(()) };
    match body {
        None if usage == Use::Look => Ok(()),
        None => Err(Denial::BodyMissing),
        Some(body) => check_digest(&digest, body),
    }
}

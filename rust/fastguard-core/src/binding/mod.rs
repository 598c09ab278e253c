//! Room 2: confirms that whoever presents a token is its holder.

mod certificate;
mod certified;
mod dpop;
mod nonce;
mod replay;
mod signature;

use std::sync::Arc;
use std::time::Duration;

pub use certificate::ClientCertificate;
pub use dpop::{ProofOptions, RequestUrl};
pub use nonce::{Judged, Nonces};
pub use replay::{Replays, Used};
pub use signature::{
    SignatureAlgorithm, SignatureAlgorithms, SignatureInput, SignedMessage, StartLine, check_digest, read_signatures,
};

use crate::call::{Caller, VerifiedToken};
use crate::clock::{Now, UnixTime};
use crate::config::{Config, ConfigError, DigestMode, DpopMode, NonceMode};
use crate::denial::Denial;
use crate::hashing::KeyHasher;
use crate::jose::random;
use crate::request::{CertificateHeader, Fields, ProofHeader, Scheme};
use crate::token::{Confirmation, Detach};
use certified::Certified;
use signature::Signatures;

/// Proof that a token is used by its holder, as far as the token is bound to one.
#[derive(Clone, Debug)]
pub struct BoundToken {
    token: VerifiedToken,
    nonce: Option<Box<str>>,
    /// Boxed: most calls have none, and every room moves this.
    claims: Option<Box<[ProofClaim]>>,
    is_signed: bool,
}

/// A proof, or a signature, that no other process may take either.
#[derive(Clone, Copy, Debug)]
pub struct ProofClaim {
    /// Whether it is of the request's signature.
    pub is_of_signature: bool,
    /// The same in every process that has the deployment's secret: a keyed hash of the key's thumbprint and `jti`.
    pub key: u128,
    /// For how long it must be remembered.
    pub lifetime: Duration,
}

impl BoundToken {
    /// The verified token.
    pub const fn token(&self) -> &VerifiedToken {
        &self.token
    }

    /// The caller that the token names.
    pub fn caller(&self) -> &Caller {
        self.token.caller()
    }

    /// What other processes must be asked before proof and signature count as new; empty where there is none, or no other process.
    pub fn claims(&self) -> &[ProofClaim] {
        self.claims.as_deref().unwrap_or_default()
    }

    /// Whether the token's client has signed the request that this came of.
    pub const fn is_signed(&self) -> bool {
        self.is_signed
    }

    /// The nonce that the client should use from now on, where its own is about to end (RFC 9449 §8.2).
    pub fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }
}

/// How a token was presented.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The scheme of the `Authorization` header.
    pub scheme: Scheme,
    /// The `DPoP` header.
    pub proof: ProofHeader<'a>,
    /// The client's certificate.
    pub certificate: CertificateHeader<'a>,
    /// The request's method.
    pub method: &'a str,
    /// The field lines of a request that came with a signature.
    pub fields: Option<&'a Fields>,
    /// The request's body, where it was seen.
    pub body: Option<&'a [u8]>,
}

/// A proof, and the request that it must be of.
#[derive(Clone, Copy, Debug)]
pub struct PresentedProof<'a> {
    /// The value of the `DPoP` header.
    pub proof: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// The request's URL.
    pub url: &'a RequestUrl,
    /// The request's body, where it was seen.
    pub body: Option<&'a [u8]>,
}

/// Whether a proof that passes is used up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Use {
    /// It is: the call is decided now.
    Once,
    /// It is not: the same request is decided later (decision 9).
    Look,
}

/// Judges proofs of possession (RFC 9449 §4.3).
#[derive(Debug)]
pub struct DpopVerifier {
    options: ProofOptions,
    nonces: Option<Nonces>,
    replays: Arc<Replays>,
    /// Set where several processes remember used proofs together.
    shared: Option<KeyHasher>,
}

impl DpopVerifier {
    /// A verifier with a store of its own.
    pub fn new(options: ProofOptions, replay_entries: usize) -> Self {
        let replays = Arc::new(Replays::new(replay_entries, options.window() * 2));
        Self { options, nonces: None, replays, shared: None }
    }

    /// The same, and a proof must carry one of these nonces.
    #[must_use]
    pub fn with_nonces(mut self, nonces: Nonces) -> Self {
        self.nonces = Some(nonces);
        self
    }

    /// The nonce to give out now, where one is demanded.
    pub fn nonce(&self, now: UnixTime) -> Option<String> {
        self.nonces.as_ref().map(|nonces| nonces.give(now))
    }

    /// The used proofs.
    pub fn replays(&self) -> &Replays {
        &self.replays
    }

    /// Confirms that the token came with a new proof of the key that it is bound to. The proof is remembered last, so that
    /// only the holder of a bound token can make the store grow.
    pub fn confirm(
        &self,
        token: VerifiedToken,
        presented: &PresentedProof<'_>,
        now: Now,
        usage: Use,
        detach: &impl Detach,
    ) -> Result<BoundToken, Denial> {
        if members(&token)?.certificate.is_some() {
            return Err(Denial::CertificateMissing);
        }
        self.prove(token, presented, now, usage, detach)
    }

    /// The same where all other members of `cnf` have been confirmed.
    fn prove(
        &self,
        token: VerifiedToken,
        presented: &PresentedProof<'_>,
        now: Now,
        usage: Use,
        detach: &impl Detach,
    ) -> Result<BoundToken, Denial> {
        let thumbprint = token.thumbprint().ok_or(Denial::BindingMissing { demanded_by: "the DPoP scheme" })?;
        let found = detach.detached(|| dpop::verify(&self.options, presented, &token, now.unix))?;
        self.options.check_body(&found, presented, usage)?;
        let judged = self.nonces.as_ref().map(|nonces| nonces.judge(found.nonce.as_deref(), now.unix));
        let nonce = match judged {
            None | Some(Judged::Present) => None,
            Some(Judged::Neighbour(next)) => Some(next.into()),
            Some(Judged::Refused(nonce)) => return Err(Denial::NonceRequired { nonce }),
        };
        let used = Used { thumbprint, id: &found.id, issued_at: found.issued_at, principal: token.principal() };
        self.replays.take(&used, now.tick, usage)?;
        let claim = self.claim(usage, false, thumbprint, &found.id);
        Ok(BoundToken { token, nonce, claims: claim.map(|claim| [claim].into()), is_signed: false })
    }

    /// The word of other processes that is needed, where there are any.
    fn claim(&self, usage: Use, is_of_signature: bool, thumbprint: &str, id: &str) -> Option<ProofClaim> {
        let hasher = self.shared.as_ref().filter(|_| usage == Use::Once)?;
        let purpose: &[u8] = if is_of_signature { b"signature" } else { b"proof" };
        let key = hasher.hash(&[purpose, thumbprint.as_bytes(), id.as_bytes()]);
        Some(ProofClaim { is_of_signature, key, lifetime: self.replays.lifetime() })
    }
}

/// From its first use on, a proof is good for the whole window at most: it may have come from the far end of it. Proofs and signatures
/// share one store, so that the wider window counts on each side.
fn lifetime(options: &ProofOptions, signatures: &Signatures) -> Duration {
    let (before, after) = signatures.window();
    options.window().max(before) + options.window().max(after)
}

/// The members of `cnf` that can be confirmed.
#[derive(Default)]
struct Members<'a> {
    /// `jkt`.
    key: Option<&'a str>,
    /// `x5t#S256`.
    certificate: Option<&'a str>,
}

/// What a token is bound to. A member that is not known must not be passed over (D16).
fn members(token: &VerifiedToken) -> Result<Members<'_>, Denial> {
    let mut found = Members::default();
    for confirmation in token.confirmations() {
        match confirmation {
            Confirmation::Key(thumbprint) => found.key = Some(thumbprint),
            Confirmation::Certificate(thumbprint) => found.certificate = Some(thumbprint),
            Confirmation::Unknown(member) => return Err(Denial::BindingUnknown { member: member.to_string() }),
        }
    }
    Ok(found)
}

/// Room 2, compiled from one configuration. The used proofs outlive it.
#[derive(Debug)]
pub struct Bindings {
    mode: DpopMode,
    url: RequestUrl,
    dpop: DpopVerifier,
    certified: Certified,
    signatures: Signatures,
    /// Makes nonces where the configuration brings no secret; drawn once a process, so that a reload changes none.
    own_secret: [u8; 32],
    hasher: KeyHasher,
}

impl Bindings {
    /// Compiles `[dpop]`, `[certificates]` and `[signatures]`. `hasher`: the deployment's, by which processes agree.
    pub fn new(config: &Config, hasher: KeyHasher) -> Result<Self, ConfigError> {
        let (options, signatures) = (options(config), Signatures::new(config)?);
        let replays = Replays::new(config.dpop.replay_entries, lifetime(&options, &signatures));
        let own_secret = random().ok_or_else(|| ConfigError::at("dpop.nonce", "the system gives no random bytes"))?;
        Self::compile(config, options, signatures, Arc::new(replays), own_secret, hasher)
    }

    /// Compiles a changed configuration. What was used stays used.
    pub fn reload(&self, config: &Config) -> Result<Self, ConfigError> {
        let (options, signatures) = (options(config), Signatures::new(config)?);
        let replays = &self.dpop.replays;
        if lifetime(&options, &signatures) > replays.lifetime() {
            // Proofs that the store has forgotten would be good again.
            let message = "a reload cannot raise it, nor `signatures.max_age` or `tokens.leeway` with it: start anew";
            return Err(ConfigError::at("dpop.max_age", message));
        }
        let bindings =
            Self::compile(config, options, signatures, Arc::clone(replays), self.own_secret, self.hasher.clone())?;
        replays.set_capacity(config.dpop.replay_entries);
        Ok(bindings)
    }

    fn compile(
        config: &Config,
        options: ProofOptions,
        signatures: Signatures,
        replays: Arc<Replays>,
        own_secret: [u8; 32],
        hasher: KeyHasher,
    ) -> Result<Self, ConfigError> {
        let url = RequestUrl::new(&config.resource.url)
            .ok_or_else(|| ConfigError::at("resource.url", "no URL that the `htu` of a proof could equal"))?;
        let of_deployment = config.state.as_ref().and_then(|state| state.secret.bytes());
        let secret = config.dpop.nonce_secret.bytes().or(of_deployment).unwrap_or(&own_secret);
        let nonces = (config.dpop.nonce == NonceMode::Required).then(|| Nonces::new(secret));
        let shared = config.shares_proofs().then(|| hasher.clone());
        let dpop = DpopVerifier { options, nonces, replays, shared };
        let certified = Certified::new(config)?;
        Ok(Self { mode: config.dpop.mode, url, dpop, certified, signatures, own_secret, hasher })
    }

    /// A bound token never passes as a bearer token (RFC 9449 §7.2), nor an unbound one under the DPoP scheme.
    pub fn confirm(
        &self,
        token: VerifiedToken,
        presented: &Presented<'_>,
        now: Now,
        usage: Use,
        detach: &impl Detach,
    ) -> Result<BoundToken, Denial> {
        let members = members(&token)?;
        let is_bound = members.key.is_some();
        if is_bound && self.mode == DpopMode::Off {
            return Err(Denial::BindingUnknown { member: "jkt".to_owned() });
        }
        self.certified.confirm(&token, members.certificate, presented.certificate, now.unix)?;
        let bound = match presented.scheme {
            Scheme::Bearer if is_bound => Err(Denial::BoundAsBearer),
            Scheme::Bearer if self.mode == DpopMode::Required => {
                Err(Denial::BindingMissing { demanded_by: "`dpop.mode`" })
            }
            Scheme::Bearer => Ok(BoundToken { token, nonce: None, claims: None, is_signed: false }),
            Scheme::Dpop if !is_bound => Err(Denial::BindingMissing { demanded_by: "the DPoP scheme" }),
            Scheme::Dpop => {
                let proof = one_proof(presented.proof)?;
                let (method, body) = (presented.method, presented.body);
                let proved = PresentedProof { proof, method, url: &self.url, body };
                self.dpop.prove(token, &proved, now, usage, detach)
            }
        }?;
        if self.signatures.are_off() { Ok(bound) } else { self.confirm_signature(bound, presented, now, usage, detach) }
    }

    /// After the proof, which shows the key of a client that has registered none.
    fn confirm_signature(
        &self,
        bound: BoundToken,
        presented: &Presented<'_>,
        now: Now,
        usage: Use,
        detach: &impl Detach,
    ) -> Result<BoundToken, Denial> {
        let token = &bound.token;
        let Some(found) = self.signatures.confirm(token, presented, &self.url, (now.unix, usage), detach)? else {
            return Ok(bound);
        };
        let created_at = found.created_at;
        // No thumbprint has a space: a proof with this `jti` is another thing.
        let name = format!("signature {}", found.thumbprint);
        let used = Used { thumbprint: &name, id: &found.nonce, issued_at: created_at, principal: token.principal() };
        self.dpop.replays.take(&used, now.tick, usage).map_err(|denial| match denial {
            Denial::ProofReplayed => Denial::SignatureReplayed,
            Denial::ProofExpired { .. } => Denial::SignatureExpired { created_at },
            other => other,
        })?;
        let claim = self.dpop.claim(usage, true, &found.thumbprint, &found.nonce);
        let claims: Box<[ProofClaim]> = bound.claims().iter().copied().chain(claim).collect();
        let claims = (!claims.is_empty()).then_some(claims);
        Ok(BoundToken { claims, is_signed: true, ..bound })
    }

    /// What names what processes share.
    pub(crate) const fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// How many used proofs are remembered.
    pub fn replays(&self) -> usize {
        self.dpop.replays.len()
    }
}

fn options(config: &Config) -> ProofOptions {
    let dpop = &config.dpop;
    let options = ProofOptions::new(dpop.accepted_algorithms(), dpop.max_age.get(), config.tokens.leeway.get());
    ProofOptions { demands_digest: dpop.content_digest == DigestMode::Required, ..options }
}

fn one_proof(header: ProofHeader<'_>) -> Result<&str, Denial> {
    match header {
        ProofHeader::One(proof) => Ok(proof),
        ProofHeader::Missing => Err(Denial::ProofMissing),
        ProofHeader::Unreadable { is_repeated: true } => Err(Denial::ProofDuplicated),
        ProofHeader::Unreadable { is_repeated: false } => {
            Err(Denial::ProofMalformed { what: "the header is not visible ASCII" })
        }
    }
}

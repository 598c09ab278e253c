//! SHA-256, HMAC and random bytes, by the backend that was chosen.

use crate::denial::Fault;

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs as backend;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
use ring as backend;

use backend::rand::SecureRandom as _;
use backend::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// SHA-256 of `prefix` and all of `parts`.
pub(super) fn sha256(prefix: u8, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = backend::digest::Context::new(&backend::digest::SHA256);
    context.update(&[prefix]);
    for part in parts {
        context.update(part);
    }
    taken(context.finish().as_ref())
}

/// SHA-256 of nothing, the root of the empty tree (RFC 6962 §2.1).
pub(super) fn sha256_of_nothing() -> [u8; 32] {
    taken(backend::digest::digest(&backend::digest::SHA256, b"").as_ref())
}

/// The key of the hashes in the log.
pub(super) struct HashKey(backend::hmac::Key);

impl HashKey {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(backend::hmac::Key::new(backend::hmac::HMAC_SHA256, key))
    }

    /// HMAC-SHA-256, its first 16 bytes (RFC 2104 §5 allows no fewer).
    pub(super) fn hash(&self, text: &[u8]) -> [u8; 16] {
        taken(backend::hmac::sign(&self.0, text).as_ref())
    }
}

/// Signs by Ed25519 (RFC 8032).
pub(super) struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// `None` where the backend refuses the seed.
    pub(super) fn from_seed(seed: &[u8; 32]) -> Option<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(Self)
    }

    pub(super) fn public(&self) -> [u8; 32] {
        taken(self.0.public_key().as_ref())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        taken(self.0.sign(message).as_ref())
    }
}

/// Whether `signature` is the one of `public` over `message`.
pub(super) fn is_signed(public: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}

fn taken<const N: usize>(bytes: &[u8]) -> [u8; N] {
    // INVARIANT: hashes and public keys have 32 bytes, signatures 64, and N is at most that.
    bytes.first_chunk().copied().unwrap_or([0; N])
}

/// Random bytes of the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    backend::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Fault::AuditFailed { reason: "the system gives no random bytes".to_owned() })?;
    Ok(bytes)
}

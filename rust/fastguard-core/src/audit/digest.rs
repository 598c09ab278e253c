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
    /// Most lines have fewer.
    const MAX_AT_ONCE: usize = 1_024;
    let length = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    // In one piece the backend allocates nothing: two thirds of what the hash of a node costs.
    if length <= 65 {
        at_once::<65>(prefix, parts, length)
    } else if length <= MAX_AT_ONCE {
        at_once::<MAX_AT_ONCE>(prefix, parts, length)
    } else {
        by_parts(prefix, parts)
    }
}

fn at_once<const MOST: usize>(prefix: u8, parts: &[&[u8]], length: usize) -> [u8; 32] {
    let mut whole = [0; MOST];
    let mut rest = whole.as_mut_slice();
    for part in [[prefix].as_slice()].iter().chain(parts) {
        // INVARIANT: all parts together have `length`, which is at most `MOST`.
        let Some((place, after)) = rest.split_at_mut_checked(part.len()) else { return by_parts(prefix, parts) };
        place.copy_from_slice(part);
        rest = after;
    }
    sha256_of(whole.get(..length).unwrap_or_default())
}

/// SHA-256 of `text`.
pub(super) fn sha256_of(text: &[u8]) -> [u8; 32] {
    taken(backend::digest::digest(&backend::digest::SHA256, text).as_ref())
}

fn by_parts(prefix: u8, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = backend::digest::Context::new(&backend::digest::SHA256);
    context.update(&[prefix]);
    for part in parts {
        context.update(part);
    }
    taken(context.finish().as_ref())
}

/// SHA-256 of nothing, the root of the empty tree (RFC 6962 §2.1).
pub(super) fn sha256_of_nothing() -> [u8; 32] {
    sha256_of(b"")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_in_one_piece_is_that_of_the_parts_at_every_length() {
        let text: Vec<u8> = (0..2_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
        for length in [0, 1, 31, 32, 63, 64, 65, 66, 500, 1_022, 1_023, 1_024, 1_025, 2_000] {
            let (one, other) = text[..length].split_at(length / 3);
            assert_eq!(sha256(7, &[one, other]), by_parts(7, &[one, other]), "{length}");
        }
    }
}

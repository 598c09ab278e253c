//! The one place that names the library of cryptography: aws-lc-rs, or ring where a C build is a burden (decision 1).

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!("one of the features `aws-lc-rs` and `ring` is needed");

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs as library;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
use ring as library;

use library::rand::SecureRandom as _;
use library::{digest, hmac, rand, signature};

use super::algorithm::Algorithm;

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// SHA-512 of some bytes.
pub fn sha512(bytes: &[u8]) -> [u8; 64] {
    let mut output = [0; 64];
    for (slot, byte) in output.iter_mut().zip(digest::digest(&digest::SHA512, bytes).as_ref()) {
        *slot = *byte;
    }
    output
}

/// SHA-256 of bytes that come piece by piece.
pub struct Hasher(digest::Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    /// Takes in more.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest.
    pub fn finish(self) -> [u8; 32] {
        let mut output = [0; 32];
        for (slot, byte) in output.iter_mut().zip(self.0.finish().as_ref()) {
            *slot = *byte;
        }
        output
    }
}

/// A secret for HMAC, made for one algorithm.
pub(super) struct Secret(hmac::Key);

impl Secret {
    /// `None` where the algorithm is not an HMAC, or the secret shorter than its hash (RFC 7518 §3.2).
    pub(super) fn new(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        let (algorithm, shortest) = match algorithm {
            Algorithm::Hs256 => (hmac::HMAC_SHA256, 32),
            Algorithm::Hs384 => (hmac::HMAC_SHA384, 48),
            Algorithm::Hs512 => (hmac::HMAC_SHA512, 64),
            _ => return None,
        };
        (bytes.len() >= shortest).then(|| Self(hmac::Key::new(algorithm, bytes)))
    }

    /// Compares in constant time.
    pub(super) fn verify(&self, message: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.0, message, tag).is_ok()
    }
}

/// Makes tags by HMAC-SHA256.
pub struct Mac(hmac::Key);

impl Mac {
    /// From a secret, which is not kept.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The tag of a message.
    pub fn tag(&self, message: &[u8]) -> [u8; 32] {
        let mut output = [0; 32];
        for (slot, byte) in output.iter_mut().zip(hmac::sign(&self.0, message).as_ref()) {
            *slot = *byte;
        }
        output
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mac")
    }
}

/// Whether two texts are the same; takes as long whatever their bytes are.
pub(crate) fn is_same(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && std::hint::black_box(difference) == 0
}

/// Bytes that nobody can foretell.
pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    rand::SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(feature = "aws-lc-rs")]
mod public {
    use super::{Algorithm, signature};
    use signature::{ParsedPublicKey, RsaPublicKeyComponents};

    /// A public key, parsed once, for one algorithm.
    pub(in super::super) struct Public(ParsedPublicKey);

    impl Public {
        pub(in super::super) fn rsa(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Option<Self> {
            let parameters = super::rsa_parameters(algorithm)?;
            RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters).ok().map(Self)
        }

        pub(in super::super) fn from_point(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
            ParsedPublicKey::new(super::point_algorithm(algorithm)?, bytes).ok().map(Self)
        }

        pub(in super::super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
            self.0.verify_sig(message, signature).is_ok()
        }
    }
}

#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
mod public {
    use super::{Algorithm, signature};
    use signature::{RsaPublicKeyComponents, UnparsedPublicKey};

    /// A public key for one algorithm; ring parses it at every verification.
    pub(in super::super) enum Public {
        Rsa { parameters: &'static signature::RsaParameters, n: Box<[u8]>, e: Box<[u8]> },
        Point(UnparsedPublicKey<Box<[u8]>>),
    }

    impl Public {
        pub(in super::super) fn rsa(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Option<Self> {
            Some(Self::Rsa { parameters: super::rsa_parameters(algorithm)?, n: n.into(), e: e.into() })
        }

        /// A point that is not on its curve is only found at verification, which then fails.
        pub(in super::super) fn from_point(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
            Some(Self::Point(UnparsedPublicKey::new(super::point_algorithm(algorithm)?, bytes.into())))
        }

        pub(in super::super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
            match self {
                Self::Rsa { parameters, n, e } => {
                    RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
                }
                Self::Point(key) => key.verify(message, signature).is_ok(),
            }
        }
    }
}

pub(super) use public::Public;

const fn rsa_parameters(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

/// Signatures of ECDSA are r and s, each of the curve's length (RFC 7518 §3.4).
fn point_algorithm(algorithm: Algorithm) -> Option<&'static dyn signature::VerificationAlgorithm> {
    match algorithm {
        Algorithm::Es256 => Some(&signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::Es384 => Some(&signature::ECDSA_P384_SHA384_FIXED),
        #[cfg(feature = "aws-lc-rs")]
        Algorithm::Es512 => Some(&signature::ECDSA_P521_SHA512_FIXED),
        Algorithm::EdDsa | Algorithm::Ed25519 => Some(&signature::ED25519),
        _ => None,
    }
}

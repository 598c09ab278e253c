//! Algorithms of signatures by their registered names (RFC 9421 §3.3), and the one that a key is for.

use crate::jose::{Algorithm, Key};

/// An algorithm of RFC 9421. It belongs to the key: `alg` of a signature may only confirm it (RFC 9421 §7.3.6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SignatureAlgorithm {
    /// `ecdsa-p256-sha256`
    EcdsaP256,
    /// `ecdsa-p384-sha384`
    EcdsaP384,
    /// `ed25519`
    Ed25519,
    /// `rsa-pss-sha512`
    RsaPss,
    /// `rsa-v1_5-sha256`
    RsaPkcs1,
    /// `hmac-sha256`
    Hmac,
}

impl SignatureAlgorithm {
    /// Every algorithm. Of two that fit one key, the first is the key's.
    pub const ALL: [Self; 6] =
        [Self::EcdsaP256, Self::EcdsaP384, Self::Ed25519, Self::RsaPss, Self::RsaPkcs1, Self::Hmac];

    /// The registered name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256-sha256",
            Self::EcdsaP384 => "ecdsa-p384-sha384",
            Self::Ed25519 => "ed25519",
            Self::RsaPss => "rsa-pss-sha512",
            Self::RsaPkcs1 => "rsa-v1_5-sha256",
            Self::Hmac => "hmac-sha256",
        }
    }

    /// Finds an algorithm by its exact name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The same algorithm by its name in JOSE.
    pub const fn in_jose(self) -> Algorithm {
        match self {
            Self::EcdsaP256 => Algorithm::Es256,
            Self::EcdsaP384 => Algorithm::Es384,
            Self::Ed25519 => Algorithm::Ed25519,
            Self::RsaPss => Algorithm::Ps512,
            Self::RsaPkcs1 => Algorithm::Rs256,
            Self::Hmac => Algorithm::Hs256,
        }
    }
}

/// A set of algorithms.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SignatureAlgorithms(u8);

impl SignatureAlgorithms {
    /// Reads names; those that are not known are left out.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let known = names.into_iter().filter_map(SignatureAlgorithm::from_name);
        known.fold(Self::default(), |set, algorithm| Self(set.0 | 1 << algorithm as u8))
    }

    /// Whether the algorithm is in the set.
    pub const fn contains(self, algorithm: SignatureAlgorithm) -> bool {
        self.0 & (1 << algorithm as u8) != 0
    }

    /// The algorithm of a key: the first of the set that fits it. An RSA key says by its `alg` which of two it is for.
    pub fn of_key(self, key: &Key) -> Option<SignatureAlgorithm> {
        self.first(|algorithm| key.fits(algorithm.in_jose()))
    }

    pub(super) fn first(self, fits: impl Fn(SignatureAlgorithm) -> bool) -> Option<SignatureAlgorithm> {
        SignatureAlgorithm::ALL.into_iter().find(|algorithm| self.contains(*algorithm) && fits(*algorithm))
    }
}

//! Signature algorithms by their registered names (RFC 7518 §3.1, RFC 8037, RFC 9864).

/// A signature algorithm. `none` is not one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Algorithm {
    /// `EdDSA` with Ed25519.
    EdDsa,
    /// `Ed25519`, the same by its own name (RFC 9864).
    Ed25519,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// ECDSA with P-521 and SHA-512. Not with the `ring` feature.
    Es512,
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 14] = [
        Self::EdDsa,
        Self::Ed25519,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
    ];

    /// The registered name, in its exact case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Ed25519 => "Ed25519",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
        }
    }

    /// Finds an algorithm by its exact name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Whether whoever verifies could also sign.
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

/// A set of algorithms.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Algorithms(u16);

impl Algorithms {
    /// Reads names; `Err` with the first that is not known.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        names.into_iter().try_fold(Self::default(), |set, name| {
            Algorithm::from_name(name).map(|algorithm| set.with(algorithm)).ok_or_else(|| name.to_owned())
        })
    }

    /// The set with one more.
    #[must_use]
    pub const fn with(self, algorithm: Algorithm) -> Self {
        Self(self.0 | 1 << algorithm as u16)
    }

    /// Whether the algorithm is in the set.
    pub const fn contains(self, algorithm: Algorithm) -> bool {
        self.0 & (1 << algorithm as u16) != 0
    }

    /// The set, in which `EdDSA` and `Ed25519`, two names of one algorithm here, come together or not at all.
    #[must_use]
    pub const fn with_both_names(self) -> Self {
        if self.contains(Algorithm::EdDsa) || self.contains(Algorithm::Ed25519) {
            self.with(Algorithm::EdDsa).with(Algorithm::Ed25519)
        } else {
            self
        }
    }

    /// The algorithms of the set.
    pub fn iter(self) -> impl Iterator<Item = Algorithm> {
        Algorithm::ALL.into_iter().filter(move |algorithm| self.contains(*algorithm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        assert_eq!(Algorithm::from_name("ES256"), Some(Algorithm::Es256));
        for name in ["es256", "none", "None", "ES256 ", "", "ES521", "EDDSA"] {
            assert_eq!(Algorithm::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn set_holds_what_was_named_and_nothing_else() {
        let set = Algorithms::from_names(["ES256", "RS512"]).unwrap();
        assert_eq!(set.iter().map(Algorithm::name).collect::<Vec<_>>(), ["ES256", "RS512"]);
        assert_eq!(Algorithms::from_names(["ES256", "none"]), Err("none".to_owned()));
    }

    #[test]
    fn name_that_stands_there_twice_counts_as_once() {
        let set = Algorithms::from_names(["ES256", "ES256"]).unwrap();
        assert!(set.contains(Algorithm::Es256));
    }

    #[test]
    fn either_name_of_one_algorithm_brings_the_other_and_no_third_does() {
        for name in ["EdDSA", "Ed25519"] {
            let set = Algorithms::from_names([name]).unwrap().with_both_names();
            assert_eq!(set.iter().count(), 2);
            assert!(set.contains(Algorithm::EdDsa) && set.contains(Algorithm::Ed25519));
        }
        assert_eq!(Algorithms::from_names(["ES256"]).unwrap().with_both_names().iter().count(), 1);
    }
}

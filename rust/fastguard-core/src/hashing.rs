//! Keyed hashes, so that nobody outside can choose two inputs that meet.

use std::hash::{BuildHasher, Hasher};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::jose::Mac;

/// Hashes lists of byte strings to 128 bits under keys drawn at random.
#[derive(Clone, Debug)]
pub struct KeyHasher {
    first: u64,
    second: u64,
}

impl KeyHasher {
    /// Draws new keys from the operating system's randomness.
    pub fn random() -> Self {
        // RandomState takes its keys from the system once a thread and then counts; SipHash hides the count.
        let draw = |salt: u64| {
            let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
            hasher.write_u64(salt);
            hasher.finish()
        };
        Self { first: draw(1), second: draw(2) }
    }

    /// Makes the keys of a secret, so that processes that have it agree. `purpose` keeps the uses of a secret apart.
    pub fn from_secret(secret: &[u8], purpose: &str) -> Self {
        let tag = Mac::new(secret).tag(purpose.as_bytes());
        let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let (first, rest) = tag.split_at(8);
        Self { first: word(first), second: word(rest.get(..8).unwrap_or_default()) }
    }

    /// Hashes the parts, each preceded by its length, so that no two lists run together.
    pub fn hash(&self, parts: &[&[u8]]) -> u128 {
        let mut hash = self.begin();
        for part in parts {
            hash.push(part);
        }
        hash.finish()
    }

    /// Begins a list whose parts come one by one.
    pub fn begin(&self) -> PartialHash {
        PartialHash(SipHasher13::new_with_keys(self.first, self.second))
    }
}

/// The hash of the parts so far. A copy goes on from there.
#[derive(Clone, Debug)]
pub struct PartialHash(SipHasher13);

impl PartialHash {
    /// Adds a part, preceded by its length.
    pub fn push(&mut self, part: &[u8]) {
        self.0.write_u64(part.len() as u64);
        self.0.write(part);
    }

    /// The hash of the list.
    pub fn finish(&self) -> u128 {
        self.0.finish128().as_u128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_same_bytes_differ_by_where_they_are_cut() {
        let hasher = KeyHasher::random();
        assert_ne!(hasher.hash(&[b"ab", b"c"]), hasher.hash(&[b"a", b"bc"]));
        assert_eq!(hasher.hash(&[b"ab", b"c"]), hasher.hash(&[b"ab", b"c"]));
    }

    #[test]
    fn hashers_of_one_secret_agree_and_of_two_purposes_do_not() {
        let of = |secret: &[u8], purpose| KeyHasher::from_secret(secret, purpose).hash(&[b"a"]);
        assert_eq!(of(b"secret", "limits"), of(b"secret", "limits"));
        assert_ne!(of(b"secret", "limits"), of(b"secret", "replays"));
        assert_ne!(of(b"secret", "limits"), of(b"other", "limits"));
    }

    #[test]
    fn two_hashers_disagree() {
        assert_ne!(KeyHasher::random().hash(&[b"a"]), KeyHasher::random().hash(&[b"a"]));
    }
}

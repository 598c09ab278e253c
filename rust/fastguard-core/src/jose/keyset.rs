//! A set of keys (RFC 7517 §5), immutable once read.

use std::collections::HashSet;
use std::fmt;

use super::algorithm::Algorithm;
use super::key::{Key, KeyError};
use super::thumbprint::is_published;
use crate::bounds::{MAX_KEY_SET_BYTES, MAX_KEY_SET_DEPTH, MAX_KEYS};
use crate::denial::Denial;
use crate::json::{Json, JsonError};

/// Keys that can verify, and what became of the others.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    skipped: Vec<SkippedKey>,
    /// Ids that a set gives to two keys of one type, whether both can be used or not: nobody can tell which was meant.
    ambiguous: Vec<Box<str>>,
}

/// A key that cannot verify.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SkippedKey {
    /// Its place in the set.
    pub index: usize,
    /// Its `kid`, if it has one.
    pub key_id: Option<Box<str>>,
    /// Why.
    pub reason: SkipReason,
}

/// Why a key is left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SkipReason {
    /// It is no key that we can use.
    Key(KeyError),
    /// Its private half is published.
    Published,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => error.fmt(f),
            Self::Published => f.write_str("its private half stands in an RFC or a test vector"),
        }
    }
}

/// Why a document is no set of keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeySetError {
    /// Longer than [`MAX_KEY_SET_BYTES`].
    TooLarge,
    /// Not JSON, or nested too deeply, or a member named twice.
    NotJson,
    /// Neither a set nor a key.
    NotAKeySet,
    /// More than [`MAX_KEYS`] keys.
    TooManyKeys,
    /// Secrets and public keys in one set: whoever knows the public ones must not be taken for the holder of the secrets.
    Mixed,
    /// No key of it can verify.
    NoUsableKey,
}

impl fmt::Display for KeySetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the key set is too large",
            Self::NotJson => "the key set is not JSON, nests too deeply, or names a member twice",
            Self::NotAKeySet => "neither a key set nor a key",
            Self::TooManyKeys => "the key set has too many keys",
            Self::Mixed => "the key set mixes secrets and public keys",
            Self::NoUsableKey => "no key of the set can verify",
        })
    }
}

impl std::error::Error for KeySetError {}

impl From<JsonError> for KeySetError {
    fn from(_: JsonError) -> Self {
        Self::NotJson
    }
}

impl KeySet {
    /// Reads a set, or one key. Keys that cannot verify are left out and listed.
    pub fn from_jwks(text: &[u8], allow_symmetric: bool) -> Result<Self, KeySetError> {
        if text.len() > MAX_KEY_SET_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let document = Json::parse(text, MAX_KEY_SET_DEPTH)?;
        let members = match document.member("keys") {
            Some(Json::Array(members)) => &members[..],
            None if document.member("kty").is_some() => std::slice::from_ref(&document),
            _ => return Err(KeySetError::NotAKeySet),
        };
        if members.len() > MAX_KEYS {
            return Err(KeySetError::TooManyKeys);
        }
        let mut set = Self { keys: Vec::new(), skipped: Vec::new(), ambiguous: Vec::new() };
        let mut seen = HashSet::new();
        for (index, member) in members.iter().enumerate() {
            let key = Key::from_jwk(member, allow_symmetric);
            let named = |name| member.member(name).and_then(Json::as_str);
            let is_for_signatures = !matches!(key, Err(KeyError::NotForSignatures));
            if let Some(key_id) = named("kid").filter(|_| is_for_signatures)
                && !seen.insert((key_id, named("kty")))
            {
                set.ambiguous.push(key_id.into());
            }
            match key {
                Ok(mut key) => {
                    key.place = index;
                    set.keys.push(key);
                }
                Err(error) => {
                    let key_id = named("kid").map(Box::from);
                    set.skipped.push(SkippedKey { index, key_id, reason: SkipReason::Key(error) });
                }
            }
        }
        let is_mixed = set.keys.iter().any(Key::is_symmetric) && !set.keys.iter().all(Key::is_symmetric);
        match () {
            () if is_mixed => Err(KeySetError::Mixed),
            () if set.keys.is_empty() => Err(KeySetError::NoUsableKey),
            () => Ok(set),
        }
    }

    /// The set without keys that anyone can sign with, because their private half is published.
    pub fn without_published(mut self) -> Result<Self, KeySetError> {
        let (published, keys): (Vec<Key>, Vec<Key>) =
            std::mem::take(&mut self.keys).into_iter().partition(|key| is_published(key.thumbprint()));
        for key in published {
            let (index, key_id) = (key.place, key.key_id().map(Box::from));
            self.skipped.push(SkippedKey { index, key_id, reason: SkipReason::Published });
        }
        if keys.is_empty() { Err(KeySetError::NoUsableKey) } else { Ok(Self { keys, ..self }) }
    }

    /// The keys that can verify.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The keys that cannot.
    pub fn skipped(&self) -> &[SkippedKey] {
        &self.skipped
    }

    /// Whether every key of another set is in this one, under the same `kid`.
    pub fn holds_all_of(&self, other: &Self) -> bool {
        other.keys.iter().all(|key| self.holds(key))
    }

    /// Whether a key is in this set, under the same `kid`.
    pub fn holds(&self, key: &Key) -> bool {
        self.keys.iter().any(|mine| mine.key_id() == key.key_id() && mine.thumbprint() == key.thumbprint())
    }

    /// Chooses the one key that fits. Two keys of one `kid`, or two that fit a token without `kid`, are one too many: trying
    /// them in turn would let whoever controls either sign for both.
    pub fn choose(&self, key_id: Option<&str>, algorithm: Algorithm) -> Result<&Key, Denial> {
        let mut named = self.keys.iter().filter(|key| key_id.is_none() || key.key_id() == key_id);
        let unknown = || Denial::KeyUnknown { key_id: key_id.unwrap_or_default().to_owned() };
        if let Some(key_id) = key_id {
            if self.ambiguous.iter().any(|other| **other == *key_id) {
                return Err(Denial::KeyAmbiguous);
            }
            let key = named.next().ok_or_else(unknown)?;
            return match named.next() {
                Some(_) => Err(Denial::KeyAmbiguous),
                None if key.fits(algorithm) => Ok(key),
                None => Err(Denial::AlgorithmRefused { algorithm: algorithm.name().to_owned() }),
            };
        }
        let mut fitting = named.filter(|key| key.fits(algorithm));
        let key = fitting.next().ok_or_else(unknown)?;
        if fitting.next().is_some() { Err(Denial::KeyAmbiguous) } else { Ok(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_key_is_skipped_under_its_place_in_the_document() {
        // The second is that of RFC 8037 appendix A.
        let text = r#"{"keys":[
            {"kty":"OKP","crv":"Ed25519","kid":"own","x":"ZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmY"},
            {"kty":"OKP","crv":"Ed25519","kid":"rfc","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let set = KeySet::from_jwks(text.as_bytes(), false).and_then(KeySet::without_published).unwrap();

        assert_eq!(set.keys().len(), 1);
        let skipped = SkippedKey { index: 1, key_id: Some("rfc".into()), reason: SkipReason::Published };
        assert_eq!(set.skipped(), [skipped]);
        assert_eq!(set.skipped()[0].reason.to_string(), "its private half stands in an RFC or a test vector");
    }

    const KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;

    fn of(key_ids: &[&str]) -> KeySet {
        let keys: Vec<_> = key_ids.iter().map(|key_id| format!("{KEY},\"kid\":\"{key_id}\"}}")).collect();
        KeySet::from_jwks(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes(), false).unwrap()
    }

    #[test]
    fn set_of_the_most_keys_and_bytes_is_read_and_more_is_not() {
        let of = |keys: usize, bytes: usize| {
            let mut text = format!(r#"{{"keys":[{}]}}"#, vec!["{}"; keys].join(",")).into_bytes();
            text.resize(text.len().max(bytes), b' ');
            KeySet::from_jwks(&text, false).map(|_| ())
        };
        // None of them can verify: the bounds are looked at before that.
        assert!(matches!(of(MAX_KEYS, 0), Err(error) if error != KeySetError::TooManyKeys));
        assert_eq!(of(MAX_KEYS + 1, 0), Err(KeySetError::TooManyKeys));
        assert!(matches!(of(1, MAX_KEY_SET_BYTES), Err(error) if error != KeySetError::TooLarge));
        assert_eq!(of(1, MAX_KEY_SET_BYTES + 1), Err(KeySetError::TooLarge));
    }

    #[test]
    fn document_that_is_neither_a_set_nor_a_key_is_told_so() {
        let error = KeySet::from_jwks(br#"{"issuer":"https://auth.example.com"}"#, false).unwrap_err();
        assert_eq!(error, KeySetError::NotAKeySet);
        assert!(!error.to_string().is_empty());
    }

    #[test]
    fn key_is_held_only_under_its_own_name() {
        let (one, other) = (of(&["a"]), of(&["b"]));
        assert!(one.holds_all_of(&of(&["a"])));
        assert!(!one.holds_all_of(&other));
    }
}

//! One key (RFC 7517), prepared for every algorithm that it may verify.

use std::fmt;

use super::algorithm::Algorithm;
use super::backend::{Public, Secret};
use super::compact::decode_segment;
use super::roca;
use super::thumbprint::thumbprint;
use crate::bounds::{MAX_KEY_ID_BYTES, RSA_MODULUS_BITS};
use crate::json::Json;

/// A key that can verify.
#[expect(clippy::struct_field_names, reason = "`kid` is the key's id everywhere")]
pub struct Key {
    key_id: Option<Box<str>>,
    thumbprint: Box<str>,
    is_symmetric: bool,
    prepared: Vec<(Algorithm, Prepared)>,
}

enum Prepared {
    Public(Public),
    Secret(Box<Secret>),
}

/// Why a key cannot verify.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyError {
    /// Not a JSON object, or a member has the wrong type.
    Malformed(&'static str),
    /// `use` is not `sig`, or `key_ops` lacks `verify`.
    NotForSignatures,
    /// No algorithm is known for its `kty`, `crv` and `alg` together.
    Unsupported,
    /// A public key set holds the private half.
    Private,
    /// An `oct` key where none is expected.
    Symmetric,
    /// Too short, too long, or made by a faulty generator.
    Weak(&'static str),
    /// The values are no key of their kind.
    Invalid,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "malformed: {what}"),
            Self::NotForSignatures => f.write_str("not for verifying signatures"),
            Self::Unsupported => f.write_str("no supported algorithm fits"),
            Self::Private => f.write_str("the private half stands in it"),
            Self::Symmetric => f.write_str("symmetric"),
            Self::Weak(what) => write!(f, "weak: {what}"),
            Self::Invalid => f.write_str("no key of its kind"),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("key_id", &self.key_id)
            .field("thumbprint", &self.thumbprint)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// Reads a JWK. `oct` keys only by the flag: whoever verifies with one could also sign.
    pub fn from_jwk(jwk: &Json<'_>, allow_symmetric: bool) -> Result<Self, KeyError> {
        if jwk.as_object().is_none() {
            return Err(KeyError::Malformed("not an object"));
        }
        check_purpose(jwk)?;
        let key_id = text(jwk, "kid")?;
        if key_id.is_some_and(|key_id| key_id.len() > MAX_KEY_ID_BYTES) {
            return Err(KeyError::Malformed("`kid` is too long"));
        }
        // An `alg` that is not known binds the key to something we cannot do.
        let bound = match text(jwk, "alg")? {
            None => None,
            Some(name) => Some(Algorithm::from_name(name).ok_or(KeyError::Unsupported)?),
        };
        let may = |algorithm: &Algorithm| bound.is_none_or(|bound| fits_name(bound, *algorithm));
        let (thumbprint, prepared) = match text(jwk, "kty")? {
            Some("RSA") => rsa(jwk, may)?,
            Some("EC") => elliptic(jwk, may)?,
            Some("OKP") => edwards(jwk, may)?,
            Some("oct") if !allow_symmetric => return Err(KeyError::Symmetric),
            Some("oct") => symmetric(jwk, may)?,
            Some(_) => return Err(KeyError::Unsupported),
            None => return Err(KeyError::Malformed("no `kty`")),
        };
        let is_symmetric = prepared.iter().any(|(algorithm, _)| algorithm.is_symmetric());
        Ok(Self { key_id: key_id.map(Box::from), thumbprint, is_symmetric, prepared })
    }

    /// `kid`.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The SHA-256 thumbprint (RFC 7638), in base64url; empty for secrets, whose digest would help to guess them.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Whether it is a secret.
    pub const fn is_symmetric(&self) -> bool {
        self.is_symmetric
    }

    /// Whether it may verify signatures of this algorithm.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.prepared.iter().any(|(prepared, _)| *prepared == algorithm)
    }

    /// Whether the signature matches. False for an algorithm that does not fit.
    pub fn verify(&self, algorithm: Algorithm, signing_input: &[u8], signature: &[u8]) -> bool {
        let prepared = self.prepared.iter().find(|(prepared, _)| *prepared == algorithm);
        match prepared {
            Some((_, Prepared::Public(key))) => key.verify(signing_input, signature),
            Some((_, Prepared::Secret(secret))) => secret.verify(signing_input, signature),
            None => false,
        }
    }
}

/// `EdDSA` and `Ed25519` are two names of one algorithm here.
fn fits_name(bound: Algorithm, algorithm: Algorithm) -> bool {
    use Algorithm::{Ed25519, EdDsa};
    bound == algorithm || matches!((bound, algorithm), (EdDsa, Ed25519) | (Ed25519, EdDsa))
}

fn text<'a>(jwk: &'a Json<'_>, name: &'static str) -> Result<Option<&'a str>, KeyError> {
    match jwk.member(name) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err(KeyError::Malformed(name)),
    }
}

/// `use` and `key_ops` (RFC 7517 §4.2, §4.3).
fn check_purpose(jwk: &Json<'_>) -> Result<(), KeyError> {
    if text(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
        return Err(KeyError::NotForSignatures);
    }
    match jwk.member("key_ops") {
        None => Ok(()),
        Some(Json::Array(operations)) => {
            let verifies = operations.iter().any(|operation| operation.as_str() == Some("verify"));
            if verifies { Ok(()) } else { Err(KeyError::NotForSignatures) }
        }
        Some(_) => Err(KeyError::Malformed("key_ops")),
    }
}

fn bytes(jwk: &Json<'_>, name: &'static str) -> Result<Vec<u8>, KeyError> {
    let text = text(jwk, name)?.ok_or(KeyError::Malformed(name))?;
    decode_segment(text.as_bytes()).ok_or(KeyError::Malformed(name))
}

fn refuse_private(jwk: &Json<'_>) -> Result<(), KeyError> {
    let is_private = ["d", "p", "q", "dp", "dq", "qi", "oth"].iter().any(|name| jwk.member(name).is_some());
    if is_private { Err(KeyError::Private) } else { Ok(()) }
}

fn some_fit(prepared: Vec<(Algorithm, Prepared)>) -> Result<Vec<(Algorithm, Prepared)>, KeyError> {
    if prepared.is_empty() { Err(KeyError::Unsupported) } else { Ok(prepared) }
}

type Read = (Box<str>, Vec<(Algorithm, Prepared)>);

fn rsa(jwk: &Json<'_>, may: impl Fn(&Algorithm) -> bool) -> Result<Read, KeyError> {
    use Algorithm::{Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
    refuse_private(jwk)?;
    let (n, e) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    // RFC 7518 §6.3.1.1 forbids leading zeros; some implementations write one, and it changes no value.
    let n = n.iter().position(|byte| *byte != 0).and_then(|start| n.get(start..)).ok_or(KeyError::Invalid)?;
    let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !RSA_MODULUS_BITS.contains(&bits) {
        return Err(KeyError::Weak("the modulus is not of 2048 to 8192 bits"));
    }
    // F16: a large exponent makes every verification slow; an even one or 1 is no exponent.
    let exponent = e.iter().try_fold(0_u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte)));
    if !exponent.is_some_and(|exponent| (3..=1 << 32).contains(&exponent) && exponent % 2 == 1) {
        return Err(KeyError::Weak("the exponent is not an odd number from 3 to 2^32"));
    }
    if n.last().is_some_and(|byte| byte % 2 == 0) {
        return Err(KeyError::Invalid);
    }
    if roca::is_weak(n) {
        return Err(KeyError::Weak("the modulus bears the fingerprint of CVE-2017-15361"));
    }
    let e = e.iter().position(|byte| *byte != 0).and_then(|start| e.get(start..)).unwrap_or_default();
    let prepare = |algorithm| Some((algorithm, Prepared::Public(Public::rsa(algorithm, n, e)?)));
    let prepared: Option<Vec<_>> =
        [Rs256, Rs384, Rs512, Ps256, Ps384, Ps512].into_iter().filter(may).map(prepare).collect();
    let members = [("e", text(jwk, "e")?), ("kty", Some("RSA")), ("n", text(jwk, "n")?)];
    let thumbprint = thumbprint(&members.map(|(name, value)| (name, value.unwrap_or_default())));
    Ok((thumbprint, some_fit(prepared.ok_or(KeyError::Invalid)?)?))
}

fn elliptic(jwk: &Json<'_>, may: impl Fn(&Algorithm) -> bool) -> Result<Read, KeyError> {
    refuse_private(jwk)?;
    let curve = text(jwk, "crv")?.ok_or(KeyError::Malformed("crv"))?;
    let (algorithm, length) = match curve {
        "P-256" => (Algorithm::Es256, 32),
        "P-384" => (Algorithm::Es384, 48),
        "P-521" if cfg!(feature = "aws-lc-rs") => (Algorithm::Es512, 66),
        _ => return Err(KeyError::Unsupported),
    };
    if !may(&algorithm) {
        return Err(KeyError::Unsupported);
    }
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    // RFC 7518 §6.2.1.2: each coordinate has the full length of the curve's field.
    if x.len() != length || y.len() != length {
        return Err(KeyError::Invalid);
    }
    let point = [&[4], &x[..], &y[..]].concat();
    let key = Public::from_point(algorithm, &point).ok_or(KeyError::Invalid)?;
    let (x, y) = (text(jwk, "x")?.unwrap_or_default(), text(jwk, "y")?.unwrap_or_default());
    let thumbprint = thumbprint(&[("crv", curve), ("kty", "EC"), ("x", x), ("y", y)]);
    Ok((thumbprint, vec![(algorithm, Prepared::Public(key))]))
}

fn edwards(jwk: &Json<'_>, may: impl Fn(&Algorithm) -> bool) -> Result<Read, KeyError> {
    refuse_private(jwk)?;
    if text(jwk, "crv")? != Some("Ed25519") {
        return Err(KeyError::Unsupported);
    }
    let x = bytes(jwk, "x")?;
    if x.len() != 32 {
        return Err(KeyError::Invalid);
    }
    let prepare = |algorithm| Some((algorithm, Prepared::Public(Public::from_point(algorithm, &x)?)));
    let prepared: Option<Vec<_>> =
        [Algorithm::EdDsa, Algorithm::Ed25519].into_iter().filter(may).map(prepare).collect();
    let thumbprint = thumbprint(&[("crv", "Ed25519"), ("kty", "OKP"), ("x", text(jwk, "x")?.unwrap_or_default())]);
    Ok((thumbprint, some_fit(prepared.ok_or(KeyError::Invalid)?)?))
}

fn symmetric(jwk: &Json<'_>, may: impl Fn(&Algorithm) -> bool) -> Result<Read, KeyError> {
    let secret = bytes(jwk, "k")?;
    let prepare = |algorithm| Some((algorithm, Prepared::Secret(Box::new(Secret::new(algorithm, &secret)?))));
    let algorithms = [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512];
    let prepared: Vec<_> = algorithms.into_iter().filter(may).filter_map(prepare).collect();
    if prepared.is_empty() {
        return Err(KeyError::Weak("the secret is shorter than the hash"));
    }
    Ok((Box::default(), prepared))
}

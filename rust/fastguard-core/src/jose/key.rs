//! One key (RFC 7517), prepared for every algorithm that it may verify.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::algorithm::Algorithm;
use super::backend::{Public, Secret};
use super::base64url::{decode_segment, encode_segment};
use super::roca;
use super::thumbprint::thumbprint;
use crate::bounds::{MAX_KEY_ID_BYTES, PROOF_RSA_MODULUS_BITS, RSA_MODULUS_BITS};
use crate::json::Json;

/// A key that can verify.
#[expect(clippy::struct_field_names, reason = "`kid` is the key's id everywhere")]
pub struct Key {
    key_id: Option<Box<str>>,
    thumbprint: Box<str>,
    is_symmetric: bool,
    /// Its place in the document that it was read from.
    pub(super) place: usize,
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
        Self::read(jwk, allow_symmetric, None, RSA_MODULUS_BITS)
    }

    /// Reads the public key that a proof brings along (RFC 9449 §4.3), prepared for the proof's algorithm alone.
    pub fn from_proof(jwk: &Json<'_>, algorithm: Algorithm) -> Result<Self, KeyError> {
        // A symmetric key would be no secret any more once it stood in a proof.
        if jwk.member("k").is_some() {
            return Err(KeyError::Private);
        }
        refuse_private(jwk)?;
        // RFC 7518 §6.3.1.1. Key sets are read with one; a proof's key is known by its thumbprint, which is over the letters (RFC 7638).
        if text(jwk, "kty")? == Some("RSA")
            && (bytes(jwk, "n")?.first() == Some(&0) || bytes(jwk, "e")?.first() == Some(&0))
        {
            return Err(KeyError::Malformed("`n` or `e` has a leading zero"));
        }
        Self::read(jwk, false, Some(algorithm), PROOF_RSA_MODULUS_BITS)
    }

    fn read(
        jwk: &Json<'_>,
        allow_symmetric: bool,
        only: Option<Algorithm>,
        modulus_bits: RangeInclusive<usize>,
    ) -> Result<Self, KeyError> {
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
        let may = |algorithm: &Algorithm| {
            only.is_none_or(|only| only == *algorithm) && bound.is_none_or(|bound| fits_name(bound, *algorithm))
        };
        let (thumbprint, prepared) = match text(jwk, "kty")? {
            Some("RSA") => rsa(jwk, may, &modulus_bits)?,
            Some("EC") => elliptic(jwk, may)?,
            Some("OKP") => edwards(jwk, may)?,
            Some("oct") if !allow_symmetric => return Err(KeyError::Symmetric),
            Some("oct") => symmetric(jwk, may)?,
            Some(_) => return Err(KeyError::Unsupported),
            None => return Err(KeyError::Malformed("no `kty`")),
        };
        let is_symmetric = prepared.iter().any(|(algorithm, _)| algorithm.is_symmetric());
        Ok(Self { key_id: key_id.map(Box::from), thumbprint, is_symmetric, place: 0, prepared })
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

/// A header that brings its own key, read once. Whether the key may be believed, whoever reads it must know.
#[derive(Clone, Debug)]
pub struct HeaderKey(Arc<(Box<[u8]>, Algorithm, Key)>);

impl HeaderKey {
    /// Keeps a key with the encoded header that it stood in.
    pub(crate) fn new(segment: &[u8], algorithm: Algorithm, key: Key) -> Self {
        Self(Arc::new((segment.into(), algorithm, key)))
    }

    /// The encoded header.
    pub(crate) fn segment(&self) -> &[u8] {
        &self.0.0
    }

    /// The header's algorithm.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.0.1
    }

    /// Whether its signatures are of this algorithm, by whichever of two names.
    pub(crate) fn is_for(&self, algorithm: Algorithm) -> bool {
        fits_name(self.0.1, algorithm)
    }

    /// The key's thumbprint.
    pub(crate) fn thumbprint(&self) -> &str {
        self.0.2.thumbprint()
    }

    /// Whether the signature matches, by the header's own algorithm.
    pub(crate) fn verify(&self, signing_input: &[u8], signature: &[u8]) -> bool {
        let (_, algorithm, key) = &*self.0;
        key.verify(*algorithm, signing_input, signature)
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

fn rsa(
    jwk: &Json<'_>,
    may: impl Fn(&Algorithm) -> bool,
    modulus_bits: &RangeInclusive<usize>,
) -> Result<Read, KeyError> {
    use Algorithm::{Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
    refuse_private(jwk)?;
    let (n, e) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    // RFC 7518 §6.3.1.1 forbids leading zeros; some implementations write one, and it changes no value.
    let n = n.iter().position(|byte| *byte != 0).and_then(|start| n.get(start..)).ok_or(KeyError::Invalid)?;
    let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !modulus_bits.contains(&bits) {
        return Err(KeyError::Weak("the modulus is too short or too long"));
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
    // Over the numbers as RFC 7518 writes them, so that a leading zero gives no key a second name.
    let (written_e, written_n) = (encode_segment(e), encode_segment(n));
    let thumbprint = thumbprint(&[("e", &written_e), ("kty", "RSA"), ("n", &written_n)]);
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
    let x: [u8; 32] = bytes(jwk, "x")?.try_into().map_err(|_| KeyError::Invalid)?;
    if has_small_order(x) {
        return Err(KeyError::Weak("the point is of small order"));
    }
    let prepare = |algorithm| Some((algorithm, Prepared::Public(Public::from_point(algorithm, &x)?)));
    let prepared: Option<Vec<_>> =
        [Algorithm::EdDsa, Algorithm::Ed25519].into_iter().filter(may).map(prepare).collect();
    let thumbprint = thumbprint(&[("crv", "Ed25519"), ("kty", "OKP"), ("x", text(jwk, "x")?.unwrap_or_default())]);
    Ok((thumbprint, some_fit(prepared.ok_or(KeyError::Invalid)?)?))
}

/// Whether a point of edwards25519 is one of the eight of small order, or written in a second way (RFC 8032 §5.1.3 wants y below
/// the prime). Under a key of small order one signature fits many messages.
fn has_small_order(mut point: [u8; 32]) -> bool {
    // The y of the four points of order 8; those of the others are 0, 1 and -1.
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
            0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
            0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    // The sign of x is the highest bit, y the rest, least significant octet first.
    point[31] &= 0x7f;
    let [low, middle @ .., high] = point;
    let is_near_zero = middle.iter().all(|octet| *octet == 0) && high == 0 && low <= 1;
    // The prime is 2^255 - 19, its lowest octet 0xed: from -1 upwards.
    let is_near_prime = middle.iter().all(|octet| *octet == 0xff) && high == 0x7f && low >= 0xec;
    is_near_zero || is_near_prime || ORDER_8.contains(&point)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn edwards_key(x: [u8; 32]) -> Result<Key, KeyError> {
        let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, encode_segment(&x));
        Key::from_jwk(&Json::parse(jwk.as_bytes(), 4).unwrap(), false)
    }

    #[test]
    fn point_of_small_order_is_refused_however_it_is_written() {
        let little = |low: u8, rest: u8, high: u8| {
            let mut point = [rest; 32];
            (point[0], point[31]) = (low, high);
            point
        };
        let hex = |text: &str| -> [u8; 32] {
            std::array::from_fn(|at| {
                u8::from_str_radix(std::str::from_utf8(&text.as_bytes()[2 * at..][..2]).unwrap(), 16).unwrap()
            })
        };
        let mut points = vec![little(0, 0, 0), little(1, 0, 0)];
        points.extend([0xec, 0xed, 0xee].map(|low| little(low, 0xff, 0x7f)));
        points.push(hex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"));
        points.push(hex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"));
        for mut point in points {
            for sign in [0, 0x80] {
                point[31] = (point[31] & 0x7f) | sign;
                assert_eq!(edwards_key(point).unwrap_err(), KeyError::Weak("the point is of small order"));
            }
        }
        assert!(!has_small_order(little(2, 0, 0)) && !has_small_order(little(0xeb, 0xff, 0x7f)));
    }
}

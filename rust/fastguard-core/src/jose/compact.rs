//! JWS in compact serialisation (RFC 7515 §7.1), and nothing else.

use memchr::memchr_iter;

use super::algorithm::{Algorithm, Algorithms};
use super::base64url::decode_segment;
use super::keyset::KeySet;
use crate::bounds::{MAX_JOSE_HEADER_BYTES, MAX_JOSE_HEADER_DEPTH, MAX_KEY_ID_BYTES, MAX_TOKEN_BYTES};
use crate::denial::Denial;
use crate::json::Json;

/// Longest signature, encoded: RSA with 8192 bits has 1,024 bytes.
const MAX_SIGNATURE_LETTERS: usize = 1_366;

/// The three parts of a token.
#[derive(Debug)]
pub struct Compact<'a> {
    header: &'a [u8],
    payload: &'a [u8],
    signing_input: &'a [u8],
    signature: Vec<u8>,
}

/// What a header says that is believed before the signature was verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Header {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`.
    pub key_id: Option<Box<str>>,
    /// `typ`.
    pub typ: Option<Box<str>>,
}

const fn malformed(what: &'static str) -> Denial {
    Denial::TokenMalformed { what }
}

impl<'a> Compact<'a> {
    /// Splits a token into its parts and decodes the signature.
    pub fn split(text: &'a [u8]) -> Result<Self, Denial> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Denial::TokenTooLarge);
        }
        let mut dots = memchr_iter(b'.', text);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(malformed("not three parts"));
        };
        let parts = (text.get(..first), text.get(first + 1..second), text.get(second + 1..), text.get(..second));
        let (Some(header), Some(payload), Some(encoded), Some(signing_input)) = parts else {
            return Err(malformed("not three parts"));
        };
        if header.is_empty() || header.len() > MAX_JOSE_HEADER_BYTES {
            return Err(malformed("the header is empty or too long"));
        }
        let signature = Some(encoded).filter(|encoded| encoded.len() <= MAX_SIGNATURE_LETTERS).and_then(decode_segment);
        let signature = signature.ok_or(malformed("the signature is not base64url, or too long"))?;
        Ok(Self { header, payload, signing_input, signature })
    }

    /// The encoded header.
    pub const fn header_segment(&self) -> &'a [u8] {
        self.header
    }

    /// What was signed.
    pub const fn signing_input(&self) -> &'a [u8] {
        self.signing_input
    }

    /// The signature.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The decoded payload.
    pub fn payload(&self) -> Result<Vec<u8>, Denial> {
        decode_segment(self.payload).ok_or_else(|| malformed("the payload is not base64url"))
    }

    /// The header's JSON text.
    pub(crate) fn header_text(&self) -> Result<Vec<u8>, Denial> {
        decode_segment(self.header).ok_or_else(|| malformed("the header is not base64url"))
    }

    /// Reads the header. Keys that it names or carries (`jwk`, `jku`, `x5u`, `x5c`) are never looked at (RFC 8725 §3.10).
    pub fn header(&self) -> Result<Header, Denial> {
        Header::parse(&self.header_text()?).map(|(header, _)| header)
    }
}

impl Header {
    /// Reads a header's text. Gives the whole header too: a proof carries its key there (RFC 9449 §4.2).
    pub(crate) fn parse(text: &[u8]) -> Result<(Self, Json<'_>), Denial> {
        let Ok(header @ Json::Object(_)) = Json::parse(text, MAX_JOSE_HEADER_DEPTH) else {
            return Err(malformed("the header is not one JSON object without repeated members"));
        };
        for parameter in ["crit", "b64", "zip", "enc"] {
            if header.member(parameter).is_some() {
                return Err(Denial::HeaderParameterRefused { parameter });
            }
        }
        let text = |name: &str| match header.member(name) {
            None => Ok(None),
            Some(Json::String(text)) if text.len() <= MAX_KEY_ID_BYTES => Ok(Some(&**text)),
            Some(_) => Err(malformed("a header parameter is not a string, or too long")),
        };
        let name = text("alg")?.ok_or(malformed("the header has no `alg`"))?;
        let algorithm =
            Algorithm::from_name(name).ok_or_else(|| Denial::AlgorithmRefused { algorithm: name.to_owned() })?;
        let read = Self { algorithm, key_id: text("kid")?.map(Box::from), typ: text("typ")?.map(Box::from) };
        Ok((read, header))
    }
}

/// Verifies a signature and nothing else: no claim is read. Gives the header and the payload.
pub fn verify_compact(text: &[u8], keys: &KeySet, algorithms: Algorithms) -> Result<(Header, Vec<u8>), Denial> {
    let compact = Compact::split(text)?;
    let header = compact.header()?;
    if !algorithms.contains(header.algorithm) {
        return Err(Denial::AlgorithmRefused { algorithm: header.algorithm.name().to_owned() });
    }
    let key = keys.choose(header.key_id.as_deref(), header.algorithm)?;
    if !key.verify(header.algorithm, compact.signing_input(), compact.signature()) {
        return Err(Denial::SignatureInvalid);
    }
    let payload = compact.payload()?;
    Ok((header, payload))
}

#[cfg(test)]
mod tests {
    use super::super::encode_segment;
    use super::*;

    fn token(header: &str) -> String {
        format!("{}.e30.AAAA", encode_segment(header.as_bytes()))
    }

    fn header(text: &str) -> Result<Header, Denial> {
        Compact::split(token(text).as_bytes())?.header()
    }

    #[test]
    fn header_of_a_usual_token_is_read() {
        let read = header(r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#).unwrap();
        assert_eq!(
            (read.algorithm, read.key_id.as_deref(), read.typ.as_deref()),
            (Algorithm::Es256, Some("k"), Some("at+jwt"))
        );
    }

    #[test]
    fn header_that_asks_for_more_than_is_known_is_refused() {
        for parameter in ["crit", "b64", "zip", "enc"] {
            let refused = header(&format!(r#"{{"alg":"ES256","{parameter}":[]}}"#)).unwrap_err();
            assert_eq!(refused, Denial::HeaderParameterRefused { parameter });
        }
    }

    #[test]
    fn headers_that_are_not_plain_are_refused() {
        for text in [
            "",
            "[]",
            "1",
            r#"{"kid":"k"}"#,
            r#"{"alg":1}"#,
            r#"{"alg":"ES256","kid":7}"#,
            r#"{"alg":"ES256","alg":"ES256"}"#,
            r#"{"alg":"ES256","typ":null}"#,
        ] {
            assert_eq!(header(text).unwrap_err().code(), "token_malformed", "{text}");
        }
    }

    #[test]
    fn none_is_no_algorithm_in_any_case() {
        for name in ["none", "None", "NONE", "nOnE", ""] {
            assert_eq!(header(&format!(r#"{{"alg":"{name}"}}"#)).unwrap_err().code(), "algorithm_refused");
        }
    }

    #[test]
    fn texts_of_other_than_three_parts_are_refused() {
        for text in ["", ".", "a", "a.b", "a.b.c.d", "a.b.c.d.e", ".b.c"] {
            assert_eq!(Compact::split(text.as_bytes()).unwrap_err().code(), "token_malformed", "{text}");
        }
    }

    #[test]
    fn depth_of_the_header_is_bounded() {
        let nested = |depth: usize| format!(r#"{{"alg":"ES256","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(header(&nested(MAX_JOSE_HEADER_DEPTH - 1)).is_ok());
        assert!(header(&nested(MAX_JOSE_HEADER_DEPTH)).is_err());
    }

    #[test]
    fn parts_are_those_between_the_points_and_what_was_signed_is_before_the_last() {
        let found = Compact::split(b"eyJhIjoxfQ.e30.AQI").unwrap();
        assert_eq!((found.header_segment(), found.signing_input()), (&b"eyJhIjoxfQ"[..], &b"eyJhIjoxfQ.e30"[..]));
        assert_eq!((found.header_text().unwrap(), found.payload().unwrap()), (br#"{"a":1}"#.to_vec(), b"{}".to_vec()));
        assert_eq!(found.signature(), [1, 2]);
        assert_eq!(Compact::split(b"e30.!.AQI").unwrap().payload().unwrap_err().code(), "token_malformed");
    }

    #[test]
    fn token_and_signature_at_their_bounds_are_split_and_beyond_are_not() {
        let of = |bytes: usize| format!("e30.{}.AAAA", "e".repeat(bytes - "e30..AAAA".len()));
        assert!(Compact::split(of(MAX_TOKEN_BYTES).as_bytes()).is_ok());
        assert_eq!(Compact::split(of(MAX_TOKEN_BYTES + 1).as_bytes()).unwrap_err(), Denial::TokenTooLarge);

        let signed = |letters: usize| format!("e30.e30.{}", "A".repeat(letters));
        assert!(Compact::split(signed(MAX_SIGNATURE_LETTERS).as_bytes()).is_ok());
        assert!(Compact::split(signed(MAX_SIGNATURE_LETTERS + 1).as_bytes()).is_err());
        assert!(Compact::split(signed(MAX_SIGNATURE_LETTERS + 2).as_bytes()).is_err());
    }

    #[test]
    fn header_at_its_bound_is_split_and_beyond_is_not() {
        let of = |letters: usize| format!("{}.e30.AAAA", "e".repeat(letters));
        assert!(Compact::split(of(MAX_JOSE_HEADER_BYTES).as_bytes()).is_ok());
        assert!(Compact::split(of(MAX_JOSE_HEADER_BYTES + 1).as_bytes()).is_err());
        assert!(Compact::split(b".e30.AAAA").is_err());
    }

    #[test]
    fn key_id_at_its_bound_is_read_and_beyond_is_not() {
        let of = |letters: usize| {
            let found = header(&format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(letters)));
            found.map(|header| header.key_id.map(|key_id| key_id.len()))
        };
        assert_eq!(of(MAX_KEY_ID_BYTES).unwrap(), Some(MAX_KEY_ID_BYTES));
        assert!(of(MAX_KEY_ID_BYTES + 1).is_err());
    }
}

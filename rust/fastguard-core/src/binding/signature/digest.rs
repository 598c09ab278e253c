//! `Content-Digest`: what the bytes of a body are (RFC 9530 §2).

use sfv::ListEntry;

use super::dictionary::unique_dictionary;
use crate::bounds::MAX_SIGNATURE_FIELD_BYTES;
use crate::denial::Denial;
use crate::jose::{is_same, sha256, sha512};

const fn malformed(what: &'static str) -> Denial {
    Denial::DigestMalformed { what }
}

/// Holds the value of `Content-Digest` against the bytes of the body. Each of `sha-256` and `sha-512` that is there must match;
/// others are no digests that protect (RFC 9530 §5), and count for nothing.
pub fn check_digest(value: &[u8], body: &[u8]) -> Result<(), Denial> {
    let is_short = value.len() <= MAX_SIGNATURE_FIELD_BYTES;
    let found = is_short.then(|| unique_dictionary(value)).flatten();
    let found = found.ok_or(malformed("no dictionary of unique algorithms"))?;
    let mut is_known = false;
    for (name, entry) in &found {
        let digest = |entry: &ListEntry| match entry {
            ListEntry::Item(item) => item.bare_item.as_byte_sequence().map(<[u8]>::to_vec),
            ListEntry::InnerList(_) => None,
        };
        let expected: &[u8] = match name.as_str() {
            "sha-256" => &sha256(body),
            "sha-512" => &sha512(body),
            _ => continue,
        };
        let digest = digest(entry).ok_or(malformed("a digest is no byte sequence"))?;
        if !is_same(&digest, expected) {
            return Err(Denial::DigestMismatch);
        }
        is_known = true;
    }
    if is_known { Ok(()) } else { Err(malformed("neither `sha-256` nor `sha-512`")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 9530 appendix D: `{"hello": "world"}` and a line feed.
    const BODY: &[u8] = b"{\"hello\": \"world\"}\n";
    const SHA_256: &str = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
    const SHA_512: &str =
        "sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:";

    #[test]
    fn examples_of_rfc_9530_match_their_body_and_no_other() {
        for value in [SHA_256, SHA_512, &format!("{SHA_256}, {SHA_512}"), &format!("md5=:AAAA:, {SHA_256}")] {
            assert_eq!(check_digest(value.as_bytes(), BODY), Ok(()), "{value}");
            assert_eq!(check_digest(value.as_bytes(), b"{}"), Err(Denial::DigestMismatch), "{value}");
        }
    }

    #[test]
    fn one_digest_that_does_not_match_is_enough() {
        let value = format!("{SHA_256}, sha-512=:AAAA:");
        assert_eq!(check_digest(value.as_bytes(), BODY), Err(Denial::DigestMismatch));
    }

    #[test]
    fn what_is_no_digest_that_protects_is_malformed() {
        let twice = format!("{SHA_256}, {SHA_256}");
        let long = format!("x={:?}, {SHA_256}", "a".repeat(MAX_SIGNATURE_FIELD_BYTES));
        for value in ["", "md5=:AAAA:", "sha-256=AAAA", "sha-256=(:AAAA:)", "sha-256", "sha-256=:*:", &twice, &long] {
            let checked = check_digest(value.as_bytes(), BODY);
            assert!(matches!(checked, Err(Denial::DigestMalformed { .. })), "{value} {checked:?}");
        }
    }
}

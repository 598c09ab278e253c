//! base64url in the one form that JOSE knows: no padding, no white space, no bits left over (RFC 7515 §2, RFC 4648 §3.5 and §5).
//!
//! Reading it is the largest part of a new token's cost beside the signature: four letters are looked up in four tables and joined, and
//! whether all of them were good is asked once.

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Set in the entries of bytes that are no letters.
const BAD: u32 = 1 << 31;

/// The bits of each byte as the first to the fourth letter of a word of 24 bits.
static FIRST: [u32; 256] = bits_at(18);
static SECOND: [u32; 256] = bits_at(12);
static THIRD: [u32; 256] = bits_at(6);
static FOURTH: [u32; 256] = bits_at(0);

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler alone")]
const fn bits_at(shift: u32) -> [u32; 256] {
    let mut bits = [BAD; 256];
    let mut value = 0;
    while value < LETTERS.len() {
        #[expect(clippy::cast_possible_truncation, reason = "at most 63")]
        let sextet = value as u32;
        bits[LETTERS[value] as usize] = sextet << shift;
        value += 1;
    }
    bits
}

/// Decodes base64url in its one canonical form.
pub fn decode_segment(segment: &[u8]) -> Option<Vec<u8>> {
    let (words, rest) = segment.as_chunks::<4>();
    let mut bytes = vec![0; (words.len() + 1) * 3];
    let mut seen = 0;
    let (triples, _) = bytes.as_chunks_mut::<3>();
    for (triple, word) in triples.iter_mut().zip(words) {
        *triple = three_bytes(*word, &mut seen);
    }
    // `A` is zero: what is left over must be zeros without it as well.
    let mut last = [b'A'; 4];
    last.get_mut(..rest.len())?.copy_from_slice(rest);
    *triples.last_mut()? = three_bytes(last, &mut seen);
    let end = words.len() * 3 + [0, 0, 1, 2].get(rest.len())?;
    let leaves_nothing = bytes.get(end..)?.iter().all(|byte| *byte == 0);
    bytes.truncate(end);
    // One letter over is no byte; of two or three, bits that make no byte are zero.
    (seen & BAD == 0 && leaves_nothing && rest.len() != 1).then_some(bytes)
}

fn three_bytes(letters: [u8; 4], seen: &mut u32) -> [u8; 3] {
    let bits = |table: &'static [u32; 256], letter: u8| table.get(usize::from(letter)).copied().unwrap_or(BAD);
    let [first, second, third, fourth] = letters;
    let word = bits(&FIRST, first) | bits(&SECOND, second) | bits(&THIRD, third) | bits(&FOURTH, fourth);
    *seen |= word;
    let [_, bytes @ ..] = word.to_be_bytes();
    bytes
}

/// Encodes in that form.
pub(crate) fn encode_segment(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            let sextet = (word >> (18 - 6 * place) & 63) as usize;
            text.push(char::from(LETTERS.get(sextet).copied().unwrap_or_default()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base64url_has_one_form() {
        assert!(decode_segment(b"YQ").is_some());
        for segment in ["YQ==", "YR", "Y", "Y Q", "YQ\n", "Y+", "Y/"] {
            assert!(decode_segment(segment.as_bytes()).is_none(), "{segment:?}");
        }
    }

    #[test]
    fn every_byte_at_every_place_is_read_as_another_reader_does() {
        for length in [1, 2, 3, 4, 5, 31, 32, 33, 34, 35, 36, 63, 64, 66] {
            for place in 0..length {
                for byte in 0..=u8::MAX {
                    let mut segment = vec![b'Q'; length];
                    segment[place] = byte;
                    assert_eq!(
                        decode_segment(&segment),
                        URL_SAFE_NO_PAD.decode(&segment).ok(),
                        "{length} {place} {byte}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes: Vec<u8>) {
            let text = encode_segment(&bytes);
            prop_assert_eq!(&text, &URL_SAFE_NO_PAD.encode(&bytes));
            prop_assert_eq!(decode_segment(text.as_bytes()), Some(bytes));
        }

        #[test]
        fn any_text_is_read_as_another_reader_does(segment in "[A-Za-z0-9_=+/ -]{0,80}") {
            prop_assert_eq!(decode_segment(segment.as_bytes()), URL_SAFE_NO_PAD.decode(&segment).ok());
        }
    }
}

//! Writes the log's JSON. By hand, because a line is written for every call of every server.

use std::net::IpAddr;

use memchr::memchr;

use super::canonical::{escape, unsigned};
use crate::clock::UnixTime;

/// Longest text of others in a record; what is longer is cut and ends with `…`.
/// As [`crate::bounds::MAX_IDENTITY_BYTES`] and [`crate::bounds::MAX_NAME_BYTES`], so that neither is ever cut.
pub(super) const MAX_TEXT_BYTES: usize = 2 * 1024;

/// An object that is being written. Names are ours and need no escapes, unless said. Each member begins with a comma; the first one's
/// becomes the brace at the end.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
}

impl<'o> Object<'o> {
    pub(super) const fn open(out: &'o mut Vec<u8>) -> Self {
        let start = out.len();
        Self { out, start }
    }

    /// Members without their braces, each with its comma.
    pub(super) const fn inside(out: &'o mut Vec<u8>) -> Self {
        Self::open(out)
    }

    pub(super) fn close(self) {
        match self.out.get_mut(self.start) {
            Some(comma) => *comma = b'{',
            None => self.out.push(b'{'),
        }
        self.out.push(b'}');
    }

    #[inline]
    fn key(&mut self, name: &str) {
        self.out.reserve(name.len() + 4);
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// Members that are always the same, each with its comma.
    #[inline]
    pub(super) fn fixed(&mut self, members: &'static str) {
        self.out.extend_from_slice(members.as_bytes());
    }

    /// A text of ours, which needs no escapes.
    #[inline]
    pub(super) fn word(&mut self, name: &str, value: &'static str) {
        debug_assert!(is_plain(value), "{value}");
        self.key(name);
        self.out.push(b'"');
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
    }

    #[inline]
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.key(name);
        bounded_string(value, MAX_TEXT_BYTES, self.out);
    }

    #[inline]
    pub(super) fn text_if(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    #[inline]
    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.key(name);
        unsigned(value, self.out);
    }

    pub(super) fn number_if(&mut self, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(name, value);
        }
    }

    /// A number of thousandths, as a decimal fraction.
    #[inline]
    pub(super) fn thousandths(&mut self, name: &str, value: u64) {
        self.key(name);
        unsigned(value / 1_000, self.out);
        self.out.push(b'.');
        self.out.extend_from_slice(&three_digits(value % 1_000));
    }

    #[inline]
    pub(super) fn flag(&mut self, name: &str, value: bool) {
        self.key(name);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    #[inline]
    pub(super) fn time(&mut self, name: &str, value: UnixTime) {
        self.key(name);
        self.out.push(b'"');
        timestamp(value, self.out);
        self.out.push(b'"');
    }

    #[inline]
    pub(super) fn hex(&mut self, name: &str, value: &[u8]) {
        self.key(name);
        self.out.push(b'"');
        hex(value, self.out);
        self.out.push(b'"');
    }

    pub(super) fn hex_if(&mut self, name: &str, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.hex(name, value);
        }
    }

    /// An address of the internet.
    pub(super) fn address(&mut self, name: &str, value: IpAddr) {
        let IpAddr::V4(value) = value else { return self.text(name, &value.to_string()) };
        self.key(name);
        let [first, rest @ ..] = value.octets();
        self.out.push(b'"');
        unsigned(first.into(), self.out);
        for octet in rest {
            self.out.push(b'.');
            unsigned(octet.into(), self.out);
        }
        self.out.push(b'"');
    }

    /// The id of a record in `log`.
    #[inline]
    pub(super) fn id(&mut self, name: &str, log: &str, id: u64) {
        self.key(name);
        self.out.push(b'"');
        self.out.extend_from_slice(log.as_bytes());
        self.out.push(b'-');
        unsigned(id, self.out);
        self.out.push(b'"');
    }

    pub(super) fn texts<T: AsRef<str>>(&mut self, name: &str, values: &[T]) {
        self.key(name);
        self.out.push(b'[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            bounded_string(value.as_ref(), MAX_TEXT_BYTES, self.out);
        }
        self.out.push(b']');
    }

    /// Members that were written apart, each with its comma.
    pub(super) fn members(&mut self, members: &[u8]) {
        self.out.extend_from_slice(members);
    }

    #[inline]
    pub(super) fn object(&mut self, name: &str) -> Object<'_> {
        self.key(name);
        Object::open(self.out)
    }

    pub(super) fn objects<T>(&mut self, name: &str, values: &[T], write: impl Fn(&T, &mut Object<'_>)) {
        self.key(name);
        self.out.push(b'[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            let mut object = Object::open(self.out);
            write(value, &mut object);
            object.close();
        }
        self.out.push(b']');
    }

    /// A member whose name is input of others; its value is written by the caller.
    pub(super) fn foreign(&mut self, name: &str, max_bytes: usize) -> &mut Vec<u8> {
        self.out.push(b',');
        bounded_string(name, max_bytes, self.out);
        self.out.push(b':');
        self.out
    }
}

/// Appends `text` as a JSON string, all of it but tokens.
pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    if is_plain(text) && !may_hold_token(text) {
        out.extend_from_slice(text.as_bytes());
    } else {
        without_tokens(text, out);
    }
    out.push(b'"');
}

/// Appends at most `max_bytes` of `text` as a JSON string.
pub(super) fn bounded_string(text: &str, max_bytes: usize, out: &mut Vec<u8>) {
    if text.len() <= max_bytes {
        return string(text, out);
    }
    out.push(b'"');
    without_tokens(start_of(text, max_bytes), out);
    out.extend_from_slice("…\"".as_bytes());
}

/// At most the first `max_bytes` of `text`, whole characters only.
pub(super) fn start_of(text: &str, max_bytes: usize) -> &str {
    let mut end = max_bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// A header has at least `{"alg":"none"}`, 19 characters, and a payload about as many.
const SHORTEST_TOKEN: usize = 40;

/// Whether `text` is long enough for a token and has the rarest character of what every one begins with.
fn may_hold_token(text: &str) -> bool {
    text.len() >= SHORTEST_TOKEN && memchr(b'J', text.as_bytes()).is_some()
}

/// Writes `[token]` for whatever looks like a JWS or JWE in compact serialisation. Tokens have no business in
/// paths, names, ids and logged arguments; where a client puts one there all the same, the log must not keep it.
fn without_tokens(text: &str, out: &mut Vec<u8>) {
    // What every JSON object that begins with a member begins with, in base64url.
    const START: &str = "eyJ";
    let mut rest = text;
    while rest.len() >= SHORTEST_TOKEN
        && let Some((plain, tail)) = rest.find(START).and_then(|at| rest.split_at_checked(at))
    {
        let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let end = tail.bytes().position(|byte| !is_of_token(byte)).unwrap_or(tail.len());
        let (run, after) = tail.split_at_checked(end).unwrap_or((tail, ""));
        escaped(plain, out);
        if run.len() >= SHORTEST_TOKEN && run.contains('.') {
            out.extend_from_slice(b"[token]");
        } else {
            escaped(run, out);
        }
        rest = after;
    }
    escaped(rest, out);
}

fn escaped(text: &str, out: &mut Vec<u8>) {
    if is_plain(text) {
        return out.extend_from_slice(text.as_bytes());
    }
    let mut rest = text;
    while let Some((plain, tail)) = rest.bytes().position(may_mislead).and_then(|at| rest.split_at_checked(at)) {
        out.extend_from_slice(plain.as_bytes());
        let mut characters = tail.chars();
        if let Some(character) = characters.next() {
            if misleads(character) {
                escape(character, out);
            } else {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        rest = characters.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
}

/// Whether `text` is of printable ASCII that needs no escapes; looks at eight bytes at once.
pub(super) fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (words, rest) = bytes.as_chunks::<8>();
    if !words.iter().all(|word| is_plain_word(*word)) {
        return false;
    }
    match bytes.last_chunk::<8>() {
        Some(word) => is_plain_word(*word),
        None => rest.iter().all(|byte| byte.is_ascii() && !may_mislead(*byte)),
    }
}

fn is_plain_word(word: [u8; 8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    const fn has_less(word: u64, than: u64) -> u64 {
        // Subtracting borrows from the high bit of every byte that is less; bytes that had it are left out.
        word.wrapping_sub(ONES * than) & !word
    }
    const fn has(word: u64, byte: u64) -> u64 {
        has_less(word ^ (ONES * byte), 1)
    }
    let word = u64::from_ne_bytes(word);
    let found = has_less(word, 0x20) | has(word, 0x22) | has(word, 0x5c) | has(word, 0x7f) | word;
    found & HIGH == 0
}

/// Whether a character that [`misleads`] may begin with `byte`; 0xC2 and 0xE2 only ever begin one.
fn may_mislead(byte: u8) -> bool {
    matches!(byte, 0..=0x1f | b'"' | b'\\' | 0x7f | 0xc2 | 0xe2)
}

/// What JSON escapes, and beyond: whatever makes a terminal or a viewer show another line, or other text, than
/// the log holds (control characters, line separators, changes of direction).
fn misleads(character: char) -> bool {
    matches!(character, '"' | '\\' | '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || character.is_control()
}

/// Appends `bytes` in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const fn digit(nibble: u8) -> u8 {
        if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble }
    }
    for chunk in bytes.chunks(32) {
        let mut text = [[0; 2]; 32];
        for (pair, byte) in text.iter_mut().zip(chunk) {
            *pair = [digit(byte >> 4), digit(byte & 0xf)];
        }
        out.extend_from_slice(text.get(..chunk.len()).unwrap_or_default().as_flattened());
    }
}

/// `bytes` in lower-case hexadecimal.
pub(super) fn in_hex(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    hex(bytes, &mut out);
    out.into_iter().map(char::from).collect()
}

/// A moment in UTC as RFC 3339 writes it, with milliseconds: the form of all times in records.
pub fn rfc3339(time: UnixTime) -> String {
    let mut text = Vec::with_capacity(24);
    timestamp(time, &mut text);
    text.into_iter().map(char::from).collect()
}

/// Appends `time` as RFC 3339 writes it, in UTC with milliseconds, held within the years 0001 to 9999.
pub(super) fn timestamp(time: UnixTime, out: &mut Vec<u8>) {
    const FIRST: i64 = -62_135_596_800_000;
    const LAST: i64 = 253_402_300_799_999;
    let millis = time.as_millis().clamp(FIRST, LAST);
    let (year, month, day) = date(millis.div_euclid(86_400_000));
    let rest = millis.rem_euclid(86_400_000).unsigned_abs();
    let ([y1, y2], [y3, y4]) = (two_digits(year / 100), two_digits(year % 100));
    let ([m1, m2], [d1, d2]) = (two_digits(month), two_digits(day));
    let ([h1, h2], [n1, n2]) = (two_digits(rest / 3_600_000), two_digits(rest / 60_000 % 60));
    let ([s1, s2], [f1, f2, f3]) = (two_digits(rest / 1_000 % 60), three_digits(rest % 1_000));
    out.extend_from_slice(&[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T']);
    out.extend_from_slice(&[h1, h2, b':', n1, n2, b':', s1, s2, b'.', f1, f2, f3, b'Z']);
}

/// Year, month and day of a number of days since the epoch, for years from 1 on. Counts in years that begin
/// in March, so that the leap day is the last of a year, and in eras of 400 of them, which repeat.
fn date(days: i64) -> (u64, u64, u64) {
    // From 0000-03-01 to 1970-01-01.
    let days = (days + 719_468).unsigned_abs();
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on have 31, 30, 31, 30, 31 days again and again: 153 days for five.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn two_digits(value: u64) -> [u8; 2] {
    [digit(value / 10), digit(value)]
}

fn three_digits(value: u64) -> [u8; 3] {
    [digit(value / 100), digit(value / 10), digit(value)]
}

fn digit(value: u64) -> u8 {
    b'0' | u8::try_from(value % 10).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        string(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn shown(millis: i64) -> String {
        let mut out = Vec::new();
        timestamp(UnixTime::from_millis(millis), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_could_forge_a_line_is_escaped() {
        assert_eq!(written("a\r\nb\u{0}\u{1b}[2K\u{7f}\"\\"), r#""a\r\nb\u0000\u001b[2K\u007f\"\\""#);
        assert_eq!(
            written("\u{85}\u{9b}\u{2028}\u{2029}\u{202e}\u{2066}"),
            r#""\u0085\u009b\u2028\u2029\u202e\u2066""#
        );
    }

    #[test]
    fn other_text_stays_as_it_is() {
        assert_eq!(written("Grüße ¢ € “x” 😀 日本"), "\"Grüße ¢ € “x” 😀 日本\"");
    }

    #[test]
    fn tokens_are_left_out_wherever_they_stand() {
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl_-";

        assert_eq!(written(token), r#""[token]""#);
        assert_eq!(
            written(&format!("/mcp?access_token={token}&x=1 {token}")),
            r#""/mcp?access_token=[token]&x=1 [token]""#
        );
        let short = "a text with eyJ in it that is no token at all";
        assert_eq!(written(short), format!("\"{short}\""));
    }

    #[test]
    fn long_text_is_cut_between_characters_and_says_so() {
        let mut out = Vec::new();
        bounded_string("ab€d", 4, &mut out);

        assert_eq!(String::from_utf8(out).unwrap(), "\"ab…\"");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (4_107_542_399_007, "2100-02-28T23:59:59.007Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_795_219_200_123, "2026-11-21T00:00:00.123Z"),
            (i64::MIN, "0001-01-01T00:00:00.000Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(shown(millis), expected);
        }
    }

    #[test]
    fn every_byte_is_judged_alike_in_every_place() {
        for byte in 0..=0x7f_u8 {
            for place in 0..20 {
                let mut bytes = [b'x'; 20];
                bytes[place] = byte;
                for length in place + 1..=20 {
                    let text = std::str::from_utf8(&bytes[..length]).unwrap();
                    assert_eq!(is_plain(text), !may_mislead(byte), "{byte:#x} at {place} of {length}");
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn strings_read_back_as_themselves(text: String) {
            proptest::prop_assert_eq!(serde_json::from_str::<String>(&written(&text)).unwrap(), text);
        }
    }
}

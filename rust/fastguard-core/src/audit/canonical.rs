//! Canonical JSON (RFC 8785): one spelling for equal values, so that their hashes are equal.

use std::borrow::Cow;
use std::io::Write as _;

use serde_json::Number;

use super::line::is_plain;
use crate::json::Json;

/// Appends the canonical form of `value`.
///
/// Integers of 64 bits beyond ±2^53 keep their digits. RFC 8785 §3.1 takes I-JSON alone, which has none of
/// them (RFC 7493 §2.2); as doubles, different arguments would have the same hash.
pub fn write(value: &Json<'_>, out: &mut Vec<u8>) {
    write_with(value, out, string);
}

/// As [`write`], with another spelling of strings.
pub(super) fn write_with(value: &Json<'_>, out: &mut Vec<u8>, text: fn(&str, &mut Vec<u8>)) {
    match value {
        Json::Null => out.extend_from_slice(b"null"),
        Json::Bool(true) => out.extend_from_slice(b"true"),
        Json::Bool(false) => out.extend_from_slice(b"false"),
        Json::Number(value) => number(value, out),
        Json::String(value) => text(value, out),
        Json::Array(elements) => {
            out.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_with(element, out, text);
            }
            out.push(b']');
        }
        Json::Object(members) => object(members, out, text),
    }
}

fn object(members: &[(Cow<'_, str>, Json<'_>)], out: &mut Vec<u8>, text: fn(&str, &mut Vec<u8>)) {
    out.push(b'{');
    for (index, (name, value)) in sorted(members).into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        text(name, out);
        out.push(b':');
        write_with(value, out, text);
    }
    out.push(b'}');
}

/// RFC 8785 §3.2.3: by UTF-16 code units, which differs from the order of UTF-8 beyond U+FFFF.
pub(super) fn sorted<'v, 'a>(members: &'v [(Cow<'a, str>, Json<'a>)]) -> Vec<&'v (Cow<'a, str>, Json<'a>)> {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_unstable_by(|(left, _), (right, _)| {
        if left.is_ascii() && right.is_ascii() {
            left.cmp(right)
        } else {
            left.encode_utf16().cmp(right.encode_utf16())
        }
    });
    sorted
}

/// RFC 8785 §3.2.2.2: escapes what must be escaped, and nothing else.
pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    if is_plain(text) {
        out.extend_from_slice(text.as_bytes());
        rest = "";
    }
    while let Some((plain, tail)) =
        rest.bytes().position(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\')).and_then(|at| rest.split_at_checked(at))
    {
        out.extend_from_slice(plain.as_bytes());
        let mut characters = tail.chars();
        if let Some(character) = characters.next() {
            escape(character, out);
        }
        rest = characters.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

/// Appends the short escape of `character`, or `\u` and its code units.
pub(super) fn escape(character: char, out: &mut Vec<u8>) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\u{8}' => out.extend_from_slice(b"\\b"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\u{c}' => out.extend_from_slice(b"\\f"),
        '\r' => out.extend_from_slice(b"\\r"),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a vector does not fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
}

fn number(value: &Number, out: &mut Vec<u8>) {
    if let Some(value) = value.as_u64() {
        unsigned(value, out);
    } else if let Some(value) = value.as_i64() {
        out.push(b'-');
        unsigned(value.unsigned_abs(), out);
    } else {
        double(value.as_f64().unwrap_or(0.0), out);
    }
}

/// Appends the decimal digits of `value`.
pub(super) fn unsigned(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut rest = value;
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' | u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        start -= 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

/// ECMAScript's `Number::toString`, which RFC 8785 §3.2.2.3 prescribes.
fn double(value: f64, out: &mut Vec<u8>) {
    if value == 0.0 {
        out.push(b'0');
        return;
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    let scientific = shortest(value.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).collect();
    let exponent: i32 = exponent.parse().unwrap_or(0);
    lay_out(&digits, exponent, out);
}

/// The fewest digits that read back as `value`; of several such, the closest, and of two as close the even one.
fn shortest(value: f64) -> String {
    let shortest = format!("{value:e}");
    let fraction = shortest.split('e').next().map_or(0, str::len).saturating_sub(2);
    // Rust's shortest digits are not the even ones of a tie (1424953923781206.25), those of a given number are.
    // They need not read back where the next double below is nearer than the one above.
    let closest = format!("{value:.fraction$e}");
    if closest.parse() == Ok(value) { closest } else { shortest }
}

/// `exponent` is that of the first digit.
fn lay_out(digits: &[u8], exponent: i32, out: &mut Vec<u8>) {
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    match exponent {
        0..=20 if count <= exponent + 1 => {
            out.extend_from_slice(digits);
            out.extend((count..=exponent).map(|_| b'0'));
        }
        0..=20 => point_after(digits, exponent + 1, out),
        -6..=-1 => {
            out.extend_from_slice(b"0.");
            out.extend((exponent + 1..0).map(|_| b'0'));
            out.extend_from_slice(digits);
        }
        _ => {
            if count == 1 {
                out.extend_from_slice(digits);
            } else {
                point_after(digits, 1, out);
            }
            out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
            unsigned(u64::from(exponent.unsigned_abs()), out);
        }
    }
}

fn point_after(digits: &[u8], count: i32, out: &mut Vec<u8>) {
    let (whole, fraction) = digits.split_at_checked(usize::try_from(count).unwrap_or(0)).unwrap_or((digits, b""));
    out.extend_from_slice(whole);
    out.push(b'.');
    out.extend_from_slice(fraction);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        let mut out = Vec::new();
        write(&Json::parse(text.as_bytes(), 16).unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn number_of_bits(bits: u64) -> String {
        let mut out = Vec::new();
        double(f64::from_bits(bits), &mut out);
        String::from_utf8(out).unwrap()
    }

    /// RFC 8785 appendix B.
    #[test]
    fn doubles_are_written_as_ecmascript_writes_them() {
        for (bits, expected) in [
            (0x0000_0000_0000_0000, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0xc340_0000_0000_0000, "-9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0x41b3_de43_5555_5554, "333333333.33333325"),
            (0x41b3_de43_5555_5555, "333333333.3333333"),
            (0x41b3_de43_5555_5556, "333333333.3333334"),
            (0x41b3_de43_5555_5557, "333333333.33333343"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
            (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
        ] {
            assert_eq!(number_of_bits(bits), expected, "{bits:016x}");
        }
    }

    /// RFC 8785 §3.2.2 and §3.2.4.
    #[test]
    fn literals_numbers_and_strings_have_one_spelling() {
        let text = r#"{
            "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
            "literals": [null, true, false]
        }"#;
        let expected = concat!(
            r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"#,
            r#""string":"€$\u000f\nA'B\"\\\\\"/"}"#
        );

        assert_eq!(canonical(text), expected);
    }

    /// RFC 8785 §3.2.3.
    #[test]
    fn members_are_sorted_by_utf16_code_units() {
        let text = r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#;

        assert_eq!(canonical(text), "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\u{fb33}\":3}");
    }

    #[test]
    fn integers_that_no_double_holds_keep_their_digits() {
        assert_eq!(canonical("[9007199254740993,9007199254740992]"), "[9007199254740993,9007199254740992]");
        assert_eq!(
            canonical("[-9223372036854775808,18446744073709551615]"),
            "[-9223372036854775808,18446744073709551615]"
        );
    }

    #[test]
    fn spellings_of_equal_values_become_one() {
        for text in ["1", "1.0", "10e-1", "0.1e1"] {
            assert_eq!(canonical(text), "1");
        }
        assert_eq!(canonical("[-0, 0.0, -0.0]"), "[0,0,0]");
    }

    proptest::proptest! {
        #[test]
        fn doubles_read_back_as_themselves(bits: u64) {
            let value = f64::from_bits(bits);
            proptest::prop_assume!(value.is_finite());

            // Adding zero makes one of both zeros, which share a spelling.
            let read: f64 = number_of_bits(bits).parse().unwrap();
            proptest::prop_assert_eq!((read + 0.0).to_bits(), (value + 0.0).to_bits());
        }

        #[test]
        fn strings_read_back_as_themselves(text: String) {
            let mut out = Vec::new();
            string(&text, &mut out);

            proptest::prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}

//! W3C Trace Context: the trace that a request belongs to. It decides nothing.

/// What `traceparent` names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Trace {
    /// The whole trace.
    pub id: [u8; 16],
    /// The span of the caller in it.
    pub parent: [u8; 8],
}

impl Trace {
    /// Reads the value of `traceparent`; anything else than its form is no trace (Trace Context section 3.2).
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version: [u8; 1] = hexadecimal(parts.next()?)?;
        let trace = Self { id: hexadecimal(parts.next()?)?, parent: hexadecimal(parts.next()?)? };
        let _flags: [u8; 1] = hexadecimal(parts.next()?)?;
        // Version 0 ends here; later ones may add parts, and 255 is forbidden.
        let has_form = if version == [0] { parts.next().is_none() } else { version != [0xff] };
        (has_form && trace.id != [0; 16] && trace.parent != [0; 8]).then_some(trace)
    }
}

/// Exactly so many bytes in lower-case hexadecimal digits.
fn hexadecimal<const COUNT: usize>(text: &str) -> Option<[u8; COUNT]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * COUNT {
        return None;
    }
    let mut bytes = [0; COUNT];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = *pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

const fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn traceparent_of_version_0_is_read() {
        let trace = Trace::parse(&format!("00-{ID}-00f067aa0ba902b7-01")).unwrap();

        assert_eq!(u128::from_be_bytes(trace.id), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(u64::from_be_bytes(trace.parent), 0x00f0_67aa_0ba9_02b7);
    }

    #[test]
    fn traceparent_of_a_later_version_may_be_longer() {
        assert!(Trace::parse(&format!("01-{ID}-00f067aa0ba902b7-01-more")).is_some());
    }

    #[test]
    fn traceparent_of_another_form_is_none() {
        for text in [
            String::new(),
            format!("00-{ID}-00f067aa0ba902b7"),
            format!("00-{ID}-00f067aa0ba902b7-01-more"),
            format!("ff-{ID}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{ID}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
            format!("00-{ID}0-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(Trace::parse(&text), None, "{text}");
        }
    }
}

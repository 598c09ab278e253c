//! All field lines of a signed request: its signature may cover any of them (RFC 9421 §2.1).

use crate::bounds::{MAX_HEADERS, MAX_SIGNED_FIELDS_BYTES};

/// All field lines of a request: a signature may cover any of them. Kept for signed requests alone.
#[derive(Debug, Default)]
pub struct Fields {
    text: Vec<u8>,
    /// Where each name and its value end.
    ends: Vec<(usize, usize)>,
    is_cut: bool,
    pub(super) query: Option<Box<str>>,
}

impl Fields {
    /// Takes in one line. What is beyond the bounds is left out, and the fields do not count as whole.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let end = self.text.len() + name.len() + value.len();
        if self.ends.len() >= MAX_HEADERS || end > MAX_SIGNED_FIELDS_BYTES {
            self.is_cut = true;
            return;
        }
        self.text.extend_from_slice(name);
        let name_end = self.text.len();
        self.text.extend_from_slice(value);
        self.ends.push((name_end, end));
    }

    /// The query of the request's target.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Name and value of each line; `None` where some were left out, or a name is no text.
    pub fn lines(&self) -> Option<Vec<(&str, &[u8])>> {
        if self.is_cut {
            return None;
        }
        let mut start = 0;
        let lines = self.ends.iter().map(|(name_end, end)| {
            let name = std::str::from_utf8(self.text.get(start..*name_end)?).ok()?;
            let value = self.text.get(*name_end..*end)?;
            start = *end;
            Some((name, value))
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_as_they_were_pushed() {
        let mut fields = Fields::default();
        fields.push(b"A", b"1");
        fields.push(b"b", b"");
        fields.push(b"a", b" 2 ");
        assert_eq!(fields.lines(), Some(vec![("A", &b"1"[..]), ("b", b""), ("a", b" 2 ")]));
    }

    #[test]
    fn fields_at_the_bounds_are_whole_and_beyond_are_not() {
        let mut fields = Fields::default();
        fields.push(b"a", &vec![b'x'; MAX_SIGNED_FIELDS_BYTES - 1]);
        assert!(fields.lines().is_some());
        fields.push(b"", b"y");
        assert_eq!(fields.lines(), None);
        let mut many = Fields::default();
        for _ in 0..MAX_HEADERS {
            many.push(b"a", b"1");
        }
        assert!(many.lines().is_some());
        many.push(b"a", b"1");
        assert_eq!(many.lines(), None);
    }
}

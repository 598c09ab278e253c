//! Fields as structured ones: dictionaries without repeated keys (RFC 9651 §3.2).

use std::collections::HashSet;
use std::fmt;

use sfv::visitor::{DictionaryVisitor, EntryVisitor, Ignored};
use sfv::{Dictionary, KeyRef, Parser};

/// The lines of one field as one value (RFC 9110 §5.3); `None` where there is none.
pub(super) fn combined(lines: &[(&str, &[u8])], name: &str) -> Option<Vec<u8>> {
    let values: Vec<&[u8]> = lines
        .iter()
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim_ascii())
        .collect();
    (!values.is_empty()).then(|| values.join(&b", "[..]))
}

/// Reads a dictionary. RFC 9651 lets the last of several members of one key win; where it decides what is signed, that is one
/// reading too many.
pub(super) fn unique_dictionary(value: &[u8]) -> Option<Dictionary> {
    Parser::new(value).parse_dictionary_with_visitor(Unique::default()).ok()?;
    Parser::new(value).parse().ok()
}

#[derive(Default)]
struct Unique<'de>(HashSet<&'de str>);

#[derive(Debug)]
struct Repeated;

impl fmt::Display for Repeated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key is repeated")
    }
}

impl std::error::Error for Repeated {}

impl<'de> DictionaryVisitor<'de> for Unique<'de> {
    type Out = ();
    type Error = Repeated;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Repeated> {
        if self.0.insert(key.as_str()) { Ok(Ignored) } else { Err(Repeated) }
    }

    fn finish(self) -> Result<(), Repeated> {
        Ok(())
    }
}

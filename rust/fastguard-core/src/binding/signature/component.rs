//! What a signature says that it covers: names with parameters (RFC 9421 §2).

use sfv::{FieldType as _, Item};

use super::message::What;

/// One covered component.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Component {
    /// A field's name in lower case, or a derived component's with its `@`.
    pub(super) name: String,
    pub(super) parameters: Parameters,
    /// The whole identifier, as RFC 9651 §4.1 writes it: two of them must not be the same.
    pub(super) identifier: String,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of RFC 9421 §6.5.2")]
pub(super) struct Parameters {
    /// `sf`
    pub(super) is_structured: bool,
    /// `bs`
    pub(super) is_binary: bool,
    /// `tr`
    pub(super) is_trailer: bool,
    /// `req`
    pub(super) is_of_request: bool,
    /// `key`
    pub(super) key: Option<String>,
    /// `name`
    pub(super) name: Option<String>,
}

impl Component {
    /// Reads an item of the list of components.
    pub(super) fn read(item: &Item) -> Result<Self, What> {
        let name = item.bare_item.as_string().ok_or("a component's name is no string")?.as_str();
        let own = name.strip_prefix('@').unwrap_or(name);
        // RFC 9421 §2.1: fields are named in lower case.
        let is_name =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if own.is_empty() || !own.bytes().all(is_name) || name == "@signature-params" {
            return Err("a component has no name in lower case");
        }
        let mut parameters = Parameters::default();
        for (key, value) in &item.params {
            let text = || value.as_string().map(|text| text.as_str().to_owned()).ok_or("`key` or `name` is no string");
            let flag = match key.as_str() {
                "sf" => &mut parameters.is_structured,
                "bs" => &mut parameters.is_binary,
                "tr" => &mut parameters.is_trailer,
                "req" => &mut parameters.is_of_request,
                "key" => {
                    parameters.key = Some(text()?);
                    continue;
                }
                "name" => {
                    parameters.name = Some(text()?);
                    continue;
                }
                _ => return Err("a component has an unknown parameter"),
            };
            if value.as_boolean() != Some(true) {
                return Err("a component's parameter is no flag");
            }
            *flag = true;
        }
        Ok(Self { name: name.to_owned(), parameters, identifier: item.serialize() })
    }
}

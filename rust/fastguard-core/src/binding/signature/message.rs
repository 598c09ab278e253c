//! What a signature can cover of a message: the values of its components (RFC 9421 §2).

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sfv::{Dictionary, FieldType as _, Item, List, ListEntry, Parser};

use super::component::{Component, Parameters};
use super::dictionary::unique_dictionary;

/// The first line of a message, as the components derived from it see it.
#[derive(Clone, Copy, Debug)]
pub enum StartLine<'a> {
    /// Of a request.
    Request {
        /// The method, in its case.
        method: &'a str,
        /// `http` or `https`.
        scheme: &'a str,
        /// The host in lower case, with the port where it is not the scheme's own.
        authority: &'a str,
        /// The absolute path; empty where the URL has none.
        path: &'a str,
        /// The query without its `?`.
        query: Option<&'a str>,
        /// The request target as it was sent; `None`: path and query (RFC 9112 §3.2.1).
        request_target: Option<&'a str>,
    },
    /// Of a response.
    Response {
        /// The status.
        status: u16,
    },
}

/// A message, as far as a signature can cover it.
#[derive(Clone, Copy, Debug)]
pub struct SignedMessage<'a> {
    /// The first line.
    pub start: StartLine<'a>,
    /// Name and value of each field line, in their order.
    pub fields: &'a [(&'a str, &'a [u8])],
    /// The same of the trailers.
    pub trailers: &'a [(&'a str, &'a [u8])],
    /// The request that a response answers.
    pub request: Option<&'a SignedMessage<'a>>,
}

/// Why a component has no value.
pub(super) type What = &'static str;

impl SignedMessage<'_> {
    /// The value of a component, without control characters and in ASCII.
    pub(super) fn value(&self, component: &Component) -> Result<String, What> {
        let parameters = &component.parameters;
        if parameters.is_of_request {
            let request = self.request.ok_or("`req` is of answers to a request")?;
            return request.own_value(component);
        }
        self.own_value(component)
    }

    fn own_value(&self, component: &Component) -> Result<String, What> {
        let value = match component.name.strip_prefix('@') {
            Some(name) => self.derived(name, &component.parameters)?,
            None => self.field(&component.name, &component.parameters)?,
        };
        // A line feed could stand for lines of the base that nobody has signed (RFC 9421 §2.5).
        let is_visible = value.bytes().all(|byte| (0x20..0x7f).contains(&byte) || byte == b'\t');
        if is_visible { Ok(value) } else { Err("the value is not visible ASCII") }
    }

    fn derived(&self, name: &str, parameters: &Parameters) -> Result<String, What> {
        if parameters.is_structured || parameters.is_binary || parameters.key.is_some() || parameters.is_trailer {
            return Err("a derived component has no parameter but `req`");
        }
        if (name == "query-param") != parameters.name.is_some() {
            return Err("`name` is of `@query-param`, and of no other");
        }
        let (method, scheme, authority, path, query, target) = match self.start {
            StartLine::Response { status } if name == "status" => return Ok(format!("{status:03}")),
            StartLine::Response { .. } => return Err("an answer has no such component"),
            StartLine::Request { method, scheme, authority, path, query, request_target } => {
                (method, scheme, authority, if path.is_empty() { "/" } else { path }, query, request_target)
            }
        };
        let marked = || query.map_or_else(String::new, |query| format!("?{query}"));
        Ok(match name {
            "method" => method.to_owned(),
            "target-uri" => format!("{scheme}://{authority}{path}{}", marked()),
            "authority" => authority.to_owned(),
            "scheme" => scheme.to_owned(),
            "request-target" => target.map_or_else(|| format!("{path}{}", marked()), str::to_owned),
            "path" => path.to_owned(),
            // RFC 9421 §2.2.7: a query that is not there is an empty one.
            "query" => format!("?{}", query.unwrap_or_default()),
            "query-param" => {
                query_parameter(query.unwrap_or_default(), parameters.name.as_deref().unwrap_or_default())?
            }
            _ => return Err("a request has no such component"),
        })
    }

    fn field(&self, name: &str, parameters: &Parameters) -> Result<String, What> {
        if parameters.name.is_some() {
            return Err("`name` is of `@query-param`, and of no other");
        }
        if parameters.is_binary && (parameters.is_structured || parameters.key.is_some()) {
            return Err("`bs` goes with neither `sf` nor `key`");
        }
        let among = if parameters.is_trailer { self.trailers } else { self.fields };
        let lines: Vec<&[u8]> = among
            .iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim_ascii())
            .collect();
        if lines.is_empty() {
            return Err("the message has no such field");
        }
        if parameters.is_binary {
            let wrapped: Vec<String> = lines.iter().map(|line| format!(":{}:", STANDARD.encode(line))).collect();
            return Ok(wrapped.join(", "));
        }
        let joined = lines.join(&b", "[..]);
        match &parameters.key {
            Some(key) => member(&joined, key),
            None if parameters.is_structured => strictly_written(&joined),
            None => String::from_utf8(joined).map_err(|_| "the value is not visible ASCII"),
        }
    }
}

/// One member of a dictionary, as RFC 9651 §4.1 writes it.
fn member(value: &[u8], key: &str) -> Result<String, What> {
    let dictionary = unique_dictionary(value).ok_or("the field is no dictionary without repeated keys")?;
    let entry = dictionary.into_iter().find(|(name, _)| name.as_str() == key);
    let (_, entry) = entry.ok_or("the dictionary has no such member")?;
    written(&entry).ok_or("the member cannot be written")
}

pub(super) fn written(entry: &ListEntry) -> Option<String> {
    match entry {
        ListEntry::Item(item) => Some(item.serialize()),
        ListEntry::InnerList(_) => vec![entry.clone()].serialize(),
    }
}

/// A structured field of whatever kind, as RFC 9651 §4.1 writes it. A text that can be of two kinds is written alike in both; one with
/// repeated keys, which a dictionary would drop, counts as a list.
fn strictly_written(value: &[u8]) -> Result<String, What> {
    let dictionary = unique_dictionary(value).and_then(|found| Dictionary::serialize(&found));
    let list = || Parser::new(value).parse::<List>().ok().and_then(|found| found.serialize());
    let item = || Parser::new(value).parse::<Item>().ok().map(|found| found.serialize());
    dictionary.or_else(list).or_else(item).ok_or("the value is no structured field")
}

/// The one parameter of this name, decoded and encoded anew (RFC 9421 §2.2.8).
fn query_parameter(query: &str, name: &str) -> Result<String, What> {
    let mut found = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if encoded(&decoded(key)) == name && found.replace(encoded(&decoded(value))).is_some() {
            return Err("the query has the parameter more than once");
        }
    }
    found.ok_or("the query has no such parameter")
}

/// As `application/x-www-form-urlencoded` is read; escapes that are none stay as they are.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let pair = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match (first, pair) {
            (_, Some((high, low))) => {
                bytes.push(high * 16 + low);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', None) => bytes.push(b' '),
            (other, None) => bytes.push(*other),
        }
    }
    bytes
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn encoded(bytes: &[u8]) -> String {
    let text: Cow<'_, str> = String::from_utf8_lossy(bytes);
    text.bytes().fold(String::with_capacity(text.len()), |mut written, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'*' | b'-' | b'.' | b'_') {
            written.push(char::from(byte));
        } else {
            let _ = write!(written, "%{byte:02X}");
        }
        written
    })
}

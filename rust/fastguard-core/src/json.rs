//! Strict JSON (RFC 8259): UTF-8, no duplicate members, bounded depth. Borrows what it can from the text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::clock::UnixTime;

/// A parsed value. Objects keep their order and hold each name once.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number; integers of 64 bits exactly, all else as a double.
    Number(Number),
    /// A string.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// Why a text was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum JsonError {
    /// Not JSON, or not UTF-8.
    Syntax,
    /// Nested deeper than the bound.
    TooDeep,
    /// An object names a member twice.
    Duplicate,
}

const TOO_DEEP: &str = "nested too deeply";
const DUPLICATE: &str = "member named twice";

impl<'a> Json<'a> {
    /// Parses the whole of `text`, with at most `max_depth` nested arrays and objects.
    pub fn parse(text: &'a [u8], max_depth: usize) -> Result<Self, JsonError> {
        // Checked at once for the whole text: serde_json would check each string apart, and pass over none.
        let text = std::str::from_utf8(text).map_err(|_| JsonError::Syntax)?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = Seed { depth: max_depth }.deserialize(&mut deserializer).map_err(|error| {
            // serde_json wraps custom errors with their place; only our own two carry these words.
            let message = error.to_string();
            if message.starts_with(TOO_DEEP) || message.starts_with("recursion limit") {
                JsonError::TooDeep
            } else if message.starts_with(DUPLICATE) {
                JsonError::Duplicate
            } else {
                JsonError::Syntax
            }
        })?;
        deserializer.end().map_err(|_| JsonError::Syntax)?;
        Ok(value)
    }

    /// The member of an object; `None` where it has none of that name or this is no object.
    pub fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Whether both hold the same value; the order of members does not count.
    pub fn is_same(&self, other: &Json<'_>) -> bool {
        match (self, other) {
            (Self::Null, Json::Null) => true,
            (Self::Bool(mine), Json::Bool(theirs)) => mine == theirs,
            (Self::Number(mine), Json::Number(theirs)) => mine == theirs,
            (Self::String(mine), Json::String(theirs)) => mine == theirs,
            (Self::Array(mine), Json::Array(theirs)) => {
                mine.len() == theirs.len() && mine.iter().zip(theirs).all(|(mine, theirs)| mine.is_same(theirs))
            }
            (Self::Object(mine), Json::Object(theirs)) => {
                mine.len() == theirs.len()
                    && mine.iter().zip(theirs).all(|((name, mine), (there, theirs))| {
                        // Mostly the order is the same too, and no member need be looked for.
                        let theirs = if name == there { Some(theirs) } else { other.member(name) };
                        theirs.is_some_and(|theirs| mine.is_same(theirs))
                    })
            }
            _ => false,
        }
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The elements, if it is an array.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The members, if it is an object.
    pub fn as_object(&self) -> Option<&[(Cow<'a, str>, Self)]> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The number as a double, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    /// The number as a `NumericDate` (RFC 7519 §2), if it is one. Nothing was issued before the epoch; other readers refuse
    /// what is below it.
    pub fn as_numeric_date(&self) -> Option<UnixTime> {
        self.as_f64().filter(|seconds| *seconds >= 0.0).and_then(UnixTime::from_seconds_f64)
    }
}

#[derive(Clone, Copy)]
struct Seed {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seed {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        self.depth.checked_sub(1).map(|depth| Self { depth }).ok_or_else(|| E::custom(TOO_DEEP))
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json<'de>, E> {
        Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::String(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::String(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json<'de>, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(inner)? {
            array.push(element);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json<'de>, A::Error> {
        let inner = self.deeper()?;
        // Most objects of tokens and messages have fewer members than this: one allocation serves them.
        let mut object: Vec<(Cow<'de, str>, Json<'de>)> = Vec::with_capacity(10);
        let mut large: Option<std::collections::HashSet<Cow<'de, str>>> = None;
        while let Some(Name(name)) = members.next_key()? {
            // Small objects are compared by turns; from 16 members on a set keeps the cost linear.
            let seen = match &mut large {
                Some(names) => !names.insert(name.clone()),
                None => object.iter().any(|(other, _)| *other == name),
            };
            if seen {
                return Err(A::Error::custom(DUPLICATE));
            }
            object.push((name, members.next_value_seed(inner)?));
            if large.is_none() && object.len() == 16 {
                large = Some(object.iter().map(|(name, _)| name.clone()).collect());
            }
        }
        Ok(Json::Object(object))
    }
}

/// A member's name, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(value)))
            }

            fn visit_str<E>(self, value: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(value.to_owned())))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_whatever_their_escapes() {
        let value = Json::parse(br#"{"n\u0061me": "secret"}"#, 4).unwrap();

        assert_eq!(value.member("name").and_then(Json::as_str), Some("secret"));
    }

    #[test]
    fn duplicate_members_are_refused_even_when_escaped() {
        assert_eq!(Json::parse(br#"{"name":1,"n\u0061me":2}"#, 4), Err(JsonError::Duplicate));
    }

    #[test]
    fn duplicate_members_are_refused_in_large_objects() {
        let members: Vec<String> = (0..40).map(|n| format!("\"m{n}\":0")).collect();
        let text = format!("{{{},\"m3\":1}}", members.join(","));

        assert_eq!(Json::parse(text.as_bytes(), 4), Err(JsonError::Duplicate));
    }

    #[test]
    fn sameness_heeds_types_and_not_the_order_of_members() {
        let parse = |text: &'static str| Json::parse(text.as_bytes(), 8).unwrap();
        assert!(parse(r#"{"a":1,"b":[true,null]}"#).is_same(&parse(r#"{"b":[true,null],"a":1}"#)));
        for (one, other) in
            [("1", "1.0"), ("1", "true"), ("0", "false"), ("\"1\"", "1"), ("{}", "[]"), ("[1,2]", "[2,1]")]
        {
            assert!(!parse(one).is_same(&parse(other)), "{one} {other}");
        }
    }

    #[test]
    fn depth_at_the_bound_passes_and_beyond_is_refused() {
        assert!(Json::parse(b"[[[0]]]", 3).is_ok());
        assert_eq!(Json::parse(b"[[[[0]]]]", 3), Err(JsonError::TooDeep));
    }

    #[test]
    fn text_in_utf16_and_trailing_text_are_refused() {
        assert_eq!(Json::parse(b"\xff\xfe{\0}\0", 3), Err(JsonError::Syntax));
        assert_eq!(Json::parse(b"{} {}", 3), Err(JsonError::Syntax));
        assert_eq!(Json::parse(b"\xef\xbb\xbf{}", 3), Err(JsonError::Syntax));
    }
}

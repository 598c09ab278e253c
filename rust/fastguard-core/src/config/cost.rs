//! What a call of a tool costs: a number, or an argument of the call.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most members that lead to an argument.
const MAX_STEPS: usize = 8;

/// `5`, `"arguments.max_rows"`, `"arguments.page.size / 1000"`, `"arguments.seconds * 2"`. Nothing else is read.
#[derive(Clone, Debug, PartialEq)]
pub enum Cost {
    /// The same for every call.
    Fixed(u32),
    /// An argument's value times `factor / divisor`, rounded up, at least 1.
    Argument {
        /// The members from the arguments to the number.
        path: Vec<Box<str>>,
        /// What it is multiplied with.
        factor: u32,
        /// What it is divided by.
        divisor: u32,
    },
}

impl FromStr for Cost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let at = text.find(['/', '*']);
            let (path, number) = at.map_or((text, None), |at| {
                let (path, rest) = text.split_at_checked(at).unwrap_or((text, ""));
                (path, Some(rest))
            });
            let number = |sign| match number.and_then(|rest| rest.strip_prefix(sign)) {
                Some(digits) => {
                    let digits = digits.trim();
                    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
                    digits.parse().ok().filter(|value: &u32| is_number && *value > 0)
                }
                None => Some(1),
            };
            let path: Vec<Box<str>> = path.trim().strip_prefix("arguments.")?.split('.').map(Box::from).collect();
            let is_word = |step: &str| {
                !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
            };
            let has_form = path.len() <= MAX_STEPS && path.iter().all(|step| is_word(step));
            Some(Self::Argument { path, factor: number('*')?, divisor: number('/')? }).filter(|_| has_form)
        };
        parse().ok_or_else(|| {
            format!("`{text}` is no cost: write a number, \"arguments.max_rows\" or \"arguments.max_rows / 1000\"")
        })
    }
}

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CostVisitor;

        impl Visitor<'_> for CostVisitor {
            type Value = Cost;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a cost: a number from 1 on, or \"arguments.max_rows / 1000\"")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Cost, E> {
                self.visit_u64(u64::try_from(number).unwrap_or(0))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Cost, E> {
                let cost = u32::try_from(number).ok().filter(|cost| *cost > 0);
                cost.map(Cost::Fixed).ok_or_else(|| E::custom("a cost lies between 1 and 4294967295"))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Cost, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(CostVisitor)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(cost) => write!(f, "{cost}"),
            Self::Argument { path, factor, divisor } => {
                write!(f, "arguments.{}", path.join("."))?;
                if *factor > 1 {
                    write!(f, " * {factor}")?;
                }
                if *divisor > 1 {
                    write!(f, " / {divisor}")?;
                }
                Ok(())
            }
        }
    }
}

impl Serialize for Cost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(cost) => serializer.serialize_u32(*cost),
            Self::Argument { .. } => serializer.collect_str(self),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Cost {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cost".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "What a call costs: a number, or an argument: \"arguments.max_rows / 1000\".",
            "anyOf": [{"type": "integer", "minimum": 1, "maximum": 4_294_967_295_u32}, {"type": "string", "pattern": "^\\s*arguments\\..+$"}],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_and_written_in_one_form_and_nothing_else_is() {
        for (text, same) in [
            ("arguments.rows", "arguments.rows"),
            (" arguments.page.size/1000 ", "arguments.page.size / 1000"),
            ("arguments.seconds * 2", "arguments.seconds * 2"),
        ] {
            assert_eq!(text.parse::<Cost>().map(|cost| cost.to_string()), Ok(same.to_owned()), "{text}");
        }
        for text in [
            "",
            "arguments",
            "arguments.",
            "arguments.a..b",
            "rows / 2",
            "arguments.a / 0",
            "arguments.a / -1",
            "arguments.a /",
            "arguments.a / +1",
            "arguments.a / 1.5",
            "arguments.a / 2 / 3",
            "arguments.a * 2 / 3",
            "arguments.a + 1",
            "arguments.a b",
            "arguments.a[0]",
            "arguments.a.b.c.d.e.f.g.h.i",
            "5",
        ] {
            assert!(text.parse::<Cost>().is_err(), "{text}");
        }
    }
}

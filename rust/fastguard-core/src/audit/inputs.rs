//! What a record says of a call's arguments: names, types, lengths and keyed hashes; values only where a rule
//! names the argument.

use std::borrow::Cow;

use super::canonical;
use super::digest::HashKey;
use super::line::{Object, start_of, string};
use super::record::Arguments;
use crate::bounds::MAX_MESSAGE_DEPTH;
use crate::json::Json;

/// Longest value that is recorded whole, as canonical JSON.
const MAX_VALUE_BYTES: usize = 1_024;
/// Most arguments that a record lists; the hash covers all of them.
const MAX_LISTED: usize = 64;
/// Longest argument name that is recorded whole.
const MAX_ARGUMENT_NAME_BYTES: usize = 128;

/// Arguments that were too large to wait in the queue: what the record will say of them.
#[derive(Debug, Default)]
pub struct Digested {
    members: Vec<u8>,
}

impl Digested {
    pub(super) const fn weight(&self) -> usize {
        self.members.len()
    }
}

type Member<'a> = (Cow<'a, str>, Json<'a>);

/// Hashes arguments.
pub(super) struct Inputs {
    key: HashKey,
    canonical: Vec<u8>,
}

impl Inputs {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self { key: HashKey::new(key), canonical: Vec::new() }
    }

    /// Names the key in the log without giving it away.
    pub(super) fn key_name(&self) -> [u8; 16] {
        self.key.hash(b"mcp-fastguard audit key")
    }

    /// What [`Self::write`] would write, made now.
    pub(super) fn digest(&mut self, arguments: &Arguments, logged: &[Box<str>]) -> Digested {
        let mut members = Vec::new();
        self.write(arguments, logged, &mut Object::inside(&mut members));
        Digested { members }
    }

    /// A digest of `named` and of the arguments.
    pub(super) fn digest_of(&mut self, named: &[&str], arguments: &Arguments) -> [u8; 16] {
        let mut text = self.digest(arguments, &[]).members;
        // Without the comma that parts them from the members before them: there are none.
        if !text.is_empty() {
            text.remove(0);
        }
        for name in named {
            text.extend_from_slice(&(name.len() as u64).to_be_bytes());
            text.extend_from_slice(name.as_bytes());
        }
        self.key.hash(&text)
    }

    /// Writes `input_params` and `input_hash`.
    pub(super) fn write(&mut self, arguments: &Arguments, logged: &[Box<str>], object: &mut Object<'_>) {
        let (text, path): (_, &[&str]) = match arguments {
            Arguments::None => return,
            Arguments::Digest(digested) => return object.members(&digested.members),
            Arguments::Text(text) => (text, &[]),
            Arguments::Params(text) => (text, &["arguments"]),
            Arguments::Message(text) => (text, &["params", "arguments"]),
        };
        let Ok(value) = Json::parse(text, MAX_MESSAGE_DEPTH) else {
            object.hex("input_hash", &self.key.hash(text));
            return object.flag("input_unparsed", true);
        };
        match path.iter().try_fold(&value, |value, name| value.member(name)) {
            None => {}
            Some(Json::Object(members)) => self.write_members(members, logged, object),
            Some(value) => {
                self.canonical.clear();
                canonical::write(value, &mut self.canonical);
                object.hex("input_hash", &self.key.hash(&self.canonical));
            }
        }
    }

    /// Builds the canonical form of the whole object member by member, so that each is formatted once.
    fn write_members(&mut self, members: &[Member<'_>], logged: &[Box<str>], object: &mut Object<'_>) {
        let members = canonical::sorted(members);
        let mut listed = object.object("input_params");
        self.canonical.clear();
        self.canonical.push(b'{');
        for (index, (name, value)) in members.iter().enumerate() {
            if index > 0 {
                self.canonical.push(b',');
            }
            canonical::string(name, &mut self.canonical);
            self.canonical.push(b':');
            let start = self.canonical.len();
            canonical::write(value, &mut self.canonical);
            if index < MAX_LISTED {
                let text = self.canonical.get(start..).unwrap_or_default();
                let out = listed.foreign(name, MAX_ARGUMENT_NAME_BYTES);
                if logged.iter().any(|logged| **logged == **name) {
                    write_value(value, text, &self.key, out);
                } else {
                    write_hash(value, text, &self.key, out);
                }
            }
        }
        self.canonical.push(b'}');
        listed.close();
        if let Some(omitted) = members.len().checked_sub(MAX_LISTED + 1) {
            object.number("input_params_omitted", omitted as u64 + 1);
        }
        object.hex("input_hash", &self.key.hash(&self.canonical));
    }
}

fn write_hash(value: &Json<'_>, canonical: &[u8], key: &HashKey, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.hex("hash", &key.hash(canonical));
    let (member, length) = match value {
        Json::Null => (r#","type":"null""#, None),
        Json::Bool(_) => (r#","type":"boolean""#, None),
        Json::Number(_) => (r#","type":"number""#, None),
        Json::String(text) => (r#","type":"string""#, Some(text.len())),
        Json::Array(elements) => (r#","type":"array""#, Some(elements.len())),
        Json::Object(members) => (r#","type":"object""#, Some(members.len())),
    };
    object.fixed(member);
    object.number_if("length", length.map(|length| length as u64));
    object.close();
}

/// The value itself. One that is an object stands under `value`, so that no caller can make a value look like a
/// hash, or like the start of a longer one.
fn write_value(value: &Json<'_>, canonical: &[u8], key: &HashKey, out: &mut Vec<u8>) {
    if canonical.len() > MAX_VALUE_BYTES {
        let text = String::from_utf8_lossy(canonical);
        let mut object = Object::open(out);
        object.text("start", start_of(&text, MAX_VALUE_BYTES));
        object.flag("truncated", true);
        object.number("length", canonical.len() as u64);
        object.hex("hash", &key.hash(canonical));
        return object.close();
    }
    if matches!(value, Json::Object(_)) {
        out.extend_from_slice(b"{\"value\":");
        canonical::write_with(value, out, string);
        out.push(b'}');
    } else {
        canonical::write_with(value, out, string);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::line::in_hex;

    fn described(arguments: &Arguments, logged: &[&str]) -> serde_json::Value {
        let logged: Vec<Box<str>> = logged.iter().map(|name| Box::from(*name)).collect();
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        Inputs::new(&[7; 32]).write(arguments, &logged, &mut object);
        object.close();
        serde_json::from_slice(&out).unwrap()
    }

    fn text(json: &str) -> Arguments {
        Arguments::Text(json.as_bytes().into())
    }

    fn keyed_hash(canonical: &str) -> String {
        in_hex(&HashKey::new(&[7; 32]).hash(canonical.as_bytes()))
    }

    #[test]
    fn arguments_are_named_typed_measured_and_hashed() {
        let record = described(&text(r#"{"sql": "select ü", "limit": 1e1, "tags": ["a","b"]}"#), &[]);

        assert_eq!(
            record,
            serde_json::json!({
                "input_params": {
                    "limit": {"hash": keyed_hash("10"), "type": "number"},
                    "sql": {"hash": keyed_hash("\"select ü\""), "type": "string", "length": 9},
                    "tags": {"hash": keyed_hash(r#"["a","b"]"#), "type": "array", "length": 2},
                },
                "input_hash": keyed_hash(r#"{"limit":10,"sql":"select ü","tags":["a","b"]}"#),
            })
        );
    }

    #[test]
    fn values_are_recorded_only_for_the_named_arguments() {
        let record = described(&text(r#"{"sql": "select 1", "password": "hunter2"}"#), &["sql"]);

        assert_eq!(record["input_params"]["sql"], "select 1");
        assert!(!record.to_string().contains("hunter2"));
    }

    #[test]
    fn a_logged_object_cannot_pass_for_a_hash() {
        let record = described(&text(r#"{"sql": {"hash": "00", "type": "string"}}"#), &["sql"]);

        assert_eq!(record["input_params"]["sql"], serde_json::json!({"value": {"hash": "00", "type": "string"}}));
    }

    #[test]
    fn a_logged_value_at_the_bound_is_whole_and_beyond_is_cut() {
        let whole = "x".repeat(MAX_VALUE_BYTES - 2);
        let record = described(&text(&format!(r#"{{"sql":"{whole}"}}"#)), &["sql"]);
        assert_eq!(record["input_params"]["sql"], whole.as_str());

        let record = described(&text(&format!(r#"{{"sql":"{whole}x"}}"#)), &["sql"]);
        assert_eq!(record["input_params"]["sql"]["truncated"], true);
        assert_eq!(record["input_params"]["sql"]["length"], 1_025);
        assert_eq!(record["input_params"]["sql"]["start"].as_str().unwrap().len(), MAX_VALUE_BYTES);
    }

    #[test]
    fn the_arguments_of_a_message_hash_like_the_arguments_alone() {
        let message =
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"b":1, "a":2}}}"#;

        assert_eq!(
            described(&Arguments::Message(message[..].into()), &[]),
            described(&text(r#"{"a":2,"b":1.0}"#), &[])
        );
    }

    #[test]
    fn a_digest_made_ahead_says_the_same() {
        let digested = Inputs::new(&[7; 32]).digest(&text(r#"{"a":"b"}"#), &[]);

        assert_eq!(described(&Arguments::Digest(Box::new(digested)), &[]), described(&text(r#"{"a":"b"}"#), &[]));
    }

    #[test]
    fn more_arguments_than_are_listed_are_counted_and_hashed() {
        let members: Vec<String> = (100..170).map(|n| format!("\"a{n}\":0")).collect();
        let record = described(&text(&format!("{{{}}}", members.join(","))), &[]);

        assert_eq!(record["input_params"].as_object().unwrap().len(), MAX_LISTED);
        assert_eq!(record["input_params_omitted"], 6);
        assert_eq!(record["input_hash"], keyed_hash(&format!("{{{}}}", members.join(","))));
    }

    #[test]
    fn what_is_not_json_is_hashed_as_it_came() {
        let record = described(&text("{"), &[]);

        assert_eq!(record, serde_json::json!({"input_hash": keyed_hash("{"), "input_unparsed": true}));
    }

    #[test]
    fn no_arguments_leave_no_trace() {
        assert_eq!(described(&Arguments::None, &[]), serde_json::json!({}));
        assert_eq!(described(&Arguments::Message(br#"{"params":{}}"#[..].into()), &[]), serde_json::json!({}));
    }
}

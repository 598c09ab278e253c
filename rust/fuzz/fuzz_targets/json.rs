//! What is read as JSON is JSON, means the same to another reader, and has one canonical form (RFC 8259, RFC 8785).
#![no_main]

use fastguard_core::audit::write_canonical;
use fastguard_core::json::Json;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const DEPTH: usize = 32;

fn canonical(value: &Json<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    write_canonical(value, &mut text);
    text
}

fn is_same(ours: &Json<'_>, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(ours), Value::Bool(theirs)) => ours == theirs,
        (Json::Number(ours), Value::Number(theirs)) => ours == theirs,
        (Json::String(ours), Value::String(theirs)) => ours == theirs,
        (Json::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| is_same(ours, theirs))
        }
        (Json::Object(ours), Value::Object(theirs)) => {
            ours.len() == theirs.len()
                && ours.iter().all(|(name, ours)| theirs.get(&**name).is_some_and(|theirs| is_same(ours, theirs)))
        }
        _ => false,
    }
}

fuzz_target!(|text: &[u8]| {
    let Ok(value) = Json::parse(text, DEPTH) else { return };
    let Ok(theirs) = serde_json::from_slice::<Value>(text) else { panic!("read by us alone") };
    assert!(is_same(&value, &theirs), "read as another value");
    let written = canonical(&value);
    let Ok(again) = Json::parse(&written, DEPTH) else { panic!("the canonical form is no JSON") };
    assert_eq!(canonical(&again), written, "the canonical form has another one");
});

//! Bodies of MCP: what the guard decides on is what another reader of the same bytes runs (decision 9 of the design).
#![no_main]

use fastguard_core::request::{Headers, HttpMethod, Kind, ToolRequest};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    let request = ToolRequest::http(HttpMethod::Post, "/mcp", Headers::default(), Some(body.into()), None);
    let Some(target) = request.asked() else { return };
    let Ok(Value::Object(message)) = serde_json::from_slice(body) else { panic!("decided on what is no JSON object") };
    let method = message.get("method").and_then(Value::as_str);
    assert!(method.is_none() || method == Some(target.method_name()), "another method");
    let Some(method) = method else { return };
    let params = message.get("params").cloned().unwrap_or(Value::Object(serde_json::Map::new()));
    if target.kind() == Kind::Tool {
        assert_eq!(params.get("name").and_then(Value::as_str), Some(target.name()), "another tool");
    }
    assert!(request.is_message(method, params.to_string().as_bytes()), "its own message is taken for another");
});

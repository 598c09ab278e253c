//! Reads the message: strictly, and never two different things in header and body (decision 9).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::headers::{Header, Headers};
use super::target::{Kind, RESPONSE, Target, known_method};
use super::trace::Trace;
use crate::bounds::{MAX_BODY_BYTES, MAX_MESSAGE_DEPTH, MAX_NAME_BYTES};
use crate::denial::Denial;
use crate::json::{Json, JsonError};

/// Versions whose servers ignore `Mcp-Method` and `Mcp-Name`; a request without a version is one of these.
const VERSIONS_WITHOUT_ROUTING_HEADERS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// What a POST is about.
pub(super) fn target(headers: &Headers, body: Option<&[u8]>) -> Result<Target, Denial> {
    if headers.text(Header::ContentEncoding)?.is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(Denial::BodyEncoded);
    }
    let Some(body) = body else { return target_of_headers(headers) };
    if body.len() > MAX_BODY_BYTES {
        return Err(Denial::BodyTooLarge);
    }
    let message = parse(body)?;
    let target = target_of_message(&message)?;
    compare(headers, &target, &message)?;
    Ok(target)
}

/// What a message that an SDK has parsed is about.
pub(super) fn target_of_params(method: &str, params: &[u8], id: Option<Box<str>>) -> Result<Target, Denial> {
    let params = parse(params)?;
    Ok(target_of_method(method, Some(&params))?.with_id(id).with_trace(trace_of(Some(&params))))
}

/// The members of `params` by which two messages are told apart.
pub const DECIDING_MEMBERS: [&str; 7] = ["name", "arguments", "uri", "ref", "argument", "notifications", "taskId"];

/// A member of `params` as an SDK hands it on: parsed by whatever means.
pub trait HandedOn {
    /// Whether it is null, or an object without members.
    fn is_empty(&self) -> bool;
    /// Whether it has the value that was sent.
    fn is_same(&self, sent: &Json<'_>) -> bool;
}

impl HandedOn for &Json<'_> {
    fn is_empty(&self) -> bool {
        matches!(self, Json::Null) || self.as_object().is_some_and(<[_]>::is_empty)
    }

    fn is_same(&self, sent: &Json<'_>) -> bool {
        Json::is_same(self, sent)
    }
}

/// Compares what decides: SDKs may add to `_meta` and to nothing else. An absent member is the same as an empty one.
pub(super) fn is_same_message<V: HandedOn>(
    body: &[u8],
    method: &str,
    member: impl Fn(&'static str) -> Option<V>,
) -> bool {
    let Ok(message) = parse(body) else { return false };
    if message.member("method").and_then(Json::as_str) != Some(method) {
        return false;
    }
    let params = message.member("params");
    DECIDING_MEMBERS.into_iter().all(|name| match (params.and_then(|params| params.member(name)), member(name)) {
        (None, None) => true,
        (Some(sent), None) => sent.is_empty(),
        (None, Some(handed_on)) => handed_on.is_empty(),
        (Some(sent), Some(handed_on)) => handed_on.is_same(sent) || (sent.is_empty() && handed_on.is_empty()),
    })
}

fn parse(text: &[u8]) -> Result<Json<'_>, Denial> {
    Json::parse(text, MAX_MESSAGE_DEPTH).map_err(|error| match error {
        JsonError::Syntax => Denial::BodyNotJson,
        JsonError::TooDeep => Denial::BodyTooDeep,
        JsonError::Duplicate => Denial::MemberDuplicated,
    })
}

/// The body is unseen: the headers count, but only where the server is bound to compare them with the body.
fn target_of_headers(headers: &Headers) -> Result<Target, Denial> {
    let version = headers.text(Header::ProtocolVersion)?.unwrap_or_default();
    if version.is_empty() || VERSIONS_WITHOUT_ROUTING_HEADERS.contains(&version) {
        return Err(Denial::BodyMissing);
    }
    let method = headers.text(Header::McpMethod)?.ok_or(Denial::BodyMissing)?;
    let kind = match method {
        "tools/call" => Kind::Tool,
        "prompts/get" => Kind::Prompt,
        "resources/read" => Kind::Resource,
        // These name their targets only in the body.
        "resources/subscribe" | "resources/unsubscribe" | "completion/complete" | "subscriptions/listen" => {
            return Err(Denial::BodyMissing);
        }
        _ => return Ok(Target::method(known_method(method)).with_body_unseen()),
    };
    let name = headers.text(Header::McpName)?.ok_or(Denial::BodyMissing)?;
    let name = decoded(name).ok_or(Denial::HeaderInvalid { header: Header::McpName.name() })?;
    Ok(Target::named(kind, known_method(method), &name)?.with_body_unseen())
}

fn target_of_message(message: &Json<'_>) -> Result<Target, Denial> {
    if matches!(message, Json::Array(_)) {
        return Err(Denial::BatchRefused);
    }
    if message.as_object().is_none() {
        return Err(Denial::MessageInvalid { what: "not an object" });
    }
    if message.member("jsonrpc").and_then(Json::as_str) != Some("2.0") {
        return Err(Denial::MessageInvalid { what: "`jsonrpc` is not \"2.0\"" });
    }
    let id = match message.member("id") {
        None => None,
        Some(Json::String(id)) => Some(serde_json::Value::from(&**id).to_string().into_boxed_str()),
        Some(Json::Number(id)) => Some(id.to_string().into_boxed_str()),
        Some(_) => return Err(Denial::MessageInvalid { what: "`id` is neither a string nor a number" }),
    };
    let is_answer = message.member("result").is_some() || message.member("error").is_some();
    match message.member("method") {
        None if is_answer && id.is_some() => Ok(Target::method(Cow::Borrowed(RESPONSE))),
        None => Err(Denial::MessageInvalid { what: "neither a method nor an answer" }),
        Some(Json::String(method)) if !is_answer => {
            let params = message.member("params");
            Ok(target_of_method(method, params)?.with_id(id).with_trace(trace_of(params)))
        }
        Some(_) => Err(Denial::MessageInvalid { what: "`method` is not a string, or stands beside an answer" }),
    }
}

fn target_of_method(method: &str, params: Option<&Json<'_>>) -> Result<Target, Denial> {
    if method.is_empty() || method.len() > MAX_NAME_BYTES {
        return Err(Denial::MessageInvalid { what: "`method` is empty or too long" });
    }
    if params.is_some_and(|params| params.as_object().is_none()) {
        return Err(Denial::MessageInvalid { what: "`params` is not an object" });
    }
    let member = |name: &str| params.and_then(|params| params.member(name));
    refuse_version_selector(member("_meta"))?;
    let text = |value: Option<&Json<'_>>, what: &'static str| -> Result<String, Denial> {
        value.and_then(Json::as_str).map(str::to_owned).ok_or(Denial::MessageInvalid { what })
    };
    let known = known_method(method);
    match method {
        "tools/call" => {
            if member("arguments").is_some_and(|arguments| !matches!(arguments, Json::Object(_) | Json::Null)) {
                return Err(Denial::MessageInvalid { what: "`params.arguments` is not an object" });
            }
            Target::named(Kind::Tool, known, &text(member("name"), "`params.name` is not a string")?)
        }
        "prompts/get" => Target::named(Kind::Prompt, known, &text(member("name"), "`params.name` is not a string")?),
        // Removed in 2026-07-28, whose servers answer 404 before they look for a URI: without one it is a method like others.
        "resources/subscribe" | "resources/unsubscribe" if member("uri").is_none() => Ok(Target::method(known)),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            Target::named(Kind::Resource, known, &text(member("uri"), "`params.uri` is not a string")?)
        }
        "completion/complete" => {
            let reference = member("ref");
            let of = |name: &str| reference.and_then(|reference| reference.member(name));
            match of("type").and_then(Json::as_str) {
                Some("ref/prompt") => {
                    Target::named(Kind::Prompt, known, &text(of("name"), "`params.ref.name` is not a string")?)
                }
                Some("ref/resource") => {
                    Target::named(Kind::Resource, known, &text(of("uri"), "`params.ref.uri` is not a string")?)
                }
                _ => Err(Denial::MessageInvalid { what: "`params.ref.type` is not known" }),
            }
        }
        "subscriptions/listen" => Ok(Target::method(known).with_also(subscribed(member("notifications"))?)),
        _ => Ok(Target::method(known)),
    }
}

/// The resources that a subscription names; each needs its own rule.
fn subscribed(filter: Option<&Json<'_>>) -> Result<Vec<Box<str>>, Denial> {
    let invalid = Denial::MessageInvalid { what: "`resourceSubscriptions` is not a list of strings" };
    match filter.and_then(|filter| filter.member("resourceSubscriptions")) {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(uris)) => {
            uris.iter().map(|uri| uri.as_str().map(Box::from).ok_or_else(|| invalid.clone())).collect()
        }
        Some(_) => Err(invalid),
    }
}

/// The trace that a message names in `_meta`, as W3C Trace Context has it. It decides nothing, so what cannot be read is none.
fn trace_of(params: Option<&Json<'_>>) -> Option<Trace> {
    Trace::parse(params?.member("_meta")?.member("traceparent")?.as_str()?)
}

/// `FastMCP` runs another version of a tool where `_meta.fastmcp.version` names one; rules know tools by name alone.
fn refuse_version_selector(meta: Option<&Json<'_>>) -> Result<(), Denial> {
    let selects =
        |key: &str| meta.and_then(|meta| meta.member(key)).is_some_and(|inner| inner.member("version").is_some());
    if selects("fastmcp") || selects("_fastmcp") {
        return Err(Denial::MessageInvalid { what: "`_meta` selects a version of the target" });
    }
    Ok(())
}

/// Headers that name the message must agree with it, whichever version the server speaks.
fn compare(headers: &Headers, target: &Target, message: &Json<'_>) -> Result<(), Denial> {
    let mismatch = |header: Header| Denial::HeaderMismatch { header: header.name() };
    if let Some(method) = headers.text(Header::McpMethod)?
        && message.member("method").and_then(Json::as_str) != Some(method)
    {
        return Err(mismatch(Header::McpMethod));
    }
    if let Some(name) = headers.text(Header::McpName)? {
        let is_named = matches!(target.method_name(), "tools/call" | "prompts/get" | "resources/read");
        // On a method without a name the header decides nothing, for the server either.
        if is_named && decoded(name).as_deref() != Some(target.name()) {
            return Err(mismatch(Header::McpName));
        }
    }
    Ok(())
}

/// A header's value, its `=?base64?…?=` form decoded (MCP 2026-07-28, streamable HTTP); `None` where that is not canonical.
fn decoded(value: &str) -> Option<Cow<'_, str>> {
    let Some(encoded) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Some(Cow::Borrowed(value));
    };
    let bytes = STANDARD.decode(encoded).ok()?;
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in list {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        headers
    }

    const CALL: &[u8] =
        br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"add","arguments":{"a":1}}}"#;

    #[test]
    fn call_names_its_tool_and_id() {
        let target = target(&headers(&[]), Some(CALL)).unwrap();

        assert_eq!(
            (target.kind(), target.name(), target.method_name(), target.id()),
            (Kind::Tool, "add", "tools/call", Some("7"))
        );
    }

    #[test]
    fn header_that_differs_from_the_body_is_refused_in_every_version() {
        for version in ["2026-07-28", "2025-11-25"] {
            let forged =
                headers(&[("mcp-protocol-version", version), ("mcp-method", "tools/call"), ("mcp-name", "safe")]);
            assert_eq!(target(&forged, Some(CALL)).unwrap_err(), Denial::HeaderMismatch { header: "mcp-name" });
            let forged = headers(&[("mcp-protocol-version", version), ("mcp-method", "ping")]);
            assert_eq!(target(&forged, Some(CALL)).unwrap_err(), Denial::HeaderMismatch { header: "mcp-method" });
        }
    }

    #[test]
    fn encoded_name_is_compared_decoded() {
        assert!(target(&headers(&[("mcp-name", "=?base64?YWRk?=")]), Some(CALL)).is_ok());
        assert!(target(&headers(&[("mcp-name", "=?base64?YWRl?=")]), Some(CALL)).is_err());
        assert!(target(&headers(&[("mcp-name", "=?base64?YWRk=?=")]), Some(CALL)).is_err());
    }

    #[test]
    fn unseen_body_is_decided_by_headers_only_where_the_server_compares_them() {
        let named =
            |version| headers(&[("mcp-protocol-version", version), ("mcp-method", "tools/call"), ("mcp-name", "add")]);
        assert_eq!(target(&named("2026-07-28"), None).unwrap().name(), "add");
        assert_eq!(target(&named("2025-11-25"), None).unwrap_err(), Denial::BodyMissing);
        assert_eq!(target(&headers(&[("mcp-method", "tools/call")]), None).unwrap_err(), Denial::BodyMissing);
    }

    #[test]
    fn bodies_that_are_no_single_message_are_refused_by_their_code() {
        for (body, code) in [
            (&b"[]"[..], "batch_refused"),
            (b"[{\"jsonrpc\":\"2.0\"}]", "batch_refused"),
            (b"", "body_not_json"),
            (b"{", "body_not_json"),
            (b"1", "message_invalid"),
            (b"{}", "message_invalid"),
            (br#"{"jsonrpc":"1.0","method":"ping"}"#, "message_invalid"),
            (br#"{"jsonrpc":"2.0","method":7}"#, "message_invalid"),
            (br#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, "message_invalid"),
            (br#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, "message_invalid"),
            (br#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, "message_invalid"),
            (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#, "message_invalid"),
            (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":""}}"#, "message_invalid"),
            (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#, "member_duplicated"),
            (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","n\u0061me":"b"}}"#, "member_duplicated"),
            (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":"x"}}"#, "message_invalid"),
            (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","_meta":{"fastmcp":{"version":"1"}}}}"#, "message_invalid"),
        ] {
            let refused = target(&headers(&[]), Some(body)).unwrap_err();
            assert_eq!(refused.code(), code, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn encoded_body_is_refused() {
        assert_eq!(target(&headers(&[("content-encoding", "gzip")]), Some(CALL)).unwrap_err(), Denial::BodyEncoded);
        assert!(target(&headers(&[("content-encoding", "identity")]), Some(CALL)).is_ok());
    }

    #[test]
    fn body_at_the_bound_is_read_and_beyond_is_refused() {
        let call = |padding: usize| {
            let mut body = CALL.to_vec();
            body.resize(padding, b' ');
            body
        };
        assert!(target(&headers(&[]), Some(&call(MAX_BODY_BYTES))).is_ok());
        assert_eq!(target(&headers(&[]), Some(&call(MAX_BODY_BYTES + 1))).unwrap_err(), Denial::BodyTooLarge);
    }

    #[test]
    fn every_method_finds_its_kind() {
        for (method, params, kind, name) in [
            ("prompts/get", r#"{"name":"p"}"#, Kind::Prompt, "p"),
            ("resources/read", r#"{"uri":"file:///a"}"#, Kind::Resource, "file:///a"),
            ("resources/subscribe", r#"{"uri":"file:///a"}"#, Kind::Resource, "file:///a"),
            ("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"p"}}"#, Kind::Prompt, "p"),
            ("completion/complete", r#"{"ref":{"type":"ref/resource","uri":"u:{x}"}}"#, Kind::Resource, "u:{x}"),
            ("tasks/get", r#"{"taskId":"1"}"#, Kind::Method, "tasks/get"),
            ("tools/list", "{}", Kind::Method, "tools/list"),
            ("x.example/other", "{}", Kind::Method, "x.example/other"),
        ] {
            let target = target_of_params(method, params.as_bytes(), None).unwrap();
            assert_eq!((target.kind(), target.name()), (kind, name), "{method}");
        }
    }

    #[test]
    fn subscription_names_every_resource_of_its_filter() {
        let params = br#"{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["a:1","b:2"]}}"#;
        let target = target_of_params("subscriptions/listen", params, None).unwrap();

        assert_eq!(target.also(), [Box::from("a:1"), Box::from("b:2")]);
    }

    #[test]
    fn answer_to_a_request_of_the_server_is_a_method_of_its_own() {
        let target = target(&headers(&[]), Some(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#)).unwrap();

        assert_eq!((target.kind(), target.name()), (Kind::Method, RESPONSE));
    }
}

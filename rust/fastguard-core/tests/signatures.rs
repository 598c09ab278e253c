//! Signed requests (RFC 9421, RFC 9530), through the whole gate: each check just failed and just passed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    reason = "tests fail by panics"
)]

mod signing;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fastguard_core::Config;
use fastguard_core::clock::{Now, Tick, UnixTime};
use fastguard_core::denial::{Denial, GateError};
use fastguard_core::gate::{Answer, ClaimAnswer, Decision, Gate};
use fastguard_core::jose::{sha256, sha512};
use fastguard_core::request::{Headers, HttpMethod, ToolRequest};
use fastguard_core::token::{Answered, Attached};
use serde_json::{Value, json};
use signing::{Signer, encode};

const ISSUER: &str = "https://auth.example.com";
const URL: &str = "https://mcp.example.com/mcp";
const NOW: i64 = 1_795_219_200;
/// The defaults: 5 minutes, and 30 s for clocks.
const MAX_AGE: i64 = 300;
const LEEWAY: i64 = 30;
const COVERED: &str = r#""@method" "@target-uri" "content-digest" "authorization""#;
const BODY: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{}}}"#;

fn now_at(seconds: i64) -> Now {
    let tick = Tick::from_nanos(u64::try_from(seconds).unwrap() * 1_000_000_000);
    Now { unix: UnixTime::from_seconds(seconds), tick, own: tick }
}

fn digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(sha256(body)))
}

/// A guard, an issuer, and a client with a registered key.
struct Stage {
    issuer: Signer,
    client: Signer,
    gate: Gate,
}

/// A request that passes, for tests to change.
#[derive(Clone)]
struct Draft {
    method: &'static str,
    url: String,
    query: &'static str,
    token: String,
    body: Option<Vec<u8>>,
    fields: Vec<(String, String)>,
    covered: String,
    parameters: String,
    label: &'static str,
}

impl Stage {
    fn new(table: &str) -> Self {
        Self::of(Signer::edwards(), table)
    }

    fn of(client: Signer, table: &str) -> Self {
        let issuer = Signer::elliptic();
        let gate = Gate::new(configuration(&issuer, &client, table), None).unwrap();
        Self { issuer, client, gate }
    }

    fn token(&self, client_id: &str, more: &Value) -> String {
        let mut claims = json!({
            "iss": ISSUER, "aud": URL, "sub": "alice", "client_id": client_id, "iat": NOW - 60, "exp": NOW + 3_000,
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.issuer.token("issuer", &claims)
    }

    fn draft(&self) -> Draft {
        Draft {
            method: "POST",
            url: URL.to_owned(),
            query: "",
            token: self.token("agent", &json!({})),
            body: Some(BODY.to_vec()),
            fields: vec![("content-digest".to_owned(), digest(BODY))],
            covered: COVERED.to_owned(),
            parameters: format!(";created={NOW};keyid=\"key\";nonce=\"one\""),
            label: "sig",
        }
    }

    fn decide(&self, request: &ToolRequest, now: i64) -> Result<Decision, Denial> {
        match self.gate.check(request, now_at(now)) {
            Ok(decision) => Ok(decision),
            Err(GateError::Denied(denial, _)) => Err(denial),
            Err(GateError::Faulted(fault)) => panic!("{fault}"),
        }
    }

    fn code(&self, request: &ToolRequest) -> &'static str {
        self.code_at(request, NOW)
    }

    fn code_at(&self, request: &ToolRequest, now: i64) -> &'static str {
        match self.decide(request, now) {
            Ok(Decision::Allowed(_)) => "allowed",
            Ok(_) => panic!("nothing is waited for"),
            Err(denial) => denial.code(),
        }
    }

    /// What a draft is answered with once its client has signed it.
    fn judge(&self, change: impl FnOnce(Draft) -> Draft) -> &'static str {
        self.code(&change(self.draft()).signed(&self.client))
    }
}

fn configuration(issuer: &Signer, client: &Signer, table: &str) -> Config {
    let text = format!(
        "version = 1\n[resource]\nurl = \"{URL}\"\n[[issuers]]\nissuer = \"{ISSUER}\"\njwks = '{}'\n\
         [tools.add]\nopen = true\n[tools.pay]\nopen = true\nSIGNED\n[audit]\nenabled = false\n\
         [signatures]\n{table}\n[[signatures.clients]]\nclient_id = \"agent\"\njwks = '{}'\n",
        issuer.jwk("issuer"),
        client.jwk("key")
    );
    Config::from_toml(&text.replace("SIGNED", "signed = true"), None).unwrap()
}

impl Draft {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn parameters(self, text: &str) -> Self {
        let text = text.replace("NOW", &NOW.to_string());
        self.with(|draft| draft.parameters = text)
    }

    fn covered(self, text: &str) -> Self {
        let text = text.to_owned();
        self.with(|draft| draft.covered = text)
    }

    fn field(self, name: &str, value: &str) -> Self {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.with(|draft| draft.fields.push((name, value)))
    }

    /// The value of a component, as a signer that no one here wrote would find it in the RFC.
    fn value(&self, identifier: &str) -> String {
        let name = identifier.split('"').nth(1).unwrap();
        match name {
            "@method" => self.method.to_owned(),
            "@target-uri" if self.query.is_empty() => self.url.clone(),
            "@target-uri" => format!("{}?{}", self.url, self.query),
            "@authority" => "mcp.example.com".to_owned(),
            "@path" => "/mcp".to_owned(),
            "@scheme" => "https".to_owned(),
            "@query" => format!("?{}", self.query),
            "authorization" => format!("Bearer {}", self.token),
            _ => {
                let values: Vec<&str> =
                    self.fields.iter().filter(|(found, _)| found == name).map(|(_, value)| value.trim()).collect();
                values.join(", ")
            }
        }
    }

    /// `Signature-Input` and `Signature`.
    fn signature(&self, signer: &Signer) -> (String, String) {
        let input = format!("({}){}", self.covered, self.parameters);
        let identifiers = self.covered.split(' ').filter(|identifier| !identifier.is_empty());
        let lines: String = identifiers
            .flat_map(|identifier| {
                [identifier, ": ", &*self.value(identifier), "\n"].concat().chars().collect::<Vec<_>>()
            })
            .collect();
        let signature = signer.sign(format!("{lines}\"@signature-params\": {input}").as_bytes());
        (format!("{}={input}", self.label), format!("{}=:{}:", self.label, STANDARD.encode(signature)))
    }

    fn signed(self, signer: &Signer) -> ToolRequest {
        let (input, signature) = self.signature(signer);
        self.sent(&[("signature-input", &input), ("signature", &signature)])
    }

    /// The request as it goes out, with these headers besides.
    fn sent(self, more: &[(&str, &str)]) -> ToolRequest {
        let authorization = format!("Bearer {}", self.token);
        let mut lines: Vec<(&str, &str)> = vec![("Authorization", &authorization)];
        lines.extend(self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        lines.extend(more);
        request(self.method, &lines, self.query, self.body)
    }
}

fn request(method: &str, lines: &[(&str, &str)], query: &str, body: Option<Vec<u8>>) -> ToolRequest {
    let mut headers = Headers::default();
    for (name, value) in lines {
        headers.push(name.as_bytes(), value.as_bytes());
    }
    if headers.are_signed() {
        for (name, value) in lines {
            headers.keep(name.as_bytes(), value.as_bytes());
        }
        if !query.is_empty() {
            headers.keep_query(query);
        }
    }
    ToolRequest::http(HttpMethod::from_name(method), "/mcp", headers, body.map(Into::into), None)
}

const REQUIRED: &str = "mode = \"required\"";

#[test]
fn request_that_its_client_signed_passes_once() {
    let stage = Stage::new(REQUIRED);
    let draft = stage.draft();
    assert_eq!(stage.code(&draft.clone().signed(&stage.client)), "allowed");
    assert_eq!(stage.code(&draft.clone().signed(&stage.client)), "signature_replayed");
    let other = format!(";created={NOW};keyid=\"key\";nonce=\"two\"");
    assert_eq!(stage.code(&draft.parameters(&other).signed(&stage.client)), "allowed");
}

#[test]
fn algorithms_of_keys_pass_where_they_are_allowed() {
    for signer in [Signer::elliptic(), Signer::edwards(), Signer::rsa()] {
        let is_rsa = signer.algorithm() == "RS256";
        let stage = Stage::of(signer, REQUIRED);
        // A key of RSA that does not say otherwise is for PSS.
        assert_eq!(stage.judge(|draft| draft), if is_rsa { "signature_mismatch" } else { "allowed" });
    }
    let stage = Stage::of(Signer::rsa(), "mode = \"required\"\nalgorithms = [\"rsa-v1_5-sha256\"]");
    assert_eq!(stage.judge(|draft| draft), "allowed");
    let stage = Stage::of(Signer::elliptic(), "mode = \"required\"\nalgorithms = [\"ed25519\"]");
    assert_eq!(stage.judge(|draft| draft), "signature_algorithm_refused");
}

#[test]
fn alg_may_only_confirm_what_the_key_is_for() {
    let stage = Stage::new(REQUIRED);
    for (said, code) in [
        ("ed25519", "allowed"),
        ("ecdsa-p256-sha256", "signature_algorithm_refused"),
        ("hmac-sha256", "signature_algorithm_refused"),
        ("none", "signature_algorithm_refused"),
    ] {
        let parameters = format!(";created=NOW;keyid=\"key\";nonce=\"{said}\";alg=\"{said}\"");
        assert_eq!(stage.judge(|draft| draft.parameters(&parameters)), code, "{said}");
    }
}

#[test]
fn modes_say_whether_requests_may_or_must_be_signed() {
    for (mode, unsigned, wrong) in
        [("optional", "allowed", "signature_mismatch"), ("required", "signature_missing", "signature_mismatch")]
    {
        let stage = Stage::new(&format!("mode = \"{mode}\""));
        assert_eq!(stage.code(&stage.draft().sent(&[])), unsigned, "{mode}");
        assert_eq!(stage.code(&stage.draft().signed(&Signer::edwards())), wrong, "{mode}");
    }
}

#[test]
fn rule_demands_a_signed_request() {
    let stage = Stage::new("mode = \"optional\"");
    let pay = |draft: Draft| {
        let body = String::from_utf8(BODY.to_vec()).unwrap().replace("add", "pay").into_bytes();
        draft.with(|draft| {
            draft.fields = vec![("content-digest".to_owned(), digest(&body))];
            draft.body = Some(body);
        })
    };
    let denial = stage.decide(&pay(stage.draft()).sent(&[]), NOW).unwrap_err();
    assert_eq!((denial.code(), denial.status()), ("signature_required", 401));
    assert_eq!(stage.code(&pay(stage.draft()).signed(&stage.client)), "allowed");
}

#[test]
fn message_of_an_sdk_brings_no_signature() {
    let stage = Stage::new(REQUIRED);
    let message = ToolRequest::tool("add", None, Some(stage.token("agent", &json!({})).into()), None);
    assert_eq!(stage.code(&message), "signature_missing");
}

#[test]
fn what_was_changed_on_the_way_is_refused() {
    let stage = Stage::new(REQUIRED);
    let good = stage.draft();
    let (input, signature) = good.signature(&stage.client);
    let sent = |draft: Draft| stage.code(&draft.sent(&[("signature-input", &input), ("signature", &signature)]));
    let changed = String::from_utf8(BODY.to_vec()).unwrap().replace("add", "pay").into_bytes();
    assert_eq!(sent(good.clone().with(|draft| draft.body = Some(changed.clone()))), "digest_mismatch");
    let with_digest = good.clone().with(|draft| {
        draft.fields = vec![("content-digest".to_owned(), digest(&changed))];
        draft.body = Some(changed);
    });
    assert_eq!(sent(with_digest), "signature_mismatch");
    assert_eq!(
        sent(good.clone().with(|draft| draft.token = stage.token("agent", &json!({"a": 1})))),
        "signature_mismatch"
    );
    assert_eq!(sent(good.clone().with(|draft| draft.query = "admin=1")), "signature_mismatch");
    assert_eq!(sent(good.clone().with(|draft| draft.method = "DELETE")), "signature_mismatch");
    assert_eq!(sent(good.clone().field("content-digest", "md5=:AAAA:")), "signature_mismatch");
    assert_eq!(sent(good.clone().with(|draft| draft.fields.clear())), "signature_components");
    // None of them has used the nonce up.
    assert_eq!(sent(good.clone()), "allowed");
}

#[test]
fn query_of_the_target_is_covered() {
    let stage = Stage::new(REQUIRED);
    assert_eq!(stage.judge(|draft| draft.with(|draft| draft.query = "a=1")), "allowed");
    let stage = Stage::new("mode = \"required\"\ncomponents = [\"@authority\", \"@path\", \"@query\", \"@scheme\"]");
    let covered = r#""@authority" "@path" "@query" "@scheme""#;
    assert_eq!(stage.judge(|draft| draft.covered(covered)), "allowed");
}

#[test]
fn created_counts_from_the_leeway_before_to_the_window_after() {
    let stage = Stage::new(REQUIRED);
    for (created, code) in [
        (NOW - MAX_AGE - LEEWAY - 1, "signature_expired"),
        (NOW - MAX_AGE - LEEWAY, "allowed"),
        (NOW + LEEWAY, "allowed"),
        (NOW + LEEWAY + 1, "signature_from_future"),
    ] {
        let parameters = format!(";created={created};keyid=\"key\";nonce=\"{created}\"");
        assert_eq!(stage.judge(|draft| draft.parameters(&parameters)), code, "{created}");
    }
}

#[test]
fn expires_is_heeded_where_it_is_there() {
    let stage = Stage::new(REQUIRED);
    for (expires, code) in [(NOW - LEEWAY, "signature_expired"), (NOW - LEEWAY + 1, "allowed")] {
        let parameters = format!(";created={};keyid=\"key\";nonce=\"{expires}\";expires={expires}", NOW - 60);
        assert_eq!(stage.judge(|draft| draft.parameters(&parameters)), code, "{expires}");
    }
}

#[test]
fn parameters_that_are_needed_are_there_and_no_others() {
    let stage = Stage::new(REQUIRED);
    for parameters in [
        ";created=NOW;keyid=\"key\"",
        ";created=NOW;keyid=\"key\";nonce=\"\"",
        ";created=NOW;nonce=\"one\"",
        ";keyid=\"key\";nonce=\"one\"",
        ";created=\"NOW\";keyid=\"key\";nonce=\"one\"",
        ";created=NOW.0;keyid=\"key\";nonce=\"one\"",
        ";created=NOW;keyid=key;nonce=\"one\"",
        ";created=NOW;keyid=\"key\";nonce=\"one\";other",
        ";created=NOW;keyid=\"key\";nonce=\"one\";expires=?1",
        &format!(";created=NOW;keyid=\"key\";nonce=\"{}\"", "n".repeat(257)),
    ] {
        assert_eq!(stage.judge(|draft| draft.parameters(parameters)), "signature_malformed", "{parameters}");
    }
    let longest = format!(";created=NOW;keyid=\"key\";nonce=\"{}\"", "n".repeat(256));
    assert_eq!(stage.judge(|draft| draft.parameters(&longest)), "allowed");
}

#[test]
fn components_that_are_required_are_covered_whole() {
    let stage = Stage::new(REQUIRED);
    for name in ["\"@method\"", "\"@target-uri\"", "\"content-digest\"", "\"authorization\""] {
        let covered: Vec<&str> = COVERED.split(' ').filter(|other| *other != name).collect();
        assert_eq!(stage.judge(|draft| draft.covered(&covered.join(" "))), "signature_components", "{name}");
    }
    let in_part = COVERED.replace("\"content-digest\"", "\"content-digest\";key=\"sha-256\"");
    assert_eq!(stage.judge(|draft| draft.covered(&in_part)), "signature_components");
    let more = format!("{COVERED} \"content-type\" \"x-own\"");
    let draft = |draft: Draft| draft.covered(&more).field("content-type", "application/json");
    assert_eq!(stage.judge(draft), "signature_components");
    assert_eq!(stage.judge(|found| draft(found).field("x-own", " a ").field("x-own", "b")), "allowed");
}

#[test]
fn components_that_no_request_has_are_refused() {
    let stage = Stage::new(REQUIRED);
    for (more, code) in [
        ("\"@method\";req", "signature_components"),
        ("\"x-own\";tr", "signature_components"),
        ("\"@status\"", "signature_components"),
        ("\"@other\"", "signature_components"),
        ("\"@query-param\"", "signature_components"),
        ("\"@query-param\";name=\"a\"", "signature_components"),
        ("\"@method\";sf", "signature_components"),
        ("\"x-own\";name=\"a\"", "signature_components"),
        ("\"x-own\";bs;sf", "signature_components"),
        ("\"x-own\";bs;key=\"a\"", "signature_components"),
        ("\"x-own\";key=\"b\"", "signature_components"),
        ("\"x-own\";other", "signature_malformed"),
        ("\"x-own\";sf=?0", "signature_malformed"),
        ("\"x-own\";key=a", "signature_malformed"),
        ("\"X-Own\"", "signature_malformed"),
        ("\"\"", "signature_malformed"),
        ("x-own", "signature_malformed"),
        ("\"@method\"", "signature_malformed"),
        ("\"@signature-params\"", "signature_malformed"),
    ] {
        let covered = format!("{COVERED} {more}");
        let changed = |draft: Draft| {
            // What is signed is read before it is compared: any bytes will do.
            let input = format!("sig=({covered}){}", draft.parameters);
            let sent = draft.field("x-own", "a=1");
            sent.sent(&[("signature-input", &input), ("signature", "sig=:AAAA:")])
        };
        assert_eq!(stage.code(&changed(stage.draft())), code, "{more}");
    }
}

#[test]
fn line_feeds_and_bytes_beyond_ascii_are_no_values() {
    let stage = Stage::new(REQUIRED);
    for value in ["a\nb", "a\rb", "a\u{0}b", "\u{e9}"] {
        let covered = format!("{COVERED} \"x-own\"");
        assert_eq!(
            stage.judge(|draft| draft.covered(&covered).field("x-own", value)),
            "signature_components",
            "{value:?}"
        );
    }
}

#[test]
fn fields_that_cannot_be_read_in_one_way_are_refused() {
    let stage = Stage::new(REQUIRED);
    let good = stage.draft();
    let (input, signature) = good.signature(&stage.client);
    let sent = |input: &str, signature: &str| {
        stage.code(&good.clone().sent(&[("signature-input", input), ("signature", signature)]))
    };
    let long = format!("{input};tag=\"{}\"", "t".repeat(9_000));
    let many: Vec<String> = (0..9).map(|at| input.replacen("sig=", &format!("s{at}="), 1)).collect();
    let of_many: Vec<String> = (0..9).map(|at| signature.replacen("sig=", &format!("s{at}="), 1)).collect();
    let wide =
        format!("sig=({}){}", (0..33).map(|at| format!("\"a{at}\"")).collect::<Vec<_>>().join(" "), ";created=1");
    for (input, signature) in [
        (&*format!("{input}, {input}"), &*signature),
        (&input, &format!("{signature}, {signature}")),
        (&input, "other=:AAAA:"),
        (&input, "sig=AAAA"),
        (&input, "sig=(:AAAA:)"),
        (&input, &format!("{signature};a")),
        (&input, ""),
        ("sig=1;created=1", &signature),
        ("sig", &signature),
        ("(", &signature),
        (&long, &signature),
        (&wide, &signature),
        (&many.join(", "), &of_many.join(", ")),
    ] {
        assert_eq!(sent(input, signature), "signature_malformed", "{input} {signature}");
    }
    assert_eq!(stage.code(&good.clone().sent(&[("signature-input", &input)])), "signature_malformed");
    assert_eq!(sent(&input, &signature), "allowed");
}

#[test]
fn headers_of_a_signed_request_are_bounded() {
    let stage = Stage::new(REQUIRED);
    let draft = |count| stage.draft().field("x-long", &"a".repeat(count));
    assert_eq!(stage.code(&draft(70_000).signed(&stage.client)), "signature_malformed");
    assert_eq!(stage.code(&draft(40_000).signed(&stage.client)), "allowed");
}

#[test]
fn two_signatures_are_one_too_many_unless_a_tag_tells_them_apart() {
    let two = |stage: &Stage, tag: &str| {
        let of_client = stage.draft().with(|draft| draft.parameters += tag);
        let of_proxy = stage.draft().with(|draft| {
            draft.label = "proxy";
            draft.parameters = ";keyid=\"proxy\";unknown;tag=\"proxy\"".to_owned();
        });
        let (one, other) = (of_client.signature(&stage.client), of_proxy.signature(&Signer::edwards()));
        // A proxy adds lines of its own (RFC 9421 §4.1).
        stage.code(&of_client.sent(&[
            ("signature-input", &one.0),
            ("signature", &one.1),
            ("signature-input", &other.0),
            ("signature", &other.1),
        ]))
    };
    // Without a tag to look for, the proxy's is looked into as well.
    assert_eq!(two(&Stage::new(REQUIRED), ";tag=\"mine\""), "signature_malformed");
    let tagged = "mode = \"required\"\ntag = \"mine\"";
    assert_eq!(two(&Stage::new(tagged), ";tag=\"mine\""), "allowed");
    assert_eq!(two(&Stage::new(tagged), ""), "signature_missing");
    let stage = Stage::new(REQUIRED);
    let (one, other) = (stage.draft(), stage.draft().with(|draft| draft.label = "other"));
    let (first, second) = (one.signature(&stage.client), other.signature(&stage.client));
    let (input, signature) = (format!("{}, {}", first.0, second.0), format!("{}, {}", first.1, second.1));
    let both = one.sent(&[("signature-input", &input), ("signature", &signature)]);
    assert_eq!(stage.code(&both), "signature_duplicated");
}

#[test]
fn key_must_be_of_the_tokens_client() {
    let stage = Stage::new(REQUIRED);
    let of =
        |client_id: &str| stage.judge(|draft| draft.with(|draft| draft.token = stage.token(client_id, &json!({}))));
    assert_eq!(of("other"), "signature_key_unknown");
    let by = |key_id: &str| {
        let parameters = format!(";created=NOW;keyid=\"{key_id}\";nonce=\"of {key_id}\"");
        stage.judge(|draft| draft.parameters(&parameters))
    };
    assert_eq!(by("other"), "signature_key_unknown");
    assert_eq!(by(""), "signature_key_unknown");
    let jwk = stage.client.jwk("key");
    let members = json!({"crv": jwk["crv"], "kty": jwk["kty"], "x": jwk["x"]});
    assert_eq!(by(&encode(sha256(members.to_string().as_bytes()))), "allowed");
    assert_eq!(by("key"), "allowed");
}

/// A proof of possession by a P-256 key, and the thumbprint of the key.
fn proof(holder: &Signer, token: &str, more: &Value) -> (String, String) {
    let mut jwk = holder.jwk("");
    jwk.as_object_mut().unwrap().remove("kid");
    let thumbprint = encode(sha256(jwk.to_string().as_bytes()));
    let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk});
    let mut claims = json!({
        "jti": "one", "htm": "POST", "htu": URL, "iat": NOW, "ath": encode(sha256(token.as_bytes())),
    });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    (holder.token_of(header.to_string().as_bytes(), claims.to_string().as_bytes()), thumbprint)
}

/// A request with a bound token, its proof, and a signature by the same key.
fn proved(stage: &Stage, holder: &Signer, client_id: &str, more: &Value) -> ToolRequest {
    let (_, thumbprint) = proof(holder, "", &json!({}));
    let token = stage.token(client_id, &json!({"cnf": {"jkt": thumbprint}}));
    let (proof, _) = proof(holder, &token, more);
    let nonce = more["nonce"].as_str().unwrap_or("one");
    let draft = stage.draft().parameters(&format!(";created=NOW;keyid=\"{thumbprint}\";nonce=\"{nonce}\""));
    let draft = draft.with(|draft| draft.token = token);
    // The draft signs `Bearer`; a bound token comes under its own scheme.
    let authorization = format!("DPoP {}", draft.token);
    let content_digest = digest(BODY);
    let input = format!("sig=({COVERED}){}", draft.parameters);
    let base = format!(
        "\"@method\": POST\n\"@target-uri\": {URL}\n\"content-digest\": {content_digest}\n\
         \"authorization\": {authorization}\n\"@signature-params\": ({COVERED}){}",
        draft.parameters
    );
    let signature = format!("sig=:{}:", STANDARD.encode(holder.sign(base.as_bytes())));
    let lines = [
        ("authorization", &*authorization),
        ("dpop", &*proof),
        ("content-digest", &*content_digest),
        ("signature-input", &*input),
        ("signature", &*signature),
    ];
    request("POST", &lines, "", Some(BODY.to_vec()))
}

#[test]
fn client_without_registered_keys_signs_by_the_key_that_its_token_is_bound_to() {
    let stage = Stage::new(REQUIRED);
    let holder = Signer::elliptic();
    assert_eq!(stage.code(&proved(&stage, &holder, "other", &json!({}))), "allowed");
    // One that has registered keys signs by those alone.
    assert_eq!(stage.code(&proved(&stage, &holder, "agent", &json!({"jti": "two"}))), "signature_key_unknown");
}

#[test]
fn signature_cannot_be_used_again_with_a_new_proof() {
    let stage = Stage::new(REQUIRED);
    let holder = Signer::elliptic();
    assert_eq!(stage.code(&proved(&stage, &holder, "other", &json!({"jti": "one"}))), "allowed");
    assert_eq!(stage.code(&proved(&stage, &holder, "other", &json!({"jti": "two"}))), "signature_replayed");
    assert_eq!(stage.code(&proved(&stage, &holder, "other", &json!({"jti": "two"}))), "proof_replayed");
}

#[test]
fn digest_may_be_sha_512_and_must_be_one_that_protects() {
    let stage = Stage::new(REQUIRED);
    for (value, code) in [
        ("md5=:AAAA:".to_owned(), "digest_malformed"),
        ("sha-256".to_owned(), "digest_malformed"),
        (format!("{}, {}", digest(BODY), digest(BODY)), "digest_malformed"),
        (digest(b""), "digest_mismatch"),
        (format!("sha-512=:{}:", STANDARD.encode(sha512(BODY))), "allowed"),
    ] {
        let changed =
            |draft: Draft| draft.with(|draft| draft.fields = vec![("content-digest".to_owned(), value.clone())]);
        assert_eq!(stage.judge(changed), code, "{value}");
    }
}

#[test]
fn request_without_a_body_needs_no_digest() {
    let stage = Stage::new(REQUIRED);
    let covered = r#""@method" "@target-uri" "authorization""#;
    let bare = |draft: Draft, body| {
        draft.covered(covered).with(|draft| {
            (draft.method, draft.body) = ("GET", body);
            draft.fields.clear();
        })
    };
    assert_eq!(stage.judge(|draft| bare(draft, Some(b"{}".to_vec()))), "signature_components");
    assert_eq!(stage.judge(|draft| bare(draft, Some(Vec::new()))), "allowed");
}

#[test]
fn body_that_was_not_seen_is_refused() {
    let stage = Stage::new(REQUIRED);
    assert_eq!(stage.judge(|draft| draft.with(|draft| draft.body = None)), "body_missing");
}

#[test]
fn head_of_a_long_request_is_checked_but_for_its_digest_and_uses_no_nonce_up() {
    let stage = Stage::new(REQUIRED);
    let look = |draft: Draft, signer: &Signer| {
        let request = draft.with(|draft| draft.body = None).signed(signer);
        stage.gate.check_head(&request, Answered::default(), now_at(NOW), &Attached).map(|waiting| waiting.is_none())
    };
    assert_eq!(look(stage.draft(), &Signer::edwards()), Err(GateError::Denied(Denial::SignatureMismatch, None)));
    assert_eq!(look(stage.draft(), &stage.client), Ok(true));
    assert_eq!(stage.judge(|draft| draft.with(|draft| draft.body = Some(b"{}".to_vec()))), "digest_mismatch");
    assert_eq!(stage.judge(|draft| draft), "allowed");
    assert_eq!(look(stage.draft(), &stage.client), Err(GateError::Denied(Denial::SignatureReplayed, None)));
}

#[test]
fn refused_signature_does_not_ask_for_another_token() {
    let stage = Stage::new(REQUIRED);
    let denial = stage.decide(&stage.draft().sent(&[]), NOW).unwrap_err();
    let challenge = stage.gate.state().receiver().challenge(&denial).unwrap();
    assert!(
        challenge.starts_with("Bearer error=\"invalid_request\"") && challenge.contains(", DPoP error="),
        "{challenge}"
    );
}

// --- several processes ------------------------------------------------------------------------------

#[test]
fn processes_claim_proof_and_signature_and_say_which_was_used() {
    let (issuer, client) = (Signer::elliptic(), Signer::edwards());
    let mut config = configuration(&issuer, &client, REQUIRED);
    let tables = "[limits]\nmode = \"local\"\n[state]\nurl = \"redis://localhost\"\nprocesses = 2";
    let shared = Config::from_toml(&format!("version = 1\n[resource]\nurl = \"{URL}\"\n{tables}"), None).unwrap();
    (config.state, config.limits) = (shared.state, shared.limits);
    config.set_state_secret("test", &[7; 32]).unwrap();
    let stage = Stage { issuer, client, gate: Gate::new(config, None).unwrap() };
    for (place, (claim, code)) in [
        (ClaimAnswer::New, "allowed"),
        (ClaimAnswer::Used(0), "proof_replayed"),
        (ClaimAnswer::Used(1), "signature_replayed"),
        (ClaimAnswer::Unknown, "replays_unavailable"),
    ]
    .into_iter()
    .enumerate()
    {
        // The same id in both: they are two things.
        let id = place.to_string();
        let request = proved(&stage, &Signer::elliptic(), "other", &json!({"jti": id, "nonce": id}));
        let Ok(Decision::Agreeing(agreeing)) = stage.decide(&request, NOW) else { panic!("others are not asked") };
        let [proof, signature] = agreeing.claims() else { panic!("two claims") };
        assert_eq!((proof.is_of_signature, signature.is_of_signature), (false, true));
        assert_ne!(proof.key, signature.key);
        // The farthest past of either, 5m and the leeway, and the farthest future, the proof's 5m.
        assert_eq!(signature.lifetime, Duration::from_secs(630));
        let answer = Answer { claim, limits: None };
        let decided = match stage.gate.agreed(&request, &agreeing, &answer, now_at(NOW), &Attached, false) {
            Ok(Decision::Allowed(_)) => "allowed",
            Err(GateError::Denied(denial, _)) => denial.code(),
            other => panic!("{other:?}"),
        };
        assert_eq!(decided, code);
    }
}

#[test]
fn signature_is_known_until_it_could_pass_no_more() {
    let stage = Stage::new(REQUIRED);
    let request = || {
        stage
            .draft()
            .parameters(&format!(";created={};keyid=\"key\";nonce=\"one\"", NOW + LEEWAY))
            .signed(&stage.client)
    };
    assert_eq!(stage.code_at(&request(), NOW), "allowed");
    for (seconds, code) in [(1, "signature_replayed"), (360, "signature_replayed"), (361, "signature_expired")] {
        assert_eq!(stage.code_at(&request(), NOW + seconds), code, "{seconds}");
    }
}

#[test]
fn reload_cannot_lengthen_the_life_of_signatures() {
    let stage = Stage::new("mode = \"required\"\nmax_age = \"1m\"");
    let refused =
        stage.gate.reload(configuration(&stage.issuer, &stage.client, "mode = \"required\"\nmax_age = \"5m\""));
    assert!(refused.unwrap_err().to_string().contains("`signatures.max_age`"));
    stage.gate.reload(configuration(&stage.issuer, &stage.client, "mode = \"required\"\nmax_age = \"30s\"")).unwrap();
}

// --- `content_digest` of proofs ---------------------------------------------------------------------

#[test]
fn digest_in_a_proof_must_be_that_of_the_body() {
    let stage = Stage::new("mode = \"optional\"");
    let holder = Signer::elliptic();
    let judge = |id: &str, body: Option<Vec<u8>>, value: Value| {
        let (_, thumbprint) = proof(&holder, "", &json!({}));
        let token = stage.token("agent", &json!({"cnf": {"jkt": thumbprint}}));
        let (proof, _) = proof(&holder, &token, &json!({"jti": id, "content_digest": value}));
        let authorization = format!("DPoP {token}");
        stage.code(&request("POST", &[("authorization", &authorization), ("dpop", &proof)], "", body))
    };
    let body = || Some(BODY.to_vec());
    assert_eq!(judge("a", body(), json!(digest(BODY))), "allowed");
    assert_eq!(judge("b", body(), json!(digest(b""))), "proof_digest_mismatch");
    assert_eq!(judge("c", body(), json!("md5=:AAAA:")), "proof_malformed");
    assert_eq!(judge("d", body(), json!(1)), "proof_malformed");
    assert_eq!(judge("e", None, json!(digest(BODY))), "body_missing");
}

#[test]
fn digest_in_a_proof_can_be_demanded() {
    let (issuer, client) = (Signer::elliptic(), Signer::edwards());
    let mut config = configuration(&issuer, &client, "mode = \"optional\"");
    config.dpop.content_digest = fastguard_core::config::DigestMode::Required;
    let stage = Stage { issuer, client, gate: Gate::new(config, None).unwrap() };
    let holder = Signer::elliptic();
    let (_, thumbprint) = proof(&holder, "", &json!({}));
    let token = stage.token("agent", &json!({"cnf": {"jkt": thumbprint}}));
    let authorization = format!("DPoP {token}");
    let judge = |method, more: Value, body: &[u8]| {
        let (proof, _) = proof(&holder, &token, &more);
        stage.code(&request(method, &[("authorization", &authorization), ("dpop", &proof)], "", Some(body.to_vec())))
    };
    assert_eq!(judge("POST", json!({}), BODY), "proof_digest_missing");
    assert_eq!(judge("POST", json!({"content_digest": digest(BODY)}), BODY), "allowed");
    assert_eq!(judge("GET", json!({"htm": "GET", "jti": "two"}), b""), "allowed");
}

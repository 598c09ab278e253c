//! Opaque tokens from outside the core (RFC 7662): when their issuer is asked, what of its answers passes, and for how long.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

#[expect(dead_code, reason = "one kind of key will do here")]
mod signing;

use std::net::IpAddr;
use std::time::Duration;

use fastguard_core::bounds::MAX_INTROSPECTION_BYTES;
use fastguard_core::clock::FakeClock;
use fastguard_core::gate::Waiting;
use fastguard_core::token::{Answered, Attached, Attested, Need, Revocation};
use fastguard_core::{Config, Decision, Denial, Gate, GateError, ToolRequest, UnixTime};
use serde_json::{Value, json};
use signing::Signer;

const ISSUER: &str = "https://opaque.example.com";
const AUDIENCE: &str = "https://mcp.example.com/mcp";
const NOW: i64 = 1_800_000_000;

struct World {
    gate: Gate,
    clock: FakeClock,
}

fn text(issuer: &str, others: &str) -> String {
    format!(
        "version = 1\n[resource]\nurl = \"{AUDIENCE}\"\n{others}\n[[issuers]]\nissuer = \"{ISSUER}\"\n\
         introspection_client_id = \"mcp\"\nintrospection_client_secret_file = \"secret\"\n{issuer}\n\
         [tools.look]\nscopes = [\"read\"]\n[tools.open]\nopen = true\n[audit]\nenabled = false\n"
    )
}

fn config(issuer: &str, others: &str) -> Config {
    Config::from_toml(&text(issuer, others), None).unwrap()
}

fn answer(changes: &Value) -> Vec<u8> {
    let mut answer = json!({
        "active": true, "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "agent-7", "scope": "read",
        "iat": NOW, "exp": NOW + 600, "token_type": "Bearer", "jti": "t-1",
    });
    for (name, value) in changes.as_object().unwrap() {
        answer[name] = value.clone();
        if value.is_null() {
            answer.as_object_mut().unwrap().remove(name);
        }
    }
    answer.to_string().into_bytes()
}

fn request(tool: &str, token: &str) -> ToolRequest {
    ToolRequest::tool(tool, None, Some(token.into()), None)
}

impl World {
    fn new(issuer: &str) -> Self {
        Self { gate: Gate::new(config(issuer, ""), None).unwrap(), clock: FakeClock::at(NOW) }
    }

    fn check(&self, request: &ToolRequest, attested: Option<&Attested>) -> Result<Option<Waiting>, Denial> {
        let answered = Answered { has_waited: attested.is_some(), attested, address: None };
        match self.gate.check_through(request, answered, self.clock.now(), &Attached) {
            Ok(Decision::Allowed(_)) => Ok(None),
            Ok(Decision::Waiting(waiting)) => Ok(Some(waiting)),
            Err(GateError::Denied(denial, _)) => Err(denial),
            other => panic!("{other:?}"),
        }
    }

    /// "allowed", "asks", or the code of the refusal.
    fn first(&self, token: &str) -> &'static str {
        match self.check(&request("open", token), None) {
            Ok(None) => "allowed",
            Ok(Some(waiting)) => {
                assert_eq!(waiting.need(), &Need::Introspection(token.into()));
                "asks"
            }
            Err(denial) => denial.code(),
        }
    }

    fn told(&self, token: &str, answer: &[u8]) -> Attested {
        self.gate.state().tokens().introspected(token, answer, self.clock.now())
    }

    /// A whole walk: asks, is answered, is decided.
    fn of(&self, token: &str, answer: &[u8]) -> Result<(), Denial> {
        assert_eq!(self.first(token), "asks");
        let attested = self.told(token, answer);
        self.check(&request("open", token), Some(&attested)).map(|waiting| assert!(waiting.is_none()))
    }

    fn code(&self, token: &str, answer: &[u8]) -> &'static str {
        self.of(token, answer).map_or_else(|denial| denial.code(), |()| "allowed")
    }
}

// --- what is asked -----------------------------------------------------------------------------

/// A JWS that is refused here may still be active there.
#[test]
fn text_of_the_shape_of_a_jws_or_jwe_is_never_asked_about() {
    let world = World::new("");
    for token in ["a.b.c", "..", "a.b.c.d.e", "eyJhbGciOiJub25lIn0", "eyJ.x", "eyJ.a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        assert_ne!(world.first(token), "asks", "{token}");
    }
    for token in ["opaque", "ya29.a0", "v1.a.b.c", "eyj", "2YotnFZFEjr1zCsicMWpAA"] {
        assert_eq!(world.first(token), "asks", "{token}");
    }
}

#[test]
fn token_beyond_the_bound_is_not_asked_about() {
    let world = World::new("");
    assert_eq!(world.first(&"a".repeat(16 * 1024 + 1)), "token_too_large");
    assert_eq!(world.first(&"a".repeat(16 * 1024)), "asks");
}

#[test]
fn nothing_is_asked_where_no_issuer_says_so() {
    let signer = Signer::elliptic();
    let keys = json!({"keys": [signer.jwk("k")]});
    let text = format!(
        "version = 1\n[resource]\nurl = \"{AUDIENCE}\"\n[[issuers]]\nissuer = \"{ISSUER}\"\njwks = '{keys}'\n\
         [tools.open]\nopen = true\n[audit]\nenabled = false\n"
    );
    let gate = Gate::new(Config::from_toml(&text, None).unwrap(), None).unwrap();
    let refused = gate.check(&request("open", "opaque"), FakeClock::at(NOW).now()).unwrap_err();
    assert!(matches!(refused, GateError::Denied(Denial::TokenMalformed { .. }, _)), "{refused:?}");
    let told = gate.state().tokens().introspected("opaque", &answer(&json!({})), FakeClock::at(NOW).now());
    assert_eq!(told.unwrap_err().code(), "introspection_unavailable");
}

/// Opaque tokens of one issuer and JWTs of another, in one guard.
#[test]
fn signed_tokens_of_another_issuer_pass_beside_and_neither_speaks_for_the_other() {
    let signer = Signer::elliptic();
    let signing = "https://jwt.example.com";
    let others = format!(
        "[[issuers]]\nissuer = \"{signing}\"\njwks = '{}'\nasserts_scopes = [\"*\"]",
        json!({"keys": [signer.jwk("k")]})
    );
    let gate = Gate::new(config("asserts_scopes = [\"read\"]", &others), None).unwrap();
    let world = World { gate, clock: FakeClock::at(NOW) };
    let claims = |issuer: &str| json!({"iss": issuer, "aud": AUDIENCE, "sub": "bob", "iat": NOW, "exp": NOW + 60, "scope": "read"});
    assert_eq!(world.first(&signer.token("k", &claims(signing))), "allowed");
    // The opaque issuer signs nothing, so nobody can sign for it.
    assert_eq!(world.first(&signer.token("k", &claims(ISSUER))), "key_unknown");
    assert_eq!(world.code("opaque", &answer(&json!({}))), "allowed");
    // And it speaks for itself alone.
    assert_eq!(world.code("other", &answer(&json!({"iss": signing}))), "issuer_unknown");
}

#[test]
fn issuer_may_only_assert_its_scopes() {
    let world = World::new("asserts_scopes = [\"other\"]");
    assert_eq!(world.first("opaque"), "asks");
    let attested = world.told("opaque", &answer(&json!({})));
    let denial = world.check(&request("look", "opaque"), Some(&attested)).unwrap_err();
    assert_eq!(denial.code(), "scope_insufficient");
}

// --- what passes -------------------------------------------------------------------------------

#[test]
fn answer_passes_the_checks_that_claims_pass() {
    let world =
        World::new("subjects = [\"alice\"]\nscope_lifetimes = { write = \"5m\" }\nrequire = { tenant = \"acme\" }");
    let good = json!({"tenant": "acme"});
    assert_eq!(world.code("good", &answer(&good)), "allowed");
    for (index, (changes, code)) in [
        (json!({"iss": null}), "claim_missing"),
        (json!({"iss": "https://opaque.example.com/"}), "issuer_unknown"),
        (json!({"aud": null}), "claim_missing"),
        (json!({"aud": "https://other.example.com"}), "audience_mismatch"),
        (json!({"aud": [AUDIENCE, "https://other.example.com"]}), "allowed"),
        (json!({"exp": null}), "claim_missing"),
        (json!({"exp": (NOW + 600).to_string()}), "claim_invalid"),
        (json!({"exp": NOW - 30}), "token_expired"),
        (json!({"exp": NOW - 29}), "allowed"),
        (json!({"nbf": NOW + 31}), "token_not_yet_valid"),
        (json!({"iat": NOW + 31}), "token_from_future"),
        (json!({"exp": NOW + 3_601}), "lifetime_too_long"),
        (json!({"scope": "read write"}), "scope_lifetime_too_long"),
        (json!({"scope": ["read"], "exp": NOW + 3_600}), "allowed"),
        (json!({"sub": "bob"}), "subject_refused"),
        (json!({"tenant": "other"}), "claim_refused"),
        (json!({"tenant": null}), "claim_missing"),
        (json!({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}), "bound_as_bearer"),
        (
            json!({"token_type": "DPoP", "cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}),
            "bound_as_bearer",
        ),
        (json!({"token_type": "DPoP"}), "claim_missing"),
        (
            json!({"token_type": "dpop", "cnf": {"x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"}}),
            "claim_missing",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        assert_eq!(world.code(&format!("token-{index}"), &answer(&changed)), code, "{changes}");
    }
}

#[test]
fn answer_that_names_another_kind_of_token_is_refused() {
    let world = World::new("");
    for (index, (changes, is_taken)) in [
        (json!({"token_type": "bearer"}), true),
        (json!({"token_type": "access_token"}), true),
        (json!({"token_type": null}), true),
        (json!({"token_type": "refresh_token"}), false),
        (json!({"token_type": 1}), false),
        (json!({"token_use": "access"}), true),
        (json!({"token_use": "refresh"}), false),
        (json!({"typ": "Bearer"}), true),
        (json!({"typ": "application/at+jwt"}), true),
        (json!({"typ": "Refresh"}), false),
        (json!({"typ": "ID"}), false),
    ]
    .into_iter()
    .enumerate()
    {
        let expected = if is_taken { "allowed" } else { "type_refused" };
        assert_eq!(world.code(&format!("token-{index}"), &answer(&changes)), expected, "{changes}");
    }
}

/// RFC 7662 §2.2: `active` is a boolean. A server that says it in another way is not understood, which is no verdict.
#[test]
fn token_is_active_only_by_the_boolean_true() {
    let world = World::new("");
    assert_eq!(world.code("false", &answer(&json!({"active": false}))), "token_inactive");
    assert_eq!(world.code("bare", b"{\"active\": false}"), "token_inactive");
    for (index, active) in [json!("true"), json!(1), json!("false"), json!([true]), json!(null)].into_iter().enumerate()
    {
        let found = world.of(&format!("token-{index}"), &answer(&json!({"active": active}))).unwrap_err();
        assert_eq!((found.code(), found.status()), ("introspection_unavailable", 503), "{active}");
        assert_eq!(found.retry_after(), Some(Duration::from_secs(1)));
    }
}

#[test]
fn answer_that_cannot_be_read_in_one_way_is_none() {
    let world = World::new("");
    let mut long = answer(&json!({}));
    long.resize(MAX_INTROSPECTION_BYTES, b' ');
    assert_eq!(world.code("at-the-bound", &long), "allowed");
    long.push(b' ');
    let twice = br#"{"active": false, "active": true}"#;
    for (index, answer) in [&long[..], b"", b"[]", b"true", b"{", twice, b"\xff", b"{}"].into_iter().enumerate() {
        assert_eq!(world.code(&format!("token-{index}"), answer), "introspection_unavailable", "{index}");
    }
}

#[test]
fn verdict_counts_for_its_own_token_alone() {
    let world = World::new("");
    let attested = world.told("mine", &answer(&json!({})));
    let denial = world.check(&request("open", "another"), Some(&attested)).unwrap_err();
    assert_eq!(denial.code(), "introspection_unavailable");
}

#[test]
fn verdict_of_another_configuration_does_not_count() {
    let world = World::new("");
    let attested = world.told("opaque", &answer(&json!({})));
    world.gate.reload(config("audiences = [\"https://other.example.com\"]", "")).unwrap();
    let denial = world.check(&request("open", "opaque"), Some(&attested)).unwrap_err();
    assert_eq!(denial.code(), "introspection_unavailable");
    assert_eq!(world.code("opaque", &answer(&json!({}))), "audience_mismatch");
    // Nor does a refusal.
    world.gate.reload(config("", "")).unwrap();
    assert_eq!(world.code("opaque", &answer(&json!({}))), "allowed");
}

// --- for how long ------------------------------------------------------------------------------

#[test]
fn verdict_is_believed_for_the_cache_and_not_a_moment_longer() {
    let mut world = World::new("introspection_cache = \"30s\"");
    assert_eq!(world.code("opaque", &answer(&json!({}))), "allowed");
    world.clock.advance(Duration::from_nanos(30_000_000_000 - 1));
    assert_eq!(world.first("opaque"), "allowed");
    world.clock.advance(Duration::from_nanos(1));
    assert_eq!(world.first("opaque"), "asks");
    // It was revoked at its issuer meanwhile.
    assert_eq!(world.told("opaque", b"{\"active\": false}").unwrap_err(), Denial::TokenInactive);
    assert_eq!(world.first("opaque"), "token_inactive");
}

#[test]
fn verdict_is_never_believed_beyond_the_tokens_expiry() {
    let mut world = World::new("introspection_cache = \"10m\"");
    assert_eq!(world.code("opaque", &answer(&json!({"exp": NOW + 60}))), "allowed");
    world.clock.advance(Duration::from_millis(89_999));
    assert_eq!(world.first("opaque"), "allowed");
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(world.first("opaque"), "token_expired");
}

#[test]
fn without_a_cache_every_call_asks() {
    let world = World::new("introspection_cache = 0");
    assert_eq!(world.code("opaque", &answer(&json!({}))), "allowed");
    assert_eq!(world.code("opaque", &answer(&json!({}))), "allowed");
}

#[test]
fn refused_token_is_not_asked_about_again_for_ten_seconds() {
    let mut world = World::new("");
    assert_eq!(world.code("opaque", b"{\"active\": false}"), "token_inactive");
    world.clock.advance(Duration::from_millis(9_999));
    assert_eq!(world.first("opaque"), "token_inactive");
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(world.code("opaque", &answer(&json!({}))), "allowed");
}

#[test]
fn revocation_here_hits_at_once_and_a_new_answer_does_not_lift_it() {
    let mut world = World::new("");
    assert_eq!(world.code("opaque", &answer(&json!({}))), "allowed");
    let revocation = Revocation { token_id: Some("t-1".into()), ..Revocation::default() };
    world.gate.revoke(revocation, UnixTime::from_seconds(NOW)).unwrap();
    assert_eq!(world.first("opaque"), "token_revoked");
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(world.code("opaque", &answer(&json!({}))), "token_revoked");
}

/// A token without `jti` is known by a digest of its text, which anybody who has it can name.
#[test]
fn token_without_an_id_is_revoked_by_what_its_verdict_calls_it() {
    let world = World::new("");
    let token = world.told("opaque", &answer(&json!({"jti": null}))).unwrap();
    assert!(token.token_id().starts_with("sha-256:"), "{}", token.token_id());
    let revocation = Revocation { token_id: Some(token.token_id().into()), ..Revocation::default() };
    world.gate.revoke(revocation, UnixTime::from_seconds(NOW)).unwrap();
    assert_eq!(world.first("opaque"), "token_revoked");
    assert_eq!(world.code("another", &answer(&json!({"jti": null}))), "allowed");
}

// --- outages and floods ------------------------------------------------------------------------

#[test]
fn endpoint_that_is_down_refuses_new_tokens_with_503_and_leaves_known_ones_alone() {
    let mut world = World::new("introspection_cache = \"60s\"");
    assert_eq!(world.code("known", &answer(&json!({}))), "allowed");
    assert_eq!(world.first("new"), "asks");
    let denial = world.gate.state().tokens().introspection_failed("new", true, None, world.clock.now());
    assert_eq!(
        (denial.code(), denial.status(), denial.retry_after()),
        ("introspection_unavailable", 503, Some(Duration::from_secs(1)))
    );
    assert_eq!(world.gate.state().receiver().challenge(&denial), None);
    assert_eq!(world.first("newer"), "introspection_unavailable");
    assert_eq!(world.first("known"), "allowed");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.first("newer"), "asks");
    // Fails closed: once its verdict has grown old, a known token waits for the endpoint too.
    world.clock.advance(Duration::from_secs(59));
    let _ = world.gate.state().tokens().introspection_failed("newer", true, None, world.clock.now());
    assert_eq!(world.first("known"), "introspection_unavailable");
}

#[test]
fn unknown_tokens_of_one_address_are_limited_and_known_ones_and_other_addresses_are_not() {
    let mut world = World::new("introspection_lookups_per_address = \"2/minute\"\nintrospection_cache = \"30s\"");
    let from = |world: &World, token: &str, last: u8| {
        let request = request("open", token).from_peer(Some(IpAddr::from([192, 0, 2, last])));
        match world.check(&request, None) {
            Ok(None) => "allowed",
            Ok(Some(_)) => "asks",
            Err(denial) => denial.code(),
        }
    };
    assert_eq!(from(&world, "mine", 1), "asks");
    assert!(world.told("mine", &answer(&json!({}))).is_ok());
    assert_eq!(from(&world, "garbage-1", 1), "asks");
    let request = request("open", "garbage-2").from_peer(Some(IpAddr::from([192, 0, 2, 1])));
    let denial = world.check(&request, None).unwrap_err();
    assert_eq!((denial.code(), denial.status()), ("introspection_limited", 429));
    assert_eq!(denial.retry_after(), Some(Duration::from_secs(30)));
    // What is under way, what is known, and what comes from elsewhere.
    assert_eq!(from(&world, "garbage-1", 1), "asks");
    assert_eq!(from(&world, "mine", 1), "allowed");
    assert_eq!(from(&world, "garbage-2", 2), "asks");
    // A known token is asked about again though its address has spent all.
    world.clock.advance(Duration::from_secs(29));
    assert_eq!(from(&world, "garbage-3", 1), "introspection_limited");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(from(&world, "garbage-3", 1), "asks");
    assert_eq!(from(&world, "garbage-4", 1), "introspection_limited");
    assert_eq!(from(&world, "mine", 1), "asks");
}

#[test]
fn need_shows_nothing_of_the_token() {
    assert_eq!(format!("{:?}", Need::Introspection("secret".into())), "Introspection");
}

// --- configuration -----------------------------------------------------------------------------

#[test]
fn values_that_cannot_be_meant_stop_the_start_with_their_key() {
    let of = |text: &str| Config::from_toml(text, None).map_or_else(|error| error.to_string(), |_| String::new());
    for (line, key) in [
        ("introspection_endpoint = \"http://opaque.example.com/i\"", "introspection_endpoint"),
        ("introspection_endpoint = \"/i\"", "introspection_endpoint"),
        ("introspection_cache = \"11m\"", "introspection_cache"),
        ("introspection_lookups = \"0/minute\"", "introspection_lookups"),
        ("introspection_lookups_per_address = \"1/500ms\"", "introspection_lookups_per_address"),
    ] {
        assert!(of(&text(line, "")).contains(&format!("issuers[0].{key}")), "{line}: {}", of(&text(line, "")));
    }
    for line in ["introspection_cache = \"10m\"", "introspection_cache = 0", "introspection_lookups = \"1/s\""] {
        assert_eq!(of(&text(line, "")), "", "{line}");
    }
    let alone = text("", "").replace("introspection_client_id = \"mcp\"\n", "");
    assert!(of(&alone).contains("only with `introspection_client_id`"), "{}", of(&alone));
    let silent = text("", "").replace("introspection_client_secret_file = \"secret\"\n", "");
    assert!(of(&silent).contains("introspection_client_secret_file`, or `client_certificate`"), "{}", of(&silent));
    assert_eq!(of(&silent.replace("[tools.look]", "client_certificate = \"c.pem\"\n[tools.look]")), "");
    let second = "[[issuers]]\nissuer = \"https://b.example.com\"\nasserts_scopes = [\"b\"]\n\
                  introspection_client_id = \"mcp\"\nintrospection_client_secret_file = \"b\"";
    let both = of(&text("asserts_scopes = [\"a\"]", second));
    assert!(both.contains("issuers[1].introspection_client_id: one issuer at most"), "{both}");
}

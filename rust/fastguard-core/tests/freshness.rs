//! How long a token may live, how old it and its login may be, and whom it may name: what just passes, what just does not.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

#[expect(dead_code, reason = "one kind of key will do here")]
mod signing;

use std::time::Duration;

use fastguard_core::{Config, Decision, Denial, Gate, GateError, Now, Tick, ToolRequest, UnixTime};
use serde_json::{Value, json};
use signing::Signer;

const ISSUER: &str = "https://auth.example.com";
const NOW: i64 = 1_800_000_000;
const HOUR: i64 = 3_600;

const TOOLS: &str = r#"
[scopes."warehouse:admin"]
implies = ["warehouse:orders:write"]
[tools.look]
scopes = ["warehouse:orders:read"]
[tools.change]
scopes = ["warehouse:orders:write"]
[tools.open]
open = true
"#;

fn at_millis(millis: i64) -> Now {
    let tick = Tick::from_nanos(1_000_000_000);
    Now { unix: UnixTime::from_millis(millis), tick, own: tick }
}

fn at(seconds: i64) -> Now {
    at_millis(seconds * 1_000)
}

struct World {
    signer: Signer,
    gate: Gate,
}

fn text(signer: &Signer, issuer: &str, rest: &str) -> String {
    let keys = json!({"keys": [signer.jwk("k")]});
    format!(
        "version = 1\n[resource]\nurl = \"https://mcp.example.com/mcp\"\n[[issuers]]\nissuer = \"{ISSUER}\"\njwks = '{keys}'\n\
         {issuer}\n[tokens]\nleeway = \"30s\"\n[audit]\nenabled = false\n{rest}\n"
    )
}

impl World {
    /// `issuer` stands in `[[issuers]]`, `rest` behind it.
    fn new(issuer: &str, rest: &str) -> Self {
        let signer = Signer::elliptic();
        let config = Config::from_toml(&text(&signer, issuer, rest), None).unwrap();
        Self { gate: Gate::new(config, None).unwrap(), signer }
    }

    fn token(&self, changes: &Value) -> String {
        let mut claims = json!({
            "iss": ISSUER, "aud": "https://mcp.example.com/mcp", "sub": "alice", "client_id": "agent-7",
            "iat": NOW, "exp": NOW + 600,
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            }
        }
        self.signer.token("k", &claims)
    }

    fn call(&self, tool: &str, token: &str, now: Now) -> Result<(), Denial> {
        match self.gate.check(&ToolRequest::tool(tool, None, Some(token.into()), None), now) {
            Ok(Decision::Allowed(_)) => Ok(()),
            Err(GateError::Denied(denial, _)) => Err(denial),
            other => panic!("{other:?}"),
        }
    }

    fn of(&self, tool: &str, changes: &Value) -> Result<(), Denial> {
        self.call(tool, &self.token(changes), at(NOW))
    }

    fn code(&self, tool: &str, changes: &Value) -> &'static str {
        self.of(tool, changes).map_or_else(|denial| denial.code(), |()| "allowed")
    }
}

// --- lifetimes by scope ----------------------------------------------------------------------

const READING_LONG: &str = "max_lifetime = \"24h\"\nscope_lifetimes = { \"warehouse:*:write\" = \"15m\" }";

#[test]
fn token_that_writes_lives_shorter_than_one_that_reads() {
    let world = World::new(READING_LONG, TOOLS);
    let of = |tool: &str, scope: &str, lifetime: i64| world.of(tool, &json!({"scope": scope, "exp": NOW + lifetime}));
    assert_eq!(of("look", "warehouse:orders:read", 24 * HOUR), Ok(()));
    assert_eq!(of("change", "warehouse:orders:write", 900), Ok(()));
    let (lifetime, longest) = (Duration::from_secs(901), Duration::from_secs(900));
    let scope = "warehouse:orders:write".to_owned();
    assert_eq!(
        of("change", "warehouse:orders:write", 901),
        Err(Denial::ScopeLifetimeTooLong { scope, lifetime, longest })
    );
}

#[test]
fn one_scope_that_is_too_old_refuses_the_whole_token_and_is_named() {
    let world = World::new(READING_LONG, TOOLS);
    let changes = json!({"scope": "warehouse:orders:read warehouse:stock:write", "exp": NOW + 24 * HOUR});
    let denial = world.of("look", &changes).unwrap_err();
    assert_eq!((denial.code(), denial.status()), ("scope_lifetime_too_long", 401));
    assert!(denial.to_string().contains("`warehouse:stock:write`, which allows 900 s"), "{denial}");
    assert_eq!(denial.config_key(), Some("issuers.scope_lifetimes"));
}

#[test]
fn scope_that_another_one_implies_bounds_the_lifetime_too() {
    let world = World::new(READING_LONG, TOOLS);
    let of = |lifetime: i64| world.of("change", &json!({"scope": "warehouse:admin", "exp": NOW + lifetime}));
    assert_eq!(of(900), Ok(()));
    let denial = of(901).unwrap_err();
    assert!(
        matches!(&denial, Denial::ScopeLifetimeTooLong { scope, .. } if scope == "warehouse:orders:write"),
        "{denial}"
    );
}

#[test]
fn scope_that_the_issuer_may_not_assert_bounds_nothing() {
    let world = World::new(&format!("{READING_LONG}\nasserts_scopes = [\"*:read\"]"), TOOLS);
    let scope = "warehouse:orders:read warehouse:orders:write";
    assert_eq!(world.code("look", &json!({"scope": scope, "exp": NOW + 24 * HOUR})), "allowed");
}

// --- age -------------------------------------------------------------------------------------

#[test]
fn token_beyond_its_issuers_age_is_refused_from_the_cache_too_and_one_at_it_is_not() {
    let world = World::new("max_token_age = \"5m\"", TOOLS);
    let token = world.token(&json!({}));
    let edge = (NOW + 300 + 30) * 1_000;
    assert_eq!(world.call("open", &token, at_millis(edge)), Ok(()));
    let issued_at = UnixTime::from_seconds(NOW);
    let too_old = Err(Denial::TokenTooOld { issued_at });
    assert_eq!(world.call("open", &token, at_millis(edge + 1)), too_old);
    let other = world.token(&json!({"jti": "never seen before"}));
    assert_eq!(world.call("open", &other, at_millis(edge + 1)), too_old);
    // Past both, it has expired.
    let late = world.call("open", &token, at(NOW + 600 + 30)).unwrap_err();
    assert_eq!(late.code(), "token_expired");
}

#[test]
fn token_that_expires_before_its_age_is_reached_expires() {
    let world = World::new("max_token_age = \"5m\"", TOOLS);
    let token = world.token(&json!({"exp": NOW + 100}));
    assert_eq!(world.call("open", &token, at_millis((NOW + 130) * 1_000 - 1)), Ok(()));
    assert_eq!(world.call("open", &token, at(NOW + 130)).unwrap_err().code(), "token_expired");
}

#[test]
fn token_without_iat_has_no_age_and_is_refused_where_one_counts() {
    let changes = json!({"iat": null});
    assert_eq!(World::new("", TOOLS).code("open", &changes), "allowed");
    let world = World::new("max_token_age = \"5m\"", TOOLS);
    assert_eq!(world.of("open", &changes), Err(Denial::ClaimMissing { claim: "iat".to_owned() }));
}

#[test]
fn rule_may_ask_for_a_newer_token_than_others() {
    let world = World::new("", "[tools.pay]\nopen = true\nmax_token_age = \"2m\"\n[tools.look]\nopen = true");
    let token = world.token(&json!({}));
    let edge = (NOW + 120 + 30) * 1_000;
    assert_eq!(world.call("pay", &token, at_millis(edge)), Ok(()));
    let denial = world.call("pay", &token, at_millis(edge + 1)).unwrap_err();
    assert_eq!(denial, Denial::NewerTokenRequired { rule: "tools.\"pay\"".to_owned() });
    assert_eq!((denial.status(), denial.challenge_error()), (401, Some("invalid_token")));
    assert_eq!(world.call("look", &token, at_millis(edge + 1)), Ok(()));
    assert_eq!(world.code("pay", &json!({"iat": null})), "newer_token_required");
}

// --- step-up (RFC 9470) ----------------------------------------------------------------------

const STEP_UP: &str = r#"
[tools.pay]
scopes = ["pay"]
acr_values = ["urn:example:mfa", "phr"]
max_age = "5m"
[tools.sign]
open = true
acr_values = ["phr"]
[tools.recent]
open = true
max_age = "5m"
[tools.never]
scopes = ["pay"]
max_age = "5m"
tier = "block"
"#;

#[test]
fn login_must_be_of_one_of_the_kinds_that_the_rule_names() {
    let world = World::new("", STEP_UP);
    let of = |acr: Value| world.code("sign", &json!({"acr": acr}));
    assert_eq!(of(json!("phr")), "allowed");
    // Letter by letter; of the wrong type is as good as absent.
    for acr in [json!("PHR"), json!("phrh"), json!(""), json!(["phr"]), json!(1), json!(null)] {
        assert_eq!(of(acr.clone()), "authentication_insufficient", "{acr}");
    }
}

#[test]
fn login_older_than_the_rules_age_is_refused_and_one_at_it_is_not() {
    let world = World::new("", STEP_UP);
    let of = |at: Value| world.code("recent", &json!({"auth_time": at}));
    assert_eq!(of(json!(NOW - 330)), "allowed");
    assert_eq!(of(json!(NOW - 331)), "authentication_insufficient");
    assert_eq!(of(json!(NOW + 30)), "allowed");
    assert_eq!(of(json!(NOW + 31)), "authentication_insufficient");
    assert_eq!(of(json!(null)), "authentication_insufficient");
    assert_eq!(of(json!((NOW - 10).to_string())), "authentication_insufficient");
}

#[test]
fn login_grows_old_while_its_token_is_cached() {
    let world = World::new("", STEP_UP);
    let token = world.token(&json!({"auth_time": NOW}));
    assert_eq!(world.call("recent", &token, at(NOW + 330)), Ok(()));
    assert_eq!(
        world.call("recent", &token, at_millis((NOW + 330) * 1_000 + 1)).unwrap_err().code(),
        "authentication_insufficient"
    );
}

/// RFC 9470 §3: 401 with `insufficient_user_authentication`, `acr_values` and `max_age`.
#[test]
fn challenge_says_all_that_the_next_login_must_meet() {
    let world = World::new("", STEP_UP);
    let challenge = |denial: &Denial| world.gate.state().receiver().challenge(denial).unwrap();
    for changes in
        [json!({"scope": "pay", "auth_time": NOW}), json!({"scope": "pay", "acr": "phr", "auth_time": NOW - 400})]
    {
        let denial = world.of("pay", &changes).unwrap_err();
        assert_eq!((denial.code(), denial.status()), ("authentication_insufficient", 401));
        let value = challenge(&denial);
        assert!(value.starts_with("Bearer error=\"insufficient_user_authentication\", error_description="), "{value}");
        assert!(value.contains(", acr_values=\"urn:example:mfa phr\", max_age=\"300\", scope=\"pay\""), "{value}");
    }
    let acr_alone = challenge(&world.of("sign", &json!({})).unwrap_err());
    assert!(acr_alone.contains("acr_values=\"phr\"") && !acr_alone.contains("max_age"), "{acr_alone}");
    let age_alone = challenge(&world.of("recent", &json!({})).unwrap_err());
    assert!(age_alone.contains("max_age=\"300\"") && !age_alone.contains("acr_values"), "{age_alone}");
    assert_eq!(world.code("pay", &json!({"scope": "pay", "acr": "phr", "auth_time": NOW})), "allowed");
}

#[test]
fn nobody_is_asked_to_log_in_again_for_what_would_be_refused_all_the_same() {
    let world = World::new("", STEP_UP);
    assert_eq!(world.code("pay", &json!({"scope": "other"})), "scope_insufficient");
    assert_eq!(world.code("never", &json!({"scope": "pay"})), "tier_blocked");
}

// --- subjects --------------------------------------------------------------------------------

#[test]
fn issuer_speaks_of_the_subjects_that_are_listed_and_of_no_others() {
    let world = World::new("subjects = [\"*@example.com\", \"robot-*\"]\ndenied_subjects = [\"robot-1*\"]", TOOLS);
    let of = |subject: Value| world.code("open", &json!({"sub": subject}));
    assert_eq!(of(json!("alice@example.com")), "allowed");
    assert_eq!(of(json!("robot-2")), "allowed");
    assert_eq!(of(json!("alice@example.com.evil.example")), "subject_refused");
    assert_eq!(of(json!("robot-17")), "subject_refused");
    // A client's own token names no subject.
    assert_eq!(of(json!(null)), "subject_refused");
    let key = |subject: &str| world.of("open", &json!({"sub": subject})).unwrap_err().config_key().map(str::to_owned);
    assert_eq!(key("robot-1").as_deref(), Some("issuers.denied_subjects"));
    assert_eq!(key("bob").as_deref(), Some("issuers.subjects"));
}

#[test]
fn denied_subjects_alone_let_all_others_pass() {
    let world = World::new("denied_subjects = [\"mallory\"]", TOOLS);
    let of = |subject: Value| world.code("open", &json!({"sub": subject}));
    assert_eq!(
        (of(json!("mallory")), of(json!("mallory2")), of(json!(null))),
        ("subject_refused", "allowed", "allowed")
    );
}

#[test]
fn subject_that_a_reload_denies_ends_calls_under_way() {
    let world = World::new("", TOOLS);
    let request = ToolRequest::tool("open", None, Some(world.token(&json!({})).into()), None);
    let Ok(Decision::Allowed(call)) = world.gate.check(&request, at(NOW)) else { panic!("it is in order") };
    let reload = |issuer: &str| {
        world.gate.reload(Config::from_toml(&text(&world.signer, issuer, TOOLS), None).unwrap()).unwrap();
    };
    reload("denied_subjects = [\"bob\"]");
    assert_eq!(world.gate.recheck(&call, UnixTime::from_seconds(NOW)), Ok(()));
    reload("denied_subjects = [\"alice\"]");
    assert_eq!(world.gate.recheck(&call, UnixTime::from_seconds(NOW)).unwrap_err().code(), "subject_refused");
}

// --- configuration ---------------------------------------------------------------------------

#[test]
fn values_that_cannot_be_meant_stop_the_start_with_their_key() {
    let signer = Signer::elliptic();
    let of = |issuer: &str, rest: &str| match Config::from_toml(&text(&signer, issuer, rest), None) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    for (line, key) in [
        ("scope_lifetimes = { write = \"61m\" }", "issuers[0].scope_lifetimes.\"write\""),
        ("scope_lifetimes = { write = 0 }", "issuers[0].scope_lifetimes.\"write\""),
        ("scope_lifetimes = { \"\" = \"1m\" }", "issuers[0].scope_lifetimes.\"\""),
        ("max_token_age = \"61m\"", "issuers[0].max_token_age"),
        ("max_token_age = 0", "issuers[0].max_token_age"),
        ("subjects = []", "issuers[0].subjects"),
        ("denied_subjects = [\"\"]", "issuers[0].denied_subjects"),
    ] {
        assert!(of(line, TOOLS).contains(key), "{line}: {}", of(line, TOOLS));
    }
    for line in ["scope_lifetimes = { write = \"60m\" }", "max_token_age = \"60m\"", "max_token_age = 1"] {
        assert_eq!(of(line, TOOLS), "", "{line}");
    }
    for (line, key) in [
        ("acr_values = []", "tools.\"x\".acr_values"),
        ("acr_values = [\"a b\"]", "tools.\"x\".acr_values"),
        ("acr_values = ['a\"']", "tools.\"x\".acr_values"),
        ("max_age = 0", "tools.\"x\".max_age"),
        ("max_age = \"1500ms\"", "tools.\"x\".max_age"),
        ("max_token_age = \"32d\"", "tools.\"x\".max_token_age"),
    ] {
        let rest = format!("[tools.x]\nopen = true\n{line}");
        assert!(of("", &rest).contains(key), "{line}: {}", of("", &rest));
    }
}

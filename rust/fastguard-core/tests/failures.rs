//! Failed authentications are held off by address, before a signature is checked.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

#[expect(dead_code, reason = "one kind of key will do here")]
mod signing;

use std::time::Duration;

use fastguard_core::clock::FakeClock;
use fastguard_core::{Config, Decision, Denial, Gate, GateError, ToolRequest};
use serde_json::{Value, json};
use signing::Signer;

const ISSUER: &str = "https://auth.example.com";
const AUDIENCE: &str = "https://mcp.example.com/mcp";
const NOW: i64 = 1_800_000_000;

struct World {
    gate: Gate,
    signer: Signer,
    clock: FakeClock,
}

impl World {
    fn new(rate: &str) -> Self {
        let signer = Signer::elliptic();
        let keys = json!({"keys": [signer.jwk("k")]});
        let text = format!(
            "version = 1\n[resource]\nurl = \"{AUDIENCE}\"\n[[issuers]]\nissuer = \"{ISSUER}\"\njwks = '{keys}'\n\
             [limits]\nfailed_authentications = \"{rate}\"\n[tools.open]\nopen = true\n[audit]\nenabled = false\n"
        );
        let gate = Gate::new(Config::from_toml(&text, None).unwrap(), None).unwrap();
        Self { gate, signer, clock: FakeClock::at(NOW) }
    }

    fn token(&self, changes: &Value) -> String {
        let mut claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": NOW, "exp": NOW + 600});
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        self.signer.token("k", &claims)
    }

    fn denial(&self, token: &str, address: Option<&str>) -> Option<Denial> {
        let request = ToolRequest::tool("open", None, (!token.is_empty()).then(|| token.into()), None);
        let request = request.from_peer(address.map(|address| address.parse().unwrap()));
        match self.gate.check(&request, self.clock.now()) {
            Ok(Decision::Allowed(_)) => None,
            Err(GateError::Denied(denial, _)) => Some(denial),
            other => panic!("{other:?}"),
        }
    }

    fn code(&self, token: &str, address: Option<&str>) -> &'static str {
        self.denial(token, address).map_or("allowed", |denial| denial.code())
    }
}

const HERE: Option<&str> = Some("192.0.2.1");

/// The text of a signature that is none, each time another.
fn forged(world: &World, number: usize) -> String {
    let token = world.token(&json!({"jti": number.to_string()}));
    let at = token.rfind('.').unwrap() + 10;
    let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &token[..at], &token[at + 1..])
}

#[test]
fn address_that_fails_too_often_is_held_off_and_others_are_not() {
    let mut world = World::new("5/minute");
    for number in 0..5 {
        assert_eq!(world.code(&forged(&world, number), HERE), "signature_invalid");
    }
    let held = world.denial(&forged(&world, 5), HERE).unwrap();
    assert_eq!((held.code(), held.status()), ("authentication_limited", 429));
    assert_eq!(held.retry_after(), Some(Duration::from_secs(12)));
    // A good token that nobody knows yet is not looked at either: who guesses must not learn which one is good.
    let good = world.token(&json!({}));
    assert_eq!(world.code(&good, HERE), "authentication_limited");
    assert_eq!(world.code(&good, Some("192.0.2.2")), "allowed");
    // From then on it is known, and spared.
    assert_eq!(world.code(&good, HERE), "allowed");
    world.clock.advance(Duration::from_secs(12));
    assert_eq!(world.code(&forged(&world, 6), HERE), "signature_invalid");
    assert_eq!(world.code(&forged(&world, 7), HERE), "authentication_limited");
}

#[test]
fn household_of_ipv6_is_one_address() {
    let world = World::new("1/minute");
    assert_eq!(world.code(&forged(&world, 0), Some("2001:db8::1")), "signature_invalid");
    assert_eq!(world.code(&forged(&world, 1), Some("2001:db8::ffff:2")), "authentication_limited");
    assert_eq!(world.code(&forged(&world, 2), Some("2001:db8:0:1::1")), "signature_invalid");
}

#[test]
fn what_is_no_failed_authentication_counts_for_nothing() {
    let world = World::new("1/minute");
    let good = world.token(&json!({}));
    for _ in 0..3 {
        assert_eq!(world.code("", HERE), "token_missing");
        assert_eq!(world.code(&good, HERE), "allowed");
    }
    assert_eq!(world.code(&world.token(&json!({"aud": "https://other.example.com"})), HERE), "audience_mismatch");
    assert_eq!(world.code(&world.token(&json!({"exp": NOW - 60})), HERE), "authentication_limited");
    assert_eq!(world.code(&good, HERE), "allowed");
}

#[test]
fn unknown_address_is_not_limited() {
    let world = World::new("1/minute");
    for number in 0..5 {
        assert_eq!(world.code(&forged(&world, number), None), "signature_invalid");
    }
}

#[test]
fn failures_outlive_a_change_of_the_configuration() {
    let world = World::new("1/minute");
    assert_eq!(world.code(&forged(&world, 0), HERE), "signature_invalid");
    let config = world.gate.state().config().clone();
    world.gate.reload(config).unwrap();
    assert_eq!(world.code(&forged(&world, 1), HERE), "authentication_limited");
}

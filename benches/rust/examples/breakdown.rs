//! Where the time of a call goes that was seen before: nanoseconds of each part, the least of many blocks.
#![allow(clippy::all, clippy::pedantic, clippy::restriction, reason = "a measurement, run by hand and by `make bench`")]

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use fastguard_benches::base64url;
use fastguard_core::Config;
use fastguard_core::clock::{Now, Tick, UnixTime};
use fastguard_core::gate::{Decision, Gate};
use fastguard_core::request::ToolRequest;
use fastguard_core::token::{Answered, Attached};

const NOW: i64 = 1_800_000_000;

fn least(name: &str, mut work: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..60 {
        let start = Instant::now();
        for _ in 0..2_000 {
            work();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / 2_000.0);
    }
    println!("{name:40} {best:7.0} ns");
}

fn main() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let point = pair.public_key().as_ref();
    let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
    let config = |rules: &str| {
        format!(
            r#"{{"version":1,"resource":{{"url":"https://mcp.example.com/mcp"}},"issuers":[{{"issuer":"https://auth.example.com","algorithms":["ES256"],
        "jwks":{{"kty":"EC","crv":"P-256","kid":"k","x":"{x}","y":"{y}"}}}}],"limits":{{"rules":[{rules}]}},
        "tools":{{"run_query":{{"scopes":["warehouse:query:read"]}}}},"audit":{{"enabled":false}}}}"#
        )
    };
    let gate = |rules| Gate::new(Config::from_json(&config(rules)).expect("good"), None).expect("good");
    let one = r#"{"per":"principal","quota":"4000000000/minute"}"#;
    let three = r#"{"per":"principal","quota":"4000000000/minute"},{"per":"session","quota":"4000000000/minute"},
        {"per":"tool","quota":"4000000000/minute"}"#;
    let (gate, gate_of_three) = (gate(one), gate(three));
    let header = base64url(br#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#);
    let claims = base64url(
        format!(
            r#"{{"iss":"https://auth.example.com","aud":"https://mcp.example.com/mcp","sub":"alice","client_id":"agent-7","iat":{NOW},"exp":{},"jti":"0123456789abcdef","scope":"warehouse:schema:read warehouse:query:read"}}"#,
            NOW + 900
        )
        .as_bytes(),
    );
    let input = format!("{header}.{claims}");
    let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).expect("signed");
    let token = format!("{input}.{}", base64url(signature.as_ref()));
    let now = Now { unix: UnixTime::from_seconds(NOW + 1), tick: Tick::from_nanos(1), own: Tick::from_nanos(1) };
    let arguments: &[u8] = br#"{"sql":"select 1"}"#;
    let build = || ToolRequest::tool("run_query", Some(arguments.into()), Some(token.as_str().into()), None);
    let request = build();
    least("ToolRequest::tool", || drop(black_box(build())));
    least("tokens.verify, seen before", || {
        drop(black_box(gate.state().tokens().verify(&token, Answered::default(), now, &Attached)));
    });
    least("receiver.receive and target", || {
        let state = gate.state();
        let received = state.receiver().receive(&request).expect("good");
        drop(black_box(received.target()));
    });
    least("gate.check", || match gate.check(&request, now) {
        Ok(Decision::Allowed(call)) => drop(black_box(call)),
        _ => std::process::abort(),
    });
    least("gate.check, three rules", || match gate_of_three.check(&request, now) {
        Ok(Decision::Allowed(call)) => drop(black_box(call)),
        _ => std::process::abort(),
    });
}

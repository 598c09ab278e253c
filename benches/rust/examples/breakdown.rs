//! Where the time of a call goes that was seen before: nanoseconds of each part, the least of many blocks.
#![allow(clippy::all, clippy::pedantic, clippy::restriction, reason = "a measurement, run by hand and by `make bench`")]

use std::hint::black_box;
use std::time::Instant;

use fastguard_benches::{Issuer, now};
use fastguard_core::gate::Decision;
use fastguard_core::request::ToolRequest;
use fastguard_core::token::{Answered, Attached};

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
    let issuer = Issuer::new();
    let one = r#"{"per":"principal","quota":"4000000000/minute"}"#;
    let three = r#"{"per":"principal","quota":"4000000000/minute"},{"per":"session","quota":"4000000000/minute"},
        {"per":"tool","quota":"4000000000/minute"}"#;
    let (gate, gate_of_three, token, now) = (issuer.gate(one), issuer.gate(three), issuer.token.as_str(), now());
    let arguments: &[u8] = br#"{"sql":"select 1"}"#;
    let build = || ToolRequest::tool("run_query", Some(arguments.into()), Some(token.into()), None);
    let request = build();
    least("ToolRequest::tool", || drop(black_box(build())));
    least("tokens.verify, seen before", || {
        drop(black_box(gate.state().tokens().verify(token, Answered::default(), now, &Attached)));
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

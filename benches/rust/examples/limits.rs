//! Limits without Python: what two threads gain over one, on keys of their own and on the same key, and what each further rule of
//! a call costs. Ratios and differences of blocks that alternate in one run; one JSON object.
#![allow(clippy::all, clippy::pedantic, clippy::restriction, reason = "a measurement, run by hand and by `make bench`")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use fastguard_benches::{Issuer, now};
use fastguard_core::clock::Tick;
use fastguard_core::gate::{Decision, Gate};
use fastguard_core::limits::{ClockSource, SlidingWindow};
use fastguard_core::request::ToolRequest;

const ROUNDS: usize = 31;
const ADMITTED: usize = 400_000;
const CHECKED: usize = 500;
/// Rules of the larger gate.
const RULES: usize = 4;
/// Keys of one thread that has many: the two meet wherever shards are few.
const KEYS: usize = 64;

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64
}

/// The quartiles and the median of them.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[values.len() / 4], values[values.len() / 2], values[values.len() * 3 / 4]]
}

/// How many times as much two threads do in the time of one, each on names of its own, or both on the same.
fn gain(window: &SlidingWindow, start: Instant, keys: usize, are_same: bool) -> f64 {
    let admit = |who: &str, count: usize| {
        let keys: Vec<String> = (0..keys).map(|number| format!("{who}-{number}")).collect();
        for number in 0..count {
            let key = if are_same { b"alice".as_slice() } else { keys[number % keys.len()].as_bytes() };
            let now = Tick::from_nanos(start.elapsed().as_nanos() as u64);
            black_box(window.admit(key, 1, now, ClockSource::System)).expect("admitted");
        }
    };
    let one = timed(|| admit("one", 2 * ADMITTED));
    let both = timed(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| admit("left", ADMITTED));
            scope.spawn(|| admit("right", ADMITTED));
        });
    });
    one / both
}

/// Nanoseconds of each rule beyond the first.
fn of_a_further_rule() -> [f64; 3] {
    let (issuer, now) = (Issuer::new(), now());
    let gate = |count: usize| {
        let rules: Vec<String> = ["principal", "tool", "client", "everyone"][..count]
            .iter()
            .map(|per| format!(r#"{{"per":"{per}","quota":"4000000000/minute"}}"#))
            .collect();
        issuer.gate(&rules.join(","))
    };
    let request = ToolRequest::tool("run_query", None, Some(issuer.token.as_str().into()), None);
    let (few, many) = (gate(1), gate(RULES));
    let check = |gate: &Gate| {
        timed(|| {
            for _ in 0..CHECKED {
                match gate.check(&request, now) {
                    Ok(Decision::Allowed(call)) => drop(black_box(call)),
                    _ => std::process::abort(),
                }
            }
        }) / CHECKED as f64
    };
    check(&few);
    check(&many);
    spread((0..100 * ROUNDS).map(|_| (check(&many) - check(&few)) / (RULES - 1) as f64).collect())
}

fn main() {
    let window = SlidingWindow::new(4_000_000_000, Duration::from_secs(60), 1_000_000).expect("good");
    let start = Instant::now();
    let own = spread((0..ROUNDS).map(|_| gain(&window, start, 1, false)).collect());
    let many = spread((0..ROUNDS).map(|_| gain(&window, start, KEYS, false)).collect());
    let same = spread((0..ROUNDS).map(|_| gain(&window, start, 1, true)).collect());
    let rule = of_a_further_rule();
    println!(r#"{{"own_keys":{own:?},"many_keys":{many:?},"same_key":{same:?},"further_rule_ns":{rule:?}}}"#);
}

//! How quickly one writer writes a log of a million records, and how long it takes to verify it, and to repair it. Prints one JSON object.
#![allow(clippy::all, clippy::pedantic, clippy::restriction, reason = "a measurement, run by hand and by `make bench`")]

use std::time::{Duration, Instant};

use fastguard_core::audit::repair::{Outcome as Repaired, repair};
use fastguard_core::audit::{Arguments, Audit, Checks, Decision, Event, Outcome, Settings, log};
use fastguard_core::{Room, UnixTime};
// Its allocator: records are made on one thread and freed on the writer's.
use fastguard_benches as _;

fn decision(id: u64) -> Event {
    Decision {
        at: UnixTime::from_seconds(1_795_219_200),
        elapsed_nanos: Some(900),
        id,
        result: Outcome::Allowed,
        enforced: true,
        caller: None,
        peer: "192.0.2.7".parse().ok(),
        kind: "tool",
        method: "tools/call".into(),
        target: Some("run_query".into()),
        session: Some("0123456789abcdef".into()),
        request_id: Some("1".into()),
        trace: None,
        rule: Some("tools.\"run_query\"".into()),
        tier: "auto",
        log_arguments: [].into(),
        arguments: Arguments::Text(br#"{"sql":"select 1","limit":10}"#[..].into()),
        policy: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".into(),
        checks: Checks::passed_through(Room::Policy),
        limit: Some(("principal".into(), 999)),
        limits_mode: None,
    }
    .into()
}

fn main() {
    let records: u64 = std::env::args().nth(1).map_or(1_000_000, |count| count.parse().unwrap());
    let place = std::env::temp_dir().join(format!("fastguard-verify-{}", std::process::id()));
    let audit = Audit::open_log(Settings::at(&place)).unwrap();
    let began = Instant::now();
    for id in 0..records {
        while audit.record(decision(id)).is_err() {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    audit.flush(Duration::from_secs(60)).unwrap();
    let written = began.elapsed();
    audit.close().unwrap();
    let bytes: u64 =
        std::fs::read_dir(audit.folder()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        let verdict = log::verify(audit.folder()).unwrap();
        best = best.min(began.elapsed());
        assert_eq!((verdict.problem, verdict.sealed), (None, true));
    }
    // As a process leaves it that is killed before its first checkpoint.
    let mut files: Vec<_> = std::fs::read_dir(audit.folder()).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    let last = files.into_iter().max().unwrap();
    let text = std::fs::read(&last).unwrap();
    let seal = text[..text.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    std::fs::write(&last, &text[..seal]).unwrap();
    for name in ["checkpoint", "vkey"] {
        std::fs::remove_file(audit.folder().join(name)).unwrap();
    }
    let began = Instant::now();
    let found = repair(&Settings::at(&place)).unwrap();
    let repaired = began.elapsed();
    assert!(matches!(found[0].outcome, Repaired::Repaired { .. }), "{found:?}");
    println!(
        "{{\"records\": {records}, \"bytes\": {bytes}, \"written_per_second\": {:.0}, \"verify_seconds\": {:.3}, \"repair_seconds\": {:.3}}}",
        records as f64 / written.as_secs_f64(),
        best.as_secs_f64(),
        repaired.as_secs_f64()
    );
    std::fs::remove_dir_all(place).unwrap();
}

//! Files of a log that others move, cut or write, and calls that run while the log cannot be written.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fastguard_core::audit::log::{self, Entry};
use fastguard_core::audit::{Audit, Event, Notice, Settings};
use fastguard_core::config::OnAuditFailure;
use fastguard_core::{Fault, UnixTime};

const PATIENCE: Duration = Duration::from_secs(20);

fn open(on_failure: OnAuditFailure) -> Audit {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("failures-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    Audit::open_log(Settings { on_failure, ..Settings::at(path) }).unwrap()
}

fn notice() -> Event {
    let fields = vec![("subject", "alice".into())];
    Notice { at: UnixTime::from_seconds(1_795_219_200), event_type: "revoked", fields }.into()
}

fn records(log: &Path) -> Vec<serde_json::Value> {
    let value = |entry| if let Entry::Line(line) = entry { serde_json::from_slice(&line.text).ok() } else { None };
    log::read(log).unwrap().filter_map(|entry| value(entry.unwrap())).collect()
}

/// What the log says after `meddle` was done to its file, and what `verify` finds.
fn after(meddle: impl FnOnce(&PathBuf)) -> (String, Option<&'static str>) {
    let audit = open(OnAuditFailure::Refuse);
    audit.record(notice()).unwrap();
    audit.flush(PATIENCE).unwrap();
    meddle(&audit.folder().join("000001.jsonl"));
    audit.record(notice()).unwrap();
    let refused = audit.flush(PATIENCE).unwrap_err();
    assert!(matches!(&refused, Fault::AuditFailed { reason } if reason.contains("by somebody else")), "{refused:?}");
    assert!(matches!(audit.record(notice()), Err(Fault::AuditFailed { .. })));
    audit.close().unwrap();
    let found = records(audit.folder());
    let recovered = found.iter().find(|record| record["event_type"] == "recovered").unwrap();
    let problem = log::verify(audit.folder()).unwrap().problem.map(|problem| problem.what);
    (recovered["reason"].as_str().unwrap().rsplit("` ").next().unwrap().to_owned(), problem)
}

const MISSING: &str = "lines are missing or out of order before this one";

#[test]
fn file_that_is_renamed_is_told_and_found() {
    let (told, problem) = after(|file| fs::rename(file, file.with_extension("old")).unwrap());

    assert_eq!(told, "was renamed, replaced or removed by somebody else");
    assert_eq!(problem, Some(MISSING));
}

#[test]
fn file_that_is_removed_is_told_and_found() {
    let (told, problem) = after(|file| fs::remove_file(file).unwrap());

    assert_eq!(told, "was renamed, replaced or removed by somebody else");
    assert_eq!(problem, Some(MISSING));
}

#[test]
fn file_that_is_replaced_is_told_and_found() {
    let (told, problem) = after(|file| {
        let copy = file.with_extension("copy");
        fs::copy(file, &copy).unwrap();
        let text = String::from_utf8(fs::read(&copy).unwrap()).unwrap().replace("alice", "carol");
        fs::write(&copy, text).unwrap();
        fs::rename(copy, file).unwrap();
    });

    assert_eq!(told, "was renamed, replaced or removed by somebody else");
    assert!(problem.is_some());
}

#[test]
fn file_that_is_copied_and_truncated_is_told_and_found() {
    let (told, problem) = after(|file| fs::File::options().write(true).open(file).unwrap().set_len(0).unwrap());

    assert_eq!(told, "was cut by somebody else");
    assert_eq!(problem, Some(MISSING));
}

#[test]
fn file_that_others_write_to_is_told_and_loses_what_they_wrote() {
    let (told, problem) = after(|file| {
        let mut file = fs::File::options().append(true).open(file).unwrap();
        file.write_all(b"{\"seq\":2,\"event_type\":\"decision\"}\n").unwrap();
    });

    assert_eq!(told, "was written by somebody else");
    assert_eq!(problem, None);
}

#[test]
fn calls_that_run_without_a_record_are_counted_in_the_log() {
    let audit = open(OnAuditFailure::ContinueAndCount);
    fs::remove_dir_all(audit.folder()).unwrap();
    audit.record(notice()).unwrap();
    assert!(audit.flush(PATIENCE).is_err());
    for _ in 0..7 {
        audit.record(notice()).unwrap();
        audit.keep().unwrap();
    }
    let statistics = audit.statistics();
    assert_eq!((statistics.unrecorded, statistics.refused, statistics.failed), (7, 0, true));

    fs::create_dir(audit.folder()).unwrap();
    audit.close().unwrap();

    let found = records(audit.folder());
    assert_eq!((&found[1]["event_type"], &found[1]["unrecorded"]), (&"recovered".into(), &7.into()));
    assert_eq!((&found[1]["refused"], &found[1]["written_later"]), (&0.into(), &1.into()));
    assert!(log::verify(audit.folder()).unwrap().sealed);
}

#[test]
fn log_that_is_closed_takes_nothing_even_where_calls_run_on() {
    let audit = open(OnAuditFailure::ContinueAndCount);
    audit.record(notice()).unwrap();
    audit.close().unwrap();

    assert_eq!(audit.record(notice()), Err(Fault::Closed));
}

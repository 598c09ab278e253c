//! The log on a real disk, with its real thread.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fastguard_core::audit::log::{self, Entry};
use fastguard_core::audit::repair::repair;
use fastguard_core::audit::{Arguments, Audit, Checks, Decision, Event, Key, Known, Outcome, Settings, prove};
use fastguard_core::{Denial, Fault, Room, UnixTime};

const PATIENCE: Duration = Duration::from_secs(20);

fn folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("audit-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    path
}

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
        session: None,
        request_id: Some("1".into()),
        trace: None,
        rule: Some("tools.run_query".into()),
        tier: "auto",
        log_arguments: [].into(),
        arguments: Arguments::Text(br#"{"sql":"select 1","limit":10}"#[..].into()),
        policy: "00".into(),
        checks: Checks::passed_through(Room::Policy),
        limit: None,
        limits_mode: None,
    }
    .into()
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    log::read(path)
        .unwrap()
        .filter_map(|entry| match entry.unwrap() {
            Entry::Line(line) => Some(serde_json::from_slice(&line.text).unwrap()),
            Entry::Replaced(_) | Entry::Torn { .. } => None,
        })
        .collect()
}

#[test]
fn what_was_flushed_is_in_the_file() {
    let audit = Audit::open_log(Settings::at(folder())).unwrap();
    for _ in 0..10 {
        audit.record(decision(audit.next_id())).unwrap();
    }
    audit.flush(PATIENCE).unwrap();

    let lines = lines(audit.folder());
    assert_eq!(lines.len(), 11);
    assert_eq!(lines[1]["id"], audit.record_id(1));
    assert_eq!(audit.statistics().written, 11);
    assert_eq!(audit.statistics().queued, 0);
}

#[test]
fn records_of_many_threads_are_all_there_and_the_seal_fits() {
    let path = folder();
    let audit = Audit::open_log(Settings { max_file_bytes: 100_000, ..Settings::at(&path) }).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..2_000).for_each(|_| audit.record(decision(audit.next_id())).unwrap()));
        }
    });
    audit.close().unwrap();

    let verdict = log::verify(audit.folder()).unwrap();
    assert_eq!(verdict.problem, None);
    assert!(verdict.sealed);
    let ids: HashSet<_> =
        lines(audit.folder()).iter().filter_map(|line| line["id"].as_str().map(str::to_owned)).collect();
    assert_eq!(ids.len(), 8_000);
    assert!(fs::read_dir(audit.folder()).unwrap().count() > 10);
}

/// More than one group of a MiB: each is formatted while the one before it is on its way to the disk.
#[test]
fn burst_that_is_formatted_beside_the_disk_is_whole_and_in_its_order() {
    const RECORDS: u64 = 30_000;
    let audit = Audit::open_log(Settings { max_file_bytes: 3 << 20, ..Settings::at(folder()) }).unwrap();
    (0..RECORDS).for_each(|id| audit.record(decision(id)).unwrap());
    audit.flush(PATIENCE).unwrap();
    audit.close().unwrap();

    let verdict = log::verify(audit.folder()).unwrap();
    assert_eq!((verdict.problem, verdict.sealed), (None, true));
    let lines = lines(audit.folder());
    let ids = lines.iter().filter_map(|line| line["id"].as_str()).map(str::to_owned);
    assert!(ids.eq((0..RECORDS).map(|id| audit.record_id(id))));
}

#[test]
fn a_closed_log_takes_no_records_and_closes_again_without_harm() {
    let audit = Audit::open_log(Settings::at(folder())).unwrap();
    audit.record(decision(1)).unwrap();
    audit.close().unwrap();

    assert_eq!(audit.record(decision(2)), Err(Fault::Closed));
    audit.record_unverified(decision(3));
    audit.close().unwrap();
    assert_eq!(lines(audit.folder()).len(), 3);
}

#[test]
fn a_log_that_was_never_used_leaves_no_folder_and_starts_no_thread() {
    let audit = Audit::open_log(Settings::at(folder())).unwrap();
    assert!(audit.folder().is_dir());
    audit.flush(PATIENCE).unwrap();
    audit.close().unwrap();

    assert!(!audit.folder().exists());
    assert_eq!(audit.record(decision(1)), Err(Fault::Closed));
}

#[test]
fn a_dropped_log_is_sealed() {
    let audit = Audit::open_log(Settings::at(folder())).unwrap();
    let path = audit.folder().to_owned();
    audit.record(decision(1)).unwrap();
    drop(audit);

    assert!(log::verify(&path).unwrap().sealed);
}

#[test]
fn a_log_that_cannot_be_written_refuses_and_says_so_and_loses_nothing() {
    let audit = Audit::open_log(Settings::at(folder())).unwrap();
    fs::remove_dir_all(audit.folder()).unwrap();
    audit.record(decision(1)).unwrap();

    assert!(matches!(audit.flush(PATIENCE), Err(Fault::AuditFailed { .. })));
    let refused = audit.record(decision(2));
    assert!(matches!(&refused, Err(Fault::AuditFailed { reason }) if reason.contains("No such file")), "{refused:?}");
    audit.record_unverified(decision(3));
    assert!(audit.statistics().failed);

    fs::create_dir(audit.folder()).unwrap();
    audit.close().unwrap();
    let types: Vec<_> = lines(audit.folder()).iter().map(|line| line["event_type"].clone()).collect();
    assert_eq!(types, ["log_opened", "recovered", "decision", "refusals_counted", "log_sealed"]);
}

#[test]
fn a_failed_log_recovers_by_itself() {
    let audit = Audit::open_log(Settings::at(folder())).unwrap();
    fs::remove_dir_all(audit.folder()).unwrap();
    audit.record(decision(1)).unwrap();
    assert!(audit.flush(PATIENCE).is_err());
    fs::create_dir(audit.folder()).unwrap();

    let began = Instant::now();
    while audit.statistics().failed {
        assert!(began.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    audit.record(decision(2)).unwrap();
    audit.flush(PATIENCE).unwrap();
    assert_eq!(lines(audit.folder()).len(), 4);
}

#[test]
fn a_failed_log_that_stays_failed_closes_within_its_time() {
    let audit = Audit::open_log(Settings::at(folder())).unwrap();
    fs::remove_dir_all(audit.folder()).unwrap();
    audit.record(decision(1)).unwrap();
    let began = Instant::now();

    assert!(matches!(audit.close(), Err(Fault::AuditFailed { .. })));
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_place_that_cannot_be_written_stops_the_start() {
    let path = folder();
    fs::write(&path, b"a file").unwrap();

    let refused = Audit::open_log(Settings::at(&path)).err();
    assert!(matches!(&refused, Some(Fault::AuditFailed { reason }) if reason.contains("audit-")), "{refused:?}");
}

#[test]
fn a_child_has_a_log_of_its_own_with_the_same_key() {
    let path = folder();
    let parent = Audit::open_log(Settings::at(&path)).unwrap();
    parent.record(decision(1)).unwrap();
    let child = parent.reopen_after_fork().unwrap();
    child.record(decision(1)).unwrap();
    parent.close().unwrap();
    child.close().unwrap();

    assert_ne!(parent.log(), child.log());
    let hash_of = |audit: &Audit| lines(audit.folder())[1]["input_hash"].clone();
    assert_eq!(hash_of(&parent), hash_of(&child));
    assert!(fs::read(path.join("key")).unwrap().len() == 65);
}

#[cfg(unix)]
#[test]
fn nobody_else_may_read_the_log_or_its_key() {
    use std::os::unix::fs::PermissionsExt as _;

    let path = folder();
    let audit = Audit::open_log(Settings::at(&path)).unwrap();
    audit.record(decision(1)).unwrap();
    audit.flush(PATIENCE).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(audit.folder()), 0o700);
    assert_eq!(mode(&audit.folder().join("000001.jsonl")), 0o600);
    assert_eq!(mode(&path.join("key")), 0o600);

    fs::set_permissions(path.join("key"), fs::Permissions::from_mode(0o604)).unwrap();
    let refused = Audit::open_log(Settings::at(&path)).err();
    assert!(matches!(&refused, Some(Fault::AuditFailed { reason }) if reason.contains("0600")), "{refused:?}");
}

#[test]
fn a_torn_end_is_told_and_the_lines_before_it_are_read() {
    let audit = Audit::open_log(Settings::at(folder())).unwrap();
    (1..=3).for_each(|id| audit.record(decision(id)).unwrap());
    audit.close().unwrap();
    let file = audit.folder().join("000001.jsonl");
    let whole = fs::read(&file).unwrap();
    let seal = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    fs::write(&file, &whole[..=seal]).unwrap();
    let signed = log::verify(audit.folder()).unwrap();
    assert_eq!(signed.problem.map(|problem| problem.what), Some("the log ends before its checkpoint"));
    // From here on, as a process leaves it that is killed before its first checkpoint.
    for name in ["checkpoint", "vkey"] {
        fs::remove_file(audit.folder().join(name)).unwrap();
    }
    for cut in [seal + 1, seal + 9, whole.len() - 1] {
        fs::write(&file, &whole[..cut]).unwrap();

        let entries: Vec<Entry> = log::read(audit.folder()).unwrap().map(Result::unwrap).collect();
        assert_eq!(entries.len(), 5);
        let torn = Entry::Torn { file: 1, offset: seal as u64, bytes: (cut - seal) as u64, is_remains: true };
        assert_eq!(entries.last(), Some(&torn));
        let verdict = log::verify(audit.folder()).unwrap();
        assert_eq!((verdict.records, verdict.sealed, verdict.problem), (4, false, None));
    }
    fs::write(&file, [&whole[..seal], &[0; 4_096]].concat()).unwrap();
    assert_eq!(log::verify(audit.folder()).unwrap().torn_bytes, 4_096);
}

#[test]
fn one_changed_byte_anywhere_in_a_sealed_log_shows() {
    let audit = Audit::open_log(Settings::at(folder())).unwrap();
    audit.record(decision(1)).unwrap();
    audit.close().unwrap();
    let file = audit.folder().join("000001.jsonl");
    let whole = fs::read(&file).unwrap();
    let sealed = log::verify(audit.folder()).unwrap();
    assert_eq!(sealed.problem, None);
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        fs::write(&file, changed).unwrap();

        // A change within the seal itself that is still a seal shows in the root, which the owner has kept.
        let verdict = log::verify(audit.folder()).unwrap();
        assert_ne!(verdict, sealed, "byte {place}");
    }
}

#[test]
fn lines_that_were_removed_or_reordered_show() {
    let audit = Audit::open_log(Settings::at(folder())).unwrap();
    (1..=3).for_each(|id| audit.record(decision(id)).unwrap());
    audit.close().unwrap();
    let file = audit.folder().join("000001.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for order in [vec![0, 1, 3, 4], vec![0, 2, 1, 3, 4], vec![1, 2, 3, 4], vec![0, 1, 1, 2, 3, 4]] {
        fs::write(&file, order.into_iter().map(|index: usize| lines[index]).collect::<String>()).unwrap();

        assert!(log::verify(audit.folder()).unwrap().problem.is_some());
    }
}

#[test]
fn a_flood_before_the_token_is_bounded_on_disk_and_counted() {
    let audit = Audit::open_log(Settings { unverified_bytes_per_minute: 10_000, ..Settings::at(folder()) }).unwrap();
    let flood = || match decision(1) {
        Event::Decision(decision) => {
            Event::from(Decision { result: Outcome::from(&Denial::TokenMissing), ..*decision })
        }
        other => other,
    };
    (0..20_000).for_each(|_| audit.record_unverified(flood()));
    audit.record(decision(2)).unwrap();
    audit.close().unwrap();

    let lines = lines(audit.folder());
    let written = lines.iter().filter(|line| line["result"] == "denied").count() as u64;
    let report = lines.iter().find(|line| line["event_type"] == "refusals_counted").unwrap();
    assert!(written * 400 < 20_000, "{written}");
    assert_eq!(report["total"].as_u64().unwrap() + written, 20_000);
    assert_eq!(audit.statistics().unverified_counted + written, 20_000);
}

#[test]
fn a_record_after_a_pause_wakes_the_writer() {
    let audit = Audit::open_log(Settings::at(folder())).unwrap();
    for _ in 0..2 {
        audit.record(decision(1)).unwrap();
        let began = Instant::now();
        while audit.statistics().queued > 0 {
            assert!(began.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
        // Longer than the writer looks for more by itself.
        while began.elapsed() < Duration::from_millis(400) {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_file_that_somebody_else_cut_or_deleted_is_given_up_and_the_log_tells() {
    for harm in [|file: &Path| fs::write(file, b"").unwrap(), |file: &Path| fs::remove_file(file).unwrap()] {
        let audit = Audit::open_log(Settings::at(folder())).unwrap();
        audit.record(decision(1)).unwrap();
        audit.flush(PATIENCE).unwrap();
        harm(&audit.folder().join("000001.jsonl"));
        audit.record(decision(2)).unwrap();
        assert!(audit.flush(PATIENCE).is_err());
        audit.close().unwrap();

        let types: Vec<_> = lines(audit.folder()).iter().map(|line| line["event_type"].clone()).collect();
        assert_eq!(types, ["log_opened", "recovered", "decision", "log_sealed"]);
        assert!(log::verify(audit.folder()).unwrap().problem.is_some());
    }
}

/// The kernel refuses to write further, as it does on a full disk: the file may not grow beyond 64 blocks.
#[cfg(unix)]
#[test]
fn a_process_that_may_not_write_on_refuses_and_goes_on_in_a_new_file() {
    let path = folder();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "writes_until_it_is_refused", "--ignored", "--nocapture"])
        .env("FASTGUARD_TEST_AUDIT", &path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    let taken: u64 = told.lines().find_map(|line| line.strip_prefix("taken ")).unwrap().parse().unwrap();

    let log = log::list(&path).unwrap().remove(0);
    let verdict = log::verify(&log).unwrap();
    assert_eq!((verdict.problem, verdict.sealed, verdict.torn_bytes), (None, true, 0));
    let lines = lines(&log);
    assert_eq!(lines.iter().filter(|line| line["event_type"] == "decision").count() as u64, taken);
    let recovered = lines.iter().find(|line| line["event_type"] == "recovered").unwrap();
    assert!(recovered["reason"].as_str().unwrap().contains("File too large"), "{recovered}");
    assert_eq!(recovered["refused"], 1);
}

#[test]
#[ignore = "the other half of a_process_that_may_not_write_on_refuses_and_goes_on_in_a_new_file"]
fn writes_until_it_is_refused() {
    let Some(path) = std::env::var_os("FASTGUARD_TEST_AUDIT") else { return };
    let audit = Audit::open_log(Settings::at(path)).unwrap();
    let mut taken = 0;
    let refused = loop {
        match audit.record(decision(audit.next_id())) {
            Ok(()) => taken += 1,
            Err(fault) => break fault,
        }
        if taken % 10 == 0 && audit.flush(PATIENCE).is_err() {
            break audit.record(decision(audit.next_id())).unwrap_err();
        }
    };
    assert!(matches!(refused, Fault::AuditFailed { .. }), "{refused:?}");
    audit.close().unwrap();
    writeln!(std::io::stdout(), "\ntaken {taken}").unwrap();
}

/// Kills a process in the middle of its work: what it was told to be durable is there, and the log reads.
#[test]
fn a_killed_process_loses_nothing_that_was_flushed() {
    for round in 0..5 {
        let path = folder();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env("FASTGUARD_TEST_AUDIT", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        let flushed: Vec<String> = told
            .lines()
            .filter_map(|line| line.unwrap().strip_prefix("durable ").map(str::to_owned))
            .take(5 + round * 7)
            .collect();
        child.kill().unwrap();
        child.wait().unwrap();

        let log = log::list(&path).unwrap().remove(0);
        let verdict = log::verify(&log).unwrap();
        assert_eq!((verdict.problem, verdict.sealed), (None, false));
        repair(&Settings::at(&path)).unwrap();
        let verdict = log::verify(&log).unwrap();
        assert_eq!((verdict.problem, verdict.sealed, verdict.torn_bytes), (None, true, 0));
        let ids: HashSet<_> = lines(&log).iter().filter_map(|line| line["id"].as_str().map(str::to_owned)).collect();
        assert!(flushed.iter().all(|id| ids.contains(id)));
    }
}

#[test]
#[ignore = "the other half of a_killed_process_loses_nothing_that_was_flushed"]
fn writes_until_it_is_killed() {
    let Some(path) = std::env::var_os("FASTGUARD_TEST_AUDIT") else { return };
    let audit = Arc::new(Audit::open_log(Settings { max_file_bytes: 20_000, ..Settings::at(path) }).unwrap());
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let ids: Vec<u64> = (0..20).map(|_| audit.next_id()).collect();
        for id in &ids {
            audit.record(decision(*id)).unwrap();
        }
        audit.flush(PATIENCE).unwrap();
        for id in ids {
            writeln!(std::io::stdout(), "durable {}", audit.record_id(id)).unwrap();
        }
    }
}

/// The files of a log and of its tiles; that of the lock is empty.
fn all_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let entries = entries.filter(|path| path.file_name().is_none_or(|name| name != "lock"));
    entries.flat_map(|path| if path.is_dir() { all_files(&path) } else { vec![path] }).collect()
}

fn sealed_log(records: u64) -> PathBuf {
    let audit = Audit::open_log(Settings::at(folder())).unwrap();
    for _ in 0..records {
        while audit.record(decision(audit.next_id())).is_err() {
            audit.flush(PATIENCE).unwrap();
        }
    }
    audit.close().unwrap();
    let log = audit.folder().to_path_buf();
    assert_eq!(log::verify(&log).unwrap().problem, None);
    log
}

/// Whether what is in the folder is found not to be the log that it was.
fn is_found(log: &Path, records: u64) -> bool {
    log::verify(log).map_or(true, |verdict| verdict.problem.is_some() || verdict.records != records)
}

/// The edits of one byte at a place: changed, dropped, doubled, swapped with the next, and all from it on cut.
fn edits(whole: &[u8], at: usize) -> Vec<(&'static str, Vec<u8>)> {
    let (before, rest) = whole.split_at(at);
    let (byte, after) = rest.split_first().unwrap();
    let mut edits = vec![
        ("changed", [before, &[byte ^ 1], after].concat()),
        ("dropped", [before, after].concat()),
        ("doubled", [before, &[*byte], rest].concat()),
        ("inserted", [before, b" ", rest].concat()),
        ("cut", before.to_vec()),
    ];
    if let Some((next, after)) = after.split_first().filter(|(next, _)| *next != byte) {
        edits.push(("swapped", [before, &[*next, *byte], after].concat()));
    }
    edits
}

fn copied(log: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()) {
        let copy = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copied(&entry, &copy);
        } else {
            fs::copy(&entry, &copy).unwrap();
        }
    }
}

/// Does `work` on every one of `tasks`, each with a copy of the log that no other has: every edit has all of the log read.
fn on_copies<T: Sync>(log: &Path, tasks: &[T], work: impl Fn(&Path, &T) + Sync) {
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let work = &work;
            scope.spawn(move || {
                let copy = log.with_extension(format!("copy{worker}"));
                copied(log, &copy);
                tasks.iter().skip(worker).step_by(workers).for_each(|task| work(&copy, task));
                assert_eq!(log::verify(&copy).unwrap().problem, None);
            });
        }
    });
}

/// Tries the edits of every `step`th byte of every file.
fn assert_found(log: &Path, records: u64, step: impl Fn(usize) -> usize) {
    let places = |file: PathBuf| {
        let bytes = usize::try_from(fs::metadata(&file).unwrap().len()).unwrap();
        let file = file.strip_prefix(log).unwrap().to_owned();
        (0..bytes).step_by(step(bytes)).map(move |at| (file.clone(), at)).collect::<Vec<_>>()
    };
    let places: Vec<(PathBuf, usize)> = all_files(log).into_iter().flat_map(places).collect();
    on_copies(log, &places, |copy, (file, at)| {
        let file = copy.join(file);
        let whole = fs::read(&file).unwrap();
        for (kind, edited) in edits(&whole, *at) {
            fs::write(&file, edited).unwrap();
            assert!(is_found(copy, records), "{}: byte {at} {kind}", file.display());
        }
        fs::write(&file, &whole).unwrap();
    });
}

#[test]
fn every_edit_of_one_byte_of_a_small_log_is_found() {
    assert_found(&sealed_log(1), 3, |_| 1);
}

#[test]
#[ignore = "a soak: some 1,300 readings of 10,000 records, a minute of two cores"]
fn edits_of_sampled_bytes_of_ten_thousand_records_are_found() {
    // Odd steps, so that other places of a line, or of a hash, are met each time: of 7 MB of lines 80, of each of 42 tiles 2, of
    // the checkpoint and the key 20.
    let places = |bytes| match bytes {
        0..1_000 => 20,
        1_000..10_000 => 2,
        _ => 80,
    };
    assert_found(&sealed_log(10_000), 10_002, |bytes| (bytes / places(bytes)).max(1) | 1);
}

#[test]
#[ignore = "a soak: 1,200 readings of 10,000 records, a minute of two cores"]
fn lines_of_ten_thousand_that_are_dropped_doubled_or_swapped_are_found() {
    let log = sealed_log(10_000);
    let whole = fs::read(log.join("000001.jsonl")).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let places: Vec<usize> = (0..lines.len() - 1).step_by(25).collect();
    on_copies(&log, &places, |copy, at| {
        let file = copy.join("000001.jsonl");
        let (before, after) = (lines[..*at].concat(), lines[at + 2..].concat());
        let (this, next) = (lines[*at], lines[at + 1]);
        for middle in [vec![next], vec![this, this, next], vec![next, this]] {
            fs::write(&file, [&*before, &middle.concat(), &*after].concat()).unwrap();
            assert!(is_found(copy, 10_002), "line {at}");
        }
        fs::write(&file, &whole).unwrap();
    });
}

#[test]
fn sampled_edits_of_ten_thousand_records_are_found() {
    let log = sealed_log(10_000);
    for file in all_files(&log) {
        let whole = fs::read(&file).unwrap();
        let edits = if whole.len() > 10_000 { 20 } else { 1 };
        for edit in 0..edits {
            let mut edited = whole.clone();
            edited[(whole.len() / edits * edit + 31).min(whole.len() - 1)] ^= 4;
            fs::write(&file, &edited).unwrap();
            assert!(is_found(&log, 10_002), "{}: edit {edit}", file.display());
        }
        fs::write(&file, &whole).unwrap();
    }
}

#[test]
fn rollback_and_fork_are_found_with_an_earlier_checkpoint() {
    let (log, other) = (sealed_log(300), sealed_log(300));
    let note = fs::read_to_string(log.join("checkpoint")).unwrap();
    let key = Key::parse(&fs::read_to_string(log.join("vkey")).unwrap());
    let known = Known { key: key.clone(), checkpoint: Some(note.clone()), ..Known::default() };
    assert_eq!(log::verify_against(&log, &known).unwrap().problem, None);
    assert!(log::verify_against(&other, &known).unwrap().problem.is_some());

    let line = log::read(&log).unwrap().nth(299).unwrap().unwrap();
    let Entry::Line(line) = line else { panic!("no line") };
    let file = log.join("000001.jsonl");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..usize::try_from(line.offset).unwrap()]).unwrap();
    for name in ["checkpoint", "vkey"] {
        fs::remove_file(log.join(name)).unwrap();
    }
    let rolled_back = log::verify_against(&log, &known).unwrap();
    assert_eq!(rolled_back.problem.map(|problem| problem.what), Some("the log ends before the earlier checkpoint"));
}

#[test]
fn record_is_proved_to_whoever_has_the_key() {
    let log = sealed_log(700);
    let key = Key::parse(&fs::read_to_string(log.join("vkey")).unwrap()).unwrap();
    for seq in [0, 1, 255, 256, 700, 701] {
        let proof = prove::prove(&log, seq).unwrap();
        let proved = prove::check_proof(&proof, &key).unwrap();
        assert_eq!((proved.seq, proved.checkpoint.size), (seq, 702));
        let other = proof.replace(&format!("index {seq}\n"), &format!("index {}\n", seq ^ 2));
        assert!(prove::check_proof(&other, &key).is_err());
    }
    assert!(prove::prove(&log, 702).is_err());
}

//! The log of logs: what was born, how it ended, what was removed on purpose, and what vanished.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod logs;

use std::fs;
use std::path::{Path, PathBuf};

use fastguard_core::Fault;
use fastguard_core::audit::prune::{forget, prune};
use fastguard_core::audit::registry::{self, Checked, End, Standing, standings, verify_all};
use fastguard_core::audit::repair::{Outcome, repair};
use fastguard_core::audit::{Audit, Known, Settings, log, prove};
use logs::{PATIENCE, copy, notice};

fn place() -> PathBuf {
    logs::place_of("registry")
}

fn settings(place: &Path) -> Settings {
    // Small enough that a log of some records has several files.
    Settings { max_file_bytes: 2_000, ..Settings::at(place) }
}

/// A log with so many records; its name.
fn sealed(place: &Path, records: u32) -> String {
    let audit = Audit::open_log(settings(place)).unwrap();
    for number in 0..records {
        audit.record(notice(number)).unwrap();
        audit.flush(PATIENCE).unwrap();
    }
    audit.close().unwrap();
    audit.log().to_owned()
}

fn standing(place: &Path, log: &str) -> Option<Standing> {
    standings(place).unwrap().unwrap_or_default().remove(log)
}

fn problems(place: &Path) -> Vec<(String, String)> {
    let checked = verify_all(place, &Known::default()).unwrap();
    checked.into_iter().filter_map(|Checked { log, problem, .. }| Some((log, problem?))).collect()
}

fn reason(fault: Fault) -> String {
    if let Fault::AuditFailed { reason } = fault { reason } else { fault.to_string() }
}

#[test]
fn birth_is_entered_before_any_record_and_the_end_after_the_seal() {
    let place = place();
    let audit = Audit::open_log(settings(&place)).unwrap();
    assert_eq!(standings(&place).unwrap(), None);

    audit.record(notice(1)).unwrap();
    audit.flush(PATIENCE).unwrap();

    assert_eq!(standing(&place, audit.log()), Some(Standing::default()));
    audit.close().unwrap();
    let verdict = log::verify(audit.folder()).unwrap();
    let ended = Some((End::Sealed, verdict.records, verdict.root));
    assert_eq!(standing(&place, audit.log()), Some(Standing { ended, ..Standing::default() }));
    assert_eq!(problems(&place), []);
}

#[test]
fn no_record_is_written_where_the_birth_cannot_be_entered() {
    let place = place();
    let audit = Audit::open_log(settings(&place)).unwrap();
    fs::write(place.join(registry::NAME), b"no folder").unwrap();
    audit.record(notice(1)).unwrap();

    let failed = audit.flush(PATIENCE).unwrap_err();

    assert_eq!(failed.code(), "audit_failed");
    assert_eq!(log::verify(audit.folder()).unwrap().records, 0);
    fs::remove_file(place.join(registry::NAME)).unwrap();
    // The last attempt does not wait for its time.
    audit.close().unwrap();
    assert!(standing(&place, audit.log()).is_some_and(|standing| standing.ended.is_some()));
    assert_eq!(problems(&place), []);
}

#[test]
fn guard_that_records_nothing_leaves_no_entry() {
    let place = place();
    Audit::open_log(settings(&place)).unwrap().close().unwrap();

    assert_eq!(standings(&place).unwrap(), None);
}

#[test]
fn log_that_vanished_whole_shows() {
    let place = place();
    let (gone, kept) = (sealed(&place, 1), sealed(&place, 1));
    fs::remove_dir_all(place.join(&gone)).unwrap();

    let expected = "the registry knows this log, and its folder is gone";
    assert_eq!(problems(&place), [(gone.clone(), expected.to_owned())]);
    let told = Audit::open_log(settings(&place)).unwrap().repaired().to_vec();
    assert_eq!(told.len(), 1);
    assert!(told[0].log == gone && told[0].outcome.is_left(), "{told:?}");
    assert!(place.join(kept).exists());
}

#[test]
fn log_that_is_removed_on_purpose_is_no_problem() {
    let place = place();
    let log = sealed(&place, 1);

    forget(&settings(&place), &log, "by hand").unwrap();

    assert!(!place.join(&log).exists());
    assert_eq!(problems(&place), []);
    assert_eq!(standing(&place, &log).unwrap().forgotten.as_deref(), Some("by hand"));
    assert_eq!(repair(&settings(&place)).unwrap(), []);
}

#[test]
fn log_of_a_living_process_is_not_forgotten() {
    let place = place();
    let audit = Audit::open_log(settings(&place)).unwrap();
    audit.record(notice(1)).unwrap();
    audit.flush(PATIENCE).unwrap();

    let refused = reason(forget(&settings(&place), audit.log(), "by hand").unwrap_err());

    assert!(refused.contains("its process runs"), "{refused}");
    let refused = reason(forget(&settings(&place), "../registry", "by hand").unwrap_err());
    assert!(refused.contains("is no log here"), "{refused}");
    assert!(audit.folder().exists());
}

#[test]
fn log_that_the_registry_does_not_know_shows() {
    let (here, elsewhere) = (place(), place());
    sealed(&here, 1);
    let strange = sealed(&elsewhere, 1);
    copy(&elsewhere.join(&strange), &here.join(&strange));

    assert_eq!(problems(&here), [(strange, "the registry does not know this log".to_owned())]);
}

#[test]
fn registry_that_is_gone_shows() {
    let place = place();
    let log = sealed(&place, 1);
    fs::remove_dir_all(place.join(registry::NAME)).unwrap();

    let what = "there is no registry of logs beside this one: others may have vanished".to_owned();
    assert_eq!(problems(&place), [(log.clone(), what)]);
    // As after an update: what is there is entered by the next start.
    repair(&settings(&place)).unwrap();
    assert!(standing(&place, &log).unwrap().ended.is_some());
    assert_eq!(problems(&place), []);
}

#[test]
fn log_that_was_written_anew_is_not_the_one_that_ended() {
    let place = place();
    let log = sealed(&place, 1);
    let other = self::place();
    fs::create_dir_all(&other).unwrap();
    for key in ["key", "checkpoint.key"] {
        fs::copy(place.join(key), other.join(key)).unwrap();
    }
    let forged = sealed(&other, 2);
    fs::remove_dir_all(place.join(&log)).unwrap();
    copy(&other.join(forged), &place.join(&log));

    assert_eq!(problems(&place), [(log, "the registry says that the log ended otherwise".to_owned())]);
}

#[test]
fn end_of_a_killed_process_is_entered_by_the_next_start() {
    let (living, dead) = (place(), place());
    let audit = Audit::open_log(settings(&living)).unwrap();
    audit.record(notice(1)).unwrap();
    audit.flush(PATIENCE).unwrap();
    copy(&living, &dead);

    let next = Audit::open_log(settings(&dead)).unwrap();

    assert!(matches!(next.repaired()[0].outcome, Outcome::Repaired { .. }));
    assert_eq!(standing(&dead, audit.log()).unwrap().ended.unwrap().0, End::Recovered);
    assert_eq!(problems(&dead), []);
}

#[test]
fn registry_that_ends_at_any_byte_is_repaired_and_goes_on() {
    let place = place();
    let first = sealed(&place, 1);
    let file = place.join(registry::NAME).join("000001.jsonl");
    let whole = fs::read(&file).unwrap();
    let template = self::place();
    copy(&place, &template);
    // Every byte of the end; of what is before, each line is met many times.
    for end in (0..=whole.len()).filter(|end| end % 5 == 0 || end + 60 > whole.len()) {
        fs::remove_dir_all(&place).unwrap();
        copy(&template, &place);
        fs::write(&file, &whole[..end]).unwrap();
        // No checkpoint covers lines that are not on disk.
        for name in ["checkpoint", "vkey"] {
            fs::remove_file(place.join(registry::NAME).join(name)).unwrap();
        }
        let _ = fs::remove_dir_all(place.join(registry::NAME).join("tile"));

        repair(&settings(&place)).unwrap();

        assert_eq!(problems(&place), [], "end {end}");
        assert!(standing(&place, &first).unwrap().ended.is_some(), "end {end}");
    }
}

#[test]
fn registry_that_somebody_changed_stops_the_start_and_is_left_as_it_is() {
    let place = place();
    sealed(&place, 1);
    let file = place.join(registry::NAME).join("000001.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    let changed = text.replacen("\"found\":false", "\"found\":true", 1);
    assert_ne!(changed, text);
    fs::write(&file, &changed).unwrap();

    let refused = reason(Audit::open_log(settings(&place)).err().unwrap());

    assert!(refused.contains("not those that the checkpoint signs"), "{refused}");
    assert_eq!(fs::read_to_string(&file).unwrap(), changed);
    assert_eq!(problems(&place).len(), 1);
}

#[test]
fn registry_that_another_key_has_signed_stops_the_start() {
    let place = place();
    sealed(&place, 1);
    fs::remove_file(place.join("checkpoint.key")).unwrap();

    let refused = reason(Audit::open_log(settings(&place)).err().unwrap());

    assert!(refused.contains("another public key") && refused.contains("move it away"), "{refused}");
}

#[test]
fn entries_of_many_threads_at_once_are_all_there() {
    let place = place();
    let logs: Vec<String> = std::thread::scope(|scope| {
        let start = || scope.spawn(|| (0..6).map(|_| sealed(&place, 1)).collect::<Vec<_>>());
        let started: Vec<_> = (0..8).map(|_| start()).collect();
        started.into_iter().flat_map(|start| start.join().unwrap()).collect()
    });

    let standings = standings(&place).unwrap().unwrap();
    assert_eq!(standings.len(), 48);
    assert!(logs.iter().all(|log| standings.get(log).is_some_and(|standing| standing.ended.is_some())));
    assert_eq!(problems(&place), []);
    // `log_opened`, and a birth and an end of each.
    assert_eq!(log::verify(&place.join(registry::NAME)).unwrap().records % 2, 1 - rotated(&place) % 2);
}

/// Holds the registry as another process does that takes its time.
fn held(place: &Path) -> fs::File {
    let lock = fs::File::options().write(true).open(place.join(registry::NAME).join("lock")).unwrap();
    lock.lock().unwrap();
    lock
}

fn asks(place: &Path) -> Vec<String> {
    let entries = fs::read_dir(place.join(registry::NAME).join("asks"));
    entries.map_or_else(|_| Vec::new(), |all| all.map(|ask| ask.unwrap().file_name().into_string().unwrap()).collect())
}

#[test]
fn end_that_others_keep_too_long_is_told_and_entered_by_the_next_start() {
    let place = place();
    let audit = Audit::open_log(settings(&place)).unwrap();
    audit.record(notice(0)).unwrap();
    audit.flush(PATIENCE).unwrap();
    let lock = held(&place);

    audit.close().unwrap();

    assert!(audit.end_left().unwrap().contains("was held by others for 1s"), "{:?}", audit.end_left());
    assert_eq!(standing(&place, audit.log()).unwrap().ended, None);
    assert_eq!(asks(&place), [format!("{}.end", audit.log())]);
    assert_eq!(problems(&place), []);
    lock.unlock().unwrap();
    assert_eq!(repair(&settings(&place)).unwrap(), []);
    assert_eq!(standing(&place, audit.log()).unwrap().ended.unwrap().0, End::Sealed);
}

#[test]
fn logs_that_wait_for_their_births_are_entered_together_and_leave_no_ask() {
    let place = place();
    sealed(&place, 1);
    let lock = held(&place);
    let audits: Vec<Audit> = (0..20).map(|_| Audit::open_log(settings(&place)).unwrap()).collect();
    for audit in &audits {
        audit.record(notice(0)).unwrap();
    }
    let began = std::time::Instant::now();
    while asks(&place).len() < audits.len() {
        assert!(began.elapsed() < PATIENCE, "{:?}", asks(&place));
        std::thread::yield_now();
    }

    lock.unlock().unwrap();

    for audit in &audits {
        audit.flush(PATIENCE).unwrap();
    }
    assert_eq!(asks(&place), Vec::<String>::new());
    let lines: Vec<serde_json::Value> = log::read(&place.join(registry::NAME))
        .unwrap()
        .filter_map(|entry| match entry.unwrap() {
            log::Entry::Line(line) => serde_json::from_slice(&line.text).ok(),
            _ => None,
        })
        .collect();
    // One commit has one time: those who waited were entered by the first of them.
    let times: Vec<&str> = lines
        .iter()
        .filter(|line| audits.iter().any(|audit| line["log"] == audit.log()))
        .map(|line| line["timestamp"].as_str().unwrap())
        .collect();
    assert_eq!(times.len(), audits.len());
    assert!(times.iter().all(|time| *time == times[0]), "{times:?}");
    for audit in audits {
        audit.close().unwrap();
    }
    assert_eq!(problems(&place), []);
}

#[test]
fn ask_that_no_log_bears_out_enters_nothing() {
    let place = place();
    sealed(&place, 1);
    let folder = place.join(registry::NAME).join("asks");
    fs::create_dir_all(&folder).unwrap();
    for name in
        ["20260101T000000-1-abcd.birth", "20260101T000000-1-abcd.end", "../x.birth".trim_start_matches("../"), "noise"]
    {
        fs::write(folder.join(name), b"").unwrap();
    }

    let log = sealed(&place, 1);

    assert_eq!(standings(&place).unwrap().unwrap().len(), 2);
    assert!(standing(&place, &log).unwrap().ended.is_some());
    assert_eq!(asks(&place), Vec::<String>::new());
}

#[test]
fn registry_that_is_changed_behind_a_running_process_shows_and_stops_the_next_start() {
    let place = place();
    sealed(&place, 1);
    let audit = Audit::open_log(settings(&place)).unwrap();
    audit.record(notice(0)).unwrap();
    audit.flush(PATIENCE).unwrap();
    let file = place.join(registry::NAME).join("000001.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("\"sealed\"", "\"unused\"", 1)).unwrap();

    audit.close().unwrap();

    assert!(problems(&place).iter().any(|(log, _)| log == registry::NAME), "{:?}", problems(&place));
    assert!(Audit::open_log(settings(&place)).is_err());
}

#[test]
fn registry_that_was_moved_away_meanwhile_is_begun_anew() {
    let place = place();
    sealed(&place, 1);
    let audit = Audit::open_log(settings(&place)).unwrap();
    audit.record(notice(0)).unwrap();
    audit.flush(PATIENCE).unwrap();
    fs::rename(place.join(registry::NAME), place.with_extension("moved")).unwrap();

    audit.close().unwrap();

    assert_eq!(audit.end_left(), None);
    assert!(standing(&place, audit.log()).unwrap().ended.is_some());
}

/// Files of the registry after the first: each begins with a line of its own.
fn rotated(place: &Path) -> u64 {
    let files = fs::read_dir(place.join(registry::NAME)).unwrap();
    let is_file = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "jsonl");
    files.filter(|entry| is_file(entry.as_ref().unwrap())).count() as u64 - 1
}

fn files(place: &Path, log: &str) -> Vec<u32> {
    let mut found: Vec<u32> = fs::read_dir(place.join(log))
        .unwrap()
        .filter_map(|entry| entry.unwrap().path().file_name()?.to_str()?.strip_suffix(".jsonl")?.parse().ok())
        .collect();
    found.sort_unstable();
    found
}

#[test]
fn pruned_log_verifies_and_proves_what_is_left() {
    let place = place();
    let log = sealed(&place, 600);
    let folder = place.join(&log);
    let whole = log::verify(&folder).unwrap();
    let last = *files(&place, &log).last().unwrap();
    assert!(last > 30);

    let pruned = prune(&settings(&place), &log, last - 1, "--keep 90d").unwrap();

    assert!(pruned > 500 && pruned < whole.records);
    assert_eq!(files(&place, &log), [last]);
    let checked = verify_all(&place, &Known::default()).unwrap();
    assert_eq!(problems(&place), []);
    let found = checked.into_iter().find(|checked| checked.log == log).unwrap();
    assert_eq!(found.state(), format!("sealed, {pruned} pruned by the rule --keep 90d"));
    let verdict = found.verdict.unwrap();
    assert_eq!((verdict.records, verdict.root, verdict.pruned), (whole.records, whole.root, pruned));
    let key = fs::read_to_string(folder.join("vkey")).unwrap().parse_key();
    let proof = prove::prove(&folder, pruned + 1).unwrap();
    assert_eq!(prove::check_proof(&proof, &key).unwrap().seq, pruned + 1);
    assert!(prove::prove(&folder, pruned - 1).is_err());
    assert_eq!(repair(&settings(&place)).unwrap(), []);
}

trait ParseKey {
    fn parse_key(&self) -> fastguard_core::audit::Key;
}

impl ParseKey for String {
    fn parse_key(&self) -> fastguard_core::audit::Key {
        fastguard_core::audit::Key::parse(self).unwrap()
    }
}

#[test]
fn log_that_was_pruned_whole_verifies_by_its_tiles() {
    let place = place();
    let log = sealed(&place, 300);
    let records = log::verify(&place.join(&log)).unwrap().records;

    assert_eq!(prune(&settings(&place), &log, u32::MAX, "--keep 90d").unwrap(), records);

    assert!(files(&place, &log).is_empty());
    assert_eq!(problems(&place), []);
    assert_eq!(repair(&settings(&place)).unwrap(), []);
    // Once more does nothing, and a tile that somebody changes shows.
    assert_eq!(prune(&settings(&place), &log, u32::MAX, "--keep 90d").unwrap(), records);
    let tile = place.join(&log).join("tile/0/000");
    let mut hashes = fs::read(&tile).unwrap();
    hashes[77] ^= 1;
    fs::write(&tile, hashes).unwrap();
    assert_eq!(problems(&place).len(), 1);
}

#[test]
fn files_that_nobody_announced_as_pruned_are_missed() {
    let place = place();
    let log = sealed(&place, 100);
    fs::remove_file(place.join(&log).join("000001.jsonl")).unwrap();

    assert_eq!(problems(&place).len(), 1);
}

#[test]
fn more_files_gone_than_were_pruned_are_missed() {
    let place = place();
    let log = sealed(&place, 100);
    prune(&settings(&place), &log, 1, "--keep 90d").unwrap();
    fs::remove_file(place.join(&log).join("000002.jsonl")).unwrap();

    let [(_, what)] = problems(&place).try_into().unwrap();

    assert!(what.contains("that the registry does not say were pruned"), "{what}");
}

#[test]
fn prune_that_was_killed_before_its_files_were_gone_is_no_problem_and_goes_on() {
    let place = place();
    let log = sealed(&place, 100);
    let whole = self::place();
    copy(&place.join(&log), &whole);
    let pruned = prune(&settings(&place), &log, 3, "--keep 90d").unwrap();
    for number in 2..=3 {
        let name = format!("{number:06}.jsonl");
        fs::copy(whole.join(&name), place.join(&log).join(&name)).unwrap();
    }
    assert_eq!(problems(&place), []);

    assert_eq!(prune(&settings(&place), &log, 3, "--keep 90d").unwrap(), pruned);
    assert_eq!(files(&place, &log)[0], 4);
}

#[test]
fn log_that_is_open_or_does_not_verify_is_not_pruned() {
    let place = place();
    let audit = Audit::open_log(settings(&place)).unwrap();
    audit.record(notice(1)).unwrap();
    audit.flush(PATIENCE).unwrap();
    let refused = reason(prune(&settings(&place), audit.log(), 1, "--keep 90d").unwrap_err());
    assert!(refused.contains("is not sealed"), "{refused}");
    audit.close().unwrap();
    let file = audit.folder().join("000001.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("subject-1", "subject-2", 1)).unwrap();

    let refused = reason(prune(&settings(&place), audit.log(), 1, "--keep 90d").unwrap_err());

    assert!(refused.contains("does not verify"), "{refused}");
    assert!(file.exists());
}

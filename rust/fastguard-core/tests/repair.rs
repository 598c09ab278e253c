//! Logs of processes that were killed at any byte, and logs that somebody has changed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod logs;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fastguard_core::audit::log::{self, Entry};
use fastguard_core::audit::repair::{Found, Outcome, repair};
use fastguard_core::audit::{Audit, Settings};
use logs::{PATIENCE, copy, notice};

/// What a repair adds to a log without a seal: `log_opened`, `recovered`, `log_sealed`.
const ADDED: u64 = 3;

fn place() -> PathBuf {
    logs::place_of("repair")
}

fn settings(place: &Path) -> Settings {
    Settings { checkpoint_records: 5, ..Settings::at(place) }
}

/// A place with one log of `records`, as a process leaves it that is killed: copied while the log is held and open.
fn killed(records: u32) -> (PathBuf, PathBuf) {
    let living = place();
    let audit = Audit::open_log(settings(&living)).unwrap();
    for number in 0..records {
        audit.record(notice(number)).unwrap();
    }
    audit.flush(PATIENCE).unwrap();
    if records >= 4 {
        let began = Instant::now();
        while !audit.folder().join("checkpoint").exists() {
            assert!(began.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
    }
    let dead = place();
    copy(&living, &dead);
    let log = dead.join(audit.log());
    (dead, log)
}

fn outcome(place: &Path) -> Option<Outcome> {
    let mut found = repair(&settings(place)).unwrap();
    assert!(found.len() < 2, "{found:?}");
    found.pop().map(|Found { outcome, .. }| outcome)
}

fn lines(log: &Path) -> Vec<Vec<u8>> {
    let text = |entry| if let Entry::Line(line) = entry { Some(line.text) } else { None };
    log::read(log).unwrap().filter_map(|entry| text(entry.unwrap())).collect()
}

fn assert_whole(log: &Path, records: u64) {
    let verdict = log::verify(log).unwrap();
    assert_eq!(
        (verdict.records, verdict.sealed, verdict.torn_bytes, verdict.problem),
        (records, true, 0, None),
        "{}",
        log.display()
    );
}

/// All that stands in a folder.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path));
        } else if path.file_name().unwrap() != "lock" {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn log_that_ends_at_any_byte_is_cut_and_sealed() {
    let (place, log) = killed(2);
    assert!(!log.join("checkpoint").exists());
    let file = log.join("000001.jsonl");
    let whole = fs::read(&file).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let template = self::place();
    copy(&place, &template);
    for end in first..=whole.len() {
        fs::remove_dir_all(&place).unwrap();
        copy(&template, &place);
        fs::write(&file, &whole[..end]).unwrap();
        let kept = whole[..end].split(|byte| *byte == b'\n').count() as u64 - 1;
        let cut_bytes = whole[..end].iter().rev().take_while(|byte| **byte != b'\n').count() as u64;

        assert_eq!(outcome(&place), Some(Outcome::Repaired { records: kept + ADDED, cut_bytes }), "end {end}");

        assert_whole(&log, kept + ADDED);
        let recovered: serde_json::Value =
            serde_json::from_slice(&lines(&log)[usize::try_from(kept).unwrap() + 1]).unwrap();
        assert_eq!((&recovered["event_type"], &recovered["cut_bytes"]), (&"recovered".into(), &cut_bytes.into()));
        assert_eq!(outcome(&place), None, "a repaired log is finished");
    }
}

#[test]
fn log_of_which_only_a_part_of_the_first_line_stands_is_removed() {
    let (place, log) = killed(1);
    fs::write(log.join("000001.jsonl"), b"{\"seq\":0,\"time").unwrap();

    assert_eq!(outcome(&place), Some(Outcome::Unused));
    assert!(!log.exists());
}

#[test]
fn tiles_that_are_torn_or_missing_are_made_anew_from_the_lines() {
    let (place, log) = killed(600);
    let tile = log.join("tile/0/000");
    let whole = fs::read(&tile).unwrap();
    fs::write(&tile, &whole[..100]).unwrap();
    fs::remove_file(log.join("tile/0/001")).unwrap();

    assert_eq!(outcome(&place), Some(Outcome::Repaired { records: 601 + ADDED, cut_bytes: 0 }));

    assert_whole(&log, 601 + ADDED);
    assert_eq!(fs::read(&tile).unwrap(), whole);
}

#[test]
fn seal_without_its_checkpoint_gets_one_and_no_further_record() {
    let living = place();
    let audit = Audit::open_log(settings(&living)).unwrap();
    audit.record(notice(1)).unwrap();
    audit.close().unwrap();
    fs::remove_file(audit.folder().join("checkpoint")).unwrap();
    fs::remove_dir_all(audit.folder().join("tile")).unwrap();

    assert_eq!(outcome(&living), Some(Outcome::Repaired { records: 3, cut_bytes: 0 }));
    assert_whole(audit.folder(), 3);
}

#[test]
fn log_that_ends_before_its_checkpoint_is_left_as_it_is() {
    let (place, log) = killed(8);
    let file = log.join("000001.jsonl");
    let text = fs::read(&file).unwrap();
    let first = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    fs::write(&file, &text[..first]).unwrap();
    let before = content(&place);

    let left = outcome(&place);

    assert!(matches!(&left, Some(Outcome::Left(why)) if why.contains("ends before its checkpoint")), "{left:?}");
    assert_eq!(content(&place), before);
}

#[test]
fn log_whose_lines_contradict_its_checkpoint_is_left_as_it_is() {
    let (place, log) = killed(8);
    let file = log.join("000001.jsonl");
    let text = String::from_utf8(fs::read(&file).unwrap()).unwrap();
    fs::write(&file, text.replacen("subject-1", "subject-9", 1)).unwrap();
    let before = content(&place);

    let left = outcome(&place);

    assert!(
        matches!(&left, Some(Outcome::Left(why)) if why.contains("not those that the checkpoint signs")),
        "{left:?}"
    );
    assert_eq!(content(&place), before);
}

#[test]
fn lines_after_a_damaged_one_are_never_cut() {
    let (place, log) = killed(3);
    let file = log.join("000001.jsonl");
    let text = String::from_utf8(fs::read(&file).unwrap()).unwrap();
    fs::write(&file, text.replacen("{\"seq\":2", "{\"sec\":2", 1)).unwrap();
    let before = content(&place);

    let left = outcome(&place);

    assert!(matches!(&left, Some(Outcome::Left(why)) if why.contains("no killed process leaves")), "{left:?}");
    assert_eq!(content(&place), before);
}

#[test]
fn checkpoint_of_another_key_is_left_as_it_is() {
    let (place, _) = killed(8);
    fs::remove_file(place.join("checkpoint.key")).unwrap();
    // Moved away, as whoever changes the key must: it would stop the start.
    fs::remove_dir_all(place.join("registry")).unwrap();

    let left = outcome(&place);

    assert!(matches!(&left, Some(Outcome::Left(why)) if why.contains("another public key")), "{left:?}");
}

#[test]
fn repair_that_was_killed_before_its_cut_is_finished_by_the_next() {
    let (place, log) = killed(3);
    let first = log.join("000001.jsonl");
    let torn = [&*fs::read(&first).unwrap(), b"{\"seq\":4,\"ti"].concat();
    fs::write(&first, &torn).unwrap();
    outcome(&place).unwrap();
    // As it was before the cut and the seal.
    fs::write(&first, &torn).unwrap();
    let second = log.join("000002.jsonl");
    let text = String::from_utf8(fs::read(&second).unwrap()).unwrap();
    fs::write(&second, text.split_inclusive('\n').take(2).collect::<String>()).unwrap();
    for name in ["checkpoint", "vkey"] {
        fs::remove_file(log.join(name)).unwrap();
    }
    assert_eq!(log::verify(&log).unwrap().problem, None);

    assert_eq!(outcome(&place), Some(Outcome::Repaired { records: 6 + ADDED, cut_bytes: 0 }));
    assert_whole(&log, 6 + ADDED);
}

#[test]
fn bytes_at_the_end_of_a_file_that_no_record_tells_of_show() {
    let (place, log) = killed(3);
    outcome(&place).unwrap();
    let first = log.join("000001.jsonl");
    fs::write(&first, [&*fs::read(&first).unwrap(), b"x"].concat()).unwrap();

    let problem = log::verify(&log).unwrap().problem.unwrap();

    assert_eq!(problem.what, "damaged lines stand here that no record tells of");
}

#[test]
fn log_of_a_living_process_is_not_touched() {
    let place = place();
    let audit = Audit::open_log(settings(&place)).unwrap();
    audit.record(notice(1)).unwrap();
    audit.flush(PATIENCE).unwrap();
    let before = content(audit.folder());

    assert_eq!(outcome(&place), Some(Outcome::Held));

    assert_eq!(content(audit.folder()), before);
    audit.close().unwrap();
    assert_eq!(outcome(&place), None);
}

#[test]
fn of_processes_that_start_at_once_one_repairs_a_log() {
    let (place, log) = killed(200);
    let repaired: Vec<Outcome> = std::thread::scope(|scope| {
        let start = || scope.spawn(|| Audit::open_log(settings(&place)).unwrap().repaired().to_vec());
        let started: Vec<_> = (0..4).map(|_| start()).collect();
        started.into_iter().flat_map(|start| start.join().unwrap()).map(|found| found.outcome).collect()
    });

    let done = repaired.iter().filter(|outcome| matches!(outcome, Outcome::Repaired { .. })).count();
    assert_eq!(done, 1, "{repaired:?}");
    assert!(repaired.iter().all(|outcome| !matches!(outcome, Outcome::Left(_))), "{repaired:?}");
    assert_whole(&log, 201 + ADDED);
}

#[test]
fn folders_of_others_in_the_same_place_are_not_touched() {
    let (place, _) = killed(1);
    outcome(&place).unwrap();
    let other = place.join("spool");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("000001.jsonl"), b"{}").unwrap();

    assert_eq!(outcome(&place), None);
    assert_eq!(content(&other).len(), 1);
}

#[test]
fn tile_of_records_that_no_checkpoint_covers_may_be_missing() {
    let (living, dead) = (place(), place());
    let audit = Audit::open_log(settings(&living)).unwrap();
    (0..10).for_each(|number| audit.record(notice(number)).unwrap());
    audit.flush(PATIENCE).unwrap();
    let began = Instant::now();
    while !audit.folder().join("checkpoint").exists() {
        assert!(began.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    copy(&living, &dead);
    (10..300).for_each(|number| audit.record(notice(number)).unwrap());
    audit.flush(PATIENCE).unwrap();
    // As a process leaves it that is killed after its write and before the tiles.
    let log = dead.join(audit.log());
    fs::copy(audit.folder().join("000001.jsonl"), log.join("000001.jsonl")).unwrap();

    assert_eq!(log::verify(&log).unwrap().problem, None);
    assert_eq!(outcome(&dead), Some(Outcome::Repaired { records: 301 + ADDED, cut_bytes: 0 }));
    assert_whole(&log, 301 + ADDED);
}

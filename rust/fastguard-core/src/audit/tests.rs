//! The journal on a store that fails when it is told to, and on a clock that stands still.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::journal::{Bounds, File, Journal, Moment, Store};
use super::line::in_hex;
use super::merkle::Tree;
use super::queue::{Phase, Queue, Refusal, lock};
use super::record::{Arguments, Checks, Decision, Ending, Event, Notice, Outcome};
use super::scribe::Scribe;
use super::tree::note::{Checkpoint, Signer};
use super::tree::publish::Publisher;
use super::writer::{Clock, spawn};
use crate::call::Caller;
use crate::clock::{FakeClock, UnixTime};
use crate::denial::{Denial, Room};

const START: i64 = 1_795_219_200;

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one way in which a disk fails")]
struct Disk {
    files: BTreeMap<u32, Vec<u8>>,
    syncs: usize,
    /// Bytes that still fit.
    room: Option<usize>,
    sync_fails: bool,
    cut_fails: bool,
    put_fails: bool,
    published: BTreeMap<String, Vec<u8>>,
    panics: bool,
}

#[derive(Clone, Default)]
struct FakeStore(Arc<Mutex<Disk>>);

struct FakeFile {
    number: u32,
    disk: Arc<Mutex<Disk>>,
}

impl Store for FakeStore {
    type File = FakeFile;

    const MIN_BYTES_BESIDE: usize = 0;

    /// What is done at once in any order is done here in the one that the threads of a machine leave out.
    fn beside<W: Send, M>(mut work: impl FnMut() -> W + Send, meanwhile: impl FnOnce() -> M) -> (W, M) {
        let meanwhile = meanwhile();
        (work(), meanwhile)
    }

    fn create(&mut self, number: u32) -> io::Result<FakeFile> {
        let mut disk = lock(&self.0);
        if disk.files.contains_key(&number) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.files.insert(number, Vec::new());
        Ok(FakeFile { number, disk: Arc::clone(&self.0) })
    }

    fn remove(&mut self, number: u32) -> io::Result<()> {
        lock(&self.0).files.remove(&number).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn put(&mut self, path: &str, bytes: &[u8], _durable: bool) -> io::Result<()> {
        let mut disk = lock(&self.0);
        if disk.put_fails {
            return Err(io::Error::other("input/output error"));
        }
        disk.published.insert(path.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn discard(&mut self, path: &str) {
        lock(&self.0).published.retain(|name, _| !name.starts_with(path));
    }
}

impl File for FakeFile {
    fn append(&mut self, _length: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(!lock(&self.disk).panics, "the test's panic");
        let mut disk = lock(&self.disk);
        let fits = disk.room.unwrap_or(usize::MAX).min(bytes.len());
        disk.files.get_mut(&self.number).unwrap().extend_from_slice(&bytes[..fits]);
        if let Some(room) = &mut disk.room {
            *room -= fits;
        }
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.syncs += 1;
        if disk.sync_fails { Err(io::Error::other("input/output error")) } else { Ok(()) }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        if disk.cut_fails {
            return Err(io::Error::other("input/output error"));
        }
        disk.files.get_mut(&self.number).unwrap().truncate(usize::try_from(length).unwrap());
        Ok(())
    }
}

/// A journal with its disk and its clock.
struct Bench {
    journal: Journal<FakeStore>,
    disk: Arc<Mutex<Disk>>,
    clock: FakeClock,
    refused: u64,
    unrecorded: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(Bounds { max_file_bytes: 1 << 20, unverified_bytes_per_minute: 1 << 20 })
    }

    fn with(bounds: Bounds) -> Self {
        let store = FakeStore::default();
        let disk = Arc::clone(&store.0);
        let clock = FakeClock::at(START);
        let journal = Journal::new(store, Scribe::new("log".into(), &[7; 32]), bounds, publisher(), clock.now());
        Self { journal, disk, clock, refused: 0, unrecorded: 0 }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.clock.now(), refused: self.refused, unrecorded: self.unrecorded }
    }

    fn commit(&mut self) -> u64 {
        self.journal.commit(self.moment()).records
    }

    fn take(&mut self, ids: std::ops::Range<u64>) {
        for id in ids {
            self.journal.take(decision(id).into());
        }
    }

    fn seal(&mut self) {
        self.journal.seal(self.moment());
        self.commit();
        assert!(self.journal.is_sealed());
    }

    fn files(&self) -> BTreeMap<u32, String> {
        let disk = lock(&self.disk);
        disk.files.iter().map(|(number, bytes)| (*number, String::from_utf8(bytes.clone()).unwrap())).collect()
    }

    fn lines(&self) -> Vec<Value> {
        self.files().values().flat_map(|text| text.lines()).map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn event_types(&self) -> Vec<String> {
        self.lines().iter().map(|line| line["event_type"].as_str().unwrap().to_owned()).collect()
    }
}

fn publisher() -> Publisher {
    let signer = Signer::new("test", &[7; 32]).unwrap();
    Publisher::new(signer, "test/log".to_owned(), 100, Duration::from_secs(10))
}

fn decision(id: u64) -> Decision {
    Decision {
        at: UnixTime::from_millis(START * 1_000 + 123),
        elapsed_nanos: Some(1_250),
        id,
        result: Outcome::Allowed,
        enforced: true,
        caller: Some(Arc::new(Caller::example())),
        peer: "192.0.2.7".parse().ok(),
        kind: "tool",
        method: "tools/call".into(),
        target: Some("run_query".into()),
        session: Some("session-1".into()),
        request_id: Some("7".into()),
        trace: None,
        rule: Some("tools.run_query".into()),
        tier: "log",
        log_arguments: [Box::from("sql")].into(),
        arguments: Arguments::Text(br#"{"sql":"select 1"}"#[..].into()),
        policy: "sha256:00".into(),
        checks: Checks::passed_through(Room::Policy),
        limit: Some(("principal".into(), 999)),
        limits_mode: None,
    }
}

fn unverified(peer: &str, denial: &Denial) -> Event {
    Decision {
        result: Outcome::from(denial),
        caller: None,
        peer: peer.parse().ok(),
        rule: None,
        arguments: Arguments::None,
        checks: Checks::refused_by(denial.room()),
        limit: None,
        limits_mode: None,
        ..decision(1)
    }
    .into()
}

// --- lines -----------------------------------------------------------------------------------------------------

#[test]
fn a_decision_is_one_line_of_known_fields_in_known_order() {
    let mut bench = Bench::new();
    bench.take(5..6);
    bench.commit();

    let files = bench.files();
    let line = files[&1].lines().nth(1).unwrap();
    let hash = line.split("\"input_hash\":\"").nth(1).unwrap().split('"').next().unwrap();
    let expected = concat!(
        r#"{"seq":1,"id":"log-5","timestamp":"2026-11-21T00:00:00.123Z","event_type":"decision","kind":"tool","#,
        r#""tool_name":"run_query","method":"tools/call","#,
        r#""authenticated_identity":{"issuer":"https://auth.example.com","subject":"alice"},"#,
        r#""client_id":"agent-7","agent_id":"agent-7","organisation_id":"acme","token_id":"jti-1","key_id":"key-1","#,
        r#""scopes":["warehouse:query:read"],"rbac_role":["analyst"],"#,
        r#""issued_at":"2026-11-20T23:56:40.000Z","expires_at":"2026-11-21T00:56:40.000Z","#,
        r#""session":"session-1","peer":"192.0.2.7","request_id":"7","#,
        r#""input_params":{"sql":"select 1"},"input_hash":"HASH","#,
        r#""result":"allowed","enforced":true,"rule":"tools.run_query","tier":"log","#,
        r#""checks":{"request":"passed","token":"passed","binding":"passed","limits":"passed","policy":"passed","#,
        r#""approval":"not_reached"},"limit":{"rule":"principal","remaining":999},"policy":"sha256:00","#,
        r#""decided_in_us":1.250}"#
    );
    assert_eq!(hash.len(), 32);
    assert_eq!(line, expected.replace("HASH", hash));
}

#[test]
fn an_ending_names_its_decision_and_never_holds_the_result() {
    let ending = Ending {
        at: UnixTime::from_seconds(START + 1),
        decision: 5,
        round: None,
        duration: Duration::from_micros(12_345),
        execution: Some(Duration::from_millis(12)),
        status: "ok".into(),
        error: None,
        rows: Some(47),
        bytes: Some(2_048),
        items: None,
        summary_failed: false,
        kind: "tool",
        method: "tools/call".into(),
        target: Some("run_query".into()),
        caller: Some(Arc::new(Caller::example())),
        session: None,
        request_id: Some("7".into()),
    };
    let mut bench = Bench::new();
    bench.journal.take(ending.into());
    bench.commit();

    let expected = json!({
        "seq": 1, "decision": "log-5", "timestamp": "2026-11-21T00:00:01.000Z", "event_type": "ending",
        "kind": "tool", "tool_name": "run_query", "method": "tools/call",
        "authenticated_identity": {"issuer": "https://auth.example.com", "subject": "alice"},
        "client_id": "agent-7", "agent_id": "agent-7", "organisation_id": "acme", "request_id": "7",
        "status": "ok", "duration_ms": 12.345, "execution_time_ms": 12.0,
        "output_summary": {"rows": 47, "bytes": 2_048}, "output_size_bytes": 2_048,
    });
    assert_eq!(bench.lines()[1], expected);
}

#[test]
fn each_of_many_callers_is_written_as_itself_in_turn() {
    let callers: Vec<_> = (0..200).map(|number| Arc::new(Caller::of(&format!("subject-{number}")))).collect();
    let mut bench = Bench::new();
    for round in 0..2 {
        for caller in &callers {
            bench.journal.take(Decision { caller: Some(Arc::clone(caller)), ..decision(round) }.into());
        }
    }
    bench.commit();

    for (number, line) in bench.lines().iter().skip(1).enumerate() {
        assert_eq!(line["authenticated_identity"]["subject"], format!("subject-{}", number % 200));
        assert_eq!(line["token_id"], "jti-1");
    }
}

#[test]
fn caller_with_more_scopes_than_are_kept_is_written_whole_each_time() {
    let scopes: Vec<String> = (0..500).map(|number| format!("warehouse:table-{number}:read")).collect();
    let caller = Arc::new(Caller::with_scopes(&scopes));
    let mut bench = Bench::new();
    for id in 0..2 {
        bench.journal.take(Decision { caller: Some(Arc::clone(&caller)), ..decision(id) }.into());
    }
    bench.commit();

    for line in bench.lines().iter().skip(1) {
        assert_eq!(line["scopes"], json!(scopes));
    }
}

#[test]
fn a_denial_holds_its_code_its_room_and_how_far_it_came() {
    let denial = Denial::AudienceMismatch { found: "https://other.example\n".into() };
    let mut bench = Bench::new();
    bench.journal.take(unverified("2001:db8::1", &denial));
    bench.commit();

    let line = &bench.lines()[1];
    assert_eq!(line["result"], "denied");
    assert_eq!(line["code"], "audience_mismatch");
    assert_eq!(line["room"], "token");
    assert_eq!(line["detail"], "audience `https://other.example\\n` does not name this resource");
    assert_eq!(line["checks"]["request"], "passed");
    assert_eq!(line["checks"]["token"], "refused");
    assert_eq!(line["checks"]["binding"], "not_reached");
    assert!(line.get("authenticated_identity").is_none());
}

#[test]
fn input_of_others_cannot_begin_a_new_line() {
    let forged = "x\"}\n{\"seq\":9,\"event_type\":\"decision\"}\r\u{2028}";
    let mut bench = Bench::new();
    bench.journal.take(
        Decision {
            target: Some(forged.into()),
            session: Some(forged.into()),
            request_id: Some(forged.into()),
            method: forged.into(),
            arguments: Arguments::Text(json!({forged: forged, "sql": forged}).to_string().into_bytes().into()),
            ..decision(1)
        }
        .into(),
    );
    bench
        .journal
        .take(Notice { at: UnixTime::EPOCH, event_type: "revoked", fields: vec![("subject", forged.into())] }.into());
    bench.commit();

    let text = bench.files().remove(&1).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(!text.contains('\r') && !text.contains('\u{2028}'));
    assert_eq!(bench.lines()[1]["tool_name"], forged);
    assert_eq!(bench.lines()[2]["subject"], forged);
}

// --- files -----------------------------------------------------------------------------------------------------

#[test]
fn each_commit_is_one_sync() {
    let mut bench = Bench::new();
    bench.take(0..100);

    assert_eq!(bench.commit(), 101);
    assert_eq!(lock(&bench.disk).syncs, 1);
    assert_eq!(bench.commit(), 0);
    assert_eq!(lock(&bench.disk).syncs, 1);
}

#[test]
fn a_file_at_its_size_is_followed_by_one_that_names_the_root_so_far() {
    let mut bench = Bench::with(Bounds { max_file_bytes: 4_000, unverified_bytes_per_minute: 0 });
    bench.take(0..20);
    bench.commit();
    bench.seal();

    let files = bench.files();
    assert!(files.len() > 2, "{}", files.len());
    let mut tree = Tree::default();
    for (number, text) in &files {
        assert!(text.len() < 5_000);
        let header: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(header["event_type"], "log_opened");
        assert_eq!(header["file"], *number);
        assert_eq!(header["records_before"], tree.size());
        assert_eq!(header["previous_root"], in_hex(&tree.root()));
        text.lines().for_each(|line| tree.push(line.as_bytes()));
    }
    assert_eq!(bench.lines().len(), 20 + files.len() + 1);
}

#[test]
fn the_seal_holds_the_number_and_the_root_of_all_lines_before_it() {
    let mut bench = Bench::new();
    bench.take(0..5);
    bench.commit();
    bench.seal();

    let files = bench.files();
    let lines: Vec<&str> = files[&1].lines().collect();
    let (seal, before) = lines.split_last().unwrap();
    let mut tree = Tree::default();
    for line in before {
        tree.push(line.as_bytes());
    }
    let seal: Value = serde_json::from_str(seal).unwrap();
    assert_eq!(seal["event_type"], "log_sealed");
    assert_eq!(seal["records"], 6);
    assert_eq!(seal["root"], in_hex(&tree.root()));
}

#[test]
fn a_log_that_never_began_leaves_nothing() {
    let mut bench = Bench::new();
    bench.seal();

    assert!(bench.files().is_empty());
}

// --- failures --------------------------------------------------------------------------------------------------

#[test]
fn a_full_disk_loses_nothing_and_leaves_no_torn_line() {
    let mut bench = Bench::new();
    bench.take(0..3);
    bench.commit();
    lock(&bench.disk).room = Some(100);
    bench.take(3..6);

    assert_eq!(bench.commit(), 0);
    assert!(bench.journal.failure().unwrap().reason.contains("no storage space"));
    assert_eq!(bench.lines().len(), 4);

    lock(&bench.disk).room = None;
    bench.refused = 12;
    bench.unrecorded = 5;
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.commit(), 5);
    assert!(bench.journal.failure().is_none());
    let lines = bench.lines();
    assert_eq!(lines[4]["event_type"], "log_opened");
    assert_eq!(lines[5]["event_type"], "recovered");
    assert_eq!(lines[5]["written_later"], 3);
    assert_eq!(lines[5]["refused"], 12);
    assert_eq!(lines[5]["unrecorded"], 5);
    assert_eq!(lines[5]["torn_end_cut"], true);
    assert_eq!(lines[5]["failed_at"], "2026-11-21T00:00:00.000Z");
    let sequence: Vec<u64> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(sequence, (0..9).collect::<Vec<_>>());
}

#[test]
fn lines_formatted_while_those_before_them_failed_are_formatted_anew() {
    let mut bench = Bench::with(Bounds { max_file_bytes: 4_000, unverified_bytes_per_minute: 0 });
    lock(&bench.disk).room = Some(6_000);
    bench.take(0..20);
    // The first file is full; of the second one a part, when what the third one will hold is formatted already.
    let written = bench.commit();
    assert!((2..9).contains(&written), "{written}");
    assert_eq!(bench.files().len(), 1);
    lock(&bench.disk).room = None;
    bench.clock.advance(Duration::from_secs(1));
    bench.commit();
    bench.seal();

    let lines = bench.lines();
    let sequence: Vec<u64> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(sequence, (0..lines.len() as u64).collect::<Vec<_>>());
    let ids: Vec<String> = lines.iter().filter_map(|line| Some(line.get("id")?.as_str().unwrap().to_owned())).collect();
    assert_eq!(ids, (0..20).map(|id| format!("log-{id}")).collect::<Vec<_>>());
    let recovered = lines.iter().find(|line| line["event_type"] == "recovered").unwrap();
    assert_eq!(recovered["written_later"].as_u64(), Some(20 - (written - 1)));
    let mut tree = Tree::default();
    for text in bench.files().values() {
        let header: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(header["previous_root"], in_hex(&tree.root()));
        text.lines().for_each(|line| tree.push(line.as_bytes()));
    }
}

#[test]
fn tile_that_failed_while_more_was_formatted_loses_none_of_it() {
    let mut bench = Bench::with(Bounds { max_file_bytes: 64_000, unverified_bytes_per_minute: 0 });
    lock(&bench.disk).put_fails = true;
    bench.take(0..300);
    let written = bench.commit();
    assert!((2..300).contains(&written), "{written}");
    assert!(bench.journal.failure().is_some());
    lock(&bench.disk).put_fails = false;
    bench.clock.advance(Duration::from_secs(1));
    bench.commit();

    let lines = bench.lines();
    let sequence: Vec<u64> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(sequence, (0..lines.len() as u64).collect::<Vec<_>>());
    assert_eq!(lines.iter().filter(|line| line["event_type"] == "decision").count(), 300);
}

#[test]
fn what_the_queue_gets_back_while_more_is_formatted_is_what_is_durable() {
    let mut bench = Bench::with(Bounds { max_file_bytes: 4_000, unverified_bytes_per_minute: 0 });
    bench.take(0..20);
    let (disk, mut told) = (Arc::clone(&bench.disk), 0);
    bench.journal.commit_each(bench.moment(), |committed| {
        told += committed.records;
        let durable: usize = lock(&disk).files.values().map(|file| file.split(|byte| *byte == b'\n').count() - 1).sum();
        assert_eq!(durable as u64, told);
    });

    assert_eq!(told, bench.lines().len() as u64);
}

#[test]
fn a_file_whose_sync_failed_is_never_written_again() {
    let mut bench = Bench::new();
    bench.take(0..1);
    bench.commit();
    lock(&bench.disk).sync_fails = true;
    bench.take(1..2);
    bench.commit();
    lock(&bench.disk).sync_fails = false;
    let first = bench.files()[&1].clone();
    bench.clock.advance(Duration::from_secs(1));
    bench.commit();
    bench.take(2..3);
    bench.commit();

    assert_eq!(bench.files()[&1], first);
    assert_eq!(bench.files()[&2].lines().count(), 4);
}

#[test]
fn attempts_pause_longer_and_longer_and_leave_no_files() {
    let mut bench = Bench::new();
    lock(&bench.disk).room = Some(0);
    bench.take(0..1);
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        bench.commit();
        assert!(bench.files().is_empty());
        let due = bench.journal.failure().unwrap().retry_at;
        assert_eq!(due, bench.clock.now().tick.plus(Duration::from_secs(pause)));
        bench.clock.advance(Duration::from_secs(pause));
    }
    lock(&bench.disk).room = None;

    assert_eq!(bench.commit(), 3);
    assert_eq!(bench.files().len(), 1);
}

#[test]
fn before_the_pause_is_over_nothing_is_tried() {
    let mut bench = Bench::new();
    lock(&bench.disk).room = Some(0);
    bench.take(0..1);
    bench.commit();
    lock(&bench.disk).room = None;
    bench.clock.advance(Duration::from_millis(999));

    assert_eq!(bench.commit(), 0);
    bench.journal.retry_now();
    assert_eq!(bench.commit(), 3);
}

#[test]
fn remains_that_could_not_be_cut_are_told_and_replaced() {
    let mut bench = Bench::new();
    bench.take(0..1);
    bench.commit();
    {
        let mut disk = lock(&bench.disk);
        disk.room = Some(1_500);
        disk.cut_fails = true;
    }
    bench.take(1..4);
    bench.commit();
    lock(&bench.disk).room = None;
    bench.clock.advance(Duration::from_secs(1));
    bench.commit();

    let files = bench.files();
    assert!(!files[&1].ends_with('\n'));
    let lines: Vec<Value> = files[&2].lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["records_before"], 2);
    assert_eq!(lines[1]["torn_end_cut"], false);
    assert_eq!(lines.len(), 5);
}

// --- refusals before a token was verified ----------------------------------------------------------------------

#[test]
fn refusals_beyond_the_budget_are_counted_by_address_and_code() {
    let mut bench = Bench::with(Bounds { max_file_bytes: 1 << 20, unverified_bytes_per_minute: 1_000 });
    for host in 1..=9 {
        bench.journal.take_unverified(&unverified(&format!("2001:db8::{host}"), &Denial::TokenMissing));
        bench.journal.take_unverified(&unverified("192.0.2.7", &Denial::SignatureInvalid));
    }
    bench.commit();
    let written = bench.lines().len() - 1;
    assert!((1..=4).contains(&written), "{written}");

    bench.clock.advance(Duration::from_secs(60));
    bench.journal.report(bench.moment(), false);
    bench.commit();
    let lines = bench.lines();
    let report = lines.last().unwrap();
    assert_eq!(report["event_type"], "refusals_counted");
    assert_eq!(report["total"], 18 - written);
    assert_eq!(report["counts"].as_array().unwrap().len(), 2);
    let network = report["counts"].as_array().unwrap().iter().find(|count| count["code"] == "token_missing").unwrap();
    assert_eq!(network["address"], "2001:db8::/64");

    assert!(bench.journal.take_unverified(&unverified("192.0.2.7", &Denial::TokenMissing)));
}

#[test]
fn the_table_of_counted_refusals_is_bounded() {
    let mut bench = Bench::with(Bounds { max_file_bytes: 1 << 20, unverified_bytes_per_minute: 0 });
    for host in 0..2_000 {
        let peer = format!("10.0.{}.{}", host / 256, host % 256);
        bench.journal.take_unverified(&unverified(&peer, &Denial::TokenMissing));
    }
    bench.seal();

    let lines = bench.lines();
    let report = &lines[1];
    assert_eq!(report["counts"].as_array().unwrap().len(), 512);
    assert_eq!(report["other"], 2_000 - 512);
    assert_eq!(report["total"], 2_000);
}

#[test]
fn a_flood_before_the_token_costs_verified_callers_nothing() {
    let mut bench = Bench::with(Bounds { max_file_bytes: 1 << 20, unverified_bytes_per_minute: 0 });
    for _ in 0..1_000 {
        bench.journal.take_unverified(&unverified("192.0.2.7", &Denial::TokenMissing));
    }
    bench.take(0..2);
    bench.commit();

    assert_eq!(bench.event_types(), ["log_opened", "decision", "decision"]);
}

#[test]
fn records_that_were_refused_are_counted_in_the_log() {
    let mut bench = Bench::new();
    bench.take(0..1);
    bench.commit();
    bench.refused = 3;
    bench.seal();

    assert_eq!(bench.event_types(), ["log_opened", "decision", "refusals_counted", "log_sealed"]);
    assert_eq!(bench.lines()[2]["unrecorded"], 3);
}

// --- the queue -------------------------------------------------------------------------------------------------

fn open_queue(records: usize, bytes: usize) -> Queue {
    let queue = Queue::new(records, bytes);
    queue.start(|| Ok(std::thread::current())).unwrap();
    queue
}

fn refusal(queue: &Queue, event: Event) -> Option<Refusal> {
    queue.push(event).err().map(|(_, refusal)| refusal)
}

#[test]
fn a_full_queue_refuses_at_once_and_takes_again_after_a_commit() {
    let queue = open_queue(2, 1 << 20);
    let mut bench = Bench::new();
    assert_eq!(refusal(&queue, decision(1).into()), None);
    assert_eq!(refusal(&queue, decision(2).into()), None);
    assert_eq!(refusal(&queue, decision(3).into()), Some(Refusal::Full));
    assert_eq!(queue.statistics().queued, 2);

    while let Some(event) = queue.pop() {
        bench.journal.take(event);
    }
    assert_eq!(refusal(&queue, decision(4).into()), Some(Refusal::Full), "taken, but not durable");
    queue.release(bench.journal.commit(bench.moment()));

    assert_eq!(queue.statistics().queued, 0);
    assert_eq!(refusal(&queue, decision(5).into()), None);
}

#[test]
fn large_records_fill_the_queue_by_their_bytes() {
    let queue = open_queue(1_000, 100_000);
    let large = || Decision { arguments: Arguments::Text(vec![b' '; 40_000].into()), ..decision(1) }.into();

    assert_eq!(refusal(&queue, large()), None);
    assert_eq!(refusal(&queue, large()), None);
    assert_eq!(refusal(&queue, large()), Some(Refusal::Full));
    assert_eq!(refusal(&queue, decision(1).into()), None);
}

#[test]
fn a_failed_log_refuses_until_it_is_written_again() {
    let queue = open_queue(10, 1 << 20);
    queue.settle(Some("disk full"), 0);
    assert_eq!(refusal(&queue, decision(1).into()), Some(Refusal::Shut));
    assert!(queue.statistics().failed);

    queue.settle(None, 0);
    assert_eq!(refusal(&queue, decision(1).into()), None);
    assert!(!queue.statistics().failed);
}

#[test]
fn a_writer_that_panics_refuses_every_call() {
    let queue = Arc::new(Queue::new(10, 1 << 20));
    let bench = Bench::new();
    lock(&bench.disk).panics = true;
    let slot = Arc::new(Mutex::new(Some(Box::new(bench.journal))));
    queue.start(|| spawn(&queue, &slot, Clock::start(), Duration::from_millis(1))).unwrap();
    assert_eq!(refusal(&queue, decision(1).into()), None);

    assert!(queue.flush(Duration::from_secs(20)).is_err());
    assert_eq!(refusal(&queue, decision(2).into()), Some(Refusal::Shut));
    assert_eq!(queue.phase(), Phase::Dead);
    assert!(queue.close(Duration::from_secs(20)).is_err());
}

#[test]
fn refusals_before_the_token_that_find_their_queue_full_are_counted() {
    let queue = open_queue(1, 1 << 20);
    for _ in 0..1_500 {
        queue.push_unverified(unverified("192.0.2.7", &Denial::TokenMissing));
    }

    assert_eq!(queue.statistics().unverified_counted, 1_500 - 1_024);
    assert_eq!(queue.take_tally().total(), 1_500 - 1_024);
    assert_eq!(refusal(&queue, decision(1).into()), None, "verified callers have their own queue");
}

#[test]
fn checkpoint_covers_what_is_durable_after_so_many_records_or_so_long() {
    let mut bench = Bench::new();
    let checkpoint = |bench: &Bench| {
        let disk = lock(&bench.disk);
        let note = String::from_utf8(disk.published["checkpoint"].clone()).unwrap();
        Checkpoint::open(&note, Some(Signer::new("test", &[7; 32]).unwrap().key())).unwrap()
    };
    bench.take(0..100);
    bench.commit();
    assert_eq!(checkpoint(&bench).size, 101);
    bench.take(100..150);
    bench.commit();
    assert_eq!(checkpoint(&bench).size, 101);
    bench.clock.advance(Duration::from_secs(10));
    bench.commit();
    assert_eq!(checkpoint(&bench).size, 151);
    bench.take(150..300);
    bench.seal();
    let sealed = checkpoint(&bench);
    let mut tree = Tree::default();
    for line in bench.files().values().flat_map(|text| text.lines()) {
        tree.push(line.as_bytes());
    }
    assert_eq!((sealed.size, sealed.root), (302, tree.root()));
    let disk = lock(&bench.disk);
    let paths: Vec<&str> = disk.published.keys().map(String::as_str).collect();
    assert_eq!(paths, ["checkpoint", "tile/0/000", "tile/0/001.p/46", "tile/1/000.p/1", "vkey"]);
}

#[test]
fn checkpoint_that_cannot_be_written_refuses_and_is_recovered_from() {
    let mut bench = Bench::new();
    lock(&bench.disk).put_fails = true;
    bench.take(0..100);
    assert_eq!(bench.commit(), 101);
    assert!(bench.journal.failure().is_some());
    lock(&bench.disk).put_fails = false;
    bench.clock.advance(Duration::from_secs(1));
    bench.commit();
    assert!(bench.journal.failure().is_none());
    assert_eq!(bench.event_types().last().map(String::as_str), Some("recovered"));
    assert!(lock(&bench.disk).published.contains_key("checkpoint"));
}

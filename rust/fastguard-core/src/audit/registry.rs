//! The log of logs: which logs were born in a place, how they ended, and what was removed on purpose, so that a log that
//! vanished whole shows.
//!
//! It is a log as the others are, in the folder `registry`. Every process of the place writes to it, one at a time and for as
//! long as an entry takes; who holds its lock reads all of it, mends what a killed process left, and goes on.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::journal::{Journal, Moment, Repaired};
use super::line::Object;
use super::log::{self, Entry as Read, Verdict, Walk};
use super::repair::{committed, make_tiles};
use super::scribe::Scribe;
use super::tree::check::{Known, Signed};
use super::writer::{self, Clock, Folder, Held};
use super::{Settings, bounds, publisher};
use crate::clock::UnixTime;
use crate::denial::Fault;

/// The registry's folder, and its name as a log.
pub const NAME: &str = "registry";
/// How long an entry waits for those of other processes. Each takes three syncs.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the end of a log waits: a guard is closed in two seconds, and the next start enters what was not.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// How a log ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Its process closed it.
    Sealed,
    /// Its process was killed, and another one sealed it.
    Recovered,
    /// It never had a record of a call.
    Unused,
}

impl End {
    const fn name(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Recovered => "recovered",
            Self::Unused => "unused",
        }
    }
}

/// What is entered.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// A log began. `found`: before there was a registry, or before its process could enter it.
    Birth { log: String, found: bool },
    /// A log ended with so many records.
    Ended { log: String, end: End, records: u64, root: String },
    /// The lines of the first records of a log are to be removed, with the files that they are in.
    Pruned { log: String, files: u32, records: u64, rule: String },
    /// A log is to be removed.
    Forgotten { log: String, reason: String },
}

impl Entry {
    /// Writes the members that stand after `seq`.
    pub(super) fn write(&self, at: UnixTime, object: &mut Object<'_>) {
        object.time("timestamp", at);
        match self {
            Self::Birth { log, found } => {
                object.text("event_type", "log_registered");
                object.text("log", log);
                object.flag("found", *found);
            }
            Self::Ended { log, end, records, root } => {
                object.text("event_type", "log_ended");
                object.text("log", log);
                object.text("end", end.name());
                object.number("records", *records);
                object.text("root", root);
            }
            Self::Pruned { log, files, records, rule } => {
                object.text("event_type", "log_pruned");
                object.text("log", log);
                object.number("files", (*files).into());
                object.number("records", *records);
                object.text("rule", rule);
            }
            Self::Forgotten { log, reason } => {
                object.text("event_type", "log_forgotten");
                object.text("log", log);
                object.text("reason", reason);
            }
        }
    }
}

/// What the registry says of a log.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Standing {
    /// How it ended, with how many records and which root over them; `None` while its process runs, or where it was killed.
    pub ended: Option<(End, u64, String)>,
    /// How many records of its start were pruned, and by which rule.
    pub pruned: Option<(u64, String)>,
    /// Why it was removed on purpose.
    pub forgotten: Option<String>,
}

/// What the registry says of all logs, by their names.
pub type Standings = BTreeMap<String, Standing>;

#[derive(Deserialize)]
#[serde(tag = "event_type", rename_all = "snake_case")]
enum Said {
    LogRegistered {
        log: String,
    },
    LogEnded {
        log: String,
        end: End,
        records: u64,
        root: String,
    },
    LogPruned {
        log: String,
        records: u64,
        rule: String,
    },
    LogForgotten {
        log: String,
        reason: String,
    },
    #[serde(other)]
    OfItself,
}

/// Reads the registry of the logs in `base`; `None` where there is none.
pub fn standings(base: &Path) -> io::Result<Option<Standings>> {
    let folder = base.join(NAME);
    if !folder.is_dir() {
        return Ok(None);
    }
    let mut found = Standings::new();
    for read in log::read(&folder)? {
        let Read::Line(line) = read? else { continue };
        match serde_json::from_slice(&line.text) {
            Ok(Said::LogRegistered { log }) => drop(found.entry(log).or_default()),
            Ok(Said::LogEnded { log, end, records, root }) => {
                found.entry(log).or_default().ended = Some((end, records, root));
            }
            Ok(Said::LogPruned { log, records, rule }) => found.entry(log).or_default().pruned = Some((records, rule)),
            Ok(Said::LogForgotten { log, reason }) => found.entry(log).or_default().forgotten = Some(reason),
            Ok(Said::OfItself) | Err(_) => {}
        }
    }
    Ok(Some(found))
}

/// How many records of the log in `folder` were pruned, by the registry beside it.
pub fn pruned(folder: &Path) -> io::Result<u64> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    // The parent of a bare name is the empty path, which no call of the system takes.
    let base = folder.parent().filter(|base| !base.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let standing = standings(base)?.and_then(|mut all| all.remove(&*name));
    Ok(standing.and_then(|standing| standing.pruned).map_or(0, |(records, _)| records))
}

/// The registry of a place, to write to it.
#[derive(Clone)]
pub(super) struct Registry {
    settings: Settings,
    hash_key: [u8; 32],
    seed: [u8; 32],
}

impl Registry {
    pub(super) fn new(settings: &Settings, hash_key: &[u8; 32], seed: &[u8; 32]) -> Self {
        // Every entry is signed at once: the next process may be another one.
        let settings = Settings { checkpoint_records: 1, ..settings.clone() };
        Self { settings, hash_key: *hash_key, seed: *seed }
    }

    pub(super) fn enter_birth(&self, log: &str) -> io::Result<()> {
        self.enter(PATIENCE, |standings| {
            let birth = Entry::Birth { log: log.to_owned(), found: false };
            (!standings.contains_key(log)).then_some(birth).into_iter().collect()
        })
    }

    pub(super) fn enter_end(&self, log: &str, records: u64, root: &[u8; 32]) -> io::Result<()> {
        let ended = [(log.to_owned(), End::Sealed, records, super::line::in_hex(root))];
        self.enter(LAST_PATIENCE, |standings| ends(standings, &ended))
    }

    /// Enters the ends of logs that the registry does not know of yet.
    pub(super) fn enter_ends(&self, ended: &[(String, End, u64, String)]) -> io::Result<()> {
        if ended.is_empty() && !self.folder().is_dir() {
            return Ok(());
        }
        self.enter(PATIENCE, |standings| ends(standings, ended))
    }

    pub(super) fn enter_one(&self, entry: Entry) -> io::Result<()> {
        self.enter(PATIENCE, |_| vec![entry])
    }

    fn folder(&self) -> PathBuf {
        self.settings.path.join(NAME)
    }

    /// Appends what `entries` makes of the registry's state, while nobody else can change it.
    fn enter(&self, patience: Duration, entries: impl FnOnce(&Standings) -> Vec<Entry>) -> io::Result<()> {
        let folder = self.folder();
        writer::open_folder(&folder)?;
        let held = Held::take_soon(&folder, patience)?
            .ok_or_else(|| io::Error::other(format!("`{}` is held by another process", folder.display())))?;
        let entered = self.enter_held(&folder, &held, entries);
        held.unlock().and(entered)
    }

    fn enter_held(&self, folder: &Path, held: &Held, entries: impl FnOnce(&Standings) -> Vec<Entry>) -> io::Result<()> {
        let faulted = |fault: Fault| io::Error::other(fault.to_string());
        let mut publisher = publisher(&self.settings, NAME, &self.seed).map_err(faulted)?;
        let known = Known { key: Some(publisher.key().clone()), ..Known::default() };
        let mut walk = Walk::new(Some(Signed::lenient(folder, &known)?));
        walk.all(folder)?;
        let damaged = |what: String| {
            let advice = "keep it, look into it, and move it away: the next start begins another one";
            io::Error::other(format!("`{}`: {what}; {advice}", folder.display()))
        };
        if let Some(problem) = &walk.verdict.problem {
            return Err(damaged(problem.to_string()));
        }
        if walk.torn.is_some_and(|torn| !torn.is_remains) {
            return Err(damaged("damaged lines that no killed process leaves".to_owned()));
        }
        let mut store = Folder::of(folder.to_owned(), held.clone());
        if walk.tree.size() == 0 {
            // At most a part of the first line, which says nothing yet.
            store.remove_files()?;
            walk.torn = None;
        }
        for torn in &walk.uncut {
            store.cut(torn.file, torn.offset)?;
        }
        let entries = entries(&standings(&self.settings.path)?.unwrap_or_default());
        let covered = walk.signed.as_ref().map_or(0, Signed::covered);
        let is_whole = walk.torn.is_none() && covered == walk.tree.size();
        if is_whole && entries.is_empty() {
            return Ok(());
        }
        match walk.signed.take() {
            Some(signed) if is_whole => publisher.go_on(signed.into_edge()),
            _ => make_tiles(&mut store, folder, &mut publisher)?,
        }
        publisher.resume(covered);
        self.append(store, publisher, &walk, entries)
    }

    fn append(
        &self,
        store: Folder,
        publisher: super::tree::publish::Publisher,
        walk: &Walk,
        entries: Vec<Entry>,
    ) -> io::Result<()> {
        let clock = Clock::start();
        let moment = Moment { now: clock.now(), refused: 0, unrecorded: 0 };
        let number = writer::files(store.path())?.last().map_or(0, |(number, _)| *number);
        // After an end that is torn a file of its own begins, whose first lines say so, as in every log.
        let file = (number > 0 && walk.torn.is_none()).then(|| store.reopen(number)).transpose()?;
        let scribe = Scribe::new(NAME.into(), &self.hash_key);
        let journal = Journal::new(store, scribe, bounds(&self.settings), publisher, moment.now);
        let mut journal = journal.resume(number, walk.tree.clone(), false);
        if let Some((file, length)) = file {
            journal.append_to(file, length);
        }
        if let Some(torn) = walk.torn {
            journal.repaired(Repaired { cut_bytes: torn.bytes }, moment);
            committed(&mut journal, moment)?;
            journal.store().cut(torn.file, torn.offset)?;
        }
        for entry in entries {
            journal.enter(entry, moment);
        }
        committed(&mut journal, moment)
    }
}

fn ends(standings: &Standings, ended: &[(String, End, u64, String)]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (log, end, records, root) in ended {
        let standing = standings.get(log);
        // A log that never began, and that the registry never heard of, leaves no trace.
        if standing.is_some_and(|standing| standing.ended.is_some()) || standing.is_none() && *end == End::Unused {
            continue;
        }
        if standing.is_none() {
            entries.push(Entry::Birth { log: log.clone(), found: true });
        }
        entries.push(Entry::Ended { log: log.clone(), end: *end, records: *records, root: root.clone() });
    }
    entries
}

/// A log of a place, or one that should be there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checked {
    /// Its name.
    pub log: String,
    /// What its lines show; `None` where it is not there.
    pub verdict: Option<Verdict>,
    /// What the registry says.
    pub standing: Option<Standing>,
    /// What is wrong.
    pub problem: Option<String>,
}

impl Checked {
    /// What the log is at, in words.
    pub fn state(&self) -> String {
        let standing = self.standing.as_ref();
        if let Some(reason) = standing.and_then(|standing| standing.forgotten.as_ref()) {
            return format!("removed on purpose: {reason}");
        }
        let Some(verdict) = &self.verdict else { return "gone".to_owned() };
        if self.log == NAME {
            return "the registry".to_owned();
        }
        let is_over = verdict.sealed || standing.is_some_and(|standing| standing.pruned.is_some());
        let state = if is_over { "sealed" } else { "open: its process runs, or was killed" };
        match standing.and_then(|standing| standing.pruned.as_ref()) {
            Some((_, rule)) if verdict.pruned > 0 => format!("{state}, {} pruned by the rule {rule}", verdict.pruned),
            _ => state.to_owned(),
        }
    }
}

/// Verifies all logs in `base` and the registry, and holds each against the other. The checkpoint of `known` counts for the log
/// that it names.
pub fn verify_all(base: &Path, known: &Known) -> io::Result<Vec<Checked>> {
    // The folders come first: what is entered later than they are listed is not missed.
    let folders = writer::folders(base)?;
    let mut standings = standings(base)?;
    let mut checked = Vec::new();
    for folder in folders {
        let log = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let standing = standings.as_mut().and_then(|standings| standings.remove(&log));
        if standing.is_none() && writer::files(&folder)?.is_empty() {
            continue;
        }
        checked.push(check(&folder, log, standing, known)?);
    }
    let Some(missing) = standings else {
        if let Some(Checked { problem, .. }) = checked.first_mut() {
            problem
                .get_or_insert_with(|| "there is no registry of logs beside this one: others may have vanished".into());
        }
        return Ok(checked);
    };
    for (log, standing) in missing {
        let is_unused = standing.ended.as_ref().is_some_and(|(end, ..)| *end == End::Unused);
        // Born after the folders were listed.
        let is_there = base.join(&log).is_dir();
        let is_expected = is_unused || is_there || standing.forgotten.is_some();
        let problem = (!is_expected).then(|| "the registry knows this log, and its folder is gone".to_owned());
        if !is_unused && !is_there {
            checked.push(Checked { log, verdict: None, standing: Some(standing), problem });
        }
    }
    let is_known = |checked: &mut Checked| checked.log != NAME && checked.standing.is_none();
    for checked in checked.iter_mut().filter_map(|checked| is_known(checked).then_some(checked)) {
        // The first line stands before the birth is entered.
        if checked.verdict.as_ref().is_some_and(|verdict| verdict.records > 1) {
            checked.problem.get_or_insert_with(|| "the registry does not know this log".to_owned());
        }
    }
    Ok(checked)
}

fn check(folder: &Path, log: String, standing: Option<Standing>, known: &Known) -> io::Result<Checked> {
    let pruned = standing.as_ref().and_then(|standing| standing.pruned.as_ref()).map_or(0, |(records, _)| *records);
    let is_named = |note: &&String| {
        note.split_once('\n').is_some_and(|(origin, _)| origin.rsplit_once('/').is_some_and(|(_, name)| name == log))
    };
    let checkpoint = known.checkpoint.as_ref().filter(is_named).cloned();
    let verdict = log::verify_against(folder, &Known { key: known.key.clone(), checkpoint, pruned })?;
    let mut problem = verdict.problem.as_ref().map(ToString::to_string);
    if let Some(Standing { ended: Some((_, records, root)), .. }) = &standing
        && (verdict.records, &verdict.root) != (*records, root)
    {
        problem.get_or_insert_with(|| "the registry says that the log ended otherwise".to_owned());
    }
    Ok(Checked { log, verdict: Some(verdict), standing, problem })
}

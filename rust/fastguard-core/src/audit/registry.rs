//! The log of logs: which logs were born in a place, how they ended, and what was removed on purpose, so that a log that
//! vanished whole shows.
//!
//! It is a log as the others are, in the folder `registry`. Every process of the place writes to it, one at a time and for as
//! long as an entry takes; who holds its lock reads what came since it read it last, mends what a killed process left, and enters
//! what it has to enter, and what the others ask for who wait.

mod ask;
mod check;

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::journal::{Journal, Moment, Repaired};
use super::line::{Object, in_hex};
use super::log::{self, Entry as Read, Walk};
use super::queue::lock;
use super::repair::{committed, make_tiles};
use super::scribe::{Scribe, is_log_name};
use super::tree::check::{Known, Signed};
use super::tree::note::{Checkpoint, Key};
use super::writer::{self, Clock, Folder, Held};
use super::{Settings, bounds, publisher};
use crate::clock::UnixTime;
use crate::denial::Fault;
use crate::sync::Mutex;

use ask::Ask;
pub use check::{Checked, verify_all};

/// The registry's folder, and its name as a log.
pub const NAME: &str = "registry";
/// How long an entry waits for those of other processes. Each takes three syncs, and those who wait are entered together.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// What is asked no more once this is entered.
    fn answers(&self) -> Option<String> {
        match self {
            Self::Birth { log, .. } => Some(Ask::Birth.of(log)),
            Self::Ended { log, .. } => Some(Ask::End.of(log)),
            Self::Pruned { .. } | Self::Forgotten { .. } => None,
        }
    }

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
        if let Read::Line(line) = read? {
            take(&line, &mut found);
        }
    }
    Ok(Some(found))
}

/// Takes in what a line says.
fn take(line: &log::Line, found: &mut Standings) {
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

/// How many records of the log in `folder` were pruned, by the registry beside it.
pub fn pruned(folder: &Path) -> io::Result<u64> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    // The parent of a bare name is the empty path, which no call of the system takes.
    let base = folder.parent().filter(|base| !base.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let standing = standings(base)?.and_then(|mut all| all.remove(&*name));
    Ok(standing.and_then(|standing| standing.pruned).map_or(0, |(records, _)| records))
}

/// The registry of a place, to write to it. Copies share what they have read of it.
#[derive(Clone)]
pub(super) struct Registry {
    settings: Settings,
    hash_key: [u8; 32],
    seed: [u8; 32],
    key: Result<Key, Fault>,
    /// As far as it was read; nothing, where it must be read from its start.
    read: Arc<Mutex<Option<Reading>>>,
}

/// The registry as far as it was read.
struct Reading {
    walk: Walk,
    /// What it has said since it was read before, and of the log that its process writes.
    standings: Standings,
    /// What of all others was entered, each in a word of eight bytes: it stays as long as its process does.
    entered: HashSet<u64>,
    hasher: RandomState,
}

impl Reading {
    fn anew(folder: &Path, key: &Key) -> io::Result<Self> {
        let known = Known { key: Some(key.clone()), ..Known::default() };
        let walk = Walk::new(Some(Signed::lenient(folder, &known)?));
        let (standings, entered, hasher) = (Standings::new(), HashSet::new(), RandomState::new());
        let mut reading = Self { walk, standings, entered, hasher };
        let Self { walk, standings, .. } = &mut reading;
        walk.lines(log::read(folder)?, |line| take(line, standings))?;
        reading.remember();
        Ok(reading)
    }

    /// Reads what came since; `false` where the registry is not the one that it was, or not in order.
    fn go_on(&mut self, folder: &Path, key: &Key) -> bool {
        let Self { walk, standings, .. } = self;
        let is_whole = walk.go_on(folder, key, |line| take(line, standings)).unwrap_or(false);
        self.remember();
        is_whole
    }

    fn remember(&mut self) {
        for (log, standing) in &self.standings {
            self.entered.insert(self.hasher.hash_one((log, Ask::Birth)));
            if standing.ended.is_some() {
                self.entered.insert(self.hasher.hash_one((log, Ask::End)));
            }
        }
    }

    /// Whether what a log asks for was done. That of two words are alike leaves one log to enter its own.
    fn has_entered(&self, log: &str, ask: Ask) -> bool {
        self.entered.contains(&self.hasher.hash_one((log, ask)))
    }
}

impl Registry {
    /// With the keys that `settings` name.
    pub(super) fn open(settings: &Settings) -> Result<Self, Fault> {
        let seed = writer::read_or_make_key(&settings.key_file)?;
        let hash_key = match settings.key {
            Some(key) => key,
            None => writer::read_or_make_key(&settings.path.join("key"))?,
        };
        Ok(Self::new(settings, &hash_key, &seed))
    }

    pub(super) fn new(settings: &Settings, hash_key: &[u8; 32], seed: &[u8; 32]) -> Self {
        // Every entry is signed at once: the next process may be another one.
        let settings = Settings { checkpoint_records: 1, ..settings.clone() };
        let key = publisher(&settings, NAME, seed).map(|publisher| publisher.key().clone());
        Self { settings, hash_key: *hash_key, seed: *seed, key, read: Arc::default() }
    }

    /// The key of the hashes, and the seed of the one that signs.
    pub(super) const fn keys(&self) -> ([u8; 32], [u8; 32]) {
        (self.hash_key, self.seed)
    }

    pub(super) fn enter_birth(&self, log: &str) -> io::Result<()> {
        let birth = Entry::Birth { log: log.to_owned(), found: false };
        self.enter_in_turn(log, Ask::Birth, |standings| {
            (!standings.contains_key(log)).then_some(birth).into_iter().collect()
        })
    }

    pub(super) fn enter_end(&self, log: &str, records: u64, root: &[u8; 32]) -> io::Result<()> {
        let ended = [(log.to_owned(), End::Sealed, records, in_hex(root))];
        self.enter_in_turn(log, Ask::End, |standings| ends(standings, &ended))
    }

    /// What the registry says, without its lock: what others are just entering may be missing.
    pub(super) fn look(&self) -> io::Result<Standings> {
        if !self.folder().is_dir() {
            return Ok(Standings::new());
        }
        let mut reading = Reading::anew(&self.folder(), self.key()?)?;
        let standings = std::mem::take(&mut reading.standings);
        self.keep(reading);
        Ok(standings)
    }

    /// Enters the ends of logs that the registry, of which all that [`Self::look`] has found is `known`, does not know of yet; mends
    /// what a killed process has left of the registry itself.
    pub(super) fn enter_ends(&self, known: &Standings, ended: &[(String, End, u64, String)]) -> io::Result<()> {
        let signs = |reading: &Reading| reading.walk.signed.as_ref().is_some_and(|own| own.signs(&reading.walk.tree));
        let is_whole = || lock(&self.read).as_ref().is_some_and(|read| read.walk.torn.is_none() && signs(read));
        if ended.is_empty() && (!self.folder().is_dir() || is_whole()) {
            return Ok(());
        }
        self.enter(None, PATIENCE, |since| {
            let named = ended.iter().map(|(log, ..)| log);
            let all = named.filter_map(|log| Some((log.clone(), since.get(log).or_else(|| known.get(log))?.clone())));
            ends(&all.collect(), ended)
        })
    }

    pub(super) fn enter_one(&self, entry: Entry) -> io::Result<()> {
        self.enter(None, PATIENCE, |_| vec![entry])
    }

    fn folder(&self) -> PathBuf {
        self.settings.path.join(NAME)
    }

    fn key(&self) -> io::Result<&Key> {
        self.key.as_ref().map_err(|fault| io::Error::other(fault.to_string()))
    }

    /// Leaves word of what is to be entered, and waits: who comes before may do it.
    fn enter_in_turn(&self, log: &str, ask: Ask, own: impl FnOnce(&Standings) -> Vec<Entry>) -> io::Result<()> {
        let folder = self.folder();
        writer::open_folder(&folder)?;
        writer::ask(&folder, &ask.of(log))?;
        self.enter(Some((log, ask)), ask.patience(), own)
    }

    /// Appends what `entries` makes of what the registry has said since it was read last, while nobody else can change it.
    fn enter(
        &self,
        own: Option<(&str, Ask)>,
        patience: Duration,
        entries: impl FnOnce(&Standings) -> Vec<Entry>,
    ) -> io::Result<()> {
        let folder = self.folder();
        writer::open_folder(&folder)?;
        // Whoever holds it may enter what was asked meanwhile; then nothing is left to do, and nothing to wait for.
        let is_answered = || own.is_some_and(|(log, ask)| writer::is_answered(&folder, &ask.of(log)));
        let Some(held) = Held::take_soon(&folder, patience, is_answered)? else {
            let late = || io::Error::other(format!("`{}` was held by others for {patience:?}", folder.display()));
            return if is_answered() { Ok(()) } else { Err(late()) };
        };
        let entered = self.enter_held(&folder, &held, own, entries);
        held.unlock().and(entered)
    }

    /// All of the registry: what is new of it, where the rest was read before and its checkpoint still signs it.
    fn reading(&self, folder: &Path) -> io::Result<Reading> {
        let key = self.key()?;
        // Taken out: a reading that ends in the middle is none.
        let before = lock(&self.read).take();
        if let Some(mut reading) = before
            && reading.go_on(folder, key)
        {
            return Ok(reading);
        }
        Reading::anew(folder, key)
    }

    fn keep(&self, reading: Reading) {
        *lock(&self.read) = reading.walk.may_go_on().then_some(reading);
    }

    fn enter_held(
        &self,
        folder: &Path,
        held: &Held,
        own: Option<(&str, Ask)>,
        entries: impl FnOnce(&Standings) -> Vec<Entry>,
    ) -> io::Result<()> {
        let mut reading = self.reading(folder)?;
        let mut entries = entries(&reading.standings);
        // Whoever writes writes for all who wait.
        let asked = if entries.is_empty() { Vec::new() } else { writer::asked(folder)? };
        let said: Vec<String> = entries.iter().filter_map(Entry::answers).collect();
        let more = asked.iter().filter(|name| !said.contains(name));
        entries.extend(more.filter_map(|name| self.asked(name, &reading)));
        let walk = &mut reading.walk;
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
        let store = Folder::of(folder.to_owned(), held.clone());
        if walk.tree.size() == 0 {
            // At most a part of the first line, which says nothing yet.
            store.remove_files()?;
            walk.torn = None;
        }
        for torn in &walk.uncut {
            store.cut(torn.file, torn.offset)?;
        }
        let is_whole = walk.torn.is_none() && walk.signed.as_ref().is_some_and(|signed| signed.signs(&walk.tree));
        if !is_whole || !entries.is_empty() {
            self.append(store, walk, is_whole, entries)?;
        }
        for name in &asked {
            writer::answered(folder, name);
        }
        // Taken back while nobody else can read it: whoever comes next must not enter it again.
        if let Some((log, ask)) = own {
            writer::answered(folder, &ask.of(log));
        }
        reading.standings.retain(|log, _| own.is_some_and(|(own, _)| own == log));
        self.keep(reading);
        Ok(())
    }

    /// What another process asks to have entered; nothing where its log does not say so by itself.
    fn asked(&self, name: &str, reading: &Reading) -> Option<Entry> {
        let (log, ask) = Ask::read(name)?;
        if reading.has_entered(log, ask) || !is_log_name(log) {
            return None;
        }
        let (folder, log) = (self.settings.path.join(log), log.to_owned());
        match ask {
            Ask::Birth => {
                let is_there = writer::files(&folder).is_ok_and(|files| !files.is_empty());
                is_there.then_some(Entry::Birth { log, found: false })
            }
            Ask::End => {
                let Checkpoint { size, root, .. } = log::finished(&folder, self.key.as_ref().ok()?).ok()??;
                Some(Entry::Ended { log, end: End::Sealed, records: size, root: in_hex(&root) })
            }
        }
    }

    /// Goes on after what was read.
    fn append(&self, mut store: Folder, walk: &Walk, is_whole: bool, entries: Vec<Entry>) -> io::Result<()> {
        let mut publisher =
            publisher(&self.settings, NAME, &self.seed).map_err(|fault| io::Error::other(fault.to_string()))?;
        match &walk.signed {
            Some(signed) if is_whole => publisher.go_on(signed.edge()),
            _ => make_tiles(&mut store, &self.folder(), &mut publisher)?,
        }
        publisher.resume(walk.signed.as_ref().map_or(0, Signed::covered));
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

//! Room 8: records every decision and every ending, or refuses the call.
//!
//! Callers hand over an [`Event`] and go on; one thread formats, hashes and writes, and while much is written formats what follows.
//! Nothing that was taken is dropped: a full queue and a log that cannot be written refuse at once. See decision 11 of the design.

mod canonical;
mod digest;
mod inputs;
mod journal;
mod line;
pub mod log;
pub mod merge;
mod merkle;
#[cfg(test)]
#[cfg(feature = "shuttle")]
mod models;
pub mod prove;
pub mod prune;
pub mod pseudonyms;
mod queue;
mod record;
pub mod registry;
pub mod repair;
mod scribe;
mod tally;
#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests;
mod tree;
pub mod witness;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use canonical::write as write_canonical;
pub use inputs::Digested;
pub use line::rfc3339;
pub use queue::Statistics;
pub use record::{Arguments, Check, Checks, Decision, Ending, Event, Notice, Outcome, RoundDigest, RoundTold};

use crate::bounds;
use crate::config::{Durability, OnAuditFailure};
use crate::denial::Fault;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use inputs::Inputs;
use journal::{Bounds, Journal};
use pseudonyms::Pseudonyms;
use queue::{Phase, Queue, Refusal, dead, lock};
use registry::Registry;
use scribe::Scribe;
pub use tree::check::Known;
pub(crate) use tree::note::is_name;
pub use tree::note::{Checkpoint, Key};
pub use tree::proof::{is_consistent, is_included};
use tree::{note::Signer, publish::Publisher};
use writer::{Clock, Folder, Held, Slot, SubjectKeys};

/// Arguments up to this size wait in the queue as they are; [`Audit::prepare`] hashes larger ones at once, so
/// that few calls cannot fill the queue.
pub const MAX_QUEUED_ARGUMENT_BYTES: usize = bounds::MAX_BODY_BYTES_BEFORE_TOKEN;
/// How long [`Audit::close`] waits (F34 of the requirements).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long [`Audit::keep`] waits. A disk that takes longer refuses calls.
const KEEP_TIMEOUT: Duration = Duration::from_secs(2);

/// How a log is kept.
#[derive(Clone)]
pub struct Settings {
    /// The folder of the logs.
    pub path: PathBuf,
    /// A file of the log is closed at this size.
    pub max_file_bytes: u64,
    /// Records are on disk at most this long after the decision, if the disk keeps up.
    pub flush_interval: Duration,
    /// Bytes that refusals before a verified token may write each minute; beyond, they are counted.
    pub unverified_bytes_per_minute: u64,
    /// Records that may be on their way to the disk at once.
    pub queue_records: usize,
    /// Bytes that may be on their way to the disk at once.
    pub queue_bytes: usize,
    /// The key of the hashes. `None`: `key` in the folder of the logs, made where there is none.
    pub key: Option<[u8; 32]>,
    /// A checkpoint is signed after this many records,
    pub checkpoint_records: u64,
    /// or this long after the last one, if there are new records.
    pub checkpoint_interval: Duration,
    /// When records are on disk: for whoever calls [`Audit::keep`] and must know when.
    pub durability: Durability,
    /// Whether the record of a call that writes is on disk before its tool runs.
    pub intent: bool,
    /// What happens to calls when the log cannot be written.
    pub on_failure: OnAuditFailure,
    /// The name of the key that signs, and the start of each log's origin.
    pub origin: String,
    /// Whether subjects are written as pseudonyms.
    pub pseudonyms: bool,
    /// The folder of the keys that pseudonyms are made with.
    pub subjects: PathBuf,
    /// The seed of the key that signs, as 64 hexadecimal digits; made where there is none.
    pub key_file: PathBuf,
}

impl Settings {
    /// The defaults, with logs in `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self::of(&crate::config::Audit::default(), path.into(), None, None)
    }

    /// What `[audit]` says; relative paths start at `folder`.
    pub fn from_config(audit: &crate::config::Audit, folder: &Path) -> Self {
        let beside = |path: &Option<String>| path.as_ref().map(|path| folder.join(path));
        Self::of(audit, folder.join(&audit.path), beside(&audit.key_file), beside(&audit.pseudonyms_path))
    }

    fn of(audit: &crate::config::Audit, path: PathBuf, key_file: Option<PathBuf>, subjects: Option<PathBuf>) -> Self {
        Self {
            pseudonyms: audit.pseudonyms,
            subjects: subjects.unwrap_or_else(|| path.join("subjects")),
            key_file: key_file.unwrap_or_else(|| path.join("checkpoint.key")),
            path,
            max_file_bytes: audit.max_file_bytes,
            flush_interval: audit.flush_interval.get(),
            unverified_bytes_per_minute: audit.unverified_bytes_per_minute,
            queue_records: 65_536,
            queue_bytes: 32 * 1024 * 1024,
            key: None,
            checkpoint_records: audit.checkpoint_records,
            checkpoint_interval: audit.checkpoint_interval.get(),
            durability: audit.durability,
            intent: audit.intent,
            on_failure: audit.on_failure,
            origin: audit.origin.clone(),
        }
    }
}

/// A log of this process. Shared by all threads; its own thread starts with the first record.
pub struct Audit {
    settings: Settings,
    key: [u8; 32],
    seed: [u8; 32],
    log: Box<str>,
    folder: PathBuf,
    next_id: AtomicU64,
    queue: Arc<Queue>,
    slot: Slot<Folder>,
    held: Held,
    repaired: Vec<repair::Found>,
    process: u32,
    clock: Clock,
}

impl Audit {
    /// Makes a new log in its own folder, `<time>-<process>-<random>`, and makes sure that it can be written. Logs beside it
    /// whose process was killed are repaired first; [`Self::repaired`] tells of them.
    pub fn open_log(settings: Settings) -> Result<Self, Fault> {
        writer::open_base(&settings.path)?;
        let registry = Registry::open(&settings)?;
        let repaired = repair::repair_with(&settings, &registry)?;
        let (key, seed) = registry.keys();
        let mut audit = Self::with_keys(settings, key, seed, &registry)?;
        audit.repaired = repaired;
        Ok(audit)
    }

    fn with_keys(settings: Settings, key: [u8; 32], seed: [u8; 32], registry: &Registry) -> Result<Self, Fault> {
        let clock = Clock::start();
        let opened_at = clock.now();
        let process = std::process::id();
        let name = || Ok(scribe::log_name(opened_at.unix, process, digest::random()?));
        let (log, folder) = make_folder(&settings.path, name, registry)?;
        let (path, held) = (folder.path().to_owned(), folder.held());
        let bounds = bounds(&settings);
        let publisher = publisher(&settings, &log, &seed)?;
        let pseudonyms =
            settings.pseudonyms.then(|| Pseudonyms::new(&key, Box::new(SubjectKeys::new(settings.subjects.clone()))));
        let scribe = Scribe::new(log.clone(), &key).with_pseudonyms(pseudonyms);
        let journal = Journal::new(folder, scribe, bounds, publisher, opened_at);
        Ok(Self {
            queue: Arc::new(Queue::new(settings.queue_records, settings.queue_bytes)),
            slot: Arc::new(Mutex::new(Some(Box::new(journal)))),
            next_id: AtomicU64::new(1),
            settings,
            key,
            seed,
            log,
            folder: path,
            held,
            repaired: Vec::new(),
            process,
            clock,
        })
    }

    /// A new log for a child process, in the same place and with the same key. Nothing of the parent's thread,
    /// queue or locks is used; dropping the parent's log in the child does nothing.
    pub fn reopen_after_fork(&self) -> Result<Self, Fault> {
        self.held.let_go();
        let registry = Registry::new(&self.settings, &self.key, &self.seed);
        Self::with_keys(self.settings.clone(), self.key, self.seed, &registry)
    }

    /// Whether a decision could be recorded now. Asked before anything is charged, so that a call that must come again for a
    /// full queue is charged once.
    pub fn ready(&self) -> Result<(), Fault> {
        if self.queue.has_room() || !self.queue.is_open() { Ok(()) } else { Err(Fault::AuditQueueFull) }
    }

    /// Logs in the same place that had no seal when this one was opened, and what became of them.
    pub fn repaired(&self) -> &[repair::Found] {
        &self.repaired
    }

    /// The log's name.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// The log's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A number that no other record of this log has.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A record's id as it is written: unique among all logs.
    pub fn record_id(&self, id: u64) -> String {
        format!("{}-{id}", self.log)
    }

    /// Hashes arguments that are too large to wait in the queue; gives others back as they are.
    #[must_use]
    pub fn prepare(&self, arguments: Arguments, log_arguments: &[Box<str>]) -> Arguments {
        match &arguments {
            Arguments::Text(text) | Arguments::Params(text) | Arguments::Message(text)
                if text.len() > MAX_QUEUED_ARGUMENT_BYTES =>
            {
                Arguments::Digest(Box::new(Inputs::new(&self.key).digest(&arguments, log_arguments)))
            }
            _ => arguments,
        }
    }

    /// Names a round of a call, by what belongs to it, so that the next one can be told; nobody without the key can guess it.
    pub fn round_digest(&self, named: &[&str], arguments: &Arguments) -> RoundDigest {
        Inputs::new(&self.key).digest_of(named, arguments)
    }

    /// Takes the record, or refuses at once; never waits.
    pub fn record(&self, event: Event) -> Result<(), Fault> {
        match self.queue.push(event) {
            Ok(()) => Ok(()),
            Err((event, refusal)) => self.record_slowly(event, refusal),
        }
    }

    #[cold]
    fn record_slowly(&self, event: Event, refusal: Refusal) -> Result<(), Fault> {
        if refusal == Refusal::Shut {
            match self.queue.phase() {
                Phase::Unstarted => self.start()?,
                Phase::Running => {}
                Phase::Failed(reason) => return self.without_record(reason),
                Phase::Closing | Phase::Closed(_) => return self.refuse(Fault::Closed),
                Phase::Dead => return self.refuse(dead()),
            }
            match self.queue.push(event) {
                Ok(()) => return Ok(()),
                Err((_, Refusal::Full)) => {}
                // The phase changed again meanwhile: as a moment later.
                Err((_, Refusal::Shut)) => return self.without_record("the log takes no records".to_owned()),
            }
        }
        self.refuse(Fault::AuditQueueFull)
    }

    /// The log cannot be written.
    fn without_record(&self, reason: String) -> Result<(), Fault> {
        match self.settings.on_failure {
            OnAuditFailure::Refuse => self.refuse(Fault::AuditFailed { reason }),
            OnAuditFailure::ContinueAndCount => {
                self.queue.count_unrecorded();
                Ok(())
            }
        }
    }

    fn refuse(&self, fault: Fault) -> Result<(), Fault> {
        self.queue.count_refused();
        Err(fault)
    }

    /// Takes a refusal before a token was verified. Its queue and its share of the disk are its own; what does
    /// not fit is counted by address and code, and nobody is refused for it.
    pub fn record_unverified(&self, event: Event) {
        if self.queue.is_open() || self.start().is_ok() && self.queue.is_open() {
            self.queue.push_unverified(event);
        } else {
            self.queue.count(&event);
        }
    }

    fn start(&self) -> Result<(), Fault> {
        // A parked writer is woken by every record, so an interval of nothing would only spin.
        let interval = self.settings.flush_interval.max(Duration::from_millis(1));
        self.queue.start(|| writer::spawn(&self.queue, &self.slot, self.clock, interval))
    }

    /// When records must be on disk.
    pub const fn durability(&self) -> Durability {
        self.settings.durability
    }

    /// Whether the record of a call that writes must be on disk before its tool runs.
    pub fn keeps_intents(&self) -> bool {
        self.settings.intent || self.settings.durability == Durability::Each
    }

    /// Waits until all that was recorded before is on disk, for at most two seconds: before a decision is answered where
    /// durability is `each`, before a tool that writes runs where intents are kept. All who wait share one sync.
    pub fn keep(&self) -> Result<(), Fault> {
        let kept = self.queue.flush(KEEP_TIMEOUT);
        // What cannot be written waits in memory, or was counted. A disk that is only slow has not failed.
        let may_pass = self.settings.on_failure == OnAuditFailure::ContinueAndCount;
        if may_pass && matches!(self.queue.phase(), Phase::Failed(_)) { Ok(()) } else { kept }
    }

    /// Waits until all that was recorded before is durable.
    pub fn flush(&self, timeout: Duration) -> Result<(), Fault> {
        self.queue.flush(timeout)
    }

    /// Takes no more records, writes those that wait, and seals the log; waits at most two seconds for it.
    /// A second call gives the same answer.
    pub fn close(&self) -> Result<(), Fault> {
        if self.queue.close(CLOSE_TIMEOUT)?
            && let Some(journal) = lock(&self.slot).take()
        {
            journal.into_store().remove_if_empty();
        }
        self.held.let_go();
        Ok(())
    }

    /// Why the registry does not know that this log, which is closed, has ended: others kept it for too long, or it cannot be
    /// written. The next start in the same place enters it.
    pub fn end_left(&self) -> Option<&str> {
        self.queue.end_left()
    }

    /// Figures of this log.
    pub fn statistics(&self) -> Statistics {
        self.queue.statistics()
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        // In a child process the thread that would have to answer is not there.
        if self.process == std::process::id() {
            // There is nobody left to tell.
            let _ = self.close();
        }
    }
}

fn bounds(settings: &Settings) -> Bounds {
    Bounds {
        max_file_bytes: settings.max_file_bytes,
        unverified_bytes_per_minute: settings.unverified_bytes_per_minute,
    }
}

fn publisher(settings: &Settings, log: &str, seed: &[u8; 32]) -> Result<Publisher, Fault> {
    let signer = Signer::new(&settings.origin, seed)
        .ok_or_else(|| Fault::AuditFailed { reason: "the key of the checkpoints is none of Ed25519".to_owned() })?;
    let origin = format!("{}/{log}", settings.origin);
    Ok(Publisher::new(signer, origin, settings.checkpoint_records, settings.checkpoint_interval))
}

/// The public key of the checkpoints.
fn public_key(settings: &Settings) -> Result<Key, Fault> {
    let seed = writer::read_or_make_key(&settings.key_file)?;
    Ok(publisher(settings, registry::NAME, &seed)?.key().clone())
}

fn make_folder(
    base: &Path,
    name: impl Fn() -> Result<String, Fault>,
    registry: &Registry,
) -> Result<(Box<str>, Folder), Fault> {
    // Four random digits: a process that opens two logs in one second may have to draw again.
    const ATTEMPTS: usize = 16;
    for _ in 0..ATTEMPTS {
        let name = name()?;
        match Folder::make(base, &name, registry.clone()) {
            Ok(folder) => return Ok((name.into(), folder)),
            // Gone again: another process that starts took it for the remains of one that never began.
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {}
            Err(error) => return Err(writer::failed(base, &error)),
        }
    }
    Err(Fault::AuditFailed { reason: "no name is free for a new log".to_owned() })
}

//! Ends the logs of processes that were killed: what they wrote in part is cut, the rest is sealed and signed.
//!
//! Repaired is only what a killed process leaves. A log that contradicts its checkpoint or itself stays as it is, so that
//! nothing is signed that somebody else has changed; nor is one touched that a living process holds.

use std::fmt;
use std::io;
use std::path::Path;

use super::journal::{Journal, Moment, Repaired, Store as _};
use super::log::{Entry, Walk, is_finished, read};
use super::merkle::Tree;
use super::scribe::{Scribe, is_log_name};
use super::tree::check::{Known, Signed};
use super::tree::publish::Publisher;
use super::tree::tiles::Tile;
use super::writer::{self, Clock, Folder, Held};
use super::{Settings, bounds, publisher};
use crate::denial::Fault;

/// What became of a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It has its seal, and the checkpoint of it.
    Finished,
    /// A living process writes it.
    Held,
    /// It never began, and is gone.
    Unused,
    /// It was sealed.
    Repaired {
        /// Records that it has now.
        records: u64,
        /// Bytes of the last line, which was written in part.
        cut_bytes: u64,
    },
    /// It was left as it is, and why.
    Left(String),
}

impl Outcome {
    /// Whether somebody must look at the log.
    pub const fn is_left(&self) -> bool {
        matches!(self, Self::Left(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::Held => f.write_str("its process runs"),
            Self::Unused => f.write_str("it never began, and was removed"),
            Self::Repaired { records, cut_bytes } => {
                write!(f, "its process ended without a seal: repaired, {records} records, {cut_bytes} bytes cut")
            }
            Self::Left(why) => write!(f, "not repaired: {why}"),
        }
    }
}

/// A log that was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Its name.
    pub log: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// Repairs the logs in the place that `settings` name; tells of all that were not finished before.
pub fn repair(settings: &Settings) -> Result<Vec<Found>, Fault> {
    let seed = writer::read_or_make_key(&settings.key_file)?;
    let hash_key = match settings.key {
        Some(key) => key,
        None => writer::read_or_make_key(&settings.path.join("key"))?,
    };
    let folders = writer::folders(&settings.path).map_err(|error| writer::failed(&settings.path, &error))?;
    let mut found = Vec::new();
    for folder in folders {
        let log = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !is_log_name(&log) {
            continue;
        }
        let publisher = publisher(settings, &log, &seed)?;
        let outcome = match is_finished(&folder, publisher.key()) {
            Ok(true) => continue,
            Ok(false) => repair_log(settings, &folder, &log, &hash_key, publisher),
            Err(error) => Err(error),
        };
        let outcome = outcome.unwrap_or_else(|error| Outcome::Left(error.to_string()));
        if outcome != Outcome::Finished {
            found.push(Found { log, outcome });
        }
    }
    Ok(found)
}

fn repair_log(
    settings: &Settings,
    folder: &Path,
    log: &str,
    hash_key: &[u8; 32],
    mut publisher: Publisher,
) -> io::Result<Outcome> {
    let Some(held) = Held::take(folder)? else { return Ok(Outcome::Held) };
    let mut store = Folder::of(folder.to_owned(), held);
    let known = Known { key: Some(publisher.key().clone()), checkpoint: None };
    let mut walk = Walk::new(Some(Signed::lenient(folder, &known)?));
    walk.all(folder)?;
    if let Some(problem) = &walk.verdict.problem {
        return Ok(Outcome::Left(problem.to_string()));
    }
    if let Some(torn) = walk.torn.filter(|torn| !torn.is_remains) {
        let what = "damaged lines that no killed process leaves";
        return Ok(Outcome::Left(format!("file {}, byte {}: {what}", torn.file, torn.offset)));
    }
    if walk.tree.size() == 0 {
        // At most a part of the first line, which says nothing yet.
        store.remove_unused();
        return Ok(Outcome::Unused);
    }
    for torn in &walk.uncut {
        store.cut(torn.file, torn.offset)?;
    }
    make_tiles(&mut store, folder, &mut publisher)?;
    publisher.resume(walk.signed.as_ref().map_or(0, Signed::covered));
    let clock = Clock::start();
    let scribe = Scribe::new(log.into(), hash_key);
    let number = writer::files(folder)?.last().map_or(0, |(number, _)| *number);
    let journal = Journal::new(store, scribe, bounds(settings), publisher, clock.now());
    let mut journal = journal.resume(number, walk.tree.clone(), walk.verdict.sealed);
    let moment = Moment { now: clock.now(), refused: 0, unrecorded: 0 };
    let cut_bytes = walk.torn.map_or(0, |torn| torn.bytes);
    if !walk.verdict.sealed {
        // Told before it is cut: whoever is killed between the two leaves what the next one can finish.
        journal.repaired(Repaired { cut_bytes }, moment);
        committed(&mut journal, moment)?;
        if let Some(torn) = walk.torn {
            journal.store().cut(torn.file, torn.offset)?;
        }
        journal.seal(moment);
    }
    committed(&mut journal, moment)?;
    Ok(Outcome::Repaired { records: journal.records(), cut_bytes })
}

fn committed(journal: &mut Journal<Folder>, moment: Moment) -> io::Result<()> {
    journal.commit(moment);
    match journal.failure() {
        None => Ok(()),
        Some(failure) => Err(io::Error::other(failure.reason.clone())),
    }
}

/// Makes the tiles that are missing or wrong anew from the lines, and leaves their hashes with the publisher.
fn make_tiles(store: &mut Folder, folder: &Path, publisher: &mut Publisher) -> io::Result<()> {
    let mut tree = Tree::default();
    for entry in read(folder)? {
        let Entry::Line(line) = entry? else { continue };
        tree.push(&line.text);
        for tile in publisher.replay(&tree.take_completed()) {
            if writer::content(&folder.join(&tile.path))?.as_ref() != Some(&tile.hashes) {
                store.put(&tile.path, &tile.hashes, true)?;
            }
            store.discard(&format!("{}.p", tile.path));
        }
    }
    for tile in publisher.partial() {
        // Partial ones that a checkpoint left may be torn; the next checkpoint writes those it needs.
        store.discard(&format!("{}.p", Tile::full_path(&tile)));
        store.put(&tile.path, &tile.hashes, true)?;
    }
    Ok(())
}

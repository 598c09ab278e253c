//! Ends the logs of processes that were killed: what they wrote in part is cut, the rest is sealed and signed.
//!
//! Repaired is only what a killed process leaves. A log that contradicts its checkpoint or itself stays as it is, so that
//! nothing is signed that somebody else has changed; nor is one touched that a living process holds.

use std::fmt;
use std::io;
use std::path::Path;

use super::journal::{Journal, Moment, Repaired, Store as _};
use super::line::in_hex;
use super::log::{Entry, Walk, finished, read};
use super::merkle::Tree;
use super::registry::{End, Registry, Standing, Standings, standings};
use super::scribe::{Scribe, is_log_name};
use super::tree::check::{Known, Signed};
use super::tree::publish::{CHECKPOINT, Publisher};
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
    repair_with(settings, &Registry::open(settings)?)
}

pub(super) fn repair_with(settings: &Settings, registry: &Registry) -> Result<Vec<Found>, Fault> {
    let (hash_key, seed) = registry.keys();
    let failed = |error: io::Error| writer::failed(&settings.path, &error);
    let folders = writer::folders(&settings.path).map_err(failed)?;
    let known = registry.look().map_err(failed)?;
    let (mut found, mut ended) = (Vec::new(), Vec::new());
    for folder in folders {
        let log = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Only what is sealed is pruned; of a log that was pruned whole no line is left to tell.
        let standing = known.get(&log);
        let is_pruned = standing.is_some_and(|standing| standing.pruned.is_some());
        // The registry has seen its seal; so a start need not open each log that ever was.
        let is_over = standing.is_some_and(|standing| standing.ended.is_some()) && folder.join(CHECKPOINT).is_file();
        if !is_log_name(&log) || is_pruned || is_over {
            continue;
        }
        let publisher = publisher(settings, &log, &seed)?;
        let outcome = match finished(&folder, publisher.key()) {
            Ok(Some(checkpoint)) => {
                ended.push((log, End::Sealed, checkpoint.size, in_hex(&checkpoint.root)));
                continue;
            }
            Ok(None) => repair_log(settings, &folder, &log, &hash_key, publisher),
            Err(error) => Err(error),
        };
        let outcome = match outcome {
            Ok((outcome, end)) => {
                ended.extend(end.map(|(end, records, root)| (log.clone(), end, records, root)));
                outcome
            }
            // Another process that starts took it for the remains of one that never began, and it was gone before it was looked at.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.exists() => continue,
            Err(error) => Outcome::Left(error.to_string()),
        };
        // A folder in which nothing was ever written is one that is being made, or what is left of one: nobody must hear of it.
        let is_news = match outcome {
            Outcome::Finished => false,
            Outcome::Unused => standing.is_some(),
            _ => true,
        };
        if is_news {
            found.push(Found { log, outcome });
        }
    }
    registry.enter_ends(&known, &ended).map_err(failed)?;
    found.extend(missing(settings, &known).map_err(failed)?);
    Ok(found)
}

/// Logs that the registry knows and whose folder is gone.
fn missing(settings: &Settings, known: &Standings) -> io::Result<Vec<Found>> {
    let is_gone =
        |standings: &Standings| standings.iter().any(|(log, standing)| is_missing(&settings.path.join(log), standing));
    if !is_gone(known) {
        return Ok(Vec::new());
    }
    // What others have entered meanwhile: that it never began, or was removed on purpose.
    let known = standings(&settings.path)?.unwrap_or_default();
    let gone = known.into_iter().filter(|(log, standing)| is_missing(&settings.path.join(log), standing));
    let why =
        "the registry knows it, and its folder is gone: look into it; `fastguard audit forget` enters that it may be";
    Ok(gone.map(|(log, _)| Found { log, outcome: Outcome::Left(why.to_owned()) }).collect())
}

fn is_missing(folder: &Path, standing: &Standing) -> bool {
    let is_unused = standing.ended.as_ref().is_some_and(|(end, ..)| *end == End::Unused);
    standing.forgotten.is_none() && !is_unused && !folder.is_dir()
}

/// How a log ended, for the registry.
type Ending = Option<(End, u64, String)>;

fn repair_log(
    settings: &Settings,
    folder: &Path,
    log: &str,
    hash_key: &[u8; 32],
    mut publisher: Publisher,
) -> io::Result<(Outcome, Ending)> {
    let Some(held) = Held::take(folder)? else { return Ok((Outcome::Held, None)) };
    let mut store = Folder::of(folder.to_owned(), held);
    if finished(folder, publisher.key())?.is_some() {
        // Another process that started at once has repaired it since, and enters its end.
        return Ok((Outcome::Finished, None));
    }
    let known = Known { key: Some(publisher.key().clone()), ..Known::default() };
    let mut walk = Walk::new(Some(Signed::lenient(folder, &known)?));
    walk.all(folder)?;
    if let Some(problem) = &walk.verdict.problem {
        return Ok((Outcome::Left(problem.to_string()), None));
    }
    if let Some(torn) = walk.torn.filter(|torn| !torn.is_remains) {
        let what = "damaged lines that no killed process leaves";
        return Ok((Outcome::Left(format!("file {}, byte {}: {what}", torn.file, torn.offset)), None));
    }
    if walk.tree.size() == 0 {
        // At most a part of the first line, which says nothing yet.
        store.remove_unused();
        if folder.exists() {
            // Its process was quick enough to hold it again meanwhile: it is one that is being made.
            return Ok((Outcome::Held, None));
        }
        return Ok((Outcome::Unused, Some((End::Unused, 0, String::new()))));
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
    let end = if walk.verdict.sealed { End::Sealed } else { End::Recovered };
    let ending = (end, journal.records(), in_hex(&journal.root()));
    Ok((Outcome::Repaired { records: journal.records(), cut_bytes }, Some(ending)))
}

pub(super) fn committed(journal: &mut Journal<Folder>, moment: Moment) -> io::Result<()> {
    journal.commit(moment);
    match journal.failure() {
        None => Ok(()),
        Some(failure) => Err(io::Error::other(failure.reason.clone())),
    }
}

/// Makes the tiles that are missing or wrong anew from the lines, and leaves their hashes with the publisher.
pub(super) fn make_tiles(store: &mut Folder, folder: &Path, publisher: &mut Publisher) -> io::Result<()> {
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

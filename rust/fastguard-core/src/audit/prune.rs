//! Removes lines of old logs, or whole logs, and has the registry say so first. Tiles and checkpoints of a pruned log stay, so that
//! what is left of it verifies, and proofs of it can still be made.

use std::fs;
use std::io;

use super::Settings;
use super::log::{Verdict, finished, first_sequence, verify_against};
use super::registry::{Entry, Registry, standings};
use super::repair::repair;
use super::scribe::is_log_name;
use super::tree::check::Known;
use super::writer::{self, Held};
use crate::denial::Fault;

fn refused(what: impl Into<String>) -> Fault {
    Fault::AuditFailed { reason: what.into() }
}

/// Removes the files of a sealed log up to number `last`, by the `rule` that the registry names; how many records of its start are
/// gone then. A log that does not verify stays as it is.
pub fn prune(settings: &Settings, log: &str, last: u32, rule: &str) -> Result<u64, Fault> {
    let folder = settings.path.join(log);
    let failed = |error: io::Error| writer::failed(&folder, &error);
    if !is_log_name(log) || !folder.is_dir() {
        return Err(refused(format!("`{log}` is no log here")));
    }
    // Enters ends that their processes could not enter.
    repair(settings)?;
    let key = super::public_key(settings)?;
    let standing = standings(&settings.path).map_err(failed)?.and_then(|mut all| all.remove(log)).unwrap_or_default();
    let before = standing.pruned.as_ref().map_or(0, |(records, _)| *records);
    let is_over = before > 0 || finished(&folder, &key).map_err(failed)?.is_some();
    if standing.ended.is_none() || !is_over {
        return Err(refused(format!("`{log}` is not sealed")));
    }
    let known = Known { key: Some(key), pruned: before, ..Known::default() };
    let Verdict { records, problem, .. } = verify_against(&folder, &known).map_err(failed)?;
    if let Some(problem) = problem {
        return Err(refused(format!("`{log}` does not verify, and is not pruned: {problem}")));
    }
    let files = writer::files(&folder).map_err(failed)?;
    let kept = files.iter().find(|(number, _)| *number > last);
    let pruned = kept.map_or(Ok(Some(records)), |(_, path)| first_sequence(path)).map_err(failed)?;
    let pruned = pruned.ok_or_else(|| refused(format!("`{log}`: file {last} cannot be the last that goes")))?;
    if pruned > before {
        let entry = Entry::Pruned { log: log.to_owned(), files: last, records: pruned, rule: rule.to_owned() };
        Registry::open(settings)?.enter_one(entry).map_err(failed)?;
    }
    // Whoever is killed here leaves files that the next one removes.
    for (_, path) in files.iter().filter(|(number, _)| *number <= last) {
        fs::remove_file(path).map_err(failed)?;
    }
    writer::sync_folder(&folder).map_err(failed)?;
    Ok(pruned)
}

/// Removes a whole log, or enters that one which is gone may be. `reason` is what the registry says of it.
pub fn forget(settings: &Settings, log: &str, reason: &str) -> Result<(), Fault> {
    let folder = settings.path.join(log);
    let failed = |error: io::Error| writer::failed(&folder, &error);
    let is_known = standings(&settings.path).map_err(failed)?.is_some_and(|all| all.contains_key(log));
    if !is_log_name(log) || !is_known && !folder.is_dir() {
        return Err(refused(format!("`{log}` is no log here")));
    }
    let held = if folder.is_dir() { Held::take(&folder).map_err(failed)? } else { None };
    if folder.is_dir() && held.is_none() {
        return Err(refused(format!("`{log}`: its process runs")));
    }
    let entry = Entry::Forgotten { log: log.to_owned(), reason: reason.to_owned() };
    Registry::open(settings)?.enter_one(entry).map_err(failed)?;
    if held.is_some() { fs::remove_dir_all(&folder).map_err(failed) } else { Ok(()) }
}

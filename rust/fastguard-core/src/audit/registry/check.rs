//! Holds the logs of a place and its registry against each other.

use std::io;
use std::path::Path;

use super::{End, NAME, Standing, standings};
use crate::audit::log::{self, Verdict};
use crate::audit::tree::check::Known;
use crate::audit::writer;

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
    // The first line stands before the birth is entered.
    let has_records = |checked: &Checked| checked.verdict.as_ref().is_some_and(|verdict| verdict.records > 1);
    let is_unknown = |checked: &&mut Checked| checked.log != NAME && checked.standing.is_none() && has_records(checked);
    let mut unknown = checked.iter_mut().filter(is_unknown).peekable();
    if unknown.peek().is_some() {
        // One that was entered while the others were read is known.
        let now = super::standings(base)?.unwrap_or_default();
        for checked in unknown.filter(|checked| !now.contains_key(&checked.log)) {
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

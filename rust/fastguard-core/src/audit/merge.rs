//! The records of many logs as one stream, ordered by time, in memory that does not grow with the logs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::log::{Entry, Reader, read};
use super::scribe::opened_at;

/// The records of several logs. Each log's stay in their order: where its clock went back, a record counts as of the time of the
/// one before it.
pub struct Merged {
    /// The next record of each log; a log is not opened before its time has come.
    heads: BinaryHeap<Reverse<Head>>,
}

#[derive(Eq, PartialEq)]
struct Head {
    /// As RFC 3339 has it, always of the same length, so that the order of the texts is that of the times.
    at: String,
    log: String,
    source: Source,
}

enum Source {
    Unopened(PathBuf),
    Opened(Box<Reader>, Vec<u8>),
}

// Logs have different names, so that nothing else decides.
impl Eq for Source {}
impl PartialEq for Source {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.at, &self.log).cmp(&(&other.at, &other.log))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Deserialize)]
struct Stamp {
    #[serde(default)]
    timestamp: String,
    #[serde(default)]
    log: Option<String>,
}

/// Merges the logs in these folders.
pub fn merge(logs: impl IntoIterator<Item = PathBuf>) -> Merged {
    let heads = logs.into_iter().map(|path| {
        let log = name(&path);
        Reverse(Head { at: opened_at(&log).unwrap_or_default(), log, source: Source::Unopened(path) })
    });
    Merged { heads: heads.collect() }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Iterator for Merged {
    /// A record's line with the name of its log as its first member, unless it names its log itself.
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Reverse(head) = self.heads.pop()?;
            let Head { at, log, source } = head;
            let (mut reader, found) = match source {
                Source::Unopened(path) => match read(&path) {
                    Ok(reader) => (Box::new(reader), None),
                    Err(error) => return Some(Err(error)),
                },
                Source::Opened(reader, line) => (reader, Some(line)),
            };
            match next_line(&mut reader) {
                Ok(None) => {}
                Ok(Some(line)) => {
                    let (stamp, line) = named(line, &log);
                    let source = Source::Opened(reader, line);
                    self.heads.push(Reverse(Head { at: at.max(stamp), log, source }));
                }
                Err(error) => return Some(Err(error)),
            }
            if let Some(line) = found {
                return Some(Ok(line));
            }
        }
    }
}

fn next_line(reader: &mut Reader) -> io::Result<Option<Vec<u8>>> {
    for entry in reader {
        if let Entry::Line(line) = entry? {
            return Ok(Some(line.text));
        }
    }
    Ok(None)
}

/// When the line's call was decided, and the line with its log's name. What a log says of itself stays beside its neighbours: the
/// writer stamps it, later than the callers have stamped the records that follow.
fn named(line: Vec<u8>, log: &str) -> (String, Vec<u8>) {
    let stamp = serde_json::from_slice::<Stamp>(&line).unwrap_or(Stamp { timestamp: String::new(), log: None });
    match (&stamp.log, line.strip_prefix(b"{")) {
        (None, Some(members)) => (stamp.timestamp, [b"{\"log\":\"", log.as_bytes(), b"\",", members].concat()),
        _ => (String::new(), line),
    }
}

//! Reads a log, also one whose process was killed in the middle of a line.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::line::in_hex;
use super::merkle::Tree;
use super::tree::check::{Known, Signed};
use super::writer;

/// Longest line that is read; the longest that is written has a token's 1,024 scopes of 2 KiB each, escaped.
const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// What stands in a file of a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// A whole line.
    Line(Line),
    /// A whole line that the next file has again: its write failed, and it could not be cut off.
    Replaced(Line),
    /// The end of a file that is no whole line: the process was killed, or the disk failed.
    Torn {
        /// The file's number.
        file: u32,
        /// Where it begins.
        offset: u64,
        /// How long it is.
        bytes: u64,
    },
}

/// One line and its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// The file's number.
    pub file: u32,
    /// Where the line begins.
    pub offset: u64,
    /// Its text, without the newline: the leaf of the tree.
    pub text: Vec<u8>,
}

/// The logs in `base`, the folder that the configuration names; the oldest first.
pub fn list(base: &Path) -> io::Result<Vec<PathBuf>> {
    writer::folders(base)
}

/// Reads the log in the folder `path`, or the one file of it.
pub fn read(path: &Path) -> io::Result<Reader> {
    Ok(Reader { files: writer::files(path)?.into(), current: None })
}

/// The entries of a log, in their order.
pub struct Reader {
    files: VecDeque<(u32, PathBuf)>,
    current: Option<Current>,
}

struct Current {
    number: u32,
    text: Box<dyn BufRead + Send>,
    offset: u64,
    /// The next file's `records_before`.
    replaced_from: Option<u64>,
}

#[derive(Deserialize)]
struct Header {
    seq: u64,
    #[serde(default)]
    event_type: String,
    #[serde(default)]
    records_before: Option<u64>,
    #[serde(default)]
    previous_root: Option<String>,
    #[serde(default)]
    records: Option<u64>,
    #[serde(default)]
    root: Option<String>,
}

impl Iterator for Reader {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.current.is_none() {
                let (number, path) = self.files.pop_front()?;
                match self.open(number, &path) {
                    Ok(current) => self.current = Some(current),
                    Err(error) => return Some(Err(error)),
                }
            }
            let current = self.current.as_mut()?;
            match current.next() {
                Ok(Some(entry)) => {
                    if matches!(entry, Entry::Torn { .. }) {
                        self.current = None;
                    }
                    return Some(Ok(entry));
                }
                Ok(None) => self.current = None,
                Err(error) => {
                    self.current = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Reader {
    fn open(&self, number: u32, path: &Path) -> io::Result<Current> {
        let replaced_from = match self.files.front() {
            None => None,
            Some((_, next)) => {
                let mut first = Vec::new();
                writer::open(next)?.take(MAX_LINE_BYTES).read_until(b'\n', &mut first)?;
                serde_json::from_slice::<Header>(&first).ok().and_then(|header| header.records_before)
            }
        };
        Ok(Current { number, text: writer::open(path)?, offset: 0, replaced_from })
    }
}

impl Current {
    fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut text = Vec::new();
        let bytes = (&mut self.text).take(MAX_LINE_BYTES).read_until(b'\n', &mut text)? as u64;
        if bytes == 0 {
            return Ok(None);
        }
        let (file, offset) = (self.number, self.offset);
        self.offset += bytes;
        let seq = sequence(&text);
        if text.pop() != Some(b'\n') || seq.is_none() {
            // What follows a damaged line cannot be told from it: file systems leave blocks of zeros as well.
            let bytes = bytes + io::copy(&mut self.text, &mut io::sink())?;
            return Ok(Some(Entry::Torn { file, offset, bytes }));
        }
        let line = Line { file, offset, text };
        let replaced = seq.zip(self.replaced_from).is_some_and(|(seq, from)| seq >= from);
        Ok(Some(if replaced { Entry::Replaced(line) } else { Entry::Line(line) }))
    }
}

/// The number that every line begins with.
fn sequence(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"{\"seq\":")?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()
}

/// What a log proves of itself: that it is whole. Whoever can write its files can write another one that is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// Lines that count.
    pub records: u64,
    /// The root over them, in hexadecimal.
    pub root: String,
    /// Whether the last one seals the log.
    pub sealed: bool,
    /// Bytes at the ends of files that are no whole lines.
    pub torn_bytes: u64,
    /// Lines that a later file has again.
    pub replaced: u64,
    /// The first thing that is wrong, and where.
    pub problem: Option<Problem>,
}

/// What is wrong with a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The file's number.
    pub file: u32,
    /// Where the line begins.
    pub offset: u64,
    /// What is wrong.
    pub what: &'static str,
}

/// Reads the whole log in the folder `path`, and compares it with the numbers, roots, tiles and the checkpoint that
/// it holds.
pub fn verify(path: &Path) -> io::Result<Verdict> {
    verify_against(path, &Known::default())
}

/// Like [`verify`], and compares it with what its reader knows from elsewhere: only that shows a log that was
/// written anew, cut back or forked.
pub fn verify_against(path: &Path, known: &Known) -> io::Result<Verdict> {
    let mut tree = Tree::default();
    let mut verdict =
        Verdict { records: 0, root: String::new(), sealed: false, torn_bytes: 0, replaced: 0, problem: None };
    // Read before the lines: a log that is being written is then never behind its checkpoint.
    let mut signed = if path.is_dir() { Some(Signed::read(path, known)?) } else { None };
    let (mut file, mut offset) = (0, 0);
    for entry in read(path)? {
        match entry? {
            Entry::Torn { file, offset, bytes } => {
                verdict.torn_bytes += bytes;
                if verdict.sealed {
                    verdict.found(file, offset, Some("something follows the seal"));
                }
            }
            Entry::Replaced(_) => verdict.replaced += 1,
            Entry::Line(line) => {
                (file, offset) = (line.file, line.offset);
                let after_seal = verdict.sealed.then_some("the line follows the seal");
                verdict.found(file, offset, after_seal.or_else(|| contradiction(&line, &tree)));
                verdict.sealed = is_seal(&line);
                tree.push(&line.text);
                match &mut signed {
                    Some(signed) => verdict.found(file, offset, signed.follow(&mut tree)?),
                    None => drop(tree.take_completed()),
                }
            }
        }
    }
    if let Some(signed) = &mut signed {
        verdict.found(file, offset, signed.finish(&tree, verdict.sealed)?);
    }
    verdict.records = tree.size();
    verdict.root = in_hex(&tree.root());
    Ok(verdict)
}

impl Verdict {
    /// Keeps the first problem.
    fn found(&mut self, file: u32, offset: u64, what: Option<&'static str>) {
        if let (Some(what), None) = (what, &self.problem) {
            self.problem = Some(Problem { file, offset, what });
        }
    }
}

fn is_seal(line: &Line) -> bool {
    serde_json::from_slice::<Header>(&line.text).is_ok_and(|header| header.event_type == "log_sealed")
}

/// What `line` says that `tree`, of the lines before it, denies.
fn contradiction(line: &Line, tree: &Tree) -> Option<&'static str> {
    let Ok(header) = serde_json::from_slice::<Header>(&line.text) else {
        return Some("the line is not JSON");
    };
    if header.seq != tree.size() {
        return Some("lines are missing or out of order before this one");
    }
    let (records, root) = match header.event_type.as_str() {
        "log_opened" => (header.records_before, header.previous_root),
        "log_sealed" => (header.records, header.root),
        _ => return None,
    };
    if records != Some(tree.size()) || root != Some(in_hex(&tree.root())) {
        return Some("the lines before this one are not those that it was written after");
    }
    None
}

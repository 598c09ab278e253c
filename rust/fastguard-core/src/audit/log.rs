//! Reads a log, also one whose process was killed in the middle of a line.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::line::in_hex;
use super::merkle::Tree;
use super::tree::check::{Known, Signed};
use super::tree::note::{Checkpoint, Key};
use super::tree::publish::CHECKPOINT;
use super::tree::tiles;
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
        /// Whether no line ends in it: a killed process leaves a part of one line, a file system zeros.
        is_remains: bool,
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
    read_from(path, Place::default())
}

/// The same from `place` on.
pub(super) fn read_from(path: &Path, place: Place) -> io::Result<Reader> {
    let mut files = writer::files(path)?;
    files.retain(|(number, _)| *number >= place.file);
    Ok(Reader { files: files.into(), current: None, place })
}

/// A place between two lines of a log. The default one is its beginning.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Place {
    file: u32,
    offset: u64,
}

/// The entries of a log, in their order.
pub struct Reader {
    files: VecDeque<(u32, PathBuf)>,
    current: Option<Current>,
    /// Where the first file is read from, if it is the one of this place.
    place: Place,
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
    #[serde(default)]
    torn_end_cut: Option<bool>,
    #[serde(default)]
    cut_bytes: Option<u64>,
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
        let offset = if number == self.place.file { self.place.offset } else { 0 };
        Ok(Current { number, text: writer::open_at(path, offset)?, offset, replaced_from })
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
        if text.pop_if(|byte| *byte == b'\n').is_none() || seq.is_none() {
            // What follows a damaged line cannot be told from it: file systems leave blocks of zeros as well.
            let (mut bytes, mut is_remains) = (bytes, text.len() as u64 != bytes - 1);
            loop {
                let rest = self.text.fill_buf()?;
                if rest.is_empty() {
                    return Ok(Some(Entry::Torn { file, offset, bytes, is_remains }));
                }
                is_remains &= !rest.contains(&b'\n');
                let length = rest.len();
                bytes += length as u64;
                self.text.consume(length);
            }
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
    /// Records of the start of which only the hashes are left.
    pub pruned: u64,
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

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "file {}, byte {}: {}", self.file, self.offset, self.what)
    }
}

/// Reads the whole log in the folder `path`, and compares it with the numbers, roots, tiles and the checkpoint that
/// it holds.
pub fn verify(path: &Path) -> io::Result<Verdict> {
    verify_against(path, &Known::default())
}

/// Like [`verify`], and compares it with what its reader knows from elsewhere: only that shows a log that was
/// written anew, cut back or forked.
pub fn verify_against(path: &Path, known: &Known) -> io::Result<Verdict> {
    // Read before the lines: a log that is being written is then never behind its checkpoint.
    let signed = if path.is_dir() { Some(Signed::read(path, known)?) } else { None };
    let mut walk = Walk::new(signed);
    walk.begin(path, known.pruned)?;
    walk.all(path)?;
    Ok(walk.verdict)
}

/// A part of a line at the end of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Torn {
    pub(super) file: u32,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) is_remains: bool,
}

/// A log as it is read.
pub(super) struct Walk {
    pub(super) verdict: Verdict,
    pub(super) tree: Tree,
    pub(super) signed: Option<Signed>,
    /// The end of the last file, or of one that no record has told of yet.
    pub(super) torn: Option<Torn>,
    /// Ends that a record says are cut, and are not: its process was killed before it cut.
    pub(super) uncut: Vec<Torn>,
    /// Where the last line stands.
    at: (u32, u64),
    /// Where what comes after it will stand.
    next: Place,
}

impl Walk {
    pub(super) fn new(signed: Option<Signed>) -> Self {
        let verdict = Verdict {
            records: 0,
            root: String::new(),
            sealed: false,
            torn_bytes: 0,
            replaced: 0,
            pruned: 0,
            problem: None,
        };
        Self {
            verdict,
            tree: Tree::default(),
            signed,
            torn: None,
            uncut: Vec::new(),
            at: (0, 0),
            next: Place::default(),
        }
    }

    /// Takes what is left of records whose lines were pruned, at most `pruned` of them: the hashes in the tiles.
    fn begin(&mut self, path: &Path, pruned: u64) -> io::Result<()> {
        if pruned == 0 || !path.is_dir() {
            return Ok(());
        }
        let count = first_sequence(path)?.unwrap_or(pruned);
        if count > pruned {
            self.found(Some("lines are missing at the start that the registry does not say were pruned"));
        }
        let Some(leaves) = tiles::leaves(path, count)? else {
            self.found(Some("a tile of pruned records is missing"));
            return Ok(());
        };
        for hash in leaves {
            self.tree.push_hash(hash);
            self.follow()?;
        }
        self.verdict.pruned = count;
        Ok(())
    }

    pub(super) fn all(&mut self, path: &Path) -> io::Result<()> {
        self.lines(read(path)?, |_| {})
    }

    /// Goes on where it ended, with the log that was in the folder `path` then; `seen` gets each line that is new. `false`: its
    /// checkpoint does not sign all that was read, and what was read before counts for nothing.
    pub(super) fn go_on(&mut self, path: &Path, key: &Key, seen: impl FnMut(&Line)) -> io::Result<bool> {
        self.torn = None;
        if let Some(signed) = &mut self.signed {
            signed.renew(key)?;
        }
        self.lines(read_from(path, self.next)?, seen)?;
        let is_signed = self.signed.as_ref().is_some_and(|signed| signed.signs(&self.tree));
        Ok(is_signed && self.may_go_on() && self.torn.is_none())
    }

    /// Whether the lines that were read are the log's for good, as far as they show: nothing contradicts, and nothing is to be cut.
    pub(super) const fn may_go_on(&self) -> bool {
        self.verdict.problem.is_none() && self.verdict.replaced == 0 && self.uncut.is_empty() && self.tree.size() > 0
    }

    /// Takes what `reader` gives; `seen` gets each line that counts.
    pub(super) fn lines(&mut self, mut reader: Reader, mut seen: impl FnMut(&Line)) -> io::Result<()> {
        let last = reader.files.back().map_or(0, |(number, _)| *number);
        for entry in &mut reader {
            match entry? {
                Entry::Torn { file, offset, bytes, is_remains } => {
                    self.verdict.torn_bytes += bytes;
                    self.untold();
                    self.torn = Some(Torn { file, offset, bytes, is_remains });
                    if self.verdict.sealed {
                        self.verdict.found(file, offset, Some("something follows the seal"));
                    }
                }
                Entry::Replaced(_) => self.verdict.replaced += 1,
                Entry::Line(line) => {
                    self.line(&line)?;
                    seen(&line);
                }
            }
        }
        if self.torn.is_some_and(|torn| torn.file != last) {
            self.untold();
        }
        if let Some(signed) = &mut self.signed {
            let problem = signed.finish(&self.tree, self.verdict.sealed)?;
            self.verdict.found(self.at.0, self.at.1, problem);
        }
        self.verdict.records = self.tree.size();
        self.verdict.root = in_hex(&self.tree.root());
        Ok(())
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        self.at = (line.file, line.offset);
        self.next = Place { file: line.file, offset: line.offset + line.text.len() as u64 + 1 };
        let header = serde_json::from_slice::<Header>(&line.text).ok();
        let after_seal = self.verdict.sealed.then_some("the line follows the seal");
        self.found(after_seal.or_else(|| contradiction(header.as_ref(), &self.tree)));
        let event_type = header.as_ref().map_or("", |header| &header.event_type);
        if let ("recovered", Some(header)) = (event_type, &header) {
            self.told(header);
        }
        self.verdict.sealed = event_type == "log_sealed";
        if self.verdict.sealed {
            self.untold();
        }
        self.tree.push(&line.text);
        self.follow()
    }

    /// Compares the tree, which has just grown, with what is signed.
    fn follow(&mut self) -> io::Result<()> {
        match &mut self.signed {
            Some(signed) => {
                let problem = signed.follow(&mut self.tree)?;
                self.found(problem);
            }
            None => drop(self.tree.take_completed()),
        }
        Ok(())
    }

    fn found(&mut self, what: Option<&'static str>) {
        self.verdict.found(self.at.0, self.at.1, what);
    }

    /// A record tells of the end that is torn: that it stayed, or that so much was cut.
    fn told(&mut self, header: &Header) {
        let Some(torn) = self.torn else { return };
        if header.torn_end_cut == Some(false) {
            self.torn = None;
        } else if header.cut_bytes == Some(torn.bytes) {
            self.torn = None;
            self.uncut.push(torn);
        }
    }

    /// A torn end that the log goes on after without a word of it is no remains of a killed process.
    fn untold(&mut self) {
        if let Some(torn) = self.torn {
            self.verdict.found(torn.file, torn.offset, Some("damaged lines stand here that no record tells of"));
        }
    }
}

impl Verdict {
    /// Keeps the first problem.
    fn found(&mut self, file: u32, offset: u64, what: Option<&'static str>) {
        if let (Some(what), None) = (what, &self.problem) {
            self.problem = Some(Problem { file, offset, what });
        }
    }
}

/// The number of the first line that is there, if one is.
pub(super) fn first_sequence(folder: &Path) -> io::Result<Option<u64>> {
    let Some((_, path)) = writer::files(folder)?.into_iter().next() else { return Ok(None) };
    let mut first = Vec::new();
    writer::open(&path)?.take(MAX_LINE_BYTES).read_until(b'\n', &mut first)?;
    Ok(sequence(&first))
}

/// The checkpoint that covers the seal with which the log in `folder` ends, if both are there; told from its last line.
pub(super) fn finished(folder: &Path, key: &Key) -> io::Result<Option<Checkpoint>> {
    /// A seal has some 200.
    const MAX_SEAL_BYTES: u64 = 4_096;
    let Some((_, last)) = writer::files(folder)?.pop() else { return Ok(None) };
    let Some(note) = writer::content(&folder.join(CHECKPOINT))? else { return Ok(None) };
    let end = writer::tail(&last, MAX_SEAL_BYTES)?;
    let Some(end) = end.strip_suffix(b"\n") else { return Ok(None) };
    let line = end.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let Ok(header) = serde_json::from_slice::<Header>(line) else { return Ok(None) };
    let checkpoint = std::str::from_utf8(&note).ok().and_then(|note| Checkpoint::open(note, Some(key)).ok());
    Ok(checkpoint.filter(|checkpoint| header.event_type == "log_sealed" && checkpoint.size == header.seq + 1))
}

/// What the line with this `header` says that `tree`, of the lines before it, denies.
fn contradiction(header: Option<&Header>, tree: &Tree) -> Option<&'static str> {
    let Some(header) = header else { return Some("the line is not JSON") };
    if header.seq != tree.size() {
        return Some("lines are missing or out of order before this one");
    }
    let (records, root) = match header.event_type.as_str() {
        "log_opened" => (header.records_before, &header.previous_root),
        "log_sealed" => (header.records, &header.root),
        _ => return None,
    };
    if records != Some(tree.size()) || *root != Some(in_hex(&tree.root())) {
        return Some("the lines before this one are not those that it was written after");
    }
    None
}

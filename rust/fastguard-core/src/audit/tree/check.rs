//! What a log's signed checkpoints and tiles say of its lines, while they are read.

use std::io;
use std::path::{Path, PathBuf};

use super::note::{Checkpoint, Key};
use super::publish::{CHECKPOINT, PUBLIC_KEY};
use super::tiles::{Edge, Tile};
use crate::audit::merkle::Tree;
use crate::audit::writer;

/// What the reader of a log knows of it from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The key that signs. `None`: the one that lies in the log's folder, which proves nothing by itself.
    pub key: Option<Key>,
    /// An earlier checkpoint of the same log, as a signed note.
    pub checkpoint: Option<String>,
    /// Records of the start that may be gone: the registry says that they were pruned.
    pub pruned: u64,
}

/// The signed side of a log.
pub(in crate::audit) struct Signed {
    folder: PathBuf,
    /// The last checkpoint in the folder, and the one that the reader has kept.
    own: Option<Checkpoint>,
    earlier: Option<Checkpoint>,
    edge: Edge,
    /// Whether tiles are left out, and a seal without its checkpoint passes: what can be made anew from the lines.
    is_lenient: bool,
    problem: Option<&'static str>,
}

impl Signed {
    /// The same without what can be made anew from the lines.
    pub(in crate::audit) fn lenient(folder: &Path, known: &Known) -> io::Result<Self> {
        Ok(Self { is_lenient: true, ..Self::read(folder, known)? })
    }

    /// The tiles that are not full, of all lines that were read.
    pub(in crate::audit) fn edge(&self) -> Edge {
        self.edge.clone()
    }

    /// Reads the checkpoint anew, of a log that others may have gone on with.
    pub(in crate::audit) fn renew(&mut self, key: &Key) -> io::Result<()> {
        let note = writer::content(&self.folder.join(CHECKPOINT))?;
        self.own = note.and_then(|note| self.open(&note, key));
        Ok(())
    }

    /// Whether the checkpoint in the folder is that of all records in `tree`.
    pub(in crate::audit) fn signs(&self, tree: &Tree) -> bool {
        self.own.as_ref().is_some_and(|own| own.size == tree.size() && own.root == tree.root())
    }

    /// How many records the last checkpoint covers.
    pub(in crate::audit) fn covered(&self) -> u64 {
        self.own.as_ref().map_or(0, |own| own.size)
    }

    /// Reads key and checkpoint of the log in `folder`.
    pub(in crate::audit) fn read(folder: &Path, known: &Known) -> io::Result<Self> {
        let (edge, folder_of) = (Edge::default(), folder.to_owned());
        let mut signed = Self { folder: folder_of, own: None, earlier: None, edge, is_lenient: false, problem: None };
        let Some(key) = signed.key(known)? else { return Ok(signed) };
        if let Some(note) = writer::content(&folder.join(CHECKPOINT))? {
            signed.own = signed.open(&note, &key);
        }
        if let Some(note) = &known.checkpoint {
            signed.earlier = signed.open(note.as_bytes(), &key);
        }
        if let (Some(own), Some(earlier)) = (&signed.own, &signed.earlier)
            && own.origin != earlier.origin
        {
            signed.problem("the earlier checkpoint is one of another log");
        }
        Ok(signed)
    }

    fn key(&mut self, known: &Known) -> io::Result<Option<Key>> {
        let text = writer::content(&self.folder.join(PUBLIC_KEY))?;
        let own = text.as_ref().and_then(|text| {
            let text = std::str::from_utf8(text).ok()?;
            Key::parse(text).filter(|key| format!("{key}\n") == text)
        });
        if text.is_some() && own.is_none() {
            self.problem("the file of the public key is malformed");
        }
        if let (Some(own), Some(key)) = (&own, &known.key)
            && own != key
        {
            self.problem("the log names another public key");
        }
        if own.is_none() && writer::content(&self.folder.join(CHECKPOINT))?.is_some() {
            self.problem("the file of the public key is missing");
        }
        Ok(known.key.clone().or(own))
    }

    fn open(&mut self, note: &[u8], key: &Key) -> Option<Checkpoint> {
        let note = std::str::from_utf8(note).map_err(|_| "the checkpoint is malformed");
        note.and_then(|note| Checkpoint::open(note, Some(key))).map_err(|what| self.problem(what)).ok()
    }

    fn problem(&mut self, what: &'static str) {
        self.problem.get_or_insert(what);
    }

    /// Takes in the line that the tree has just taken; says what contradicts it.
    pub(in crate::audit) fn follow(&mut self, tree: &mut Tree) -> io::Result<Option<&'static str>> {
        for (level, hash) in tree.take_completed() {
            if let Some(tile) = self.edge.add(level, &hash) {
                self.compare(&tile, Some(tree.size()))?;
            }
        }
        let size = tree.size();
        let reached = |checkpoint: &&Checkpoint| checkpoint.size == size;
        if let Some(earlier) = self.earlier.as_ref().filter(reached)
            && earlier.root != tree.root()
        {
            self.problem("the records are not those of the earlier checkpoint");
        }
        if let Some(own) = self.own.as_ref().filter(reached) {
            if own.root != tree.root() {
                self.problem("the records are not those that the checkpoint signs");
            }
            let partial = if self.is_lenient { Vec::new() } else { self.edge.partial().collect() };
            for tile in partial {
                if !self.folder.join(&tile.path).is_file() && !self.folder.join(tile.full_path()).is_file() {
                    self.problem("a tile is missing");
                }
            }
        }
        Ok(self.problem.take())
    }

    /// Compares what the folder has of a tile: the full one, and partial ones that were left.
    /// `filled_at`: how many records there were when it was filled; a process that is killed before its next checkpoint leaves
    /// records whose tiles are not there yet.
    fn compare(&mut self, tile: &Tile, filled_at: Option<u64>) -> io::Result<()> {
        if self.is_lenient {
            return Ok(());
        }
        let full = tile.full_path();
        if let Some(size) = filled_at {
            match writer::content(&self.folder.join(full))? {
                Some(found) if found != tile.hashes => self.problem("a tile is not that of the records"),
                None if self.covered() >= size => self.problem("a tile is missing"),
                _ => {}
            }
        }
        for (width, path) in writer::partial_tiles(&self.folder.join(format!("{full}.p")))? {
            let Some(expected) = tile.hashes.get(..width.saturating_mul(32)) else { continue };
            if writer::content(&path)?.is_some_and(|found| found != expected) {
                self.problem("a tile is not that of the records");
            }
        }
        Ok(())
    }

    /// What is wrong at the end of the log.
    pub(in crate::audit) fn finish(&mut self, tree: &Tree, is_sealed: bool) -> io::Result<Option<&'static str>> {
        for tile in self.edge.partial().collect::<Vec<_>>() {
            self.compare(&tile, None)?;
        }
        let size = tree.size();
        if self.earlier.as_ref().is_some_and(|earlier| earlier.size > size) {
            self.problem("the log ends before the earlier checkpoint");
        }
        if self.own.as_ref().is_some_and(|own| own.size > size) {
            self.problem("the log ends before its checkpoint");
        }
        if let (Some(own), Some(earlier)) = (&self.own, &self.earlier)
            && own.size < earlier.size
        {
            self.problem("the checkpoint is older than the earlier one");
        }
        // Not only tampering: a process that is killed between its seal and its last checkpoint leaves this as well.
        if is_sealed && !self.is_lenient && self.own.as_ref().is_none_or(|own| own.size < size) {
            self.problem("no checkpoint covers the seal");
        }
        Ok(self.problem.take())
    }
}

//! When tiles and checkpoints are written. On the writer's thread, after the records they cover are durable.

use std::io;
use std::time::Duration;

use super::note::{Checkpoint, Key, Signer};
use super::tiles::{Edge, Tile};
use crate::audit::journal::Store;
use crate::audit::merkle::{Hash, Tree};
use crate::clock::Tick;

/// The file of the last checkpoint, where tlog-tiles has it.
pub(in crate::audit) const CHECKPOINT: &str = "checkpoint";
/// The public key in the form of signed-note. Proves nothing unless it was learned elsewhere.
pub(in crate::audit) const PUBLIC_KEY: &str = "vkey";

/// Keeps the tiles of one log and signs its checkpoints.
pub(in crate::audit) struct Publisher {
    signer: Signer,
    origin: String,
    records: u64,
    interval: Duration,
    edge: Edge,
    full: Vec<Tile>,
    /// Full paths of the tiles that were written in part; `None` where others have written some.
    partial: Option<Vec<String>>,
    /// The size of the last checkpoint, and when it was written.
    size: u64,
    at: Tick,
}

impl Publisher {
    /// A checkpoint after `records` more records, or `interval` after the last one if there are any.
    pub(in crate::audit) fn new(signer: Signer, origin: String, records: u64, interval: Duration) -> Self {
        let (edge, full) = (Edge::default(), Vec::new());
        Self { signer, origin, records, interval, edge, full, partial: Some(Vec::new()), size: 0, at: Tick::default() }
    }

    pub(in crate::audit) const fn key(&self) -> &Key {
        self.signer.key()
    }

    /// Goes on after a checkpoint of `size` records.
    pub(in crate::audit) fn resume(&mut self, size: u64) {
        self.size = size;
        self.partial = None;
    }

    /// Goes on after records of others, whose tiles stand.
    pub(in crate::audit) fn go_on(&mut self, edge: Edge) {
        self.edge = edge;
    }

    /// Adds the hashes of records that others have written, and gives the tiles that these fill to the caller.
    pub(in crate::audit) fn replay(&mut self, completed: &[(usize, Hash)]) -> Vec<Tile> {
        self.add(completed);
        std::mem::take(&mut self.full)
    }

    /// The tiles that are not full.
    pub(in crate::audit) fn partial(&self) -> Vec<Tile> {
        self.edge.partial().collect()
    }

    pub(in crate::audit) fn add(&mut self, completed: &[(usize, Hash)]) {
        self.full.extend(completed.iter().filter_map(|(level, hash)| self.edge.add(*level, hash)));
    }

    /// When the next checkpoint is due, if one is.
    pub(in crate::audit) fn due(&self, size: u64) -> Option<Tick> {
        (size > self.size).then(|| self.at.plus(self.interval))
    }

    /// Writes the tiles that were filled and, if it is due or forced, a checkpoint. What failed is tried again the next time.
    pub(in crate::audit) fn publish(
        &mut self,
        store: &mut impl Store,
        tree: &Tree,
        now: Tick,
        force: bool,
    ) -> io::Result<()> {
        while let Some(tile) = self.full.last() {
            store.put(&tile.path, &tile.hashes, false)?;
            let at = self.partial.as_ref().map(|all| all.iter().position(|path| *path == tile.path));
            if at != Some(None) {
                store.discard(&format!("{}.p", tile.path));
            }
            if let (Some(all), Some(Some(at))) = (&mut self.partial, at) {
                all.swap_remove(at);
            }
            self.full.pop();
        }
        let size = tree.size();
        let is_due = force || size - self.size >= self.records || now >= self.at.plus(self.interval);
        if size == self.size || !is_due {
            return Ok(());
        }
        for tile in self.edge.partial() {
            if let Some(all) = &mut self.partial
                && !all.iter().any(|path| path == tile.full_path())
            {
                all.push(tile.full_path().to_owned());
            }
            store.put(&tile.path, &tile.hashes, false)?;
        }
        if self.size == 0 {
            store.put(PUBLIC_KEY, format!("{}\n", self.signer.key()).as_bytes(), true)?;
        }
        let checkpoint = Checkpoint { origin: self.origin.clone(), size, root: tree.root() };
        store.put(CHECKPOINT, self.signer.sign(&checkpoint).as_bytes(), true)?;
        self.size = size;
        self.at = now;
        Ok(())
    }
}

//! Which tiles a tree has, and where they stand (C2SP tlog-tiles).

use std::io;
use std::path::Path;

use crate::audit::merkle::Hash;
use crate::audit::writer;

/// Hashes of a full tile.
const WIDTH: usize = 256;
const HASH_BYTES: usize = 32;

/// A tile as it is stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::audit) struct Tile {
    pub(in crate::audit) path: String,
    pub(in crate::audit) hashes: Vec<u8>,
}

impl Tile {
    /// Where it stands once it is full.
    pub(in crate::audit) fn full_path(&self) -> &str {
        self.path.split_once(".p/").map_or(&self.path, |(full, _)| full)
    }
}

/// The last tile of each level, which still grows.
#[derive(Clone, Debug, Default)]
pub(in crate::audit) struct Edge {
    levels: Vec<Level>,
}

#[derive(Clone, Debug, Default)]
struct Level {
    index: u64,
    hashes: Vec<u8>,
}

impl Edge {
    /// Adds the next hash of a level; gives the tile that it fills.
    pub(in crate::audit) fn add(&mut self, level: usize, hash: &Hash) -> Option<Tile> {
        while self.levels.len() <= level {
            self.levels.push(Level::default());
        }
        let edge = self.levels.get_mut(level)?;
        edge.hashes.extend_from_slice(hash);
        if edge.hashes.len() < HASH_BYTES * WIDTH {
            return None;
        }
        let tile = Tile { path: path(level, edge.index), hashes: std::mem::take(&mut edge.hashes) };
        edge.index += 1;
        Some(tile)
    }

    /// The tiles that are not full. Empty ones do not exist.
    pub(in crate::audit) fn partial(&self) -> impl Iterator<Item = Tile> {
        let grown = self.levels.iter().enumerate().filter(|(_, edge)| !edge.hashes.is_empty());
        grown.map(|(level, edge)| {
            let width = edge.hashes.len() / HASH_BYTES;
            Tile { path: format!("{}.p/{width}", path(level, edge.index)), hashes: edge.hashes.clone() }
        })
    }
}

/// The hashes of the first `count` leaves, from the tiles in `folder`; `None` where a tile is missing or too short.
pub(in crate::audit) fn leaves(folder: &Path, count: u64) -> io::Result<Option<Vec<Hash>>> {
    let mut leaves = Vec::new();
    for index in 0..count.div_ceil(WIDTH as u64) {
        let wanted = usize::try_from(count - index * WIDTH as u64).unwrap_or(WIDTH).min(WIDTH);
        let full = path(0, index);
        let mut found = writer::content(&folder.join(&full))?;
        if found.is_none() {
            let widest = writer::partial_tiles(&folder.join(format!("{full}.p")))?.into_iter().max();
            found = widest.map_or(Ok(None), |(_, path)| writer::content(&path))?;
        }
        let hashes = found.unwrap_or_default();
        let (hashes, _) = hashes.as_chunks::<HASH_BYTES>();
        let Some(hashes) = hashes.get(..wanted) else { return Ok(None) };
        leaves.extend_from_slice(hashes);
    }
    Ok(Some(leaves))
}

/// The number in groups of three digits, of which all but the last begin with an `x`.
fn path(level: usize, index: u64) -> String {
    let mut groups = format!("{:03}", index % 1_000);
    let mut rest = index / 1_000;
    while rest > 0 {
        groups = format!("x{:03}/{groups}", rest % 1_000);
        rest /= 1_000;
    }
    format!("tile/{level}/{groups}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::merkle::Tree;

    #[test]
    fn paths_are_those_of_tlog_tiles() {
        assert_eq!(path(0, 0), "tile/0/000");
        assert_eq!(path(3, 1_234_067), "tile/3/x001/x234/067");
    }

    #[test]
    fn tree_of_70000_leaves_has_tiles_of_three_levels() {
        let (mut tree, mut edge) = (Tree::default(), Edge::default());
        let mut full = Vec::new();
        for number in 0..70_000_u32 {
            tree.push(&number.to_be_bytes());
            full.extend(tree.take_completed().iter().filter_map(|(level, hash)| edge.add(*level, hash)));
        }
        assert_eq!(full.len(), 70_000 / 256 + 1);
        let partial: Vec<String> = edge.partial().map(|tile| tile.path).collect();
        assert_eq!(partial, ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
    }
}

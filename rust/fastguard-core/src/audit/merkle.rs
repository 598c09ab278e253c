//! The Merkle tree over the log's lines (RFC 6962 §2.1), of which only the right edge is kept.

use super::digest::{sha256, sha256_of, sha256_of_nothing};

const LEAF: u8 = 0x00;
const NODE: u8 = 0x01;
/// The height of a tile: each level of tiles holds the roots of 2^8 subtrees of the level below (C2SP tlog-tiles).
const TILE_HEIGHT: u32 = 8;

/// A hash of the tree.
pub(super) type Hash = [u8; 32];

/// The hash of a leaf.
pub(super) fn leaf(line: &[u8]) -> Hash {
    sha256(LEAF, &[line])
}

/// The hash of the leaf that stands after the first byte of `place`, which is lent for it.
fn leaf_in(place: &mut [u8]) -> Hash {
    let Some(first) = place.first_mut() else { return leaf(place) };
    let lent = std::mem::replace(first, LEAF);
    let hash = sha256_of(place);
    if let Some(first) = place.first_mut() {
        *first = lent;
    }
    hash
}

/// The hash of the node above two others.
pub(super) fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(NODE, &[left, right])
}

/// A tree that only grows: its size and the roots of its complete subtrees, the largest first. What it completed
/// for tiles waits in `completed`: level and hash.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    size: u64,
    roots: Vec<Hash>,
    completed: Vec<(usize, Hash)>,
}

impl Tree {
    /// How many leaves it has.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// The same tree, which collects what it completes in `buffer`.
    pub(super) fn completing(self, mut buffer: Vec<(usize, Hash)>) -> Self {
        buffer.clear();
        Self { completed: buffer, ..self }
    }

    /// Appends the leaf `line`.
    pub(super) fn push(&mut self, line: &[u8]) {
        self.push_hash(leaf(line));
    }

    /// Appends the leaf that stands after the first byte of `place`, which is lent for its hash.
    pub(super) fn push_leaf(&mut self, place: &mut [u8]) {
        self.push_hash(leaf_in(place));
    }

    /// Appends the leaf of which only the hash is left.
    pub(super) fn push_hash(&mut self, mut hash: Hash) {
        self.completed.push((0, hash));
        // Each one at the low end of the size is a complete subtree that the new leaf completes further.
        for height in 1..=self.size.trailing_ones() {
            let Some(left) = self.roots.pop() else { break };
            hash = node(&left, &hash);
            if height % TILE_HEIGHT == 0 {
                self.completed.push(((height / TILE_HEIGHT) as usize, hash));
            }
        }
        self.roots.push(hash);
        self.size += 1;
    }

    /// The hashes that tiles hold, of all leaves since the last time; those of one level in their order.
    pub(super) fn take_completed(&mut self) -> Vec<(usize, Hash)> {
        std::mem::take(&mut self.completed)
    }

    /// The root over all leaves.
    pub(super) fn root(&self) -> Hash {
        let mut roots = self.roots.iter().rev();
        let Some(last) = roots.next() else { return sha256_of_nothing() };
        roots.fold(*last, |right, left| node(left, &right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::line::in_hex;

    /// The definition of RFC 6962 §2.1, word by word: the reference for the incremental one.
    fn root_by_definition(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => sha256_of_nothing(),
            [leaf] => sha256(LEAF, &[leaf]),
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                let (left, right) = leaves.split_at(split);
                sha256(NODE, &[&root_by_definition(left), &root_by_definition(right)])
            }
        }
    }

    #[test]
    fn root_is_that_of_the_definition_at_every_size() {
        let mut tree = Tree::default();
        let mut leaves = Vec::new();
        for number in 0..70_u32 {
            assert_eq!(tree.root(), root_by_definition(&leaves));
            tree.push(&number.to_be_bytes());
            leaves.push(number.to_be_bytes().to_vec());
        }
        assert_eq!(tree.size(), 70);
    }

    #[test]
    fn leaf_in_its_place_hashes_as_one_apart_and_leaves_the_byte_before_it() {
        for line in [&b""[..], b"x", &[7; 2_000]] {
            let mut place = [b"\n", line].concat();
            assert_eq!(leaf_in(&mut place), leaf(line));
            assert_eq!(place, [b"\n", line].concat());
        }
    }

    #[test]
    fn root_of_the_empty_tree_is_the_hash_of_nothing() {
        let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

        assert_eq!(in_hex(&Tree::default().root()), expected);
    }
}

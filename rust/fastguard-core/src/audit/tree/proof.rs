//! Proofs over the tree (RFC 6962 §2.1.1 and §2.1.2; the checks as in RFC 9162 §2.1.3.2 and §2.1.4.2).

use crate::audit::merkle::{Hash, node};

/// The root over leaves.
fn root_of(leaves: &[Hash]) -> Hash {
    match leaves {
        [leaf] => *leaf,
        [] => crate::audit::digest::sha256_of_nothing(),
        _ => {
            let (left, right) = halves(leaves);
            node(&root_of(left), &root_of(right))
        }
    }
}

/// The largest power of two below the number of leaves, and the rest.
fn halves(leaves: &[Hash]) -> (&[Hash], &[Hash]) {
    leaves.split_at_checked(leaves.len().next_power_of_two() / 2).unwrap_or((leaves, &[]))
}

/// The path from leaf `index` to the root; empty where there is no such leaf.
pub(in crate::audit) fn inclusion(leaves: &[Hash], index: usize) -> Vec<Hash> {
    if leaves.len() < 2 || index >= leaves.len() {
        return Vec::new();
    }
    let (left, right) = halves(leaves);
    let (mut path, other) =
        if index < left.len() { (inclusion(left, index), right) } else { (inclusion(right, index - left.len()), left) };
    path.push(root_of(other));
    path
}

/// That the first `size` leaves are the start of all of them; empty for none and for all.
pub(in crate::audit) fn consistency(leaves: &[Hash], size: usize) -> Vec<Hash> {
    if size == 0 || size >= leaves.len() { Vec::new() } else { subproof(leaves, size, true) }
}

/// `SUBPROOF` of RFC 6962 §2.1.2; `is_known` where the first leaves are a subtree whose root the reader has.
fn subproof(leaves: &[Hash], size: usize, is_known: bool) -> Vec<Hash> {
    if size == leaves.len() {
        return if is_known { Vec::new() } else { vec![root_of(leaves)] };
    }
    let (left, right) = halves(leaves);
    let (mut path, other) = if size <= left.len() {
        (subproof(left, size, is_known), right)
    } else {
        (subproof(right, size - left.len(), false), left)
    };
    path.push(root_of(other));
    path
}

/// Whether `path` leads from the leaf to the root.
pub fn is_included(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            hash = node(sibling, &hash);
            while at % 2 == 0 && at != 0 {
                at /= 2;
                last /= 2;
            }
        } else {
            hash = node(&hash, sibling);
        }
        at /= 2;
        last /= 2;
    }
    last == 0 && hash == *root
}

/// Whether the tree of the first `sizes` is the start of that of the second.
pub fn is_consistent(sizes: (u64, u64), roots: (&Hash, &Hash), path: &[Hash]) -> bool {
    let (old, new) = sizes;
    if old == 0 || old > new {
        // Every tree begins with the empty one: no path shows anything of it.
        return false;
    }
    if old == new {
        return path.is_empty() && roots.0 == roots.1;
    }
    let mut path = path.iter();
    let first = if old.is_power_of_two() { Some(roots.0) } else { path.next() };
    let Some(first) = first else { return false };
    let shift = (old - 1).trailing_ones();
    let (mut at, mut last) = ((old - 1) >> shift, (new - 1) >> shift);
    let (mut earlier, mut later) = (*first, *first);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            earlier = node(sibling, &earlier);
            later = node(sibling, &later);
            while at % 2 == 0 && at != 0 {
                at /= 2;
                last /= 2;
            }
        } else {
            later = node(&later, sibling);
        }
        at /= 2;
        last /= 2;
    }
    last == 0 && earlier == *roots.0 && later == *roots.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::merkle::leaf;

    #[test]
    fn proofs_of_all_small_trees_hold_and_no_other_index_does() {
        let leaves: Vec<Hash> = (0..40_u8).map(|number| leaf(&[number])).collect();
        for size in 1..=leaves.len() {
            let tree = &leaves[..size];
            let root = root_of(tree);
            for index in 0..size {
                let path = inclusion(tree, index);
                assert!(is_included(&tree[index], index as u64, size as u64, &path, &root));
                assert!(!is_included(&tree[index], (index ^ 1) as u64, size as u64, &path, &root) || size == 1);
            }
            for old in 1..size {
                let path = consistency(tree, old);
                let before = root_of(&tree[..old]);
                assert!(is_consistent((old as u64, size as u64), (&before, &root), &path));
                assert!(!is_consistent((old as u64, size as u64), (&root, &before), &path));
            }
        }
    }
}

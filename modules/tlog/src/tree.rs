//! The Merkle tree of RFC 6962 section 2.1 over any number of leaves: which hashes a root or a
//! proof is made of, and whether a proof holds.
//!
//! A tree is never held in memory. What is computed is made of [`Node`]s, the hashes of complete
//! subtrees, which never change once they exist; the caller fetches them, from tiles or elsewhere.

use alloc::vec::Vec;
use contract::{
    id::{StatementId, sha256},
    merkle,
};
use core::ops::Range;

pub use contract::merkle::{Hash, leaf};

/// The most leaves of a tree. No proof about it has more than [`PROOF_MAX`] hashes.
pub const SIZE_MAX: u64 = 1 << 62;

/// The longest proof in hashes; witnesses take no longer one.
pub const PROOF_MAX: usize = 63;

/// A complete subtree: the leaves from `index << level`, `1 << level` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// Height above the leaves.
    pub level: u8,
    /// Position among the nodes of this level, from 0.
    pub index: u64,
}

/// The root over `size` leaves, from the complete subtrees that `hash_of` gives.
pub fn root<E>(size: u64, hash_of: impl FnMut(Node) -> Result<Hash, E>) -> Result<Hash, E> {
    range_hash(0..size, hash_of)
}

/// The hash of a range of leaves that is a subtree of some tree; of no leaves, that of nothing.
pub fn range_hash<E>(
    range: Range<u64>,
    mut hash_of: impl FnMut(Node) -> Result<Hash, E>,
) -> Result<Hash, E> {
    let mut hash = None;
    for node in nodes(range).into_iter().rev() {
        let left = hash_of(node)?;
        hash = Some(hash.map_or(left, |right| merkle::node(&left, &right)));
    }
    Ok(hash.unwrap_or_else(|| sha256(b"")))
}

/// The complete subtrees that a range is made of, from left to right, the largest first. The
/// range starts at a multiple of a power of two that is no smaller than its length, as each does
/// that this file gives out.
pub fn nodes(range: Range<u64>) -> Vec<Node> {
    let mut at = range.start;
    let mut nodes = Vec::new();
    while at < range.end {
        let level = u8::try_from((range.end - at).ilog2()).expect("a u64 has 64 bits");
        nodes.push(Node { level, index: at >> level });
        at += 1 << level;
    }
    nodes
}

/// The ranges whose hashes prove that leaf `index` is in the tree of `size` leaves, from the leaf's
/// sibling upwards (RFC 6962 section 2.1.1). `None` when there is no such leaf.
pub fn inclusion(index: u64, size: u64) -> Option<Vec<Range<u64>>> {
    if index >= size || size > SIZE_MAX {
        return None;
    }
    let (mut start, mut end) = (0, size);
    let mut siblings = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            siblings.push(middle..end);
            end = middle;
        } else {
            siblings.push(start..middle);
            start = middle;
        }
    }
    siblings.reverse();
    Some(siblings)
}

/// The ranges whose hashes prove that the tree of `old` leaves is the beginning of the tree of
/// `new` leaves (RFC 6962 section 2.1.2). `None` when it cannot be, because it is larger. The proof
/// from the empty tree, and from a tree to itself, is empty.
pub fn consistency(old: u64, new: u64) -> Option<Vec<Range<u64>>> {
    if old > new || new > SIZE_MAX {
        return None;
    }
    if old == 0 || old == new {
        return Some(Vec::new());
    }
    let (mut start, mut end) = (0, new);
    let mut parts = Vec::new();
    while old < end {
        let middle = start + split(end - start);
        if old <= middle {
            parts.push(middle..end);
            end = middle;
        } else {
            parts.push(start..middle);
            start = middle;
        }
    }
    // The verifier knows the old root: it need not be told when it is itself a subtree.
    if start > 0 {
        parts.push(start..end);
    }
    parts.reverse();
    Some(parts)
}

/// The hashes of a proof's ranges.
pub fn hashes<E>(
    ranges: Vec<Range<u64>>,
    mut hash_of: impl FnMut(Node) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    ranges.into_iter().map(|range| range_hash(range, &mut hash_of)).collect()
}

/// Whether `proof` shows that `leaf` stands at `index` in the tree of `size` leaves with this root.
pub fn includes(leaf: &Hash, index: u64, size: u64, root: &Hash, proof: &[Hash]) -> bool {
    let siblings = proof.iter().copied().map(StatementId).collect();
    size <= SIZE_MAX && merkle::proves(leaf, &merkle::Path { index, siblings }, size, root)
}

/// Whether `proof` shows that the tree `old` is the beginning of the tree `new`, each given by its
/// size and root (RFC 9162 section 2.1.4.2). Every tree begins with the empty one.
pub fn extends(old: (u64, &Hash), new: (u64, &Hash), proof: &[Hash]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size > new_size || new_size > SIZE_MAX {
        return false;
    }
    let empty = sha256(b"");
    if (old_size == 0 && *old_root != empty) || (new_size == 0 && *new_root != empty) {
        return false;
    }
    if old_size == 0 {
        return proof.is_empty();
    }
    if old_size == new_size {
        return proof.is_empty() && old_root == new_root;
    }
    // An old tree that is a complete subtree of the new one is where the proof begins.
    let (first, rest) = if old_size.is_power_of_two() {
        (old_root, proof)
    } else {
        match proof.split_first() {
            Some(parts) => parts,
            None => return false,
        }
    };
    let (mut at, mut last) = (old_size - 1, new_size - 1);
    let shift = at.trailing_ones();
    (at, last) = (at >> shift, last >> shift);
    let (mut old_hash, mut new_hash) = (*first, *first);
    for hash in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = merkle::node(hash, &old_hash);
            new_hash = merkle::node(hash, &new_hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            new_hash = merkle::node(&new_hash, hash);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

/// Largest power of two below `n`, for `n` of at least 2.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

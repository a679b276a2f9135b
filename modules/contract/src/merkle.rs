//! The Merkle tree of RFC 6962 section 2.1 over deployment documents.

use crate::id::sha256;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A hash of the tree.
pub type Hash = [u8; 32];

/// The way from one leaf to the root: siblings from the bottom up (RFC 6962 section 2.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Path {
    /// Position of the leaf, from 0.
    pub index: u64,
    /// Sibling hashes, as ids.
    pub siblings: Vec<crate::id::StatementId>,
}

/// Hash of a leaf.
pub fn leaf(document: &[u8]) -> Hash {
    let mut text = Vec::with_capacity(document.len() + 1);
    text.push(0);
    text.extend_from_slice(document);
    sha256(&text)
}

/// Hash of an inner node.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut text = [1; 65];
    text[1..33].copy_from_slice(left);
    text[33..].copy_from_slice(right);
    sha256(&text)
}

/// Root over leaves. The empty tree has the hash of nothing.
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(b""),
        [one] => *one,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node(&root(left), &root(right))
        }
    }
}

/// The path of leaf `index`; `None` when there is no such leaf.
pub fn path(leaves: &[Hash], index: usize) -> Option<Path> {
    fn siblings(leaves: &[Hash], index: usize, found: &mut Vec<Hash>) {
        if leaves.len() > 1 {
            let (left, right) = leaves.split_at(split(leaves.len()));
            if index < left.len() {
                siblings(left, index, found);
                found.push(root(right));
            } else {
                siblings(right, index - left.len(), found);
                found.push(root(left));
            }
        }
    }
    if index >= leaves.len() {
        return None;
    }
    let mut found = Vec::new();
    siblings(leaves, index, &mut found);
    let siblings = found.into_iter().map(crate::id::StatementId).collect();
    Some(Path { index: index as u64, siblings })
}

/// Whether `leaf` stands at `path` in the tree of `count` leaves with this root
/// (the algorithm of RFC 9162 section 2.1.3.2).
pub fn proves(leaf: &Hash, path: &Path, count: u64, wanted: &Hash) -> bool {
    if path.index >= count {
        return false;
    }
    let (mut at, mut last) = (path.index, count - 1);
    let mut hash = *leaf;
    for sibling in &path.siblings {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node(&sibling.0, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, &sibling.0);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *wanted
}

/// Largest power of two below `n`, for `n` of at least 2.
fn split(n: usize) -> usize {
    1 << (n - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_root_is_that_of_the_certificate_transparency_vectors() {
        // Known answers of the reference implementation for the first leaves of its test data.
        let leaves: Vec<_> = [&b""[..], b"\x00", b"\x10"].iter().map(|data| leaf(data)).collect();
        let check = |n: usize, wanted: &str| assert_eq!(hex::encode(root(&leaves[..n])), wanted);
        check(0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        check(1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        check(2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125");
        check(3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77");
    }

    proptest! {
        #[test]
        fn every_leaf_is_proven_at_its_place_only(count in 1_usize..70, pick in any::<prop::sample::Index>()) {
            let leaves: Vec<_> = (0..count).map(|n| leaf(&n.to_le_bytes())).collect();
            let index = pick.index(count);
            let (root, path) = (root(&leaves), path(&leaves, index).unwrap());
            let total = count as u64;
            prop_assert!(proves(&leaves[index], &path, total, &root));
            prop_assert!(!proves(&leaf(b"other"), &path, total, &root));
            for other in 0..count {
                let moved = Path { index: other as u64, ..path.clone() };
                prop_assert_eq!(proves(&leaves[index], &moved, total, &root), other == index);
            }
            let mut longer = path.clone();
            longer.siblings.push(crate::id::StatementId([0; 32]));
            prop_assert!(!proves(&leaves[index], &longer, total, &root));
        }
    }
}

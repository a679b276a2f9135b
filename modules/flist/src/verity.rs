//! Computes the fs-verity digest of bytes, as the kernel and `fsverity digest` do: SHA-256, 4 KiB
//! blocks, no salt.
//!
//! Owns the arithmetic only. A node never trusts it to admit an object: there the kernel measures.

use sha2::{Digest as _, Sha256};
use std::io::{self, Read, Write};

/// Leaves and nodes of the Merkle tree have this size.
const BLOCK: usize = 4096;

/// Computes a digest from bytes that arrive in pieces of any size.
#[derive(Debug, Clone, Default)]
pub struct Hasher {
    size: u64,
    /// The bytes of the block that is not full yet, or full with nothing behind it.
    leaf: Vec<u8>,
    /// Hashes of the blocks below that are not in a parent yet, from the leaves up.
    levels: Vec<Vec<u8>>,
}

impl Hasher {
    /// Starts with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `bytes`.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.leaf.len() == BLOCK {
                self.close_leaf();
            }
            let taken = bytes.len().min(BLOCK - self.leaf.len());
            let (head, tail) = bytes.split_at(taken);
            self.leaf.extend_from_slice(head);
            bytes = tail;
        }
    }

    /// The digest of everything appended.
    pub fn finish(mut self) -> [u8; 32] {
        let mut descriptor = [0; 256];
        descriptor[0] = 1; // version
        descriptor[1] = 1; // SHA-256
        descriptor[2] = 12; // log2 of the block size
        descriptor[8..16].copy_from_slice(&self.size.to_le_bytes());
        if self.size > 0 {
            self.close_leaf();
            descriptor[16..48].copy_from_slice(&self.root());
        }
        Sha256::digest(descriptor).into()
    }

    fn close_leaf(&mut self) {
        let hash = block_hash(&mut self.leaf);
        self.push(0, hash);
    }

    /// A full node moves up only when more follows, so that the last one may be the root.
    fn push(&mut self, level: usize, hash: [u8; 32]) {
        if level == self.levels.len() {
            self.levels.push(Vec::with_capacity(BLOCK));
        }
        if self.levels[level].len() == BLOCK {
            let parent = block_hash(&mut self.levels[level]);
            self.push(level + 1, parent);
        }
        self.levels[level].extend_from_slice(&hash);
    }

    fn root(&mut self) -> [u8; 32] {
        let mut level = 0;
        loop {
            let top = level + 1 == self.levels.len();
            if top && let Ok(only) = self.levels[level].as_slice().try_into() {
                return only;
            }
            let hash = block_hash(&mut self.levels[level]);
            if top {
                return hash;
            }
            self.push(level + 1, hash);
            level += 1;
        }
    }
}

/// So that a writer can be measured while it writes.
impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes a block filled up with zeros, and empties it.
fn block_hash(block: &mut Vec<u8>) -> [u8; 32] {
    block.resize(BLOCK, 0);
    let hash = Sha256::digest(&block).into();
    block.clear();
    hash
}

/// The digest of `bytes`.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// The digest of everything that `reader` gives.
pub fn digest_reader(reader: &mut dyn Read) -> io::Result<[u8; 32]> {
    let mut hasher = Hasher::new();
    io::copy(reader, &mut hasher)?;
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_file_has_the_digest_that_the_kernel_documents() {
        assert_eq!(
            hex::encode(digest(b"")),
            "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"
        );
    }

    #[test]
    fn the_size_of_the_pieces_does_not_matter() {
        let bytes: Vec<u8> =
            (0..1_000_000_u32).map(|n| n.to_le_bytes()[0] ^ (n >> 9).to_le_bytes()[0]).collect();
        let whole = digest(&bytes);
        for piece in [1, 7, 4095, 4096, 4097, 600_000] {
            let mut hasher = Hasher::new();
            bytes.chunks(piece).for_each(|part| hasher.update(part));
            assert_eq!(hasher.finish(), whole, "pieces of {piece}");
        }
    }
}

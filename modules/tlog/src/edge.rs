//! The right edge of a growing log: what is needed to add leaves, to write the tiles, and to say
//! the root, without any other part of the tree.

use crate::{
    tile::{Tile, WIDTH_MAX},
    tree::{self, Hash, SIZE_MAX},
};
use alloc::vec::Vec;
use contract::{id::sha256, merkle};

/// The partial tile at the right end of each level, from the leaves upwards.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edge {
    size: u64,
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of a tree of `size` leaves, from its partial tiles.
    pub fn resume<E>(
        size: u64,
        mut hashes_of: impl FnMut(Tile) -> Result<Vec<Hash>, E>,
    ) -> Result<Self, E> {
        let mut levels = Vec::new();
        let mut hashes = size;
        while hashes > 0 {
            let level = u8::try_from(levels.len()).expect("64 bits are eight levels");
            let partial = Tile::at(level, hashes / u64::from(WIDTH_MAX), size);
            levels.push(partial.map(&mut hashes_of).transpose()?.unwrap_or_default());
            hashes /= u64::from(WIDTH_MAX);
        }
        Ok(Self { size, levels })
    }

    /// Leaves in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf. Gives each tile that it filled to `full`, from the leaves upwards.
    pub fn push(&mut self, leaf: Hash, mut full: impl FnMut(Tile, &[Hash])) {
        assert!(self.size < SIZE_MAX, "no log lives for so long");
        self.size += 1;
        let mut hash = leaf;
        for level in 0_u8.. {
            if usize::from(level) == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let hashes = &mut self.levels[usize::from(level)];
            hashes.push(hash);
            if hashes.len() < usize::from(WIDTH_MAX) {
                return;
            }
            let index = full_tiles(self.size, level) - 1;
            full(Tile { level, index, width: WIDTH_MAX }, hashes);
            hash = merkle::root(hashes);
            hashes.clear();
        }
    }

    /// The partial tiles, which a log serves for each tree that it signs.
    pub fn partial(&self) -> impl Iterator<Item = (Tile, &[Hash])> {
        (0_u8..).zip(&self.levels).filter(|(_, hashes)| !hashes.is_empty()).map(
            |(level, hashes)| {
                let width = u16::try_from(hashes.len()).expect("a full tile leaves the edge");
                (Tile { level, index: full_tiles(self.size, level), width }, hashes.as_slice())
            },
        )
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut root = None;
        for hashes in &self.levels {
            for node in tree::nodes(0..hashes.len() as u64).into_iter().rev() {
                let start = usize::try_from(node.index << node.level).expect("within a tile");
                let left = merkle::root(&hashes[start..start + (1 << node.level)]);
                root = Some(root.map_or(left, |right| merkle::node(&left, &right)));
            }
        }
        root.unwrap_or_else(|| sha256(b""))
    }
}

fn full_tiles(size: u64, level: u8) -> u64 {
    size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0)
}

//! What a log serves: tiles of hashes and bundles of entries, and the paths that name them
//! (c2sp.org/tlog-tiles).

use crate::{
    text::decimal,
    tree::{self, Hash, Node, SIZE_MAX},
};
use alloc::{
    format,
    string::{String, ToString as _},
    vec::Vec,
};
use contract::merkle;
use core::{fmt, str::FromStr};

/// Hashes of a full tile, entries of a full bundle.
pub const WIDTH_MAX: u16 = 256;
/// Levels of the tree that one tile spans.
const HEIGHT: u8 = 8;
/// The highest level at which a tile of a tree of [`SIZE_MAX`] leaves can be.
const LEVEL_MAX: u8 = 7;
/// A tile of a log has an index below this one.
const INDEX_END: u64 = SIZE_MAX / WIDTH_MAX as u64 + 1;
/// The largest entry: its length is 16 bits wide.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// A tile of hashes. One that is not full is at the right end of its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tile {
    /// Tiles above the leaves: each hash of a tile of level 1 is that of a full tile of level 0.
    pub level: u8,
    /// Position in its level, from 0.
    pub index: u64,
    /// Hashes in it, from 1 to [`WIDTH_MAX`].
    pub width: u16,
}

/// A bundle of entries, whose hashes are in the tile of level 0 with the same index and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bundle {
    /// Position among the bundles, from 0.
    pub index: u64,
    /// Entries in it, from 1 to [`WIDTH_MAX`].
    pub width: u16,
}

/// Something that a log serves for ever under one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Hashes.
    Tile(Tile),
    /// Entries.
    Bundle(Bundle),
}

/// A path that names no resource of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path names no tile: tile/LEVEL/INDEX or tile/entries/INDEX, and .p/WIDTH if partial")]
pub struct NotATile;

/// Bytes that are not the content of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not {wanted}")]
pub struct BadContent {
    wanted: String,
}

impl Tile {
    /// The tile that holds the hash of `node`, or the hashes that it is made of, in a tree of
    /// `size` leaves. `None` when the tree has no such complete subtree.
    pub fn of(node: Node, size: u64) -> Option<Self> {
        let complete = size.checked_shr(node.level.into())?;
        if node.index >= complete || size > SIZE_MAX {
            return None;
        }
        let level = node.level / HEIGHT;
        let index = node.index >> (HEIGHT - node.level % HEIGHT);
        Self::at(level, index, size)
    }

    /// The tile at this place in a tree of `size` leaves, as wide as it is there.
    pub fn at(level: u8, index: u64, size: u64) -> Option<Self> {
        let hashes = size.checked_shr(u32::from(level) * u32::from(HEIGHT))?;
        let rest = hashes.checked_sub(index.checked_mul(WIDTH_MAX.into())?)?;
        let width = u16::try_from(rest).unwrap_or(WIDTH_MAX).min(WIDTH_MAX);
        (width > 0).then_some(Self { level, index, width })
    }

    /// Reads the hashes of the tile's content.
    pub fn read(self, content: &[u8]) -> Result<Vec<Hash>, BadContent> {
        let (hashes, rest) = content.as_chunks::<32>();
        if rest.is_empty() && hashes.len() == usize::from(self.width) {
            Ok(hashes.to_vec())
        } else {
            Err(BadContent { wanted: format!("the {} hashes of {self}", self.width) })
        }
    }

    /// The hash of a node that [`Tile::of`] has found in this tile, from the tile's hashes.
    /// `None` when it is not here.
    pub fn hash(self, hashes: &[Hash], node: Node) -> Option<Hash> {
        let height = node.level % HEIGHT;
        let (level, index) = (node.level / HEIGHT, node.index >> (HEIGHT - height));
        let is_here = (level, index) == (self.level, self.index);
        let start = (node.index % u64::from(WIDTH_MAX >> height)) << height;
        let start = usize::try_from(start).ok()?;
        let part = hashes.get(start..start + (1 << height)).filter(|_| is_here)?;
        Some(merkle::root(part))
    }

    /// The bundle with the entries of this tile of level 0.
    pub fn bundle(self) -> Option<Bundle> {
        (self.level == 0).then_some(Bundle { index: self.index, width: self.width })
    }
}

/// The content of a tile.
pub fn content(hashes: &[Hash]) -> Vec<u8> {
    hashes.concat()
}

/// Every tile of the tree of `new` leaves that is not one of the tree of `old` leaves: what a log
/// has to publish before it signs the new tree.
pub fn new_tiles(old: u64, new: u64) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for level in 0..=LEVEL_MAX {
        let hashes = |size: u64| size >> (u32::from(level) * u32::from(HEIGHT));
        let (before, after) = (hashes(old), hashes(new));
        if before < after {
            let first = before / u64::from(WIDTH_MAX);
            let last = (after - 1) / u64::from(WIDTH_MAX);
            tiles.extend((first..=last).filter_map(|index| Tile::at(level, index, new)));
        }
    }
    tiles
}

impl Bundle {
    /// Reads the entries of the bundle's content.
    pub fn read(self, content: &[u8]) -> Result<Vec<&[u8]>, BadContent> {
        let bad = || BadContent { wanted: format!("the {} entries of {self}", self.width) };
        let mut entries = Vec::with_capacity(self.width.into());
        let mut rest = content;
        for _ in 0..self.width {
            let (length, after) = rest.split_first_chunk::<2>().ok_or_else(bad)?;
            let length = u16::from_be_bytes(*length);
            let (entry, after) = after.split_at_checked(length.into()).ok_or_else(bad)?;
            entries.push(entry);
            rest = after;
        }
        if rest.is_empty() { Ok(entries) } else { Err(bad()) }
    }

    /// Adds an entry to a bundle's content. `None`, and nothing added, when it is too large.
    pub fn push(content: &mut Vec<u8>, entry: &[u8]) -> Option<()> {
        let length = u16::try_from(entry.len()).ok()?;
        content.extend_from_slice(&length.to_be_bytes());
        content.extend_from_slice(entry);
        Some(())
    }

    /// The tile that has to hash these entries.
    pub fn tile(self) -> Tile {
        Tile { level: 0, index: self.index, width: self.width }
    }

    /// The leaf hashes of the entries in the bundle's content.
    pub fn hashes(self, content: &[u8]) -> Result<Vec<Hash>, BadContent> {
        Ok(self.read(content)?.into_iter().map(tree::leaf).collect())
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/", self.level)?;
        place(f, self.index, self.width)
    }
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tile/entries/")?;
        place(f, self.index, self.width)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tile(tile) => tile.fmt(f),
            Self::Bundle(bundle) => bundle.fmt(f),
        }
    }
}

/// An index in groups of three digits, an `x` before each but the last; then the width, if partial.
fn place(f: &mut fmt::Formatter<'_>, index: u64, width: u16) -> fmt::Result {
    let mut divisor = 1;
    while index / divisor >= 1000 {
        divisor *= 1000;
    }
    while divisor > 1 {
        write!(f, "x{:03}/", index / divisor % 1000)?;
        divisor /= 1000;
    }
    write!(f, "{:03}", index % 1000)?;
    if width == WIDTH_MAX { Ok(()) } else { write!(f, ".p/{width}") }
}

impl FromStr for Resource {
    type Err = NotATile;
    fn from_str(path: &str) -> Result<Self, NotATile> {
        let resource = parse(path).ok_or(NotATile)?;
        // Only the form that is written: no groups of zeros in front.
        if resource.to_string() == path { Ok(resource) } else { Err(NotATile) }
    }
}

fn parse(path: &str) -> Option<Resource> {
    let (level, place) = path.strip_prefix("tile/")?.split_once('/')?;
    let (place, width) = match place.split_once(".p/") {
        Some((place, width)) => (place, u16::try_from(decimal(width)?).ok()?),
        None => (place, WIDTH_MAX),
    };
    let mut index: u64 = 0;
    for group in place.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        if digits.len() != 3 || !digits.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    if index >= INDEX_END || !(1..=WIDTH_MAX).contains(&width) {
        return None;
    }
    if level == "entries" {
        return Some(Resource::Bundle(Bundle { index, width }));
    }
    let level = u8::try_from(decimal(level)?).ok().filter(|level| *level <= LEVEL_MAX)?;
    Some(Resource::Tile(Tile { level, index, width }))
}

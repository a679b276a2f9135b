//! Writes the metadata image of an flist: an EROFS file system with names, owners and attributes,
//! whose larger files are holes that overlayfs fills from the object store.
//!
//! The node makes the image itself from a checked body and never mounts one that somebody sent.
//! Same body, same bytes: the image's fs-verity digest follows from the flist's identity. For the
//! on-disk format see Documentation/filesystems/erofs.rst and `fs/erofs/erofs_fs.h` of Linux.
//!
//! ```text
//! 0          1024         1152                     block boundary
//! | zeros    | superblock | inodes, each with its  | blocks of large directories
//! |          |            | attributes and tail    | and of long symlinks
//! ```

mod layout;
mod record;

use crate::{body::Body, verity};
use layout::{Layout, Shape};
use std::io::{self, Write};

const BLOCK: u64 = 4096;
const SUPERBLOCK_OFFSET: u64 = 1024;
/// The root comes first: its number has only 16 bits in the superblock.
const INODES_OFFSET: u64 = SUPERBLOCK_OFFSET + 128;
/// Inode numbers count these.
const SLOT: u64 = 32;
const INODE_BYTES: u64 = 64;

/// Writes the image of a checked body to `out`.
///
/// # Errors
/// Those of `out`.
pub fn write(body: &Body, out: &mut dyn Write) -> io::Result<()> {
    let layout = Layout::of(body);
    let mut out = Positioned { out, position: 0 };
    out.pad_to(SUPERBLOCK_OFFSET)?;
    out.put(&record::superblock(&layout))?;
    for (index, inode) in layout.inodes() {
        out.pad_to(inode.offset)?;
        out.put(&record::inode(body, &layout, index, inode))?;
    }
    out.pad_to(layout.data_offset)?;
    for (index, inode) in layout.inodes() {
        if let Shape::Blocks { .. } = inode.shape {
            out.put(&record::payload(body, &layout, index))?;
            out.pad_to(out.position.next_multiple_of(BLOCK))?;
        }
    }
    Ok(())
}

/// How large the image of this body is.
pub fn size(body: &Body) -> u64 {
    Layout::of(body).blocks.saturating_mul(BLOCK)
}

/// The fs-verity digest that the image of this body has.
pub fn digest(body: &Body) -> [u8; 32] {
    let mut hasher = verity::Hasher::new();
    write(body, &mut hasher).expect("a hasher takes every byte");
    hasher.finish()
}

struct Positioned<'a> {
    out: &'a mut dyn Write,
    position: u64,
}

impl Positioned<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.position += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad_to(&mut self, position: u64) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.position < position {
            let count = (position - self.position).min(BLOCK);
            let count = usize::try_from(count).expect("a block fits in memory");
            self.put(&ZEROS[..count])?;
        }
        Ok(())
    }
}

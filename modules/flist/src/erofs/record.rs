//! Writes the records of the image: superblock, inodes, attributes, directories. Pure.

use super::{
    BLOCK, INODES_OFFSET, SLOT,
    layout::{Inode, Layout, Shape},
};
use crate::{
    body::{Body, Data, Meta, Node},
    store_path,
};

const MAGIC: u32 = 0xE0F5_E1E2;
const BLOCK_BITS: u8 = 12;
/// Files may be made of chunks, so also of holes.
const FEATURE_CHUNKED_FILE: u32 = 0x4;

const FORMAT_EXTENDED: u16 = 1;
const FORMAT_PLAIN: u16 = 0 << 1;
const FORMAT_TAIL: u16 = 2 << 1;
const FORMAT_CHUNKS: u16 = 4 << 1;
/// Block number of a hole.
const NO_BLOCK: u32 = u32::MAX;

const DIRENT_BYTES: usize = 12;
const TYPE_FILE: u8 = 1;
const TYPE_DIRECTORY: u8 = 2;
const TYPE_SYMLINK: u8 = 7;

const XATTR_HEADER_BYTES: usize = 12;
const PREFIX_USER: u8 = 1;
const PREFIX_TRUSTED: u8 = 4;
const PREFIX_SECURITY: u8 = 6;

/// struct `erofs_super_block`.
pub(super) fn superblock(layout: &Layout) -> Vec<u8> {
    let mut record = Vec::with_capacity(128);
    record.extend(MAGIC.to_le_bytes());
    record.extend([0; 4]); // checksum: fs-verity covers it
    record.extend([0; 4]); // compatible features
    record.extend([BLOCK_BITS, 0]);
    record.extend(low16(INODES_OFFSET / SLOT).to_le_bytes()); // the root
    record.extend((layout.inodes().count() as u64).to_le_bytes());
    record.extend([0; 12]); // build time
    record.extend(low32(layout.blocks).to_le_bytes());
    record.extend([0; 4]); // inodes are counted from block 0
    record.extend([0; 4]); // no shared attributes
    record.extend([0; 32]); // UUID and volume name
    record.extend(FEATURE_CHUNKED_FILE.to_le_bytes());
    record.resize(128, 0);
    record
}

/// struct `erofs_inode_extended` with its attributes, and its tail or chunk map.
pub(super) fn inode(body: &Body, layout: &Layout, index: usize, inode: &Inode) -> Vec<u8> {
    let (file_type, meta) = match &body.entries[index].node {
        Node::Directory(meta) => (0o040_000, meta),
        Node::File(meta, _) => (0o100_000, meta),
        Node::Symlink(meta, _) => (0o120_000, meta),
        Node::Link(_) => unreachable!("a further name has no inode"),
    };
    let (format, place) = match inode.shape {
        Shape::Blocks { first } => (FORMAT_PLAIN, low32(first)),
        Shape::Tail => (FORMAT_TAIL, NO_BLOCK),
        Shape::Hole => (FORMAT_CHUNKS, chunk_bits(inode.size)),
    };
    let xattr_count = match inode.xattr_bytes {
        0 => 0,
        bytes => low16((bytes - XATTR_HEADER_BYTES as u64) / 4 + 1),
    };
    let mut record = Vec::new();
    record.extend((FORMAT_EXTENDED | format).to_le_bytes());
    record.extend(xattr_count.to_le_bytes());
    record.extend((file_type | meta.mode).to_le_bytes());
    record.extend([0; 2]);
    record.extend(inode.size.to_le_bytes());
    record.extend(place.to_le_bytes());
    record.extend(low32(index as u64 + 1).to_le_bytes());
    record.extend(meta.uid.to_le_bytes());
    record.extend(meta.gid.to_le_bytes());
    record.extend(meta.mtime.to_le_bytes());
    record.extend([0; 4]); // nanoseconds
    record.extend(inode.links.to_le_bytes());
    record.extend([0; 16]);
    record.extend(xattrs(body, index));
    match inode.shape {
        Shape::Blocks { .. } => {}
        Shape::Tail => record.extend(payload(body, layout, index)),
        Shape::Hole => record.extend(NO_BLOCK.to_le_bytes()),
    }
    record
}

/// The whole file as one chunk: log2 of its size, rounded up, counted from a block.
fn chunk_bits(size: u64) -> u32 {
    let bits = size.max(BLOCK).next_power_of_two().trailing_zeros();
    bits - u32::from(BLOCK_BITS)
}

/// The bytes of a directory, a symlink or a small file.
pub(super) fn payload(body: &Body, layout: &Layout, index: usize) -> Vec<u8> {
    match &body.entries[index].node {
        Node::Directory(_) => directory(body, layout, index),
        Node::Symlink(_, target) => target.clone(),
        Node::File(_, Data::Inline(bytes)) => bytes.clone(),
        Node::File(_, Data::Content(_)) | Node::Link(_) => Vec::new(),
    }
}

/// The names of a directory with both dots, sorted: `-x` comes before `.`.
fn names<'a>(body: &'a Body, children: &'a [u32]) -> Vec<(&'a [u8], Option<usize>)> {
    let child = |index: &'a u32| {
        let index = *index as usize;
        let path = &body.entries[index].path;
        let start = path.iter().rposition(|c| *c == b'/').map_or(0, |slash| slash + 1);
        (&path[start..], Some(index))
    };
    let mut names: Vec<_> = children.iter().map(child).collect();
    for dots in [&b"."[..], b".."] {
        let place = names.partition_point(|(name, _)| *name < dots);
        names.insert(place, (dots, None));
    }
    names
}

/// Cuts names into blocks: each name needs its record and itself.
fn blocks<'n, 'a>(names: &'n [(&'a [u8], Option<usize>)]) -> Vec<&'n [(&'a [u8], Option<usize>)]> {
    let mut blocks = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (position, (name, _)) in names.iter().enumerate() {
        let need = DIRENT_BYTES + name.len();
        if (used + need) as u64 > BLOCK {
            blocks.push(&names[start..position]);
            (start, used) = (position, 0);
        }
        used += need;
    }
    blocks.push(&names[start..]);
    blocks
}

/// Size of a directory: whole blocks, and the last as long as it is.
pub(super) fn directory_size(body: &Body, children: &[u32]) -> u64 {
    let names = names(body, children);
    let blocks = blocks(&names);
    let last = blocks
        .last()
        .map_or(0, |block| block.iter().map(|(name, _)| (DIRENT_BYTES + name.len()) as u64).sum());
    (blocks.len() as u64 - 1) * BLOCK + last
}

fn directory(body: &Body, layout: &Layout, index: usize) -> Vec<u8> {
    let names = names(body, layout.children(index));
    let mut bytes: Vec<u8> = Vec::new();
    for block in blocks(&names) {
        bytes.resize(bytes.len().next_multiple_of(usize::try_from(BLOCK).expect("small")), 0);
        let mut name_offset = DIRENT_BYTES * block.len();
        for (name, child) in block {
            let target = match (child, *name) {
                (Some(child), _) => *child,
                (None, b".") => index,
                (None, _) => layout.parent(index),
            };
            bytes.extend(layout.number(body, target).to_le_bytes());
            bytes.extend(low16(name_offset as u64).to_le_bytes());
            bytes.extend([file_type(body, target), 0]);
            name_offset += name.len();
        }
        for (name, _) in block {
            bytes.extend(*name);
        }
    }
    bytes
}

fn file_type(body: &Body, index: usize) -> u8 {
    match body.entries[index].node {
        Node::Directory(_) => TYPE_DIRECTORY,
        Node::File(..) | Node::Link(_) => TYPE_FILE,
        Node::Symlink(..) => TYPE_SYMLINK,
    }
}

/// Bytes of the attributes of an entry.
pub(super) fn xattr_bytes(body: &Body, index: usize) -> u64 {
    xattrs(body, index).len() as u64
}

/// struct `erofs_xattr_ibody_header` and its entries; nothing when there are none.
fn xattrs(body: &Body, index: usize) -> Vec<u8> {
    let (meta, object): (&Meta, Option<[u8; 32]>) = match &body.entries[index].node {
        Node::Directory(meta) | Node::Symlink(meta, _) | Node::File(meta, Data::Inline(_)) => {
            (meta, None)
        }
        Node::File(meta, Data::Content(content)) => {
            (meta, Some(body.contents[*content as usize].digest))
        }
        Node::Link(_) => return Vec::new(),
    };
    if meta.xattrs.is_empty() && object.is_none() {
        return Vec::new();
    }
    let mut record = vec![0; XATTR_HEADER_BYTES];
    for xattr in &meta.xattrs {
        if let Some(name) = xattr.name.strip_prefix(b"user.") {
            put_xattr(&mut record, PREFIX_USER, name, &xattr.value);
        } else if let Some(name) = xattr.name.strip_prefix(b"security.") {
            put_xattr(&mut record, PREFIX_SECURITY, name, &xattr.value);
        }
    }
    if let Some(digest) = object {
        // struct ovl_metacopy: version, length, flags, algorithm (1 is SHA-256), digest.
        let mut metacopy = vec![0, 36, 0, 1];
        metacopy.extend(digest);
        put_xattr(&mut record, PREFIX_TRUSTED, b"overlay.metacopy", &metacopy);
        let redirect = format!("/{}", store_path::object(&digest));
        put_xattr(&mut record, PREFIX_TRUSTED, b"overlay.redirect", redirect.as_bytes());
    }
    record
}

fn put_xattr(record: &mut Vec<u8>, prefix: u8, name: &[u8], value: &[u8]) {
    let length = u8::try_from(name.len()).expect("names have at most 255 bytes, by check");
    record.extend([length, prefix]);
    record.extend(low16(value.len() as u64).to_le_bytes());
    record.extend(name);
    record.extend(value);
    record.resize(record.len().next_multiple_of(4), 0);
}

fn low16(number: u64) -> u16 {
    u16::try_from(number).expect("bounded by the limits of a body")
}

fn low32(number: u64) -> u32 {
    u32::try_from(number).expect("bounded by the limits of a body")
}

//! Decides where each inode and each block of the image goes. Pure.

use super::{BLOCK, INODE_BYTES, INODES_OFFSET, SLOT, record};
use crate::body::{Body, Data, Node};

/// Longer tails get a block of their own, or they would leave large gaps between inodes.
const TAIL_MAX: u64 = 2048;

/// Where everything is.
pub(super) struct Layout {
    /// By index of the body's entries; `None` for further names of a file.
    places: Vec<Option<Inode>>,
    /// By index of the body's entries: what a directory contains, sorted by name.
    children: Vec<Vec<u32>>,
    /// By index of the body's entries: the directory that contains it.
    parents: Vec<u32>,
    /// First byte behind the inodes.
    pub(super) data_offset: u64,
    /// Size of the image in blocks.
    pub(super) blocks: u64,
}

/// One inode.
pub(super) struct Inode {
    /// First byte in the image.
    pub(super) offset: u64,
    /// Bytes of its attributes, behind it.
    pub(super) xattr_bytes: u64,
    /// Size as `stat` shows it.
    pub(super) size: u64,
    /// Where its bytes are.
    pub(super) shape: Shape,
    /// Number of names.
    pub(super) links: u32,
}

/// Where the bytes of an inode are.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// Whole blocks, from this one on; nothing at all when the size is 0.
    Blocks { first: u64 },
    /// Behind the inode and its attributes.
    Tail,
    /// Nowhere: a hole that the overlay covers.
    Hole,
}

impl Layout {
    pub(super) fn of(body: &Body) -> Self {
        let (children, parents) = tree(body);
        let links = links(body, &children);
        let mut places = Vec::with_capacity(body.entries.len());
        let mut offset = INODES_OFFSET;
        for (index, entry) in body.entries.iter().enumerate() {
            let xattr_bytes = record::xattr_bytes(body, index);
            let (size, wanted) = match &entry.node {
                Node::Link(_) => {
                    places.push(None);
                    continue;
                }
                Node::Directory(_) => {
                    let size = record::directory_size(body, &children[index]);
                    (size, Shape::Tail)
                }
                Node::Symlink(_, target) => (target.len() as u64, Shape::Tail),
                Node::File(_, Data::Inline(bytes)) => (bytes.len() as u64, Shape::Tail),
                Node::File(_, Data::Content(content)) => {
                    (body.contents[*content as usize].size, Shape::Hole)
                }
            };
            let shape = match wanted {
                // Only the end of a directory could be a tail; whole blocks are simpler.
                Shape::Tail if size == 0 || size > TAIL_MAX => Shape::Blocks { first: 0 },
                Shape::Tail | Shape::Hole | Shape::Blocks { .. } => wanted,
            };
            let behind = match shape {
                Shape::Tail => size,
                Shape::Hole => 4,
                Shape::Blocks { .. } => 0,
            };
            offset = place(offset, xattr_bytes, behind);
            places.push(Some(Inode { offset, xattr_bytes, size, shape, links: links[index] }));
            offset += INODE_BYTES + xattr_bytes + behind;
        }
        let data_offset = offset.next_multiple_of(BLOCK);
        let mut next = data_offset / BLOCK;
        for inode in places.iter_mut().flatten() {
            if let Shape::Blocks { first } = &mut inode.shape {
                *first = next;
                next += inode.size.div_ceil(BLOCK);
            }
        }
        Self { places, children, parents, data_offset, blocks: next }
    }

    /// In the order of the image.
    pub(super) fn inodes(&self) -> impl Iterator<Item = (usize, &Inode)> {
        let placed = self.places.iter().enumerate();
        placed.filter_map(|(index, place)| place.as_ref().map(|inode| (index, inode)))
    }

    pub(super) fn children(&self, index: usize) -> &[u32] {
        &self.children[index]
    }

    pub(super) fn parent(&self, index: usize) -> usize {
        self.parents[index] as usize
    }

    /// Number of the inode that the entry names.
    pub(super) fn number(&self, body: &Body, index: usize) -> u64 {
        let index = match body.entries[index].node {
            Node::Link(target) => target as usize,
            Node::Directory(_) | Node::File(..) | Node::Symlink(..) => index,
        };
        let inode = self.places[index].as_ref().expect("a link leads to a file, by check");
        inode.offset / SLOT
    }
}

/// The next slot at which neither the inode nor what is behind its attributes crosses a block.
///
/// One of the 128 slots of the next block always fits: a tail is at most half a block.
fn place(offset: u64, xattr_bytes: u64, behind: u64) -> u64 {
    let mut offset = offset.next_multiple_of(SLOT);
    loop {
        let inode_end = offset % BLOCK + INODE_BYTES;
        let tail_end = (offset + INODE_BYTES + xattr_bytes) % BLOCK + behind;
        if inode_end <= BLOCK && tail_end <= BLOCK {
            return offset;
        }
        offset += SLOT;
    }
}

fn tree(body: &Body) -> (Vec<Vec<u32>>, Vec<u32>) {
    let mut children = vec![Vec::new(); body.entries.len()];
    let mut parents = vec![0; body.entries.len()];
    for (index, entry) in body.entries.iter().enumerate().skip(1) {
        let end = entry.path.iter().rposition(|c| *c == b'/').unwrap_or(0);
        let parent = body
            .entries
            .binary_search_by(|other| other.path.as_slice().cmp(&entry.path[..end]))
            .expect("every parent is there, by check");
        children[parent].push(short(index));
        parents[index] = short(parent);
    }
    (children, parents)
}

fn links(body: &Body, children: &[Vec<u32>]) -> Vec<u32> {
    let mut links = vec![1; body.entries.len()];
    for (index, entry) in body.entries.iter().enumerate() {
        match entry.node {
            Node::Link(target) => links[target as usize] += 1,
            Node::Directory(_) => {
                let is_directory = |child: &&u32| {
                    matches!(body.entries[**child as usize].node, Node::Directory(_))
                };
                links[index] = 2 + short(children[index].iter().filter(is_directory).count());
            }
            Node::File(..) | Node::Symlink(..) => {}
        }
    }
    links
}

fn short(index: usize) -> u32 {
    u32::try_from(index).expect("a body has at most a million entries, by check")
}

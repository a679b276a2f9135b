//! Makes trees of the two earlier Zero-OS formats. Their databases name blocks; the blocks come from a
//! place that the caller names, and each must have the hashes that the database gives for it.
//!
//! Neither format has a hash over all of it: what is proven is that the files are those of this
//! database. How the content is started they do not say in a form that is read here.

use super::{
    CreateError, Options, Special,
    blocks::{Block, Blocks, Format},
    image_files::ImageFiles,
    rfs,
    spool::Spool,
    sqlite::Database,
    tree::{Tree, TreeFile, TreeNode, split},
    zflist,
};
use crate::{
    Progress, Source, Stage,
    body::{ENTRIES_MAX, Meta},
    check::{check_path, shown},
};
use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path, rc::Rc};

/// The database in a `.flist`.
pub(super) const DATABASE: &str = "flistdb.sqlite3";
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

/// A tree whose files are still blocks.
pub(super) struct Draft {
    format: Format,
    special: Special,
    nodes: BTreeMap<Vec<u8>, DraftNode>,
}

/// What a path stands for.
pub(super) enum DraftNode {
    Directory(Meta),
    Symlink(Meta, Vec<u8>),
    /// Size and blocks, in order.
    File(Meta, u64, Vec<Block>),
    /// A device node, fifo or socket.
    Special,
}

/// Reads the flist, which is recognised by its first bytes, and all of its blocks.
pub(super) fn read(
    path: &Path,
    blocks: &Source,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Tree, CreateError> {
    let mut file = File::open(path).map_err(CreateError::io("opening", path))?;
    let mut start = Vec::new();
    let read = (&mut file).take(SQLITE_MAGIC.len() as u64).read_to_end(&mut start);
    read.map_err(CreateError::io("reading", path))?;
    let draft = if start == SQLITE_MAGIC {
        let database = Database::open(&mut start.chain(file), &options.scratch, &rfs::TABLES)?;
        rfs::read(&database, options.special)?
    } else {
        let archive = super::read_archive(path, options)?;
        let mut bytes = ImageFiles::Archive(&archive).reader(DATABASE)?;
        let database = Database::open(&mut bytes, &options.scratch, &zflist::TABLES)?;
        zflist::read(&database, options.special, options.owner.is_some())?
    };
    draft.fill(blocks, options, progress)
}

impl Draft {
    pub(super) fn new(format: Format, special: Special) -> Self {
        Self { format, special, nodes: BTreeMap::new() }
    }

    /// Adds a name below a directory that was added before; the first is the root.
    pub(super) fn put(&mut self, path: Vec<u8>, node: DraftNode) -> Result<(), CreateError> {
        let wrong = |problem: &str| Err(CreateError::input(shown(&path), problem));
        if path.is_empty() {
            if !matches!(node, DraftNode::Directory(_)) || !self.nodes.is_empty() {
                return wrong("is no directory");
            }
        } else {
            check_path(&path)?;
            if !matches!(self.nodes.get(split(&path).0), Some(DraftNode::Directory(_))) {
                return wrong("is in no directory");
            }
        }
        if self.nodes.contains_key(&path) {
            return wrong("comes twice");
        }
        if self.nodes.len() == ENTRIES_MAX {
            return Err(CreateError::input("the flist", "has more than a million names"));
        }
        match (&node, self.special) {
            (DraftNode::Special, Special::Refuse) => {
                return wrong("is a device node, fifo or socket");
            }
            (DraftNode::Special, Special::Omit) => return Ok(()),
            (DraftNode::File(_, _, blocks), _)
                if !blocks.iter().all(|block| self.format.accepts(block)) =>
            {
                return wrong("has a block with a name or a key of another length");
            }
            (DraftNode::File(_, size, blocks), _) if blocks.len() as u64 > *size => {
                return wrong("has more blocks than bytes");
            }
            (DraftNode::Directory(_) | DraftNode::Symlink(..) | DraftNode::File(..), _) => {}
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Replaces what a directory says of itself.
    pub(super) fn set_directory(&mut self, path: &[u8], meta: Meta) {
        if let Some(DraftNode::Directory(known)) = self.nodes.get_mut(path) {
            *known = meta;
        }
    }

    /// Fetches all blocks.
    fn fill(
        self,
        source: &Source,
        options: &Options,
        progress: &dyn Progress,
    ) -> Result<Tree, CreateError> {
        let sizes = self.nodes.values().map(|node| match node {
            DraftNode::File(_, size, _) => *size,
            DraftNode::Directory(_) | DraftNode::Symlink(..) | DraftNode::Special => 0,
        });
        progress.begin(Stage::Fetching, sizes.fold(0, u64::saturating_add));
        let blocks = Blocks::new(source, self.format);
        let mut spool = Spool::new(options)?;
        let mut tree = Tree::default();
        for (path, node) in self.nodes {
            let node = match node {
                DraftNode::Directory(meta) => TreeNode::Directory(meta),
                DraftNode::Symlink(meta, target) => TreeNode::Symlink(meta, target),
                DraftNode::File(meta, size, list) => {
                    let start = spool.position();
                    let mut left = size;
                    for block in &list {
                        let plain = blocks.get(block, &shown(&path))?;
                        left = left.checked_sub(plain.len() as u64).ok_or_else(|| {
                            CreateError::input(shown(&path), "has more bytes than it says")
                        })?;
                        spool.keep(&mut plain.as_slice(), plain.len() as u64)?;
                        progress.advance(plain.len() as u64);
                    }
                    if left > 0 {
                        return Err(CreateError::input(
                            shown(&path),
                            "has fewer bytes than it says",
                        ));
                    }
                    TreeNode::File(Rc::new(TreeFile { meta, bytes: spool.since(start) }))
                }
                DraftNode::Special => continue,
            };
            tree.nodes.insert(path, node);
        }
        Ok(tree)
    }
}

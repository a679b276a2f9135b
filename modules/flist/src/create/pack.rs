//! Turns a tree into a body and packs. Same tree, same bytes.

use super::{
    Built, CreateError, Options,
    tree::{Tree, TreeFile, TreeNode},
};
use crate::{
    Flist, Progress, Stage,
    body::{Body, CHUNK, Chunk, Content, Data, Entry, FORMAT, INLINE_MAX, MAGIC, Meta, Node, Pack},
    check::shown,
    verity,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::PathBuf,
    rc::Rc,
};

/// Decompression is as fast at any level; the publisher has time.
const ZSTD_LEVEL: i32 = 9;
/// Packs are cut where the content says so, between these sizes: then a small change of the tree
/// changes few packs, and mirrors keep the others.
const PACK_CUT_MIN: usize = 2 << 20;
const PACK_CUT_MAX: usize = 16 << 20;
/// One chunk in this many ends a pack.
const PACK_CUT_ONE_IN: u8 = 32;

pub(super) fn pack(
    mut tree: Tree,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Built, CreateError> {
    tree.complete(options)?;
    let packs = tempfile::tempdir_in(&options.scratch)
        .map_err(CreateError::io("making a temporary directory in", &options.scratch))?;
    let mut packer = Packer::new(packs.path().to_owned())?;
    progress.begin(Stage::Packing, total(&tree));

    let mut entries: Vec<Entry> = Vec::with_capacity(tree.nodes.len());
    let mut known: BTreeMap<*const TreeFile, u32> = BTreeMap::new();
    let mut digests: Vec<(usize, [u8; 32])> = Vec::new();
    for (path, node) in &tree.nodes {
        let settled = |meta: &Meta| settle(meta, options);
        let node = match node {
            TreeNode::Directory(meta) => Node::Directory(settled(meta)),
            TreeNode::Symlink(meta, target) => Node::Symlink(settled(meta), target.clone()),
            TreeNode::File(file) => {
                if let Some(first) = known.get(&Rc::as_ptr(file)) {
                    Node::Link(*first)
                } else {
                    known.insert(Rc::as_ptr(file), number(entries.len()));
                    let data = packer.add(path, file, progress)?;
                    if let Packed::Content(digest) = data {
                        digests.push((entries.len(), digest));
                    }
                    Node::File(settled(&file.meta), data.into_data())
                }
            }
        };
        entries.push(Entry { path: path.clone(), node });
    }
    let (packs_sorted, contents) = packer.finish()?;
    for (entry, digest) in digests {
        let content = contents.binary_search_by(|content| content.digest.cmp(&digest));
        let content = number(content.expect("every digest was added"));
        if let Node::File(_, data) = &mut entries[entry].node {
            *data = Data::Content(content);
        }
    }
    let body = Body {
        magic: MAGIC,
        format: FORMAT,
        run: tree.run,
        packs: packs_sorted,
        contents,
        entries,
    };
    Ok(Built { flist: Flist::from_body(body)?, packs })
}

fn total(tree: &Tree) -> u64 {
    let files = tree.nodes.values().map(|node| match node {
        TreeNode::File(file) => file.bytes.size(),
        TreeNode::Directory(_) | TreeNode::Symlink(..) => 0,
    });
    files.fold(0, u64::saturating_add)
}

fn settle(meta: &Meta, options: &Options) -> Meta {
    let (uid, gid) = options.owner.unwrap_or((meta.uid, meta.gid));
    Meta { uid, gid, mtime: meta.mtime.min(options.mtime_max), ..meta.clone() }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("a tree has at most a million names")
}

/// Where the bytes of a file went.
enum Packed {
    Inline(Vec<u8>),
    /// Its number is known when all are.
    Content([u8; 32]),
}

impl Packed {
    fn into_data(self) -> Data {
        match self {
            Self::Inline(bytes) => Data::Inline(bytes),
            Self::Content(_) => Data::Content(0),
        }
    }
}

struct Packer {
    directory: PathBuf,
    compressor: zstd::bulk::Compressor<'static>,
    /// The pack that is being filled.
    open: Vec<u8>,
    /// In the order of their making.
    packs: Vec<Pack>,
    /// By id, so that no chunk is stored twice.
    chunks: BTreeMap<[u8; 32], Chunk>,
    /// By digest.
    contents: BTreeMap<[u8; 32], Content>,
}

impl Packer {
    fn new(directory: PathBuf) -> Result<Self, CreateError> {
        let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)
            .map_err(CreateError::io("preparing zstd for", &directory))?;
        let (packs, chunks, contents) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { directory, compressor, open: Vec::new(), packs, chunks, contents })
    }

    fn add(
        &mut self,
        path: &[u8],
        file: &TreeFile,
        progress: &dyn Progress,
    ) -> Result<Packed, CreateError> {
        let size = file.bytes.size();
        let failed = |source| CreateError::Io {
            doing: "reading contents of",
            path: PathBuf::from(shown(path)),
            source,
        };
        let changed = || CreateError::input(shown(path), "changed while it was read");
        let mut reader = file.bytes.open().map_err(failed)?;
        let mut hasher = verity::Hasher::new();
        let (mut chunks, mut done) = (Vec::new(), 0_u64);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            reader.by_ref().take(CHUNK).read_to_end(&mut bytes).map_err(failed)?;
            done += bytes.len() as u64;
            if done > size {
                return Err(changed());
            }
            if size <= INLINE_MAX as u64 && done == size {
                return Ok(Packed::Inline(bytes));
            }
            if bytes.is_empty() {
                break;
            }
            hasher.update(&bytes);
            chunks.push(self.chunk(&bytes)?);
            progress.advance(bytes.len() as u64);
        }
        if done < size {
            return Err(changed());
        }
        let digest = hasher.finish();
        self.contents.entry(digest).or_insert(Content { digest, size, chunks });
        Ok(Packed::Content(digest))
    }

    fn chunk(&mut self, plain: &[u8]) -> Result<Chunk, CreateError> {
        let id = *blake3::hash(plain).as_bytes();
        if let Some(chunk) = self.chunks.get(&id) {
            return Ok(*chunk);
        }
        let packed = self
            .compressor
            .compress(plain)
            .map_err(CreateError::io("compressing for", &self.directory))?;
        let chunk = Chunk {
            id,
            pack: number(self.packs.len()),
            offset: self.open.len() as u64,
            packed: u32::try_from(packed.len()).expect("zstd adds little to a chunk"),
        };
        self.open.extend(packed);
        self.chunks.insert(id, chunk);
        let may_end = self.open.len() >= PACK_CUT_MIN && id[0] < u8::MAX / PACK_CUT_ONE_IN;
        if may_end || self.open.len() >= PACK_CUT_MAX {
            self.close()?;
        }
        Ok(chunk)
    }

    fn close(&mut self) -> Result<(), CreateError> {
        let bytes = std::mem::take(&mut self.open);
        let id = *blake3::hash(&bytes).as_bytes();
        let path = self.directory.join(hex::encode(id));
        fs::write(&path, &bytes).map_err(CreateError::io("writing pack", &path))?;
        self.packs.push(Pack { id, size: bytes.len() as u64 });
        Ok(())
    }

    /// Sorted lists, with the chunks leading to the sorted packs.
    fn finish(mut self) -> Result<(Vec<Pack>, Vec<Content>), CreateError> {
        if !self.open.is_empty() {
            self.close()?;
        }
        let mut packs = self.packs.clone();
        packs.sort_by_key(|pack| pack.id);
        packs.dedup();
        let places: Vec<u32> = self
            .packs
            .iter()
            .map(|pack| packs.partition_point(|other| other.id < pack.id))
            .map(number)
            .collect();
        let mut contents: Vec<Content> = self.contents.into_values().collect();
        for chunk in contents.iter_mut().flat_map(|content| &mut content.chunks) {
            chunk.pack = places[chunk.pack as usize];
        }
        Ok((packs, contents))
    }
}

/// So that the packs can be published.
impl Built {
    pub(super) fn pack(&self, id: &[u8; 32]) -> io::Result<fs::File> {
        fs::File::open(self.packs.path().join(hex::encode(id)))
    }
}

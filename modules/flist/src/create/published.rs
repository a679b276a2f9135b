//! Publishes flists into a directory, and reads published ones: summary, check, unpack.

use super::{Built, CreateError};
use crate::{
    Cancel, FetchError, Flist, FlistId, Progress, Reason, Refusal, Source, Stage,
    body::{Content, Data, Meta, Node, Run},
    check::shown,
    fetch, store_path, verity,
};
use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
};

/// Packs held in memory while contents are read: a content rarely spans more.
const PACKS_HELD: usize = 3;

/// What an flist contains, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its identity.
    pub identity: FlistId,
    /// How it is started.
    pub run: Run,
    /// Directories, with the root.
    pub directories: u64,
    /// Regular files, without further names.
    pub files: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Further names of files.
    pub links: u64,
    /// Different contents.
    pub contents: u64,
    /// Their bytes: what a node without any of them needs.
    pub content_bytes: u64,
    /// Bytes of the packs: what is fetched at most.
    pub packed_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes of the body.
    pub body_bytes: u64,
}

impl Summary {
    fn of(flist: &Flist) -> Self {
        let body = flist.body();
        let count = |kind: fn(&Node) -> bool| {
            body.entries.iter().filter(|entry| kind(&entry.node)).count() as u64
        };
        Self {
            identity: flist.identity(),
            run: body.run.clone(),
            directories: count(|node| matches!(node, Node::Directory(_))),
            files: count(|node| matches!(node, Node::File(..))),
            symlinks: count(|node| matches!(node, Node::Symlink(..))),
            links: count(|node| matches!(node, Node::Link(_))),
            contents: body.contents.len() as u64,
            content_bytes: body.content_bytes(),
            packed_bytes: body.packs.iter().map(|pack| pack.size).sum(),
            packs: body.packs.len() as u64,
            body_bytes: flist.encode().len() as u64,
        }
    }
}

/// Checks the bytes of a body and says what it contains.
pub fn inspect(bytes: &[u8]) -> Result<Summary, Refusal> {
    Flist::decode(bytes).map(|flist| Summary::of(&flist))
}

/// Names below a published directory that belong to an flist; the body comes last.
pub fn published_files(flist: &Flist) -> Vec<String> {
    let packs = flist.body().packs.iter().map(|pack| store_path::published_pack(&pack.id));
    packs.chain([store_path::published_body(flist.identity())]).collect()
}

/// Writes an flist into the directory `out`, beside others. The body comes last, so whoever sees it
/// finds everything. Publishing again changes nothing.
pub fn publish(built: &Built, out: &Path) -> Result<(), CreateError> {
    for directory in ["packs", "flists"] {
        let directory = out.join(directory);
        fs::create_dir_all(&directory).map_err(CreateError::io("making directory", &directory))?;
    }
    for pack in &built.flist.body().packs {
        let path = out.join(store_path::published_pack(&pack.id));
        if fs::metadata(&path).is_ok_and(|found| found.len() == pack.size) {
            continue;
        }
        let copied = built.pack(&pack.id).and_then(|mut pack| write_new(&path, &mut pack));
        copied.map_err(CreateError::io("writing", &path))?;
    }
    let path = out.join(store_path::published_body(built.flist.identity()));
    write_new(&path, &mut built.flist.encode().as_slice())
        .map_err(CreateError::io("writing", &path))
}

fn write_new(path: &Path, bytes: &mut dyn io::Read) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    io::copy(bytes, &mut file)?;
    // Temporary files are private; a web server has to read this one.
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Reads everything that was published for an flist: each pack, chunk and content must have its
/// hash. `source` is usually a directory, and may be the web server that serves it.
pub fn verify_published(
    source: &Source,
    identity: FlistId,
    progress: &dyn Progress,
) -> Result<Summary, CreateError> {
    let mut reader = Reader::new(source, identity)?;
    progress.begin(Stage::Reading, reader.flist.body().content_bytes());
    for (content, path) in reader.contents() {
        reader.read(&content, &path, &mut io::sink(), progress)?;
    }
    Ok(Summary::of(&reader.flist))
}

/// Writes the files of a published flist into `to`, which must not exist.
///
/// Checks every hash on the way. Sets modes and times; owners and attributes only as root.
pub fn unpack(
    source: &Source,
    identity: FlistId,
    to: &Path,
    progress: &dyn Progress,
) -> Result<Summary, CreateError> {
    let mut reader = Reader::new(source, identity)?;
    let flist = reader.flist.clone();
    let body = flist.body();
    progress.begin(Stage::Reading, body.content_bytes());
    let place = |path: &[u8]| to.join(OsStr::from_bytes(path));
    for entry in &body.entries {
        let real = place(&entry.path);
        let failed = || CreateError::io("making", &real);
        match &entry.node {
            Node::Directory(_) => fs::create_dir(&real).map_err(failed())?,
            Node::Symlink(_, target) => {
                std::os::unix::fs::symlink(OsStr::from_bytes(target), &real).map_err(failed())?;
            }
            Node::Link(first) => {
                let first = place(&body.entries[*first as usize].path);
                fs::hard_link(first, &real).map_err(failed())?;
            }
            Node::File(_, Data::Inline(bytes)) => fs::write(&real, bytes).map_err(failed())?,
            Node::File(_, Data::Content(content)) => {
                let mut file = File::create_new(&real).map_err(failed())?;
                let content = &body.contents[*content as usize];
                reader.read(content, &entry.path, &mut file, progress)?;
            }
        }
    }
    // Children first: a directory may end up read-only.
    for entry in body.entries.iter().rev() {
        let real = place(&entry.path);
        let set = match &entry.node {
            Node::Directory(meta) | Node::File(meta, _) => set_meta(&real, meta),
            Node::Symlink(meta, _) => set_owner(&real, meta).and_then(|()| set_time(&real, meta)),
            Node::Link(_) => Ok(()),
        };
        set.map_err(CreateError::io("setting the owner, mode and time of", &real))?;
    }
    Ok(Summary::of(&flist))
}

fn set_meta(path: &Path, meta: &Meta) -> io::Result<()> {
    let file = File::open(path)?;
    set_owner(path, meta)?;
    if rustix::process::geteuid().is_root() {
        for xattr in &meta.xattrs {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::fsetxattr(&file, &xattr.name[..], &xattr.value, flags)?;
        }
    }
    // After the owner: chown clears setuid.
    file.set_permissions(Permissions::from_mode(u32::from(meta.mode)))?;
    set_time(path, meta)
}

/// Of a symlink itself, which has no descriptor to set it by.
fn set_time(path: &Path, meta: &Meta) -> io::Result<()> {
    let seconds = i64::try_from(meta.mtime).map_err(io::Error::other)?;
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags)?)
}

fn set_owner(path: &Path, meta: &Meta) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(path, Some(meta.uid), Some(meta.gid))?;
    }
    Ok(())
}

/// Reads contents pack by pack.
struct Reader<'a> {
    source: &'a Source,
    flist: Flist,
    /// The packs used last.
    packs: VecDeque<(u32, Vec<u8>)>,
}

impl<'a> Reader<'a> {
    fn new(source: &'a Source, identity: FlistId) -> Result<Self, CreateError> {
        let flist = fetch::body(source, identity, &Cancel::default()).map_err(published)?;
        Ok(Self { source, flist, packs: VecDeque::new() })
    }

    /// In the order of paths, which is the order of packing.
    fn contents(&self) -> Vec<(Content, Vec<u8>)> {
        let body = self.flist.body();
        let mut contents: Vec<_> = body
            .contents
            .iter()
            .zip(body.paths_of_contents())
            .map(|(content, path)| (content.clone(), path.to_vec()))
            .collect();
        contents.sort_by(|a, b| a.1.cmp(&b.1));
        contents
    }

    fn read(
        &mut self,
        content: &Content,
        path: &[u8],
        out: &mut dyn io::Write,
        progress: &dyn Progress,
    ) -> Result<(), CreateError> {
        let wrong = |source: Option<io::Error>| FetchError {
            reason: Reason::ContentMismatch,
            file: shown(path),
            url: hex::encode(content.digest),
            source: source.map(Into::into),
        };
        let mut hasher = verity::Hasher::new();
        for (number, chunk) in content.chunks.iter().enumerate() {
            let pack = self.pack(chunk.pack, path)?;
            let start = usize::try_from(chunk.offset).expect("packs fit in memory");
            let packed = &pack[start..start + chunk.packed as usize];
            let plain = fetch::unpack_chunk(chunk, content.chunk_size(number), packed)
                .map_err(|error| published(wrong(Some(error))))?;
            hasher.write_all(&plain).expect("a hasher takes every byte");
            out.write_all(&plain).map_err(CreateError::io("writing", shown(path).as_ref()))?;
            progress.advance(plain.len() as u64);
        }
        if hasher.finish() == content.digest { Ok(()) } else { Err(published(wrong(None))) }
    }

    fn pack(&mut self, number: u32, path: &[u8]) -> Result<&[u8], CreateError> {
        if let Some(held) = self.packs.iter().position(|(held, _)| *held == number) {
            return Ok(&self.packs[held].1);
        }
        let pack = self.flist.body().packs[number as usize];
        let bytes = fetch::pack(self.source, &pack, &shown(path), &Cancel::default());
        if self.packs.len() == PACKS_HELD {
            self.packs.pop_front();
        }
        self.packs.push_back((number, bytes.map_err(published)?));
        Ok(self.packs.back().map_or(&[], |(_, bytes)| bytes))
    }
}

fn published(source: FetchError) -> CreateError {
    CreateError::Published { file: source.file.clone(), source }
}

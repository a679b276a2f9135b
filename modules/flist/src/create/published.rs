//! Publishes flists into a directory, and says what published ones contain and whether they are whole.

use super::{Built, CreateError, reader::Reader};
use crate::{
    Flist, FlistId, Progress, Refusal, Source, Stage,
    body::{Node, Run},
    store_path,
};
use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::SystemTime,
};

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
    pub(super) fn of(flist: &Flist) -> Self {
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

/// The hash by which a pack is named.
pub fn pack_id(pack: &[u8]) -> [u8; 32] {
    *blake3::hash(pack).as_bytes()
}

/// Names below a published directory that belong to an flist; the body comes last.
pub fn published_files(flist: &Flist) -> Vec<String> {
    let packs = flist.body().packs.iter().map(|pack| store_path::published_pack(&pack.id));
    packs.chain([store_path::published_body(flist.identity())]).collect()
}

/// Writes an flist into the directory `out`, beside others. The body comes last, so whoever sees it
/// finds everything. Publishing again changes no byte, and gives what is there a new age.
pub fn publish(built: &Built, out: &Path) -> Result<(), CreateError> {
    fs::create_dir_all(out).map_err(CreateError::io("making directory", out))?;
    let _publishing = publishing(out).map_err(CreateError::io("locking", out))?;
    for directory in ["packs", "flists"] {
        let directory = out.join(directory);
        fs::create_dir_all(&directory).map_err(CreateError::io("making directory", &directory))?;
    }
    publish_packs(built, out)?;
    let path = out.join(store_path::published_body(built.flist.identity()));
    write_new(&path, &mut built.flist.encode().as_slice())
        .map_err(CreateError::io("writing", &path))?;
    // Who clears up may have looked at a pack before it got its new age, and removed it since.
    publish_packs(built, out)
}

/// Packs that are there get a new age, by which whoever clears up sees that they are needed.
fn publish_packs(built: &Built, out: &Path) -> Result<(), CreateError> {
    for pack in &built.flist.body().packs {
        let path = out.join(store_path::published_pack(&pack.id));
        let is_there = fs::metadata(&path).is_ok_and(|found| found.len() == pack.size);
        if is_there && renew(&path).is_ok() {
            continue;
        }
        let copied = built.pack(&pack.id).and_then(|mut pack| write_new(&path, &mut pack));
        copied.map_err(CreateError::io("writing", &path))?;
    }
    Ok(())
}

/// Fails for what belongs to somebody else: then it is written anew.
fn renew(path: &Path) -> io::Result<()> {
    fs::File::options().write(true).open(path)?.set_modified(SystemTime::now())
}

/// Waits while somebody on this machine clears up the directory, and lets nobody do so while it is held.
pub fn publishing(out: &Path) -> io::Result<fs::File> {
    let place = fs::File::open(out)?;
    place.lock_shared()?;
    Ok(place)
}

/// Writes a file that everybody may read. Its name comes last: nobody fetches half of it.
pub fn write_new(path: &Path, bytes: &mut dyn io::Read) -> io::Result<()> {
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

//! Unpacks a published flist into a directory of the host.
//!
//! Every name is resolved below that directory by the kernel (`openat2`), and never through a
//! symlink: whatever an flist says, and whoever changes the directory meanwhile, nothing outside is
//! written. Contents are compared with their hashes while they are written.

use super::{CreateError, Summary, reader::Reader, tree::split};
use crate::{
    FlistId, Progress, Source, Stage,
    body::{Data, Meta, Node},
    check::shown,
};
use rustix::fs::{
    self as sys, AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// Writes the files of a published flist into `to`: a new directory, or an empty one.
///
/// Sets modes and times; owners and attributes only as root. A file whose bytes are not what the
/// flist says is removed again and ends the call; what was written before stays.
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
    let mut target = Target::new(to)?;
    for entry in &body.entries {
        let path = &entry.path;
        match &entry.node {
            Node::Directory(_) if path.is_empty() => {}
            Node::Directory(_) => {
                target.make(path, |parent, name| Ok(sys::mkdirat(parent, name, Mode::RWXU)?))?;
            }
            Node::Symlink(meta, text) => target.make(path, |parent, name| {
                sys::symlinkat(OsStr::from_bytes(text), parent, name)?;
                set_symlink(parent, name, meta)
            })?,
            Node::Link(first) => {
                let first = &body.entries[*first as usize].path;
                let (from, known) = target.parent(first)?;
                let from = from.try_clone().map_err(CreateError::io("linking", to))?;
                target.make(path, |parent, name| {
                    Ok(sys::linkat(&from, known, parent, name, AtFlags::empty())?)
                })?;
            }
            Node::File(meta, data) => {
                let mut file = target.make(path, create)?;
                let written = match data {
                    Data::Inline(bytes) => file
                        .write_all(bytes)
                        .map_err(CreateError::io("writing", shown(path).as_ref())),
                    Data::Content(content) => {
                        let content = &body.contents[*content as usize];
                        reader.read(content, path, &mut file, progress)
                    }
                };
                if let Err(error) = written {
                    target.make(path, |parent, name| {
                        Ok(sys::unlinkat(parent, name, AtFlags::empty())?)
                    })?;
                    return Err(error);
                }
                target.make(path, |_, _| set(&file, meta))?;
            }
        }
    }
    // Children first: a directory may end up read-only.
    for entry in body.entries.iter().rev() {
        if let Node::Directory(meta) = &entry.node {
            let directory = target.directory(&entry.path)?;
            set(&directory, meta).map_err(CreateError::io(
                "setting the owner, mode and time of",
                shown(&entry.path).as_ref(),
            ))?;
        }
    }
    Ok(Summary::of(&flist))
}

/// A directory that is being filled, and the directory in it that was used last.
struct Target {
    root: OwnedFd,
    last: (Vec<u8>, OwnedFd),
}

impl Target {
    fn new(path: &Path) -> Result<Self, CreateError> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(CreateError::io("making directory", path))?,
        }
        let mut names = fs::read_dir(path).map_err(CreateError::io("listing", path))?;
        if names.next().is_some() {
            return Err(CreateError::input(path.display().to_string(), "is not empty"));
        }
        let failed = || CreateError::io("opening", path);
        let root = File::open(path).map_err(failed())?;
        let last = (Vec::new(), root.try_clone().map_err(failed())?.into());
        Ok(Self { root: root.into(), last })
    }

    /// Opens a directory that was made before.
    fn directory(&self, path: &[u8]) -> Result<OwnedFd, CreateError> {
        let name: &[u8] = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        sys::openat2(&self.root, OsStr::from_bytes(name), flags, Mode::empty(), inside)
            .map_err(|errno| CreateError::io("opening", shown(path).as_ref())(errno.into()))
    }

    /// The directory of a path, and the name in it.
    fn parent<'a>(&mut self, path: &'a [u8]) -> Result<(&OwnedFd, &'a OsStr), CreateError> {
        let (parent, name) = split(path);
        if self.last.0 != parent {
            self.last = (parent.to_vec(), self.directory(parent)?);
        }
        Ok((&self.last.1, OsStr::from_bytes(name)))
    }

    /// Does something with the directory of a path and the name in it.
    fn make<T>(
        &mut self,
        path: &[u8],
        act: impl FnOnce(&OwnedFd, &OsStr) -> io::Result<T>,
    ) -> Result<T, CreateError> {
        let (parent, name) = self.parent(path)?;
        act(parent, name).map_err(CreateError::io("writing", shown(path).as_ref()))
    }
}

fn create(parent: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(sys::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

fn set(file: impl AsFd, meta: &Meta) -> io::Result<()> {
    if let Some((uid, gid)) = owner(meta) {
        sys::fchown(&file, Some(uid), Some(gid))?;
        for xattr in &meta.xattrs {
            sys::fsetxattr(&file, &xattr.name[..], &xattr.value, sys::XattrFlags::empty())?;
        }
    }
    // After the owner: chown clears setuid.
    sys::fchmod(&file, Mode::from_raw_mode(u32::from(meta.mode)))?;
    Ok(sys::futimens(&file, &times(meta)?)?)
}

/// A symlink has no descriptor to set it by.
fn set_symlink(parent: &OwnedFd, name: &OsStr, meta: &Meta) -> io::Result<()> {
    let itself = AtFlags::SYMLINK_NOFOLLOW;
    if let Some((uid, gid)) = owner(meta) {
        sys::chownat(parent, name, Some(uid), Some(gid), itself)?;
    }
    Ok(sys::utimensat(parent, name, &times(meta)?, itself)?)
}

/// `None` when we may not give files away.
fn owner(meta: &Meta) -> Option<(Uid, Gid)> {
    let root = rustix::process::geteuid().is_root();
    root.then(|| (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid)))
}

fn times(meta: &Meta) -> io::Result<Timestamps> {
    let seconds = i64::try_from(meta.mtime).map_err(io::Error::other)?;
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Ok(Timestamps { last_access: time, last_modification: time })
}

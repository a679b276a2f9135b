//! Reads a directory of the host. Symlinks are kept, never followed.

use super::{
    CreateError, Options, Special,
    spool::Source,
    tree::{Tree, TreeFile, TreeNode},
};
use crate::{
    body::{ENTRIES_MAX, Meta, Xattr},
    check::xattr_allowed,
};
use rustix::io::Errno;
use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    rc::Rc,
};

/// Reads the names; the bytes of files are read when they are packed.
pub(super) fn read(root: &Path, options: &Options) -> Result<Tree, CreateError> {
    let mut tree = Tree::default();
    let mut known: BTreeMap<(u64, u64), Rc<TreeFile>> = BTreeMap::new();
    let mut pending: Vec<(Vec<u8>, PathBuf)> = vec![(Vec::new(), root.to_owned())];
    while let Some((path, real)) = pending.pop() {
        // A root that is a symlink is what the caller means.
        let found = if path.is_empty() { fs::metadata(&real) } else { fs::symlink_metadata(&real) };
        let found = found.map_err(CreateError::io("looking at", &real))?;
        let mut meta = meta(&real, &found)?;
        let kind = found.file_type();
        let node = if kind.is_dir() {
            for item in fs::read_dir(&real).map_err(CreateError::io("listing", &real))? {
                let name = item.map_err(CreateError::io("listing", &real))?.file_name();
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                pending.push(([&path, slash, name.as_bytes()].concat(), real.join(&name)));
            }
            TreeNode::Directory(meta)
        } else if kind.is_symlink() {
            let target = fs::read_link(&real).map_err(CreateError::io("reading", &real))?;
            meta.mode = 0o777;
            TreeNode::Symlink(meta, target.into_os_string().into_vec())
        } else if kind.is_file() {
            let bytes = Source::Path(real.clone(), found.len());
            let file = Rc::new(TreeFile { meta, bytes });
            let names = known.entry((found.dev(), found.ino()));
            TreeNode::File(Rc::clone(names.or_insert(file)))
        } else if options.special == Special::Omit {
            continue;
        } else {
            let problem = "is a device node, fifo or socket";
            return Err(CreateError::input(real.display().to_string(), problem));
        };
        tree.nodes.insert(path, node);
        if tree.nodes.len() > ENTRIES_MAX {
            return Err(CreateError::input("the directory", "has more than a million names"));
        }
    }
    match tree.nodes.get(&[][..]) {
        Some(TreeNode::Directory(_)) => Ok(tree),
        _ => Err(CreateError::input(root.display().to_string(), "is no directory")),
    }
}

fn meta(path: &Path, found: &Metadata) -> Result<Meta, CreateError> {
    Ok(Meta {
        mode: u16::try_from(found.mode() & 0o7777).expect("twelve bits"),
        uid: found.uid(),
        gid: found.gid(),
        mtime: u64::try_from(found.mtime()).unwrap_or(0),
        xattrs: xattrs(path)?,
    })
}

/// The attributes that an flist can say; others belong to the host.
fn xattrs(path: &Path) -> Result<Vec<Xattr>, CreateError> {
    let failed = |errno: Errno| CreateError::io("reading attributes of", path)(errno.into());
    // The kernel's limits for a list of names and for a value.
    let mut buffer = vec![0; 64 << 10];
    let size = match rustix::fs::llistxattr(path, &mut buffer[..]) {
        Ok(size) => size,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(failed(errno)),
    };
    let names: Vec<Vec<u8>> = buffer[..size].split(|c| *c == 0).map(<[u8]>::to_vec).collect();
    let mut xattrs = Vec::new();
    for name in names.into_iter().filter(|name| xattr_allowed(name)) {
        let size = rustix::fs::lgetxattr(path, &name[..], &mut buffer[..]).map_err(failed)?;
        xattrs.push(Xattr { name, value: buffer[..size].to_vec() });
    }
    xattrs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(xattrs)
}

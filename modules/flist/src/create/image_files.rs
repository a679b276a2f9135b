//! The files of an image: in a directory of the host, or in an archive that was read.
//!
//! Names are words of the image. One that could lead out of it is refused; symlinks of an archive
//! are followed inside it, a few times.

use super::{
    CreateError,
    tree::{Tree, TreeFile, TreeNode, normal},
};
use serde::de::DeserializeOwned;
use std::{fs::File, io::Read, path::Path};

/// Indexes, manifests and configurations.
const JSON_MAX: u64 = 4 << 20;
/// Archives of docker lead from one layer to the same layer elsewhere.
const SYMLINKS_MAX: u32 = 4;

#[derive(Clone, Copy)]
pub(super) enum ImageFiles<'a> {
    Directory(&'a Path),
    Archive(&'a Tree),
}

impl<'a> ImageFiles<'a> {
    pub(super) fn has(self, name: &str) -> bool {
        match self {
            Self::Directory(directory) => directory.join(name).is_file(),
            Self::Archive(tree) => find(tree, name).is_ok(),
        }
    }

    pub(super) fn reader(self, name: &str) -> Result<Box<dyn Read + 'a>, CreateError> {
        match self {
            Self::Directory(directory) => {
                let path = directory.join(&*String::from_utf8_lossy(&inside(name)?));
                let file = File::open(&path).map_err(CreateError::io("opening", &path))?;
                Ok(Box::new(file))
            }
            Self::Archive(tree) => {
                find(tree, name)?.bytes.open().map_err(CreateError::io("opening", name.as_ref()))
            }
        }
    }

    /// All bytes of a small file.
    pub(super) fn bytes(self, name: &str) -> Result<Vec<u8>, CreateError> {
        let mut bytes = Vec::new();
        let read = self.reader(name)?.take(JSON_MAX + 1).read_to_end(&mut bytes);
        read.map_err(CreateError::io("reading", name.as_ref()))?;
        if bytes.len() as u64 > JSON_MAX {
            return Err(CreateError::input(format!("file {name}"), "is too large"));
        }
        Ok(bytes)
    }
}

/// What a small file says; `name` is for messages.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T, CreateError> {
    serde_json::from_slice(bytes)
        .map_err(|error| CreateError::input(name, format!("is not what it has to be: {error}")))
}

fn find<'a>(tree: &'a Tree, name: &str) -> Result<&'a TreeFile, CreateError> {
    let wrong = |problem: &str| CreateError::input(format!("file {name}"), problem);
    let mut path = inside(name)?;
    for _ in 0..=SYMLINKS_MAX {
        match tree.nodes.get(&path) {
            Some(TreeNode::File(file)) => return Ok(file),
            Some(TreeNode::Symlink(_, target)) => {
                path = beside(&path, target).ok_or_else(|| wrong("leads out of the archive"))?;
            }
            Some(TreeNode::Directory(_)) | None => return Err(wrong("is not in the archive")),
        }
    }
    Err(wrong("is behind too many symlinks"))
}

fn inside(name: &str) -> Result<Vec<u8>, CreateError> {
    if name.starts_with('/') {
        return Err(CreateError::input(format!("file {name}"), "leads out of the image"));
    }
    normal(name.as_bytes())
}

/// Where the target of the symlink `path` is. Directories of a tree are no symlinks, so that names
/// alone decide.
fn beside(path: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    if target.starts_with(b"/") {
        return None;
    }
    let mut names: Vec<&[u8]> = path.split(|c| *c == b'/').collect();
    names.pop();
    for name in target.split(|c| *c == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    Some(names.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_symlinks_stay_inside() {
        let rows: &[(&str, &str, Option<&str>)] = &[
            ("a/layer.tar", "../b/layer.tar", Some("b/layer.tar")),
            ("a/layer.tar", "./x", Some("a/x")),
            ("layer.tar", "b//layer.tar", Some("b/layer.tar")),
            ("a/layer.tar", "../../b", None),
            ("layer.tar", "../b", None),
            ("a/layer.tar", "/b", None),
        ];
        for (path, target, expected) in rows {
            let found = beside(path.as_bytes(), target.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{path} -> {target}");
        }
    }
}

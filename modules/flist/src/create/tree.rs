//! The tree that becomes an flist, and how a layer changes it. Nothing is ever written to a disk
//! under a name that the input chose.

use super::{
    CreateError, Options,
    run::resolve_user,
    spool::{Source, Words},
};
use crate::{
    body::{ENTRIES_MAX, Meta, Run},
    check::shown,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    rc::Rc,
};

/// Everything below the root, by raw path; the root itself has the empty path.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) nodes: BTreeMap<Vec<u8>, TreeNode>,
    /// What was ever put here, with parents that the input only implies.
    words: Words,
    /// As the image says it.
    pub(super) run: Run,
    /// `user[:group]` of the image, by name or number.
    pub(super) user: String,
}

/// What a path stands for.
#[derive(Debug, Clone)]
pub(super) enum TreeNode {
    Directory(Meta),
    Symlink(Meta, Vec<u8>),
    /// Names of the same file share it.
    File(Rc<TreeFile>),
}

/// A regular file.
#[derive(Debug)]
pub(super) struct TreeFile {
    pub(super) meta: Meta,
    pub(super) bytes: Source,
}

/// What one tar file says.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) nodes: BTreeMap<Vec<u8>, LayerNode>,
    /// Paths of lower layers that disappear.
    pub(super) whiteouts: BTreeSet<Vec<u8>>,
    /// Directories of lower layers that lose their contents.
    pub(super) opaques: BTreeSet<Vec<u8>>,
}

/// What a path of a layer stands for.
#[derive(Debug)]
pub(super) enum LayerNode {
    Node(TreeNode),
    /// One more name of a file in this layer or below it.
    Link(Vec<u8>),
}

impl Tree {
    /// Puts a layer on top: first what it hides, then what it brings.
    pub(super) fn apply(&mut self, layer: Layer) -> Result<(), CreateError> {
        for path in &layer.opaques {
            self.remove_children(path);
        }
        for path in &layer.whiteouts {
            self.remove_children(path);
            if !path.is_empty() {
                self.nodes.remove(path);
            }
        }
        let mut links = Vec::new();
        for (path, node) in layer.nodes {
            match node {
                LayerNode::Node(node) => self.put(path, node)?,
                LayerNode::Link(target) => links.push((path, target)),
            }
        }
        for (path, target) in links {
            let Some(TreeNode::File(file)) = self.nodes.get(&target) else {
                let problem = format!("is a hard link to {}, which is no file", shown(&target));
                return Err(CreateError::input(shown(&path), problem));
            };
            let file = TreeNode::File(Rc::clone(file));
            self.put(path, file)?;
        }
        Ok(())
    }

    /// Sets a node, makes missing parents, and drops what a replaced directory contained.
    pub(super) fn put(&mut self, path: Vec<u8>, node: TreeNode) -> Result<(), CreateError> {
        self.put_parents(&path)?;
        if !matches!(node, TreeNode::Directory(_)) {
            if path.is_empty() {
                return Err(CreateError::input("the root", "is no directory"));
            }
            self.remove_children(&path);
        }
        self.words.add(path.len())?;
        self.nodes.insert(path, node);
        if self.nodes.len() > ENTRIES_MAX {
            return Err(CreateError::input("the tree", "has more than a million names"));
        }
        Ok(())
    }

    fn put_parents(&mut self, path: &[u8]) -> Result<(), CreateError> {
        for parent in parents(path) {
            match self.nodes.get(parent) {
                Some(TreeNode::Directory(_)) => return Ok(()),
                None => {
                    self.words.add(parent.len())?;
                    self.nodes.insert(parent.to_vec(), TreeNode::Directory(directory(0o755)));
                }
                Some(TreeNode::Symlink(..) | TreeNode::File(_)) => {
                    let problem = format!("is below {}, which is no directory", shown(parent));
                    return Err(CreateError::input(shown(path), problem));
                }
            }
        }
        Ok(())
    }

    fn remove_children(&mut self, path: &[u8]) {
        if path.is_empty() {
            self.nodes.retain(|path, _| path.is_empty());
            return;
        }
        // Everything from `path/` up to, not including, `path0`: 0 follows the slash.
        let (first, end) = ([path, b"/"].concat(), [path, b"0"].concat());
        let range = (Bound::Included(first), Bound::Excluded(end));
        let children: Vec<_> = self.nodes.range(range).map(|(path, _)| path.clone()).collect();
        for child in children {
            self.nodes.remove(&child);
        }
    }

    /// Adds what every container needs, and settles the run configuration.
    pub(super) fn complete(&mut self, options: &Options) -> Result<(), CreateError> {
        self.nodes.entry(Vec::new()).or_insert_with(|| TreeNode::Directory(directory(0o755)));
        for point in &options.mount_points {
            let path = normal(point.as_bytes())?;
            if path.is_empty() || self.nodes.contains_key(&path) {
                continue;
            }
            let node = if point.ends_with('/') {
                let mode = if path == b"tmp" { 0o1777 } else { 0o755 };
                TreeNode::Directory(directory(mode))
            } else {
                let meta = Meta { mode: 0o644, ..Meta::default() };
                TreeNode::File(Rc::new(TreeFile { meta, bytes: Source::Memory(Vec::new()) }))
            };
            self.put(path, node)?;
        }
        options.run.apply(&mut self.run, &mut self.user);
        let user = std::mem::take(&mut self.user);
        (self.run.uid, self.run.gid) = resolve_user(self, &user)?;
        Ok(())
    }
}

/// Parent and name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|c| *c == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// From the nearest parent to the root.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let path = rest.filter(|path| !path.is_empty())?;
        let end = path.iter().rposition(|c| *c == b'/').unwrap_or(0);
        rest = Some(&path[..end]);
        rest
    })
}

fn directory(mode: u16) -> Meta {
    Meta { mode, ..Meta::default() }
}

/// A path of the input in the form of an flist. `..` and NUL are refused, not resolved.
pub(super) fn normal(path: &[u8]) -> Result<Vec<u8>, CreateError> {
    let names: Vec<&[u8]> =
        path.split(|c| *c == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    let path = names.join(&b'/');
    if !path.is_empty() {
        crate::check::check_path(&path)?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for path in paths {
            tree.put(path.as_bytes().to_vec(), file()).unwrap();
        }
        tree
    }

    fn file() -> TreeNode {
        let bytes = Source::Memory(Vec::new());
        TreeNode::File(Rc::new(TreeFile { meta: Meta::default(), bytes }))
    }

    fn files(tree: &Tree) -> Vec<String> {
        let files = tree.nodes.iter().filter(|(_, node)| matches!(node, TreeNode::File(_)));
        files.map(|(path, _)| String::from_utf8(path.clone()).unwrap()).collect()
    }

    fn layer(nodes: &[&str], whiteouts: &[&str], opaques: &[&str]) -> Layer {
        let set = |paths: &[&str]| paths.iter().map(|path| path.as_bytes().to_vec()).collect();
        let nodes = nodes.iter().map(|path| (path.as_bytes().to_vec(), LayerNode::Node(file())));
        Layer { nodes: nodes.collect(), whiteouts: set(whiteouts), opaques: set(opaques) }
    }

    #[test]
    fn a_whiteout_hides_what_is_below_and_nothing_beside_it() {
        let mut tree = tree(&["a/x", "a/y/z", "a-b", "a0"]);
        tree.apply(layer(&[], &["a"], &[])).unwrap();
        assert_eq!(files(&tree), ["a-b", "a0"]);
    }

    #[test]
    fn an_opaque_directory_loses_its_old_contents_and_keeps_the_new_ones() {
        let mut tree = tree(&["a/x", "a/y/z", "b"]);
        tree.apply(layer(&["a/x", "a/new"], &[], &["a"])).unwrap();
        assert_eq!(files(&tree), ["a/new", "a/x", "b"]);
    }

    #[test]
    fn a_file_that_replaces_a_directory_takes_its_contents_away() {
        let mut tree = tree(&["a/x", "a/y/z", "b"]);
        tree.apply(layer(&["a"], &[], &[])).unwrap();
        assert_eq!(files(&tree), ["a", "b"]);
    }

    #[test]
    fn nothing_is_written_through_a_symlink() {
        let mut tree = tree(&["usr/lib/x"]);
        tree.put(b"lib".to_vec(), TreeNode::Symlink(Meta::default(), b"usr/lib".to_vec())).unwrap();
        let error = tree.apply(layer(&["lib/y"], &[], &[])).unwrap_err();
        assert_eq!(error.to_string(), "/lib/y is below /lib, which is no directory");
        tree.apply(layer(&["usr/lib/y"], &[], &[])).unwrap();
    }
}

//! Writes a newc cpio archive: the form of an initramfs.
//!
//! The archive depends on the entries alone: sorted by path, one time for all, owner root, inode
//! numbers in order. The same entries always give the same bytes.

use std::collections::BTreeMap;

/// What stands at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A directory, mode 0755.
    Directory,
    /// A regular file.
    File {
        /// Its bytes.
        content: Vec<u8>,
        /// Whether it can be executed: mode 0755, else 0644.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        target: String,
    },
    /// A character device, mode 0600.
    Device {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// A tree of files, by absolute path. Parents are made when needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// Puts a node at an absolute path, replacing what was there, and adds missing parents.
    pub(crate) fn insert(&mut self, path: &str, node: Node) {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            self.nodes.entry(path[..end].to_owned()).or_insert(Node::Directory);
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// Puts a file there.
    pub(crate) fn file(&mut self, path: &str, content: Vec<u8>) {
        self.insert(path, Node::File { content, executable: false });
    }

    /// Puts an executable file there.
    pub(crate) fn program(&mut self, path: &str, content: Vec<u8>) {
        self.insert(path, Node::File { content, executable: true });
    }

    #[cfg(test)]
    /// The nodes, sorted by path without the leading slash.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// The archive. `mtime_s` is the modification time of everything in it.
    pub(crate) fn archive(&self, mtime_s: u32) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, (path, node)) in (1_u32..).zip(&self.nodes) {
            let (mode, n_links, content, (major, minor)) = match node {
                Node::Directory => (0o040_755, 2, &[][..], (0, 0)),
                Node::File { content, executable: true } => (0o100_755, 1, &content[..], (0, 0)),
                Node::File { content, executable: false } => (0o100_644, 1, &content[..], (0, 0)),
                Node::Link { target } => (0o120_777, 1, target.as_bytes(), (0, 0)),
                Node::Device { major, minor } => (0o020_600, 1, &[][..], (*major, *minor)),
            };
            record(
                &mut out,
                &Header { index, mode, n_links, mtime_s, major, minor },
                path,
                content,
            );
        }
        let trailer = Header { index: 0, mode: 0, n_links: 1, mtime_s: 0, major: 0, minor: 0 };
        record(&mut out, &trailer, "TRAILER!!!", &[]);
        out
    }
}

struct Header {
    index: u32,
    mode: u32,
    n_links: u32,
    mtime_s: u32,
    major: u32,
    minor: u32,
}

fn record(out: &mut Vec<u8>, header: &Header, path: &str, content: &[u8]) {
    let size = u32::try_from(content.len()).expect("a file of the image is below 4 GiB");
    let name_size = u32::try_from(path.len() + 1).expect("a path of the image is short");
    let fields = [
        header.index,
        header.mode,
        0, // uid
        0, // gid
        header.n_links,
        header.mtime_s,
        size,
        0, // major and minor of the device that holds the file
        0,
        header.major,
        header.minor,
        name_size,
        0, // checksum, unused in this variant
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_before_their_children_and_exist_once() {
        let mut tree = Tree::default();
        tree.file("/usr/lib/b", vec![1]);
        tree.program("/usr/lib/a", vec![2]);
        tree.insert("/lib", Node::Link { target: "usr/lib".into() });
        let paths: Vec<_> = tree.iter().map(|(path, _)| path.to_owned()).collect();
        assert_eq!(paths, ["lib", "usr", "usr/lib", "usr/lib/a", "usr/lib/b"]);
    }

    #[test]
    fn the_order_of_insertion_does_not_show() {
        let mut one = Tree::default();
        one.file("/a/x", vec![1]);
        one.file("/b", vec![2]);
        let mut other = Tree::default();
        other.file("/b", vec![2]);
        other.file("/a/x", vec![1]);
        assert_eq!(one.archive(7), other.archive(7));
        assert_ne!(one.archive(7), one.archive(8));
    }

    #[test]
    fn the_archive_is_read_back_by_cpio() {
        let mut tree = Tree::default();
        tree.file("/etc/text", b"hello\n".to_vec());
        tree.program("/bin/tool", vec![0; 4097]);
        let archive = tree.archive(1_700_000_000);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("archive");
        std::fs::write(&file, &archive).unwrap();
        let listed = std::process::Command::new("cpio")
            .args(["-itv", "--quiet", "-F"])
            .arg(&file)
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let lines: Vec<_> = listed.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[1].starts_with("-rwxr-xr-x") && lines[1].ends_with("bin/tool"), "{listed}");
        assert!(lines[3].starts_with("-rw-r--r--") && lines[3].contains(" 6 "), "{listed}");
    }
}

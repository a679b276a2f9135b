//! The metadata image, judged by the file system's own checker.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is tests"
)]

mod common;

use common::{Sorted as _, run, sample, text};
use flist::{
    Flist,
    body::{Body, Data, Entry, Meta, Node, Xattr},
    erofs,
};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

/// Writes the image of a body, has it checked, and compares what the checker extracts.
fn check(body: Body) {
    let flist = Flist::from_body(body).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image.erofs");
    let mut bytes = Vec::new();
    erofs::write(flist.body(), &mut bytes).unwrap();
    assert_eq!(bytes.len() % 4096, 0);
    assert_eq!(erofs::digest(flist.body()), flist::verity::digest(&bytes));
    fs::write(&image, &bytes).unwrap();
    run("fsck.erofs", &[text(&image)]);
    let out = directory.path().join("out");
    let extract = format!("--extract={}", text(&out));
    run("fsck.erofs", &[&extract, "--preserve", text(&image)]);
    let (extracted, expected) = (extracted(&out), expected(flist.body()));
    for (path, expected) in &expected {
        assert_eq!(extracted.get(path), Some(expected), "{}", path.escape_ascii());
    }
    assert_eq!(extracted.len(), expected.len());
}

/// What a name stands for, as far as the extracted tree shows it: the checker drops setuid and the
/// size of holes, which the kernel has to show in the end-to-end tests.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind_and_mode: u32,
    owner: (u32, u32),
    size: u64,
    /// Inline bytes, or the target of a symlink.
    bytes: Vec<u8>,
}

fn extracted(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut seen = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let bytes = if found.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else if found.is_file() && found.size() <= 64 {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        if found.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|item| item.unwrap().path()));
        }
        let size = if found.is_dir() { 0 } else { found.size() };
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let owner = (found.uid(), found.gid());
        seen.insert(name, Seen { kind_and_mode: found.mode(), owner, size, bytes });
    }
    seen
}

fn expected(body: &Body) -> BTreeMap<Vec<u8>, Seen> {
    let node = |entry: &Entry| match entry.node {
        Node::Link(first) => body.entries[first as usize].node.clone(),
        Node::Directory(_) | Node::File(..) | Node::Symlink(..) => entry.node.clone(),
    };
    let seen = |entry: &Entry| {
        let (kind, meta, size, bytes) = match node(entry) {
            Node::Directory(meta) => (0o040_000, meta, 0, Vec::new()),
            Node::Symlink(meta, target) => (0o120_000, meta, target.len() as u64, target),
            Node::File(meta, Data::Inline(bytes)) => (0o100_000, meta, bytes.len() as u64, bytes),
            Node::File(meta, Data::Content(_)) => (0o100_000, meta, 0, Vec::new()),
            Node::Link(_) => panic!("a link leads to a file"),
        };
        let kind_and_mode = kind | u32::from(meta.mode & 0o1777);
        let owner = (meta.uid, meta.gid);
        (entry.path.clone(), Seen { kind_and_mode, owner, size, bytes })
    };
    body.entries.iter().map(seen).collect()
}

fn add(body: &mut Body, path: &str, node: Node) {
    body.entries.push(Entry { path: path.into(), node });
}

fn meta(mode: u16) -> Meta {
    Meta { mode, uid: 1, gid: 2, mtime: 1_600_000_000, xattrs: Vec::new() }
}

#[test]
fn a_tree_with_one_of_everything_is_clean() {
    check(sample());
}

#[test]
fn the_image_does_not_change() {
    // Nodes of different versions share stores: the digest follows from the flist for ever.
    let digest = erofs::digest(Flist::from_body(sample()).unwrap().body());
    assert_eq!(
        hex::encode(digest),
        "78c34291575c92a5b6f37deaa8860322eaaeaebf8b072d074294872e930d5dfe"
    );
}

#[test]
fn names_that_sort_before_the_dots_are_found() {
    let mut body = sample();
    for name in ["!", "-x", "+", ".a", "..a", "...", "a", "\u{fc}"] {
        add(&mut body, &format!("etc/{name}"), Node::File(meta(0o644), Data::Inline(vec![1])));
    }
    check(body.sorted());
}

#[test]
fn directories_of_every_size_are_clean() {
    // Lengths around the inline limit, one block, and several blocks.
    let mut body = sample();
    for count in [0_usize, 1, 30, 31, 32, 60, 61, 62, 63, 64, 65, 130, 1000] {
        let directory = format!("srv/{count}");
        add(&mut body, &directory, Node::Directory(meta(0o755)));
        for number in 0..count {
            let path = format!("{directory}/{:0>52}", number * 7919 % 10_007);
            add(&mut body, &path, Node::File(meta(0o644), Data::Inline(Vec::new())));
        }
    }
    check(body.sorted());
}

#[test]
fn symlinks_of_every_length_are_clean() {
    let mut body = sample();
    for length in [1, 60, 1900, 2047, 2048, 2049, 4000, 4095] {
        let target = vec![b'x'; length];
        add(&mut body, &format!("srv/{length}"), Node::Symlink(meta(0o777), target));
    }
    check(body.sorted());
}

#[test]
fn attributes_of_every_size_are_clean() {
    let mut body = sample();
    for length in [0, 1, 3, 4, 3900, 4000, 4090, 12_000, 60_000] {
        let mut meta = meta(0o644);
        meta.xattrs = (0..3_u8)
            .map(|n| Xattr {
                name: format!("user.{n}").into_bytes(),
                value: vec![n; if n == 1 { length } else { 2 }],
            })
            .collect();
        let bytes = vec![7; length % 65];
        add(&mut body, &format!("srv/{length}"), Node::File(meta.clone(), Data::Inline(bytes)));
        add(&mut body, &format!("srv/c{length}"), Node::File(meta, Data::Content(0)));
    }
    check(body.sorted());
}

#[test]
fn the_checker_would_complain_about_a_damaged_image() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image.erofs");
    let mut bytes = Vec::new();
    erofs::write(&sample(), &mut bytes).unwrap();
    // The root's first directory record.
    bytes[1152 + 64] ^= 0xff;
    fs::write(&image, &bytes).unwrap();
    let output = std::process::Command::new("fsck.erofs").arg(&image).output().unwrap();
    assert!(!output.status.success());
}

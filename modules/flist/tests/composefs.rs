//! The metadata image, read by the composefs crate: same tree, same digest.
//!
//! Our images need not be composefs's byte for byte: inodes and attributes lie elsewhere. Compared is
//! what composefs reads out of them, as its dump says it, and the digest that composefs's own image
//! of that tree has.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is tests"
)]

mod common;

use common::{Sorted as _, run, sample, text};
use composefs::{
    dumpfile::write_dumpfile,
    erofs::{
        format::{COMPOSEFS_MAGIC, VERSION},
        reader::erofs_to_filesystem,
        writer::mkfs_erofs,
    },
    fsverity::{FsVerityHashValue as _, Sha256HashValue},
    tree::{Directory, FileSystem, Inode, LeafContent, RegularFile, Stat},
};
use flist::{
    Flist,
    body::{Body, Data, Entry, Meta, Node, Xattr},
    create::{self, Options},
    erofs,
};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    path::PathBuf,
};

type Tree = FileSystem<Sha256HashValue>;

fn image(body: &Body) -> Vec<u8> {
    let mut image = Vec::new();
    erofs::write(Flist::from_body(body.clone()).unwrap().body(), &mut image).unwrap();
    image
}

/// Composefs wants its mark in front of the superblock, where our images are zero and no kernel looks.
fn marked(mut image: Vec<u8>) -> Vec<u8> {
    image[..4].copy_from_slice(&COMPOSEFS_MAGIC.get().to_le_bytes());
    image[4..8].copy_from_slice(&VERSION.get().to_le_bytes());
    image
}

fn stat(meta: &Meta) -> Stat {
    let xattr = |xattr: &Xattr| {
        (Box::from(OsStr::from_bytes(&xattr.name)), Box::from(xattr.value.as_slice()))
    };
    Stat {
        st_mode: u32::from(meta.mode),
        st_uid: meta.uid,
        st_gid: meta.gid,
        st_mtim_sec: i64::try_from(meta.mtime).unwrap(),
        xattrs: meta.xattrs.iter().map(xattr).collect(),
    }
}

fn object(digest: &[u8; 32]) -> Sha256HashValue {
    Sha256HashValue::from_hex(hex::encode(digest)).unwrap()
}

/// The tree of a body in composefs's own types, without an image in between.
fn tree(body: &Body) -> Tree {
    let Node::Directory(root) = &body.entries[0].node else { panic!("the root is a directory") };
    let mut tree = Tree::new(stat(root));
    let mut leaves = BTreeMap::new();
    for (index, entry) in body.entries.iter().enumerate().skip(1) {
        let leaf = match &entry.node {
            Node::Directory(_) => None,
            Node::Link(first) => Some(leaves[first]),
            Node::Symlink(meta, target) => {
                let target = Box::from(OsStr::from_bytes(target));
                Some(tree.push_leaf(stat(meta), LeafContent::Symlink(target)))
            }
            Node::File(meta, data) => {
                let file = match data {
                    Data::Inline(bytes) => RegularFile::Inline(Box::from(bytes.as_slice())),
                    Data::Content(content) => {
                        let content = &body.contents[*content as usize];
                        RegularFile::External(object(&content.digest), content.size)
                    }
                };
                Some(tree.push_leaf(stat(meta), LeafContent::Regular(file)))
            }
        };
        leaves.extend(leaf.map(|leaf| (u32::try_from(index).unwrap(), leaf)));
        let inode = match (&entry.node, leaf) {
            (Node::Directory(meta), _) => Inode::Directory(Box::new(Directory::new(stat(meta)))),
            (_, leaf) => Inode::leaf(leaf.unwrap()),
        };
        let slash = entry.path.iter().rposition(|c| *c == b'/');
        let (parent, name) = match slash {
            None => (&mut tree.root, &entry.path[..]),
            Some(slash) => {
                let parent = OsStr::from_bytes(&entry.path[..slash]);
                (tree.root.get_directory_mut(parent).unwrap(), &entry.path[slash + 1..])
            }
        };
        assert!(parent.insert(OsStr::from_bytes(name), inode));
    }
    tree
}

fn dump(tree: &Tree) -> String {
    let mut dump = Vec::new();
    write_dumpfile(&mut dump, tree).unwrap();
    String::from_utf8(dump).unwrap()
}

fn check(body: &Body) {
    check_against(body, &tree(body));
}

/// Same tree, same digest.
fn check_against(body: &Body, expected: &Tree) {
    let ours = image(body);
    let found: Tree = erofs_to_filesystem(&marked(ours.clone())).unwrap();
    let (found_dump, expected_dump) = (dump(&found), dump(expected));
    for (found, expected) in found_dump.lines().zip(expected_dump.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found_dump.lines().count(), body.entries.len());
    assert_eq!(expected_dump.lines().count(), body.entries.len());
    assert_eq!(found.compute_image_id(), expected.compute_image_id());
    // The dump leaves out where an object lies: both images lead an overlay to the same place.
    let theirs = mkfs_erofs(expected);
    let leads_to = |image: &[u8], content: &flist::body::Content| {
        let digest = hex::encode(content.digest);
        let place = format!("overlay.redirect/{}/{}", &digest[..2], &digest[2..]);
        image.windows(place.len()).any(|bytes| bytes == place.as_bytes())
    };
    for content in &body.contents {
        assert!(leads_to(&ours, content) && leads_to(&theirs, content));
    }
}

fn add(body: &mut Body, path: &str, node: Node) {
    body.entries.push(Entry { path: path.into(), node });
}

fn meta(mode: u16) -> Meta {
    Meta { mode, uid: 70_000, gid: 80_000, mtime: 1_600_000_000, xattrs: Vec::new() }
}

#[test]
fn a_tree_with_one_of_everything_is_the_same() {
    check(&sample());
}

#[test]
fn directories_of_every_size_are_the_same() {
    let mut body = sample();
    for count in [0_usize, 1, 30, 31, 32, 60, 61, 62, 63, 64, 65, 130, 1000] {
        let directory = format!("srv/{count}");
        add(&mut body, &directory, Node::Directory(meta(0o755)));
        for number in 0..count {
            let path = format!("{directory}/{:0>52}", number * 7919 % 10_007);
            add(&mut body, &path, Node::File(meta(0o644), Data::Inline(Vec::new())));
        }
    }
    for name in ["!", "-x", "+", ".a", "..a", "...", "a b", "\u{fc}", "\\", "="] {
        add(&mut body, &format!("etc/{name}"), Node::File(meta(0o600), Data::Inline(vec![0, 1])));
    }
    check(&body.sorted());
}

/// Composefs takes no target above 1024 bytes; longer ones are for `fsck.erofs` to read.
#[test]
fn symlinks_and_attributes_of_every_size_are_the_same() {
    let mut body = sample();
    for length in [1, 60, 500, 1023, 1024] {
        let target = vec![b'x'; length];
        add(&mut body, &format!("srv/to{length}"), Node::Symlink(meta(0o777), target));
    }
    for length in [0, 1, 3, 4, 3900, 4000, 4090, 12_000, 60_000] {
        let mut meta = meta(0o4711);
        meta.xattrs = (0..3_u8)
            .map(|n| Xattr {
                name: format!("user.{n}").into_bytes(),
                value: vec![n; if n == 1 { length } else { 2 }],
            })
            .collect();
        let bytes = vec![7; length % 65];
        add(&mut body, &format!("srv/{length}"), Node::File(meta.clone(), Data::Inline(bytes)));
        add(&mut body, &format!("srv/c{length}"), Node::File(meta.clone(), Data::Content(0)));
        add(&mut body, &format!("srv/d{length}"), Node::Directory(meta));
    }
    check(&body.sorted());
}

/// Composefs reads the directory by itself, and hashes the files by itself.
#[test]
fn a_directory_of_the_host_is_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join(path);
    fs::create_dir_all(at("usr/lib/deep")).unwrap();
    // Around what is inline, a block, a chunk, and one and two levels of the Merkle tree.
    let level = 128 * 4096;
    for size in [0, 64, 65, 4095, 4096, 4097, level, level + 1, 1 << 20, (1 << 20) + 1, 2 * level] {
        let bytes: Vec<u8> = (0..size).map(|n: usize| (n ^ (n >> 8)).to_le_bytes()[0]).collect();
        fs::write(at(&format!("usr/lib/{size}")), bytes).unwrap();
    }
    fs::write(at("usr/lib/deep/copy"), vec![b'x'; 5000]).unwrap();
    fs::write(at("usr/lib/deep/same"), vec![b'x'; 5000]).unwrap();
    fs::hard_link(at("usr/lib/deep/copy"), at("usr/name")).unwrap();
    fs::set_permissions(at("usr/lib/65"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(at("usr/lib/deep"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("../lib/65", at("usr/lib/link")).unwrap();
    run("touch", &["-h", "-d", "@1000000000", text(&at("usr/lib/link"))]);
    run("touch", &["-d", "@1100000000", text(&at("usr"))]);
    let options = Options { mount_points: Vec::new(), ..Options::default() };
    let built = create::build_directory(directory.path(), &options, &()).unwrap();

    let root = File::open(directory.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let read = composefs::fs::read_filesystem(root.into(), PathBuf::from("."), None);
    check_against(built.flist.body(), &runtime.block_on(read).unwrap());
}

#[test]
fn composefs_sees_a_changed_digest_owner_or_link_count() {
    let body = sample();
    let intact = marked(image(&body));
    let expected = tree(&body);
    let read = |image: &[u8]| erofs_to_filesystem::<Sha256HashValue>(image);
    assert_eq!(dump(&read(&intact).unwrap()), dump(&expected));
    let digest = intact.windows(32).position(|bytes| bytes == [4; 32]).unwrap();
    // The root: struct erofs_inode_extended, whose owner and number of names are at 24 and 44.
    for (place, is_read) in [(digest, true), (1152 + 24, true), (1152 + 44, false)] {
        let mut image = intact.clone();
        image[place] ^= 0x10;
        match read(&image) {
            Ok(changed) => {
                assert!(is_read);
                assert_ne!(dump(&changed), dump(&expected));
                assert_ne!(changed.compute_image_id(), expected.compute_image_id());
            }
            Err(error) => assert!(!is_read, "{error:#}"),
        }
    }
}

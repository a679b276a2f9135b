//! Flists of the two earlier formats become the flist of the same directory, and what is refused.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is tests"
)]

mod common;

use common::earlier::{
    Entries, Node, Struct, Value, directory, hash16, inode, rfs, rfs_block, store, zflist,
    zflist_block, zflist_entries,
};
use flist::{
    Flist, Source,
    create::{self, CreateError, Options, Special},
};
use rusqlite::{Connection, params};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

fn options() -> Options {
    Options { mount_points: Vec::new(), ..Options::default() }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn tree() -> Vec<(&'static str, Node)> {
    tree_with(noise(700))
}

fn tree_with(app: Vec<u8>) -> Vec<(&'static str, Node)> {
    vec![
        ("bin", Node::Directory(0o755)),
        ("bin/app", Node::File(0o4755, app)),
        ("bin/small", Node::File(0o644, b"small".to_vec())),
        ("bin/sh", Node::Symlink("app".into())),
        ("empty", Node::File(0o600, Vec::new())),
        ("tmp", Node::Directory(0o1777)),
        ("tmp/deep", Node::Directory(0o700)),
        ("tmp/deep/x", Node::File(0o644, vec![b'x'; 1000])),
    ]
}

/// The same tree by way of a tar file.
fn expected(tree: &[(&str, Node)]) -> Flist {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, node: &Node| {
        let mut header = tar::Header::new_gnu();
        header.set_uid(5);
        header.set_gid(6);
        header.set_mtime(1_000_000_000);
        header.set_size(0);
        match node {
            Node::Directory(mode) => {
                header.set_mode((*mode).into());
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, path, &[][..]).unwrap();
            }
            Node::File(mode, bytes) => {
                header.set_mode((*mode).into());
                header.set_size(bytes.len() as u64);
                archive.append_data(&mut header, path, &bytes[..]).unwrap();
            }
            Node::Symlink(target) => {
                header.set_mode(0o777);
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut header, path, target).unwrap();
            }
            Node::Socket => {}
        }
    };
    add("./", &Node::Directory(0o755));
    for (path, node) in tree {
        add(path, node);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), archive.into_inner().unwrap()).unwrap();
    create::build_tar(file.path(), &options(), &()).unwrap().flist
}

/// An flist of an earlier format with its blocks.
struct Earlier {
    at: TempDir,
    file: PathBuf,
    blocks: PathBuf,
}

impl Earlier {
    fn empty() -> Self {
        let at = tempfile::tempdir().unwrap();
        let (file, blocks) = (at.path().join("app"), at.path().join("blocks"));
        fs::create_dir(&blocks).unwrap();
        Self { at, file, blocks }
    }

    fn rfs(tree: &[(&str, Node)]) -> (Self, Connection) {
        let this = Self::empty();
        let database = rfs(&this.file, &this.blocks, tree);
        (this, database)
    }

    fn zflist(tree: &[(&str, Node)]) -> Self {
        Self::zflist_changed(tree, |_| {})
    }

    fn zflist_changed(tree: &[(&str, Node)], change: impl FnOnce(&mut Entries)) -> Self {
        let this = Self::empty();
        let mut entries = zflist_entries(&this.blocks, tree);
        change(&mut entries);
        zflist(&this.file, &entries);
        this
    }

    fn build_with(&self, options: &Options) -> Result<Flist, CreateError> {
        let source = Source::new([common::text(&self.blocks)]).unwrap();
        create::build_earlier(&self.file, &source, options, &()).map(|built| built.flist)
    }

    fn build(&self) -> Result<Flist, CreateError> {
        self.build_with(&options())
    }

    fn refused(&self, problem: &str) {
        let error = self.build().unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let text = format!("{error}: {}", source.unwrap_or_default());
        assert!(text.contains(problem), "{text}");
    }

    /// The files of all blocks.
    fn stored(&self) -> Vec<PathBuf> {
        let list = |path: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort();
            names
        };
        list(&self.blocks).iter().flat_map(|path| list(path)).collect()
    }
}

#[test]
fn both_formats_give_the_flist_of_the_same_files() {
    // Of three blocks.
    let tree = tree_with(noise((1 << 20) + 77));
    let expected = expected(&tree);
    assert_eq!(Earlier::rfs(&tree).0.build().unwrap(), expected);
    assert_eq!(Earlier::zflist(&tree).build().unwrap(), expected);
}

#[test]
fn blocks_may_lie_beside_each_other() {
    let expected = expected(&tree());
    for earlier in [Earlier::rfs(&tree()).0, Earlier::zflist(&tree())] {
        for path in earlier.stored() {
            fs::rename(&path, earlier.blocks.join(path.file_name().unwrap())).unwrap();
        }
        assert_eq!(earlier.build().unwrap(), expected);
    }
}

#[test]
fn a_block_that_is_missing_short_or_changed_is_found() {
    for earlier in [Earlier::rfs(&tree()).0, Earlier::zflist(&tree())] {
        for path in earlier.stored() {
            let good = fs::read(&path).unwrap();
            let mut bad = good.clone();
            bad[good.len() / 2] ^= 1;
            fs::write(&path, &bad).unwrap();
            earlier.refused("content_mismatch");
            fs::write(&path, &good[..good.len() - 1]).unwrap();
            earlier.refused("content_mismatch");
            fs::remove_file(&path).unwrap();
            earlier.refused("content_missing");
            fs::write(&path, good).unwrap();
        }
        earlier.build().unwrap();
    }
}

/// Whoever knows the key can make a block that opens: the hash of what is in it tells.
#[test]
fn a_block_that_somebody_forged_with_the_right_key_is_refused() {
    let key = |(_, key, _): &common::earlier::Stored| key.clone();
    let (right, wrong) = (rfs_block(b"right"), rfs_block(b"wrong"));
    let forged = common::earlier::rfs_block_under(b"wrong", &key(&right));
    let (earlier, database) = Earlier::rfs(&[("a", Node::File(0o644, b"right".to_vec()))]);
    store(&earlier.blocks, &[wrong, forged.clone()]);
    earlier.build().unwrap();
    database.execute("UPDATE block SET id = ?1", params![forged.0]).unwrap();
    earlier.refused("has other contents than its key says");

    let right = zflist_block(b"right");
    let forged = common::earlier::zflist_block_under(b"wrong", &key(&right));
    let make = |id: &[u8]| {
        let block = Struct(vec![], vec![Value::Bytes(id.to_vec()), Value::Bytes(key(&right))]);
        let file = Struct(vec![128], vec![Value::List(vec![block])]);
        Earlier::zflist_changed(&[("a", Node::File(0o644, b"right".to_vec()))], |entries| {
            let rights = rights_of(entries);
            set(entries, "", directory(vec![inode("a", 5, 1, file, &rights)], &rights));
        })
    };
    make(&right.0).build().unwrap();
    let bad = make(&forged.0);
    store(&bad.blocks, &[forged]);
    bad.refused("has other contents than its key says");
}

/// Any rights that are there.
fn rights_of(entries: &Entries) -> String {
    entries.iter().find(|(key, _)| key.len() == 16).unwrap().0.clone()
}

fn set(entries: &mut Entries, path: &str, message: Vec<u8>) {
    let key = hex::encode(hash16(path.as_bytes()));
    entries.retain(|(known, _)| *known != key);
    entries.push((key, message));
}

#[test]
fn a_block_that_unpacks_to_too_much_is_refused() {
    let bomb = rfs_block(&vec![0; (512 << 10) + 1]);
    let (earlier, database) = Earlier::rfs(&[("a", Node::File(0o644, vec![0; 512 << 10]))]);
    earlier.build().unwrap();
    database.execute("UPDATE block SET id = ?1, key = ?2", params![bomb.0, bomb.1]).unwrap();
    store(&earlier.blocks, &[bomb]);
    earlier.refused("more than 512 KiB");
}

#[test]
fn a_size_that_the_blocks_do_not_have_is_refused() {
    let (earlier, database) = Earlier::rfs(&tree());
    earlier.build().unwrap();
    let change = |by: i64| {
        let update = "UPDATE inode SET size = size + ?1 WHERE name = 'app'";
        database.execute(update, [by]).unwrap();
    };
    change(1);
    earlier.refused("fewer bytes than it says");
    change(-2);
    earlier.refused("more bytes than it says");
    change(-10_000_000);
    earlier.refused("no valid size");
}

#[test]
fn inodes_in_a_loop_or_without_a_root_are_refused() {
    for (change, problem) in [
        ("UPDATE inode SET parent = 8 WHERE name = 'tmp'", "not below its root"),
        ("UPDATE inode SET parent = 99 WHERE name = 'x'", "not below its root"),
        ("UPDATE inode SET parent = 0 WHERE name = 'tmp'", "no root, or several"),
        ("UPDATE inode SET parent = 7 WHERE ino = 1", "no root, or several"),
        ("UPDATE inode SET parent = 4 WHERE name = 'x'", "is no directory"),
        ("UPDATE inode SET mode = 33188 WHERE ino = 1", "is no directory"),
    ] {
        let (earlier, database) = Earlier::rfs(&tree());
        earlier.build().unwrap();
        database.execute(change, []).unwrap();
        earlier.refused(problem);
    }
}

#[test]
fn names_that_are_none_are_refused() {
    for (name, problem) in [
        ("..", ". or .."),
        (".", ". or .."),
        ("", "empty name"),
        ("a/b", "is none"),
        ("../../etc/passwd", "is none"),
        ("a\0b", "NUL"),
        ("small", "comes twice"),
    ] {
        let (earlier, database) = Earlier::rfs(&tree());
        database.execute("UPDATE inode SET name = ?1 WHERE name = 'sh'", [name]).unwrap();
        earlier.refused(problem);
        let earlier = Earlier::zflist_changed(&tree(), |entries| {
            let rights = rights_of(entries);
            let link = || Struct(vec![], vec![Value::Text("t".into())]);
            let both =
                vec![inode("small", 0, 2, link(), &rights), inode(name, 0, 2, link(), &rights)];
            set(entries, "tmp/deep", directory(both, &rights));
        });
        let expected = if problem == "is none" { "a name with a slash" } else { problem };
        earlier.refused(expected);
    }
}

#[test]
fn a_directory_that_leads_to_itself_is_refused() {
    let change = |key: &str| {
        let key = hex::encode(hash16(key.as_bytes()));
        Earlier::zflist_changed(&tree(), |entries| {
            let rights = rights_of(entries);
            let sub = Struct(vec![], vec![Value::Text(key)]);
            set(entries, "tmp", directory(vec![inode("deep", 0, 0, sub, &rights)], &rights));
        })
    };
    change("tmp/deep").build().unwrap();
    for other in ["", "tmp", "bin"] {
        change(other).refused("leads to another directory");
    }
}

#[test]
fn special_files_of_earlier_formats_are_refused_or_left_out() {
    let mut with = tree();
    with.push(("socket", Node::Socket));
    let omit = Options { special: Special::Omit, ..options() };
    for earlier in [Earlier::rfs(&with).0, Earlier::zflist(&with)] {
        earlier.refused("is a device node, fifo or socket");
        assert_eq!(earlier.build_with(&omit).unwrap(), expected(&tree()));
    }
}

#[test]
fn a_message_that_is_cut_or_changed_is_no_panic() {
    let mut taken = 0;
    for place in 0..100 {
        let earlier = Earlier::zflist_changed(&tree(), |entries| {
            let root = hex::encode(hash16(b""));
            let message = &mut entries.iter_mut().find(|(key, _)| *key == root).unwrap().1;
            let at = place * 13 % message.len();
            if place % 5 == 0 { message.truncate(at) } else { message[at] ^= 0x55 }
        });
        taken += usize::from(earlier.build().is_ok());
    }
    assert!(taken < 75, "{taken} changes were not noticed");
}

/// A view of a hostile database would run whatever query it holds.
#[test]
fn a_database_with_views_or_without_tables_is_refused() {
    let (earlier, database) = Earlier::rfs(&tree());
    earlier.build().unwrap();
    database
        .execute_batch(
            "ALTER TABLE block RENAME TO hidden; CREATE VIEW block AS SELECT * FROM hidden",
        )
        .unwrap();
    earlier.refused("has no table block");
    database.execute("DROP VIEW block", []).unwrap();
    earlier.refused("has no table block");
    drop(database);
    let mut bytes = fs::read(&earlier.file).unwrap();
    bytes[100..4096].fill(0xff);
    fs::write(&earlier.file, bytes).unwrap();
    earlier.build().unwrap_err();
    fs::write(&earlier.file, b"SQLite format 3\0").unwrap();
    earlier.build().unwrap_err();
}

/// Without a word, it would become an flist with one file: its own database.
#[test]
fn an_earlier_flist_is_not_taken_for_a_tar_file_of_files() {
    let earlier = Earlier::zflist(&tree());
    let error = create::build_archive(&earlier.file, &options(), &()).unwrap_err().to_string();
    assert!(error.contains("needs a place with its blocks"), "{error}");
    // And something else is no earlier flist.
    fs::write(&earlier.file, common::image::member("a", b'0', "", b"")).unwrap();
    earlier.refused("flistdb.sqlite3 is not in the archive");
    drop(earlier.at);
}

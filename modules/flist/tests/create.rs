//! Building from directories and tar files, publishing, checking and unpacking.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is tests"
)]

mod common;

use common::image::member;
use flist::{
    Flist, Source,
    body::{Data, Node},
    create::{self, CreateError, Options, Overrides, Special},
};
use proptest::prelude::*;
use std::{
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};
use tempfile::TempDir;

/// Bytes that zstd cannot make smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn tree() -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    let at = |path: &str| tree.path().join(path);
    for directory in ["bin", "etc", "data/deep"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    fs::write(at("bin/app"), noise(3 * (1 << 20) + 17)).unwrap();
    fs::set_permissions(at("bin/app"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(at("bin/app"), at("bin/same")).unwrap();
    fs::write(at("data/copy"), noise(3 * (1 << 20) + 17)).unwrap();
    fs::write(at("data/deep/text"), "text ".repeat(1000)).unwrap();
    fs::write(at("etc/empty"), "").unwrap();
    fs::write(at("etc/64"), [b'x'; 64]).unwrap();
    fs::write(at("etc/65"), [b'x'; 65]).unwrap();
    fs::write(at("etc/passwd"), "web:x:33:34::/:/bin/false\n").unwrap();
    symlink("/bin/app", at("etc/link")).unwrap();
    // All in the past, so that a time that is not carried over shows.
    common::run("touch", &["-h", "-d", "@1000000000", common::text(&at("etc/link"))]);
    tree
}

fn build(tree: &Path) -> create::Built {
    create::build_directory(tree, &Options::default(), &()).unwrap()
}

fn names(flist: &Flist) -> Vec<String> {
    let entries = &flist.body().entries;
    entries.iter().map(|entry| String::from_utf8(entry.path.clone()).unwrap()).collect()
}

fn node<'a>(flist: &'a Flist, path: &str) -> &'a Node {
    let entries = &flist.body().entries;
    &entries.iter().find(|entry| entry.path == path.as_bytes()).unwrap().node
}

#[test]
fn a_directory_becomes_an_flist_with_everything_in_it() {
    let tree = tree();
    let built = build(tree.path());
    let flist = &built.flist;
    assert_eq!(
        names(flist),
        [
            "",
            "bin",
            "bin/app",
            "bin/same",
            "data",
            "data/copy",
            "data/deep",
            "data/deep/text",
            "dev",
            "etc",
            "etc/64",
            "etc/65",
            "etc/empty",
            "etc/hostname",
            "etc/hosts",
            "etc/link",
            "etc/passwd",
            "etc/resolv.conf",
            "proc",
            "run",
            "sys",
            "tmp",
        ]
    );
    let Node::File(meta, Data::Content(app)) = node(flist, "bin/app") else { panic!() };
    assert_eq!(meta.mode, 0o4755);
    let Node::File(_, Data::Content(copy)) = node(flist, "data/copy") else { panic!() };
    assert_eq!(app, copy, "two files with the same bytes share one content");
    let app = &flist.body().contents[*app as usize];
    assert_eq!(app.chunks.len(), 4);
    assert_eq!(app.digest, flist::verity::digest(&noise(3 * (1 << 20) + 17)));
    assert!(matches!(node(flist, "bin/same"), Node::Link(2)));
    assert!(
        matches!(node(flist, "etc/64"), Node::File(_, Data::Inline(bytes)) if bytes.len() == 64)
    );
    assert!(matches!(node(flist, "etc/65"), Node::File(_, Data::Content(_))));
    assert!(matches!(node(flist, "etc/link"), Node::Symlink(_, target) if target == b"/bin/app"));
    assert!(matches!(node(flist, "tmp"), Node::Directory(meta) if meta.mode == 0o1777));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (tree, first, second) =
        (tree(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let built = build(tree.path());
    create::publish(&built, first.path()).unwrap();
    let again = build(tree.path());
    create::publish(&again, second.path()).unwrap();
    assert_eq!(built.flist, again.flist);
    for name in create::published_files(&built.flist) {
        let (first, second) = (first.path().join(&name), second.path().join(&name));
        assert_eq!(fs::read(first).unwrap(), fs::read(second).unwrap(), "{name}");
    }
    // A later time is enough for another identity, unless it is clamped.
    let file = fs::File::open(tree.path().join("etc/64")).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_hours(1)).unwrap();
    assert_ne!(build(tree.path()).flist, built.flist);
    let clamped = Options { mtime_max: 1, ..Options::default() };
    let one = create::build_directory(tree.path(), &clamped, &()).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    let two = create::build_directory(tree.path(), &clamped, &()).unwrap();
    assert_eq!(one.flist, two.flist);
}

#[test]
fn what_was_published_can_be_checked_and_unpacked() {
    let (tree, out, to) = (tree(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let built = build(tree.path());
    create::publish(&built, out.path()).unwrap();
    create::publish(&built, out.path()).unwrap();
    let source = Source::new([out.path().to_str().unwrap()]).unwrap();
    let identity = built.flist.identity();

    let summary = create::verify_published(&source, identity, &()).unwrap();
    assert_eq!(summary, create::inspect(&built.flist.encode()).unwrap());
    assert_eq!((summary.files, summary.links, summary.symlinks), (10, 1, 1));
    assert_eq!(summary.contents, 3);

    let unpacked = to.path().join("tree");
    create::unpack(&source, identity, &unpacked, &()).unwrap();
    assert_eq!(fs::read(unpacked.join("bin/app")).unwrap(), noise(3 * (1 << 20) + 17));
    let (app, same) =
        (fs::metadata(unpacked.join("bin/app")), fs::metadata(unpacked.join("bin/same")));
    assert_eq!(app.as_ref().unwrap().ino(), same.unwrap().ino());
    assert_eq!(app.unwrap().mode() & 0o7777, 0o4755);
    // What was unpacked is the same flist again.
    assert_eq!(build(&unpacked).flist, built.flist);
    assert!(create::unpack(&source, identity, &unpacked, &()).is_err(), "it exists");
}

#[test]
fn a_published_file_that_is_damaged_short_or_missing_is_found() {
    let (tree, out) = (tree(), tempfile::tempdir().unwrap());
    let built = build(tree.path());
    create::publish(&built, out.path()).unwrap();
    let source = Source::new([out.path().to_str().unwrap()]).unwrap();
    let check = || {
        let error = create::verify_published(&source, built.flist.identity(), &()).unwrap_err();
        let CreateError::Published { source, .. } = error else { panic!("{error}") };
        source.reason.code()
    };
    let names = create::published_files(&built.flist);
    for (name, wrong) in names.iter().zip(["content_mismatch", "content_mismatch"]) {
        let path = out.path().join(name);
        let good = fs::read(&path).unwrap();
        let mut bytes = good.clone();
        bytes[good.len() / 2] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(check(), wrong, "{name}");
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        let short = if name.starts_with("packs") { "content_truncated" } else { wrong };
        assert_eq!(check(), short, "{name}");
        fs::remove_file(&path).unwrap();
        assert_eq!(check(), "content_missing", "{name}");
        fs::write(&path, &good).unwrap();
    }
    create::verify_published(&source, built.flist.identity(), &()).unwrap();
}

#[test]
fn special_files_are_refused_or_left_out() {
    let tree = tree();
    let path = tree.path().join("data/socket");
    let _socket = std::os::unix::net::UnixListener::bind(path).unwrap();
    let error = create::build_directory(tree.path(), &Options::default(), &()).unwrap_err();
    assert!(error.to_string().ends_with("data/socket is a device node, fifo or socket"), "{error}");
    let options = Options { special: Special::Omit, ..Options::default() };
    let built = create::build_directory(tree.path(), &options, &()).unwrap();
    assert!(!names(&built.flist).contains(&"data/socket".to_owned()));
}

#[test]
fn the_caller_decides_how_it_is_started() {
    let tree = tree();
    let run = Overrides {
        entrypoint: Some(vec!["/bin/app".into()]),
        env: vec!["A=1".into()],
        user: Some("web".into()),
        ..Overrides::default()
    };
    let options = Options { run, owner: Some((5, 6)), ..Options::default() };
    let built = create::build_directory(tree.path(), &options, &()).unwrap();
    let run = &built.flist.body().run;
    assert_eq!((run.uid, run.gid), (33, 34));
    assert_eq!(
        (&run.entrypoint[..], &run.env[..]),
        (&["/bin/app".into()][..], &["A=1".into()][..])
    );
    assert!(matches!(node(&built.flist, "bin"), Node::Directory(meta) if meta.uid == 5));
}

/// A tar file from the system's program becomes the same flist as its directory.
#[test]
fn a_tar_file_gives_the_flist_of_its_directory() {
    let (tree, out) = (tree(), tempfile::tempdir().unwrap());
    let expected = build(tree.path()).flist;
    for (format, compression) in
        [("gnu", "--no-auto-compress"), ("pax", "--gzip"), ("posix", "--zstd"), ("ustar", "--gzip")]
    {
        let path = out.path().join(format);
        common::run(
            "tar",
            &[
                "--numeric-owner",
                &format!("--format={format}"),
                compression,
                "-C",
                common::text(tree.path()),
                "-cf",
                common::text(&path),
                ".",
            ],
        );
        let built = create::build_tar(&path, &Options::default(), &()).unwrap();
        assert_eq!(built.flist, expected, "{format}");
    }
}

fn build_members(members: &[Vec<u8>]) -> Result<create::Built, CreateError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&members.concat()).unwrap();
    file.flush().unwrap();
    create::build_tar(file.path(), &Options::default(), &())
}

#[test]
fn long_names_of_both_kinds_are_understood() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let record = |text: &str| format!("{} {text}\n", text.len() + 5);
    let pax = member("x", b'x', "", record(&format!("path={long}")).as_bytes());
    let gnu = member("x", b'L', "", format!("{long}\0").as_bytes());
    let file = member("short", b'0', "", b"bytes");
    for extension in [pax, gnu] {
        let built = build_members(&[extension, file.clone(), vec![0; 1024]]).unwrap();
        assert!(names(&built.flist).contains(&long));
    }
}

#[test]
fn ambiguous_and_hostile_archives_are_refused() {
    let file = |path: &str| member(path, b'0', "", b"bytes");
    let mut damaged = file("a");
    damaged[0] = b'b';
    let rows: &[(&str, Vec<Vec<u8>>, &str)] = &[
        ("above", vec![file("../a")], "empty name, . or .."),
        ("inside above", vec![file("a/../../b")], "empty name, . or .."),
        ("twice", vec![file("a"), file("./a")], "comes twice"),
        ("through a symlink", vec![member("a", b'2', "/etc", b""), file("a/b")], "no directory"),
        ("through a file", vec![file("a"), file("a/b")], "no directory"),
        ("hard link to nothing", vec![member("a", b'1', "b", b"")], "which is no file"),
        (
            "hard link to a directory",
            vec![member("b", b'5', "", b""), member("a", b'1', "b", b"")],
            "which is no file",
        ),
        ("device", vec![member("a", b'3', "", b"")], "device node"),
        ("fifo", vec![member("a", b'6', "", b"")], "fifo"),
        ("unknown", vec![member("a", b'S', "", b"")], "unknown kind"),
        ("two sizes", vec![member("x", b'x', "", b"9 size=7\n"), file("a")], "two sizes"),
        (
            "two extensions",
            vec![
                member("x", b'x', "", b"9 path=b\n"),
                member("x", b'x', "", b"9 path=c\n"),
                file("a"),
            ],
            "follow each other",
        ),
        (
            "two long names",
            vec![member("x", b'L', "", b"b"), member("x", b'x', "", b"9 path=c\n"), file("a")],
            "in two ways",
        ),
        ("extension of nothing", vec![member("x", b'x', "", b"9 path=b\n")], "ends behind"),
        ("global path", vec![member("x", b'g', "", b"9 path=b\n"), file("a")], "every entry"),
        ("sparse", vec![member("x", b'x', "", b"22 GNU.sparse.major=1\n"), file("a")], "sparse"),
        ("directory with bytes", vec![member("a/", b'5', "", b"x")], "has contents"),
        ("file like a directory", vec![file("a/")], "written like a directory"),
        ("hidden tail", vec![file("a"), vec![0; 1024], file("b")], "follows its end"),
        ("checksum", vec![damaged], "checksum"),
        ("cut in a header", vec![file("a")[..300].to_vec()], "within a header"),
        (
            "cut in a file",
            vec![member("a", b'0', "", &[1; 2000])[..1024].to_vec()],
            "middle of a file",
        ),
        ("the root is a file", vec![file(".")], "no directory"),
    ];
    for (what, members, problem) in rows {
        let error = build_members(members).unwrap_err().to_string();
        assert!(error.contains(problem), "{what}: {error}");
    }
    // The same pieces in good order are fine.
    let good =
        [file("a"), member("b", b'1', "a", b""), member("c", b'2', "../x", b""), vec![0; 2048]];
    build_members(&good).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_archives_never_panic(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let pax = member("x", b'x', "", b"12 path=a/b\n12 size=5\n");
        let link = member("l", b'1', "dir/file", b"");
        let file = member("dir/file", b'0', "", b"bytes");
        let mut archive = [pax, file.clone(), file, link, vec![0; 1024]].concat();
        for (place, value) in places {
            // Mostly where the headers say something.
            let place = place.index(archive.len());
            archive[place] = value;
            let header = place / 512 * 512;
            let mut sum = tar::Header::from_byte_slice(&archive[header..header + 512]).clone();
            sum.set_cksum();
            archive[header..header + 512].copy_from_slice(sum.as_bytes());
        }
        if let Ok(built) = build_members(&[archive]) {
            prop_assert_eq!(Flist::decode(&built.flist.encode()), Ok(built.flist));
        }
    }
}

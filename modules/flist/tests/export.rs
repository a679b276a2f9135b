//! Comparing, unpacking and exporting published flists, and building them again from the result.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is tests"
)]

mod common;

use common::image::{CONFIG, layer, layout, member, two_layers};
use flist::{
    Flist, Source,
    body::{Data, Meta, Node, Xattr},
    create::{self, Built, CreateError, Options, Overrides},
};
use std::{fs, os::unix::fs::MetadataExt as _, path::Path};
use tempfile::TempDir;

fn options() -> Options {
    Options { mount_points: Vec::new(), ..Options::default() }
}

/// Published, with the place where it is.
struct Published {
    built: Built,
    out: TempDir,
}

impl Published {
    fn new(built: Built) -> Self {
        let out = tempfile::tempdir().unwrap();
        create::publish(&built, out.path()).unwrap();
        Self { built, out }
    }

    fn source(&self) -> Source {
        Source::new([common::text(self.out.path())]).unwrap()
    }

    fn tar(&self, to: &Path) -> Result<create::Summary, CreateError> {
        create::export_tar(&self.source(), self.built.flist.identity(), to, &())
    }

    fn oci(&self, to: &Path) -> Result<create::Summary, CreateError> {
        create::export_oci(&self.source(), self.built.flist.identity(), to, Some("app:1"), &())
    }

    fn unpack(&self, to: &Path) -> Result<create::Summary, CreateError> {
        create::unpack(&self.source(), self.built.flist.identity(), to, &())
    }
}

/// One of everything: long names, attributes, large numbers, links, contents of all sizes.
fn everything() -> Vec<u8> {
    let record = |key: &str, value: &str| {
        let record = |length: usize| format!("{length} {key}={value}\n");
        record((0..10_000).find(|length| record(*length).len() == *length).unwrap())
    };
    let mut records = record("path", &format!("{}/{}", "d".repeat(99), "f".repeat(200)));
    records += &record("SCHILY.xattr.user.note", "a=b\nc");
    records += &record("SCHILY.xattr.security.capability", "\u{1}\0\0\u{2}xxxxxxxxxxxxxxxx");
    records += &record("uid", "4000000000");
    records += &record("gid", "2097152");
    records += &record("mtime", "9000000000");
    let target = record("linkpath", &"../t".repeat(100));
    [
        member("./", b'5', "", b""),
        member("x", b'x', "", records.as_bytes()),
        member("short", b'0', "", &vec![7; 3 << 20]),
        member("bin/b", b'0', "", &[8; 513]),
        member("bin/a", b'1', "bin/b", b""),
        member("bin/c", b'1', "bin/a", b""),
        member("x", b'x', "", target.as_bytes()),
        member("link", b'2', "short", b""),
        member("small", b'0', "", b"x"),
        member("empty", b'0', "", b""),
        member("\u{e9}\\", b'0', "", b"not ascii"),
        layer(&["etc/", "etc/passwd: web:x:33:34::/:/bin/sh\n", "lib -> usr/lib"]),
    ]
    .concat()
}

fn build_tar(bytes: &[u8], options: &Options) -> Built {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    create::build_tar(file.path(), options, &()).unwrap()
}

fn started() -> Options {
    let run = Overrides {
        entrypoint: Some(vec!["/bin/a".into(), String::new()]),
        arguments: Some(vec!["-v".into()]),
        env: vec!["A=".into(), "B=x=y".into()],
        cwd: Some("/bin".into()),
        user: Some("web:7".into()),
    };
    Options { run, ..options() }
}

#[test]
fn a_tar_file_of_an_flist_gives_the_same_flist() {
    let first = Published::new(build_tar(&everything(), &started()));
    let to = tempfile::tempdir().unwrap();
    let path = to.path().join("out.tar");
    first.tar(&path).unwrap();
    let again = create::build_archive(&path, &started(), &()).unwrap();
    assert_eq!(again.flist, first.built.flist);
    // The same bytes each time, and never over something else.
    let second = to.path().join("again.tar");
    first.tar(&second).unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(second).unwrap());
    assert!(first.tar(&path).unwrap_err().to_string().contains("exists already"));
    // The system's program reads it too.
    let listed = common::run("tar", &["-tvf", common::text(&path)]);
    assert!(listed.contains(&"f".repeat(200)), "{listed}");
    assert!(listed.contains("bin/b link to bin/a"), "{listed}");
}

#[test]
fn a_layout_of_an_flist_gives_the_same_flist() {
    for built in [
        build_tar(&everything(), &started()),
        create::build_image(layout(&two_layers(), CONFIG).path(), &options(), &()).unwrap(),
    ] {
        let first = Published::new(built);
        let (to, twin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        first.oci(to.path()).unwrap();
        let named = Options { reference: Some("app:1".into()), ..options() };
        let again = create::build_image(to.path(), &named, &()).unwrap();
        assert_eq!(again.flist, first.built.flist);
        assert!(first.oci(to.path()).unwrap_err().to_string().contains("is not empty"));
        first.oci(twin.path()).unwrap();
        let index = |to: &TempDir| fs::read(to.path().join("index.json")).unwrap();
        assert_eq!(index(&to), index(&twin));
        // And as an archive, without a word that it is an image.
        let archive = tempfile::NamedTempFile::new().unwrap();
        let (from, to) = (common::text(to.path()), common::text(archive.path()));
        common::run("tar", &["-C", from, "-cf", to, "."]);
        let again = create::build_archive(archive.path(), &options(), &()).unwrap();
        assert_eq!(again.flist, first.built.flist);
    }
}

#[test]
fn what_an_image_or_a_tar_file_cannot_say_is_not_exported() {
    let to = tempfile::tempdir().unwrap();
    let hiding = Published::new(build_tar(&member("a/.wh.b", b'0', "", b""), &options()));
    let error = hiding.oci(&to.path().join("oci")).unwrap_err().to_string();
    assert!(error.contains("would hide something"), "{error}");
    hiding.tar(&to.path().join("tar")).unwrap();

    let mut body = build_tar(&member("a", b'0', "", b""), &options()).flist.body().clone();
    let xattrs = vec![Xattr { name: b"user.a=b".to_vec(), value: b"c".to_vec() }];
    body.entries[1].node = Node::File(Meta { xattrs, ..Meta::default() }, Data::Inline(Vec::new()));
    let flist = Flist::from_body(body).unwrap();
    let out = tempfile::tempdir().unwrap();
    fs::create_dir(out.path().join("flists")).unwrap();
    let path = out.path().join("flists").join(flist.identity().to_string());
    fs::write(path, flist.encode()).unwrap();
    let source = Source::new([common::text(out.path())]).unwrap();
    let path = to.path().join("xattr.tar");
    let error = create::export_tar(&source, flist.identity(), &path, &()).unwrap_err();
    assert!(error.to_string().contains("a tar file cannot say"), "{error}");
    assert!(!path.exists(), "nothing half written is left");
}

#[test]
fn an_flist_is_unpacked_into_an_empty_directory_only() {
    let published = Published::new(build_tar(&everything(), &options()));
    let to = tempfile::tempdir().unwrap();
    published.unpack(to.path()).unwrap();
    let (a, c) = (fs::metadata(to.path().join("bin/a")), fs::metadata(to.path().join("bin/c")));
    assert_eq!(a.unwrap().ino(), c.unwrap().ino());
    assert_eq!(fs::read(to.path().join("small")).unwrap(), b"x");
    let error = published.unpack(to.path()).unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
    let missing = to.path().join("not/there");
    assert!(published.unpack(&missing).is_err(), "its parent is missing");
}

/// An absolute symlink of the flist leads nowhere while it is unpacked.
#[test]
fn nothing_is_written_outside_of_the_directory() {
    let (outside, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = common::text(outside.path()).to_owned();
    let archive = [
        member("a", b'2', &target, b""),
        member("b/up", b'2', "../../..", b""),
        member("b/file", b'0', "", b"x"),
    ]
    .concat();
    let published = Published::new(build_tar(&archive, &options()));
    published.unpack(&to.path().join("new")).unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1);
    assert_eq!(fs::read_link(to.path().join("new/a")).unwrap(), outside.path());
}

#[test]
fn a_file_with_wrong_bytes_is_not_left_behind() {
    let archive = [member("a", b'0', "", &[1; 100]), member("b", b'0', "", &[2; 100])].concat();
    let published = Published::new(build_tar(&archive, &options()));
    let to = tempfile::tempdir().unwrap();
    published.unpack(&to.path().join("good")).unwrap();
    // The digest of the second file is another: its chunk is right, the whole is not.
    let mut body = published.built.flist.body().clone();
    let Node::File(_, Data::Content(second)) = body.entries[2].node else { panic!() };
    body.contents[second as usize].digest[31] ^= 1;
    let flist = Flist::from_body(body).unwrap();
    let path = published.out.path().join("flists").join(flist.identity().to_string());
    fs::write(path, flist.encode()).unwrap();
    let bad = to.path().join("bad");
    let error = create::unpack(&published.source(), flist.identity(), &bad, &()).unwrap_err();
    assert_eq!(error.to_string(), "checking /b");
    assert!(bad.join("a").exists());
    assert!(!bad.join("b").exists());
}

#[test]
fn two_flists_are_compared_file_by_file() {
    let old = [
        member("bin/", b'5', "", b""),
        member("bin/app", b'0', "", &[1; 100]),
        member("bin/gone", b'0', "", b"x"),
        member("l", b'2', "bin/app", b""),
        member("same", b'0', "", b"same"),
        member("turned", b'0', "", b"x"),
    ];
    let mut wider = member("bin/", b'5', "", b"");
    wider[100..107].copy_from_slice(b"0000755");
    let mut header = tar::Header::from_byte_slice(&wider[..512]).clone();
    header.set_cksum();
    let new = [
        header.as_bytes().to_vec(),
        member("bin/app", b'0', "", &[1; 101]),
        member("bin/come", b'1', "bin/app", b""),
        member("l", b'2', "bin/come", b""),
        member("same", b'0', "", b"same"),
        member("turned", b'5', "", b""),
    ];
    let old = build_tar(&old.concat(), &options()).flist;
    let new = build_tar(&new.concat(), &started_simply()).flist;
    let found = create::diff(&old, &new);
    let names = |named: &[create::Named]| {
        let named = named.iter().map(|one| format!("{} {} {}", one.kind, one.path, one.size));
        named.collect::<Vec<_>>()
    };
    assert_eq!(names(&found.added), ["link /bin/come 101"]);
    assert_eq!(names(&found.removed), ["file /bin/gone 1"]);
    let changed: Vec<_> = found
        .changed
        .iter()
        .map(|changed| {
            let facts: Vec<_> = changed.facts.iter().map(|fact| fact.what.as_str()).collect();
            format!("{}: {}", changed.path, facts.join(" "))
        })
        .collect();
    assert_eq!(
        changed,
        ["/bin: mode", "/bin/app: content size", "/l: target", "/turned: content kind size",]
    );
    let mode = &found.changed[0].facts[0];
    assert_eq!((mode.old.as_str(), mode.new.as_str()), ("0644", "0755"));
    assert_eq!(found.run.len(), 1);
    assert_eq!((found.run[0].what.as_str(), found.run[0].new.as_str()), ("cwd", "/bin"));
    assert!(!found.repacked);
    assert!(create::diff(&old, &old).is_empty());
    // Turned round, what was added is removed.
    assert_eq!(create::diff(&new, &old).removed, found.added);
}

fn started_simply() -> Options {
    let run = Overrides { cwd: Some("/bin".into()), ..Overrides::default() };
    Options { run, ..options() }
}

/// The publisher may compress better tomorrow: another identity, and nothing to look at.
#[test]
fn flists_that_are_only_packed_differently_say_so() {
    let flist = build_tar(&member("a", b'0', "", &[1; 100]), &options()).flist;
    let mut body = flist.body().clone();
    body.packs[0].id[0] ^= 1;
    let other = Flist::from_body(body).unwrap();
    let found = create::diff(&flist, &other);
    assert!(found.repacked && !found.is_empty());
    assert!(found.changed.is_empty());
}

//! Hostile tar files and layers, each under its own name, beside the harmless one that is taken.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is tests"
)]

mod common;

use common::image::{CONFIG, Saved, layer, member};
use flist::{
    Flist,
    body::Node,
    create::{self, CreateError, Options},
};
use std::fs;

fn file(path: &str) -> Vec<u8> {
    member(path, b'0', "", b"bytes")
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let line = |(key, value): &(&str, &str)| {
        let record = |length: usize| format!("{length} {key}={value}\n");
        record((0..10_000).find(|length| record(*length).len() == *length).unwrap())
    };
    member("x", b'x', "", records.iter().map(line).collect::<String>().as_bytes())
}

/// The header with these bytes at this place, and the right checksum.
fn patched(mut member: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    member[at..at + bytes.len()].copy_from_slice(bytes);
    let mut header = tar::Header::from_byte_slice(&member[..512]).clone();
    header.set_cksum();
    member[..512].copy_from_slice(header.as_bytes());
    member
}

fn build(members: &[Vec<u8>]) -> Result<Flist, CreateError> {
    let archive = tempfile::NamedTempFile::new().unwrap();
    fs::write(archive.path(), members.concat()).unwrap();
    let options = Options { mount_points: Vec::new(), ..Options::default() };
    create::build_tar(archive.path(), &options, &()).map(|built| built.flist)
}

/// `hostile` is refused with these words, `harmless` is taken.
fn check(hostile: &[Vec<u8>], problem: &str, harmless: &[Vec<u8>]) {
    build(harmless).unwrap();
    let error = build(hostile).unwrap_err().to_string();
    assert!(error.contains(problem), "{error}");
}

/// A reader of one size takes for a header what a reader of the other takes for contents.
#[test]
fn a_size_that_the_extended_header_changes_is_refused() {
    let hidden = file("hidden");
    let outer = |size: &str| vec![pax(&[("size", size)]), member("a", b'0', "", &hidden)];
    check(&outer("0"), "has two sizes", &outer("1024"));
}

#[test]
fn a_negative_size_is_refused() {
    let size = patched(file("a"), 124, &[0xff; 12]);
    check(&[size], "no valid size", &[file("a")]);
}

#[test]
fn a_size_whose_upper_bytes_are_outside_a_number_is_refused() {
    let binary = |upper: u8| patched(file("a"), 124, &[0x80, 0, upper, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    check(&[binary(1)], "no valid size", &[binary(0)]);
}

#[test]
fn a_size_with_a_sign_is_refused() {
    check(
        &[patched(file("a"), 124, b"+0000000005\0")],
        "no valid size",
        &[patched(file("a"), 124, b"          5\0")],
    );
}

#[test]
fn an_extended_header_with_a_key_twice_is_refused() {
    check(
        &[pax(&[("path", "a"), ("path", "b")]), file("c")],
        "has a key twice",
        &[pax(&[("path", "a")]), file("c")],
    );
}

#[test]
fn a_path_with_nul_in_an_extended_header_is_refused() {
    check(
        &[pax(&[("path", "a\0../../b")]), file("c")],
        "contains NUL",
        &[pax(&[("path", "a/b")]), file("c")],
    );
}

#[test]
fn paths_that_lead_above_the_root_are_refused() {
    for path in ["..", "../a", "a/../../b", "/../a", "./../a"] {
        check(&[file(path)], "empty name, . or ..", &[file("/./a//b")]);
    }
}

#[test]
fn a_file_that_comes_twice_is_refused() {
    check(&[file("a"), file("/a")], "comes twice", &[file("a"), file("/b")]);
}

#[test]
fn a_file_written_through_a_symlink_is_refused() {
    let link = member("dir", b'2', "/etc", b"");
    check(&[link.clone(), file("dir/passwd")], "no directory", &[link, file("other/passwd")]);
}

#[test]
fn hard_links_that_lead_to_each_other_are_refused() {
    let (a, b) = (member("a", b'1', "b", b""), member("b", b'1', "a", b""));
    check(&[a.clone(), b], "which is no file", &[a, file("b")]);
}

#[test]
fn a_hard_link_to_itself_is_refused() {
    check(
        &[member("a", b'1', "a", b"")],
        "which is no file",
        &[file("b"), member("a", b'1', "b", b"")],
    );
}

#[test]
fn a_hard_link_through_a_symlink_is_refused() {
    let link = member("l", b'2', "dir", b"");
    check(
        &[file("dir/a"), link.clone(), member("b", b'1', "l/a", b"")],
        "which is no file",
        &[file("dir/a"), link, member("b", b'1', "dir/a", b"")],
    );
}

/// Overlay file systems would obey it: hide files, or show others in their place.
#[test]
fn an_attribute_that_is_an_order_to_an_overlay_is_refused() {
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.metacopy"] {
        let key = format!("SCHILY.xattr.{name}");
        check(
            &[pax(&[(&key, "y")]), file("a")],
            "order to an overlay",
            &[pax(&[("SCHILY.xattr.user.note", "y")]), file("a")],
        );
    }
}

/// Labels and access lists belong to the machine where the archive was made.
#[test]
fn attributes_of_another_machine_do_not_get_in() {
    let records = [
        ("SCHILY.xattr.security.selinux", "a:b:c:s0"),
        ("SCHILY.xattr.system.posix_acl_access", "x"),
        ("SCHILY.xattr.user.note", "kept"),
    ];
    let flist = build(&[pax(&records), file("a")]).unwrap();
    let Node::File(meta, _) = &flist.body().entries[1].node else { panic!() };
    assert_eq!(meta.xattrs.len(), 1);
    assert_eq!(meta.xattrs[0].name, b"user.note");
}

fn build_layer(layer: Vec<u8>) -> Result<Flist, CreateError> {
    let archive = tempfile::NamedTempFile::new().unwrap();
    let config = CONFIG.replace("\"web\"", "\"0\"");
    let base = common::image::layer(&["a: 1", "dir/", "dir/b: 1"]);
    fs::write(archive.path(), Saved::new(&[base, layer], &config).tar()).unwrap();
    let options = Options { mount_points: Vec::new(), ..Options::default() };
    create::build_image(archive.path(), &options, &()).map(|built| built.flist)
}

fn check_layer(hostile: Vec<u8>, problem: &str, harmless: Vec<u8>) {
    build_layer(harmless).unwrap();
    let error = build_layer(hostile).unwrap_err().to_string();
    assert!(error.contains(problem), "{error}");
}

#[test]
fn a_whiteout_that_hides_the_parent_is_refused() {
    for name in [".wh.", ".wh..", ".wh...", "dir/.wh..."] {
        check_layer(file(name), "hides nothing", file("dir/.wh.b"));
    }
}

#[test]
fn a_file_below_a_whiteout_is_refused() {
    check_layer(file("dir/.wh.b/c"), "below a name that hides", file("dir/c"));
}

/// What a layer brings is not hidden by the same layer, whatever the order.
#[test]
fn a_whiteout_hides_lower_layers_only() {
    for names in [["a: 2", ".wh.a"], [".wh.a", "a: 2"]] {
        let flist = build_layer(layer(&names)).unwrap();
        assert_eq!(flist.body().entries[1].path, b"a", "{names:?}");
    }
}

#[test]
fn bookkeeping_of_aufs_does_not_get_in() {
    let flist = build_layer(layer(&[".wh..wh.plnk/", ".wh..wh.plnk/1.2", ".wh..wh.aufs"])).unwrap();
    let names: Vec<_> = flist.body().entries.iter().map(|entry| &entry.path[..]).collect();
    assert_eq!(names, [&b""[..], b"a", b"dir", b"dir/b"]);
}

#[test]
fn bytes_behind_the_end_of_a_layer_are_refused() {
    let end = vec![0; 1024];
    let hidden = [layer(&["c: 1"]), file("hidden"), end.clone()].concat();
    check_layer(hidden, "follows its end", [layer(&["c: 1"]), end].concat());
}

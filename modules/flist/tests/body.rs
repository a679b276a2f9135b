//! One body, one encoding; and no bytes that make the decoder panic or accept what it must not.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is tests"
)]

mod common;

use common::{Sorted as _, sample};
use flist::{
    Flist, FlistId,
    body::{Body, CHUNK, Chunk, Data, Entry, Meta, Node, Xattr},
    erofs,
};
use proptest::prelude::*;

#[test]
fn a_body_survives_encoding_and_keeps_its_identity() {
    let flist = Flist::from_body(sample()).unwrap();
    let bytes = flist.encode();
    assert_eq!(flist.identity(), FlistId::of(&bytes));
    assert_eq!(Flist::decode(&bytes).unwrap(), flist);
    assert_eq!(Flist::decode_as(flist.identity(), &bytes).unwrap(), flist);
}

#[test]
fn the_encoding_does_not_change() {
    // Contracts name this hash: another one here means that every published flist is lost.
    let identity = Flist::from_body(sample()).unwrap().identity();
    assert_eq!(
        identity.to_string(),
        "8020c9df69958c7cf5a0207b50b38482d95a0ed986425a6952765d8727d84fd3"
    );
}

#[test]
fn bytes_with_another_identity_are_refused() {
    let bytes = Flist::from_body(sample()).unwrap().encode();
    let refusal = Flist::decode_as(FlistId([0; 32]), &bytes).unwrap_err();
    assert_eq!(refusal.code.name(), "wrong_identity");
}

fn refused(change: impl FnOnce(&mut Body)) -> &'static str {
    let mut body = sample();
    change(&mut body);
    let built = Flist::from_body(body.clone()).unwrap_err();
    // The decoder says the same as the builder.
    let bytes = postcard_bytes(&body);
    assert_eq!(Flist::decode(&bytes).unwrap_err().code, built.code);
    built.code.name()
}

fn postcard_bytes(body: &Body) -> Vec<u8> {
    postcard::to_stdvec(body).unwrap()
}

fn at<'a>(body: &'a mut Body, path: &str) -> &'a mut Entry {
    body.entries.iter_mut().find(|entry| entry.path == path.as_bytes()).unwrap()
}

fn meta<'a>(body: &'a mut Body, path: &str) -> &'a mut Meta {
    match &mut at(body, path).node {
        Node::Directory(meta) | Node::File(meta, _) | Node::Symlink(meta, _) => meta,
        Node::Link(_) => panic!("a link has no meta"),
    }
}

#[test]
fn paths_that_leave_the_tree_or_are_ambiguous_are_refused() {
    let long_name = "n".repeat(256);
    let deep = "d/".repeat(2100) + "f";
    let names = ["zz/../x", "zz/.", "zz//x", "zz/", "zz/x\0y", "..", ".", &long_name, &deep];
    for name in names {
        let code = refused(|body| {
            let root = body.entries[0].node.clone();
            for parent in ["zz", "zz/..", "zz/."] {
                if name.len() > parent.len() && name.starts_with(parent) {
                    body.entries.push(Entry { path: parent.into(), node: root.clone() });
                }
            }
            body.entries.push(Entry { path: name.into(), node: root });
            body.entries.sort_by(|a, b| a.path.cmp(&b.path));
            // Links lead to another index now, which would be refused first.
            body.entries.retain(|entry| !matches!(entry.node, Node::Link(_)));
        });
        assert_eq!(code, "bad_path", "{name:?}");
    }
}

#[test]
fn every_rule_has_a_refusal() {
    type Change = fn(&mut Body);
    let rows: &[(&str, &str, Change)] = &[
        ("magic", "unknown_format", |b| b.magic[0] = b'Z'),
        ("format", "unknown_format", |b| b.format = 2),
        ("no root", "bad_parent", |b| drop(b.entries.remove(0))),
        ("no entries", "bad_parent", |b| b.entries.clear()),
        ("duplicate", "not_sorted", |b| b.entries.push(b.entries.last().unwrap().clone())),
        ("unsorted", "not_sorted", |b| b.entries.swap(1, 2)),
        ("orphan", "bad_parent", |b| at(b, "srv/file").path = b"sxv/file".to_vec()),
        ("below a file", "bad_parent", |b| {
            at(b, "srv/file").path = b"etc/small/x".to_vec();
            *b = b.clone().sorted();
        }),
        ("below a symlink", "bad_parent", |b| {
            at(b, "srv/file").path = b"bin-old/x".to_vec();
            *b = b.clone().sorted();
        }),
        ("mode", "bad_meta", |b| meta(b, "etc/small").mode = 0o10_000),
        ("symlink mode", "bad_meta", |b| meta(b, "bin-old").mode = 0o755),
        ("uid", "bad_meta", |b| meta(b, "etc").uid = u32::MAX),
        ("mtime", "bad_meta", |b| meta(b, "etc").mtime = u64::MAX),
        ("empty target", "bad_path", |b| {
            let Node::Symlink(_, target) = &mut at(b, "bin-old").node else { panic!() };
            target.clear();
        }),
        ("xattr trusted", "bad_xattr", |b| {
            meta(b, "etc").xattrs =
                vec![Xattr { name: b"trusted.overlay.redirect".to_vec(), value: Vec::new() }];
        }),
        ("xattr overlay", "bad_xattr", |b| {
            meta(b, "etc").xattrs =
                vec![Xattr { name: b"user.overlay.opaque".to_vec(), value: b"y".to_vec() }];
        }),
        ("xattr acl", "bad_xattr", |b| {
            let name = b"system.posix_acl_access".to_vec();
            meta(b, "etc").xattrs = vec![Xattr { name, value: Vec::new() }];
        }),
        ("xattr size", "bad_xattr", |b| {
            meta(b, "etc").xattrs = vec![Xattr { name: b"user.x".to_vec(), value: vec![0; 65536] }];
        }),
        ("xattr twice", "not_sorted", |b| {
            let xattr = Xattr { name: b"user.x".to_vec(), value: Vec::new() };
            meta(b, "etc").xattrs = vec![xattr.clone(), xattr];
        }),
        ("too long inline", "bad_content", |b| {
            let Node::File(_, data) = &mut at(b, "etc/small").node else { panic!() };
            *data = Data::Inline(vec![0; 65]);
        }),
        ("content should be inline", "bad_content", |b| b.contents[0].size = 64),
        ("chunk missing", "bad_content", |b| b.contents[1].chunks.truncate(1)),
        ("chunk too many", "bad_content", |b| b.contents[1].size = CHUNK),
        ("chunk outside its pack", "bad_content", |b| b.contents[1].chunks[1].packed = 501),
        ("chunk at the end of numbers", "bad_content", |b| {
            b.contents[1].chunks[1].offset = u64::MAX;
        }),
        ("chunk empty", "bad_content", |b| b.contents[0].chunks[0].packed = 0),
        ("chunk in no pack", "bad_reference", |b| b.contents[0].chunks[0].pack = 2),
        ("pack empty", "bad_content", |b| b.packs[0].size = 0),
        ("packs unsorted", "not_sorted", |b| b.packs.swap(0, 1)),
        ("pack unused", "bad_reference", |b| {
            b.contents[1].chunks[1] = Chunk { pack: 0, offset: 0, ..b.contents[1].chunks[1] };
        }),
        ("contents unsorted", "not_sorted", |b| b.contents.swap(0, 1)),
        ("content unused", "bad_reference", |b| {
            at(b, "srv/file").node =
                Node::Symlink(Meta { mode: 0o777, ..Meta::default() }, b"x".to_vec());
        }),
        ("content that is not there", "bad_reference", |b| {
            let Node::File(_, data) = &mut at(b, "srv/file").node else { panic!() };
            *data = Data::Content(2);
        }),
        ("link to itself", "bad_reference", |b| {
            let own = b.entries.iter().position(|e| e.path == b"bin/app2").unwrap();
            b.entries[own].node = Node::Link(u32::try_from(own).unwrap());
        }),
        ("link to a directory", "bad_reference", |b| at(b, "bin/app2").node = Node::Link(0)),
        ("link to nothing", "bad_reference", |b| at(b, "bin/app2").node = Node::Link(u32::MAX)),
        ("variable without a value", "bad_run", |b| b.run.env.push("X".into())),
        ("variable without a name", "bad_run", |b| b.run.env.push("=x".into())),
        ("variable twice", "bad_run", |b| b.run.env.push("PATH=/sbin".into())),
        ("NUL in an argument", "bad_run", |b| b.run.arguments.push("a\0b".into())),
        ("empty program", "bad_run", |b| b.run.entrypoint[0].clear()),
        ("relative directory", "bad_run", |b| b.run.cwd = "srv".into()),
        ("directory above", "bad_run", |b| b.run.cwd = "/srv/../..".into()),
        ("nobody", "bad_run", |b| b.run.uid = u32::MAX),
    ];
    for (rule, code, change) in rows {
        assert_eq!(refused(*change), *code, "{rule}");
    }
}

#[test]
fn other_spellings_of_the_same_body_are_refused() {
    let bytes = Flist::from_body(sample()).unwrap().encode();
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(Flist::decode(&longer).unwrap_err().code.name(), "not_canonical");
    // The length of the first list, one byte long, with a needless second byte.
    let place = 9;
    let mut padded = bytes.clone();
    padded[place] |= 0x80;
    padded.insert(place + 1, 0);
    assert_eq!(Flist::decode(&padded).unwrap_err().code.name(), "not_canonical");
    assert_eq!(Flist::decode(&bytes[..bytes.len() - 1]).unwrap_err().code.name(), "malformed");
    assert_eq!(Flist::decode(b"").unwrap_err().code.name(), "malformed");
}

#[test]
fn a_list_that_claims_to_be_endless_is_refused_at_once() {
    let mut bytes = Flist::from_body(sample()).unwrap().encode();
    bytes.truncate(9);
    bytes.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
    bytes.resize(5 << 20, 0);
    assert_eq!(Flist::decode(&bytes).unwrap_err().code.name(), "malformed");
}

/// Any acceptable body of a few names.
fn bodies() -> impl Strategy<Value = Body> {
    let name = "[a-c.\\-]{1,3}".prop_filter("no dots", |name| name != "." && name != "..");
    let kind = (0..4_u8, prop::collection::vec(any::<u8>(), 0..=64), 0..0o10000_u16, any::<u16>());
    prop::collection::btree_map(prop::collection::vec(name, 1..4), kind, 0..12).prop_map(|names| {
        let mut body = sample();
        body.entries.retain(|entry| entry.path.is_empty() || !matches!(entry.node, Node::Link(_)));
        body.entries.iter_mut().for_each(|entry| {
            if !entry.path.is_empty() {
                entry.path = [b"X", &entry.path[..]].concat();
            }
        });
        for (names, (kind, bytes, mode, id)) in names {
            let owner = u32::from(id);
            let meta = Meta { mode, uid: owner, gid: owner, ..Meta::default() };
            for end in 1..names.len() {
                let path = names[..end].join("/").into_bytes();
                if !body.entries.iter().any(|entry| entry.path == path) {
                    body.entries.push(Entry { path, node: Node::Directory(meta.clone()) });
                }
            }
            let path = names.join("/").into_bytes();
            let node = match kind {
                0 => Node::Directory(meta),
                1 => Node::File(meta, Data::Inline(bytes)),
                2 => Node::File(meta, Data::Content(u32::from(id) % 2)),
                _ => Node::Symlink(Meta { mode: 0o777, ..meta }, b"target".to_vec()),
            };
            if !body.entries.iter().any(|entry| entry.path == path) {
                body.entries.push(Entry { path, node });
            }
        }
        body.entries.sort_by(|a, b| a.path.cmp(&b.path));
        body
    })
}

proptest! {
    #[test]
    fn every_acceptable_body_survives_encoding(body in bodies()) {
        // Two random names may need the same path for a file and for a directory.
        if let Ok(flist) = Flist::from_body(body) {
            let decoded = Flist::decode(&flist.encode());
            prop_assert_eq!(decoded.as_ref(), Ok(&flist));
            prop_assert_eq!(erofs::digest(flist.body()), erofs::digest(decoded.unwrap().body()));
        }
    }

    #[test]
    fn damaged_bytes_never_panic_and_never_have_two_spellings(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..5),
    ) {
        let mut bytes = Flist::from_body(sample()).unwrap().encode();
        for (place, value, what) in places {
            let place = place.index(bytes.len());
            match what {
                0 => bytes[place] = value,
                1 => bytes.insert(place, value),
                _ => drop(bytes.remove(place)),
            }
        }
        if let Ok(flist) = Flist::decode(&bytes) {
            prop_assert_eq!(flist.encode(), bytes);
            // What is accepted can become an image.
            let _ = erofs::digest(flist.body());
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        prop_assert!(Flist::decode(&bytes).is_err());
    }
}

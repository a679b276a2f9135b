//! Bodies and trees that several tests use.

#![allow(dead_code, reason = "each test uses another part")]

pub(crate) mod earlier;
pub(crate) mod image;

use flist::body::{
    Body, CHUNK, Chunk, Content, Data, Entry, FORMAT, MAGIC, Meta, Node, Pack, Run, Xattr,
};
use std::{path::Path, process::Command};

/// A body with one of everything.
pub(crate) fn sample() -> Body {
    let meta = |mode| Meta { mode, uid: 7, gid: 8, mtime: 1_700_000_000, xattrs: Vec::new() };
    let mut capable = meta(0o755);
    capable.xattrs = vec![
        Xattr { name: b"security.capability".to_vec(), value: vec![1, 0, 0, 2, 0, 4, 0, 0] },
        Xattr { name: b"user.note".to_vec(), value: b"x\0y".to_vec() },
    ];
    let entry = |path: &str, node| Entry { path: path.into(), node };
    let chunk = |id, pack, offset, packed| Chunk { id: [id; 32], pack, offset, packed };
    Body {
        magic: MAGIC,
        format: FORMAT,
        run: Run {
            entrypoint: vec!["/bin/app".into()],
            arguments: vec!["--serve".into()],
            env: vec!["PATH=/bin".into(), "EMPTY=".into()],
            cwd: "/srv".into(),
            uid: 1000,
            gid: 1000,
        },
        packs: vec![Pack { id: [1; 32], size: 1000 }, Pack { id: [2; 32], size: 500 }],
        contents: vec![
            Content { digest: [3; 32], size: 65, chunks: vec![chunk(9, 0, 0, 60)] },
            Content {
                digest: [4; 32],
                size: CHUNK + 1,
                chunks: vec![chunk(10, 0, 60, 940), chunk(11, 1, 0, 500)],
            },
        ],
        entries: vec![
            entry("", Node::Directory(meta(0o755))),
            entry("bin", Node::Directory(meta(0o755))),
            entry("bin/app", Node::File(capable, Data::Content(1))),
            entry("bin/app2", Node::Link(2)),
            entry("bin-old", Node::Symlink(meta(0o777), b"bin".to_vec())),
            entry("etc", Node::Directory(meta(0o700))),
            entry("etc/empty", Node::File(meta(0o600), Data::Inline(Vec::new()))),
            entry("etc/small", Node::File(meta(0o4755), Data::Inline(b"hello".to_vec()))),
            entry("srv", Node::Directory(meta(0o1777))),
            entry("srv/file", Node::File(meta(0o644), Data::Content(0))),
        ],
    }
    .sorted()
}

/// Sorts the entries and keeps hard links right.
pub(crate) trait Sorted {
    fn sorted(self) -> Self;
}

impl Sorted for Body {
    fn sorted(mut self) -> Self {
        let old: Vec<_> = self.entries.iter().map(|entry| entry.path.clone()).collect();
        self.entries.sort_by(|a, b| a.path.cmp(&b.path));
        let places: Vec<_> = old
            .iter()
            .map(|path| self.entries.iter().position(|entry| entry.path == *path).unwrap())
            .collect();
        for entry in &mut self.entries {
            if let Node::Link(target) = &mut entry.node {
                *target = u32::try_from(places[*target as usize]).unwrap();
            }
        }
        self
    }
}

/// Runs a program of the host that the tests compare with.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| {
        panic!("{program} is missing ({error}): run `cargo xtask test`, which installs it")
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} failed:\n{text}{errors}");
    text
}

/// For programs that take paths.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

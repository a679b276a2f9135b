//! Compares two flists, file by file. Pure: bodies are enough, no content is read.

use crate::{
    Flist,
    body::{Body, Data, Entry, Meta, Node, Run},
    check::shown,
    verity,
};
use std::collections::BTreeMap;

/// How one flist differs from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Only in the new one, by path.
    pub added: Vec<Named>,
    /// Only in the old one, by path.
    pub removed: Vec<Named>,
    /// In both, and different, by path.
    pub changed: Vec<Changed>,
    /// How it is started.
    pub run: Vec<Fact>,
    /// Everything above is the same, and only the way of packing is not.
    pub repacked: bool,
}

/// A name of one of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// With a slash in front; bytes that are no text are escaped.
    pub path: String,
    /// `directory`, `file`, `symlink` or `link`, which is a further name of a file.
    pub kind: &'static str,
    /// Bytes of a file.
    pub size: u64,
}

/// A name of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// As in [`Named`].
    pub path: String,
    /// What is different, at least one.
    pub facts: Vec<Fact>,
}

/// Something that is different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// `kind`, `content`, `size`, `mode`, `owner`, `mtime`, `target`, `link`, `xattr` with a name, or
    /// a word of the run configuration.
    pub what: String,
    /// In the old one.
    pub old: String,
    /// In the new one.
    pub new: String,
}

impl Diff {
    /// Whether both have the same identity.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// What has to change in `old` to get `new`.
pub fn diff(old: &Flist, new: &Flist) -> Diff {
    let mut diff = Diff { run: run(&old.body().run, &new.body().run), ..Diff::default() };
    let (mut before, mut after) =
        (old.body().entries.iter().peekable(), new.body().entries.iter().peekable());
    // Both are sorted by path.
    loop {
        let (first, second) = (before.peek(), after.peek());
        let order = match (first, second) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(first), Some(second)) => first.path.cmp(&second.path),
        };
        let first = before.next_if(|_| order.is_le()).map(|entry| View::of(old.body(), entry));
        let second = after.next_if(|_| order.is_ge()).map(|entry| View::of(new.body(), entry));
        match (first, second) {
            (Some(gone), None) => diff.removed.push(gone.named()),
            (None, Some(come)) => diff.added.push(come.named()),
            (Some(first), Some(second)) => {
                let facts = facts(&first.facts(), &second.facts());
                if !facts.is_empty() {
                    diff.changed.push(Changed { path: shown(&first.entry.path), facts });
                }
            }
            (None, None) => {}
        }
    }
    diff.repacked = diff.is_empty() && old.identity() != new.identity();
    diff
}

/// An entry, with what stands elsewhere in its body.
struct View<'a> {
    body: &'a Body,
    entry: &'a Entry,
    /// The entry with the bytes: another one for a hard link.
    file: &'a Entry,
}

impl<'a> View<'a> {
    fn of(body: &'a Body, entry: &'a Entry) -> Self {
        let file = match entry.node {
            Node::Link(first) => &body.entries[first as usize],
            Node::Directory(_) | Node::File(..) | Node::Symlink(..) => entry,
        };
        Self { body, entry, file }
    }

    fn named(&self) -> Named {
        let size = match &self.file.node {
            Node::File(_, data) => self.content(data).0,
            Node::Directory(_) | Node::Symlink(..) | Node::Link(_) => 0,
        };
        Named { path: shown(&self.entry.path), kind: kind(&self.entry.node), size }
    }

    fn content(&self, data: &Data) -> (u64, [u8; 32]) {
        match data {
            Data::Inline(bytes) => (bytes.len() as u64, verity::digest(bytes)),
            Data::Content(content) => {
                let content = &self.body.contents[*content as usize];
                (content.size, content.digest)
            }
        }
    }

    /// Everything that can be different, by its name.
    fn facts(&self) -> BTreeMap<String, String> {
        // Whether a name is the first of its file depends on other names.
        let mut facts = BTreeMap::from([("kind".to_owned(), kind(&self.file.node).to_owned())]);
        let mut add = |what: &str, value: String| drop(facts.insert(what.to_owned(), value));
        let meta = match &self.file.node {
            Node::Directory(meta) => meta,
            Node::Symlink(meta, target) => {
                add("target", target.escape_ascii().to_string());
                meta
            }
            Node::File(meta, data) => {
                let (size, digest) = self.content(data);
                add("size", size.to_string());
                add("content", hex::encode(digest));
                if matches!(self.entry.node, Node::Link(_)) {
                    add("link", shown(&self.file.path));
                }
                meta
            }
            Node::Link(_) => return facts,
        };
        let Meta { mode, uid, gid, mtime, xattrs } = meta;
        add("mode", format!("{mode:04o}"));
        add("owner", format!("{uid}:{gid}"));
        add("mtime", mtime.to_string());
        for xattr in xattrs {
            add(&format!("xattr {}", xattr.name.escape_ascii()), hex::encode(&xattr.value));
        }
        facts
    }
}

fn kind(node: &Node) -> &'static str {
    match node {
        Node::Directory(_) => "directory",
        Node::File(..) => "file",
        Node::Symlink(..) => "symlink",
        Node::Link(_) => "link",
    }
}

fn run(old: &Run, new: &Run) -> Vec<Fact> {
    let said = |run: &Run| {
        let Run { entrypoint, arguments, env, cwd, uid, gid } = run;
        let words = |words: &[String]| format!("{words:?}");
        BTreeMap::from([
            ("entrypoint".to_owned(), words(entrypoint)),
            ("arguments".to_owned(), words(arguments)),
            ("env".to_owned(), words(env)),
            ("cwd".to_owned(), cwd.clone()),
            ("user".to_owned(), format!("{uid}:{gid}")),
        ])
    };
    facts(&said(old), &said(new))
}

/// What is missing on a side is empty there.
fn facts(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<Fact> {
    let value = |facts: &BTreeMap<String, String>, what: &String| {
        facts.get(what).cloned().unwrap_or_default()
    };
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let facts = names.into_iter().map(|what| Fact {
        what: what.clone(),
        old: value(old, what),
        new: value(new, what),
    });
    facts.filter(|fact| fact.old != fact.new).collect()
}

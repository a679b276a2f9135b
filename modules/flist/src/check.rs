//! Decides whether a body is acceptable. Pure; every refusal has a stable code.
//!
//! What passes here can be turned into a metadata image, fetched and mounted without another look:
//! indices are in range, parents are directories, names cannot leave the tree, and no attribute
//! means anything to overlayfs.

use crate::body::{
    Body, CHUNK, Content, Data, Entry, FORMAT, INLINE_MAX, MAGIC, MTIME_MAX, Meta, NAME_MAX, Node,
    PACK_MAX, PACKED_MORE, PATH_MAX, Run, WORD_MAX, XATTRS_BYTES_MAX,
};

/// Why a body is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("flist refused ({code}): {reason}", code = .code.name())]
pub struct Refusal {
    /// What kind of rule it breaks.
    pub code: RefusalCode,
    /// The rule and the offender, as a sentence.
    pub reason: String,
}

/// The kinds of rules. Their names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalCode {
    /// Larger than the limit.
    TooLarge,
    /// Not an flist, or of another format.
    UnknownFormat,
    /// The bytes do not decode.
    Malformed,
    /// The bytes are not what this code would write for the same content.
    NotCanonical,
    /// A list is not sorted, or an item is there twice.
    NotSorted,
    /// A path, name or link target breaks a rule.
    BadPath,
    /// A parent is missing or no directory.
    BadParent,
    /// Mode, owner or time out of range.
    BadMeta,
    /// An extended attribute that is not allowed.
    BadXattr,
    /// A content, chunk or pack breaks a rule.
    BadContent,
    /// An index points to nothing, or to the wrong thing.
    BadReference,
    /// The run configuration breaks a rule.
    BadRun,
    /// The bytes do not have the hash that was asked for.
    WrongIdentity,
}

impl RefusalCode {
    /// Stable name, for reports and tests.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::UnknownFormat => "unknown_format",
            Self::Malformed => "malformed",
            Self::NotCanonical => "not_canonical",
            Self::NotSorted => "not_sorted",
            Self::BadPath => "bad_path",
            Self::BadParent => "bad_parent",
            Self::BadMeta => "bad_meta",
            Self::BadXattr => "bad_xattr",
            Self::BadContent => "bad_content",
            Self::BadReference => "bad_reference",
            Self::BadRun => "bad_run",
            Self::WrongIdentity => "wrong_identity",
        }
    }
}

pub(crate) fn refuse<T>(code: RefusalCode, reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, reason: reason.into() })
}

/// A path for messages: raw bytes, with whatever is not text replaced.
pub(crate) fn shown(path: &[u8]) -> String {
    format!("/{}", path.escape_ascii())
}

/// Accepts or refuses a decoded body.
pub fn check(body: &Body) -> Result<(), Refusal> {
    if body.magic != MAGIC || body.format != FORMAT {
        return refuse(RefusalCode::UnknownFormat, "this is no flist of format 1");
    }
    check_run(&body.run)?;
    check_packs(body)?;
    check_contents(body)?;
    check_entries(body)
}

fn check_run(run: &Run) -> Result<(), Refusal> {
    let words = run.entrypoint.iter().chain(&run.arguments).chain(&run.env).chain([&run.cwd]);
    for word in words {
        if word.len() > WORD_MAX || word.contains('\0') {
            return refuse(RefusalCode::BadRun, "a word is too long or contains NUL");
        }
    }
    if run.entrypoint.first().is_some_and(String::is_empty) {
        return refuse(RefusalCode::BadRun, "the entry point is an empty name");
    }
    let mut names = std::collections::BTreeSet::new();
    for variable in &run.env {
        match variable.split_once('=') {
            Some((name, _)) if !name.is_empty() && names.insert(name) => {}
            Some(_) | None => {
                let reason = format!("variable {variable:?} has no name, no value or comes twice");
                return refuse(RefusalCode::BadRun, reason);
            }
        }
    }
    let inside = |cwd: &str| cwd.starts_with('/') && cwd.split('/').all(|name| name != "..");
    if !run.cwd.is_empty() && (!inside(&run.cwd) || run.cwd.len() > PATH_MAX) {
        return refuse(RefusalCode::BadRun, "the working directory is not an absolute path");
    }
    if run.uid == u32::MAX || run.gid == u32::MAX {
        return refuse(RefusalCode::BadRun, "user or group 4294967295 means nobody");
    }
    Ok(())
}

fn check_packs(body: &Body) -> Result<(), Refusal> {
    if !body.packs.is_sorted_by(|a, b| a.id < b.id) {
        return refuse(RefusalCode::NotSorted, "packs are not sorted by id");
    }
    if body.packs.iter().any(|pack| pack.size == 0 || pack.size > PACK_MAX) {
        return refuse(RefusalCode::BadContent, "a pack is empty or too large");
    }
    Ok(())
}

fn check_contents(body: &Body) -> Result<(), Refusal> {
    if !body.contents.is_sorted_by(|a, b| a.digest < b.digest) {
        return refuse(RefusalCode::NotSorted, "contents are not sorted by digest");
    }
    let mut used = vec![false; body.packs.len()];
    for content in &body.contents {
        check_content(body, content, &mut used)?;
    }
    if used.contains(&false) {
        return refuse(RefusalCode::BadReference, "a pack is not used");
    }
    Ok(())
}

fn check_content(body: &Body, content: &Content, used: &mut [bool]) -> Result<(), Refusal> {
    let name = hex::encode(content.digest);
    if content.size <= INLINE_MAX as u64 {
        return refuse(RefusalCode::BadContent, format!("content {name} belongs inline"));
    }
    if content.size.div_ceil(CHUNK) != content.chunks.len() as u64 {
        return refuse(RefusalCode::BadContent, format!("content {name} misses a chunk"));
    }
    for (number, chunk) in content.chunks.iter().enumerate() {
        let plain = content.chunk_size(number) as u64;
        let packed_max = plain + plain / 256 + PACKED_MORE;
        let Some(pack) = body.packs.get(chunk.pack as usize) else {
            return refuse(RefusalCode::BadReference, format!("content {name} names no pack"));
        };
        let end = chunk.offset.checked_add(u64::from(chunk.packed));
        let inside = end.is_some_and(|end| end <= pack.size);
        if !inside || chunk.packed == 0 || u64::from(chunk.packed) > packed_max {
            return refuse(RefusalCode::BadContent, format!("a chunk of {name} leaves its pack"));
        }
        used[chunk.pack as usize] = true;
    }
    Ok(())
}

fn check_entries(body: &Body) -> Result<(), Refusal> {
    match body.entries.first() {
        Some(Entry { path, node: Node::Directory(_) }) if path.is_empty() => {}
        Some(_) | None => return refuse(RefusalCode::BadParent, "the first entry is not the root"),
    }
    let unsorted = body.entries.windows(2).find(|pair| pair[0].path >= pair[1].path);
    if let Some(pair) = unsorted {
        let reason = format!("{} is out of order or comes twice", shown(&pair[1].path));
        return refuse(RefusalCode::NotSorted, reason);
    }
    let mut used = vec![false; body.contents.len()];
    for (index, entry) in body.entries.iter().enumerate() {
        if index > 0 {
            check_path(&entry.path)?;
            check_parent(&body.entries[..index], &entry.path)?;
        }
        check_node(body, index, entry, &mut used)?;
    }
    if used.contains(&false) {
        return refuse(RefusalCode::BadReference, "a content is not used");
    }
    Ok(())
}

/// The rules for one path; the builders use them as well.
pub(crate) fn check_path(path: &[u8]) -> Result<(), Refusal> {
    let problem = if path.len() > PATH_MAX {
        "is longer than 4095 bytes"
    } else if path.contains(&0) {
        "contains NUL"
    } else if path.split(|c| *c == b'/').any(|name| matches!(name, b"" | b"." | b"..")) {
        "contains an empty name, . or .."
    } else if path.split(|c| *c == b'/').any(|name| name.len() > NAME_MAX) {
        "contains a name of more than 255 bytes"
    } else {
        return Ok(());
    };
    refuse(RefusalCode::BadPath, format!("{} {problem}", shown(path)))
}

fn check_parent(earlier: &[Entry], path: &[u8]) -> Result<(), Refusal> {
    let end = path.iter().rposition(|c| *c == b'/').unwrap_or(0);
    let parent = &path[..end];
    // A directory sorts before everything in it.
    let found = earlier.binary_search_by(|entry| entry.path.as_slice().cmp(parent));
    match found.map(|index| &earlier[index].node) {
        Ok(Node::Directory(_)) => Ok(()),
        Ok(Node::File(..) | Node::Symlink(..) | Node::Link(_)) | Err(_) => {
            let reason = format!("the parent of {} is no directory", shown(path));
            refuse(RefusalCode::BadParent, reason)
        }
    }
}

fn check_node(body: &Body, index: usize, entry: &Entry, used: &mut [bool]) -> Result<(), Refusal> {
    let path = &entry.path;
    match &entry.node {
        Node::Directory(meta) => check_meta(path, meta),
        Node::File(meta, Data::Inline(bytes)) => {
            if bytes.len() > INLINE_MAX {
                let reason = format!("{} is too large to be inline", shown(path));
                return refuse(RefusalCode::BadContent, reason);
            }
            check_meta(path, meta)
        }
        Node::File(meta, Data::Content(content)) => {
            let Some(used) = used.get_mut(*content as usize) else {
                return refuse(
                    RefusalCode::BadReference,
                    format!("{} has no content", shown(path)),
                );
            };
            *used = true;
            check_meta(path, meta)
        }
        Node::Symlink(meta, target) => {
            if target.is_empty() || target.len() > PATH_MAX || target.contains(&0) {
                let reason = format!("the target of symlink {} is not a path", shown(path));
                return refuse(RefusalCode::BadPath, reason);
            }
            if meta.mode != 0o777 {
                let reason = format!("symlink {} has a mode other than 0777", shown(path));
                return refuse(RefusalCode::BadMeta, reason);
            }
            check_meta(path, meta)
        }
        Node::Link(target) => {
            let target = *target as usize;
            let file = body.entries.get(target).map(|entry| &entry.node);
            if target >= index || !matches!(file, Some(Node::File(..))) {
                let reason = format!("hard link {} leads to no earlier file", shown(path));
                return refuse(RefusalCode::BadReference, reason);
            }
            Ok(())
        }
    }
}

fn check_meta(path: &[u8], meta: &Meta) -> Result<(), Refusal> {
    let nobody = meta.uid == u32::MAX || meta.gid == u32::MAX;
    if meta.mode > 0o7777 || nobody || meta.mtime > MTIME_MAX {
        let reason = format!("mode, owner or time of {} is out of range", shown(path));
        return refuse(RefusalCode::BadMeta, reason);
    }
    if !meta.xattrs.is_sorted_by(|a, b| a.name < b.name) {
        let reason = format!("attributes of {} are not sorted", shown(path));
        return refuse(RefusalCode::NotSorted, reason);
    }
    let bytes: usize = meta.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
    if bytes > XATTRS_BYTES_MAX {
        let reason = format!("attributes of {} are too large", shown(path));
        return refuse(RefusalCode::BadXattr, reason);
    }
    for xattr in &meta.xattrs {
        if !xattr_allowed(&xattr.name) {
            let name = xattr.name.escape_ascii();
            let reason = format!("attribute {name} of {} is not allowed", shown(path));
            return refuse(RefusalCode::BadXattr, reason);
        }
    }
    Ok(())
}

/// `user.overlay.*` would be orders to an overlay that is mounted with `userxattr`.
pub(crate) fn xattr_allowed(name: &[u8]) -> bool {
    let user = name.strip_prefix(b"user.").is_some_and(|rest| !rest.is_empty());
    let known = name == b"security.capability" || user;
    known && name.len() <= NAME_MAX && !name.contains(&0) && !name.starts_with(b"user.overlay.")
}

//! Reads a tar file into a layer. Strict: what two readers could understand in two ways is refused.
//!
//! Refused are: sizes that the headers disagree on, extensions that follow each other or describe
//! nothing, keys or paths that come twice, `..`, bytes behind the end, and everything that is not a
//! file, directory, symlink or hard link.

use super::{
    CreateError, Special, pax,
    spool::{Spool, Words},
    tree::{Layer, LayerNode, TreeFile, TreeNode, normal, split},
};
use crate::{
    body::{ENTRIES_MAX, Meta, PATH_MAX, Xattr},
    check::{shown, xattr_allowed},
};
use std::{
    collections::BTreeMap,
    io::{self, Read},
    rc::Rc,
};
use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// Extended headers and long names.
const EXTENSION_MAX: u64 = 1 << 20;
const XATTR_KEY: &str = "SCHILY.xattr.";
const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// Bookkeeping of a file system that is long gone.
const WHITEOUT_AUFS: &[u8] = b".wh..wh.";

/// What names that begin with `.wh.` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Themselves.
    Literal,
    /// Something of a lower layer is hidden.
    Whiteouts,
}

/// What extension headers say about the entry that follows.
#[derive(Default)]
struct Extension {
    pax: Option<BTreeMap<String, Vec<u8>>>,
    long_path: Option<Vec<u8>>,
    long_target: Option<Vec<u8>>,
}

/// Reads to the end of `input`.
pub(super) fn read(
    input: &mut dyn Read,
    spool: &mut Spool,
    names: Names,
    special: Special,
) -> Result<Layer, CreateError> {
    let mut layer = Layer::default();
    let mut extension = Extension::default();
    let mut words = Words::default();
    while let Some(header) = next_header(input)? {
        let size = number_field(&header.as_old().size)
            .ok_or_else(|| malformed("a header has no valid size"))?;
        match header.entry_type() {
            EntryType::XHeader | EntryType::XGlobalHeader => {
                let records = pax::parse(&extension_bytes(input, size)?)
                    .map_err(|problem| malformed(&format!("an extended header {problem}")))?;
                if header.entry_type() == EntryType::XHeader {
                    set(&mut extension.pax, records)?;
                } else if records.keys().any(|key| key != "comment") {
                    return Err(malformed("a global header changes every entry"));
                }
            }
            EntryType::GNULongName => {
                set(&mut extension.long_path, long_name(extension_bytes(input, size)?)?)?;
            }
            EntryType::GNULongLink => {
                set(&mut extension.long_target, long_name(extension_bytes(input, size)?)?)?;
            }
            _ => {
                let extension = std::mem::take(&mut extension);
                let entry = Entry::of(&header, extension, size)?;
                words.add(entry.words())?;
                put(&mut layer, entry, input, spool, names, special)?;
                let hidden = layer.whiteouts.len() + layer.opaques.len();
                if layer.nodes.len() + hidden > ENTRIES_MAX {
                    return Err(CreateError::input("the archive", "has more than a million names"));
                }
            }
        }
    }
    if extension.pax.is_some() || extension.long_path.is_some() || extension.long_target.is_some() {
        return Err(malformed("it ends behind an extended header"));
    }
    Ok(layer)
}

fn malformed(problem: &str) -> CreateError {
    CreateError::input("the archive is malformed:", problem)
}

fn failed(error: io::Error) -> CreateError {
    CreateError::io("reading the archive", "".as_ref())(error)
}

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), CreateError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(malformed("two extended headers follow each other")),
    }
}

/// A number of a header in its plain forms: octal digits between spaces and NULs, or binary behind a
/// byte 0x80. Signs, other digits and what does not fit are read differently by different readers.
fn number_field(field: &[u8]) -> Option<u64> {
    if let [0x80, high @ .., a, b, c, d, e, f, g, h] = field {
        let fits = high.iter().all(|byte| *byte == 0);
        return fits.then(|| u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]));
    }
    if let [0x80, low @ ..] = field {
        return Some(low.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)));
    }
    let start = field.iter().position(|byte| *byte != b' ')?;
    let digits = field[start..].split(|byte| matches!(byte, b' ' | 0));
    let [digits, rest @ ..] = &digits.collect::<Vec<_>>()[..] else { return None };
    let plain = !digits.is_empty() && digits.iter().all(|c| (b'0'..=b'7').contains(c));
    let alone = rest.iter().all(|rest| rest.is_empty());
    // Twelve octal digits have 36 bits.
    (plain && alone)
        .then(|| digits.iter().fold(0, |number, digit| (number << 3) | u64::from(digit - b'0')))
}

/// `None` at the end, behind which only zeros may follow.
fn next_header(input: &mut dyn Read) -> Result<Option<Header>, CreateError> {
    let mut block = [0; BLOCK];
    let mut filled = 0;
    while filled < BLOCK {
        match input.read(&mut block[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(malformed("it ends within a header")),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    if block.iter().all(|byte| *byte == 0) {
        let mut rest = vec![0; 64 << 10];
        loop {
            match input.read(&mut rest) {
                Ok(0) => return Ok(None),
                Ok(count) if rest[..count].iter().all(|byte| *byte == 0) => {}
                Ok(_) => return Err(malformed("something follows its end")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    let header = Header::from_byte_slice(&block).clone();
    let outside = block[..148].iter().chain(&block[156..]);
    let sum = outside.fold(8 * u32::from(b' '), |sum, byte| sum + u32::from(*byte));
    if header.cksum().map_err(failed)? != sum {
        return Err(malformed("a header has a wrong checksum"));
    }
    Ok(Some(header))
}

fn extension_bytes(input: &mut dyn Read, size: u64) -> Result<Vec<u8>, CreateError> {
    if size > EXTENSION_MAX {
        return Err(malformed("an extended header is larger than 1 MiB"));
    }
    let padded = size.next_multiple_of(BLOCK as u64);
    let mut bytes = Vec::new();
    input.take(padded).read_to_end(&mut bytes).map_err(failed)?;
    if (bytes.len() as u64) < padded {
        return Err(malformed("it ends within an extended header"));
    }
    bytes.truncate(usize::try_from(size).expect("at most 1 MiB"));
    Ok(bytes)
}

fn long_name(mut bytes: Vec<u8>) -> Result<Vec<u8>, CreateError> {
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    if bytes.contains(&0) || bytes.len() > PATH_MAX {
        return Err(malformed("a long name contains NUL or is too long"));
    }
    Ok(bytes)
}

/// An entry with everything that its headers say.
struct Entry {
    kind: EntryType,
    path: Vec<u8>,
    target: Vec<u8>,
    meta: Meta,
    size: u64,
}

impl Entry {
    fn of(header: &Header, extension: Extension, size: u64) -> Result<Self, CreateError> {
        let mut pax = extension.pax.unwrap_or_default();
        let one = |pax: Option<Vec<u8>>, long: Option<Vec<u8>>, short: &[u8]| match (pax, long) {
            (Some(_), Some(_)) => Err(malformed("a name is extended in two ways")),
            (Some(name), None) | (None, Some(name)) => Ok(name),
            (None, None) => Ok(short.to_vec()),
        };
        let path = one(pax.remove("path"), extension.long_path, &header.path_bytes())?;
        let short_target = header.link_name_bytes().unwrap_or_default();
        let target = one(pax.remove("linkpath"), extension.long_target, &short_target)?;
        let subject = path.escape_ascii().to_string();
        let wrong = |what: &str| CreateError::input(subject.clone(), what);

        if pax.keys().any(|key| key.starts_with("GNU.sparse.")) {
            return Err(wrong("is a sparse file of the archive"));
        }
        let number = |value: &[u8]| str::from_utf8(value).ok().and_then(|n| n.parse::<u64>().ok());
        if let Some(extended) = pax.remove("size")
            && number(&extended) != Some(size)
        {
            return Err(wrong("has two sizes"));
        }
        let id = |pax: Option<Vec<u8>>, plain: &[u8]| {
            let id = pax.map_or_else(|| number_field(plain), |id| number(&id));
            id.and_then(|id| u32::try_from(id).ok()).ok_or_else(|| wrong("has no valid owner"))
        };
        let uid = id(pax.remove("uid"), &header.as_old().uid)?;
        let gid = id(pax.remove("gid"), &header.as_old().gid)?;
        let mtime = match pax.remove("mtime") {
            None => header.mtime().unwrap_or(0),
            // Before 1970 and parts of a second are not kept.
            Some(time) => {
                number(time.split(|c| *c == b'.').next().unwrap_or_default()).unwrap_or(0)
            }
        };
        let mode = number_field(&header.as_old().mode).ok_or_else(|| wrong("has no valid mode"))?;
        let mode = u16::try_from(mode & 0o7777).expect("twelve bits");
        let mut xattrs = Vec::new();
        for (key, value) in pax {
            let Some(name) = key.strip_prefix(XATTR_KEY) else { continue };
            if ["trusted.overlay.", "user.overlay."].iter().any(|order| name.starts_with(order)) {
                return Err(wrong("has an attribute that is an order to an overlay"));
            }
            // Others belong to the machine that the archive was made on.
            if xattr_allowed(name.as_bytes()) {
                xattrs.push(Xattr { name: name.into(), value });
            }
        }
        xattrs.sort_by(|a, b| a.name.cmp(&b.name));
        let meta = Meta { mode, uid, gid, mtime, xattrs };
        Ok(Self { kind: header.entry_type(), path, target, meta, size })
    }

    /// Bytes of its names and attributes.
    fn words(&self) -> usize {
        let xattrs = self.meta.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len());
        self.path.len() + self.target.len() + xattrs.sum::<usize>()
    }
}

fn put(
    layer: &mut Layer,
    entry: Entry,
    input: &mut dyn Read,
    spool: &mut Spool,
    names: Names,
    special: Special,
) -> Result<(), CreateError> {
    let path = normal(&entry.path)?;
    let wrong = |what: &str| Err(CreateError::input(shown(&path), what));
    let file = matches!(entry.kind, EntryType::Regular);
    if !file && entry.size > 0 {
        return wrong("is no file and has contents");
    }
    if entry.kind != EntryType::Directory && entry.path.ends_with(b"/") {
        return wrong("is written like a directory and is none");
    }
    if names == Names::Whiteouts {
        let (parent, name) = split(&path);
        if path.starts_with(WHITEOUT_AUFS) && !parent.is_empty() {
            return skip(input, entry.size + padding(entry.size));
        }
        if parent.split(|c| *c == b'/').any(|name| name.starts_with(WHITEOUT)) {
            return wrong("is below a name that hides something");
        }
        if name == WHITEOUT_OPAQUE {
            layer.opaques.insert(parent.to_vec());
            return skip(input, entry.size + padding(entry.size));
        }
        if name.starts_with(WHITEOUT_AUFS) {
            return skip(input, entry.size + padding(entry.size));
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return wrong("hides nothing");
            }
            let hidden =
                if parent.is_empty() { hidden.to_vec() } else { [parent, b"/", hidden].concat() };
            layer.whiteouts.insert(hidden);
            return skip(input, entry.size + padding(entry.size));
        }
    }
    let mut meta = entry.meta;
    let node = match entry.kind {
        EntryType::Directory => LayerNode::Node(TreeNode::Directory(meta)),
        EntryType::Symlink => {
            meta.mode = 0o777;
            LayerNode::Node(TreeNode::Symlink(meta, entry.target))
        }
        EntryType::Link => LayerNode::Link(normal(&entry.target)?),
        EntryType::Regular => {
            let bytes = spool.keep(input, entry.size)?;
            skip(input, padding(entry.size))?;
            LayerNode::Node(TreeNode::File(Rc::new(TreeFile { meta, bytes })))
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => match special {
            Special::Omit => return Ok(()),
            Special::Refuse => return wrong("is a device node or fifo"),
        },
        _ => return wrong("is of an unknown kind"),
    };
    match (layer.nodes.get(&path), &node) {
        (None, _) => {}
        (
            Some(LayerNode::Node(TreeNode::Directory(old))),
            LayerNode::Node(TreeNode::Directory(new)),
        ) if old == new => {}
        (Some(_), _) => return wrong("comes twice"),
    }
    if path.is_empty() && !matches!(node, LayerNode::Node(TreeNode::Directory(_))) {
        return wrong("is no directory");
    }
    layer.nodes.insert(path, node);
    Ok(())
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

/// Reads over `size` bytes and, when they are a file, what fills up its last block.
fn skip(input: &mut dyn Read, size: u64) -> Result<(), CreateError> {
    let skipped = io::copy(&mut input.take(size), &mut io::sink()).map_err(failed)?;
    if skipped < size { Err(malformed("it ends within a file")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_two_forms_and_no_others() {
        let rows: &[(&[u8], Option<u64>)] = &[
            (b"00000000017\0", Some(15)),
            (b"        17 \0", Some(15)),
            (b"777777777777", Some((1 << 36) - 1)),
            (b"17\0\0\0\0\0\0\0\0\0\0", Some(15)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\x02", Some(258)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\x81\0\0\0\0\0\0\0\0\0\0\x01", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"+0000000017\0", None),
            (b"-0000000017\0", None),
            (b"00000000019\0", None),
            (b"0x000000017\0", None),
            (b"000017 00017", None),
            (b"17\0junk\0\0\0\0\0", None),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"            ", None),
        ];
        for (field, expected) in rows {
            assert_eq!(number_field(field), *expected, "{}", field.escape_ascii());
        }
    }
}

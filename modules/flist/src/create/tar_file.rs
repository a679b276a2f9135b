//! Writes an flist as a tar file. The same flist, the same bytes; reading it gives the same tree.
//!
//! Numbers that do not fit are binary, as GNU tar writes them; long names and attributes are in
//! extended headers (pax). What neither can say is refused.

use super::{CreateError, reader::Reader};
use crate::{
    Progress,
    body::{Data, Entry, Meta, Node},
    check::shown,
};
use std::{
    io::{self, Read as _, Write},
    path::PathBuf,
};
use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// Two blocks of zeros end a tar file.
const END: [u8; 1024] = [0; 1024];
/// Bytes of a name in a header.
const NAME_MAX: usize = 100;

pub(super) fn write(
    reader: &mut Reader<'_>,
    out: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<(), CreateError> {
    let flist = reader.flist.clone();
    let body = flist.body();
    for entry in &body.entries {
        let name = PathBuf::from(shown(&entry.path));
        let failed = || CreateError::io("writing", &name);
        let head = |kind, meta, target, size| head(entry, kind, meta, target, size);
        match &entry.node {
            Node::Directory(meta) => {
                out.write_all(&head(EntryType::Directory, meta, b"", 0)?).map_err(failed())?;
            }
            Node::Symlink(meta, target) => {
                out.write_all(&head(EntryType::Symlink, meta, target, 0)?).map_err(failed())?;
            }
            Node::Link(first) => {
                let first = &body.entries[*first as usize];
                let Node::File(meta, _) = &first.node else {
                    return Err(CreateError::input(shown(&entry.path), "leads to no file"));
                };
                // Only the file itself has attributes.
                let meta = Meta { xattrs: Vec::new(), ..meta.clone() };
                let bytes = head(EntryType::Link, &meta, &first.path, 0)?;
                out.write_all(&bytes).map_err(failed())?;
            }
            Node::File(meta, data) => {
                let size = match data {
                    Data::Inline(bytes) => bytes.len() as u64,
                    Data::Content(content) => body.contents[*content as usize].size,
                };
                out.write_all(&head(EntryType::Regular, meta, b"", size)?).map_err(failed())?;
                match data {
                    Data::Inline(bytes) => out.write_all(bytes).map_err(failed())?,
                    Data::Content(content) => {
                        let content = &body.contents[*content as usize];
                        reader.read(content, &entry.path, out, progress)?;
                    }
                }
                let padding = io::repeat(0).take(size.next_multiple_of(BLOCK as u64) - size);
                io::copy(&mut { padding }, out).map_err(failed())?;
            }
        }
    }
    out.write_all(&END).map_err(CreateError::io("writing", "the end".as_ref()))
}

/// The header of an entry, behind its extended header if it needs one.
fn head(
    entry: &Entry,
    kind: EntryType,
    meta: &Meta,
    target: &[u8],
    size: u64,
) -> Result<Vec<u8>, CreateError> {
    let path = match (kind, entry.path.as_slice()) {
        (EntryType::Directory, b"") => b"./".to_vec(),
        (EntryType::Directory, path) => [path, b"/"].concat(),
        (_, path) => path.to_vec(),
    };
    let mut records = Vec::new();
    for (key, value) in [("path", path.as_slice()), ("linkpath", target)] {
        if value.len() > NAME_MAX {
            record(&mut records, key, value);
        }
    }
    for xattr in &meta.xattrs {
        let Some(name) = str::from_utf8(&xattr.name).ok().filter(|name| !name.contains('=')) else {
            let problem = "has an attribute whose name a tar file cannot say";
            return Err(CreateError::input(shown(&entry.path), problem));
        };
        record(&mut records, &format!("SCHILY.xattr.{name}"), &xattr.value);
    }
    let mut bytes = Vec::new();
    if !records.is_empty() {
        let described = Meta { mode: 0o644, ..Meta::default() };
        let size = records.len() as u64;
        bytes.extend(header(b"PaxHeader", EntryType::XHeader, &described, b"", size));
        bytes.extend(&records);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.extend(header(&path, kind, meta, target, size));
    Ok(bytes)
}

fn header(path: &[u8], kind: EntryType, meta: &Meta, target: &[u8], size: u64) -> [u8; BLOCK] {
    let mut header = Header::new_ustar();
    let fields = header.as_old_mut();
    let (path, target) = (&path[..path.len().min(NAME_MAX)], &target[..target.len().min(NAME_MAX)]);
    fields.name[..path.len()].copy_from_slice(path);
    fields.linkname[..target.len()].copy_from_slice(target);
    header.set_entry_type(kind);
    header.set_mode(meta.mode.into());
    header.set_uid(meta.uid.into());
    header.set_gid(meta.gid.into());
    header.set_mtime(meta.mtime);
    header.set_size(size);
    header.set_cksum();
    *header.as_bytes()
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let digits = |length: usize| length.to_string().len();
    let mut length = rest + digits(rest);
    length = rest + digits(length);
    records.extend(format!("{length} {key}=").into_bytes());
    records.extend(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::{super::pax, *};

    #[test]
    fn records_of_any_length_are_read_again() {
        for length in (0..200).chain([985, 986, 987, 9_986, 65_536]) {
            let (mut records, value) = (Vec::new(), vec![b'v'; length]);
            record(&mut records, "key", &value);
            record(&mut records, "other", b"x");
            let read = pax::parse(&records).unwrap();
            assert_eq!((&read["key"], read["other"].as_slice()), (&value, &b"x"[..]), "{length}");
        }
    }
}

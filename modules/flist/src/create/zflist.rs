//! Reads the database of a `.flist`: a table of Cap'n Proto messages, one for each directory under
//! the hash of its path, and one for each owner with rights.
//!
//! The fields that are read, as numbers of bytes and of pointers:
//!
//! | struct | data                            | pointers                              |
//! |--------|---------------------------------|---------------------------------------|
//! | Dir    | 8 mtime                         | 2 contents, 4 rights                  |
//! | Inode  | 0 size, 8 kind, 12 mtime        | 0 name, 1 by kind, 2 rights           |
//! | kinds  |                                 | 0: SubDir 0 key; 1: File 0 blocks; 2: Link 0 target; 3: special |
//! | block  |                                 | 0 hash, 1 key                         |
//! | rights | 0 mode, 8 uid, 16 gid, not'ed   | 0 user name, 1 group name             |

use super::{
    CreateError, Special,
    blocks::{Block, Format},
    capnp::{Message, Struct},
    earlier::{Draft, DraftNode},
    sqlite::{Database, wrong},
};
use crate::{body::Meta, check::shown};
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::BTreeMap;

pub(super) const TABLES: [&str; 1] = ["entries"];

/// Mode, user, group.
type Rights = (u16, u32, u32);

pub(super) fn read(
    database: &Database,
    special: Special,
    owner_is_given: bool,
) -> Result<Draft, CreateError> {
    let mut reader = Reader {
        database: database.connection(),
        owner_is_given,
        rights: BTreeMap::new(),
        draft: Draft::new(Format::Zflist, special),
    };
    reader.draft.put(Vec::new(), DraftNode::Directory(Meta::default()))?;
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        reader.directory(&path, &mut pending)?;
    }
    Ok(reader.draft)
}

struct Reader<'a> {
    database: &'a Connection,
    owner_is_given: bool,
    /// Those that were looked up, by key.
    rights: BTreeMap<Vec<u8>, Rights>,
    draft: Draft,
}

impl Reader<'_> {
    fn directory(&mut self, path: &[u8], pending: &mut Vec<Vec<u8>>) -> Result<(), CreateError> {
        let malformed = |problem: &str| {
            CreateError::input(format!("the message of directory {}", shown(path)), problem)
        };
        let message = self.value(&key_of(path))?.ok_or_else(|| malformed("is missing"))?;
        let message = Message::parse(&message).map_err(malformed)?;
        let directory = message.root().map_err(malformed)?;
        let meta = self.meta(directory.text(4).map_err(malformed)?, directory.u32(8), path)?;
        self.draft.set_directory(path, meta);
        for inode in directory.list(2).map_err(malformed)? {
            let name = inode.text(0).map_err(malformed)?;
            if name.contains(&b'/') {
                return Err(malformed("has a name with a slash"));
            }
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let child = [path, slash, name].concat();
            let rights = inode.text(2).map_err(malformed)?;
            let node = match inode.u16(8) {
                0 => {
                    let key = inode.structure(1).map_err(malformed)?;
                    let key = key.map_or(Ok(&[][..]), |key| key.text(0)).map_err(malformed)?;
                    if key != key_of(&child).as_bytes() {
                        return Err(malformed("leads to another directory than it says"));
                    }
                    pending.push(child.clone());
                    // The rest stands in the message of that directory.
                    DraftNode::Directory(Meta::default())
                }
                1 => {
                    let meta = self.meta(rights, inode.u32(12), &child)?;
                    DraftNode::File(meta, inode.u64(0), blocks(&inode).map_err(malformed)?)
                }
                2 => {
                    let target = inode.structure(1).map_err(malformed)?;
                    let target = target.map_or(Ok(&[][..]), |link| link.text(0));
                    let meta = self.meta(rights, inode.u32(12), &child)?;
                    let target = target.map_err(malformed)?.to_vec();
                    DraftNode::Symlink(Meta { mode: 0o777, ..meta }, target)
                }
                3 => DraftNode::Special,
                _ => return Err(malformed("has something of an unknown kind")),
            };
            self.draft.put(child, node)?;
        }
        Ok(())
    }

    fn meta(&mut self, key: &[u8], mtime: u32, path: &[u8]) -> Result<Meta, CreateError> {
        if !self.rights.contains_key(key) {
            let rights = self.look_up(key, path)?;
            self.rights.insert(key.to_vec(), rights);
        }
        let (mode, uid, gid) = self.rights[key];
        Ok(Meta { mode, uid, gid, mtime: mtime.into(), xattrs: Vec::new() })
    }

    fn look_up(&self, key: &[u8], path: &[u8]) -> Result<Rights, CreateError> {
        let malformed =
            |problem: &str| CreateError::input(format!("the rights of {}", shown(path)), problem);
        let key = str::from_utf8(key).map_err(|_| malformed("have a key that is no text"))?;
        let message = self.value(key)?.ok_or_else(|| malformed("are missing"))?;
        let message = Message::parse(&message).map_err(malformed)?;
        let rights = message.root().map_err(malformed)?;
        let mode = rights.u16(0) & 0o7777;
        let id = |at: usize, name: &[u8]| {
            // The default is -1, and numbers are stored as what differs from it.
            let number = !rights.u64(at).cast_signed();
            match u32::try_from(number) {
                Ok(number) => Ok(number),
                // `--owner` will say.
                Err(_) if self.owner_is_given => Ok(0),
                Err(_) if number == -1 && matches!(name, b"" | b"root") => Ok(0),
                Err(_) => Err(malformed("name a user or group without a number; give an owner")),
            }
        };
        let uid = id(8, rights.text(0).map_err(malformed)?)?;
        let gid = id(16, rights.text(1).map_err(malformed)?)?;
        Ok((mode, uid, gid))
    }

    fn value(&self, key: &str) -> Result<Option<Vec<u8>>, CreateError> {
        let mut query = self
            .database
            .prepare_cached("SELECT value FROM entries WHERE key = ?1")
            .map_err(|error| wrong(&error))?;
        let value = query.query_row([key], |row| row.get(0)).optional();
        value.map_err(|error| wrong(&error))
    }
}

fn blocks(inode: &Struct<'_>) -> Result<Vec<Block>, &'static str> {
    let Some(file) = inode.structure(1)? else { return Ok(Vec::new()) };
    let blocks = file.list(0)?;
    let block = |block: &Struct<'_>| {
        Ok(Block { id: block.bytes(0)?.to_vec(), key: block.bytes(1)?.to_vec() })
    };
    blocks.iter().map(block).collect()
}

/// The key of a directory is the hash of its path.
fn key_of(path: &[u8]) -> String {
    hex::encode(Format::Zflist.hash(path))
}

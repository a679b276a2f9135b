//! Reads the database of an `.fl`: inodes that name their parent, and blocks in the order of rows.
//!
//! What is not below the root, directly or through others, is refused: so are loops.

use super::{
    CreateError, Special,
    blocks::{Block, Format},
    earlier::{Draft, DraftNode},
    sqlite::{Database, wrong},
};
use crate::{
    body::{ENTRIES_MAX, Meta, NAME_MAX},
    check::shown,
};
use rusqlite::{Connection, Row, types::ValueRef};
use std::collections::BTreeMap;

pub(super) const TABLES: [&str; 3] = ["inode", "extra", "block"];
/// The inode of the root.
const ROOT: i64 = 1;

struct Inode {
    number: i64,
    parent: i64,
    name: Vec<u8>,
    size: i64,
    uid: i64,
    gid: i64,
    mode: i64,
    mtime: i64,
}

pub(super) fn read(database: &Database, special: Special) -> Result<Draft, CreateError> {
    let database = database.connection();
    let mut below: BTreeMap<i64, Vec<Inode>> = BTreeMap::new();
    let mut count = 0_usize;
    for inode in inodes(database).map_err(|error| wrong(&error))? {
        below.entry(inode.parent).or_default().push(inode);
        count += 1;
    }
    if count > ENTRIES_MAX {
        return Err(CreateError::input("the flist", "has more than a million names"));
    }
    let mut draft = Draft::new(Format::Rfs, special);
    // The parent of the root is no inode.
    let mut roots = below.remove(&0).unwrap_or_default();
    let (Some(root), true) = (roots.pop(), roots.is_empty()) else {
        return Err(CreateError::input("the flist", "has no root, or several"));
    };
    if root.number != ROOT {
        return Err(CreateError::input("the flist", "has another root than inode 1"));
    }
    let mut pending = vec![(Vec::new(), root)];
    while let Some((path, inode)) = pending.pop() {
        count -= 1;
        let node = node(database, &path, &inode)?;
        let is_directory = matches!(node, DraftNode::Directory(_));
        draft.put(path.clone(), node)?;
        for child in below.remove(&inode.number).unwrap_or_default() {
            if !is_directory {
                return Err(CreateError::input(
                    shown(&path),
                    "is no directory and has names in it",
                ));
            }
            if child.name.contains(&b'/') || child.name.len() > NAME_MAX {
                let problem = "has a name in it that is none";
                return Err(CreateError::input(shown(&path), problem));
            }
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            pending.push(([&path, slash, &child.name].concat(), child));
        }
    }
    if count > 0 {
        return Err(CreateError::input("the flist", "has names that are not below its root"));
    }
    Ok(draft)
}

fn inodes(database: &Connection) -> rusqlite::Result<Vec<Inode>> {
    let mut query = database
        .prepare("SELECT ino, parent, name, size, uid, gid, mode, mtime FROM inode ORDER BY ino")?;
    let rows = query.query_map([], |row| {
        Ok(Inode {
            number: row.get(0)?,
            parent: row.get(1)?,
            name: bytes(row, 2)?,
            size: row.get(3)?,
            uid: row.get(4)?,
            gid: row.get(5)?,
            mode: row.get(6)?,
            mtime: row.get(7)?,
        })
    })?;
    // One more than allowed shows that there are too many.
    rows.take(ENTRIES_MAX + 1).collect()
}

/// Text need not be UTF-8.
fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(bytes.to_vec()),
        other => Err(rusqlite::Error::InvalidColumnType(
            column,
            "name, data, id or key".into(),
            other.data_type(),
        )),
    }
}

fn node(database: &Connection, path: &[u8], inode: &Inode) -> Result<DraftNode, CreateError> {
    let problem = |problem: &str| CreateError::input(shown(path), problem);
    let owner = |id: i64| u32::try_from(id).map_err(|_| problem("has no valid owner"));
    let mode = u32::try_from(inode.mode).map_err(|_| problem("has no valid mode"))?;
    let meta = Meta {
        mode: u16::try_from(mode & 0o7777).expect("twelve bits"),
        uid: owner(inode.uid)?,
        gid: owner(inode.gid)?,
        mtime: u64::try_from(inode.mtime).unwrap_or(0),
        xattrs: Vec::new(),
    };
    Ok(match mode & 0o170_000 {
        0o040_000 => DraftNode::Directory(meta),
        0o120_000 => {
            let target = database.query_row(
                "SELECT data FROM extra WHERE ino = ?1",
                [inode.number],
                |row| bytes(row, 0),
            );
            let target = target.map_err(|error| wrong(&error))?;
            DraftNode::Symlink(Meta { mode: 0o777, ..meta }, target)
        }
        0o100_000 => {
            let size = u64::try_from(inode.size).map_err(|_| problem("has no valid size"))?;
            let blocks = blocks(database, inode.number).map_err(|error| wrong(&error))?;
            DraftNode::File(meta, size, blocks)
        }
        0o020_000 | 0o060_000 | 0o010_000 | 0o140_000 => DraftNode::Special,
        _ => return Err(problem("is of an unknown kind")),
    })
}

fn blocks(database: &Connection, inode: i64) -> rusqlite::Result<Vec<Block>> {
    let mut query =
        database.prepare_cached("SELECT id, key FROM block WHERE ino = ?1 ORDER BY rowid")?;
    let rows =
        query.query_map([inode], |row| Ok(Block { id: bytes(row, 0)?, key: bytes(row, 1)? }))?;
    rows.collect()
}

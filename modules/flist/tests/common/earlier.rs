//! Flists of the two earlier formats, with their blocks, as tests build them.

use blake2::{
    Blake2b, Digest as _,
    digest::consts::{U8, U16, U32},
};
use ring::aead;
use rusqlite::{Connection, params};
use std::{fs, io::Write as _, path::Path};

/// Plain bytes of a block.
const BLOCK: usize = 512 << 10;

/// A value that a pointer of a Cap'n Proto struct leads to.
pub(crate) enum Value {
    Null,
    Text(String),
    Bytes(Vec<u8>),
    Struct(Struct),
    List(Vec<Struct>),
}

/// A Cap'n Proto struct: words of data, then pointers.
pub(crate) struct Struct(pub(crate) Vec<u64>, pub(crate) Vec<Value>);

impl Struct {
    /// As a message of one segment.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut words = vec![0];
        let at = words.len();
        self.reserve(&mut words);
        words[0] = self.pointer(0, at);
        self.fill(&mut words, at);
        let size = u64::try_from(words.len()).unwrap() << 32;
        std::iter::once(size).chain(words).flat_map(u64::to_le_bytes).collect()
    }

    fn size(&self) -> usize {
        self.0.len() + self.1.len()
    }

    fn reserve(&self, words: &mut Vec<u64>) {
        words.resize(words.len() + self.size(), 0);
    }

    fn tag(&self) -> u64 {
        ((self.0.len() as u64) << 32) | ((self.1.len() as u64) << 48)
    }

    fn pointer(&self, from: usize, at: usize) -> u64 {
        self.tag() | ((at - from - 1) as u64) << 2
    }

    fn fill(&self, words: &mut Vec<u64>, at: usize) {
        words[at..at + self.0.len()].copy_from_slice(&self.0);
        for (number, value) in self.1.iter().enumerate() {
            let from = at + self.0.len() + number;
            let to = words.len();
            let offset = ((to - from - 1) as u64) << 2;
            match value {
                Value::Null => {}
                Value::Text(text) => {
                    bytes(words, from, offset, &[text.as_bytes(), b"\0"].concat());
                }
                Value::Bytes(plain) => bytes(words, from, offset, plain),
                Value::Struct(inner) => {
                    words[from] = inner.pointer(from, to);
                    inner.reserve(words);
                    inner.fill(words, to);
                }
                Value::List(items) => {
                    let size = items.first().map_or(0, Self::size);
                    words[from] = offset | 1 | 7 << 32 | ((items.len() * size) as u64) << 35;
                    let tag = items.first().map_or(0, Self::tag);
                    words.push(tag | (items.len() as u64) << 2);
                    for item in items {
                        item.reserve(words);
                    }
                    for (number, item) in items.iter().enumerate() {
                        item.fill(words, to + 1 + number * size);
                    }
                }
            }
        }
    }
}

fn bytes(words: &mut Vec<u64>, from: usize, offset: u64, plain: &[u8]) {
    words[from] = offset | 1 | 2 << 32 | (plain.len() as u64) << 35;
    for chunk in plain.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        words.push(u64::from_le_bytes(word));
    }
}

pub(crate) fn hash16(bytes: &[u8]) -> Vec<u8> {
    Blake2b::<U16>::digest(bytes).to_vec()
}

pub(crate) fn hash32(bytes: &[u8]) -> Vec<u8> {
    Blake2b::<U32>::digest(bytes).to_vec()
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

/// XXTEA with a length word.
fn xxtea(bytes: &[u8], key: &[u8]) -> Vec<u8> {
    let word = |word: &[u8]| {
        let mut padded = [0; 4];
        padded[..word.len()].copy_from_slice(word);
        u32::from_le_bytes(padded)
    };
    let mut text: Vec<u32> = bytes.chunks(4).map(word).collect();
    text.push(u32::try_from(bytes.len()).unwrap());
    let key: Vec<u32> = key.chunks(4).map(word).collect();
    let (count, mut sum) = (text.len(), 0_u32);
    let mut below = text[count - 1];
    for _ in 0..6 + 52 / count {
        sum = sum.wrapping_add(0x9e37_79b9);
        for place in 0..count {
            let above = text[(place + 1) % count];
            let chosen = key[(place & 3) ^ ((sum >> 2) & 3) as usize];
            let mixed = ((below >> 5) ^ (above << 2)).wrapping_add((above >> 3) ^ (below << 4))
                ^ (sum ^ above).wrapping_add(chosen ^ below);
            text[place] = text[place].wrapping_add(mixed);
            below = text[place];
        }
    }
    text.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn gcm(bytes: &[u8], key: &[u8]) -> Vec<u8> {
    let nonce = aead::Nonce::try_assume_unique_for_key(&key[..12]).unwrap();
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, key).unwrap());
    let mut sealed = bytes.to_vec();
    key.seal_in_place_append_tag(nonce, aead::Aad::empty(), &mut sealed).unwrap();
    sealed
}

/// A block as it is stored: id, key, bytes.
pub(crate) type Stored = (Vec<u8>, Vec<u8>, Vec<u8>);

/// Of a `.flist`.
pub(crate) fn zflist_block(plain: &[u8]) -> Stored {
    zflist_block_under(plain, &hash16(plain))
}

/// Under a key that need not be its own.
pub(crate) fn zflist_block_under(plain: &[u8], key: &[u8]) -> Stored {
    let stored = xxtea(&snappy(plain), key);
    (hash16(&stored), key.to_vec(), stored)
}

/// Of an `.fl`.
pub(crate) fn rfs_block(plain: &[u8]) -> Stored {
    rfs_block_under(plain, &hash32(plain))
}

/// Under a key that need not be its own.
pub(crate) fn rfs_block_under(plain: &[u8], key: &[u8]) -> Stored {
    let stored = gcm(&snappy(plain), key);
    (hash32(&stored), key.to_vec(), stored)
}

/// Puts blocks into a directory by their first digits.
pub(crate) fn store(directory: &Path, blocks: &[Stored]) {
    for (id, _, stored) in blocks {
        let id = hex::encode(id);
        fs::create_dir_all(directory.join(&id[..2])).unwrap();
        fs::write(directory.join(&id[..2]).join(&id), stored).unwrap();
    }
}

/// What a test tree consists of.
#[derive(Clone)]
pub(crate) enum Node {
    Directory(u16),
    File(u16, Vec<u8>),
    Symlink(String),
    Socket,
}

/// The bytes of a file as blocks.
fn cut(plain: &[u8], block: fn(&[u8]) -> Stored) -> Vec<Stored> {
    plain.chunks(BLOCK).map(block).collect()
}

/// The tables of an `.fl`.
pub(crate) fn rfs_tables(path: &Path) -> Connection {
    let database = Connection::open(path).unwrap();
    database
        .execute_batch(
            "PRAGMA page_size = 512; PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;
             CREATE TABLE inode (ino INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER,
                name VARCHAR(255), size INTEGER, uid INTEGER, gid INTEGER, mode INTEGER,
                rdev INTEGER, ctime INTEGER, mtime INTEGER);
             CREATE TABLE extra (ino INTEGER PRIMARY KEY, data VARCHAR(4096));
             CREATE TABLE block (ino INTEGER, id VARCHAR(32), key VARCHAR(32));
             CREATE TABLE tag (key VARCHAR(10) PRIMARY KEY, value VARCHAR(255));
             CREATE TABLE route (start INTEGER, end INTEGER, url VARCHAR(2048));",
        )
        .unwrap();
    database
}

/// Writes an `.fl` and its blocks; paths come after their directories, the root is made here.
pub(crate) fn rfs(path: &Path, blocks: &Path, tree: &[(&str, Node)]) -> Connection {
    let database = rfs_tables(path);
    let mut numbers = std::collections::BTreeMap::from([(String::new(), 1_i64)]);
    let add = |parent: i64, name: &str, size: usize, mode: u32| {
        database
            .execute(
                "INSERT INTO inode (parent, name, size, uid, gid, mode, rdev, ctime, mtime)
                 VALUES (?1, ?2, ?3, 5, 6, ?4, 0, 1, 1000000000)",
                params![parent, name, i64::try_from(size).unwrap(), mode],
            )
            .unwrap();
        database.last_insert_rowid()
    };
    assert_eq!(add(0, "/", 0, 0o040_755), 1);
    for (path, node) in tree {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = numbers[parent];
        let number = match node {
            Node::Directory(mode) => add(parent, name, 0, 0o040_000 | u32::from(*mode)),
            Node::Symlink(target) => {
                let number = add(parent, name, target.len(), 0o120_777);
                let insert = "INSERT INTO extra VALUES (?1, ?2)";
                database.execute(insert, params![number, target]).unwrap();
                number
            }
            Node::Socket => add(parent, name, 0, 0o140_755),
            Node::File(mode, plain) => {
                let number = add(parent, name, plain.len(), 0o100_000 | u32::from(*mode));
                let cut = cut(plain, rfs_block);
                for (id, key, _) in &cut {
                    let insert = "INSERT INTO block VALUES (?1, ?2, ?3)";
                    database.execute(insert, params![number, id, key]).unwrap();
                }
                store(blocks, &cut);
                number
            }
        };
        numbers.insert((*path).to_owned(), number);
    }
    database
}

/// The messages of a `.flist` by their keys.
pub(crate) type Entries = Vec<(String, Vec<u8>)>;

/// The rights of a mode: user 5, group 6.
fn rights(mode: u32) -> (String, Vec<u8>) {
    let text = format!("user:u\ngroup:g\nmode:0o{mode:o}\nuid:5\ngid:6\n");
    let key = hex::encode(Blake2b::<U8>::digest(text));
    let names = vec![Value::Text("u".into()), Value::Text("g".into()), Value::Null];
    (key, Struct(vec![mode.into(), !5, !6], names).message())
}

/// An entry of a directory.
pub(crate) fn inode(name: &str, size: u64, kind: u64, value: Struct, rights: &str) -> Struct {
    let time = 1_000_000_000_u64;
    let value = if value.size() == 0 { Value::Null } else { Value::Struct(value) };
    let pointers = vec![Value::Text(name.into()), value, Value::Text(rights.into())];
    Struct(vec![size, kind | time << 32, time], pointers)
}

/// A directory.
pub(crate) fn directory(contents: Vec<Struct>, rights: &str) -> Vec<u8> {
    let time = 1_000_000_000_u64;
    let text = |text: &str| Value::Text(text.into());
    let pointers = vec![text("x"), text("x"), Value::List(contents), Value::Null, text(rights)];
    Struct(vec![0, time | time << 32], pointers).message()
}

/// The messages of a tree; its blocks go to `blocks`.
pub(crate) fn zflist_entries(blocks: &Path, tree: &[(&str, Node)]) -> Entries {
    let mut entries = std::collections::BTreeMap::<String, Vec<u8>>::new();
    let directories = tree.iter().filter(|(_, node)| matches!(node, Node::Directory(_)));
    let directories = directories.map(|(path, node)| (*path, node.clone()));
    for (directory_path, node) in directories.chain([("", Node::Directory(0o755))]) {
        let Node::Directory(mode) = node else { continue };
        let mut contents = Vec::new();
        for (path, node) in tree {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            if parent != directory_path {
                continue;
            }
            let mut named = |mode: u32| {
                let (key, message) = rights(mode);
                entries.insert(key.clone(), message);
                key
            };
            contents.push(match node {
                Node::Directory(_) => {
                    let key = hex::encode(hash16(path.as_bytes()));
                    inode(name, 0, 0, Struct(vec![], vec![Value::Text(key)]), "")
                }
                Node::File(mode, plain) => {
                    let cut = cut(plain, zflist_block);
                    store(blocks, &cut);
                    let item = |(id, key, _): Stored| {
                        Struct(vec![], vec![Value::Bytes(id), Value::Bytes(key)])
                    };
                    let list = Value::List(cut.into_iter().map(item).collect());
                    let rights = named(0o100_000 | u32::from(*mode));
                    inode(name, plain.len() as u64, 1, Struct(vec![128], vec![list]), &rights)
                }
                Node::Symlink(target) => {
                    let target = Struct(vec![], vec![Value::Text(target.clone())]);
                    inode(name, 0, 2, target, &named(0o120_777))
                }
                Node::Socket => inode(name, 0, 3, Struct(vec![0], vec![]), &named(0o140_755)),
            });
        }
        let (key, message) = rights(0o040_000 | u32::from(mode));
        entries.insert(key.clone(), message);
        let path = hex::encode(hash16(directory_path.as_bytes()));
        entries.insert(path, directory(contents, &key));
    }
    entries.into_iter().collect()
}

/// The tar file of a `.flist`.
pub(crate) fn zflist_tar(entries: &Entries) -> Vec<u8> {
    let database = tempfile::NamedTempFile::new().unwrap();
    let connection = Connection::open(database.path()).unwrap();
    connection
        .execute_batch(
            "PRAGMA page_size = 512; PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;
             CREATE TABLE entries (key VARCHAR(64) PRIMARY KEY, value BLOB);
             CREATE TABLE metadata (key VARCHAR(64) PRIMARY KEY, value TEXT);",
        )
        .unwrap();
    for (key, value) in entries {
        connection.execute("INSERT INTO entries VALUES (?1, ?2)", params![key, value]).unwrap();
    }
    connection.close().unwrap();
    super::image::member("flistdb.sqlite3", b'0', "", &fs::read(database.path()).unwrap())
}

/// Packs messages as a `.flist`.
pub(crate) fn zflist(path: &Path, entries: &Entries) {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&zflist_tar(entries)).unwrap();
    fs::write(path, packed.finish().unwrap()).unwrap();
}

//! The words of an flist: what a body contains, and the limits of each part.
//!
//! Plain data. What makes a body acceptable is in [`crate::check`], bytes are in [`crate::codec`].

use serde::{Deserialize, Deserializer, Serialize, de};
use std::{fmt, marker::PhantomData};

/// First bytes of every body.
pub const MAGIC: [u8; 8] = *b"zosflist";
/// The format that this code reads and writes.
pub const FORMAT: u8 = 1;
/// A node holds a whole body in memory; this is enough for several hundred thousand files.
pub const BODY_MAX: usize = 64 << 20;
/// Entries of a body.
pub const ENTRIES_MAX: usize = 1_000_000;
/// Bytes of a path, as in the kernel's `PATH_MAX` without its NUL.
pub const PATH_MAX: usize = 4095;
/// Bytes of one name, as in the kernel's `NAME_MAX`.
pub const NAME_MAX: usize = 255;
/// Files up to this size are in the body and in the metadata image; they are no objects.
pub const INLINE_MAX: usize = 64;
/// Larger files are cut into chunks of this size; the last one has the rest.
pub const CHUNK: u64 = 1 << 20;
/// What zstd may add to a chunk that does not compress, beside a 256th of it: what is fetched stands in
/// proportion to what was agreed on.
pub const PACKED_MORE: u64 = 1024;
/// A pack is a file on a web server.
pub const PACK_MAX: u64 = 64 << 20;
/// Extended attributes of one file.
pub const XATTRS_MAX: usize = 64;
/// Bytes of all of them, names and values.
pub const XATTRS_BYTES_MAX: usize = 64 << 10;
/// Words of a command line, or variables of an environment.
pub const WORDS_MAX: usize = 1024;
/// Bytes of one of them.
pub const WORD_MAX: usize = 64 << 10;
/// The last second of the year 9999.
pub const MTIME_MAX: u64 = 253_402_300_799;

/// Everything that an flist says. Its SHA-256 is the flist's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`FORMAT`].
    pub format: u8,
    /// How the content is started.
    pub run: Run,
    /// Sorted by id; each is used.
    #[serde(deserialize_with = "at_most::<_, _, ENTRIES_MAX>")]
    pub packs: Vec<Pack>,
    /// Sorted by digest; each is used. Two files with the same bytes share one content.
    #[serde(deserialize_with = "at_most::<_, _, ENTRIES_MAX>")]
    pub contents: Vec<Content>,
    /// Sorted by path; the first is the root, with an empty path.
    #[serde(deserialize_with = "at_most::<_, _, ENTRIES_MAX>")]
    pub entries: Vec<Entry>,
}

/// How the content is started when the contract says nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Run {
    /// The program and its first arguments. Empty: the contract has to name a program.
    #[serde(deserialize_with = "at_most::<_, _, WORDS_MAX>")]
    pub entrypoint: Vec<String>,
    /// Arguments that follow, unless the contract gives others.
    #[serde(deserialize_with = "at_most::<_, _, WORDS_MAX>")]
    pub arguments: Vec<String>,
    /// `NAME=value`, in the order of the image.
    #[serde(deserialize_with = "at_most::<_, _, WORDS_MAX>")]
    pub env: Vec<String>,
    /// Absolute working directory; empty means `/`.
    pub cwd: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A file of compressed chunks, `packs/<id>` at the publisher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pack {
    /// BLAKE3 of its bytes.
    pub id: [u8; 32],
    /// Its size.
    pub size: u64,
}

/// The bytes of a file that is larger than [`INLINE_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// fs-verity digest: the hash that the kernel enforces.
    pub digest: [u8; 32],
    /// Size in bytes.
    pub size: u64,
    /// In order; all but the last hold [`CHUNK`] bytes.
    pub chunks: Vec<Chunk>,
}

impl Content {
    /// Plain size of chunk `number`.
    pub fn chunk_size(&self, number: usize) -> usize {
        let start = number as u64 * CHUNK;
        let size = self.size.saturating_sub(start).min(CHUNK);
        usize::try_from(size).unwrap_or(usize::MAX)
    }
}

/// A zstd frame in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// BLAKE3 of the plain bytes. For transport only: the kernel's digest decides.
    pub id: [u8; 32],
    /// Index into [`Body::packs`].
    pub pack: u32,
    /// First byte in the pack.
    pub offset: u64,
    /// Compressed size.
    pub packed: u32,
}

/// A name in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Raw bytes, `usr/bin/true`: no slash at either end; empty for the root.
    pub path: Vec<u8>,
    /// What it names.
    pub node: Node,
}

/// What a name stands for. Device nodes, fifos and sockets cannot be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    /// A directory.
    Directory(Meta),
    /// A regular file with bytes of its own.
    File(Meta, Data),
    /// A symbolic link; its mode is 0777.
    Symlink(Meta, Vec<u8>),
    /// One more name of the file at this index of [`Body::entries`], which comes earlier.
    Link(u32),
}

/// The bytes of a regular file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Data {
    /// At most [`INLINE_MAX`] bytes.
    Inline(Vec<u8>),
    /// Index into [`Body::contents`].
    Content(u32),
}

/// Owner, rights and attributes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meta {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Sorted by name.
    #[serde(deserialize_with = "at_most::<_, _, XATTRS_MAX>")]
    pub xattrs: Vec<Xattr>,
}

/// An extended attribute: `security.capability` or `user.*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xattr {
    /// With its prefix.
    #[serde(deserialize_with = "xattr_name")]
    pub name: Vec<u8>,
    /// Raw bytes.
    pub value: Vec<u8>,
}

impl Body {
    /// The files that share each index of [`Body::contents`]: its first path, for messages.
    pub fn paths_of_contents(&self) -> Vec<&[u8]> {
        let mut paths = vec![&[][..]; self.contents.len()];
        for entry in self.entries.iter().rev() {
            if let Node::File(_, Data::Content(content)) = entry.node
                && let Some(path) = paths.get_mut(content as usize)
            {
                *path = &entry.path;
            }
        }
        paths
    }

    /// Bytes of all contents, each counted once.
    pub fn content_bytes(&self) -> u64 {
        self.contents.iter().fold(0, |sum, content| sum.saturating_add(content.size))
    }
}

/// Refuses at once what is too short for any attribute: a body full of empty ones would need fifty times
/// its size in memory.
fn xattr_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let name = Vec::<u8>::deserialize(deserializer)?;
    if name.len() <= b"user.".len() {
        return Err(de::Error::custom("an attribute without a name"));
    }
    Ok(name)
}

/// Reads a list, and refuses it by its declared length before reading an item.
fn at_most<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> de::Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX} items")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                if list.len() == MAX {
                    return Err(de::Error::custom("too many items"));
                }
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(List::<T, MAX>(PhantomData))
}

//! Reads FAT12, FAT16 and FAT32 in user space. Owns nothing and writes nothing.
//!
//! Whoever made the file system may be hostile. Every number of it is checked against the size of its
//! disk before it is used; chains of clusters are followed for as many steps as the wanted bytes need,
//! so that a loop ends; folders are read up to a bound. A stick that is pulled out is a failed read.

use crate::{Disk, Until};
use std::io;

/// The largest folder: as many entries as the format allows.
const FOLDER_BYTES_MAX: u64 = 65_536 * ENTRY as u64;
/// Bytes of one entry of a folder.
const ENTRY: usize = 32;
/// Bytes of the allocation table that are read at once.
const WINDOW: u64 = 4096;
/// The largest cluster that anybody makes.
const CLUSTER_MAX: u64 = 256 << 10;
/// Units of UTF-16 in one entry of a long name, and entries of the longest name.
const LONG_UNITS: usize = 13;
const LONG_ENTRIES_MAX: usize = 20;
/// Attributes of entries.
const IS_LABEL: u8 = 0x08;
const IS_DIRECTORY: u8 = 0x10;
const IS_LONG: u8 = 0x0f;
/// Fewer clusters than this are FAT12.
const FAT12_CLUSTERS: u64 = 4085;

/// A file system.
#[derive(Debug)]
pub struct Volume<D> {
    disk: D,
    layout: Layout,
}

/// Where everything is in a file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    kind: Kind,
    cluster_bytes: u64,
    /// Where the first allocation table begins, and its bytes.
    table: u64,
    table_bytes: u64,
    root: Root,
    /// Where cluster 2 begins.
    clusters: u64,
    n_clusters: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

#[derive(Debug, Clone, Copy)]
enum Root {
    /// A place of its own.
    Fixed { at: u64, bytes: u64 },
    /// Like every folder.
    Cluster(u32),
}

/// A file or a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its long name, or its short one.
    pub name: String,
    /// Whether it is a folder.
    pub is_directory: bool,
    /// Bytes of a file, as its folder says.
    pub size_bytes: u64,
    cluster: u32,
}

impl<D: Disk> Volume<D> {
    /// The file system that fills the disk. `None`: it is no FAT, or one that contradicts itself or its disk.
    pub fn open(disk: D) -> io::Result<Option<Self>> {
        let mut sector = [0; 512];
        if disk.size_bytes() < sector.len() as u64 {
            return Ok(None);
        }
        disk.read_exact_at(&mut sector, 0)?;
        let layout = Layout::read(&sector, disk.size_bytes());
        Ok(layout.map(|layout| Self::new(disk, layout)))
    }

    pub(crate) fn new(disk: D, layout: Layout) -> Self {
        Self { disk, layout }
    }

    pub(crate) fn into_layout(self) -> Layout {
        self.layout
    }

    /// The same, of which nothing more is read once `stop` says so: what is asked for then ends with
    /// [`io::ErrorKind::TimedOut`].
    pub fn until<'d>(&'d self, stop: &'d dyn Fn() -> bool) -> Volume<Until<'d, D>> {
        Volume::new(Until { disk: &self.disk, stop }, self.layout)
    }
    /// What is at this path, of names between slashes. The case of ASCII letters is the same.
    pub fn find(&self, path: &str) -> io::Result<Entry> {
        let root = Entry { name: String::new(), is_directory: true, size_bytes: 0, cluster: 0 };
        let (mut found, mut is_root) = (root, true);
        for name in path.split('/') {
            if !found.is_directory || ["", ".", ".."].contains(&name) {
                return Err(missing(path));
            }
            let folder = if is_root { self.root_bytes()? } else { self.folder_bytes(&found)? };
            let mut entries = Entries::new(&folder, self.layout.kind);
            let is_it = |entry: &Entry| entry.name.eq_ignore_ascii_case(name);
            found = entries.find(is_it).ok_or_else(|| missing(path))?;
            is_root = false;
        }
        Ok(found)
    }

    /// The first `most` names in a folder, and whether there are more.
    pub fn list(&self, path: &str, most: usize) -> io::Result<(Vec<Entry>, bool)> {
        let found = self.find(path)?;
        if !found.is_directory {
            return Err(wrong(format!("{path} is no folder")));
        }
        let folder = self.folder_bytes(&found)?;
        let is_own = |entry: &Entry| entry.name != "." && entry.name != "..";
        let mut entries = Entries::new(&folder, self.layout.kind).filter(is_own);
        let listed = entries.by_ref().take(most).collect();
        Ok((listed, entries.next().is_some()))
    }

    /// At most `length` bytes of a file from `offset` on; fewer when it ends before.
    pub fn read_at(&self, path: &str, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let file = self.find(path)?;
        if file.is_directory {
            return Err(wrong(format!("{path} is a folder")));
        }
        let length = file.size_bytes.saturating_sub(offset).min(length);
        if length == 0 {
            return Ok(Vec::new());
        }
        self.bytes(file.cluster, offset, length, Short::IsAnError)
    }

    fn root_bytes(&self) -> io::Result<Vec<u8>> {
        match self.layout.root {
            Root::Fixed { at, bytes } => {
                let mut folder = buffer(bytes)?;
                self.disk.read_exact_at(&mut folder, at)?;
                Ok(folder)
            }
            Root::Cluster(cluster) => {
                self.bytes(cluster, 0, FOLDER_BYTES_MAX + 1, Short::Ends).and_then(bounded)
            }
        }
    }

    fn folder_bytes(&self, folder: &Entry) -> io::Result<Vec<u8>> {
        self.bytes(folder.cluster, 0, FOLDER_BYTES_MAX + 1, Short::Ends).and_then(bounded)
    }

    /// `length` bytes of a chain, from `offset` on.
    fn bytes(&self, first: u32, offset: u64, length: u64, short: Short) -> io::Result<Vec<u8>> {
        let mut chain = Chain { volume: self, cluster: Some(first), window: Vec::new(), at: 0 };
        for _ in 0..offset / self.layout.cluster_bytes {
            chain.step()?;
        }
        let mut bytes = Vec::new();
        let mut skipped = offset % self.layout.cluster_bytes;
        while (bytes.len() as u64) < length {
            let Some(cluster) = chain.cluster else {
                match short {
                    Short::Ends => break,
                    Short::IsAnError => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            };
            let left = length - bytes.len() as u64;
            let mut piece = buffer((self.layout.cluster_bytes - skipped).min(left))?;
            self.disk.read_exact_at(&mut piece, self.layout.place(cluster)? + skipped)?;
            let is_end = short == Short::Ends && has_end(&piece);
            bytes.append(&mut piece);
            // Behind its last entry, a folder says nothing.
            if is_end {
                break;
            }
            skipped = 0;
            if (bytes.len() as u64) < length {
                chain.step()?;
            }
        }
        Ok(bytes)
    }
}

impl Layout {
    fn read(boot: &[u8; 512], disk_bytes: u64) -> Option<Self> {
        let sector_bytes = number(boot, 11, 2);
        let (per_cluster, reserved, n_tables) =
            (number(boot, 13, 1), number(boot, 14, 2), number(boot, 16, 1));
        let root_bytes = number(boot, 17, 2) * ENTRY as u64;
        let (short, long) = (number(boot, 19, 2), number(boot, 32, 4));
        let sectors = if short == 0 { long } else { short };
        let (table_short, table_long) = (number(boot, 22, 2), number(boot, 36, 4));
        let table_sectors = if table_short == 0 { table_long } else { table_short };
        let cluster_bytes = sector_bytes * per_cluster;
        // All tables are alike, or this bit says that another one than the first may count: nobody makes that.
        let one_table = table_short == 0 && boot[40] & 0x80 != 0;
        let is_sound = boot[510..] == [0x55, 0xaa]
            && [512, 1024, 2048, 4096].contains(&sector_bytes)
            && per_cluster.is_power_of_two()
            && cluster_bytes <= CLUSTER_MAX
            && reserved > 0
            && n_tables > 0
            && table_sectors > 0
            && sectors * sector_bytes <= disk_bytes
            && !one_table;
        if !is_sound {
            return None;
        }
        // Sums and products of 32 bits and less do not overflow.
        let table = reserved * sector_bytes;
        let table_bytes = table_sectors * sector_bytes;
        let root_at = table + n_tables * table_bytes;
        let clusters = root_at + root_bytes.next_multiple_of(sector_bytes);
        let n_clusters = (sectors * sector_bytes).checked_sub(clusters)? / cluster_bytes;
        let kind = match (table_short, n_clusters) {
            (0, _) => Kind::Fat32,
            (_, ..FAT12_CLUSTERS) => Kind::Fat12,
            _ => Kind::Fat16,
        };
        let root = match kind {
            Kind::Fat32 => Root::Cluster(u32::try_from(number(boot, 44, 4)).ok()?),
            Kind::Fat12 | Kind::Fat16 => Root::Fixed { at: root_at, bytes: root_bytes },
        };
        let bits = (n_clusters + 2) * kind.bits();
        (bits.div_ceil(8) <= table_bytes).then_some(Self {
            kind,
            cluster_bytes,
            table,
            table_bytes,
            root,
            clusters,
            n_clusters,
        })
    }

    fn place(&self, cluster: u32) -> io::Result<u64> {
        let number = u64::from(cluster).checked_sub(2).filter(|number| *number < self.n_clusters);
        let number = number.ok_or_else(|| wrong(format!("there is no cluster {cluster}")))?;
        Ok(self.clusters + number * self.cluster_bytes)
    }
}

/// What it means that a chain ends before all bytes were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Short {
    Ends,
    IsAnError,
}

impl Kind {
    fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }

    /// From this number on, an entry of the table ends a chain.
    fn end(self) -> u32 {
        match self {
            Self::Fat12 => 0xff8,
            Self::Fat16 => 0xfff8,
            Self::Fat32 => 0x0fff_fff8,
        }
    }
}

/// A place in a chain of clusters.
struct Chain<'v, D> {
    volume: &'v Volume<D>,
    /// `None`: behind the last one.
    cluster: Option<u32>,
    /// A piece of the allocation table, and where it begins in that.
    window: Vec<u8>,
    at: u64,
}

impl<D: Disk> Chain<'_, D> {
    fn step(&mut self) -> io::Result<()> {
        let Some(cluster) = self.cluster else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        self.volume.layout.place(cluster)?;
        let kind = self.volume.layout.kind;
        let bit = u64::from(cluster) * kind.bits();
        let entry = match kind {
            Kind::Fat12 => {
                let pair = u32::try_from(self.table(bit / 8, 2)?).expect("two bytes");
                if bit.is_multiple_of(8) { pair & 0xfff } else { pair >> 4 }
            }
            Kind::Fat16 => u32::try_from(self.table(bit / 8, 2)?).expect("two bytes"),
            Kind::Fat32 => {
                u32::try_from(self.table(bit / 8, 4)?).expect("four bytes") & 0x0fff_ffff
            }
        };
        self.cluster = (entry < kind.end()).then_some(entry);
        Ok(())
    }

    /// A number in the allocation table.
    fn table(&mut self, at: u64, length: usize) -> io::Result<u64> {
        let end = at + length as u64;
        if at < self.at || end > self.at + self.window.len() as u64 {
            let volume = self.volume;
            let from = at / 512 * 512;
            let bytes =
                (from + WINDOW).max(end).min(volume.layout.table_bytes).saturating_sub(from);
            self.window = buffer(bytes)?;
            self.at = from;
            volume.disk.read_exact_at(&mut self.window, volume.layout.table + from)?;
        }
        let from = usize::try_from(at - self.at).map_err(io::Error::other)?;
        let found = self.window.get(from..from + length);
        Ok(number(found.ok_or(io::ErrorKind::UnexpectedEof)?, 0, length))
    }
}

/// Files and folders among the entries of a folder.
struct Entries<'f> {
    folder: std::slice::ChunksExact<'f, u8>,
    kind: Kind,
    long: Option<Long>,
}

/// A long name, as far as it was read: its last part comes first.
struct Long {
    units: [u16; LONG_UNITS * LONG_ENTRIES_MAX],
    n_units: usize,
    /// The number of the next part; 0: all were read.
    next: usize,
    checksum: u8,
}

impl<'f> Entries<'f> {
    fn new(folder: &'f [u8], kind: Kind) -> Self {
        Self { folder: folder.chunks_exact(ENTRY), kind, long: None }
    }

    fn take_long(&mut self, entry: &[u8]) {
        const LAST: u8 = 0x40;
        let order = usize::from(entry[0] & !LAST);
        if entry[0] & LAST != 0 && (1..=LONG_ENTRIES_MAX).contains(&order) {
            let units = [0; LONG_UNITS * LONG_ENTRIES_MAX];
            let n_units = order * LONG_UNITS;
            self.long = Some(Long { units, n_units, next: order, checksum: entry[13] });
        }
        let fits = |long: &Long| long.next == order && order > 0 && long.checksum == entry[13];
        let Some(mut long) = self.long.take().filter(fits) else { return };
        let pieces = [&entry[1..11], &entry[14..26], &entry[28..32]];
        let read = pieces.into_iter().flat_map(|piece| piece.chunks_exact(2));
        let at = (order - 1) * LONG_UNITS;
        for (unit, pair) in long.units[at..].iter_mut().zip(read) {
            *unit = u16::from_le_bytes([pair[0], pair[1]]);
        }
        long.next = order - 1;
        self.long = Some(long);
    }

    /// The name of the entry that follows the parts of a long name.
    fn name(&mut self, entry: &[u8]) -> String {
        let short = &entry[..11];
        let checksum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        let fits = |long: &Long| long.next == 0 && long.checksum == checksum;
        let long = self.long.take().filter(fits).and_then(|long| {
            let units = &long.units[..long.n_units];
            let length = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
            String::from_utf16(&units[..length]).ok()
        });
        long.unwrap_or_else(|| short_name(short))
    }
}

fn short_name(short: &[u8]) -> String {
    let part = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches(' ').to_owned();
    let (base, extension) = (part(&short[..8]), part(&short[8..]));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        const DELETED: u8 = 0xe5;
        loop {
            let entry = self.folder.next().filter(|entry| entry[0] != 0)?;
            let attributes = entry[11];
            if entry[0] == DELETED {
                self.long = None;
            } else if attributes & 0x3f == IS_LONG {
                self.take_long(entry);
            } else if attributes & IS_LABEL != 0 {
                self.long = None;
            } else {
                let high = if self.kind == Kind::Fat32 { number(entry, 20, 2) } else { 0 };
                let cluster = high << 16 | number(entry, 26, 2);
                return Some(Entry {
                    name: self.name(entry),
                    is_directory: attributes & IS_DIRECTORY != 0,
                    size_bytes: number(entry, 28, 4),
                    cluster: u32::try_from(cluster).expect("two times two bytes"),
                });
            }
        }
    }
}

/// Whether a piece of a folder has the entry behind its last one.
fn has_end(piece: &[u8]) -> bool {
    piece.chunks_exact(ENTRY).any(|entry| entry[0] == 0)
}

fn bounded(folder: Vec<u8>) -> io::Result<Vec<u8>> {
    if folder.len() as u64 > FOLDER_BYTES_MAX {
        return Err(wrong("a folder has more entries than the format allows".to_owned()));
    }
    Ok(folder)
}

/// A little-endian number of at most eight bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn buffer(bytes: u64) -> io::Result<Vec<u8>> {
    Ok(vec![0; usize::try_from(bytes).map_err(io::Error::other)?])
}

fn missing(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {path}"))
}

fn wrong(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests;

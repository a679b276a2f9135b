//! What is carried to nodes by hand: where it is on a stick, and a reader of FAT that trusts nothing.
//!
//! A stick has the folder [`ROOT`], which `3bot contract carry` fills: for each node the bundles of its
//! contracts, what the transparency log shows of them, and the files of their flists. Whoever carries it
//! can leave out, damage and invent: what is read here proves nothing, and is judged like what a registry
//! sends. Nothing is written, mounted or executed; every read has a bound in bytes, and in time if the caller
//! sets one ([`Volume::until`]); no name on the stick is used for anything but to be compared with a wanted
//! one, or parsed as an id.

#![forbid(unsafe_code)]

mod fat;
mod partitions;

pub use fat::{Entry, Volume};
pub use partitions::places;

use contract::{ContractId, NodeId, StatementId};
use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _};

/// The folder on a stick.
pub const ROOT: &str = "zos-carry";

/// The folder with the bundles for a node; each is named after its contract.
pub fn bundles(node: &NodeId) -> String {
    format!("{ROOT}/nodes/{node}")
}

/// The bundle of a contract for a node.
pub fn bundle(node: &NodeId, contract: &ContractId) -> String {
    format!("{}/{contract}", bundles(node))
}

/// A file of an flist, by the name that it has below every place with published flists.
pub fn content(name: &str) -> String {
    format!("{ROOT}/content/{name}")
}

/// The newest checkpoint of the log.
pub fn checkpoint() -> String {
    format!("{ROOT}/log/checkpoint")
}

/// The folder with the proofs that statements are in the log.
pub fn proofs() -> String {
    format!("{ROOT}/log/proofs")
}

/// The proof of one statement.
pub fn proof(statement: &StatementId) -> String {
    format!("{}/{statement}", proofs())
}

/// A tile of the log by its name, such as `tile/0/000`.
pub fn tile(name: &str) -> String {
    format!("{ROOT}/log/{name}")
}

/// Bytes that can be read at any place.
pub trait Disk {
    /// How many there are.
    fn size_bytes(&self) -> u64;
    /// Fills `bytes` from this place on.
    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
}

impl Disk for &[u8] {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let from = usize::try_from(at).ok().and_then(|at| self.get(at..));
        let found = from.and_then(|from| from.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Disk for Vec<u8> {
    fn size_bytes(&self) -> u64 {
        self.as_slice().size_bytes()
    }

    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(bytes, at)
    }
}

/// A block device that somebody has opened.
#[derive(Debug)]
pub struct Device {
    file: File,
    size_bytes: u64,
}

impl Device {
    /// Of so many bytes, as the kernel says.
    pub fn new(file: File, size_bytes: u64) -> Self {
        Self { file, size_bytes }
    }
}

impl Disk for Device {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)
    }
}

/// A disk of which no further piece is read once somebody says so.
pub struct Until<'d, D> {
    disk: &'d D,
    stop: &'d (dyn Fn() -> bool + 'd),
}

/// Bytes that are read between two questions whether to stop.
const PIECE: usize = 64 << 10;

impl<D> std::fmt::Debug for Until<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Until").finish_non_exhaustive()
    }
}

impl<D: Disk> Disk for Until<'_, D> {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let mut at = at;
        for piece in bytes.chunks_mut(PIECE) {
            if (self.stop)() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "reading it was given up"));
            }
            self.disk.read_exact_at(piece, at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }
}

/// A part of a disk.
#[derive(Debug)]
pub struct Part<D> {
    disk: D,
    place: Range<u64>,
}

impl<D: Disk> Disk for Part<D> {
    fn size_bytes(&self) -> u64 {
        self.place.end - self.place.start
    }

    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let end = at.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.size_bytes()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.disk.read_exact_at(bytes, self.place.start + at)
    }
}

/// The first file system of a disk that has the folder [`ROOT`]. `None`: there is none, and the disk is
/// no carrier. One that cannot be read hides no other, and is an error when nothing else is found.
/// Ends with [`io::ErrorKind::TimedOut`] when `stop` says so.
pub fn find<D: Disk>(disk: D, stop: &dyn Fn() -> bool) -> io::Result<Option<Volume<Part<D>>>> {
    let mut failed = None;
    for place in places(&Until { disk: &disk, stop })? {
        let part = Part { disk: Until { disk: &disk, stop }, place: place.clone() };
        match carrier(part) {
            Ok(None) => {}
            Ok(Some(volume)) => {
                let layout = volume.into_layout();
                return Ok(Some(Volume::new(Part { disk, place }, layout)));
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(None), Err)
}

fn carrier<D: Disk>(part: D) -> io::Result<Option<Volume<D>>> {
    let Some(volume) = Volume::open(part)? else { return Ok(None) };
    match volume.find(ROOT) {
        Ok(entry) => Ok(entry.is_directory.then_some(volume)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

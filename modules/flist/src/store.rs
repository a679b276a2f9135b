//! The node's store of verified content, on a file system with fs-verity.
//!
//! ```text
//! objects/aa/bb…           0444, fs-verity: one copy of each content, shared by all images
//! images/<identity>.erofs  the metadata image, fs-verity
//! images/<identity>.flist  the body; written last, so its presence means: complete
//! staging/<identity>/      what is being fetched; survives a crash, so that nothing comes twice
//! ```
//!
//! An object gets its name only after the kernel has measured the digest that the flist demands. A
//! crash at any point leaves a usable store. Nothing is removed but by [`Store::sweep`], which the
//! caller orders, and bad files, which are fetched again by the next [`Store::ingest`]; whoever runs a
//! store reads it through from time to time with [`Store::scrub`], so that they are found.
//!
//! One process uses a store, and it never forks: a child that inherits a descriptor open for
//! writing would make the kernel refuse to seal the file.

mod findings;
mod ingest;
mod room;
mod scrub;
mod seal;
mod space;
mod sweep;

use crate::{
    check::{Refusal, shown},
    codec::Flist,
    erofs,
    fetch::{FetchError, Reason, out_of_space},
    store_path,
};
use contract::FlistId;
use findings::Found;
use room::Room;
use seal::{Identity, Kernel};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    mem,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

pub use room::Shortage;
pub use scrub::{NotAPlace, Place, Scrubbed};
pub use seal::Pace;
pub use sweep::Swept;

/// A store. Share it by reference between threads; calls for different flists run at once.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    kernel: Kernel,
    working: Mutex<Working>,
    /// Apart from `working`, so that whoever asks does not wait for a disk.
    found: Mutex<Found>,
    /// What is promised to fetches; not locked while the disk is asked.
    room: Mutex<Room>,
    /// One fetch at a time asks for room.
    admitting: Mutex<()>,
}

/// Who works, so that nobody's files are swept away. While it is locked, no name becomes that of another
/// file.
#[derive(Debug, Default)]
struct Working {
    ingesting: BTreeSet<FlistId>,
    sweeping: bool,
}

/// What the launcher needs to mount the root of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The metadata image.
    pub image: PathBuf,
    /// The digest that the kernel must measure on it. It follows from the body, not from the disk.
    pub image_digest: [u8; 32],
    /// The data-only lower directory.
    pub objects: PathBuf,
}

/// How thoroughly [`Store::verify`] looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Asks the kernel for the digest of each file: microseconds for each.
    Measure,
    /// Reads every byte too, so that the kernel compares every page with the disk.
    Read,
}

/// A file of an image that is not as it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which file.
    pub part: Part,
    /// What is wrong with it.
    pub kind: FaultKind,
}

/// A file that an flist needs in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The recorded body.
    List,
    /// The metadata image.
    Image,
    /// The file with this path inside the image.
    File(String),
}

/// What is wrong with a file of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It is not there.
    Missing,
    /// The kernel measures another digest, or none.
    WrongDigest,
    /// The kernel refuses to read it.
    Unreadable,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FaultKind::Missing => "is missing",
            FaultKind::WrongDigest => "has another digest, or none",
            FaultKind::Unreadable => "cannot be read",
        };
        let file = match &self.part {
            Part::List => "the list of files",
            Part::Image => "the image of the tree",
            Part::File(path) => path,
        };
        write!(f, "{file} {kind}")
    }
}

/// What went wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the file system.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The image does not fit beside what others were promised.
    #[error("{0}")]
    Full(Shortage),
    /// Fetching failed.
    #[error("fetching flist {identity}")]
    Fetch {
        /// Which flist.
        identity: FlistId,
        /// What exactly.
        #[source]
        source: FetchError,
    },
    /// The recorded body is not what it was.
    #[error("reading the recorded body of flist {identity}")]
    Record {
        /// Which flist.
        identity: FlistId,
        /// What is wrong with it.
        #[source]
        source: Refusal,
    },
    /// The disk does not give the recorded body back.
    #[error("reading the recorded body of flist {identity}")]
    RecordUnreadable {
        /// Which flist.
        identity: FlistId,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Every chunk arrived intact, and still the kernel measures another digest: the flist lies.
    #[error("the kernel measures another digest on {file} than the flist demands")]
    Mismatch {
        /// Path inside the image; empty for the metadata image.
        file: String,
    },
    /// The store is on a file system without fs-verity.
    #[error("{} is on a file system without fs-verity", path.display())]
    NoVerity {
        /// A file that could not be sealed.
        path: PathBuf,
    },
    /// Cancelled while another call ingested the same flist.
    #[error("the store is busy with flist {0}")]
    Busy(FlistId),
    /// Flists are being ingested, so nothing can be swept.
    #[error("the store is busy fetching, so it cannot be swept")]
    BusyFetching,
    /// The flist is not, or not completely, in the store.
    #[error("flist {0} is not in the store")]
    Absent(FlistId),
}

impl StoreError {
    /// Stable code, for results and tests.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { source, .. } => out_of_space(source, Reason::StagingFailed).code(),
            Self::Full(short) if short.is_for_ever() => "store_too_small",
            Self::Full(_) => Reason::StoreFull.code(),
            Self::Fetch { source, .. } => source.reason.code(),
            Self::Record { .. } | Self::RecordUnreadable { .. } => "record_damaged",
            Self::Mismatch { .. } => Reason::ContentMismatch.code(),
            Self::NoVerity { .. } => "no_verity",
            Self::Busy(_) | Self::BusyFetching => "busy",
            Self::Absent(_) => "absent",
        }
    }

    /// Whether the caller stopped it, to go on later.
    fn is_cancelled(&self) -> bool {
        matches!(self, Self::Fetch { source, .. } if source.reason == Reason::Cancelled)
    }

    /// Whether there is no room.
    fn is_full(&self) -> bool {
        matches!(self, Self::Full(_)) || self.code() == Reason::StoreFull.code()
    }

    /// Whether the recorded body is not what it was, or cannot be read.
    fn is_of_record(&self) -> bool {
        matches!(self, Self::Record { .. } | Self::RecordUnreadable { .. })
    }

    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

impl Store {
    /// Opens the store in `root`, and makes its directories. What a crash left is kept.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let directories =
            [store_path::objects(root), store_path::images(root), store_path::staging(root)];
        for directory in &directories {
            fs::create_dir_all(directory).map_err(StoreError::io("making directory", directory))?;
        }
        Ok(Self {
            root: root.to_owned(),
            kernel: Kernel::REAL,
            working: Mutex::default(),
            found: Mutex::default(),
            room: Mutex::default(),
            admitting: Mutex::default(),
        })
    }

    /// The flists that are complete, by the names of their records.
    pub fn list(&self) -> Result<BTreeSet<FlistId>, StoreError> {
        let images = store_path::images(&self.root);
        let mut flists = BTreeSet::new();
        for item in fs::read_dir(&images).map_err(StoreError::io("listing", &images))? {
            let name = item.map_err(StoreError::io("listing", &images))?.file_name();
            let identity = name.to_str().and_then(|name| name.strip_suffix(".flist"));
            flists.extend(identity.and_then(|identity| identity.parse::<FlistId>().ok()));
        }
        Ok(flists)
    }

    /// The flists of which anything is there: complete ones, and what was staged for others.
    pub fn stored(&self) -> Result<BTreeSet<FlistId>, StoreError> {
        let mut flists = self.list()?;
        let staging = store_path::staging(&self.root);
        for item in fs::read_dir(&staging).map_err(StoreError::io("listing", &staging))? {
            let name = item.map_err(StoreError::io("listing", &staging))?.file_name();
            flists.extend(name.to_str().and_then(|name| name.parse::<FlistId>().ok()));
        }
        Ok(flists)
    }

    /// What was found bad since this was asked last, for each complete flist that needs it; of many faults
    /// some. It has lost its name by then, or was replaced: whoever had it open still has.
    pub fn take_findings(&self) -> BTreeMap<FlistId, Vec<Fault>> {
        mem::take(&mut self.found())
    }

    /// The body of a complete flist. Its hash is compared with the identity each time.
    pub fn flist(&self, identity: FlistId) -> Result<Flist, StoreError> {
        self.read_record(identity, |_| {})
    }

    /// The same, as it is on the disk.
    fn flist_from_disk(&self, identity: FlistId) -> Result<Flist, StoreError> {
        self.read_record(identity, seal::forget)
    }

    fn read_record(&self, identity: FlistId, before: fn(&File)) -> Result<Flist, StoreError> {
        let path = store_path::record(&self.root, identity);
        let failed = |doing: &'static str| {
            let path = path.clone();
            move |source: io::Error| {
                if seal::is_damage(&source) {
                    StoreError::RecordUnreadable { identity, source }
                } else {
                    StoreError::Io { doing, path, source }
                }
            }
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Absent(identity));
            }
            Err(error) => return Err(failed("opening")(error)),
        };
        before(&file);
        let mut bytes = Vec::new();
        let read = file.take(crate::body::BODY_MAX as u64 + 1).read_to_end(&mut bytes);
        read.map_err(failed("reading"))?;
        Flist::decode_as(identity, &bytes).map_err(|source| StoreError::Record { identity, source })
    }

    /// What to mount. Cheap, and trusts nothing on the disk: the digest is computed from the body.
    ///
    /// Whether every object is there is a question for [`Store::verify`].
    pub fn root(&self, identity: FlistId) -> Result<Root, StoreError> {
        let flist = self.flist(identity)?;
        Ok(self.root_of(&flist))
    }

    fn root_of(&self, flist: &Flist) -> Root {
        Root {
            image: store_path::image(&self.root, flist.identity()),
            image_digest: erofs::digest(flist.body()),
            objects: store_path::objects(&self.root),
        }
    }

    /// Looks at the image and every object of a complete flist, and says which are not right.
    ///
    /// Changes nothing; [`Store::ingest`] repairs.
    pub fn verify(&self, identity: FlistId, depth: Depth) -> Result<Vec<Fault>, StoreError> {
        let flist = self.flist(identity)?;
        let root = self.root_of(&flist);
        let mut faults = Vec::new();
        let mut note = |part: Part, fault: Option<FaultKind>| {
            faults.extend(fault.map(|kind| Fault { part, kind }));
        };
        note(Part::Image, self.fault(&root.image, &root.image_digest, depth)?);
        let body = flist.body();
        for (content, path) in body.contents.iter().zip(body.paths_of_contents()) {
            let object = root.objects.join(store_path::object(&content.digest));
            note(Part::File(shown(path)), self.fault(&object, &content.digest, depth)?);
        }
        Ok(faults)
    }

    fn fault(
        &self,
        path: &Path,
        digest: &[u8; 32],
        depth: Depth,
    ) -> Result<Option<FaultKind>, StoreError> {
        (self.kernel.fault)(path, digest, depth, &mut |_| {})
    }

    /// Takes the name of a bad file, unless it stands for another one by now, or for none. Says whether it
    /// did.
    fn take_name(&self, path: &Path, bad: Option<Identity>) -> Result<bool, StoreError> {
        let _nobody_names = self.lock();
        if bad.is_none() || seal::identity(path)? != bad {
            return Ok(false);
        }
        fs::remove_file(path).map_err(StoreError::io("removing", path))?;
        Ok(true)
    }

    /// Nobody wants this flist any more: what an ingest that was cancelled had of the free room is
    /// others' again. What was staged stays until it is swept. A second call changes nothing.
    pub fn give_up(&self, identity: FlistId) {
        self.room().forget(identity);
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Working> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_store_has_nothing_and_stays_when_opened_again() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        assert_eq!(store.list().unwrap(), BTreeSet::new());
        assert_eq!(store.root(FlistId([1; 32])).unwrap_err().code(), "absent");
        assert_eq!(store.sweep(&BTreeSet::new()).unwrap(), Swept::default());
        let kept = root.path().join("staging/kept");
        fs::write(&kept, "").unwrap();
        let staged = FlistId([2; 32]);
        fs::create_dir(root.path().join("staging").join(staged.to_string())).unwrap();
        let store = Store::open(root.path()).unwrap();
        assert!(kept.exists());
        assert_eq!(store.stored().unwrap(), BTreeSet::from([staged]));
        store.sweep(&BTreeSet::new()).unwrap();
        assert_eq!(store.stored().unwrap(), BTreeSet::new());
    }

    #[test]
    fn a_damaged_record_of_a_pinned_flist_stops_the_sweep() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let identity = FlistId([1; 32]);
        fs::write(store_path::record(root.path(), identity), "junk").unwrap();
        let object = root.path().join("objects/aa").join("b".repeat(62));
        fs::create_dir(object.parent().unwrap()).unwrap();
        fs::write(&object, "object").unwrap();
        assert_eq!(store.root(identity).unwrap_err().code(), "record_damaged");
        let pinned = BTreeSet::from([identity]);
        assert_eq!(store.sweep(&pinned).unwrap_err().code(), "record_damaged");
        assert!(object.exists());
        // Without the pin, everything goes.
        let swept = store.sweep(&BTreeSet::new()).unwrap();
        assert_eq!(swept, Swept { images: 0, objects: 1, bytes: 10 });
        assert!(!object.exists());
    }

    #[test]
    fn nothing_is_swept_while_an_flist_arrives() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        store.lock().ingesting.insert(FlistId([1; 32]));
        assert_eq!(store.sweep(&BTreeSet::new()).unwrap_err().code(), "busy");
        store.lock().ingesting.clear();
        store.sweep(&BTreeSet::new()).unwrap();
    }
}

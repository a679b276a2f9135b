//! Reads what is in the store from the disk, so that the kernel compares every page, while the store
//! is used.
//!
//! What is not right at first is read again some seconds later, from the disk: a controller that was
//! reset is no damage. What is bad then loses its name, unless that stands for another file by now:
//! nothing can open it any more, measuring finds it missing, and the next [`Store::ingest`] fetches
//! exactly that. Only the record of an flist stays, which a sweep needs; an ingest replaces it. What the
//! caller does about those who have a bad file open is its own matter: to them the kernel refuses the
//! bad pages.

use super::{
    Depth, FaultKind, Store, StoreError,
    findings::{Findings, Found},
    seal::{self, Identity, Pace},
};
use crate::{Flist, erofs, store_path};
use contract::FlistId;
use std::{
    collections::BTreeSet,
    fmt, fs, io, mem,
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

/// Directories of objects, by the first byte of their digests.
const SHELVES: u16 = 256;
/// What looking at a file costs, whatever its size, as bytes that are read.
const FILE_BYTES: u64 = 16 << 10;
/// What was not right waits for so much reading, or for so long, before it is read again with all that
/// was not right meanwhile. Each look at a file counts, so there are at most 4096 of them.
const DOUBT_BYTES: u64 = 64 << 20;
const DOUBT_TIME: Duration = Duration::from_secs(20);

/// A file of the store: where a look at all of them stands. In the order in which they are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The metadata image of an flist.
    Image(FlistId),
    /// The content with this digest.
    Object([u8; 32]),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(flist) => write!(f, "image {flist}"),
            Self::Object(digest) => write!(f, "object {}", hex::encode(digest)),
        }
    }
}

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let digest = |name: &str| name.parse::<FlistId>().map_err(|_| NotAPlace);
        match text.split_once(' ') {
            Some(("image", name)) => digest(name).map(Self::Image),
            Some(("object", name)) => digest(name).map(|digest| Self::Object(digest.0)),
            Some(_) | None => Err(NotAPlace),
        }
    }
}

/// A text that names no place in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a place is written as `image` or `object` and 64 hexadecimal digits")]
pub struct NotAPlace;

/// How far a look came.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// Where to go on; `None`: everything was read.
    pub next: Option<Place>,
    /// Files that were not right when they were read first.
    pub doubted: u64,
    /// Files that were looked at, also those that were missing, and how many bytes were read of them.
    pub files: u64,
    /// See there. What was read twice counts twice.
    pub bytes: u64,
    /// Files that were bad, or missing, at the second look too.
    pub bad: u64,
    /// Flists that need one of these.
    pub damaged: BTreeSet<FlistId>,
    /// The first thing that kept a file from being looked at. The look has gone on behind it.
    pub problem: Option<StoreError>,
}

impl Store {
    /// Reads about so many bytes of what comes behind `after`. What is bad is told by
    /// [`Store::take_findings`].
    ///
    /// A look that begins, with `after` of `None`, asks for all digests first, so that what is missing is
    /// found soon. `pace` is told of the bytes as they are read, and may take its time.
    pub fn scrub(&self, after: Option<Place>, bytes_max: u64, pace: Pace<'_>) -> Scrubbed {
        let mut look = Look::new(self, pace);
        if after.is_none() {
            look.measure_all();
        }
        look.read = 0;
        for shelf in first_shelf(after)..=SHELVES {
            let places = self.shelf(shelf).unwrap_or_else(|error| look.note(error));
            for place in places.into_iter().filter(|place| after.is_none_or(|after| *place > after))
            {
                match place {
                    Place::Image(flist) => drop(look.list(flist)),
                    Place::Object(digest) => look.check(Target::object(self, digest), Depth::Read),
                }
                if look.read >= bytes_max {
                    return look.end(Some(place));
                }
            }
            look.confirm();
        }
        look.end(None)
    }

    /// Reads everything that a complete flist needs.
    pub fn scrub_one(&self, flist: FlistId, pace: Pace<'_>) -> Scrubbed {
        let mut look = Look::new(self, pace);
        if let Some(list) = look.list(flist) {
            for content in &list.body().contents {
                look.check(Target::object(self, content.digest), Depth::Read);
            }
        }
        look.end(None)
    }

    /// The files of one directory, in order; shelf 0 has the images of all complete flists, also those
    /// that are gone.
    fn shelf(&self, shelf: u16) -> Result<Vec<Place>, StoreError> {
        let directory = match shelf.checked_sub(1) {
            None => store_path::images(&self.root),
            Some(first) => store_path::objects(&self.root).join(format!("{first:02x}")),
        };
        let names = match fs::read_dir(&directory) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(StoreError::io("listing", &directory)(source)),
        };
        let mut places = Vec::new();
        for name in names {
            let name = name.map_err(StoreError::io("listing", &directory))?.file_name();
            places.extend(name.to_str().and_then(|name| place(shelf, name)));
        }
        places.sort_unstable();
        Ok(places)
    }
}

/// A file, and what the kernel must measure on it.
#[derive(Debug)]
struct Target {
    place: Place,
    path: PathBuf,
    digest: [u8; 32],
}

impl Target {
    fn object(store: &Store, digest: [u8; 32]) -> Self {
        Self { place: Place::Object(digest), path: store.object(&digest), digest }
    }

    fn image(store: &Store, list: &Flist) -> Self {
        let flist = list.identity();
        let path = store_path::image(&store.root, flist);
        Self { place: Place::Image(flist), path, digest: erofs::digest(list.body()) }
    }
}

/// What was not right at first.
#[derive(Debug)]
enum Doubt {
    Record(FlistId),
    File(Target, Depth),
}

/// A look while it goes on.
struct Look<'l> {
    store: &'l Store,
    pace: Pace<'l>,
    read: u64,
    doubts: Vec<Doubt>,
    /// When the oldest doubt came, and what had been read by then.
    doubted: Option<(Instant, u64)>,
    findings: Findings,
    /// What was bad; what several flists need is bad once.
    bad: BTreeSet<Place>,
    scrubbed: Scrubbed,
}

impl<'l> Look<'l> {
    fn new(store: &'l Store, pace: Pace<'l>) -> Self {
        Self {
            store,
            pace,
            read: 0,
            doubts: Vec::new(),
            doubted: None,
            findings: Findings::default(),
            bad: BTreeSet::new(),
            scrubbed: Scrubbed::default(),
        }
    }

    fn measure_all(&mut self) {
        let complete = self.store.list().unwrap_or_else(|error| self.note(error));
        for flist in complete {
            let Some(list) = self.record(flist) else { continue };
            for content in &list.body().contents {
                self.check(Target::object(self.store, content.digest), Depth::Measure);
            }
        }
        self.confirm();
    }

    /// Reads the record and the image of an flist, if it is complete.
    fn list(&mut self, flist: FlistId) -> Option<Flist> {
        let list = self.record(flist)?;
        let target = Target::image(self.store, &list);
        // What was computed just now is as much as what is read.
        self.count(fs::metadata(&target.path).map_or(0, |image| image.len()));
        self.check(target, Depth::Read);
        Some(list)
    }

    fn record(&mut self, flist: FlistId) -> Option<Flist> {
        self.confirm_before(FILE_BYTES);
        self.count(FILE_BYTES);
        match self.store.flist_from_disk(flist) {
            Ok(list) => Some(list),
            Err(StoreError::Absent(_)) => None,
            Err(error) if error.is_of_record() => {
                self.doubt(Doubt::Record(flist));
                None
            }
            Err(error) => self.note(error),
        }
    }

    fn check(&mut self, target: Target, depth: Depth) {
        if !self.doubts.is_empty() {
            let size = match depth {
                Depth::Measure => 0,
                Depth::Read => fs::metadata(&target.path).map_or(0, |file| file.len()),
            };
            self.confirm_before(size.saturating_add(FILE_BYTES));
        }
        let found = self.fault(&target, depth);
        if depth == Depth::Read && found.is_ok() {
            self.scrubbed.files = self.scrubbed.files.saturating_add(1);
        }
        match found {
            Ok((None, _)) => {}
            Ok((Some(_), _)) => self.doubt(Doubt::File(target, depth)),
            Err(error) => self.note(error),
        }
    }

    /// What is wrong with a file, and which one it was.
    fn fault(
        &mut self,
        target: &Target,
        depth: Depth,
    ) -> Result<(Option<FaultKind>, Option<Identity>), StoreError> {
        self.count(FILE_BYTES);
        let identity = seal::identity(&target.path)?;
        let kernel = self.store.kernel;
        let kind = (kernel.fault)(&target.path, &target.digest, depth, &mut |bytes| {
            self.scrubbed.bytes = self.scrubbed.bytes.saturating_add(bytes);
            self.count(bytes);
        })?;
        Ok((kind, identity))
    }

    fn count(&mut self, bytes: u64) {
        self.read = self.read.saturating_add(bytes);
        (self.pace)(bytes);
    }

    fn doubt(&mut self, doubt: Doubt) {
        self.scrubbed.doubted = self.scrubbed.doubted.saturating_add(1);
        self.doubted.get_or_insert_with(|| (Instant::now(), self.read));
        self.doubts.push(doubt);
    }

    /// What was not right does not wait for the reading of so many bytes, if that takes long.
    fn confirm_before(&mut self, bytes: u64) {
        let is_late = |(since, read): (Instant, u64)| {
            let waits_for = self.read.saturating_sub(read).saturating_add(bytes);
            waits_for > DOUBT_BYTES || since.elapsed() >= DOUBT_TIME
        };
        if self.doubted.is_some_and(is_late) {
            self.confirm();
        }
    }

    /// Looks again at what was not right, and takes the names of what is bad.
    fn confirm(&mut self) {
        if self.doubts.is_empty() {
            return;
        }
        self.doubted = None;
        self.store.kernel.wait_again();
        for doubt in mem::take(&mut self.doubts) {
            if let Err(error) = self.settle(doubt) {
                self.note::<()>(error);
            }
        }
    }

    fn settle(&mut self, doubt: Doubt) -> Result<(), StoreError> {
        match doubt {
            Doubt::Record(flist) => match self.store.flist_from_disk(flist) {
                Ok(_) | Err(StoreError::Absent(_)) => Ok(()),
                Err(error) if error.is_of_record() => {
                    self.tell(Place::Image(flist), Findings::of_list(flist));
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Doubt::File(target, depth) => {
                let (Some(kind), identity) = self.fault(&target, depth)? else { return Ok(()) };
                let found = self.findings.of_file(self.store, target.place, kind)?;
                if kind == FaultKind::Missing || self.store.take_name(&target.path, identity)? {
                    self.tell(target.place, found);
                }
                Ok(())
            }
        }
    }

    fn tell(&mut self, place: Place, found: Found) {
        self.bad.insert(place);
        self.scrubbed.damaged.extend(found.keys());
        self.store.tell(found);
    }

    /// Keeps the first problem, and gives nothing in place of what could not be had.
    fn note<T: Default>(&mut self, error: StoreError) -> T {
        self.scrubbed.problem.get_or_insert(error);
        T::default()
    }

    fn end(mut self, next: Option<Place>) -> Scrubbed {
        self.confirm();
        Scrubbed { next, bad: self.bad.len() as u64, ..self.scrubbed }
    }
}

/// Where to begin behind a place.
fn first_shelf(after: Option<Place>) -> u16 {
    match after {
        None | Some(Place::Image(_)) => 0,
        Some(Place::Object(digest)) => u16::from(digest[0]) + 1,
    }
}

/// What a file name stands for on a shelf; other files are none of ours.
fn place(shelf: u16, name: &str) -> Option<Place> {
    match shelf.checked_sub(1) {
        None => name.strip_suffix(".flist")?.parse().ok().map(Place::Image),
        Some(first) => {
            let digest: FlistId = format!("{first:02x}{name}").parse().ok()?;
            Some(Place::Object(digest.0))
        }
    }
}

#[cfg(test)]
mod tests;

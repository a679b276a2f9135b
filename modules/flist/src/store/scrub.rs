//! Reads what is in the store from the disk, so that the kernel compares every page, while the store
//! is used.
//!
//! A bad file loses its name at once: nothing can open it any more, measuring finds it missing, and
//! the next [`Store::ingest`] fetches exactly that. What the caller does about those who have it
//! open already is its own matter: to them the kernel refuses the bad pages.

use super::{
    Depth, Fault, FaultKind, Store, StoreError,
    ingest::remove_if_there,
    seal::{self, Pace},
};
use crate::{check::shown, erofs, store_path};
use contract::FlistId;
use std::{collections::BTreeMap, fmt, fs, io, str::FromStr};

/// Directories of objects, by the first byte of their digests.
const SHELVES: u16 = 256;

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

/// Something bad that an flist needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The flist, which was complete until then.
    pub flist: FlistId,
    /// What is wrong, and with which of its files.
    pub fault: Fault,
}

impl Store {
    /// Reads about so many bytes of what comes behind `after`, and tells of everything bad.
    ///
    /// Gives where to go on; `None`: everything was read. A look that begins, with `after` of
    /// `None`, asks for all digests first, so that what is missing is found soon. `pace` is told of
    /// the bytes as they are read, and may take its time.
    pub fn scrub(
        &self,
        after: Option<Place>,
        bytes_max: u64,
        pace: Pace<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<Option<Place>, StoreError> {
        if after.is_none() {
            self.measure_all(found)?;
        }
        let mut read = 0_u64;
        for shelf in first_shelf(after)..=SHELVES {
            for place in self.shelf(shelf)? {
                if after.is_some_and(|after| place <= after) {
                    continue;
                }
                let mut count = |bytes: u64| {
                    read = read.saturating_add(bytes);
                    pace(bytes);
                };
                self.look_at(place, &mut count, found)?;
                if read >= bytes_max {
                    return Ok(Some(place));
                }
            }
        }
        Ok(None)
    }

    /// Reads everything that a complete flist needs, and tells of everything bad in it.
    pub fn scrub_one(
        &self,
        flist: FlistId,
        pace: Pace<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<(), StoreError> {
        let Some(list) = self.sound(flist, found)? else { return Ok(()) };
        self.look_at(Place::Image(flist), pace, found)?;
        for content in &list.body().contents {
            self.look_at(Place::Object(content.digest), pace, found)?;
        }
        // What is missing has no file to look at.
        for fault in self.verify(flist, Depth::Measure)? {
            found(Finding { flist, fault });
        }
        Ok(())
    }

    fn measure_all(&self, found: &mut dyn FnMut(Finding)) -> Result<(), StoreError> {
        for flist in self.list()? {
            if self.sound(flist, found)?.is_some() {
                for fault in self.verify(flist, Depth::Measure)? {
                    found(Finding { flist, fault });
                }
            }
        }
        Ok(())
    }

    /// The body of a complete flist. A damaged record stays where it is: it keeps a sweep from taking
    /// the objects that nobody can name without it, and the next ingest replaces it.
    fn sound(
        &self,
        flist: FlistId,
        found: &mut dyn FnMut(Finding),
    ) -> Result<Option<crate::Flist>, StoreError> {
        match self.flist(flist) {
            Ok(list) => Ok(Some(list)),
            Err(StoreError::Absent(_)) => Ok(None),
            Err(StoreError::Record { .. } | StoreError::RecordUnreadable { .. }) => {
                let fault = Fault { file: String::new(), kind: FaultKind::Unreadable };
                found(Finding { flist, fault });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The files of one directory, in order; shelf 0 has the images.
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

    /// Reads one file. One that is gone meanwhile was swept, or is being replaced.
    fn look_at(
        &self,
        place: Place,
        pace: Pace<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<(), StoreError> {
        let (path, digest) = match place {
            Place::Object(digest) => (self.object(&digest), digest),
            Place::Image(flist) => match self.flist(flist) {
                Ok(list) => (store_path::image(&self.root, flist), erofs::digest(list.body())),
                // Not complete: what is there of it is measured when it is fetched.
                Err(_) => return Ok(()),
            },
        };
        match seal::fault_from_disk(&path, &digest, pace)? {
            None | Some(FaultKind::Missing) => Ok(()),
            Some(kind) => {
                remove_if_there(&path)?;
                for (flist, file) in self.concerned(place)? {
                    found(Finding { flist, fault: Fault { file, kind } });
                }
                Ok(())
            }
        }
    }

    /// The complete flists that need a file, with its name in them.
    fn concerned(&self, place: Place) -> Result<BTreeMap<FlistId, String>, StoreError> {
        let digest = match place {
            Place::Image(flist) => return Ok([(flist, String::new())].into()),
            Place::Object(digest) => digest,
        };
        let mut concerned = BTreeMap::new();
        for flist in self.list()? {
            // One without a sound record cannot be started, and is found for itself.
            let Ok(list) = self.flist(flist) else { continue };
            let body = list.body();
            let mut files = body.contents.iter().zip(body.paths_of_contents());
            if let Some((_, path)) = files.find(|(content, _)| content.digest == digest) {
                concerned.insert(flist, shown(path));
            }
        }
        Ok(concerned)
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
        None => name.strip_suffix(".erofs")?.parse().ok().map(Place::Image),
        Some(first) => {
            let digest: FlistId = format!("{first:02x}{name}").parse().ok()?;
            Some(Place::Object(digest.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn places_are_read_as_they_are_written() {
        for place in [Place::Image(FlistId([7; 32])), Place::Object([200; 32])] {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for bad in ["", "image", "object 12", "images/aa", &format!("file {}", "a".repeat(64))] {
            assert_eq!(bad.parse::<Place>(), Err(NotAPlace), "{bad}");
        }
    }

    /// Files without fs-verity are all bad, and every one is found by a look that is interrupted after
    /// each file and begins anew where it stood.
    #[test]
    fn a_look_in_pieces_sees_every_file_once() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let digests = [[0; 32], [0x41; 32], [0x42; 32], [0xff; 32]];
        let paths = digests.map(|digest| store.object(&digest));
        for path in &paths {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap();
        }
        fs::write(root.path().join("objects/41/junk"), "none of ours").unwrap();
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let read = &mut |bytes| assert_eq!(bytes, 0);
            after = store.scrub(after, 0, read, &mut |one| panic!("{one:?}")).unwrap();
            let Some(place) = after else { break };
            seen.push(place);
        }
        assert_eq!(seen, digests.map(Place::Object));
        assert!(paths.iter().all(|path| !path.exists()), "what nobody needs and is bad goes too");
        assert!(root.path().join("objects/41/junk").exists());
    }

    #[test]
    fn a_damaged_record_is_found_and_stays_until_it_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let flist = FlistId([1; 32]);
        fs::write(store_path::record(root.path(), flist), "junk").unwrap();
        let mut found = Vec::new();
        let mut note = |one: Finding| found.push((one.flist, one.fault.kind));
        assert_eq!(store.scrub(None, 0, &mut |_| {}, &mut note).unwrap(), None);
        assert_eq!(found, [(flist, FaultKind::Unreadable)]);
        assert_eq!(store.flist(flist).unwrap_err().code(), "record_damaged");
        assert_eq!(store.sweep(&[flist].into()).unwrap_err().code(), "record_damaged");
    }
}

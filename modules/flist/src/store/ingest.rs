//! Brings an flist into the store, completely or not at all, and repairs one that is there.

use super::{
    Depth, FaultKind, Place, Root, Store, StoreError,
    findings::Findings,
    room::Ask,
    seal::{self, Identity, Sealed},
};
use crate::{
    body::Content,
    check::shown,
    codec::Flist,
    erofs,
    fetch::{self, FetchError},
    progress::{Cancel, Progress, Stage},
    source::Source,
    store_path,
};
use contract::FlistId;
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    iter,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::PoisonError,
    time::{Duration, Instant},
};

/// What is fetched early leaves one part in so many of the store to what may run now.
const LEFT_PART: u64 = 8;
/// A file takes whole blocks of the file system.
const FILE_BLOCK: u64 = 4096;
/// In which `stat` counts what a file has on the disk.
const BLOCK: u64 = 512;
/// Another call for the same flist takes as long as its network.
const CLAIM_RETRY: Duration = Duration::from_millis(100);
/// Fetched content that the kernel does not confirm is fetched this often.
const PASSES_MAX: u32 = 2;

/// When the files are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    Now,
    /// Later: they leave room to what is needed now.
    Early,
}

/// A file that is not right.
struct Bad {
    /// The number of the content; `None`: the metadata image.
    part: Option<u32>,
    identity: Option<Identity>,
    kind: FaultKind,
}

impl Store {
    /// Makes flist `identity` complete, and returns what to mount.
    ///
    /// Measures every object that is already there; what is missing, has another digest or cannot
    /// be measured is removed and fetched. Fetches nothing that is there or staged. A second call
    /// for a complete flist needs no network; one for the same flist at the same time waits. Blocks;
    /// call it from a thread that may.
    ///
    /// Before anything is written, the room for all that is missing is promised to this flist; without it
    /// fails with [`StoreError::Full`]. One that is cancelled keeps its room: call it again, or
    /// [`Store::give_up`].
    pub fn ingest(
        &self,
        identity: FlistId,
        source: &Source,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Root, StoreError> {
        self.ingest_for((Depth::Measure, Haste::Now), identity, source, progress, cancel)
    }

    /// The same, this thoroughly, for what is not needed yet: leaves room to what is, and ends as if it were
    /// cancelled when that needs the room it was promised.
    pub fn prefetch(
        &self,
        identity: FlistId,
        depth: Depth,
        source: &Source,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Root, StoreError> {
        self.ingest_for((depth, Haste::Early), identity, source, progress, cancel)
    }

    /// The same as [`Store::ingest`], and reads every object before it is taken for good.
    ///
    /// For a workload that saw an I/O error.
    pub fn repair(
        &self,
        identity: FlistId,
        source: &Source,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Root, StoreError> {
        self.ingest_for((Depth::Read, Haste::Now), identity, source, progress, cancel)
    }

    /// Bytes that an ingest would have to fetch now.
    pub fn missing_bytes(&self, flist: &Flist) -> Result<u64, StoreError> {
        let body = flist.body();
        let mut bytes = 0_u64;
        for content in &body.contents {
            let object = self.object(&content.digest);
            if self.fault(&object, &content.digest, Depth::Measure)?.is_some() {
                bytes = bytes.saturating_add(content.size);
            }
        }
        Ok(bytes)
    }

    fn ingest_for(
        &self,
        (depth, haste): (Depth, Haste),
        identity: FlistId,
        source: &Source,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Root, StoreError> {
        let _claim = self.claim(identity, cancel)?;
        let mut promise = Promise { store: self, identity, stays: false };
        let done = self.complete((depth, haste), identity, source, progress, cancel);
        // One that was stopped goes on later, in the room that it has.
        promise.stays = done.as_ref().is_err_and(StoreError::is_cancelled);
        done
    }

    fn complete(
        &self,
        (depth, haste): (Depth, Haste),
        identity: FlistId,
        source: &Source,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Root, StoreError> {
        let fetch_failed = |source: FetchError| StoreError::Fetch { identity, source };
        let (flist, recorded) = match self.flist(identity) {
            Ok(flist) => (flist, true),
            Err(
                StoreError::Absent(_)
                | StoreError::Record { .. }
                | StoreError::RecordUnreadable { .. },
            ) => (fetch::body(source, identity, cancel).map_err(fetch_failed)?, false),
            Err(error) => return Err(error),
        };
        let root = self.root_of(&flist);
        let (mut missing, no_image) = self.missing(&flist, depth, recorded)?;
        if missing.is_empty() && !no_image && recorded {
            return Ok(root);
        }

        let staging = store_path::staging(&self.root).join(identity.to_string());
        fs::create_dir_all(&staging).map_err(StoreError::io("making directory", &staging))?;
        drop_sealed_leftovers(&flist, &missing, &staging)?;
        for pass in 1.. {
            let admitted = self.admit(&flist, (&missing, no_image), &staging, haste);
            let fetched = admitted.and_then(|()| {
                let progress = Written { store: self, identity, progress, cancel };
                fetch::contents(&flist, &missing, source, &staging, &progress, cancel)
                    .map_err(fetch_failed)
            });
            if fetched.as_ref().is_err_and(StoreError::is_full) {
                // What does not fit as a whole leaves the room to others.
                fs::remove_dir_all(&staging).map_err(StoreError::io("removing", &staging))?;
            }
            fetched?;
            missing = self.admit_objects(&flist, &missing, &staging, progress)?;
            let Some(content) = missing.first() else { break };
            if pass == PASSES_MAX {
                let path = flist.body().paths_of_contents()[*content as usize];
                return Err(StoreError::Mismatch { file: shown(path) });
            }
        }
        if no_image {
            self.make_image(&flist, &root, &staging)?;
        }
        // Everything that the record promises is on the disk before the record is.
        self.sync()?;
        self.write_record(&flist, &staging)?;
        fs::remove_dir_all(&staging).map_err(StoreError::io("removing", &staging))?;
        Ok(root)
    }

    /// Contents without a good object, and whether the image is not there. What is bad loses its name,
    /// nobody else would take it, and is told of to all who have it open; so is what is gone from an
    /// flist that was complete.
    fn missing(
        &self,
        flist: &Flist,
        depth: Depth,
        recorded: bool,
    ) -> Result<(Vec<u32>, bool), StoreError> {
        let contents = (0..).take(flist.body().contents.len()).map(Some);
        let mut bad = self.bad(flist, iter::once(None).chain(contents), depth)?;
        let is_unreadable = |one: &mut Bad| one.kind == FaultKind::Unreadable;
        let doubts: Vec<_> = bad.extract_if(.., is_unreadable).map(|one| one.part).collect();
        if !doubts.is_empty() {
            self.kernel.wait_again();
            bad.extend(self.bad(flist, doubts.into_iter(), depth)?);
        }
        let mut findings = Findings::default();
        for one in bad.iter().filter(|one| recorded || one.kind != FaultKind::Missing) {
            let (place, path, _) = self.part(flist, one.part);
            let found = findings.of_file(self, place, one.kind)?;
            let named = one.kind != FaultKind::Missing && self.take_name(&path, one.identity)?;
            if named || recorded {
                self.tell(found);
            }
        }
        let mut missing: Vec<u32> = bad.iter().filter_map(|one| one.part).collect();
        missing.sort_unstable();
        Ok((missing, bad.iter().any(|one| one.part.is_none())))
    }

    /// Those of an flist's contents, by number, and its image that are not right.
    fn bad(
        &self,
        flist: &Flist,
        parts: impl Iterator<Item = Option<u32>>,
        depth: Depth,
    ) -> Result<Vec<Bad>, StoreError> {
        let mut bad = Vec::new();
        for part in parts {
            let (_, path, digest) = self.part(flist, part);
            let identity = seal::identity(&path)?;
            if let Some(kind) = self.fault(&path, &digest, depth)? {
                bad.push(Bad { part, identity, kind });
                continue;
            }
            let Some(number) = part.map(|number| number as usize) else { continue };
            // The object is right, so it is the flist that lies about it.
            let found = match fs::metadata(&path) {
                Ok(found) => found,
                // Somebody who reads the store has found it bad just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    bad.push(Bad { part, identity: None, kind: FaultKind::Missing });
                    continue;
                }
                Err(source) => return Err(StoreError::io("looking at", &path)(source)),
            };
            if found.len() != flist.body().contents[number].size {
                let path = flist.body().paths_of_contents()[number];
                return Err(StoreError::Mismatch { file: shown(path) });
            }
        }
        Ok(bad)
    }

    /// Where a content, or the image, has to be, and with which digest.
    fn part(&self, flist: &Flist, part: Option<u32>) -> (Place, PathBuf, [u8; 32]) {
        match part {
            None => {
                let Root { image, image_digest, .. } = self.root_of(flist);
                (Place::Image(flist.identity()), image, image_digest)
            }
            Some(number) => {
                let digest = flist.body().contents[number as usize].digest;
                (Place::Object(digest), self.object(&digest), digest)
            }
        }
    }

    /// Promises the room for what is to be written: contents that are missing and not staged, with what
    /// the kernel adds, perhaps the image, and the record.
    fn admit(
        &self,
        flist: &Flist,
        (missing, no_image): (&[u32], bool),
        staging: &Path,
        haste: Haste,
    ) -> Result<(), StoreError> {
        let _one_at_a_time = self.admitting.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked before the disk is: what is written meanwhile counts twice, and never not at all.
        let promised = self.room().promises();
        self.sync()?;
        let space = self.space()?;
        let body = flist.body();
        let contents = missing.iter().map(|number| &body.contents[*number as usize]);
        let unwritten = |content: &Content| {
            let staged = fs::metadata(staging.join(hex::encode(content.digest)));
            let written = staged.map_or(0, |found| found.blocks().saturating_mul(BLOCK));
            in_blocks(content.size).saturating_sub(written)
        };
        let (image, record) =
            (in_blocks(erofs::size(body)), in_blocks(flist.encode().len() as u64));
        let others = record.saturating_add(if no_image { image } else { 0 });
        let bytes = with_seals(contents.map(unwritten).fold(others, u64::saturating_add));
        let all = body.contents.iter().map(|content| in_blocks(content.size));
        let whole = with_seals(all.fold(image.saturating_add(record), u64::saturating_add));
        let leave = match haste {
            Haste::Now => 0,
            Haste::Early => space.size / LEFT_PART,
        };
        let (ask, now) = (Ask { bytes, whole, leave }, Instant::now());
        let admitted = self.room().admit(flist.identity(), ask, (&promised, space), now);
        admitted.map_err(StoreError::Full)
    }

    /// Seals staged contents and gives them their names. Returns those the kernel did not confirm.
    fn admit_objects(
        &self,
        flist: &Flist,
        staged: &[u32],
        staging: &Path,
        progress: &dyn Progress,
    ) -> Result<Vec<u32>, StoreError> {
        // The data first: a sealed object must never be found with its blocks unwritten.
        self.sync()?;
        let contents = &flist.body().contents;
        progress.begin(Stage::Sealing, staged.iter().map(|n| contents[*n as usize].size).sum());
        let mut refused = Vec::new();
        for &number in staged {
            let content = &contents[number as usize];
            let from = staging.join(hex::encode(content.digest));
            match (self.kernel.seal)(&from, &content.digest)? {
                Sealed::Yes => self.name(&from, &self.object(&content.digest))?,
                Sealed::OtherDigest => {
                    fs::remove_file(&from).map_err(StoreError::io("removing", &from))?;
                    refused.push(number);
                }
            }
            progress.advance(content.size);
        }
        Ok(refused)
    }

    fn make_image(&self, flist: &Flist, root: &Root, staging: &Path) -> Result<(), StoreError> {
        let from = staging.join("image");
        let failed = || StoreError::io("writing", &from);
        // An earlier run may have sealed a file of this name.
        remove_if_there(&from)?;
        let mut out = BufWriter::new(File::create(&from).map_err(failed())?);
        erofs::write(flist.body(), &mut out).map_err(failed())?;
        let file = out.into_inner().map_err(|error| failed()(error.into_error()))?;
        file.sync_all().map_err(failed())?;
        drop(file);
        match (self.kernel.seal)(&from, &root.image_digest)? {
            Sealed::Yes => self.name(&from, &root.image),
            Sealed::OtherDigest => Err(StoreError::Mismatch { file: String::new() }),
        }
    }

    fn write_record(&self, flist: &Flist, staging: &Path) -> Result<(), StoreError> {
        let from = staging.join("record");
        let failed = || StoreError::io("writing", &from);
        let mut file = File::create(&from).map_err(failed())?;
        file.write_all(&flist.encode()).map_err(failed())?;
        file.sync_all().map_err(failed())?;
        drop(file);
        self.name(&from, &store_path::record(&self.root, flist.identity()))?;
        let images = store_path::images(&self.root);
        File::open(&images)
            .and_then(|images| images.sync_all())
            .map_err(StoreError::io("syncing", &images))
    }

    /// Moves a staged file to its place. Whatever was there is replaced in one step.
    fn name(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        let directory = to.parent().unwrap_or(&self.root);
        fs::create_dir_all(directory).map_err(StoreError::io("making directory", directory))?;
        let _nobody_takes_names = self.lock();
        fs::rename(from, to).map_err(StoreError::io("naming", to))
    }

    pub(super) fn object(&self, digest: &[u8; 32]) -> PathBuf {
        store_path::objects(&self.root).join(store_path::object(digest))
    }

    fn sync(&self) -> Result<(), StoreError> {
        let failed = || StoreError::io("syncing", &self.root);
        let root = File::open(&self.root).map_err(failed())?;
        rustix::fs::syncfs(&root).map_err(|errno| failed()(errno.into()))
    }

    /// Waits until nobody else ingests this flist, and no sweep runs.
    fn claim(&self, identity: FlistId, cancel: &Cancel) -> Result<Claim<'_>, StoreError> {
        loop {
            let mut working = self.lock();
            if !working.sweeping && working.ingesting.insert(identity) {
                return Ok(Claim { store: self, identity });
            }
            drop(working);
            if cancel.is_cancelled() {
                return Err(StoreError::Busy(identity));
            }
            cancel.wait(CLAIM_RETRY);
        }
    }
}

/// Notes what has been written of the room that was promised, and stops a fetch that has lost its promise.
struct Written<'a> {
    store: &'a Store,
    identity: FlistId,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
}

impl Progress for Written<'_> {
    fn begin(&self, stage: Stage, total: u64) {
        self.progress.begin(stage, total);
    }

    fn advance(&self, bytes: u64) {
        if !self.store.room().wrote(self.identity, bytes) {
            self.cancel.cancel();
        }
        self.progress.advance(bytes);
    }
}

/// When it goes, what the fetch was promised does, also when it panics.
struct Promise<'a> {
    store: &'a Store,
    identity: FlistId,
    stays: bool,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if !self.stays {
            self.store.room().end(self.identity);
        }
    }
}

/// While it lives, no other call ingests this flist, and nothing is swept.
struct Claim<'a> {
    store: &'a Store,
    identity: FlistId,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.store.lock().ingesting.remove(&self.identity);
    }
}

/// What a file of so many bytes takes.
fn in_blocks(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(FILE_BLOCK).unwrap_or(u64::MAX)
}

/// With the tree of hashes that the kernel writes for each file.
fn with_seals(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 100)
}

/// Somebody who reads the store may have removed it as well.
pub(super) fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StoreError::io("removing", path)(source)),
    }
}

/// An earlier run may have sealed a wrong file and been stopped: it can only be removed.
fn drop_sealed_leftovers(flist: &Flist, missing: &[u32], staging: &Path) -> Result<(), StoreError> {
    for number in missing {
        let digest = &flist.body().contents[*number as usize].digest;
        let path = staging.join(hex::encode(digest));
        if seal::is_sealed_otherwise(&path, digest)? {
            fs::remove_file(&path).map_err(StoreError::io("removing", &path))?;
        }
    }
    Ok(())
}

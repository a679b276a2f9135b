//! The content store: published flists and packs as static files, named by their hashes, and what publishers
//! have signed of them.
//!
//! Bodies are streamed to the disk and hashed on the way; a file appears under its name when it is
//! whole, right and on the disk. Names are written once and never change, but for releases: a later revision,
//! or a later end of the same one, takes the place of what is there.

use crate::{
    db::Fault,
    pace::Paced,
    peers::{Peer, Share, Shares},
    refusal,
};
use anyhow::Context as _;
use axum::body::Body;
use contract::{FlistId, PublicKey, Release, release::NotARelease};
use registry_api::{paths::CONTENT_BYTES_MAX, problem::codes};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{Semaphore, SemaphorePermit},
    task,
};

/// A file must be here by then: its sender waits no longer.
const TIMEOUT_UPLOAD: Duration = Duration::from_mins(10);
/// What is not wanted is read for so long.
const TIMEOUT_DRAIN: Duration = Duration::from_secs(5);
/// Uploads at a time,
const UPLOADS_MAX: usize = 16;
/// and from one address.
const UPLOADS_EACH_MAX: usize = UPLOADS_MAX / 2;

/// The folder of releases.
const RELEASES: &str = "releases";
/// Publishers of one flist: anybody may be one.
const PUBLISHERS_MAX: usize = 1_000;

/// Whether the store takes files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Serves, and takes what hashes to its name.
    Writable,
    /// Serves only.
    ReadOnly,
}

/// What a file is; it decides on the hash that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Bodies of flists, by SHA-256.
    Flists,
    /// Packs of chunks, by BLAKE3.
    Packs,
}

impl Family {
    /// The folder's name.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Flists => "flists",
            Self::Packs => "packs",
        }
    }

    /// The family of this folder.
    pub fn from_folder(text: &str) -> Option<Self> {
        [Self::Flists, Self::Packs].into_iter().find(|family| family.folder() == text)
    }
}

/// The store.
#[derive(Debug)]
pub struct Content {
    root: PathBuf,
    access: Access,
    uploads: Semaphore,
    shares: Shares,
    /// Distinguishes files that are being written.
    counter: AtomicU64,
    /// Releases are compared and written one at a time.
    releasing: Arc<Mutex<()>>,
}

/// A place among those who upload, for as long as it is held.
#[derive(Debug)]
pub struct Turn<'a> {
    _share: Share,
    _permit: SemaphorePermit<'a>,
}

/// One of the two hashes, while it is made.
enum Hasher {
    Sha256(Sha256),
    Blake3(Box<blake3::Hasher>),
}

impl Content {
    /// Opens the store below the data directory, and drops what was being written at the last stop.
    pub fn open(data: &Path, access: Access) -> anyhow::Result<Self> {
        let root = data.join("content");
        let staging = root.join("staging");
        if staging.exists() {
            fs::remove_dir_all(&staging)
                .with_context(|| format!("emptying {}", staging.display()))?;
        }
        for folder in ["staging", Family::Flists.folder(), Family::Packs.folder(), RELEASES] {
            let path = root.join(folder);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(Self {
            root,
            access,
            uploads: Semaphore::new(UPLOADS_MAX),
            shares: Shares::new(UPLOADS_EACH_MAX),
            counter: AtomicU64::new(0),
            releasing: Arc::default(),
        })
    }

    /// Where a file is, or would be.
    pub fn path(&self, family: Family, id: &FlistId) -> PathBuf {
        self.root.join(family.folder()).join(id.to_string())
    }

    /// Takes a file. `true` when it was not there before.
    pub async fn put(
        &self,
        peer: Peer,
        family: Family,
        id: &FlistId,
        body: Body,
    ) -> Result<bool, Fault> {
        if self.access == Access::ReadOnly {
            drain(body).await;
            let text = "this registry takes no content";
            return Err(refusal(403, codes::READ_ONLY, text, "Publish on a server of your own."));
        }
        let path = self.path(family, id);
        if tokio::fs::try_exists(&path).await.context("looking for content")? {
            drain(body).await;
            return Ok(false);
        }
        let _turn = self.turn(peer)?;
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let staged = self.root.join("staging").join(number.to_string());
        let outcome = self.receive(&staged, family, id, body).await;
        let outcome = match outcome {
            Ok(()) => publish(&staged, &path).await.map_err(Fault::from),
            Err(fault) => Err(fault),
        };
        if outcome.is_err()
            && let Err(error) = tokio::fs::remove_file(&staged).await
            && error.kind() != io::ErrorKind::NotFound
        {
            crate::log(&format!("removing {}: {error}", staged.display()));
        }
        outcome.map(|()| true)
    }

    /// A place among those who upload; refused when it would be one too many.
    pub fn turn(&self, peer: Peer) -> Result<Turn<'_>, Fault> {
        let busy = || refusal(503, codes::UNAVAILABLE, "too many uploads at a time", "Try again.");
        let share = self.shares.take(peer).ok_or_else(busy)?;
        let permit = self.uploads.try_acquire().map_err(|_| busy())?;
        Ok(Turn { _share: share, _permit: permit })
    }

    /// Where a release is, or would be.
    pub fn release_path(&self, flist: &FlistId, publisher: &PublicKey) -> PathBuf {
        self.root.join(contract::release::name(flist, publisher))
    }

    /// Takes what a publisher has signed. `true` when it was not there before. One that says less than what
    /// is there is refused, so that nobody brings back an old one.
    pub async fn put_release(
        &self,
        flist: &FlistId,
        publisher: &PublicKey,
        record: Vec<u8>,
    ) -> Result<bool, Fault> {
        if self.access == Access::ReadOnly {
            let text = "this registry takes no content";
            return Err(refusal(403, codes::READ_ONLY, text, "Publish on a server of your own."));
        }
        let release = Release::open(&record).map_err(|error| {
            let hint = "Make it with `3bot flist sign`.";
            match error {
                NotARelease::Unsigned => {
                    refusal(422, codes::BAD_SIGNATURE, crate::chain(&error), hint)
                }
                _ => refusal(400, codes::MALFORMED, crate::chain(&error), hint),
            }
        })?;
        if let Err(unfit) = release.fits(flist, publisher, 1) {
            let hint = "A release lies under its own flist and publisher.";
            return Err(refusal(400, codes::BAD_REQUEST, unfit.to_string(), hint));
        }
        let path = self.release_path(flist, publisher);
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let staged = self.root.join("staging").join(number.to_string());
        // To its end, also when nobody waits for the answer any more.
        let releasing = Arc::clone(&self.releasing);
        let kept = task::spawn_blocking(move || {
            let _alone = releasing.lock().unwrap_or_else(PoisonError::into_inner);
            keep_release(&staged, &path, &release, &record)
        });
        kept.await.context("keeping a release")?
    }

    async fn receive(
        &self,
        staged: &Path,
        family: Family,
        id: &FlistId,
        body: Body,
    ) -> Result<(), Fault> {
        let mut file = tokio::fs::File::create(staged)
            .await
            .with_context(|| format!("making {}", staged.display()))?;
        let mut hasher = match family {
            Family::Flists => Hasher::Sha256(Sha256::new()),
            Family::Packs => Hasher::Blake3(Box::default()),
        };
        let mut body = Paced::new(body, TIMEOUT_UPLOAD);
        while let Some(chunk) = body.next().await? {
            if body.bytes() > CONTENT_BYTES_MAX {
                let text = format!("more than {CONTENT_BYTES_MAX} bytes");
                return Err(refusal(413, codes::TOO_LARGE, text, ""));
            }
            match &mut hasher {
                Hasher::Sha256(hasher) => hasher.update(&chunk),
                Hasher::Blake3(hasher) => drop(hasher.update(&chunk)),
            }
            file.write_all(&chunk).await.with_context(|| writing(staged))?;
        }
        let found: [u8; 32] = match hasher {
            Hasher::Sha256(hasher) => hasher.finalize().into(),
            Hasher::Blake3(hasher) => hasher.finalize().into(),
        };
        if found != id.0 {
            let text = format!("the {} bytes hash to {}", body.bytes(), hex::encode(found));
            let hint = "Flists are named by SHA-256, packs by BLAKE3.";
            return Err(refusal(422, codes::WRONG_HASH, text, hint));
        }
        // What could not be written is told here, and not by the next line.
        file.flush().await.with_context(|| writing(staged))?;
        file.sync_all().await.with_context(|| writing(staged))?;
        Ok(())
    }
}

/// Writes a release in the place of what is there, if it may.
fn keep_release(
    staged: &Path,
    path: &Path,
    release: &Release,
    record: &[u8],
) -> Result<bool, Fault> {
    let folder = path.parent().context("a release lies in a folder")?;
    match fs::read(path) {
        Ok(known) if known == record => return Ok(false),
        Ok(known) if Release::open(&known).is_ok_and(|known| !release.replaces(&known)) => {
            let text =
                "a release of this revision or a later one, with no sooner end, is published";
            let hint = "Sign a later revision, or one that lasts longer.";
            return Err(refusal(409, codes::OLD_VERSION, text, hint));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).with_context(|| writing(folder))?;
            let others = fs::read_dir(folder).with_context(|| writing(folder))?;
            if others.take(PUBLISHERS_MAX).count() >= PUBLISHERS_MAX {
                let text = format!("{PUBLISHERS_MAX} publishers have signed this flist");
                return Err(refusal(
                    409,
                    codes::TOO_MANY,
                    text,
                    "Publish on a server of your own.",
                ));
            }
        }
        Err(error) => return Err(anyhow::Error::new(error).context("reading a release").into()),
    }
    let write = || {
        let mut file = File::create(staged)?;
        file.write_all(record)?;
        file.sync_all()?;
        fs::rename(staged, path)?;
        File::open(folder)?.sync_all()?;
        // The folder may be new too.
        folder.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
    };
    if let Err(error) = write() {
        // Gone, if it has its name already; else the next start empties the folder.
        drop(fs::remove_file(staged));
        return Err(anyhow::Error::new(error).context(writing(path)).into());
    }
    Ok(true)
}

/// Reads some of a body that is not wanted: a sender that is answered before it has finished may see
/// a broken connection instead of the answer. One that takes longer is answered all the same.
async fn drain(body: Body) {
    let mut body = Paced::new(body, TIMEOUT_DRAIN);
    while body.bytes() <= CONTENT_BYTES_MAX
        && let Ok(Some(_)) = body.next().await
    {}
}

fn writing(path: &Path) -> String {
    format!("writing {}", path.display())
}

/// Puts a whole file under its name, and the name on the disk.
async fn publish(staged: &Path, path: &Path) -> anyhow::Result<()> {
    tokio::fs::rename(staged, path).await.with_context(|| writing(path))?;
    let folder = path.parent().context("content lies in a folder")?;
    let folder = tokio::fs::File::open(folder).await.with_context(|| writing(path))?;
    folder.sync_all().await.with_context(|| writing(path))
}

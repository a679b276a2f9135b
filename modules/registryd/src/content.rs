//! The content store: published flists and packs as static files, named by their hashes, and what publishers
//! have signed of them.
//!
//! Bodies are streamed to the disk and hashed on the way; a file appears under its name when it is
//! whole, right and on the disk. Names are written once and never change, but for releases: one that
//! says more takes the place of one that says less.

use crate::{
    db::Fault,
    pace::Paced,
    peers::{Peer, Shares},
    refusal,
};
use anyhow::Context as _;
use axum::body::Body;
use contract::{FlistId, PublicKey, Release};
use registry_api::{paths::CONTENT_BYTES_MAX, problem::codes};
use sha2::{Digest as _, Sha256};
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{Mutex, Semaphore},
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
    releasing: Mutex<()>,
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
            std::fs::remove_dir_all(&staging)
                .with_context(|| format!("emptying {}", staging.display()))?;
        }
        for folder in ["staging", Family::Flists.folder(), Family::Packs.folder(), RELEASES] {
            let path = root.join(folder);
            std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(Self {
            root,
            access,
            uploads: Semaphore::new(UPLOADS_MAX),
            shares: Shares::new(UPLOADS_EACH_MAX),
            counter: AtomicU64::new(0),
            releasing: Mutex::new(()),
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
        let busy = || refusal(503, codes::UNAVAILABLE, "too many uploads at a time", "Try again.");
        let _share = self.shares.take(peer).ok_or_else(busy)?;
        let _permit = self.uploads.try_acquire().map_err(|_| busy())?;
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let staged = self.root.join("staging").join(number.to_string());
        let outcome = self.receive(&staged, family, id, body).await;
        let outcome = match outcome {
            Ok(()) => publish(&staged, &path).await.map_err(Fault::from),
            Err(fault) => Err(fault),
        };
        if outcome.is_err()
            && let Err(error) = tokio::fs::remove_file(&staged).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            crate::log(&format!("removing {}: {error}", staged.display()));
        }
        outcome.map(|()| true)
    }

    /// Where a release is, or would be.
    pub fn release_path(&self, flist: &FlistId, publisher: &PublicKey) -> PathBuf {
        self.root.join(RELEASES).join(format!("{flist}.{publisher}"))
    }

    /// Takes what a publisher has signed. `true` when it was not there before. One that says less than what
    /// is there is refused, so that nobody brings back an old one.
    pub async fn put_release(
        &self,
        flist: &FlistId,
        publisher: &PublicKey,
        record: &[u8],
    ) -> Result<bool, Fault> {
        if self.access == Access::ReadOnly {
            let text = "this registry takes no content";
            return Err(refusal(403, codes::READ_ONLY, text, "Publish on a server of your own."));
        }
        let release = Release::open(record).map_err(|error| {
            let hint = "Make it with `3bot flist sign`.";
            refusal(400, codes::MALFORMED, crate::chain(&error), hint)
        })?;
        if let Err(unfit) = release.fits(flist, publisher, 1) {
            return Err(refusal(422, codes::BAD_SIGNATURE, unfit.to_string(), ""));
        }
        let path = self.release_path(flist, publisher);
        let _alone = self.releasing.lock().await;
        match tokio::fs::read(&path).await {
            Ok(known) if known == record => return Ok(false),
            Ok(known) if Release::open(&known).is_ok_and(|known| !release.replaces(&known)) => {
                let text = "a release that says as much or more is published already";
                let hint = "Sign a later revision, or one that lasts longer.";
                return Err(refusal(409, codes::OLD_VERSION, text, hint));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(anyhow::Error::new(error).context("reading a release").into());
            }
        }
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let staged = self.root.join("staging").join(number.to_string());
        let write = async {
            let mut file = tokio::fs::File::create(&staged).await?;
            file.write_all(record).await?;
            file.flush().await?;
            file.sync_all().await
        };
        write.await.with_context(|| writing(&staged))?;
        publish(&staged, &path).await?;
        Ok(true)
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

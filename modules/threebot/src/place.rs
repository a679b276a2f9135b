//! A place with published flists that its owner can change: a directory, or a bucket.
//!
//! Whoever publishes or signs on this machine and whoever clears up wait for each other. Where a lock does not
//! reach, as from another machine, ages do: whoever publishes gives what is there already a new one, and who
//! clears up looks once more before each file that goes.

mod bucket;

use crate::gc::{Found, Item, Keep, Refused, goes, kept};
use contract::{FlistId, Timestamp};
use flist::{Flist, Refusal, body::BODY_MAX};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

pub use bucket::{Bucket, Clock, Said, Sent, is_listing, said};

/// Names in a place; more is a mistake.
const NAMES_MAX: usize = 4_000_000;

/// A place.
#[derive(Debug)]
pub enum Place {
    /// What `flist build` wrote.
    Directory(PathBuf),
    /// What `flist push --to s3://…` sent.
    Bucket(Box<Bucket>),
}

/// Why something did not work in a place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The disk.
    #[error("{doing} {name}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The server of a bucket.
    #[error("{doing} {name}{hint}")]
    Bucket {
        /// What was tried.
        doing: &'static str,
        /// On what.
        name: String,
        /// What to look at.
        hint: &'static str,
        /// Why not.
        #[source]
        source: Said,
    },
    /// An flist that stays cannot be read, so nobody knows what it needs.
    #[error("flist {0}, which stays, cannot be read, and so nothing can go")]
    Body(FlistId, #[source] Refusal),
    /// Nothing may go.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Not a place, or one that is too large.
    #[error("{0}")]
    Unfit(String),
}

impl Place {
    /// A directory. Nothing is looked at yet.
    pub fn open(place: &Path) -> Self {
        Self::Directory(place.to_owned())
    }

    /// Waits until nobody on this machine publishes here, and lets nobody begin while it is held. A bucket has no
    /// such lock: there, ages alone keep what others publish.
    pub async fn alone(&self) -> Result<Option<File>, PlaceError> {
        match self {
            Self::Directory(root) => {
                let root = root.clone();
                blocking(move || {
                    let lock = || {
                        let place = File::open(&root)?;
                        place.lock()?;
                        Ok(place)
                    };
                    lock().map(Some).map_err(failed("locking", &root))
                })
                .await
            }
            Self::Bucket(_) => Ok(None),
        }
    }

    /// What may go from here. Changes nothing.
    pub async fn idle(&self, keep: &Keep) -> Result<Vec<Found>, PlaceError> {
        let found = self.list().await?;
        let kept = kept(&found, keep)?;
        let mut packs = BTreeSet::new();
        for id in &kept {
            let body = self.read(&Item::Body(*id)).await?;
            let flist =
                Flist::decode_as(*id, &body).map_err(|refusal| PlaceError::Body(*id, refusal))?;
            packs.extend(flist.body().packs.iter().map(|pack| FlistId(pack.id)));
        }
        Ok(goes(&found, keep, &kept, &packs))
    }

    /// Removes one file, unless it has a new age by now or is gone. Answers whether it did.
    pub async fn remove(&self, idle: &Found) -> Result<bool, PlaceError> {
        match self.look(&idle.item).await? {
            Some(now) if now.since == idle.since => self.delete(&idle.item).await.map(|()| true),
            Some(_) | None => Ok(false),
        }
    }

    /// Everything here whose name is ours.
    async fn list(&self) -> Result<Vec<Found>, PlaceError> {
        match self {
            Self::Directory(root) => {
                let root = root.clone();
                blocking(move || list_directory(&root)).await
            }
            Self::Bucket(bucket) => bucket.list(NAMES_MAX).await,
        }
    }

    /// One of them, as it is now.
    async fn look(&self, item: &Item) -> Result<Option<Found>, PlaceError> {
        match self {
            Self::Directory(root) => {
                let (root, item) = (root.clone(), *item);
                blocking(move || look_in_directory(&root, item)).await
            }
            Self::Bucket(bucket) => bucket.look(item).await,
        }
    }

    async fn read(&self, item: &Item) -> Result<Vec<u8>, PlaceError> {
        match self {
            Self::Directory(root) => {
                let path = root.join(item.name());
                blocking(move || read_file(&path)).await
            }
            Self::Bucket(bucket) => {
                let gone = || PlaceError::Unfit(format!("{} has just gone", item.name()));
                bucket.read(item).await?.ok_or_else(gone)
            }
        }
    }

    async fn delete(&self, item: &Item) -> Result<(), PlaceError> {
        match self {
            Self::Directory(root) => {
                let (root, item) = (root.clone(), *item);
                blocking(move || delete_in_directory(&root, item)).await
            }
            Self::Bucket(bucket) => bucket.delete(item).await,
        }
    }
}

/// Away from the threads that wait for sockets.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PlaceError> + Send + 'static,
) -> Result<T, PlaceError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| PlaceError::Unfit(error.to_string()))?
}

fn list_directory(root: &Path) -> Result<Vec<Found>, PlaceError> {
    if !root.join("flists").is_dir() {
        let text = format!("{} has no flists: `3bot flist build` makes some", root.display());
        return Err(PlaceError::Unfit(text));
    }
    let mut names = names_in(root, "flists")?;
    names.extend(names_in(root, "packs")?);
    for folder in names_in(root, "releases")? {
        names.extend(names_in(root, &folder)?);
    }
    if names.len() > NAMES_MAX {
        return Err(PlaceError::Unfit(format!(
            "more than {NAMES_MAX} names in {}",
            root.display()
        )));
    }
    let items = names.iter().filter_map(|name| Item::parse(name));
    items.filter_map(|item| look_in_directory(root, item).transpose()).collect()
}

/// Names below a folder, with it; none where there is no such folder. What is behind a link is another place's,
/// which may keep what this one would not.
fn names_in(root: &Path, folder: &str) -> Result<Vec<String>, PlaceError> {
    let path = root.join(folder);
    if path.is_symlink() {
        return Err(linked(&path));
    }
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        // A file beside the folders of releases.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Vec::new()),
        Err(error) => return Err(failed("listing", &path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries.take(NAMES_MAX + 1) {
        let name = entry.map_err(failed("listing", &path))?.file_name();
        // Of another kind than ours, it is not ours.
        names.extend(name.to_str().map(|name| format!("{folder}/{name}")));
    }
    Ok(names)
}

fn linked(path: &Path) -> PlaceError {
    PlaceError::Unfit(format!(
        "{} is a symbolic link: clear up the place that it leads to, or remove it",
        path.display()
    ))
}

/// When a file came, or was last published again. Copies keep the time at which a file was written, and then
/// only that of its inode is new.
fn age(found: &fs::Metadata) -> Timestamp {
    Timestamp::from_seconds(found.mtime().max(found.ctime()))
}

/// A regular file.
fn look_in_directory(root: &Path, item: Item) -> Result<Option<Found>, PlaceError> {
    let path = root.join(item.name());
    let found = match fs::symlink_metadata(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("looking at", &path)(error)),
    };
    if found.is_symlink() {
        return Err(linked(&path));
    }
    let since = age(&found);
    Ok(found.is_file().then_some(Found { item, bytes: found.len(), since }))
}

fn read_file(path: &Path) -> Result<Vec<u8>, PlaceError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BODY_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(failed("reading", path))?;
    Ok(bytes)
}

fn delete_in_directory(root: &Path, item: Item) -> Result<(), PlaceError> {
    let path = root.join(item.name());
    match fs::remove_file(&path) {
        // Somebody else was quicker.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(failed("removing", &path))?,
    }
    if let (Item::Release(..), Some(folder)) = (item, path.parent()) {
        // It stays while somebody else's release is in it.
        drop(fs::remove_dir(folder));
    }
    Ok(())
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PlaceError {
    let name = path.display().to_string();
    move |source| PlaceError::Io { doing, name, source }
}

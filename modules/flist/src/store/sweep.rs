//! Removes what no pinned flist needs. Only when the caller orders it.

use super::{Store, StoreError};
use crate::store_path;
use contract::FlistId;
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// What a sweep removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Images.
    pub images: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of the files removed.
    pub bytes: u64,
}

impl Store {
    /// Removes every image, object and staged file that no flist of `pinned` needs.
    ///
    /// A pinned flist that is not complete keeps what is staged for it, and loses objects only if
    /// no complete pinned flist has them. If the record of a complete pinned flist cannot be read,
    /// nothing is removed at all. Fails with [`StoreError::BusyFetching`] while anything is being
    /// ingested. A running container opens objects by name, so the caller pins
    /// every flist that runs.
    pub fn sweep(&self, pinned: &BTreeSet<FlistId>) -> Result<Swept, StoreError> {
        let _claim = self.claim_all()?;
        let complete = self.list()?;
        let mut kept = BTreeSet::new();
        for identity in complete.intersection(pinned) {
            let flist = self.flist(*identity)?;
            kept.extend(flist.body().contents.iter().map(|content| content.digest));
        }

        let mut swept = Swept::default();
        // Records first: an image without its record is merely not complete.
        for ending in [".flist", ".erofs"] {
            for path in list(&store_path::images(&self.root))? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let Some(name) = name.strip_suffix(ending) else { continue };
                if name.parse().is_ok_and(|identity: FlistId| pinned.contains(&identity)) {
                    continue;
                }
                swept.bytes += remove(&path)?;
                swept.images += u64::from(ending == ".erofs");
            }
        }
        for directory in list(&store_path::objects(&self.root))? {
            for path in list(&directory)? {
                if digest(&path).is_none_or(|digest| !kept.contains(&digest)) {
                    swept.bytes += remove(&path)?;
                    swept.objects += 1;
                }
            }
        }
        for path in list(&store_path::staging(&self.root))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.parse().is_ok_and(|identity: FlistId| pinned.contains(&identity)) {
                continue;
            }
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(StoreError::io("removing", &path))?;
        }
        Ok(swept)
    }

    fn claim_all(&self) -> Result<Claim<'_>, StoreError> {
        let mut working = self.lock();
        if working.sweeping || !working.ingesting.is_empty() {
            return Err(StoreError::BusyFetching);
        }
        working.sweeping = true;
        Ok(Claim(self))
    }
}

/// While it lives, nothing is ingested.
struct Claim<'a>(&'a Store);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.lock().sweeping = false;
    }
}

/// The digest that an object's path stands for.
fn digest(path: &Path) -> Option<[u8; 32]> {
    let rest = path.file_name()?.to_str()?;
    let first = path.parent()?.file_name()?.to_str()?;
    hex::decode(format!("{first}{rest}")).ok()?.try_into().ok()
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let items = fs::read_dir(directory).map_err(StoreError::io("listing", directory))?;
    let paths: io::Result<Vec<_>> = items.map(|item| item.map(|item| item.path())).collect();
    paths.map_err(StoreError::io("listing", directory))
}

fn remove(path: &Path) -> Result<u64, StoreError> {
    let removed = fs::symlink_metadata(path).and_then(|found| {
        fs::remove_file(path)?;
        Ok(found.len())
    });
    match removed {
        Ok(bytes) => Ok(bytes),
        // Somebody who reads the store has found it bad meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(StoreError::io("removing", path)(source)),
    }
}

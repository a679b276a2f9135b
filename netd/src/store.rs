//! What netd must know again after it was killed: small JSON files under `/run/zos/netd`.
//!
//! The directory is memory: after a power-off there are no leases and no containers to remember.
//! Each file is replaced in one step, so that a reader finds the old text or the new one.

use serde::{Serialize, de::DeserializeOwned};
use std::{
    io,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// A directory of state files.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    directory: PathBuf,
}

/// A state file that could not be used.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    #[error("reading {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file is set aside with the suffix `.bad`.
    #[error("parsing {}", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("writing {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Store {
    /// Makes the directory.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| StoreError::Write { path: directory.to_owned(), source })?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// The content of a file; `None` when there is no such file.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let path = self.directory.join(name);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Read { path, source }),
        };
        match serde_json::from_slice(&text) {
            Ok(value) => Ok(Some(value)),
            Err(source) => {
                std::fs::rename(&path, path.with_added_extension("bad"))
                    .map_err(|source| StoreError::Write { path: path.clone(), source })?;
                Err(StoreError::Parse { path, source })
            }
        }
    }

    /// Replaces the content of a file.
    pub(crate) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StoreError> {
        let text = serde_json::to_vec(value).expect("our state has string keys only");
        replace(&self.directory.join(name), &text)
    }

    /// Removes a file; one that does not exist is not an error.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.directory.join(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Write { path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Puts `text` at `path` in one step; leaves a file alone that says the same already.
pub(crate) fn replace(path: &Path, text: &[u8]) -> Result<(), StoreError> {
    if std::fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let fresh = path.with_added_extension("new");
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, path))
        .map_err(|source| StoreError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("netd")).unwrap();
        (directory, store)
    }

    #[test]
    fn what_was_written_is_read_until_it_is_removed() {
        let (_directory, store) = store();
        assert_eq!(store.read::<u32>("n.json").unwrap(), None);
        store.write("n.json", &7_u32).unwrap();
        assert_eq!(store.read("n.json").unwrap(), Some(7_u32));
        store.remove("n.json").unwrap();
        store.remove("n.json").unwrap();
        assert_eq!(store.read::<u32>("n.json").unwrap(), None);
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_set_aside() {
        let (directory, store) = store();
        let path = directory.path().join("netd/n.json");
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(store.read::<u32>("n.json"), Err(StoreError::Parse { .. })));
        assert_eq!(store.read::<u32>("n.json").unwrap(), None);
        assert!(directory.path().join("netd/n.json.bad").exists());
    }
}

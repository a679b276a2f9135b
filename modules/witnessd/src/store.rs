//! What a witness keeps, one folder for each log: the newest checkpoint that it has cosigned or may
//! have cosigned, and evidence against the log. A file has its name only when it is on the disk.

use anyhow::Context as _;
use contract::id::sha256;
use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
};
use tlog::note::NOTE_BYTES_MAX;

/// Pieces of evidence of one kind against one log. What is kept proves enough.
const EVIDENCE_MAX: usize = 64;
const CHECKPOINT: &str = "checkpoint";
const EVIDENCE: &str = "evidence";

/// What a piece of evidence shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The log has signed two trees of one size.
    Fork,
    /// The log has signed a tree, and what came with it does not show that it only grew. Whoever
    /// sent it may have left the proof out.
    Unproven,
}

/// The folder of a witness, locked against a second one.
#[derive(Debug)]
pub struct Store {
    data: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens the folder, making it when it is missing.
    pub fn open(data: &Path) -> anyhow::Result<Self> {
        make_folder(data)?;
        let path = data.join("lock");
        let lock = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
        lock.try_lock().with_context(|| {
            format!("another witness works in {}: two would cosign two histories", data.display())
        })?;
        Ok(Self { data: data.into(), _lock: lock })
    }

    /// The folder of a log.
    pub fn log(&self, origin: &str) -> anyhow::Result<LogStore> {
        let folder = self.data.join(hex::encode(sha256(origin.as_bytes())));
        make_folder(&folder)?;
        make_folder(&folder.join(EVIDENCE))?;
        Ok(LogStore { folder })
    }
}

/// What is kept of one log.
#[derive(Debug)]
pub struct LogStore {
    folder: PathBuf,
}

impl LogStore {
    /// The newest checkpoint, if there ever was one.
    pub fn checkpoint(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.folder.join(CHECKPOINT);
        let reading = || format!("reading {}", path.display());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(reading),
        };
        let mut bytes = Vec::new();
        file.take(NOTE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).with_context(reading)?;
        Ok(Some(bytes))
    }

    /// Replaces the newest checkpoint. It is on the disk when this returns.
    pub fn keep(&self, note: &str) -> anyhow::Result<()> {
        replace(&self.folder, CHECKPOINT, note.as_bytes())
    }

    /// Keeps evidence under a name made of `subject`: the same again is kept once. Says where, or
    /// `None` when it was there or there is enough.
    pub fn accuse(
        &self,
        evidence: Evidence,
        subject: &[u8],
        text: &str,
    ) -> anyhow::Result<Option<PathBuf>> {
        let folder = self.folder.join(EVIDENCE);
        let prefix = match evidence {
            Evidence::Fork => "fork-",
            Evidence::Unproven => "unproven-",
        };
        let name = format!("{prefix}{}", hex::encode(sha256(subject)));
        let path = folder.join(&name);
        let listing = || format!("listing {}", folder.display());
        let mut count = 0;
        for entry in fs::read_dir(&folder).with_context(listing)? {
            let known = entry.with_context(listing)?.file_name();
            if known.to_string_lossy() == name {
                return Ok(None);
            }
            count += usize::from(known.to_string_lossy().starts_with(prefix));
        }
        if count >= EVIDENCE_MAX {
            return Ok(None);
        }
        replace(&folder, &name, text.as_bytes())?;
        Ok(Some(path))
    }
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    let making = || format!("making {}", path.display());
    fs::create_dir_all(path).and_then(|()| sync_above(path)).with_context(making)
}

/// A new name is on the disk when its folder is.
pub(crate) fn sync_above(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync(parent.unwrap_or(Path::new(".")))
}

fn replace(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = folder.join(name);
    let unfinished = folder.join(format!(".{name}.new"));
    let write = || {
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        sync(folder)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

fn sync(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_checkpoint_replaces_the_one_before_and_half_a_file_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("data")).unwrap();
        let log = store.log("log.example").unwrap();
        assert_eq!(log.checkpoint().unwrap(), None);
        fs::write(log.folder.join(".checkpoint.new"), "half").unwrap();
        assert_eq!(log.checkpoint().unwrap(), None);
        log.keep("one").unwrap();
        log.keep("two").unwrap();
        assert_eq!(log.checkpoint().unwrap().unwrap(), b"two");
        assert_eq!(store.log("other.example").unwrap().checkpoint().unwrap(), None);
    }

    #[test]
    fn two_witnesses_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = Store::open(folder.path()).unwrap();
        let error = Store::open(folder.path()).unwrap_err();
        assert!(format!("{error:#}").contains("another witness works in"));
        drop(first);
        Store::open(folder.path()).unwrap();
    }

    #[test]
    fn evidence_is_kept_once_and_not_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = Store::open(folder.path()).unwrap().log("log.example").unwrap();
        let path = log.accuse(Evidence::Fork, b"0", "text").unwrap().unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "text");
        assert_eq!(log.accuse(Evidence::Fork, b"0", "other").unwrap(), None);
        for number in 1..=EVIDENCE_MAX {
            let kept = log.accuse(Evidence::Fork, &number.to_le_bytes(), "text").unwrap();
            assert_eq!(kept.is_some(), number < EVIDENCE_MAX);
        }
        assert!(log.accuse(Evidence::Unproven, b"0", "text").unwrap().is_some(), "counts apart");
    }
}

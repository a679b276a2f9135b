//! Damage to published content, and its repair.

use anyhow::{Context as _, Result};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What can happen to a published file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// A bit is flipped in every eighth byte, so that no chunk in it is spared, however many of them
    /// a node has already.
    Flipped,
    /// Only its first half is there.
    Truncated,
    /// It is not there.
    Missing,
}

/// A published file, with its bytes as they were.
#[derive(Debug, Clone)]
pub struct Victim {
    path: PathBuf,
    whole: Vec<u8>,
}

impl Victim {
    /// Remembers a file that is whole.
    pub fn of(path: &Path) -> Result<Self> {
        let whole = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self { path: path.to_owned(), whole })
    }

    /// Damages it, whatever has happened to it before.
    pub fn damage(&self, damage: Damage) -> Result<()> {
        match damage {
            Damage::Flipped => {
                let mut bytes = self.whole.clone();
                bytes.iter_mut().step_by(8).for_each(|byte| *byte ^= 1);
                self.write(&bytes)
            }
            Damage::Truncated => self.write(&self.whole[..self.whole.len() / 2]),
            Damage::Missing => fs::remove_file(&self.path)
                .with_context(|| format!("removing {}", self.path.display())),
        }
    }

    /// Puts it back as it was.
    pub fn repair(&self) -> Result<()> {
        self.write(&self.whole)
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        fs::write(&self.path, bytes).with_context(|| format!("writing {}", self.path.display()))
    }
}

/// The packs in a content store.
pub fn packs(content: &Path) -> Result<BTreeSet<PathBuf>> {
    let directory = content.join("packs");
    if !directory.exists() {
        return Ok(BTreeSet::new());
    }
    fs::read_dir(&directory)?.map(|entry| Ok(entry?.path())).collect()
}

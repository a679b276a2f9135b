//! Damage to published content, and its repair.

use anyhow::{Context as _, Result};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Names of the packs in a content store.
pub fn packs(content: &Path) -> Result<BTreeSet<PathBuf>> {
    let directory = content.join("packs");
    if !directory.exists() {
        return Ok(BTreeSet::new());
    }
    fs::read_dir(&directory)?.map(|entry| Ok(entry?.path())).collect()
}

/// Flips one bit in the middle of a file. Doing it again repairs it.
pub fn flip(file: &Path) -> Result<()> {
    let mut bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).context("an empty file")? ^= 1;
    fs::write(file, bytes).with_context(|| format!("writing {}", file.display()))
}

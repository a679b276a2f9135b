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

/// Flips a bit in every eighth byte of a file, so that no chunk in it is spared, however many of them
/// a node has already. Doing it again repairs the file.
pub fn flip(file: &Path) -> Result<()> {
    let mut bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    bytes.iter_mut().step_by(8).for_each(|byte| *byte ^= 1);
    fs::write(file, bytes).with_context(|| format!("writing {}", file.display()))
}

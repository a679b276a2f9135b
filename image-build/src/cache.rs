//! Results of slow steps, kept under the hash of everything that went in.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Results kept for each kind; older ones are removed.
const KEPT_MAX: usize = 6;

/// The file for `kind` and `key`, made by `make` when it is not there.
pub(crate) fn file(
    cache: &Path,
    kind: &str,
    key: &str,
    make: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<PathBuf> {
    let directory = cache.join(kind);
    let path = directory.join(key);
    if path.is_file() {
        return Ok(path);
    }
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("making {}", directory.display()))?;
    let content = make()?;
    write(&path, &content)?;
    prune(&directory)?;
    Ok(path)
}

/// Writes a file so that it is either absent or whole.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let directory = path.parent().context("an output file has a directory")?;
    let fresh = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .with_context(|| format!("making a file in {}", directory.display()))?;
    std::fs::write(fresh.path(), content).with_context(|| format!("writing {}", path.display()))?;
    fresh.persist(path).with_context(|| format!("putting {} in place", path.display()))?;
    Ok(())
}

/// SHA-256 as text.
pub(crate) fn hash(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

fn prune(directory: &Path) -> Result<()> {
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        })
        .collect();
    files.sort();
    let surplus = files.len().saturating_sub(KEPT_MAX);
    for (_, path) in &files[..surplus] {
        std::fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_key_is_not_made_again_and_old_results_go() {
        let cache = tempfile::tempdir().unwrap();
        let first = file(cache.path(), "kind", "key", || Ok(b"one".to_vec())).unwrap();
        let again = file(cache.path(), "kind", "key", || panic!("made twice")).unwrap();
        assert_eq!(first, again);
        for n in 0..KEPT_MAX + 3 {
            file(cache.path(), "kind", &format!("k{n}"), || Ok(vec![])).unwrap();
        }
        assert_eq!(std::fs::read_dir(cache.path().join("kind")).unwrap().count(), KEPT_MAX);
    }
}

//! `image.lock`: which version of each Debian package the committed state was built with.
//!
//! Debian's archive drops old kernels, so the lock cannot be obeyed for ever. The builder takes the
//! newest packages, says what differs from the lock, and rewrites it; the change is then reviewed
//! and committed like any other.

use crate::apt::Package;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const HEADER: &str = "# Written by `cargo xtask image`: the Debian packages that the image is made of.\n\
                      # A difference is told, never hidden; commit this file after a look at it.\n\n";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Package>,
}

/// One sentence for each package that is not what the lock says.
pub(crate) fn differences(locked: &[Package], found: &[Package]) -> Vec<String> {
    let by_name = |packages: &[Package]| -> BTreeMap<String, Package> {
        packages.iter().map(|package| (package.name.clone(), package.clone())).collect()
    };
    let (locked, found) = (by_name(locked), by_name(found));
    let mut sentences = Vec::new();
    for (name, package) in &found {
        match locked.get(name) {
            None => sentences.push(format!("{name} {} is new", package.version)),
            Some(old) if old.version != package.version => {
                sentences.push(format!("{name} is {}, was {}", package.version, old.version));
            }
            Some(old) if old.sha256 != package.sha256 => sentences.push(format!(
                "{name} {} has OTHER CONTENT than before: SHA-256 {}, was {}",
                package.version, package.sha256, old.sha256
            )),
            Some(_) => {}
        }
    }
    let gone = locked.keys().filter(|name| !found.contains_key(*name));
    sentences.extend(gone.map(|name| format!("{name} is gone")));
    sentences
}

/// Reads the lock; a missing file is an empty lock.
pub(crate) fn load(path: &Path) -> Result<Vec<Package>> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let lock: Lock = toml::from_str(&text)
                .with_context(|| format!("understanding {}", path.display()))?;
            Ok(lock.package)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes the lock.
pub(crate) fn store(path: &Path, packages: &[Package]) -> Result<()> {
    let lock = Lock { package: packages.to_vec() };
    let text = toml::to_string(&lock).context("writing down the package versions")?;
    std::fs::write(path, format!("{HEADER}{text}"))
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, sha256: &str) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            architecture: "amd64".into(),
            sha256: sha256.into(),
        }
    }

    #[test]
    fn every_kind_of_difference_is_told_and_sameness_is_silent() {
        let locked = [
            package("a", "1", "x"),
            package("b", "1", "x"),
            package("c", "1", "x"),
            package("d", "1", "x"),
        ];
        let found = [
            package("a", "1", "x"),
            package("b", "2", "y"),
            package("c", "1", "y"),
            package("e", "1", "x"),
        ];
        let told = differences(&locked, &found);
        assert_eq!(told.len(), 4);
        assert_eq!(told[0], "b is 2, was 1");
        assert!(told[1].contains("OTHER CONTENT"));
        assert_eq!(told[2], "e 1 is new");
        assert_eq!(told[3], "d is gone");
        assert!(differences(&locked, &locked).is_empty());
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.lock");
        assert!(load(&path).unwrap().is_empty());
        let packages = [package("linux-image", "6.12-1", "ab")];
        store(&path, &packages).unwrap();
        assert_eq!(load(&path).unwrap(), packages);
    }
}

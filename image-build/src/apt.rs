//! Finds, downloads and unpacks Debian packages, without installing them and without root.
//!
//! apt authenticates: it checks the archive's signature over the lists and the lists' hash over
//! each package. This file only asks it. An unpacked package is kept in the cache under its
//! SHA-256, so that it is fetched once.

use crate::cache;
use crate::packages;
use crate::process;
use crate::progress;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Where apt keeps its signed lists.
const LISTS: &str = "/var/lib/apt/lists";
/// "The newest of the day": older lists are renewed.
const LISTS_AGE_MAX: Duration = Duration::from_hours(24);

/// A package as the archive offers it today.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// `amd64` or `all`.
    pub(crate) architecture: String,
    /// SHA-256 of the `.deb` file.
    pub(crate) sha256: String,
}

/// What was asked, at which state of the lists, and what the answer was.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    question: String,
    packages: Vec<Package>,
}

/// Renews apt's lists when they are missing or older than a day. Being offline is no error here:
/// with known packages in the cache the build goes on.
pub(crate) fn renew_lists(cache: &Path) -> Result<()> {
    let stamp = cache.join("apt-lists-renewed");
    let newest = [modified(Path::new(LISTS)), modified(&stamp)].into_iter().flatten().max();
    let have_lists = std::fs::read_dir(LISTS).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.path().is_file()))
    });
    let fresh = newest.is_some_and(|time| time.elapsed().is_ok_and(|age| age < LISTS_AGE_MAX));
    if have_lists && fresh {
        return Ok(());
    }
    match packages::update_lists() {
        Ok(()) => {
            std::fs::write(&stamp, "").with_context(|| format!("writing {}", stamp.display()))
        }
        Err(error) => {
            progress::say(&format!("going on with the package lists that are here: {error:#}"));
            Ok(())
        }
    }
}

/// The newest package named `<prefix><number><suffix>`. Lists that know none are renewed first:
/// they may be from before apt was told of the archive that has it.
pub(crate) fn newest(prefix: &str, suffix: &str) -> Result<String> {
    let find = || -> Result<Option<String>> {
        let names = process::output(Command::new("apt-cache").args(["pkgnames", prefix]))?;
        Ok(pick_newest(&names, prefix, suffix))
    };
    if let Some(name) = find()? {
        return Ok(name);
    }
    packages::update_lists()?;
    find()?.with_context(|| {
        format!(
            "apt knows no package {prefix}NUMBER{suffix}; is this Debian 12 with its security \
             archive?"
        )
    })
}

fn pick_newest(names: &str, prefix: &str, suffix: &str) -> Option<String> {
    let number = |name: &str| -> Option<u32> {
        name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok()
    };
    names
        .lines()
        .filter(|name| number(name).is_some())
        .max_by_key(|name| number(name))
        .map(str::to_owned)
}

/// Those packages and all that they depend on, by name.
pub(crate) fn with_dependencies(names: &[String]) -> Result<BTreeSet<String>> {
    let text = process::output(
        Command::new("apt-cache")
            .args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts"])
            .args(["--no-breaks", "--no-replaces", "--no-enhances"])
            .args(names),
    )?;
    let names =
        text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_alphanumeric()));
    Ok(names.map(str::to_owned).collect())
}

/// The state of apt's lists: the same text means the same answers.
pub(crate) fn lists_state() -> String {
    let modified = modified(Path::new(LISTS))
        .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    format!("{modified:?}")
}

/// Reads the answer that was found before for the same question, or finds it now.
pub(crate) fn remembered(
    cache: &Path,
    question: &str,
    find: impl FnOnce() -> Result<Vec<Package>>,
) -> Result<Vec<Package>> {
    let path = cache.join("resolved.json");
    if let Ok(text) = std::fs::read_to_string(&path)
        && let Ok(answer) = serde_json::from_str::<Answer>(&text)
        && answer.question == question
    {
        return Ok(answer.packages);
    }
    let answer = Answer { question: question.to_owned(), packages: find()? };
    let text = serde_json::to_string_pretty(&answer).context("writing down found packages")?;
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(answer.packages)
}

/// What the archive offers for those names today.
pub(crate) fn candidates(names: &BTreeSet<String>) -> Result<Vec<Package>> {
    let text =
        process::output(Command::new("apt-get").args(["download", "--print-uris"]).args(names))?;
    let mut packages = text.lines().map(parse_uri).collect::<Result<Vec<_>>>()?;
    packages.sort();
    Ok(packages)
}

/// One line of `apt-get download --print-uris`: `'URI' FILE SIZE SHA256:HASH`.
fn parse_uri(line: &str) -> Result<Package> {
    let mut words = line.split_ascii_whitespace();
    let (Some(_uri), Some(file), Some(_size), Some(hash)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        bail!("apt described a package as {line:?}");
    };
    let mut parts = file.split('_');
    let (Some(name), Some(version), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        bail!("apt named a package file {file:?}");
    };
    let architecture =
        rest.strip_suffix(".deb").with_context(|| format!("apt named a package file {file:?}"))?;
    let sha256 =
        hash.strip_prefix("SHA256:").with_context(|| format!("apt gave no SHA-256 for {file}"))?;
    Ok(Package {
        name: name.to_owned(),
        version: version.replace("%3a", ":"),
        architecture: architecture.to_owned(),
        sha256: sha256.to_owned(),
    })
}

/// The name that apt gives to the downloaded file.
fn file_name(package: &Package) -> String {
    let version = package.version.replace(':', "%3a");
    format!("{}_{version}_{}.deb", package.name, package.architecture)
}

/// Unpacks packages into the cache and returns the directory of each, in the same order.
pub(crate) fn unpacked(packages: &[Package], cache: &Path) -> Result<Vec<PathBuf>> {
    let missing: Vec<&Package> =
        packages.iter().filter(|package| !is_unpacked(package, cache)).collect();
    if !missing.is_empty() {
        fetch(&missing, cache)?;
    }
    Ok(packages.iter().map(|package| directory(package, cache)).collect())
}

/// Whether the package is already unpacked in the cache.
pub(crate) fn is_unpacked(package: &Package, cache: &Path) -> bool {
    directory(package, cache).is_dir()
}

fn directory(package: &Package, cache: &Path) -> PathBuf {
    let hash = package.sha256.get(..16).unwrap_or(&package.sha256);
    cache.join("packages").join(format!("{}-{hash}", package.name))
}

fn fetch(packages: &[&Package], cache: &Path) -> Result<()> {
    let step = progress::step(format!("Fetching {} Debian packages", packages.len()));
    let parent = cache.join("packages");
    std::fs::create_dir_all(&parent).with_context(|| format!("making {}", parent.display()))?;
    let work = tempfile::tempdir_in(&parent).context("making a directory for downloads")?;
    let exact = packages.iter().map(|package| format!("{}={}", package.name, package.version));
    process::run(
        Command::new("apt-get").args(["download", "-q"]).args(exact).current_dir(work.path()),
    )
    .context("downloading packages; if the archive has newer ones, run apt-get update")?;
    for package in packages {
        let file = work.path().join(file_name(package));
        unpack(package, &file, &directory(package, cache))?;
        std::fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
    }
    step.done("");
    Ok(())
}

fn unpack(package: &Package, file: &Path, directory: &Path) -> Result<()> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let sha256 = cache::hash(&bytes);
    ensure!(
        sha256 == package.sha256,
        "{} {} has SHA-256 {sha256}, the archive's list says {}",
        package.name,
        package.version,
        package.sha256
    );
    // Renamed only when complete: a directory that exists is whole.
    let fresh = file.with_extension("tree");
    process::run(Command::new("dpkg-deb").arg("-x").arg(file).arg(&fresh))?;
    std::fs::rename(&fresh, directory)
        .with_context(|| format!("moving the unpacked {} to {}", package.name, directory.display()))
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_highest_number_not_the_last_name() {
        let names = "linux-image-6.12.9+deb12-amd64\nlinux-image-6.12.117+deb12-amd64\n\
                     linux-image-6.12.120+deb12-cloud-amd64\nlinux-image-6.12.120+deb12-amd64-unsigned\n\
                     linux-image-6.12.86+deb12-amd64\n";
        let newest = pick_newest(names, "linux-image-6.12.", "+deb12-amd64");
        assert_eq!(newest.as_deref(), Some("linux-image-6.12.117+deb12-amd64"));
        assert_eq!(
            pick_newest("linux-image-6.1.0-1-amd64", "linux-image-6.12.", "+deb12-amd64"),
            None
        );
    }

    #[test]
    fn a_line_of_apt_gives_name_version_and_hash() {
        let package = parse_uri(
            "'http://deb.debian.org/x.deb' syslinux_3%3a6.04~git+dfsg1-3+b1_amd64.deb 123 SHA256:abcd",
        )
        .unwrap();
        assert_eq!(package.name, "syslinux");
        assert_eq!(package.version, "3:6.04~git+dfsg1-3+b1");
        assert_eq!(package.sha256, "abcd");
        assert_eq!(file_name(&package), "syslinux_3%3a6.04~git+dfsg1-3+b1_amd64.deb");
        assert!(parse_uri("'http://x' x_1_amd64.deb 1 MD5Sum:aa").is_err());
        assert!(parse_uri("Reading package lists...").is_err());
    }
}

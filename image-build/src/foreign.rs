//! Puts programs of Debian into the image: the program, its loader, and every library that it links.
//!
//! Nothing of the developer's machine is used: all files come out of unpacked packages.

use crate::apt::Package;
use crate::cpio::Tree;
use crate::elf;
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A link that points to a link that points ...: no library is further away.
const LINKS_MAX: usize = 8;
/// Directories where the loader looks, after [`merged`].
const LIBRARY_DIRECTORIES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib"];

/// Files of several unpacked packages, by their path in a merged-/usr system.
#[derive(Debug, Default)]
pub(crate) struct Files {
    by_path: BTreeMap<String, Found>,
}

#[derive(Debug)]
struct Found {
    package: usize,
    file: PathBuf,
}

/// A file that the image takes, and the package (by index) that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Path in the image.
    pub(crate) path: String,
    /// Index of its package.
    pub(crate) package: usize,
    /// Its bytes.
    pub(crate) size_bytes: u64,
}

impl Files {
    /// Lists every file below the directories of unpacked packages.
    pub(crate) fn scan(directories: &[PathBuf]) -> Result<Self> {
        let mut files = Self::default();
        for (package, root) in directories.iter().enumerate() {
            let mut open = vec![root.clone()];
            while let Some(directory) = open.pop() {
                let entries = std::fs::read_dir(&directory)
                    .with_context(|| format!("reading {}", directory.display()))?;
                for entry in entries {
                    let entry =
                        entry.with_context(|| format!("reading {}", directory.display()))?;
                    if entry
                        .file_type()
                        .with_context(|| format!("looking at {}", entry.path().display()))?
                        .is_dir()
                    {
                        open.push(entry.path());
                    } else if let Some(path) = inside(root, &entry.path()) {
                        files.by_path.insert(path, Found { package, file: entry.path() });
                    }
                }
            }
        }
        Ok(files)
    }

    /// Reads a file by its path, through links, and tells its package.
    fn read(&self, path: &str) -> Result<Option<(usize, Vec<u8>)>> {
        let mut path = merged(path);
        for _ in 0..LINKS_MAX {
            let Some(found) = self.by_path.get(&path) else { return Ok(None) };
            let Ok(target) = std::fs::read_link(&found.file) else {
                let content = std::fs::read(&found.file)
                    .with_context(|| format!("reading {}", found.file.display()))?;
                return Ok(Some((found.package, content)));
            };
            let target = target.to_string_lossy().into_owned();
            let parent = Path::new(&path).parent().unwrap_or(Path::new("/"));
            path = merged(&normal(&parent.join(target)));
        }
        bail!("{path} is a link to a link to a link ...")
    }
}

/// Puts a program, its loader and its libraries into the tree.
pub(crate) fn add(program: &str, files: &Files, tree: &mut Tree) -> Result<Vec<Taken>> {
    let mut taken = Vec::new();
    let mut seen = BTreeSet::from([merged(program)]);
    let mut open = vec![merged(program)];
    while let Some(path) = open.pop() {
        let (package, content) = files
            .read(&path)?
            .with_context(|| format!("{path}, which {program} needs, is in no package"))?;
        let needs = elf::needs(&content).with_context(|| format!("reading what {path} needs"))?;
        taken.push(Taken {
            path: path.clone(),
            package,
            size_bytes: u64::try_from(content.len()).context("measuring a library")?,
        });
        tree.program(&path, content);
        let mut needed: Vec<String> = needs.loader.iter().map(|loader| merged(loader)).collect();
        for library in needs.libraries {
            let library = locate(&library, files)
                .with_context(|| format!("{library}, which {path} needs, is in no package"))?;
            needed.push(library);
        }
        open.extend(needed.into_iter().filter(|path| seen.insert(path.clone())));
    }
    Ok(taken)
}

/// Puts the certificates of a directory into one file.
pub(crate) fn certificates(directory: &Path) -> Result<Vec<u8>> {
    let mut paths = Vec::new();
    for entry in
        std::fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?
    {
        paths.push(entry.with_context(|| format!("reading {}", directory.display()))?.path());
    }
    paths.sort();
    let mut bundle = Vec::new();
    for path in paths {
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        bundle.extend_from_slice(text.trim_ascii());
        bundle.push(b'\n');
    }
    ensure!(!bundle.is_empty(), "{} holds no certificates", directory.display());
    Ok(bundle)
}

fn locate(library: &str, files: &Files) -> Option<String> {
    if library.starts_with('/') {
        return Some(merged(library));
    }
    let mut paths = LIBRARY_DIRECTORIES.iter().map(|directory| format!("{directory}/{library}"));
    paths.find(|path| files.by_path.contains_key(path)).or_else(|| {
        let loader = merged(&format!("/lib64/{library}"));
        files.by_path.contains_key(&loader).then_some(loader)
    })
}

/// `/bin`, `/sbin`, `/lib` and `/lib64` are links to their namesakes in `/usr`.
pub(crate) fn merged(path: &str) -> String {
    for directory in ["/bin/", "/sbin/", "/lib/", "/lib64/"] {
        if path.starts_with(directory) {
            return format!("/usr{path}");
        }
    }
    path.to_owned()
}

fn inside(root: &Path, path: &Path) -> Option<String> {
    let relative = path.strip_prefix(root).ok()?.to_str()?;
    Some(merged(&format!("/{relative}")))
}

/// Resolves `.` and `..` in a path as text.
fn normal(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let text = path.to_string_lossy();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Packages that gave at least one file, in the order of `packages`.
pub(crate) fn used<'a>(packages: &'a [Package], taken: &[Taken]) -> Vec<&'a Package> {
    let indices: BTreeSet<usize> = taken.iter().map(|taken| taken.package).collect();
    indices.into_iter().filter_map(|index| packages.get(index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_an_unmerged_package_are_found_where_the_image_has_them() {
        assert_eq!(merged("/sbin/mkfs.btrfs"), "/usr/sbin/mkfs.btrfs");
        assert_eq!(merged("/lib64/ld-linux-x86-64.so.2"), "/usr/lib64/ld-linux-x86-64.so.2");
        assert_eq!(merged("/usr/sbin/nft"), "/usr/sbin/nft");
        assert_eq!(merged("/libexec/x"), "/libexec/x");
        assert_eq!(normal(Path::new("/usr/lib/../lib64/./a")), "/usr/lib64/a");
    }

    #[test]
    fn a_program_brings_its_libraries_and_a_missing_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let tree_of = |name: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.join("usr/bin")).unwrap();
            path
        };
        let own = tree_of("own");
        let this = std::env::current_exe().unwrap();
        std::fs::copy(&this, own.join("usr/bin/tool")).unwrap();
        let files = Files::scan(&[own]).unwrap();
        let error = add("/bin/tool", &files, &mut Tree::default()).unwrap_err().to_string();
        assert!(error.contains(".so"), "{error}");

        let needs = elf::needs(&std::fs::read(&this).unwrap()).unwrap();
        let libraries = tree_of("libraries");
        std::fs::create_dir_all(libraries.join("lib/x86_64-linux-gnu")).unwrap();
        std::fs::create_dir_all(libraries.join("lib64")).unwrap();
        let empty_elf = static_elf();
        for library in &needs.libraries {
            let real = libraries.join("lib/x86_64-linux-gnu").join(format!("real-{library}"));
            std::fs::write(&real, &empty_elf).unwrap();
            let link = libraries.join("lib/x86_64-linux-gnu").join(library);
            std::os::unix::fs::symlink(format!("real-{library}"), link).unwrap();
        }
        let loader = needs.loader.unwrap();
        std::fs::write(libraries.join(loader.trim_start_matches('/')), &empty_elf).unwrap();
        let files = Files::scan(&[directory.path().join("own"), libraries]).unwrap();
        let mut tree = Tree::default();
        let taken = add("/bin/tool", &files, &mut tree).unwrap();
        assert_eq!(taken[0].path, "/usr/bin/tool");
        assert!(taken.len() > needs.libraries.len());
        assert!(taken[1..].iter().all(|taken| taken.package == 1));
        assert!(tree.iter().any(|(path, _)| path == "usr/lib/x86_64-linux-gnu/libc.so.6"));
    }

    fn static_elf() -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file
    }
}

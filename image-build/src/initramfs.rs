//! The file tree of the image and its two packed forms.

use crate::apt::Package;
use crate::cpio::{Node, Tree};
use crate::foreign::{self, Files, Taken};
use crate::modules::{self, Index};
use crate::process;
use crate::recipe::Recipe;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directories that the node mounts on or writes to.
const MOUNT_POINTS: [&str; 10] =
    ["/dev", "/proc", "/sys", "/run", "/tmp", "/pools", "/state", "/store", "/root", "/var"];

/// What the tree is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    /// The description.
    pub(crate) recipe: &'a Recipe,
    /// Directory with the index files and modules of the kernel: `lib/modules/<release>`.
    pub(crate) modules: &'a Path,
    /// The kernel's release.
    pub(crate) release: &'a str,
    /// Files of the project's programs, in the order of the description.
    pub(crate) binaries: &'a [PathBuf],
    /// Unpacked packages of foreign programs and their dependencies.
    pub(crate) packages: &'a [Package],
    /// Their directories, in the same order.
    pub(crate) directories: &'a [PathBuf],
    /// The image's version.
    pub(crate) version: &'a str,
    /// Seconds since 1970.
    pub(crate) build_time_s: u32,
}

/// The tree, and what is worth telling about it.
#[derive(Debug)]
pub(crate) struct Assembled {
    /// The tree.
    pub(crate) tree: Tree,
    /// Files of foreign packages in it.
    pub(crate) taken: Vec<Taken>,
    /// Bytes by part: each binary, `modules`, each foreign program with its libraries.
    pub(crate) sizes: BTreeMap<String, u64>,
    /// Number of kernel modules.
    pub(crate) n_modules: usize,
}

/// Puts the tree together.
pub(crate) fn assemble(parts: &Parts<'_>) -> Result<Assembled> {
    let mut tree = Tree::default();
    let mut sizes = BTreeMap::new();
    for (link, target) in
        [("/bin", "usr/bin"), ("/sbin", "usr/sbin"), ("/lib", "usr/lib"), ("/lib64", "usr/lib64")]
    {
        tree.insert(&format!("/{target}"), Node::Directory);
        tree.insert(link, Node::Link { target: target.to_owned() });
    }
    for directory in MOUNT_POINTS {
        tree.insert(directory, Node::Directory);
    }
    // The kernel opens it before PID 1 has mounted anything.
    tree.insert("/dev/console", Node::Device { major: 5, minor: 1 });

    for (binary, file) in parts.recipe.binary.iter().zip(parts.binaries) {
        let content = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        sizes.insert(binary.name.clone(), length(&content)?);
        tree.program(&foreign::merged(&binary.path), content);
    }
    let n_modules = add_modules(parts, &mut tree, &mut sizes)?;
    let taken = add_foreign(parts, &mut tree, &mut sizes)?;
    tree.file("/etc/zos/version", format!("{}\n", parts.version).into_bytes());
    tree.file("/etc/zos/build-time", format!("{}\n", parts.build_time_s).into_bytes());
    tree.file("/etc/os-release", os_release(parts.version).into_bytes());
    Ok(Assembled { tree, taken, sizes, n_modules })
}

/// The identity of the image, also shown by boot menus.
pub(crate) fn os_release(version: &str) -> String {
    format!(
        "ID=zero-os\nNAME=\"Zero-OS\"\nPRETTY_NAME=\"Zero-OS {version}\"\nVERSION_ID={version}\n"
    )
}

fn add_modules(
    parts: &Parts<'_>,
    tree: &mut Tree,
    sizes: &mut BTreeMap<String, u64>,
) -> Result<usize> {
    let text = |name: &str| {
        let path = parts.modules.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let (dep, alias) = (text("modules.dep")?, text("modules.alias")?);
    let (softdep, builtin) = (text("modules.softdep")?, text("modules.builtin")?);
    let index = Index { dep: &dep, alias: &alias, softdep: &softdep, builtin: &builtin };
    let selection = modules::select(&parts.recipe.modules, index)?;

    let place = format!("/usr/lib/modules/{}", parts.release);
    let mut total = 0;
    for file in &selection.files {
        let path = parts.modules.join(file);
        let plain = modules::unpacked_path(file);
        let (name, content) = if plain != file && selection.unpacked.contains(file) {
            let mut xz = Command::new("xz");
            (plain, process::output_bytes(xz.args(["-dc"]).arg(&path))?)
        } else {
            let content = std::fs::read(&path);
            (&**file, content.with_context(|| format!("reading {}", path.display()))?)
        };
        total += length(&content)?;
        tree.file(&format!("{place}/{name}"), content);
    }
    sizes.insert("modules".to_owned(), total);
    tree.file(&format!("{place}/modules.dep"), selection.dep.into_bytes());
    tree.file(&format!("{place}/modules.alias"), selection.alias.into_bytes());
    tree.file(&format!("{place}/modules.softdep"), selection.softdep.into_bytes());
    tree.file(&format!("{place}/modules.builtin"), builtin.into_bytes());
    let modinfo = parts.modules.join("modules.builtin.modinfo");
    let modinfo =
        std::fs::read(&modinfo).with_context(|| format!("reading {}", modinfo.display()))?;
    tree.file(&format!("{place}/modules.builtin.modinfo"), modinfo);
    Ok(selection.files.len())
}

fn add_foreign(
    parts: &Parts<'_>,
    tree: &mut Tree,
    sizes: &mut BTreeMap<String, u64>,
) -> Result<Vec<Taken>> {
    let files = Files::scan(parts.directories)?;
    let mut all: BTreeMap<String, Taken> = BTreeMap::new();
    for program in &parts.recipe.program {
        let taken = foreign::add(&program.path, &files, tree)?;
        // A library that two programs share is counted with the first.
        let mut size = 0;
        for file in taken {
            if !all.contains_key(&file.path) {
                size += file.size_bytes;
                all.insert(file.path.clone(), file);
            }
        }
        let name = program.path.rsplit('/').next().unwrap_or(&program.path);
        sizes.insert(name.to_owned(), size);
    }
    let certificates = &parts.recipe.certificates;
    let package = parts
        .packages
        .iter()
        .position(|package| package.name == certificates.package)
        .context("the package with certificates was not fetched")?;
    let directory = parts.directories[package].join(certificates.directory.trim_start_matches('/'));
    let bundle = foreign::certificates(&directory)?;
    let size_bytes = length(&bundle)?;
    sizes.insert("certificates".to_owned(), size_bytes);
    all.insert(
        certificates.path.clone(),
        Taken { path: certificates.path.clone(), package, size_bytes },
    );
    tree.file(&certificates.path, bundle);
    Ok(all.into_values().collect())
}

fn length(content: &[u8]) -> Result<u64> {
    u64::try_from(content.len()).context("measuring a file")
}

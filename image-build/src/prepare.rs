//! Gathers everything that goes into an image and does not depend on the farm.
//!
//! Refuses to guess: a package that cannot be fetched, a kernel that is not what its package says,
//! and a source without a time are errors.

use crate::apt::{self, Package};
use crate::binaries::{self, Profile};
use crate::image::{Options, command_line};
use crate::initramfs::{self, Assembled, Parts};
use crate::packages::{self, Task};
use crate::recipe::{self, PackageFile, Recipe};
use crate::{lock, process, progress, vmlinux};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Everything that does not depend on the farm.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) root: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) recipe: Recipe,
    pub(crate) cmdline: String,
    pub(crate) packages: Vec<Package>,
    pub(crate) directories: Vec<PathBuf>,
    pub(crate) kernel_package: String,
    pub(crate) release: String,
    pub(crate) vmlinuz: Vec<u8>,
    pub(crate) version: String,
    pub(crate) time_s: u32,
    pub(crate) assembled: Assembled,
}

impl Prepared {
    /// Where a file of a fetched package is.
    pub(crate) fn locate(&self, file: &PackageFile) -> Result<PathBuf> {
        let index = self.packages.iter().position(|package| package.name == file.package);
        let index = index.with_context(|| format!("package {} was not fetched", file.package))?;
        Ok(self.directories[index].join(file.path.trim_start_matches('/')))
    }

    /// A file of a fetched package.
    pub(crate) fn read(&self, file: &PackageFile) -> Result<Vec<u8>> {
        let path = self.locate(file)?;
        std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }
}

/// Installs, fetches, builds and assembles.
pub(crate) fn prepare(root: &Path, options: &Options) -> Result<Prepared> {
    // A wrong option is told at once, not after half an hour: nothing is installed or built before.
    let mut recipe = recipe::load(&root.join("image-build/image.toml"))?;
    if let Some(name) =
        options.only.iter().find(|name| recipe.binary.iter().all(|binary| binary.name != **name))
    {
        bail!("the image has no program {name}");
    }
    let cmdline = command_line(&recipe, &options.bake)?;
    packages::ensure(Task::Image)?;
    let cache = root.join("build/cache");
    std::fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    recipe.binary.retain(|binary| options.only.is_empty() || options.only.contains(&binary.name));
    let mut packages = resolve(root, &cache, &recipe)?;
    let directories = match apt::unpacked(&packages, &cache) {
        Ok(directories) => directories,
        Err(error) => {
            // The usual reason: the archive has replaced a package since apt's lists were made.
            progress::say(&format!("trying again with new package lists: {error:#}"));
            packages::update_lists()?;
            packages = resolve(root, &cache, &recipe)?;
            apt::unpacked(&packages, &cache)?
        }
    };

    let kernel = packages
        .iter()
        .position(|package| package.name.starts_with(&recipe.kernel.package_prefix))
        .context("the kernel package was not fetched")?;
    let kernel_package = packages[kernel].name.clone();
    let release = kernel_package.trim_start_matches("linux-image-").to_owned();
    let vmlinuz = directories[kernel].join(format!("boot/vmlinuz-{release}"));
    let vmlinuz =
        std::fs::read(&vmlinuz).with_context(|| format!("reading {}", vmlinuz.display()))?;
    let inside = vmlinux::release(&vmlinuz)?;
    ensure!(
        inside == release,
        "package {kernel_package} holds a kernel that calls itself {inside}"
    );

    index_modules(&directories[kernel], &release)?;
    let profile = if options.dev { Profile::Dev } else { Profile::Release };
    let programs = binaries::build(root, &recipe.binary, profile)?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let time_s = source_time(root)?;
    let assembled = initramfs::assemble(&Parts {
        recipe: &recipe,
        modules: &directories[kernel].join("lib/modules").join(&release),
        release: &release,
        binaries: &programs,
        packages: &packages,
        directories: &directories,
        version: &version,
        build_time_s: time_s,
    })?;
    Ok(Prepared {
        root: root.to_owned(),
        cache,
        recipe,
        cmdline,
        packages,
        directories,
        kernel_package,
        release,
        vmlinuz,
        version,
        time_s,
        assembled,
    })
}

/// Debian's package leaves the module index to the machine that installs it; so it is made here, once.
fn index_modules(directory: &Path, release: &str) -> Result<()> {
    // The last file that depmod writes.
    let last = directory.join("lib/modules").join(release).join("modules.devname");
    if last.is_file() {
        return Ok(());
    }
    let step = progress::step("Indexing kernel modules");
    let depmod =
        if process::exists_with("depmod", &["--version"]) { "depmod" } else { "/sbin/depmod" };
    process::run(Command::new(depmod).arg("-b").arg(directory).arg(release))?;
    step.done("");
    Ok(())
}

/// The packages of today, or those that were found at the same state of apt's lists.
fn resolve(root: &Path, cache: &Path, recipe: &Recipe) -> Result<Vec<Package>> {
    let lock_path = root.join("image-build/image.lock");
    let locked = lock::load(&lock_path)?;
    apt::renew_lists(cache)?;
    let single: BTreeSet<&str> = [
        recipe.boot.stub.package.as_str(),
        recipe.boot.syslinux.package.as_str(),
        recipe.boot.syslinux_mbr.package.as_str(),
        recipe.certificates.package.as_str(),
    ]
    .into();
    let programs: Vec<String> =
        recipe.program.iter().map(|program| program.package.clone()).collect();
    let question = format!("{single:?} {programs:?} {:?} {}", recipe.kernel, apt::lists_state());
    let find = || {
        let step = progress::step("Asking apt for the newest packages");
        let Kernel { prefix, suffix } = Kernel::of(recipe);
        let mut names = apt::with_dependencies(&programs)?;
        names.extend(single.iter().map(|name| (*name).to_owned()));
        names.insert(apt::newest(prefix, suffix)?);
        let packages = apt::candidates(&names)?;
        step.done("");
        Ok(packages)
    };
    let packages = match apt::remembered(cache, &question, find) {
        Ok(packages) => packages,
        // Offline, or on a machine whose apt knows nothing: what the lock names may be in the cache.
        Err(error)
            if !locked.is_empty()
                && locked.iter().all(|package| apt::is_unpacked(package, cache)) =>
        {
            progress::say(&format!(
                "apt cannot answer; building with the locked packages from the cache: {error:#}"
            ));
            locked.clone()
        }
        Err(error) => return Err(error),
    };
    let differences = lock::differences(&locked, &packages);
    if !differences.is_empty() {
        progress::say(
            "The packages differ from image-build/image.lock, which is rewritten now; commit it:",
        );
        for sentence in &differences {
            progress::say(&format!("  {sentence}"));
        }
        lock::store(&lock_path, &packages)?;
    }
    Ok(packages)
}

struct Kernel<'a> {
    prefix: &'a str,
    suffix: &'a str,
}

impl<'a> Kernel<'a> {
    fn of(recipe: &'a Recipe) -> Self {
        Self { prefix: &recipe.kernel.package_prefix, suffix: &recipe.kernel.package_suffix }
    }
}

/// The time that stands in for "now": the same source gives the same image.
fn source_time(root: &Path) -> Result<u32> {
    if let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") {
        let text = text.to_string_lossy().into_owned();
        return text
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is {text:?}, no number of seconds"));
    }
    let mut git = Command::new("git");
    git.current_dir(root).args(["log", "-1", "--format=%ct"]);
    if let Ok(text) = process::output(&mut git)
        && let Ok(seconds) = text.trim().parse()
    {
        return Ok(seconds);
    }
    bail!(
        "the image's time is that of the last commit, and this is no git checkout: set SOURCE_DATE_EPOCH"
    )
}

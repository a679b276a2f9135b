//! `cargo xtask image`: from the description to boot media.
//!
//! ```text
//! image.toml ─► packages ─► unpacked ─┐
//! cargo build ─► programs ────────────┼─► tree ─► cpio ─► initramfs ─┐
//! kernel package ─► vmlinuz ──────────┴──────────────────────────────┼─► UKI, disk, iPXE, SBOM
//! command line (baked farm) ─────────────────────────────────────────┘
//! ```
//!
//! Slow results are cached by content, so that baking another farm only writes the media.

use crate::prepare::{self, Prepared};
use crate::progress::{self, megabytes};
use crate::recipe::Recipe;
use crate::sizes::Sizes;
use crate::{cache, initramfs, media, pe, sbom, vmlinux};
use anyhow::{Context, Result, ensure};
use node_api::boot::BootConfig;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// zstd levels: what ships, and what a test waits for.
const LEVEL_SHIP: i32 = 19;
const LEVEL_FAST: i32 = 3;
/// `COMMAND_LINE_SIZE` of the kernel on x86, less the terminating zero.
const CMDLINE_MAX: usize = 2047;

/// What to build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Where the outputs go; `build/image` in the checkout unless given.
    pub out: Option<PathBuf>,
    /// What the node is told on its kernel command line.
    pub bake: Bake,
    /// Compress quickly instead of well.
    pub fast: bool,
    /// Also write the uncompressed initramfs.
    pub test_media: bool,
    /// Build the programs quickly instead of small.
    pub dev: bool,
    /// Only these programs of the project, for a try; all when empty.
    pub only: Vec<String>,
}

/// What the node is told on its kernel command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bake {
    /// Identity id of the farm.
    pub farm: Option<String>,
    /// Base URLs of the registry.
    pub registry: Option<String>,
    /// Seed of an enrolment key.
    pub token: Option<String>,
    /// Name of the grid.
    pub network: Option<String>,
    /// More words for the kernel's command line.
    pub cmdline: Option<String>,
}

/// Where everything is.
#[derive(Debug, Clone, Serialize)]
pub struct Outputs {
    /// The directory of the outputs.
    pub directory: PathBuf,
    /// The kernel's release.
    pub kernel: String,
    /// The whole kernel command line.
    pub cmdline: String,
    /// Size and SHA-256 of each output, by file name.
    pub files: BTreeMap<String, Output>,
}

/// One output file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// Its size.
    pub size_bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// The checkout to work on: the one that cargo runs this program for, else the one it was built from.
///
/// Cargo does not build a program again because its checkout was moved or copied.
pub fn checkout() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    let own = Path::new(&own);
    own.parent().unwrap_or(own).to_owned()
}

/// Builds everything.
pub fn build(options: &Options) -> Result<Outputs> {
    let root = checkout();
    let prepared = prepare::prepare(&root, options)?;
    let out = options.out.clone().unwrap_or_else(|| root.join("build/image"));
    write_media(&prepared, options, &out)
}

/// Makes the media twice from the same programs, the second time without the cache, and compares.
pub fn check_reproducible(options: &Options) -> Result<()> {
    let root = checkout();
    let work = root.join("build");
    let mut prepared = prepare::prepare(&root, options)?;
    let step = progress::step("Making the media twice");
    let first = tempfile::tempdir_in(&work).context("making a directory for the first media")?;
    let one = write_media(&prepared, options, first.path())?;
    let second = tempfile::tempdir_in(&work).context("making a directory for the second media")?;
    prepared.cache = second.path().join("cache");
    let other = write_media(&prepared, options, &second.path().join("image"))?;
    let differ: Vec<&str> = one
        .files
        .iter()
        .filter(|(name, output)| other.files.get(*name) != Some(*output))
        .map(|(name, _)| name.as_str())
        .collect();
    ensure!(
        differ.is_empty() && one.files.len() == other.files.len(),
        "two builds from the same programs differ in {}",
        differ.join(", ")
    );
    step.done("the same bytes");
    Ok(())
}

/// The whole kernel command line, checked with the node's own parser.
pub fn command_line(recipe: &Recipe, bake: &Bake) -> Result<String> {
    let mut words = recipe.boot.cmdline.clone();
    let options = [
        ("network", &bake.network),
        ("farm", &bake.farm),
        ("registry", &bake.registry),
        ("token", &bake.token),
    ];
    for (key, value) in options {
        words.extend(value.iter().map(|value| format!("zos.{key}={value}")));
    }
    words.extend(bake.cmdline.clone());
    let line = words.join(" ");
    let problems = BootConfig::parse(&line).problems;
    ensure!(
        problems.is_empty(),
        "the node would not understand its boot options:\n{}",
        problems.join("\n")
    );
    ensure!(
        line.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
        "the kernel command line may only hold printable ASCII"
    );
    ensure!(
        line.len() <= CMDLINE_MAX,
        "the kernel command line is longer than {CMDLINE_MAX} bytes"
    );
    Ok(line)
}

fn write_media(prepared: &Prepared, options: &Options, out: &Path) -> Result<Outputs> {
    let cmdline = &prepared.cmdline;
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let archive = prepared.assembled.tree.archive(prepared.time_s);
    let initramfs = packed(prepared, &archive, if options.fast { LEVEL_FAST } else { LEVEL_SHIP })?;
    let step = progress::step("Writing boot media");
    let elf = cache::file(&prepared.cache, "vmlinux", &cache::hash(&prepared.vmlinuz), || {
        vmlinux::extract(&prepared.vmlinuz)
    })?;
    let elf = std::fs::read(&elf).with_context(|| format!("reading {}", elf.display()))?;

    let stub = prepared.read(&prepared.recipe.boot.stub)?;
    let os_release = initramfs::os_release(&prepared.version);
    let uki = pe::append(
        &stub,
        &[
            (".osrel", os_release.as_bytes()),
            (".cmdline", cmdline.as_bytes()),
            (".uname", prepared.release.as_bytes()),
            (".linux", &prepared.vmlinuz),
            (".initrd", &initramfs),
        ],
    )?;
    let disk = out.join("zero-os.img");
    media::write_disk(
        &disk,
        &media::Disk {
            uki: &uki,
            vmlinuz: &prepared.vmlinuz,
            initramfs: &initramfs,
            cmdline,
            syslinux: &prepared.locate(&prepared.recipe.boot.syslinux)?,
            mbr: &prepared.read(&prepared.recipe.boot.syslinux_mbr)?,
            time_s: prepared.time_s,
        },
    )?;
    let disk = std::fs::read(&disk).with_context(|| format!("reading {}", disk.display()))?;
    let script = media::ipxe_script(cmdline);
    let boot = &prepared.recipe.boot;
    let bill = sbom::spdx(&sbom::Contents {
        root: &prepared.root,
        version: &prepared.version,
        time_s: prepared.time_s,
        kernel: &prepared.kernel_package,
        packages: &prepared.packages,
        taken: &prepared.assembled.taken,
        loaders: &[&boot.stub.package, &boot.syslinux.package, &boot.syslinux_mbr.package],
        binaries: &prepared.recipe.binary,
    })?;
    let sizes = Sizes {
        uki: length(&uki)?,
        kernel: length(&prepared.vmlinuz)?,
        initramfs: length(&initramfs)?,
        initramfs_unpacked: length(&archive)?,
        n_modules: prepared.assembled.n_modules,
        parts_unpacked: prepared.assembled.sizes.clone(),
    };
    let sizes_text = serde_json::to_string_pretty(&sizes).context("writing down sizes")? + "\n";

    let mut outputs: Vec<(&str, &[u8])> = vec![
        ("zero-os.efi", &uki),
        ("vmlinuz", &prepared.vmlinuz),
        ("vmlinux", &elf),
        ("initramfs.img", &initramfs),
        ("boot.ipxe", script.as_bytes()),
        ("cmdline", cmdline.as_bytes()),
        ("sbom.spdx.json", bill.as_bytes()),
        ("sizes.json", sizes_text.as_bytes()),
    ];
    if options.test_media {
        outputs.push(("initramfs.cpio", &archive));
    }
    let mut files = BTreeMap::new();
    for (name, content) in &outputs {
        cache::write(&out.join(name), content)?;
    }
    outputs.push(("zero-os.img", &disk));
    for (name, content) in outputs {
        let output = Output { size_bytes: length(content)?, sha256: cache::hash(content) };
        files.insert(name.to_owned(), output);
    }
    step.done(&format!(
        "{} (UKI {}, initramfs {}, kernel {})",
        out.display(),
        megabytes(sizes.uki),
        megabytes(sizes.initramfs),
        prepared.release
    ));
    Ok(Outputs {
        directory: out.to_owned(),
        kernel: prepared.release.clone(),
        cmdline: cmdline.clone(),
        files,
    })
}

fn packed(prepared: &Prepared, archive: &[u8], level: i32) -> Result<Vec<u8>> {
    let key = format!("{}-{level}", cache::hash(archive));
    let path = cache::file(&prepared.cache, "initramfs", &key, || {
        let step = progress::step(format!("Compressing the initramfs (zstd level {level})"));
        let packed = zstd::encode_all(archive, level).context("compressing the initramfs")?;
        step.done("");
        Ok(packed)
    })?;
    std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

fn length(content: &[u8]) -> Result<u64> {
    u64::try_from(content.len()).context("measuring an output")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe;

    fn recipe() -> Recipe {
        recipe::parse(include_str!("../image.toml")).unwrap()
    }

    #[test]
    fn a_baked_farm_is_what_the_node_reads() {
        let farm = "ab".repeat(32);
        let bake = Bake {
            farm: Some(farm.clone()),
            registry: Some("https://one,https://two".into()),
            token: Some("cd".repeat(32)),
            network: Some("test".into()),
            cmdline: Some("zos.ip=dhcp".into()),
        };
        let config = BootConfig::parse(&command_line(&recipe(), &bake).unwrap());
        assert_eq!(config.farm, Some(farm));
        assert_eq!(config.registries, ["https://one", "https://two"]);
        assert_eq!(config.network, "test");
    }

    #[test]
    fn what_the_node_would_not_understand_is_not_baked() {
        let bad = [
            Bake { farm: Some("short".into()), ..Bake::default() },
            Bake { registry: Some("example.org".into()), ..Bake::default() },
            Bake { cmdline: Some("zos.typo=1".into()), ..Bake::default() },
            Bake { cmdline: Some("a\nb".into()), ..Bake::default() },
            Bake { cmdline: Some("x".repeat(3000)), ..Bake::default() },
        ];
        for bake in bad {
            assert!(command_line(&recipe(), &bake).is_err(), "{bake:?}");
        }
        assert!(command_line(&recipe(), &Bake::default()).is_ok());
    }

    #[test]
    fn the_serial_console_is_the_last_so_that_pid_1_speaks_there() {
        let line = command_line(&recipe(), &Bake::default()).unwrap();
        let last = line.split(' ').rfind(|word| word.starts_with("console="));
        assert_eq!(last, Some("console=ttyS0,115200"));
    }
}

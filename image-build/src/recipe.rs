//! Reads `image.toml`: the one description of what goes into the image.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::Path;

/// The whole description.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Which kernel package.
    pub kernel: Kernel,
    /// Command line and boot loaders.
    pub boot: Boot,
    /// Limits that `cargo xtask sizes` enforces.
    pub budget: Budget,
    /// Programs of the project.
    pub binary: Vec<Binary>,
    /// Programs of Debian.
    pub program: Vec<Program>,
    /// Roots of trust for TLS.
    pub certificates: Certificates,
    /// Kernel modules by group.
    pub modules: Vec<ModuleGroup>,
}

/// Which kernel package: `<prefix><number><suffix>`, the highest number.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Text before the number.
    pub package_prefix: String,
    /// Text after the number.
    pub package_suffix: String,
}

/// Command line and boot loaders.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Words that every image has on its kernel command line.
    pub cmdline: Vec<String>,
    /// The EFI stub of the unified kernel image.
    pub stub: PackageFile,
    /// The installer of the BIOS boot loader.
    pub syslinux: PackageFile,
    /// First sector of the disk image, which finds the boot loader.
    pub syslinux_mbr: PackageFile,
}

/// One file of a Debian package.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageFile {
    /// Name of the package.
    pub package: String,
    /// Absolute path of the file inside it.
    pub path: String,
}

/// Limits that `cargo xtask sizes` enforces.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The unified kernel image, in bytes.
    pub uki_bytes: u64,
}

/// A program of the project.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binary {
    /// The crate.
    pub package: String,
    /// The binary of that crate.
    pub name: String,
    /// Where it goes in the image.
    pub path: String,
    /// Built in its own cargo call, so that it shares no feature with the others.
    #[serde(default)]
    pub alone: bool,
}

/// A program of a Debian package, shipped with the libraries that it links.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Name of the package.
    pub package: String,
    /// Absolute path of the program, in the package and in the image.
    pub path: String,
    /// Why the node has it.
    pub reason: String,
}

/// Certificates of a Debian package, shipped as one file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// Name of the package.
    pub package: String,
    /// Directory of the package with one certificate in each file.
    pub directory: String,
    /// Where the bundle goes in the image.
    pub path: String,
}

/// Kernel modules that one reason brings in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleGroup {
    /// Short name for messages.
    pub group: String,
    /// Why the node has them.
    pub reason: String,
    /// Module names; `-` and `_` are the same.
    pub names: Vec<String>,
    /// Whether these, without what they need, are stored as the kernel uses them.
    #[serde(default)]
    pub unpacked: bool,
}

/// Understands the text of `image.toml`.
pub fn parse(text: &str) -> Result<Recipe> {
    toml::from_str(text).context("understanding the image description")
}

/// Reads `image.toml`.
pub fn load(path: &Path) -> Result<Recipe> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_description_is_understood_and_every_part_has_a_reason() {
        let recipe = parse(include_str!("../image.toml")).unwrap();
        assert!(
            recipe.modules.iter().all(|group| group.reason.len() > 5 && !group.names.is_empty())
        );
        assert!(recipe.program.iter().all(|program| program.reason.len() > 5));
        assert!(recipe.binary.iter().any(|binary| binary.path == "/init" && binary.alone));
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let text = include_str!("../image.toml");
        assert!(parse(&text.replace("uki_bytes", "uki_byte")).is_err());
    }
}

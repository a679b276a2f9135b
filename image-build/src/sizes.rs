//! `cargo xtask sizes`: what the image weighs, part by part, against the budget.

use crate::image;
use crate::progress::{self, megabytes};
use crate::recipe;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// `sizes.json`, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// The unified kernel image: what a node fetches.
    pub uki: u64,
    /// The kernel, compressed.
    pub kernel: u64,
    /// The initramfs, compressed.
    pub initramfs: u64,
    /// The initramfs, unpacked.
    pub initramfs_unpacked: u64,
    /// Number of kernel modules.
    pub n_modules: usize,
    /// Each program, the modules, each foreign program with its libraries; unpacked.
    pub parts_unpacked: BTreeMap<String, u64>,
}

/// Prints the sizes of the last image and fails above the budget.
pub fn show(directory: Option<&Path>) -> Result<()> {
    let root = image::checkout();
    let directory = directory.map_or_else(|| root.join("build/image"), Path::to_owned);
    let path = directory.join("sizes.json");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("reading {}; `cargo xtask image` makes it", path.display()))?;
    let sizes: Sizes =
        serde_json::from_str(&text).with_context(|| format!("understanding {}", path.display()))?;
    let budget = recipe::load(&root.join("image-build/image.toml"))?.budget;
    progress::print(table(&sizes, budget.uki_bytes).trim_end())?;
    ensure!(
        sizes.uki <= budget.uki_bytes,
        "the unified kernel image has {} bytes, {} more than its budget",
        sizes.uki,
        sizes.uki - budget.uki_bytes
    );
    Ok(())
}

fn table(sizes: &Sizes, budget: u64) -> String {
    let line = |name: &str, bytes: u64| format!("{name:<28}{:>10}\n", megabytes(bytes));
    let mut text = line("unified kernel image", sizes.uki);
    text += &line("  of a budget of", budget);
    text += &line("kernel", sizes.kernel);
    text += &line("initramfs", sizes.initramfs);
    text += &line("initramfs, unpacked", sizes.initramfs_unpacked);
    for (name, bytes) in &sizes.parts_unpacked {
        let name = if name == "modules" {
            format!("{} kernel modules", sizes.n_modules)
        } else {
            name.clone()
        };
        text += &line(&format!("  {name}"), *bytes);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_line() {
        let sizes = Sizes {
            uki: 20_000_000,
            kernel: 12_000_000,
            initramfs: 8_000_000,
            initramfs_unpacked: 9_000_000,
            n_modules: 3,
            parts_unpacked: [("init".to_owned(), 1_000_000), ("modules".to_owned(), 5)].into(),
        };
        let text = table(&sizes, 40_000_000);
        assert_eq!(text.lines().count(), 7);
        assert!(
            text.lines().any(|line| line.starts_with("  init ") && line.ends_with(" 1.0 MB")),
            "{text}"
        );
        assert!(text.contains("  3 kernel modules"), "{text}");
    }
}

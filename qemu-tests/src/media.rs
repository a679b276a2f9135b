//! The ways to boot, and the files of the image that each needs.

use anyhow::{Context as _, Result, bail};
use std::{env, path::PathBuf};

/// A way to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// Kernel and initramfs handed over by QEMU, both unpacked beforehand: the fastest.
    Direct,
    /// The same as they are shipped: each unpacks itself.
    Shipped,
    /// The unified kernel image, started by UEFI from a disk.
    Uki,
    /// The disk image on a USB stick, BIOS.
    UsbBios,
    /// The disk image on a USB stick, UEFI.
    UsbUefi,
    /// Network boot by iPXE, BIOS.
    IpxeBios,
    /// Network boot by iPXE, UEFI.
    IpxeUefi,
}

/// Where `cargo xtask image` has written the image. Named by `ZOS_IMAGE_DIR`, else the default.
#[derive(Debug, Clone)]
pub struct Image {
    /// The directory.
    pub directory: PathBuf,
}

/// The words that make a kernel boot fast under emulation, and end QEMU when it panics.
pub const FAST: &str = "mitigations=off tsc=reliable no_timer_check lpj=4000000 \
                        cryptomgr.notests nokaslr panic=-1";

impl Image {
    /// Finds the image, or says how to make it.
    pub fn find() -> Result<Self> {
        let directory = match env::var_os("ZOS_IMAGE_DIR") {
            Some(directory) => PathBuf::from(directory),
            None => crate::own_directory().join("../build/image"),
        };
        let directory = directory.canonicalize().unwrap_or(directory);
        if !directory.join("initramfs.cpio").exists() {
            bail!(
                "no image with test media in {}; make one with `cargo xtask image --test-media`",
                directory.display()
            );
        }
        Ok(Self { directory })
    }

    /// A file of the image.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The image's own command line, without what `zos.` options a farm has added.
    pub fn cmdline(&self) -> Result<String> {
        let text = std::fs::read_to_string(self.file("cmdline")).context("reading the cmdline")?;
        let words = text.split_ascii_whitespace();
        Ok(words.filter(|word| !word.starts_with("zos.")).collect::<Vec<_>>().join(" "))
    }
}

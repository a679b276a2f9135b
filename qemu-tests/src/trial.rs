//! Puts the checks of the launcher into a test machine.

use crate::{archive, content, media::Image};
use anyhow::{Context as _, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// An archive for [`crate::machine::Machine::overlay`]: what runs the checks (`guest/trial.rs`) as
/// `/bin/storaged` and `/bin/netd`, the checks, and Debian's busybox, which they run in containers.
/// The kernel, its modules, init and the launcher are the image's.
pub fn overlay(image: &Image, checks: &Path, directory: &Path) -> Result<PathBuf> {
    let initramfs = fs::read(image.file("initramfs.cpio"))?;
    archive::member(&initramfs, "usr/bin/storaged").context("in whose place the checks run")?;
    let runner = fs::read(archive::guest_program("trial", directory)?)?;
    let checks = fs::read(checks).with_context(|| format!("reading {}", checks.display()))?;
    let package = content::unpack_package("busybox-static")?;
    let busybox = ["usr/bin/busybox", "bin/busybox"];
    let busybox = busybox.iter().find_map(|name| fs::read(package.path().join(name)).ok());
    let busybox = busybox.context("the package has no busybox")?;
    let path = directory.join("trial.cpio");
    fs::write(
        &path,
        archive::programs(&[
            ("usr/bin/storaged", &runner),
            ("usr/bin/netd", &runner),
            ("usr/bin/container-vm", &checks),
            ("usr/bin/busybox", &busybox),
        ]),
    )?;
    Ok(path)
}

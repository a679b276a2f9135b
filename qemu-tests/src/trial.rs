//! Puts the checks of the launcher into a test machine.

use crate::{archive, content, media::Image};
use anyhow::{Context as _, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// An archive for [`crate::machine::Machine::overlay`]: what runs the checks (`guest/trial.rs`) in
/// the place of four daemons, the checks, and what they run in containers: Debian's busybox, and a
/// program of this machine with the libraries and the loader that it needs. The kernel, its modules,
/// init and the launcher are the image's.
///
/// The launcher goes by another name, for init starts what has the old one, seconds after the checks
/// have begun: a second launcher would take over the socket of theirs, and what it starts is init's
/// child and not that of the checks.
pub fn overlay(image: &Image, checks: &Path, directory: &Path) -> Result<PathBuf> {
    let initramfs = fs::read(image.file("initramfs.cpio"))?;
    archive::member(&initramfs, "usr/bin/storaged").context("in whose place the checks run")?;
    let launcher = archive::member(&initramfs, "usr/bin/launcher").context("which is checked")?;
    let runner = fs::read(archive::guest_program("trial", directory)?)?;
    let checks = fs::read(checks).with_context(|| format!("reading {}", checks.display()))?;
    let package = content::unpack_package("busybox-static")?;
    let busybox = ["usr/bin/busybox", "bin/busybox"];
    let busybox = busybox.iter().find_map(|name| fs::read(package.path().join(name)).ok());
    let busybox = busybox.context("the package has no busybox")?;
    let dynamic = Path::new("/bin/true");
    let needed = content::libraries(dynamic)?;
    let library = |start: &str| {
        let named = |path: &Path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
        };
        let path = needed
            .iter()
            .find(|path| named(path))
            .with_context(|| format!("{start} is not needed"))?;
        fs::read(path).with_context(|| format!("reading {}", path.display()))
    };
    let path = directory.join("trial.cpio");
    fs::write(
        &path,
        archive::programs(&[
            ("usr/bin/storaged", &runner),
            ("usr/bin/netd", &runner),
            ("usr/bin/contractd", &runner),
            ("usr/bin/launcher", &runner),
            ("usr/bin/launcher-of-the-image", launcher),
            ("usr/bin/container-vm", &checks),
            ("usr/bin/busybox", &busybox),
            ("usr/bin/dynamic", &fs::read(dynamic)?),
            ("usr/bin/libc.so.6", &library("libc.so")?),
            ("usr/bin/ld.so", &library("ld-linux")?),
        ]),
    )?;
    Ok(path)
}

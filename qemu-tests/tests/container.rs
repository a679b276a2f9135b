//! The launcher on the real kernel, check by check: `modules/container/examples/container-vm.rs` in a
//! machine that boots the image.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Context as _, Result, ensure};
use qemu_tests::{
    machine::{BOOT, Machine, blank_disk},
    media::Image,
    serial::Serial,
    trial, wait,
};
use std::{env, os::unix::net::UnixStream, path::PathBuf, process::Command, time::Duration};

/// Where the checks were built: static, as the image's own programs are.
const PROGRAM: &str = "ZOS_CONTAINER_TRIAL";
/// For all checks, on a slow, busy machine.
const CHECKS: Duration = Duration::from_secs(900);
/// There are no fewer checks than this: one that is lost is missed.
const CHECKS_MIN: usize = 597;
/// Its tables have the names of checks in quotes.
const OCI: &str = include_str!("../../docs/oci-conformance.md");

#[test]
fn every_wall_of_a_container_stands() -> Result<()> {
    let program = env::var_os(PROGRAM).map(PathBuf::from).with_context(|| {
        format!("{PROGRAM} does not name the program; `cargo xtask test` builds it")
    })?;
    let directory = qemu_tests::scratch()?;
    let image = Image::find()?;
    let mut machine = Machine::new("container");
    // Not blank: the node leaves it to the checks.
    let disk = blank_disk(&directory.path().join("disk.img"), 1024)?;
    let made = Command::new("/sbin/mkfs.btrfs").arg("-q").arg(&disk).output()?;
    ensure!(made.status.success(), "mkfs.btrfs failed");
    machine.disks.push((disk, "DISK".into()));
    machine.overlay = Some(trial::overlay(&image, &program, directory.path())?);
    let running = machine.start(&image, directory.path())?;
    let line = wait::until("the second serial line", Duration::from_secs(20), || {
        Ok(UnixStream::connect(&running.back_line).ok())
    })?;
    let checks = Serial::record(line, &directory.path().join("checks"))?;
    checks.wait("trial: ", BOOT + CHECKS)?;
    let said = checks.lines();
    let those = |word| said.iter().filter(move |line| line.starts_with(word));
    let failed: Vec<_> = those("FAIL ").cloned().collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    let n_passed = those("PASS ").count();
    ensure!(n_passed >= CHECKS_MIN, "only {n_passed} checks:\n{}", said.join("\n"));
    let end = format!("{n_passed} passed, 0 failed");
    ensure!(said.contains(&end), "they did not come to their end:\n{}", said.join("\n"));
    let named = OCI.lines().filter(|line| line.starts_with("| "));
    let named = named.flat_map(|row| row.split('"').skip(1).step_by(2));
    let passed = |name: &&str| said.iter().any(|line| *line == format!("PASS oci: {name}"));
    let missed: Vec<_> = named.filter(|name| !passed(name)).collect();
    ensure!(missed.is_empty(), "the page about OCI names what was not checked: {missed:?}");
    Ok(())
}

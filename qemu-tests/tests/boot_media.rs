//! Every way to boot ends with a node that serves.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Result, ensure};
use qemu_tests::{
    machine::{Machine, blank_disk},
    media::{Image, Medium},
};

fn boots(name: &str, medium: Medium) -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let mut machine = Machine::new(name);
    machine.medium = medium;
    machine.disks.push((blank_disk(&directory.path().join("disk.img"), 4096)?, "DISK".into()));
    let running = machine.start(&Image::find()?, directory.path())?;
    running.wait_ready()?;
    running.serial.wait("it holds the node's state", qemu_tests::machine::BOOT)?;
    let problems = running.power_cut().problems(&[]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    Ok(())
}

#[test]
fn by_direct_kernel() -> Result<()> {
    boots("direct", Medium::Direct)
}

#[test]
fn by_unified_kernel_image_under_uefi() -> Result<()> {
    boots("uki", Medium::Uki)
}

#[test]
fn by_usb_stick_under_bios() -> Result<()> {
    boots("usb-bios", Medium::UsbBios)
}

#[test]
fn by_usb_stick_under_uefi() -> Result<()> {
    boots("usb-uefi", Medium::UsbUefi)
}

#[test]
fn by_ipxe_under_bios() -> Result<()> {
    boots("ipxe-bios", Medium::IpxeBios)
}

#[test]
fn by_ipxe_under_uefi() -> Result<()> {
    boots("ipxe-uefi", Medium::IpxeUefi)
}

//! Boot media: the disk image for USB sticks, BIOS and UEFI alike, and the script for network boot.
//!
//! Everything is made without root, and the same inputs give the same bytes: identifiers and times
//! are fixed.

use crate::process;
use anyhow::{Context, Result};
use std::fs::{File, FileTimes};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

const MIB: u64 = 1 << 20;
/// Where the only partition starts; what partitioning tools have used for years.
const PARTITION_START: u64 = MIB;
/// FAT32 needs 65525 clusters of at least 512 bytes; less is FAT16 to a firmware.
const PARTITION_MIN: u64 = 40 * MIB;
/// Room for the boot loader, directories and the allocation tables.
const PARTITION_SPARE: u64 = 3 * MIB;
/// Room for the backup partition table.
const TAIL: u64 = MIB;
/// Two different sticks in one machine are the same medium: identity by content would only mislead.
const DISK_GUID: &str = "5a65726f-4f53-4469-736b-000000000001";
const PARTITION_GUID: &str = "5a65726f-4f53-4553-5000-000000000001";
const VOLUME_SERIAL: &str = "5a65726f";
/// The part of the first sector that holds code; the partition table follows.
const MBR_CODE_MAX: usize = 440;

/// What goes on the disk.
#[derive(Debug)]
pub(crate) struct Disk<'a> {
    /// Unified kernel image, for UEFI.
    pub(crate) uki: &'a [u8],
    /// Kernel, for BIOS.
    pub(crate) vmlinuz: &'a [u8],
    /// Initramfs, for BIOS.
    pub(crate) initramfs: &'a [u8],
    /// Kernel command line.
    pub(crate) cmdline: &'a str,
    /// syslinux's installer.
    pub(crate) syslinux: &'a Path,
    /// syslinux's code for the first sector.
    pub(crate) mbr: &'a [u8],
    /// Time of every file, in seconds since 1970.
    pub(crate) time_s: u32,
}

/// Writes the disk image to `path`.
pub(crate) fn write_disk(path: &Path, disk: &Disk<'_>) -> Result<()> {
    let directory = path.parent().context("the disk image has a directory")?;
    let work = tempfile::tempdir_in(directory).context("making a directory for the disk image")?;
    let menu = menu(disk.cmdline);
    let files = [
        ("BOOTX64.EFI", "::/EFI/BOOT/BOOTX64.EFI", disk.uki),
        ("vmlinuz", "::/vmlinuz", disk.vmlinuz),
        ("initramfs.img", "::/initramfs.img", disk.initramfs),
        ("syslinux.cfg", "::/syslinux.cfg", menu.as_bytes()),
    ];
    let content: u64 = files.iter().map(|(_, _, bytes)| bytes.len() as u64).sum();
    let partition =
        (content + content / 64 + PARTITION_SPARE).next_multiple_of(MIB).max(PARTITION_MIN);
    let image = work.path().join("disk");
    let mut file = File::create_new(&image).context("making the disk image")?;
    file.set_len(PARTITION_START + partition + TAIL).context("sizing the disk image")?;

    let last = (PARTITION_START + partition) / 512 - 1;
    process::run(
        Command::new("sgdisk")
            .args(["--clear", "--set-alignment=1"])
            .arg(format!("--new=1:{}:{last}", PARTITION_START / 512))
            .args(["--typecode=1:ef00", "--change-name=1:Zero-OS", "--attributes=1:set:2"])
            .arg(format!("--disk-guid={DISK_GUID}"))
            .arg(format!("--partition-guid=1:{PARTITION_GUID}"))
            .arg(&image),
    )?;
    let code = disk.mbr.get(..disk.mbr.len().min(MBR_CODE_MAX)).unwrap_or_default();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.write_all(code))
        .context("writing the first sector")?;
    drop(file);

    let tool = |name: &str| {
        let mut command = Command::new(name);
        // One zone and one time: FAT stores local time.
        command.env("TZ", "UTC").env("SOURCE_DATE_EPOCH", disk.time_s.to_string());
        command.env("MTOOLS_SKIP_CHECK", "1");
        command
    };
    let place = format!("{}@@{PARTITION_START}", image.display());
    process::run(
        tool("mformat")
            .args(["-i", &place, "-F", "-T", &(partition / 512).to_string()])
            .args(["-h", "255", "-s", "63", "-H", &(PARTITION_START / 512).to_string()])
            .args(["-c", "1", "-N", VOLUME_SERIAL, "-v", "ZERO-OS", "::"]),
    )?;
    process::run(tool("mmd").args(["-i", &place, "::/EFI", "::/EFI/BOOT"]))?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(disk.time_s));
    for (name, target, bytes) in files {
        let source = work.path().join(name);
        std::fs::write(&source, bytes).with_context(|| format!("writing {name}"))?;
        File::options()
            .write(true)
            .open(&source)
            .and_then(|file| file.set_times(FileTimes::new().set_modified(time)))
            .with_context(|| format!("setting the time of {name}"))?;
        process::run(tool("mcopy").args(["-m", "-i", &place]).arg(&source).arg(target))?;
    }
    let syslinux = disk.syslinux.to_str().context("the cache's path is no text")?;
    process::run(
        tool(syslinux).args(["--install", "--offset", &PARTITION_START.to_string()]).arg(&image),
    )?;
    std::fs::rename(&image, path).with_context(|| format!("putting {} in place", path.display()))
}

fn menu(cmdline: &str) -> String {
    format!(
        "DEFAULT zero-os\nPROMPT 0\nLABEL zero-os\n  LINUX /vmlinuz\n  INITRD /initramfs.img\n  APPEND {cmdline}\n"
    )
}

/// The iPXE script, for BIOS and UEFI. Kernel and initramfs stand beside it on the server.
///
/// `initrd=` tells the kernel's EFI stub which of iPXE's files is the initramfs; on BIOS it has no
/// effect. The command line is in the script and not only in the unified image, because a stub that
/// is chained with other load options would take those for its command line.
pub(crate) fn ipxe_script(cmdline: &str) -> String {
    format!(
        "#!ipxe\n\
         # Zero-OS. Put vmlinuz and initramfs.img beside this file.\n\
         kernel vmlinuz initrd=initramfs.img {cmdline} || goto failed\n\
         initrd initramfs.img || goto failed\n\
         boot || goto failed\n\
         :failed\n\
         echo Zero-OS could not be loaded, trying again in 30 seconds\n\
         sleep 30\n\
         reboot\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_boot_loaders_get_the_whole_command_line() {
        let cmdline = "quiet zos.farm=ab";
        assert!(
            ipxe_script(cmdline)
                .contains("kernel vmlinuz initrd=initramfs.img quiet zos.farm=ab ||")
        );
        assert!(menu(cmdline).contains("APPEND quiet zos.farm=ab\n"));
    }
}

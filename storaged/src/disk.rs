//! The disks of the machine, as sysfs describes them. Nothing is opened.

use node_api::storaged::DiskClass;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A machine with more disks than this shows the first ones by name.
const DISKS_MAX: usize = 512;

/// Block devices that are no disks: made of memory, of files or of other block devices, or optical,
/// floppy and tape drives, or the boot and replay-protected areas of an eMMC.
const NO_DISK: &[&str] =
    &["loop", "ram", "zram", "dm-", "md", "sr", "fd", "st", "nbd", "drbd", "rbd", "zd", "mtdblock"];

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Kernel name.
    pub name: String,
    /// As printed on the label; empty when the disk tells none.
    pub serial: String,
    /// As the disk says it.
    pub model: String,
    /// Capacity.
    pub size_bytes: u64,
    /// What the kernel says now; the claim keeps what it said first.
    pub class: DiskClass,
    /// Another medium under the same name has another number.
    pub sequence: u64,
    /// Why it is not even looked at.
    pub obstacle: Option<String>,
}

impl Disk {
    /// The device node.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

/// What sysfs holds about one block device, unparsed.
#[derive(Debug, Clone, Default)]
struct Attributes {
    /// Where `/sys/block/NAME` leads to.
    location: String,
    /// Small text files by their path below it.
    files: BTreeMap<&'static str, String>,
    /// SCSI page 0x80: four bytes of header, then the serial number.
    serial_page: Vec<u8>,
    has_device: bool,
}

/// What is read of each block device.
const FILES: &[&str] = &[
    "removable",
    "ro",
    "hidden",
    "diskseq",
    "size",
    "queue/rotational",
    "serial",
    "device/serial",
    "device/model",
    "device/vendor",
    "wwid",
    "device/wwid",
];

/// All disks below `sysfs`, sorted by name. Two paths to one disk are two entries, of which the
/// second has an obstacle.
pub fn scan(sysfs: &Path) -> io::Result<Vec<Disk>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(sysfs.join("block"))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let attributes = read(&entry.path());
        found.extend(describe(&name, &attributes).map(|disk| (disk, attributes)));
    }
    found.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    found.truncate(DISKS_MAX);
    Ok(mark_second_paths(found))
}

fn read(device: &Path) -> Attributes {
    // A file that is missing or unreadable says nothing, like one that is empty.
    let text = |file: &str| fs::read(device.join(file)).unwrap_or_default();
    let location = fs::canonicalize(device).unwrap_or_default();
    Attributes {
        location: location.to_string_lossy().into_owned(),
        files: FILES.iter().map(|file| (*file, plain(&text(file)))).collect(),
        serial_page: text("device/vpd_pg80"),
        has_device: device.join("device").exists(),
    }
}

/// Keeps what can be printed on a console or put into an option.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let kept: String = text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
    kept.trim().to_owned()
}

fn describe(name: &str, attributes: &Attributes) -> Option<Disk> {
    const SECTOR: u64 = 512;
    let get = |file: &str| attributes.files.get(file).map_or("", String::as_str);
    let set = |file: &str| get(file) == "1";
    let emmc_area = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    let no_disk = NO_DISK.iter().any(|prefix| name.starts_with(prefix)) || emmc_area;
    if no_disk || !attributes.has_device || set("hidden") {
        return None;
    }
    let page = attributes.serial_page.get(4..).map(plain).unwrap_or_default();
    let serials = [get("serial").to_owned(), get("device/serial").to_owned(), page];
    let serial = serials.into_iter().find(|serial| !serial.is_empty()).unwrap_or_default();
    let vendor = if get("device/vendor").starts_with("0x") { "" } else { get("device/vendor") };
    let class = if name.starts_with("nvme") {
        DiskClass::Nvme
    } else if set("queue/rotational") && !is_virtual(name) {
        DiskClass::Hdd
    } else {
        DiskClass::Ssd
    };
    let sectors: u64 = get("size").parse().unwrap_or(0);
    let obstacle = if attributes.location.contains("/usb") {
        Some("it is on USB, where disks come and go")
    } else if set("removable") {
        Some("it is removable")
    } else if set("ro") {
        Some("it is read-only")
    } else if sectors == 0 {
        Some("it has no medium")
    } else {
        None
    };
    Some(Disk {
        name: name.to_owned(),
        serial,
        model: format!("{vendor} {}", get("device/model")).trim().to_owned(),
        size_bytes: sectors.saturating_mul(SECTOR),
        class,
        sequence: get("diskseq").parse().unwrap_or(0),
        obstacle: obstacle.map(str::to_owned),
    })
}

/// A paravirtual disk says that it rotates because that is the kernel's default for it.
fn is_virtual(name: &str) -> bool {
    name.starts_with("vd") || name.starts_with("xvd")
}

/// A disk on two cables must not get two pools; a copied disk must not be mixed up with its model.
fn mark_second_paths(found: Vec<(Disk, Attributes)>) -> Vec<Disk> {
    let mut seen = BTreeMap::new();
    let mut disks = Vec::new();
    for (mut disk, attributes) in found {
        let get = |file: &str| attributes.files.get(file).cloned().unwrap_or_default();
        let key = (disk.serial.clone(), get("wwid"), get("device/wwid"), disk.size_bytes);
        let names_itself = !disk.serial.is_empty();
        if names_itself && let Some(first) = seen.insert(key.clone(), disk.name.clone()) {
            let text = format!("it tells the same serial number as {first}: a second cable to it");
            disk.obstacle.get_or_insert(text);
            seen.insert(key, first);
        }
        disks.push(disk);
    }
    disks
}

/// Serial numbers that more than one disk tells: an order cannot name one of them.
pub fn shared_serials(disks: &[Disk]) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let twice = disks.iter().filter(|disk| !seen.insert(disk.serial.as_str()));
    twice.map(|disk| disk.serial.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(location: &str, files: &[(&'static str, &str)]) -> Attributes {
        let mut attributes = Attributes {
            location: location.to_owned(),
            files: [("size", "4194304")].map(|(k, v)| (k, v.to_owned())).into(),
            serial_page: Vec::new(),
            has_device: true,
        };
        attributes.files.extend(files.iter().map(|(k, v)| (*k, (*v).to_owned())));
        attributes
    }

    #[test]
    fn disks_are_classified_by_bus_and_rotation() {
        let rows = [
            ("nvme0n1", "0", DiskClass::Nvme),
            ("sda", "1", DiskClass::Hdd),
            ("sda", "0", DiskClass::Ssd),
            ("vda", "1", DiskClass::Ssd),
        ];
        for (name, rotational, class) in rows {
            let disk = describe(name, &attributes("/x", &[("queue/rotational", rotational)]));
            assert_eq!(disk.unwrap().class, class, "{name}");
        }
    }

    #[test]
    fn what_is_no_disk_is_not_listed() {
        let names = ["loop0", "ram1", "zram0", "dm-0", "md127", "sr0", "fd0", "nbd3"];
        for name in names.into_iter().chain(["mmcblk0boot1", "mmcblk0rpmb"]) {
            assert_eq!(describe(name, &attributes("/x", &[])), None, "{name}");
        }
        assert_eq!(describe("nvme0c0n1", &attributes("/x", &[("hidden", "1")])), None);
        let virtual_disk = Attributes { has_device: false, ..attributes("/x", &[]) };
        assert_eq!(describe("vda", &virtual_disk), None);
        assert!(describe("mmcblk0", &attributes("/x", &[])).is_some());
    }

    #[test]
    fn obstacles_are_named() {
        let rows = [
            ("/sys/devices/pci0/usb1/1-1/host3/block/sda", ("removable", "0"), "USB"),
            ("/x", ("removable", "1"), "removable"),
            ("/x", ("ro", "1"), "read-only"),
            ("/x", ("size", "0"), "no medium"),
        ];
        for (location, file, word) in rows {
            let disk = describe("sda", &attributes(location, &[file])).unwrap();
            assert!(disk.obstacle.unwrap().contains(word), "{word}");
        }
        assert_eq!(describe("sda", &attributes("/x", &[])).unwrap().obstacle, None);
    }

    #[test]
    fn the_serial_number_is_found_in_each_place() {
        let mut scsi = attributes("/x", &[("device/vendor", "ATA"), ("device/model", "QEMU  HD ")]);
        scsi.serial_page = b"\0\x80\0\x08QM00001 ".to_vec();
        let disk = describe("sda", &scsi).unwrap();
        assert_eq!((disk.serial.as_str(), disk.model.as_str()), ("QM00001", "ATA QEMU  HD"));
        let virtio = attributes("/x", &[("serial", "DISK0"), ("device/vendor", "0x1af4")]);
        let disk = describe("vda", &virtio).unwrap();
        assert_eq!((disk.serial.as_str(), disk.model.as_str()), ("DISK0", ""));
        let nvme = describe("nvme0n1", &attributes("/x", &[("device/serial", "N1")])).unwrap();
        assert_eq!((nvme.serial.as_str(), nvme.size_bytes), ("N1", 2 << 30));
    }

    #[test]
    fn a_second_path_to_a_disk_is_not_used_and_disks_without_serial_are_all_used() {
        let entry = |name: &str, serial: &str| {
            let attributes = attributes("/x", &[("serial", serial)]);
            (describe(name, &attributes).unwrap(), attributes)
        };
        let found = vec![entry("sda", "A"), entry("sdb", "A"), entry("sdc", ""), entry("sdd", "")];
        let disks = mark_second_paths(found);
        let hindered = disks.iter().map(|disk| disk.obstacle.is_some()).collect::<Vec<_>>();
        assert_eq!(hindered, [false, true, false, false]);
        assert!(disks[1].obstacle.as_ref().unwrap().contains("sda"));
        assert!(shared_serials(&disks).contains("A"));
    }
}

//! What the machine is made of, as sysfs and procfs tell it, and the capacity that follows.
//!
//! Disks are storaged's and come as parameters. Nothing here is proven: it is what the node says
//! of itself. The serial number is given as it is; whoever publishes a statement decides what to
//! tell of it. Reading is apart from understanding, so that the texts of real machines are tests.

#![forbid(unsafe_code)]

use contract::Capacity;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// Memory that the node keeps for itself: a tenth, and at least this many bytes, for the daemons, the
/// kernel and its caches.
pub const MEMORY_RESERVE_MIN: u64 = 256 << 20;
/// Longest text that is taken from the firmware or a device.
const TEXT_MAX: usize = 100;

/// A file that describes the machine could not be read.
#[derive(Debug, thiserror::Error)]
#[error("reading {}", path.display())]
pub struct InventoryError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What the machine is made of, disks apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Inventory {
    /// Maker of the machine (SMBIOS); empty when the firmware does not say.
    pub vendor: String,
    /// Its product name (SMBIOS).
    pub product: String,
    /// Its serial number (SMBIOS), which only root may read.
    pub serial: String,
    /// CPU model.
    pub cpu: String,
    /// Logical cores that are online.
    pub cores: u32,
    /// Physical cores; as many as logical ones where the kernel does not tell.
    pub cores_physical: u32,
    /// Whether the machine is itself a virtual one.
    pub is_virtual: bool,
    /// Whether the CPU can run virtual machines (VT-x or AMD-V).
    pub runs_guests: bool,
    /// Memory that the kernel manages, in bytes.
    pub memory_bytes: u64,
    /// Physical network cards, sorted by name.
    pub nics: Vec<Nic>,
}

/// A physical network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Kernel name.
    pub name: String,
    /// Hardware address.
    pub mac: String,
    /// Kernel driver.
    pub driver: String,
}

/// Reads the inventory below `root`, which is `/` on a node.
pub fn read(root: &Path) -> Result<Inventory, InventoryError> {
    let text = |path: &str| {
        let path = root.join(path);
        fs::read_to_string(&path).map_err(|source| InventoryError { path, source })
    };
    // A machine without SMBIOS is still a machine.
    let dmi = |file: &str| {
        let text = text(&format!("sys/class/dmi/id/{file}"));
        text.map(|text| name(&text)).unwrap_or_default()
    };
    let cpu = parse_cpuinfo(&text("proc/cpuinfo")?);
    Ok(Inventory {
        vendor: dmi("sys_vendor"),
        product: dmi("product_name"),
        serial: dmi("product_serial"),
        cpu: cpu.model,
        cores: cpu.n_logical,
        cores_physical: cpu.n_physical,
        is_virtual: cpu.is_virtual,
        runs_guests: cpu.runs_guests,
        memory_bytes: parse_meminfo(&text("proc/meminfo")?),
        nics: nics(&root.join("sys/class/net"))?,
    })
}

/// What `/proc/cpuinfo` tells.
#[derive(Debug, PartialEq, Eq)]
struct Cpu {
    model: String,
    n_logical: u32,
    n_physical: u32,
    is_virtual: bool,
    runs_guests: bool,
}

/// Understands the text of `/proc/cpuinfo`: one block for each logical core.
fn parse_cpuinfo(text: &str) -> Cpu {
    let value = |block: &str, key: &str| {
        let mut fields = block.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.trim() == key).map(|(_, value)| clean(value))
    };
    let count = |blocks: usize| u32::try_from(blocks).unwrap_or(u32::MAX);
    let blocks = text.split("\n\n").filter(|block| value(block, "processor").is_some());
    let blocks: Vec<&str> = blocks.collect();
    let first = blocks.first().copied().unwrap_or_default();
    let core = |block: &&str| Some((value(block, "physical id")?, value(block, "core id")?));
    let physical: Option<BTreeSet<_>> = blocks.iter().map(core).collect();
    let flags = first.lines().filter_map(|line| line.split_once(':'));
    let flags = flags.filter(|(name, _)| name.trim() == "flags");
    let flags: BTreeSet<&str> = flags.flat_map(|(_, words)| words.split_whitespace()).collect();
    Cpu {
        model: value(first, "model name").unwrap_or_default(),
        n_logical: count(blocks.len()),
        n_physical: count(physical.map_or(blocks.len(), |cores| cores.len())),
        is_virtual: flags.contains("hypervisor"),
        runs_guests: flags.contains("vmx") || flags.contains("svm"),
    }
}

/// `MemTotal` in bytes, from the text of `/proc/meminfo`; 0 when it is not there.
fn parse_meminfo(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib.saturating_mul(1024))
}

/// Links that stand for a device; bridges, tunnels and the like have none.
fn nics(class: &Path) -> Result<Vec<Nic>, InventoryError> {
    let failed = |source| InventoryError { path: class.to_owned(), source };
    let mut nics = Vec::new();
    for link in fs::read_dir(class).map_err(failed)? {
        let path = link.map_err(failed)?.path();
        let Ok(driver) = fs::read_link(path.join("device/driver")) else { continue };
        let last = |path: &Path| clean(&path.file_name().unwrap_or_default().to_string_lossy());
        // A card that is pulled while we look has no address any more.
        let mac = fs::read_to_string(path.join("address")).unwrap_or_default();
        nics.push(Nic { name: last(&path), mac: clean(&mac), driver: last(&driver) });
    }
    nics.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nics)
}

/// Makers fill fields that they do not know with a phrase, which is no name.
fn name(text: &str) -> String {
    const PHRASES: [&str; 6] = [
        "to be filled by o.e.m.",
        "default string",
        "system serial number",
        "system product name",
        "system manufacturer",
        "not specified",
    ];
    let name = clean(text);
    if PHRASES.contains(&name.to_lowercase().as_str()) { String::new() } else { name }
}

/// One line of printable text, cut to [`TEXT_MAX`] characters.
fn clean(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect()
}

/// What is left for workloads: all cores, memory without the node's reserve, and the pools.
pub fn capacity(inventory: &Inventory, flash_bytes: u64, disk_bytes: u64) -> Capacity {
    let reserve = (inventory.memory_bytes / 10).max(MEMORY_RESERVE_MIN);
    Capacity {
        cru_milli: u64::from(inventory.cores) * 1000,
        mru_bytes: inventory.memory_bytes.saturating_sub(reserve),
        sru_bytes: flash_bytes,
        hru_bytes: disk_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: &str = include_str!("captured/cpuinfo-guest-2-cores.txt");
    const QEMU: &str = include_str!("captured/cpuinfo-qemu-1-core.txt");

    fn machine(memory_bytes: u64) -> Inventory {
        Inventory { cores: 8, memory_bytes, ..Inventory::default() }
    }

    #[test]
    fn procfs_of_two_machines_is_understood() {
        let guest = parse_cpuinfo(GUEST);
        assert_eq!((guest.model.as_str(), guest.n_logical), ("AMD EPYC", 2));
        assert_eq!(guest.n_physical, 2);
        assert!(guest.is_virtual && !guest.runs_guests);
        let qemu = parse_cpuinfo(QEMU);
        assert_eq!((qemu.n_logical, qemu.n_physical), (1, 1));
        assert_eq!(qemu.model, "QEMU TCG CPU version 2.5+");
        assert!(qemu.is_virtual && qemu.runs_guests);
        assert_eq!(parse_meminfo("MemTotal:       16303428 kB\nMemFree: 1 kB\n"), 16_694_710_272);
        assert_eq!(parse_meminfo("nothing"), 0);
        assert_eq!(parse_cpuinfo("nothing").n_logical, 0);
    }

    #[test]
    fn threads_of_one_core_are_one_core_and_without_topology_each_counts() {
        let shared = GUEST.replace("core id\t\t: 1", "core id\t\t: 0");
        assert_eq!((parse_cpuinfo(&shared).n_logical, parse_cpuinfo(&shared).n_physical), (2, 1));
        let flat = GUEST.replace("core id", "unknown");
        assert_eq!((parse_cpuinfo(&flat).n_logical, parse_cpuinfo(&flat).n_physical), (2, 2));
    }

    #[test]
    fn what_the_firmware_does_not_know_stays_empty() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/cpuinfo", GUEST);
        write("proc/meminfo", "MemTotal: 1024 kB\n");
        write("sys/class/dmi/id/sys_vendor", "Supermicro\n");
        write("sys/class/dmi/id/product_name", "To Be Filled By O.E.M.\n");
        fs::create_dir_all(root.path().join("sys/class/net")).unwrap();
        let inventory = read(root.path()).unwrap();
        assert_eq!(inventory.vendor, "Supermicro");
        assert_eq!((inventory.product.as_str(), inventory.serial.as_str()), ("", ""));
        let text = serde_json::to_string(&inventory).unwrap();
        assert_eq!(serde_json::from_str::<Inventory>(&text).unwrap(), inventory);
        fs::remove_file(root.path().join("proc/meminfo")).unwrap();
        assert!(read(root.path()).unwrap_err().to_string().ends_with("proc/meminfo"));
    }

    #[test]
    fn links_without_a_device_are_no_cards() {
        let root = tempfile::tempdir().unwrap();
        let class = root.path().join("sys/class/net");
        for name in ["eth0", "br0"] {
            fs::create_dir_all(class.join(name)).unwrap();
            fs::write(class.join(name).join("address"), "52:54:00:12:34:56\n").unwrap();
        }
        fs::create_dir_all(class.join("eth0/device")).unwrap();
        std::os::unix::fs::symlink("../drivers/virtio_net", class.join("eth0/device/driver"))
            .unwrap();
        let found = nics(&class).unwrap();
        let (name, mac) = ("eth0".to_owned(), "52:54:00:12:34:56".to_owned());
        assert_eq!(found, [Nic { name, mac, driver: "virtio_net".to_owned() }]);
    }

    #[test]
    fn the_node_keeps_memory_for_itself() {
        assert_eq!(capacity(&machine(100 << 30), 1, 2).mru_bytes, 90 << 30);
        assert_eq!(capacity(&machine(1 << 30), 1, 2).mru_bytes, 768 << 20);
        assert_eq!(capacity(&machine(1 << 20), 1, 2).mru_bytes, 0);
        let all = capacity(&machine(1 << 30), 1, 2);
        assert_eq!((all.cru_milli, all.sru_bytes, all.hru_bytes), (8000, 1, 2));
    }
}

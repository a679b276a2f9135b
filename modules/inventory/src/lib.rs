//! What the machine is made of, as sysfs and procfs tell it, and the capacity that follows.
//!
//! Disks are storaged's and come as parameters. Nothing here is proven: it is what the node says
//! of itself. Reading is apart from understanding, so that the texts of real machines are tests.

#![forbid(unsafe_code)]

use contract::Capacity;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Memory that the node keeps for itself: a tenth, and at least this many bytes.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Maker of the machine (SMBIOS); empty when the firmware does not say.
    pub vendor: String,
    /// Its product name (SMBIOS).
    pub product: String,
    /// CPU model.
    pub cpu: String,
    /// Logical cores that are online.
    pub cores: u32,
    /// Memory that the kernel manages, in bytes.
    pub memory_bytes: u64,
    /// Physical network cards, sorted by name.
    pub nics: Vec<Nic>,
}

/// A physical network card.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    let (cpu, cores) = parse_cpuinfo(&text("proc/cpuinfo")?);
    Ok(Inventory {
        // A machine without SMBIOS is still a machine.
        vendor: text("sys/class/dmi/id/sys_vendor").map(|text| clean(&text)).unwrap_or_default(),
        product: text("sys/class/dmi/id/product_name").map(|text| clean(&text)).unwrap_or_default(),
        cpu,
        cores,
        memory_bytes: parse_meminfo(&text("proc/meminfo")?),
        nics: nics(&root.join("sys/class/net"))?,
    })
}

/// Model name and number of logical cores, from the text of `/proc/cpuinfo`.
fn parse_cpuinfo(text: &str) -> (String, u32) {
    let mut model = String::new();
    let mut cores = 0;
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        match key.trim() {
            "processor" => cores += 1,
            "model name" if model.is_empty() => model = clean(value),
            _ => {}
        }
    }
    (model, cores)
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

    const CPUINFO: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) \
        Xeon(R) CPU E5-2670 0 @ 2.60GHz\nflags\t\t: fpu vme\n\nprocessor\t: 1\nmodel name\t: \
        Intel(R) Xeon(R) CPU E5-2670 0 @ 2.60GHz\n";

    fn machine(memory_bytes: u64) -> Inventory {
        Inventory {
            vendor: String::new(),
            product: String::new(),
            cpu: String::new(),
            cores: 8,
            memory_bytes,
            nics: Vec::new(),
        }
    }

    #[test]
    fn procfs_is_understood() {
        let (model, cores) = parse_cpuinfo(CPUINFO);
        assert_eq!((model.as_str(), cores), ("Intel(R) Xeon(R) CPU E5-2670 0 @ 2.60GHz", 2));
        assert_eq!(parse_meminfo("MemTotal:       16303428 kB\nMemFree: 1 kB\n"), 16_694_710_272);
        assert_eq!(parse_meminfo("nothing"), 0);
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

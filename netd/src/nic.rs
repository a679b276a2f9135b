//! Which links are hardware, and what drives them: read from sysfs.

use std::{collections::BTreeMap, fs, io, path::Path};

/// Name of every physical link, with the name of its driver. Refuses to guess: a link without a
/// device behind it is not physical.
pub(crate) fn physical(root: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut links = BTreeMap::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let device = entry.path().join("device");
        // A link that is unplugged right now is gone in the next reading.
        if let (true, Ok(name)) = (device.exists(), entry.file_name().into_string()) {
            links.insert(name, driver(&device));
        }
    }
    Ok(links)
}

fn driver(device: &Path) -> String {
    let target = fs::read_link(device.join("driver")).ok();
    let name = target.as_deref().and_then(Path::file_name);
    name.map_or_else(|| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_links_with_a_device_are_physical() {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path();
        for directory in ["net/lo", "net/zc2", "net/eth0/device", "net/usb0/device"] {
            fs::create_dir_all(sys.join(directory)).unwrap();
        }
        fs::write(sys.join("net/bonding_masters"), "").unwrap();
        symlink("../../../bus/virtio/drivers/virtio_net", sys.join("net/eth0/device/driver"))
            .unwrap();
        let links = physical(&sys.join("net")).unwrap();
        let pairs: Vec<_> = links.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(pairs, [("eth0", "virtio_net"), ("usb0", "unknown")]);
    }
}

//! Drivers: a module for each device that the machine has, and for what the kernel asks for.
//!
//! This runs beside PID 1, as the service `devices` and as the kernel's `modprobe`: a driver that
//! takes half a minute for its disks must not hold the supervisor.

use init::devices::{
    database::{Database, Soft},
    uevent::{News, Uevents},
};
use node_api::paths;
use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
    system::finit_module,
};
use std::{
    collections::BTreeSet,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

/// What every pool needs: nothing is ready before it. Checksums that our pools do not have are left
/// out. The kernel takes its slow versions of hashes without asking for the fast ones, so these come
/// before the first pool is mounted and the first file is verified. The hash of files comes last:
/// where instructions are emulated it is the slow one, and the kernel checks modules with it.
const POOLS: &[&str] = &["crc32c_intel", "btrfs", "sha256_ssse3"];

/// Loaded when the services are up, so that the first workload does not wait for them. Before that
/// the kernel asks for what is missing.
const LATER: &[&str] = &[
    // Until it is there, nobody hears the power button.
    "evdev",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_masq",
    "overlay",
    "erofs",
    "veth",
    "bridge",
    "nft_nat",
    "nft_reject_inet",
    "nft_limit",
    "tun",
    "wireguard",
];

/// Services that have a pool on a quick disk are up by then; if not, they may need another device.
const QUICK_LIMIT: Duration = Duration::from_secs(2);
/// How often it is looked meanwhile.
const LOOK_QUICK: Duration = Duration::from_millis(100);
/// How often it is looked whether all services are up.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Services that are not up by then will not be disturbed by what is loaded later.
const SERVICES_LIMIT: Duration = Duration::from_mins(1);

/// Where the kernel shows its buses.
const BUSES: &str = "/sys/bus";
/// The bus of the processors. Their drivers are no devices that anything waits for.
const PROCESSOR: &str = "cpu";

/// A bus under a bus under a bus: each pass finds the devices that the former one's drivers made.
const PASSES_MAX: usize = 8;

/// Where the kernel looks for its modules.
pub(crate) fn modules_directory() -> PathBuf {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    Path::new("/lib/modules").join(release)
}

/// The service: every device that is there, then every device that comes, for ever.
///
/// It is ready when the disks that answer at once are there, and what reads them. The other devices
/// follow; storaged knows when they are complete by [`paths::DRIVERS_LOADED`].
pub(crate) fn serve() -> ExitCode {
    daemon::run("devices", || -> Result<(), Box<dyn Error + Send + Sync>> {
        // Before the first look, so that no device comes unseen between the two.
        let mut uevents = Uevents::open()?;
        let mut loader = Loader::new(&modules_directory())?;
        let n_quick = loader.coldplug(Path::new(BUSES), |_| true, is_quick_disk);
        loader.load_names(POOLS, Soft::Skip);
        daemon::ready()?;

        // A pool on a quick disk is often all that the services wait for.
        if n_quick > 0 {
            await_services(Instant::now() + QUICK_LIMIT);
        }
        loader.coldplug(Path::new(BUSES), |bus| bus != PROCESSOR, |_| true);
        fs::write(paths::DRIVERS_LOADED, "")?;
        let patience = Instant::now() + SERVICES_LIMIT;
        let mut work = Work::AwaitServices;
        loop {
            let wait = match work {
                Work::AwaitServices => Some(LOOK_INTERVAL),
                Work::Later(_) | Work::Processors => Some(Duration::ZERO),
                Work::None => None,
            };
            match uevents.next(wait)? {
                News::Modalias(alias) => loader.load_alias(&alias),
                News::Lost => {
                    loader.coldplug(Path::new(BUSES), |_| true, |_| true);
                }
                News::Other => {}
                News::Quiet => {
                    let is_time = Path::new(paths::ALL_READY).exists() || Instant::now() > patience;
                    work = work.go_on(&mut loader, is_time);
                }
            }
        }
    })
}

/// What is left to do when no device comes.
#[derive(Clone, Copy)]
enum Work {
    /// The processor belongs to the services that start.
    AwaitServices,
    /// The names of [`LATER`] from this one on.
    Later(usize),
    /// What the processor itself has drivers for: ciphers, virtual machines, sensors.
    Processors,
    /// Nothing, until the next device.
    None,
}

impl Work {
    fn go_on(self, loader: &mut Loader, is_time: bool) -> Self {
        match self {
            Self::AwaitServices if is_time => Self::Later(0),
            Self::Later(number) => match LATER.get(number) {
                Some(name) => {
                    loader.load_names(&[name], Soft::Load);
                    Self::Later(number + 1)
                }
                None => Self::Processors,
            },
            Self::Processors => {
                loader.coldplug(Path::new(BUSES), |bus| bus == PROCESSOR, |_| true);
                Self::None
            }
            Self::AwaitServices | Self::None => self,
        }
    }
}

/// The kernel's `modprobe`: loads what has this name or alias.
pub(crate) fn modprobe(name: &str) -> ExitCode {
    match Loader::new(&modules_directory()) {
        Ok(mut loader) => {
            loader.load_names(&[name], Soft::Load);
            ExitCode::SUCCESS
        }
        // The kernel has closed our stderr; the one who wanted the module tells.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Loads modules, each once.
struct Loader {
    directory: PathBuf,
    database: Database<'static>,
    done: BTreeSet<String>,
}

impl Loader {
    fn new(directory: &Path) -> io::Result<Self> {
        let database = Database::load(directory)?;
        Ok(Self { directory: directory.to_owned(), database, done: BTreeSet::new() })
    }

    fn load_names(&mut self, names: &[&str], soft: Soft) {
        for name in names {
            let modules = self.database.resolve(name);
            self.load(&modules, soft);
        }
    }

    fn load_alias(&mut self, alias: &str) {
        let modules = self.database.by_alias(alias);
        self.load(&modules, Soft::Load);
    }

    fn load(&mut self, modules: &[String], soft: Soft) {
        for step in self.database.plan(modules, soft, &self.done) {
            // Somebody else may have loaded it. The kernel would say so too, but only after it has
            // unpacked the file and checked its signature.
            if is_live(&step.name) {
                self.done.insert(step.name);
                continue;
            }
            let path = self.directory.join(&step.path);
            match insert(&path) {
                // On error: loaded already, or the machine has nothing for it.
                Ok(()) | Err(Errno::EXIST | Errno::NODEV) => {}
                Err(error) => daemon::warn!("loading {}: {error}", step.name),
            }
            self.done.insert(step.name);
        }
    }

    /// Loads the drivers of the devices that are `wanted` on the buses that are wanted. Tells how many
    /// kinds of devices there are.
    fn coldplug(
        &mut self,
        buses: &Path,
        wanted_bus: impl Fn(&str) -> bool,
        wanted: impl Fn(&str) -> bool,
    ) -> usize {
        let mut seen = BTreeSet::new();
        for _ in 0..PASSES_MAX {
            let fresh: Vec<_> = modaliases(buses, &wanted_bus)
                .into_iter()
                .filter(|it| wanted(it) && seen.insert(it.clone()))
                .collect();
            if fresh.is_empty() {
                break;
            }
            for alias in fresh {
                self.load_alias(&alias);
            }
        }
        seen.len()
    }
}

/// Whether a device is a disk that answers as soon as it has its driver: a virtio block device or an
/// NVMe controller, by its class.
fn is_quick_disk(alias: &str) -> bool {
    alias.starts_with("virtio:d00000002v")
        || (alias.starts_with("pci:") && alias.contains("bc01sc08"))
}

/// Whether a module is loaded, and has begun its work.
fn is_live(name: &str) -> bool {
    fs::read_to_string(format!("/sys/module/{name}/initstate")).is_ok_and(|it| it == "live\n")
}

/// Waits until all services are up, at most until `limit`: drivers take the processor from them.
fn await_services(limit: Instant) {
    while !Path::new(paths::ALL_READY).exists() {
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left.min(LOOK_QUICK));
    }
}

fn insert(path: &Path) -> Result<(), Errno> {
    /// linux/module.h: the kernel unpacks the file itself.
    const MODULE_INIT_COMPRESSED_FILE: i32 = 4;
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let is_packed = path.extension().is_some_and(|extension| extension != "ko");
    let flags = if is_packed { MODULE_INIT_COMPRESSED_FILE } else { 0 };
    finit_module(&file, c"", flags)
}

/// What the devices of the machine say they are, without repetition.
fn modaliases(buses: &Path, wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let names = |path: &Path| -> Vec<PathBuf> {
        // A bus that goes while we look has no devices.
        let entries = fs::read_dir(path).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    };
    let bus_name =
        |bus: &PathBuf| bus.file_name().is_some_and(|name| wanted(&name.to_string_lossy()));
    let devices =
        names(buses).into_iter().filter(bus_name).flat_map(|bus| names(&bus.join("devices")));
    let aliases = devices.filter_map(|device| fs::read_to_string(device.join("modalias")).ok());
    aliases.map(|alias| alias.trim_end().to_owned()).filter(|alias| !alias.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_that_answer_at_once_are_known_by_their_class() {
        let nvme = "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02";
        let ahci = "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01";
        let network = "virtio:d00000001v00001AF4";
        assert!(is_quick_disk(nvme) && is_quick_disk("virtio:d00000002v00001AF4"));
        assert!(!is_quick_disk(ahci) && !is_quick_disk(network) && !is_quick_disk(""));
    }

    #[test]
    fn devices_are_found_once_on_the_buses_that_are_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for (device, alias) in [
            ("pci/devices/0000:00:01.0", "pci:v00001AF4d00001042\n"),
            ("pci/devices/0000:00:02.0", "pci:v00001AF4d00001042\n"),
            ("cpu/devices/cpu0", "cpu:type:x86\n"),
            ("usb/devices/1-1", "\n"),
        ] {
            fs::create_dir_all(root.join(device)).unwrap();
            fs::write(root.join(device).join("modalias"), alias).unwrap();
        }
        let found = modaliases(root, |bus| bus != "cpu");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["pci:v00001AF4d00001042"]);
        assert_eq!(modaliases(root, |bus| bus == "cpu").len(), 1);
    }
}

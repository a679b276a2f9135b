//! Drivers: a module for each device that the machine has, and for what the kernel asks for.
//!
//! This runs beside PID 1, as the service `devices` and as the kernel's `modprobe`: a driver that
//! takes half a minute for its disks must not hold the supervisor.

mod database;
mod uevent;

use crate::resume;
use database::Database;
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
use uevent::{News, Uevents};

/// Needed before the first file is verified or the first pool is mounted: the kernel takes its slow
/// versions without asking for these.
const FIRST: &[&str] = &["crc32c_intel", "sha256_ssse3"];

/// Needed by every node while its services start: loaded beside them, so that the kernel rarely has
/// to ask.
const SOON: &[&str] = &["btrfs", "nf_tables", "nft_chain_nat", "nft_ct", "nft_masq"];

/// Loaded when the services are up, so that the first workload does not wait for them. Before that
/// the kernel asks for what is missing.
const LATER: &[&str] = &[
    "evdev",
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

/// How often it is looked whether all services are up.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Services that are not up by then will not be disturbed by what is loaded later.
const SERVICES_LIMIT: Duration = Duration::from_mins(1);

/// A bus under a bus under a bus: each pass finds the devices that the former one's drivers made.
const PASSES_MAX: usize = 8;

/// Where the kernel looks for its modules.
pub(crate) fn modules_directory() -> PathBuf {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    Path::new("/lib/modules").join(release)
}

/// The service: every device that is there, then every device that comes, for ever.
pub(crate) fn serve() -> ExitCode {
    daemon::run("devices", || -> Result<(), Box<dyn Error + Send + Sync>> {
        // Before the first look, so that no device comes unseen between the two.
        let mut uevents = Uevents::open()?;
        let mut loader = Loader::new(&modules_directory())?;
        loader.load_names(FIRST);
        loader.coldplug(Path::new("/sys/bus"), |bus| bus != "cpu");
        daemon::ready()?;

        loader.load_names(SOON);
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
                News::Lost => loader.coldplug(Path::new("/sys/bus"), |_| true),
                News::Other => {}
                News::Quiet => {
                    let is_time =
                        Path::new(resume::ALL_READY).exists() || Instant::now() > patience;
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
                    loader.load_names(&[name]);
                    Self::Later(number + 1)
                }
                None => Self::Processors,
            },
            Self::Processors => {
                loader.coldplug(Path::new("/sys/bus"), |bus| bus == "cpu");
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
            loader.load_names(&[name]);
            ExitCode::SUCCESS
        }
        // The kernel has closed our stderr; the one who wanted the module tells.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Loads modules, each once.
struct Loader {
    directory: PathBuf,
    database: Database,
    done: BTreeSet<String>,
}

impl Loader {
    fn new(directory: &Path) -> io::Result<Self> {
        let database = Database::load(directory)?;
        Ok(Self { directory: directory.to_owned(), database, done: BTreeSet::new() })
    }

    fn load_names(&mut self, names: &[&str]) {
        for name in names {
            let modules = self.database.resolve(name);
            self.load(&modules);
        }
    }

    fn load_alias(&mut self, alias: &str) {
        let modules = self.database.by_alias(alias);
        self.load(&modules);
    }

    fn load(&mut self, modules: &[String]) {
        for step in self.database.plan(modules, &self.done) {
            let path = self.directory.join(&step.path);
            match insert(&path) {
                // On error: loaded already, or the machine has nothing for it.
                Ok(()) | Err(Errno::EXIST | Errno::NODEV) => {}
                Err(error) => daemon::warn!("loading {}: {error}", step.name),
            }
            self.done.insert(step.name);
        }
    }

    /// Loads the drivers of all devices on the buses that are `wanted`.
    fn coldplug(&mut self, buses: &Path, wanted: impl Fn(&str) -> bool) {
        let mut seen = BTreeSet::new();
        for _ in 0..PASSES_MAX {
            let fresh: Vec<_> = modaliases(buses, &wanted)
                .into_iter()
                .filter(|it| seen.insert(it.clone()))
                .collect();
            if fresh.is_empty() {
                break;
            }
            for alias in fresh {
                self.load_alias(&alias);
            }
        }
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

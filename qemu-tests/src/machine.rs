//! A node in QEMU: how it is put together, started, watched, unplugged.

use crate::{
    media::{FAST, Image, Medium},
    serial::Serial,
    time_server::TimeServer,
};
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Where a guest finds the registry, whatever port it has on the host.
pub const REGISTRY_URL: &str = "http://10.0.2.100:8000";
/// A node must be ready within this time on a slow, busy machine under emulation.
pub const BOOT: Duration = Duration::from_secs(240);
/// For an answer of QEMU, and for a guest to let a device go.
const ANSWER: Duration = Duration::from_secs(120);

/// A machine that is not plugged in yet.
#[derive(Debug, Clone)]
pub struct Machine {
    /// For file names.
    pub name: String,
    /// How it boots.
    pub medium: Medium,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// More words for the kernel command line. Direct boot only: other media carry their own.
    pub cmdline: String,
    /// Disks with their serial numbers.
    pub disks: Vec<(PathBuf, String)>,
    /// The registry's port on the loopback address; `None`: the guest reaches nothing.
    pub registry_port: Option<u16>,
    /// Addresses and ports of the guest's network, as in `10.0.2.101:6379`, that lead to ports of the
    /// loopback address.
    pub doors: Vec<(&'static str, u16)>,
    /// Ports of the loopback address that lead to ports of the node.
    pub forwards: Vec<(u16, u16)>,
    /// What the hardware clock shows, for example `2011-11-11`; `None`: the right time.
    pub clock: Option<String>,
    /// Whether a network card is plugged in.
    pub network: Network,
    /// A time server on the node's network.
    pub time_server: Option<TimeServer>,
    /// An archive that is unpacked over the initramfs, for tests that need a saboteur inside.
    pub overlay: Option<PathBuf>,
    /// Further arguments for QEMU.
    pub arguments: Vec<String>,
}

/// What a machine's network card leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// QEMU's own network with DHCP.
    User,
    /// A cable with nobody at the other end: no DHCP answer ever.
    Silent,
}

/// A disk in a slot that it can be pulled out of.
#[derive(Debug, Clone)]
pub struct Plug {
    /// Name of the slot.
    pub slot: &'static str,
    /// QEMU's name of the controller: `nvme`, `virtio-blk-pci`.
    pub driver: &'static str,
    /// The disk's file.
    pub disk: PathBuf,
}

impl Plug {
    fn device(&self) -> serde_json::Value {
        let Self { slot, driver, .. } = self;
        serde_json::json!({
            "driver": driver,
            "id": format!("in-{slot}"),
            "bus": slot,
            "drive": format!("disk-{slot}"),
            "serial": slot,
        })
    }
}

/// A running machine. Unplugged when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Its console.
    pub serial: Serial,
    qmp: PathBuf,
    /// Its second serial line, for a saboteur.
    pub back_line: PathBuf,
    started: Instant,
}

impl Machine {
    /// A machine with 1 GiB of memory that boots directly.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            medium: Medium::Direct,
            memory_mib: 1024,
            cmdline: String::new(),
            disks: Vec::new(),
            registry_port: None,
            doors: Vec::new(),
            forwards: Vec::new(),
            clock: None,
            network: Network::User,
            time_server: None,
            overlay: None,
            arguments: Vec::new(),
        }
    }

    /// Adds a disk that can be pulled out of its slot while the machine runs; as NVMe or virtio.
    pub fn add_pluggable(&mut self, plug: &Plug) -> Result<()> {
        let Plug { slot, disk, .. } = plug;
        // As for the other disks: a flush need not reach the host's disk.
        let node = serde_json::json!({
            "driver": "raw",
            "node-name": format!("disk-{slot}"),
            "cache": {"no-flush": true},
            "file": {"driver": "file", "filename": disk},
        });
        let port = format!("pcie-root-port,id={slot},chassis={}", self.arguments.len());
        let arguments = [
            "-blockdev",
            &node.to_string(),
            "-device",
            &port,
            "-device",
            &plug.device().to_string(),
        ];
        self.arguments.extend(arguments.map(str::to_owned));
        Ok(())
    }

    /// Plugs it in. Files of this run are written to `directory`.
    pub fn start(&self, image: &Image, directory: &Path) -> Result<Running> {
        fs::create_dir_all(directory)?;
        let qmp = directory.join(format!("{}.qmp", self.name));
        let back_line = directory.join(format!("{}.back", self.name));
        for stale in [&qmp, &back_line] {
            if stale.exists() {
                fs::remove_file(stale)?;
            }
        }
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-accel", "tcg", "-machine", "q35", "-cpu", "max", "-smp", "1"])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-m", &self.memory_mib.to_string()])
            .args(["-serial", "stdio"])
            .args(["-serial", &format!("unix:{},server=on,wait=off", back_line.display())])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", qmp.display())])
            .args(["-device", "i6300esb"]);
        if let Some(clock) = &self.clock {
            qemu.args(["-rtc", &format!("base={clock}")]);
        }
        self.medium(&mut qemu, image, directory)?;
        for (number, (path, serial)) in self.disks.iter().enumerate() {
            // unsafe: a guest's flush need not reach the host's disk; a killed QEMU loses nothing
            // that it was told, because the host's page cache survives it.
            let drive =
                format!("file={},if=none,id=disk{number},format=raw,cache=unsafe", path.display());
            let device = format!("virtio-blk-pci,drive=disk{number},serial={serial}");
            qemu.args(["-drive", &drive, "-device", &device]);
        }
        self.network(&mut qemu)?;
        qemu.args(&self.arguments);
        qemu.stdin(Stdio::null()).stdout(Stdio::piped());
        let errors = fs::File::create(directory.join(format!("{}.qemu", self.name)))?;
        qemu.stderr(errors);
        let mut child = qemu.spawn().context("starting qemu-system-x86_64")?;
        let console = child.stdout.take().context("QEMU has no console")?;
        let log = directory.join(format!("{}.console", self.name));
        let serial = Serial::record(console, &log)?;
        Ok(Running { child, serial, qmp, back_line, started: Instant::now() })
    }

    fn medium(&self, qemu: &mut Command, image: &Image, directory: &Path) -> Result<()> {
        if matches!(self.medium, Medium::Uki | Medium::UsbUefi | Medium::IpxeUefi) {
            // UEFI keeps its variables in a file of its own: always a fresh one.
            let variables = directory.join(format!("{}.vars", self.name));
            fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables)
                .context("copying OVMF's variables")?;
            let code = "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd";
            let variables = format!("if=pflash,format=raw,file={}", variables.display());
            qemu.args(["-drive", code, "-drive", &variables]);
        }
        match self.medium {
            Medium::Direct | Medium::Shipped => {
                let (kernel, initramfs) = match self.medium {
                    Medium::Shipped => ("vmlinuz", "initramfs.img"),
                    _ => ("vmlinux", "initramfs.cpio"),
                };
                let initramfs = image.file(initramfs);
                let initramfs = match &self.overlay {
                    None => initramfs,
                    Some(overlay) => {
                        joined(&initramfs, overlay, &directory.join(format!("{}.cpio", self.name)))?
                    }
                };
                let cmdline = format!("{} {FAST} {}", image.cmdline()?, self.cmdline);
                qemu.arg("-kernel").arg(image.file(kernel));
                qemu.arg("-initrd").arg(initramfs).args(["-append", &cmdline]);
            }
            Medium::Uki => {
                // A directory as a FAT disk: what a firmware finds on an EFI system partition.
                let esp = directory.join(format!("{}.esp", self.name));
                let boot = esp.join("EFI/BOOT");
                fs::create_dir_all(&boot)?;
                fs::copy(image.file("zero-os.efi"), boot.join("BOOTX64.EFI"))?;
                let drive =
                    format!("file=fat:{},if=none,id=esp,format=raw,readonly=on", esp.display());
                qemu.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=esp,bootindex=1"]);
            }
            Medium::UsbBios | Medium::UsbUefi => {
                let drive = format!(
                    "file={},if=none,id=usb,format=raw,snapshot=on",
                    image.file("zero-os.img").display()
                );
                qemu.args(["-device", "qemu-xhci", "-drive", &drive]);
                qemu.args(["-device", "usb-storage,drive=usb,bootindex=1,removable=on"]);
            }
            Medium::IpxeBios | Medium::IpxeUefi => {}
        }
        Ok(())
    }

    fn network(&self, qemu: &mut Command) -> Result<()> {
        let mut card = "virtio-net-pci,netdev=net0".to_owned();
        let mut net = match self.network {
            Network::User => "user,id=net0,restrict=on".to_owned(),
            Network::Silent => "hubport,id=net0,hubid=0".to_owned(),
        };
        let registry = self.registry_port.map(|port| ("10.0.2.100:8000", port));
        for (address, port) in registry.iter().chain(&self.doors) {
            let relay = relay_program()?;
            net += &format!(",guestfwd=tcp:{address}-cmd:{} {port}", relay.display());
        }
        for (host, guest) in &self.forwards {
            net += &format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}");
        }
        if matches!(self.medium, Medium::IpxeBios | Medium::IpxeUefi) {
            let image = Image::find()?;
            net += &format!(",tftp={},bootfile=boot.ipxe", image.directory.display());
            card += ",bootindex=1";
        } else {
            // Without its boot ROM the card costs no time in the firmware.
            card += ",romfile=";
        }
        qemu.args(["-netdev", &net]);
        if let Some(server) = &self.time_server {
            // A hub with three plugs: the card, QEMU's network, the server's cable.
            let cable = format!(
                "dgram,id=cable,local.type=unix,local.path={},remote.type=unix,remote.path={}",
                server.machine.display(),
                server.own.display()
            );
            qemu.args(["-netdev", &cable, "-netdev", "hubport,id=hub0,hubid=1"]);
            qemu.args(["-netdev", "hubport,id=hub1,hubid=1,netdev=net0"]);
            qemu.args(["-netdev", "hubport,id=hub2,hubid=1,netdev=cable"]);
            card = card.replace("netdev=net0", "netdev=hub0");
        }
        qemu.args(["-device", &card]);
        Ok(())
    }
}

/// The program that QEMU runs for each connection of a guest to the registry.
fn relay_program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the own program")?;
    let found = own.ancestors().skip(1).take(3).map(|directory| directory.join("relay"));
    found
        .into_iter()
        .find(|path| path.exists())
        .context("the relay is not built: `cargo build -p qemu-tests --bins`")
}

/// The initramfs with an archive behind it, whose files replace those of the same name.
fn joined(initramfs: &Path, overlay: &Path, out: &Path) -> Result<PathBuf> {
    let mut bytes = fs::read(initramfs)?;
    // The kernel expects the next archive at a multiple of four.
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(fs::read(overlay)?);
    fs::write(out, bytes)?;
    Ok(out.to_owned())
}

impl Running {
    /// Waits until the node serves.
    pub fn wait_ready(&self) -> Result<()> {
        self.serial.wait("zos: all services ready", BOOT).map(drop)
    }

    /// Time since it was plugged in.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Processor time that the machine has taken on the host: on a busy host it says more than the
    /// clock on the wall.
    pub fn processor_time(&self) -> Result<Duration> {
        /// What `proc_pid_stat(5)` counts in, on every kernel for this processor.
        const TICK_MS: u64 = 10;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in brackets may contain anything; after it, the user time is the twelfth word.
        let words = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
        let ticks: u64 = words.skip(11).take(2).map_while(|word| word.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * TICK_MS))
    }

    /// Pulls the plug.
    pub fn power_cut(mut self) -> Serial {
        self.end();
        self.serial.clone()
    }

    /// Presses the power button, and waits until the machine is off.
    pub fn power_button(mut self, limit: Duration) -> Result<Serial> {
        self.command("system_powerdown")?;
        self.wait_off(limit)?;
        Ok(self.serial.clone())
    }

    /// Waits until the machine ends, however long that takes.
    pub fn wait(&mut self) -> Result<()> {
        self.child.wait().map(drop).context("waiting for the machine")
    }

    /// Waits until the machine has switched itself off.
    pub fn wait_off(&mut self, limit: Duration) -> Result<()> {
        let child = &mut self.child;
        crate::wait::until("the machine is off", limit, || Ok(child.try_wait()?)).map(drop)
    }

    /// Sends a command without arguments over QMP.
    pub fn command(&self, command: &str) -> Result<()> {
        self.qmp(&format!("{{\"execute\":\"{command}\"}}"))
    }

    /// Pulls a disk out of its slot.
    pub fn pull(&self, plug: &Plug) -> Result<()> {
        let id = format!("in-{}", plug.slot);
        let command = serde_json::json!({"execute": "device_del", "arguments": {"id": id}});
        // The guest lets it go, and then QEMU does: only then the slot can be used again.
        self.qmp_until(&command.to_string(), Some(("\"DEVICE_DELETED\"", &format!("\"{id}\""))))
    }

    /// Puts a disk into its slot again.
    pub fn push(&self, plug: &Plug) -> Result<()> {
        let command = serde_json::json!({"execute": "device_add", "arguments": plug.device()});
        self.qmp(&command.to_string())
    }

    /// Sends a QMP command as JSON.
    pub fn qmp(&self, command: &str) -> Result<()> {
        self.qmp_until(command, None)
    }

    /// Sends a QMP command, and waits for an event about a device, which may come before the answer.
    fn qmp_until(&self, command: &str, event: Option<(&str, &str)>) -> Result<()> {
        let mut stream = UnixStream::connect(&self.qmp).context("connecting to QEMU")?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut answers = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let is_event = |line: &str| {
            event.is_none_or(|(name, device)| line.contains(name) && line.contains(device))
        };
        for (request, mut waiting) in
            [("{\"execute\":\"qmp_capabilities\"}", false), (command, event.is_some())]
        {
            writeln!(stream, "{request}")?;
            let mut answered = false;
            while waiting || !answered {
                line.clear();
                if answers.read_line(&mut line)? == 0 {
                    bail!("QEMU has gone");
                }
                if line.contains("\"error\"") {
                    bail!("QEMU answers {line}");
                }
                answered |= line.contains("\"return\"");
                waiting &= !is_event(&line);
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        // It may have ended already; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A disk of so many MiB, all zeros.
pub fn blank_disk(path: &Path, size_mib: u64) -> Result<PathBuf> {
    fs::File::create(path)?.set_len(size_mib << 20)?;
    Ok(path.to_owned())
}

/// A port of the loopback address that is free now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

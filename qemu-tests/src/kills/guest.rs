//! A registry and its witnesses in one machine on a disk that forgets, whose power is cut. The guest's
//! own kernel loses its page cache, the disk what was not flushed (`volatile_disk.rs`), and btrfs
//! brings back what it can.

use super::site::Site;
use crate::{
    archive,
    chance::Chance,
    content,
    farm::program,
    house::{Furniture, Member, WITNESSES, said},
    machine::{BOOT, Machine, Running, free_port},
    media::Image,
    volatile_disk::VolatileDisk,
    wait,
    wire::{self, Line},
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};
use tlog::Policy;

/// A disk for a registry and its witnesses, of which only what is used takes memory.
const DISK_BYTES: u64 = 1 << 30;
/// The power goes after so many writes and flushes at most, or when none comes for so long.
const REQUESTS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(5);
/// So long the machine goes on when its disk takes nothing more.
const WITHOUT_DISK: Duration = Duration::from_secs(1);
/// Where the registry listens in the machine; the witnesses' ports follow.
const PORT: u16 = 7380;

/// What the power cuts took, for those who doubt that anything was lost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Toll {
    pub(super) cuts: u32,
    /// Blocks that had been written and not flushed, and that the disk has, or has not.
    pub(super) blocks_kept: usize,
    pub(super) blocks_lost: usize,
    /// Cuts after which a file that nobody synced was an older one.
    pub(super) forgotten: u32,
}

pub(super) struct Guest {
    machine: Machine,
    image: Image,
    directory: PathBuf,
    policy: Policy,
    disk: VolatileDisk,
    /// Of this machine: the registry's and the witnesses'.
    ports: Vec<(Member, u16)>,
    running: Option<Running>,
    /// What the guest has written last without syncing it.
    control: u64,
    pub(super) toll: Toll,
}

impl Guest {
    pub(super) fn start(directory: &Path) -> Result<Self> {
        let image = Image::find()?;
        let house = directory.join("house");
        fs::create_dir(&house)?;
        let anywhere = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let inside = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let policy = Furniture::make(&house, None, |number| {
            let port = guest_port(Member::Witness(number));
            (anywhere(port), inside(port))
        })?
        .policy;
        let content = directory.join("disk");
        fs::File::create(&content)?.set_len(DISK_BYTES)?;
        said(Command::new("mkfs.btrfs").args(["-q", "--rootdir"]).arg(&house).arg(&content))
            .context("making the disk's file system")?;
        let disk = VolatileDisk::new(&content, &directory.join("disk.socket"))?;
        let mut machine = Machine::new("registry");
        machine.overlay = Some(overlay(directory)?);
        machine.cmdline += "rdinit=/bin/registry.sh";
        let ports =
            Member::all().map(|member| Ok((member, free_port()?))).collect::<Result<_>>()?;
        let mut guest = Self {
            machine,
            image,
            directory: directory.to_owned(),
            policy,
            disk,
            ports,
            running: None,
            control: 0,
            toll: Toll::default(),
        };
        guest.serve()?;
        Ok(guest)
    }

    fn boot(&mut self) -> Result<&Running> {
        let mut machine = self.machine.clone();
        machine.arguments.extend(self.disk.plug()?);
        Ok(self.running.insert(machine.start(&self.image, &self.directory)?))
    }

    /// Waits for what the guest says, or for what has gone wrong there.
    fn hears(&self, wanted: &str, times: usize) -> Result<()> {
        let serial = &self.running.as_ref().context("no machine runs")?.serial;
        let heard = wait::until(wanted, BOOT, || {
            let lines = serial.lines();
            let count = lines.iter().filter(|line| line.contains(wanted)).count();
            let is_worse = lines.iter().any(|line| is_bad(line));
            Ok((count >= times || is_worse).then_some(!is_worse))
        });
        let ended = || format!("the console ends with: {}", last(&serial.lines()));
        ensure!(heard.with_context(ended)?, "{}", ended());
        Ok(())
    }

    fn serve(&mut self) -> Result<()> {
        self.boot()?;
        self.hears("registryd: listening on", 1)?;
        self.hears("witnessd: ", WITNESSES)?;
        self.compare_control()?;
        let running = self.running.as_ref().context("no machine runs")?;
        for (member, port) in &self.ports {
            // Only now, so that nobody waits in vain before.
            let line = format!("hostfwd_add net0 tcp:127.0.0.1:{port}-:{}", guest_port(*member));
            let arguments = serde_json::json!({"command-line": line});
            let command = serde_json::json!({
                "execute": "human-monitor-command", "arguments": arguments,
            });
            running.qmp(&command.to_string())?;
        }
        for (member, _) in &self.ports {
            let address = self.address(*member);
            wait::until("an answer of the guest", BOOT, || {
                let asked =
                    Line::open(address).and_then(|mut line| line.ask(&wire::get("/nothing", None)));
                Ok(asked.ok().filter(|answer| answer.status == 404))
            })?;
        }
        Ok(())
    }

    /// What the guest found of the file that nobody syncs, and what it had written.
    fn compare_control(&mut self) -> Result<()> {
        let lines = self.running.as_ref().context("no machine runs")?.serial.lines();
        let found = numbers(&lines, "guest: control was ").next();
        let found = found.context("the guest has not looked for its control")?;
        self.toll.forgotten += u32::from(found < self.control);
        Ok(())
    }

    /// The plug is pulled between two writes or flushes of the disk. The machine goes on for a moment
    /// without it: whoever acknowledges what no flush has covered is found out.
    fn cut(&mut self, chance: &Chance) -> Result<()> {
        self.disk.freeze_after(chance.one_of(REQUESTS));
        let deadline = Instant::now() + PATIENCE;
        while !self.disk.is_frozen() && Instant::now() < deadline {
            thread::park_timeout(PAUSE);
        }
        self.running.as_ref().context("no machine runs")?.serial.idle(WITHOUT_DISK);
        let serial = self.running.take().context("no machine runs")?.power_cut();
        let (kept, lost) = self.disk.cut(chance)?;
        let lines = serial.lines();
        if let Some(line) = lines.iter().find(|line| is_bad(line)) {
            bail!("before the power was cut, the guest said {line:?}: {}", last(&lines));
        }
        self.control = numbers(&lines, "guest: control is ").last().unwrap_or_default();
        self.toll.cuts += 1;
        self.toll.blocks_kept += kept;
        self.toll.blocks_lost += lost;
        Ok(())
    }
}

fn is_bad(line: &str) -> bool {
    ["guest: failed", "Kernel panic", "BTRFS error", "BTRFS critical"]
        .iter()
        .any(|bad| line.contains(bad))
}

fn last(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(12)..].join(" | ")
}

fn numbers<'a>(lines: &'a [String], before: &'a str) -> impl Iterator<Item = u64> + 'a {
    let number = move |line: &String| {
        line.split_once(before).and_then(|(_, number)| number.trim().parse().ok())
    };
    lines.iter().filter_map(number)
}

fn guest_port(member: Member) -> u16 {
    match member {
        Member::Registry => PORT,
        Member::Witness(number) => {
            let number = u16::try_from(number).expect("there are few witnesses");
            PORT + 1 + number
        }
    }
}

/// The programs of this machine with their libraries, busybox, and the script that starts them.
fn overlay(directory: &Path) -> Result<PathBuf> {
    let package = content::unpack_package("busybox-static")?;
    let busybox = ["usr/bin/busybox", "bin/busybox"];
    let busybox = busybox.iter().find_map(|name| fs::read(package.path().join(name)).ok());
    let script = crate::own_directory().join("guest/registry.sh");
    let mut files = vec![
        ("usr/bin/busybox".to_owned(), busybox.context("the package has no busybox")?),
        ("usr/bin/registry.sh".to_owned(), fs::read(script)?),
    ];
    for name in ["registryd", "witnessd"] {
        let (own, light) = (program(name)?, directory.join(name));
        // What is for debuggers would only be unpacked at each boot.
        said(Command::new("objcopy").arg("--strip-all").arg(&own).arg(&light))?;
        files.push((format!("usr/bin/{name}"), fs::read(light)?));
        for library in content::libraries(&own)? {
            let file = library.file_name().context("a library has a name")?.to_string_lossy();
            files.push((format!("usr/bin/{file}"), fs::read(&library)?));
        }
    }
    files.sort();
    files.dedup();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let path = directory.join("registry.cpio");
    fs::write(&path, archive::programs(&files))?;
    Ok(path)
}

impl Site for Guest {
    fn address(&self, member: Member) -> SocketAddr {
        let port = self.ports.iter().find(|(one, _)| *one == member).map(|(_, port)| *port);
        SocketAddr::from(([127, 0, 0, 1], port.expect("each has a port")))
    }

    fn policy(&self) -> &Policy {
        &self.policy
    }

    fn pace(&self) -> u32 {
        5
    }

    fn strike(&mut self, chance: &Chance) -> Result<String> {
        self.cut(chance)?;
        Ok("the machine".to_owned())
    }

    /// Sometimes the power is cut again while everything comes back.
    fn mend(&mut self, chance: &Chance) -> Result<()> {
        if chance.one_of(4) == 0 {
            self.boot()?;
            self.cut(chance)?;
        }
        self.serve()
    }

    fn finish(&mut self, chance: &Chance) -> Result<()> {
        self.cut(chance)?;
        self.machine.cmdline += " registry.fsck";
        self.boot()?;
        self.hears("guest: checked", 1).context("registryd fsck")?;
        self.compare_control()?;
        let Toll { cuts, forgotten, blocks_lost, .. } = self.toll;
        let is_real = forgotten > 0 || blocks_lost > 0;
        ensure!(is_real, "none of {cuts} power cuts took anything: they were none");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_console_says_is_understood() {
        let lines = [
            "guest: control was 0",
            "guest: control is 1",
            "witnessd: listening",
            "guest: control is 2",
            "guest: control is",
        ];
        let lines = lines.map(str::to_owned);
        let said = |before| numbers(&lines, before).collect::<Vec<_>>();
        assert_eq!(said("guest: control was "), [0]);
        assert_eq!(said("guest: control is "), [1, 2]);
        assert!(!lines.iter().any(|line| is_bad(line)));
        assert!(is_bad("guest: failed: registryd has ended"));
    }
}

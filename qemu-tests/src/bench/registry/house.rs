//! A registry with a log and three witnesses, as real programs on this machine. They end with the
//! value that holds them.

use super::wire::{self, Answer, Line};
use crate::farm::program;
use anyhow::{Context as _, Result, ensure};
use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tlog::{Checkpoint, Policy, PolicyFile};

const ORIGIN: &str = "registry.example/bench";
/// Witnesses, and how many of them have to cosign.
pub(super) const WITNESSES: usize = 3;
pub(super) const QUORUM: usize = 2;
/// In which the kernel counts the processor time of processes.
const TICK: Duration = Duration::from_millis(10);

pub(super) struct House {
    registry: Daemon,
    /// Held, not used: they end with the house.
    _witnesses: Vec<Daemon>,
    policy: Policy,
}

impl House {
    pub(super) fn start(directory: &Path) -> Result<Self> {
        let data = directory.join("registry");
        // The first start makes the database; the log begins while the registry is stopped.
        drop(registryd(&data, None)?);
        let log = said(
            Command::new(program("registryd")?)
                .args(["begin-log", "--origin", ORIGIN, "--data"])
                .arg(&data),
        )?;
        let mut policy = format!("log {log}\n");
        let mut witnesses = Vec::new();
        for number in 1..=WITNESSES {
            let home = directory.join(format!("witness-{number}"));
            fs::create_dir(&home)?;
            let (key, config) = (home.join("key"), home.join("witness.toml"));
            let name = format!("witness.example/{number}");
            let public = said(
                Command::new(program("witnessd")?)
                    .args(["key", "--name", &name, "--out"])
                    .arg(&key),
            )?;
            let text = format!(
                "listen = \"127.0.0.1:0\"\ndata = \"state\"\nkey = \"key\"\n\n\
                 [[log]]\norigin = \"{ORIGIN}\"\nkeys = [\"{log}\"]\n"
            );
            fs::write(&config, text)?;
            let mut command = Command::new(program("witnessd")?);
            let witness = Daemon::start(command.args(["run", "--config"]).arg(&config), &home)?;
            policy += &format!("witness w{number} {public} http://{}\n", witness.address);
            witnesses.push(witness);
        }
        policy += &format!("group all {QUORUM} w1 w2 w3\nquorum all\n");
        let path = directory.join("witnesses.policy");
        fs::write(&path, &policy)?;
        let policy = PolicyFile::read(policy.as_bytes()).context("reading our policy")?.policy;
        let registry = registryd(&data, Some(&path))?;
        Ok(Self { registry, _witnesses: witnesses, policy })
    }

    /// Where the registry is.
    pub(super) fn address(&self) -> SocketAddr {
        self.registry.address
    }

    /// One question on a connection of its own, answered with this status.
    pub(super) fn ask(&self, request: &[u8], status: u16) -> Result<Answer> {
        let answer = Line::open(self.address())?.ask(request)?;
        let said = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == status, "status {}: {said}", answer.status);
        Ok(answer)
    }

    /// Entries under the checkpoint that is shown, which the quorum has cosigned; 0 before the first.
    pub(super) fn shown(&self, line: &mut Line) -> Result<u64> {
        let answer = line.ask(&wire::get("/checkpoint", None))?;
        if answer.status == 503 {
            return Ok(0);
        }
        ensure!(answer.status == 200, "status {} instead of a checkpoint", answer.status);
        Ok(self.open(&answer.body)?.size)
    }

    fn open(&self, note: &[u8]) -> Result<Checkpoint> {
        Ok(self.policy.open(note).context("checking a checkpoint")?.checkpoint)
    }

    /// What `work` costs the registry in processor time.
    pub(super) fn cost<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
        let before = processor_time(&self.registry)?;
        let value = work()?;
        Ok((value, processor_time(&self.registry)?.saturating_sub(before)))
    }
}

/// A program that serves, killed when dropped: it has to bear that.
struct Daemon {
    child: Child,
    address: SocketAddr,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Daemon {
    /// Waits for the line that says where it listens.
    fn start(command: &mut Command, home: &Path) -> Result<Self> {
        let errors = home.with_extension("log");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&errors)?)
            .spawn()
            .context("starting a program")?;
        let mut daemon = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let output = daemon.child.stdout.take().context("the program has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().rsplit_once("http://").and_then(|(_, place)| place.parse().ok());
        daemon.address = address.with_context(|| {
            format!("it did not start: {}", fs::read_to_string(&errors).unwrap_or_default())
        })?;
        Ok(daemon)
    }
}

fn registryd(data: &Path, witnesses: Option<&Path>) -> Result<Daemon> {
    let mut command = Command::new(program("registryd")?);
    let network = contract::testkit::NETWORK;
    command.args(["--listen", "127.0.0.1:0", "--network", network, "--data"]).arg(data);
    command.args(witnesses.iter().flat_map(|path| [OsStr::new("--witnesses"), path.as_os_str()]));
    Daemon::start(&mut command, data)
}

/// The one line that a program prints.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output().context("starting a program")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn processor_time(daemon: &Daemon) -> Result<Duration> {
    let path = format!("/proc/{}/stat", daemon.child.id());
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    ticks(&text).map(|ticks| TICK * ticks).with_context(|| format!("{path} is not understood"))
}

/// Fields 14 and 15, user and system time; the name, field 2, may hold anything.
fn ticks(stat: &str) -> Option<u32> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let user: u32 = fields.get(11)?.parse().ok()?;
    let system: u32 = fields.get(12)?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_is_found_behind_any_name() {
        let stat = "4242 (a) b (c) S 1 2 3 0 -1 4194560 100 0 0 0 250 31 0 0 20 0 9 0 1";
        assert_eq!(ticks(stat), Some(281));
        assert_eq!(ticks("4242 (name) S 1"), None);
        assert_eq!(ticks(""), None);
    }
}

//! A registry with a log and three witnesses, as real programs on this machine: each can be killed and
//! started again at its address. They end with the value that holds them.

use crate::{
    farm::program,
    wire::{self, Answer, Line},
};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};
use tlog::{Checkpoint, Policy, PolicyFile};

pub(crate) const ORIGIN: &str = "registry.example/bench";
/// Witnesses, and how many of them have to cosign.
pub(crate) const WITNESSES: usize = 3;
pub(crate) const QUORUM: usize = 2;
/// In which the kernel counts the processor time of processes.
const TICK: Duration = Duration::from_millis(10);
/// Where all of them listen, each at an address of its own, which nobody takes while it is down.
const PORT: u16 = 7380;
/// Addresses that this process has given away.
static HOSTS: AtomicU8 = AtomicU8::new(0);

/// What registry and witnesses have on disk before they serve: keys, a log without entries, a policy.
#[derive(Debug)]
pub(crate) struct Furniture {
    directory: PathBuf,
    /// Of PostgreSQL; without one, statements are in SQLite.
    database: Option<String>,
    pub(crate) policy: Policy,
}

impl Furniture {
    /// Makes it. A witness, counted from 0, listens at the first address and is found at the second.
    pub(crate) fn make(
        directory: &Path,
        database: Option<String>,
        listens: impl Fn(usize) -> (SocketAddr, SocketAddr),
    ) -> Result<Self> {
        let data = directory.join("registry");
        // The first start makes the database; the log begins while the registry is stopped.
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut first = registryd(database.as_deref())?;
        drop(Daemon::start(serving(&mut first, &data, any), &data)?);
        let log = said(
            registryd(database.as_deref())?
                .args(["begin-log", "--origin", ORIGIN, "--data"])
                .arg(&data),
        )?;
        let mut policy = format!("log {log}\n");
        for number in 0..WITNESSES {
            let home = directory.join(witness_home(number));
            fs::create_dir(&home)?;
            let name = format!("witness.example/{number}");
            let public = said(
                Command::new(program("witnessd")?)
                    .args(["key", "--name", &name, "--out"])
                    .arg(home.join("key")),
            )?;
            let (listens, found) = listens(number);
            let text = format!(
                "listen = \"{listens}\"\ndata = \"state\"\nkey = \"key\"\n\n\
                 [[log]]\norigin = \"{ORIGIN}\"\nkeys = [\"{log}\"]\n"
            );
            fs::write(home.join("witness.toml"), text)?;
            policy += &format!("witness w{number} {public} http://{found}\n");
        }
        policy += &format!("group all {QUORUM} w0 w1 w2\nquorum all\n");
        fs::write(directory.join("witnesses.policy"), &policy)?;
        let policy = PolicyFile::read(policy.as_bytes()).context("reading our policy")?.policy;
        Ok(Self { directory: directory.to_owned(), database, policy })
    }

    fn registry(&self, listens: SocketAddr) -> Result<Command> {
        let mut command = registryd(self.database.as_deref())?;
        serving(&mut command, &self.directory.join("registry"), listens);
        command.arg("--witnesses").arg(self.directory.join("witnesses.policy"));
        Ok(command)
    }

    fn witness(&self, number: usize) -> Result<Command> {
        let mut command = Command::new(program("witnessd")?);
        let home = self.directory.join(witness_home(number));
        command.args(["run", "--config"]).arg(home.join("witness.toml"));
        Ok(command)
    }
}

fn witness_home(number: usize) -> String {
    format!("witness-{number}")
}

/// One of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    Registry,
    /// Counted from 0.
    Witness(usize),
}

impl Member {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..WITNESSES).map(Self::Witness).chain([Self::Registry])
    }
}

#[derive(Debug)]
pub(crate) struct House {
    furniture: Furniture,
    registry: Place,
    witnesses: Vec<Place>,
}

/// Where a program listens, and the program while it runs.
#[derive(Debug)]
struct Place {
    address: SocketAddr,
    daemon: Option<Daemon>,
}

impl House {
    /// Makes everything below a directory, and starts it. Without a database of PostgreSQL, statements
    /// are there as well.
    pub(crate) fn start(directory: &Path, database: Option<String>) -> Result<Self> {
        // Not 127.0, where everybody is; other processes like this one have other numbers.
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = |_| {
            let host = [127, 1 + high % 254, low, HOSTS.fetch_add(1, Ordering::Relaxed)];
            SocketAddr::from((host, PORT))
        };
        let addresses: Vec<_> = Member::all().map(address).collect();
        let both = |number: usize| (addresses[number], addresses[number]);
        let furniture = Furniture::make(directory, database, both)?;
        let mut places = addresses.into_iter().map(|address| Place { address, daemon: None });
        let witnesses = places.by_ref().take(WITNESSES).collect();
        let registry = places.next().context("the registry has an address")?;
        let mut house = Self { furniture, registry, witnesses };
        Member::all().try_for_each(|member| house.wake(member))?;
        Ok(house)
    }

    /// Where the registry is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.registry.address
    }

    /// Where a witness is, counted from 0.
    pub(crate) fn witness(&self, number: usize) -> SocketAddr {
        self.witnesses[number].address
    }

    /// Which checkpoints count.
    pub(crate) fn policy(&self) -> &Policy {
        &self.furniture.policy
    }

    /// What the log is kept in.
    pub(crate) fn data(&self) -> PathBuf {
        self.furniture.directory.join("registry")
    }

    /// Starts what does not run, and returns when it serves.
    pub(crate) fn wake(&mut self, member: Member) -> Result<()> {
        if self.place(member).daemon.is_none() {
            let (mut command, home) = self.command(member)?;
            self.place(member).daemon = Some(Daemon::start(&mut command, &home)?);
        }
        Ok(())
    }

    /// Starts what does not run, and kills it after this time, whether it serves by then or not.
    pub(crate) fn wake_for(&mut self, member: Member, time: Duration) -> Result<()> {
        let (mut command, home) = self.command(member)?;
        let started = Daemon::spawn(&mut command, &home)?;
        std::thread::park_timeout(time);
        drop(started);
        Ok(())
    }

    /// Kills what runs: SIGKILL.
    pub(crate) fn kill(&mut self, member: Member) {
        self.place(member).daemon = None;
    }

    /// Whether it was started and not killed since.
    pub(crate) fn is_awake(&self, member: Member) -> bool {
        let place = match member {
            Member::Registry => &self.registry,
            Member::Witness(number) => &self.witnesses[number],
        };
        place.daemon.is_some()
    }

    fn place(&mut self, member: Member) -> &mut Place {
        match member {
            Member::Registry => &mut self.registry,
            Member::Witness(number) => &mut self.witnesses[number],
        }
    }

    fn command(&self, member: Member) -> Result<(Command, PathBuf)> {
        Ok(match member {
            Member::Registry => (self.furniture.registry(self.registry.address)?, self.data()),
            Member::Witness(number) => {
                let home = self.furniture.directory.join(witness_home(number));
                (self.furniture.witness(number)?, home)
            }
        })
    }

    /// One question on a connection of its own, answered with this status.
    pub(crate) fn ask(&self, request: &[u8], status: u16) -> Result<Answer> {
        let answer = Line::open(self.address())?.ask(request)?;
        let said = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == status, "status {}: {said}", answer.status);
        Ok(answer)
    }

    /// Entries under the checkpoint that is shown, which the quorum has cosigned; 0 before the first.
    pub(crate) fn shown(&self, line: &mut Line) -> Result<u64> {
        let answer = line.ask(&wire::get("/checkpoint", None))?;
        if answer.status == 503 {
            return Ok(0);
        }
        ensure!(answer.status == 200, "status {} instead of a checkpoint", answer.status);
        Ok(self.open(&answer.body)?.size)
    }

    fn open(&self, note: &[u8]) -> Result<Checkpoint> {
        Ok(self.policy().open(note).context("checking a checkpoint")?.checkpoint)
    }

    /// What `work` costs the registry in processor time.
    pub(crate) fn cost<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
        let registry = self.registry.daemon.as_ref().context("the registry does not run")?;
        let before = processor_time(registry)?;
        let value = work()?;
        Ok((value, processor_time(registry)?.saturating_sub(before)))
    }
}

/// A program that serves, killed when dropped: it has to bear that.
#[derive(Debug)]
struct Daemon {
    child: Child,
    errors: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Daemon {
    fn spawn(command: &mut Command, home: &Path) -> Result<Self> {
        let errors = home.with_extension("log");
        let log = fs::File::options().create(true).append(true).open(&errors)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting a program")?;
        Ok(Self { child, errors })
    }

    /// Waits for the line that says where it listens.
    fn start(command: &mut Command, home: &Path) -> Result<Self> {
        let mut daemon = Self::spawn(command, home)?;
        let output = daemon.child.stdout.take().context("the program has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.contains("http://"), "it did not start: {}", {
            let said = fs::read_to_string(&daemon.errors).unwrap_or_default();
            said.lines().last().unwrap_or_default().to_owned()
        });
        Ok(daemon)
    }
}

fn registryd(database: Option<&str>) -> Result<Command> {
    let mut command = Command::new(program("registryd")?);
    command.env_remove("ZOS_DATABASE").envs(database.map(|url| ("ZOS_DATABASE", url)));
    Ok(command)
}

fn serving<'a>(command: &'a mut Command, data: &Path, listens: SocketAddr) -> &'a mut Command {
    let network = contract::testkit::NETWORK;
    command.args(["--listen", &listens.to_string(), "--network", network, "--data"]).arg(data)
}

/// The one line that a program prints.
pub(crate) fn said(command: &mut Command) -> Result<String> {
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

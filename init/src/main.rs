//! PID 1: boots the node, keeps its services alive, is the parent of every workload.
//!
//! It serves and never asks: it calls no daemon, resolves no name, knows no TLS and no thread. The
//! same program runs in two more roles, beside PID 1: as the service `devices`, which loads
//! drivers, and as the kernel's `modprobe`.
//!
//! Refuses a shell, a login and any input but the power button and ctrl-alt-del.

#![forbid(unsafe_code)]

mod board;
mod button;
mod calls;
mod cgroup;
mod console;
mod devices;
mod hardening;
mod log;
mod mounts;
mod node;
mod power;
mod pstore;
mod resume;
mod run;
mod server;
mod service;
mod supervisor;
mod table;
mod watchdog;
mod workload;

use node::Node;
use node_api::{
    boot::BootConfig,
    init::{Fact, Level, PowerAction},
    paths,
};
use resume::Saved;
use rustix::{
    process::{Resource, Rlimit, getpid, setrlimit},
    system::{RebootCommand, reboot},
    time::{ClockId, clock_gettime},
};
use std::{
    fs, io,
    process::ExitCode,
    time::{Duration, Instant},
};

/// Every workload costs two descriptors, and services inherit the limit.
const DESCRIPTORS: u64 = 65536;
/// To this a workload may raise its own, in the manner of systemd.
const DESCRIPTORS_MAX: u64 = 524_288;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().map(|it| it.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match (getpid().is_init(), &*words) {
        (true, [resume::ARGUMENT, count, ..]) if resume::is_possible() => {
            pid1(count.parse().unwrap_or(u32::MAX))
        }
        (true, _) => pid1(0),
        (false, ["devices"]) => devices::serve(),
        (false, ["-q", "--", name]) => devices::modprobe(name),
        (false, _) => {
            daemon::run("init", || Err(io::Error::other("this program is PID 1 of a node")))
        }
    }
}

/// The life of PID 1. Its end is a kernel panic, and with it a reboot.
fn pid1(n_resumes: u32) -> ExitCode {
    let started = Instant::now();
    resume::on_panic(n_resumes);
    let problems = if n_resumes == 0 { prepare() } else { Vec::new() };
    daemon::run("init", || live(started, n_resumes, &problems))
}

/// Makes a node of what the kernel gives. Returns what failed, as sentences.
fn prepare() -> Vec<String> {
    let mut problems = mounts::prepare_root();
    problems.extend(mounts::mount_all());
    problems.extend(hardening::apply());
    problems.extend(cgroup::prepare(table::SERVICES));
    // An image without modules has no such file.
    let devnames = devices::modules_directory().join("modules.devname");
    problems.extend(mounts::make_devices(&fs::read_to_string(devnames).unwrap_or_default()));
    if let Err(error) = mounts::seal_root() {
        problems.push(format!("making the root read-only: {error}"));
    }
    let limit = Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS_MAX) };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        problems.push(format!("raising the number of descriptors: {error}"));
    }
    if let Err(error) = reboot(RebootCommand::CadOff) {
        problems.push(format!("taking ctrl-alt-del from the kernel: {error}"));
    }
    problems
}

fn live(started: Instant, n_resumes: u32, problems: &[String]) -> io::Result<()> {
    let version = fs::read_to_string(paths::VERSION)
        .map_or_else(|_| env!("CARGO_PKG_VERSION").to_owned(), |text| text.trim().to_owned());
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let config = BootConfig::parse(&cmdline);
    let uptime = clock_gettime(ClockId::Boottime);
    let started_ms = u64::try_from(uptime.tv_sec * 1000 + uptime.tv_nsec / 1_000_000).unwrap_or(0);
    let signals = run::signals()?;
    let title = format!("Zero-OS {version}   network {}", config.network);
    let mut node = Node::new(started, started_ms, title);
    if n_resumes > 0 {
        resume(&mut node, n_resumes);
    } else {
        node.say(&format!("init: started version {version}"));
    }
    node.poweroff_when_ready = config.poweroff_when_ready;
    tell_problems(&mut node, problems.iter().chain(&config.problems));
    let listener = ipc::listen(paths::INIT_SOCKET.as_ref())?;
    listener.set_nonblocking(true)?;
    let action = run::serve(&mut node, &listener, &signals)?;
    end(&mut node, action)
}

fn resume(node: &mut Node, n_resumes: u32) {
    let now = Instant::now();
    match Saved::load() {
        Ok(saved) => {
            let up = Duration::from_millis(node.started_ms.saturating_sub(saved.started_ms));
            node.started_ms = saved.started_ms;
            node.started = now.checked_sub(up).unwrap_or(now);
            node.restore(saved, now);
        }
        Err(error) => node.say(&format!("init: reading the state before the crash: {error}")),
    }
    node.kill_strangers();
    node.say(&format!("init: crashed and took over again, time {n_resumes}"));
}

fn tell_problems<'a>(node: &mut Node, problems: impl Iterator<Item = &'a String>) {
    let facts: Vec<_> = problems
        .map(|text| Fact { label: "problem".to_owned(), text: text.clone(), level: Level::Warning })
        .collect();
    if !facts.is_empty() {
        for fact in &facts {
            node.ring.push(fact.text.clone());
        }
        node.publish("boot", &facts);
    }
}

/// Leaves nothing unwritten, and hands the machine back.
fn end(node: &mut Node, action: PowerAction) -> io::Result<()> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for problem in mounts::unmount_all(&mountinfo) {
        node.say(&format!("init: {problem}"));
    }
    rustix::fs::sync();
    let command = match action {
        PowerAction::Reboot => RebootCommand::Restart,
        PowerAction::Off => {
            if let Err(error) = node.watchdog.disarm() {
                node.say(&format!("init: disarming the watchdog: {error}"));
            }
            RebootCommand::PowerOff
        }
    };
    node.say("init: down");
    Ok(reboot(command)?)
}

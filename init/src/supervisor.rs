//! Services in the flesh: their processes, pipes and last words. What follows what is decided in
//! [`crate::service`].

use crate::{
    cgroup,
    log::{Log, Rate},
    service::{self, State},
    table::Entry,
};
use node_api::init::{Fact, Level, Service as Report, ServiceState};
use rustix::{
    fs::{OFlags, fcntl_setfl},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, WaitStatus, kill_process},
};
use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::{Command, Stdio},
};

/// Environment variable with the number of the descriptor that takes one byte at readiness.
const READY_FD: &str = "ZOS_READY_FD";
/// Where daemons find the foreign programs that they use.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// One service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) entry: &'static Entry,
    pub(crate) state: State,
    pub(crate) log: Log,
    pub(crate) rate: Rate,
    /// Read end of its readiness pipe, until it has spoken.
    pub(crate) ready: Option<OwnedFd>,
    /// Whether it was ready once: then those that need it may start.
    pub(crate) has_served: bool,
    pub(crate) starts: u32,
    pub(crate) last_exit: Option<String>,
}

impl Service {
    pub(crate) fn new(entry: &'static Entry) -> Self {
        Self {
            entry,
            state: State::Blocked,
            log: Log::default(),
            rate: Rate::new(),
            ready: None,
            has_served: false,
            starts: 0,
            last_exit: None,
        }
    }

    /// Starts its process, in its cgroup, with an empty environment.
    pub(crate) fn spawn(&mut self) -> io::Result<Pid> {
        let (ready, ready_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let (log, log_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&ready, OFlags::NONBLOCK)?;
        fcntl_setfl(&log, OFlags::NONBLOCK)?;
        let mut command = Command::new(self.entry.command[0]);
        command
            .args(&self.entry.command[1..])
            .env_clear()
            .env("PATH", PATH)
            .env(READY_FD, ready_writer.as_raw_fd().to_string())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log_writer.try_clone()?)
            .stderr(log_writer);
        let procs = cgroup::service_procs(self.entry.name)?;
        let child = sys::process::spawn_in_cgroup(&mut command, procs, ready_writer.as_fd())?;
        let score = self.entry.oom_score_adj.to_string();
        // The process may have ended already; then there is nothing to protect.
        drop(fs::write(format!("/proc/{}/oom_score_adj", child.id()), score));
        self.ready = Some(ready);
        self.log.attach(log);
        self.starts = self.starts.saturating_add(1);
        Ok(Pid::from_child(&child))
    }

    /// Whether it has just said that it is ready.
    pub(crate) fn hear(&mut self) -> bool {
        let Some(ready) = &self.ready else { return false };
        let said = rustix::io::read(ready, &mut [0; 1]);
        if matches!(said, Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)) {
            return false;
        }
        self.ready = None;
        said == Ok(1)
    }

    pub(crate) fn report(&self) -> Report {
        Report {
            name: self.entry.name.to_owned(),
            state: match self.state {
                State::Blocked => ServiceState::Blocked,
                State::Starting { .. } => ServiceState::Starting,
                State::Ready { .. } => ServiceState::Ready,
                State::Waiting { .. } | State::Stopping { .. } | State::Stopped => {
                    ServiceState::Waiting
                }
            },
            pid: service::pid(self.state).map(|pid| pid.as_raw_nonzero().get()),
            restarts: self.starts.saturating_sub(1),
            last_exit: self.last_exit.clone(),
        }
    }

    /// Its line on the console.
    pub(crate) fn fact(&self) -> Fact {
        let (text, level) = match self.state {
            State::Blocked => ("waits for others", Level::Plain),
            State::Starting { .. } => ("starting", Level::Plain),
            State::Ready { .. } => ("ready", Level::Good),
            State::Waiting { .. } => ("restarting", Level::Bad),
            State::Stopping { .. } => ("stopping", Level::Plain),
            State::Stopped => ("stopped", Level::Plain),
        };
        let text = match (&self.last_exit, self.starts) {
            (Some(exit), 2..) => format!("{text} ({} restarts, last {exit})", self.starts - 1),
            _ => text.to_owned(),
        };
        Fact { label: self.entry.name.to_owned(), text, level }
    }
}

/// How a process ended, as the end of a sentence.
pub(crate) fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("exited by signal {signal}"),
        (None, None) => "exited".to_owned(),
    }
}

/// Signals a child of ours. It is not reaped yet, so its number cannot be somebody else's.
pub(crate) fn signal(pid: Pid, signal: Signal) {
    // An error says that it ended just now; its exit is on the way to us.
    kill_process(pid, signal).ok();
}

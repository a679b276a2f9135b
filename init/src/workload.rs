//! The processes of workloads: init is their parent, so that no daemon's end is theirs.
//!
//! The launcher makes a process as a child of init and hands over its pidfd and its log pipe. init
//! drains the pipe for ever, so that a container never waits for somebody who reads its log, and
//! keeps the exit status until it is told to forget. What it said last is kept beyond that, because
//! who reads logs may come later.

use crate::{
    cgroup,
    log::{Log, Ring},
};
use ipc::Failure;
use node_api::init::{LogHead, ProcessState, Workload};
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid},
};
use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    time::Instant,
};

/// Each costs two descriptors and a ring.
const WORKLOADS_MAX: usize = 1024;
/// A process that ends before its adoption is remembered while as many others end.
const ORPHANS_MAX: usize = 128;
/// What the logs of forgotten workloads may hold of our memory, all together, and how many they are.
const PAST_SIZE_MAX: usize = 2 << 20;
const PAST_MAX: usize = 256;

/// An adopted process.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub(crate) pid: Pid,
    /// Closed once the process is reaped.
    pub(crate) pidfd: Option<OwnedFd>,
    pub(crate) state: ProcessState,
    pub(crate) log: Log,
}

/// Every adopted process, by id.
#[derive(Debug, Default)]
pub(crate) struct Workloads {
    pub(crate) by_id: BTreeMap<String, Adopted>,
    /// Processes that ended and were neither a service nor adopted yet.
    orphans: VecDeque<(Pid, ProcessState)>,
    /// What forgotten workloads have said, the one that was forgotten last at the end.
    past: VecDeque<(String, Log)>,
}

impl Workloads {
    /// Takes over a process. See [`node_api::init::Adopt`].
    pub(crate) fn adopt(&mut self, id: &str, pid: i32, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        if !cgroup::is_id(id) {
            return Err(Failure::new("BadId", "the id is not [a-z0-9-]{1,64}"));
        }
        let two = "two descriptors travel with the call: the pidfd and the log pipe";
        let [pidfd, pipe]: [OwnedFd; 2] =
            fds.try_into().map_err(|_| Failure::new("BadDescriptors", two))?;
        let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
        let pid = Pid::from_raw(pid)
            .filter(|pid| {
                pidfd_target(&fdinfo).is_some_and(|it| it == pid.as_raw_nonzero().get() || it == -1)
            })
            .ok_or_else(|| Failure::new("BadDescriptors", "the pidfd is of another process"))?;
        match self.by_id.get(id).map(|former| former.state) {
            None => {}
            Some(ProcessState::Running) => {
                return Err(Failure::new("Running", format!("{id} has a running process")));
            }
            // Who starts has not heard of that end, and might not start if they had.
            Some(ProcessState::Exited(_) | ProcessState::Killed(_)) => {
                let text = format!("{id} has an ended process that nobody has forgotten");
                return Err(Failure::new("Ended", text));
            }
        }
        if self.by_id.len() >= WORKLOADS_MAX {
            return Err(Failure::new("TooMany", format!("there are {WORKLOADS_MAX} workloads")));
        }
        let state = self.state_at_adoption(pid, &pidfd)?;
        fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
        // The log goes on across restarts: its end is where the reason is.
        let mut log = self.recall(id).unwrap_or_default();
        log.attach(pipe);
        let pidfd = (state == ProcessState::Running).then_some(pidfd);
        self.by_id.insert(id.to_owned(), Adopted { pid, pidfd, state, log });
        Ok(())
    }

    /// A zombie counts as running: it will be reaped like any other.
    fn state_at_adoption(&self, pid: Pid, pidfd: &OwnedFd) -> Result<ProcessState, Failure> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(pidfd)), look) {
            Ok(_) => Ok(ProcessState::Running),
            Err(Errno::CHILD) => {
                let orphan = self.orphans.iter().rev().find(|(orphan, _)| *orphan == pid);
                orphan.map(|(_, state)| *state).ok_or_else(|| {
                    Failure::new(
                        "NotAChild",
                        format!("process {} is no child of init", pid.as_raw_nonzero()),
                    )
                })
            }
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// Records the end of a process that is no service. Returns the id of its workload.
    pub(crate) fn exited(&mut self, pid: Pid, state: ProcessState, now: Instant) -> Option<&str> {
        let running = |adopted: &Adopted| adopted.state == ProcessState::Running;
        let found = self.by_id.iter_mut().find(|(_, it)| it.pid == pid && running(it));
        if let Some((id, adopted)) = found {
            // Its last words come before the news of its end.
            adopted.log.keep(now);
            adopted.state = state;
            adopted.pidfd = None;
            return Some(id);
        }
        self.orphans.push_back((pid, state));
        if self.orphans.len() > ORPHANS_MAX {
            self.orphans.pop_front();
        }
        None
    }

    /// Every entry, sorted by id.
    pub(crate) fn list(&self) -> Vec<Workload> {
        let entry = |(id, it): (&String, &Adopted)| Workload {
            id: id.clone(),
            pid: it.pid.as_raw_nonzero().get(),
            state: it.state,
        };
        self.by_id.iter().map(entry).collect()
    }

    /// Sends a signal to the main process. One that has ended takes it as any process would.
    pub(crate) fn signal(&self, id: &str, signal: i32) -> Result<(), Failure> {
        let signal = Signal::from_named_raw(signal)
            .ok_or_else(|| Failure::new("BadSignal", format!("there is no signal {signal}")))?;
        match &self.find(id)?.pidfd {
            Some(pidfd) => match pidfd_send_signal(pidfd, signal) {
                Ok(()) | Err(Errno::SRCH) => Ok(()),
                Err(error) => Err(io::Error::from(error).into()),
            },
            None => Err(Failure::new("NotRunning", format!("{id} has ended"))),
        }
    }

    /// Kills the whole cgroup, also when the main process has ended already.
    pub(crate) fn kill(&self, id: &str) -> Result<(), Failure> {
        self.find(id)?;
        match cgroup::kill_work(id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => Ok(done?),
        }
    }

    /// Drops an entry and its cgroup. To forget what is not known is success.
    pub(crate) fn forget(&mut self, id: &str) -> Result<(), Failure> {
        let Some(adopted) = self.by_id.get(id) else { return Ok(()) };
        if adopted.state == ProcessState::Running {
            return Err(Failure::new("Running", format!("{id} has a running process")));
        }
        cgroup::remove_work(id).map_err(|error| {
            Failure::new("Busy", format!("removing the cgroup of {id}: {error}"))
        })?;
        if let Some(mut adopted) = self.by_id.remove(id) {
            // A process that it left elsewhere cannot keep the pipe open for us.
            adopted.log.keep(Instant::now());
            adopted.log.close();
            self.past.push_back((id.to_owned(), adopted.log));
            let size = |past: &VecDeque<(String, Log)>| -> usize {
                past.iter().map(|(_, log)| log.size()).sum()
            };
            while self.past.len() > PAST_MAX || size(&self.past) > PAST_SIZE_MAX {
                self.past.pop_front();
            }
        }
        Ok(())
    }

    /// What a workload has said that is forgotten otherwise.
    fn recall(&mut self, id: &str) -> Option<Log> {
        let at = self.past.iter().position(|(past, _)| past == id)?;
        self.past.remove(at).map(|(_, log)| log)
    }

    /// The lines of a workload, also of a forgotten one.
    pub(crate) fn ring(&self, id: &str) -> Option<&Ring> {
        let past = || self.past.iter().find(|(past, _)| past == id).map(|(_, log)| log);
        self.by_id.get(id).map(|adopted| &adopted.log).or_else(past).map(|log| &log.ring)
    }

    /// How far each log is, sorted by id, also of those who have said nothing.
    pub(crate) fn logs(&self) -> Vec<LogHead> {
        let present = self.by_id.iter().map(|(id, adopted)| (id, &adopted.log.ring));
        let past = self.past.iter().map(|(id, log)| (id, &log.ring));
        let head = |(id, ring): (&String, &Ring)| LogHead {
            id: id.clone(),
            life: ring.life(),
            last: ring.last,
        };
        let mut heads: Vec<_> = present.chain(past).map(head).collect();
        heads.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        heads
    }

    /// Asks every main process to end.
    pub(crate) fn terminate_all(&self) {
        for pidfd in self.by_id.values().filter_map(|adopted| adopted.pidfd.as_ref()) {
            // Who is gone already needs no asking.
            pidfd_send_signal(pidfd, Signal::TERM).ok();
        }
    }

    /// Whether any main process runs.
    pub(crate) fn any_running(&self) -> bool {
        self.by_id.values().any(|adopted| adopted.state == ProcessState::Running)
    }

    fn find(&self, id: &str) -> Result<&Adopted, Failure> {
        self.by_id
            .get(id)
            .ok_or_else(|| Failure::new("NotFound", format!("there is no workload {id}")))
    }
}

/// The process of a pidfd, from its fdinfo: -1 once it is reaped. `None` for another kind of file.
fn pidfd_target(fdinfo: &str) -> Option<i32> {
    fdinfo.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::{
        pipe::{PipeFlags, pipe_with},
        process::{PidfdFlags, pidfd_open},
    };
    use std::process::{Command, Stdio};

    /// A child that runs until its stdin is closed.
    fn child() -> (std::process::Child, Pid, OwnedFd) {
        let child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        (child, pid, pidfd)
    }

    fn pipe() -> OwnedFd {
        pipe_with(PipeFlags::CLOEXEC).unwrap().0
    }

    fn raw(pid: Pid) -> i32 {
        pid.as_raw_nonzero().get()
    }

    fn refusal(done: Result<(), Failure>) -> String {
        done.unwrap_err().name
    }

    #[test]
    fn a_workload_is_adopted_signalled_recorded_and_forgotten() {
        let (mut process, pid, pidfd) = child();
        let mut workloads = Workloads::default();
        let again = pidfd.try_clone().unwrap();
        workloads.adopt("c-1", raw(pid), vec![pidfd, pipe()]).unwrap();
        assert_eq!(workloads.list()[0].state, ProcessState::Running);
        assert_eq!(workloads.logs()[0].last, 0, "who reads logs hears of the silent too");
        assert_eq!(refusal(workloads.adopt("c-1", raw(pid), vec![again, pipe()])), "Running");
        assert_eq!(refusal(workloads.forget("c-1")), "Running");
        assert_eq!(refusal(workloads.signal("c-1", 999)), "BadSignal");
        assert_eq!(refusal(workloads.signal("c-2", 15)), "NotFound");
        workloads.signal("c-1", 15).unwrap();
        process.wait().unwrap();
        assert_eq!(workloads.exited(pid, ProcessState::Killed(15), Instant::now()), Some("c-1"));
        assert_eq!(refusal(workloads.signal("c-1", 15)), "NotRunning");
        assert_eq!(workloads.list()[0].state, ProcessState::Killed(15));
        // An end that nobody has seen yet is not replaced.
        let (mut next, pid, pidfd) = child();
        assert_eq!(refusal(workloads.adopt("c-1", raw(pid), vec![pidfd, pipe()])), "Ended");
        assert_eq!(workloads.list()[0].state, ProcessState::Killed(15));
        drop(next.stdin.take());
        next.wait().unwrap();
        workloads.by_id.get_mut("c-1").unwrap().log.ring.push("bye".to_owned());
        workloads.forget("c-1").unwrap();
        workloads.forget("c-1").unwrap();
        assert!(workloads.list().is_empty());
        // Its last words are still there, and its numbers go on when it comes again.
        let [head] = &*workloads.logs() else { panic!("{:?}", workloads.logs()) };
        assert_eq!((head.id.as_str(), head.last), ("c-1", 1));
        let (mut process, pid, pidfd) = child();
        workloads.adopt("c-1", raw(pid), vec![pidfd, pipe()]).unwrap();
        workloads.by_id.get_mut("c-1").unwrap().log.ring.push("again".to_owned());
        assert_eq!(workloads.logs(), [LogHead { last: 2, ..head.clone() }]);
        drop(process.stdin.take());
        process.wait().unwrap();
    }

    #[test]
    fn the_past_is_bounded() {
        let mut workloads = Workloads::default();
        let mut forget = |id: String, line: String, n: usize| {
            let (mut process, pid, pidfd) = child();
            workloads.adopt(&id, raw(pid), vec![pidfd, pipe()]).unwrap();
            for _ in 0..n {
                workloads.by_id.get_mut(&id).unwrap().log.ring.push(line.clone());
            }
            drop(process.stdin.take());
            process.wait().unwrap();
            workloads.exited(pid, ProcessState::Exited(0), Instant::now());
            workloads.forget(&id).unwrap();
            workloads.logs().len()
        };
        let most = (0..40).map(|n| forget(format!("c-{n}"), "x".repeat(2000), 40)).max().unwrap();
        assert!((30..36).contains(&most), "{most}");
        assert!(workloads.ring("c-39").is_some() && workloads.ring("c-0").is_none());
    }

    #[test]
    fn a_process_that_ended_before_its_adoption_is_not_lost() {
        let (mut process, pid, pidfd) = child();
        let stranger = pidfd.try_clone().unwrap();
        drop(process.stdin.take());
        process.wait().unwrap();
        let mut workloads = Workloads::default();
        assert_eq!(refusal(workloads.adopt("c", raw(pid), vec![stranger, pipe()])), "NotAChild");
        assert_eq!(workloads.exited(pid, ProcessState::Exited(3), Instant::now()), None);
        workloads.adopt("c", raw(pid), vec![pidfd, pipe()]).unwrap();
        assert_eq!(workloads.list()[0].state, ProcessState::Exited(3));
    }

    #[test]
    fn adoption_refuses_what_it_cannot_supervise() {
        let (mut process, pid, pidfd) = child();
        let mut workloads = Workloads::default();
        let mut adopt = |id: &str, pid, fds| refusal(workloads.adopt(id, pid, fds));
        let copy = || pidfd.try_clone().unwrap();
        assert_eq!(adopt("../x", raw(pid), vec![copy(), pipe()]), "BadId");
        assert_eq!(adopt("c", raw(pid), vec![copy()]), "BadDescriptors");
        assert_eq!(adopt("c", raw(pid), vec![pipe(), pipe()]), "BadDescriptors");
        assert_eq!(adopt("c", raw(pid) + 1, vec![copy(), pipe()]), "BadDescriptors");
        assert_eq!(adopt("c", 0, vec![copy(), pipe()]), "BadDescriptors");
        drop(process.stdin.take());
        process.wait().unwrap();
    }

    #[test]
    fn only_the_latest_strangers_are_remembered() {
        let mut workloads = Workloads::default();
        for number in 1..1000 {
            let pid = Pid::from_raw(number).unwrap();
            assert_eq!(workloads.exited(pid, ProcessState::Exited(0), Instant::now()), None);
        }
        assert_eq!(workloads.orphans.len(), ORPHANS_MAX);
    }
}

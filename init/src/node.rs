//! The one owner of PID 1's state, and what follows from each event.

use crate::{
    board::Board,
    button::Buttons,
    cgroup,
    console::Console,
    log::{self, Ring, Said},
    power::{self, Phase, Running, Shutdown},
    resume::{Saved, SavedSection, SavedService, SavedWorkload},
    server::Connection,
    service::{self, Action, Event, State, step},
    supervisor::{self, Service},
    table::SERVICES,
    watchdog::Watchdog,
    workload::{Adopted, Workloads},
};
use node_api::{
    init::{Fact, PowerAction, ProcessState},
    paths,
};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, wait};
use std::{
    fs::File,
    io::Write,
    os::fd::{AsRawFd, RawFd},
    thread::available_parallelism,
    time::{Duration, Instant},
};

/// On a machine with one processor, services that are not urgent let the urgent ones start first,
/// for at most this long: a disk may keep storaged waiting.
const LATER: Duration = Duration::from_secs(5);

/// Everything that PID 1 knows.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) started: Instant,
    /// When services start that are not urgent, whatever the urgent ones do.
    later: Instant,
    /// Milliseconds from boot to the start of PID 1.
    pub(crate) started_ms: u64,
    pub(crate) title: String,
    pub(crate) services: Vec<Service>,
    pub(crate) workloads: Workloads,
    /// Until then, nobody listens to the logs of workloads.
    pub(crate) logs_after: Instant,
    pub(crate) board: Board,
    pub(crate) console: Console,
    pub(crate) connections: Vec<Option<Connection>>,
    pub(crate) watchdog: Watchdog,
    pub(crate) buttons: Buttons,
    pub(crate) shutdown: Option<Shutdown>,
    pub(crate) ready_after_ms: Option<u64>,
    pub(crate) poweroff_when_ready: bool,
    pub(crate) previous_panic: Option<String>,
    /// What init itself had to say.
    pub(crate) ring: Ring,
    pub(crate) kmsg: Option<File>,
    pub(crate) is_changed: bool,
}

impl Node {
    pub(crate) fn new(started: Instant, started_ms: u64, title: String) -> Self {
        let is_alone = available_parallelism().is_ok_and(|n_processors| n_processors.get() == 1);
        Self {
            started,
            later: if is_alone { started + LATER } else { started },
            started_ms,
            title,
            services: SERVICES.iter().map(Service::new).collect(),
            workloads: Workloads::default(),
            logs_after: started,
            board: Board::default(),
            console: Console::open(),
            connections: Vec::new(),
            watchdog: Watchdog::default(),
            buttons: Buttons::default(),
            shutdown: None,
            ready_after_ms: None,
            poweroff_when_ready: false,
            previous_panic: None,
            ring: Ring::default(),
            kmsg: std::fs::OpenOptions::new().write(true).open("/dev/kmsg").ok(),
            is_changed: true,
        }
    }

    /// Something is different from what is written for the next PID 1.
    pub(crate) fn changed(&mut self) {
        self.is_changed = true;
    }

    /// One line of news.
    pub(crate) fn say(&mut self, text: &str) {
        self.ring.push(text.to_owned());
        self.console.line(text);
    }

    /// Replaces a section of the console. False when there are too many.
    pub(crate) fn publish(&mut self, section: &str, facts: &[Fact]) -> bool {
        let Some(lines) = self.board.publish(section, facts) else { return false };
        if !lines.is_empty() {
            self.console.mark();
            self.changed();
        }
        for line in lines {
            self.console.line(&line);
        }
        true
    }

    /// Lets an event happen to a service, and does what follows.
    pub(crate) fn happen(&mut self, index: usize, event: Event, now: Instant) {
        let service = &mut self.services[index];
        let former = service.state;
        let (state, action) = step(former, event, now);
        service.state = state;
        match action {
            Action::None => {}
            Action::Spawn => self.spawn(index, now),
            Action::Terminate(pid) => supervisor::signal(pid, Signal::TERM),
            Action::Kill(pid) => supervisor::signal(pid, Signal::KILL),
        }
        if self.services[index].state != former {
            self.show_services();
            self.changed();
        }
    }

    fn spawn(&mut self, index: usize, now: Instant) {
        let service = &mut self.services[index];
        let name = service.entry.name;
        match service.spawn() {
            Ok(pid) => self.happen(index, Event::Spawned(pid), now),
            Err(error) => {
                let said = format!("could not be started: {error}");
                service.last_exit = Some(said.clone());
                self.happen(index, Event::SpawnFailed, now);
                self.say(&format!("service {name}: {said}{}", self.retry(index, now)));
            }
        }
    }

    /// Reads the readiness pipe of a service.
    pub(crate) fn hear(&mut self, index: usize, now: Instant) {
        if !self.services[index].hear() {
            return;
        }
        self.services[index].has_served = true;
        self.happen(index, Event::Ready, now);
        self.say(&format!("service {}: ready", self.services[index].entry.name));
    }

    /// Reads the log pipe of a service; warnings and worse go to the console as well.
    pub(crate) fn read_log(&mut self, index: usize, now: Instant) {
        let service = &mut self.services[index];
        let name = service.entry.name;
        for line in service.log.drain(now) {
            let (level, text) = log::level(&line.text);
            service.log.ring.push(Said { text: text.to_owned(), n_dropped: line.n_dropped });
            if level > 4 {
                continue;
            }
            let Some(left_out) = service.rate.pass(now) else { continue };
            if left_out > 0 {
                self.console.line(&format!("log {name}: {left_out} lines left out"));
            }
            self.console.line(&format!("log {name}: {text}"));
            if let Some(kmsg) = &mut self.kmsg {
                // For the panic record; it is in the ring anyway.
                drop(kmsg.write_all(format!("<30>zos {name}: {text}\n").as_bytes()));
            }
        }
    }

    /// Takes every child that has ended.
    pub(crate) fn reap(&mut self, now: Instant) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let is_it = |service: &Service| service::pid(service.state) == Some(pid);
            match self.services.iter().position(is_it) {
                Some(index) => self.service_exited(index, status, now),
                None => self.process_exited(pid, status, now),
            }
        }
    }

    fn service_exited(&mut self, index: usize, status: WaitStatus, now: Instant) {
        // Its last words come before the news of its end.
        self.read_log(index, now);
        let service = &mut self.services[index];
        let name = service.entry.name;
        let how = supervisor::describe(status);
        service.ready = None;
        service.last_exit = Some(how.clone());
        let killed = cgroup::kill_service(name);
        self.happen(index, Event::Exited, now);
        if let Err(error) = killed {
            self.say(&format!("service {name}: killing what it left: {error}"));
        }
        self.say(&format!("service {name}: {how}{}", self.retry(index, now)));
    }

    fn retry(&self, index: usize, now: Instant) -> String {
        match self.services[index].state {
            State::Waiting { until, .. } => {
                format!("; restarting in {} ms", until.saturating_duration_since(now).as_millis())
            }
            _ => String::new(),
        }
    }

    fn process_exited(&mut self, pid: Pid, status: WaitStatus, now: Instant) {
        let state = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ProcessState::Exited(code),
            (None, signal) => ProcessState::Killed(signal.unwrap_or_default()),
        };
        if self.workloads.exited(pid, state, now).is_some() {
            self.changed();
        }
    }

    fn show_services(&mut self) {
        let facts: Vec<_> = self.services.iter().map(Service::fact).collect();
        // The lines are said by those who know more; the section is the first one, so it fits.
        drop(self.board.publish("services", &facts));
        self.console.mark();
    }

    /// Brings everything in line with the time and with what has happened.
    pub(crate) fn settle(&mut self, now: Instant) {
        for index in 0..self.services.len() {
            let is_due =
                service::deadline(self.services[index].state).is_some_and(|due| due <= now);
            if is_due {
                self.happen(index, Event::Timer, now);
            }
            if self.services[index].state == State::Blocked && self.may_start(index, now) {
                self.happen(index, Event::NeedsMet, now);
            }
        }
        let all_ready =
            self.services.iter().all(|service| matches!(service.state, State::Ready { .. }));
        if all_ready && self.ready_after_ms.is_none() {
            let after_ms = u64::try_from((now - self.started).as_millis()).unwrap_or(u64::MAX);
            self.ready_after_ms = Some(after_ms);
            self.say(&format!("all services ready after {after_ms} ms"));
            self.changed();
            if let Err(error) = File::create(paths::ALL_READY) {
                self.say(&format!("init: writing {}: {error}", paths::ALL_READY));
            }
            if self.poweroff_when_ready {
                self.begin_shutdown(PowerAction::Off);
            }
        }
        self.descend(now);
    }

    fn may_start(&self, index: usize, now: Instant) -> bool {
        let entry = self.services[index].entry;
        let has_served = |need: &&str| {
            self.services.iter().any(|other| other.entry.name == *need && other.has_served)
        };
        let is_time = entry.urgent
            || self.later <= now
            || self.services.iter().all(|other| other.has_served || !other.entry.urgent);
        is_time && entry.needs.iter().all(has_served)
    }

    /// Starts the way down. A second order changes nothing.
    pub(crate) fn begin_shutdown(&mut self, action: PowerAction) {
        if self.shutdown.is_none() {
            self.say(match action {
                PowerAction::Reboot => "init: going down to reboot",
                PowerAction::Off => "init: going down to power off",
            });
            self.shutdown = Some(Shutdown { phase: Phase::Deciders, action });
            let now = Instant::now();
            self.stop_services(now, |name| name == power::DECIDER);
        }
    }

    fn descend(&mut self, now: Instant) {
        while let Some(shutdown) = &mut self.shutdown {
            let alive = |service: &Service| service::pid(service.state).is_some();
            let is_decider = |service: &&Service| service.entry.name == power::DECIDER;
            let running = Running {
                decider: self.services.iter().filter(is_decider).any(alive),
                workloads: self.workloads.any_running() || cgroup::work_is_populated(),
                services: self.services.iter().any(alive),
            };
            let (phase, action) = power::step(shutdown.phase, running, now);
            shutdown.phase = phase;
            match action {
                power::Action::None | power::Action::Halt => return,
                power::Action::TerminateWorkloads => {
                    cgroup::open_all_disks();
                    self.workloads.terminate_all();
                }
                power::Action::KillWorkloads => {
                    if let Err(error) = cgroup::kill_all_work() {
                        self.say(&format!("init: killing workloads: {error}"));
                    }
                }
                power::Action::StopServices => self.stop_services(now, |_| true),
            }
        }
    }

    fn stop_services(&mut self, now: Instant, which: impl Fn(&str) -> bool) {
        for index in (0..self.services.len()).rev() {
            if which(self.services[index].entry.name) {
                self.happen(index, Event::Stop, now);
            }
        }
    }

    /// What is left when the way down has ended.
    pub(crate) fn is_down(&self) -> Option<PowerAction> {
        self.shutdown.filter(|shutdown| shutdown.phase == Phase::Halt).map(|it| it.action)
    }

    /// How long the loop may wait.
    pub(crate) fn patience(&self, now: Instant, until: Instant) -> Duration {
        let services = self.services.iter().filter_map(|service| service::deadline(service.state));
        let shutdown = self.shutdown.and_then(|shutdown| power::deadline(shutdown.phase));
        let later = [self.later, self.logs_after].into_iter().filter(|later| now < *later);
        let console = self.console.deadline(now);
        let due = services.chain(shutdown).chain(later).chain(console).fold(until, Instant::min);
        due.saturating_duration_since(now)
    }

    /// What the next PID 1 has to know, if this one crashes.
    pub(crate) fn to_saved(&self) -> Saved {
        Saved {
            started_ms: self.started_ms,
            ready_after_ms: self.ready_after_ms,
            previous_panic: self.previous_panic.clone(),
            services: self.services.iter().map(saved_service).collect(),
            workloads: self.workloads.by_id.iter().map(saved_workload).collect(),
            sections: self.board.sections.iter().map(SavedSection::from).collect(),
        }
    }

    /// Ends processes of services that the last state did not know: they were started just before
    /// the crash, and will be started again.
    pub(crate) fn kill_strangers(&mut self) {
        for service in &self.services {
            if service::pid(service.state).is_none() {
                // No such cgroup, no such process.
                drop(cgroup::kill_service(service.entry.name));
            }
        }
    }

    /// Takes over from a PID 1 that crashed.
    pub(crate) fn restore(&mut self, saved: Saved, now: Instant) {
        self.ready_after_ms = saved.ready_after_ms;
        self.previous_panic = saved.previous_panic;
        for section in saved.sections {
            // The bound that it fitted once still holds.
            drop(self.board.publish(&section.title, &section.facts));
        }
        for saved in saved.services {
            let Some(service) = self.services.iter_mut().find(|it| it.entry.name == saved.name)
            else {
                continue;
            };
            service.has_served = saved.has_served;
            service.starts = saved.starts;
            service.last_exit = saved.last_exit;
            service.ready = saved.ready.and_then(|fd| sys::process::inherited_fd(fd).ok());
            if let Some(pipe) = saved.log.and_then(|fd| sys::process::inherited_fd(fd).ok()) {
                service.log.attach(pipe);
            }
            let Some(pid) = saved.pid.and_then(Pid::from_raw) else { continue };
            let (state, _) = step(State::Blocked, Event::Spawned(pid), now);
            service.state = if saved.is_ready { step(state, Event::Ready, now).0 } else { state };
        }
        for saved in saved.workloads {
            let Some(pid) = Pid::from_raw(saved.pid) else { continue };
            let mut log = log::Log::default();
            if let Some(pipe) = saved.log.and_then(|fd| sys::process::inherited_fd(fd).ok()) {
                log.attach(pipe);
            }
            let pidfd = saved.pidfd.and_then(|fd| sys::process::inherited_fd(fd).ok());
            let adopted = Adopted { pid, pidfd, state: saved.state, log };
            self.workloads.by_id.insert(saved.id, adopted);
        }
        self.show_services();
    }
}

fn saved_service(service: &Service) -> SavedService {
    SavedService {
        name: service.entry.name.to_owned(),
        pid: service::pid(service.state).map(|pid| pid.as_raw_nonzero().get()),
        is_ready: matches!(service.state, State::Ready { .. }),
        has_served: service.has_served,
        ready: service.ready.as_ref().map(number),
        log: service.log.pipe().map(number),
        starts: service.starts,
        last_exit: service.last_exit.clone(),
    }
}

fn saved_workload((id, adopted): (&String, &Adopted)) -> SavedWorkload {
    SavedWorkload {
        id: id.clone(),
        pid: adopted.pid.as_raw_nonzero().get(),
        pidfd: adopted.pidfd.as_ref().map(number),
        log: adopted.log.pipe().map(number),
        state: adopted.state,
    }
}

fn number(fd: &impl AsRawFd) -> RawFd {
    fd.as_raw_fd()
}

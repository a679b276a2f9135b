//! The operations of the specification: create, start, kill, delete, and what lies between.

use super::{
    OciError, config,
    group::{self, Group, send},
    hooks::{self, Stage, Subject},
    plan::{self, Plan, Reach},
    record::{self, Lock, Place, Record, Status},
    terminal,
};
use crate::launch::{self, Console, Container, Namespaces, Scene};
use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal as Number, sigprocmask},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Signal, WaitId, WaitIdOptions, waitid},
};
use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

/// A killed process is gone by then.
const KILL_TIME: Duration = Duration::from_secs(10);
/// What `statfs` says of cgroup v2.
const CGROUP2: i64 = 0x6367_7270;

/// Only a kernel with `SELinux` has it.
const SELINUX: &str = "/sys/fs/selinux";

/// What `create` and `run` are told besides the bundle.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) bundle: Option<PathBuf>,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) console_socket: Option<PathBuf>,
    pub(super) reach: Reach,
}

/// Whether the process waits to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Wait,
    Execute,
}

/// Says what went wrong and does not stop anything.
pub(super) type Warn<'a> = &'a dyn Fn(&str) -> Result<(), OciError>;

/// Makes a container. Returns its process, a child of ours.
pub(super) fn create(
    root: &Path,
    id: &str,
    wanted: &Wanted,
    then: Then,
    warn: Warn<'_>,
) -> Result<OwnedFd, OciError> {
    plan::check_id(id)?;
    let bundle = wanted.bundle.clone().unwrap_or_else(|| PathBuf::from("."));
    let bundle = fs::canonicalize(&bundle).map_err(|source| OciError::file(&bundle, source))?;
    let config = read(&bundle.join("config.json"))?;
    let plan = plan::plan(id, &bundle, config::parse(&config)?, wanted.reach)?;
    if !plan.skipped.is_empty() {
        let names = plan.skipped.join(", ");
        warn(&format!("linux.seccomp: there are no such calls here, skipped: {names}"))?;
    }
    check_label(&plan, warn)?;
    let place = Place::new(root, id);
    // Until the process waits or executes.
    let _lock = place.claim().map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => OciError::Exists(id.to_owned()),
        io::ErrorKind::WouldBlock => OciError::Busy(id.to_owned()),
        _ => OciError::Record { id: id.to_owned(), source },
    })?;
    let subject = Subject::new(id, bundle, plan.annotations.clone());
    // With hooks, the program waits for them as it does after `create`.
    let held = if plan.hooks.is_empty() { then } else { Then::Wait };
    let made = make(&place, &plan, &subject, &config, wanted, held);
    let process = match made {
        Ok(process) => process,
        Err(error) => {
            // The first failure is the one to tell.
            place.remove().ok();
            if subject.was_told() {
                tell(&plan.hooks, Stage::Poststop, &subject, 0, warn).ok();
            }
            return Err(error);
        }
    };
    if held != then
        && let Err(error) = begin(root, id, warn)
    {
        // A hook that failed has ended it already. Otherwise nobody would start it, nor wait for it; the first
        // failure is the one to tell.
        if !matches!(error, OciError::Hook(_)) {
            remove(root, id, Force::Yes, warn).ok();
        }
        return Err(error);
    }
    Ok(process)
}

/// A label means nothing to a kernel that has none.
pub(super) fn check_label(plan: &Plan, warn: Warn<'_>) -> Result<(), OciError> {
    match plan.label {
        None => Ok(()),
        Some(what) if Path::new(SELINUX).exists() => Err(OciError::Label(what)),
        Some(what) => warn(&format!("{what}: this kernel has no labels of SELinux, skipped")),
    }
}

/// A file with a configuration; one that is too long is cut, and refused as such.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, OciError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(config::CONFIG_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|source| OciError::file(path, source))?;
    Ok(bytes)
}

fn make(
    place: &Place,
    plan: &Plan,
    subject: &Subject,
    config: &[u8],
    wanted: &Wanted,
    then: Then,
) -> Result<OwnedFd, OciError> {
    let recording = |source| OciError::Record { id: plan.id.clone(), source };
    let hold = match then {
        Then::Wait => Some(place.make_fifo().map_err(recording)?),
        Then::Execute => None,
    };
    let cgroup = hierarchy()?.join(&plan.cgroup);
    if cgroup.exists() {
        return Err(OciError::Group(cgroup));
    }
    place.keep(config, subject.bundle()).map_err(recording)?;
    place.announce(&cgroup).map_err(recording)?;
    let hand_over = |made: launch::Made| {
        let stat = record::stat(made.pid)?.ok_or(io::ErrorKind::NotFound)?;
        place.write(&Record {
            id: plan.id.clone(),
            pid: made.pid,
            start_time: stat.start_time,
            bundle: subject.bundle().to_owned(),
            rootfs: plan.rootfs.clone(),
            cgroup: cgroup.clone(),
            cgroup_id: made.cgroup,
            namespaces: made.namespaces,
            hooks: !plan.hooks.is_empty(),
            created: super::time::rfc3339(SystemTime::now()),
            annotations: plan.annotations.clone(),
        })?;
        match &wanted.pid_file {
            Some(path) => write_whole(path, &made.pid.to_string()),
            None => Ok(()),
        }
    };
    let hold = hold.as_ref().map(|fifo| fifo.as_fd());
    let socket = terminal::connect(plan.terminal, wanted.console_socket.as_deref())?;
    let terminal = terminal(plan, socket.as_ref(), Console::Mount);
    Ok(launch::create(plan, subject, &cgroup, hold, terminal, hand_over)?)
}

/// A hook of the start failed, so there shall be no container.
fn destroy(
    place: &Place,
    record: &Record,
    process: &OwnedFd,
    hooks: &hooks::Hooks,
    subject: &Subject,
    warn: Warn<'_>,
) -> Result<(), OciError> {
    let gone = end(record, process)
        .and_then(|()| group::remove(&record.cgroup, record.cgroup_id))
        .and_then(|()| place.remove());
    if let Err(error) = gone {
        warn(&format!("removing container {}: {error}", record.id))?;
    }
    tell(hooks, Stage::Poststop, subject, 0, warn)
}

/// The hooks that come too late to keep anybody from anything: one that fails is a warning, and the
/// others follow.
fn tell(
    hooks: &hooks::Hooks,
    stage: Stage,
    subject: &Subject,
    pid: i32,
    warn: Warn<'_>,
) -> Result<(), OciError> {
    for hook in hooks.at(stage) {
        if let Err(failure) = launch::run(hook, stage, subject, pid, Scene::Machine) {
            warn(&daemon::chain(&failure))?;
        }
    }
    Ok(())
}

/// What the container was made from, if that was kept.
pub(super) fn kept(id: &str, place: &Place) -> Result<Option<(config::Config, PathBuf)>, OciError> {
    let kept = place.kept();
    let kept = kept.map_err(|source| OciError::Record { id: id.to_owned(), source })?;
    kept.map(|(config, bundle)| Ok((config::parse(&config)?, bundle))).transpose()
}

/// The hooks of a container, with what they are told.
fn kept_hooks(id: &str, place: &Place) -> Result<Option<(hooks::Hooks, Subject)>, OciError> {
    let Some((config, bundle)) = kept(id, place)? else { return Ok(None) };
    let subject = Subject::new(id, bundle, config.annotations.unwrap_or_default());
    Ok(Some((hooks::plan(config.hooks.unwrap_or_default())?, subject)))
}

/// The terminal to be made, when somebody awaits it.
pub(super) fn terminal<'a>(
    plan: &Plan,
    socket: Option<&'a UnixStream>,
    console: Console,
) -> Option<launch::Terminal<'a>> {
    let size = plan.terminal?.size;
    Some(launch::Terminal { socket: socket?.as_fd(), size, console })
}

/// Whoever reads the file meanwhile sees nothing or all of it.
pub(super) fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    // What an earlier process left there; a link that somebody put there is not followed.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::create_new(&new)?.write_all(text.as_bytes())?;
    fs::rename(new, path)
}

/// Where cgroup v2 is: the whole hierarchy, or beside v1.
fn hierarchy() -> Result<&'static Path, OciError> {
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let is_v2 = |path: &&Path| rustix::fs::statfs(*path).is_ok_and(|stat| stat.f_type == CGROUP2);
    places.into_iter().find(is_v2).ok_or(OciError::NoCgroup)
}

/// Signals that are sent to us are meant for the container while we wait for it.
pub(super) fn block_signals() -> io::Result<SignalFd> {
    let mut all = SigSet::all();
    for ours in [Number::SIGCHLD, Number::SIGSEGV, Number::SIGBUS, Number::SIGFPE, Number::SIGILL] {
        all.remove(ours);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None)?;
    Ok(SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Waits for a child and passes on what we are sent. Gives its exit code, as a shell does.
pub(super) fn wait(process: &OwnedFd, signals: &SignalFd) -> io::Result<u8> {
    loop {
        let mut both = [
            PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        match poll(&mut both, None) {
            Err(Errno::INTR) => continue,
            done => done?,
        };
        let [ended, signalled] = both.map(|fd| !fd.revents().is_empty());
        if ended {
            break;
        }
        if signalled && let Some(info) = signals.read_signal()? {
            let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
            if let Some(signal) = Signal::from_named_raw(number) {
                send(process, signal)?;
            }
        }
    }
    let status = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED)?;
    let code = status.and_then(|status| {
        status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
    });
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

/// The record of a container that must exist.
pub(super) fn find(root: &Path, id: &str) -> Result<(Place, Record), OciError> {
    plan::check_id(id)?;
    let place = Place::new(root, id);
    match place.read() {
        Ok(record) => Ok((place, record)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && place.exists() => {
            Err(OciError::Creating(id.to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(OciError::Missing(id.to_owned()))
        }
        Err(source) => Err(OciError::Record { id: id.to_owned(), source }),
    }
}

pub(super) fn status(place: &Place, record: &Record) -> Result<Status, OciError> {
    place.status(record).map_err(|source| OciError::Record { id: record.id.clone(), source })
}

/// Nobody else changes this container until the lock is dropped.
fn lock(root: &Path, id: &str) -> Result<Lock, OciError> {
    plan::check_id(id)?;
    Place::new(root, id).lock(record::LOCK_TIME).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => OciError::Missing(id.to_owned()),
        io::ErrorKind::WouldBlock => OciError::Busy(id.to_owned()),
        _ => OciError::Record { id: id.to_owned(), source },
    })
}

/// A hook before the program that fails ends the container.
pub(super) fn start(root: &Path, id: &str, warn: Warn<'_>) -> Result<(), OciError> {
    let _lock = lock(root, id)?;
    begin(root, id, warn)
}

/// Lets a program begin. The caller has the lock.
fn begin(root: &Path, id: &str, warn: Warn<'_>) -> Result<(), OciError> {
    let (place, record) = find(root, id)?;
    let (process, fifo) = match status(&place, &record)? {
        Status::Created(process, fifo) => (process, fifo),
        other @ (Status::Running(_) | Status::Stopped) => {
            let status = other.name();
            return Err(OciError::State { id: id.to_owned(), what: "started", status });
        }
    };
    let release = || {
        record::release(&process, fifo)
            .map_err(|source| OciError::Record { id: id.to_owned(), source })
    };
    if !record.hooks {
        return release();
    }
    let Some((config, bundle)) = kept(id, &place)? else {
        return Err(OciError::Missing(id.to_owned()));
    };
    // How far it may reach was decided when it was made.
    let plan = plan::plan(id, &bundle, config, Reach::Machine)?;
    let subject = Subject::new(id, bundle, plan.annotations.clone());
    let before = if plan.hooks.at(Stage::StartContainer).is_empty() {
        Ok(())
    } else {
        inside(&record, &process, |container| {
            let scene = Scene::Inside(container, &plan);
            launch::run_all(&plan.hooks, Stage::StartContainer, &subject, record.pid, scene)
        })?
    };
    if let Err(failure) = before {
        // The first failure is the one to tell; what is left, `delete` takes.
        destroy(&place, &record, &process, &plan.hooks, &subject, warn).ok();
        return Err(OciError::Hook(failure));
    }
    release()?;
    tell(&plan.hooks, Stage::Poststart, &subject, record.pid, warn)
}

/// Opens a container for those who enter it: its own group, and the namespaces that it was made with.
pub(super) fn inside<T>(
    record: &Record,
    process: &OwnedFd,
    body: impl FnOnce(Container<'_>) -> T,
) -> Result<T, OciError> {
    let entering = |source| OciError::Enter { id: record.id.clone(), source };
    let group = group_of(record).map_err(|source| entering(Box::new(source)))?;
    let Some(group) = group else { return Err(OciError::NotRunning(record.id.clone())) };
    let namespaces = Namespaces::of(record.pid, process.as_fd())
        .map_err(|failure| entering(Box::new(failure)))?;
    if namespaces.ids() != record.namespaces {
        return Err(entering("its process has left the namespaces that were made for it".into()));
    }
    Ok(body(Container { namespaces: &namespaces, cgroup: Some(group.as_fd()) }))
}

/// To the first process, or to every one of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    First,
    All,
}

pub(super) fn kill(root: &Path, id: &str, signal: Signal, whom: Whom) -> Result<(), OciError> {
    let (place, record) = find(root, id)?;
    let signalling = |source| OciError::Signal { id: id.to_owned(), source };
    match (status(&place, &record)?, whom) {
        (Status::Created(process, _) | Status::Running(process), Whom::First) => {
            send(&process, signal).map_err(signalling)
        }
        (Status::Stopped, Whom::First) => Err(OciError::NotRunning(id.to_owned())),
        (_, Whom::All) => match group_of(&record).map_err(signalling)? {
            Some(group) => group.signal(signal).map_err(signalling),
            None => Err(OciError::NotRunning(id.to_owned())),
        },
    }
}

/// Whether a container that has not ended is ended first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Force {
    No,
    Yes,
}

pub(super) fn delete(root: &Path, id: &str, force: Force, warn: Warn<'_>) -> Result<(), OciError> {
    let _lock = match lock(root, id) {
        Err(OciError::Missing(_)) if force == Force::Yes => return Ok(()),
        locked => locked?,
    };
    remove(root, id, force, warn)
}

/// The caller has the lock.
fn remove(root: &Path, id: &str, force: Force, warn: Warn<'_>) -> Result<(), OciError> {
    let recording = |source| OciError::Record { id: id.to_owned(), source };
    let (place, record) = match find(root, id) {
        Err(OciError::Creating(_)) if force == Force::Yes => {
            let place = Place::new(root, id);
            // Some of its hooks may have been run.
            let hooks = kept_hooks(id, &place);
            abandon(&place).map_err(recording)?;
            return after(hooks, warn);
        }
        found => found?,
    };
    match (status(&place, &record)?, force) {
        (Status::Stopped, _) => {}
        (Status::Created(process, _) | Status::Running(process), Force::Yes) => {
            end(&record, &process)
                .map_err(|source| OciError::Signal { id: id.to_owned(), source })?;
        }
        (other @ (Status::Created(..) | Status::Running(_)), Force::No) => {
            let status = other.name();
            return Err(OciError::State { id: id.to_owned(), what: "deleted", status });
        }
    }
    let hooks = if record.hooks { kept_hooks(id, &place) } else { Ok(None) };
    // Its group with all that still runs in it, then its record.
    group::remove(&record.cgroup, record.cgroup_id)
        .and_then(|()| place.remove())
        .map_err(recording)?;
    after(hooks, warn)
}

/// When a container is gone.
fn after(
    hooks: Result<Option<(hooks::Hooks, Subject)>, OciError>,
    warn: Warn<'_>,
) -> Result<(), OciError> {
    match hooks {
        Ok(Some((hooks, subject))) => tell(&hooks, Stage::Poststop, &subject, 0, warn),
        Ok(None) => Ok(()),
        Err(error) => warn(&daemon::chain(&error)),
    }
}

fn group_of(record: &Record) -> io::Result<Option<Group>> {
    Group::find(&record.cgroup, record.cgroup_id)
}

/// Removes what a killed creator left. Its process has ended or is about to; of its group only the
/// name is known, so one that keeps a process is not touched.
fn abandon(place: &Place) -> io::Result<()> {
    if let Some(cgroup) = place.announced()? {
        group::remove_unused(&cgroup)?;
    }
    place.remove()
}

fn end(record: &Record, process: &OwnedFd) -> io::Result<()> {
    if let Some(group) = group_of(record)? {
        group.signal(Signal::KILL)?;
    }
    send(process, Signal::KILL)?;
    let deadline = Instant::now() + KILL_TIME;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            done => return Ok(done.map(drop)?),
        }
    }
}

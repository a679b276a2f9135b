//! The operations of the specification: create, start, kill, delete, and what lies between.

use super::{
    OciError, config,
    group::{self, Group, send},
    plan::{self, Plan},
    record::{self, Lock, Place, Record, Status},
};
use crate::launch;
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
    fs,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

/// A killed process is gone by then.
const KILL_TIME: Duration = Duration::from_secs(10);
/// What `statfs` says of cgroup v2.
const CGROUP2: i64 = 0x6367_7270;

/// What `create` and `run` are told besides the bundle.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) bundle: Option<PathBuf>,
    pub(super) pid_file: Option<PathBuf>,
}

/// Whether the process waits to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Wait,
    Execute,
}

/// Makes a container. Returns its process, a child of ours.
pub(super) fn create(
    root: &Path,
    id: &str,
    wanted: &Wanted,
    then: Then,
    warn: &dyn Fn(&str) -> Result<(), OciError>,
) -> Result<OwnedFd, OciError> {
    plan::check_id(id)?;
    let bundle = wanted.bundle.clone().unwrap_or_else(|| PathBuf::from("."));
    let bundle = fs::canonicalize(&bundle).map_err(|source| OciError::file(&bundle, source))?;
    let plan = load(id, &bundle)?;
    if !plan.skipped.is_empty() {
        let names = plan.skipped.join(", ");
        warn(&format!("linux.seccomp: there are no such calls here, skipped: {names}"))?;
    }
    let place = Place::new(root, id);
    // Until the process waits or executes.
    let _lock = place.claim().map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => OciError::Exists(id.to_owned()),
        io::ErrorKind::WouldBlock => OciError::Busy(id.to_owned()),
        _ => OciError::Record { id: id.to_owned(), source },
    })?;
    let made = make(&place, &plan, bundle, wanted.pid_file.as_deref(), then);
    if made.is_err() {
        // The first failure is the one to tell.
        place.remove().ok();
    }
    made
}

fn load(id: &str, bundle: &Path) -> Result<Plan, OciError> {
    let path = bundle.join("config.json");
    let mut bytes = Vec::new();
    fs::File::open(&path)
        .and_then(|file| file.take(config::CONFIG_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|source| OciError::file(&path, source))?;
    Ok(plan::plan(id, bundle, config::parse(&bytes)?)?)
}

fn make(
    place: &Place,
    plan: &Plan,
    bundle: PathBuf,
    pid_file: Option<&Path>,
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
    place.announce(&cgroup).map_err(recording)?;
    let hand_over = |pid: i32, cgroup_id| {
        let stat = record::stat(pid)?.ok_or(io::ErrorKind::NotFound)?;
        place.write(&Record {
            id: plan.id.clone(),
            pid,
            start_time: stat.start_time,
            bundle,
            rootfs: plan.rootfs.clone(),
            cgroup: cgroup.clone(),
            cgroup_id,
            created: super::time::rfc3339(SystemTime::now()),
            annotations: plan.annotations.clone(),
        })?;
        match pid_file {
            Some(path) => write_whole(path, &pid.to_string()),
            None => Ok(()),
        }
    };
    let hold = hold.as_ref().map(|fifo| fifo.as_fd());
    Ok(launch::create(plan, &cgroup, hold, hand_over)?)
}

/// Whoever reads the file meanwhile sees nothing or all of it.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, text)?;
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

pub(super) fn start(root: &Path, id: &str) -> Result<(), OciError> {
    let _lock = lock(root, id)?;
    let (place, record) = find(root, id)?;
    match status(&place, &record)? {
        Status::Created(process, fifo) => record::release(&process, fifo)
            .map_err(|source| OciError::Record { id: id.to_owned(), source }),
        other @ (Status::Running(_) | Status::Stopped) => {
            Err(OciError::State { id: id.to_owned(), what: "started", status: other.name() })
        }
    }
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

pub(super) fn delete(root: &Path, id: &str, force: Force) -> Result<(), OciError> {
    let recording = |source| OciError::Record { id: id.to_owned(), source };
    let _lock = match lock(root, id) {
        Err(OciError::Missing(_)) if force == Force::Yes => return Ok(()),
        locked => locked?,
    };
    let (place, record) = match find(root, id) {
        Err(OciError::Creating(_)) if force == Force::Yes => {
            return abandon(&Place::new(root, id)).map_err(recording);
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
    // Its group with all that still runs in it, then its record.
    group::remove(&record.cgroup, record.cgroup_id).and_then(|()| place.remove()).map_err(recording)
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

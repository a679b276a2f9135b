//! What is known of a container between two calls: a directory with a record and, until the
//! container is started, the FIFO at which its process waits.
//!
//! ```text
//! mkdir ──► process made ──► state.json ──► released: waits at the FIFO `start` ──► executes
//! (claims the id)            (by rename)    created                                running
//! ```
//!
//! Nothing in a record changes, so nothing in it can be stale: whether the process waits, runs or
//! has ended is asked of the kernel each time. The directory is memory (`/run`), so nothing is
//! synced. A caller that is killed between the claim and the record leaves a directory with the name
//! of a cgroup, and its process ends with it; `delete --force` removes both.
//!
//! Whoever creates, starts or deletes holds a lock on the directory meanwhile, so that of two such
//! calls one comes after the other. The kernel lets it go with its holder. Nobody waits for it to look
//! or to send a signal.

use super::group::GroupId;
use crate::check::IDS;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{
        CWD, FileType, FlockOperation, Mode, OFlags, flock, fstat, mknodat, openat, stat as look,
    },
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::{DirBuilderExt as _, symlink},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Bytes of a record: annotations are all that can be long.
const RECORD_MAX: u64 = 2 << 20;
/// Containers that are listed.
pub(super) const LISTED_MAX: usize = IDS as usize;
/// A process that was released executes within this time, or it has a problem of its own.
const START_TIME: Duration = Duration::from_secs(10);
/// Another call has done its work by then, also one that sets up a container for as long as it may,
/// unless its container keeps it waiting.
pub(super) const LOCK_TIME: Duration = Duration::from_secs(30);
/// Between two tries to have it.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A container, as it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) pid: i32,
    /// In clock ticks since boot: with the pid it names one process for ever.
    pub(super) start_time: u64,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) cgroup: PathBuf,
    pub(super) cgroup_id: GroupId,
    /// Those that the process was made in.
    pub(super) namespaces: Vec<u64>,
    /// Whether the configuration has any.
    pub(super) hooks: bool,
    /// RFC 3339.
    pub(super) created: String,
    pub(super) annotations: BTreeMap<String, String>,
}

/// Where a container is in its life.
#[derive(Debug)]
pub(super) enum Status {
    /// Waits; whoever writes a byte into the FIFO starts it.
    Created(OwnedFd, fs::File),
    /// With its process.
    Running(OwnedFd),
    Stopped,
}

impl Status {
    /// As the specification calls it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Created(..) => "created",
            Self::Running(_) => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// Held while a container changes.
#[derive(Debug)]
#[must_use]
pub(super) struct Lock(#[expect(dead_code, reason = "it is held")] OwnedFd);

/// The directory of one container.
#[derive(Debug, Clone)]
pub(super) struct Place(PathBuf);

impl Place {
    pub(super) fn new(root: &Path, id: &str) -> Self {
        Self(root.join(id))
    }

    /// Takes the id; fails when it is taken.
    pub(super) fn claim(&self) -> io::Result<Lock> {
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        match builder.create(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(root) = self.0.parent() {
                    fs::DirBuilder::new().mode(0o700).recursive(true).create(root)?;
                }
                builder.create(&self.0)
            }
            done => done,
        }?;
        self.lock(LOCK_TIME)
    }

    /// Waits so long while somebody else has it, then fails with [`io::ErrorKind::WouldBlock`].
    pub(super) fn lock(&self, patience: Duration) -> io::Result<Lock> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(CWD, &self.0, flags, Mode::empty())?;
        let deadline = Instant::now() + patience;
        while let Err(errno) = flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            if errno != Errno::WOULDBLOCK || Instant::now() >= deadline {
                return Err(errno.into());
            }
            std::thread::park_timeout(LOCK_PAUSE);
        }
        // Whoever had it may have removed the directory, and another may have its name.
        let (ours, named) = (fstat(&directory)?, look(&self.0)?);
        if (ours.st_dev, ours.st_ino) != (named.st_dev, named.st_ino) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Lock(directory))
    }

    /// Says which cgroup is made next, so that it can be removed when nobody comes to record it.
    pub(super) fn announce(&self, cgroup: &Path) -> io::Result<()> {
        fs::write(self.0.join("cgroup"), cgroup.as_os_str().as_bytes())
    }

    /// What was announced.
    pub(super) fn announced(&self) -> io::Result<Option<PathBuf>> {
        match fs::read(self.0.join("cgroup")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            done => Ok(Some(PathBuf::from(OsString::from_vec(done?)))),
        }
    }

    /// Keeps the configuration as it was when the container was made, and the path of its bundle.
    pub(super) fn keep(&self, config: &[u8], bundle: &Path) -> io::Result<()> {
        symlink(bundle, self.0.join("bundle"))?;
        fs::write(self.0.join("config.json"), config)
    }

    /// What was kept; a caller that was killed early may have kept nothing.
    pub(super) fn kept(&self) -> io::Result<Option<(Vec<u8>, PathBuf)>> {
        match fs::read(self.0.join("config.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            config => Ok(Some((config?, fs::read_link(self.0.join("bundle"))?))),
        }
    }

    /// Makes the FIFO and opens it in both directions: reading it waits and never ends.
    pub(super) fn make_fifo(&self) -> io::Result<OwnedFd> {
        let path = self.0.join("start");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        Ok(openat(CWD, &path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
    }

    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        let new = self.0.join("state.json.new");
        fs::write(&new, serde_json::to_vec(record)?)?;
        fs::rename(new, self.0.join("state.json"))
    }

    /// Fails with [`io::ErrorKind::NotFound`] when there is no container, or not yet.
    pub(super) fn read(&self) -> io::Result<Record> {
        let path = self.0.join("state.json");
        if fs::metadata(&path)?.len() > RECORD_MAX {
            return Err(io::Error::other("it is too long for a record"));
        }
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    pub(super) fn exists(&self) -> bool {
        self.0.exists()
    }

    /// Forgets the container. A second time there is nothing to do.
    pub(super) fn remove(&self) -> io::Result<()> {
        // The record first: without it there is no container, whatever else is left.
        for name in ["state.json", "state.json.new", "start", "cgroup", "config.json", "bundle"] {
            match fs::remove_file(self.0.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
        match fs::remove_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    pub(super) fn status(&self, record: &Record) -> io::Result<Status> {
        let Some(process) = process(record)? else { return Ok(Status::Stopped) };
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(CWD, self.0.join("start"), flags, Mode::empty()) {
            Ok(fifo) => Ok(Status::Created(process, fifo.into())),
            // The only reader is a process that waits; it closes the FIFO by executing.
            Err(Errno::NXIO | Errno::NOENT) => Ok(Status::Running(process)),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The process of a record, if it has not ended.
fn process(record: &Record) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(record.pid) else { return Ok(None) };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(None),
        done => done?,
    };
    // Asked after it was opened: if it is the process of the record, so is the descriptor.
    match stat(record.pid)? {
        Some(stat) if stat.start_time == record.start_time && !stat.has_ended => Ok(Some(process)),
        _ => Ok(None),
    }
}

/// What the kernel says of a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    has_ended: bool,
    pub(super) start_time: u64,
}

pub(super) fn stat(pid: i32) -> io::Result<Option<Stat>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => parse_stat(&text).map(Some).ok_or_else(|| io::Error::other("an odd stat")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `/proc/PID/stat` of proc(5): the name in parentheses may hold anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut words = rest.split_ascii_whitespace();
    let state = words.next()?;
    // The third word is the state, the 22nd the time of the start.
    let start_time = words.nth(18)?.parse().ok()?;
    Some(Stat { has_ended: matches!(state, "Z" | "X" | "x"), start_time })
}

/// Releases a created container, and returns when it executes its program or has ended.
pub(super) fn release(process: &OwnedFd, mut fifo: fs::File) -> io::Result<()> {
    io::Write::write_all(&mut fifo, b"1")?;
    let timeout = Timespec::try_from(START_TIME).map_err(io::Error::other)?;
    // The end of the last reader is an error of the pipe.
    let mut both = [
        PollFd::new(&fifo, PollFlags::empty()),
        PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN),
    ];
    loop {
        match poll(&mut both, Some(&timeout)) {
            Err(Errno::INTR) => {}
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            done => return Ok(done.map(drop)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            id: "c".to_owned(),
            pid: i32::try_from(std::process::id()).unwrap(),
            start_time: 0,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            cgroup: "/sys/fs/cgroup/zos-oci/c".into(),
            cgroup_id: GroupId::of(fs::File::open("/").unwrap()).unwrap(),
            namespaces: vec![1, 2],
            hooks: false,
            created: "2026-01-01T00:00:00Z".to_owned(),
            annotations: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        }
    }

    #[test]
    fn an_id_is_taken_once_and_free_after_its_removal() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::new(&root.path().join("deep"), "c");
        let lock = place.claim().unwrap();
        assert_eq!(place.claim().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        // One at a time.
        assert_eq!(place.lock(Duration::ZERO).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        assert_eq!(place.announced().unwrap(), None);
        place.announce(Path::new("/sys/fs/cgroup/c")).unwrap();
        assert_eq!(place.announced().unwrap(), Some("/sys/fs/cgroup/c".into()));
        assert_eq!(place.kept().unwrap(), None);
        place.keep(b"{}", Path::new("/b")).unwrap();
        assert_eq!(place.kept().unwrap(), Some((b"{}".to_vec(), "/b".into())));
        assert_eq!(place.read().unwrap_err().kind(), io::ErrorKind::NotFound);
        place.write(&record()).unwrap();
        assert_eq!(place.read().unwrap(), record());
        let lock = place.lock(Duration::ZERO).unwrap();
        place.remove().unwrap();
        place.remove().unwrap();
        assert_eq!(place.lock(Duration::ZERO).unwrap_err().kind(), io::ErrorKind::NotFound);
        // Not the directory that is locked.
        drop(place.claim().unwrap());
        drop(lock);
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::new(root.path(), "c");
        let _lock = place.claim().unwrap();
        // The number is ours, the time is not: somebody else had the number before us.
        let mut record = record();
        assert!(matches!(place.status(&record).unwrap(), Status::Stopped));
        record.start_time = stat(record.pid).unwrap().unwrap().start_time;
        assert!(matches!(place.status(&record).unwrap(), Status::Running(_)));
        // Somebody waits at the FIFO.
        let reader = place.make_fifo().unwrap();
        assert!(matches!(place.status(&record).unwrap(), Status::Created(..)));
        drop(reader);
        assert!(matches!(place.status(&record).unwrap(), Status::Running(_)));
        record.pid = i32::MAX;
        assert!(matches!(place.status(&record).unwrap(), Status::Stopped));
    }

    #[test]
    fn a_release_waits_until_the_reader_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::new(root.path(), "c");
        let _lock = place.claim().unwrap();
        let reader = place.make_fifo().unwrap();
        let mut record = record();
        record.start_time = stat(record.pid).unwrap().unwrap().start_time;
        let Status::Created(process, fifo) = place.status(&record).unwrap() else { panic!() };
        let waiting = std::thread::spawn(move || {
            let mut byte = [0];
            assert_eq!(rustix::io::read(&reader, &mut byte), Ok(1));
        });
        release(&process, fifo).unwrap();
        waiting.join().unwrap();
    }

    #[test]
    fn a_process_may_have_any_name() {
        let words = (4..=21).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let text = format!("7 (a) R (b)) Z {words} 12345 0 0");
        assert_eq!(parse_stat(&text), Some(Stat { has_ended: true, start_time: 12345 }));
        assert_eq!(parse_stat("7 (a) S 1 2"), None);
        assert_eq!(parse_stat(""), None);
    }
}

//! The cgroup of a container, between two calls: found again by its number, so that another group
//! that has its name now is never touched.

use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, fstat, openat},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// How often the removal of a cgroup is tried while the kernel lets its last process go.
const REMOVE_TRIES: u32 = 2000;
/// Groups of a container inside its group, one in the other.
const DEPTH_MAX: u32 = 16;
/// Processes of one container that get a signal.
const PROCESSES_MAX: usize = 65_536;
/// Of them, so many are open at a time.
const OPEN_MAX: usize = 256;
/// Bytes of `cgroup.procs`: a number and a newline for each process.
const LIST_MAX: u64 = PROCESSES_MAX as u64 * 11;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What names a cgroup as long as the machine runs: the kernel gives no number twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupId {
    device: u64,
    inode: u64,
}

impl GroupId {
    pub(crate) fn of(directory: impl AsFd) -> rustix::io::Result<Self> {
        let stat = fstat(directory)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

/// A cgroup that is there.
#[derive(Debug)]
pub(super) struct Group(OwnedFd);

impl Group {
    /// `None` when the group is gone, also if another has its name.
    pub(super) fn find(path: &Path, id: GroupId) -> io::Result<Option<Self>> {
        match openat(CWD, path, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            done => {
                let directory = done?;
                Ok((GroupId::of(&directory)? == id).then_some(Self(directory)))
            }
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sends a signal to every process in the group and in those below it.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        if signal == Signal::KILL {
            return self.kill();
        }
        let all: Vec<i32> = self.processes()?.into_iter().collect();
        for some in all.chunks(OPEN_MAX) {
            let mut opened = Vec::with_capacity(some.len());
            for pid in some {
                let Some(number) = Pid::from_raw(*pid) else { continue };
                match pidfd_open(number, PidfdFlags::empty()) {
                    Ok(process) => opened.push((pid, process)),
                    Err(Errno::SRCH) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            // A number may have gone to a process of others before it was opened. Whoever is a member
            // afterwards and still lives when the signal is sent is the one that was opened.
            let members = self.processes()?;
            for (pid, process) in opened {
                if members.contains(pid) {
                    send(&process, signal)?;
                }
            }
        }
        Ok(())
    }

    /// Ends everything in it; the kernel misses no process that is forked meanwhile.
    fn kill(&self) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(&self.0, "cgroup.kill", flags, Mode::empty()) {
            // It was removed meanwhile.
            Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            done => fs::File::from(done?).write_all(b"1"),
        }
    }

    fn processes(&self) -> io::Result<BTreeSet<i32>> {
        let mut all = BTreeSet::new();
        collect(self.0.as_fd(), DEPTH_MAX, &mut all)?;
        Ok(all)
    }
}

fn collect(directory: impl AsFd + Copy, depth: u32, all: &mut BTreeSet<i32>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut text = String::new();
    let read = openat(directory, "cgroup.procs", flags, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|file| fs::File::from(file).take(LIST_MAX).read_to_string(&mut text));
    match read.map_err(|error| (Errno::from_io_error(&error), error)) {
        // It was removed meanwhile; or it has threads of processes that are listed above it.
        Ok(_) | Err((Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP), _)) => {}
        Err((_, error)) => return Err(error),
    }
    let room = PROCESSES_MAX.saturating_sub(all.len());
    all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).take(room));
    for name in below(directory, depth)? {
        match openat(directory, name.as_c_str(), DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT | Errno::NODEV) => {}
            done => collect(done?.as_fd(), depth - 1, all)?,
        }
    }
    Ok(())
}

/// The names of the groups directly below one.
fn below(directory: impl AsFd, depth: u32) -> io::Result<Vec<std::ffi::CString>> {
    if depth == 0 {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = match entry {
            Err(Errno::NOENT | Errno::NODEV) => break,
            done => done?,
        };
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

pub(super) fn send(process: &OwnedFd, signal: Signal) -> io::Result<()> {
    match pidfd_send_signal(process, signal) {
        // It ended meanwhile.
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes a group with all that still runs in it and all groups below it, if it still is the one
/// with this number.
pub(super) fn remove(path: &Path, id: GroupId) -> io::Result<()> {
    let Some(group) = Group::find(path, id)? else { return Ok(()) };
    group.kill()?;
    remove_below(&group.0, path, DEPTH_MAX)?;
    let gone = || Ok(Group::find(path, id)?.is_none() || remove_empty(path)?);
    if soon(gone)? { Ok(()) } else { Err(Errno::BUSY.into()) }
}

fn remove_below(directory: &OwnedFd, path: &Path, depth: u32) -> io::Result<()> {
    for name in below(directory, depth)? {
        let path = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        match openat(directory, name.as_c_str(), DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT | Errno::NODEV) => continue,
            done => remove_below(&done?, &path, depth - 1)?,
        }
        // If it stays, so does the group above it, which is told.
        soon(|| remove_empty(&path))?;
    }
    Ok(())
}

/// Removes a group if its last process leaves it soon. One that has a process stays.
pub(super) fn remove_unused(path: &Path) -> io::Result<()> {
    soon(|| remove_empty(path)).map(drop)
}

fn soon(done: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
    for _ in 0..REMOVE_TRIES {
        if done()? {
            return Ok(true);
        }
        std::thread::yield_now();
    }
    Ok(false)
}

/// Whether a group without processes was removed, or is gone. Other groups stay.
fn remove_empty(path: &Path) -> io::Result<bool> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        // A process that leaves, one that stays, or groups of the container's own.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_the_same_name_is_another() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("c");
        fs::create_dir(&path).unwrap();
        let first = fs::File::open(&path).unwrap();
        let id = GroupId::of(&first).unwrap();
        assert!(Group::find(&path, id).unwrap().is_some());
        // The number of the first stays taken while it is open.
        fs::remove_dir(&path).unwrap();
        assert!(Group::find(&path, id).unwrap().is_none());
        fs::create_dir(&path).unwrap();
        assert!(Group::find(&path, id).unwrap().is_none());
        remove(&path, id).unwrap();
        assert!(path.exists());
    }

    #[test]
    fn processes_of_groups_below_belong_to_a_group() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir_all(parent.path().join("a/b")).unwrap();
        fs::write(parent.path().join("cgroup.procs"), "0\n7\n").unwrap();
        fs::write(parent.path().join("a/b/cgroup.procs"), "8\n").unwrap();
        let id = GroupId::of(fs::File::open(parent.path()).unwrap()).unwrap();
        let group = Group::find(parent.path(), id).unwrap().unwrap();
        assert_eq!(group.processes().unwrap(), BTreeSet::from([0, 7, 8]));
    }
}

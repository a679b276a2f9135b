//! The cgroup v2 tree: `system/<service>` with guaranteed memory, `work/<id>` for workloads.
//!
//! Refuses ids that are not `[a-z0-9-]{1,64}`: they are names of directories here.

use crate::table::Entry;
use node_api::paths::{CGROUP, CGROUP_SYSTEM, CGROUP_WORK};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// What workloads and daemons are accounted for.
const CONTROLLERS: &str = "+cpu +memory +io +pids +cpuset";
/// PID 1 itself.
const INIT_MEMORY_MIN_MIB: u32 = 8;
/// A container may make cgroups of its own inside its own, this deep.
const DEPTH_MAX: usize = 8;

/// Makes the tree. Returns what failed, as sentences.
pub(crate) fn prepare(services: &[Entry]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut note = |attempt: &str, done: io::Result<()>| {
        if let Err(error) = done {
            problems.push(format!("{attempt}: {error}"));
        }
    };
    note(
        "enabling cgroup controllers",
        write(Path::new(CGROUP), "cgroup.subtree_control", CONTROLLERS),
    );
    for directory in [CGROUP_SYSTEM, CGROUP_WORK] {
        note("making cgroup", make(Path::new(directory)));
        note(
            "enabling controllers of a cgroup",
            write(Path::new(directory), "cgroup.subtree_control", CONTROLLERS),
        );
    }
    let total = services.iter().map(|service| service.memory_min_mib).sum::<u32>();
    let guaranteed = total + INIT_MEMORY_MIN_MIB;
    let system = Path::new(CGROUP_SYSTEM);
    note("guaranteeing memory", write(system, "memory.min", &format!("{guaranteed}M")));
    // When everything is busy, daemons come first.
    note("weighing daemons", write(system, "cpu.weight", "1000"));
    let leaves = services.iter().map(|service| (service.name, service.memory_min_mib));
    for (name, memory_min_mib) in leaves.chain([("init", INIT_MEMORY_MIN_MIB)]) {
        let leaf = system.join(name);
        note("making cgroup", make(&leaf));
        note("guaranteeing memory", write(&leaf, "memory.min", &format!("{memory_min_mib}M")));
    }
    note("entering a cgroup", write(&system.join("init"), "cgroup.procs", "1"));
    problems
}

/// `cgroup.procs` of a service, for its first process.
pub(crate) fn service_procs(name: &str) -> io::Result<OwnedFd> {
    let path = Path::new(CGROUP_SYSTEM).join(name).join("cgroup.procs");
    OpenOptions::new().write(true).open(path).map(File::into)
}

/// Kills what a service left behind, for example a program that it had started.
pub(crate) fn kill_service(name: &str) -> io::Result<()> {
    write(&Path::new(CGROUP_SYSTEM).join(name), "cgroup.kill", "1")
}

/// Kills every process of a workload.
pub(crate) fn kill_work(id: &str) -> io::Result<()> {
    let work = work(id)?;
    open_disks(&work);
    write(&work, "cgroup.kill", "1")
}

/// Kills every process of every workload.
pub(crate) fn kill_all_work() -> io::Result<()> {
    open_all_disks();
    write(Path::new(CGROUP_WORK), "cgroup.kill", "1")
}

/// Lifts the limits of disks of every workload: nothing that is to end waits for what was written.
pub(crate) fn open_all_disks() {
    for entry in fs::read_dir(CGROUP_WORK).into_iter().flatten().flatten() {
        open_disks(&entry.path());
    }
}

/// Lifts the limits of disks of one workload. What it has written and is not on the disk yet would be slowed
/// down also when its processes are gone, and whoever waits for the file system with it.
fn open_disks(work: &Path) {
    let limits = fs::read_to_string(work.join("io.max")).unwrap_or_default();
    for line in opened(&limits) {
        // A disk that is gone has nothing to write any more.
        write(work, "io.max", &line).ok();
    }
}

/// What lifts the limits of an `io.max`, disk by disk.
fn opened(limits: &str) -> impl Iterator<Item = String> {
    let disks = limits.lines().filter_map(|line| line.split_whitespace().next());
    disks.map(|disk| format!("{disk} rbps=max wbps=max riops=max wiops=max"))
}

/// Whether a process of any workload is left.
pub(crate) fn work_is_populated() -> bool {
    let events = fs::read_to_string(Path::new(CGROUP_WORK).join("cgroup.events"));
    events.is_ok_and(|text| text.lines().any(|line| line == "populated 1"))
}

/// Removes the cgroup of a workload that has no process left. Nothing to remove is success.
pub(crate) fn remove_work(id: &str) -> io::Result<()> {
    let work = work(id)?;
    open_disks(&work);
    remove_tree(&work, DEPTH_MAX)
}

/// Whether an id may name a directory.
pub(crate) fn is_id(id: &str) -> bool {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=64).contains(&id.len()) && id.bytes().all(good)
}

fn work(id: &str) -> io::Result<PathBuf> {
    if is_id(id) {
        Ok(Path::new(CGROUP_WORK).join(id))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "the id is not [a-z0-9-]{1,64}"))
    }
}

/// Cgroups are removed leaf by leaf; their files go with them. One that is gone is removed: the launcher
/// removes that of a health check itself, perhaps now.
fn remove_tree(path: &Path, depth: usize) -> io::Result<()> {
    match remove_children(path, depth).and_then(|()| fs::remove_dir(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn remove_children(path: &Path, depth: usize) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && depth > 0 {
            remove_tree(&entry.path(), depth - 1)?;
        }
    }
    Ok(())
}

fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

fn write(directory: &Path, file: &str, text: &str) -> io::Result<()> {
    fs::write(directory.join(file), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_never_leaves_its_directory() {
        for good in ["a", "c-1", &"x".repeat(64)] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", "..", "a/b", "A", "a.b", "a\0", "é", &"x".repeat(65)] {
            assert!(!is_id(bad), "{bad}");
            assert_eq!(work(bad).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn limits_of_disks_are_lifted_disk_by_disk() {
        let limits = "254:0 rbps=max wbps=65536 riops=max wiops=max\n8:16 rbps=9 wbps=max riops=max wiops=7\n";
        let wanted =
            ["254:0", "8:16"].map(|disk| format!("{disk} rbps=max wbps=max riops=max wiops=max"));
        assert_eq!(opened(limits).collect::<Vec<_>>(), wanted);
        assert_eq!(opened("").count(), 0);
    }

    #[test]
    fn a_tree_is_removed_leaf_first() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("work");
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        remove_tree(&root, DEPTH_MAX).unwrap();
        assert!(!root.exists());
        remove_tree(&root, DEPTH_MAX).expect("who was quicker is no failure");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("file"), "").unwrap();
        assert!(remove_tree(&root, DEPTH_MAX).is_err(), "what is there and stays is one");
    }
}

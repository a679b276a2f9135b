//! Network namespaces of containers, each pinned by a file under `/run/zos/netns`.
//!
//! A thread belongs to one namespace. Whatever must happen inside another is done by a thread that
//! is made for it and ends with it, so that no thread of ours is ever left in a wrong one.

use crate::paths::PROC_NET;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use node_api::paths::NETNS;
use rustix::fs::statfs;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
};

/// File system of the files that stand for a namespace (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// File that pins the namespace of a container.
pub(crate) fn path(id: &str) -> PathBuf {
    Path::new(NETNS).join(id)
}

/// Ids of all pinned namespaces.
pub(crate) fn list() -> io::Result<BTreeSet<String>> {
    let entries = match fs::read_dir(NETNS) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let mut ids = BTreeSet::new();
    for entry in entries {
        let entry = entry?;
        let pinned = statfs(entry.path())?.f_type == NSFS_MAGIC;
        if let (true, Ok(id)) = (pinned, entry.file_name().into_string()) {
            ids.insert(id);
        }
    }
    Ok(ids)
}

/// Removes files that pin nothing: a former run was killed between two steps.
pub(crate) fn sweep() -> io::Result<()> {
    let pinned = list()?;
    let entries = match fs::read_dir(NETNS) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(|id| pinned.contains(id)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes a namespace and pins it.
pub(crate) fn create(id: &str) -> io::Result<()> {
    fs::create_dir_all(NETNS)?;
    let file = path(id);
    File::create(&file)?;
    in_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        // Containers own no namespace of the network, and may serve on any port nevertheless.
        fs::write(format!("{PROC_NET}/ipv4/ip_unprivileged_port_start"), "0")?;
        quiet_ipv6("default")?;
        let own = Path::new("/proc/thread-self/ns/net");
        mount(Some(own), &file, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    })
}

/// Unpins a namespace; the kernel removes it with its last process. One that does not exist is not
/// an error.
pub(crate) fn remove(id: &str) -> io::Result<()> {
    let file = path(id);
    match umount2(&file, MntFlags::MNT_DETACH) {
        // Not pinned, or not there.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Runs `body` in the namespace of container `id`.
pub(crate) fn within<T: Send>(
    id: &str,
    body: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let file = File::open(path(id))?;
    in_thread(move || {
        setns(file, CloneFlags::CLONE_NEWNET)?;
        body()
    })
}

/// Switches IPv6 off for a link, or for the links that come (`default`): containers have IPv4 only.
/// A kernel without IPv6 has nothing to switch off.
pub(crate) fn quiet_ipv6(link: &str) -> io::Result<()> {
    match fs::write(format!("{PROC_NET}/ipv6/conf/{link}/disable_ipv6"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn in_thread<T: Send>(body: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread =
            thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, body)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread of a namespace panicked")))
    })
}

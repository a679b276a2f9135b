//! Makes the process of an OCI bundle: the same child as for the node's containers, with what the
//! configuration asks for instead of the node's walls.
//!
//! Joins the namespaces that others made and stays in them: for a process that does nothing else.

use super::{
    Process as Started,
    cgroup::Group,
    child::{Body, Executable},
    devices::{self, Covers},
    entry,
    failure::{Context as _, Failure, fail},
    setup::{Finish, Names, Place, Prepared, Process, Setup, Source},
};
use crate::{
    oci::{
        group::GroupId,
        mounts::{Depth, Mount, What},
        plan::{Kind, Plan},
    },
    reason::Reason,
};
use nix::sched::{CloneFlags, setns};
use rustix::{
    fs::{CWD, FileType, Gid, Mode, OFlags, fstat, openat},
    mount::{OpenTreeFlags, open_tree},
};
use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};
use sys::clone::{self, Parent, Spawn};

/// Makes the process, a child of ours, and leads it to its program, or to the FIFO `hold`.
///
/// `hand_over` records the process and its cgroup before it is released. On failure nothing of them
/// is left. A cgroup that is there already is somebody else's.
pub(crate) fn create(
    plan: &Plan,
    cgroup: &Path,
    hold: Option<BorrowedFd<'_>>,
    hand_over: impl FnOnce(i32, GroupId) -> io::Result<()>,
) -> Result<OwnedFd, Failure> {
    let (root, _) = tree(&plan.rootfs, Depth::All)
        .context(Reason::ImageMissing, format!("opening {}", plan.rootfs.display()))?;
    let setup = setup(plan)?;
    let paths =
        entry::candidates(plan.args.first().map_or("", String::as_str), &plan.env, &plan.cwd)
            .into_iter()
            .map(CString::new)
            .collect::<Result<Vec<_>, _>>()
            .context(Reason::PlanInvalid, "naming the program")?;
    make_parents(cgroup, &plan.cgroup_settings)
        .context(Reason::LimitsRefused, format!("making the groups above {}", cgroup.display()))?;
    let settings = plan.cgroup_settings.iter().cloned();
    let group = Group::make(cgroup.to_owned(), &plan.id, settings)?;
    for (kind, path) in &plan.joined {
        join(*kind, path)
            .context(Reason::NamespaceFailed, format!("joining namespace {}", path.display()))?;
    }
    let body = Body {
        setup: &setup,
        staging: &plan.rootfs,
        root: root.as_fd(),
        program: Executable::Named(&paths),
        filters: plan.filter.as_slice(),
        domain: None,
        streams: None,
        hold,
        foreign: None,
    };
    let options =
        Spawn { namespaces: plan.namespaces, cgroup: Some(group.as_fd()), parent: Parent::Caller };
    let process = Started::spawn(&body, options)?;
    let pid = process.pid;
    let record = |group: &Group| {
        let recorded = || hand_over(pid, GroupId::of(group.as_fd())?);
        recorded().context(Reason::AdoptFailed, "recording the process")
    };
    process.bring_up(plan.maps.as_ref(), &Names::of(&setup), record, group)?;
    Ok(process.pidfd)
}

fn setup(plan: &Plan) -> Result<Setup, Failure> {
    let mut mounts = Vec::with_capacity(plan.mounts.len());
    let mut covers = None;
    for mount in &plan.mounts {
        mounts.push(prepare(mount, plan.owner, &mut covers)?);
    }
    let Some(covers) = covers else {
        return fail(Reason::PlanInvalid, "a container without /dev");
    };
    let strings = |all: &[String]| clone::Strings::new(all);
    let process = || {
        Ok::<_, io::Error>(Process {
            argv: strings(&plan.args)?,
            envp: strings(&plan.env)?,
            cwd: CString::new(plan.cwd.as_str())?,
            uid: plan.uid,
            gid: plan.gid,
            groups: plan.groups.iter().map(|group| Gid::from_raw(*group)).collect(),
            capabilities: plan.capabilities,
            privileges: plan.privileges,
            limits: plan.limits.clone(),
            umask: plan.umask,
        })
    };
    Ok(Setup {
        settings: plan.settings.clone(),
        kernel: Vec::new(),
        covers,
        mounts,
        masked: plan.masked.clone(),
        read_only: plan.read_only.clone(),
        finish: if plan.root_is_read_only {
            Finish::RemoveMasksAndLock
        } else {
            Finish::RemoveMasks
        },
        hostname: plan.hostname.clone(),
        process: process().context(Reason::PlanInvalid, "preparing arguments")?,
    })
}

/// `covers` comes with `/dev`, of which a plan has one.
fn prepare(
    mount: &Mount,
    owner: (u32, u32),
    covers: &mut Option<Covers>,
) -> Result<Prepared, Failure> {
    let (place, source) = match &mount.what {
        What::Dev { options } => {
            let dev = devices::prepare_writable(options, mount.attributes, owner)?;
            *covers = Some(dev.covers);
            (Place::Plain, Source::Ready(dev.mount))
        }
        What::New { kind, options } => {
            let options = options.clone();
            // Masks and read-only paths are found below these by name.
            let is_kernels = [c"proc", c"sysfs"].contains(kind);
            let place = if is_kernels { Place::Plain } else { Place::Directory };
            (place, Source::New { kind, options, attributes: mount.attributes })
        }
        What::Bind { source, depth } => {
            let open = || {
                let (tree, place) = tree(source, *depth)?;
                let known = sys::mount::RDONLY | sys::mount::NOSUID | sys::mount::NOEXEC;
                let attributes = u64::from(mount.attributes.bits()) & known;
                sys::mount::set_attributes(&tree, attributes, None)?;
                Ok::<_, io::Error>((place, Source::Ready(tree)))
            };
            open().context(Reason::MountFailed, format!("opening {}", source.display()))?
        }
    };
    Ok(Prepared { target: mount.target.clone(), place, source })
}

/// A detached copy of what is at `path`, private and without devices.
fn tree(path: &Path, depth: Depth) -> io::Result<(OwnedFd, Place)> {
    let file = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let place = match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::Directory => Place::Directory,
        _ => Place::File,
    };
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if depth == Depth::All {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(&file, "", flags)?;
    sys::mount::set_attributes_below(&tree, sys::mount::NODEV)?;
    Ok((tree, place))
}

/// The groups above `cgroup`, with the controllers that its settings need.
fn make_parents(cgroup: &Path, settings: &[(String, String)]) -> io::Result<()> {
    let Some(parent) = cgroup.parent() else { return Ok(()) };
    fs::create_dir_all(parent)?;
    let controllers = controllers(settings);
    let has = |path: &Path| {
        let on = fs::read_to_string(path.join("cgroup.subtree_control")).unwrap_or_default();
        controllers.iter().all(|wanted| on.split_whitespace().any(|one| one == *wanted))
    };
    if controllers.is_empty() || has(parent) {
        return Ok(());
    }
    let words: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
    let mut above: Vec<&Path> = parent.ancestors().collect();
    above.reverse();
    for path in above {
        let file = path.join("cgroup.subtree_control");
        if file.exists() {
            // Where it is not possible, the files of the limits are missing, and that is said.
            fs::write(file, words.join(" ")).ok();
        }
    }
    Ok(())
}

fn controllers(settings: &[(String, String)]) -> Vec<&str> {
    let mut names: Vec<&str> =
        settings.iter().filter_map(|(file, _)| Some(file.split_once('.')?.0)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn join(kind: Kind, path: &Path) -> io::Result<()> {
    let kind = match kind {
        Kind::Pid => CloneFlags::CLONE_NEWPID,
        Kind::Network => CloneFlags::CLONE_NEWNET,
        Kind::Ipc => CloneFlags::CLONE_NEWIPC,
        Kind::Uts => CloneFlags::CLONE_NEWUTS,
        Kind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        // The plan joins none of these.
        Kind::Mount | Kind::User => return Err(io::ErrorKind::Unsupported.into()),
    };
    let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(setns(file, kind)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_controller_is_named_once() {
        let settings = ["memory.max", "pids.max", "memory.low"];
        let settings = settings.map(|file| (file.to_owned(), String::new()));
        assert_eq!(controllers(&settings), ["memory", "pids"]);
        assert!(controllers(&[]).is_empty());
    }
}

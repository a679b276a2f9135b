//! Makes the process of an OCI bundle: the same child as for the node's containers, with what the
//! configuration asks for instead of the node's walls.
//!
//! Joins the namespaces that others made until the process is born in them, and goes home: hooks run in
//! ours.

use super::{
    OnTheWay, Process as Started,
    cgroup::Group,
    child::{Body, Midway},
    devices::{self, Covers},
    enter::{Container, Namespaces},
    entry,
    execution::{Executable, Execution, Mounts},
    failure::{Context as _, Failure, fail},
    hook::{Scene, run_all},
    setup::{Finish, Names, Order, Place, Prepared, Process, Setup, Source},
    terminal::Terminal,
};
use crate::{
    oci::{
        group::GroupId,
        hooks::{Stage, Subject},
        mounts::{Depth, Mount, Propagation, What},
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
    path::{Path, PathBuf},
};
use sys::clone::{self, Parent, Spawn};

/// A process that is about to execute its program, or to wait for that.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) pid: i32,
    pub(crate) cgroup: GroupId,
    pub(crate) namespaces: Vec<u64>,
}

/// Makes the process, a child of ours, and leads it to its program, or to the FIFO `hold`.
///
/// `hand_over` records the process and its cgroup before it is released. Hooks are run up to the
/// program: those of the start only if nobody waits at the FIFO, which somebody else releases. On
/// failure nothing of process and cgroup is left. A cgroup that is there already is somebody else's.
pub(crate) fn create(
    plan: &Plan,
    subject: &Subject,
    cgroup: &Path,
    hold: Option<BorrowedFd<'_>>,
    terminal: Option<Terminal<'_>>,
    hand_over: impl FnOnce(Made) -> io::Result<()>,
) -> Result<OwnedFd, Failure> {
    // A shared root is shared among the container's own namespaces: the machine sees none of its mounts.
    let of_source = match plan.propagation {
        Propagation::Slave => Propagation::Slave,
        Propagation::Private | Propagation::Shared | Propagation::Unbindable => {
            Propagation::Private
        }
    };
    let (root, _) = tree(&plan.rootfs, Depth::All, of_source)
        .context(Reason::ImageMissing, format!("opening {}", plan.rootfs.display()))?;
    let setup = setup(plan)?;
    let paths = programs(plan)?;
    make_parents(cgroup, &plan.cgroup_settings)
        .context(Reason::LimitsRefused, format!("making the groups above {}", cgroup.display()))?;
    let settings = plan.cgroup_settings.iter().cloned();
    let group = Group::make(cgroup.to_owned(), &plan.id, settings)?;
    sys::bpf::guard_devices(group.as_fd(), &plan.guard)
        .context(Reason::LimitsRefused, "putting the rules for devices in force")?;
    let execution = Execution {
        process: &setup.process,
        program: Executable::Named(&paths, Mounts::All),
        filters: plan.filter.as_slice(),
        domain: None,
        streams: &|| terminal.map_or(Ok(()), |terminal| terminal.connect(plan.uid)),
        hold,
    };
    let midway = if plan.hooks.is_empty() { Midway::GoOn } else { Midway::Wait };
    let staging = &plan.rootfs;
    let body =
        Body { setup: &setup, staging, root: root.as_fd(), midway, execution, foreign: None };
    let options =
        Spawn { namespaces: plan.namespaces, cgroup: Some(group.as_fd()), parent: Parent::Caller };
    let process =
        among(&plan.joined, || Started::spawn(options, |ends| body.become_program(ends)))?;
    let (pid, pidfd) = (process.pid, process.pidfd.as_fd());
    let mut run_hooks = |group: &Group| {
        let run = |stage, scene| run_all(&plan.hooks, stage, subject, pid, scene);
        run(Stage::Prestart, Scene::Machine)?;
        run(Stage::CreateRuntime, Scene::Machine)?;
        let namespaces = &Namespaces::of(pid, pidfd)?;
        let container = Container { namespaces, cgroup: Some(group.as_fd()) };
        run(Stage::CreateContainer, Scene::Namespaces(container))
    };
    let record = |group: &Group| {
        let namespaces = Namespaces::of(pid, pidfd)?;
        let recorded = || {
            let cgroup = GroupId::of(group.as_fd())?;
            hand_over(Made { pid, cgroup, namespaces: namespaces.ids().to_vec() })
        };
        recorded().context(Reason::AdoptFailed, "recording the process")
    };
    let midway: Option<&mut OnTheWay<'_>> =
        if midway == Midway::Wait { Some(&mut run_hooks) } else { None };
    process.bring_up(plan.maps.as_ref(), &Names::of(&setup), midway, record, group)?;
    Ok(process.pidfd)
}

/// Where the program may be.
pub(super) fn programs(plan: &Plan) -> Result<Vec<CString>, Failure> {
    let name = plan.args.first().map_or("", String::as_str);
    let paths = entry::candidates(name, &plan.env, &plan.cwd).into_iter().map(CString::new);
    paths.collect::<Result<_, _>>().context(Reason::PlanInvalid, "naming the program")
}

fn setup(plan: &Plan) -> Result<Setup, Failure> {
    let mut mounts = Vec::with_capacity(plan.mounts.len());
    let mut covers = None;
    for mount in &plan.mounts {
        mounts.push(prepare(mount, plan, &mut covers)?);
    }
    let Some(covers) = covers else {
        return fail(Reason::PlanInvalid, "a container without /dev");
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
        order: Order::Attached,
        propagation: plan.propagation.flag(),
        hostname: plan.hostname.clone(),
        process: process(plan, &plan.args, &plan.env, &plan.cwd)
            .context(Reason::PlanInvalid, "preparing arguments")?,
    })
}

/// What a process of the container has, with these words.
pub(super) fn process(
    plan: &Plan,
    args: &[String],
    env: &[String],
    cwd: &str,
) -> io::Result<Process> {
    Ok(Process {
        argv: clone::Strings::new(args)?,
        envp: clone::Strings::new(env)?,
        cwd: CString::new(cwd)?,
        uid: plan.uid,
        gid: plan.gid,
        groups: plan.groups.iter().map(|group| Gid::from_raw(*group)).collect(),
        capabilities: plan.capabilities,
        privileges: plan.privileges,
        limits: plan.limits.clone(),
        umask: plan.umask,
    })
}

/// The settings that are a process's own, not its namespaces'.
pub(super) fn own_settings(plan: &Plan) -> Vec<(CString, Vec<u8>)> {
    let is_own = |file: &CString| file.as_bytes().starts_with(b"/proc/self/");
    plan.settings.iter().filter(|(file, _)| is_own(file)).cloned().collect()
}

/// `covers` comes with `/dev`, of which a plan has one.
fn prepare(mount: &Mount, plan: &Plan, covers: &mut Option<Covers>) -> Result<Prepared, Failure> {
    let (place, source) = match &mount.what {
        What::Dev { options } => {
            let dev =
                devices::prepare_writable(options, mount.attributes, plan.owner, &plan.devices)?;
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
                let (tree, place) = tree(source, *depth, mount.propagation)?;
                let known = sys::mount::RDONLY | sys::mount::NOSUID | sys::mount::NOEXEC;
                let attributes = u64::from(mount.attributes.bits()) & known;
                sys::mount::set_attributes(&tree, attributes, None)?;
                Ok::<_, io::Error>((place, Source::Ready(tree)))
            };
            open().context(Reason::MountFailed, format!("opening {}", source.display()))?
        }
    };
    let propagation = mount.propagation.flag();
    Ok(Prepared { target: mount.target.clone(), place, source, propagation })
}

/// A detached copy of what is at `path`, without devices. One that cannot be copied becomes that only
/// when it is in its place.
fn tree(path: &Path, depth: Depth, propagation: Propagation) -> io::Result<(OwnedFd, Place)> {
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
    let propagation = match propagation {
        Propagation::Unbindable => Propagation::Private,
        Propagation::Private | Propagation::Slave | Propagation::Shared => propagation,
    };
    sys::mount::set_attributes_below(&tree, sys::mount::NODEV, propagation.flag())?;
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

/// Does something as a member of namespaces that others made.
fn among<T>(
    joined: &[(Kind, PathBuf)],
    body: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let open = |path: &Path| openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mut home = Vec::with_capacity(joined.len());
    for (kind, path) in joined {
        let enter = || {
            let (name, kind) = namespace(*kind)?;
            let ours = open(Path::new(&format!("/proc/self/ns/{name}")))?;
            setns(open(path)?, kind)?;
            Ok::<_, io::Error>((ours, kind))
        };
        home.push(
            enter().context(
                Reason::NamespaceFailed,
                format!("joining namespace {}", path.display()),
            )?,
        );
    }
    let done = body()?;
    for (ours, kind) in home {
        setns(ours, kind).context(Reason::NamespaceFailed, "leaving a namespace of others")?;
    }
    Ok(done)
}

fn namespace(kind: Kind) -> io::Result<(&'static str, CloneFlags)> {
    match kind {
        Kind::Pid => Ok(("pid", CloneFlags::CLONE_NEWPID)),
        Kind::Network => Ok(("net", CloneFlags::CLONE_NEWNET)),
        Kind::Ipc => Ok(("ipc", CloneFlags::CLONE_NEWIPC)),
        Kind::Uts => Ok(("uts", CloneFlags::CLONE_NEWUTS)),
        Kind::Cgroup => Ok(("cgroup", CloneFlags::CLONE_NEWCGROUP)),
        // The plan joins none of these.
        Kind::Mount | Kind::User => Err(io::ErrorKind::Unsupported.into()),
    }
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

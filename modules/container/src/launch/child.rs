//! What the child does between `clone3` and `execveat`: straight down, no loop without a table.
//!
//! Everything was opened and built by the launcher before; the child attaches, drops and executes.
//! Nothing of the container runs yet, so nobody races with it. No path of the root is resolved but
//! by `openat2` inside the root. It ends at the first failure and says which step it was.

use super::{
    devices,
    entry::Entry,
    failure::{Context as _, Failure},
    filter::Filters,
    landlock::Domain,
    mounts::Prepared,
    status::{self, Step, StepFailed},
};
use crate::reason::Reason;
use node_api::launcher::Start;
use rustix::{
    fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid, openat, openat2},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
        OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
        mount_change, move_mount, open_tree, unmount,
    },
    process::{Resource, Rlimit, chdir, fchdir, getrlimit, pivot_root, setrlimit, setsid, umask},
    thread::{CapabilitySet, CapabilitySets},
};
use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};
use sys::clone;

/// Capabilities of a process with user id 0 in the container: over its own user namespace, and so
/// over nothing but its own files and processes. Any other user has none.
const ROOT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// Written while the child still has the node's user id, which the kernel asks for. Each applies to
/// the namespaces of the writer alone, but the last, which applies to the writer.
const SETTINGS: [(&CStr, &[u8]); 3] = [
    // Memory files cannot be executed, whatever flags they are made with.
    (c"/proc/sys/vm/memfd_noexec", b"2"),
    // The surface behind nested user namespaces stays closed, also if a filter had a hole.
    (c"/proc/sys/user/max_user_namespaces", b"0"),
    // The launcher is protected from the memory killer, its children are not.
    (c"/proc/self/oom_score_adj", b"0"),
];

/// Files of the kernel about the node, hidden. One that does not exist is skipped. The command line
/// may hold a token with which machines are enrolled.
const MASKED_PROC: [&CStr; 12] = [
    c"acpi",
    c"asound",
    c"cmdline",
    c"interrupts",
    c"kcore",
    c"keys",
    c"key-users",
    c"latency_stats",
    c"sched_debug",
    c"scsi",
    c"timer_list",
    c"timer_stats",
];
/// The same below /sys.
const MASKED_SYS: [&CStr; 3] = [c"firmware", c"devices/virtual/powercap", c"kernel/security"];
/// Shown, but never written.
const READ_ONLY_PROC: [&CStr; 5] = [c"bus", c"fs", c"irq", c"sys", c"sysrq-trigger"];

/// Soft and hard limit; the launcher's own hard limit still bounds it.
const RESOURCE_LIMITS: [(Resource, u64, u64); 3] = [
    // The soft limit that select(2) can live with.
    (Resource::Nofile, 1024, 524_288),
    // A dump would be written by the node, on behalf of nobody.
    (Resource::Core, 0, 0),
    (Resource::Memlock, 8 << 20, 8 << 20),
];

const NO_SUID_DEV_EXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Every string that the child needs, made before it exists.
#[derive(Debug)]
pub(super) struct Strings {
    argv: clone::Strings,
    envp: clone::Strings,
    cwd: CString,
    program: CString,
}

impl Strings {
    pub(super) fn new(start: &Start, entry: &Entry) -> Result<Self, Failure> {
        let make = || {
            Ok::<_, std::io::Error>(Self {
                argv: clone::Strings::new(&start.command)?,
                envp: clone::Strings::new(&start.env)?,
                cwd: CString::new(start.cwd.as_str())?,
                program: entry
                    .script
                    .as_ref()
                    .map(|script| script.path.clone())
                    .unwrap_or_default(),
            })
        };
        make().context(Reason::PlanInvalid, "preparing arguments")
    }
}

/// Everything that the child uses. It inherits the descriptors under their numbers.
pub(super) struct Child<'a> {
    pub(super) start: &'a Start,
    pub(super) staging: &'a Path,
    pub(super) root: BorrowedFd<'a>,
    pub(super) dev: BorrowedFd<'a>,
    pub(super) sysfs: BorrowedFd<'a>,
    pub(super) mounts: &'a [Prepared],
    pub(super) entry: &'a Entry,
    pub(super) filters: &'a Filters,
    pub(super) domain: &'a Domain,
    pub(super) strings: &'a Strings,
    pub(super) stdin: BorrowedFd<'a>,
    pub(super) log: BorrowedFd<'a>,
    pub(super) gate: BorrowedFd<'a>,
    pub(super) status: BorrowedFd<'a>,
    /// The launcher's ends of the pipes. A copy here would keep the gate open after its death.
    pub(super) foreign: [BorrowedFd<'a>; 3],
}

type Done = Result<(), StepFailed>;

trait At<T> {
    fn at(self, step: Step) -> Result<T, StepFailed>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, step: Step) -> Result<T, StepFailed> {
        self.map_err(|errno| StepFailed { step, which: 0, errno })
    }
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, step: Step) -> Result<T, StepFailed> {
        self.map_err(|error| StepFailed {
            step,
            which: 0,
            errno: Errno::from_io_error(&error).unwrap_or(Errno::INVAL),
        })
    }
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, step: Step) -> Result<T, StepFailed> {
        self.map_err(|errno| Errno::from_raw_os_error(errno as i32)).at(step)
    }
}

impl Child<'_> {
    /// Never returns if all goes well.
    pub(super) fn run(&self) -> i32 {
        let Err(failed) = self.become_program() else { return 127 };
        // If nobody listens any more, the launcher is dead and nobody waits for the answer.
        rustix::io::write(self.status, &status::encode(Err(failed))).ok();
        127
    }

    fn become_program(&self) -> Done {
        clone::close_inherited(self.foreign).at(Step::Gate)?;
        self.wait_at_gate()?;
        for (file, value) in SETTINGS {
            write_setting(file, value).at(Step::Settings)?;
        }
        let root = self.attach_root()?;
        become_ids(0, 0).at(Step::Ids)?;
        self.mount_kernel_files()?;
        self.mount_own_files()?;
        self.mask()?;
        self.mount_volumes()?;
        nix::unistd::sethostname(&self.start.hostname).at(Step::Hostname)?;
        pivot(root).at(Step::Pivot)?;
        Self::limit()?;
        self.connect_streams()?;
        self.drop_privileges().at(Step::Privileges)?;
        self.domain.enter().at(Step::Domain)?;
        let program = self.entry.file.as_fd();
        // Before the working directory, which may be named through /proc/self/fd.
        clone::close_all_but([self.gate, self.status, program]).at(Step::Descriptors)?;
        self.enter_cwd().at(Step::Cwd)?;
        self.check_script()?;
        self.filters.install().at(Step::Filter)?;
        rustix::io::write(self.status, &status::encode(Ok(()))).at(Step::Gate)?;
        self.wait_at_gate()?;
        let strings = self.strings;
        let error = clone::execveat(program, &strings.program, &strings.argv, &strings.envp);
        Err(error).at(Step::Exec)
    }

    /// The launcher writes one byte for each gate; the end of the pipe is its death.
    fn wait_at_gate(&self) -> Done {
        match rustix::io::retry_on_intr(|| rustix::io::read(self.gate, &mut [0])).at(Step::Gate)? {
            0 => Err(Errno::PIPE).at(Step::Gate),
            _ => Ok(()),
        }
    }

    /// Attaches the root in the child's own mount namespace; below it, everything goes by this
    /// descriptor. Needs the node's user id, which may pass the launcher's directory.
    fn attach_root(&self) -> Result<BorrowedFd<'_>, StepFailed> {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).at(Step::Root)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(self.root, "", CWD, self.staging, flags).at(Step::Root)?;
        Ok(self.root)
    }

    fn mount_kernel_files(&self) -> Done {
        self.attach(self.dev, c"dev").at(Step::Dev)?;
        // The namespace still has the node's /proc, without which the kernel allows no new one.
        let hidden = [(c"hidepid", c"invisible")];
        let proc = new_mount(c"proc", &hidden, NO_SUID_DEV_EXEC).at(Step::Proc)?;
        self.attach(proc.as_fd(), c"proc").at(Step::Proc)?;
        self.attach(self.sysfs, c"sys").at(Step::Sys)?;
        let read_only = NO_SUID_DEV_EXEC | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let cgroup = new_mount(c"cgroup2", &[], read_only).at(Step::Cgroup)?;
        self.attach(cgroup.as_fd(), c"sys/fs/cgroup").at(Step::Cgroup)?;
        let terminal = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let pts = [(c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"gid", c"5")];
        let shm = [(c"mode", c"1777"), (c"size", c"64m"), (c"nr_inodes", c"16384")];
        for (name, options, attributes, target) in [
            (c"devpts", &pts[..], terminal, c"dev/pts"),
            (c"tmpfs", &shm[..], NO_SUID_DEV_EXEC, c"dev/shm"),
            (c"mqueue", &[], NO_SUID_DEV_EXEC, c"dev/mqueue"),
        ] {
            let mount = new_mount(name, options, attributes).at(Step::Ipc)?;
            self.attach(mount.as_fd(), target).at(Step::Ipc)?;
        }
        Ok(())
    }

    /// resolv.conf and the like. A symbolic link of the image under such a name is covered itself,
    /// not followed.
    fn mount_own_files(&self) -> Done {
        for (file, target) in devices::FILES {
            match self.target(target, OFlags::NOFOLLOW) {
                Ok(target) => self.cover(file, target.as_fd()).at(Step::Files)?,
                // The image has something else where /etc should be.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno).at(Step::Files),
            }
        }
        Ok(())
    }

    fn mask(&self) -> Done {
        for (directory, names) in [(c"proc", &MASKED_PROC[..]), (c"sys", &MASKED_SYS[..])] {
            let below = self.target(directory, OFlags::DIRECTORY).at(Step::Masks)?;
            for name in names {
                let Some(target) = inside(below.as_fd(), name).at(Step::Masks)? else { continue };
                let stat = rustix::fs::fstat(&target).at(Step::Masks)?;
                let mask = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
                    rustix::fs::FileType::Directory => devices::EMPTY,
                    _ => devices::NULL,
                };
                self.cover(mask, target.as_fd()).at(Step::Masks)?;
            }
        }
        let proc = self.target(c"proc", OFlags::DIRECTORY).at(Step::Masks)?;
        for name in READ_ONLY_PROC {
            let Some(target) = inside(proc.as_fd(), name).at(Step::Masks)? else { continue };
            let copy = clone_of(target.as_fd(), c"").at(Step::Masks)?;
            sys::mount::set_attributes(&copy, sys::mount::RDONLY, None).at(Step::Masks)?;
            attach_to(copy.as_fd(), target.as_fd()).at(Step::Masks)?;
        }
        Ok(())
    }

    fn mount_volumes(&self) -> Done {
        for (which, prepared) in (0..).zip(self.mounts) {
            let target = self.target(&prepared.target, OFlags::DIRECTORY).at(Step::Target);
            let target = target.map_err(|failed| StepFailed { which, ..failed })?;
            let attached = attach_to(prepared.mount.as_fd(), target.as_fd()).at(Step::Mount);
            attached.map_err(|failed| StepFailed { which, ..failed })?;
        }
        Ok(())
    }

    /// Opens a place in the root. Symbolic links are refused, wherever they lead.
    fn target(&self, path: impl rustix::path::Arg, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve =
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(self.root, path, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    fn attach(&self, mount: BorrowedFd<'_>, path: &CStr) -> rustix::io::Result<()> {
        let target = self.target(path, OFlags::DIRECTORY)?;
        attach_to(mount, target.as_fd())
    }

    /// Mounts a file or directory of the container's /dev over `target`. A copy is as read-only as
    /// the original.
    fn cover(&self, source: &str, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let copy = clone_of(self.dev, source)?;
        attach_to(copy.as_fd(), target)
    }

    fn limit() -> Done {
        for (resource, soft, hard) in RESOURCE_LIMITS {
            let ours = getrlimit(resource).maximum.unwrap_or(u64::MAX);
            let hard = hard.min(ours);
            let limit = Rlimit { current: Some(soft.min(hard)), maximum: Some(hard) };
            setrlimit(resource, limit).at(Step::Limits)?;
        }
        umask(Mode::from_raw_mode(0o022));
        setsid().at(Step::Limits)?;
        clone::reset_signals().at(Step::Limits)
    }

    fn connect_streams(&self) -> Done {
        rustix::stdio::dup2_stdin(self.stdin).at(Step::Descriptors)?;
        rustix::stdio::dup2_stdout(self.log).at(Step::Descriptors)?;
        rustix::stdio::dup2_stderr(self.log).at(Step::Descriptors)
    }

    /// The bounding set first, which needs capabilities; then the ids, then everything else.
    fn drop_privileges(&self) -> rustix::io::Result<()> {
        use rustix::thread;
        let start = self.start;
        let keep = if start.uid == 0 { ROOT_CAPABILITIES } else { CapabilitySet::empty() };
        for capability in CapabilitySet::all().difference(keep).iter() {
            match thread::remove_capability_from_bounding_set(capability) {
                // A capability that is younger than the kernel.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        thread::clear_ambient_capability_set()?;
        become_ids(start.uid, start.gid)?;
        let sets = CapabilitySets {
            effective: keep,
            permitted: keep,
            inheritable: CapabilitySet::empty(),
        };
        thread::set_capabilities(None, sets)?;
        thread::set_no_new_privs(true)
    }

    /// As the final user. Also makes sure that the directory is inside the root: the kernel gives
    /// no absolute path for one that is not.
    fn enter_cwd(&self) -> rustix::io::Result<()> {
        chdir(self.strings.cwd.as_c_str())?;
        let cwd = rustix::process::getcwd(Vec::new())?;
        if cwd.as_bytes().starts_with(b"/") { Ok(()) } else { Err(Errno::XDEV) }
    }

    /// A script is executed by its path: it has to be the file that was measured.
    fn check_script(&self) -> Done {
        let Some(script) = &self.entry.script else { return Ok(()) };
        let stat = rustix::fs::stat(script.path.as_c_str()).at(Step::Entry)?;
        if (stat.st_dev, stat.st_ino) == (script.device, script.inode) {
            Ok(())
        } else {
            Err(Errno::STALE).at(Step::Entry)
        }
    }
}

fn write_setting(file: &CStr, value: &[u8]) -> rustix::io::Result<()> {
    let fd = openat(CWD, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&fd, value).map(drop)
}

/// The launcher's child is a process with one thread, so the ids of the thread are its ids.
fn become_ids(uid: u32, gid: u32) -> rustix::io::Result<()> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

fn new_mount(
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn attach_to(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

fn clone_of(
    directory: BorrowedFd<'_>,
    path: impl rustix::path::Arg,
) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    open_tree(directory, path, flags)
}

/// Something below a directory of the kernel, on the same mount and without links; `None` when this
/// kernel has no such file.
fn inside(directory: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Option<OwnedFd>> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    match openat2(directory, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Makes `root` the root, and lets go of the node's.
fn pivot(root: BorrowedFd<'_>) -> rustix::io::Result<()> {
    fchdir(root)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}

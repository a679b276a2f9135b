//! What the child does between `clone3` and `execveat`: straight down, no loop without a table.
//!
//! Everything was opened and built by the launcher before; the child attaches, drops and executes.
//! Nothing of the container runs yet, so nobody races with it. No path of the root is resolved but
//! by `openat2` inside the root. It ends at the first failure and says which step it was.

use super::{
    entry::{self, Entry},
    landlock::Domain,
    setup::{Finish, Place, Prepared, Privileges, Setup, Source},
    status::{self, Step, StepFailed},
};
use rustix::{
    fs::{AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid, mkdirat, openat, openat2},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
        UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change,
        move_mount, open_tree, unmount,
    },
    process::{Rlimit, chdir, fchdir, pivot_root, setrlimit, setsid, umask},
    thread::CapabilitySet,
};
use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};
use sys::{clone, seccomp::Program};

/// Everything that the child uses. It inherits the descriptors under their numbers.
pub(super) struct Body<'a> {
    pub(super) setup: &'a Setup,
    /// A directory over which the root is attached for an instant.
    pub(super) staging: &'a Path,
    pub(super) root: BorrowedFd<'a>,
    pub(super) program: Executable<'a>,
    /// In the order in which they are installed.
    pub(super) filters: &'a [Program],
    pub(super) domain: Option<&'a Domain>,
    /// What becomes stdin, and what becomes stdout and stderr; as they are without.
    pub(super) streams: Option<[BorrowedFd<'a>; 2]>,
    /// A FIFO, open for reading and writing, at which the child waits once more before it executes:
    /// nobody has to live for that.
    pub(super) hold: Option<BorrowedFd<'a>>,
    /// The launcher's end of a pipe that must end with it.
    pub(super) foreign: Option<BorrowedFd<'a>>,
}

/// What is executed.
pub(super) enum Executable<'a> {
    /// The file that was measured.
    Measured(&'a Entry),
    /// The first of these paths that is an executable file for the process's user.
    Named(&'a [CString]),
}

/// The child, with its ends of the two pipes.
pub(super) struct Child<'a> {
    pub(super) body: &'a Body<'a>,
    pub(super) gate: BorrowedFd<'a>,
    pub(super) status: BorrowedFd<'a>,
    /// The launcher's ends. A copy here would keep the gate open after its death.
    pub(super) foreign: [BorrowedFd<'a>; 2],
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
        let Body { setup, program, .. } = self.body;
        clone::close_inherited(self.foreign).at(Step::Gate)?;
        if let Some(foreign) = self.body.foreign {
            clone::close_inherited([foreign]).at(Step::Gate)?;
        }
        self.wait_at_gate()?;
        leave_session_keyring().at(Step::Keys)?;
        for (file, value) in &setup.settings {
            write_setting(file, value).at(Step::Settings)?;
        }
        self.body.attach_root()?;
        become_ids(0, 0, &[]).at(Step::Ids)?;
        self.body.attach_all(&setup.kernel, Step::Kernel, Step::Kernel)?;
        self.body.mount_own_files()?;
        self.body.attach_all(&setup.mounts, Step::Target, Step::Mount)?;
        self.body.mask()?;
        self.body.finish()?;
        if let Some(hostname) = &setup.hostname {
            nix::unistd::sethostname(hostname).at(Step::Hostname)?;
        }
        pivot(self.body.root).at(Step::Pivot)?;
        self.body.limit()?;
        self.body.connect_streams()?;
        self.body.drop_privileges().at(Step::Privileges)?;
        if let Some(domain) = self.body.domain {
            domain.enter().at(Step::Domain)?;
        }
        let file = match program {
            Executable::Measured(entry) => entry.file.as_fd(),
            Executable::Named(_) => self.gate,
        };
        let hold = self.body.hold.unwrap_or(self.gate);
        // Before the working directory, which may be named through /proc/self/fd.
        clone::close_all_but([self.gate, self.status, file, hold]).at(Step::Descriptors)?;
        self.body.enter_cwd().at(Step::Cwd)?;
        let found = program.find()?;
        self.body.install_filters()?;
        rustix::io::write(self.status, &status::encode(Ok(()))).at(Step::Gate)?;
        self.wait_at_gate()?;
        self.wait_to_be_held()?;
        let process = &setup.process;
        let (file, path) = match &found {
            Found::Measured(file) => (*file, c""),
            Found::File(file) => (file.as_fd(), c""),
            Found::Path(path) => (CWD, *path),
        };
        Err(clone::execveat(file, path, &process.argv, &process.envp)).at(Step::Exec)
    }

    /// The launcher writes one byte for each gate; the end of the pipe is its death.
    fn wait_at_gate(&self) -> Done {
        match rustix::io::retry_on_intr(|| rustix::io::read(self.gate, &mut [0])).at(Step::Gate)? {
            0 => Err(Errno::PIPE).at(Step::Gate),
            _ => Ok(()),
        }
    }

    /// The launcher goes; whoever starts the container writes one byte into the FIFO.
    fn wait_to_be_held(&self) -> Done {
        let Some(hold) = self.body.hold else { return Ok(()) };
        clone::close_inherited([self.status]).at(Step::Gate)?;
        rustix::io::retry_on_intr(|| rustix::io::read(hold, &mut [0])).at(Step::Gate).map(drop)
    }
}

/// What is handed to the kernel.
enum Found<'a> {
    Measured(BorrowedFd<'a>),
    File(OwnedFd),
    Path(&'a CStr),
}

impl Executable<'_> {
    fn find(&self) -> Result<Found<'_>, StepFailed> {
        match self {
            Self::Measured(Entry { script: None, file, .. }) => Ok(Found::Measured(file.as_fd())),
            // A script is executed by its path: it has to be the file that was measured.
            Self::Measured(Entry { script: Some(script), .. }) => {
                let stat = rustix::fs::stat(script.path.as_c_str()).at(Step::Entry)?;
                if (stat.st_dev, stat.st_ino) == (script.device, script.inode) {
                    Ok(Found::Path(&script.path))
                } else {
                    Err(Errno::STALE).at(Step::Entry)
                }
            }
            Self::Named(paths) => {
                let mut last = Errno::NOENT;
                for path in *paths {
                    match named(path) {
                        Err(Errno::NOENT | Errno::NOTDIR) => {}
                        Err(errno) => last = errno,
                        Ok(found) => return Ok(found),
                    }
                }
                Err(last).at(Step::Entry)
            }
        }
    }
}

/// A file that the calling user may execute. It is not reached through the links of `/proc`, one of
/// which still leads to the program of the launcher.
fn named(path: &CStr) -> rustix::io::Result<Found<'_>> {
    let open = |flags| {
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
        openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
    };
    let (file, is_readable) = match open(OFlags::RDONLY) {
        // A program need not be readable.
        Err(Errno::ACCESS) => (open(OFlags::PATH)?, false),
        done => (done?, true),
    };
    let stat = rustix::fs::fstat(&file)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, rustix::fs::Access::EXEC_OK, AtFlags::EACCESS)?;
    if is_readable && entry::is_script(file.as_fd())? {
        Ok(Found::Path(path))
    } else {
        Ok(Found::File(file))
    }
}

impl Body<'_> {
    /// Attaches the root in the child's own mount namespace; below it, everything goes by this
    /// descriptor. Needs the node's user id, which may pass the launcher's directory.
    fn attach_root(&self) -> Done {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).at(Step::Root)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(self.root, "", CWD, self.staging, flags).at(Step::Root)
    }

    fn attach_all(&self, all: &[Prepared], target: Step, attach: Step) -> Done {
        for (which, one) in (0..).zip(all) {
            let place = self.place(one).at(target);
            let place = place.map_err(|failed| StepFailed { which, ..failed })?;
            let attached = attach_source(&one.source, place.as_fd()).at(attach);
            attached.map_err(|failed| StepFailed { which, ..failed })?;
        }
        Ok(())
    }

    fn place(&self, one: &Prepared) -> rustix::io::Result<OwnedFd> {
        match one.place {
            Place::Found => self.target(&one.target, OFlags::DIRECTORY),
            Place::Plain | Place::Directory | Place::File => {
                make_place(self.root, &one.target, one.place)
            }
        }
    }

    /// resolv.conf and the like. A symbolic link of the image under such a name is covered itself,
    /// not followed.
    fn mount_own_files(&self) -> Done {
        for (file, target) in &self.setup.covers.files {
            match self.target(*target, OFlags::NOFOLLOW) {
                Ok(target) => cover(file, &target).at(Step::Files)?,
                // The image has something else where /etc should be.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno).at(Step::Files),
            }
        }
        Ok(())
    }

    fn mask(&self) -> Done {
        for name in &self.setup.masked {
            let Some(target) = self.existing(name).at(Step::Masks)? else { continue };
            let stat = rustix::fs::fstat(&target).at(Step::Masks)?;
            let mask = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
                rustix::fs::FileType::Directory => &self.setup.covers.empty,
                _ => &self.setup.covers.null,
            };
            cover(mask, &target).at(Step::Masks)?;
        }
        for name in &self.setup.read_only {
            let Some(target) = self.existing(name).at(Step::Masks)? else { continue };
            let copy = copy_of(&target).at(Step::Masks)?;
            sys::mount::set_attributes(&copy, sys::mount::RDONLY, None).at(Step::Masks)?;
            attach_to(copy.as_fd(), target.as_fd()).at(Step::Masks)?;
        }
        Ok(())
    }

    fn finish(&self) -> Done {
        match self.setup.finish {
            Finish::Nothing => return Ok(()),
            Finish::RemoveMasks | Finish::RemoveMasksAndLock => {}
        }
        self.setup.covers.forget().at(Step::Masks)?;
        if self.setup.finish == Finish::RemoveMasksAndLock {
            sys::mount::set_attributes(self.root, sys::mount::RDONLY, None).at(Step::Lock)?;
        }
        Ok(())
    }

    /// Opens a place below the root. Symbolic links are refused, wherever they lead.
    fn target(&self, path: impl rustix::path::Arg, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(self.root, path, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// The same; `None` when this kernel has no such file.
    fn existing(&self, path: &CStr) -> rustix::io::Result<Option<OwnedFd>> {
        match self.target(path, OFlags::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn limit(&self) -> Done {
        let process = &self.setup.process;
        for (resource, soft, hard) in &process.limits {
            let limit = Rlimit { current: *soft, maximum: *hard };
            setrlimit(*resource, limit).at(Step::Limits)?;
        }
        umask(Mode::from_raw_mode(process.umask));
        setsid().at(Step::Limits)?;
        clone::reset_signals().at(Step::Limits)
    }

    fn connect_streams(&self) -> Done {
        let Some([stdin, log]) = self.streams else { return Ok(()) };
        rustix::stdio::dup2_stdin(stdin).at(Step::Descriptors)?;
        rustix::stdio::dup2_stdout(log).at(Step::Descriptors)?;
        rustix::stdio::dup2_stderr(log).at(Step::Descriptors)
    }

    /// As late as can be: a filter need not allow what is done before it.
    fn install_filters(&self) -> Done {
        self.filters.iter().try_for_each(Program::install).at(Step::Filter)?;
        if self.filters_need_a_capability() {
            let sets = self.setup.process.capabilities.sets();
            rustix::thread::set_capabilities(None, sets).at(Step::Privileges)?;
        }
        Ok(())
    }

    /// Without `no_new_privs` the kernel takes filters from nobody else.
    fn filters_need_a_capability(&self) -> bool {
        !self.filters.is_empty() && self.setup.process.privileges == Privileges::ByFile
    }

    /// The bounding set first, which needs capabilities; then the ids, then everything else but the
    /// right to install filters.
    fn drop_privileges(&self) -> rustix::io::Result<()> {
        use rustix::thread;
        let process = &self.setup.process;
        let keep = process.capabilities;
        for capability in CapabilitySet::all().difference(keep.bounding).iter() {
            match thread::remove_capability_from_bounding_set(capability) {
                // A capability that is younger than the kernel.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        thread::clear_ambient_capability_set()?;
        // Over the change of ids, until the sets are set.
        thread::set_keep_capabilities(true)?;
        become_ids(process.uid, process.gid, &process.groups)?;
        thread::set_keep_capabilities(false)?;
        let mut sets = keep.sets();
        if self.filters_need_a_capability() {
            sets.effective |= CapabilitySet::SYS_ADMIN;
            sets.permitted |= CapabilitySet::SYS_ADMIN;
        }
        thread::set_capabilities(None, sets)?;
        for capability in keep.ambient.iter() {
            thread::configure_capability_in_ambient_set(capability, true)?;
        }
        match process.privileges {
            Privileges::NeverMore => thread::set_no_new_privs(true),
            Privileges::ByFile => Ok(()),
        }
    }

    /// As the final user. Also makes sure that the directory is inside the root: the kernel gives
    /// no absolute path for one that is not.
    fn enter_cwd(&self) -> rustix::io::Result<()> {
        chdir(self.setup.process.cwd.as_c_str())?;
        let cwd = rustix::process::getcwd(Vec::new())?;
        if cwd.as_bytes().starts_with(b"/") { Ok(()) } else { Err(Errno::XDEV) }
    }
}

/// The place of a mount in a root that may lack it. Links lead around inside the root, or nowhere.
fn make_place(root: BorrowedFd<'_>, path: &CStr, kind: Place) -> rustix::io::Result<OwnedFd> {
    let resolve = match kind {
        Place::Found | Place::Plain => ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
        Place::Directory | Place::File => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    };
    let open = |path: &[u8], flags| {
        openat2(root, path, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    let flags = if kind == Place::File { OFlags::empty() } else { OFlags::DIRECTORY };
    match open(path.to_bytes(), flags) {
        Err(Errno::NOENT) => {}
        done => return done,
    }
    let path = path.to_bytes();
    let mut parent = open(b".", OFlags::DIRECTORY)?;
    for (at, part) in parts(path) {
        let is_last = at + part.len() == path.len();
        let here = path.get(..at + part.len()).unwrap_or(path);
        let flags = if is_last { flags } else { OFlags::DIRECTORY };
        parent = match open(here, flags) {
            Err(Errno::NOENT) => {
                if is_last && kind == Place::File {
                    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    openat(&parent, part, new, Mode::from_raw_mode(0o644)).map(drop)?;
                } else {
                    mkdirat(&parent, part, Mode::from_raw_mode(0o755))?;
                }
                open(here, flags)?
            }
            done => done?,
        };
    }
    Ok(parent)
}

/// The parts of a path, each with where it begins.
fn parts(path: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    path.split(|byte| *byte == b'/')
        .scan(0, |next, part| {
            let at = *next;
            *next += part.len() + 1;
            Some((at, part))
        })
        .filter(|(_, part)| !part.is_empty())
}

/// The keys of whoever started us are not the container's. Done as the node's root: the users of
/// containers may have few keyrings, and two containers may have the same user.
fn leave_session_keyring() -> std::io::Result<()> {
    match sys::keyring::join_new_session() {
        // A kernel without keys.
        Err(error) if error.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => Ok(()),
        done => done,
    }
}

fn write_setting(file: &CStr, value: &[u8]) -> rustix::io::Result<()> {
    let fd = openat(CWD, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&fd, value).map(drop)
}

/// The launcher's child is a process with one thread, so the ids of the thread are its ids.
fn become_ids(uid: u32, gid: u32, groups: &[Gid]) -> rustix::io::Result<()> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

fn attach_source(source: &Source, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    match source {
        Source::Ready(mount) => attach_to(mount.as_fd(), target),
        Source::New { kind, options, attributes } => {
            let context = fsopen(*kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
            for (key, value) in options {
                fsconfig_set_string(&context, key.as_c_str(), value.as_c_str())?;
            }
            fsconfig_create(&context)?;
            let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, *attributes)?;
            attach_to(mount.as_fd(), target)
        }
    }
}

/// Mounts a copy of the very file or directory `source` over `target`. A copy is as read-only as
/// the original.
fn cover(source: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    attach_to(copy_of(source)?.as_fd(), target.as_fd())
}

fn attach_to(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

fn copy_of(file: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(file, "", flags)
}

/// Makes `root` the root, and lets go of the node's.
fn pivot(root: BorrowedFd<'_>) -> rustix::io::Result<()> {
    fchdir(root)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}

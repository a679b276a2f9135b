//! What the child does between `clone3` and `execveat`: straight down, no loop without a table.
//!
//! Everything was opened and built by the launcher before; the child attaches, drops and executes.
//! Nothing of the container runs yet, so nobody races with it. No path of the root is resolved but
//! by `openat2` inside the root. It ends at the first failure and says which step it was.

use super::{
    execution::{Ends, Execution, become_ids, leave_session_keyring, write_setting},
    setup::{Finish, Order, Place, Prepared, Setup, Source},
    status::{At as _, Done, Step, StepFailed},
};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
        UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change,
        move_mount, open_tree, unmount,
    },
    process::{chdir, fchdir, pivot_root},
};
use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};
use sys::clone;

/// Everything that the child uses. It inherits the descriptors under their numbers.
pub(super) struct Body<'a> {
    pub(super) setup: &'a Setup,
    /// A directory over which the root is attached for an instant.
    pub(super) staging: &'a Path,
    pub(super) root: BorrowedFd<'a>,
    /// Whether the child waits once more when its mounts are made and the old root is still its root.
    pub(super) midway: Midway,
    pub(super) execution: Execution<'a>,
    /// The launcher's end of a pipe that must end with it.
    pub(super) foreign: Option<BorrowedFd<'a>>,
}

/// What is done between the mounts and the change of the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Midway {
    GoOn,
    Wait,
}

impl Body<'_> {
    /// Never returns if all goes well.
    pub(super) fn become_program(&self, ends: Ends<'_>) -> Done {
        let setup = self.setup;
        if let Some(foreign) = self.foreign {
            clone::close_inherited([foreign]).at(Step::Gate)?;
        }
        ends.wait_at_gate()?;
        leave_session_keyring().at(Step::Keys)?;
        for (file, value) in &setup.settings {
            write_setting(file, value).at(Step::Settings)?;
        }
        self.attach_root()?;
        become_ids(0, 0, &[]).at(Step::Ids)?;
        self.attach_all(&setup.kernel, Step::Kernel, Step::Kernel)?;
        self.attach_all(&setup.mounts, Step::Target, Step::Mount)?;
        // Last, since a mount may be over /etc.
        self.mount_own_files()?;
        let renewed = self.renew()?;
        let root = renewed.as_ref().map_or(self.root, OwnedFd::as_fd);
        if self.midway == Midway::Wait {
            ends.say_ready()?;
            ends.wait_at_gate()?;
        }
        self.propagate(root)?;
        self.mask(root)?;
        self.finish(root)?;
        if let Some(hostname) = &setup.hostname {
            nix::unistd::sethostname(hostname).at(Step::Hostname)?;
        }
        pivot(root).at(Step::Pivot)?;
        if setup.propagation != MountPropagationFlags::PRIVATE {
            mount_change("/", setup.propagation).at(Step::Pivot)?;
        }
        // Before all descriptors are closed by their numbers.
        drop(renewed);
        self.execution.run(ends)
    }

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
            Place::Found => target(self.root, &one.target, OFlags::DIRECTORY),
            Place::Plain | Place::Directory | Place::File => {
                make_place(self.root, &one.target, one.place)
            }
        }
    }

    /// resolv.conf and the like, where there is a file or a link under such a name: a link is covered
    /// itself, not followed. Nothing else hinders a start, since what is over /etc may be the
    /// container's own.
    fn mount_own_files(&self) -> Done {
        for (file, place) in &self.setup.covers.files {
            match target(self.root, *place, OFlags::NOFOLLOW) {
                Ok(target) => {
                    let mode = rustix::fs::fstat(&target).at(Step::Files)?.st_mode;
                    if rustix::fs::FileType::from_raw_mode(mode) != rustix::fs::FileType::Directory
                    {
                        cover(file, &target).at(Step::Files)?;
                    }
                }
                // Something else is where /etc should be.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno).at(Step::Files),
            }
        }
        Ok(())
    }

    /// A copy of the root with all its mounts, in its place. Kernels list mounts in the order in which
    /// they were made, and those of the copy are made in the order in which they were attached.
    fn renew(&self) -> Result<Option<OwnedFd>, StepFailed> {
        if self.setup.order == Order::Made {
            return Ok(None);
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let copy = open_tree(self.root, "", flags).at(Step::Root)?;
        // The original goes away with the old root. Of a directory that is shared, what is mounted below
        // it would go away wherever else it is seen, on the machine and in the copy.
        sys::mount::set_attributes_below(self.root, 0, MountPropagationFlags::PRIVATE)
            .at(Step::Root)?;
        attach_to(copy.as_fd(), self.root).at(Step::Root)?;
        Ok(Some(copy))
    }

    /// After the last copy, since of an unbindable mount there is none.
    fn propagate(&self, root: BorrowedFd<'_>) -> Done {
        let asked = |one: &&Prepared| one.propagation != MountPropagationFlags::PRIVATE;
        for one in self.setup.mounts.iter().filter(asked) {
            let place = make_place(root, &one.target, one.place).at(Step::Mount)?;
            sys::mount::set_propagation(&place, one.propagation).at(Step::Mount)?;
        }
        Ok(())
    }

    fn mask(&self, root: BorrowedFd<'_>) -> Done {
        for name in &self.setup.masked {
            let Some(target) = existing(root, name).at(Step::Masks)? else { continue };
            let stat = rustix::fs::fstat(&target).at(Step::Masks)?;
            let mask = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
                rustix::fs::FileType::Directory => &self.setup.covers.empty,
                _ => &self.setup.covers.null,
            };
            cover(mask, &target).at(Step::Masks)?;
        }
        for name in &self.setup.read_only {
            let Some(target) = existing(root, name).at(Step::Masks)? else { continue };
            let copy = copy_of(&target).at(Step::Masks)?;
            sys::mount::set_attributes(&copy, sys::mount::RDONLY, None).at(Step::Masks)?;
            attach_to(copy.as_fd(), target.as_fd()).at(Step::Masks)?;
        }
        Ok(())
    }

    fn finish(&self, root: BorrowedFd<'_>) -> Done {
        match self.setup.finish {
            Finish::Nothing => return Ok(()),
            Finish::RemoveMasks | Finish::RemoveMasksAndLock => {}
        }
        self.setup.covers.forget().at(Step::Masks)?;
        if self.setup.finish == Finish::RemoveMasksAndLock {
            sys::mount::set_attributes(root, sys::mount::RDONLY, None).at(Step::Lock)?;
        }
        Ok(())
    }
}

/// Opens a place below the root. Symbolic links are refused, wherever they lead.
fn target(
    root: BorrowedFd<'_>,
    path: impl rustix::path::Arg,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(root, path, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The same; `None` when this kernel has no such file.
fn existing(root: BorrowedFd<'_>, path: &CStr) -> rustix::io::Result<Option<OwnedFd>> {
    match target(root, path, OFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
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
pub(super) fn cover(source: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
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

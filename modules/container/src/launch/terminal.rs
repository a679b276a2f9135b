//! The terminal of a process: made by the process itself, from the devpts of its container, and its
//! other end sent to whoever asked for it.
//!
//! Only for the OCI face. Nothing of it is found by a path that an image can choose: the two names
//! below `/dev` are opened without links, what is found is asked what it is, and the terminal's own end
//! is had from its other one.

use super::{
    child::cover,
    execution::connect,
    status::{At as _, Done, Step},
};
use rustix::{
    fs::{
        CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fchown, fstat, fstatfs, makedev,
        openat, openat2,
    },
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use std::{
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

/// What makes terminals, in the container.
const MULTIPLEXER: &str = "/dev/pts/ptmx";
/// What `statfs` says of a devpts.
const DEVPTS: i64 = 0x1cd1;
/// No link on the way, wherever it leads.
const PLAIN: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);

/// A terminal to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal<'a> {
    /// Somebody listens at its other end.
    pub(crate) socket: BorrowedFd<'a>,
    /// Rows and columns.
    pub(crate) size: Option<(u16, u16)>,
    pub(crate) console: Console,
}

/// Whether it is the console of its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Console {
    Mount,
    Leave,
}

impl Terminal<'_> {
    /// Gives a process that leads a session the terminal as stdin, stdout and stderr. As root of the
    /// container, in its root.
    pub(super) fn connect(&self, uid: u32) -> Done {
        let end = self.make(uid).at(Step::Terminal)?;
        rustix::process::ioctl_tiocsctty(&end).at(Step::Terminal)?;
        connect(end.as_fd(), end.as_fd())
    }

    fn make(&self, uid: u32) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let other = openat2(CWD, MULTIPLEXER, flags, Mode::empty(), PLAIN)?;
        let stat = fstat(&other)?;
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        if !is_device || stat.st_rdev != makedev(5, 2) || fstatfs(&other)?.f_type != DEVPTS {
            return Err(Errno::NOTTY);
        }
        rustix::fs::fcntl_setfl(&other, OFlags::empty())?;
        unlockpt(&other)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let end = ioctl_tiocgptpeer(&other, flags)?;
        if let Some((ws_row, ws_col)) = self.size {
            tcsetwinsize(&end, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 })?;
        }
        fchown(&end, Some(Uid::from_raw(uid)), None::<Gid>)?;
        if self.console == Console::Mount {
            mount_console(&end)?;
        }
        send(self.socket, &other)?;
        Ok(end)
    }
}

/// Covers `/dev/console`, which is made if it is missing.
fn mount_console(end: &OwnedFd) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let dev = openat2(CWD, "/dev", flags | OFlags::DIRECTORY, Mode::empty(), PLAIN)?;
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    match openat(&dev, "console", new, Mode::RUSR | Mode::WUSR) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let place = openat2(&dev, "console", flags, Mode::empty(), PLAIN | ResolveFlags::BENEATH)?;
    cover(end, &place)
}

/// The receiver gets the descriptor, and the name of what it is.
fn send(socket: BorrowedFd<'_>, other: &OwnedFd) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let one = [other.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&one)) {
        return Err(Errno::NOBUFS);
    }
    let name = [IoSlice::new(MULTIPLEXER.as_bytes())];
    sendmsg(socket, &name, &mut control, SendFlags::NOSIGNAL).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use std::{
        fs::File,
        io::{IoSliceMut, Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    #[test]
    fn a_descriptor_travels_with_a_name() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut read, write) = std::io::pipe().unwrap();
        send(ours.as_fd(), &write.into()).unwrap();
        let mut name = [0; 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut name)];
        let n = recvmsg(&theirs, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                fds.extend(some);
            }
        }
        assert_eq!((&name[..n], fds.len()), (MULTIPLEXER.as_bytes(), 1));
        File::from(fds.remove(0)).write_all(b"x").unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }
}

//! Tells when a disk comes or goes, from the kernel's own messages.
//!
//! A message only says "look again": sysfs is read afterwards, so a lost one costs time and nothing
//! else.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Without any message sysfs and the pools are looked at this often.
const INTERVAL: Duration = Duration::from_secs(30);
/// The kernel's messages are shorter.
const MESSAGE_MAX: usize = 8192;
/// The kernel itself; group 2 is udev's.
const KERNEL_GROUP: u32 = 1;

/// Messages about devices.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

/// Why to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// A disk came, went or changed.
    Disk,
    /// Nothing was heard for a while.
    Interval,
}

impl Uevents {
    /// Starts to listen.
    pub fn listen() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let fd = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self(fd))
    }

    /// Waits until there is a reason to look at the disks again.
    pub fn wait(&self) -> io::Result<Wake> {
        let deadline = Instant::now() + INTERVAL;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).map_err(io::Error::other)?;
            let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, timeout) {
                Ok(0) => return Ok(Wake::Interval),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut bytes = [0; MESSAGE_MAX];
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut bytes) {
                Ok((length, from)) => {
                    // Another process could send here too.
                    let kernel = from.is_some_and(|from| from.pid() == 0);
                    if kernel && is_about_a_disk(&bytes[..length]) {
                        return Ok(Wake::Disk);
                    }
                }
                // Messages were lost: look at everything.
                Err(Errno::ENOBUFS) => return Ok(Wake::Disk),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A message is `ACTION@PATH`, then `KEY=value` fields, each ended by NUL.
pub fn is_about_a_disk(message: &[u8]) -> bool {
    let has = |field: &[u8]| message.split(|byte| *byte == 0).any(|part| part == field);
    has(b"SUBSYSTEM=block") && has(b"DEVTYPE=disk")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_about_disks_wake() {
        let disk = b"add@/devices/x/block/vdb\0ACTION=add\0SUBSYSTEM=block\0DEVTYPE=disk\0";
        let partition = b"add@/devices/x/block/vdb/vdb1\0SUBSYSTEM=block\0DEVTYPE=partition\0";
        assert!(is_about_a_disk(disk));
        assert!(!is_about_a_disk(partition));
        assert!(!is_about_a_disk(b"add@/x\0NOT_SUBSYSTEM=block\0DEVTYPE=disk"));
        assert!(!is_about_a_disk(b""));
    }
}

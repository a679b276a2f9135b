//! News of devices, from the kernel's uevent socket.

use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::OwnedFd,
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketAddrAny, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recvfrom, socket_with,
        sockopt::set_socket_recv_buffer_size_force,
    },
    time::Timespec,
};
use std::{io, time::Duration};

/// A machine with many disks sends thousands of messages at once.
const BUFFER_SIZE: usize = 1 << 20;
/// The kernel's own limit for one message is 2048.
const MESSAGE_MAX: usize = 8192;
/// Group 1 is the kernel; group 2 would be a udev.
const KERNEL_GROUP: u32 = 1;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// A device that says this of itself.
    Modalias(String),
    /// Something that needs no driver.
    Other,
    /// Messages were lost: look at everything again.
    Lost,
    /// Nothing.
    Quiet,
}

/// The socket.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Starts to listen.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::KOBJECT_UEVENT);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?;
        set_socket_recv_buffer_size_force(&socket, BUFFER_SIZE)?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self { socket })
    }

    /// The next message; [`News::Quiet`] when none comes within `wait`. `None` waits for ever.
    pub fn next(&mut self, wait: Option<Duration>) -> io::Result<News> {
        let wait = wait.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut message = [0; MESSAGE_MAX];
        match recvfrom(&self.socket, &mut message, RecvFlags::empty()) {
            Ok((n, _, Some(sender))) if is_kernel(&sender) => Ok(parse(&message[..n])),
            Ok(_) => Ok(News::Other),
            Err(Errno::AGAIN | Errno::INTR) => Ok(News::Quiet),
            Err(Errno::NOBUFS) => Ok(News::Lost),
            Err(error) => Err(error.into()),
        }
    }
}

/// Other processes may send to the group; only the kernel has the number 0.
fn is_kernel(sender: &SocketAddrAny) -> bool {
    SocketAddrNetlink::try_from(sender.clone()).is_ok_and(|sender| sender.pid() == 0)
}

/// `add@/devices/..`, NUL, then `KEY=value`, NUL, and so on.
pub fn parse(message: &[u8]) -> News {
    let mut is_new = false;
    let mut modalias = None;
    for field in message.split(|byte| *byte == 0) {
        if field == b"ACTION=add" || field == b"ACTION=change" {
            is_new = true;
        } else if let Some(alias) = field.strip_prefix(b"MODALIAS=") {
            modalias = std::str::from_utf8(alias).ok();
        }
    }
    match modalias {
        Some(alias) if is_new => News::Modalias(alias.to_owned()),
        _ => News::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_device_is_told_by_its_alias() {
        let message = b"add@/devices/pci0000:00/0000:00:03.0/virtio1\0ACTION=add\0\
            DEVPATH=/devices/pci0000:00/0000:00:03.0/virtio1\0SUBSYSTEM=virtio\0\
            MODALIAS=virtio:d00000001v00001AF4\0SEQNUM=1204\0";
        assert_eq!(parse(message), News::Modalias("virtio:d00000001v00001AF4".to_owned()));
    }

    #[test]
    fn what_goes_or_has_no_alias_needs_no_driver() {
        assert_eq!(parse(b"remove@/x\0ACTION=remove\0MODALIAS=virtio:d1\0"), News::Other);
        assert_eq!(parse(b"add@/x\0ACTION=add\0SUBSYSTEM=block\0"), News::Other);
        assert_eq!(parse(b"add@/x\0ACTION=add\0MODALIAS=\xff\0"), News::Other);
        assert_eq!(parse(b""), News::Other);
    }
}

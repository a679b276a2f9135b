//! The two sockets of a DHCP client.
//!
//! Without an address there is only a packet socket, which sees every IPv4 frame of its link: it
//! is open only while an answer is awaited. With an address, a UDP socket does.

use super::{
    client::Path,
    frame::{self, FRAME_MAX, PORT_CLIENT, PORT_SERVER},
    message::Mac,
};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, bind, setsockopt, socket, sockopt,
};
use std::{
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket as StdUdpSocket},
    os::fd::AsRawFd,
};
use tokio::net::UdpSocket;

/// An open socket on one link.
#[derive(Debug)]
pub(super) enum Socket {
    /// Whole Ethernet frames. The type is borrowed: of a UDP socket it uses what all sockets have,
    /// waiting, `send` and `recv`.
    Packet(UdpSocket),
    /// Datagrams to and from this address of ours.
    Udp(UdpSocket, Ipv4Addr),
}

impl Socket {
    /// Opens what a query along `path` needs.
    pub(super) fn open(link: &str, path: Path) -> io::Result<Self> {
        match path {
            Path::Broadcast(_) => packet_socket(link).map(Self::Packet),
            Path::Unicast(own, _) => {
                let socket = StdUdpSocket::bind(SocketAddrV4::new(own, PORT_CLIENT))?;
                setsockopt(&socket, sockopt::BindToDevice, &OsString::from(link))?;
                socket.set_nonblocking(true)?;
                Ok(Self::Udp(UdpSocket::from_std(socket)?, own))
            }
        }
    }

    /// Whether a query along `path` can go out here.
    pub(super) fn fits(&self, path: Path) -> bool {
        match (self, path) {
            (Self::Packet(_), Path::Broadcast(_)) => true,
            (Self::Udp(_, bound), Path::Unicast(own, _)) => *bound == own,
            (Self::Packet(_), Path::Unicast(..)) | (Self::Udp(..), Path::Broadcast(_)) => false,
        }
    }

    /// Sends one message. A full queue of the link loses it, as the net may lose it.
    pub(super) async fn send(&self, mac: Mac, path: Path, message: &[u8]) -> io::Result<()> {
        match (self, path) {
            (Self::Packet(socket), Path::Broadcast(source)) => {
                socket.send(&frame::encode(mac, source, message)).await?;
                Ok(())
            }
            (Self::Udp(socket, _), Path::Unicast(_, server)) => {
                socket.send_to(message, SocketAddrV4::new(server, PORT_SERVER)).await?;
                Ok(())
            }
            (Self::Packet(_), Path::Unicast(..)) | (Self::Udp(..), Path::Broadcast(_)) => {
                Err(io::ErrorKind::InvalidInput.into())
            }
        }
    }

    /// Waits for one message from a DHCP server; other traffic is dropped here.
    pub(super) async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; FRAME_MAX];
        match self {
            Self::Packet(socket) => loop {
                let length = socket.recv(&mut buffer).await?;
                if let Some(message) = frame::payload(&buffer[..length]) {
                    return Ok(message.to_vec());
                }
            },
            Self::Udp(socket, _) => {
                let length = socket.recv(&mut buffer).await?;
                Ok(buffer[..length].to_vec())
            }
        }
    }
}

fn packet_socket(link: &str) -> io::Result<UdpSocket> {
    // glibc lists every link with its packet address, which is what bind() wants.
    let address = nix::ifaddrs::getifaddrs()?
        .filter(|interface| interface.interface_name == link)
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .ok_or(nix::Error::ENODEV)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthIp)?;
    bind(fd.as_raw_fd(), &address)?;
    UdpSocket::from_std(fd.into())
}

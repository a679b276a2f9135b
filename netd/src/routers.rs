//! Listens for name servers that routers announce, and remembers them over a restart of the daemon:
//! the next announcement may be half an hour away.

use crate::{
    clock,
    store::{Store, StoreError},
};
use netd::rdnss::{self, Announced};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
};
use std::{io, os::fd::AsRawFd};
use thiserror::Error;
use tokio::{net::UdpSocket, sync::watch};

/// `RTNLGRP_ND_USEROPT`, as a bit.
const GROUP: u32 = 1 << (20 - 1);
/// Longer than any router advertisement.
const DATAGRAM_MAX: usize = 16 << 10;
const FILE: &str = "routers.json";

/// Announcements are not heard any more.
#[derive(Debug, Error)]
pub(crate) enum ListenError {
    #[error("opening a netlink socket for announcements of routers")]
    Open(#[source] io::Error),
    #[error("listening to announcements of routers")]
    Receive(#[source] io::Error),
}

/// Servers that a former run heard of.
pub(crate) fn remembered(store: &Store) -> Vec<Announced> {
    let read: Result<Option<Vec<Announced>>, StoreError> = store.read(FILE);
    read.unwrap_or_else(|error| {
        daemon::warn!("name servers of routers: {}", daemon::chain(&error));
        None
    })
    .unwrap_or_default()
}

/// Opens the socket. To be called before a link is switched on, so that no announcement is missed.
///
/// The type is borrowed: of a UDP socket it uses what all sockets have, waiting and `recv`.
pub(crate) fn open() -> Result<UdpSocket, ListenError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let protocol = SockProtocol::NetlinkRoute;
    let opened = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)
        .and_then(|fd| bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUP)).map(|()| fd))
        .map_err(io::Error::from)
        .and_then(|fd| UdpSocket::from_std(fd.into()));
    opened.map_err(ListenError::Open)
}

/// Takes in announcements for as long as somebody looks at `table`.
pub(crate) async fn listen(
    socket: UdpSocket,
    store: Store,
    table: watch::Sender<Vec<Announced>>,
) -> Result<(), ListenError> {
    let mut datagram = vec![0; DATAGRAM_MAX];
    while !table.is_closed() {
        let length = match socket.recv(&mut datagram).await {
            Ok(length) => length,
            // Some were lost; routers repeat them.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => 0,
            Err(error) => return Err(ListenError::Receive(error)),
        };
        for heard in rdnss::parse(&datagram[..length]) {
            let fresh = rdnss::take_in(&table.borrow(), &heard, clock::since_boot());
            if let Err(error) = store.write(FILE, &fresh) {
                daemon::warn!("name servers of routers: {}", daemon::chain(&error));
            }
            table.send_replace(fresh);
        }
    }
    Ok(())
}

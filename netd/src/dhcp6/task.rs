//! One link's DHCPv6 client at work: gives it time, datagrams and chance, and publishes what it has.
//!
//! Owns the link's socket and its lease file. Ends when nobody listens any more.

use super::{
    client::{Event, Lease, Moment, Need, Outgoing, Outside, Servers, State, step},
    message,
};
use crate::{clock, dhcp::task::Target, store};
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, setsockopt, socket,
        sockopt,
    },
};
use std::{
    ffi::OsString,
    io,
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::AsRawFd,
};
use tokio::{net::UdpSocket, sync::watch, time::sleep};

const PORT_CLIENT: u16 = 546;
const PORT_SERVER: u16 = 547;
/// All servers and relays of a link.
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// The most that an unfragmented frame carries.
const MESSAGE_MAX: usize = 1500;

/// What a client is told of its link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Whether a cable with a live other end is plugged in.
    pub(crate) carrier: bool,
    /// What its routers say.
    pub(crate) need: Need,
}

/// What a client has to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// The lease in use.
    pub(crate) lease: Option<Lease>,
    /// The servers in use.
    pub(crate) servers: Servers,
    /// Queries sent since the last answer, and when the next one is due.
    pub(crate) unanswered: Option<(u32, Moment)>,
    /// Why the last query could not be sent, or the last answer not be used.
    pub(crate) problem: Option<String>,
}

impl View {
    /// What the client waits for, as a sentence; `None` while it has what it needs.
    pub(crate) fn sentence(&self, now: Moment) -> Option<String> {
        /// Below, the answer may still be under way.
        const TRIES_MIN: u32 = 3;
        let (tries, next) = self.unanswered.filter(|(tries, _)| *tries >= TRIES_MIN)?;
        let wait_s = next.saturating_sub(now).as_secs();
        let detail = self.problem.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
        Some(format!("no DHCPv6 answer after {tries} tries, trying again in {wait_s} s{detail}"))
    }
}

/// Runs until `link` is closed or nobody looks at `view`.
pub(crate) async fn run(
    target: Target,
    store: store::Store,
    mut link: watch::Receiver<Link>,
    view: watch::Sender<View>,
) {
    let remembered = store.read(&file(&target)).unwrap_or_else(|error| {
        daemon::warn!("{}: {}", target.link, daemon::chain(&error));
        None
    });
    let state = State::first(remembered, outside());
    let told = *link.borrow_and_update();
    let mut client = Client { state, socket: None, told, target };
    let mut problem = client.on(&Event::Need).await.err();
    loop {
        client.publish(&view, problem.take());
        let now = clock::since_boot();
        let due = client.state.deadline().filter(|_| client.told.carrier);
        let wait = due.map(|deadline| deadline.saturating_sub(now));
        let done = tokio::select! {
            changed = link.changed() => {
                if changed.is_err() || view.is_closed() {
                    return;
                }
                let before = std::mem::replace(&mut client.told, *link.borrow_and_update());
                let event = if client.told.carrier && !before.carrier { Event::Plugged } else { Event::Need };
                client.on(&event).await
            }
            () = sleep(wait.unwrap_or_default()), if wait.is_some() => client.on(&Event::Timer).await,
            message = receive(client.socket.as_ref()), if client.socket.is_some() => {
                client.on_message(message).await
            }
        };
        problem = done.err();
        if let Err(error) = client.remember(&store) {
            daemon::warn!("{}: {}", client.target.link, daemon::chain(&error));
        }
    }
}

fn file(target: &Target) -> String {
    format!("lease6-{}.json", target.link)
}

struct Client {
    target: Target,
    told: Link,
    state: State,
    /// Open while an answer is awaited.
    socket: Option<UdpSocket>,
}

impl Client {
    /// Takes one step and sends what it asks for. Fails with a sentence.
    async fn on(&mut self, event: &Event<'_>) -> Result<(), String> {
        let (state, outgoing) = step(self.state.clone(), event, self.told.need, outside());
        self.log_change(&state);
        self.state = state;
        if self.state.unanswered().is_none() {
            self.socket = None;
        }
        match outgoing {
            Some(outgoing) => self
                .send(&outgoing)
                .await
                .map_err(|error| format!("sending on {}: {error}", self.target.link)),
            None => Ok(()),
        }
    }

    async fn on_message(&mut self, message: io::Result<Vec<u8>>) -> Result<(), String> {
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                // The link went away; the next query opens another.
                self.socket = None;
                return Err(format!("receiving on {}: {error}", self.target.link));
            }
        };
        match message::parse(&message, self.target.mac) {
            Ok(reply) => self.on(&Event::Reply(&reply)).await,
            Err(malformed) => Err(format!("an answer could not be read: {malformed}")),
        }
    }

    async fn send(&mut self, outgoing: &Outgoing) -> io::Result<()> {
        let Outgoing { query, transaction, elapsed_cs } = outgoing;
        let link = self.target.link.as_str();
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open(link)?,
        };
        let to = SocketAddrV6::new(ALL_SERVERS, PORT_SERVER, 0, if_nametoindex(link)?);
        let message = message::encode(query, *transaction, *elapsed_cs, self.target.mac);
        socket.send_to(&message, to).await?;
        self.socket = Some(socket);
        Ok(())
    }

    fn publish(&self, view: &watch::Sender<View>, problem: Option<String>) {
        let fresh = View {
            lease: self.state.lease().cloned(),
            servers: self.state.servers().cloned().unwrap_or_default(),
            unanswered: self.state.unanswered(),
            problem,
        };
        view.send_if_modified(|shown| {
            let changed = *shown != fresh;
            *shown = fresh;
            changed
        });
    }

    fn remember(&self, store: &store::Store) -> Result<(), store::StoreError> {
        match self.state.lease() {
            Some(lease) => store.write(&file(&self.target), lease),
            None => store.remove(&file(&self.target)),
        }
    }

    fn log_change(&self, next: &State) {
        let address = |state: &State| state.lease().map(|lease| lease.address);
        match (address(&self.state), address(next)) {
            (before, Some(after)) if before != Some(after) => {
                let lease = next.lease().expect("it has an address");
                let lasts_s = lease.ends_at.saturating_sub(clock::since_boot()).as_secs();
                daemon::info!("{}: address {after} by DHCPv6 for {lasts_s} s", self.target.link);
            }
            (Some(before), None) => {
                daemon::warn!("{}: the lease of address {before} ended", self.target.link);
            }
            (Some(_), Some(_)) | (None, None | Some(_)) => {}
        }
    }
}

/// Bound to its link first: every link has a socket at the same port.
fn open(link: &str) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet6, SockType::Datagram, flags, SockProtocol::Udp)?;
    setsockopt(&fd, sockopt::BindToDevice, &OsString::from(link))?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    let any = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, PORT_CLIENT, 0, 0));
    bind(fd.as_raw_fd(), &any)?;
    UdpSocket::from_std(fd.into())
}

async fn receive(socket: Option<&UdpSocket>) -> io::Result<Vec<u8>> {
    let Some(socket) = socket else { return std::future::pending().await };
    let mut buffer = [0; MESSAGE_MAX];
    let length = socket.recv(&mut buffer).await?;
    Ok(buffer[..length].to_vec())
}

fn outside() -> Outside {
    Outside { now: clock::since_boot(), chance: clock::chance() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_waits_in_vain_says_so() {
        let view =
            |tries| View { unanswered: Some((tries, Moment::from_secs(12))), ..View::default() };
        assert_eq!(view(2).sentence(Moment::from_secs(10)), None);
        assert_eq!(
            view(3).sentence(Moment::from_secs(10)).as_deref(),
            Some("no DHCPv6 answer after 3 tries, trying again in 2 s")
        );
    }
}

//! One link's DHCP client at work: gives it time, frames and chance, and publishes what it has.
//!
//! Owns the link's sockets and its lease file. Ends when nobody listens any more.

use super::{
    client::{Event, Lease, Moment, Outgoing, Outside, State, step},
    message::{self, Mac, Malformed},
    socket::Socket,
};
use crate::{clock, store};
use std::io;
use tokio::{sync::watch, time::sleep};

/// What a link's client has to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// The lease in use.
    pub(crate) lease: Option<Lease>,
    /// Queries sent since the last answer, and when the next one is due.
    pub(crate) unanswered: Option<(u32, Moment)>,
    /// Why the last query could not be sent, or the last answer not be used.
    pub(crate) problem: Option<String>,
}

impl View {
    /// What the client waits for, as a sentence; `None` while it has what it needs.
    pub(crate) fn sentence(&self, now: Moment) -> Option<String> {
        let (tries, next) = self.unanswered?;
        if tries < 2 && self.lease.is_some() {
            // The answer is still under way.
            return None;
        }
        let wait_s = next.saturating_sub(now).as_secs();
        let lease = if self.lease.is_some() { "; the former lease is still used" } else { "" };
        let detail = self.problem.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
        match tries {
            0 => Some(format!("about to ask for an address by DHCP{detail}")),
            1 => Some(format!(
                "no DHCP answer after 1 try, trying again in {wait_s} s{detail}{lease}"
            )),
            _ => Some(format!(
                "no DHCP answer after {tries} tries, trying again in {wait_s} s{detail}{lease}"
            )),
        }
    }
}

/// Which link a client serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Kernel name.
    pub(crate) link: String,
    /// Hardware address.
    pub(crate) mac: Mac,
}

impl Target {
    fn file(&self) -> String {
        format!("lease-{}.json", self.link)
    }
}

/// Runs until `carrier` is closed or nobody looks at `view`.
pub(crate) async fn run(
    target: Target,
    store: store::Store,
    mut carrier: watch::Receiver<bool>,
    view: watch::Sender<View>,
) {
    let remembered = store.read(&target.file()).unwrap_or_else(|error| {
        daemon::warn!("{}: {}", target.link, daemon::chain(&error));
        None
    });
    let mut client = Client { state: State::first(remembered, outside()), socket: None, target };
    let mut plugged = *carrier.borrow_and_update();
    let mut problem = None;
    loop {
        client.publish(&view, problem.take());
        let now = clock::since_boot();
        let sent_or_dropped = tokio::select! {
            changed = carrier.changed() => {
                if changed.is_err() || view.is_closed() {
                    return;
                }
                let before = std::mem::replace(&mut plugged, *carrier.borrow_and_update());
                if plugged && !before { client.on(&Event::Plugged).await } else { Ok(()) }
            }
            () = sleep(client.state.deadline().saturating_sub(now)), if plugged => {
                client.on(&Event::Timer).await
            }
            message = receive(client.socket.as_ref()), if plugged => {
                client.on_message(message).await
            }
        };
        problem = sent_or_dropped.err();
        if let Err(error) = client.remember(&store) {
            daemon::warn!("{}: {}", client.target.link, daemon::chain(&error));
        }
    }
}

struct Client {
    target: Target,
    state: State,
    socket: Option<Socket>,
}

impl Client {
    /// Takes one step and sends what it asks for. Fails with a sentence.
    async fn on(&mut self, event: &Event<'_>) -> Result<(), String> {
        let (state, outgoing) = step(self.state.clone(), event, outside());
        self.log_change(&state);
        self.state = state;
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
                // The link went away or was switched off; the next query opens another.
                self.socket = None;
                return Err(format!("receiving on {}: {error}", self.target.link));
            }
        };
        match message::parse(&message) {
            Ok(reply) if reply.mac == self.target.mac => self.on(&Event::Reply(&reply)).await,
            // For a neighbour.
            Ok(_) | Err(Malformed::Hardware) => Ok(()),
            Err(malformed) => Err(format!("an answer could not be read: {malformed}")),
        }
    }

    async fn send(&mut self, outgoing: &Outgoing) -> io::Result<()> {
        let Outgoing { query, transaction, elapsed_s, path } = outgoing;
        let socket = match self.socket.take() {
            Some(socket) if socket.fits(*path) => socket,
            Some(_) | None => Socket::open(&self.target.link, *path)?,
        };
        let message = message::encode(query, *transaction, *elapsed_s, self.target.mac);
        socket.send(self.target.mac, *path, &message).await?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Closes the socket while nothing is awaited, and shows the outside where we stand.
    fn publish(&mut self, view: &watch::Sender<View>, problem: Option<String>) {
        if matches!(self.state, State::Bound(_)) {
            self.socket = None;
        }
        let fresh = View {
            lease: self.state.lease().cloned(),
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
            Some(lease) => store.write(&self.target.file(), lease),
            None => store.remove(&self.target.file()),
        }
    }

    fn log_change(&self, next: &State) {
        let address = |state: &State| state.lease().map(|lease| lease.address);
        match (address(&self.state), address(next)) {
            (before, Some(after)) if before != Some(after) => {
                let lease = next.lease().expect("it has an address");
                let lasts_s = lease.ends_at.saturating_sub(clock::since_boot()).as_secs();
                let (link, server) = (&self.target.link, lease.server);
                daemon::info!("{link}: address {after} from DHCP server {server} for {lasts_s} s");
            }
            (Some(before), None) => {
                daemon::warn!("{}: the lease of address {before} ended", self.target.link);
            }
            (Some(_), Some(_)) | (None, None | Some(_)) => {}
        }
    }
}

async fn receive(socket: Option<&Socket>) -> io::Result<Vec<u8>> {
    match socket {
        Some(socket) => socket.receive().await,
        None => std::future::pending().await,
    }
}

fn outside() -> Outside {
    Outside { now: clock::since_boot(), chance: clock::chance() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_client_says_for_what_it_waits() {
        let second = Moment::from_secs;
        let view = |unanswered, problem: Option<&str>| View {
            lease: None,
            unanswered,
            problem: problem.map(str::to_owned),
        };
        for (view, sentence) in [
            (view(None, None), None),
            (view(Some((0, second(10))), None), Some("about to ask for an address by DHCP")),
            (
                view(Some((1, second(12))), None),
                Some("no DHCP answer after 1 try, trying again in 2 s"),
            ),
            (
                view(Some((5, second(74))), Some("the message is not a reply")),
                Some(
                    "no DHCP answer after 5 tries, trying again in 64 s (the message is not a reply)",
                ),
            ),
        ] {
            assert_eq!(view.sentence(second(10)).as_deref(), sentence);
        }
    }
}

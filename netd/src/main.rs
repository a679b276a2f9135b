//! Owns every link, address, route and firewall rule of the node, and its clock.
//!
//! No other process speaks netlink. What should be is computed from the boot configuration, the
//! leases and the attached containers ([`want`]); netd reads what the kernel has ([`kernel`]),
//! [plans][plan::plan] the difference, and [applies][apply::apply] it one step at a time. It serves
//! before it has an address, and asks for one for ever.
//!
//! IPv6 addresses and routes that routers announce are the kernel's; netd asks by DHCPv6 what the
//! routers say that there is to ask, and hears which name servers they announce.
//!
//! Killed at any moment, it finds links, addresses, namespaces and rules where they were, and its
//! leases and containers in `/run/zos/netd`.

#![forbid(unsafe_code)]

// In reading order: the decision, what it is made from, what is done about it.
mod plan;

mod containers;
mod want;

mod apply;
mod kernel;
mod namespace;
mod nic;

mod firewall;

mod owner;
mod serve;
mod status;

mod dhcp;
mod dhcp6;
mod routers;

mod timesync;

mod paths;
mod store;

use crate::{
    owner::{OwnerError, Parts},
    store::Store,
};
use futures_util::StreamExt;
use netd::{
    clock::{self, Bounds},
    rdnss::Announced,
    sntp,
};
use node_api::{
    netd::Time,
    paths::{BUILD_TIME, NETD_SOCKET},
};
use rtnetlink::{MulticastGroup, new_connection, new_multicast_connection};
use std::{io, path::Path, process::ExitCode, thread};
use thiserror::Error;
use tokio::{
    net::UdpSocket,
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
};

/// Calls that wait for the owner; each belongs to one of the few connections.
const REQUESTS_MAX: usize = 32;

/// Settings without which containers are not routed, or are seen where they should not be.
const SETTINGS: [(&str, &str); 4] = [
    ("ipv4/ip_forward", "1"),
    // An address answers only on its own link: the containers' gateway not on the LAN.
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
];

/// What is listened to: links, what routers say about DHCPv6, and the addresses that they give.
const GROUPS: [MulticastGroup; 3] =
    [MulticastGroup::Link, MulticastGroup::Ipv6Ifinfo, MulticastGroup::Ipv6Ifaddr];

/// Why netd cannot run.
#[derive(Debug, Error)]
enum StartError {
    #[error("reading /proc/cmdline")]
    Config(#[source] io::Error),
    #[error("opening the state directory")]
    Store(#[from] store::StoreError),
    #[error("listening at {NETD_SOCKET}")]
    Listen(#[source] io::Error),
    #[error("starting thread {name}")]
    Thread {
        name: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("starting the runtime")]
    Runtime(#[source] io::Error),
    #[error("opening a netlink socket")]
    Netlink(#[source] io::Error),
    #[error("hearing routers")]
    Routers(#[from] routers::ListenError),
    #[error("saying that we are ready")]
    Ready(#[source] io::Error),
    #[error("running the network")]
    Owner(#[from] OwnerError),
}

fn main() -> ExitCode {
    daemon::run("netd", || {
        let bounds = image_bounds();
        if let Err(error) = clock::apply(&bounds) {
            daemon::error!("{}", daemon::chain(&error));
        }
        apply_settings();
        start(bounds)
    })
}

/// The clock's limits. An image that does not say when it was made has our own.
fn image_bounds() -> Bounds {
    let text = std::fs::read_to_string(BUILD_TIME).unwrap_or_else(|error| {
        daemon::warn!("reading {BUILD_TIME}: {error}");
        String::new()
    });
    Bounds::parse(&text)
}

fn apply_settings() {
    for (name, value) in SETTINGS {
        let path = format!("{}/{name}", paths::PROC_NET);
        if let Err(error) = std::fs::write(&path, value) {
            daemon::warn!("writing {value} to {path}: {error}");
        }
    }
}

fn start(bounds: Bounds) -> Result<(), StartError> {
    let config = daemon::boot_config().map_err(StartError::Config)?;
    let store = Store::open(Path::new(paths::STATE))?;

    let unknown = Time {
        synchronised: false,
        server_known: false,
        source: "no time server known".to_owned(),
    };
    let (time_shown, time) = watch::channel(unknown);
    let (time_servers, servers) = std::sync::mpsc::channel();
    spawn("time", move || timesync::run(&bounds, &servers, &time_shown))?;

    let (requests, requests_in) = mpsc::channel(REQUESTS_MAX);
    let listener = daemon::listen(Path::new(NETD_SOCKET)).map_err(StartError::Listen)?;
    spawn("serve", move || {
        let error = ipc::serve(&listener, move |call| serve::answer(call, &requests));
        daemon::error!("serving: {error}");
    })?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(StartError::Runtime)?.block_on(async {
        let (connection, node, _) = new_connection().map_err(StartError::Netlink)?;
        drop(tokio::spawn(connection));
        let (announced_shown, announced) = watch::channel(routers::remembered(&store));
        let heard = routers::open()?;
        drop(tokio::spawn(hear(heard, store.clone(), announced_shown)));
        let parts = Parts { config, node, store, time, time_servers, announced };
        let events = link_events()?;
        daemon::ready().map_err(StartError::Ready)?;
        Ok(owner::run(parts, requests_in, events).await?)
    })
}

/// Without announcements, what was heard until now counts until its time is over.
async fn hear(socket: UdpSocket, store: Store, shown: watch::Sender<Vec<Announced>>) {
    if let Err(error) = routers::listen(socket, store, shown).await {
        daemon::error!("{}", daemon::chain(&error));
    }
}

/// One item for every burst of changes of links and their IPv6 addresses. The content is not looked at: whoever hears of a
/// change reads the kernel again.
fn link_events() -> Result<mpsc::Receiver<()>, StartError> {
    let (connection, _, mut messages) =
        new_multicast_connection(&GROUPS).map_err(StartError::Netlink)?;
    drop(tokio::spawn(connection));
    let (events, received) = mpsc::channel(1);
    drop(tokio::spawn(async move {
        while messages.next().await.is_some() {
            match events.try_send(()) {
                // A full channel says the same already.
                Ok(()) | Err(TrySendError::Full(())) => {}
                Err(TrySendError::Closed(())) => return,
            }
        }
    }));
    Ok(received)
}

fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|source| StartError::Thread { name, source })
}

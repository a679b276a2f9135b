//! Does what a plan says, step by step, through netlink.
//!
//! Decides nothing. A step that was done already is no failure; a step that fails is reported and
//! stops nobody else's: the caller reads the kernel again and makes another plan.

use crate::{
    kernel::{ROUTE_PROTOCOL, connect},
    namespace,
    plan::{Fact, Net, Place, Route, Step},
    want::CONTAINER_LINK,
};
use futures_util::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::AddressMessage,
        link::{InfoData, InfoVeth, LinkMessage},
        route::{RouteMessage, RouteScope},
    },
};
use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
};
use thiserror::Error;

/// One step that could not be done.
#[derive(Debug, Error)]
#[error("{step}")]
pub(crate) struct Failure {
    /// What was tried.
    pub(crate) step: Step,
    #[source]
    source: StepError,
}

/// What the kernel said.
#[derive(Debug, Error)]
enum StepError {
    #[error(transparent)]
    Netlink(#[from] rtnetlink::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("there is no link {0}")]
    NoLink(String),
}

/// Tries every step in order and returns those that failed.
pub(crate) async fn apply(node: &Handle, steps: &[Step]) -> Vec<Failure> {
    let mut failures = Vec::new();
    for step in steps {
        let done = match step {
            Step::Add(fact) => settled(add(node, fact).await, &[Errno::EEXIST]),
            Step::Remove(fact) => settled(remove(node, fact).await, &GONE),
        };
        if let Err(source) = done {
            failures.push(Failure { step: step.clone(), source });
        }
    }
    failures
}

/// What the kernel answers when that which is to be removed is not there.
const GONE: [Errno; 4] = [Errno::ENOENT, Errno::ENODEV, Errno::ESRCH, Errno::EADDRNOTAVAIL];

/// Another process, or the kernel itself, was faster: the fact is as it should be.
fn settled(result: Result<(), StepError>, done: &[Errno]) -> Result<(), StepError> {
    let already = match &result {
        Err(StepError::Netlink(rtnetlink::Error::NetlinkError(message))) => {
            done.contains(&Errno::from_raw(message.raw_code().saturating_neg()))
        }
        Err(StepError::NoLink(_)) => done.contains(&Errno::ENODEV),
        Ok(()) | Err(StepError::Netlink(_) | StepError::Io(_)) => false,
    };
    if already { Ok(()) } else { result }
}

async fn add(node: &Handle, fact: &Fact) -> Result<(), StepError> {
    match fact {
        Fact::Namespace(id) => namespace::create(id)?,
        Fact::Cable { link, container } => {
            let file = File::open(namespace::path(container))?;
            node.link().add(cable(link, &file)).execute().await?;
            namespace::quiet_ipv6(link)?;
        }
        Fact::Up(place, link) => switch(&reach(node, place)?, link, LinkMessageBuilder::up).await?,
        Fact::Address(place, link, net) => {
            let handle = reach(node, place)?;
            let index = index(&handle, link).await?;
            handle.address().add(index, net.address, net.prefix).execute().await?;
        }
        Fact::Route(place, route) => {
            let handle = reach(node, place)?;
            let message = route_message(&handle, route).await?;
            handle.route().add(message).execute().await?;
        }
    }
    Ok(())
}

async fn remove(node: &Handle, fact: &Fact) -> Result<(), StepError> {
    match fact {
        Fact::Namespace(id) => namespace::remove(id)?,
        Fact::Cable { link, container: _ } => {
            let index = index(node, link).await?;
            node.link().del(index).execute().await?;
        }
        Fact::Up(place, link) => {
            switch(&reach(node, place)?, link, LinkMessageBuilder::down).await?;
        }
        Fact::Address(place, link, net) => {
            let handle = reach(node, place)?;
            let index = index(&handle, link).await?;
            handle.address().del(address_message(index, *net)).execute().await?;
        }
        Fact::Route(place, route) => {
            let handle = reach(node, place)?;
            let message = route_message(&handle, route).await?;
            handle.route().del(message).execute().await?;
        }
    }
    Ok(())
}

/// A socket in the namespace where the fact lives.
fn reach(node: &Handle, place: &Place) -> io::Result<Handle> {
    match place {
        Place::Node => Ok(node.clone()),
        Place::Container(id) => connect(id),
    }
}

async fn index(handle: &Handle, link: &str) -> Result<u32, StepError> {
    let mut found = handle.link().get().match_name(link.to_owned()).execute();
    let message = found.try_next().await?.ok_or_else(|| StepError::NoLink(link.to_owned()))?;
    Ok(message.header.index)
}

async fn switch(
    handle: &Handle,
    link: &str,
    how: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
) -> Result<(), StepError> {
    let index = index(handle, link).await?;
    let message = how(LinkUnspec::new_with_index(index)).build();
    handle.link().change(message).execute().await?;
    Ok(())
}

/// Both ends at once, the far one born inside the container: it is never seen elsewhere.
fn cable(link: &str, namespace: &File) -> LinkMessage {
    let far_end =
        LinkUnspec::new_with_name(CONTAINER_LINK).setns_by_fd(namespace.as_raw_fd()).build();
    LinkVeth::new(link, CONTAINER_LINK)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(far_end)))
        .build()
}

fn address_message(index: u32, net: Net) -> AddressMessage {
    match net.address {
        IpAddr::V4(address) => rtnetlink::AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(address, net.prefix)
            .build(),
        IpAddr::V6(address) => rtnetlink::AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(address, net.prefix)
            .build(),
    }
}

async fn route_message(handle: &Handle, route: &Route) -> Result<RouteMessage, StepError> {
    let index = index(handle, &route.link).await?;
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .protocol(ROUTE_PROTOCOL)
        .priority(route.metric)
        .output_interface(index)
        .destination_prefix(route.to.address, route.to.prefix)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let builder = match route.via {
        Some(gateway) => {
            builder.gateway(gateway).map_err(|error| io::Error::other(error.to_string()))?
        }
        None if route.to.address.is_ipv4() => builder.scope(RouteScope::Link),
        None => builder,
    };
    Ok(builder.build())
}

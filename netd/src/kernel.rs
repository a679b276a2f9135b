//! What the kernel has now, as facts, and as the status of the physical links.
//!
//! Reads, never changes. Only facts that netd could have made are reported: a route of another
//! protocol, an address that the kernel made by itself, and a link of unknown origin are not ours.

use crate::{
    containers::LINK_PREFIX,
    dhcp::message::Mac,
    dhcp6::client::Need,
    namespace, nic,
    paths::SYS_NET,
    plan::{Fact, Net, Place, Route, Step},
    want::{CONTAINER_LINK, LOOPBACK},
};
use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
        link::{
            AfSpecInet6, AfSpecUnspec, Inet6IfaceFlags, LinkAttribute, LinkExtentMask, LinkFlags,
            LinkMessage,
        },
        route::{
            RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
        },
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};
use thiserror::Error;

/// Marks our routes among those of the kernel and of router advertisements.
pub(crate) const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(90);

/// What there is to tell about the node's own network.
#[derive(Debug, Default)]
pub(crate) struct Uplinks {
    /// Physical links, sorted by name.
    pub(crate) nics: Vec<Nic>,
    /// Default gateways, whoever set them.
    pub(crate) gateways: Vec<IpAddr>,
}

/// A physical link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nic {
    pub(crate) link: String,
    /// The kernel's number of it.
    pub(crate) index: u32,
    pub(crate) mac: Mac,
    pub(crate) driver: String,
    pub(crate) carrier: bool,
    /// Every address but link-local ones, whoever set them.
    pub(crate) addresses: Vec<Net>,
    /// What the routers of the link say that there is to get by DHCPv6.
    pub(crate) need: Need,
}

/// What the namespaces of containers were found to hold. Nobody but netd can change anything there, so
/// one is read again after a step that concerns it, and all are at each audit.
#[derive(Debug, Default)]
pub(crate) struct Insides(BTreeMap<String, Inside>);

#[derive(Debug)]
struct Inside {
    facts: BTreeSet<Fact>,
    /// Index, in the node's namespace, of the other end of the container's cable.
    far_end: Option<u32>,
}

impl Insides {
    /// Steps were tried, whatever came of them.
    pub(crate) fn forget(&mut self, steps: &[Step]) {
        self.0.retain(|id, _| !steps.iter().any(|step| step.fact().is_of_container(id)));
    }

    pub(crate) fn forget_all(&mut self) {
        self.0.clear();
    }
}

impl Inside {
    async fn read(id: &str) -> Result<Self, ReadError> {
        let place = Place::Container(id.to_owned());
        let inside =
            connect(id).map_err(|source| ReadError::Enter { id: id.to_owned(), source })?;
        let dump = Dump::read(&inside, &place).await?;
        let facts = dump.facts(&place, &|link| link == CONTAINER_LINK || link == LOOPBACK);
        Ok(Self { facts, far_end: dump.far_end(CONTAINER_LINK) })
    }
}

/// The kernel could not be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    #[error("reading {SYS_NET}")]
    Sysfs(#[source] io::Error),
    #[error("listing network namespaces")]
    Namespaces(#[source] io::Error),
    #[error("entering the namespace of container {id}")]
    Enter {
        id: String,
        #[source]
        source: io::Error,
    },
    #[error("reading {what} of {place}")]
    Dump {
        what: &'static str,
        place: Place,
        #[source]
        source: rtnetlink::Error,
    },
}

/// Reads the physical links and the gateways only.
pub(crate) async fn read_uplinks(node: &Handle) -> Result<Uplinks, ReadError> {
    let drivers = nic::physical(Path::new(SYS_NET)).map_err(ReadError::Sysfs)?;
    let dump = Dump::read(node, &Place::Node).await?;
    Ok(dump.uplinks(&drivers))
}

/// Reads everything: the node, then each pinned namespace that is not known from before. The facts are
/// those that hold, of all that netd could have made.
pub(crate) async fn read(
    node: &Handle,
    known: &mut Insides,
) -> Result<(Uplinks, BTreeSet<Fact>), ReadError> {
    let drivers = nic::physical(Path::new(SYS_NET)).map_err(ReadError::Sysfs)?;
    let namespaces = namespace::list().map_err(ReadError::Namespaces)?;
    let dump = Dump::read(node, &Place::Node).await?;
    let ours = |link: &str| {
        drivers.contains_key(link) || link.starts_with(LINK_PREFIX) || link == LOOPBACK
    };
    let mut facts = dump.facts(&Place::Node, &ours);
    let mut far_ends = BTreeMap::new();
    known.0.retain(|id, _| namespaces.contains(id));
    for id in namespaces {
        if !known.0.contains_key(&id) {
            known.0.insert(id.clone(), Inside::read(&id).await?);
        }
        facts.insert(Fact::Namespace(id));
    }
    for (id, inside) in &known.0 {
        facts.extend(inside.facts.iter().cloned());
        far_ends.extend(inside.far_end.map(|far_end| (far_end, id.clone())));
    }
    facts.extend(dump.cables(&far_ends));
    Ok((dump.uplinks(&drivers), facts))
}

/// A netlink socket inside the namespace of a container.
pub(crate) fn connect(id: &str) -> io::Result<Handle> {
    let runtime = tokio::runtime::Handle::current();
    let (connection, handle, _) = namespace::within(id, || {
        let _guard = runtime.enter();
        rtnetlink::new_connection()
    })?;
    // Ends with the last handle.
    drop(tokio::spawn(connection));
    Ok(handle)
}

/// What one namespace holds, as the kernel tells it.
struct Dump {
    links: Vec<LinkMessage>,
    /// Names by index.
    names: BTreeMap<u32, String>,
    addresses: Vec<AddressMessage>,
    routes: Vec<RouteMessage>,
}

impl Dump {
    async fn read(handle: &Handle, place: &Place) -> Result<Self, ReadError> {
        let failed = |what| move |source| ReadError::Dump { what, place: place.clone(), source };
        // Without counters, which are most of what the kernel tells of a link.
        let links = handle
            .link()
            .get()
            .set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]);
        let links: Vec<LinkMessage> =
            links.execute().try_collect().await.map_err(failed("links"))?;
        let addresses =
            handle.address().get().execute().try_collect().await.map_err(failed("addresses"))?;
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let mut routes: Vec<RouteMessage> =
            handle.route().get(v4).execute().try_collect().await.map_err(failed("routes"))?;
        let more: Vec<RouteMessage> =
            handle.route().get(v6).execute().try_collect().await.map_err(failed("routes"))?;
        routes.extend(more);
        let names = links
            .iter()
            .filter_map(|link| Some((link.header.index, link_name(link)?.to_owned())))
            .collect();
        Ok(Self { links, names, addresses, routes })
    }

    fn facts(&self, place: &Place, ours: &dyn Fn(&str) -> bool) -> BTreeSet<Fact> {
        let ups = self
            .links
            .iter()
            .filter(|link| link.header.flags.contains(LinkFlags::Up))
            .filter_map(link_name)
            .filter(|link| ours(link))
            .map(|link| Fact::Up(place.clone(), link.to_owned()));
        let addresses = self
            .addresses
            .iter()
            .filter(|message| set_by_us(message))
            .filter_map(|message| Some((self.names.get(&message.header.index)?, net(message)?)))
            // The kernel gives the loopback link its addresses.
            .filter(|(link, _)| ours(link) && *link != LOOPBACK)
            .map(|(link, net)| Fact::Address(place.clone(), link.clone(), net));
        let routes = self
            .routes
            .iter()
            .filter(|message| message.header.protocol == ROUTE_PROTOCOL)
            .filter_map(|message| self.route(message))
            .map(|route| Fact::Route(place.clone(), route));
        ups.chain(addresses).chain(routes).collect()
    }

    fn route(&self, message: &RouteMessage) -> Option<Route> {
        let header = &message.header;
        if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
            return None;
        }
        let mut route = Route {
            via: None,
            to: Net {
                address: match header.address_family {
                    AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
                    AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
                    _ => return None,
                },
                prefix: header.destination_prefix_length,
            },
            link: String::new(),
            metric: 0,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => route.to.address = ip(address)?,
                RouteAttribute::Gateway(address) => route.via = Some(ip(address)?),
                RouteAttribute::Oif(index) => route.link.clone_from(self.names.get(index)?),
                RouteAttribute::Priority(metric) => route.metric = *metric,
                _ => {}
            }
        }
        (!route.link.is_empty()).then_some(route)
    }

    fn uplinks(&self, drivers: &BTreeMap<String, String>) -> Uplinks {
        Uplinks { nics: self.nics(drivers), gateways: self.gateways() }
    }

    fn gateways(&self) -> Vec<IpAddr> {
        let mut defaults: Vec<Route> = self
            .routes
            .iter()
            .filter_map(|message| self.route(message))
            .filter(|route| route.to.prefix == 0)
            .collect();
        defaults.sort_by_key(|route| route.metric);
        let mut gateways: Vec<IpAddr> = defaults.iter().filter_map(|route| route.via).collect();
        gateways.dedup();
        gateways
    }

    fn nics(&self, drivers: &BTreeMap<String, String>) -> Vec<Nic> {
        let mut nics: Vec<Nic> = self
            .links
            .iter()
            .filter_map(|link| {
                let name = link_name(link)?;
                Some(Nic {
                    driver: drivers.get(name)?.clone(),
                    mac: mac(link)?,
                    carrier: link.header.flags.contains(LinkFlags::LowerUp),
                    addresses: self.shown_addresses(link.header.index),
                    index: link.header.index,
                    need: need(link),
                    link: name.to_owned(),
                })
            })
            .collect();
        nics.sort_by(|a, b| a.link.cmp(&b.link));
        nics
    }

    fn shown_addresses(&self, index: u32) -> Vec<Net> {
        self.addresses
            .iter()
            .filter(|message| message.header.index == index)
            .filter(|message| message.header.scope == AddressScope::Universe)
            .filter_map(net)
            .collect()
    }

    /// Index, in the node's namespace, of the link at the other end of `link`'s cable.
    fn far_end(&self, link: &str) -> Option<u32> {
        let link = self.links.iter().find(|message| link_name(message) == Some(link))?;
        link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Link(index) => Some(*index),
            _ => None,
        })
    }

    fn cables(&self, far_ends: &BTreeMap<u32, String>) -> BTreeSet<Fact> {
        let container = |index: &u32| far_ends.get(index).cloned().unwrap_or_default();
        self.names
            .iter()
            .filter(|(_, link)| link.starts_with(LINK_PREFIX))
            .map(|(index, link)| Fact::Cable { link: link.clone(), container: container(index) })
            .collect()
    }
}

fn link_name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The flags of the last router advertisement, which the kernel keeps with the link.
fn need(link: &LinkMessage) -> Need {
    let families = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::AfSpecUnspec(families) => Some(families),
        _ => None,
    });
    let inet6 = families.flatten().filter_map(|family| match family {
        AfSpecUnspec::Inet6(attributes) => Some(attributes),
        _ => None,
    });
    let flags = inet6.flatten().find_map(|attribute| match attribute {
        AfSpecInet6::Flags(flags) => Some(*flags),
        _ => None,
    });
    match flags {
        Some(flags) if flags.contains(Inet6IfaceFlags::RaManaged) => Need::Address,
        Some(flags) if flags.contains(Inet6IfaceFlags::Otherconf) => Need::Servers,
        Some(_) | None => Need::Nothing,
    }
}

/// Only Ethernet has six bytes.
fn mac(link: &LinkMessage) -> Option<Mac> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => Mac::try_from(bytes.as_slice()).ok(),
        _ => None,
    })
}

/// The local address; on a link between two points `Address` is the other end's.
fn net(message: &AddressMessage) -> Option<Net> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    Some(Net { address: local.or(any)?, prefix: message.header.prefix_len })
}

/// The kernel's own IPv6 addresses are link-local, or have a lifetime that a router gave.
fn set_by_us(message: &AddressMessage) -> bool {
    match net(message) {
        Some(Net { address: IpAddr::V4(_), .. }) => true,
        Some(Net { address: IpAddr::V6(_), .. }) => {
            message.header.scope == AddressScope::Universe
                && message.header.flags.contains(AddressHeaderFlags::Permanent)
        }
        None => false,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

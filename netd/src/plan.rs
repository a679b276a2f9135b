//! The network as a set of facts, and the steps from the one that is to the one that should be.
//!
//! Owns the vocabulary: everything that netd can make or remove is a variant of [`Fact`]. Refuses
//! to look at the kernel, the clock or the configuration: [`want`](crate::want) says what should
//! be, [`kernel`](crate::kernel) says what is, [`apply`](crate::apply) does what this file decides.
//!
//! A new kind of kernel object is a new variant, in the place where it must be created. Facts are
//! small, so that a change of one container touches no other.

use std::{collections::BTreeSet, fmt, net::IpAddr};

/// Something that holds in the kernel. Variants stand in the order in which they are created.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    /// The network namespace of a container exists, pinned by a file.
    Namespace(String),
    /// A cable leads from a link of the node to `eth0` of a container.
    Cable {
        /// Link of the node.
        link: String,
        /// Id of the container; empty when the other end is nowhere that we know.
        container: String,
    },
    /// A link is switched on.
    Up(Place, String),
    /// A link has an address.
    Address(Place, String, Net),
    /// Packets find their way.
    Route(Place, Route),
}

/// Where a link, an address or a route lives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The node itself.
    Node,
    /// The namespace of the container with this id.
    Container(String),
}

/// A route of the main table. The order of the fields puts a route to a gateway before those that
/// go through it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    /// Next hop; `None` when the destination is on the link.
    pub(crate) via: Option<IpAddr>,
    /// Destination.
    pub(crate) to: Net,
    /// Link that packets leave through.
    pub(crate) link: String,
    /// Of two routes to one destination the kernel takes the one with the lower metric.
    pub(crate) metric: u32,
}

/// An address and the length of its network prefix in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Net {
    /// An address of the network.
    pub(crate) address: IpAddr,
    /// Not above 32 or 128.
    pub(crate) prefix: u8,
}

impl Net {
    /// The network that holds one address only.
    pub(crate) fn host(address: IpAddr) -> Self {
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Everything of the family of `address`.
    pub(crate) fn all_like(address: IpAddr) -> Self {
        let address = match address {
            IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        };
        Self { address, prefix: 0 }
    }

    /// Whether `other` is in this network.
    pub(crate) fn contains(&self, other: IpAddr) -> bool {
        let shared = |own: u128, other: u128, width: u32| {
            let host_bits = width - u32::from(self.prefix).min(width);
            host_bits == 128 || own >> host_bits == other >> host_bits
        };
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                shared(u128::from(own.to_bits()), u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => shared(own.to_bits(), other.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// One change of the kernel's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make a fact untrue.
    Remove(Fact),
    /// Make a fact true.
    Add(Fact),
}

impl Step {
    /// What the step is about.
    pub(crate) fn fact(&self) -> &Fact {
        match self {
            Self::Remove(fact) | Self::Add(fact) => fact,
        }
    }
}

impl Fact {
    /// Whether it is part of the network of container `id`. The node's end of a cable is not: it
    /// goes with the cable.
    pub(crate) fn is_of_container(&self, id: &str) -> bool {
        match self {
            Self::Namespace(of)
            | Self::Cable { container: of, .. }
            | Self::Up(Place::Container(of), _)
            | Self::Address(Place::Container(of), ..)
            | Self::Route(Place::Container(of), _) => of == id,
            Self::Up(Place::Node, _)
            | Self::Address(Place::Node, ..)
            | Self::Route(Place::Node, _) => false,
        }
    }
}

/// What leads from `have` to `want`.
///
/// Removals first, so that an address can move; they go in the reverse of the order of creation.
/// The kernel may drop more than we remove (the last address of a link takes the link's routes with
/// it): whoever applies a plan reads the kernel again and plans again until nothing is left to do.
pub(crate) fn plan(want: &BTreeSet<Fact>, have: &BTreeSet<Fact>) -> Vec<Step> {
    let unwanted = have.iter().rev().filter(|fact| !want.contains(*fact));
    let missing = want.iter().filter(|fact| !have.contains(*fact));
    let removals = unwanted.cloned().map(Step::Remove);
    removals.chain(missing.cloned().map(Step::Add)).collect()
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => write!(f, "the node"),
            Self::Container(id) => write!(f, "container {id}"),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} through {}", self.to, self.link)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        write!(f, " metric {}", self.metric)
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(id) => write!(f, "network namespace of container {id}"),
            Self::Cable { link, container } => write!(f, "cable {link} to container {container}"),
            Self::Up(place, link) => write!(f, "link {link} of {place} up"),
            Self::Address(place, link, net) => write!(f, "address {net} on {link} of {place}"),
            Self::Route(place, route) => write!(f, "route of {place} to {route}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove(fact) => write!(f, "remove {fact}"),
            Self::Add(fact) => write!(f, "add {fact}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Net {
        let (address, prefix) = text.split_once('/').unwrap();
        Net { address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
    }

    fn address(link: &str, text: &str) -> Fact {
        Fact::Address(Place::Node, link.to_owned(), net(text))
    }

    fn route(to: &str, via: Option<&str>) -> Fact {
        let via = via.map(|via| via.parse().unwrap());
        Fact::Route(Place::Node, Route { via, to: net(to), link: "eth0".to_owned(), metric: 100 })
    }

    #[test]
    fn an_address_that_moves_is_freed_before_it_is_taken() {
        let have = BTreeSet::from([address("eth0", "10.0.0.2/24")]);
        let want = BTreeSet::from([address("eth1", "10.0.0.2/24")]);
        assert_eq!(
            plan(&want, &have),
            [
                Step::Remove(address("eth0", "10.0.0.2/24")),
                Step::Add(address("eth1", "10.0.0.2/24")),
            ]
        );
    }

    #[test]
    fn what_holds_already_needs_no_step() {
        let facts = BTreeSet::from([address("eth0", "10.0.0.2/24"), route("0.0.0.0/0", None)]);
        assert_eq!(plan(&facts, &facts), []);
    }

    #[test]
    fn a_container_is_built_from_the_namespace_to_the_route_and_removed_the_other_way_round() {
        let inside = Place::Container("web".to_owned());
        let facts = BTreeSet::from([
            route("100.127.0.2/32", None),
            Fact::Up(inside.clone(), "eth0".to_owned()),
            Fact::Namespace("web".to_owned()),
            Fact::Cable { link: "zc2".to_owned(), container: "web".to_owned() },
            Fact::Address(inside, "eth0".to_owned(), net("100.127.0.2/32")),
        ]);
        let kind = |fact: &Fact| match fact {
            Fact::Namespace(_) => "namespace",
            Fact::Cable { .. } => "cable",
            Fact::Up(..) => "up",
            Fact::Address(..) => "address",
            Fact::Route(..) => "route",
        };
        let added: Vec<_> = plan(&facts, &BTreeSet::new())
            .iter()
            .map(|step| match step {
                Step::Add(fact) => kind(fact),
                Step::Remove(_) => "removal",
            })
            .collect();
        assert_eq!(added, ["namespace", "cable", "up", "address", "route"]);
        let removed: Vec<_> = plan(&BTreeSet::new(), &facts)
            .iter()
            .map(|step| match step {
                Step::Remove(fact) => kind(fact),
                Step::Add(_) => "addition",
            })
            .collect();
        assert_eq!(removed, ["route", "address", "up", "cable", "namespace"]);
    }

    #[test]
    fn the_way_to_a_gateway_comes_before_the_route_through_it() {
        let want =
            BTreeSet::from([route("0.0.0.0/0", Some("192.0.2.1")), route("192.0.2.1/32", None)]);
        assert_eq!(
            plan(&want, &BTreeSet::new()),
            [
                Step::Add(route("192.0.2.1/32", None)),
                Step::Add(route("0.0.0.0/0", Some("192.0.2.1"))),
            ]
        );
    }

    #[test]
    fn a_network_knows_its_addresses() {
        for (network, address, inside) in [
            ("10.0.0.2/24", "10.0.0.254", true),
            ("10.0.0.2/24", "10.0.1.1", false),
            ("10.0.0.2/32", "10.0.0.2", true),
            ("10.0.0.2/32", "10.0.0.3", false),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/64", "2001:db8::1:0:0:1", true),
            ("2001:db8::/64", "2001:db9::1", false),
            ("::/0", "10.0.0.1", false),
        ] {
            assert_eq!(
                net(network).contains(address.parse().unwrap()),
                inside,
                "{network} {address}"
            );
        }
    }
}

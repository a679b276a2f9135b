//! What the network should be, as facts: from leases, configuration and containers.
//!
//! Pure. The kernel's side is in [`kernel`](crate::kernel).

use crate::{
    containers::{Attachment, Containers, GATEWAY},
    plan::{Fact, Net, Place, Route},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

/// The only link of a container but `lo`.
pub(crate) const CONTAINER_LINK: &str = "eth0";
pub(crate) const LOOPBACK: &str = "lo";
/// Metric of the default route through the first link; the others follow.
const METRIC: u32 = 100;
/// A link without carrier comes after all that have one.
const METRIC_NO_CARRIER: u32 = 10_000;
/// glibc asks no more name servers than this.
const DNS_MAX: usize = 3;
/// More opinions about the time make it no better.
const TIME_SERVERS_MAX: usize = 4;

/// A physical link and what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uplink {
    pub(crate) link: String,
    pub(crate) carrier: bool,
    /// From a lease or from the configuration.
    pub(crate) address: Option<Net>,
    pub(crate) gateway: Option<IpAddr>,
    /// From a DHCPv6 lease. The way there, and out, is the routers' word, which the kernel hears.
    pub(crate) address6: Option<Ipv6Addr>,
}

/// A name server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameServer {
    pub(crate) address: IpAddr,
    /// The link that leads to it, when its address holds on that link alone.
    pub(crate) link: Option<String>,
}

impl From<IpAddr> for NameServer {
    fn from(address: IpAddr) -> Self {
        Self { address, link: None }
    }
}

/// Everything that should hold. Of two uplinks with carrier the earlier is preferred.
pub(crate) fn facts(uplinks: &[Uplink], containers: &Containers) -> BTreeSet<Fact> {
    let mut facts = BTreeSet::from([up(Place::Node, LOOPBACK)]);
    for (position, uplink) in (0..).zip(uplinks) {
        facts.extend(uplink_facts(uplink, METRIC + position));
    }
    for (id, attachment) in &containers.table {
        facts.extend(container_facts(id, attachment));
    }
    facts
}

fn uplink_facts(uplink: &Uplink, metric: u32) -> Vec<Fact> {
    let Uplink { link, carrier, address, gateway, address6 } = uplink;
    let metric = if *carrier { metric } else { metric + METRIC_NO_CARRIER };
    let mut facts = vec![up(Place::Node, link)];
    let address6 = address6.map(|address| Net::host(address.into()));
    facts.extend(address6.map(|net| Fact::Address(Place::Node, link.clone(), net)));
    let Some(net) = address else { return facts };
    facts.push(Fact::Address(Place::Node, link.clone(), *net));
    if let Some(gateway) = *gateway {
        let route = |via, to| Route { via, to, link: link.clone(), metric };
        if !net.contains(gateway) {
            facts.push(Fact::Route(Place::Node, route(None, Net::host(gateway))));
        }
        let default = route(Some(gateway), Net::all_like(gateway));
        facts.push(Fact::Route(Place::Node, default));
    }
    facts
}

/// A cable without a shared network: each end has one address, and a route to the other.
pub(crate) fn container_facts(id: &str, attachment: &Attachment) -> Vec<Fact> {
    let inside = Place::Container(id.to_owned());
    let link = attachment.link();
    let gateway = IpAddr::V4(GATEWAY);
    let own = Net::host(attachment.address().into());
    let address =
        |place: &Place, link: &str, net| Fact::Address(place.clone(), link.to_owned(), net);
    let route = |place: &Place, via, to, link: &str| {
        Fact::Route(place.clone(), Route { via, to, link: link.to_owned(), metric: 0 })
    };
    vec![
        Fact::Namespace(id.to_owned()),
        Fact::Cable { link: link.clone(), container: id.to_owned() },
        up(Place::Node, &link),
        address(&Place::Node, &link, Net::host(gateway)),
        route(&Place::Node, None, own, &link),
        up(inside.clone(), LOOPBACK),
        up(inside.clone(), CONTAINER_LINK),
        address(&inside, CONTAINER_LINK, own),
        route(&inside, None, Net::host(gateway), CONTAINER_LINK),
        route(&inside, Some(gateway), Net::all_like(gateway), CONTAINER_LINK),
    ]
}

fn up(place: Place, link: &str) -> Fact {
    Fact::Up(place, link.to_owned())
}

/// The link that carries a static address: the present one while it has carrier, else the first
/// that has, else the present one or the first of all.
pub(crate) fn static_link<'a>(
    links: &'a [(String, bool)],
    present: Option<&str>,
) -> Option<&'a str> {
    let position = |(link, _): &&(String, bool)| Some(link.as_str()) == present;
    let with_carrier = |(_, carrier): &&(String, bool)| *carrier;
    let present = links.iter().find(position);
    present
        .filter(with_carrier)
        .or_else(|| links.iter().find(with_carrier))
        .or(present)
        .or_else(|| links.first())
        .map(|(link, _)| link.as_str())
}

/// The servers to use: those of the configuration, else those of the leases, each once.
fn servers<T: Clone + PartialEq>(configured: &[T], leased: &[T], limit: usize) -> Vec<T> {
    let source = if configured.is_empty() { leased } else { configured };
    let mut servers = Vec::new();
    for server in source {
        if !servers.contains(server) && servers.len() < limit {
            servers.push(server.clone());
        }
    }
    servers
}

/// The name servers to use.
pub(crate) fn dns(configured: &[IpAddr], leased: &[NameServer]) -> Vec<NameServer> {
    let configured: Vec<NameServer> = configured.iter().copied().map(NameServer::from).collect();
    servers(&configured, leased, DNS_MAX)
}

/// The time servers to use, by name or address.
pub(crate) fn time_servers(configured: &[String], leased: &[String]) -> Vec<String> {
    servers(configured, leased, TIME_SERVERS_MAX)
}

/// `/etc/resolv.conf`: a server that is silent is given up after two seconds.
pub(crate) fn resolv_conf(dns: &[NameServer]) -> String {
    let mut text = String::from("options timeout:2 attempts:2\n");
    for server in dns {
        text.push_str("nameserver ");
        text.push_str(&server.address.to_string());
        if let Some(link) = &server.link {
            text.push('%');
            text.push_str(link);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;

    fn net(address: &str, prefix: u8) -> Net {
        Net { address: address.parse().unwrap(), prefix }
    }

    fn uplink(link: &str, carrier: bool, address: Option<Net>, gateway: Option<&str>) -> Uplink {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        Uplink { link: link.to_owned(), carrier, address, gateway, address6: None }
    }

    fn text(uplinks: &[Uplink]) -> Vec<String> {
        facts(uplinks, &Containers::default()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_link_is_switched_on_before_anything_is_known() {
        assert_eq!(
            text(&[uplink("eth0", false, None, None), uplink("eth1", true, None, None)]),
            ["link eth0 of the node up", "link eth1 of the node up", "link lo of the node up",]
        );
    }

    #[test]
    fn a_leased_link_has_its_address_and_default_route() {
        assert_eq!(
            text(&[uplink("eth0", true, Some(net("10.0.2.15", 24)), Some("10.0.2.2"))])[2..],
            [
                "address 10.0.2.15/24 on eth0 of the node",
                "route of the node to 0.0.0.0/0 through eth0 via 10.0.2.2 metric 100",
            ]
        );
    }

    #[test]
    fn an_address_by_dhcpv6_comes_without_a_route() {
        let address6 = Some("2001:db8::9".parse().unwrap());
        assert_eq!(
            text(&[Uplink { address6, ..uplink("eth0", true, None, None) }])[2..],
            ["address 2001:db8::9/128 on eth0 of the node"]
        );
    }

    #[test]
    fn a_gateway_outside_the_subnet_gets_a_route_of_its_own() {
        assert_eq!(
            text(&[uplink("eth0", true, Some(net("198.51.100.7", 32)), Some("192.0.2.1"))])[3..],
            [
                "route of the node to 192.0.2.1/32 through eth0 metric 100",
                "route of the node to 0.0.0.0/0 through eth0 via 192.0.2.1 metric 100",
            ]
        );
    }

    #[test]
    fn a_link_that_loses_carrier_yields_to_the_other_and_keeps_its_address() {
        let both = |carrier| {
            let first = uplink("eth0", carrier, Some(net("10.0.0.2", 24)), Some("10.0.0.1"));
            let second = uplink("eth1", true, Some(net("10.1.0.2", 24)), Some("10.1.0.1"));
            facts(&[first, second], &Containers::default())
        };
        let steps: Vec<_> =
            plan(&both(false), &both(true)).iter().map(ToString::to_string).collect();
        assert_eq!(
            steps,
            [
                "remove route of the node to 0.0.0.0/0 through eth0 via 10.0.0.1 metric 100",
                "add route of the node to 0.0.0.0/0 through eth0 via 10.0.0.1 metric 10100",
            ]
        );
    }

    #[test]
    fn attaching_one_container_touches_no_other() {
        let one = Containers::default().attach("a", &[], &[]).unwrap();
        let two = one.attach("b", &[], &[]).unwrap();
        let steps: Vec<_> =
            plan(&facts(&[], &two), &facts(&[], &one)).iter().map(ToString::to_string).collect();
        assert_eq!(
            steps,
            [
                "add network namespace of container b",
                "add cable zc3 to container b",
                "add link zc3 of the node up",
                "add link eth0 of container b up",
                "add link lo of container b up",
                "add address 100.127.0.1/32 on zc3 of the node",
                "add address 100.127.0.3/32 on eth0 of container b",
                "add route of the node to 100.127.0.3/32 through zc3 metric 0",
                "add route of container b to 100.127.0.1/32 through eth0 metric 0",
                "add route of container b to 0.0.0.0/0 through eth0 via 100.127.0.1 metric 0",
            ]
        );
    }

    #[test]
    fn a_static_address_stays_where_it_is_until_another_link_is_better() {
        let links = |states: &[(&str, bool)]| -> Vec<(String, bool)> {
            states.iter().map(|(link, carrier)| ((*link).to_owned(), *carrier)).collect()
        };
        for (states, present, chosen) in [
            (&[][..], None, None),
            (&[("eth0", false), ("eth1", true)], None, Some("eth1")),
            (&[("eth0", true), ("eth1", true)], Some("eth1"), Some("eth1")),
            (&[("eth0", true), ("eth1", false)], Some("eth1"), Some("eth0")),
            (&[("eth0", false), ("eth1", false)], Some("eth1"), Some("eth1")),
            (&[("eth0", false), ("eth1", false)], None, Some("eth0")),
            (&[("eth0", true)], Some("gone"), Some("eth0")),
        ] {
            assert_eq!(static_link(&links(states), present), chosen, "{states:?} {present:?}");
        }
    }

    #[test]
    fn configured_servers_go_before_leased_ones() {
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        let server = |last| NameServer::from(ip(last));
        let leased = [1, 1, 2, 3, 4].map(server);
        assert_eq!(dns(&[], &leased), [1, 2, 3].map(server));
        assert_eq!(dns(&[ip(9)], &leased), [server(9)]);
        let local = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]);
        let router = NameServer { address: local, link: Some("eth0".to_owned()) };
        assert_eq!(
            resolv_conf(&[server(1), router]),
            "options timeout:2 attempts:2\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n"
        );
    }
}

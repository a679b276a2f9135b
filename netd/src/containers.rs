//! Which containers are attached, under which number, with which published ports.
//!
//! Owns the numbers: container `n` has the address 100.127.0.0 + `n` and the link `zc<n>` on the
//! node. Pure but for its state file, which the owner reads and writes.

use crate::plan::Fact;
use node_api::{
    boot::Metrics,
    netd::{self, Port, Protocol},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};
use thiserror::Error;

/// Links of containers are named by this and their number.
pub(crate) const LINK_PREFIX: &str = "zc";
/// The node's end of every cable, and the gateway of every container.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(100, 127, 0, 1);
/// The network that holds the gateway and all containers.
pub(crate) const RANGE: Ipv4Addr = Ipv4Addr::new(100, 127, 0, 0);
pub(crate) const RANGE_PREFIX: u8 = 16;
/// The first number after the gateway's.
const NUMBER_MIN: u16 = 2;
/// More would make every change slow: the kernel is read namespace by namespace.
const ATTACHMENTS_MAX: usize = 1024;
/// See [`Containers::with_neighbours`].
const NEIGHBOURS: u16 = 16;
/// A container that needs more ports wants a gateway.
const PORTS_MAX: usize = 128;
/// The node's own DHCP client listens there.
const PORT_DHCP: u16 = 68;
/// Longest id of a workload.
const ID_MAX: usize = 64;

/// One attached container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    /// Names its link and its address.
    pub(crate) number: u16,
    /// Sorted, each once.
    pub(crate) ports: BTreeSet<Port>,
    /// The name servers that it was told of. It knows no others, whatever the node learns later.
    #[serde(default)]
    pub(crate) dns: BTreeSet<IpAddr>,
}

impl Attachment {
    pub(crate) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from(RANGE.to_bits() | u32::from(self.number))
    }

    pub(crate) fn link(&self) -> String {
        format!("{LINK_PREFIX}{}", self.number)
    }
}

/// Every attached container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Containers {
    /// By id.
    pub(crate) table: BTreeMap<String, Attachment>,
    /// The number given last. The next is looked for above it, so that packets for a container
    /// that is gone do not reach another that came in its place.
    last: u16,
}

/// Why a container cannot be attached as asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error("the id {0:?} is not 1 to {ID_MAX} of a-z, 0-9 and -")]
    Id(String),
    #[error("more than {PORTS_MAX} ports are published")]
    TooManyPorts,
    #[error("port 0 cannot be published")]
    PortZero,
    #[error("port {host}/{} is asked for twice", name(*protocol))]
    PortTwice { host: u16, protocol: Protocol },
    #[error("port {host}/{} belongs to the node", name(*protocol))]
    PortOfNode { host: u16, protocol: Protocol },
    #[error("port {host}/{} of the node already leads to container {other}", name(*protocol))]
    PortTaken { host: u16, protocol: Protocol, other: String },
    #[error("{ATTACHMENTS_MAX} containers are attached, no more can be")]
    Full,
}

impl Containers {
    /// The table as far as the kernel shows it, for when the state file is lost: every container
    /// keeps its namespace and address, and has no port and no name server until it is attached
    /// again.
    pub(crate) fn rebuilt(facts: &BTreeSet<Fact>) -> Self {
        let mut containers = Self::default();
        for fact in facts {
            let Fact::Cable { link, container } = fact else { continue };
            let number = link.strip_prefix(LINK_PREFIX).and_then(|number| number.parse().ok());
            if let (Some(number), Ok(())) = (number, check_id(container)) {
                let attachment =
                    Attachment { number, ports: BTreeSet::new(), dns: BTreeSet::new() };
                containers.table.insert(container.clone(), attachment);
                containers.last = containers.last.max(number);
            }
        }
        containers
    }

    /// The table with `id` attached; the same table when it is already attached like that.
    pub(crate) fn attach(&self, id: &str, ports: &[Port], dns: &[IpAddr]) -> Result<Self, Refusal> {
        check_id(id)?;
        self.check_ports(id, ports)?;
        let mut next = self.clone();
        let former = self.table.get(id).map(|attachment| attachment.number);
        let number = former.map_or_else(|| self.free_number(), Ok)?;
        if former.is_none() {
            next.last = number;
        }
        let (ports, dns) = (ports.iter().cloned().collect(), dns.iter().copied().collect());
        next.table.insert(id.to_owned(), Attachment { number, ports, dns });
        Ok(next)
    }

    /// The table without `id`.
    pub(crate) fn detach(&self, id: &str) -> Self {
        let mut next = self.clone();
        next.table.remove(id);
        next
    }

    /// Every container and its address, sorted by id.
    pub(crate) fn addresses(&self) -> Vec<netd::Attachment> {
        let address = |(id, one): (&String, &Attachment)| netd::Attachment {
            id: id.clone(),
            address: one.address().into(),
            link: one.link(),
        };
        self.table.iter().map(address).collect()
    }

    /// Every attachment by its number, and what those with the numbers around it would be, without ports
    /// and with these name servers. Rules that are made for all of them stay the same when one without
    /// ports comes or goes, and new rules are most of what that would cost. No link has the name that
    /// they give to a number before the number is given.
    pub(crate) fn with_neighbours(&self, dns: &[IpAddr]) -> BTreeMap<u16, Attachment> {
        let attached =
            self.table.values().map(|attachment| (attachment.number, attachment.clone()));
        let attached: BTreeMap<u16, Attachment> = attached.collect();
        let blocks: BTreeSet<u16> = attached.keys().map(|number| number / NEIGHBOURS).collect();
        let numbers = blocks.into_iter().flat_map(|block| {
            (block * NEIGHBOURS).max(NUMBER_MIN)..=block * NEIGHBOURS + (NEIGHBOURS - 1)
        });
        let free = |number| Attachment {
            number,
            ports: BTreeSet::new(),
            dns: dns.iter().copied().collect(),
        };
        let free = numbers.filter(|number| *number < u16::MAX).map(|number| (number, free(number)));
        let mut all: BTreeMap<u16, Attachment> = free.collect();
        all.extend(attached);
        all
    }

    fn check_ports(&self, id: &str, ports: &[Port]) -> Result<(), Refusal> {
        if ports.len() > PORTS_MAX {
            return Err(Refusal::TooManyPorts);
        }
        let mut seen = BTreeSet::new();
        for Port { protocol, host, container } in ports {
            let (protocol, host) = (*protocol, *host);
            if host == 0 || *container == 0 {
                return Err(Refusal::PortZero);
            }
            if (protocol, host) == (Protocol::Udp, PORT_DHCP) {
                return Err(Refusal::PortOfNode { host, protocol });
            }
            if !seen.insert((protocol, host)) {
                return Err(Refusal::PortTwice { host, protocol });
            }
            let leads_here = |port: &Port| (port.protocol, port.host) == (protocol, host);
            let holder = self.table.iter().find(|(other, attachment)| {
                other.as_str() != id && attachment.ports.iter().any(leads_here)
            });
            if let Some((other, _)) = holder {
                return Err(Refusal::PortTaken { host, protocol, other: other.clone() });
            }
        }
        Ok(())
    }

    fn free_number(&self) -> Result<u16, Refusal> {
        if self.table.len() >= ATTACHMENTS_MAX {
            return Err(Refusal::Full);
        }
        let used: BTreeSet<u16> = self.table.values().map(|attachment| attachment.number).collect();
        let above = self.last.saturating_add(1).max(NUMBER_MIN)..u16::MAX;
        let free = above.chain(NUMBER_MIN..u16::MAX).find(|number| !used.contains(number));
        free.ok_or(Refusal::Full)
    }
}

/// Where the node shows its own figures, no container shows others.
pub(crate) fn check_metrics(ports: &[Port], metrics: Option<&Metrics>) -> Result<(), Refusal> {
    let shown = |port: &&Port| {
        port.protocol == Protocol::Tcp && metrics.is_some_and(|metrics| metrics.port == port.host)
    };
    ports.iter().find(shown).map_or(Ok(()), |Port { host, protocol, .. }| {
        Err(Refusal::PortOfNode { host: *host, protocol: *protocol })
    })
}

/// An id becomes a file name: nothing else may pass.
pub(crate) fn check_id(id: &str) -> Result<(), Refusal> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=ID_MAX).contains(&id.len()) && id.bytes().all(good) {
        Ok(())
    } else {
        Err(Refusal::Id(id.chars().take(ID_MAX).collect()))
    }
}

/// As in `/etc/services`, and as nft wants it.
pub(crate) fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(protocol: Protocol, host: u16, container: u16) -> Port {
        Port { protocol, host, container }
    }

    fn attach(table: &Containers, id: &str, ports: &[Port]) -> Result<Containers, Refusal> {
        table.attach(id, ports, &[])
    }

    #[test]
    fn a_number_is_given_again_only_when_all_others_were() {
        let table = attach(&Containers::default(), "a", &[]).unwrap();
        let table = attach(&table, "b", &[]).unwrap();
        assert_eq!(table.table["a"].address(), Ipv4Addr::new(100, 127, 0, 2));
        assert_eq!(table.table["b"].address(), Ipv4Addr::new(100, 127, 0, 3));
        assert_eq!(table.table["b"].link(), "zc3");
        let table = attach(&table.detach("a"), "c", &[]).unwrap();
        assert_eq!(table.table["c"].number, 4);
        let table = Containers { last: u16::MAX - 1, ..table };
        let table = attach(&table, "d", &[]).unwrap();
        assert_eq!(table.table["d"].number, 2);
    }

    #[test]
    fn a_lost_table_is_rebuilt_from_the_cables_that_lie() {
        let cable = |link: &str, container: &str| Fact::Cable {
            link: link.to_owned(),
            container: container.to_owned(),
        };
        let facts = BTreeSet::from([
            cable("zc7", "web"),
            cable("zc9", ""),
            Fact::Namespace("lost".to_owned()),
        ]);
        let rebuilt = Containers::rebuilt(&facts);
        assert_eq!(rebuilt.table.keys().collect::<Vec<_>>(), ["web"]);
        assert_eq!(rebuilt.table["web"].number, 7);
        let table = attach(&rebuilt, "new", &[]).unwrap();
        assert_eq!(table.table["new"].number, 8);
    }

    #[test]
    fn attaching_twice_changes_nothing_and_other_ports_replace_the_former() {
        let one = [port(Protocol::Tcp, 80, 8080)];
        let table = attach(&Containers::default(), "a", &one).unwrap();
        assert_eq!(attach(&table, "a", &one).unwrap(), table);
        let other = attach(&table, "a", &[port(Protocol::Tcp, 81, 8080)]).unwrap();
        assert_eq!(other.table["a"].number, table.table["a"].number);
        assert!(attach(&other, "b", &one).is_ok());
    }

    #[test]
    fn a_table_without_name_servers_is_still_understood() {
        let text = r#"{"table":{"web":{"number":2,"ports":[]}},"last":2}"#;
        let table: Containers = serde_json::from_str(text).unwrap();
        assert_eq!(table, attach(&Containers::default(), "web", &[]).unwrap());
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let table = attach(&Containers::default(), "web", &[port(tcp, 80, 80)]).unwrap();
        assert!(attach(&table, "b", &[port(udp, 80, 80)]).is_ok());
        let many: Vec<_> = (1..=129).map(|number| port(tcp, number, 1)).collect();
        for (id, ports, text) in [
            (
                "b",
                &[port(tcp, 80, 1)][..],
                "port 80/tcp of the node already leads to container web",
            ),
            ("b", &[port(tcp, 0, 1)], "port 0 cannot be published"),
            ("b", &[port(tcp, 1, 0)], "port 0 cannot be published"),
            ("b", &[port(udp, 68, 1)], "port 68/udp belongs to the node"),
            ("b", &[port(tcp, 5, 1), port(tcp, 5, 2)], "port 5/tcp is asked for twice"),
            ("b", &many, "more than 128 ports are published"),
            ("", &[], "the id \"\" is not 1 to 64 of a-z, 0-9 and -"),
            ("../x", &[], "the id \"../x\" is not 1 to 64 of a-z, 0-9 and -"),
            ("A", &[], "the id \"A\" is not 1 to 64 of a-z, 0-9 and -"),
        ] {
            assert_eq!(attach(&table, id, ports).unwrap_err().to_string(), text);
        }
        assert!(attach(&table, &"a".repeat(64), &[]).is_ok());
        assert!(attach(&table, &"a".repeat(65), &[]).is_err());
    }

    /// Another page stood where the node's own was read.
    #[test]
    fn no_container_has_the_port_of_the_nodes_figures() {
        let metrics = Metrics { port: 9100, from: vec![] };
        let ports = |host| {
            [
                port(Protocol::Udp, 9100, 1),
                port(Protocol::Tcp, 80, 9100),
                port(Protocol::Tcp, host, 80),
            ]
        };
        let refused = check_metrics(&ports(9100), Some(&metrics)).unwrap_err();
        assert_eq!(refused.to_string(), "port 9100/tcp belongs to the node");
        assert_eq!(check_metrics(&ports(9101), Some(&metrics)), Ok(()));
        assert_eq!(check_metrics(&ports(9100), None), Ok(()));
    }
}

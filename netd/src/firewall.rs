//! The firewall: one nft table, written whole as text and replaced in one step.
//!
//! Owns the table `inet zos`. What the node does not serve is dropped, and it serves nothing but
//! published ports of containers and, if the farmer wants it, figures of its own to those whom he
//! names. Containers reach the internet, not one another, not the node, and
//! not the farmer's printers, cameras and router, unless the farmer opens his network to them.

use crate::{
    containers::{Containers, LINK_PREFIX, RANGE, RANGE_PREFIX, name},
    paths::NFT,
};
use node_api::boot::{Lan, Metrics};
use std::{fmt::Write, io, net::IpAddr, process::Stdio, time::Duration};
use thiserror::Error;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// nft takes milliseconds; one that hangs must not stop the network.
const NFT_TIMEOUT: Duration = Duration::from_secs(20);

/// What is not the internet: the special purposes of RFC 6890 and its registry, and what is not
/// unicast. A farmer's network is in there, or is one of the internet's.
const SPECIAL: [&str; 15] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// Why the rules are not in force.
#[derive(Debug, Error)]
pub(crate) enum FirewallError {
    #[error("running {NFT}")]
    Run(#[source] io::Error),
    #[error("{NFT} did not end within {} s", NFT_TIMEOUT.as_secs())]
    Stuck,
    #[error("{NFT} refused the rules: {0}")]
    Refused(String),
}

/// The whole table. Adding it before deleting it makes the deletion succeed the first time too. `dns` is
/// what the next container would be told of.
pub(crate) fn rules(
    containers: &Containers,
    lan: Lan,
    metrics: Option<&Metrics>,
    dns: &[IpAddr],
) -> String {
    let range = format!("{RANGE}/{RANGE_PREFIX}");
    let (mut inside, mut name_servers) = (Vec::new(), Vec::new());
    let mut published = String::new();
    for attachment in containers.with_neighbours(dns).values() {
        let (address, link) = (attachment.address(), attachment.link());
        inside.push(format!("\"{link}\" . {address}"));
        let servers = attachment.dns.iter().filter(|server| server.is_ipv4());
        name_servers.extend(servers.map(|server| format!("\"{link}\" . {server}")));
        for port in &attachment.ports {
            let (protocol, host, container) = (name(port.protocol), port.host, port.container);
            writeln!(
                published,
                "\t\tiifname != \"{LINK_PREFIX}*\" fib daddr type local {protocol} dport {host} \
                 dnat ip to {address}:{container}"
            )
            .expect("a String takes everything");
        }
    }
    let (inside, name_servers) = (elements(&inside), elements(&name_servers));
    let readers: String = metrics.map(readers).unwrap_or_default();
    let special = match lan {
        Lan::Closed => format!("\n\t\tip daddr {{ {} }} drop", SPECIAL.join(", ")),
        Lan::Open => String::new(),
    };
    format!(
        r#"table inet zos
delete table inet zos
table inet zos {{
	# Which address each container may send from.
	set inside {{
		type ifname . ipv4_addr{inside}
	}}
	# Which name servers each container was told of.
	set name_servers {{
		type ifname . ipv4_addr{name_servers}
	}}
	chain input {{
		type filter hook input priority filter; policy drop;
		iifname "lo" accept
		ct state established,related accept
		ct state invalid drop
		iifname "{LINK_PREFIX}*" drop
		icmp type echo-request limit rate 20/second accept
		icmpv6 type echo-request limit rate 20/second accept
		icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert, mld-listener-query }} accept
		udp sport 67 udp dport 68 accept
		ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept
{readers}	}}
	chain forward {{
		type filter hook forward priority filter; policy drop;
		iifname "{LINK_PREFIX}*" oifname "{LINK_PREFIX}*" drop
		ct state established,related accept
		ct state invalid drop
		iifname . ip saddr @inside jump outgoing
		oifname "{LINK_PREFIX}*" ct status dnat accept
	}}
	# What a container begins itself.
	chain outgoing {{
		iifname . ip daddr @name_servers meta l4proto {{ tcp, udp }} th dport 53 accept{special}
		accept
	}}
	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
{published}	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {range} oifname != "{LINK_PREFIX}*" masquerade
	}}
}}
"#
    )
}

/// Who may read the node's figures: a rule for each range, because those of a set must not overlap.
fn readers(Metrics { port, from }: &Metrics) -> String {
    let rule = |(address, prefix): &(IpAddr, u8)| {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        format!("\t\t{family} saddr {address}/{prefix} tcp dport {port} accept\n")
    };
    from.iter().map(rule).collect()
}

/// The elements of a set; an empty one has no such line.
fn elements(elements: &[String]) -> String {
    if elements.is_empty() {
        String::new()
    } else {
        format!("\n\t\telements = {{ {} }}", elements.join(", "))
    }
}

/// Puts `rules` in force, all of them or none.
pub(crate) async fn apply(rules: &str) -> Result<(), FirewallError> {
    timeout(NFT_TIMEOUT, run(rules)).await.map_err(|_| FirewallError::Stuck)?
}

async fn run(rules: &str) -> Result<(), FirewallError> {
    let mut child = Command::new(NFT)
        .args(["-f", "-"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(FirewallError::Run)?;
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    stdin.write_all(rules.as_bytes()).await.map_err(FirewallError::Run)?;
    drop(stdin);
    let output = child.wait_with_output().await.map_err(FirewallError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("without a word");
    Err(FirewallError::Refused(first.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use node_api::netd::{Port, Protocol};
    use std::net::Ipv4Addr;

    const SERVERS: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1))];

    /// Two hundred containers took nft two hundred times.
    #[test]
    fn a_container_without_ports_comes_and_goes_under_the_same_rules() {
        let rules = |containers: &Containers| rules(containers, Lan::Closed, None, &SERVERS);
        let attach = |containers: &Containers, number: usize| {
            containers.attach(&format!("c{number}"), &[], &SERVERS).unwrap()
        };
        let mut containers = Containers::default();
        let mut n_rules = 0;
        for number in 0..100 {
            let next = attach(&containers, number);
            n_rules += usize::from(rules(&next) != rules(&containers));
            let attachment = &next.table[&format!("c{number}")];
            let own = format!("\"{}\" . {}", attachment.link(), attachment.address());
            assert!(rules(&next).contains(&own), "{own}");
            containers = next;
        }
        assert_eq!(n_rules, 7);
        assert_eq!(rules(&containers.detach("c50")), rules(&containers));
        // Ports are rules, and a server that only one was told of is.
        let port = Port { protocol: Protocol::Tcp, host: 80, container: 80 };
        let with_port = containers.attach("c50", &[port], &SERVERS).unwrap();
        assert_ne!(rules(&with_port), rules(&containers));
        let other = ["9.9.9.9".parse().unwrap()];
        let told_else = containers.attach("c50", &[], &other).unwrap();
        assert_ne!(rules(&told_else), rules(&containers));
        assert_eq!(rules(&told_else).matches("9.9.9.9").count(), 1);
    }

    #[test]
    fn a_node_without_containers_lets_nothing_in() {
        let rules = rules(&Containers::default(), Lan::Closed, None, &SERVERS);
        assert_eq!(rules, include_str!("../tests/data/empty.nft"));
    }

    fn two_containers() -> Containers {
        let port = |protocol, host, container| Port { protocol, host, container };
        let web = [port(Protocol::Tcp, 80, 8080), port(Protocol::Udp, 53, 53)];
        let dns = ["192.168.1.1", "2001:db8::53", "9.9.9.9"].map(|text| text.parse().unwrap());
        let table = Containers::default().attach("web", &web, &dns).unwrap();
        table.attach("quiet", &[], &[]).unwrap()
    }

    #[test]
    fn containers_are_let_out_and_their_ports_in() {
        let rules = rules(&two_containers(), Lan::Closed, None, &[]);
        assert_eq!(rules, include_str!("../tests/data/containers.nft"));
    }

    #[test]
    fn figures_are_read_by_those_who_are_named_and_by_no_container() {
        let from = [("10.0.0.0", 8), ("10.1.0.0", 16), ("2001:db8::", 32)];
        let from = from.map(|(address, prefix)| (address.parse().unwrap(), prefix)).to_vec();
        let metrics = Metrics { port: 9100, from };
        let closed = rules(&two_containers(), Lan::Closed, None, &[]);
        let open = rules(&two_containers(), Lan::Closed, Some(&metrics), &[]);
        let added = "\t\tip saddr 10.0.0.0/8 tcp dport 9100 accept\n\
                     \t\tip saddr 10.1.0.0/16 tcp dport 9100 accept\n\
                     \t\tip6 saddr 2001:db8::/32 tcp dport 9100 accept\n";
        assert_eq!(open.replace(added, ""), closed, "there is no other difference");
        // Behind what drops packets of containers, in the chain of what is meant for the node.
        let place = |text: &str| open.find(text).unwrap();
        assert!(place("iifname \"zc*\" drop") < place(added));
        assert!(place(added) < place("chain forward"));
    }

    /// A customer's container looked at the farmer's cameras.
    #[test]
    fn only_a_farmer_who_says_so_opens_his_network_to_containers() {
        let closed = rules(&two_containers(), Lan::Closed, None, &[]);
        let open = rules(&two_containers(), Lan::Open, None, &[]);
        let drops: Vec<&str> =
            closed.lines().filter(|line| line.trim().starts_with("ip daddr")).collect();
        let [drop] = *drops else { panic!("{drops:?}") };
        assert_eq!(closed.replace(&format!("{drop}\n"), ""), open, "there is no other difference");
        // Before what lets the rest out, after the answers, and in the chain that all pass who begin.
        let place = |text: &str| closed.find(text).unwrap();
        assert!(place("ct state established") < place("@inside jump outgoing"));
        assert!(place("@name_servers meta l4proto") < place(drop));
        assert!(closed[place(drop)..].starts_with(&format!("{drop}\n\t\taccept\n\t}}\n")));
    }

    /// Read by other means than as nft does: every address is special that the standard library
    /// knows as such, and the internet's are not.
    #[test]
    fn what_is_special_is_all_that_is_not_the_internet() {
        let ranges = SPECIAL.map(|range| {
            let (first, prefix) = range.split_once('/').unwrap();
            let (first, prefix) = (first.parse::<Ipv4Addr>().unwrap(), prefix.parse::<u32>());
            let shift = 32 - prefix.unwrap();
            assert_eq!(first.to_bits() >> shift << shift, first.to_bits(), "{range}");
            (first.to_bits() >> shift, shift)
        });
        let is_special = |address: Ipv4Addr| {
            ranges.iter().any(|(first, shift)| address.to_bits() >> shift == *first)
        };
        let known = |address: Ipv4Addr| {
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_broadcast()
                || address.is_documentation()
                || address.is_unspecified()
        };
        for number in (0..=u32::MAX).step_by(16_381) {
            let address = Ipv4Addr::from(number);
            assert!(is_special(address) || !known(address), "{address}");
        }
        let inside = "100.64.0.0 100.127.255.255 0.1.2.3 192.0.0.8 198.18.0.1 198.19.255.255 240.0.0.1 \
                      10.0.2.2 172.31.255.255 192.168.178.1 169.254.169.254 255.255.255.255 224.0.0.251";
        let outside = "1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 \
                       172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 \
                       198.20.0.0 223.255.255.255";
        for (text, expected) in [(inside, true), (outside, false)] {
            for address in text.split_whitespace() {
                assert_eq!(is_special(address.parse().unwrap()), expected, "{address}");
            }
        }
    }
}

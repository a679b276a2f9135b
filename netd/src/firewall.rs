//! The firewall: one nft table, written whole as text and replaced in one step.
//!
//! Owns the table `inet zos`. What the node does not serve is dropped, and it serves nothing but
//! published ports of containers. Containers reach the world, not one another and not the node.

use crate::{
    containers::{Containers, LINK_PREFIX, RANGE, RANGE_PREFIX, name},
    paths::NFT,
};
use std::{fmt::Write, io, process::Stdio, time::Duration};
use thiserror::Error;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// nft takes milliseconds; one that hangs must not stop the network.
const NFT_TIMEOUT: Duration = Duration::from_secs(20);

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

/// The whole table. Adding it before deleting it makes the deletion succeed the first time too.
pub(crate) fn rules(containers: &Containers) -> String {
    let range = format!("{RANGE}/{RANGE_PREFIX}");
    let mut inside = Vec::new();
    let mut published = String::new();
    for attachment in containers.table.values() {
        let address = attachment.address();
        inside.push(format!("\"{}\" . {address}", attachment.link()));
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
    let elements = if inside.is_empty() {
        String::new()
    } else {
        format!("\n\t\telements = {{ {} }}", inside.join(", "))
    };
    format!(
        r#"table inet zos
delete table inet zos
table inet zos {{
	# Which address each container may send from.
	set inside {{
		type ifname . ipv4_addr{elements}
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
	}}
	chain forward {{
		type filter hook forward priority filter; policy drop;
		iifname "{LINK_PREFIX}*" oifname "{LINK_PREFIX}*" drop
		ct state established,related accept
		ct state invalid drop
		iifname . ip saddr @inside accept
		oifname "{LINK_PREFIX}*" ct status dnat accept
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

    #[test]
    fn a_node_without_containers_lets_nothing_in() {
        assert_eq!(rules(&Containers::default()), include_str!("../tests/data/empty.nft"));
    }

    #[test]
    fn containers_are_let_out_and_their_ports_in() {
        let port = |protocol, host, container| Port { protocol, host, container };
        let web = [port(Protocol::Tcp, 80, 8080), port(Protocol::Udp, 53, 53)];
        let table = Containers::default().attach("web", &web).unwrap();
        let table = table.attach("quiet", &[]).unwrap();
        assert_eq!(rules(&table), include_str!("../tests/data/containers.nft"));
    }
}

//! Name servers that routers announce (RFC 8106), as the kernel passes them on.
//!
//! The kernel handles the rest of a router advertisement itself; of this option it only tells whoever
//! listens to `RTNLGRP_ND_USEROPT`. Owns the parsing, and the table of what was announced and until
//! when. Reads no socket and no clock.

use crate::dhcp::client::Moment;
use serde::{Deserialize, Serialize};
use std::{net::Ipv6Addr, time::Duration};

/// `RTM_NEWNDUSEROPT`.
const NEW_OPTION: u16 = 68;
/// `struct nlmsghdr`.
const MESSAGE_HEADER: usize = 16;
/// `struct nduseroptmsg`: family, pad, length, index, ICMP type and code, pad.
const OPTION_HEADER: usize = 16;
const FAMILY_INET6: u8 = 10;
const ROUTER_ADVERTISEMENT: u8 = 134;
/// Recursive DNS Server.
const RDNSS: u8 = 25;
/// Options are counted in units of so many bytes.
const UNIT: usize = 8;
/// Announced servers that are remembered, of all links.
const SERVERS_MAX: usize = 16;

/// A message of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Number of the link.
    pub link: u32,
    /// Seconds for which the servers may be used; 0 takes them back.
    pub lifetime_s: u32,
    /// Name servers.
    pub servers: Vec<Ipv6Addr>,
}

/// A name server that a router announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// Number of the link, which a link-local address needs.
    pub link: u32,
    /// The server.
    pub server: Ipv6Addr,
    /// When it is to be forgotten.
    pub ends_at: Moment,
}

/// The announcements in one datagram of netlink; whatever else is in it is skipped.
pub fn parse(mut datagram: &[u8]) -> Vec<Announcement> {
    let mut found = Vec::new();
    while let Some((header, _)) = datagram.split_first_chunk::<MESSAGE_HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(body) = datagram.get(MESSAGE_HEADER..length) else { break };
        if u16::from_ne_bytes([header[4], header[5]]) == NEW_OPTION {
            found.extend(option(body));
        }
        // Messages begin on multiples of four.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn option(body: &[u8]) -> Option<Announcement> {
    let (header, option) = body.split_first_chunk::<OPTION_HEADER>()?;
    let link = i32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    let is_advertised = header[0] == FAMILY_INET6 && header[8] == ROUTER_ADVERTISEMENT;
    let units = usize::from(*option.get(1)?);
    let option = option.get(..units * UNIT)?;
    let (fixed, servers) = option.split_first_chunk::<UNIT>()?;
    let (servers, []) = servers.as_chunks::<16>() else { return None };
    (is_advertised && fixed[0] == RDNSS).then(|| Announcement {
        link: link.cast_unsigned(),
        lifetime_s: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
        servers: servers.iter().take(SERVERS_MAX).map(|at| Ipv6Addr::from(*at)).collect(),
    })
}

/// The table after an announcement: the newest first, what has ended is left out.
pub fn take_in(table: &[Announced], heard: &Announcement, now: Moment) -> Vec<Announced> {
    let is_repeated =
        |old: &&Announced| old.link == heard.link && heard.servers.contains(&old.server);
    let ends_at = now + Duration::from_secs(heard.lifetime_s.into());
    let fresh = heard.servers.iter().filter(|_| heard.lifetime_s > 0);
    let fresh = fresh.map(|server| Announced { link: heard.link, server: *server, ends_at });
    let kept = table.iter().filter(|old| !is_repeated(old) && now < old.ends_at).cloned();
    fresh.chain(kept).take(SERVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
    }

    /// As the kernel sends it.
    fn message(kind: u16, link: u8, lifetime_s: u32, servers: &[Ipv6Addr]) -> Vec<u8> {
        let units = u8::try_from(1 + 2 * servers.len()).unwrap();
        let mut body = vec![FAMILY_INET6, 0, units * 8, 0, link, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0];
        body.extend([RDNSS, units, 0, 0]);
        body.extend(lifetime_s.to_be_bytes());
        body.extend(servers.iter().flat_map(Ipv6Addr::octets));
        let length = u32::try_from(MESSAGE_HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(MESSAGE_HEADER, 0);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn announcements_are_found_among_other_messages() {
        let two = message(NEW_OPTION, 3, 600, &[server(1), server(2)]);
        let datagram = [message(16, 3, 1, &[server(9)]), two].concat();
        let announcement =
            Announcement { link: 3, lifetime_s: 600, servers: vec![server(1), server(2)] };
        assert_eq!(parse(&datagram), [announcement]);
        assert_eq!(parse(&[]), []);
    }

    #[test]
    fn no_prefix_and_no_changed_byte_brings_the_parser_down() {
        let good = message(NEW_OPTION, 3, 600, &[server(1), server(2)]);
        let mut readable = 0;
        for end in 0..good.len() {
            assert_eq!(parse(&good[..end]), []);
        }
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut bytes = good.clone();
                bytes[at] = byte;
                readable += parse(&bytes).len();
            }
        }
        assert!(readable > 0, "the bytes of addresses may be any");
    }

    #[test]
    fn servers_are_forgotten_when_their_time_is_over_or_they_are_taken_back() {
        let at = Moment::from_secs;
        let heard = |lifetime_s, n| Announcement { link: 3, lifetime_s, servers: vec![server(n)] };
        let one = take_in(&[], &heard(100, 1), at(0));
        let both = take_in(&one, &heard(100, 2), at(50));
        let servers: Vec<Ipv6Addr> = both.iter().map(|known| known.server).collect();
        assert_eq!(servers, [server(2), server(1)]);
        let renewed = take_in(&both, &heard(100, 1), at(60));
        assert_eq!((renewed.len(), renewed[0].ends_at), (2, at(160)));
        assert_eq!(take_in(&both, &heard(0, 1), at(60)).len(), 1);
        assert_eq!(take_in(&both, &heard(100, 3), at(120)).len(), 2, "server 1 has ended");
        let flood = (0..100).fold(Vec::new(), |table, n| take_in(&table, &heard(100, n), at(0)));
        assert_eq!(flood.len(), SERVERS_MAX);
    }
}

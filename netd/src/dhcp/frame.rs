//! The Ethernet, IPv4 and UDP headers around a DHCP message.
//!
//! A node without an address cannot use a UDP socket, so these 42 bytes are made and read here.
//! Refuses everything but an unfragmented IPv4 frame from port 67 to port 68.

use super::message::Mac;
use std::net::Ipv4Addr;

/// The longest frame of a link without jumbo frames.
pub const FRAME_MAX: usize = 1514;
/// Where servers listen.
pub const PORT_SERVER: u16 = 67;
/// Where clients listen.
pub const PORT_CLIENT: u16 = 68;

const ETHERNET_HEADER: usize = 14;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const ETHERTYPE_IPV4: [u8; 2] = [8, 0];
const PROTOCOL_UDP: u8 = 17;

/// A broadcast frame from `source` to all servers.
pub fn encode(mac: Mac, source: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length_of = |bytes: usize| u16::try_from(bytes).expect("our queries are short");
    let length_udp = length_of(UDP_HEADER + payload.len());
    let length_ip = length_of(IP_HEADER + UDP_HEADER + payload.len());
    let target = Ipv4Addr::BROADCAST;

    let mut ip = [0; IP_HEADER];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length_ip.to_be_bytes());
    ip[8] = 64;
    ip[9] = PROTOCOL_UDP;
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&target.octets());
    let sum = !checksum(sum_of(0, &ip));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());

    let mut udp = [0; UDP_HEADER];
    udp[..2].copy_from_slice(&PORT_CLIENT.to_be_bytes());
    udp[2..4].copy_from_slice(&PORT_SERVER.to_be_bytes());
    udp[4..6].copy_from_slice(&length_udp.to_be_bytes());
    let pseudo = sum_of(sum_of(0, &source.octets()), &target.octets());
    let pseudo = pseudo + u32::from(PROTOCOL_UDP) + u32::from(length_udp);
    let sum = match !checksum(sum_of(sum_of(pseudo, &udp), payload)) {
        // Zero says that there is no checksum.
        0 => u16::MAX,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());

    let mut frame = Vec::with_capacity(ETHERNET_HEADER + usize::from(length_ip));
    frame.extend_from_slice(&[0xff; 6]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&ETHERTYPE_IPV4);
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(&udp);
    frame.extend_from_slice(payload);
    frame
}

/// The UDP payload, when `frame` comes from a DHCP server.
///
/// The UDP checksum is not looked at: a frame from a virtual link has none yet (the sender leaves
/// it to a network card that does not exist), and the payload is checked field by field anyway.
pub fn payload(frame: &[u8]) -> Option<&[u8]> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_HEADER)?;
    if ethernet[12..] != ETHERTYPE_IPV4 {
        return None;
    }
    let version_and_length = *packet.first()?;
    let length_header = usize::from(version_and_length & 0x0f) * 4;
    if version_and_length >> 4 != 4 || length_header < IP_HEADER {
        return None;
    }
    let header = packet.get(..length_header)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // Everything but the flag "do not fragment" must be zero.
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0xbfff;
    if fragment != 0 || header[9] != PROTOCOL_UDP || checksum(sum_of(0, header)) != u16::MAX {
        return None;
    }
    // Short frames are padded; the padding is not part of the packet.
    let datagram = packet.get(length_header..length)?;
    let (udp, _) = datagram.split_at_checked(UDP_HEADER)?;
    let field = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
    if field(0) != PORT_SERVER || field(2) != PORT_CLIENT {
        return None;
    }
    datagram.get(UDP_HEADER..usize::from(field(4)))
}

/// Adds 16-bit words; at most a frame's worth, so that 32 bits do not overflow.
fn sum_of(start: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let sum = words.iter().fold(start, |sum, word| sum + u32::from(u16::from_be_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| sum + (u32::from(*byte) << 8))
}

/// Folds the carries back in (RFC 1071).
fn checksum(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    u16::try_from(twice).expect("two folds leave 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    /// What a server would send: our own frame with the ports exchanged, which keeps both sums.
    fn from_server(payload: &[u8]) -> Vec<u8> {
        let mut frame = encode(MAC, Ipv4Addr::new(10, 0, 2, 2), payload);
        frame[34..38].copy_from_slice(&[0, 67, 0, 68]);
        frame
    }

    #[test]
    fn a_servers_frame_gives_its_payload_without_padding() {
        let mut frame = from_server(b"hello");
        assert_eq!(payload(&frame), Some(&b"hello"[..]));
        frame.extend([0; 20]);
        assert_eq!(payload(&frame), Some(&b"hello"[..]));
    }

    #[test]
    fn the_checksums_are_those_that_the_standard_demands() {
        let frame = encode(MAC, Ipv4Addr::UNSPECIFIED, b"odd");
        assert_eq!(checksum(sum_of(0, &frame[14..34])), u16::MAX);
        let pseudo = sum_of(0, &frame[26..34]) + 17 + 11;
        assert_eq!(checksum(sum_of(pseudo, &frame[34..])), u16::MAX);
    }

    /// `frame` with one byte changed and a checksum that is right again.
    fn changed(frame: &[u8], at: usize, byte: u8) -> Vec<u8> {
        let mut frame = frame.to_vec();
        assert_ne!(frame[at], byte, "byte {at} says so already");
        frame[at] = byte;
        frame[24..26].fill(0);
        let sum = !checksum(sum_of(0, &frame[14..34]));
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    #[test]
    fn other_traffic_is_not_taken_for_an_answer() {
        let good = from_server(b"hello");
        assert!(payload(&changed(&good, 22, 1)).is_some(), "a short way to live changes nothing");
        assert!(payload(&changed(&good, 20, 0x40)).is_some(), "nor does a ban on fragments");
        for (what, at, byte) in [
            ("IPv6 or ARP", 12, 0x86),
            ("version 6", 14, 0x65),
            ("a header shorter than the shortest", 14, 0x44),
            ("a header longer than the packet", 14, 0x4f),
            ("a packet longer than the frame", 17, 200),
            ("a packet shorter than its header", 17, 19),
            ("a fragment that others follow", 20, 0x20),
            ("a fragment that follows others", 21, 1),
            ("TCP", 23, 6),
            ("another server's port", 35, 53),
            ("another client's port", 37, 69),
            ("a datagram longer than the packet", 39, 200),
            ("a datagram shorter than its header", 39, 7),
        ] {
            assert_eq!(payload(&changed(&good, at, byte)), None, "{what}");
        }
        let mut damaged = good.clone();
        damaged[24] ^= 1;
        assert_eq!(payload(&damaged), None, "a wrong checksum");
        for end in 0..good.len() {
            assert_eq!(payload(&good[..end]), None, "{end} bytes");
        }
    }
}

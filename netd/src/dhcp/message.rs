//! The bytes of DHCP messages (RFC 2131, RFC 2132): what a client sends, what a server answers.
//!
//! Owns encoding and parsing. Whatever a server sends is only bytes from the net: the parser takes
//! the dozen options that a node uses, checks their length, and skips the rest unread. Reads no
//! socket and no clock.

use std::{collections::BTreeMap, net::Ipv4Addr};
use thiserror::Error;

/// Hardware address of an Ethernet link.
pub type Mac = [u8; 6];

/// Length of everything before the options.
const HEADER: usize = 240;
/// RFC 951: a message is at least this long; some relays drop shorter ones.
const LENGTH_MIN: usize = 300;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;
const ETHERNET: u8 = 1;
/// More servers of one kind than this are of no use to a node.
const SERVERS_MAX: usize = 4;

/// Numbers of the options that a node knows.
mod code {
    pub(super) const PAD: u8 = 0;
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const NTP: u8 = 42;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const LEASE: u8 = 51;
    pub(super) const OVERLOAD: u8 = 52;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const PARAMETERS: u8 = 55;
    pub(super) const SIZE_MAX: u8 = 57;
    pub(super) const RENEW: u8 = 58;
    pub(super) const REBIND: u8 = 59;
    pub(super) const CLIENT: u8 = 61;
    pub(super) const END: u8 = 255;
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Is there a server? (DHCPDISCOVER)
    Discover,
    /// I take what this server offered. (DHCPREQUEST in state SELECTING)
    Take {
        /// The offered address.
        address: Ipv4Addr,
        /// Who offered it.
        server: Ipv4Addr,
    },
    /// I had this address; may I keep it? (DHCPREQUEST in state INIT-REBOOT)
    Confirm {
        /// The remembered address.
        address: Ipv4Addr,
    },
    /// I use this address; may I keep it longer? (DHCPREQUEST in RENEWING and REBINDING)
    Extend {
        /// The address in use.
        address: Ipv4Addr,
    },
}

/// What kind of answer a server gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// DHCPOFFER.
    Offer,
    /// DHCPACK.
    Ack,
    /// DHCPNAK.
    Nak,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Offer, acknowledgement or refusal.
    pub kind: Kind,
    /// The number that the query carried.
    pub transaction: u32,
    /// Whom it is for.
    pub mac: Mac,
    /// The address given; unspecified in a refusal.
    pub address: Ipv4Addr,
    /// Length of the prefix of the subnet.
    pub prefix: Option<u8>,
    /// Who answers.
    pub server: Option<Ipv4Addr>,
    /// Default gateways, best first.
    pub routers: Vec<Ipv4Addr>,
    /// Name servers, best first.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers, best first.
    pub ntp: Vec<Ipv4Addr>,
    /// Seconds for which the address is given.
    pub lease_s: Option<u32>,
    /// Seconds after which the server is asked for more.
    pub renew_s: Option<u32>,
    /// Seconds after which any server is asked for more.
    pub rebind_s: Option<u32>,
}

/// Why bytes are not an answer of a DHCP server to an Ethernet client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Shorter than the fixed part.
    #[error("the message has {0} bytes, the fixed part alone has {HEADER}")]
    Short(usize),
    /// A query, or nothing that we know.
    #[error("the message is not a reply")]
    NotReply,
    /// The client that it answers is not an Ethernet card.
    #[error("the message is for another kind of hardware")]
    Hardware,
    /// BOOTP, not DHCP.
    #[error("the magic cookie is missing")]
    Cookie,
    /// An option runs past the end of its field.
    #[error("option {0} is cut off")]
    Cut(u8),
    /// An option that we use has an impossible length or value.
    #[error("option {0} has a bad value")]
    Value(u8),
    /// Neither offer nor acknowledgement nor refusal.
    #[error("the message is neither an offer nor an acknowledgement nor a refusal")]
    Kind,
}

/// Writes the UDP payload of a query.
pub fn encode(query: &Query, transaction: u32, elapsed_s: u16, mac: Mac) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..3].copy_from_slice(&[BOOT_REQUEST, ETHERNET, 6]);
    bytes[4..8].copy_from_slice(&transaction.to_be_bytes());
    bytes[8..10].copy_from_slice(&elapsed_s.to_be_bytes());
    if let Query::Extend { address } = query {
        bytes[12..16].copy_from_slice(&address.octets());
    }
    bytes[28..34].copy_from_slice(&mac);
    bytes[236..].copy_from_slice(&COOKIE);

    let kind = match query {
        Query::Discover => 1,
        Query::Take { .. } | Query::Confirm { .. } | Query::Extend { .. } => 3,
    };
    let mut option = |code: u8, value: &[u8]| {
        bytes.push(code);
        bytes.push(u8::try_from(value.len()).expect("our options are short"));
        bytes.extend_from_slice(value);
    };
    option(code::KIND, &[kind]);
    let mut client = vec![ETHERNET];
    client.extend_from_slice(&mac);
    option(code::CLIENT, &client);
    match query {
        Query::Take { address, server } => {
            option(code::REQUESTED, &address.octets());
            option(code::SERVER, &server.octets());
        }
        Query::Confirm { address } => option(code::REQUESTED, &address.octets()),
        Query::Discover | Query::Extend { .. } => {}
    }
    // The most that an unfragmented frame carries.
    option(code::SIZE_MAX, &1472_u16.to_be_bytes());
    let wanted =
        [code::MASK, code::ROUTER, code::DNS, code::NTP, code::LEASE, code::RENEW, code::REBIND];
    option(code::PARAMETERS, &wanted);
    bytes.push(code::END);
    bytes.resize(bytes.len().max(LENGTH_MIN), code::PAD);
    bytes
}

/// Reads the UDP payload of an answer.
pub fn parse(bytes: &[u8]) -> Result<Reply, Malformed> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(Malformed::Short(bytes.len()));
    };
    if header[0] != BOOT_REPLY {
        return Err(Malformed::NotReply);
    }
    if header[1] != ETHERNET || header[2] != 6 {
        return Err(Malformed::Hardware);
    }
    if header[236..] != COOKIE {
        return Err(Malformed::Cookie);
    }
    let options = all_options(header, rest)?;
    let get = |code: u8| options.get(&code).map(Vec::as_slice);
    let kind = match get(code::KIND) {
        Some([2]) => Kind::Offer,
        Some([5]) => Kind::Ack,
        Some([6]) => Kind::Nak,
        _ => return Err(Malformed::Kind),
    };
    let one = |code: u8| Ok(addresses(code, get(code))?.first().copied());
    let number = |code: u8| match get(code) {
        None => Ok(None),
        Some(value) => match <[u8; 4]>::try_from(value) {
            Ok(value) => Ok(Some(u32::from_be_bytes(value))),
            Err(_) => Err(Malformed::Value(code)),
        },
    };
    let mut mac = Mac::default();
    mac.copy_from_slice(&header[28..34]);
    Ok(Reply {
        kind,
        transaction: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        mac,
        address: Ipv4Addr::new(header[16], header[17], header[18], header[19]),
        prefix: one(code::MASK)?.map(prefix).transpose()?,
        server: one(code::SERVER)?,
        routers: addresses(code::ROUTER, get(code::ROUTER))?,
        dns: addresses(code::DNS, get(code::DNS))?,
        ntp: addresses(code::NTP, get(code::NTP))?,
        lease_s: number(code::LEASE)?,
        renew_s: number(code::RENEW)?,
        rebind_s: number(code::REBIND)?,
    })
}

/// The options of the options field, and of the two fixed fields that a server may fill with more
/// (RFC 2132, 9.3). Parts of one option are joined (RFC 3396).
fn all_options(header: &[u8; HEADER], rest: &[u8]) -> Result<BTreeMap<u8, Vec<u8>>, Malformed> {
    let mut options = BTreeMap::new();
    collect(rest, &mut options)?;
    let overload = match options.get(&code::OVERLOAD).map(Vec::as_slice) {
        None => 0,
        Some([fields @ 1..=3]) => *fields,
        Some(_) => return Err(Malformed::Value(code::OVERLOAD)),
    };
    if overload & 1 != 0 {
        collect(&header[108..236], &mut options)?;
    }
    if overload & 2 != 0 {
        collect(&header[44..108], &mut options)?;
    }
    Ok(options)
}

fn collect(mut field: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) -> Result<(), Malformed> {
    while let Some((&code, rest)) = field.split_first() {
        field = rest;
        match code {
            code::PAD => continue,
            code::END => break,
            _ => {}
        }
        let (&length, rest) = field.split_first().ok_or(Malformed::Cut(code))?;
        let (value, rest) = rest.split_at_checked(length.into()).ok_or(Malformed::Cut(code))?;
        options.entry(code).or_default().extend_from_slice(value);
        field = rest;
    }
    Ok(())
}

fn addresses(code: u8, value: Option<&[u8]>) -> Result<Vec<Ipv4Addr>, Malformed> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let (chunks, []) = value.as_chunks::<4>() else { return Err(Malformed::Value(code)) };
    if chunks.is_empty() {
        return Err(Malformed::Value(code));
    }
    Ok(chunks.iter().take(SERVERS_MAX).map(|octets| Ipv4Addr::from(*octets)).collect())
}

fn prefix(mask: Ipv4Addr) -> Result<u8, Malformed> {
    let bits = mask.to_bits();
    let ones = bits.leading_ones();
    if bits.count_ones() == ones {
        Ok(u8::try_from(ones).expect("a u32 has at most 32 ones"))
    } else {
        Err(Malformed::Value(code::MASK))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const MAC: Mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    /// An answer as a server would write it.
    pub(crate) fn answer(kind: u8, transaction: u32, address: [u8; 4], options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..3].copy_from_slice(&[2, 1, 6]);
        bytes[4..8].copy_from_slice(&transaction.to_be_bytes());
        bytes[16..20].copy_from_slice(&address);
        bytes[28..34].copy_from_slice(&MAC);
        bytes[236..].copy_from_slice(&COOKIE);
        bytes.extend_from_slice(&[53, 1, kind]);
        bytes.extend_from_slice(options);
        bytes.push(255);
        bytes
    }

    const USUAL: &[u8] = &[
        54, 4, 10, 0, 2, 2, 51, 4, 0, 1, 0x51, 0x80, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2, 6,
        8, 10, 0, 2, 3, 10, 0, 2, 4, 42, 4, 10, 0, 2, 9, 58, 4, 0, 0, 0, 60, 59, 4, 0, 0, 0, 90,
    ];

    #[test]
    fn an_offer_is_read() {
        let reply = parse(&answer(2, 77, [10, 0, 2, 15], USUAL)).unwrap();
        assert_eq!(
            reply,
            Reply {
                kind: Kind::Offer,
                transaction: 77,
                mac: MAC,
                address: Ipv4Addr::new(10, 0, 2, 15),
                prefix: Some(24),
                server: Some(Ipv4Addr::new(10, 0, 2, 2)),
                routers: vec![Ipv4Addr::new(10, 0, 2, 2)],
                dns: vec![Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(10, 0, 2, 4)],
                ntp: vec![Ipv4Addr::new(10, 0, 2, 9)],
                lease_s: Some(86400),
                renew_s: Some(60),
                rebind_s: Some(90),
            }
        );
    }

    #[test]
    fn malformed_answers_are_refused_with_the_reason() {
        let good = answer(5, 1, [10, 0, 2, 15], USUAL);
        assert!(parse(&good).is_ok());
        let broken = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        let with = |options: &[u8]| answer(5, 1, [10, 0, 2, 15], options);
        for (bytes, problem) in [
            (Vec::new(), Malformed::Short(0)),
            (good[..239].to_vec(), Malformed::Short(239)),
            (broken(0, 1), Malformed::NotReply),
            (broken(1, 32), Malformed::Hardware),
            // A length above the field's 16 bytes must not be believed.
            (broken(2, 200), Malformed::Hardware),
            (broken(236, 0), Malformed::Cookie),
            (broken(242, 9), Malformed::Kind),
            (good[..240].to_vec(), Malformed::Kind),
            (good[..good.len() - 3].to_vec(), Malformed::Cut(59)),
            (with(&[1, 3, 255, 255, 255]), Malformed::Value(1)),
            (with(&[1, 4, 255, 0, 255, 0]), Malformed::Value(1)),
            (with(&[3, 5, 1, 2, 3, 4, 5]), Malformed::Value(3)),
            (with(&[6, 0]), Malformed::Value(6)),
            (with(&[51, 2, 0, 1]), Malformed::Value(51)),
            (with(&[52, 1, 4]), Malformed::Value(52)),
        ] {
            assert_eq!(parse(&bytes), Err(problem));
        }
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_of_an_answer_brings_the_parser_down() {
        let good = answer(5, 1, [10, 0, 2, 15], USUAL);
        let mut readable = 0;
        for end in 0..good.len() {
            readable += usize::from(parse(&good[..end]).is_ok());
        }
        for at in 0..good.len() {
            for byte in [0, 1, 4, 127, 128, 255] {
                let mut bytes = good.clone();
                bytes[at] = byte;
                readable += usize::from(parse(&bytes).is_ok());
            }
        }
        assert!(readable > 0, "most bytes of the header mean nothing to us");
    }

    #[test]
    fn options_in_the_fixed_fields_and_in_parts_are_found() {
        let mut bytes = answer(5, 1, [10, 0, 2, 15], &[52, 1, 3, 6, 2, 10, 0, 6, 2, 2, 3]);
        bytes[108..115].copy_from_slice(&[3, 4, 10, 0, 2, 2, 255]);
        bytes[44..51].copy_from_slice(&[42, 4, 10, 0, 2, 9, 255]);
        let reply = parse(&bytes).unwrap();
        assert_eq!(reply.dns, [Ipv4Addr::new(10, 0, 2, 3)]);
        assert_eq!(reply.routers, [Ipv4Addr::new(10, 0, 2, 2)]);
        assert_eq!(reply.ntp, [Ipv4Addr::new(10, 0, 2, 9)]);
    }

    #[test]
    fn a_long_list_of_servers_is_cut() {
        let mut options = vec![6, 40];
        options.extend([10; 40]);
        let reply = parse(&answer(5, 1, [10, 0, 2, 15], &options)).unwrap();
        assert_eq!(reply.dns.len(), SERVERS_MAX);
    }

    #[test]
    fn queries_carry_what_the_state_demands() {
        let address = Ipv4Addr::new(10, 0, 2, 15);
        let server = Ipv4Addr::new(10, 0, 2, 2);
        for (query, kind, client, requested, identifier) in [
            (Query::Discover, 1, [0; 4], None, None),
            (Query::Take { address, server }, 3, [0; 4], Some(address), Some(server)),
            (Query::Confirm { address }, 3, [0; 4], Some(address), None),
            (Query::Extend { address }, 3, [10, 0, 2, 15], None, None),
        ] {
            let bytes = encode(&query, 0xdead_beef, 7, MAC);
            assert!(bytes.len() >= LENGTH_MIN);
            assert_eq!(bytes[4..8], [0xde, 0xad, 0xbe, 0xef]);
            assert_eq!(bytes[8..10], [0, 7]);
            assert_eq!(bytes[12..16], client);
            assert_eq!(bytes[28..34], MAC);
            let mut options = BTreeMap::new();
            collect(&bytes[HEADER..], &mut options).unwrap();
            assert_eq!(options[&code::KIND], [kind]);
            let octets = |address: Ipv4Addr| address.octets().to_vec();
            assert_eq!(options.get(&code::REQUESTED).cloned(), requested.map(octets));
            assert_eq!(options.get(&code::SERVER).cloned(), identifier.map(octets));
        }
    }
}

//! The bytes of DHCPv6 messages (RFC 8415): what a client sends, what a server answers.
//!
//! Owns encoding and parsing, in the manner of its older sister [`crate::dhcp::message`]: the parser
//! takes the options that a node uses, checks their length, and skips the rest unread. Reads no socket
//! and no clock. Knows neither relays nor prefix delegation nor authentication.

use crate::dhcp::message::Mac;
use std::net::Ipv6Addr;
use thiserror::Error;

/// Kind of the message, then three bytes of transaction number.
const HEADER: usize = 4;
/// Code and length of an option.
const OPTION_HEADER: usize = 4;
/// RFC 8415, 11.1: two bytes of kind, and at most 128 more.
const DUID_MAX: usize = 130;
/// More servers of one kind than this are of no use to a node.
const SERVERS_MAX: usize = 4;
/// A node takes one address; a server that gives more is not listened to for ever.
const ADDRESSES_MAX: usize = 8;
/// Transaction numbers have three bytes.
pub const TRANSACTION_MAX: u32 = 0x00ff_ffff;

/// Numbers of the options that a node knows.
mod code {
    pub(super) const CLIENT: u16 = 1;
    pub(super) const SERVER: u16 = 2;
    pub(super) const ASSOCIATION: u16 = 3;
    pub(super) const ADDRESS: u16 = 5;
    pub(super) const WANTED: u16 = 6;
    pub(super) const PREFERENCE: u16 = 7;
    pub(super) const ELAPSED: u16 = 8;
    pub(super) const STATUS: u16 = 13;
    pub(super) const DNS: u16 = 23;
    pub(super) const REFRESH: u16 = 32;
    pub(super) const NTP: u16 = 56;
    /// Inside of [`NTP`]: the address of a server.
    pub(super) const NTP_ADDRESS: u16 = 1;
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Is there a server?
    Solicit,
    /// I take what this server offered.
    Request {
        /// Who offered it.
        server: Vec<u8>,
        /// The offered address.
        address: Ipv6Addr,
    },
    /// I had this address; does it fit here?
    Confirm {
        /// The remembered address.
        address: Ipv6Addr,
    },
    /// May I keep it longer? To the server that gave it.
    Renew {
        /// Who gave it.
        server: Vec<u8>,
        /// The address in use.
        address: Ipv6Addr,
    },
    /// May I keep it longer? To any server.
    Rebind {
        /// The address in use.
        address: Ipv6Addr,
    },
    /// I have an address; which servers are there?
    Information,
}

/// What kind of answer a server gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An offer.
    Advertise,
    /// Everything else.
    Reply,
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As asked; also when nothing is said.
    Success,
    /// No address to give.
    NoAddresses,
    /// The server does not know what is to be extended.
    NoBinding,
    /// The address does not fit this network.
    NotOnLink,
    /// Another reason, by its number.
    Other(u16),
}

/// An address given for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// The address.
    pub address: Ipv6Addr,
    /// Seconds for which it may be used.
    pub valid_s: u32,
}

/// What a server says of our one identity association.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Association {
    /// How it went.
    pub status: Status,
    /// Seconds after which the server is asked for more; 0 leaves it to the client.
    pub renew_s: u32,
    /// Seconds after which any server is asked for more; 0 leaves it to the client.
    pub rebind_s: u32,
    /// Usually one.
    pub addresses: Vec<Given>,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// An offer or a reply.
    pub kind: Kind,
    /// The number that the query carried.
    pub transaction: u32,
    /// Who answers.
    pub server: Vec<u8>,
    /// How the whole request went.
    pub status: Status,
    /// Among several offers, the one with the highest is taken.
    pub preference: u8,
    /// What is said of our addresses.
    pub association: Option<Association>,
    /// Name servers, best first.
    pub dns: Vec<Ipv6Addr>,
    /// Time servers, best first.
    pub ntp: Vec<Ipv6Addr>,
    /// Seconds after which servers are asked for again.
    pub refresh_s: Option<u32>,
}

/// Why bytes are not an answer of a DHCPv6 server to this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Shorter than the fixed part.
    #[error("the message has {0} bytes")]
    Short(usize),
    /// A query, a message of a relay, or nothing that we know.
    #[error("message type {0} is no answer of a server")]
    Kind(u8),
    /// An option runs past the end of what holds it.
    #[error("option {0} is cut off")]
    Cut(u16),
    /// An option that we use has an impossible length.
    #[error("option {0} has a bad length")]
    Length(u16),
    /// It names no client, or another.
    #[error("the message is for another client")]
    Client,
    /// It does not say who answers.
    #[error("the message names no server")]
    Server,
}

/// Who asks: the same for as long as the card exists, whatever runs on the machine (RFC 8415, 11.4:
/// DUID-LL of an Ethernet card).
pub fn duid(mac: Mac) -> Vec<u8> {
    [&[0, 3, 0, 1][..], &mac].concat()
}

/// Number of the one identity association of a link.
fn association_id(mac: Mac) -> [u8; 4] {
    [mac[2], mac[3], mac[4], mac[5]]
}

/// Writes the UDP payload of a query. Of `transaction` the lowest three bytes count.
pub fn encode(query: &Query, transaction: u32, elapsed_cs: u16, mac: Mac) -> Vec<u8> {
    let kind = match query {
        Query::Solicit => 1,
        Query::Request { .. } => 3,
        Query::Confirm { .. } => 4,
        Query::Renew { .. } => 5,
        Query::Rebind { .. } => 6,
        Query::Information => 11,
    };
    let [_, high, middle, low] = transaction.to_be_bytes();
    let mut bytes = vec![kind, high, middle, low];
    put(&mut bytes, code::CLIENT, &duid(mac));
    match query {
        Query::Request { server, .. } | Query::Renew { server, .. } => {
            put(&mut bytes, code::SERVER, server);
        }
        Query::Solicit | Query::Confirm { .. } | Query::Rebind { .. } | Query::Information => {}
    }
    let address = match query {
        Query::Solicit => Some(None),
        Query::Request { address, .. }
        | Query::Confirm { address }
        | Query::Renew { address, .. }
        | Query::Rebind { address } => Some(Some(address)),
        Query::Information => None,
    };
    if let Some(address) = address {
        // The times are the server's to choose.
        let mut association = [association_id(mac).as_slice(), &[0; 8]].concat();
        if let Some(address) = address {
            put(&mut association, code::ADDRESS, &[&address.octets()[..], &[0; 8]].concat());
        }
        put(&mut bytes, code::ASSOCIATION, &association);
    }
    put(&mut bytes, code::ELAPSED, &elapsed_cs.to_be_bytes());
    let wanted: &[u16] = match query {
        Query::Information => &[code::DNS, code::NTP, code::REFRESH],
        Query::Confirm { .. } => &[],
        Query::Solicit | Query::Request { .. } | Query::Renew { .. } | Query::Rebind { .. } => {
            &[code::DNS, code::NTP]
        }
    };
    if !wanted.is_empty() {
        let wanted: Vec<u8> = wanted.iter().flat_map(|code| code.to_be_bytes()).collect();
        put(&mut bytes, code::WANTED, &wanted);
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).expect("our options are short");
    bytes.extend_from_slice(&code.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(value);
}

/// Reads the UDP payload of an answer to the client with this hardware address.
pub fn parse(bytes: &[u8], mac: Mac) -> Result<Reply, Malformed> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(Malformed::Short(bytes.len()));
    };
    let kind = match header[0] {
        2 => Kind::Advertise,
        7 => Kind::Reply,
        other => return Err(Malformed::Kind(other)),
    };
    let (mut client, mut server) = (None, None);
    let mut reply = Reply {
        kind,
        transaction: u32::from_be_bytes([0, header[1], header[2], header[3]]),
        server: Vec::new(),
        status: Status::Success,
        preference: 0,
        association: None,
        dns: Vec::new(),
        ntp: Vec::new(),
        refresh_s: None,
    };
    for option in options(rest) {
        let (code, value) = option?;
        match code {
            code::CLIENT => client = Some(value),
            code::SERVER => server = Some(value),
            code::PREFERENCE => reply.preference = fixed::<1>(code, value)?[0],
            code::STATUS => reply.status = status(value)?,
            code::ASSOCIATION => {
                let (id, association) = association(value)?;
                if id == association_id(mac) {
                    reply.association = Some(association);
                }
            }
            code::DNS => reply.dns = addresses(code, value)?,
            code::NTP => reply.ntp = time_servers(value)?,
            code::REFRESH => reply.refresh_s = Some(u32::from_be_bytes(fixed(code, value)?)),
            _ => {}
        }
    }
    if client != Some(duid(mac).as_slice()) {
        return Err(Malformed::Client);
    }
    reply.server = server
        .filter(|server| !server.is_empty() && server.len() <= DUID_MAX)
        .ok_or(Malformed::Server)?
        .to_vec();
    Ok(reply)
}

/// The options of a message, or of an option that holds others. Ends after the first that is cut.
fn options(mut field: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Malformed>> {
    std::iter::from_fn(move || {
        if field.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut field);
        let Some((header, rest)) = rest.split_first_chunk::<OPTION_HEADER>() else {
            return Some(Err(Malformed::Cut(0)));
        };
        let code = u16::from_be_bytes([header[0], header[1]]);
        let length = u16::from_be_bytes([header[2], header[3]]);
        let Some((value, rest)) = rest.split_at_checked(length.into()) else {
            return Some(Err(Malformed::Cut(code)));
        };
        field = rest;
        Some(Ok((code, value)))
    })
}

fn association(value: &[u8]) -> Result<([u8; 4], Association), Malformed> {
    let Some((fixed, inner)) = value.split_first_chunk::<12>() else {
        return Err(Malformed::Length(code::ASSOCIATION));
    };
    let word =
        |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let mut association = Association {
        status: Status::Success,
        renew_s: word(4),
        rebind_s: word(8),
        addresses: Vec::new(),
    };
    for option in options(inner) {
        match option? {
            (code::STATUS, value) => association.status = status(value)?,
            (code::ADDRESS, value) if association.addresses.len() < ADDRESSES_MAX => {
                association.addresses.extend(given(value)?);
            }
            _ => {}
        }
    }
    Ok(([fixed[0], fixed[1], fixed[2], fixed[3]], association))
}

/// `None` for an address that the server takes back or excuses itself for.
fn given(value: &[u8]) -> Result<Option<Given>, Malformed> {
    let Some((fixed, inner)) = value.split_first_chunk::<24>() else {
        return Err(Malformed::Length(code::ADDRESS));
    };
    let (address, times) = fixed.split_first_chunk::<16>().expect("24 bytes hold 16");
    let valid_s = u32::from_be_bytes([times[4], times[5], times[6], times[7]]);
    let mut good = valid_s > 0;
    for option in options(inner) {
        if let (code::STATUS, value) = option? {
            good &= status(value)? == Status::Success;
        }
    }
    Ok(good.then_some(Given { address: Ipv6Addr::from(*address), valid_s }))
}

/// The number; the text behind it is for people who do not read it here.
fn status(value: &[u8]) -> Result<Status, Malformed> {
    let Some((number, _)) = value.split_first_chunk::<2>() else {
        return Err(Malformed::Length(code::STATUS));
    };
    Ok(match u16::from_be_bytes(*number) {
        0 => Status::Success,
        2 => Status::NoAddresses,
        3 => Status::NoBinding,
        4 => Status::NotOnLink,
        other => Status::Other(other),
    })
}

fn fixed<const N: usize>(code: u16, value: &[u8]) -> Result<[u8; N], Malformed> {
    value.try_into().map_err(|_| Malformed::Length(code))
}

fn addresses(code: u16, value: &[u8]) -> Result<Vec<Ipv6Addr>, Malformed> {
    let (chunks, []) = value.as_chunks::<16>() else { return Err(Malformed::Length(code)) };
    Ok(chunks.iter().take(SERVERS_MAX).map(|octets| Ipv6Addr::from(*octets)).collect())
}

/// RFC 5908: each server by address, by group or by name; those by address are taken.
fn time_servers(value: &[u8]) -> Result<Vec<Ipv6Addr>, Malformed> {
    let mut servers = Vec::new();
    for option in options(value) {
        if let (code::NTP_ADDRESS, value) = option?
            && servers.len() < SERVERS_MAX
        {
            servers.push(Ipv6Addr::from(fixed::<16>(code::NTP, value)?));
        }
    }
    Ok(servers)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const MAC: Mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    pub(crate) const SERVER: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

    pub(crate) fn option(code: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, code, value);
        bytes
    }

    /// An association of ours with one address, as a server would write it.
    pub(crate) fn gives(address: Ipv6Addr, times: [u32; 3]) -> Vec<u8> {
        let [renew_s, rebind_s, valid_s] = times.map(u32::to_be_bytes);
        let inner = option(5, &[&address.octets()[..], &valid_s, &valid_s].concat());
        option(3, &[&association_id(MAC)[..], &renew_s, &rebind_s, &inner].concat())
    }

    /// An answer as a server would write it.
    pub(crate) fn answer(kind: u8, transaction: u32, rest: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = transaction.to_be_bytes().to_vec();
        bytes[0] = kind;
        bytes.extend(option(1, &duid(MAC)));
        bytes.extend(option(2, &SERVER));
        bytes.extend(rest.concat());
        bytes
    }

    fn usual() -> Vec<u8> {
        let dns: [Ipv6Addr; 2] = ["2001:db8::53", "2001:db8::54"].map(|text| text.parse().unwrap());
        let ntp: Ipv6Addr = "2001:db8::7b".parse().unwrap();
        answer(
            2,
            77,
            &[
                gives("2001:db8::9".parse().unwrap(), [50, 80, 100]),
                option(7, &[255]),
                option(23, &dns.map(|dns| dns.octets()).concat()),
                option(56, &[option(3, b"\x04time\0"), option(1, &ntp.octets())].concat()),
                option(32, &600_u32.to_be_bytes()),
                option(99, b"?"),
            ],
        )
    }

    #[test]
    fn an_offer_is_read() {
        let given = Given { address: "2001:db8::9".parse().unwrap(), valid_s: 100 };
        let association = Association {
            status: Status::Success,
            renew_s: 50,
            rebind_s: 80,
            addresses: vec![given],
        };
        assert_eq!(
            parse(&usual(), MAC),
            Ok(Reply {
                kind: Kind::Advertise,
                transaction: 77,
                server: SERVER.to_vec(),
                status: Status::Success,
                preference: 255,
                association: Some(association),
                dns: ["2001:db8::53", "2001:db8::54"].map(|text| text.parse().unwrap()).to_vec(),
                ntp: vec!["2001:db8::7b".parse().unwrap()],
                refresh_s: Some(600),
            })
        );
    }

    #[test]
    fn malformed_answers_are_refused_with_the_reason() {
        let with = |options: &[Vec<u8>]| answer(7, 1, options);
        assert!(parse(&with(&[]), MAC).is_ok());
        let anonymous = [&[7, 0, 0, 1][..], &option(1, &duid(MAC))].concat();
        let endless = [&anonymous[..], &option(2, &[0; DUID_MAX + 1])].concat();
        for (bytes, problem) in [
            (vec![7, 0, 0], Malformed::Short(3)),
            (answer(1, 1, &[]), Malformed::Kind(1)),
            (answer(12, 1, &[]), Malformed::Kind(12)),
            (vec![7, 0, 0, 1, 0, 1, 0], Malformed::Cut(0)),
            (vec![7, 0, 0, 1, 0, 23, 0, 17, 0], Malformed::Cut(23)),
            (with(&[option(7, &[1, 2])]), Malformed::Length(7)),
            (with(&[option(23, &[0; 17])]), Malformed::Length(23)),
            (with(&[option(56, &option(1, &[0; 4]))]), Malformed::Length(56)),
            (with(&[option(32, &[0; 3])]), Malformed::Length(32)),
            (with(&[option(13, &[0])]), Malformed::Length(13)),
            (with(&[option(3, &[0; 11])]), Malformed::Length(3)),
            (
                with(&[option(3, &[&[0; 12][..], &option(5, &[0; 23])].concat())]),
                Malformed::Length(5),
            ),
            (with(&[option(3, &[&[0; 12][..], &[0, 5, 0, 1]].concat())]), Malformed::Cut(5)),
            (anonymous, Malformed::Server),
            (endless, Malformed::Server),
            (vec![7, 0, 0, 1], Malformed::Client),
        ] {
            assert_eq!(parse(&bytes, MAC), Err(problem), "{bytes:?}");
        }
        assert_eq!(parse(&with(&[]), [9; 6]), Err(Malformed::Client));
    }

    #[test]
    fn addresses_of_others_and_those_taken_back_are_no_addresses() {
        let address: Ipv6Addr = "2001:db8::9".parse().unwrap();
        let read = |option: Vec<u8>| parse(&answer(7, 1, &[option]), MAC).unwrap().association;
        assert_eq!(read(gives(address, [1, 2, 0])).unwrap().addresses, []);
        let mut alien = gives(address, [1, 2, 3]);
        alien[4] ^= 1;
        assert_eq!(read(alien), None);
        let refusal = option(13, b"\0\x02none left");
        let refused = option(3, &[&association_id(MAC)[..], &[0; 8], &refusal].concat());
        assert_eq!(read(refused).unwrap().status, Status::NoAddresses);
    }

    #[test]
    fn no_prefix_and_no_changed_byte_of_an_answer_brings_the_parser_down() {
        let good = usual();
        let mut readable = 0;
        for end in 0..good.len() {
            readable += usize::from(parse(&good[..end], MAC).is_ok());
        }
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut bytes = good.clone();
                bytes[at] = byte;
                readable += usize::from(parse(&bytes, MAC).is_ok());
            }
        }
        assert!(readable > 0, "most bytes of addresses mean nothing to us");
    }

    #[test]
    fn long_lists_are_cut() {
        let address: Ipv6Addr = "2001:db8::9".parse().unwrap();
        let one = option(5, &[&address.octets()[..], &[1; 8]].concat());
        let many = option(3, &[&association_id(MAC)[..], &[0; 8], &one.repeat(20)].concat());
        let servers = option(23, &[1; 160]);
        let reply = parse(&answer(7, 1, &[many, servers]), MAC).unwrap();
        assert_eq!(reply.association.unwrap().addresses.len(), ADDRESSES_MAX);
        assert_eq!(reply.dns.len(), SERVERS_MAX);
    }

    #[test]
    fn queries_carry_what_the_state_demands() {
        let address: Ipv6Addr = "2001:db8::9".parse().unwrap();
        let server = SERVER.to_vec();
        for (query, kind, has_address, has_server) in [
            (Query::Solicit, 1, Some(false), false),
            (Query::Request { server: server.clone(), address }, 3, Some(true), true),
            (Query::Confirm { address }, 4, Some(true), false),
            (Query::Renew { server, address }, 5, Some(true), true),
            (Query::Rebind { address }, 6, Some(true), false),
            (Query::Information, 11, None, false),
        ] {
            let bytes = encode(&query, 0xffab_cdef, 7, MAC);
            assert_eq!(bytes[..4], [kind, 0xab, 0xcd, 0xef]);
            let found: Vec<(u16, &[u8])> = options(&bytes[4..]).map(Result::unwrap).collect();
            let get = |code| found.iter().find(|(own, _)| *own == code).map(|(_, value)| *value);
            assert_eq!(get(code::CLIENT), Some(&[0, 3, 0, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56][..]));
            assert_eq!(get(code::SERVER).is_some(), has_server);
            assert_eq!(get(code::ELAPSED), Some(&[0, 7][..]));
            let association = get(code::ASSOCIATION);
            assert_eq!(association.map(|value| value.len() > 12), has_address, "{query:?}");
        }
    }
}

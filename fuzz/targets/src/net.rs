//! What comes from the local network before anything else works: DHCP, routers and the time.

use arbitrary::{Arbitrary, Unstructured};
use netd::{
    clock::Bounds,
    dhcp::{
        client::{Event, Moment, Outside, State, step},
        frame,
        message::{self, Kind, Reply},
    },
    dhcp6::{client as client6, message as message6},
    rdnss,
    sntp::{self, Flight},
};
use std::{net::Ipv4Addr, time::Duration};

/// A frame from the link, and a message from a socket.
pub fn dhcp_message(data: &[u8]) -> bool {
    let framed = frame::payload(data).is_some_and(parsed);
    parsed(data) || framed
}

fn parsed(bytes: &[u8]) -> bool {
    let Ok(reply) = message::parse(bytes) else { return false };
    assert!(reply.prefix.is_none_or(|prefix| prefix <= 32));
    for servers in [&reply.routers, &reply.dns, &reply.ntp] {
        assert!(servers.len() <= 4, "a server names {} servers of one kind", servers.len());
    }
    true
}

/// What may happen to a client.
#[derive(Debug, Arbitrary)]
enum Happening {
    /// So many seconds pass; the timer fires when it is due.
    Time(u16),
    /// The timer fires exactly when it is due.
    Due,
    Plugged,
    /// A server answers the last question, or one that was never asked.
    Answer {
        kind: u8,
        number: Option<u32>,
        address: u32,
        prefix: Option<u8>,
        server: Option<u8>,
        lease_s: Option<u32>,
        renew_s: Option<u32>,
        rebind_s: Option<u32>,
    },
    /// Bytes that may be an answer.
    Bytes(Vec<u8>),
}

/// Happenings that one input makes.
const HAPPENINGS_MAX: usize = 64;

/// A client lives through anything: it never waits for the past, and never uses a lease that ended.
pub fn dhcp_client(data: &[u8]) -> bool {
    let mut source = Unstructured::new(data);
    let mut now = Moment::from_secs(10);
    let mut state = State::first(None, Outside { now, chance: 1 });
    let mut transaction = 1;
    let mut was_bound = false;
    for chance in 2..HAPPENINGS_MAX {
        if source.is_empty() {
            break;
        }
        let Ok(happening) = source.arbitrary::<Happening>() else { break };
        let reply;
        let event = match happening {
            Happening::Time(seconds) => {
                now += Duration::from_secs(u64::from(seconds));
                Event::Timer
            }
            Happening::Due => {
                now = now.max(state.deadline());
                Event::Timer
            }
            Happening::Plugged => Event::Plugged,
            Happening::Answer {
                kind,
                number,
                address,
                prefix,
                server,
                lease_s,
                renew_s,
                rebind_s,
            } => {
                reply = Reply {
                    kind: [Kind::Offer, Kind::Ack, Kind::Nak][usize::from(kind) % 3],
                    transaction: number.unwrap_or(transaction),
                    mac: [2, 0, 0, 0, 0, 1],
                    address: Ipv4Addr::from_bits(address),
                    prefix: prefix.map(|prefix| prefix % 33),
                    server: server.map(|last| Ipv4Addr::new(10, 0, 2, last)),
                    routers: vec![Ipv4Addr::new(10, 0, 2, 2)],
                    dns: Vec::new(),
                    ntp: Vec::new(),
                    lease_s,
                    renew_s,
                    rebind_s,
                };
                Event::Reply(&reply)
            }
            Happening::Bytes(bytes) => match message::parse(&bytes) {
                Ok(parsed) => {
                    reply = parsed;
                    Event::Reply(&reply)
                }
                Err(_) => continue,
            },
        };
        let is_timer = matches!(event, Event::Timer);
        let outside = Outside { now, chance: u32::try_from(chance).expect("a small number") };
        let (next, outgoing) = step(state, &event, outside);
        state = next;
        if is_timer {
            assert!(state.deadline() > now, "the timer would fire for ever: {state:?}");
        }
        if let Some(lease) = state.lease() {
            was_bound = true;
            assert!(!is_timer || now < lease.ends_at, "a lease that ended is used: {state:?}");
            assert!(lease.renew_at <= lease.rebind_at && lease.rebind_at <= lease.ends_at);
            assert!(!lease.address.is_unspecified() && !lease.address.is_multicast());
            assert!(lease.prefix <= 32);
        }
        if let Some(outgoing) = outgoing {
            transaction = outgoing.transaction;
            let bytes = message::encode(&outgoing.query, transaction, outgoing.elapsed_s, [2; 6]);
            assert!(bytes.len() + 42 <= frame::FRAME_MAX);
        }
    }
    was_bound
}

/// An answer of a time server: the first eight bytes are the number that was asked with.
pub fn sntp_answer(data: &[u8]) -> bool {
    let Some((number, answer)) = data.split_first_chunk::<8>() else { return false };
    let bounds = Bounds::parse("1800000000");
    let sent = Duration::from_secs(1_800_000_100);
    let flight = Flight { sent, received: sent + Duration::from_secs(1) };
    let number = u64::from_be_bytes(*number);
    let Ok(offset_ns) = sntp::offset_ns(answer, number, flight, &bounds) else { return false };
    // The clock that follows is one that this image can have, a flight's length apart.
    let shown = i128::try_from(sent.as_nanos()).expect("a small number") + offset_ns;
    let shown = u64::try_from(shown.max(0) / 1_000_000_000).expect("a time of this age");
    let near = |seconds: u64| bounds.contains(Duration::from_secs(seconds));
    assert!(near(shown.saturating_sub(4)) || near(shown + 4), "the clock would show {shown}");
    true
}

/// The hardware address of the client that DHCPv6 answers are for.
pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// A DHCPv6 message from a socket.
pub fn dhcp6_message(data: &[u8]) -> bool {
    let Ok(reply) = message6::parse(data, MAC) else { return false };
    assert!(reply.transaction <= message6::TRANSACTION_MAX);
    assert!(reply.server.len() <= data.len() && reply.dns.len() * 16 <= data.len());
    true
}

/// What may happen to a DHCPv6 client.
#[derive(Debug, Arbitrary)]
enum Happening6 {
    Time(u16),
    Due,
    Plugged,
    /// The routers say something else.
    Need(u8),
    Answer {
        is_reply: bool,
        number: Option<u32>,
        server: u8,
        failed: bool,
        preference: u8,
        address: Option<u128>,
        times: [u32; 3],
        refresh_s: Option<u32>,
    },
    Bytes(Vec<u8>),
}

/// As for [`dhcp_client`].
pub fn dhcp6_client(data: &[u8]) -> bool {
    let mut source = Unstructured::new(data);
    let mut now = Moment::from_secs(10);
    let mut state = client6::State::first(None, Outside { now, chance: 1 });
    let mut need = client6::Need::Address;
    let (mut transaction, mut was_bound) = (1, false);
    for chance in 2..HAPPENINGS_MAX {
        if source.is_empty() {
            break;
        }
        let Ok(happening) = source.arbitrary::<Happening6>() else { break };
        let reply;
        let event = match happening {
            Happening6::Time(seconds) => {
                now += Duration::from_secs(u64::from(seconds));
                client6::Event::Timer
            }
            Happening6::Due => {
                now = now.max(state.deadline().unwrap_or(now));
                client6::Event::Timer
            }
            Happening6::Plugged => client6::Event::Plugged,
            Happening6::Need(which) => {
                use client6::Need::{Address, Nothing, Servers};
                need = [Address, Servers, Nothing][usize::from(which) % 3];
                client6::Event::Need
            }
            Happening6::Answer {
                is_reply,
                number,
                server,
                failed,
                preference,
                address,
                times: [renew_s, rebind_s, valid_s],
                refresh_s,
            } => {
                let status = || {
                    if failed { message6::Status::NoAddresses } else { message6::Status::Success }
                };
                reply = message6::Reply {
                    kind: if is_reply { message6::Kind::Reply } else { message6::Kind::Advertise },
                    transaction: number.unwrap_or(transaction),
                    server: vec![0, 3, 0, 1, server],
                    status: status(),
                    preference,
                    association: address.map(|address| message6::Association {
                        status: status(),
                        renew_s,
                        rebind_s,
                        addresses: vec![message6::Given { address: address.into(), valid_s }],
                    }),
                    dns: Vec::new(),
                    ntp: Vec::new(),
                    refresh_s,
                };
                client6::Event::Reply(&reply)
            }
            Happening6::Bytes(bytes) => match message6::parse(&bytes, MAC) {
                Ok(parsed) => {
                    reply = parsed;
                    client6::Event::Reply(&reply)
                }
                Err(_) => continue,
            },
        };
        let is_timer = matches!(event, client6::Event::Timer);
        let outside = Outside { now, chance: u32::try_from(chance).expect("a small number") };
        let (next, outgoing) = client6::step(state, &event, need, outside);
        state = next;
        if is_timer {
            let later = state.deadline().is_none_or(|deadline| deadline > now);
            assert!(later, "the timer would fire for ever: {state:?}");
        }
        if let Some(lease) = state.lease() {
            was_bound = true;
            assert!(!is_timer || now < lease.ends_at, "a lease that ended is used: {state:?}");
            assert!(lease.renew_at <= lease.rebind_at && lease.rebind_at <= lease.ends_at);
            assert!(!lease.address.is_unspecified() && !lease.address.is_multicast());
        }
        if let Some(outgoing) = outgoing {
            transaction = outgoing.transaction;
            assert!(transaction <= message6::TRANSACTION_MAX);
            message6::encode(&outgoing.query, transaction, outgoing.elapsed_cs, MAC);
        }
    }
    was_bound
}

/// Datagrams in which the kernel passes on what routers announce; the first byte cuts the time.
pub fn router_announcement(data: &[u8]) -> bool {
    let Some((seconds, datagram)) = data.split_first() else { return false };
    let heard = rdnss::parse(datagram);
    let (mut table, mut now) = (Vec::new(), Moment::from_secs(10));
    for announcement in &heard {
        table = rdnss::take_in(&table, announcement, now);
        assert!(table.len() <= 16, "the table grows without end");
        assert!(table.iter().all(|one| now < one.ends_at));
        now += Duration::from_secs(u64::from(*seconds));
    }
    !heard.is_empty()
}

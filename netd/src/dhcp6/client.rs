//! The DHCPv6 client of one link: which state follows which (RFC 8415, 18.2).
//!
//! ```text
//!              router says: addresses here            router says: servers only
//!   Idle ─────────────┬──────────────────────────────────────────► Informing ⇄ Informed
//!                     ▼           offer                                 (asks again when it is
//!   ┌──────────► Soliciting ────────────► Requesting                     time to refresh)
//!   │                 ▲   no answer, refused │  │ reply
//!   │                 └──────────────────────┘  ▼
//!   │  not on link                            Bound ◄── Confirming (plugged in again)
//!   ├───────────── Confirming          renew_s │ ▲
//!   │  no binding, the lease ends              ▼ │ reply
//!   └──────────────────────────── Renewing, then Rebinding
//! ```
//!
//! Owns the decisions; [`step`] is a pure function. Refuses clocks, sockets and randomness, as its
//! older sister [`crate::dhcp::client`] does. Gives no address back: a node that goes away without a
//! word is the ordinary case. Whether DHCPv6 is asked at all is the routers' word ([`Need`]); a lease
//! that was given is kept until it ends, because of two routers one may speak and the other not.

use super::message::{Association, Given, Kind, Query, Reply, Status, TRANSACTION_MAX};
use serde::{Deserialize, Serialize};
use std::{cmp::min, net::Ipv6Addr, time::Duration};

pub use crate::dhcp::client::{Moment, Outside};

/// Waits between two unanswered queries; the last one repeats for ever.
const RETRY_S: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Of each wait, the part that chance takes away or adds: one in so many.
const JITTER_PART: u64 = 10;
/// RFC 8415, 18.2.1: the first question of all waits up to this long, so that a rack that gets power
/// does not ask in step.
const FIRST_MS: u64 = 1000;
/// Unanswered requests after which an offer counts as void.
const REQUESTS_MAX: u32 = 5;
/// Unanswered confirmations after which a lease is used without.
const CONFIRMATIONS_MAX: u32 = 3;
/// An extension is asked for at most this often.
const EXTEND_MIN: Duration = Duration::from_secs(10);
/// A shorter lease would keep the client busy with nothing else.
const LEASE_MIN_S: u32 = 30;
/// Servers are asked for again after this time, when nothing else is said (RFC 8415, 7.6),
const REFRESH: Duration = Duration::from_hours(24);
/// and never sooner than this.
const REFRESH_MIN: Duration = Duration::from_mins(10);
/// An offer with this preference is taken at once.
const PREFERENCE_BEST: u8 = 255;

/// What the routers of a link say that there is to get by DHCPv6.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Nothing: there is no router, or it says all by itself.
    #[default]
    Nothing,
    /// Addresses of servers (flag O).
    Servers,
    /// An address, and those of servers (flag M).
    Address,
}

/// Name and time servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Servers {
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
    /// Time servers.
    pub ntp: Vec<Ipv6Addr>,
}

/// An address that a server gave, with what came along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The node's address.
    pub address: Ipv6Addr,
    /// Servers that came along.
    pub servers: Servers,
    /// Who gave it.
    pub server: Vec<u8>,
    /// When the server is asked for more time.
    pub renew_at: Moment,
    /// When any server is asked for more time.
    pub rebind_at: Moment,
    /// When it ends.
    pub ends_at: Moment,
}

/// What somebody offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    server: Vec<u8>,
    address: Ipv6Addr,
    preference: u8,
}

/// Queries of one kind, sent until an answer comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Number that the server repeats in its answer.
    transaction: u32,
    /// When the first query was sent.
    since: Moment,
    /// How many queries were sent.
    sent: u32,
    /// When the last one was sent.
    last: Moment,
    /// When the next one is due.
    next: Moment,
}

/// What the client knows and waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Asks nothing.
    Idle,
    /// Asks for servers, and uses those of the last answer.
    Informing(Attempt, Servers),
    /// Has servers, until they are asked for again.
    Informed(Servers, Moment),
    /// Looks for a server; the best offer so far.
    Soliciting(Attempt, Option<Offer>),
    /// Takes an offer.
    Requesting(Attempt, Offer),
    /// Uses a lease and asks whether it fits where the cable is now.
    Confirming(Attempt, Lease),
    /// Uses the lease.
    Bound(Lease),
    /// Uses the lease, asks its server for more time.
    Renewing(Attempt, Lease),
    /// Uses the lease, asks any server for more time.
    Rebinding(Attempt, Lease),
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// Time passed.
    Timer,
    /// A well-formed answer for us arrived; it may be of former times.
    Reply(&'a Reply),
    /// The cable was pulled and plugged in again, perhaps elsewhere.
    Plugged,
    /// The routers say something else.
    Need,
}

/// What is to be sent, to all servers of the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The question.
    pub query: Query,
    /// Its number.
    pub transaction: u32,
    /// Hundredths of a second since the first query of this kind.
    pub elapsed_cs: u16,
}

impl State {
    /// The first state of a client; `lease` is what a former run of the daemon left behind. It is
    /// used on without a word to the server: the link did not change while the daemon was away.
    pub fn first(lease: Option<Lease>, outside: Outside) -> Self {
        match lease {
            Some(lease) if outside.now < lease.ends_at => Self::Bound(lease),
            Some(_) | None => Self::Idle,
        }
    }

    /// The lease in use.
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Confirming(_, lease)
            | Self::Bound(lease)
            | Self::Renewing(_, lease)
            | Self::Rebinding(_, lease) => Some(lease),
            Self::Idle
            | Self::Informing(..)
            | Self::Informed(..)
            | Self::Soliciting(..)
            | Self::Requesting(..) => None,
        }
    }

    /// The servers in use.
    pub fn servers(&self) -> Option<&Servers> {
        match self {
            Self::Informing(_, servers) | Self::Informed(servers, _) => Some(servers),
            Self::Idle | Self::Soliciting(..) | Self::Requesting(..) => None,
            Self::Confirming(..) | Self::Bound(_) | Self::Renewing(..) | Self::Rebinding(..) => {
                self.lease().map(|lease| &lease.servers)
            }
        }
    }

    /// When [`Event::Timer`] is due; `None` while nothing is awaited.
    pub fn deadline(&self) -> Option<Moment> {
        match self {
            Self::Idle => None,
            Self::Informing(attempt, _)
            | Self::Soliciting(attempt, _)
            | Self::Requesting(attempt, _) => Some(attempt.next),
            Self::Informed(_, refresh_at) => Some(*refresh_at),
            Self::Confirming(attempt, lease) | Self::Rebinding(attempt, lease) => {
                Some(min(attempt.next, lease.ends_at))
            }
            Self::Bound(lease) => Some(lease.renew_at),
            Self::Renewing(attempt, lease) => Some(min(attempt.next, lease.rebind_at)),
        }
    }

    /// How many queries went unanswered, and when the next one goes out.
    pub fn unanswered(&self) -> Option<(u32, Moment)> {
        match self {
            Self::Idle | Self::Bound(_) | Self::Informed(..) => None,
            Self::Informing(attempt, _)
            | Self::Soliciting(attempt, _)
            | Self::Requesting(attempt, _)
            | Self::Confirming(attempt, _)
            | Self::Renewing(attempt, _)
            | Self::Rebinding(attempt, _) => Some((attempt.sent, attempt.next)),
        }
    }
}

impl Attempt {
    /// The first query is due at once.
    fn new(Outside { now, chance }: Outside) -> Self {
        let transaction = chance & TRANSACTION_MAX;
        Self { transaction, since: now, sent: 0, last: now, next: now }
    }

    /// The first query is due within a second.
    fn soon(outside: Outside) -> Self {
        let wait = Duration::from_millis(u64::from(outside.chance) % FIRST_MS);
        Self { next: outside.now + wait, since: outside.now + wait, ..Self::new(outside) }
    }

    fn sent(&self, now: Moment, next: Moment) -> Self {
        Self { sent: self.sent.saturating_add(1), last: now, next, ..self.clone() }
    }

    fn retry(&self, Outside { now, chance }: Outside) -> Self {
        let step = usize::try_from(self.sent).unwrap_or(usize::MAX).min(RETRY_S.len() - 1);
        let wait_ms = RETRY_S[step] * 1000;
        let jitter_ms = u64::from(chance) % (2 * wait_ms / JITTER_PART);
        self.sent(now, now + Duration::from_millis(wait_ms - wait_ms / JITTER_PART + jitter_ms))
    }

    /// After half of the time that is left.
    fn extend(&self, now: Moment, until: Moment) -> Self {
        let half = until.saturating_sub(now) / 2;
        self.sent(now, min(now + half.max(EXTEND_MIN), until))
    }

    fn outgoing(&self, query: Query, now: Moment) -> Outgoing {
        let elapsed = now.saturating_sub(self.since).as_millis() / 10;
        let elapsed_cs = u16::try_from(elapsed).unwrap_or(u16::MAX);
        Outgoing { query, transaction: self.transaction, elapsed_cs }
    }

    fn awaits(&self, reply: &Reply) -> bool {
        self.sent > 0 && self.transaction == reply.transaction
    }
}

impl Lease {
    /// What a reply grants; `None` when an address of a node cannot come of it.
    ///
    /// `asked_at` is when the request was sent: the server's clock runs from a later moment.
    fn granted(reply: &Reply, asked_at: Moment) -> Option<Self> {
        let (association, Given { address, valid_s }) = offered(reply)?;
        let after = |seconds: u32| asked_at + Duration::from_secs(seconds.into());
        let share = |tenths: u32| valid_s / 10 * tenths;
        let Association { renew_s, rebind_s, .. } = *association;
        let rebind_s = Some(rebind_s).filter(|s| *s > 1 && *s < valid_s).unwrap_or(share(8));
        let renew_s = Some(renew_s).filter(|s| *s > 0 && *s < rebind_s).unwrap_or(share(5));
        Some(Self {
            address,
            servers: servers(reply),
            server: reply.server.clone(),
            renew_at: after(renew_s.min(rebind_s)),
            rebind_at: after(rebind_s),
            ends_at: after(valid_s),
        })
    }
}

/// The first usable address of an answer.
fn offered(reply: &Reply) -> Option<(&Association, Given)> {
    let association = reply.association.as_ref()?;
    let fits = |given: &&Given| usable(given.address) && given.valid_s >= LEASE_MIN_S;
    let given = association.addresses.iter().find(fits)?;
    let well = reply.status == Status::Success && association.status == Status::Success;
    well.then_some((association, *given))
}

/// An address that a machine can have beyond its own link.
fn usable(address: Ipv6Addr) -> bool {
    let is_bad = address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unicast_link_local()
        || address.to_ipv4_mapped().is_some();
    !is_bad
}

fn servers(reply: &Reply) -> Servers {
    let usable = |list: &[Ipv6Addr]| list.iter().copied().filter(|at| usable(*at)).collect();
    Servers { dns: usable(&reply.dns), ntp: usable(&reply.ntp) }
}

/// What follows from `event` in `state`: the next state, and what to send.
pub fn step(
    state: State,
    event: &Event<'_>,
    need: Need,
    outside: Outside,
) -> (State, Option<Outgoing>) {
    match event {
        Event::Timer => on_timer(state, need, outside),
        Event::Reply(reply) => on_reply(state, reply, need, outside),
        Event::Need => on_timer(follow(state, need, outside), need, outside),
        Event::Plugged => match state.lease() {
            Some(lease) if outside.now < lease.ends_at => {
                let confirming = State::Confirming(Attempt::new(outside), lease.clone());
                on_timer(confirming, need, outside)
            }
            Some(_) | None => on_timer(begin(need, outside), need, outside),
        },
    }
}

/// Where a client without a lease begins.
fn begin(need: Need, outside: Outside) -> State {
    match need {
        Need::Nothing => State::Idle,
        Need::Servers => State::Informing(Attempt::soon(outside), Servers::default()),
        Need::Address => State::Soliciting(Attempt::soon(outside), None),
    }
}

/// A client without a lease does what the routers say; one with a lease keeps it.
fn follow(state: State, need: Need, outside: Outside) -> State {
    let is_asking_for = match state {
        State::Idle => Need::Nothing,
        State::Informing(..) | State::Informed(..) => Need::Servers,
        State::Soliciting(..) | State::Requesting(..) => Need::Address,
        State::Confirming(..) | State::Bound(_) | State::Renewing(..) | State::Rebinding(..) => {
            return state;
        }
    };
    if is_asking_for == need { state } else { begin(need, outside) }
}

fn on_timer(state: State, need: Need, outside: Outside) -> (State, Option<Outgoing>) {
    let now = outside.now;
    if state.deadline().is_none_or(|deadline| now < deadline) {
        return (state, None);
    }
    let again = || on_timer(begin(need, outside), need, outside);
    match state {
        State::Idle => (state, None),
        State::Informing(attempt, servers) => {
            let outgoing = attempt.outgoing(Query::Information, now);
            (State::Informing(attempt.retry(outside), servers), Some(outgoing))
        }
        State::Informed(servers, _) => {
            on_timer(State::Informing(Attempt::new(outside), servers), need, outside)
        }
        State::Soliciting(_, Some(offer)) => {
            on_timer(State::Requesting(Attempt::new(outside), offer), need, outside)
        }
        State::Soliciting(attempt, None) => {
            let outgoing = attempt.outgoing(Query::Solicit, now);
            (State::Soliciting(attempt.retry(outside), None), Some(outgoing))
        }
        State::Requesting(attempt, _) if attempt.sent >= REQUESTS_MAX => again(),
        State::Requesting(attempt, offer) => {
            let query = Query::Request { server: offer.server.clone(), address: offer.address };
            let outgoing = attempt.outgoing(query, now);
            (State::Requesting(attempt.retry(outside), offer), Some(outgoing))
        }
        State::Confirming(_, lease) | State::Rebinding(_, lease) if now >= lease.ends_at => again(),
        State::Confirming(attempt, lease) if attempt.sent >= CONFIRMATIONS_MAX => {
            on_timer(State::Bound(lease), need, outside)
        }
        State::Confirming(attempt, lease) => {
            let outgoing = attempt.outgoing(Query::Confirm { address: lease.address }, now);
            (State::Confirming(attempt.retry(outside), lease), Some(outgoing))
        }
        State::Bound(lease) => {
            on_timer(State::Renewing(Attempt::new(outside), lease), need, outside)
        }
        State::Renewing(_, lease) if now >= lease.rebind_at => {
            on_timer(State::Rebinding(Attempt::new(outside), lease), need, outside)
        }
        State::Renewing(attempt, lease) => {
            let query = Query::Renew { server: lease.server.clone(), address: lease.address };
            let outgoing = attempt.outgoing(query, now);
            (State::Renewing(attempt.extend(now, lease.rebind_at), lease), Some(outgoing))
        }
        State::Rebinding(attempt, lease) => {
            let outgoing = attempt.outgoing(Query::Rebind { address: lease.address }, now);
            (State::Rebinding(attempt.extend(now, lease.ends_at), lease), Some(outgoing))
        }
    }
}

fn on_reply(
    state: State,
    reply: &Reply,
    need: Need,
    outside: Outside,
) -> (State, Option<Outgoing>) {
    // A wait after a refusal, so that a misconfigured server is not flooded.
    let refused = || (begin_later(need, outside), None);
    match (state, reply.kind) {
        (State::Soliciting(attempt, best), Kind::Advertise) if attempt.awaits(reply) => {
            on_offer(attempt, best, reply, need, outside)
        }
        (State::Informing(attempt, _), Kind::Reply)
            if attempt.awaits(reply) && reply.status == Status::Success =>
        {
            let asked = reply.refresh_s.map(|seconds| Duration::from_secs(seconds.into()));
            let refresh = asked.unwrap_or(REFRESH).clamp(REFRESH_MIN, REFRESH);
            (State::Informed(servers(reply), outside.now + refresh), None)
        }
        (State::Requesting(attempt, offer), Kind::Reply)
            if attempt.awaits(reply) && reply.server == offer.server =>
        {
            Lease::granted(reply, attempt.last)
                .map_or_else(refused, |lease| (State::Bound(lease), None))
        }
        (State::Confirming(attempt, lease), Kind::Reply) if attempt.awaits(reply) => {
            match reply.status {
                Status::NotOnLink => refused(),
                Status::Success => (State::Bound(lease), None),
                // Whoever says this has no opinion.
                Status::NoAddresses | Status::NoBinding | Status::Other(_) => {
                    (State::Confirming(attempt, lease), None)
                }
            }
        }
        (State::Renewing(attempt, lease), Kind::Reply) if attempt.awaits(reply) => {
            match extended(reply, &lease, attempt.last) {
                Extension::Granted(lease) => (State::Bound(lease), None),
                Extension::Ended => refused(),
                Extension::Unclear => (State::Renewing(attempt, lease), None),
            }
        }
        (State::Rebinding(attempt, lease), Kind::Reply) if attempt.awaits(reply) => {
            match extended(reply, &lease, attempt.last) {
                Extension::Granted(lease) => (State::Bound(lease), None),
                Extension::Ended => refused(),
                Extension::Unclear => (State::Rebinding(attempt, lease), None),
            }
        }
        // Of former times, or nothing was asked.
        (state, Kind::Advertise | Kind::Reply) => (state, None),
    }
}

/// Offers are collected until the first query would be repeated (RFC 8415, 18.2.1).
fn on_offer(
    attempt: Attempt,
    best: Option<Offer>,
    reply: &Reply,
    need: Need,
    outside: Outside,
) -> (State, Option<Outgoing>) {
    // An offer that could not become a lease is left to a better server.
    let Some((_, given)) = offered(reply) else {
        return (State::Soliciting(attempt, best), None);
    };
    let (server, preference) = (reply.server.clone(), reply.preference);
    let offer = Offer { server, address: given.address, preference };
    let best = match best {
        Some(best) if best.preference >= preference => best,
        Some(_) | None => offer,
    };
    if attempt.sent > 1 || best.preference == PREFERENCE_BEST {
        let requesting = State::Requesting(Attempt::new(outside), best);
        return on_timer(requesting, need, outside);
    }
    (State::Soliciting(attempt, Some(best)), None)
}

fn begin_later(need: Need, outside: Outside) -> State {
    let wait = Duration::from_secs(RETRY_S[RETRY_S.len() / 2]);
    begin(need, Outside { now: outside.now + wait, ..outside })
}

enum Extension {
    Granted(Lease),
    /// The server takes the address back or never gave it.
    Ended,
    Unclear,
}

fn extended(reply: &Reply, lease: &Lease, asked_at: Moment) -> Extension {
    match (Lease::granted(reply, asked_at), &reply.association) {
        (Some(lease), _) => Extension::Granted(lease),
        (None, Some(association)) => match association.status {
            Status::NoBinding | Status::NotOnLink => Extension::Ended,
            // All its addresses have lifetime 0.
            Status::Success if reply.server == lease.server => Extension::Ended,
            Status::Success | Status::NoAddresses | Status::Other(_) => Extension::Unclear,
        },
        (None, None) => Extension::Unclear,
    }
}

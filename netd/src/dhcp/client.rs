//! The DHCP client of one link: which state follows which (RFC 2131, figure 5).
//!
//! ```text
//!             no lease known                  a lease is remembered
//!                   │                                   │
//!                   ▼             offer                 ▼       no answer
//!   ┌────────► Selecting ───────────► Requesting    Confirming ──────────┐
//!   │              ▲  ▲   no answer      │ │            │  │             │
//!   │              │  └──────────────────┘ │ack      ack│  │refused      │
//!   │              │                       ▼            ▼  ▼             │
//!   │              │                      Bound ◄───────┘ Selecting      │
//!   │              │                       │  ▲ ◄────────────────────────┘
//!   │              │ refused        renew_s│  │ack
//!   │              ├──────────────── Renewing ┤
//!   │              │               rebind_s│  │ack
//!   └──────────────┴─────────────── Rebinding ┘
//!     the lease ends, or refused
//! ```
//!
//! Owns the decisions; [`step`] is a pure function. Refuses clocks, sockets and randomness: time is
//! an argument (since boot, so that a wrong wall clock ends no lease), and so is chance.

use super::message::{Kind, Query, Reply};
use serde::{Deserialize, Serialize};
use std::{cmp::min, net::Ipv4Addr, time::Duration};

/// Waits between two unanswered queries; the last one repeats for ever. Shorter at first than RFC
/// 2131 proposes, since a node that boots is worth the few frames.
const RETRY_S: [u64; 6] = [2, 4, 8, 16, 32, 64];
/// A wait is longer or shorter by up to this, so that a rack that gets power does not ask in step.
const JITTER_MS: u64 = 1000;
/// Unanswered requests after which an offer counts as void.
const REQUESTS_MAX: u32 = 4;
/// Unanswered requests after which a remembered lease is used without confirmation.
const CONFIRMATIONS_MAX: u32 = 3;
/// An extension is asked for at most this often (RFC 2131, 4.4.5).
const EXTEND_MIN: Duration = Duration::from_mins(1);
/// After a refusal the client waits this long, so that a misconfigured server is not flooded.
const REFUSAL_WAIT: Duration = Duration::from_secs(5);
/// A shorter lease would keep the client busy with nothing else.
const LEASE_MIN_S: u32 = 30;

/// Time since boot.
pub type Moment = Duration;

/// An address that a server gave, with what came along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The node's address.
    pub address: Ipv4Addr,
    /// Length of the subnet's prefix.
    pub prefix: u8,
    /// Default gateway.
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// When the server is asked for more time.
    pub renew_at: Moment,
    /// When any server is asked for more time.
    pub rebind_at: Moment,
    /// When it ends.
    pub ends_at: Moment,
}

/// Queries of one kind, sent until an answer comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Number that the server repeats in its answer.
    transaction: u32,
    /// When the first query was due.
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
    /// Looks for a server.
    Selecting(Attempt),
    /// Takes an offer: the address, then who offered it.
    Requesting(Attempt, Ipv4Addr, Ipv4Addr),
    /// Uses a remembered lease and asks whether it still holds.
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
    /// A well-formed answer arrived; it may be for another client or of former times.
    Reply(&'a Reply),
    /// The cable was pulled and plugged in again, perhaps elsewhere.
    Plugged,
}

/// What is to be sent, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The question.
    pub query: Query,
    /// Its number.
    pub transaction: u32,
    /// Seconds since the first query of this kind.
    pub elapsed_s: u16,
    /// From where to where.
    pub path: Path,
}

/// From where to where a query goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// To all, from this address (unspecified while there is none).
    Broadcast(Ipv4Addr),
    /// From our address to the server's.
    Unicast(Ipv4Addr, Ipv4Addr),
}

/// What decides nothing but must come from outside.
#[derive(Debug, Clone, Copy)]
pub struct Outside {
    /// Time since boot.
    pub now: Moment,
    /// Fresh randomness for this step.
    pub chance: u32,
}

impl State {
    /// The first state of a client; `lease` is what a former run of the daemon left behind. It is
    /// used on without a word to the server: the link did not change while the daemon was away.
    pub fn first(lease: Option<Lease>, outside: Outside) -> Self {
        match lease {
            Some(lease) if outside.now < lease.ends_at => Self::Bound(lease),
            Some(_) | None => Self::Selecting(Attempt::new(outside)),
        }
    }

    /// The lease in use.
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Selecting(_) | Self::Requesting(..) => None,
            Self::Confirming(_, lease)
            | Self::Bound(lease)
            | Self::Renewing(_, lease)
            | Self::Rebinding(_, lease) => Some(lease),
        }
    }

    /// When [`Event::Timer`] is due.
    pub fn deadline(&self) -> Moment {
        match self {
            Self::Selecting(attempt) | Self::Requesting(attempt, ..) => attempt.next,
            Self::Confirming(attempt, lease) | Self::Rebinding(attempt, lease) => {
                min(attempt.next, lease.ends_at)
            }
            Self::Bound(lease) => lease.renew_at,
            Self::Renewing(attempt, lease) => min(attempt.next, lease.rebind_at),
        }
    }

    /// How many queries went unanswered, and when the next one goes out.
    pub fn unanswered(&self) -> Option<(u32, Moment)> {
        match self {
            Self::Bound(_) => None,
            Self::Selecting(attempt)
            | Self::Requesting(attempt, ..)
            | Self::Confirming(attempt, _)
            | Self::Renewing(attempt, _)
            | Self::Rebinding(attempt, _) => Some((attempt.sent, attempt.next)),
        }
    }
}

impl Attempt {
    /// The first query is due at once.
    fn new(outside: Outside) -> Self {
        let Outside { now, chance } = outside;
        Self { transaction: chance, since: now, sent: 0, last: now, next: now }
    }

    fn after_refusal(outside: Outside) -> Self {
        Self { next: outside.now + REFUSAL_WAIT, ..Self::new(outside) }
    }

    fn sent(&self, now: Moment, next: Moment) -> Self {
        Self { sent: self.sent.saturating_add(1), last: now, next, ..self.clone() }
    }

    fn retry(&self, Outside { now, chance }: Outside) -> Self {
        let step = usize::try_from(self.sent).unwrap_or(usize::MAX).min(RETRY_S.len() - 1);
        let shift_ms = u64::from(chance) % (2 * JITTER_MS);
        let wait = Duration::from_millis(RETRY_S[step] * 1000 - JITTER_MS + shift_ms);
        self.sent(now, now + wait)
    }

    /// RFC 2131, 4.4.5: after half of the time that is left.
    fn extend(&self, now: Moment, until: Moment) -> Self {
        let half = until.saturating_sub(now) / 2;
        self.sent(now, min(now + half.max(EXTEND_MIN), until))
    }

    fn outgoing(&self, query: Query, now: Moment, path: Path) -> Outgoing {
        let elapsed = now.saturating_sub(self.since).as_secs();
        let elapsed_s = u16::try_from(elapsed).unwrap_or(u16::MAX);
        Outgoing { query, transaction: self.transaction, elapsed_s, path }
    }
}

impl Lease {
    /// What an acknowledgement grants; `None` when an address of a node cannot come of it.
    ///
    /// `asked_at` is when the request was sent: the server's clock runs from a later moment.
    fn granted(reply: &Reply, asked_at: Moment) -> Option<Self> {
        let address = usable(reply.address)?;
        let lease_s = reply.lease_s.filter(|seconds| *seconds >= LEASE_MIN_S)?;
        let after = |seconds: u32| asked_at + Duration::from_secs(seconds.into());
        let share = |eighths: u32| lease_s / 8 * eighths;
        let rebind_s = reply.rebind_s.filter(|s| *s > 1 && *s < lease_s).unwrap_or(share(7));
        let renew_s = reply.renew_s.filter(|s| *s > 0 && *s < rebind_s).unwrap_or(share(4));
        Some(Self {
            address,
            prefix: reply.prefix.filter(|bits| *bits > 0).unwrap_or_else(|| classful(address)),
            router: reply.routers.iter().find_map(|router| usable(*router)),
            dns: reply.dns.iter().filter_map(|server| usable(*server)).collect(),
            ntp: reply.ntp.iter().filter_map(|server| usable(*server)).collect(),
            server: usable(reply.server?)?,
            renew_at: after(renew_s.min(rebind_s)),
            rebind_at: after(rebind_s),
            ends_at: after(lease_s),
        })
    }
}

/// An address that a machine can have.
fn usable(address: Ipv4Addr) -> Option<Ipv4Addr> {
    let bad = address.octets()[0] == 0
        || address.is_loopback()
        || address.is_multicast()
        || address.octets()[0] >= 240;
    (!bad).then_some(address)
}

/// A server that gives no mask means the class of the address.
fn classful(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        192..=255 => 24,
    }
}

/// What follows from `event` in `state`: the next state, and what to send.
pub fn step(state: State, event: &Event<'_>, outside: Outside) -> (State, Option<Outgoing>) {
    match event {
        Event::Timer => on_timer(state, outside),
        Event::Reply(reply) => on_reply(state, reply, outside),
        Event::Plugged => match state.lease() {
            Some(lease) if outside.now < lease.ends_at => {
                let lease = lease.clone();
                on_timer(State::Confirming(Attempt::new(outside), lease), outside)
            }
            Some(_) | None => on_timer(State::Selecting(Attempt::new(outside)), outside),
        },
    }
}

fn on_timer(state: State, outside: Outside) -> (State, Option<Outgoing>) {
    let now = outside.now;
    if now < state.deadline() {
        return (state, None);
    }
    let nobody = Path::Broadcast(Ipv4Addr::UNSPECIFIED);
    match state {
        State::Selecting(attempt) => {
            let outgoing = attempt.outgoing(Query::Discover, now, nobody);
            (State::Selecting(attempt.retry(outside)), Some(outgoing))
        }
        State::Requesting(attempt, address, server) => {
            if attempt.sent >= REQUESTS_MAX {
                return on_timer(State::Selecting(Attempt::new(outside)), outside);
            }
            let outgoing = attempt.outgoing(Query::Take { address, server }, now, nobody);
            (State::Requesting(attempt.retry(outside), address, server), Some(outgoing))
        }
        State::Confirming(attempt, lease) => {
            if now >= lease.ends_at {
                return on_timer(State::Selecting(Attempt::new(outside)), outside);
            }
            if attempt.sent >= CONFIRMATIONS_MAX {
                return on_timer(State::Bound(lease), outside);
            }
            let query = Query::Confirm { address: lease.address };
            let outgoing = attempt.outgoing(query, now, nobody);
            (State::Confirming(attempt.retry(outside), lease), Some(outgoing))
        }
        State::Bound(lease) => on_timer(State::Renewing(Attempt::new(outside), lease), outside),
        State::Renewing(attempt, lease) => {
            if now >= lease.rebind_at {
                return on_timer(State::Rebinding(Attempt::new(outside), lease), outside);
            }
            let query = Query::Extend { address: lease.address };
            let path = Path::Unicast(lease.address, lease.server);
            let outgoing = attempt.outgoing(query, now, path);
            (State::Renewing(attempt.extend(now, lease.rebind_at), lease), Some(outgoing))
        }
        State::Rebinding(attempt, lease) => {
            if now >= lease.ends_at {
                return on_timer(State::Selecting(Attempt::new(outside)), outside);
            }
            let query = Query::Extend { address: lease.address };
            let outgoing = attempt.outgoing(query, now, Path::Broadcast(lease.address));
            (State::Rebinding(attempt.extend(now, lease.ends_at), lease), Some(outgoing))
        }
    }
}

fn on_reply(state: State, reply: &Reply, outside: Outside) -> (State, Option<Outgoing>) {
    match &state {
        State::Selecting(attempt) => {
            let offered = (reply.kind, reply.server, usable(reply.address));
            let (Kind::Offer, Some(server), Some(address)) = offered else { return (state, None) };
            // An offer that could not become a lease is left to a better server.
            if !attempt.awaits(reply) || Lease::granted(reply, attempt.last).is_none() {
                return (state, None);
            }
            // The same number, since the server may match the request to its offer by it.
            let request = Attempt { transaction: attempt.transaction, ..Attempt::new(outside) };
            on_timer(State::Requesting(request, address, server), outside)
        }
        State::Requesting(attempt, _, server) => {
            if !attempt.awaits(reply) || reply.server.is_some_and(|from| from != *server) {
                return (state, None);
            }
            (accepted(state, reply, outside), None)
        }
        State::Renewing(attempt, lease) => {
            let refused_by_other =
                reply.kind == Kind::Nak && reply.server.is_some_and(|from| from != lease.server);
            if !attempt.awaits(reply) || refused_by_other {
                return (state, None);
            }
            (accepted(state, reply, outside), None)
        }
        State::Confirming(attempt, _) | State::Rebinding(attempt, _) => {
            if !attempt.awaits(reply) {
                return (state, None);
            }
            (accepted(state, reply, outside), None)
        }
        // Nothing was asked.
        State::Bound(_) => (state, None),
    }
}

impl Attempt {
    fn awaits(&self, reply: &Reply) -> bool {
        self.sent > 0 && self.transaction == reply.transaction
    }
}

/// The state after the answer to a request.
fn accepted(state: State, reply: &Reply, outside: Outside) -> State {
    let asked_at = match &state {
        State::Selecting(attempt)
        | State::Requesting(attempt, ..)
        | State::Confirming(attempt, _)
        | State::Renewing(attempt, _)
        | State::Rebinding(attempt, _) => attempt.last,
        State::Bound(_) => outside.now,
    };
    match reply.kind {
        Kind::Nak => State::Selecting(Attempt::after_refusal(outside)),
        Kind::Ack => Lease::granted(reply, asked_at).map_or(state, State::Bound),
        Kind::Offer => state,
    }
}

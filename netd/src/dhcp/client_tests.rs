//! The client against crafted answers, over hours of invented time.

use super::{
    client::{Event, Lease, Moment, Outgoing, Outside, Path, State, step},
    message::{Query, Reply, parse, tests::answer},
};
use std::{net::Ipv4Addr, time::Duration};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const NOBODY: Path = Path::Broadcast(Ipv4Addr::UNSPECIFIED);
const OFFER: u8 = 2;
const ACK: u8 = 5;
const NAK: u8 = 6;
/// Server 10.0.2.2, lease 800 s, mask /24, router 10.0.2.2.
const OPTIONS: &[u8] =
    &[54, 4, 10, 0, 2, 2, 51, 4, 0, 0, 3, 32, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2];

fn at(seconds: u64) -> Outside {
    // The number is the transaction of every attempt that starts here.
    Outside { now: Moment::from_secs(seconds), chance: 1000 }
}

fn reply(kind: u8) -> Reply {
    parse(&answer(kind, 1000, OWN.octets(), OPTIONS)).unwrap()
}

fn tick(state: State, seconds: u64) -> (State, Option<Outgoing>) {
    step(state, &Event::Timer, at(seconds))
}

fn receive(state: State, reply: &Reply, seconds: u64) -> (State, Option<Outgoing>) {
    step(state, &Event::Reply(reply), at(seconds))
}

/// Asks at second 10, gets the lease at once: renew at 410, rebind at 710, end at 810.
fn bound() -> State {
    let (state, _) = tick(State::first(None, at(10)), 10);
    let (state, _) = receive(state, &reply(OFFER), 10);
    let (state, _) = receive(state, &reply(ACK), 10);
    assert!(matches!(state, State::Bound(_)), "{state:?}");
    state
}

#[test]
fn a_node_without_a_lease_discovers_requests_and_is_bound() {
    let (state, sent) = tick(State::first(None, at(10)), 10);
    let sent = sent.unwrap();
    assert_eq!((sent.query, sent.path), (Query::Discover, NOBODY));
    let (state, sent) = receive(state, &reply(OFFER), 11);
    let sent = sent.unwrap();
    assert_eq!(sent.query, Query::Take { address: OWN, server: SERVER });
    assert_eq!((sent.transaction, sent.path), (1000, NOBODY));
    let (state, sent) = receive(state, &reply(ACK), 12);
    assert_eq!(sent, None);
    // Counted from when the request was sent, not from when the answer came.
    let second = Moment::from_secs;
    assert_eq!(
        state,
        State::Bound(Lease {
            address: OWN,
            prefix: 24,
            router: Some(SERVER),
            dns: vec![],
            ntp: vec![],
            server: SERVER,
            renew_at: second(411),
            rebind_at: second(711),
            ends_at: second(811),
        })
    );
}

#[test]
fn without_a_server_the_waits_double_up_to_a_minute_and_never_end() {
    let mut state = State::first(None, at(0));
    let mut waits = Vec::new();
    for _ in 0..9 {
        let now = state.deadline();
        // The middle of the jitter.
        let (next, sent) = step(state, &Event::Timer, Outside { now, chance: 1000 });
        assert!(sent.is_some());
        waits.push(next.deadline().saturating_sub(now).as_secs());
        state = next;
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 64, 64, 64]);
    assert_eq!(state.unanswered().unwrap().0, 9);
}

#[test]
fn chance_moves_a_wait_by_at_most_a_second() {
    for (chance, wait_ms) in [(0, 1000), (1000, 2000), (1999, 2999), (2000, 1000), (u32::MAX, 2295)]
    {
        let outside = Outside { now: Moment::ZERO, chance };
        let (state, _) = step(State::first(None, outside), &Event::Timer, outside);
        assert_eq!(state.deadline(), Duration::from_millis(wait_ms), "{chance}");
    }
}

#[test]
fn an_early_timer_sends_nothing() {
    let (state, _) = tick(State::first(None, at(10)), 10);
    assert_eq!(tick(state.clone(), 11), (state, None));
}

#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let (selecting, _) = tick(State::first(None, at(10)), 10);
    let (requesting, _) = receive(selecting.clone(), &reply(OFFER), 10);
    let good = reply(OFFER);
    let other = Reply { transaction: 999, ..good.clone() };
    let nameless = Reply { server: None, ..good.clone() };
    let endless = Reply { lease_s: None, ..good.clone() };
    let loopback = Reply { address: Ipv4Addr::LOCALHOST, ..good.clone() };
    let multicast = Reply { address: Ipv4Addr::new(224, 0, 0, 1), ..good };
    let foreign = Reply { server: Some(Ipv4Addr::new(10, 0, 2, 3)), ..reply(ACK) };
    let useless = Reply { address: Ipv4Addr::UNSPECIFIED, ..reply(ACK) };
    for (state, reply) in [
        (&selecting, other),
        (&selecting, nameless),
        (&selecting, endless),
        (&selecting, loopback),
        (&selecting, multicast),
        (&selecting, reply(ACK)),
        (&selecting, reply(NAK)),
        (&requesting, foreign),
        (&requesting, useless),
        (&requesting, reply(OFFER)),
        (&bound(), reply(NAK)),
        (&bound(), reply(ACK)),
    ] {
        assert_eq!(receive(state.clone(), &reply, 11), (state.clone(), None), "{reply:?}");
    }
}

#[test]
fn an_offer_that_is_not_honoured_is_given_up_after_four_requests() {
    let (state, _) = tick(State::first(None, at(10)), 10);
    let (mut state, mut sent) = receive(state, &reply(OFFER), 10);
    let mut requests = 0;
    while sent.as_ref().is_some_and(|sent| sent.query != Query::Discover) {
        requests += 1;
        let now = state.deadline();
        (state, sent) = step(state, &Event::Timer, Outside { now, chance: 1000 });
    }
    assert_eq!(requests, 4);
    assert!(matches!(state, State::Selecting(_)));
}

#[test]
fn a_refused_request_starts_again_after_a_pause() {
    let (state, _) = tick(State::first(None, at(10)), 10);
    let (state, _) = receive(state, &reply(OFFER), 10);
    let (state, sent) = receive(state, &reply(NAK), 10);
    assert_eq!(sent, None);
    assert_eq!(state.deadline(), Moment::from_secs(15));
    let (_, sent) = tick(state, 15);
    assert_eq!(sent.unwrap().query, Query::Discover);
}

#[test]
fn half_way_through_the_lease_its_server_is_asked_and_extends_it() {
    let (state, sent) = tick(bound(), 410);
    let sent = sent.unwrap();
    assert_eq!(sent.query, Query::Extend { address: OWN });
    assert_eq!(sent.path, Path::Unicast(OWN, SERVER));
    assert_eq!(state.lease().unwrap().address, OWN);
    let (state, _) = receive(state, &reply(ACK), 411);
    assert_eq!(state.deadline(), Moment::from_secs(810));
}

#[test]
fn a_silent_server_leads_from_renewing_to_rebinding_to_a_new_search() {
    let mut state = bound();
    let mut log = Vec::new();
    while state.lease().is_some() {
        let now = state.deadline();
        let sent;
        (state, sent) = step(state, &Event::Timer, Outside { now, chance: 1000 });
        log.push((now.as_secs(), sent.unwrap().path));
    }
    let (unicast, broadcast) = (Path::Unicast(OWN, SERVER), Path::Broadcast(OWN));
    assert_eq!(
        log,
        [
            // Half of what is left until 710, at least a minute.
            (410, unicast),
            (560, unicast),
            (635, unicast),
            (695, unicast),
            // Half of what is left until 810, at least a minute.
            (710, broadcast),
            (770, broadcast),
            (810, NOBODY),
        ]
    );
}

#[test]
fn any_server_may_extend_or_refuse_while_rebinding() {
    let (state, _) = tick(bound(), 410);
    let (state, _) = tick(state, 710);
    let other = Some(Ipv4Addr::new(10, 0, 2, 3));
    let (kept, _) = receive(state.clone(), &Reply { server: other, ..reply(ACK) }, 711);
    assert_eq!(kept.lease().unwrap().server, Ipv4Addr::new(10, 0, 2, 3));
    let (lost, _) = receive(state, &Reply { server: other, ..reply(NAK) }, 711);
    assert_eq!(lost.lease(), None);
}

#[test]
fn while_renewing_only_the_leases_own_server_may_refuse() {
    let (state, _) = tick(bound(), 410);
    let stranger = Reply { server: Some(Ipv4Addr::new(10, 0, 2, 3)), ..reply(NAK) };
    assert!(receive(state.clone(), &stranger, 411).0.lease().is_some());
    assert!(receive(state, &reply(NAK), 411).0.lease().is_none());
}

#[test]
fn a_restarted_daemon_goes_on_with_its_lease_and_asks_nobody() {
    let lease = bound().lease().cloned();
    let state = State::first(lease.clone(), at(200));
    assert_eq!(state, bound());
    let ended = State::first(lease, at(810));
    assert!(matches!(ended, State::Selecting(_)));
}

#[test]
fn after_a_new_cable_the_address_is_confirmed_while_it_stays_in_use() {
    let (state, sent) = step(bound(), &Event::Plugged, at(100));
    let sent = sent.unwrap();
    assert_eq!((sent.query, sent.path), (Query::Confirm { address: OWN }, NOBODY));
    assert!(state.lease().is_some());
    // In another network the server there refuses.
    let elsewhere = Reply { server: Some(Ipv4Addr::new(192, 168, 0, 1)), ..reply(NAK) };
    assert!(receive(state.clone(), &elsewhere, 101).0.lease().is_none());
    // In the same network it is given again.
    let (kept, _) = receive(state.clone(), &reply(ACK), 101);
    assert_eq!(kept.deadline(), Moment::from_secs(500));
    // Without any server the old terms hold.
    let mut silent = state;
    while !matches!(silent, State::Bound(_)) {
        let now = silent.deadline();
        (silent, _) = step(silent, &Event::Timer, Outside { now, chance: 1000 });
    }
    assert_eq!(silent, bound());
}

#[test]
fn impossible_terms_are_replaced_by_the_standards_shares() {
    let odd = |renew_s, rebind_s| Reply { renew_s, rebind_s, ..reply(ACK) };
    for (terms, renew, rebind) in [
        (odd(None, None), 410, 710),
        (odd(Some(100), Some(200)), 110, 210),
        (odd(Some(900), Some(1000)), 410, 710),
        (odd(Some(0), Some(0)), 410, 710),
        (odd(Some(500), Some(200)), 210, 210),
    ] {
        let (state, _) = tick(State::first(None, at(10)), 10);
        let (state, _) = receive(state, &reply(OFFER), 10);
        let (state, _) = receive(state, &terms, 10);
        let lease = state.lease().unwrap();
        assert_eq!((lease.renew_at.as_secs(), lease.rebind_at.as_secs()), (renew, rebind));
    }
}

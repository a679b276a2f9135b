//! The client against crafted answers, over hours of invented time.

use super::{
    client::{Event, Moment, Need, Outgoing, Outside, Servers, State, step},
    message::{
        Query, Reply, parse,
        tests::{MAC, SERVER, answer, gives, option},
    },
};
use std::net::Ipv6Addr;

const ADVERTISE: u8 = 2;
const REPLY: u8 = 7;

fn own() -> Ipv6Addr {
    "2001:db8::9".parse().unwrap()
}

fn dns() -> Ipv6Addr {
    "2001:db8::53".parse().unwrap()
}

fn at(seconds: u64) -> Outside {
    // The number is the transaction of every attempt that starts here; the first wait is 0 ms.
    Outside { now: Moment::from_secs(seconds), chance: 1000 }
}

fn tick(state: State, seconds: u64) -> (State, Option<Outgoing>) {
    step(state, &Event::Timer, Need::Address, at(seconds))
}

fn receive(state: State, reply: &Reply, seconds: u64) -> (State, Option<Outgoing>) {
    step(state, &Event::Reply(reply), Need::Address, at(seconds))
}

fn reply(kind: u8, options: &[Vec<u8>]) -> Reply {
    parse(&answer(kind, 1000, options), MAC).unwrap()
}

/// Lease 1000 s, to be renewed after 400 s and rebound after 700 s.
fn good(kind: u8) -> Reply {
    reply(kind, &[gives(own(), [400, 700, 1000]), option(23, &dns().octets())])
}

fn status(number: u8) -> Vec<u8> {
    option(13, &[0, number])
}

/// Asks at second 10: renew at 411, rebind at 711, end at 1011.
fn bound() -> State {
    let (state, sent) = step(State::Idle, &Event::Need, Need::Address, at(10));
    assert_eq!(sent.unwrap().query, Query::Solicit);
    let (state, sent) = receive(state, &good(ADVERTISE), 10);
    assert_eq!(sent, None, "a better offer may come");
    let (state, sent) = tick(state, 11);
    assert_eq!(sent.unwrap().query, Query::Request { server: SERVER.to_vec(), address: own() });
    let (state, sent) = receive(state, &good(REPLY), 12);
    assert_eq!(sent, None);
    assert_eq!(state.lease().unwrap().ends_at, Moment::from_secs(1011));
    state
}

#[test]
fn a_router_that_says_so_gets_the_node_an_address() {
    let state = bound();
    let lease = state.lease().unwrap();
    assert_eq!((lease.address, lease.renew_at), (own(), Moment::from_secs(411)));
    assert_eq!(state.servers(), Some(&Servers { dns: vec![dns()], ntp: vec![] }));
}

#[test]
fn without_a_word_of_a_router_nothing_is_asked() {
    let (state, sent) = step(State::Idle, &Event::Need, Need::Nothing, at(10));
    assert_eq!((state.deadline(), sent), (None, None));
    let (state, sent) = step(state, &Event::Plugged, Need::Nothing, at(11));
    assert_eq!((state, sent), (State::Idle, None));
}

#[test]
fn servers_alone_are_asked_for_and_asked_for_again() {
    let (state, sent) = step(State::Idle, &Event::Need, Need::Servers, at(10));
    assert_eq!(sent.unwrap().query, Query::Information);
    let answer = reply(REPLY, &[option(23, &dns().octets()), option(32, &900_u32.to_be_bytes())]);
    let (state, _) = step(state, &Event::Reply(&answer), Need::Servers, at(11));
    assert_eq!(state.servers().unwrap().dns, [dns()]);
    assert_eq!(state.deadline(), Some(Moment::from_secs(911)));
    let (state, sent) = step(state, &Event::Timer, Need::Servers, at(911));
    assert_eq!(sent.unwrap().query, Query::Information);
    assert_eq!(state.servers().unwrap().dns, [dns()], "the former ones are used until then");
    // The router changes its mind.
    let (_, sent) = step(state, &Event::Need, Need::Address, at(920));
    assert_eq!(sent.unwrap().query, Query::Solicit);
}

#[test]
fn the_best_offer_is_taken_and_a_perfect_one_at_once() {
    let (state, _) = step(State::Idle, &Event::Need, Need::Address, at(10));
    let worse = good(ADVERTISE);
    let better = Reply { preference: 7, server: vec![7], ..worse.clone() };
    for offers in [[&worse, &better], [&better, &worse]] {
        let collected = offers.iter().fold(state.clone(), |state, offer| {
            let (state, sent) = receive(state, offer, 10);
            assert_eq!(sent, None);
            state
        });
        let sent = tick(collected, 12).1.unwrap();
        assert_eq!(sent.query, Query::Request { server: vec![7], address: own() });
    }
    let perfect = Reply { preference: 255, ..worse };
    assert!(matches!(receive(state, &perfect, 10).1.unwrap().query, Query::Request { .. }));
}

#[test]
fn answers_of_no_use_change_nothing() {
    let (soliciting, _) = step(State::Idle, &Event::Need, Need::Address, at(10));
    let none = reply(ADVERTISE, &[status(2)]);
    let short = reply(ADVERTISE, &[gives(own(), [1, 2, 3])]);
    let local = reply(ADVERTISE, &[gives("fe80::1".parse().unwrap(), [400, 700, 1000])]);
    let stale = Reply { transaction: 999, ..good(ADVERTISE) };
    for useless in [none, short, local, stale, good(REPLY)] {
        let (state, sent) = receive(soliciting.clone(), &useless, 10);
        assert_eq!((state, sent), (soliciting.clone(), None), "{useless:?}");
    }
}

#[test]
fn without_a_server_the_waits_double_up_to_a_minute_and_never_end() {
    let (mut state, _) = step(State::Idle, &Event::Need, Need::Address, at(0));
    let mut waits = Vec::new();
    let mut before = Moment::ZERO;
    for _ in 0..9 {
        let now = state.deadline().unwrap();
        waits.push(now.saturating_sub(before).as_millis());
        before = now;
        let outside = Outside { now, chance: 0 };
        let sent;
        (state, sent) = step(state, &Event::Timer, Need::Address, outside);
        assert_eq!(sent.unwrap().query, Query::Solicit);
    }
    // From the second on with the shortest jitter.
    let part = |seconds: u128| seconds * 900;
    assert_eq!(waits[1..], [2, 4, 8, 16, 32, 64, 64, 64].map(part));
}

#[test]
fn a_server_that_stops_answering_is_given_up() {
    let (state, _) = step(State::Idle, &Event::Need, Need::Address, at(10));
    let (mut state, _) = receive(state, &good(ADVERTISE), 10);
    let mut queries = Vec::new();
    for _ in 0..7 {
        let now = state.deadline().unwrap().as_secs() + 1;
        let sent;
        (state, sent) = tick(state, now);
        queries.extend(sent.map(|sent| matches!(sent.query, Query::Solicit)));
    }
    assert_eq!(queries, [false, false, false, false, false, true, true]);
}

#[test]
fn a_lease_is_renewed_then_rebound_then_ends() {
    let (state, sent) = tick(bound(), 411);
    assert_eq!(sent.unwrap().query, Query::Renew { server: SERVER.to_vec(), address: own() });
    let (renewed, _) = receive(state.clone(), &good(REPLY), 412);
    assert_eq!(renewed.lease().unwrap().ends_at, Moment::from_secs(1411));
    let (state, sent) = tick(state, 711);
    assert_eq!(sent.unwrap().query, Query::Rebind { address: own() });
    assert!(state.lease().is_some());
    let (state, sent) = tick(state, 1011);
    assert_eq!(sent.unwrap().query, Query::Solicit);
    assert_eq!(state.lease(), None);
}

#[test]
fn a_server_that_does_not_know_the_address_ends_the_lease() {
    let (renewing, _) = tick(bound(), 411);
    let mut unknown = good(REPLY);
    let association = unknown.association.as_mut().unwrap();
    association.addresses.clear();
    association.status = super::message::Status::NoBinding;
    let (state, sent) = receive(renewing.clone(), &unknown, 412);
    assert_eq!((state.lease(), sent), (None, None));
    assert!(state.deadline().unwrap() >= Moment::from_secs(412 + 5), "not at once");
    // A server that is only busy keeps nobody from its address.
    let busy = reply(REPLY, &[status(1)]);
    assert_eq!(receive(renewing.clone(), &busy, 412).0, renewing);
}

#[test]
fn a_cable_that_comes_back_confirms_the_lease() {
    let (state, sent) = step(bound(), &Event::Plugged, Need::Address, at(100));
    assert_eq!(sent.unwrap().query, Query::Confirm { address: own() });
    assert!(state.lease().is_some(), "it is used meanwhile");
    let (kept, _) = receive(state.clone(), &reply(REPLY, &[status(0)]), 101);
    assert!(matches!(kept, State::Bound(_)));
    let (moved, _) = receive(state.clone(), &reply(REPLY, &[status(4)]), 101);
    assert_eq!(moved.lease(), None);
    let mut silent = state;
    for _ in 0..3 {
        let now = silent.deadline().unwrap().as_secs() + 1;
        silent = tick(silent, now).0;
    }
    assert!(matches!(silent, State::Bound(_)), "nobody objects");
}

#[test]
fn a_router_that_is_silent_for_once_takes_no_lease() {
    let state = bound();
    let (kept, sent) = step(state.clone(), &Event::Need, Need::Nothing, at(20));
    assert_eq!((kept, sent), (state, None));
}

#[test]
fn a_remembered_lease_is_used_until_it_ends() {
    let lease = bound().lease().cloned();
    assert_eq!(State::first(lease.clone(), at(100)).lease(), lease.as_ref());
    assert_eq!(State::first(lease, at(1011)), State::Idle);
}

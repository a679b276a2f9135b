//! Orders that are taken once, and those that are no orders.

use super::*;
use contract::{
    Envelope, IdentityId, NodeId, SigningKey, StatementId,
    scrub::{SCRUB_AHEAD_S, SCRUB_OPEN_S},
    testkit::{NETWORK, World, seal},
};

fn world() -> World {
    World::new(Timestamp::from_seconds(1_800_000_000))
}

fn trust(world: &World) -> Trust {
    Trust {
        network: NETWORK.into(),
        farm: world.id("farm"),
        node: world.node_id(),
        free: contract::Capacity::default(),
        past: contract::Past::default(),
    }
}

fn ordered(world: &World, offset: i64) -> Ordered {
    Ordered { order: seal(&world.scrub(offset), world.key("farm")), farm: world.identity("farm") }
}

fn id(world: &World, offset: i64) -> StatementId {
    ordered(world, offset).order.id().unwrap()
}

fn at(world: &World, offset: i64) -> Now {
    Now { at: world.at(offset), worth: Worth::Confirmed }
}

/// Hears an order, and says whether it is taken at that time.
fn takes(orders: &mut Orders, world: &World, offset: i64, now: Now) -> bool {
    orders.hear(&ordered(world, offset), &trust(world)).unwrap();
    orders.take(now, true)
}

fn restarted(orders: &mut Orders) -> Orders {
    Orders::read(Some(&orders.take_due().unwrap()))
}

fn good() -> rounds::Outcome {
    rounds::Outcome { files: 3, bytes: 4, ..rounds::Outcome::default() }
}

#[test]
fn an_order_is_taken_once_and_done_once() {
    let world = world();
    let mut orders = Orders::default();
    assert!(!orders.take(at(&world, 0), true) && orders.take_due().is_none());
    assert!(takes(&mut orders, &world, 0, at(&world, 1)));
    assert_eq!(orders.scrubbed().unwrap().outcome, Outcome::Heard { at: world.at(1) });
    assert!(!takes(&mut orders, &world, 0, at(&world, 2)), "the registry says it again");
    // The service ended before everything was read: it is read from the start.
    let mut orders = restarted(&mut orders);
    assert!(orders.is_open() && orders.take_due().is_none());
    orders.begin(world.at(5));
    orders.ended(&good(), world.at(9));
    let done = Outcome::Done {
        begun: world.at(5),
        ended: world.at(9),
        files: 3,
        bytes: 4,
        bad: 0,
        damaged: vec![],
        repaired: vec![],
        left_out: None,
    };
    let told = Scrubbed { order: id(&world, 0), issued: world.at(0), outcome: done };
    assert_eq!(orders.scrubbed().as_ref(), Some(&told));
    let mut orders = restarted(&mut orders);
    assert!(!orders.is_open());
    assert!(!takes(&mut orders, &world, 0, at(&world, 10)));
    for replayed in [-1, -1000] {
        let heard = orders.hear(&ordered(&world, replayed), &trust(&world));
        assert!(matches!(heard, Err(NotAnOrder::NotLater { .. })), "{replayed}");
        assert!(!orders.take(at(&world, 10), true), "{replayed}");
    }
    assert_eq!(orders.scrubbed().as_ref(), Some(&told));
    assert!(takes(&mut orders, &world, 1, at(&world, 10)), "one that is later");
}

#[test]
fn orders_that_come_together_are_one() {
    let world = world();
    let mut orders = Orders::default();
    // The first is of a clock that was years ahead: it keeps nobody waiting.
    for offset in [1_000_000_000, 1, 2, 3] {
        orders.hear(&ordered(&world, offset), &trust(&world)).unwrap();
    }
    assert!(orders.take(at(&world, 4), true) && !orders.take(at(&world, 4), true));
    assert_eq!(orders.scrubbed().unwrap().order, id(&world, 3));
}

/// What was read before an order was given says nothing of how the disk is since.
#[test]
fn what_was_begun_before_an_order_is_not_done_for_it() {
    let world = world();
    let mut orders = Orders::default();
    // For errors of the disk.
    orders.begin(world.at(0));
    assert!(takes(&mut orders, &world, 1, at(&world, 1)));
    orders.ended(&good(), world.at(2));
    assert!(orders.is_open());
    orders.begin(world.at(6));
    orders.ended(&good(), world.at(7));
    assert_eq!(done(&orders), (id(&world, 1), world.at(6)));
    // What is read after that, for another reason, changes nothing of it.
    let told = orders.scrubbed();
    orders.begin(world.at(8));
    orders.ended(&rounds::Outcome { bad: 1, ..good() }, world.at(9));
    assert_eq!(orders.scrubbed(), told);
}

/// Which order is done, and since when everything was read for it.
fn done(orders: &Orders) -> (StatementId, Timestamp) {
    match orders.scrubbed().unwrap() {
        Scrubbed { order, outcome: Outcome::Done { begun, .. }, .. } => (order, begun),
        other => panic!("{other:?}"),
    }
}

/// Of a store that takes longer to read than the farm waits between two orders, none was ever done.
#[test]
fn an_order_waits_until_the_one_before_was_done_and_seen() {
    let world = world();
    let mut orders = Orders::default();
    assert!(takes(&mut orders, &world, 0, at(&world, 0)));
    for (last, next) in [(0, 10), (10, 20), (20, 30)] {
        assert!(!takes(&mut orders, &world, next, at(&world, next)), "it has not begun");
        orders.begin(world.at(next));
        assert!(!orders.take(at(&world, next), true), "it is being read");
        orders.ended(&good(), world.at(next + 1));
        // While that rests, it is what the node tells.
        assert!(!orders.take(at(&world, next + 1), false));
        assert_eq!(done(&orders), (id(&world, last), world.at(next)));
        assert!(orders.take(at(&world, next + 2), true));
        assert_eq!(orders.scrubbed().unwrap().order, id(&world, next));
    }
    // Nor does one that is too old by now put an end to one that is open.
    let late = at(&world, 31 + SCRUB_OPEN_S);
    assert!(!takes(&mut orders, &world, 31, late) && orders.is_open());
    orders.begin(world.at(40));
    orders.ended(&good(), late.at);
    assert!(!orders.take(late, false));
    assert_eq!(done(&orders).0, id(&world, 30));
    let later = at(&world, 32 + SCRUB_OPEN_S);
    assert!(!orders.take(later, true));
    assert_eq!(orders.scrubbed().unwrap().outcome, Outcome::TooOld { at: later.at });
}

/// What was left out was read in the end, and the node went on to say that it was not.
#[test]
fn what_was_left_out_is_told_until_it_was_read() {
    let world = world();
    let mut orders = Orders::default();
    assert!(takes(&mut orders, &world, 0, at(&world, 0)));
    let [one, two, three] = [1, 2, 3].map(|n| FlistId([n; 32]));
    let read = |damaged: &[FlistId], problem: Option<&str>| rounds::Outcome {
        damaged: damaged.iter().copied().collect(),
        problem: problem.map(str::to_owned),
        ..good()
    };
    let mut told = |outcome: rounds::Outcome, begun: i64| {
        orders = restarted(&mut orders);
        orders.begin(world.at(begun));
        assert!(!takes(&mut orders, &world, 100, at(&world, 100)), "it is being read");
        orders.ended(&outcome, world.at(begun + 1));
        assert_eq!(done(&orders), (id(&world, 0), world.at(begun)));
        let outcome = orders.scrubbed().unwrap().outcome;
        let Outcome::Done { damaged, repaired, left_out, .. } = outcome else { panic!() };
        (damaged, repaired, left_out.is_some())
    };
    assert_eq!(told(read(&[one, two], Some("no")), 1), (vec![one, two], vec![], true));
    // The first may be what could not be looked at now.
    assert_eq!(told(read(&[two, three], Some("no")), 3), (vec![one, two, three], vec![], true));
    assert_eq!(told(read(&[two], None), 5), (vec![two], vec![one, three], false));
    // One that waited is next, whether or not all was read.
    assert!(takes(&mut orders, &world, 100, at(&world, 100)));
    orders.begin(world.at(101));
    orders.ended(&read(&[], Some("no")), world.at(102));
    assert!(takes(&mut orders, &world, 103, at(&world, 103)));
}

/// A registry that is older than orders took no statement of the node any more.
#[test]
fn what_the_registry_does_not_understand_is_not_told_before_the_next_start() {
    let world = world();
    let mut orders = Orders::default();
    assert!(takes(&mut orders, &world, 0, at(&world, 0)) && orders.scrubbed().is_some());
    orders.be_silent();
    assert_eq!(orders.scrubbed(), None);
    assert!(orders.is_open(), "it is done all the same");
    assert!(restarted(&mut orders).scrubbed().is_some());
}

#[test]
fn an_order_waits_for_its_time_and_is_refused_after_it() {
    let world = world();
    let mut orders = Orders::default();
    let early = SCRUB_AHEAD_S + 1;
    assert!(!takes(&mut orders, &world, early, at(&world, 0)));
    assert!(orders.scrubbed().is_none());
    assert!(orders.waits(at(&world, 0)).unwrap().contains("ahead"));
    assert!(orders.take(at(&world, 1), true), "the clocks agree by now");
    assert_eq!(orders.waits(at(&world, 1)), None);
    orders.begin(world.at(2));
    orders.ended(&good(), world.at(3));

    let (late, now) = (early + 1, early + 2 + SCRUB_OPEN_S);
    let unconfirmed = Now { worth: Worth::Unconfirmed, ..at(&world, now) };
    assert!(!takes(&mut orders, &world, late, unconfirmed));
    assert_eq!(orders.scrubbed().unwrap().order, id(&world, early), "nothing was refused");
    assert!(orders.waits(unconfirmed).unwrap().contains("too old"));
    assert!(!orders.take(at(&world, now), true));
    assert_eq!(orders.waits(unconfirmed), None);
    let refused = Outcome::TooOld { at: world.at(now) };
    let told = Scrubbed { order: id(&world, late), issued: world.at(late), outcome: refused };
    assert_eq!(orders.scrubbed(), Some(told));
    assert!(!orders.is_open());
    // For good, also when the clock is set back.
    assert!(!takes(&mut restarted(&mut orders), &world, late, at(&world, late)));
}

#[test]
fn only_the_farm_orders_and_only_this_node() {
    let world = world();
    let sound = ordered(&world, 0);
    let by = |key: &SigningKey| Ordered { order: seal(&world.scrub(0), key), ..sound.clone() };
    let other_farm = Scrub { farm: world.id("owner"), ..world.scrub(0) };
    let with = |order: Scrub| Ordered { order: seal(&order, world.key("farm")), ..sound.clone() };
    for (offered, variant, reason) in [
        (by(&world.token), "NotByTheFarm", "an enrolment key"),
        (by(&world.node_key), "NotByTheFarm", "the node itself"),
        (by(world.key("owner")), "NotByTheFarm", "a customer"),
        (
            Ordered { farm: world.identity("owner"), ..sound.clone() },
            "NotByTheFarm",
            "another identity",
        ),
        (Ordered { farm: sound.order.clone(), ..sound.clone() }, "Unreadable", "no identity"),
        (Ordered { order: world.identity("farm"), ..sound.clone() }, "Unreadable", "no order"),
        (
            Ordered { order: seal(&other_farm, world.key("owner")), farm: world.identity("owner") },
            "NotByTheFarm",
            "another farm",
        ),
        (with(other_farm), "NotByTheFarm", "of the farm, for another one"),
        (with(Scrub { node: NodeId([1; 32]), ..world.scrub(0) }), "OtherNode", "for another node"),
        (
            with(Scrub { network: "main".into(), ..world.scrub(0) }),
            "OtherNetwork",
            "on another grid",
        ),
    ] {
        let mut orders = Orders::default();
        let error = orders.hear(&offered, &trust(&world)).unwrap_err();
        assert!(format!("{error:?}").starts_with(variant), "{reason}: {error:?}");
        assert!(!orders.take(at(&world, 0), true), "{reason}");
    }
    assert!(takes(&mut Orders::default(), &world, 0, at(&world, 0)));
    // A node that was told no farm belongs to nobody.
    let nobody = Trust { farm: IdentityId([0; 32]), ..trust(&world) };
    let error = Orders::default().hear(&sound, &nobody).unwrap_err();
    assert!(matches!(error, NotAnOrder::NotByTheFarm), "{error:?}");
}

#[test]
fn a_farm_with_two_keys_orders_with_both() {
    let world = world();
    let keys = [world.key("farm"), world.key("it")];
    let mut public = keys.map(SigningKey::public).to_vec();
    public.sort();
    let both = Identity {
        network: NETWORK.into(),
        version: 1,
        prev: None,
        name: "both".into(),
        keys: public,
        threshold: 2,
    };
    let farm = Envelope::seal(&both, &keys).unwrap();
    let trust = Trust { farm: IdentityId(farm.id().unwrap().0), ..trust(&world) };
    let order = Scrub { farm: trust.farm, ..world.scrub(0) };
    let by = |keys: &[&SigningKey]| Ordered {
        order: Envelope::seal(&order, keys).unwrap(),
        farm: farm.clone(),
    };
    for one in [[keys[0]], [keys[1]]] {
        let error = Orders::default().hear(&by(&one), &trust).unwrap_err();
        assert!(matches!(error, NotAnOrder::NotByTheFarm), "{error:?}");
    }
    let mut orders = Orders::default();
    orders.hear(&by(&keys), &trust).unwrap();
    assert!(orders.take(at(&world, 0), true));
    // Half an identity is none, whoever has signed the order.
    let farm = seal(&both, keys[0]);
    let error = Orders::default().hear(&Ordered { farm, ..by(&keys) }, &trust).unwrap_err();
    assert!(matches!(error, NotAnOrder::NotByTheFarm), "{error:?}");
}

#[test]
fn what_was_bad_is_told_until_it_is_back() {
    let world = world();
    let mut orders = Orders::default();
    assert!(takes(&mut orders, &world, 0, at(&world, 0)));
    orders.begin(world.at(1));
    let flists = |range: std::ops::Range<u8>| range.map(|n| FlistId([n; 32])).collect::<Vec<_>>();
    let outcome = rounds::Outcome {
        bad: 7,
        damaged: flists(0..100).into_iter().collect(),
        problem: Some("é".repeat(SCRUB_TEXT_MAX)),
        ..good()
    };
    orders.ended(&outcome, world.at(2));
    let told = |orders: &Orders| match orders.scrubbed().unwrap().outcome {
        Outcome::Done { damaged, repaired, .. } => (damaged, repaired),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(&orders), (flists(0..64), vec![]), "the first of them");
    assert!(orders.take_due().is_some());
    orders.note_repaired(0, |_| false);
    assert!(orders.take_due().is_none(), "nothing is new");
    orders.note_repaired(1, |flist| flist.0[0] < 64);
    // Those that were not named are bad all the same.
    assert_eq!(told(&orders), (flists(64..100), flists(0..64)));
    let mut soon = restarted(&mut orders);
    orders.note_repaired(TELL_MS, |_| true);
    assert_eq!(told(&orders).0, flists(64..100), "once in a minute");
    orders.note_repaired(1 + TELL_MS, |_| true);
    soon.note_repaired(1, |_| true);
    for orders in [&orders, &soon] {
        assert_eq!(told(orders), (vec![], flists(0..64)));
    }

    // A node can say all of it in its statement.
    let node = contract::node::Node { scrub: orders.scrubbed(), ..world.node(1) };
    assert!(Envelope::seal(&node, &[&world.node_key]).is_ok());
}

#[test]
fn what_cannot_be_read_any_more_begins_anew() {
    for saved in [None, Some("junk"), Some("{}")] {
        let mut orders = Orders::read(saved);
        assert!(!orders.is_open() && orders.scrubbed().is_none() && orders.take_due().is_none());
    }
}

//! Admission with the volumes that are there, and what is final when the clock is wrong.

use super::*;
use crate::{
    evidence::Evidence,
    storage::{Pool, Volume},
};
use contract::{
    Bundle,
    bundle::Deployment,
    capacity::{Amounts, GIB},
    decision::{Action, Approval, Cancel, Decision},
    farm,
    header::{Deployments, Header},
    merkle,
    testkit::{NETWORK, World, bytes, seal},
    workload::{Volume as VolumeSpec, Workload},
};

fn world() -> World {
    World::new(Timestamp::from_seconds(1_800_000_000))
}

fn confirmed(at: Timestamp) -> Now {
    Now { at, worth: Worth::Confirmed }
}

fn unconfirmed(at: Timestamp) -> Now {
    Now { at, worth: Worth::Unconfirmed }
}

/// The contract of the test grid with a volume of so many GiB beside its container.
fn with_volume(world: &World, gib: u64) -> Bundle {
    let mut document = world.document(1);
    let volume = VolumeSpec { size_bytes: gib * GIB, class: Medium::Ssd };
    let volume = Workload { name: "data".into(), spec: Spec::Volume(volume), needs: vec![] };
    document.workloads.insert(0, volume);
    let amounts = Amounts { su_seconds: 100_000_000, ..world.pool().amounts };
    let pool = seal(&farm::Pool { amounts, ..world.pool() }, world.key("farm"));
    let mut header = world.header(1, None);
    header.pool = pool.id().unwrap();
    let bytes = bytes(&document);
    let leaves = [merkle::leaf(&bytes)];
    header.deployments = Deployments { count: 1, root: StatementId(merkle::root(&leaves)) };
    let header = seal(&header, world.key("owner"));
    Bundle {
        approvals: ["it", "legal"].map(|name| world.approve(name, &header)).to_vec(),
        headers: vec![header],
        pools: vec![pool],
        documents: vec![Deployment::new(&bytes, merkle::path(&leaves, 0).unwrap())],
        ..world.agreed()
    }
}

fn trust(world: &World, flash_gib: u64) -> Trust {
    Trust {
        network: NETWORK.into(),
        farm: world.id("farm"),
        node: world.node_id(),
        free: Capacity { sru_bytes: flash_gib * GIB, ..world.node(1).capacity },
        past: contract::Past::default(),
    }
}

fn pools(gib: &[u64]) -> Storage {
    let pool = |(n, gib): (usize, &u64)| Pool {
        uuid: format!("p{n}"),
        medium: Medium::Ssd,
        size_bytes: gib * GIB,
    };
    Storage { pools: gib.iter().enumerate().map(pool).collect(), volumes: Vec::new() }
}

/// Judges one contract on these pools: whether it runs, or why not.
fn check(world: &World, kept: Kept, storage: &Storage) -> Result<Capacity, String> {
    let id = kept.id;
    let contracts = BTreeMap::from([(id, kept)]);
    let flash_gib = storage.pools.iter().map(|pool| pool.size_bytes / GIB).sum();
    let (verdicts, free) = judge(&contracts, &trust(world, flash_gib), storage, world.at(10));
    match &verdicts[&id] {
        Verdict::Run(_) => Ok(free),
        Verdict::Refuse(refusal) => Err(format!("{}: {}", refusal.code, refusal.message)),
        Verdict::Stop(ended) => Err(format!("{ended:?}")),
    }
}

fn kept(world: &World, bundle: Bundle) -> Kept {
    Kept { bundle: Evidence::of(bundle), ..Kept::new(world.contract()) }
}

fn started(mut kept: Kept, demand: Capacity) -> Kept {
    kept.started = Some(1);
    kept.past.holds = Some(demand);
    kept
}

#[test]
fn a_volume_that_no_single_disk_can_hold_is_refused_before_anything_starts() {
    let world = world();
    let contract = || kept(&world, with_volume(&world, 60));
    assert!(check(&world, contract(), &pools(&[60, 40])).is_ok());
    let reason = check(&world, contract(), &pools(&[50, 50])).unwrap_err();
    assert!(reason.starts_with("no_capacity: a volume of"), "{reason}");
}

#[test]
fn a_volume_takes_its_place_for_as_long_as_it_is_there() {
    let world = world();
    let contract = || kept(&world, with_volume(&world, 60));
    let mut storage = pools(&[100]);
    let other = ContractId([1; 32]);
    let old = Volume { id: workload_id(&other, "data"), pool: "p0".into(), size_bytes: 41 * GIB };
    storage.volumes.push(old);
    let reason = check(&world, contract(), &storage).unwrap_err();
    assert!(reason.starts_with("no_capacity: sru_bytes"), "{reason}");
    // Its own does not stand in its way, and what is left is counted once.
    let own = workload_id(&world.contract(), "data");
    storage.volumes = vec![Volume { id: own, pool: "p0".into(), size_bytes: 60 * GIB }];
    assert_eq!(check(&world, contract(), &storage).unwrap().sru_bytes, 40 * GIB);
    // One that its document names no more is still there.
    let former = workload_id(&world.contract(), "former");
    storage.volumes[0] = Volume { id: former, pool: "p0".into(), size_bytes: 30 * GIB };
    assert_eq!(check(&world, contract(), &storage).unwrap().sru_bytes, 10 * GIB);
}

/// A disk died: a contract that fits no longer was stopped though its own disk was well.
#[test]
fn a_dead_disk_stops_nothing_that_has_started() {
    let world = world();
    let contract = kept(&world, with_volume(&world, 60));
    assert!(check(&world, contract.clone(), &pools(&[])).is_err());
    let demand = Capacity { sru_bytes: 60 * GIB, ..world.document(1).demand() };
    assert!(check(&world, started(contract.clone(), demand), &pools(&[])).is_ok());
    // More than it has needs room as at first.
    let less = Capacity { sru_bytes: 30 * GIB, ..demand };
    assert!(check(&world, started(contract, less), &pools(&[])).is_err());
}

/// One that wanted more than it had got what another one held.
#[test]
fn more_than_a_contract_holds_comes_from_what_nobody_holds() {
    let [one, other] = [1, 2].map(|number| world().with_contract(number));
    let demand = one.document(1).demand();
    let check = |free_gib: u64, wanted: [bool; 2]| {
        let less = Capacity { mru_bytes: GIB / 4, ..demand };
        let first = started(kept(&one, one.agreed()), less);
        let second = Kept { started: Some(2), ..started(kept(&other, other.agreed()), demand) };
        let contracts = BTreeMap::from([first, second].map(|kept| (kept.id, kept)));
        let free = Capacity { mru_bytes: free_gib * GIB, ..one.node(1).capacity };
        let trust = Trust { free, ..trust(&one, 0) };
        let (verdicts, _) = judge(&contracts, &trust, &pools(&[]), one.at(10));
        let runs =
            [&one, &other].map(|world| matches!(verdicts[&world.contract()], Verdict::Run(_)));
        assert_eq!(runs, wanted, "of {free_gib} GiB");
    };
    check(2, [true, true]);
    check(1, [false, true]);
    // What it has it keeps, whatever is free.
    check(0, [false, true]);
}

/// The contract with an order to end it at `offset` that everybody has approved.
fn cancelled(world: &World, offset: i64, retention: Retention) -> Kept {
    let mut bundle = world.agreed();
    let order = Cancel { effective_at: world.at(offset), retention, ..world.cancel() };
    let order = seal(&order, world.key("owner"));
    for name in ["it", "legal"] {
        let about = world.decision(name, &bundle.headers[0], Decision::Approve);
        let subject = order.id().unwrap();
        let approval = Approval { subject, action: Action::Cancel, ..about };
        bundle.approvals.push(seal(&approval, world.key(name)));
    }
    bundle.cancels.push(order);
    kept(world, bundle)
}

/// Judges, notes what is final, and gives whether its data is to be deleted.
fn settle(world: &World, kept: &mut Kept, now: Now) -> bool {
    let id = kept.id;
    let mut contracts = BTreeMap::from([(id, kept.clone())]);
    let trust = trust(world, 0);
    let (verdicts, _) = judge(&contracts, &trust, &pools(&[]), now.at);
    for ended in ends(&contracts, &verdicts, now.worth) {
        contracts.get_mut(&id).unwrap().past.ended = Some(ended);
    }
    *kept = contracts.remove(&id).unwrap();
    wipes(&BTreeMap::from([(id, kept.clone())]), now).contains_key(&id)
}

/// A node whose battery was empty started in 2040.
#[test]
fn a_wrong_clock_deletes_nothing_and_makes_nothing_final() {
    let world = world();
    let year_2040 = Timestamp::from_seconds(2_224_000_000);
    let keep = Retention::KeepUntil(world.at(5000));
    for retention in [Retention::Wipe, keep] {
        let mut contract = cancelled(&world, 500, retention);
        assert!(!settle(&world, &mut contract, unconfirmed(year_2040)));
        assert_eq!(contract.past.ended, None);
        // The time server says that it is earlier: the contract goes on.
        assert!(!settle(&world, &mut contract, confirmed(world.at(499))));
        assert_eq!(contract.past.ended, None);
        // Then its time comes.
        assert_eq!(
            settle(&world, &mut contract, confirmed(world.at(500))),
            retention == Retention::Wipe
        );
        assert!(contract.past.ended.is_some());
    }
    let mut contract = cancelled(&world, 0, keep);
    assert!(!settle(&world, &mut contract, unconfirmed(year_2040)));
    assert!(contract.past.ended.is_some(), "the order says itself that its time has come");
    assert!(!settle(&world, &mut contract, confirmed(world.at(4999))));
    assert!(!settle(&world, &mut contract, unconfirmed(world.at(5000))));
    assert!(settle(&world, &mut contract, confirmed(world.at(5000))));
}

#[test]
fn an_order_to_delete_at_once_needs_no_time_server() {
    let world = world();
    let mut contract = cancelled(&world, 0, Retention::Wipe);
    assert!(settle(&world, &mut contract, unconfirmed(world.at(1))));
}

#[test]
fn an_expiry_is_never_final() {
    let world = world();
    let mut contract = kept(&world, world.agreed());
    assert!(!settle(&world, &mut contract, confirmed(world.at(1_000_000))));
    assert_eq!(contract.past.ended, None);
}

#[test]
fn an_ended_contract_needs_nothing_but_its_end() {
    let world = world();
    let mut contract = cancelled(&world, 0, Retention::Wipe);
    settle(&world, &mut contract, confirmed(world.at(1)));
    let past = contract.past.clone();
    contract.bundle = Evidence::of(crate::merge::empty());
    assert!(settle(&world, &mut contract, confirmed(world.at(2))));
    assert_eq!(contract.past, past);
}

#[test]
fn a_place_is_given_back_when_nothing_of_it_runs_and_its_time_is_over_for_certain() {
    let world = world();
    let demand = world.document(1).demand();
    let contract = started(kept(&world, world.agreed()), demand);
    let refused = |code| Verdict::Refuse(Refusal { code, message: String::new() });
    let check = |verdict: &Verdict, is_ending: bool, worth: Worth, wanted: Option<Capacity>| {
        assert_eq!(holds(&contract, verdict, is_ending, worth), wanted, "{verdict:?}");
    };
    let (nothing, sure, unsure) = (Capacity::default(), Worth::Confirmed, Worth::Unconfirmed);
    check(&refused(Code::Rejected), false, sure, Some(nothing));
    check(&refused(Code::Rejected), true, sure, Some(demand));
    check(&refused(Code::NotYet), false, sure, Some(nothing));
    check(&refused(Code::NotYet), false, unsure, Some(demand));
    check(&refused(Code::NoCapacity), false, sure, Some(demand));
    let never = kept(&world, world.agreed());
    assert_eq!(holds(&never, &refused(Code::NotYet), false, unsure), None);
}

#[test]
fn sinks_change_under_a_container_that_goes_on() {
    let world = world();
    let contracts = BTreeMap::from([(world.contract(), kept(&world, world.agreed()))]);
    let (mut verdicts, _) = judge(&contracts, &trust(&world, 0), &pools(&[]), world.at(10));
    let Some(Verdict::Run(mut agreed)) = verdicts.remove(&world.contract()) else {
        panic!("it is agreed on")
    };
    let mut revision = |change: &dyn Fn(&mut Container)| {
        for workload in &mut agreed.document.workloads {
            if let Spec::Container(container) = &mut workload.spec {
                change(container);
            }
        }
        match &wants_of(&agreed)[0].kind {
            Kind::Container { revision, .. } => revision.clone(),
            Kind::Volume { .. } => panic!("it has no volume"),
        }
    };
    let first = revision(&|_| {});
    assert_eq!(revision(&|container| container.stats = container.logs.clone()), first);
    assert_eq!(revision(&|container| container.logs.clear()), first);
    assert_ne!(revision(&|container| container.memory_bytes += 1), first);
}

/// The flists that are wanted of a contract before its time.
fn wanted_early(world: &World, bundle: &Bundle, offset: i64) -> Vec<u64> {
    let kept = Kept { bundle: Evidence::of(bundle.clone()), ..Kept::new(world.contract()) };
    let contracts = BTreeMap::from([(kept.id, kept)]);
    let trust = trust(world, 100);
    let (verdicts, _) = judge(&contracts, &trust, &Storage::default(), world.at(offset));
    let upcoming = upcoming(&contracts, &verdicts, &trust, world.at(offset));
    upcoming.into_iter().map(|one| one.bytes).collect()
}

#[test]
fn what_is_agreed_on_and_paid_for_is_wanted_before_its_time() {
    let world = world();
    let agreed = world.agreed();
    assert_eq!(wanted_early(&world, &agreed, -100), [1]);
    assert_eq!(wanted_early(&world, &agreed, 100), [0; 0], "its time has come");
    let mut open = agreed.clone();
    open.approvals.clear();
    let mut unpaid = agreed.clone();
    unpaid.pools.clear();
    let mut without = agreed.clone();
    without.documents.clear();
    let header = world.header(1, None);
    let short = farm::Pool { expires: world.at(-50), ..world.pool() };
    let short = seal(&short, world.key("farm"));
    let header = Header { pool: short.id().unwrap(), ..header };
    let header = seal(&header, world.key("owner"));
    let over = Bundle {
        approvals: ["it", "legal"].map(|name| world.approve(name, &header)).to_vec(),
        headers: vec![header],
        pools: vec![short],
        ..agreed
    };
    for (bundle, why) in [(open, "quorum"), (unpaid, "pool"), (without, "document"), (over, "time")]
    {
        assert_eq!(wanted_early(&world, &bundle, -100), [0; 0], "{why}");
    }
    // Of a newer version, that one's.
    let edit = |header: &mut Header| {
        header.not_before = header.not_before.plus(500);
        header.flists[0].bytes = 2;
    };
    let updated = world.updated(edit, &["it", "legal"]);
    assert_eq!(wanted_early(&world, &updated, 100), [2]);
}

/// The files of contracts of next year would take all room from those of this week.
#[test]
fn only_what_comes_soon_is_wanted_early_and_the_soonest_first() {
    let world = world();
    let at = |start: Timestamp, now: Timestamp| {
        let mut contracts = BTreeMap::new();
        for n in 1..=4 {
            let world = World::new(world.now).with_contract(n);
            let edit = |header: &mut Header| {
                header.not_before = if n % 2 == 0 { start } else { start.plus(1) };
                header.flists[0].bytes = n.into();
            };
            let bundle = Evidence::of(world.updated(edit, &["it", "legal"]));
            let kept = Kept { bundle, ..Kept::new(world.contract()) };
            contracts.insert(kept.id, kept);
        }
        let trust = trust(&world, 100);
        let (verdicts, _) = judge(&contracts, &trust, &Storage::default(), now);
        let upcoming = upcoming(&contracts, &verdicts, &trust, now);
        upcoming.into_iter().map(|one| one.bytes % 2).collect::<Vec<_>>()
    };
    let start = world.at(900);
    assert_eq!(at(start, start.plus(-10)), [0, 0, 1, 1]);
    assert_eq!(at(start, start.plus(-AHEAD_S)), [0, 0], "the others a second later");
    assert_eq!(at(start, start.plus(-AHEAD_S - 1)), [0; 0]);
}

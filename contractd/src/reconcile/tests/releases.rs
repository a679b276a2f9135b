//! Who may begin with an flist that a publisher has to have signed.

use super::*;
use crate::plan::Haste;
use contract::{Release, header::Publisher};

const CONTRACT: ContractId = ContractId([3; 32]);
const FLIST: FlistId = FlistId([9; 32]);
const LAST: i64 = 1_800_000_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn demand(seed: u8, revision: u64) -> Publisher {
    Publisher { key: key(seed).public(), revision }
}

/// Revision 3 of publisher 1, until [`LAST`].
fn record(flist: FlistId, not_after: i64) -> Vec<u8> {
    let release = Release {
        flist,
        publisher: key(1).public(),
        name: "web".into(),
        revision: 3,
        not_after: Some(Timestamp::from_seconds(not_after)),
    };
    release.seal(&key(1)).unwrap()
}

fn allows(bench: &Bench, contract: ContractId, demanded: &Publisher, at: i64) -> bool {
    let at = Timestamp::from_seconds(at);
    bench.reconciler.releases.allow(contract, FLIST, Some(demanded), at)
}

#[test]
fn a_contract_begins_with_what_its_publisher_signed_until_its_last_second() {
    let mut bench = Bench::new();
    bench.reconciler.contracts.insert(CONTRACT, Kept::new(CONTRACT));
    let fits = demand(1, 3);
    assert!(!allows(&bench, CONTRACT, &fits, LAST), "nothing has come");
    bench.reconciler.take_release(CONTRACT, FLIST, &record(FLIST, LAST)).unwrap();
    for restarted in [false, true] {
        assert!(allows(&bench, CONTRACT, &fits, LAST));
        assert!(allows(&bench, CONTRACT, &demand(1, 1), LAST));
        assert!(!allows(&bench, CONTRACT, &fits, LAST + 1), "its time is over");
        assert!(!allows(&bench, CONTRACT, &demand(1, 4), LAST), "a later revision");
        assert!(!allows(&bench, CONTRACT, &demand(2, 3), LAST), "another publisher");
        assert!(!allows(&bench, ContractId([4; 32]), &fits, LAST), "another contract");
        let free =
            bench.reconciler.releases.allow(CONTRACT, FLIST, None, Timestamp::from_seconds(0));
        assert!(free, "one that demands nothing");
        if !restarted {
            bench = bench.restarted();
        }
    }
}

/// A power cut after the last day would have ended what everybody had agreed on.
#[test]
fn what_was_begun_goes_on_when_the_time_to_begin_is_over() {
    let mut bench = Bench::new();
    bench.reconciler.contracts.insert(CONTRACT, Kept::new(CONTRACT));
    let fits = demand(1, 3);
    bench.reconciler.take_release(CONTRACT, FLIST, &record(FLIST, LAST)).unwrap();
    bench.reconciler.note_begun(CONTRACT, FLIST).unwrap();
    for _ in 0..2 {
        assert!(allows(&bench, CONTRACT, &fits, LAST + 1));
        assert!(!allows(&bench, CONTRACT, &demand(1, 4), LAST + 1), "that is another demand");
        bench = bench.restarted();
    }
    // It counts for as long as its contract is known.
    bench.reconciler.contracts.clear();
    bench.reconciler.forget_releases().unwrap();
    assert!(!allows(&bench, CONTRACT, &fits, LAST));
    assert!(!allows(&bench.restarted(), CONTRACT, &fits, LAST));
}

#[test]
fn a_release_is_kept_for_contracts_that_are_known_and_as_it_was_signed() {
    let mut bench = Bench::new();
    let fits = demand(1, 3);
    bench.reconciler.take_release(CONTRACT, FLIST, &record(FLIST, LAST)).unwrap();
    assert!(!allows(&bench, CONTRACT, &fits, LAST), "nobody knows the contract");
    bench.reconciler.contracts.insert(CONTRACT, Kept::new(CONTRACT));
    bench.reconciler.take_release(CONTRACT, FLIST, b"junk").unwrap();
    bench.reconciler.take_release(CONTRACT, FLIST, &record(FlistId([8; 32]), LAST)).unwrap();
    assert!(!allows(&bench, CONTRACT, &fits, LAST), "it is of another flist");
    // Changed on the disk, it is as if it had never come.
    let good = record(FLIST, LAST);
    bench.reconciler.database.keep_release(&CONTRACT, &FLIST, &good, false).unwrap();
    bench = bench.restarted();
    assert!(allows(&bench, CONTRACT, &fits, LAST));
    let text = String::from_utf8(good).unwrap().replace("\"sig\":\"", "\"sig\":\"AAAA");
    bench.reconciler.database.keep_release(&CONTRACT, &FLIST, text.as_bytes(), true).unwrap();
    bench = bench.restarted();
    assert!(!allows(&bench, CONTRACT, &fits, LAST));
    assert!(bench.reconciler.database.releases().unwrap().is_empty(), "and is gone");
}

#[test]
fn a_release_that_is_signed_again_is_still_begun_with() {
    let mut bench = Bench::new();
    bench.reconciler.contracts.insert(CONTRACT, Kept::new(CONTRACT));
    let of = |seed, revision| Release {
        flist: FLIST,
        publisher: key(seed).public(),
        name: "web".into(),
        revision,
        not_after: Some(Timestamp::from_seconds(LAST)),
    };
    for (seed, revision, goes_on) in [(1, 3, true), (1, 4, true), (1, 2, false), (2, 3, false)] {
        bench.reconciler.take_release(CONTRACT, FLIST, &record(FLIST, LAST)).unwrap();
        bench.reconciler.note_begun(CONTRACT, FLIST).unwrap();
        let again = of(seed, revision).seal(&key(seed)).unwrap();
        bench.reconciler.take_release(CONTRACT, FLIST, &again).unwrap();
        bench = bench.restarted();
        bench.reconciler.contracts.insert(CONTRACT, Kept::new(CONTRACT));
        let demanded = demand(seed, revision);
        assert!(allows(&bench, CONTRACT, &demanded, LAST));
        assert_eq!(allows(&bench, CONTRACT, &demanded, LAST + 1), goes_on, "{seed} {revision}");
        bench.reconciler.contracts.clear();
        bench.reconciler.forget_releases().unwrap();
        bench.reconciler.contracts.insert(CONTRACT, Kept::new(CONTRACT));
    }
}

/// The gate is where a container starts, and not only where its files are looked for.
#[test]
fn a_start_needs_a_release_and_goes_on_after_its_end_only_when_it_was_begun() {
    let mut bench = Bench::new();
    bench.world = World::new(clock::now().unwrap());
    bench.hear(&bench.world.agreed());
    bench.judge(10);
    let mut wants = judge::wants(&bench.reconciler.verdicts);
    let Kind::Container { flist, publisher, .. } = &mut wants[0].kind else { panic!() };
    *publisher = Some(Box::new(demand(1, 3)));
    let (flist, want) = (*flist, wants[0].clone());
    let goes = |bench: &mut Bench| {
        bench.reconciler.runs.clear();
        bench.reconciler.start(&want, &Have::default()).unwrap();
        // No launcher answers here; that it was to start is written down.
        bench.reconciler.runs.contains_key(&want.id)
    };
    assert!(!goes(&mut bench), "nobody has signed it");
    let take = |bench: &mut Bench, end| {
        bench.reconciler.take_release(want.contract, flist, &record(flist, end)).unwrap();
    };
    // Its last second was in 1970.
    take(&mut bench, 1);
    assert!(!goes(&mut bench), "its time is over, and nobody has begun");
    take(&mut bench, i64::from(u32::MAX));
    assert!(goes(&mut bench));
    // As after that end, by a record that says less.
    take(&mut bench, 1);
    for _ in 0..2 {
        assert!(goes(&mut bench), "it was begun with");
        bench = bench.restarted();
    }
}

/// Another contract's files are there; that does not make them this publisher's.
#[test]
fn files_that_are_there_are_not_ready_before_the_release_is() {
    let mut bench = Bench::new();
    bench.hear(&bench.world.agreed());
    bench.judge(10);
    let mut wants = judge::wants(&bench.reconciler.verdicts);
    let Kind::Container { flist, publisher, .. } = &mut wants[0].kind else { panic!() };
    *publisher = Some(Box::new(demand(1, 3)));
    let (flist, contract, at) = (*flist, wants[0].contract, Timestamp::from_seconds(LAST));
    let (of, other) = ((contract, flist), (CONTRACT, flist));
    let this = &mut bench.reconciler;
    this.files.insert(other, Files::Ready);
    this.look_for_files(store::demands_of(&wants), at);
    assert_eq!(this.files.get(&of), None);
    // A fetch for the other contract has ended; it is the same as before.
    this.files.insert(of, Files::Fetching);
    this.take_fetched(CONTRACT, flist, Ok(()));
    this.look_for_files(store::demands_of(&wants), at);
    assert_eq!(this.files.get(&of), None);
    this.take_release(contract, flist, &record(flist, LAST)).unwrap();
    this.look_for_files(store::demands_of(&wants), at);
    assert_eq!(this.files.get(&of), Some(&Files::Ready));
    // Nobody has begun, and the time to begin is over.
    this.look_for_files(store::demands_of(&wants), at.plus(1));
    assert_eq!(this.files.get(&of), None);
}

/// The repair of what runs asked the publisher again, who let nobody begin any more.
#[test]
fn a_fetch_asks_for_a_release_that_is_not_there_and_for_no_other() {
    let mut bench = Bench::new();
    bench.reconciler.contracts.insert(CONTRACT, Kept::new(CONTRACT));
    let fetch = || Step::Fetch {
        contract: CONTRACT,
        flist: FLIST,
        urls: vec![],
        bytes: 1,
        publisher: Some(Box::new(demand(1, 3))),
        haste: Haste::Now,
    };
    let asked = |bench: &mut Bench| {
        bench.reconciler.apply(fetch(), &Have::default()).unwrap();
        match bench.orders.try_recv() {
            Ok(Order::Fetch(wanted)) => wanted.publisher.map(|one| *one),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(asked(&mut bench), Some(demand(1, 3)));
    // Its last second was in 1970.
    bench.reconciler.take_release(CONTRACT, FLIST, &record(FLIST, 1)).unwrap();
    assert_eq!(asked(&mut bench), Some(demand(1, 3)));
    bench.reconciler.note_begun(CONTRACT, FLIST).unwrap();
    assert_eq!(asked(&mut bench), None);
}

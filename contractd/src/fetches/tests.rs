//! Who fetches when, by a clock that only the tests move.

use super::*;

fn wanted(contract: u8, flist: u8) -> Wanted {
    let (contract, flist) = (ContractId([contract; 32]), FlistId([flist; 32]));
    let (urls, publisher, haste) = (vec![], None, Haste::Now);
    Wanted { contract, flist, urls, bytes: 1, publisher, repair: false, haste }
}

fn early(contract: u8, flist: u8) -> Wanted {
    Wanted { haste: Haste::Early, ..wanted(contract, flist) }
}

fn start(queue: &mut Queue, now: Instant) -> Vec<u8> {
    std::iter::from_fn(|| queue.start(now)).map(|(wanted, _)| wanted.flist.0[0]).collect()
}

fn told(contract: u8, outcome: Outcome) -> (ContractId, Outcome) {
    (ContractId([contract; 32]), outcome)
}

/// Ends every fetch that was told to stop, as the fetches do.
fn stopped(queue: &mut Queue) -> Vec<u8> {
    let cancelled = queue.running.iter().filter(|(_, one)| one.cancel.is_cancelled());
    let flists: Vec<FlistId> = cancelled.map(|(flist, _)| *flist).collect();
    for flist in &flists {
        assert_eq!(queue.end(*flist, Err(("cancelled", String::new()))), None);
    }
    flists.iter().map(|flist| flist.0[0]).collect()
}

/// Two servers that dripped held both places, and the third fetch got nothing for an hour.
#[test]
fn who_waits_gets_the_place_of_a_fetch_whose_slice_is_over() {
    let (mut queue, begin) = (Queue::default(), Instant::now());
    for n in [1, 2] {
        queue.want(wanted(n, n));
    }
    assert_eq!(start(&mut queue, begin), [1, 2]);
    // While nobody waits, slow is as good as fast.
    queue.give_way(begin + SLICE * 100);
    assert_eq!(stopped(&mut queue), [0; 0]);
    queue.want(wanted(3, 3));
    assert_eq!(start(&mut queue, begin), [0; 0]);
    queue.give_way(begin + SLICE / 2);
    assert_eq!(stopped(&mut queue), [0; 0]);
    queue.give_way(begin + SLICE);
    assert_eq!(stopped(&mut queue), [1], "one for the one that waits");
    let later = begin + SLICE;
    assert_eq!(start(&mut queue, later), [3]);
    assert_eq!(queue.end(FlistId([3; 32]), Ok(())), Some(told(3, Ok(()))));
    assert_eq!(start(&mut queue, later), [1], "it goes on");
}

#[test]
fn a_slow_line_gets_longer_slices_among_its_like() {
    let (mut queue, mut now) = (Queue::default(), Instant::now());
    for n in [1, 2, 3, 4] {
        queue.want(wanted(n, n));
    }
    assert_eq!(start(&mut queue, now), [1, 2]);
    for _ in 0..2 {
        now += SLICE;
        queue.give_way(now);
        assert_eq!(stopped(&mut queue).len(), 2);
        assert_eq!(start(&mut queue, now).len(), 2);
    }
    // All had a slice.
    now += SLICE;
    queue.give_way(now);
    assert_eq!(stopped(&mut queue), [0; 0]);
    now += SLICE;
    queue.give_way(now);
    assert_eq!(stopped(&mut queue), [1, 2]);
    assert_eq!(start(&mut queue, now), [3, 4]);
    // A new one does not wait for long slices.
    queue.want(wanted(5, 5));
    now += SLICE;
    queue.give_way(now);
    assert!(!stopped(&mut queue).is_empty());
    assert_eq!(start(&mut queue, now)[0], 5);
}

#[test]
fn a_contract_with_many_flists_is_no_more_than_one() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    for flist in 1..=100 {
        queue.want(wanted(1, flist));
    }
    assert_eq!(start(&mut queue, now), [1, 2]);
    queue.want(wanted(2, 200));
    assert_eq!(queue.end(FlistId([1; 32]), Ok(())), Some(told(1, Ok(()))));
    assert_eq!(start(&mut queue, now), [200]);
}

#[test]
fn what_nobody_wants_is_stopped_and_not_told_of() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    for n in [1, 2, 3] {
        queue.want(wanted(n, n));
        queue.want(wanted(n, n));
    }
    assert_eq!(start(&mut queue, now), [1, 2]);
    for n in [1, 3] {
        queue.forget(ContractId([n; 32]), FlistId([n; 32]));
    }
    // Wanted again while it still ends: it begins again after that.
    queue.want(wanted(1, 1));
    assert_eq!(stopped(&mut queue), [1]);
    assert_eq!(start(&mut queue, now), [1]);
    assert!(queue.waiting.is_empty());
    let failed = Err(("content_missing", "it is not there".to_owned()));
    assert_eq!(queue.end(FlistId([2; 32]), failed.clone()), Some(told(2, failed)));
}

/// A contract of a stranger with the same flist, whose server was gone, kept it from ever being fetched.
#[test]
fn a_contract_whose_server_fails_keeps_no_other_from_the_same_flist() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let flist = FlistId([9; 32]);
    let begin = |queue: &mut Queue| {
        std::iter::from_fn(|| queue.start(now))
            .map(|(wanted, _)| wanted.contract.0[0])
            .collect::<Vec<u8>>()
    };
    for contract in [1, 2, 3, 1] {
        queue.want(wanted(contract, 9));
    }
    assert_eq!(begin(&mut queue), [1], "one at a time");
    let failed = Err(("source_unreachable", "nobody answers".to_owned()));
    assert_eq!(queue.end(flist, failed.clone()), Some(told(1, failed.clone())));
    assert_eq!(begin(&mut queue), [2]);
    queue.want(wanted(1, 9));
    assert_eq!(queue.end(flist, failed.clone()), Some(told(2, failed)));
    assert_eq!(begin(&mut queue), [3], "who failed before comes later");
    assert_eq!(queue.end(flist, Ok(())), Some(told(3, Ok(()))));
    assert!(queue.waiting.is_empty(), "it is there for all");
}

/// Nor one whose server drips, although another place is free all the time.
#[test]
fn a_contract_whose_server_drips_gives_way_to_another_that_wants_the_same_flist() {
    let (mut queue, begin) = (Queue::default(), Instant::now());
    queue.want(wanted(1, 9));
    assert_eq!(start(&mut queue, begin), [9]);
    queue.want(wanted(2, 9));
    queue.give_way(begin + SLICE / 2);
    assert_eq!(stopped(&mut queue), [0; 0]);
    queue.give_way(begin + SLICE);
    assert_eq!(stopped(&mut queue), [9]);
    let (next, _) = queue.start(begin + SLICE).unwrap();
    assert_eq!(next.contract, ContractId([2; 32]));
    // The one that waits is forgotten, not the one that runs.
    queue.forget(ContractId([1; 32]), FlistId([9; 32]));
    assert!(queue.waiting.is_empty() && !queue.running[&next.flist].forgotten);
    assert_eq!(queue.end(next.flist, Ok(())), Some(told(2, Ok(()))));
}

/// A fetch went on asking for the release of the publisher of an earlier version.
#[test]
fn who_is_asked_for_a_release_follows_what_is_demanded() {
    let by = |seed: u8| {
        let key = contract::SigningKey::from_seed(&[seed; 32]).public();
        Wanted { publisher: Some(Box::new(Publisher { key, revision: 1 })), ..wanted(1, 1) }
    };
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.want(by(1));
    queue.want(by(2));
    let (first, cancel) = queue.start(now).unwrap();
    assert_eq!(first, by(2), "it had not begun");
    queue.want(by(2));
    assert!(!cancel.is_cancelled(), "the same again");
    queue.want(by(3));
    assert!(cancel.is_cancelled());
    assert_eq!(start(&mut queue, now), [0; 0]);
    assert_eq!(queue.end(FlistId([1; 32]), Err(("cancelled", String::new()))), None);
    assert_eq!(queue.start(now).map(|(wanted, _)| wanted), Some(by(3)));
}

/// Files of contracts of next year kept one waiting that was to run at once.
#[test]
fn what_may_run_comes_before_what_may_run_later() {
    let (mut queue, begin) = (Queue::default(), Instant::now());
    for n in [1, 2] {
        queue.want(early(n, n));
    }
    assert_eq!(start(&mut queue, begin), [1], "one place stays free");
    queue.want(wanted(3, 3));
    queue.give_way(begin);
    assert_eq!(stopped(&mut queue), [0; 0], "there is a place");
    assert_eq!(start(&mut queue, begin), [3]);
    queue.want(wanted(4, 4));
    queue.give_way(begin);
    assert_eq!(stopped(&mut queue), [1], "no slice");
    assert_eq!(start(&mut queue, begin), [4]);
    // However long they take.
    queue.give_way(begin + SLICE * 1000);
    assert_eq!(stopped(&mut queue), [0; 0]);
    for flist in [3, 4] {
        assert!(queue.end(FlistId([flist; 32]), Ok(())).is_some());
    }
    // Among themselves they take turns.
    assert_eq!(start(&mut queue, begin), [2]);
    queue.give_way(begin + SLICE / 2);
    assert_eq!(stopped(&mut queue), [0; 0]);
    queue.give_way(begin + SLICE);
    assert_eq!(stopped(&mut queue), [2]);
    assert_eq!(start(&mut queue, begin), [1]);
}

#[test]
fn what_was_early_goes_on_as_what_is_needed_now() {
    let (mut queue, begin) = (Queue::default(), Instant::now());
    for n in [1, 2] {
        queue.want(early(n, n));
    }
    assert_eq!(start(&mut queue, begin), [1]);
    for n in [1, 2] {
        queue.want(wanted(n, n));
    }
    // It leaves no room any more, and stages what it has.
    assert_eq!(start(&mut queue, begin), [2]);
    assert_eq!(stopped(&mut queue), [1]);
    assert_eq!(start(&mut queue, begin), [1]);
    queue.want(wanted(3, 3));
    queue.give_way(begin);
    assert_eq!(stopped(&mut queue), [0; 0], "both have their slice");
}

/// A new version named another place, or the files were found bad, and the fetch went on as it was.
#[test]
fn a_fetch_is_made_as_it_was_wanted_last() {
    let begin = Instant::now();
    let rows = [
        ("as before", wanted(1, 1)),
        ("read", Wanted { repair: true, ..wanted(1, 1) }),
        ("elsewhere", Wanted { urls: vec!["http://b".into()], ..wanted(1, 1) }),
        ("larger", Wanted { bytes: 2, ..wanted(1, 1) }),
    ];
    for (n, (what, next)) in rows.into_iter().enumerate() {
        let mut queue = Queue::default();
        queue.want(wanted(1, 1));
        queue.want(next.clone());
        assert_eq!(queue.waiting.len(), 1, "{what}");
        assert_eq!(queue.start(begin).unwrap().0, next, "{what}");

        let mut queue = Queue::default();
        queue.want(wanted(1, 1));
        let (_, cancel) = queue.start(begin).unwrap();
        queue.want(next.clone());
        assert_eq!(cancel.is_cancelled(), n > 0, "{what}");
        // Also when it is done just now: what it did was not what is wanted.
        let told = queue.end(next.flist, Ok(()));
        assert_eq!(told.is_some(), n == 0, "{what}");
        assert_eq!(queue.start(begin).map(|(wanted, _)| wanted), (n > 0).then_some(next));
    }
}

/// The store had promised its room to what is needed now.
#[test]
fn an_early_fetch_that_is_stopped_by_the_store_goes_on_later() {
    let (mut queue, begin) = (Queue::default(), Instant::now());
    queue.want(early(1, 1));
    let (_, cancel) = queue.start(begin).unwrap();
    cancel.cancel();
    assert_eq!(queue.end(FlistId([1; 32]), Err(("cancelled", String::new()))), None);
    assert_eq!(start(&mut queue, begin), [1]);
}

/// A contract of next year with a slow server held up one that wants the same flist at once.
#[test]
fn the_same_flist_is_fetched_from_where_it_is_needed_now() {
    let (mut queue, begin) = (Queue::default(), Instant::now());
    queue.want(early(1, 9));
    assert_eq!(start(&mut queue, begin), [9]);
    queue.want(wanted(2, 9));
    queue.give_way(begin);
    assert_eq!(stopped(&mut queue), [9]);
    let (next, _) = queue.start(begin).unwrap();
    assert_eq!(next.contract, ContractId([2; 32]));
    queue.give_way(begin + SLICE * 1000);
    assert_eq!(stopped(&mut queue), [0; 0]);
}

#[test]
fn an_flist_is_known_while_anybody_wants_it() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let flist = FlistId([9; 32]);
    queue.want(wanted(1, 9));
    queue.want(wanted(2, 9));
    assert_eq!(start(&mut queue, now), [9]);
    queue.forget(ContractId([1; 32]), flist);
    assert_eq!(stopped(&mut queue), [9]);
    assert!(queue.knows(&flist), "the other does");
    queue.forget(ContractId([2; 32]), flist);
    assert!(!queue.knows(&flist));
}

//! Who waits for the files of an flist, and why.

use super::*;

#[test]
fn a_fetch_ends_when_its_contract_does_not_want_the_flist_any_more() {
    let mut bench = Bench::new();
    bench.hear(&bench.world.agreed());
    bench.judge(10);
    let wants = judge::wants(&bench.reconciler.verdicts);
    let Kind::Container { flist, .. } = wants[0].kind else { panic!("{wants:?}") };
    let (of, other) = ((wants[0].contract, flist), (ContractId([1; 32]), flist));
    bench.reconciler.files.insert(of, Files::Fetching);
    bench.reconciler.files.insert(other, Files::Fetching);
    bench.reconciler.forget_fetches(&store::flists_of(&wants).collect());
    let told = bench.orders.try_recv();
    assert!(matches!(told, Ok(Order::Forget(one, id)) if (one, id) == other));
    assert!(bench.orders.try_recv().is_err());
    bench.reconciler.forget_fetches(&BTreeSet::new());
    assert!(matches!(bench.orders.try_recv(), Ok(Order::Forget(one, id)) if (one, id) == of));
    assert!(bench.reconciler.files.is_empty());
}

/// A container went on to run from a file whose disk had lost it; so did one of which nobody knew what
/// the kernel had measured.
#[test]
fn what_runs_from_damaged_files_is_to_be_stopped_and_they_are_wanted_again() {
    let mut bench = Bench::new();
    let this = &mut bench.reconciler;
    let (bad, good) = (FlistId([9; 32]), FlistId([8; 32]));
    let run = |phase: Phase, flist| Run {
        boot: "boot".into(),
        revision: "r1".into(),
        flist: Some(flist),
        phase,
        delay_ms: None,
        stop: Stop { signal: 15, grace_ms: 1 },
        restart: contract::workload::Restart::Always,
        volumes: None,
        passed: true,
        ran: None,
        strains: crate::strain::Strains::default(),
        announced: None,
    };
    let up = || Phase::Up { since_ms: 1 };
    let (code, message) = ("exited".to_owned(), "by signal 7".to_owned());
    let waiting = Phase::Waiting { until_ms: 1, code, message };
    for (id, phase, flist) in [("a", up(), bad), ("b", up(), good), ("c", waiting, bad)] {
        this.runs.insert(id.to_owned(), run(phase, flist));
    }
    let [one, other] = [1, 2].map(|n| ContractId([n; 32]));
    let failed = Files::Failed { until_ms: 7, code: "source_unreachable", message: String::new() };
    let files = [((one, bad), Files::Ready), ((other, bad), failed), ((one, good), Files::Ready)];
    this.files = files.into();
    // The store tells of a list of files that is not one.
    let record = bench.directory.path().join(format!("store/images/{bad}.flist"));
    std::fs::write(record, "junk").unwrap();
    this.store.scrub_one(bad, &mut |_| {});
    let at = Timestamp::from_seconds(1_800_000_000);
    this.look_at_store(Now { at, worth: Worth::Confirmed }, 1).unwrap();
    let left: Vec<_> = this.files.keys().copied().collect();
    assert_eq!(left, [(one, good), (other, bad)], "one that failed waits for its time");
    assert!(this.damaged.contains(&bad));
    let Phase::Waiting { code, message, .. } = &this.runs["c"].phase else { panic!() };
    let said = "not as it was signed, on the node: the list of files cannot be read; before that, \
                exited: by signal 7";
    assert_eq!((code.as_str(), message.as_str()), ("store_damaged", said));
    assert!(this.database.runs().unwrap()["c"].contains("store_damaged"), "written down");
    let faults = |this: &mut Reconciler| {
        let running = |id: &str| (id.to_owned(), init::ProcessState::Running);
        let processes = ["a", "b"].into_iter().map(running).collect();
        let mut have = Have { processes, ..Have::default() };
        this.note_risen(&have).unwrap();
        this.look_at_health(&[], &mut have).unwrap();
        have.faults.into_iter().map(|(id, (cause, _))| (id, cause.code())).collect::<Vec<_>>()
    };
    assert_eq!(faults(this), [("a".to_owned(), "store_damaged")]);
    // It is stopping; the same fault is none of what starts in its place.
    this.runs.get_mut("a").unwrap().phase = Phase::Stopping { kill_at_ms: 1, fault: None };
    assert_eq!(faults(this), []);
    this.runs.get_mut("a").unwrap().phase = up();
    assert_eq!(faults(this), []);
    // Its start had been given up on, and it has the bad file open.
    let run = this.runs.remove("c").unwrap();
    this.runs.insert("a".to_owned(), run);
    assert_eq!(faults(this), [("a".to_owned(), "store_damaged")]);
}

/// What one reading says stops nobody: the store is asked to read it again.
#[test]
fn files_that_do_not_measure_right_are_not_used_and_read_before_anything_is_stopped() {
    let mut bench = Bench::new();
    bench.hear(&bench.world.agreed());
    bench.judge(10);
    let wants = judge::wants(&bench.reconciler.verdicts);
    let Kind::Container { flist, .. } = wants[0].kind else { panic!("{wants:?}") };
    let record = bench.directory.path().join(format!("store/images/{flist}.flist"));
    std::fs::write(record, "junk").unwrap();
    let this = &mut bench.reconciler;
    this.look_for_files(store::demands_of(&wants), Timestamp::from_seconds(1));
    assert!(this.damaged.contains(&flist) && this.files.is_empty() && this.spoilt.is_empty());
    assert_eq!(this.rounds.next(1, 0), [], "nothing runs from it");
    this.damaged.clear();
    let run = Run {
        boot: "boot".into(),
        revision: "r1".into(),
        flist: Some(flist),
        phase: Phase::Up { since_ms: 1 },
        delay_ms: None,
        stop: Stop { signal: 15, grace_ms: 1 },
        restart: contract::workload::Restart::Always,
        volumes: None,
        passed: true,
        ran: None,
        strains: crate::strain::Strains::default(),
        announced: None,
    };
    this.runs.insert(wants[0].id.clone(), run);
    this.look_for_files(store::demands_of(&wants), Timestamp::from_seconds(1));
    assert!(this.spoilt.is_empty());
    assert_eq!(this.rounds.next(1, 0), [crate::rounds::Look::One(flist)]);
}

/// Whose server is gone waits alone, and is helped by whoever has another.
#[test]
fn a_failed_fetch_is_one_contracts_and_files_that_are_there_are_everybodys() {
    let mut bench = Bench::new();
    let this = &mut bench.reconciler;
    let flist = FlistId([9; 32]);
    let [one, other] = [1, 2].map(|n| ContractId([n; 32]));
    this.files.insert((one, flist), Files::Fetching);
    this.files.insert((other, flist), Files::Fetching);
    this.take_fetched(one, flist, Err(("source_unreachable", "nobody answers".to_owned())));
    assert!(matches!(this.files[&(one, flist)], Files::Failed { .. }));
    assert_eq!(this.files[&(other, flist)], Files::Fetching);
    this.take_fetched(other, flist, Ok(()));
    assert_eq!(
        [one, other].map(|of| this.files[&(of, flist)].clone()),
        [Files::Ready, Files::Ready]
    );
    assert!(this.unfetched.is_empty());
}

/// The machine has been up for a while.
const UP_MS: u64 = 1_000_000;

fn scrub_order(bench: &Bench, offset: i64, key: &SigningKey) -> registry_api::view::Ordered {
    let order = seal(&bench.world.scrub(offset), key);
    registry_api::view::Ordered { order, farm: bench.world.identity("farm") }
}

/// The thread has read everything.
fn was_read(bench: &mut Bench, outcome: crate::rounds::Outcome) {
    let (sender, ended) = std::sync::mpsc::channel();
    sender.send((crate::rounds::Look::All, outcome)).unwrap();
    bench.reconciler.scrubs.ended = ended;
}

/// One look at the store, so many seconds after the machine has settled.
fn look(bench: &mut Bench, seconds: i64) {
    let now = Now { at: bench.world.at(seconds), worth: Worth::Confirmed };
    let now_ms = UP_MS + u64::try_from(seconds).unwrap() * 1000;
    bench.reconciler.look_at_store(now, now_ms).unwrap();
}

fn scrub_outcome(bench: &Bench) -> Option<contract::scrub::Outcome> {
    bench.reconciler.scrubbed().map(|said| said.outcome)
}

/// The node was killed right after it had taken the order, and right after it had read everything.
#[test]
fn an_order_to_read_the_store_survives_a_restart_and_is_done_once() {
    use crate::rounds::{Look, Outcome};
    use contract::scrub;
    let mut bench = Bench::new();
    let ordered = scrub_order(&bench, 0, bench.world.key("farm"));
    bench.reconciler.take_ordered(Some(&ordered));
    assert_eq!(bench.reconciler.scrubbed(), None, "nobody has looked yet");
    look(&mut bench, 1);
    let at = bench.world.at(1);
    assert_eq!(scrub_outcome(&bench), Some(scrub::Outcome::Heard { at }));

    let mut bench = bench.restarted();
    bench.reconciler.take_ordered(Some(&ordered));
    look(&mut bench, 2);
    was_read(&mut bench, Outcome { files: 5, bad: 1, ..Outcome::default() });
    look(&mut bench, 3);

    let mut bench = bench.restarted();
    bench.reconciler.take_ordered(Some(&ordered));
    let looks = bench.reconciler.rounds.next(UP_MS + 4000, 0);
    assert!(!looks.contains(&Look::All), "it is not read again");
    look(&mut bench, 5);
    assert!(matches!(scrub_outcome(&bench), Some(scrub::Outcome::Done { files: 5, bad: 1, .. })));
}

/// The next order took the place of what had become of the last one before anybody could see it.
#[test]
fn an_order_waits_while_what_was_read_rests() {
    use contract::scrub::Outcome;
    let mut bench = Bench::new();
    for offset in [0, 1] {
        let ordered = scrub_order(&bench, offset, bench.world.key("farm"));
        bench.reconciler.take_ordered(Some(&ordered));
        look(&mut bench, 2 + offset);
        assert!(matches!(scrub_outcome(&bench), Some(Outcome::Heard { .. })));
    }
    was_read(&mut bench, crate::rounds::Outcome::default());
    for seconds in [4, 603] {
        look(&mut bench, seconds);
        assert!(matches!(scrub_outcome(&bench), Some(Outcome::Done { .. })), "{seconds}");
    }
    look(&mut bench, 604);
    assert!(matches!(scrub_outcome(&bench), Some(Outcome::Heard { .. })));
    let second = scrub_order(&bench, 1, bench.world.key("farm")).order.id().unwrap();
    assert_eq!(bench.reconciler.scrubbed().unwrap().order, second);
}

/// In the turn in which it was found, nothing had been fetched yet.
#[test]
fn what_was_found_bad_is_not_back_before_it_was_fetched() {
    use contract::scrub::Outcome;
    let mut bench = Bench::new();
    let (bad, of) = (FlistId([9; 32]), ContractId([1; 32]));
    let ordered = scrub_order(&bench, 0, bench.world.key("farm"));
    bench.reconciler.take_ordered(Some(&ordered));
    look(&mut bench, 1);
    bench.reconciler.files.insert((of, bad), Files::Ready);
    let record = bench.directory.path().join(format!("store/images/{bad}.flist"));
    std::fs::write(record, "junk").unwrap();
    bench.reconciler.store.scrub_one(bad, &mut |_| {});
    let damaged = [bad].into();
    was_read(&mut bench, crate::rounds::Outcome { bad: 1, damaged, ..Default::default() });
    let told = |bench: &Bench| match scrub_outcome(bench) {
        Some(Outcome::Done { damaged, repaired, .. }) => (damaged, repaired),
        other => panic!("{other:?}"),
    };
    look(&mut bench, 2);
    assert_eq!(told(&bench), (vec![bad], vec![]));
    bench.reconciler.take_fetched(of, bad, Ok(()));
    look(&mut bench, 3);
    assert_eq!(told(&bench), (vec![], vec![bad]));
}

#[test]
fn what_is_no_order_is_complained_about_until_there_is_none_or_one_that_is() {
    let mut bench = Bench::new();
    let about =
        |bench: &Bench, what: &str| bench.reconciler.complaints().any(|(name, _)| name == what);
    let by_token = scrub_order(&bench, 9, &bench.world.token);
    let sound = scrub_order(&bench, 9, bench.world.key("farm"));
    for cure in [None, Some(&sound)] {
        bench.reconciler.take_ordered(Some(&by_token));
        assert!(about(&bench, "scrub order"));
        bench.reconciler.take_ordered(cure);
        assert!(!about(&bench, "scrub order"));
    }
    // One that is ahead of the clock waits, and says why.
    let ahead = scrub_order(&bench, 1000, bench.world.key("farm"));
    bench.reconciler.take_ordered(Some(&ahead));
    look(&mut bench, 0);
    assert!(about(&bench, "scrub time"));
    look(&mut bench, 1000);
    assert!(!about(&bench, "scrub time") && bench.reconciler.scrubbed().is_some());
}

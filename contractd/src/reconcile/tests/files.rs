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
    this.look_at_store(Timestamp::from_seconds(1_800_000_000), 1).unwrap();
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

//! Each test is one look at the node and what follows from it.

use super::*;
use contract::workload;

const FLIST: FlistId = FlistId([1; 32]);
const NEW_FLIST: FlistId = FlistId([2; 32]);
const CONTRACT: ContractId = ContractId([3; 32]);
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(100, 127, 0, 2));

fn want(name: &str, flist: FlistId, revision: &str) -> Want {
    let container = Container {
        flist: "web".into(),
        command: vec![],
        env: vec![],
        cwd: None,
        user: None,
        cpu_milli: 100,
        memory_bytes: 1 << 24,
        pids_max: 10,
        mounts: vec![],
        ports: vec![],
        stop: workload::Stop { signal: 15, grace_s: 5 },
        health: None,
        logs: vec![],
        stats: vec![],
        restart: Restart::Always,
        disk: None,
    };
    Want {
        id: workload_id(&CONTRACT, name),
        contract: CONTRACT,
        name: name.into(),
        needs: vec![],
        kind: Kind::Container {
            container: Box::new(container),
            flist,
            urls: vec!["http://a".into()],
            bytes: 7,
            publisher: None,
            revision: revision.into(),
            volumes: vec![],
        },
    }
}

fn run(revision: &str, phase: Phase) -> Run {
    Run {
        boot: "boot".into(),
        revision: revision.into(),
        flist: Some(FLIST),
        phase,
        delay_ms: None,
        stop: Stop { signal: 15, grace_ms: 5000 },
        restart: Restart::Always,
        volumes: None,
        passed: true,
        ran: None,
        strains: Strains::default(),
        announced: None,
    }
}

fn have() -> Have {
    Have { now_ms: 100_000, ..Have::default() }
}

fn check(wants: &[Want], have: &Have) -> Vec<Step> {
    plan(wants, have, &BTreeMap::new())
}

#[test]
fn files_come_before_the_start() {
    let wants = [want("web", FLIST, "r1")];
    let (urls, haste) = (vec!["http://a".into()], Haste::Now);
    let (contract, publisher) = (CONTRACT, None);
    let fetch = Step::Fetch { contract, flist: FLIST, urls, bytes: 7, publisher, haste };
    assert_eq!(check(&wants, &have()), std::slice::from_ref(&fetch));

    let mut fetching = have();
    fetching.flists.insert((CONTRACT, FLIST), Files::Fetching);
    assert_eq!(check(&wants, &fetching), []);

    let failed = |until_ms| {
        let mut have = have();
        let files = Files::Failed { until_ms, code: "x", message: "y".into() };
        have.flists.insert((CONTRACT, FLIST), files);
        have
    };
    assert_eq!(check(&wants, &failed(100_001)), []);
    assert_eq!(check(&wants, &failed(100_000)), [fetch]);

    let mut ready = have();
    ready.flists.insert((CONTRACT, FLIST), Files::Ready);
    assert_eq!(check(&wants, &ready), [Step::Start { want: wants[0].clone() }]);
}

#[test]
fn what_runs_as_wanted_is_left_alone() {
    let wants = [want("web", FLIST, "r1")];
    let mut have = have();
    have.processes.insert(wants[0].id.clone(), ProcessState::Running);
    have.runs.insert(wants[0].id.clone(), run("r1", Phase::Up { since_ms: 1 }));
    have.attachments.insert(wants[0].id.clone(), ADDRESS);
    assert_eq!(check(&wants, &have), []);
}

#[test]
fn an_ended_process_is_reaped_and_waits_before_it_starts_again() {
    let wants = [want("web", FLIST, "r1")];
    let id = wants[0].id.clone();
    let mut have = have();
    have.flists.insert((CONTRACT, FLIST), Files::Ready);
    have.processes.insert(id.clone(), ProcessState::Exited(1));
    have.runs.insert(id.clone(), run("r1", Phase::Up { since_ms: 1 }));
    let reap = Step::Reap { id: id.clone(), state: ProcessState::Exited(1), wanted: true };
    assert_eq!(check(&wants, &have), [reap]);

    have.processes.clear();
    let waiting =
        |until_ms| Phase::Waiting { until_ms, code: "exited".into(), message: String::new() };
    have.runs.insert(id.clone(), run("r1", waiting(100_001)));
    assert_eq!(check(&wants, &have), []);
    have.runs.insert(id, run("r1", waiting(100_000)));
    assert_eq!(check(&wants, &have), [Step::Start { want: wants[0].clone() }]);
}

#[test]
fn an_update_fetches_first_then_stops_then_starts() {
    let wants = [want("web", NEW_FLIST, "r2")];
    let id = wants[0].id.clone();
    let mut have = have();
    have.flists.insert((CONTRACT, FLIST), Files::Ready);
    have.processes.insert(id.clone(), ProcessState::Running);
    have.runs.insert(id.clone(), run("r1", Phase::Up { since_ms: 1 }));
    assert!(matches!(check(&wants, &have)[..], [Step::Fetch { flist: NEW_FLIST, .. }]));

    have.flists.insert(
        (CONTRACT, NEW_FLIST),
        Files::Failed { until_ms: 999_999, code: "x", message: String::new() },
    );
    assert_eq!(check(&wants, &have), [], "the old version goes on");

    have.flists.insert((CONTRACT, NEW_FLIST), Files::Ready);
    let signal = Step::Signal { id: id.clone(), signal: 15, kill_at_ms: 105_000, fault: None };
    assert_eq!(check(&wants, &have), [signal]);

    have.runs.insert(id.clone(), run("r1", Phase::Stopping { kill_at_ms: 105_000, fault: None }));
    assert_eq!(check(&wants, &have), [], "it has time to end");
    have.now_ms = 105_000;
    assert_eq!(check(&wants, &have), [Step::Kill { id: id.clone() }]);

    have.processes.clear();
    have.runs.clear();
    assert_eq!(check(&wants, &have), [Step::Start { want: wants[0].clone() }]);
}

#[test]
fn what_is_no_longer_wanted_is_stopped_and_detached_and_its_data_kept() {
    let id = workload_id(&CONTRACT, "web");
    let mut have = have();
    have.processes.insert(id.clone(), ProcessState::Running);
    have.attachments.insert(id.clone(), ADDRESS);
    have.volumes.insert(workload_id(&CONTRACT, "data"), 1);
    let signal = Step::Signal { id: id.clone(), signal: 15, kill_at_ms: 110_000, fault: None };
    assert_eq!(check(&[], &have), [signal]);

    have.processes.insert(id.clone(), ProcessState::Killed(9));
    let reap = Step::Reap { id: id.clone(), state: ProcessState::Killed(9), wanted: false };
    assert_eq!(check(&[], &have), [reap]);

    have.processes.clear();
    assert_eq!(check(&[], &have), [Step::Detach { id }]);
    have.attachments.clear();
    assert_eq!(check(&[], &have), []);
}

#[test]
fn data_is_deleted_on_a_signed_order_only_and_of_that_contract_only() {
    let (ours, other) = (workload_id(&CONTRACT, "data"), workload_id(&ContractId([4; 32]), "data"));
    let mut have = have();
    have.volumes.insert(ours.clone(), 1);
    have.volumes.insert(other, 1);
    let order = StatementId([5; 32]);
    let wipe = BTreeMap::from([(CONTRACT, order)]);
    assert_eq!(plan(&[], &have, &BTreeMap::new()), []);
    assert_eq!(plan(&[], &have, &wipe), [Step::DeleteVolume { id: ours, order }]);
    // Not under the feet of a process.
    have.processes.insert(workload_id(&CONTRACT, "web"), ProcessState::Running);
    assert!(matches!(plan(&[], &have, &wipe)[..], [Step::Signal { .. }]));
}

#[test]
fn a_container_waits_for_what_it_needs() {
    let mut web = want("web", FLIST, "r1");
    let data = Want {
        id: workload_id(&CONTRACT, "data"),
        contract: CONTRACT,
        name: "data".into(),
        needs: vec![],
        kind: Kind::Volume { size_bytes: 10, class: Medium::Ssd },
    };
    web.needs.push(data.id.clone());
    let wants = [data.clone(), web.clone()];
    let mut have = have();
    have.flists.insert((CONTRACT, FLIST), Files::Ready);
    let ensure = Step::EnsureVolume { id: data.id.clone(), size_bytes: 10, class: Medium::Ssd };
    assert_eq!(check(&wants, &have), std::slice::from_ref(&ensure));
    have.volumes.insert(data.id.clone(), 5);
    assert_eq!(check(&wants, &have), [ensure, Step::Start { want: web.clone() }]);
    have.volumes.insert(data.id, 10);
    assert_eq!(check(&wants, &have), [Step::Start { want: web }]);
}

/// contractd was killed between the launcher's answer and its note, and restarted a healthy container.
#[test]
fn a_container_whose_start_was_only_announced_is_found_again_or_started_again() {
    let wants = [want("web", FLIST, "r1")];
    let Kind::Container { container, .. } = &wants[0].kind else { panic!("a container") };
    let run = intent("boot", "r1", (container, FLIST, &[]), None, 99_000);
    let mut have = have();
    have.flists.insert((CONTRACT, FLIST), Files::Ready);
    have.runs.insert(wants[0].id.clone(), run.clone());
    assert_eq!(check(&wants, &have), [Step::Start { want: wants[0].clone() }]);
    have.processes.insert(wants[0].id.clone(), ProcessState::Running);
    assert_eq!(check(&wants, &have), []);
    // Another revision is another identity.
    have.runs.insert(wants[0].id.clone(), Run { revision: "r0".into(), ..run });
    assert!(matches!(check(&wants, &have)[..], [Step::Signal { .. }]));
}

/// A container with an overlay on this volume, and another volume.
fn want_overlay(name: &str, revision: &str, volume: &str) -> Want {
    let mut want = want(name, FLIST, revision);
    if let Kind::Container { container, volumes, .. } = &mut want.kind {
        for (path, source) in [
            ("/etc", MountSource::Overlay(volume.into())),
            ("/srv", MountSource::Volume("plain".into())),
        ] {
            container.mounts.push(workload::Mount { path: path.into(), source });
        }
        volumes.extend([volume, "plain"].map(|name| (name.into(), workload_id(&CONTRACT, name))));
    }
    want
}

fn run_with(volumes: &[&str], phase: Phase) -> Run {
    let volumes = volumes.iter().map(|name| workload_id(&CONTRACT, name)).collect();
    Run { volumes: Some(volumes), ..run("r1", phase) }
}

#[test]
fn overlays_wait_until_nothing_of_an_earlier_version_runs_that_may_write_there() {
    // What was `old` is `new` in the next version, with the same volume.
    let old = workload_id(&CONTRACT, "old");
    let new = want_overlay("new", "r2", "data");
    let start = [Step::Start { want: new.clone() }];
    let stopping = || Phase::Stopping { kill_at_ms: 100_001, fault: None };
    let mut have = have();
    have.flists.insert((CONTRACT, FLIST), Files::Ready);
    have.processes.insert(old.clone(), ProcessState::Running);
    let mut check_with = |run: Option<Run>| {
        have.runs.remove(&old);
        have.runs.extend(run.map(|run| (old.clone(), run)));
        let steps = check(std::slice::from_ref(&new), &have);
        steps.into_iter().filter(|step| matches!(step, Step::Start { .. })).collect::<Vec<_>>()
    };
    assert_eq!(check_with(Some(run_with(&["data"], stopping()))), []);
    // Nobody knows what it has.
    assert_eq!(check_with(Some(run("r1", stopping()))), []);
    assert_eq!(check_with(None), []);
    // Volumes without overlays may be shared.
    assert_eq!(check_with(Some(run_with(&["plain", "else"], stopping()))), start);
    assert_eq!(check_with(Some(run_with(&[], stopping()))), start);

    have.runs.insert(old.clone(), run_with(&["data"], stopping()));
    // One without overlays does not wait, and another contract's are its own.
    let plain = want("new", FLIST, "r2");
    assert_eq!(check(std::slice::from_ref(&plain), &have), [Step::Start { want: plain }]);
    let mut elsewhere = have_like(&have);
    let process = elsewhere.processes.remove(&old).unwrap();
    let run = elsewhere.runs.remove(&old).unwrap();
    let other = workload_id(&ContractId([9; 32]), "old");
    elsewhere.spared.insert(other.clone());
    elsewhere.processes.insert(other.clone(), process);
    elsewhere.runs.insert(other, run);
    assert_eq!(check(std::slice::from_ref(&new), &elsewhere), start);

    have.processes.insert(old.clone(), ProcessState::Exited(0));
    let reap = Step::Reap { id: old, state: ProcessState::Exited(0), wanted: false };
    let steps = check(std::slice::from_ref(&new), &have);
    assert_eq!(steps, [reap, start[0].clone()]);
}

/// The hold is over, and the new files of one container cannot be had: it goes on in the old version.
#[test]
fn overlays_do_not_wait_for_a_container_that_has_other_volumes_and_goes_on() {
    let stuck = want("stuck", NEW_FLIST, "r2");
    let new = want_overlay("new", "r2", "data");
    let mut have = have();
    have.flists.insert((CONTRACT, FLIST), Files::Ready);
    let files = Files::Failed { until_ms: 100_001, code: "x", message: "y".into() };
    have.flists.insert((CONTRACT, NEW_FLIST), files);
    have.processes.insert(stuck.id.clone(), ProcessState::Running);
    have.runs.insert(stuck.id.clone(), run_with(&["else"], Phase::Up { since_ms: 1 }));
    let wants = [stuck.clone(), new.clone()];
    assert_eq!(check(&wants, &have), [Step::Start { want: new }]);
    have.runs.insert(stuck.id, run_with(&["data"], Phase::Up { since_ms: 1 }));
    assert_eq!(check(&wants, &have), []);
}

#[test]
fn overlays_wait_for_a_start_that_may_still_succeed() {
    let new = want_overlay("new", "r2", "data");
    let starts = |name: &str, run: Run, now_ms| {
        let mut have = Have { now_ms, ..have() };
        have.flists.insert((CONTRACT, FLIST), Files::Ready);
        have.runs.insert(workload_id(&CONTRACT, name), run);
        !check(std::slice::from_ref(&new), &have).is_empty()
    };
    let up = Phase::Up { since_ms: 99_000 };
    let failed = |is_open: bool| {
        let (code, message) = ("start_failed".to_owned(), String::new());
        let phase = Phase::Waiting { until_ms: 99_007, code, message };
        let announced = is_open.then(|| Box::new(run_with(&["data"], up.clone())));
        Run { announced, ..run_with(&["data"], phase) }
    };
    for run in [run_with(&["data"], up.clone()), run("r1", up.clone()), failed(true)] {
        assert!(!starts("old", run.clone(), 100_000));
        assert!(!starts("old", run.clone(), 99_000 + UNHEARD_MS - 1));
        assert!(starts("old", run.clone(), 99_000 + UNHEARD_MS), "not for ever");
        assert!(starts("new", run, 100_000), "of one name there is one");
    }
    assert!(starts("old", run_with(&["else"], up.clone()), 100_000));
    assert!(starts("old", failed(false), 100_000), "the launcher has said no");

    // A start after it gives the same record, in which both are remembered.
    let Kind::Container { container, volumes, .. } = &new.kind else { panic!("a container") };
    let volumes_after = |previous: Run| {
        intent("boot", "r3", (container, FLIST, volumes), Some(&previous), 100_000).volumes
    };
    let ids = |names: &[&str]| names.iter().map(|name| workload_id(&CONTRACT, name)).collect();
    let own: BTreeSet<String> = ids(&["data", "plain"]);
    assert_eq!(
        volumes_after(run_with(&["else"], up.clone())),
        Some(ids(&["data", "else", "plain"]))
    );
    assert_eq!(volumes_after(run("r1", up.clone())), None);
    assert_eq!(volumes_after(failed(false)), Some(own));
    // One of an earlier contractd says nothing.
    let mut value = serde_json::to_value(failed(false)).unwrap();
    value.as_object_mut().unwrap().remove("volumes");
    assert_eq!(serde_json::from_value::<Run>(value).unwrap().volumes, None);
}

#[test]
fn the_wait_of_a_failing_start_grows_over_its_announcement() {
    let wants = [want("web", FLIST, "r1")];
    let Kind::Container { container, .. } = &wants[0].kind else { panic!("a container") };
    let before = Run { delay_ms: Some(7), ..run("r1", Phase::Up { since_ms: 1 }) };
    assert_eq!(intent("boot", "r1", (container, FLIST, &[]), Some(&before), 5).delay_ms, Some(7));
    assert_eq!(intent("boot", "r2", (container, FLIST, &[]), Some(&before), 5).delay_ms, None);
}

/// A container that met a limit and ended was told of in each of its lives.
#[test]
fn the_pauses_of_strains_go_on_with_the_next_life_of_a_version() {
    use container::usage::Usage;
    let wants = [want("web", FLIST, "r1")];
    let Kind::Container { container, .. } = &wants[0].kind else { panic!("a container") };
    let mut before = run("r1", Phase::Up { since_ms: 1 });
    before.strains.look(60_000, Some(&Usage { pids_refused: 1, ..Usage::default() }));
    assert!(!before.strains.sentence().is_empty());
    let next =
        |revision| intent("boot", revision, (container, FLIST, &[]), Some(&before), 5).strains;
    assert_eq!(next("r1"), before.strains.of_next_life());
    assert_ne!(next("r1"), Strains::default());
    assert_eq!(next("r2"), Strains::default());
}

#[test]
fn a_volume_that_fails_is_tried_again_later() {
    let data = Want {
        id: workload_id(&CONTRACT, "data"),
        contract: CONTRACT,
        name: "data".into(),
        needs: vec![],
        kind: Kind::Volume { size_bytes: 10, class: Medium::Ssd },
    };
    let mut have = have();
    let failure = |until_ms| Failure {
        until_ms,
        delay_ms: 2000,
        code: "pool_failed".into(),
        message: "its disk is gone".into(),
    };
    have.failures.insert(data.id.clone(), failure(100_001));
    assert_eq!(check(std::slice::from_ref(&data), &have), []);
    have.failures.insert(data.id.clone(), failure(100_000));
    let steps = check(std::slice::from_ref(&data), &have);
    assert!(matches!(steps[..], [Step::EnsureVolume { .. }]));
}

/// The state was set aside as unreadable, and the containers of contracts that it knew were stopped.
#[test]
fn processes_of_unknown_contracts_are_spared_until_the_registry_was_heard() {
    let other = ContractId([4; 32]);
    let mut have = have();
    for contract in [&CONTRACT, &other] {
        have.processes.insert(workload_id(contract, "web"), ProcessState::Running);
    }
    have.attachments.insert(workload_id(&other, "web"), ADDRESS);
    have.spared = strangers(&have.processes, [&CONTRACT].into_iter());
    assert_eq!(have.spared, BTreeSet::from([workload_id(&other, "web")]));
    // The one whose contract is known, and does not want it, is stopped.
    let steps = check(&[], &have);
    assert!(
        matches!(&steps[..], [Step::Signal { id, .. }] if *id == workload_id(&CONTRACT, "web"))
    );
    have.spared.clear();
    assert_eq!(check(&[], &have).len(), 2);
}

#[test]
fn the_longest_name_fits_into_an_id_and_ids_differ_early() {
    assert_eq!(workload_id(&CONTRACT, &"x".repeat(32)).len(), 64);
    let mut near = CONTRACT;
    near.0[14] ^= 0x10;
    assert_ne!(prefix(&near), prefix(&CONTRACT));
}

#[test]
fn a_start_that_was_given_up_on_and_succeeded_is_known_for_what_it_is() {
    let id = workload_id(&CONTRACT, "web");
    let waiting = Phase::Waiting { until_ms: 0, code: "x".into(), message: String::new() };
    let runs = BTreeMap::from([(id.clone(), run("r1", waiting.clone()))]);
    let mut have = have();
    assert_eq!(risen(&have, &runs), Vec::<String>::new());
    have.processes.insert(id.clone(), ProcessState::Running);
    assert_eq!(risen(&have, &runs), std::slice::from_ref(&id));
    let up = run("r1", Phase::Up { since_ms: 1 });
    assert_eq!(risen(&have, &[(id.clone(), up.clone())].into()), Vec::<String>::new());
    // The launcher was still busy with r1 when r2 was tried: what has come up is r1, with all of its words.
    assert_eq!(announced(Some(&up)), Some(Box::new(up.clone())));
    let refused = Run { announced: Some(Box::new(up.clone())), ..run("r2", waiting.clone()) };
    assert_eq!(announced(Some(&refused)), Some(Box::new(up)), "however often it is tried");
    assert_eq!(announced(Some(&run("r1", waiting.clone()))), None);
    assert_eq!(announced(None), None);
    // What has ended meanwhile has run as well, but what the launcher killed at its gate has not.
    have.processes.insert(id.clone(), ProcessState::Exited(0));
    assert_eq!(risen(&have, &[(id.clone(), refused)].into()), std::slice::from_ref(&id));
    assert_eq!(risen(&have, &[(id, run("r1", waiting))].into()), Vec::<String>::new());
}

/// Each of two containers gets the port of the other: both must be let go before either has it.
#[test]
fn what_ran_in_an_earlier_version_gives_its_ports_back_before_the_next_starts() {
    let flist = FlistId([1; 32]);
    let wants = [want("a", flist, "2"), want("b", flist, "2")];
    let mut have = have();
    have.flists.insert((CONTRACT, flist), Files::Ready);
    for want in &wants {
        have.attachments.insert(want.id.clone(), ADDRESS);
    }
    let detach = |n: usize| Step::Detach { id: wants[n].id.clone() };
    let start = |n: usize| Step::Start { want: wants[n].clone() };
    assert_eq!(check(&wants, &have), [detach(0), detach(1), start(0), start(1)]);
    // Of the same version, it keeps its addresses while it waits.
    let waiting = Phase::Waiting { until_ms: 0, code: String::new(), message: String::new() };
    have.runs.insert(wants[0].id.clone(), run("2", waiting));
    assert_eq!(check(&wants, &have), [detach(1), start(0), start(1)]);
}

#[test]
fn what_does_not_work_is_stopped_and_waits_before_it_starts_again() {
    let wants = [want("web", FLIST, "r1")];
    let id = wants[0].id.clone();
    let mut have = have();
    have.flists.insert((CONTRACT, FLIST), Files::Ready);
    have.processes.insert(id.clone(), ProcessState::Running);
    have.runs.insert(id.clone(), run("r1", Phase::Up { since_ms: 40_000 }));
    assert_eq!(check(&wants, &have), [], "one that works is left alone");
    have.faults.insert(id.clone(), (Cause::Unhealthy, "no connection".into()));
    let (cause, message) = have.faults[&id].clone();
    let fault = |up_ms| Some(Fault { cause, message: message.clone(), up_ms });
    let signal = |fault| Step::Signal { id: id.clone(), signal: 15, kill_at_ms: 105_000, fault };
    assert_eq!(check(&wants, &have), [signal(fault(60_000))]);
    // One that has never worked was not up, however long it ran.
    have.runs.get_mut(&id).unwrap().passed = false;
    assert_eq!(check(&wants, &have), [signal(fault(0))]);

    // It is killed in time, also while its files are fetched again.
    for files in [None, Some(Files::Fetching), Some(Files::Ready)] {
        have.flists.clear();
        have.flists.extend(files.map(|files| ((CONTRACT, FLIST), files)));
        let stopping = |kill_at_ms| Phase::Stopping { kill_at_ms, fault: fault(0) };
        have.runs.insert(id.clone(), run("r1", stopping(100_001)));
        assert_eq!(check(&wants, &have), []);
        have.runs.insert(id.clone(), run("r1", stopping(100_000)));
        assert_eq!(check(&wants, &have), [Step::Kill { id: id.clone() }]);
    }
}

/// Somebody's bytes would go on to run, read once and never asked about again.
#[test]
fn what_runs_from_damaged_files_is_stopped_before_they_are_fetched_and_it_starts_again() {
    let wants = [want("web", FLIST, "r1")];
    let id = wants[0].id.clone();
    let mut have = have();
    have.processes.insert(id.clone(), ProcessState::Running);
    have.runs.insert(id.clone(), run("r1", Phase::Up { since_ms: 40_000 }));
    assert_eq!(check(&wants, &have), [], "nothing is fetched below one that runs");
    have.faults.insert(id.clone(), (Cause::Damaged, "bin/web cannot be read".into()));
    let steps = check(&wants, &have);
    let [Step::Signal { fault: Some(fault), .. }] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!((fault.cause.code(), fault.up_ms), ("store_damaged", 60_000));
    have.faults.clear();
    have.processes.clear();
    let waiting = Phase::Waiting { until_ms: 0, code: String::new(), message: String::new() };
    have.runs.insert(id.clone(), run("r1", waiting));
    assert!(matches!(check(&wants, &have)[..], [Step::Fetch { .. }]));
    have.flists.insert((CONTRACT, FLIST), Files::Ready);
    assert!(matches!(check(&wants, &have)[..], [Step::Start { .. }]));
}

/// The new version could not be had, and the old one ran on from bytes that are not as signed.
#[test]
fn what_runs_from_damaged_files_is_stopped_in_an_old_version_too() {
    let wants = [want("web", FLIST, "r2")];
    let id = wants[0].id.clone();
    let mut have = have();
    have.processes.insert(id.clone(), ProcessState::Running);
    have.runs.insert(id.clone(), run("r1", Phase::Up { since_ms: 40_000 }));
    let (code, message) = ("source_unreachable", String::new());
    let failed = Files::Failed { until_ms: u64::MAX, code, message };
    have.flists.insert((CONTRACT, FLIST), failed);
    have.faults.insert(id.clone(), (Cause::Unhealthy, "no connection".into()));
    assert_eq!(check(&wants, &have), [], "an old version that does not work goes with the new one");
    have.faults.insert(id.clone(), (Cause::Damaged, "bin/web cannot be read".into()));
    assert!(matches!(check(&wants, &have)[..], [Step::Signal { fault: Some(_), .. }]));
}

#[test]
fn what_needs_a_container_waits_until_it_works() {
    let mut wants = [want("db", FLIST, "r1"), want("web", FLIST, "r1")];
    wants[1].needs.push(wants[0].id.clone());
    let id = wants[0].id.clone();
    let mut have = have();
    have.flists.insert((CONTRACT, FLIST), Files::Ready);
    have.processes.insert(id.clone(), ProcessState::Running);
    let starting = Run { passed: false, ..run("r1", Phase::Up { since_ms: 1 }) };
    have.runs.insert(id.clone(), starting);
    assert_eq!(check(&wants, &have), []);
    have.runs.get_mut(&id).unwrap().passed = true;
    assert_eq!(check(&wants, &have), [Step::Start { want: wants[1].clone() }]);
}

#[test]
fn a_look_goes_on_behind_the_last_step_of_the_one_before() {
    let flist = FlistId([1; 32]);
    let all = || ["a", "b", "c"].map(|name| want(name, flist, "1"));
    let order = |last: Option<&Step>| {
        let mut wants = all();
        go_on_after(&mut wants, last);
        wants.map(|want| want.name).join("")
    };
    assert_eq!(order(None), "abc");
    assert_eq!(order(Some(&Step::Start { want: all()[0].clone() })), "bca");
    assert_eq!(order(Some(&Step::Kill { id: all()[1].id.clone() })), "cab");
    assert_eq!(order(Some(&Step::Start { want: all()[2].clone() })), "abc");
    assert_eq!(order(Some(&Step::Kill { id: "of another".into() })), "abc");
}

#[test]
fn what_runs_and_is_not_wanted_as_it_is_is_ending() {
    let wants = [want("a", FlistId([1; 32]), "2")];
    let id = wants[0].id.clone();
    let check = |revision: &str, state: ProcessState, wanted: &[&str]| {
        let processes = BTreeMap::from([(id.clone(), state), ("b".into(), state)]);
        let runs = BTreeMap::from([(id.clone(), run(revision, Phase::Up { since_ms: 1 }))]);
        assert_eq!(ending(&wants, &processes, &runs), wanted);
    };
    check("2", ProcessState::Running, &["b"]);
    check("1", ProcessState::Running, &["b", &id]);
    check("1", ProcessState::Exited(0), &[]);
}

#[test]
fn what_may_run_later_is_fetched_and_nothing_else() {
    let (urls, haste) = (vec!["http://a".to_owned()], Haste::Early);
    let (contract, flist, bytes) = (CONTRACT, FLIST, 7);
    let publisher = None;
    let upcoming = [Upcoming { contract, flist, urls: urls.clone(), bytes, publisher }];
    let nothing = BTreeSet::new();
    let fetch = |haste| {
        let (urls, publisher) = (urls.clone(), None);
        Step::Fetch { contract, flist, urls, bytes, publisher, haste }
    };
    let (fetch, now) = (fetch(haste), fetch(Haste::Now));
    assert_eq!(ahead(&upcoming, &nothing, &have()), std::slice::from_ref(&fetch));
    // What another needs now is not early: it would throw away what was staged.
    assert_eq!(ahead(&upcoming, &BTreeSet::from([FLIST]), &have()), [now]);
    let with = |files| {
        let mut have = have();
        have.flists.insert((CONTRACT, FLIST), files);
        ahead(&upcoming, &nothing, &have)
    };
    let failed = |until_ms| Files::Failed { until_ms, code: "x", message: String::new() };
    assert_eq!(with(failed(100_000)), [fetch]);
    for files in [failed(100_001), Files::Fetching, Files::Ready] {
        assert_eq!(with(files), []);
    }
}

/// One container was in the new version, and the one that it needs in the old, for as long as a fetch took.
#[test]
fn an_update_changes_all_containers_when_the_files_of_all_are_there() {
    let (web, db) = (want("web", NEW_FLIST, "r2"), want("db", FLIST, "r2"));
    let (gone, new) = (workload_id(&CONTRACT, "gone"), want("new", FLIST, "r2"));
    let wants = [web.clone(), db.clone(), new.clone()];
    let mut have = have();
    for id in [&web.id, &db.id, &gone] {
        have.processes.insert(id.clone(), ProcessState::Running);
        have.runs.insert(id.clone(), run("r1", Phase::Up { since_ms: 1 }));
    }
    have.flists.insert((CONTRACT, FLIST), Files::Ready);
    have.held = updating(&wants, &have);
    assert_eq!(have.held, BTreeSet::from([CONTRACT]));
    assert!(matches!(check(&wants, &have)[..], [Step::Fetch { flist: NEW_FLIST, .. }]));
    // What runs from bad files does not go on, nor what was asked to end before.
    let mut bad = have_like(&have);
    bad.faults.insert(db.id.clone(), (Cause::Damaged, "bad".into()));
    assert!(matches!(&check(&wants, &bad)[..], [Step::Fetch { .. }, Step::Signal { id, .. }]
        if *id == db.id));
    let mut bad = have_like(&have);
    bad.faults.insert(gone.clone(), (Cause::Damaged, "bad".into()));
    let is_it = |step: &Step| {
        matches!(step, Step::Signal { id, fault: Some(fault), .. }
            if *id == gone && fault.cause == Cause::Damaged)
    };
    assert_eq!(check(&wants, &bad).into_iter().filter(is_it).count(), 1);
    bad.faults.insert(gone.clone(), (Cause::Unhealthy, "no answer".into()));
    assert_eq!(check(&wants, &bad).into_iter().filter(is_it).count(), 0);
    let mut stopping = have_like(&have);
    let phase = Phase::Stopping { kill_at_ms: 100_000, fault: None };
    stopping.runs.insert(gone.clone(), run("r1", phase));
    let steps = check(&wants, &stopping);
    assert!(steps.contains(&Step::Kill { id: gone.clone() }), "{steps:?}");
    // What has ended by itself starts in the new version.
    let mut ended = have_like(&have);
    ended.processes.remove(&db.id);
    assert!(check(&wants, &ended).contains(&Step::Start { want: db.clone() }));
    // Everything is there, or it took too long: what is ready changes.
    let signalled = |have: &Have| {
        let steps = check(&wants, have);
        let signal = |step: &Step| {
            let Step::Signal { id, .. } = step else { return None };
            Some(id.clone())
        };
        steps.iter().filter_map(signal).collect::<BTreeSet<_>>()
    };
    have.held.clear();
    assert_eq!(signalled(&have), BTreeSet::from([db.id.clone(), gone.clone()]));
    assert!(check(&wants, &have).contains(&Step::Start { want: new }));
    have.flists.insert((CONTRACT, NEW_FLIST), Files::Ready);
    assert_eq!(updating(&wants, &have), BTreeSet::new());
    assert_eq!(signalled(&have), BTreeSet::from([db.id, gone, web.id]));
}

/// The same, to be changed.
fn have_like(have: &Have) -> Have {
    Have {
        now_ms: have.now_ms,
        processes: have.processes.clone(),
        runs: have.runs.clone(),
        flists: have.flists.clone(),
        held: have.held.clone(),
        ..Have::default()
    }
}

#[test]
fn only_what_runs_in_an_old_version_waits_for_all() {
    let (web, db) = (want("web", NEW_FLIST, "r2"), want("db", FLIST, "r2"));
    let wants = [web.clone(), db.clone()];
    let mut have = have();
    have.flists.insert((CONTRACT, FLIST), Files::Ready);
    assert_eq!(updating(&wants, &have), BTreeSet::new(), "nothing runs");
    have.processes.insert(db.id.clone(), ProcessState::Running);
    have.runs.insert(db.id.clone(), run("r2", Phase::Up { since_ms: 1 }));
    assert_eq!(updating(&wants, &have), BTreeSet::new(), "it is of the new one");
    have.processes.insert(web.id.clone(), ProcessState::Running);
    have.runs.insert(web.id.clone(), run("r1", Phase::Up { since_ms: 1 }));
    assert_eq!(updating(&wants, &have), BTreeSet::from([CONTRACT]));
    // Cancelled, rejected, or without contact: nothing is wanted, and nothing goes on.
    have.held = updating(&[], &have);
    assert_eq!(have.held, BTreeSet::new());
    let stopped = check(&[], &have);
    assert!(matches!(stopped[..], [Step::Signal { .. }, Step::Signal { .. }]), "{stopped:?}");
}

fn job(name: &str, restart: Restart, revision: &str) -> Want {
    let mut want = want(name, FLIST, revision);
    let Kind::Container { container, .. } = &mut want.kind else { panic!() };
    container.restart = restart;
    want
}

#[test]
fn a_job_that_is_over_is_not_started_again_and_what_needs_it_starts_when_it_ended_well() {
    for restart in [Restart::OnFailure, Restart::Never] {
        let mut wants = [job("migrate", restart, "r1"), want("web", FLIST, "r1")];
        wants[1].needs = vec![wants[0].id.clone()];
        let start = |n: usize| Step::Start { want: wants[n].clone() };
        let id = wants[0].id.clone();
        let mut have = have();
        have.flists.insert((CONTRACT, FLIST), Files::Ready);
        assert_eq!(check(&wants, &have), [start(0)]);

        // That it runs is not enough.
        have.processes.insert(id.clone(), ProcessState::Running);
        let up = Run { restart, ..run("r1", Phase::Up { since_ms: 1 }) };
        have.runs.insert(id.clone(), up.clone());
        assert_eq!(check(&wants, &have), []);

        have.processes.clear();
        let over = |end| Run { phase: Phase::Over { end, message: String::new() }, ..up.clone() };
        have.runs.insert(id.clone(), over(End::Badly));
        assert_eq!(check(&wants, &have), []);
        have.runs.insert(id.clone(), over(End::Well));
        assert_eq!(check(&wants, &have), [start(1)]);

        // Its files are of no use any more, and hold up no other's.
        have.flists.clear();
        assert!(check(&wants[..1], &have).is_empty());
        have.processes.insert(workload_id(&CONTRACT, "old"), ProcessState::Running);
        assert_eq!(updating(&wants[..1], &have), BTreeSet::new());
        assert_eq!(updating(&[job("migrate", restart, "r2")], &have), [CONTRACT].into());
    }
}

#[test]
fn a_version_that_changes_a_job_has_it_run_again_before_what_needs_it() {
    let mut wants = [job("migrate", Restart::OnFailure, "r2"), want("web", FLIST, "r1")];
    wants[1].needs = vec![wants[0].id.clone()];
    let id = wants[0].id.clone();
    let mut have = have();
    have.flists.insert((CONTRACT, FLIST), Files::Ready);
    let over = Phase::Over { end: End::Well, message: String::new() };
    have.runs.insert(id.clone(), Run { restart: Restart::OnFailure, ..run("r1", over) });
    have.attachments.insert(id.clone(), ADDRESS);
    let steps = [Step::Detach { id }, Step::Start { want: wants[0].clone() }];
    assert_eq!(check(&wants, &have), steps);
    // It comes with the others of its version, also when its old one has begun, or failed, before.
    have.attachments.clear();
    have.held.insert(CONTRACT);
    assert_eq!(check(&wants, &have), []);
    let waiting = Phase::Waiting { until_ms: 0, code: String::new(), message: String::new() };
    for phase in [waiting, Phase::Up { since_ms: 1 }] {
        let of = |revision| Run { restart: Restart::OnFailure, ..run(revision, phase.clone()) };
        have.runs.insert(wants[0].id.clone(), of("r1"));
        assert_eq!(check(&wants, &have), []);
        have.runs.insert(wants[0].id.clone(), of("r2"));
        assert_eq!(check(&wants, &have), [Step::Start { want: wants[0].clone() }]);
    }
}

//! A container and its answers, in the time of the boot clock.

use super::*;
use crate::plan::{Run, Stop};
use contract::{
    ContractId, FlistId,
    workload::{self, Container, Probe},
};
use std::net::Ipv4Addr;

const ID: &str = "web";
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 127, 0, 2));
const BORN_MS: u64 = 50_000;

fn health() -> Health {
    let probe = Probe::Tcp { port: 80 };
    Health { probe, interval_s: 10, timeout_s: 5, retries: 2, start_period_s: 6 }
}

fn want(health: Option<Health>) -> Want {
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
        health: health.map(Box::new),
        logs: Vec::new(),
        stats: Vec::new(),
        restart: workload::Restart::Always,
        disk: None,
    };
    let kind = Kind::Container {
        container: Box::new(container),
        flist: FlistId([1; 32]),
        urls: vec![],
        bytes: 7,
        publisher: None,
        revision: "r1".into(),
        volumes: vec![],
    };
    Want { id: ID.into(), contract: ContractId([3; 32]), name: "web".into(), needs: vec![], kind }
}

fn have(now_ms: u64, since_ms: u64, passed: bool) -> Have {
    let run = Run {
        boot: "boot".into(),
        revision: "r1".into(),
        flist: None,
        phase: Phase::Up { since_ms },
        delay_ms: None,
        stop: Stop { signal: 15, grace_ms: 5000 },
        restart: workload::Restart::Always,
        volumes: None,
        passed,
        ran: None,
        strains: crate::strain::Strains::default(),
        announced: None,
    };
    Have {
        now_ms,
        processes: [(ID.into(), ProcessState::Running)].into(),
        runs: [(ID.into(), run)].into(),
        attachments: [(ID.into(), ADDRESS)].into(),
        ..Have::default()
    }
}

fn answer(since_ms: u64, outcome: Result<(), Bad>) -> Answer {
    Answer { id: ID.into(), since_ms, outcome: outcome.into() }
}

/// Whom it asks at that time.
fn asks(checks: &mut Checks, now_ms: u64, passed: bool) -> usize {
    checks.follow(&[want(Some(health()))], &have(now_ms, BORN_MS, passed)).len()
}

#[test]
fn a_container_is_asked_when_its_time_has_come_and_once() {
    let mut checks = Checks::default();
    assert_eq!(asks(&mut checks, BORN_MS, false), 0);
    assert_eq!(asks(&mut checks, BORN_MS + 1999, false), 0);
    let wants = [want(Some(health()))];
    let asked = checks.follow(&wants, &have(BORN_MS + 2000, BORN_MS, false));
    let question =
        Question { id: ID.into(), since_ms: BORN_MS, address: ADDRESS, health: health() };
    assert_eq!(asked, [question]);
    // It has not answered yet.
    assert_eq!(asks(&mut checks, BORN_MS + 60_000, false), 0);
    checks.take(&answer(BORN_MS, Ok(())));
    assert_eq!(checks.healthy().collect::<Vec<_>>(), [ID]);
    assert_eq!(asks(&mut checks, BORN_MS + 11_999, true), 0);
    assert_eq!(asks(&mut checks, BORN_MS + 12_000, true), 1);
}

#[test]
fn enough_bad_answers_are_a_fault_and_then_nobody_is_asked() {
    let mut checks = Checks::default();
    let mut at_ms = BORN_MS;
    let mut bad = |checks: &mut Checks, later_ms: u64| {
        at_ms += later_ms;
        assert_eq!(asks(checks, at_ms - 1, false), 0);
        assert_eq!(asks(checks, at_ms, false), 1);
        checks.take(&answer(BORN_MS, Err(Bad::Closed)));
        checks.faults().len()
    };
    // In the start period, often and without consequence.
    assert_eq!(bad(&mut checks, 2000), 0);
    assert_eq!(bad(&mut checks, 2000), 0);
    assert_eq!(bad(&mut checks, 2000), 0);
    assert_eq!(bad(&mut checks, 10_000), 1);
    assert!(checks.faults()[ID].contains("2 times in a row"), "{:?}", checks.faults());
    assert_eq!(asks(&mut checks, BORN_MS + 1_000_000, false), 0);
    assert_eq!(checks.healthy().count(), 0);
}

/// The launcher was started again in the middle of each check: nothing is held against the container, and
/// what it has said before still counts.
#[test]
fn that_the_node_could_not_ask_is_no_answer() {
    let mut checks = Checks::default();
    let unasked = Answer {
        id: ID.into(),
        since_ms: BORN_MS,
        outcome: Outcome::Unasked("nobody listens".into()),
    };
    let mut at_ms = BORN_MS + 8_000;
    assert_eq!(asks(&mut checks, at_ms, false), 1);
    checks.take(&answer(BORN_MS, Err(Bad::Closed)));
    for _ in 0..5 {
        at_ms += 10_000;
        assert_eq!(asks(&mut checks, at_ms, false), 1);
        checks.take(&unasked);
        assert_eq!((checks.healthy().count(), checks.faults().len()), (0, 0));
    }
    assert_eq!(asks(&mut checks, at_ms + 10_000, false), 1);
    checks.take(&answer(BORN_MS, Err(Bad::Closed)));
    assert_eq!(checks.faults().len(), 1);
}

#[test]
fn an_answer_for_a_process_before_says_nothing() {
    let mut checks = Checks::default();
    assert_eq!(asks(&mut checks, BORN_MS + 2000, false), 1);
    let again_ms = BORN_MS + 3000;
    let wants = [want(Some(health()))];
    assert_eq!(checks.follow(&wants, &have(again_ms, again_ms, false)), []);
    checks.take(&answer(BORN_MS, Ok(())));
    assert_eq!(checks.healthy().count(), 0);
    assert_eq!(checks.follow(&wants, &have(again_ms + 2000, again_ms, false)).len(), 1);
    checks.take(&answer(BORN_MS, Ok(())));
    assert_eq!(checks.healthy().count(), 0);
    checks.take(&answer(again_ms, Ok(())));
    assert_eq!(checks.healthy().count(), 1);
}

#[test]
fn one_that_had_passed_stays_healthy_when_contractd_is_started_again() {
    let mut checks = Checks::default();
    assert_eq!(asks(&mut checks, BORN_MS + 1_000_000, true), 1);
    assert_eq!(checks.healthy().count(), 1);
    checks.take(&answer(BORN_MS, Err(Bad::Late)));
    assert_eq!((checks.healthy().count(), checks.faults().len()), (1, 0));
}

#[test]
fn only_what_runs_as_it_is_wanted_and_has_a_check_is_asked() {
    let at = BORN_MS + 2000;
    let asked = |want: Want, have: Have| Checks::default().follow(&[want], &have).len();
    assert_eq!(asked(want(Some(health())), have(at, BORN_MS, false)), 1);
    assert_eq!(asked(want(None), have(at, BORN_MS, true)), 0);
    let mut ended = have(at, BORN_MS, false);
    ended.processes.insert(ID.into(), ProcessState::Exited(0));
    assert_eq!(asked(want(Some(health())), ended), 0);
    let mut old = have(at, BORN_MS, false);
    old.runs.get_mut(ID).unwrap().revision = "r0".into();
    assert_eq!(asked(want(Some(health())), old), 0);
    let mut stopping = have(at, BORN_MS, false);
    stopping.runs.get_mut(ID).unwrap().phase = Phase::Stopping { kill_at_ms: 1, fault: None };
    assert_eq!(asked(want(Some(health())), stopping), 0);
    let mut lost = have(at, BORN_MS, false);
    lost.attachments.clear();
    assert_eq!(asked(want(Some(health())), lost), 0);
}

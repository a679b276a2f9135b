//! What becomes of jobs, whatever ends them and whenever this process ends.

use super::*;
use crate::plan::{Cause, Stop, workload_id};
use crate::strain::Strains;
use ProcessState::{Exited, Killed};
use Restart::{Always, Never, OnFailure};

fn run(restart: Restart, phase: Phase) -> Run {
    Run {
        boot: "boot".into(),
        revision: "r1".into(),
        flist: None,
        phase,
        delay_ms: None,
        stop: Stop { signal: 15, grace_ms: 1 },
        restart,
        volumes: None,
        passed: false,
        ran: None,
        strains: Strains::default(),
        announced: None,
    }
}

fn up() -> Phase {
    Phase::Up { since_ms: 1 }
}

fn stopping(because: Option<&str>) -> Phase {
    let fault = because.map(|message| Fault {
        cause: Cause::Unhealthy,
        message: message.to_owned(),
        up_ms: 0,
    });
    Phase::Stopping { kill_at_ms: 1, fault }
}

/// A start that has failed, after one that nobody has answered, of this revision, if there was one.
fn waiting(restart: Restart, unanswered: Option<&str>) -> Run {
    let phase = Phase::Waiting { until_ms: 1, code: "refused".into(), message: String::new() };
    let before = |revision: &str| Run { revision: revision.into(), ..run(restart, up()) };
    let announced = unanswered.map(|revision| Box::new(before(revision)));
    Run { announced, ..run(restart, phase) }
}

#[test]
fn a_job_is_over_when_it_has_ended_well_or_may_not_begin_again() {
    let check = |restart, phase, state, wanted: Option<(End, &str)>| {
        let kept = ended(&run(restart, phase), state, "it has ended");
        let kept = kept.map(|run| match run.phase {
            Phase::Over { end, message } => (end, message, run.passed),
            other => panic!("{other:?}"),
        });
        assert_eq!(kept, wanted.map(|(end, message)| (end, message.to_owned(), true)));
    };
    let well = Some((End::Well, "it has ended"));
    let badly = Some((End::Badly, "it has ended"));
    for state in [Exited(0), Exited(1), Killed(9)] {
        check(Always, up(), state, None);
        check(Always, stopping(None), state, None);
        // Whoever is asked to end often returns 0.
        check(OnFailure, stopping(None), state, None);
        check(OnFailure, stopping(Some("bad")), state, None);
        let stopped = "the node stopped it: it has ended";
        check(Never, stopping(None), state, Some((End::Badly, stopped)));
        let faulty = "the node stopped it: it has ended; bad";
        check(Never, stopping(Some("bad")), state, Some((End::Badly, faulty)));
    }
    check(OnFailure, up(), Exited(0), well);
    check(Never, up(), Exited(0), well);
    for state in [Exited(1), Killed(9)] {
        check(OnFailure, up(), state, None);
        check(Never, up(), state, badly);
    }
    // The launcher has refused it, and left a process that never executed its program.
    for restart in [OnFailure, Never] {
        assert_eq!(ended(&waiting(restart, None), Killed(9), "it has ended"), None);
    }
}

#[test]
fn the_end_that_was_written_down_stays_when_the_process_is_seen_again() {
    let over = run(Never, up()).over(End::Well, "it returned 0".into());
    assert_eq!(ended(&over, Exited(0), "it has ended"), Some(over));
}

#[test]
fn in_another_boot_only_ends_of_jobs_are_known() {
    let check = |before: Run, wanted: Option<End>| {
        assert_eq!(in_this_boot(before.clone(), "boot"), Some(before.clone()));
        let end = in_this_boot(before, "later").map(|run| match run.phase {
            Phase::Over { end, .. } => end,
            other => panic!("{other:?}"),
        });
        assert_eq!(end, wanted);
    };
    for phase in [up(), stopping(None)] {
        check(run(Always, phase.clone()), None);
        check(run(OnFailure, phase), None);
    }
    check(run(Never, up()), Some(End::Badly));
    check(run(Never, stopping(None)), Some(End::Badly));
    // That a later try was refused does not undo the one before.
    check(waiting(Never, Some("r1")), Some(End::Badly));
    check(waiting(OnFailure, Some("r1")), None);
    check(waiting(Never, Some("r0")), None);
    check(waiting(Never, None), None);
    for (restart, end) in [(OnFailure, End::Well), (Never, End::Well), (Never, End::Badly)] {
        check(run(restart, Phase::Over { end, message: String::new() }), Some(end));
    }
}

#[test]
fn ends_are_kept_while_somebody_may_ask_for_them() {
    let [agreed, refused, gone] = [1, 2, 3].map(|n| ContractId([n; 32]));
    let over = || run(OnFailure, up()).over(End::Well, String::new());
    let ids = [&agreed, &refused, &gone].map(|contract| workload_id(contract, "job"));
    let mut runs: BTreeMap<String, Run> = ids.iter().map(|id| (id.clone(), over())).collect();
    let dropped = workload_id(&agreed, "old-job");
    runs.insert(dropped.clone(), over());
    // Of what runs, others see that it is not wanted.
    runs.insert(workload_id(&gone, "web"), run(Always, up()));
    let world = contract::testkit::World::new(contract::Timestamp::from_seconds(1_800_000_000));
    let want = Want {
        id: ids[0].clone(),
        contract: agreed,
        name: "job".into(),
        needs: vec![],
        kind: Kind::Container {
            container: Box::new(world.document(1).containers().next().unwrap().clone()),
            flist: contract::FlistId([1; 32]),
            urls: vec![],
            bytes: 7,
            publisher: None,
            // It is about to run anew, and has not begun.
            revision: "r2".into(),
            volumes: vec![],
        },
    };
    let contracts = BTreeMap::from([(agreed, true), (refused, false)]);
    assert_eq!(unasked(&runs, &contracts, &[want]), [dropped, ids[2].clone()]);
}

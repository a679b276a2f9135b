//! Rule 1: what a node that asks for the log starts, and what it lets run on.

use super::*;
use crate::{logged::Logged, proven::Proven};
use alloc::collections::BTreeSet;

/// The verdict of a node that asks for the log and knows this much.
fn judged(world: &World, bundle: &Bundle, past: Past, logged: &Logged) -> Verdict {
    let case = Case::read_after(bundle, &Proven::default(), logged);
    judge(case.as_ref(), &world.trust_after(past), at(50))
}

fn ids<'a>(statements: impl IntoIterator<Item = &'a Envelope>) -> BTreeSet<StatementId> {
    statements.into_iter().map(|one| one.id().unwrap()).collect()
}

fn only(settled: u64, ids: BTreeSet<StatementId>) -> Logged {
    Logged::Only { settled, ids }
}

fn started(version: u64) -> Past {
    Past { holds: Some(Capacity::default()), version, ..Past::default() }
}

#[test]
fn a_contract_starts_when_its_version_and_its_quorum_are_proven() {
    let world = world();
    let bundle = world.agreed();
    let all = ids(bundle.headers.iter().chain(&bundle.approvals));
    let logged = only(0, all.clone());
    assert!(runs(&judged(&world, &bundle, Past::default(), &logged), 1), "positive control");
    assert!(runs(&judged(&world, &bundle, Past::default(), &Logged::NotAsked), 1));
    for missing in &all {
        let some: BTreeSet<_> = all.iter().filter(|id| *id != missing).copied().collect();
        let verdict = judged(&world, &bundle, Past::default(), &only(0, some.clone()));
        assert_eq!(code(&verdict), Some(Code::NotLogged), "without {missing}");
        let case = Case::read_after(&bundle, &Proven::default(), &only(0, some)).unwrap();
        assert_eq!(case.unlogged(), [*missing], "and asks for it");
    }
}

#[test]
fn an_approval_that_nobody_needs_may_be_missing_in_the_log() {
    let world = world();
    let mut bundle = world.agreed();
    let needed = ids(bundle.headers.iter().chain(&bundle.approvals));
    bundle.approvals.push(world.decide("budget", &bundle.headers[0], Decision::Approve, 10));
    assert!(runs(&judged(&world, &bundle, Past::default(), &only(0, needed)), 1));
}

#[test]
fn proofs_are_asked_for_when_they_are_all_that_is_missing() {
    let world = world();
    let mut bundle = world.agreed();
    let approval = bundle.approvals.pop().unwrap();
    let none = only(0, BTreeSet::new());
    let case = Case::read_after(&bundle, &Proven::default(), &none).unwrap();
    assert!(case.unlogged().is_empty());
    let verdict = judged(&world, &bundle, Past::default(), &none);
    assert_eq!(code(&verdict), Some(Code::QuorumMissing));
    bundle.approvals.push(approval);
    let case = Case::read_after(&bundle, &Proven::default(), &none).unwrap();
    assert_eq!(case.unlogged().len(), 3, "a header and two approvals");
}

#[test]
fn a_reject_counts_also_when_it_is_kept_out_of_the_log() {
    let world = world();
    let mut bundle = world.agreed();
    let all = ids(bundle.headers.iter().chain(&bundle.approvals));
    bundle.approvals.push(world.decide("it", &bundle.headers[0], Decision::Reject, 30));
    for logged in [only(0, all), only(1, BTreeSet::new())] {
        let verdict = judged(&world, &bundle, started(1), &logged);
        assert_eq!(code(&verdict), Some(Code::Rejected));
    }
}

#[test]
fn an_end_counts_also_when_it_is_kept_out_of_the_log() {
    let world = world();
    let mut bundle = world.agreed();
    world.end(&mut bundle, &["it", "legal"]);
    let case = Case::read_after(&bundle, &Proven::default(), &only(1, BTreeSet::new()));
    let verdict = judge(case.as_ref(), &world.trust_after(started(1)), at(250));
    assert!(matches!(verdict, Verdict::Stop(Ended { cause: Cause::Cancelled { .. }, .. })));
}

/// The witnesses were away when version 2 was agreed on, and then its owner ended it.
#[test]
fn an_end_of_an_update_that_is_not_proven_stops_what_runs() {
    let world = world();
    let mut bundle = world.updated(|_| {}, &["it", "legal"]);
    let first = only(1, BTreeSet::new());
    assert!(runs(&judged(&world, &bundle, started(1), &first), 1), "positive control");
    let cancel = Cancel { version: 2, issued: at(100), effective_at: at(200), ..world.cancel() };
    let cancel = seal(&cancel, world.key("owner"));
    let subject = cancel.id().unwrap();
    for name in ["it", "legal"] {
        let approval = world.decision(name, &bundle.headers[1], Decision::Approve);
        let (action, issued) = (Action::Cancel, at(110));
        let approval = Approval { subject, action, issued, ..approval };
        bundle.approvals.push(seal(&approval, world.key(name)));
    }
    bundle.cancels.push(cancel);
    let case = Case::read_after(&bundle, &Proven::default(), &first);
    let trust = world.trust_after(started(1));
    assert!(matches!(judge(case.as_ref(), &trust, at(150)), Verdict::Run(_)), "not yet");
    assert_eq!(code(&judge(case.as_ref(), &trust, at(250))), Some(Code::NotLogged), "it stops");
    // For good, and so that data is deleted, once version 2 is proven.
    let case = Case::read_after(&bundle, &Proven::default(), &only(2, BTreeSet::new()));
    let Verdict::Stop(ended) = judge(case.as_ref(), &trust, at(250)) else { panic!("it runs") };
    assert!(matches!(ended.cause, Cause::Cancelled { .. }));
    assert_eq!(ended.version, 2);
}

/// An update takes the end back, and a longer one the expiry: only its proof is late.
#[test]
fn what_an_update_has_taken_back_ends_nothing_for_good() {
    let world = world();
    let trust = world.trust_after(started(1));
    let mut cancelled = world.updated(|_| {}, &["it", "legal"]);
    world.end(&mut cancelled, &["it", "legal"]);
    let longer = world.updated(|header| header.expires = at(10_500), &["it", "legal"]);
    for (bundle, offset) in [(cancelled, 250), (longer, 10_200)] {
        let judged = |settled| {
            let logged = only(settled, BTreeSet::new());
            let case = Case::read_after(&bundle, &Proven::default(), &logged);
            judge(case.as_ref(), &trust, at(offset))
        };
        assert_eq!(code(&judged(1)), Some(Code::NotLogged));
        assert!(!matches!(judged(2), Verdict::Stop(_)), "{:?}", judged(2));
        // Positive control: without the update it has ended.
        let first = Bundle { headers: bundle.headers[..1].to_vec(), ..bundle.clone() };
        let case = Case::read_after(&first, &Proven::default(), &only(1, BTreeSet::new()));
        assert!(matches!(judge(case.as_ref(), &trust, at(offset)), Verdict::Stop(_)));
    }
}

/// The log shows nothing of version 2: version 1 runs on where it runs, and begins nowhere.
#[test]
fn an_update_that_is_not_proven_stops_nothing_and_nothing_older_begins() {
    let world = world();
    let bundle = world.updated(|_| {}, &["it", "legal"]);
    let first = only(1, BTreeSet::new());
    assert!(runs(&judged(&world, &bundle, started(1), &first), 1));
    let verdict = judged(&world, &bundle, Past::default(), &first);
    assert_eq!(code(&verdict), Some(Code::NotLogged));
    let second = ids(bundle.headers[1..].iter().chain(&bundle.approvals[2..]));
    let both = only(1, second);
    assert!(runs(&judged(&world, &bundle, started(1), &both), 2));
    assert!(runs(&judged(&world, &bundle, Past::default(), &both), 2));
    // Version 2 was in force before anybody asked for the log: version 1 does not come back.
    let verdict = judged(&world, &bundle, started(2), &first);
    assert_eq!(code(&verdict), Some(Code::NotLogged));
}

#[test]
fn who_approves_again_does_not_stop_what_runs() {
    let world = world();
    let mut bundle = world.agreed();
    bundle.approvals[0] = world.decide("it", &bundle.headers[0], Decision::Approve, 20);
    let settled = only(1, BTreeSet::new());
    assert!(runs(&judged(&world, &bundle, started(1), &settled), 1));
    let verdict = judged(&world, &bundle, started(1), &only(0, BTreeSet::new()));
    assert_eq!(code(&verdict), Some(Code::NotLogged), "when it was never proven");
}

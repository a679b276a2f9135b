//! What others' contracts cost the node, in signatures that it checks.

use super::*;
use contract::testkit::checks;

/// One customer's contracts with thousands of signatures were counted each second, and all of them again
/// for each start: for minutes, nobody's cancel was done.
#[test]
fn signatures_are_checked_when_they_come_and_not_when_they_are_judged() {
    let mut bench = Bench::new();
    let bundle = bench.world.updated(|_| {}, &["it", "legal"]);
    let hear = checks(|| bench.hear(&bundle));
    // Two versions, four approvals, a pool, and five whom it concerns; the farm also for the grant.
    assert_eq!(hear, 2 + 4 + 1 + 5 + 2);
    let judged = checks(|| {
        for time in [10, 11] {
            assert!(matches!(bench.judge(time), Verdict::Run(_)));
        }
    });
    assert_eq!(judged, 0);
    // Judged again at the moment of the start: by the true clock, its time has not come, or is over.
    let wants = judge::wants(&bench.reconciler.verdicts);
    let start = checks(|| bench.reconciler.start(&wants[0], &Have::default()).unwrap());
    assert_eq!(start, 0);
    assert!(bench.reconciler.runs.is_empty());
    let mut more = bundle.clone();
    more.approvals.push(bench.world.decide("budget", &bundle.headers[1], Decision::Approve, 30));
    assert_eq!(checks(|| bench.hear(&more)), 1, "the approval");
    assert_eq!(checks(|| bench.hear(&bundle)), 0);
    // What was kept over a restart is not believed: all but the identity of a stranger.
    let mut bench = bench.restarted();
    assert_eq!(checks(|| drop(bench.judge(10))), 2 + 5 + 1 + 5);
    assert_eq!(checks(|| drop(bench.judge(10))), 0);
}

/// The contract's first version with so many more signatures, of nobody, on its approvals.
fn padded(world: &World, signatures: usize) -> Bundle {
    let mut bundle = world.agreed();
    let sig = bundle.approvals[0].signatures[0].clone();
    for n in 0.. {
        let missing = signatures.saturating_sub(bundle.signatures());
        if missing == 0 {
            return bundle;
        }
        let mut more = world.decide("it", &bundle.headers[0], Decision::Approve, -n);
        more.signatures = vec![sig.clone(); missing.min(16)];
        bundle.approvals.push(more);
    }
    bundle
}

#[test]
fn a_contract_with_more_signatures_than_are_looked_at_is_not_kept_but_can_be_stopped() {
    let mut bench = Bench::new();
    let agreed = bench.world.agreed();
    let mut heavy = padded(&bench.world, SIGNATURES_MAX + 1);
    let few = checks(|| bench.hear(&heavy));
    assert!(few < 10, "{few}");
    assert!(bench.reconciler.contracts.is_empty());
    assert!(bench.reconciler.complaints.contains_key("contracts"));
    bench.hear(&agreed);
    assert!(matches!(bench.judge(10), Verdict::Run(_)));
    heavy.approvals.push(bench.world.decide("legal", &agreed.headers[0], Decision::Reject, 15));
    assert!(checks(|| bench.hear(&heavy)) < 10);
    assert!(matches!(bench.judge(20), Verdict::Refuse(_)));
    // So many, and no more, are looked at.
    let mut bench = Bench::new();
    bench.hear(&padded(&bench.world, SIGNATURES_MAX));
    assert!(matches!(bench.judge(10), Verdict::Run(_)));
}

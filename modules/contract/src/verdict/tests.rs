//! The consensus rule over whole bundles.

mod bundle;
mod cost;
mod logged;
mod model;
mod mutations;
mod past;

use super::*;
use crate::{
    bundle::Deployment,
    decision::{Action, Approval, Cancel, Decision, Retention},
    envelope::{Envelope, Signed},
    farm::Pool,
    merkle,
    testkit::{NETWORK, World, seal},
    workload::Spec,
};
use alloc::vec;
use proptest::prelude::*;

const NOW: i64 = 1_800_000_000;

fn at(offset: i64) -> Timestamp {
    Timestamp::from_seconds(NOW + offset)
}

fn world() -> World {
    World::new(at(0))
}

/// The node of a world, as a judge.
trait Judge {
    /// An order of the owner to end version 1, approved by these.
    fn end(&self, bundle: &mut Bundle, by: &[&'static str]) -> StatementId;
    fn trust(&self) -> Trust;
    fn trust_after(&self, past: Past) -> Trust;
    fn judge(&self, bundle: &Bundle, offset: i64) -> Verdict;
}

impl Judge for World {
    fn end(&self, bundle: &mut Bundle, by: &[&'static str]) -> StatementId {
        let cancel = Cancel { issued: at(100), effective_at: at(200), ..self.cancel() };
        let cancel = seal(&cancel, self.key("owner"));
        let subject = cancel.id().unwrap();
        for name in by {
            let approval = Approval {
                subject,
                action: Action::Cancel,
                issued: at(110),
                ..self.decision(name, &bundle.headers[0], Decision::Approve)
            };
            bundle.approvals.push(seal(&approval, self.key(name)));
        }
        bundle.cancels.push(cancel);
        subject
    }

    fn trust(&self) -> Trust {
        let (farm, node) = (self.id("farm"), self.node_id());
        let free = self.node(1).capacity;
        Trust { network: NETWORK.into(), farm, node, free, past: Past::default() }
    }

    fn trust_after(&self, past: Past) -> Trust {
        Trust { past, ..self.trust() }
    }

    fn judge(&self, bundle: &Bundle, offset: i64) -> Verdict {
        verdict(bundle, &self.trust(), at(offset))
    }
}

fn code(verdict: &Verdict) -> Option<Code> {
    match verdict {
        Verdict::Refuse(refusal) => Some(refusal.code),
        Verdict::Run(_) | Verdict::Stop(_) => None,
    }
}

fn runs(verdict: &Verdict, version: u64) -> bool {
    matches!(verdict, Verdict::Run(agreed) if agreed.header.version == version)
}

#[test]
fn an_agreed_contract_runs_on_its_node() {
    let world = world();
    assert!(runs(&world.judge(&world.agreed(), 50), 1));
}

#[test]
fn removing_any_needed_approval_stops_it() {
    let world = world();
    for index in 0..2 {
        let mut bundle = world.agreed();
        bundle.approvals.remove(index);
        assert_eq!(code(&world.judge(&bundle, 50)), Some(Code::QuorumMissing));
    }
}

#[test]
fn a_reject_blocks_when_it_comes_from_a_required_or_veto_role() {
    let world = world();
    for (name, expected) in
        [("it", Some(Code::Rejected)), ("legal", Some(Code::Rejected)), ("budget", None)]
    {
        let mut bundle = world.agreed();
        let reject = world.decide(name, &bundle.headers[0], Decision::Reject, 30);
        bundle.approvals.push(reject);
        assert_eq!(code(&world.judge(&bundle, 50)), expected, "{name}");
    }
}

#[test]
fn the_latest_decision_of_each_counts() {
    let world = world();
    let mut bundle = world.agreed();
    let header = bundle.headers[0].clone();
    bundle.approvals.push(world.decide("it", &header, Decision::Withdraw, 30));
    assert_eq!(code(&world.judge(&bundle, 50)), Some(Code::QuorumMissing));
    bundle.approvals.push(world.decide("it", &header, Decision::Approve, 40));
    assert!(runs(&world.judge(&bundle, 50), 1));
    // Of the same second, the stronger stands.
    bundle.approvals.push(world.decide("it", &header, Decision::Reject, 40));
    assert_eq!(code(&world.judge(&bundle, 50)), Some(Code::Rejected));
}

#[test]
fn a_decision_after_the_closing_time_does_not_count() {
    let world = world();
    let mut bundle = world.agreed();
    let header = bundle.headers[0].clone();
    bundle.approvals[1] = world.decide("legal", &header, Decision::Approve, 1000);
    assert!(runs(&world.judge(&bundle, 2000), 1));
    bundle.approvals[1] = world.decide("legal", &header, Decision::Approve, 1001);
    assert_eq!(code(&world.judge(&bundle, 2000)), Some(Code::QuorumMissing));
}

#[test]
fn an_approval_serves_no_other_contract() {
    let world = world();
    let mut bundle = world.agreed();
    let mut other = world.header(1, None);
    other.title = "Another".into();
    let other = seal(&other, world.key("owner"));
    let replayed = world.decide("legal", &other, Decision::Approve, 10);
    bundle.approvals[1] = replayed;
    assert_eq!(code(&world.judge(&bundle, 50)), Some(Code::QuorumMissing));
}

#[test]
fn an_approval_in_somebody_elses_name_does_not_count() {
    let world = world();
    let mut bundle = world.agreed();
    let mut body = Signed::<Approval>::open(&bundle.approvals[1]).unwrap().body;
    body.comment = "forged".into();
    bundle.approvals[1] = Envelope::seal(&body, &[world.key("stranger")]).unwrap();
    assert_eq!(code(&world.judge(&bundle, 50)), Some(Code::QuorumMissing));
}

#[test]
fn the_owner_must_have_signed() {
    let world = world();
    let mut bundle = world.agreed();
    bundle.headers[0].signatures.clear();
    assert_eq!(code(&world.judge(&bundle, 50)), Some(Code::OwnerSignature));
}

#[test]
fn time_decides_when_it_starts_and_ends() {
    let world = world();
    let bundle = world.agreed();
    assert_eq!(code(&world.judge(&bundle, -1)), Some(Code::NotYet));
    assert!(runs(&world.judge(&bundle, 5000), 1));
    assert_eq!(code(&world.judge(&bundle, 5001)), Some(Code::TooLate));
    let started = world.trust_after(Past { holds: Some(Capacity::default()), ..Past::default() });
    assert!(runs(&verdict(&bundle, &started, at(9999)), 1));
    let end = verdict(&bundle, &started, at(10_000));
    assert!(matches!(end, Verdict::Stop(Ended { cause: Cause::Expired, .. })));
}

#[test]
fn an_update_needs_the_old_policy_and_the_new_one() {
    let world = world();
    let same = |_: &mut Header| {};
    assert!(runs(&world.judge(&world.updated(same, &["it", "legal"]), 50), 2));
    // Not agreed: the old version goes on.
    assert!(runs(&world.judge(&world.updated(same, &["it"]), 50), 1));
    // An owner who drops the stakeholders of version 1 does not get past them.
    let drop_legal = |header: &mut Header| {
        let it = header.policy.create.required[0];
        header.stakeholders.retain(|holder| holder.identity == it);
        for rule in
            [&mut header.policy.create, &mut header.policy.update, &mut header.policy.cancel]
        {
            rule.roles.clear();
            rule.veto_roles.clear();
            rule.min_weight = 1;
        }
    };
    assert!(runs(&world.judge(&world.updated(drop_legal, &["it"]), 50), 1));
    assert!(runs(&world.judge(&world.updated(drop_legal, &["it", "legal"]), 50), 2));
}

#[test]
fn a_version_that_does_not_follow_is_refused() {
    let world = world();
    let bundle = world.updated(|header| header.prev = Some(StatementId([0; 32])), &["it", "legal"]);
    assert_eq!(code(&world.judge(&bundle, 50)), Some(Code::BrokenChain));
    let mut gap = world.updated(|_| {}, &["it", "legal"]);
    gap.headers.remove(0);
    assert_eq!(code(&world.judge(&gap, 50)), Some(Code::BrokenChain));
}

#[test]
fn a_cancel_needs_quorum_and_comes_into_effect_at_its_time() {
    let world = world();
    let mut open = world.agreed();
    world.end(&mut open, &["it"]);
    assert!(runs(&world.judge(&open, 300), 1));

    let mut agreed = world.agreed();
    let order = world.end(&mut agreed, &["it", "legal"]);
    assert!(runs(&world.judge(&agreed, 199), 1));
    let cause = Cause::Cancelled { order, retention: Retention::Wipe };
    assert!(matches!(world.judge(&agreed, 200), Verdict::Stop(ended) if ended.cause == cause));
}

#[test]
fn a_cancel_that_the_owner_did_not_sign_has_no_effect() {
    let world = world();
    let mut bundle = world.agreed();
    world.end(&mut bundle, &["it", "legal"]);
    bundle.cancels[0].signatures.clear();
    assert!(runs(&world.judge(&bundle, 300), 1));
}

#[test]
fn a_node_runs_nothing_that_is_meant_for_another() {
    let world = world();
    let bundle = world.agreed();
    let judge = |change: &dyn Fn(&mut Trust)| {
        let mut trust = world.trust();
        change(&mut trust);
        code(&verdict(&bundle, &trust, at(50)))
    };
    assert_eq!(judge(&|_| {}), None);
    assert_eq!(judge(&|trust| trust.network = "main".into()), Some(Code::WrongNetwork));
    assert_eq!(judge(&|trust| trust.node = NodeId([8; 32])), Some(Code::WrongNode));
    assert_eq!(judge(&|trust| trust.farm = world.id("stranger")), Some(Code::PoolMismatch));
    assert_eq!(judge(&|trust| trust.free.cru_milli = 499), Some(Code::NoCapacity));
}

#[test]
fn a_document_that_was_not_signed_for_is_refused() {
    let world = world();
    let mut bundle = world.agreed();
    let mut document = world.document(1);
    let Spec::Container(container) = &mut document.workloads[0].spec else { panic!() };
    container.memory_bytes += 1;
    let path = bundle.documents[0].path.clone();
    bundle.documents[0] = Deployment::new(&serde_json::to_vec(&document).unwrap(), path);
    assert_eq!(code(&world.judge(&bundle, 50)), Some(Code::DocumentMismatch));
}

#[test]
fn the_pool_must_be_the_farms_grant_to_this_owner_and_suffice() {
    let world = world();
    let with = |edit: &dyn Fn(&mut Pool), signer: &'static str| {
        let mut pool = world.pool();
        edit(&mut pool);
        let pool = Envelope::seal(&pool, &[world.key(signer)]).unwrap();
        let mut bundle = world.agreed();
        let mut header = world.header(1, None);
        header.pool = pool.id().unwrap();
        bundle.headers = vec![seal(&header, world.key("owner"))];
        bundle.approvals = ["it", "legal"]
            .map(|name| world.decide(name, &bundle.headers[0], Decision::Approve, 10))
            .to_vec();
        bundle.pools = vec![pool];
        code(&world.judge(&bundle, 50))
    };
    assert_eq!(with(&|_| {}, "farm"), None);
    assert_eq!(with(&|_| {}, "owner"), Some(Code::PoolMismatch));
    assert_eq!(with(&|pool| pool.owner = world.id("it"), "farm"), Some(Code::PoolMismatch));
    assert_eq!(with(&|pool| pool.nodes = vec![NodeId([1; 32])], "farm"), Some(Code::PoolMismatch));
    assert_eq!(with(&|pool| pool.expires = at(50), "farm"), Some(Code::PoolExpired));
    assert_eq!(with(&|pool| pool.amounts.cu_seconds = 100, "farm"), Some(Code::PoolTooSmall));
}

#[test]
fn garbage_between_the_statements_changes_nothing() {
    let world = world();
    let mut bundle = world.agreed();
    let garbage = Envelope { payload_type: "x".into(), payload: "!".into(), signatures: vec![] };
    bundle.approvals.insert(0, garbage.clone());
    bundle.identities.insert(0, garbage.clone());
    bundle.cancels.push(garbage.clone());
    bundle.pools.insert(0, garbage.clone());
    assert!(runs(&world.judge(&bundle, 50), 1));
    bundle.headers.push(garbage);
    assert_eq!(code(&world.judge(&bundle, 50)), Some(Code::Malformed));
}

#[test]
fn codes_have_distinct_names() {
    let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Code::ALL.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn order_and_repetition_of_statements_change_nothing(
        order in Just((0..5_usize).collect::<Vec<_>>()).prop_shuffle(),
        repeat in 0..5_usize,
    ) {
        let world = world();
        let mut bundle = world.agreed();
        let header = bundle.headers[0].clone();
        bundle.approvals.push(world.decide("budget", &header, Decision::Reject, 5));
        bundle.approvals.push(world.decide("stranger", &header, Decision::Reject, 60));
        bundle.approvals.push(world.decide("it", &header, Decision::Withdraw, 7));
        let expected = world.judge(&bundle, 50);
        prop_assert!(runs(&expected, 1));
        let mut shuffled: Vec<_> = order.iter().map(|&n| bundle.approvals[n].clone()).collect();
        shuffled.push(bundle.approvals[repeat].clone());
        bundle.approvals = shuffled;
        bundle.identities.reverse();
        prop_assert_eq!(world.judge(&bundle, 50), expected);
    }
}

//! The consensus rule against a second, naive account of it, over whatever anybody may sign.
//!
//! A bundle may hold decisions of anybody, on anything, in any order, some
//! forged, some about another grid, contract, version or action. The model counts by plain words.

use super::*;
use proptest::{collection::vec, sample::select};

/// Who decides. The first two must agree; the third is neutral; the last has no say.
const DECIDING: [&str; 4] = ["it", "legal", "budget", "stranger"];
const DECISIONS: [Decision; 3] = [Decision::Approve, Decision::Withdraw, Decision::Reject];

/// What is wrong with a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// Somebody else signed in this name.
    Forged,
    OtherNetwork,
    OtherContract,
    OtherVersion,
    OtherAction,
    OtherSubject,
}

const FLAWS: [Flaw; 9] = [
    Flaw::None,
    Flaw::None,
    Flaw::None,
    Flaw::Forged,
    Flaw::OtherNetwork,
    Flaw::OtherContract,
    Flaw::OtherVersion,
    Flaw::OtherAction,
    Flaw::OtherSubject,
];

#[derive(Debug, Clone)]
struct Event {
    who: &'static str,
    version: u64,
    what: Decision,
    /// Seconds; few, so that decisions meet in one second, and some come too late.
    offset: i64,
    flaw: Flaw,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (
        select(&DECIDING[..]),
        1..=2_u64,
        select(&DECISIONS[..]),
        select(&[0, 1, 2, 1000, 1001][..]),
        select(&FLAWS[..]),
    );
    let event = event.prop_map(|(who, version, what, offset, flaw)| Event {
        who,
        version,
        what,
        offset,
        flaw,
    });
    vec(event, 0..24)
}

/// Most histories agree on nothing: in this one, both agree to a version at first.
fn agreed_before(events: Vec<Event>, version: u64) -> Vec<Event> {
    let both = ["it", "legal"].map(|who| Event {
        who,
        version,
        what: Decision::Approve,
        offset: 0,
        flaw: Flaw::None,
    });
    both.into_iter().chain(events).collect()
}

fn envelope(world: &World, bundle: &Bundle, event: &Event) -> Envelope {
    let index = usize::try_from(event.version - 1).unwrap();
    let mut decision = world.decision(event.who, &bundle.headers[index], event.what);
    decision.issued = at(event.offset);
    match event.flaw {
        Flaw::None | Flaw::Forged => {}
        Flaw::OtherNetwork => decision.network = "main".into(),
        Flaw::OtherContract => {
            decision.contract = World::new(world.now).with_contract(5).contract();
        }
        Flaw::OtherVersion => (decision.version, decision.action) = (3, Action::Update),
        Flaw::OtherAction => decision.action = Action::Cancel,
        Flaw::OtherSubject => decision.subject = StatementId([7; 32]),
    }
    let signer = if event.flaw == Flaw::Forged { "owner" } else { event.who };
    seal(&decision, world.key(signer))
}

/// What stands at the end of what somebody said about a version.
fn standing(events: &[Event], who: &str, version: u64) -> Option<Decision> {
    let counts = |event: &&Event| {
        let is_theirs = event.who == who && event.flaw == Flaw::None;
        is_theirs && event.version == version && event.offset <= 1000
    };
    let last = events.iter().filter(counts).map(|event| event.offset).max()?;
    let of_last =
        |what| events.iter().filter(counts).any(|event| event.offset == last && event.what == what);
    [Decision::Reject, Decision::Withdraw, Decision::Approve]
        .into_iter()
        .find(|&what| of_last(what))
}

/// `None`: agreed.
fn objection(events: &[Event], version: u64) -> Option<Code> {
    let said = |who| standing(events, who, version);
    let both = ["it", "legal"];
    if both.iter().any(|who| said(who) == Some(Decision::Reject)) {
        return Some(Code::Rejected);
    }
    let all_approve = both.iter().all(|who| said(who) == Some(Decision::Approve));
    (!all_approve).then_some(Code::QuorumMissing)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// No byte runs without quorum, no approval transfers, and no order of arrival matters.
    #[test]
    fn the_rule_is_what_the_model_says(events in events(), with_both in any::<bool>()) {
        let world = world();
        let mut bundle = world.updated(|_| {}, &[]);
        let said = if with_both { agreed_before(events, 1) } else { events };
        bundle.approvals = said.iter().map(|event| envelope(&world, &bundle, event)).collect();
        let verdict = world.judge(&bundle, 2000);
        match (objection(&said, 1), objection(&said, 2)) {
            (Some(objection), _) => prop_assert_eq!(code(&verdict), Some(objection)),
            (None, Some(_)) => prop_assert!(runs(&verdict, 1)),
            (None, None) => prop_assert!(runs(&verdict, 2)),
        }
    }

    /// An owner who writes a version without the old stakeholders does not get past them.
    #[test]
    fn an_update_drops_no_stakeholder_without_the_old_policy(
        events in events(),
        with_both in any::<bool>(),
    ) {
        let world = world();
        let legal = world.id("legal");
        let mut bundle = world.updated(|header| {
            header.stakeholders.retain(|holder| holder.identity != legal);
            let policy = &mut header.policy;
            for rule in [&mut policy.create, &mut policy.update, &mut policy.cancel] {
                (rule.roles, rule.veto_roles, rule.min_weight) = (vec![], vec![], 1);
            }
        }, &[]);
        let agreed = ["it", "legal"].map(|name| world.approve(name, &bundle.headers[0]));
        let mut said = if with_both { agreed_before(events, 2) } else { events };
        said.retain(|event| event.version == 2);
        let decisions = said.iter().map(|event| envelope(&world, &bundle, event));
        bundle.approvals = agreed.into_iter().chain(decisions).collect();
        let version = if objection(&said, 2).is_none() { 2 } else { 1 };
        prop_assert!(runs(&world.judge(&bundle, 2000), version));
    }
}

//! What has happened on a node is not undone by what arrives later.

use super::*;
use proptest::collection::vec;

/// A stakeholder took the approval of a cancel back, with a time before it took effect, and the
/// contract ran again.
#[test]
fn what_has_ended_stays_ended_whatever_arrives_later() {
    let world = world();
    let mut bundle = world.agreed();
    world.end(&mut bundle, &["it", "legal"]);
    let Verdict::Stop(ended) = world.judge(&bundle, 200) else { panic!("it is cancelled") };
    let after = world.trust_after(Past { ended: Some(ended.clone()), ..Past::default() });
    for back in [world.agreed(), world.updated(|_| {}, &["it", "legal"])] {
        assert!(!matches!(world.judge(&back, 200), Verdict::Stop(_)));
        assert_eq!(verdict(&back, &after, at(200)), Verdict::Stop(ended.clone()));
    }
    bundle.headers.clear();
    assert_eq!(verdict(&bundle, &after, at(0)), Verdict::Stop(ended));
}

#[test]
fn an_order_that_takes_effect_when_it_is_written_needs_no_clock() {
    let world = world();
    let mut bundle = world.agreed();
    world.end(&mut bundle, &["it", "legal"]);
    let later = Signed::<Cancel>::open(&bundle.cancels[0]).unwrap().body;
    assert_eq!(ToldBy::of(&later), ToldBy::Clock);
    let at_once = Cancel { effective_at: later.issued, ..later };
    assert_eq!(ToldBy::of(&at_once), ToldBy::Order);
    let told_by = |verdict| match verdict {
        Verdict::Stop(ended) => Some(ended.told_by),
        Verdict::Run(_) | Verdict::Refuse(_) => None,
    };
    assert_eq!(told_by(world.judge(&bundle, 200)), Some(ToldBy::Clock));
    assert_eq!(told_by(world.judge(&world.agreed(), 10_000)), Some(ToldBy::Clock));
}

/// A reject with an early time made a node fall back from version 2 to version 1.
#[test]
fn no_version_runs_below_one_that_was_in_force() {
    let world = world();
    let mut bundle = world.updated(|_| {}, &["it", "legal"]);
    let after = world.trust_after(Past { version: 2, ..Past::default() });
    assert!(runs(&verdict(&bundle, &after, at(50)), 2));
    let second = bundle.headers[1].clone();
    bundle.approvals.push(world.decide("legal", &second, Decision::Reject, 30));
    assert!(runs(&world.judge(&bundle, 50), 1), "a node that never saw version 2 in force");
    let Verdict::Refuse(refusal) = verdict(&bundle, &after, at(50)) else { panic!("it runs") };
    assert_eq!(refusal.code, Code::Rejected);
    assert!(refusal.message.contains("version 2 was in force"), "{}", refusal.message);
    // It still ends by its time, and a bundle without it does not run either.
    assert!(matches!(verdict(&bundle, &after, at(10_000)), Verdict::Stop(_)));
    let missing = code(&verdict(&world.agreed(), &after, at(50)));
    assert_eq!(missing, Some(Code::BrokenChain));
}

/// A disk died, and a contract that fits no longer was stopped though its own disk was well.
#[test]
fn what_runs_keeps_what_it_has_and_more_of_it_must_be_free() {
    let world = world();
    let bundle = world.agreed();
    let demand = world.document(1).demand();
    let none = Capacity::default();
    let judge = |holds, free| {
        let trust = Trust { free, ..world.trust_after(Past { holds, ..Past::default() }) };
        verdict(&bundle, &trust, at(50))
    };
    assert_eq!(code(&judge(None, none)), Some(Code::NoCapacity));
    assert!(runs(&judge(Some(demand), none), 1));
    let less = Capacity { mru_bytes: demand.mru_bytes - 1, ..demand };
    assert_eq!(code(&judge(Some(less), none)), Some(Code::NoCapacity));
    assert!(runs(&judge(Some(less), Capacity { mru_bytes: demand.mru_bytes, ..none }), 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever subset arrives of whatever anybody signs, with whatever time they write.
    #[test]
    fn the_past_is_never_undone(
        times in vec(-100_i64..900, 6),
        kept in vec(any::<bool>(), 16),
        now in -100_i64..20_000,
    ) {
        let world = world();
        let mut bundle = world.updated(|_| {}, &["it", "legal"]);
        let ended = {
            let mut cancelled = world.agreed();
            world.end(&mut cancelled, &["it", "legal"]);
            let Verdict::Stop(ended) = world.judge(&cancelled, 200) else { panic!("cancelled") };
            bundle.cancels = cancelled.cancels;
            bundle.approvals.extend(cancelled.approvals);
            ended
        };
        let (first, second) = (bundle.headers[0].clone(), bundle.headers[1].clone());
        for (n, &time) in times.iter().enumerate() {
            let about = if n % 2 == 0 { &first } else { &second };
            let what = [Decision::Reject, Decision::Withdraw, Decision::Approve][n % 3];
            let who = ["it", "legal"][n / 3];
            bundle.approvals.push(world.decide(who, about, what, time));
        }
        let mut kept = kept.into_iter().cycle();
        bundle.approvals.retain(|_| kept.next() == Some(true));
        if kept.next() == Some(true) {
            bundle.headers.pop();
        }
        let updated = world.trust_after(Past { version: 2, ..Past::default() });
        prop_assert!(!runs(&verdict(&bundle, &updated, at(now)), 1));
        let cancelled = Past { version: 1, ended: Some(ended.clone()), ..Past::default() };
        let verdict = verdict(&bundle, &world.trust_after(cancelled), at(now));
        prop_assert_eq!(verdict, Verdict::Stop(ended));
    }
}

/// Who looks back judges as somebody did to whom the rest had not been told yet.
#[test]
fn a_case_with_only_some_statements_is_that_of_a_bundle_with_them() {
    let world = world();
    let mut bundle = world.updated(|_| {}, &["it", "legal"]);
    world.end(&mut bundle, &["it", "budget", "legal"]);
    let reject = world.decide("legal", &bundle.headers[0].clone(), Decision::Reject, 30);
    bundle.approvals.push(reject);
    let whole = Case::read(&bundle).unwrap();
    let ids: Vec<_> = [&bundle.headers, &bundle.approvals, &bundle.cancels]
        .into_iter()
        .flatten()
        .map(|envelope| envelope.id().unwrap())
        .collect();
    let mut agreed = 0;
    for chosen in 0..1_u32 << ids.len() {
        let is_there = |id: &StatementId| {
            ids.iter().position(|one| one == id).is_some_and(|place| chosen >> place & 1 == 1)
        };
        let keep = |list: &[Envelope]| {
            list.iter().filter(|one| is_there(&one.id().unwrap())).cloned().collect::<Vec<_>>()
        };
        let some = Bundle {
            // The second does not follow without the first: nobody could have heard of it alone.
            headers: if is_there(&ids[0]) { keep(&bundle.headers) } else { vec![] },
            approvals: keep(&bundle.approvals),
            cancels: keep(&bundle.cancels),
            ..bundle.clone()
        };
        let (told, only) = (Case::read(&some), whole.with_only(is_there));
        for offset in [50, 150, 250] {
            let verdict =
                |case: &Result<Case, Refusal>| judge(case.as_ref(), &world.trust(), at(offset));
            assert_eq!(verdict(&told), verdict(&only), "{chosen:b} at {offset}");
            agreed += usize::from(matches!(verdict(&only), Verdict::Run(_)));
        }
        if let (Ok(told), Ok(only)) = (told, only) {
            let standing = |case: &Case| -> Vec<_> {
                case.standing_on(0).iter().map(|one| (one.statement, one.holder.role)).collect()
            };
            assert_eq!(standing(&told), standing(&only));
        }
    }
    assert!(agreed > 0, "positive control");
}

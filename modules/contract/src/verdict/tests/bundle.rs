//! What a bundle needs, what it may carry besides, and when nothing in it helps any more.

use super::*;
use proptest::collection::vec;

type List = fn(&mut Bundle) -> &mut Vec<Envelope>;

/// Every list of statements of a bundle.
const LISTS: [List; 5] = [
    |bundle| &mut bundle.headers,
    |bundle| &mut bundle.approvals,
    |bundle| &mut bundle.cancels,
    |bundle| &mut bundle.identities,
    |bundle| &mut bundle.pools,
];

/// An agreed contract with nothing that it does not need.
fn bare(world: &World) -> Bundle {
    let identities = ["owner", "it", "legal", "farm"].map(|name| world.identity(name)).to_vec();
    Bundle { identities, ..world.agreed() }
}

#[test]
fn without_any_one_statement_that_is_needed_nothing_runs() {
    let world = world();
    let whole = bare(&world);
    assert!(runs(&world.judge(&whole, 50), 1));
    let mut left_out = 0;
    for list in LISTS {
        for place in 0..list(&mut whole.clone()).len() {
            let (mut without, mut unsigned) = (whole.clone(), whole.clone());
            list(&mut without).remove(place);
            list(&mut unsigned)[place].signatures.clear();
            for less in [without, unsigned] {
                let verdict = world.judge(&less, 50);
                assert!(matches!(verdict, Verdict::Refuse(_)), "{verdict:?}");
            }
            left_out += 1;
        }
    }
    assert_eq!(left_out, 8, "header, two approvals, four identities, pool");
    let without = Bundle { documents: vec![], ..whole };
    assert_eq!(code(&world.judge(&without, 50)), Some(Code::WrongNode));
}

/// A node that is cut off, or somebody with a file, has no less than a registry could say.
#[test]
fn a_bundle_that_was_kept_as_a_file_is_judged_as_before() {
    let world = world();
    for (bundle, version) in [(world.agreed(), 1), (world.updated(|_| {}, &["it", "legal"]), 2)] {
        let file = serde_json::to_vec(&bundle).unwrap();
        let kept = Bundle::read(&file).unwrap();
        assert_eq!(kept, bundle);
        assert!(runs(&world.judge(&kept, 50), version));
        assert!(matches!(world.judge(&kept, 10_000), Verdict::Stop(_)));
    }
}

/// Somebody put the farm's grant into the bundle a second time, without its signature and in front, and
/// the contract stopped for lack of a pool.
#[test]
fn an_unsigned_copy_does_not_hide_what_is_signed() {
    let world = world();
    for list in LISTS.into_iter().skip(1) {
        let mut bundle = world.agreed();
        let list = list(&mut bundle);
        let mut copies = list.clone();
        for copy in &mut copies {
            copy.signatures.clear();
        }
        list.splice(0..0, copies);
        assert!(runs(&world.judge(&bundle, 50), 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The signatures of strangers, statements of theirs, the same again, another order.
    #[test]
    fn what_nobody_asked_for_changes_nothing(
        versions in 1..=2_u64,
        by in 0..4_usize,
        with_end in any::<bool>(),
        surplus in vec((0..5_usize, 0..16_usize, 0..4_u8), 0..12),
        offset in prop::sample::select(&[50, 250, 5001, 10_000][..]),
    ) {
        let world = world();
        let by = [&[][..], &["it"], &["legal", "budget"], &["it", "legal"]][by];
        let mut bundle = if versions == 2 { world.updated(|_| {}, by) } else { world.agreed() };
        if with_end {
            world.end(&mut bundle, by);
        }
        let expected = world.judge(&bundle, offset);
        for (list, place, what) in surplus {
            let list = LISTS[list](&mut bundle);
            let Some(place) = place.checked_rem(list.len()) else { continue };
            match what {
                0 => list[place].sign(world.key("stranger")).unwrap(),
                // Versions stand in their order: none comes twice.
                _ if list[0].kind() == Some(crate::Kind::Contract) => {}
                1 => list.push(list[place].clone()),
                2 => list.reverse(),
                _ => {
                    let mut signed_by_none = list[place].clone();
                    signed_by_none.signatures.clear();
                    signed_by_none.sign(world.key("stranger")).unwrap();
                    list.push(signed_by_none);
                }
            }
        }
        prop_assert_eq!(world.judge(&bundle, offset), expected);
    }

    /// On a node that hears nothing more as well: its clock suffices.
    #[test]
    fn what_has_expired_or_was_cancelled_does_not_run(
        decisions in vec((0..4_usize, 0..3_usize, -100_i64..1000), 0..8),
        started in any::<bool>(),
        after in 0_i64..1_000_000,
    ) {
        let world = world();
        let mut bundle = world.agreed();
        let header = bundle.headers[0].clone();
        for (who, what, time) in decisions {
            let who = ["it", "legal", "budget", "stranger"][who];
            let what = [Decision::Approve, Decision::Withdraw, Decision::Reject][what];
            bundle.approvals.push(world.decide(who, &header, what, time));
        }
        let holds = started.then(|| world.document(1).demand());
        let trust = world.trust_after(Past { holds, ..Past::default() });
        let expired = verdict(&bundle, &trust, at(10_000 + after));
        prop_assert!(!matches!(expired, Verdict::Run(_)));
        world.end(&mut bundle, &["it", "legal"]);
        let cancelled = verdict(&bundle, &trust, at(200 + after));
        prop_assert!(!matches!(cancelled, Verdict::Run(_)));
    }
}

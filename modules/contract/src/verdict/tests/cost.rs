//! What a verdict costs: signatures are checked once for a bundle, however often it is judged.

use super::*;
use crate::{logged::Logged, proven::Proven, testkit::checks};

/// What the node that is described by `trust` says of a case at several times.
fn verdicts(case: &Result<Case, Refusal>, trust: &Trust) -> Vec<Verdict> {
    [-10, 50, 200, 5001, 10_000].map(|time| judge(case.as_ref(), trust, at(time))).to_vec()
}

/// One customer's contracts of many versions, decided on by many with many keys, kept a node counting
/// for minutes, each second anew.
#[test]
fn a_case_is_judged_without_another_look_at_its_signatures() {
    let world = world();
    let bundle = world.updated(|_| {}, &["it", "legal"]);
    let mut case = Case::read(&Bundle { headers: vec![], ..bundle.clone() });
    let once = checks(|| case = Case::read(&bundle));
    let statements = bundle.headers.len() + bundle.approvals.len() + bundle.pools.len();
    assert_eq!(once, (statements + bundle.identities.len()) as u64, "each statement once");
    let again = checks(|| {
        let verdicts = verdicts(&case, &world.trust());
        assert!(runs(&verdicts[1], 2) && matches!(verdicts[4], Verdict::Stop(_)));
    });
    assert_eq!(again, 0);
}

#[test]
fn of_a_bundle_that_has_grown_only_what_is_new_is_checked() {
    let world = world();
    let first = Case::read(&world.agreed()).unwrap();
    let mut grown = world.updated(|_| {}, &["it"]);
    let mut case = Case::read_after(&grown, first.proven(), &Logged::NotAsked);
    let new = checks(|| case = Case::read_after(&grown, first.proven(), &Logged::NotAsked));
    assert_eq!(new, 2, "the second version and one approval");
    // The same statement with other signatures is another question.
    let stranger = world.key("stranger");
    grown.headers[0].signatures.clear();
    grown.headers[0].sign(stranger).unwrap();
    let case = Case::read_after(&grown, case.unwrap().proven(), &Logged::NotAsked);
    assert_eq!(code(&judge(case.as_ref(), &world.trust(), at(50))), Some(Code::OwnerSignature));
}

/// As a registry without anybody's keys may change it.
fn changed(mut bundle: Bundle, edits: &[(u8, usize)]) -> Bundle {
    for &(edit, place) in edits {
        let lists: [fn(&mut Bundle) -> &mut Vec<Envelope>; 4] = [
            |bundle| &mut bundle.headers,
            |bundle| &mut bundle.approvals,
            |bundle| &mut bundle.identities,
            |bundle| &mut bundle.pools,
        ];
        let list = lists[place % 4](&mut bundle);
        let place = place / 4 % list.len().max(1);
        match (edit, list.is_empty()) {
            (_, true) => {}
            (0, _) => drop(list.remove(place)),
            (1, _) => list[place].signatures.clear(),
            (2, _) => list[place].signatures = list[0].signatures.clone(),
            _ => list.swap(0, place),
        }
    }
    bundle
}

proptest! {
    #[test]
    fn what_is_known_to_be_right_changes_no_verdict(
        before in proptest::collection::vec((0..4_u8, 0..64_usize), 0..4),
        after in proptest::collection::vec((0..4_u8, 0..64_usize), 0..4),
    ) {
        let world = world();
        let bundle = world.updated(|_| {}, &["it", "legal"]);
        let none = Proven::default();
        let known = Case::read(&changed(bundle.clone(), &before));
        let known = known.as_ref().map_or(&none, Case::proven);
        let later = changed(bundle, &after);
        let cases = (Case::read_after(&later, known, &Logged::NotAsked), Case::read(&later));
        let trust = world.trust();
        prop_assert_eq!(verdicts(&cases.0, &trust), verdicts(&cases.1, &trust));
        prop_assert_eq!(&verdicts(&cases.1, &trust)[1], &verdict(&later, &trust, at(50)));
    }
}

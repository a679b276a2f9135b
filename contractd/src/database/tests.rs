//! What survives reopening, and what never comes back.

use super::*;
use crate::merge::empty;

fn open(directory: &Path) -> Database {
    let (database, problem) = Database::open(directory).unwrap();
    assert_eq!(problem, None);
    database
}

#[test]
fn contracts_and_facts_survive_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let id = ContractId([1; 32]);
    {
        let database = open(directory.path());
        assert!(database.keep(&id, &empty(), 1, usize::MAX).unwrap());
        database.note_start(&id, &Capacity::default()).unwrap();
        database.set_fact("a", "b").unwrap();
    }
    let database = open(directory.path());
    let kept = database.contracts().unwrap();
    assert_eq!((kept[0].id, kept[0].started), (id, Some(1)));
    assert_eq!(database.fact("a").unwrap().as_deref(), Some("b"));
}

#[test]
fn what_was_proven_stays_proven_until_other_keys_are_asked() {
    let directory = tempfile::tempdir().unwrap();
    let id = ContractId([1; 32]);
    {
        let mut database = open(directory.path());
        assert!(!database.ask_log("one").unwrap());
        assert!(database.keep(&id, &empty(), 0, usize::MAX).unwrap());
        database.note_logged(&id, 2).unwrap();
        database.note_logged(&id, 1).unwrap();
        database.set_facts(&[(LOG_HELD, "this".to_owned())]).unwrap();
    }
    let mut database = open(directory.path());
    assert!(database.ask_log("one").unwrap());
    let kept = &database.contracts().unwrap()[0];
    assert_eq!((kept.logged, kept.past.version), (2, 2), "never less");
    assert_eq!(database.fact(LOG_HELD).unwrap().as_deref(), Some("this"));
    assert!(!database.ask_log("two").unwrap());
    let kept = &database.contracts().unwrap()[0];
    assert_eq!((kept.logged, kept.past.version), (0, 2));
    assert_eq!(database.fact(LOG_HELD).unwrap(), None);
}

#[test]
fn the_order_of_first_starts_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let ids = [ContractId([2; 32]), ContractId([1; 32])];
    for id in &ids {
        assert!(database.keep(id, &empty(), 1, usize::MAX).unwrap());
    }
    for id in ids.iter().chain(&ids) {
        database.note_start(id, &Capacity::default()).unwrap();
    }
    let order: Vec<_> = database.contracts().unwrap().iter().map(|kept| kept.started).collect();
    assert_eq!(order, [Some(2), Some(1)]);
}

#[test]
fn a_result_leaves_the_outbox_only_when_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = open(directory.path());
    let contract = ContractId([1; 32]);
    let envelope =
        Envelope { payload_type: "t".into(), payload: "cA==".into(), signatures: vec![] };
    for seq in 1..=3 {
        let id = StatementId([u8::try_from(seq).unwrap(); 32]);
        assert!(database.post(&contract, "{}", seq, &id, &envelope).unwrap());
    }
    assert_eq!(database.outbox(10).unwrap().len(), 3);
    database.acknowledge(&[1, 2]).unwrap();
    assert_eq!(database.outbox(10).unwrap().len(), 1);
    assert_eq!(database.chain().unwrap(), Some((3, StatementId([3; 32]))));
}

#[test]
fn an_unreadable_database_is_kept_aside_and_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let rubbish = vec![0x5a; 8192];
    std::fs::write(directory.path().join("contractd.db"), &rubbish).unwrap();
    let (database, problem) = Database::open(directory.path()).unwrap();
    assert!(problem.unwrap().contains("unreadable-1"));
    assert!(database.contracts().unwrap().is_empty());
    let aside = std::fs::read(directory.path().join("contractd.unreadable-1")).unwrap();
    assert_eq!(aside, rubbish);
}

fn end_of(contract: ContractId) -> Ended {
    Ended {
        contract,
        version: 3,
        header_id: StatementId([7; 32]),
        cause: Cause::Cancelled { order: StatementId([8; 32]), retention: Retention::Wipe },
        expires: Timestamp::from_seconds(1_900_000_000),
        told_by: ToldBy::Order,
    }
}

#[test]
fn an_end_is_kept_for_ever_and_the_bundle_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let id = ContractId([1; 32]);
    let ended = end_of(id);
    {
        let database = open(directory.path());
        assert!(database.keep(&id, &empty(), 2, usize::MAX).unwrap());
        assert!(database.note_end(&ended).unwrap());
        // Another order changes nothing, nor does another bundle.
        let later = Ended { version: 9, ..ended.clone() };
        assert!(!database.note_end(&later).unwrap());
        assert!(!database.keep(&id, &empty(), 9, usize::MAX).unwrap());
        let expired = Ended { cause: Cause::Expired, ..ended.clone() };
        assert!(!database.note_end(&expired).unwrap(), "an expiry is not final");
    }
    let kept = &open(directory.path()).contracts().unwrap()[0];
    assert_eq!((kept.past.ended.as_ref(), kept.past.version), (Some(&ended), 3));
    assert_eq!(*kept.bundle, empty());
}

#[test]
fn the_highest_version_and_what_a_contract_holds_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let id = ContractId([1; 32]);
    let holds = Capacity { cru_milli: 5, ..Capacity::default() };
    {
        let database = open(directory.path());
        for version in [1, 3, 2] {
            assert!(database.keep(&id, &empty(), version, usize::MAX).unwrap());
        }
        database.note_start(&id, &Capacity::default()).unwrap();
        database.note_start(&id, &holds).unwrap();
    }
    let kept = &open(directory.path()).contracts().unwrap()[0];
    assert_eq!((kept.started, kept.past.version, kept.past.holds), (Some(1), 3, Some(holds)));
}

#[test]
fn a_database_of_an_image_before_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let id = ContractId([1; 32]);
    {
        let old = Connection::open(directory.path().join("contractd.db")).unwrap();
        old.execute_batch(FIRST).unwrap();
        let bundle = serde_json::to_vec(&empty()).unwrap();
        let row = params![id.to_string(), bundle];
        old.execute("INSERT INTO contract (id, bundle, started) VALUES (?1, ?2, 1)", row).unwrap();
    }
    for _ in 0..2 {
        let kept = &open(directory.path()).contracts().unwrap()[0];
        assert_eq!((kept.id, kept.started), (id, Some(1)));
        assert_eq!(kept.past, Past { holds: Some(Capacity::default()), ..Past::default() });
    }
}

#[test]
fn ended_contracts_have_room_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let id = |n: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        ContractId(id)
    };
    database.0.execute_batch("BEGIN").unwrap();
    for n in 0..CONTRACTS_MAX {
        assert_eq!(database.room(0, None).unwrap(), Room::Enough);
        assert!(database.keep(&id(n), &empty(), 1, usize::MAX).unwrap());
    }
    assert_eq!(database.room(0, None).unwrap(), Room::FullOfLiving);
    let next = id(CONTRACTS_MAX);
    assert!(!database.keep(&next, &empty(), 1, usize::MAX).unwrap());
    assert!(database.keep(&id(0), &empty(), 2, usize::MAX).unwrap(), "what is kept can change");
    database.note_end(&end_of(id(0))).unwrap();
    assert!(database.keep(&next, &empty(), 1, usize::MAX).unwrap());
    database.evict(&next).unwrap();
    assert_eq!(database.room(0, None).unwrap(), Room::Enough);
    for n in 0..CONTRACTS_MAX + ENDED_MAX {
        database.keep(&id(n), &empty(), 1, usize::MAX).unwrap();
        database.note_end(&end_of(id(n))).unwrap();
    }
    assert_eq!(database.room(0, None).unwrap(), Room::FullOfEnded);
    assert!(!database.keep(&id(u32::MAX), &empty(), 1, usize::MAX).unwrap());
}

/// What stops a contract is taken on top of a bundle that is full, and must be there after a restart.
#[test]
fn a_bundle_that_is_larger_than_any_that_comes_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let id = ContractId([1; 32]);
    let path = contract::merkle::Path { index: 0, siblings: vec![] };
    let bytes = vec![0; BUNDLE_BYTES_MAX];
    let mut bundle = empty();
    bundle.documents.push(contract::bundle::Deployment::new(&bytes, path));
    assert!(open(directory.path()).keep(&id, &bundle, 0, usize::MAX).unwrap());
    let kept = open(directory.path()).contracts().unwrap();
    assert!(kept.len() == 1 && *kept[0].bundle == bundle);
}

#[test]
fn all_bundles_together_have_a_bound() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let [first, second] = [ContractId([1; 32]), ContractId([2; 32])];
    let bytes = serde_json::to_vec(&empty()).unwrap().len();
    assert!(database.keep(&first, &empty(), 0, bytes).unwrap());
    assert!(database.keep(&first, &empty(), 0, bytes).unwrap(), "its own bytes count once");
    assert!(!database.keep(&second, &empty(), 0, 2 * bytes - 1).unwrap());
    assert!(database.keep(&second, &empty(), 0, 2 * bytes).unwrap());
    assert_eq!(database.room(BUNDLES_BYTES_MAX - 2 * bytes, None).unwrap(), Room::Enough);
    assert_eq!(database.room(BUNDLES_BYTES_MAX - 2 * bytes + 1, None).unwrap(), Room::FullOfLiving);
}

//! Who has signed what, and what that is worth: witnesses, quorums, proofs that travel.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "the whole file is tests"
)]

use std::convert::Infallible;
use tlog::{
    Algorithm, Checkpoint, Edge, Note, Policy, Proof, Signer, Verifier,
    checkpoint::OpenError,
    policy::{BadPolicy, PolicyError},
    proof::{BadProof, ProofError},
    tree,
    witness::{AddCheckpoint, Refusal},
};

const ORIGIN: &str = "log.example/main";

fn log() -> Signer {
    Signer::new(ORIGIN, Algorithm::Ed25519, &[1; 32]).unwrap()
}

fn witness(number: u8) -> Signer {
    let name = format!("witness.example/{number}");
    Signer::new(&name, Algorithm::Cosignature, &[100 + number; 32]).unwrap()
}

fn keys(numbers: &[u8]) -> Vec<Verifier> {
    numbers.iter().map(|number| witness(*number).verifier().clone()).collect()
}

/// A tree whose leaf number `n` says `fork` and `n`.
fn checkpoint(size: u64, fork: &str) -> Checkpoint {
    let mut edge = Edge::default();
    (0..size).for_each(|n| edge.push(leaf(n, fork), |_, _| {}));
    Checkpoint { origin: ORIGIN.into(), size, root: edge.root(), extensions: vec![] }
}

fn leaf(index: u64, fork: &str) -> tlog::Hash {
    tree::leaf(format!("{fork} {index}").as_bytes())
}

fn prove(ranges: Vec<std::ops::Range<u64>>, fork: &str) -> Vec<tlog::Hash> {
    let hash_of = |node: tree::Node| {
        let mut edge = Edge::default();
        let first = node.index << node.level;
        (first..first + (1 << node.level)).for_each(|n| edge.push(leaf(n, fork), |_, _| {}));
        Ok::<_, Infallible>(edge.root())
    };
    let Ok(hashes) = tree::hashes(ranges, hash_of);
    hashes
}

fn note(checkpoint: &Checkpoint, cosigners: &[(u8, u64)]) -> Note {
    let text = checkpoint.to_string();
    let mut note = Note::new(text.clone()).unwrap();
    note.add(log().sign(&text, 0)).unwrap();
    for (number, time) in cosigners {
        note.add(witness(*number).sign(&text, *time)).unwrap();
    }
    note
}

fn request(old: u64, new: &Checkpoint, proof: Vec<tlog::Hash>) -> AddCheckpoint {
    let made = AddCheckpoint { old, proof, checkpoint: new.clone(), note: note(new, &[]) };
    let read = AddCheckpoint::read(made.to_string().as_bytes()).unwrap();
    assert_eq!(read, made);
    read
}

#[test]
fn a_witness_goes_along_with_a_log_that_grows() {
    let known = [log().verifier().clone()];
    let (three, eight) = (checkpoint(3, "a"), checkpoint(8, "a"));
    let first = request(0, &three, vec![]);
    assert_eq!(first.judge(&known, None), Ok(()));
    let proof = prove(tree::consistency(3, 8).unwrap(), "a");
    assert_eq!(request(3, &eight, proof).judge(&known, Some(&three)), Ok(()));
    assert_eq!(request(8, &eight, vec![]).judge(&known, Some(&eight)), Ok(()), "the same again");
    assert_eq!(request(0, &checkpoint(0, ""), vec![]).judge(&known, None), Ok(()));
}

#[test]
fn a_witness_refuses_each_other_thing_with_its_status() {
    let known = [log().verifier().clone()];
    let (three, eight, fork) = (checkpoint(3, "a"), checkpoint(8, "a"), checkpoint(8, "b"));
    let proof = || prove(tree::consistency(3, 8).unwrap(), "a");
    let forked = prove(tree::consistency(3, 8).unwrap(), "b");
    let conflict = request(0, &eight, vec![]).judge(&known, Some(&three)).unwrap_err();
    assert_eq!(conflict, Refusal::Conflict { old: 0, size: 3 });
    assert_eq!((conflict.status(), conflict.size_line().as_deref()), (409, Some("3\n")));
    let rootless = Checkpoint { size: 0, ..eight.clone() };
    let mut unsigned = request(3, &eight, proof());
    unsigned.checkpoint = fork.clone();
    unsigned.note =
        Note::read(note(&fork, &[]).to_string().replace(ORIGIN, "log.example/other").as_bytes())
            .unwrap();
    for (what, request, last, status) in [
        ("old above new", request(9, &eight, vec![]), Some(&eight), 400),
        ("no longer the newest", request(3, &eight, proof()), Some(&eight), 409),
        ("another tree", request(3, &fork, forked), Some(&three), 422),
        ("no proof", request(3, &eight, vec![]), Some(&three), 422),
        ("a proof to the same", request(8, &eight, proof()), Some(&eight), 422),
        ("a proof from nothing", request(0, &eight, proof()), None, 422),
        ("the same size, another root", request(8, &fork, vec![]), Some(&eight), 422),
        ("an empty tree with a root", request(0, &rootless, vec![]), None, 422),
        ("not signed", unsigned, Some(&three), 403),
    ] {
        let refusal = request.judge(&known, last).unwrap_err();
        assert_eq!(refusal.status(), status, "{what}: {refusal}");
    }
    let other = [witness(1).verifier().clone()];
    let stranger = request(3, &eight, proof()).judge(&other, Some(&three)).unwrap_err();
    assert_eq!(stranger.status(), 403);
}

#[test]
fn a_request_has_one_form() {
    let eight = checkpoint(8, "a");
    let good = request(3, &eight, prove(tree::consistency(3, 8).unwrap(), "a")).to_string();
    assert!(AddCheckpoint::read(good.as_bytes()).is_ok());
    let hash = good.lines().nth(1).unwrap();
    for bad in [
        good.replace("old 3", "old 03"),
        good.replace("old 3", "old -3"),
        good.replace("old 3", "old  3"),
        good.replace("old 3", "old 4611686018427387905"),
        good.replace("old 3\n", ""),
        good.replace("old 3\n", "old 3\n\n"),
        good.replace(hash, &hash[1..]),
        good.replace(hash, &[hash; 70].join("\n")),
        good.replace("\n8\n", "\neight\n"),
        good.replace('\n', "\r\n"),
        good.trim_end().to_owned(),
        "x".repeat(1 << 20),
        String::new(),
    ] {
        assert!(AddCheckpoint::read(bad.as_bytes()).is_err(), "{bad:.200}");
    }
}

#[test]
fn a_checkpoint_counts_when_enough_witnesses_have_seen_it() {
    let policy = |known: &[u8], quorum| {
        Policy::new(ORIGIN, vec![log().verifier().clone()], keys(known), quorum)
    };
    let three_of_five = policy(&[1, 2, 3, 4, 5], 3).unwrap();
    let eight = checkpoint(8, "a");
    let open = |policy: &Policy, cosigners: &[(u8, u64)]| {
        policy.open(note(&eight, cosigners).to_string().as_bytes())
    };
    let seen = open(&three_of_five, &[(1, 50), (2, 40), (4, 30), (5, 20)]).unwrap();
    assert_eq!((seen.checkpoint, seen.time), (eight.clone(), Some(30)));
    let few = |count| Err(PolicyError::Quorum { count, quorum: 3 });
    assert_eq!(open(&three_of_five, &[(1, 50), (2, 40)]), few(2));
    assert_eq!(open(&three_of_five, &[(1, 50), (2, 40), (9, 30)]), few(2), "a stranger");
    assert_eq!(open(&three_of_five, &[(1, 50), (1, 60), (1, 70)]), few(1), "one, three times");
    let none = policy(&[], 0).unwrap();
    assert_eq!(open(&none, &[]).unwrap().time, None);
    // A known witness that has signed something else spoils the note.
    let text = note(&eight, &[(1, 50), (2, 40), (3, 30)]).to_string();
    let line = witness(4).sign("something else\n", 10);
    let spoiled = policy(&[1, 2, 3, 4], 3).unwrap().open(format!("{text}{line}").as_bytes());
    assert!(matches!(spoiled, Err(PolicyError::Forged(_))));
    assert!(policy(&[1, 2, 3], 3).unwrap().open(format!("{text}{line}").as_bytes()).is_ok());
    let other = Policy::new("log.example/other", vec![log().verifier().clone()], vec![], 0);
    assert!(matches!(open(&other.unwrap(), &[]), Err(PolicyError::Open(OpenError::Origin { .. }))));
}

/// Every way in which up to four witnesses can sign two trees of one log, under each quorum.
#[test]
fn to_show_two_readers_different_trees_as_many_witnesses_must_lie_as_the_policy_says() {
    /// What a witness has cosigned: one tree or the other; a liar both.
    const SIGNED: [[bool; 2]; 3] = [[true, false], [false, true], [true, true]];
    let trees = [checkpoint(8, "a"), checkpoint(8, "b")];
    // An honest one does not go along with the second.
    let second = request(8, &trees[1], vec![]);
    assert!(second.judge(&[log().verifier().clone()], Some(&trees[0])).is_err());
    for count in 1_u8..=4 {
        let all: Vec<u8> = (1..=count).collect();
        let mut fewest = vec![None; usize::from(count) + 1];
        for choice in 0..3_usize.pow(u32::from(count)) {
            let signed = |witness: u8| SIGNED[choice / 3_usize.pow(u32::from(witness) - 1) % 3];
            let liars = all.iter().filter(|witness| signed(**witness) == [true, true]).count();
            let notes = [0, 1].map(|tree| {
                let cosigners = all.iter().filter(|witness| signed(**witness)[tree]);
                let cosigners: Vec<_> = cosigners.map(|witness| (*witness, 50)).collect();
                note(&trees[tree], &cosigners).to_string()
            });
            for (quorum, fewest) in fewest.iter_mut().enumerate().skip(1) {
                let policy =
                    Policy::new(ORIGIN, vec![log().verifier().clone()], keys(&all), quorum);
                let policy = policy.unwrap();
                if notes.iter().all(|note| policy.open(note.as_bytes()).is_ok()) {
                    *fewest = Some(fewest.map_or(liars, |fewest: usize| fewest.min(liars)));
                }
            }
        }
        for (quorum, fewest) in fewest.into_iter().enumerate().skip(1) {
            let wanted = (2 * quorum).saturating_sub(usize::from(count));
            assert_eq!(fewest, Some(wanted), "{quorum} of {count}");
        }
    }
}

#[test]
fn a_policy_that_cannot_mean_what_it_says_is_refused() {
    let log = || vec![log().verifier().clone()];
    let refused = |keys, witnesses, quorum| Policy::new(ORIGIN, keys, witnesses, quorum).err();
    assert_eq!(refused(vec![], keys(&[1]), 1), Some(BadPolicy::Keys));
    assert_eq!(refused(keys(&[1]), keys(&[1]), 1), Some(BadPolicy::Keys));
    assert_eq!(refused(log(), log(), 1), Some(BadPolicy::Witnesses));
    assert_eq!(refused(log(), keys(&[1]), 2), Some(BadPolicy::Quorum { quorum: 2, count: 1 }));
    let key = *witness(1).verifier().key();
    let renamed = Verifier::new("witness.example/two", Algorithm::Cosignature, key).unwrap();
    let twice = [keys(&[1]), vec![renamed]].concat();
    assert!(matches!(refused(log(), twice, 2), Some(BadPolicy::Twice { .. })));
    assert_eq!(refused(log(), keys(&[1, 2]), 2), None);
}

#[test]
fn a_proof_travels_and_proves_one_entry_at_one_place() {
    let eight = checkpoint(8, "a");
    let policy = Policy::new(ORIGIN, vec![log().verifier().clone()], keys(&[1, 2]), 2).unwrap();
    let path = prove(tree::inclusion(5, 8).unwrap(), "a");
    let note = note(&eight, &[(1, 50), (2, 40)]);
    let made = Proof { extra: Some(b"anything".to_vec()), index: 5, path, note };
    let text = made.to_string();
    assert!(text.starts_with("c2sp.org/tlog-proof@v1\nextra YW55dGhpbmc=\nindex 5\n"));
    let proof = Proof::read(text.as_bytes()).unwrap();
    assert_eq!(proof, made);
    assert_eq!(proof.check(&leaf(5, "a"), &policy).unwrap().time, Some(40));
    let absent = Err(ProofError::Absent { index: 5, size: 8 });
    assert_eq!(proof.check(&leaf(5, "b"), &policy), absent);
    assert_eq!(proof.check(&leaf(4, "a"), &policy), absent);
    let strict = Policy::new(ORIGIN, vec![log().verifier().clone()], keys(&[1, 3]), 2).unwrap();
    assert!(matches!(proof.check(&leaf(5, "a"), &strict), Err(ProofError::Policy(_))));
    let hash = text.lines().nth(3).unwrap();
    for bad in [
        text.replace("@v1", "@v2"),
        text.replace("index 5", "index 05"),
        text.replace("index 5\n", ""),
        text.replace("extra ", "extra"),
        text.replace("YW55dGhpbmc=", "!!"),
        text.replace("extra YW55dGhpbmc=\nindex 5", "index 5\nextra YW55dGhpbmc="),
        text.replace(hash, "AAAA"),
        text.replace(hash, &[hash; 70].join("\n")),
    ] {
        assert_eq!(Proof::read(bad.as_bytes()), Err(BadProof::Shape), "{bad}");
    }
    let bare = Proof { extra: None, ..made };
    assert_eq!(Proof::read(bare.to_string().as_bytes()), Ok(bare));
}

#[test]
fn a_secret_key_is_written_and_read() {
    let text = Signer::write("witness.example/1", Algorithm::Cosignature, &[101; 32]).unwrap();
    let read = Signer::read(&text).unwrap();
    assert_eq!(read.verifier(), witness(1).verifier());
    assert!(Signer::read(&text.replace("example", "Example")).is_err(), "the id names the name");
    for bad in ["", "with space", "with+plus", "line\n", "no\u{a0}break", &"x".repeat(256)] {
        assert!(Signer::new(bad, Algorithm::Ed25519, &[1; 32]).is_err(), "{bad}");
    }
}

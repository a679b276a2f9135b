//! Every answer of a log that is not taken, each beside one that is.

use super::*;
use contract::{
    Envelope, Timestamp,
    testkit::{World, seal},
};
use node_api::boot::BootConfig;
use tlog::{Algorithm, Edge, Hash, Note, Proof, Record, Resource, Signer, tree};

const ORIGIN: &str = "log.example/test";

fn signer(name: &str, algorithm: Algorithm, seed: u8) -> Signer {
    Signer::new(name, algorithm, &[seed; 32]).unwrap()
}

/// A log in memory, with two witnesses, of whom `quorum` have to sign.
pub(crate) struct TestLog {
    key: Signer,
    witnesses: Vec<Signer>,
    entries: Vec<Vec<u8>>,
}

impl TestLog {
    pub(crate) fn new() -> Self {
        Self::with_key(1)
    }

    pub(crate) fn with_key(seed: u8) -> Self {
        let key = signer(ORIGIN, Algorithm::Ed25519, seed);
        let witness = |seed| signer("witness.example", Algorithm::Cosignature, seed);
        Self { key, witnesses: vec![witness(2), witness(3)], entries: Vec::new() }
    }

    pub(crate) fn policy(&self, quorum: usize) -> Policy {
        let witnesses = self.witnesses.iter().map(|one| one.verifier().clone()).collect();
        Policy::new(ORIGIN, vec![self.key.verifier().clone()], witnesses, quorum).unwrap()
    }

    pub(crate) fn add(&mut self, statement: &Envelope) {
        self.entries.push(Record::of(statement).unwrap().write().to_vec());
    }

    fn leaves(&self, size: usize) -> Vec<Hash> {
        self.entries[..size].iter().map(|entry| tree::leaf(entry)).collect()
    }

    fn hashes(&self, ranges: Vec<std::ops::Range<u64>>) -> Vec<Hash> {
        let leaves = self.leaves(self.entries.len());
        let hash = |node: tree::Node| {
            let (start, width) = (node.index << node.level, 1_u64 << node.level);
            let (start, width) = (usize::try_from(start).unwrap(), usize::try_from(width).unwrap());
            Ok::<_, ()>(contract::merkle::root(&leaves[start..start + width]))
        };
        tree::hashes(ranges, hash).unwrap()
    }

    /// The checkpoint of so many entries, cosigned by so many witnesses.
    pub(crate) fn note(&self, size: usize, cosigned: usize) -> Note {
        let mut edge = Edge::default();
        self.leaves(size).into_iter().for_each(|leaf| edge.push(leaf, |_, _| {}));
        let root = edge.root();
        let checkpoint =
            Checkpoint { origin: ORIGIN.into(), size: size as u64, root, extensions: vec![] };
        let mut note = Note::new(checkpoint.to_string()).unwrap();
        note.add(self.key.sign(note.text(), 0)).unwrap();
        for witness in &self.witnesses[..cosigned] {
            note.add(witness.sign(note.text(), 1_800_000_000)).unwrap();
        }
        note
    }

    /// What a registry answers under a path.
    pub(crate) fn serve(&self, path: &str) -> Option<Vec<u8>> {
        if path == registry_api::paths::CHECKPOINT {
            return Some(self.note(self.entries.len(), 2).to_string().into_bytes());
        }
        if let Ok(Resource::Tile(tile)) = path.trim_start_matches('/').parse() {
            assert_eq!((tile.level, tile.index), (0, 0), "the log is small");
            let leaves = self.leaves(self.entries.len());
            return leaves.get(..tile.width.into()).map(tlog::tile::content);
        }
        let statement = |entry: &Vec<u8>| Record::read(entry).unwrap().statement;
        let is_asked = |entry: &&Vec<u8>| registry_api::paths::proof(&statement(entry)) == path;
        let entry = self.entries.iter().find(is_asked)?;
        Some(self.proof(entry).to_string().into_bytes())
    }

    fn proof(&self, entry: &[u8]) -> Proof {
        let size = self.entries.len();
        let index = self.entries.iter().position(|one| one == entry).unwrap_or(0) as u64;
        let path = self.hashes(tree::inclusion(index, size as u64).unwrap());
        Proof { extra: Some(entry.to_vec()), index, path, note: self.note(size, 2) }
    }

    /// What an honest registry shows of the whole log to a node that knows `known` entries.
    pub(crate) fn show(&self, known: u64, of: Option<&Envelope>) -> Shown {
        let size = self.entries.len();
        let ranges = tree::consistency(known, size as u64).unwrap_or_default();
        let (consistency, note) = (self.hashes(ranges), self.note(size, 2));
        let proof = of.map(|statement| {
            let record = Record::of(statement).unwrap().write();
            (statement.id().unwrap(), self.proof(&record))
        });
        Shown { note, from: known, consistency, proof }
    }
}

fn statements() -> Vec<Envelope> {
    let world = World::new(Timestamp::from_seconds(1_800_000_000));
    let header = seal(&world.header(1, None), world.key("owner"));
    vec![
        world.identity("it"),
        world.approve("it", &header),
        world.approve("legal", &header),
        header,
    ]
}

fn log(statements: &[Envelope]) -> TestLog {
    let mut log = TestLog::new();
    for one in statements {
        log.add(one);
    }
    log
}

#[test]
fn a_log_that_only_grew_is_taken_with_what_it_proves() {
    let all = statements();
    let mut log = log(&all[..3]);
    let policy = log.policy(2);
    let Taken { newest: first, proven } = take(&policy, None, &log.show(0, Some(&all[1]))).unwrap();
    assert_eq!((first.size, proven.unwrap()), (3, all[1].id().ok()));
    let same = take(&policy, Some(&first), &log.show(3, None)).unwrap();
    assert_eq!((&same.newest, same.proven.unwrap()), (&first, None));
    log.add(&all[3]);
    let Taken { newest: second, proven } =
        take(&policy, Some(&first), &log.show(3, Some(&all[3]))).unwrap();
    assert_eq!((second.size, proven.unwrap()), (4, all[3].id().ok()));
    assert_eq!(written(&policy, &log.note(4, 2).to_string()), Some(second));
    assert_eq!(written(&policy, &TestLog::with_key(9).note(0, 2).to_string()), None);
    // What was asked before the last answer came says nothing about the log.
    let late = take(&policy, Some(&first), &log.show(2, None)).unwrap_err();
    assert!(matches!(late, Refused::Late { known: 3, asked: 2 }) && !late.is_alarm());
}

#[test]
fn a_checkpoint_counts_with_enough_witnesses_of_this_log_only() {
    let all = statements();
    let log = log(&all);
    let shown = |note| Shown { note, ..log.show(0, None) };
    assert!(take(&log.policy(1), None, &shown(log.note(4, 1))).is_ok());
    for (policy, note) in [
        (log.policy(2), log.note(4, 1)),
        (log.policy(1), log.note(4, 0)),
        (
            Policy::new("other.example", log.policy(0).keys().to_vec(), vec![], 0).unwrap(),
            log.note(4, 2),
        ),
        (
            Policy::new(
                ORIGIN,
                vec![signer(ORIGIN, Algorithm::Ed25519, 9).verifier().clone()],
                vec![],
                0,
            )
            .unwrap(),
            log.note(4, 2),
        ),
    ] {
        let refused = take(&policy, None, &shown(note)).unwrap_err();
        assert!(matches!(refused, Refused::Checkpoint(_)), "{refused:?}");
        assert!(!refused.is_alarm(), "anybody on the way can have done that");
    }
}

#[test]
fn a_log_that_goes_back_or_shows_another_past_is_an_alarm() {
    let all = statements();
    let whole = log(&all);
    let policy = whole.policy(2);
    let known = take(&policy, None, &log(&all[..3]).show(0, None)).unwrap().newest;

    let smaller = take(&policy, Some(&known), &log(&all[..2]).show(3, None)).unwrap_err();
    assert!(matches!(smaller, Refused::Smaller { known: 3, found: 2 }));

    let mut other = all[..3].to_vec();
    other.swap(0, 1);
    let forked = take(&policy, Some(&known), &log(&other).show(3, None)).unwrap_err();
    assert!(matches!(forked, Refused::Forked { size: 3 }));

    other.push(all[3].clone());
    // Also when the proof under it holds.
    for shown in [log(&other).show(3, None), log(&other).show(3, Some(&all[3]))] {
        let unproven = take(&policy, Some(&known), &shown).unwrap_err();
        assert!(matches!(unproven, Refused::Unproven { known: 3, found: 4 }));
    }
    let without = Shown { consistency: vec![], ..whole.show(3, None) };
    let unproven = take(&policy, Some(&known), &without).unwrap_err();
    for refused in [smaller, forked, unproven] {
        assert!(refused.is_alarm());
    }
    assert!(take(&policy, Some(&known), &whole.show(3, None)).is_ok(), "positive control");
}

#[test]
fn a_proof_is_of_this_statement_in_this_tree() {
    let all = statements();
    let log = log(&all[..3]);
    let policy = log.policy(2);
    let check = |change: &dyn Fn(&mut (StatementId, Proof))| {
        let mut shown = log.show(0, Some(&all[1]));
        change(shown.proof.as_mut().unwrap());
        take(&policy, None, &shown).unwrap().proven
    };
    assert_eq!(check(&|_| {}).unwrap(), all[1].id().ok(), "positive control");
    let other = all[3].id().unwrap();
    assert!(matches!(check(&|one| one.0 = other), Err(Refused::Proof(..))));
    assert!(matches!(check(&|one| one.1.index = 0), Err(Refused::Proof(..))));
    assert!(matches!(check(&|one| one.1.path[0] = [0; 32]), Err(Refused::Proof(..))));
    assert!(matches!(check(&|one| one.1.extra = None), Err(Refused::Proof(..))));
    let absent = Record::of(&all[3]).unwrap().write().to_vec();
    let forged =
        check(&|one| *one = (other, Proof { extra: Some(absent.clone()), ..one.1.clone() }));
    assert!(matches!(forged, Err(Refused::Proof(..))));
}

/// A word that means nothing must not lead to a node that asks for nothing.
#[test]
fn options_that_say_nothing_start_nothing() {
    let log = TestLog::new();
    let key = log.key.verifier().to_string();
    let witnesses: Vec<String> =
        log.witnesses.iter().map(|one| one.verifier().to_string()).collect();
    let read = |cmdline: &str| Asked::read(&BootConfig::parse(cmdline).log);
    assert_eq!(read("zos.farm=x"), Asked::No);
    assert_eq!(Asked::No.logged(0), Logged::NotAsked);
    let witnessed = format!("zos.log={key} zos.witness={}", witnesses.join(","));
    assert_eq!(read(&format!("{witnessed} zos.quorum=1")), Asked::Log(Box::new(log.policy(1))));
    assert!(matches!(read(&format!("zos.log={key}")), Asked::Log(policy) if policy.quorum() == 0));
    for bad in [
        "zos.log=".to_owned(),
        "zos.log=nonsense".to_owned(),
        "zos.quorum=0".to_owned(),
        format!("zos.witness={} zos.quorum=1", witnesses[0]),
        format!("zos.log={key},{}", signer("other", Algorithm::Ed25519, 5).verifier()),
        format!("zos.log={}", witnesses[0]),
        witnessed.clone(),
        format!("{witnessed} zos.quorum=3"),
        format!("{witnessed} zos.quorum=x"),
        format!("{witnessed} zos.quorum=1,2"),
        format!("{witnessed},{} zos.quorum=1", witnesses[0]),
    ] {
        let asked = read(&bad);
        assert!(matches!(asked, Asked::Unclear(_)), "{bad}: {asked:?}");
        assert_eq!(asked.logged(0), Logged::Only { settled: 0, ids: [].into() });
    }
    assert_ne!(keys(&log.policy(1)), keys(&log.policy(2)));
}

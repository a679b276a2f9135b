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

    /// Two witnesses have to sign, and it has to begin with the so many first entries.
    pub(crate) fn terms_from(&self, size: usize) -> Terms {
        let pinned = self.note(size, 0).text().parse().unwrap();
        Terms { pinned: Some(pinned), ..self.terms(2) }
    }

    pub(crate) fn terms(&self, quorum: usize) -> Terms {
        Terms { policy: self.policy(quorum), pinned: None, fresh_s: None }
    }

    /// The proof that the log begins with so many entries.
    fn continued(&self, from: u64) -> Vec<Hash> {
        self.hashes(tree::consistency(from, self.entries.len() as u64).unwrap_or_default())
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
            note.add(witness.sign(note.text(), COSIGNED)).unwrap();
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

    /// What it shows to a node that has yet to hold it against a checkpoint of `pinned` entries.
    pub(crate) fn show_from(&self, pinned: u64, known: u64) -> Shown {
        Shown { pinned: Some((pinned, self.continued(pinned))), ..self.show(known, None) }
    }

    /// What an honest registry shows of the whole log to a node that knows `known` entries.
    pub(crate) fn show(&self, known: u64, of: Option<&Envelope>) -> Shown {
        let size = self.entries.len();
        let (consistency, note) = (self.continued(known), self.note(size, 2));
        let proof = of.map(|statement| {
            let record = Record::of(statement).unwrap().write();
            (statement.id().unwrap(), self.proof(&record))
        });
        Shown { note, from: known, consistency, pinned: None, proof }
    }
}

/// When the witnesses have cosigned.
const COSIGNED: u64 = 1_800_000_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(i64::try_from(seconds).unwrap())
}

/// What is not held against a pinned one.
pub(crate) fn taken(
    terms: &Terms,
    known: Option<&Checkpoint>,
    shown: &Shown,
) -> Result<Taken, Refused> {
    let past = Past { newest: known.cloned(), ..Past::default() };
    take(terms, &past, shown, at(COSIGNED))
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
    let terms = log.terms(2);
    let policy = &terms.policy;
    let Taken { newest: first, proven, .. } =
        taken(&terms, None, &log.show(0, Some(&all[1]))).unwrap();
    assert_eq!((first.size, proven.unwrap()), (3, all[1].id().ok()));
    let same = taken(&terms, Some(&first), &log.show(3, None)).unwrap();
    assert_eq!((&same.newest, same.proven.unwrap()), (&first, None));
    log.add(&all[3]);
    let Taken { newest: second, proven, .. } =
        taken(&terms, Some(&first), &log.show(3, Some(&all[3]))).unwrap();
    assert_eq!((second.size, proven.unwrap()), (4, all[3].id().ok()));
    assert_eq!(written(policy, &log.note(4, 2).to_string()), Some(second));
    assert_eq!(written(policy, &TestLog::with_key(9).note(0, 2).to_string()), None);
    // What was asked before the last answer came says nothing about the log.
    let late = taken(&terms, Some(&first), &log.show(2, None)).unwrap_err();
    assert!(matches!(late, Refused::Late { known: 3, asked: 2 }) && !late.is_alarm());
}

#[test]
fn a_checkpoint_counts_with_enough_witnesses_of_this_log_only() {
    let all = statements();
    let log = log(&all);
    let shown = |note| Shown { note, ..log.show(0, None) };
    assert!(taken(&log.terms(1), None, &shown(log.note(4, 1))).is_ok());
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
        let terms = Terms { policy, pinned: None, fresh_s: None };
        let refused = taken(&terms, None, &shown(note)).unwrap_err();
        assert!(matches!(refused, Refused::Checkpoint(_)), "{refused:?}");
        assert!(!refused.is_alarm(), "anybody on the way can have done that");
    }
}

#[test]
fn a_log_that_goes_back_or_shows_another_past_is_an_alarm() {
    let all = statements();
    let whole = log(&all);
    let terms = whole.terms(2);
    let known = taken(&terms, None, &log(&all[..3]).show(0, None)).unwrap().newest;

    let smaller = taken(&terms, Some(&known), &log(&all[..2]).show(3, None)).unwrap_err();
    assert!(matches!(smaller, Refused::Smaller { known: 3, found: 2 }));

    let mut other = all[..3].to_vec();
    other.swap(0, 1);
    let forked = taken(&terms, Some(&known), &log(&other).show(3, None)).unwrap_err();
    assert!(matches!(forked, Refused::Forked { size: 3 }));

    other.push(all[3].clone());
    // Also when the proof under it holds.
    for shown in [log(&other).show(3, None), log(&other).show(3, Some(&all[3]))] {
        let unproven = taken(&terms, Some(&known), &shown).unwrap_err();
        assert!(matches!(unproven, Refused::Unproven { known: 3, found: 4 }));
    }
    let without = Shown { consistency: vec![], ..whole.show(3, None) };
    let unproven = taken(&terms, Some(&known), &without).unwrap_err();
    for refused in [smaller, forked, unproven] {
        assert!(refused.is_alarm());
    }
    assert!(taken(&terms, Some(&known), &whole.show(3, None)).is_ok(), "positive control");
}

#[test]
fn a_proof_is_of_this_statement_in_this_tree() {
    let all = statements();
    let log = log(&all[..3]);
    let terms = log.terms(2);
    let check = |change: &dyn Fn(&mut (StatementId, Proof))| {
        let mut shown = log.show(0, Some(&all[1]));
        change(shown.proof.as_mut().unwrap());
        taken(&terms, None, &shown).unwrap().proven
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

#[test]
fn what_is_pinned_is_the_past_of_what_is_shown() {
    let all = statements();
    let whole = log(&all);
    let mut swapped = all.clone();
    swapped.swap(0, 1);
    let other = log(&swapped);
    let take = |pinned: &TestLog, size, shown: &Shown| {
        let terms = pinned.terms_from(size);
        let past = Past { unheld: terms.pinned.clone(), ..Past::default() };
        take(&terms, &past, shown, at(COSIGNED)).map(|taken| taken.newest.size)
    };
    for size in 1..=4 {
        let from = size as u64;
        assert_eq!(take(&whole, size, &whole.show_from(from, 0)).unwrap(), 4, "positive control");
        let without = Shown { pinned: Some((from, vec![[0; 32]])), ..whole.show(0, None) };
        let refused = take(&whole, size, &without).unwrap_err();
        assert!(matches!(refused, Refused::Elsewhere { .. }) && refused.is_alarm(), "{size}");
        // It was not asked, so it is not to blame.
        let of_more = Shown { pinned: Some((from + 1, vec![])), ..whole.show(0, None) };
        for shown in [whole.show(0, None), of_more] {
            let refused = take(&whole, size, &shown).unwrap_err();
            assert!(matches!(refused, Refused::Unheld { .. }) && !refused.is_alarm(), "{size}");
        }
    }
    for size in [1, 4] {
        let refused = take(&other, size, &whole.show_from(size as u64, 0)).unwrap_err();
        assert!(matches!(refused, Refused::Elsewhere { found: 4, .. }), "{refused:?}");
    }
    let shorter = log(&all[..3]);
    let refused = take(&whole, 4, &shorter.show_from(4, 0)).unwrap_err();
    assert!(matches!(refused, Refused::Elsewhere { pinned: 4, found: 3 }), "{refused:?}");
}

/// What nobody has seen for long may be what somebody shows instead of something newer.
#[test]
fn what_was_seen_too_long_ago_proves_nothing_and_is_no_alarm() {
    let all = statements();
    let log = log(&all);
    let fresh = Terms { fresh_s: Some(900), ..log.terms(2) };
    let shown = log.show(0, Some(&all[1]));
    let taken = |terms: &Terms, seen, now| {
        take(terms, &Past { seen, ..Past::default() }, &shown, at(now)).unwrap()
    };
    for now in [COSIGNED - SKEW_S, COSIGNED, COSIGNED + 900] {
        assert!(taken(&fresh, None, now).proven.unwrap().is_some(), "positive control: {now}");
    }
    let stale = taken(&fresh, None, COSIGNED + 901);
    assert_eq!(
        (stale.newest.size, stale.seen),
        (4, Some(COSIGNED)),
        "it is the newest all the same"
    );
    let stale = stale.proven.unwrap_err();
    assert!(
        matches!(stale, Refused::Stale { at: time } if time == at(COSIGNED)) && !stale.is_alarm()
    );
    // A clock that was put back to when an old checkpoint was new.
    let later = COSIGNED + SKEW_S + 1;
    for (seen, now) in [(None, COSIGNED - SKEW_S - 1), (Some(later), COSIGNED)] {
        let ahead = taken(&fresh, seen, now).proven.unwrap_err();
        assert!(matches!(ahead, Refused::Ahead { .. }) && !ahead.is_alarm());
    }
    assert!(taken(&fresh, Some(later), COSIGNED + 1).proven.is_ok());
    // Who does not ask for it takes what comes.
    assert!(taken(&log.terms(2), Some(later), COSIGNED + 1_000_000).proven.is_ok());
}

/// A word that means nothing must not lead to a node that asks for nothing.
#[test]
fn options_that_say_nothing_start_nothing() {
    let mut log = TestLog::new();
    let key = log.key.verifier().to_string();
    let witnesses: Vec<String> =
        log.witnesses.iter().map(|one| one.verifier().to_string()).collect();
    let read = |cmdline: &str| Asked::read(&BootConfig::parse(cmdline).log);
    assert_eq!(read("zos.farm=x"), Asked::No);
    assert_eq!(Asked::No.logged(0), Logged::NotAsked);
    let witnessed = format!("zos.log={key} zos.witness={}", witnesses.join(","));
    assert_eq!(read(&format!("{witnessed} zos.quorum=1")), Asked::Log(Box::new(log.terms(1))));
    assert!(
        matches!(read(&format!("zos.log={key}")), Asked::Log(terms) if terms.policy.quorum() == 0)
    );
    log.add(&statements()[0]);
    let root = log.note(1, 0).text().lines().nth(2).unwrap().to_owned();
    let more = format!("{witnessed} zos.quorum=1 zos.checkpoint=1+{root}");
    let expected = Terms { policy: log.policy(1), fresh_s: Some(900), ..log.terms_from(1) };
    assert_eq!(read(&format!("{more} zos.fresh=900")), Asked::Log(Box::new(expected)));
    let year = format!("{more} zos.fresh={FRESH_MAX_S}");
    assert!(matches!(read(&year), Asked::Log(terms) if terms.fresh_s == Some(FRESH_MAX_S)));
    let empty = TestLog::new().note(0, 0).text().lines().nth(2).unwrap().to_owned();
    for bad in [
        format!("zos.log={key} zos.checkpoint="),
        format!("zos.log={key} zos.checkpoint={root}"),
        format!("zos.log={key} zos.checkpoint=01+{root}"),
        format!("zos.log={key} zos.checkpoint=1+{root}x"),
        format!("zos.log={key} zos.checkpoint=0+{empty}"),
        format!("{more},2+{root}"),
        format!("{more} zos.checkpoint=1+{root}"),
    ] {
        assert_eq!(read(&bad), Asked::Unclear(Unclear::Checkpoint), "{bad}");
    }
    for bad in [
        format!("zos.log={key} zos.fresh=900"),
        format!("{witnessed} zos.quorum=0 zos.fresh=900"),
        format!("{more} zos.fresh=899"),
        format!("{more} zos.fresh={}", FRESH_MAX_S + 1),
        format!("{more} zos.fresh=15m"),
        format!("{more} zos.fresh=+900"),
        format!("{more} zos.fresh=900 zos.fresh=900"),
    ] {
        assert_eq!(read(&bad), Asked::Unclear(Unclear::Fresh), "{bad}");
    }
    for bad in [
        format!("zos.checkpoint=1+{root}"),
        "zos.fresh=900".to_owned(),
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

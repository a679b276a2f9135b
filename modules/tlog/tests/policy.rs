//! Policies as files, what a log takes of a witness's answer, and the proof of a statement.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "the whole file is tests"
)]

use contract::{Kind, StatementId};
use tlog::{
    Algorithm, Checkpoint, Edge, Note, Policy, PolicyFile, Proof, Record, Signer,
    note::Signed,
    policy_file::{BadLine, BadPolicyFile, POLICY_BYTES_MAX},
    proof::ProofError,
    tree,
    witness::{BadAnswer, cosignature, size},
};

const ORIGIN: &str = "log.example/main";

fn log() -> Signer {
    Signer::new(ORIGIN, Algorithm::Ed25519, &[1; 32]).unwrap()
}

fn witness(number: u8) -> Signer {
    let name = format!("witness.example/{number}");
    Signer::new(&name, Algorithm::Cosignature, &[100 + number; 32]).unwrap()
}

/// A good file: two of three, and one witness outside the quorum.
fn file() -> String {
    let mut text = format!("# Two of three.\n\nlog {} https://log.example/\n", log().verifier());
    for number in 1..=4 {
        let key = witness(number).verifier().clone();
        let url = if number == 2 { "" } else { " https://w.example" };
        text += &format!("  witness w{number}\t{key}{url}\n");
    }
    text + "group all-of-them 2 w1 w2 w3\nquorum all-of-them\n"
}

#[test]
fn a_policy_file_says_which_witnesses_where_and_how_many() {
    let read = PolicyFile::read(file().as_bytes()).unwrap();
    let keys = [1, 2, 3].map(|number| witness(number).verifier().clone()).to_vec();
    let policy = Policy::new(ORIGIN, vec![log().verifier().clone()], keys, 2).unwrap();
    assert_eq!(read.policy, policy);
    assert_eq!((read.policy.origin(), read.policy.quorum()), (ORIGIN, 2));
    let url = Some("https://w.example".to_owned());
    assert_eq!(read.urls, [url.clone(), None, url]);
    for (quorum, count, witnesses) in [
        ("quorum none\n", 0, 0),
        ("quorum w4\n", 1, 1),
        ("group g any w1 w4\nquorum g\n", 1, 2),
        ("group g all w4 w1 w3\nquorum g\n", 3, 3),
    ] {
        let text = file().replace("quorum all-of-them\n", quorum);
        let read = PolicyFile::read(text.as_bytes()).unwrap().policy;
        assert_eq!((read.quorum(), read.witnesses().len()), (count, witnesses), "{quorum}");
    }
}

#[test]
fn a_policy_file_that_could_be_misread_is_refused_at_its_line() {
    let (key, other) = (witness(1).verifier().to_string(), witness(9).verifier().to_string());
    let renamed = Signer::new("else", Algorithm::Cosignature, &[101; 32]).unwrap();
    let second = Signer::new("log.example/2", Algorithm::Ed25519, &[7; 32]).unwrap();
    let end = "quorum all-of-them\n";
    let line = |before: &str| file().replace(end, &format!("{before}\n{end}"));
    for (text, wanted) in [
        (line("witnes w9"), BadLine::Shape),
        (line(&format!("witness w9 {other} http://a http://b")), BadLine::Shape),
        (line(&format!("group g {}", "1 ".repeat(128))), BadLine::Shape),
        (line(&format!("witness w1 {other}")), BadLine::Taken("w1".into())),
        (line(&format!("witness none {other}")), BadLine::Taken("none".into())),
        (line("group all-of-them 1 w1"), BadLine::Taken("all-of-them".into())),
        (line(&format!("witness w9 {key}")), BadLine::Twice { name: "witness.example/1".into() }),
        (
            line(&format!("witness w9 {}", renamed.verifier())),
            BadLine::Twice { name: "else".into() },
        ),
        (line(&format!("log {other}")), BadLine::Kind { name: "witness.example/9".into() }),
        (
            line(&format!("witness w9 {}", second.verifier())),
            BadLine::Kind { name: "log.example/2".into() },
        ),
        (
            line(&format!("log {}", second.verifier())),
            BadLine::OtherLog { first: ORIGIN.into(), other: "log.example/2".into() },
        ),
        (line("group g 1 w1 w1"), BadLine::Unknown("w1".into())),
        (line("group g 1 w9"), BadLine::Unknown("w9".into())),
        (line("group g 1 none"), BadLine::Unknown("none".into())),
        (line("group g any all-of-them"), BadLine::Nested("all-of-them".into())),
        (line("group g 3 w1 w2"), BadLine::Threshold { count: 2 }),
        (line("group g 0 w1 w2"), BadLine::Threshold { count: 2 }),
        (line("group g 01 w1 w2"), BadLine::Threshold { count: 2 }),
        (line("group g all"), BadLine::Threshold { count: 0 }),
        (line("quorum w1"), BadLine::SecondQuorum),
        (file().replace(end, "quorum w9\n"), BadLine::Unknown("w9".into())),
    ] {
        match PolicyFile::read(text.as_bytes()) {
            // A second quorum is found where the file repeats it.
            Err(BadPolicyFile::Line { source, number }) => {
                let second = wanted == BadLine::SecondQuorum;
                assert_eq!((source, number), (wanted, if second { 10 } else { 9 }), "{text}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let good = file();
    let no_log = good.replace("\nlog ", "\n#log ");
    for (text, wanted) in [
        (good.trim_end().to_owned(), BadPolicyFile::Text),
        (good.replace("# Two", "#\r Two"), BadPolicyFile::Text),
        (format!("{}\n{good}", "#".repeat(POLICY_BYTES_MAX)), BadPolicyFile::Text),
        (String::new(), BadPolicyFile::Text),
        (good.replace(end, ""), BadPolicyFile::NoQuorum),
        (no_log, BadPolicyFile::NoLog),
    ] {
        assert_eq!(PolicyFile::read(text.as_bytes()), Err(wanted), "{text:.200}");
    }
}

/// The log's note over these entries.
fn note(entries: &[Vec<u8>]) -> Note {
    let mut edge = Edge::default();
    for entry in entries {
        edge.push(tree::leaf(entry), |_, _| {});
    }
    let (origin, size, root) = (ORIGIN.into(), edge.size(), edge.root());
    let checkpoint = Checkpoint { origin, size, root, extensions: vec![] };
    let mut note = Note::new(checkpoint.to_string()).unwrap();
    note.add(log().sign(note.text(), 0)).unwrap();
    note
}

#[test]
fn a_log_takes_the_newest_line_of_the_witness_that_it_asked() {
    let note = note(&[b"one".to_vec()]);
    let key = witness(1).verifier().clone();
    let line = |number, time| witness(number).sign(note.text(), time).to_string();
    let taken = |answer: &str| cosignature(&note, &key, answer.as_bytes());
    let newest = format!("{}{}{}{}", line(2, 90), line(1, 50), line(1, 70), line(1, 60));
    assert_eq!(taken(&newest).unwrap(), witness(1).sign(note.text(), 70));
    let absent = || Err(BadAnswer::Absent { name: "witness.example/1".into() });
    assert_eq!(taken(&line(2, 90)), absent());
    assert_eq!(taken(""), absent());
    let of_another = witness(1).sign("something else\n", 50).to_string();
    assert!(matches!(taken(&of_another), Err(BadAnswer::Forged(_))));
    let both = format!("{}{of_another}", line(1, 50));
    assert!(matches!(taken(&both), Err(BadAnswer::Forged(_))));
    for bad in ["hello", "{}", &line(1, 50)[3..], line(1, 50).trim_end()] {
        assert!(matches!(taken(bad), Err(BadAnswer::Lines(_))), "{bad}");
    }
}

#[test]
fn a_newer_line_takes_the_place_of_the_older_one_of_the_same_key_alone() {
    let mut note = note(&[b"one".to_vec()]);
    for (number, time) in [(1, 50), (2, 60), (1, 70)] {
        let line = witness(number).sign(note.text(), time);
        note.replace(witness(number).verifier(), line).unwrap();
    }
    assert_eq!(note.lines().len(), 3, "the log and two witnesses");
    assert_eq!(note.signed_by(log().verifier()), Ok(Signed::Valid));
    assert_eq!(note.signed_by(witness(1).verifier()), Ok(Signed::At(70)));
    assert_eq!(note.signed_by(witness(2).verifier()), Ok(Signed::At(60)));
}

#[test]
fn the_size_that_a_witness_names_has_one_form() {
    assert_eq!(size(b"5\n"), Some(5));
    for bad in ["5", "05\n", "5\n\n", "-1\n", "4611686018427387905\n", "\n", ""] {
        assert_eq!(size(bad.as_bytes()), None, "{bad:?}");
    }
}

fn record(number: u8) -> Record {
    Record {
        kind: Kind::Contract,
        subject: [number; 32],
        version: 1,
        statement: StatementId([number; 32]),
        evidence: [0; 32],
    }
}

#[test]
fn a_proof_with_its_record_proves_one_statement() {
    let entries: Vec<Vec<u8>> = (0..2).map(|number| record(number).write().to_vec()).collect();
    let policy = Policy::new(ORIGIN, vec![log().verifier().clone()], vec![], 0).unwrap();
    let path = vec![tree::leaf(&entries[0])];
    let good = Proof { extra: Some(entries[1].clone()), index: 1, path, note: note(&entries) };
    let (wanted, found) = (StatementId([0; 32]), StatementId([1; 32]));
    let (proven, seen) = good.check_statement(&found, &policy).unwrap();
    assert_eq!((proven, seen.checkpoint.size), (record(1), 2));
    assert_eq!(
        good.check_statement(&wanted, &policy),
        Err(ProofError::OtherStatement { wanted, found })
    );
    let with = |extra| Proof { extra, ..good.clone() }.check_statement(&found, &policy);
    assert!(matches!(with(None), Err(ProofError::Record(_))));
    assert!(matches!(with(Some(entries[1][1..].to_vec())), Err(ProofError::Record(_))));
    let other = Record { version: 2, ..record(1) }.write().to_vec();
    assert_eq!(with(Some(other)), Err(ProofError::Absent { index: 1, size: 2 }));
}

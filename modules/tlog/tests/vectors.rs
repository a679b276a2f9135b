//! What others have published, byte for byte.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "the whole file is tests, and a vector that cannot be read fails them"
)]

use contract::{PublicKey, SigningKey};
use serde_json::Value;
use tlog::{
    Algorithm, Checkpoint, Hash, Note, Signer, Verifier,
    note::{BadKey, BadNote, Signed},
    tree,
    witness::{AddCheckpoint, BadRequest, Refusal},
};

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `None` for what is no hash: garbage in some vectors.
fn hash(value: &Value) -> Option<Hash> {
    let line = format!("log\n0\n{}\n", value.as_str()?);
    line.parse().ok().map(|checkpoint: Checkpoint| checkpoint.root)
}

fn proof(row: &Value) -> Option<Vec<Hash>> {
    let lines = row["proof"].as_array().map_or(&[][..], Vec::as_slice);
    lines.iter().map(hash).collect()
}

#[test]
fn inclusion_is_decided_as_in_the_published_vectors() {
    let rows = rows(include_str!("data/inclusion.jsonl"));
    let mut good = 0;
    for row in &rows {
        let number = |name: &str| row[name].as_u64().unwrap();
        let wanted = !row["wantErr"].as_bool().unwrap();
        let holds = || {
            let (leaf, root, proof) = (hash(&row["leafHash"])?, hash(&row["root"])?, proof(row)?);
            Some(tree::includes(&leaf, number("leafIdx"), number("treeSize"), &root, &proof))
        };
        assert_eq!(holds().unwrap_or(false), wanted, "{row}");
        good += usize::from(wanted);
    }
    assert_eq!((rows.len(), good), (98, 6));
}

#[test]
fn consistency_is_decided_as_in_the_published_vectors() {
    let rows = rows(include_str!("data/consistency.jsonl"));
    let mut good = 0;
    for row in &rows {
        let number = |name: &str| row[name].as_u64().unwrap();
        // Two roots that are no hashes are the same root there. Here they cannot be given.
        let is_hash = hash(&row["root1"]).is_some();
        let wanted = !row["wantErr"].as_bool().unwrap() && is_hash;
        let holds = || {
            let (old, new, proof) = (hash(&row["root1"])?, hash(&row["root2"])?, proof(row)?);
            Some(tree::extends((number("size1"), &old), (number("size2"), &new), &proof))
        };
        assert_eq!(holds().unwrap_or(false), wanted, "{row}");
        good += usize::from(wanted);
    }
    assert_eq!((rows.len(), good), (98, 5));
}

#[test]
fn a_witness_answers_as_in_the_published_script() {
    let mut hex = [0; 32];
    for (byte, pair) in hex.iter_mut().zip(SIGSUM_KEY.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    }
    let key = PublicKey::from_bytes(&hex).unwrap();
    let sigsum = Verifier::new(SIGSUM, Algorithm::Ed25519, key).unwrap();
    let sumdb: Verifier = SUMDB_KEY.parse().unwrap();
    let logs = [(SIGSUM, sigsum), ("go.sum database tree", sumdb)];
    let mut last: [Option<Checkpoint>; 2] = [None, None];
    for row in rows(include_str!("data/add-checkpoint.jsonl")) {
        let body = row["request"].as_str().unwrap();
        let request = match AddCheckpoint::read(body.as_bytes()) {
            Ok(request) => request,
            // A signature in base64 with bits left over: Go reads it and finds that it does not
            // fit, for us the line is none.
            Err(error) => {
                assert_eq!(error, BadRequest::Note(BadNote::Line { number: 1 }));
                assert!(row["status"] == 403 && body.ends_with("gx=\n"));
                continue;
            }
        };
        assert_eq!(request.to_string(), body);
        let known = logs.iter().position(|(origin, _)| *origin == request.checkpoint.origin);
        let Some(number) = known else {
            // The specification has come to say 404 for a log that is not known.
            assert_eq!(row["status"], 403);
            continue;
        };
        let verdict = request.judge(std::slice::from_ref(&logs[number].1), last[number].as_ref());
        let status = verdict.as_ref().map_or_else(Refusal::status, |()| 200);
        assert_eq!(row["status"], status, "{body}");
        if verdict.is_ok() {
            last[number] = Some(request.checkpoint);
        }
    }
    assert_eq!(last.map(|last| last.unwrap().size), [5, 35_225_469]);
}

const SIGSUM: &str =
    "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562";
const SIGSUM_KEY: &str = "ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f";
const SUMDB_KEY: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";

// From golang.org/x/mod/sumdb/note, note_test.go.
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const PETER_SECRET: &str =
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const PETER_LINE: &str = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const ENOCH: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
const ENOCH_LINE: &str = "\u{2014} EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";
const TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";

#[test]
fn a_key_is_read_as_go_reads_it() {
    let key: Verifier = PETER.parse().unwrap();
    assert_eq!(key.to_string(), PETER);
    for start in 0..=PETER.len() {
        for end in start..=PETER.len() {
            let part = &PETER[start..end];
            assert_eq!(part.parse::<Verifier>().is_ok(), part == PETER, "{part}");
        }
    }
    for at in 0..PETER.len() {
        let mut bytes = PETER.as_bytes().to_vec();
        bytes[at] += 1;
        let changed = String::from_utf8(bytes).unwrap();
        assert!(changed.parse::<Verifier>().is_err(), "{changed}");
    }
    let long = "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==";
    assert_eq!(long.parse::<Verifier>(), Err(BadKey::Shape));
    let other = "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    assert!(matches!(other.parse::<Verifier>(), Err(BadKey::Algorithm { algorithm: 0x65, .. })));
    // From transparency-dev/formats, a key of a witness.
    let witness = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";
    let witness: Verifier = witness.parse().unwrap();
    assert_eq!(witness.algorithm(), Algorithm::Cosignature);
}

#[test]
fn a_note_is_signed_as_go_signs_it() {
    let signer = Signer::read(PETER_SECRET).unwrap();
    assert_eq!(signer.verifier().to_string(), PETER);
    let mut note = Note::new(TEXT.into()).unwrap();
    note.add(signer.sign(TEXT, 0)).unwrap();
    let wanted = format!("{TEXT}\n{PETER_LINE}");
    assert_eq!(note.to_string(), wanted);
    note.add(signer.sign(TEXT, 0)).unwrap();
    assert_eq!(note.to_string(), wanted, "signing again changes nothing");
}

#[test]
fn a_note_is_opened_as_go_opens_it() {
    let (peter, enoch): (Verifier, Verifier) = (PETER.parse().unwrap(), ENOCH.parse().unwrap());
    let read = |text: &str| Note::read(text.as_bytes());
    let both = read(&format!("{TEXT}\n{PETER_LINE}{ENOCH_LINE}")).unwrap();
    assert_eq!(both.text(), TEXT);
    assert_eq!(both.signed_by(&peter), Ok(Signed::Valid));
    assert_eq!(both.signed_by(&enoch), Ok(Signed::Valid));
    let one = read(&format!("{TEXT}\n{ENOCH_LINE}")).unwrap();
    assert_eq!(one.signed_by(&peter), Ok(Signed::Absent));
    let forged = format!("{TEXT}\n{}ABCD{}{ENOCH_LINE}", &PETER_LINE[..62], &PETER_LINE[62..]);
    let forged = read(&forged).unwrap();
    assert!(forged.signed_by(&peter).is_err());
    assert_eq!(forged.signed_by(&enoch), Ok(Signed::Valid));
    let many = format!("{TEXT}\n{}", PETER_LINE.repeat(101));
    assert_eq!(read(&many), Err(BadNote::TooManySignatures));
    for bad in [
        TEXT.to_owned(),
        format!("{TEXT}\n"),
        format!("{TEXT}\n{}", PETER_LINE.trim_end()),
        format!("\u{1}{TEXT}\n{PETER_LINE}"),
        format!("{TEXT}\n{}", PETER_LINE.replace("PeterNeumann", "Bad Name")),
        format!("{TEXT}\n{PETER_LINE}Unexpected line.\n"),
    ] {
        assert!(read(&bad).is_err(), "{bad}");
    }
    let mut invalid = format!("{TEXT}\n{PETER_LINE}").into_bytes();
    invalid[0] = 0xff;
    assert_eq!(Note::read(&invalid), Err(BadNote::Character));
}

#[test]
fn the_example_of_the_note_specification_verifies() {
    // From c2sp.org/signed-note.
    let key = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    let note = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    let read = Note::read(note.as_bytes()).unwrap();
    assert_eq!(read.to_string(), note);
    assert_eq!(read.signed_by(&key.parse().unwrap()), Ok(Signed::Valid));
    let other = Note::read(note.replace("an example", "no example").as_bytes()).unwrap();
    assert!(other.signed_by(&key.parse().unwrap()).is_err());
}

#[test]
fn the_example_of_the_cosignature_specification_is_what_is_signed() {
    // From c2sp.org/tlog-cosignature: the text, and the time in the line.
    let text =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let example = "\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    let note = Note::read(format!("{text}\n{example}").as_bytes()).unwrap();
    assert_eq!(note.to_string(), format!("{text}\n{example}"));
    let signer = Signer::new("witness.example.com/w1", Algorithm::Cosignature, &[7; 32]).unwrap();
    let line = signer.sign(text, 1_679_315_147).to_string();
    // Id, time, signature: the first 12 bytes are 16 characters, the time is that of the example.
    let message = format!("cosignature/v1\ntime 1679315147\n{text}");
    let signature = SigningKey::from_seed(&[7; 32]).sign(message.as_bytes());
    let mut bytes = signer.verifier().id().to_be_bytes().to_vec();
    bytes.extend_from_slice(&0x6418_50cb_u64.to_be_bytes());
    bytes.extend_from_slice(&signature);
    let part = |line: &str| line.split(' ').nth(2).unwrap()[6..15].to_owned();
    assert_eq!(part(&line), part(example), "the time stands where it does in the example");
    let mut signed = Note::new(text.into()).unwrap();
    signed.add(line.trim_end().parse().unwrap()).unwrap();
    assert_eq!(signed.signed_by(signer.verifier()), Ok(Signed::At(1_679_315_147)));
    assert!(line.trim_end().ends_with(&base64(&bytes)));
}

/// Base64 by hand, so that it is not the code under test that says how a line looks.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let digit = usize::try_from(number >> (18 - 6 * place) & 63).unwrap();
            text.push(if place > chunk.len() { '=' } else { char::from(DIGITS[digit]) });
        }
    }
    text
}

#[test]
fn a_tree_is_written_as_go_writes_it() {
    // From golang.org/x/mod/sumdb/tlog, note_test.go.
    let golden =
        "go.sum database tree\n123456789012\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=\n";
    let checkpoint = Checkpoint {
        origin: "go.sum database tree".into(),
        size: 123_456_789_012,
        root: tree::leaf(b"hello world"),
        extensions: Vec::new(),
    };
    assert_eq!(checkpoint.to_string(), golden);
    assert_eq!(golden.parse(), Ok(checkpoint));
    for bad in [
        golden.trim_end(),
        &golden.replace("123456789012", "0xabcdef"),
        &golden.replace("123456789012", "012"),
        &golden.replace("123456789012", "4611686018427387905"),
        &golden.replace("wBb0=", "wBTOOBIG="),
        &golden.replace("wBb0=", "wBb1="),
        &format!("\n{golden}"),
        &format!("{golden}\n"),
        &format!("{golden}JOE"),
        "log\n0\n",
        "",
    ] {
        assert!(bad.parse::<Checkpoint>().is_err(), "{bad}");
    }
    let more = format!("{golden}one\ntwo\n");
    let extended: Checkpoint = more.parse().unwrap();
    assert_eq!((extended.extensions.len(), extended.to_string()), (2, more));
}

#[test]
fn the_first_trees_have_the_published_roots() {
    // From transparency-dev/merkle, testonly/constants.go: the leaves of the first Certificate
    // Transparency tests, and the roots of the trees of 0 to 8 of them.
    let leaves: [&[u8]; 8] =
        [b"", b"\x00", b"\x10", b" !", b"01", b"@ABC", b"PQRSTUVW", b"`abcdefghijklmno"];
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut edge = tlog::Edge::default();
    for (size, wanted) in roots.iter().enumerate() {
        let root: String = edge.root().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(root, *wanted, "{size} leaves");
        if let Some(leaf) = leaves.get(size) {
            edge.push(tree::leaf(leaf), |_, _| {});
        }
    }
}

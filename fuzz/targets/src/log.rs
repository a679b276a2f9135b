//! What a transparency log, a witness or a carrier of proofs may send.

use std::{convert::Infallible, sync::LazyLock};
use tlog::{
    Algorithm, Bundle, Checkpoint, Edge, Note, Policy, PolicyFile, Proof, Record, Resource, Signer,
    Verifier, tree,
    witness::{AddCheckpoint, cosignature, size},
};

/// Leaves of the log whose checkpoint the seeds hold.
pub const LOG_SIZE: u64 = 8;
/// Its origin.
pub const LOG_ORIGIN: &str = "log.example/fuzz";

/// The log's key, and a witness's.
pub fn log_signers() -> [Signer; 2] {
    [
        Signer::new(LOG_ORIGIN, Algorithm::Ed25519, &[1; 32]).expect("the name is one"),
        Signer::new("witness.example/1", Algorithm::Cosignature, &[2; 32]).expect("so is this"),
    ]
}

/// The log's checkpoint at a size, signed by both.
pub fn log_checkpoint(size: u64) -> Note {
    let mut edge = Edge::default();
    (0..size).for_each(|leaf| edge.push(log_leaf(leaf), |_, _| {}));
    let checkpoint =
        Checkpoint { origin: LOG_ORIGIN.into(), size, root: edge.root(), extensions: vec![] };
    let mut note = Note::new(checkpoint.to_string()).expect("a checkpoint is a text");
    for signer in log_signers() {
        note.add(signer.sign(&checkpoint.to_string(), 1_800_000_000)).expect("two are few");
    }
    note
}

/// One of its leaves.
pub fn log_leaf(index: u64) -> tlog::Hash {
    tree::leaf(&index.to_le_bytes())
}

/// The hashes of a proof about it.
pub fn log_hashes(ranges: Vec<std::ops::Range<u64>>) -> Vec<tlog::Hash> {
    let hash_of = |node: tree::Node| {
        let mut edge = Edge::default();
        let first = node.index << node.level;
        (first..first + (1 << node.level)).for_each(|leaf| edge.push(log_leaf(leaf), |_, _| {}));
        Ok::<_, Infallible>(edge.root())
    };
    let Ok(hashes) = tree::hashes(ranges, hash_of);
    hashes
}

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let [log, witness] = log_signers().map(|signer| signer.verifier().clone());
    Policy::new(LOG_ORIGIN, vec![log], vec![witness], 1).expect("it can be met")
});

/// A signed note, and the checkpoint in it. What is taken has one form, and what is trusted says
/// what the log has signed.
pub fn log_note(data: &[u8]) -> bool {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = text.parse::<Verifier>()
    {
        assert_eq!(key.to_string(), text);
        return true;
    }
    let Ok(note) = Note::read(data) else { return false };
    assert_eq!(note.to_string().as_bytes(), data);
    let Ok(checkpoint) = note.text().parse::<Checkpoint>() else { return false };
    assert_eq!(checkpoint.to_string(), note.text());
    if let Ok(seen) = POLICY.open(data) {
        assert_eq!(seen.note.text(), log_checkpoint(LOG_SIZE).text(), "a forgery");
    }
    true
}

/// A request to a witness.
pub fn log_request(data: &[u8]) -> bool {
    let Ok(request) = AddCheckpoint::read(data) else { return false };
    assert_eq!(request.to_string().as_bytes(), data);
    let [log, _] = log_signers().map(|signer| signer.verifier().clone());
    let last: Checkpoint = log_checkpoint(3).text().parse().expect("it was written");
    if request.judge(&[log], Some(&last)).is_ok() {
        assert_eq!(request.note.text(), log_checkpoint(LOG_SIZE).text(), "a forgery");
    }
    true
}

/// What a witness answers to a log: signature lines, or the size that it knows.
pub fn log_answer(data: &[u8]) -> bool {
    let [_, witness] = log_signers().map(|signer| signer.verifier().clone());
    let note = log_checkpoint(LOG_SIZE);
    if let Ok(line) = cosignature(&note, &witness, data) {
        assert_eq!(note.lines().last(), Some(&line), "a forgery");
        return true;
    }
    size(data).is_some()
}

/// A policy as people write it. One that asks for more than there is never gets through.
pub fn log_policy(data: &[u8]) -> bool {
    let Ok(PolicyFile { policy, urls }) = PolicyFile::read(data) else { return false };
    assert_eq!(urls.len(), policy.witnesses().len());
    assert!(policy.quorum() <= urls.len() && !policy.keys().is_empty());
    true
}

/// A proof that travels.
pub fn log_proof(data: &[u8]) -> bool {
    let Ok(proof) = Proof::read(data) else { return false };
    assert_eq!(proof.to_string().as_bytes(), data);
    if proof.check(&log_leaf(5), &POLICY).is_ok() {
        assert_eq!(proof.index, 5, "at another place");
    }
    true
}

/// An entry of a registry's log.
pub fn log_record(data: &[u8]) -> bool {
    let Ok(record) = Record::read(data) else { return false };
    assert_eq!(record.write(), data);
    true
}

/// A path, or, after a byte that says how many entries there are, what a bundle holds.
pub fn log_tile(data: &[u8]) -> bool {
    if let Ok(path) = std::str::from_utf8(data)
        && let Ok(resource) = path.parse::<Resource>()
    {
        assert_eq!(resource.to_string(), path);
        return true;
    }
    let Some((width, content)) = data.split_first() else { return false };
    let bundle = Bundle { index: 0, width: u16::from(*width) + 1 };
    if let Ok(hashes) = bundle.tile().read(content) {
        assert_eq!(tlog::tile::content(&hashes), content);
    }
    let Ok(entries) = bundle.read(content) else { return false };
    let mut again = Vec::new();
    for entry in entries {
        Bundle::push(&mut again, entry).expect("it was read with its length");
    }
    assert_eq!(again, content);
    true
}

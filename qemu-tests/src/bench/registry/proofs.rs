//! How large the proof is that a statement is in a log, by the size of the log: made, written and
//! checked with `tlog`'s own code over a whole tree in memory.

use anyhow::{Context as _, Result};
use contract::{Envelope, merkle};
use std::convert::Infallible;
use tlog::{Algorithm, Checkpoint, Hash, Note, Policy, Proof, Record, Signer, tree};

/// Any time.
const TIME: u64 = 1_800_000_000;

/// A proof that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Hashes of the inclusion proof.
    pub(super) hashes: usize,
    /// The whole proof with its record and the checkpoint, as it travels.
    pub(super) bytes: usize,
}

/// Every complete subtree over so many leaves: hashes by level. The first leaf is the one that will be
/// proven, which has the longest path.
fn levels(first: Hash, entries: u64) -> Vec<Vec<Hash>> {
    let others = (1..entries).map(|number| tree::leaf(&number.to_be_bytes()));
    let mut levels = vec![[first].into_iter().chain(others).collect::<Vec<_>>()];
    while let Some(below) = levels.last().filter(|below| below.len() > 1) {
        let pair = |pair: &[Hash; 2]| merkle::node(&pair[0], &pair[1]);
        let level = below.as_chunks().0.iter().map(pair).collect();
        levels.push(level);
    }
    levels
}

/// The proof of a statement in a log of so many entries, cosigned by so many witnesses.
pub(super) fn size(statement: &Envelope, entries: u64, witnesses: usize) -> Result<Size> {
    let record = Record::of(statement).context("making a record")?.write();
    let levels = levels(tree::leaf(&record), entries);
    let hash_of = |node: tree::Node| -> Result<Hash, Infallible> {
        let index = usize::try_from(node.index).expect("the tree is in memory");
        Ok(levels[usize::from(node.level)][index])
    };
    let Ok(root) = tree::root(entries, hash_of);
    let ranges = tree::inclusion(0, entries).context("an empty log has no proof")?;
    let Ok(path) = tree::hashes(ranges, hash_of);
    let origin = "registry.example/bench";
    let log = Signer::new(origin, Algorithm::Ed25519, &[1; 32])?;
    let witness = |number: usize| {
        let seed = [u8::try_from(number + 2)?; 32];
        Ok(Signer::new(&format!("witness.example/{number}"), Algorithm::Cosignature, &seed)?)
    };
    let witnesses: Vec<Signer> = (0..witnesses).map(witness).collect::<Result<_>>()?;
    let checkpoint =
        Checkpoint { origin: origin.into(), size: entries, root, extensions: Vec::new() };
    let mut note = Note::new(checkpoint.to_string())?;
    for signer in [&log].into_iter().chain(&witnesses) {
        note.add(signer.sign(note.text(), TIME))?;
    }
    let keys = witnesses.iter().map(|witness| witness.verifier().clone()).collect();
    let policy = Policy::new(origin, vec![log.verifier().clone()], keys, witnesses.len())?;
    let proof = Proof { extra: Some(record.to_vec()), index: 0, path, note };
    let text = proof.to_string();
    let read = Proof::read(text.as_bytes()).context("reading the proof")?;
    read.check_statement(&statement.id()?, &policy).context("checking the proof")?;
    Ok(Size { hashes: proof.path.len(), bytes: text.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{Timestamp, testkit::World};

    #[test]
    fn a_proof_grows_by_one_hash_when_the_log_doubles() {
        let world = World::new(Timestamp::from_seconds(1_800_000_000));
        let statement = world.identity("owner");
        let check = |entries, hashes| {
            assert_eq!(size(&statement, entries, 2).unwrap().hashes, hashes, "{entries}");
        };
        for (entries, hashes) in [(1, 0), (2, 1), (3, 2), (1000, 10), (1024, 10), (1025, 11)] {
            check(entries, hashes);
        }
        let bytes = |entries| size(&statement, entries, 2).unwrap().bytes;
        assert_eq!(bytes(2048) - bytes(1024), 45, "a hash in base64 and the end of its line");
        assert!(size(&statement, 0, 2).is_err());
    }
}

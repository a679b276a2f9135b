//! What has to be true of a log, whoever was killed: judges what others have fetched. No I/O.

use super::watcher::{REGISTRY, Sighting};
use crate::house::WITNESSES;
use anyhow::{Context as _, Result, bail, ensure};
use contract::StatementId;
use std::collections::{BTreeMap, BTreeSet};
use tlog::{Checkpoint, Edge, Hash, Record, tree};

/// Everything that was ever seen of one log.
#[derive(Debug)]
pub(super) struct Audit {
    edge: Edge,
    /// The root of the tree over the first so many entries, for every number.
    roots: Vec<Hash>,
    /// Where each statement is in the log.
    places: BTreeMap<StatementId, u64>,
    acknowledged: Vec<StatementId>,
    /// All that was ever sent: nothing else may be in the log.
    sent: BTreeSet<StatementId>,
    /// Checkpoints that were seen, by their size.
    seen: BTreeMap<u64, Hash>,
    /// The last size that each has shown.
    shown: [u64; WITNESSES + 1],
    /// The largest that each witness has signed.
    signed: [u64; WITNESSES],
}

impl Audit {
    pub(super) fn new() -> Self {
        let edge = Edge::default();
        let roots = vec![edge.root()];
        Self {
            edge,
            roots,
            places: BTreeMap::new(),
            acknowledged: Vec::new(),
            sent: BTreeSet::new(),
            seen: BTreeMap::new(),
            shown: [0; WITNESSES + 1],
            signed: [0; WITNESSES],
        }
    }

    /// Entries that were read.
    pub(super) fn size(&self) -> u64 {
        self.edge.size()
    }

    /// In the order in which they were acknowledged.
    pub(super) fn acknowledged(&self) -> &[StatementId] {
        &self.acknowledged
    }

    /// All that may be in the log.
    pub(super) fn known(&self) -> impl Iterator<Item = &StatementId> {
        self.sent.iter()
    }

    /// Checkpoints of different sizes that were seen.
    pub(super) fn checkpoints(&self) -> usize {
        self.seen.len()
    }

    /// How many of these are in the log.
    pub(super) fn logged(&self, ids: &[StatementId]) -> usize {
        ids.iter().filter(|id| self.places.contains_key(id)).count()
    }

    /// These have to be in the log for ever.
    pub(super) fn acknowledge(&mut self, ids: &[StatementId]) {
        self.sent(ids);
        self.acknowledged.extend(ids);
    }

    /// These may be in the log.
    pub(super) fn sent<'a>(&mut self, ids: impl IntoIterator<Item = &'a StatementId>) {
        self.sent.extend(ids);
    }

    /// Takes the next entry of the log.
    pub(super) fn extend(&mut self, entry: &[u8]) -> Result<()> {
        let (record, place) = (Record::read(entry)?, self.size());
        let id = record.statement;
        if let Some(before) = self.places.insert(id, place) {
            bail!("the statement {id} is in the log twice: entries {before} and {place}");
        }
        self.edge.push(tree::leaf(entry), |_, _| {});
        self.roots.push(self.edge.root());
        Ok(())
    }

    /// Takes a checkpoint that somebody has shown. What one shows never gets smaller, and nobody shows
    /// another tree of a size that was seen before.
    pub(super) fn see(&mut self, sighting: &Sighting) -> Result<()> {
        let Sighting { by, checkpoint, signers } = sighting;
        let (name, size) = (name(*by), checkpoint.size);
        let last = &mut self.shown[*by];
        ensure!(size >= *last, "{name} went back: it showed {last} entries, and then {size}");
        *last = size;
        for witness in signers {
            self.signed[*witness] = self.signed[*witness].max(size);
        }
        self.note(checkpoint).with_context(|| format!("{name} showed it"))
    }

    fn note(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let Checkpoint { size, root, .. } = checkpoint;
        let known = self.seen.entry(*size).or_insert(*root);
        ensure!(known == root, "two trees of {size} entries were signed");
        self.fits(*size, root)
    }

    /// A witness shows at least what it has signed, wherever that was seen.
    pub(super) fn remembers(&self, sighting: &Sighting) -> Result<()> {
        let Some(signed) = self.signed.get(sighting.by) else { return Ok(()) };
        let (name, size) = (name(sighting.by), sighting.checkpoint.size);
        ensure!(
            size >= *signed,
            "{name} has forgotten: it signed {signed} entries, and knows {size}"
        );
        Ok(())
    }

    /// A proof has said that a statement is entry `index` of the tree of this checkpoint.
    pub(super) fn proven(
        &mut self,
        id: &StatementId,
        index: u64,
        under: &Checkpoint,
    ) -> Result<()> {
        if let Some(place) = self.places.get(id) {
            ensure!(*place == index, "{id} was entry {place}, and is proven as entry {index}");
        }
        self.note(under).with_context(|| format!("it proves {id}"))
    }

    /// Whether everything fits together by now, with the checkpoint up to which entries were read.
    pub(super) fn check(&mut self, newest: &Checkpoint) -> Result<()> {
        ensure!(newest.size == self.size(), "{} of {} entries", self.size(), newest.size);
        self.note(newest)?;
        for (size, root) in &self.seen {
            self.fits(*size, root)?;
        }
        if let Some(lost) = self.acknowledged.iter().find(|id| !self.places.contains_key(id)) {
            bail!("the statement {lost} was acknowledged, and the log does not have it");
        }
        if let Some((stranger, place)) = self.places.iter().find(|(id, _)| !self.sent.contains(id))
        {
            bail!("entry {place} is the statement {stranger}, which nobody has sent");
        }
        Ok(())
    }

    /// At the end: no checkpoint was seen of what the log does not show.
    pub(super) fn nothing_waits(&self) -> Result<()> {
        let largest = self.seen.last_key_value().map_or(0, |(size, _)| *size);
        ensure!(largest <= self.size(), "{largest} entries were signed, {} shown", self.size());
        Ok(())
    }

    /// Whether a tree is one of this log, as far as it was read.
    fn fits(&self, size: u64, root: &Hash) -> Result<()> {
        let own = usize::try_from(size).ok().and_then(|size| self.roots.get(size));
        ensure!(
            own.is_none_or(|own| own == root),
            "the checkpoint of {size} entries is of another history than the entries"
        );
        Ok(())
    }
}

fn name(by: usize) -> String {
    if by == REGISTRY { "the registry".to_owned() } else { format!("witness {by}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::Kind;

    fn id(number: u8) -> StatementId {
        StatementId([number; 32])
    }

    fn entry(number: u8) -> Vec<u8> {
        let record = Record {
            kind: Kind::Identity,
            subject: [number; 32],
            version: 1,
            statement: id(number),
            evidence: [0; 32],
        };
        record.write().to_vec()
    }

    fn checkpoint(entries: &[u8]) -> Checkpoint {
        let mut edge = Edge::default();
        for number in entries {
            edge.push(tree::leaf(&entry(*number)), |_, _| {});
        }
        let (size, root) = (edge.size(), edge.root());
        Checkpoint { origin: "log.example".into(), size, root, extensions: vec![] }
    }

    /// Read as it is: entries 1 to 4, of which 1 to 3 were acknowledged.
    fn whole() -> Audit {
        let mut audit = Audit::new();
        audit.acknowledge(&[id(1), id(2), id(3)]);
        audit.sent([&id(4), &id(5)]);
        (1..=4).for_each(|number| audit.extend(&entry(number)).unwrap());
        audit.check(&checkpoint(&[1, 2, 3, 4])).unwrap();
        audit
    }

    fn says(outcome: Result<()>, wanted: &str) {
        let said = format!("{:#}", outcome.unwrap_err());
        assert!(said.contains(wanted), "{said}");
    }

    #[test]
    fn what_is_lost_doubled_or_strange_is_found() {
        let mut audit = whole();
        audit.acknowledge(&[id(5)]);
        says(audit.check(&checkpoint(&[1, 2, 3, 4])), "does not have it");
        audit.extend(&entry(5)).unwrap();
        audit.check(&checkpoint(&[1, 2, 3, 4, 5])).unwrap();
        says(audit.extend(&entry(2)), "twice: entries 1 and 5");
        let mut audit = whole();
        audit.extend(&entry(9)).unwrap();
        says(audit.check(&checkpoint(&[1, 2, 3, 4, 9])), "nobody has sent");
        says(whole().extend(b"no entry"), "no record");
        says(whole().proven(&id(2), 2, &checkpoint(&[1, 2, 3])), "was entry 1");
        whole().proven(&id(2), 1, &checkpoint(&[1, 2, 3])).unwrap();
    }

    #[test]
    fn a_checkpoint_of_another_history_is_found_whenever_it_comes() {
        says(whole().check(&checkpoint(&[1, 2, 4, 3])), "two trees of 4");
        says(whole().check(&checkpoint(&[1, 2, 3])), "4 of 3");
        let sighting =
            |by, entries| Sighting { by, checkpoint: checkpoint(entries), signers: vec![] };
        let mut audit = whole();
        audit.see(&sighting(0, &[1, 2])).unwrap();
        says(audit.see(&sighting(0, &[1, 3, 2])), "another history");
        // Before its entries are known.
        let mut audit = whole();
        audit.see(&sighting(REGISTRY, &[1, 2, 3, 4, 6])).unwrap();
        says(audit.see(&sighting(0, &[1, 2, 3, 4, 5])), "two trees of 5");
        says(audit.nothing_waits(), "5 entries were signed, 4 shown");
        audit.extend(&entry(5)).unwrap();
        audit.extend(&entry(7)).unwrap();
        says(audit.check(&checkpoint(&[1, 2, 3, 4, 5, 7])), "another history");
    }

    #[test]
    fn whoever_goes_back_or_forgets_is_found() {
        let sighting = |by, entries, signers: &[usize]| Sighting {
            by,
            checkpoint: checkpoint(entries),
            signers: signers.to_vec(),
        };
        let mut audit = whole();
        audit.see(&sighting(REGISTRY, &[1, 2, 3], &[0, 2])).unwrap();
        says(audit.see(&sighting(REGISTRY, &[1, 2], &[])), "the registry went back");
        let mut audit = whole();
        audit.see(&sighting(REGISTRY, &[1, 2, 3], &[0, 2])).unwrap();
        let other = sighting(1, &[1, 2], &[1]);
        audit.see(&other).unwrap();
        audit.remembers(&other).unwrap();
        let forgetful = sighting(2, &[1, 2], &[2]);
        audit.see(&forgetful).unwrap();
        says(audit.remembers(&forgetful), "witness 2 has forgotten");
        audit.nothing_waits().unwrap();
    }
}

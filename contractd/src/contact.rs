//! How long the node has been without contact to the registry, and whose workloads wait for it. Pure.
//!
//! Counted is by the boot clock, from the last inbox that the registry answered with, or from the start of the kernel.
//! A new contractd in the same boot counts on from what was written down: never later than it was.

use contract::{ContractId, Verdict, header::OnPartition};
use std::collections::{BTreeMap, BTreeSet};

/// How often the last contact is written down, while a contract asks for it. After a restart of
/// contractd, so much may be counted too many.
const WRITE_MS: u64 = 10_000;

/// The stable word for results.
pub(crate) const CODE: &str = "partitioned";
/// The sentence for people.
pub(crate) const MESSAGE: &str =
    "no contact to the registry for longer than the contract allows; its data is kept";

/// The last contact to the registry. In milliseconds of the boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Contact {
    last_ms: u64,
    written_ms: u64,
}

impl Contact {
    /// What was written down in this boot; in another, there was no contact yet.
    pub(crate) fn read(text: Option<&str>, boot: &str) -> Self {
        let written = text.and_then(|text| text.split_once(' '));
        let last = written.filter(|(of, _)| *of == boot).and_then(|(_, ms)| ms.parse().ok());
        let last_ms = last.unwrap_or(0);
        Self { last_ms, written_ms: last_ms }
    }

    /// Takes note that the registry has answered.
    pub(crate) fn note(&mut self, now_ms: u64) {
        self.last_ms = self.last_ms.max(now_ms);
    }

    /// What is to be written down now, if anything.
    pub(crate) fn take_due(
        &mut self,
        verdicts: &BTreeMap<ContractId, Verdict>,
        boot: &str,
    ) -> Option<String> {
        let due = self.last_ms.saturating_sub(self.written_ms) >= WRITE_MS;
        if !due || !verdicts.values().any(|verdict| patience_ms(verdict).is_some()) {
            return None;
        }
        self.written_ms = self.last_ms;
        Some(format!("{boot} {}", self.last_ms))
    }

    /// The contracts whose workloads stop until there is contact again.
    pub(crate) fn partitioned(
        self,
        verdicts: &BTreeMap<ContractId, Verdict>,
        now_ms: u64,
    ) -> BTreeSet<ContractId> {
        let without_ms = now_ms.saturating_sub(self.last_ms);
        let waits = |verdict: &Verdict| patience_ms(verdict).is_some_and(|ms| without_ms > ms);
        verdicts.iter().filter(|(_, verdict)| waits(verdict)).map(|(id, _)| *id).collect()
    }
}

/// How long a contract that may run goes on without contact; `None`: until it expires.
fn patience_ms(verdict: &Verdict) -> Option<u64> {
    let Verdict::Run(agreed) = verdict else { return None };
    match agreed.header.execution.on_partition {
        OnPartition::Keep => None,
        OnPartition::StopAfterS(seconds) => Some(u64::from(seconds) * 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{
        DocumentId, StatementId, Timestamp,
        testkit::World,
        verdict::{Agreed, Code, Refusal},
    };

    fn verdicts() -> BTreeMap<ContractId, Verdict> {
        let world = World::new(Timestamp::from_seconds(1_800_000_000));
        let run = |on_partition| {
            let mut header = world.header(1, None);
            header.execution.on_partition = on_partition;
            let (header_id, document_id) = (StatementId([1; 32]), DocumentId([1; 32]));
            Verdict::Run(Box::new(Agreed {
                header,
                header_id,
                document: world.document(1),
                document_id,
            }))
        };
        let refusal = Refusal { code: Code::NotYet, message: String::new() };
        BTreeMap::from([
            (ContractId([1; 32]), run(OnPartition::Keep)),
            (ContractId([2; 32]), run(OnPartition::StopAfterS(60))),
            (ContractId([3; 32]), run(OnPartition::StopAfterS(3600))),
            (ContractId([4; 32]), Verdict::Refuse(refusal)),
        ])
    }

    #[test]
    fn only_who_has_signed_it_stops_and_only_until_there_is_contact() {
        let verdicts = verdicts();
        let mut contact = Contact::default();
        let check = |contact: Contact, now_ms: u64, wanted: &[u8]| {
            let wanted: BTreeSet<_> = wanted.iter().map(|n| ContractId([*n; 32])).collect();
            assert_eq!(contact.partitioned(&verdicts, now_ms), wanted, "at {now_ms}");
        };
        // Without any contact, from the start of the kernel.
        check(contact, 60_000, &[]);
        check(contact, 60_001, &[2]);
        check(contact, 3_600_001, &[2, 3]);
        contact.note(3_600_001);
        check(contact, 3_600_002, &[]);
        check(contact, 3_660_001, &[]);
        check(contact, 3_660_002, &[2]);
        check(contact, u64::MAX, &[2, 3]);
    }

    #[test]
    fn a_new_contractd_counts_on_and_a_new_boot_begins() {
        let verdicts = verdicts();
        let mut contact = Contact::default();
        contact.note(50_000);
        let text = contact.take_due(&verdicts, "a").unwrap();
        contact.note(50_000 + WRITE_MS - 1);
        assert_eq!(contact.take_due(&verdicts, "a"), None, "not for each answer");
        contact.note(50_000 + WRITE_MS);
        assert_eq!(contact.take_due(&BTreeMap::new(), "a"), None, "nobody asks for it");
        assert!(contact.take_due(&verdicts, "a").is_some());
        let again = Contact::read(Some(&text), "a");
        assert_eq!(again.last_ms, 50_000);
        assert!(again.partitioned(&verdicts, 110_000).is_empty());
        assert!(!again.partitioned(&verdicts, 110_001).is_empty());
        for (text, boot) in [(None, "a"), (Some(text.as_str()), "b"), (Some("a x"), "a")] {
            assert_eq!(Contact::read(text, boot), Contact::default());
        }
    }
}

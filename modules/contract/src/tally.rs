//! The count: which stakeholders have decided what, and whether that fulfils a rule.

use crate::{
    decision::{Action, Approval, Decision},
    envelope::Signed,
    header::{Header, Role, Rule, Stakeholder},
    id::{IdentityId, StatementId},
    identity::Signer,
    time::Timestamp,
};
use alloc::{collections::BTreeMap, format, string::String, vec::Vec};

/// What is decided on.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The header whose stakeholders decide.
    pub header: &'a Header,
    /// The version that approvals must name.
    pub version: u64,
    /// The statement that approvals must name.
    pub subject: StatementId,
    /// The action that approvals must name.
    pub action: Action,
    /// Decisions issued after this do not count.
    pub until: Timestamp,
}

/// Decisions that count, one for each identity that has decided.
///
/// Counted are approvals that name exactly this question, that a stakeholder of the header signed
/// with a threshold of its keys, and that were issued in time. Of several by one identity the
/// latest stands. The order in which they are given changes nothing, nor do duplicates.
pub fn decisions(
    question: &Question<'_>,
    approvals: &[Signed<Approval>],
    signers: &[Signer],
) -> BTreeMap<IdentityId, Decision> {
    let is_signed = |approval: &&Signed<Approval>| {
        let signer = signers.iter().find(|signer| signer.id == approval.body.signer);
        question.asks(&approval.body) && signer.is_some_and(|signer| signer.signed(approval))
    };
    let mut latest: BTreeMap<IdentityId, (Timestamp, Decision)> = BTreeMap::new();
    for Signed { body: approval, .. } in approvals.iter().filter(is_signed) {
        let decided = (approval.issued, approval.decision);
        let standing = latest.entry(approval.signer).or_insert(decided);
        *standing = decided.max(*standing);
    }
    latest.into_iter().map(|(identity, (_, decision))| (identity, decision)).collect()
}

impl Question<'_> {
    pub(crate) fn asks(&self, approval: &Approval) -> bool {
        approval.network == self.header.network
            && approval.contract == self.header.contract
            && approval.version == self.version
            && approval.subject == self.subject
            && approval.action == self.action
            && approval.issued <= self.until
            && self.header.stakeholders.iter().any(|holder| holder.identity == approval.signer)
    }
}

/// Whether a rule is fulfilled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tally {
    /// It is.
    Agreed,
    /// It is not yet: what is missing, as sentences.
    Open(Vec<String>),
    /// These reject, and may.
    Rejected(Vec<IdentityId>),
}

/// Holds the decisions against a rule. Somebody who has not decided is neutral.
pub fn tally(
    rule: &Rule,
    stakeholders: &[Stakeholder],
    decisions: &BTreeMap<IdentityId, Decision>,
) -> Tally {
    let decided = |holder: &Stakeholder, what: Decision| {
        decisions.get(&holder.identity).is_some_and(|decision| *decision == what)
    };
    let blocks = |holder: &&Stakeholder| {
        let may =
            rule.required.contains(&holder.identity) || rule.veto_roles.contains(&holder.role);
        may && decided(holder, Decision::Reject)
    };
    let rejections: Vec<_> =
        stakeholders.iter().filter(blocks).map(|holder| holder.identity).collect();
    if !rejections.is_empty() {
        return Tally::Rejected(rejections);
    }

    let approving: Vec<_> =
        stakeholders.iter().filter(|holder| decided(holder, Decision::Approve)).collect();
    let mut missing = Vec::new();
    for identity in &rule.required {
        if !approving.iter().any(|holder| holder.identity == *identity) {
            missing.push(format!("the approval of {}", identity.short()));
        }
    }
    for quorum in &rule.roles {
        let have = approving.iter().filter(|holder| holder.role == quorum.role).count();
        let want = usize::try_from(quorum.min).unwrap_or(usize::MAX);
        if have < want {
            missing.push(format!("{} more of role {}", want - have, quorum.role));
        }
    }
    let weight: u64 = approving.iter().map(|holder| u64::from(holder.weight)).sum();
    if weight < u64::from(rule.min_weight) {
        missing.push(format!("weight {weight} of {}", rule.min_weight));
    }
    if missing.is_empty() { Tally::Agreed } else { Tally::Open(missing) }
}

/// Stakeholders whose approval a rule still waits for: all who have not approved and are required,
/// or have a role that is short, or carry weight while weight is missing.
pub fn awaited<'a>(
    rule: &Rule,
    stakeholders: &'a [Stakeholder],
    decisions: &BTreeMap<IdentityId, Decision>,
) -> Vec<&'a Stakeholder> {
    let approved =
        |holder: &Stakeholder| decisions.get(&holder.identity) == Some(&Decision::Approve);
    let short = |role: Role| {
        rule.roles.iter().any(|quorum| {
            let have = stakeholders.iter().filter(|one| one.role == role && approved(one)).count();
            quorum.role == role && u64::from(quorum.min) > have as u64
        })
    };
    let weight: u64 =
        stakeholders.iter().filter(|one| approved(one)).map(|one| u64::from(one.weight)).sum();
    let light = weight < u64::from(rule.min_weight);
    stakeholders
        .iter()
        .filter(|holder| !approved(holder))
        .filter(|holder| {
            rule.required.contains(&holder.identity)
                || short(holder.role)
                || (light && holder.weight > 0)
        })
        .collect()
}

impl Tally {
    /// What is missing, in one sentence; `None` when agreed.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Agreed => None,
            Self::Open(missing) => Some(format!("missing: {}", missing.join(", "))),
            Self::Rejected(by) => {
                let names: Vec<_> = by.iter().map(IdentityId::short).collect();
                Some(format!("rejected by {}", names.join(", ")))
            }
        }
    }
}

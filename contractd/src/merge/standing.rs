//! What of a merged bundle can still matter; the rest goes, so that it never fills up.
//!
//! Dropped is only what no later statement can bring back into a verdict: decisions that a later one
//! of the same signer replaces or that came too late, cancels and documents of versions below the one
//! in force. The headers stay, and with them what stands on each: the chain needs them. Pure.

use contract::{
    Bundle, Envelope, IdentityId, Logged, NodeId, Proven, Signed, StatementId, Timestamp,
    bundle::{Deployment, STATEMENTS_MAX},
    decision::{Action, Approval, CANCEL_OPEN_S, Cancel, Decision},
    header::Header,
    strict,
    tally::Tally,
    verdict::Case,
    workload::{DOCUMENT_BYTES_MAX, Document},
};
use std::collections::{BTreeMap, BTreeSet};

/// Orders to end the version in force that are kept, of however many its owner writes.
pub(crate) const CANCELS_MAX: usize = 64;
/// Decisions of one signer on statements that the node does not have: they may come again.
pub(crate) const STRAYS_MAX: usize = 16;

/// What decisions on a statement must say to count.
struct Subject {
    version: u64,
    action: Action,
    until: Timestamp,
}

/// Leaves out what cannot matter any more.
pub(crate) fn keep_standing(bundle: &mut Bundle, proven: &Proven, logged: &Logged) {
    let headers: Vec<Signed<Header>> =
        bundle.headers.iter().filter_map(|envelope| Signed::open(envelope).ok()).collect();
    // First, for there may be more of them now than a case takes.
    keep_decisions(bundle, &headers);
    let Ok(case) = Case::read_after(bundle, proven, logged) else { return };
    let in_force = case.in_force().ok().flatten();
    let version = in_force.map_or(0, |header| header.body.version);
    let current = usize::try_from(version.saturating_sub(1)).unwrap_or(usize::MAX);
    let living = headers.get(current..).unwrap_or_default();
    bundle.documents.retain(|one| belongs(one, living.iter().map(|header| &header.body)));
    let cancels = cancels_that_stand(bundle, &case, in_force);
    if cancels.len() < bundle.cancels.len() {
        bundle.cancels.retain(|one| one.id().is_ok_and(|id| cancels.contains(&id)));
        keep_decisions(bundle, &headers);
    }
}

fn keep_decisions(bundle: &mut Bundle, headers: &[Signed<Header>]) {
    let decisions = decisions_that_stand(bundle, headers);
    bundle.approvals.retain(|one| one.id().is_ok_and(|id| decisions.contains(&id)));
}

/// Whether a document is under the root of one of these headers.
pub(crate) fn belongs<'h>(
    deployment: &Deployment,
    mut headers: impl Iterator<Item = &'h Header>,
) -> bool {
    let Some(bytes) = deployment.bytes() else { return false };
    let leaf = contract::merkle::leaf(&bytes);
    headers.any(|header| {
        let root = &header.deployments;
        contract::merkle::proves(&leaf, &deployment.path, root.count, &root.root.0)
    })
}

/// The bundle without the documents of other nodes. One that cannot be read stays: that is a reason
/// to refuse the contract.
pub(crate) fn of_node(offered: &Bundle, node: &NodeId) -> Bundle {
    let is_foreign = |one: &Deployment| {
        one.bytes().is_some_and(|bytes| {
            strict::read::<Document>(&bytes, DOCUMENT_BYTES_MAX)
                .is_ok_and(|document| document.node != *node)
        })
    };
    let mut own = offered.clone();
    own.documents.retain(|one| !is_foreign(one));
    own
}

/// Only what can stop a contract: rejects, withdrawals, cancels with every decision on one, and whose
/// they are.
pub(crate) fn stops(offered: &Bundle) -> Bundle {
    let mut stops =
        Bundle { headers: Vec::new(), pools: Vec::new(), documents: Vec::new(), ..offered.clone() };
    stops.approvals.retain(|one| Signed::<Approval>::open(one).is_ok_and(|one| is_stop(&one.body)));
    stops
}

fn is_stop(approval: &Approval) -> bool {
    approval.decision != Decision::Approve || approval.action == Action::Cancel
}

/// Orders to end the version in force or a later one. Of too many, those with quorum stay first, then
/// the latest.
fn cancels_that_stand(
    bundle: &Bundle,
    case: &Case,
    in_force: Option<&Signed<Header>>,
) -> BTreeSet<StatementId> {
    let version = in_force.map_or(0, |header| header.body.version);
    let counted = in_force.map(|header| case.cancels(header)).unwrap_or_default();
    let agreed: BTreeSet<StatementId> = counted
        .into_iter()
        .filter(|(_, tally)| *tally == Tally::Agreed)
        .map(|(cancel, _)| cancel.id)
        .collect();
    let cancels = bundle.cancels.iter().filter_map(|one| Signed::<Cancel>::open(one).ok());
    let mut living: Vec<_> = cancels
        .filter(|cancel| cancel.body.version >= version)
        .map(|cancel| (agreed.contains(&cancel.id), cancel.body.issued, cancel.id))
        .collect();
    living.sort_unstable_by(|a, b| b.cmp(a));
    living.into_iter().take(CANCELS_MAX).map(|(.., id)| id).collect()
}

/// Of each signer and subject the one decision that stands; of subjects that are not known, a few.
fn decisions_that_stand(bundle: &Bundle, headers: &[Signed<Header>]) -> BTreeSet<StatementId> {
    let subjects = subjects(bundle, headers);
    let mut standing: BTreeMap<(IdentityId, StatementId), Signed<Approval>> = BTreeMap::new();
    let mut strays: BTreeMap<IdentityId, Vec<Signed<Approval>>> = BTreeMap::new();
    for made in bundle.approvals.iter().filter_map(|one| Signed::<Approval>::open(one).ok()) {
        let Some(subject) = subjects.get(&made.body.subject) else {
            strays.entry(made.body.signer).or_default().push(made);
            continue;
        };
        let counts = made.body.version == subject.version
            && made.body.action == subject.action
            && made.body.issued <= subject.until;
        let key = (made.body.signer, made.body.subject);
        let weight = |one: &Signed<Approval>| (one.body.issued, one.body.decision);
        // Of two that say the same, the one that was there stays.
        if counts && standing.get(&key).is_none_or(|before| weight(before) < weight(&made)) {
            standing.insert(key, made);
        }
    }
    let mut kept: Vec<Signed<Approval>> = standing.into_values().collect();
    for mut strays in strays.into_values() {
        strays.sort_by_key(|one| (!is_stop(&one.body), -one.body.issued.seconds()));
        kept.extend(strays.into_iter().take(STRAYS_MAX));
    }
    // Should there be too many, those that can stop something stay.
    kept.sort_by_key(|one| !is_stop(&one.body));
    kept.into_iter().take(STATEMENTS_MAX).map(|one| one.id).collect()
}

fn subjects(bundle: &Bundle, headers: &[Signed<Header>]) -> BTreeMap<StatementId, Subject> {
    let of_header = |header: &Signed<Header>| {
        let (version, until) = (header.body.version, header.body.approve_by);
        let action = if version == 1 { Action::Create } else { Action::Update };
        (header.id, Subject { version, action, until })
    };
    let of_cancel = |envelope: &Envelope| {
        let cancel = Signed::<Cancel>::open(envelope).ok()?;
        let until = cancel.body.issued.plus(CANCEL_OPEN_S);
        Some((cancel.id, Subject { version: cancel.body.version, action: Action::Cancel, until }))
    };
    headers.iter().map(of_header).chain(bundle.cancels.iter().filter_map(of_cancel)).collect()
}

//! Puts what the registry sends on top of what the node has seen, so that nothing is unseen.
//!
//! A registry that answers with less, with something older or with rubbish changes nothing: a
//! bundle only grows, by statements that are signed by whom they must be. Pure.

use contract::{
    Bundle, Envelope, Signed, StatementId,
    bundle::{Deployment, STATEMENTS_MAX, VERSIONS_MAX},
    decision::{Approval, Cancel},
    farm::Pool,
    header::Header,
    identity::{Identity, Signer},
    merkle,
};
use std::collections::BTreeSet;

/// `known` and whatever is sound and new in `offered`, which is about the same contract.
pub(crate) fn merge(known: &Bundle, offered: &Bundle) -> Bundle {
    let mut merged = known.clone();
    add(&mut merged.identities, &offered.identities, |envelope| {
        Signed::<Identity>::open(envelope).is_ok_and(|one| Signer::from_statement(&one).is_some())
    });
    let signers: Vec<Signer> = merged
        .identities
        .iter()
        .filter_map(|envelope| Signed::<Identity>::open(envelope).ok())
        .filter_map(|identity| Signer::from_statement(&identity))
        .collect();
    extend_chain(&mut merged.headers, &offered.headers, &signers);
    let headers: Vec<Header> = merged
        .headers
        .iter()
        .filter_map(|envelope| Signed::<Header>::open(envelope).ok())
        .map(|signed| signed.body)
        .collect();
    let Some(first) = headers.first() else { return merged };

    add(&mut merged.approvals, &offered.approvals, |envelope| {
        Signed::<Approval>::open(envelope).is_ok_and(|approval| {
            let signer = signers.iter().find(|signer| signer.id == approval.body.signer);
            approval.body.contract == first.contract
                && signer.is_some_and(|signer| signer.signed(&approval))
        })
    });
    add(&mut merged.cancels, &offered.cancels, |envelope| {
        Signed::<Cancel>::open(envelope).is_ok_and(|cancel| {
            let owner = signers.iter().find(|signer| signer.id == first.owner);
            cancel.body.contract == first.contract
                && owner.is_some_and(|owner| owner.signed(&cancel))
        })
    });
    add(&mut merged.pools, &offered.pools, |envelope| {
        Signed::<Pool>::open(envelope)
            .is_ok_and(|pool| headers.iter().any(|header| header.pool == pool.id))
    });
    for deployment in &offered.documents {
        if !merged.documents.contains(deployment) && belongs(deployment, &headers) {
            merged.documents.push(deployment.clone());
        }
    }
    merged
}

/// Adds versions that follow from those that are there. A version that is there is never replaced:
/// only its first form that the owner signed counts on this node.
fn extend_chain(known: &mut Vec<Envelope>, offered: &[Envelope], signers: &[Signer]) {
    let mut last: Option<(StatementId, Header)> =
        known.last().and_then(|envelope| Signed::open(envelope).ok()).map(|one| (one.id, one.body));
    for envelope in offered {
        let Ok(next) = Signed::<Header>::open(envelope) else { continue };
        let follows = match &last {
            None => next.body.version == 1,
            Some((id, before)) => {
                next.body.contract == before.contract
                    && next.body.version == before.version + 1
                    && next.body.prev == Some(*id)
            }
        };
        let owner = signers.iter().find(|signer| signer.id == next.body.owner);
        if follows && owner.is_some_and(|owner| owner.signed(&next)) && known.len() < VERSIONS_MAX {
            known.push(envelope.clone());
            last = Some((next.id, next.body));
        }
    }
}

fn belongs(deployment: &Deployment, headers: &[Header]) -> bool {
    let Some(bytes) = deployment.bytes() else { return false };
    let leaf = merkle::leaf(&bytes);
    headers.iter().any(|header| {
        let root = &header.deployments;
        merkle::proves(&leaf, &deployment.path, root.count, &root.root.0)
    })
}

/// Adds the statements that are sound and not there yet, up to the bound of a bundle.
fn add(known: &mut Vec<Envelope>, offered: &[Envelope], sound: impl Fn(&Envelope) -> bool) {
    let mut ids: BTreeSet<StatementId> = known.iter().filter_map(|one| one.id().ok()).collect();
    for envelope in offered {
        let Ok(id) = envelope.id() else { continue };
        if known.len() < STATEMENTS_MAX && !ids.contains(&id) && sound(envelope) {
            ids.insert(id);
            known.push(envelope.clone());
        }
    }
}

/// The bundle that knows nothing.
pub(crate) fn empty() -> Bundle {
    Bundle {
        headers: Vec::new(),
        approvals: Vec::new(),
        cancels: Vec::new(),
        identities: Vec::new(),
        pools: Vec::new(),
        documents: Vec::new(),
    }
}

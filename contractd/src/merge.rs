//! Puts what the registry sends on top of what the node has seen, so that nothing is unseen.
//!
//! A registry that answers with less, with something older or with rubbish changes nothing: a
//! bundle only grows, by statements that are signed by whom they must be. Pure.

use contract::{
    Bundle, Envelope, IdentityId, Signed, StatementId,
    bundle::{Deployment, STATEMENTS_MAX, VERSIONS_MAX},
    decision::{Approval, Cancel},
    farm::Pool,
    header::Header,
    identity::{Identity, Signer},
    merkle,
    verdict::Case,
};
use std::collections::BTreeSet;

/// An envelope with more signatures was padded by somebody.
const SIGNATURES_MAX: usize = 16;
/// 64 bytes in base64.
const SIGNATURE_TEXT_MAX: usize = 88;

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
    merged.headers = chain(known, &offered.headers, &signers);
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
            let holds = |header: &Header| {
                header.stakeholders.iter().any(|one| one.identity == approval.body.signer)
            };
            approval.body.contract == first.contract
                && headers.iter().any(holds)
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
        Signed::<Pool>::open(envelope).is_ok_and(|pool| {
            let farm = signers.iter().find(|signer| signer.id == pool.body.farm);
            headers.iter().any(|header| header.pool == pool.id)
                && farm.is_some_and(|farm| farm.signed(&pool))
        })
    });
    let pools = merged.pools.iter().filter_map(|one| Signed::<Pool>::open(one).ok());
    let mut concerned: BTreeSet<IdentityId> = pools.map(|pool| pool.body.farm).collect();
    for header in &headers {
        concerned.insert(header.owner);
        concerned.extend(header.stakeholders.iter().map(|holder| holder.identity));
    }
    merged.identities.retain(|one| one.id().is_ok_and(|id| concerned.contains(&IdentityId(id.0))));
    for deployment in &offered.documents {
        if !merged.documents.contains(deployment) && belongs(deployment, &headers) {
            merged.documents.push(deployment.clone());
        }
    }
    merged
}

/// The versions up to the one in force, which are never replaced, and those that are offered on top.
/// A version that is not agreed on yet gives way: its owner may have proposed another instead.
fn chain(known: &Bundle, offered: &[Envelope], signers: &[Signer]) -> Vec<Envelope> {
    let settled = usize::try_from(in_force(known)).unwrap_or(0);
    let mut extended = known.headers[..settled].to_vec();
    extend(&mut extended, offered, signers);
    if extended.len() > settled { extended } else { known.headers.clone() }
}

/// The version that is in force by these statements; 0: none.
pub(crate) fn in_force(bundle: &Bundle) -> u64 {
    let version = |case: Case| case.in_force().ok().flatten().map(|header| header.body.version);
    Case::read(bundle).ok().and_then(version).unwrap_or(0)
}

/// Adds versions that follow from the last and that the owner has signed.
fn extend(chain: &mut Vec<Envelope>, offered: &[Envelope], signers: &[Signer]) {
    let mut last: Option<(StatementId, Header)> =
        chain.last().and_then(|envelope| Signed::open(envelope).ok()).map(|one| (one.id, one.body));
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
        if follows && owner.is_some_and(|owner| owner.signed(&next)) && chain.len() < VERSIONS_MAX {
            chain.push(envelope.clone());
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
        let slim = envelope.signatures.len() <= SIGNATURES_MAX
            && envelope.signatures.iter().all(|one| one.sig.len() <= SIGNATURE_TEXT_MAX);
        if slim && known.len() < STATEMENTS_MAX && !ids.contains(&id) && sound(envelope) {
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

#[cfg(test)]
mod tests;

//! Puts what the registry sends on top of what the node has seen, so that nothing is unseen.
//!
//! A registry that answers with less, with something older or with rubbish changes nothing: a
//! bundle only takes in statements that are signed by whom they must be, and leaves out only what
//! cannot matter any more ([`standing`]). Pure.

pub(crate) mod standing;

use crate::evidence::Evidence;
use contract::{
    Bundle, ContractId, Envelope, IdentityId, Logged, NodeId, Proven, Signed, StatementId,
    bundle::{STATEMENTS_MAX, VERSIONS_MAX},
    decision::{Approval, Cancel},
    farm::Pool,
    header::Header,
    identity::{Identity, Signer},
};
use std::collections::{BTreeMap, BTreeSet};

/// An envelope with more signatures was padded by somebody.
const SIGNATURES_MAX: usize = 16;
/// 64 bytes in base64.
const SIGNATURE_TEXT_MAX: usize = 88;
/// Statements of one kind without the signatures that they need: a registry checks what it takes, so
/// whoever offers more wants the node to be busy. The rest is not looked at.
const FORGED_MAX: usize = 64;

/// Whether this farm has granted the contract's owner a pool on this node: looked at first, so that
/// strangers' contracts cost the node next to nothing and do not fill its state.
pub(crate) fn is_granted(
    bundle: &Bundle,
    contract: ContractId,
    farm: IdentityId,
    node: NodeId,
) -> bool {
    let named: BTreeMap<StatementId, IdentityId> = headers(bundle)
        .filter(|header| header.contract == contract)
        .map(|header| (header.pool, header.owner))
        .collect();
    let is_named = |one: &&Envelope| one.id().is_ok_and(|id| named.contains_key(&id));
    let pools: Vec<Signed<Pool>> = first(&bundle.pools, named.len(), is_named)
        .filter_map(|envelope| Signed::<Pool>::open(envelope).ok())
        .filter(|pool| pool.body.farm == farm && pool.body.nodes.contains(&node))
        .filter(|pool| named.get(&pool.id) == Some(&pool.body.owner))
        .collect();
    if pools.is_empty() {
        return false;
    }
    let farm = signers(&bundle.identities, &BTreeSet::from([farm]), &mut Proven::default());
    farm.iter().any(|farm| pools.iter().any(|pool| farm.signed(pool)))
}

/// `known` and whatever is sound and new in `offered`, which is about the same contract. The versions
/// up to `settled` were in force, whatever was decided since: they are never replaced.
/// Looks at no signature of `known` again.
pub(crate) fn merge(known: &Evidence, offered: &Bundle, settled: u64) -> Evidence {
    let proven = &mut known.case().map(|case| case.proven().clone()).unwrap_or_default();
    let logged = known.known_logged();
    let merged = merged(known, offered, settled.max(known.in_force()), proven, logged);
    known.grown(merged, proven)
}

fn merged(
    known: &Bundle,
    offered: &Bundle,
    settled: u64,
    proven: &mut Proven,
    logged: &Logged,
) -> Bundle {
    let mut merged = known.clone();
    // Whom the contract concerns follows from what its owner signed: nobody else is looked at.
    let Some(owner) = headers(known).chain(headers(offered)).next().map(|one| one.owner) else {
        return merged;
    };
    let owner = BTreeSet::from([owner]);
    add_identities(&mut merged.identities, &offered.identities, &owner, proven);
    let owners = signers(&merged.identities, &owner, proven);
    merged.headers = chain(known, &offered.headers, &owners, settled, proven);
    let headers: Vec<Header> = headers(&merged).collect();
    let Some(first_header) = headers.first() else { return merged };
    let named: BTreeSet<StatementId> = headers.iter().map(|header| header.pool).collect();
    let is_named = |one: &&Envelope| one.id().is_ok_and(|id| named.contains(&id));
    let mut concerned = owner;
    for pool in first(&known.pools, named.len(), is_named).chain(first(
        &offered.pools,
        named.len(),
        is_named,
    )) {
        concerned.extend(Signed::<Pool>::open(pool).ok().map(|pool| pool.body.farm));
    }
    for header in &headers {
        concerned.extend(header.stakeholders.iter().map(|holder| holder.identity));
    }
    add_identities(&mut merged.identities, &offered.identities, &concerned, proven);
    let signers = signers(&merged.identities, &concerned, proven);

    // More than are kept: which of them stand is seen afterwards.
    add(&mut merged.approvals, &offered.approvals, 2 * STATEMENTS_MAX, |envelope| {
        let approval = Signed::<Approval>::open(envelope).ok()?;
        let signer = signers.iter().find(|signer| signer.id == approval.body.signer)?;
        let holds = |header: &Header| {
            header.stakeholders.iter().any(|one| one.identity == approval.body.signer)
        };
        let is_about_it =
            approval.body.contract == first_header.contract && headers.iter().any(holds);
        is_about_it.then(|| proven.signed(signer, &approval))
    });
    add(&mut merged.cancels, &offered.cancels, STATEMENTS_MAX, |envelope| {
        let cancel = Signed::<Cancel>::open(envelope).ok()?;
        let owner = signers.iter().find(|signer| signer.id == first_header.owner)?;
        (cancel.body.contract == first_header.contract).then(|| proven.signed(owner, &cancel))
    });
    add(&mut merged.pools, &offered.pools, STATEMENTS_MAX, |envelope| {
        let id = envelope.id().ok()?;
        let pool = named.contains(&id).then(|| Signed::<Pool>::open(envelope).ok()).flatten()?;
        let farm = signers.iter().find(|signer| signer.id == pool.body.farm)?;
        Some(proven.signed(farm, &pool))
    });
    merged.pools.retain(|one| one.id().is_ok_and(|id| named.contains(&id)));
    // The farm of a pool that it did not sign is nobody here.
    let pools = merged.pools.iter().filter_map(|one| Signed::<Pool>::open(one).ok());
    let farms: BTreeSet<IdentityId> = pools.map(|pool| pool.body.farm).collect();
    let has_part = |id: IdentityId| {
        farms.contains(&id)
            || headers.iter().any(|header| {
                header.owner == id || header.stakeholders.iter().any(|one| one.identity == id)
            })
    };
    merged.identities.retain(|one| one.id().is_ok_and(|id| has_part(IdentityId(id.0))));
    for deployment in &offered.documents {
        if !merged.documents.contains(deployment) && standing::belongs(deployment, headers.iter()) {
            merged.documents.push(deployment.clone());
        }
    }
    standing::keep_standing(&mut merged, proven, logged);
    merged
}

/// The versions of a bundle that can be read, of as many as it may have.
fn headers(bundle: &Bundle) -> impl Iterator<Item = Header> {
    let envelopes = bundle.headers.iter().take(VERSIONS_MAX);
    envelopes.filter_map(|envelope| Signed::<Header>::open(envelope).ok()).map(|one| one.body)
}

/// The first `most` envelopes that fit.
fn first<'a>(
    envelopes: &'a [Envelope],
    most: usize,
    fits: impl Fn(&&'a Envelope) -> bool,
) -> impl Iterator<Item = &'a Envelope> {
    envelopes.iter().filter(fits).filter(|envelope| is_slim(envelope)).take(most)
}

fn is_of(envelope: &Envelope, whom: &BTreeSet<IdentityId>) -> bool {
    envelope.id().is_ok_and(|id| whom.contains(&IdentityId(id.0)))
}

/// Those of `whom` whose identity is there and sound.
fn signers(
    identities: &[Envelope],
    whom: &BTreeSet<IdentityId>,
    proven: &mut Proven,
) -> Vec<Signer> {
    first(identities, whom.len(), |envelope| is_of(envelope, whom))
        .filter_map(|envelope| Signed::<Identity>::open(envelope).ok())
        .filter_map(|identity| proven.signer(&identity))
        .collect()
}

fn add_identities(
    known: &mut Vec<Envelope>,
    offered: &[Envelope],
    whom: &BTreeSet<IdentityId>,
    proven: &mut Proven,
) {
    add(known, offered, STATEMENTS_MAX, |envelope| {
        let identity = is_of(envelope, whom).then(|| Signed::<Identity>::open(envelope).ok());
        Some(proven.signer(&identity.flatten()?).is_some())
    });
}

/// The settled versions, and those that are offered on top. A version that was never agreed on gives
/// way: its owner may have proposed another instead.
fn chain(
    known: &Bundle,
    offered: &[Envelope],
    signers: &[Signer],
    settled: u64,
    proven: &mut Proven,
) -> Vec<Envelope> {
    let settled = usize::try_from(settled).unwrap_or(usize::MAX).min(known.headers.len());
    let mut extended = known.headers[..settled].to_vec();
    extend(&mut extended, offered, signers, proven);
    if extended.len() > settled { extended } else { known.headers.clone() }
}

/// Adds versions that follow from the last and that the owner has signed.
fn extend(
    chain: &mut Vec<Envelope>,
    offered: &[Envelope],
    signers: &[Signer],
    proven: &mut Proven,
) {
    let mut last: Option<(StatementId, Header)> =
        chain.last().and_then(|envelope| Signed::open(envelope).ok()).map(|one| (one.id, one.body));
    for envelope in offered.iter().take(VERSIONS_MAX) {
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
        let has_room = chain.len() < VERSIONS_MAX && is_slim(envelope);
        if follows && has_room && owner.is_some_and(|owner| proven.signed(owner, &next)) {
            chain.push(envelope.clone());
            last = Some((next.id, next.body));
        }
    }
}

/// Adds the statements that are sound and not there yet, while there are fewer than `most`. `is_sound` is
/// `None` for what needs no look at its signatures.
fn add(
    known: &mut Vec<Envelope>,
    offered: &[Envelope],
    most: usize,
    mut is_sound: impl FnMut(&Envelope) -> Option<bool>,
) {
    let mut ids: BTreeSet<StatementId> = known.iter().filter_map(|one| one.id().ok()).collect();
    let mut forged = 0;
    for envelope in offered {
        let Ok(id) = envelope.id() else { continue };
        if !is_slim(envelope) || known.len() >= most || ids.contains(&id) {
            continue;
        }
        match is_sound(envelope) {
            Some(true) => {
                ids.insert(id);
                known.push(envelope.clone());
            }
            Some(false) if forged == FORGED_MAX => break,
            Some(false) => forged += 1,
            None => {}
        }
    }
}

fn is_slim(envelope: &Envelope) -> bool {
    envelope.signatures.len() <= SIGNATURES_MAX
        && envelope.signatures.iter().all(|one| one.sig.len() <= SIGNATURE_TEXT_MAX)
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

//! How many contracts somebody may keep open, so that nobody fills the registry or a node's list.
//!
//! Identities cost nothing, so this stops accidents and the simplest floods; what concerns a node
//! is decided by the grants of its farm ([`crate::changes::for_node`]).

use crate::{admit, db::Fault, refusal, sql::Connection, standing, store};
use contract::{ContractId, Envelope, Timestamp, header::Header};
use registry_api::problem::codes;

/// Contracts of one owner that have not ended.
pub const OWNER_MAX: usize = 512;
/// Contracts of one owner in one pool that have not ended. A node lists 1000, of all pools.
pub const POOL_MAX: usize = 256;

/// Refuses a new contract of an owner who has too many.
///
/// Reads signatures of up to [`OWNER_MAX`] contracts, and only of those who are at a bound. Two
/// contracts that come at the same time may both pass.
pub fn check(
    connection: &Connection,
    envelope: &Envelope,
    network: &str,
    now: Timestamp,
) -> Result<(), Fault> {
    let signed = admit::open::<Header>(envelope, network)?;
    let header = &signed.body;
    if store::versions(connection, &header.contract)? > 0 {
        return Ok(());
    }
    // Whose signature is missing hears that first, and nobody counts for a stranger.
    let owner = store::signer(connection, &header.owner)?;
    if !owner.is_some_and(|owner| owner.signed(&signed)) {
        return Ok(());
    }
    let (owner, seconds) = (header.owner.0, now.seconds());
    let of_owner = "SELECT id FROM contracts WHERE owner = ?1
        AND EXISTS (SELECT 1 FROM headers WHERE contract = id AND expires > ?2)";
    let of_owner = store::ids(connection, of_owner, &[&owner, &seconds])?;
    bound(connection, &of_owner, OWNER_MAX, "of one owner", now)?;
    let in_pool = "SELECT id FROM contracts WHERE owner = ?1
        AND EXISTS (SELECT 1 FROM headers WHERE contract = id AND expires > ?2 AND pool = ?3)";
    let in_pool = store::ids(connection, in_pool, &[&owner, &seconds, &header.pool.0])?;
    bound(connection, &in_pool, POOL_MAX, "in one pool", now)
}

fn bound(
    connection: &Connection,
    contracts: &[[u8; 32]],
    most: usize,
    whose: &str,
    now: Timestamp,
) -> Result<(), Fault> {
    if contracts.len() < most {
        return Ok(());
    }
    // Some may have ended before their time.
    let mut open = 0;
    for id in contracts {
        open += usize::from(standing::is_open(connection, &ContractId(*id), now)?);
    }
    if open < most {
        return Ok(());
    }
    let text = format!("{open} contracts {whose} have not ended, and at most {most} may be open");
    let hint = "Cancel what is not needed, or wait until something expires.";
    Err(refusal(429, codes::TOO_MANY, text, hint))
}

//! What a farmer does: make a farm, hand out tokens, adopt nodes, grant capacity.

use crate::{
    error::BotError,
    grid::{Actor, Grid},
};
use contract::{
    IdentityId, NodeId, PublicKey, Signed, SigningKey, StatementId, Timestamp,
    capacity::Amounts,
    farm::{Adoption, EnrolmentKey, Farm, Pool},
};

/// A key that adopts nodes in the farm's name. The seed is shown once and stored nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The secret, 64 hexadecimal digits: `zos.token=` of a boot configuration.
    pub seed: String,
    /// Its public half, which the farm statement lists.
    pub key: PublicKey,
    /// Adoptions issued from then on are void.
    pub expires: Timestamp,
}

/// Makes the farm of this actor known, or changes its name and location. Idempotent.
pub async fn create_farm(
    grid: &Grid,
    actor: &Actor,
    name: &str,
    location: &str,
) -> Result<Farm, BotError> {
    grid.register(&actor.own).await?;
    let farm = match grid.farm(&actor.own.signer).await? {
        None => Farm {
            network: grid.network.clone(),
            farm: actor.id(),
            version: 1,
            name: name.to_owned(),
            location: location.to_owned(),
            enrolment: Vec::new(),
        },
        Some(Signed { body, .. }) if body.name == name && body.location == location => {
            return Ok(body);
        }
        Some(Signed { body, .. }) => Farm {
            version: body.version + 1,
            name: name.to_owned(),
            location: location.to_owned(),
            ..body
        },
    };
    grid.push(&actor.seal(&farm)?, "publishing the farm").await?;
    Ok(farm)
}

/// Makes a token, which adopts nothing until it is published: hand its secret over before that.
pub fn make_token(expires: Timestamp) -> Result<Token, BotError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(BotError::Random)?;
    let key = SigningKey::from_seed(&seed).public();
    Ok(Token { seed: hex::encode(seed), key, expires })
}

/// Adds the token's key to the farm, and takes out those that have expired.
pub async fn publish_token(
    grid: &Grid,
    actor: &Actor,
    token: &Token,
    now: Timestamp,
) -> Result<(), BotError> {
    let farm = own_farm(grid, actor).await?;
    let farm = with_key(farm, EnrolmentKey { key: token.key, expires: token.expires }, now);
    grid.push(&actor.seal(&farm)?, "adding the enrolment key to the farm").await.map(drop)
}

/// The next version of a farm, with one more enrolment key and without expired ones.
fn with_key(farm: Farm, key: EnrolmentKey, now: Timestamp) -> Farm {
    let mut enrolment = farm.enrolment;
    enrolment.retain(|token| token.expires > now);
    enrolment.push(key);
    enrolment.sort_by_key(|token| token.key);
    Farm { version: farm.version + 1, enrolment, ..farm }
}

/// The farm of this actor, as the registry has it.
pub async fn own_farm(grid: &Grid, actor: &Actor) -> Result<Farm, BotError> {
    let farm = grid.farm(&actor.own.signer).await?;
    farm.map(|farm| farm.body).ok_or_else(|| {
        BotError::Nothing(format!(
            "{} has no farm on {}; make it with `3bot farm create NAME --location PLACE`",
            actor.key.name, grid.network
        ))
    })
}

/// Gives the farm's consent to a node that asks for it. A second time does nothing new.
pub async fn approve_node(
    grid: &Grid,
    actor: &Actor,
    node: NodeId,
    now: Timestamp,
) -> Result<StatementId, BotError> {
    let found = grid.node(&node).await?;
    if let (true, Some(adoption)) = (found.consent_verified, &found.view.adoption)
        && let Ok(id) = adoption.id()
    {
        return Ok(id);
    }
    let farm = found.statement.body.farm;
    if farm != actor.id() {
        return Err(BotError::OtherFarm { node, farm });
    }
    let adoption = Adoption { network: grid.network.clone(), farm: actor.id(), node, issued: now };
    grid.push(&actor.seal(&adoption)?, "publishing the consent").await
}

/// What a farmer grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// To whom.
    pub owner: IdentityId,
    /// On which nodes.
    pub nodes: Vec<NodeId>,
    /// How much.
    pub amounts: Amounts,
    /// Until when.
    pub expires: Timestamp,
}

/// Grants capacity on nodes of the farm. Refuses nodes that it has not adopted.
pub async fn grant_pool(
    grid: &Grid,
    actor: &Actor,
    grant: &Grant,
    now: Timestamp,
) -> Result<StatementId, BotError> {
    own_farm(grid, actor).await?;
    let mut nodes = grant.nodes.clone();
    nodes.sort_unstable();
    nodes.dedup();
    for node in &nodes {
        let found = grid.node(node).await?;
        let farm = found.statement.body.farm;
        if farm != actor.id() {
            return Err(BotError::OtherFarm { node: *node, farm });
        }
        if !found.consent_verified {
            return Err(BotError::Nothing(format!(
                "your farm has not adopted node {}; do so with `3bot farm approve {node}`",
                node.short()
            )));
        }
    }
    let pool = Pool {
        network: grid.network.clone(),
        farm: actor.id(),
        owner: grant.owner,
        nodes,
        amounts: grant.amounts,
        expires: grant.expires,
        serial: u64::try_from(now.seconds()).unwrap_or_default(),
    };
    grid.push(&actor.seal(&pool)?, "publishing the grant").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_takes_the_place_of_expired_ones() {
        let at = |seconds: i64| Timestamp::from_seconds(1_800_000_000 + seconds);
        let key = |n| SigningKey::from_seed(&[n; 32]).public();
        let token = |n, seconds| EnrolmentKey { key: key(n), expires: at(seconds) };
        let mut enrolment = vec![token(1, 0), token(2, 100)];
        enrolment.sort_by_key(|token| token.key);
        let farm = Farm {
            network: "test".into(),
            farm: IdentityId([1; 32]),
            version: 3,
            name: "F".into(),
            location: "L".into(),
            enrolment,
        };
        let next = with_key(farm, token(3, 200), at(50));
        assert_eq!(next.version, 4);
        let mut keys: Vec<_> = next.enrolment.iter().map(|token| token.key).collect();
        assert!(keys.is_sorted());
        keys.sort();
        let mut wanted = [key(2), key(3)];
        wanted.sort();
        assert_eq!(keys, wanted);
    }
}

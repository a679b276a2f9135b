//! The farm's order to a node to read its store through, and what the node says became of it.

use crate::{
    error::BotError,
    grid::{Actor, Grid, VerifiedNode},
};
use contract::{
    NodeId, Signed, StatementId, Timestamp,
    node::Node,
    scrub::{Outcome, Scrub, Scrubbed, orders},
};

/// An order that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Its statement.
    pub id: StatementId,
    /// When it was written.
    pub issued: Timestamp,
}

/// How far an order is, as the node says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'n> {
    /// The node says nothing of it.
    Unheard,
    /// The node has taken it, or a later one, and is not done.
    Heard,
    /// It is over, or a later one is.
    Over(&'n Scrubbed),
}

/// Orders a node of this actor's farm to read its store through. Each call is another order; a registry takes
/// one in an hour.
pub async fn order(
    grid: &Grid,
    actor: &Actor,
    node: NodeId,
    now: Timestamp,
) -> Result<Order, BotError> {
    let farm = grid.node(&node).await?.statement.body.farm;
    if farm != actor.id() {
        return Err(BotError::OtherFarm { node, farm });
    }
    let order = Scrub { network: grid.network.clone(), farm, node, issued: now };
    let id = grid.push(&actor.seal(&order)?, "ordering that the store is read through").await?;
    Ok(Order { id, issued: now })
}

/// What became of an order.
pub fn progress<'n>(order: &Order, node: &'n Node) -> Progress<'n> {
    match &node.scrub {
        Some(said) if said.issued >= order.issued => match said.outcome {
            Outcome::Heard { .. } => Progress::Heard,
            Outcome::Done { .. } | Outcome::TooOld { .. } => Progress::Over(said),
        },
        Some(_) | None => Progress::Unheard,
    }
}

/// The farm's last order, as far as the node says nothing of it. Verified.
pub async fn unheard(grid: &Grid, node: &VerifiedNode) -> Result<Option<Order>, BotError> {
    let Some(envelope) = &node.view.scrub else { return Ok(None) };
    let what = || "an order to read a store through".to_owned();
    let signed =
        Signed::<Scrub>::open(envelope).map_err(|source| BotError::Delivered(what(), source))?;
    let order = Order { id: signed.id, issued: signed.body.issued };
    if progress(&order, &node.statement.body) != Progress::Unheard {
        return Ok(None);
    }
    let farm = grid.signer(&node.statement.body.farm).await?;
    if orders(&farm, &signed) && signed.body.node == node.view.id {
        return Ok(Some(order));
    }
    let problem = "the node's farm has not signed it".to_owned();
    Err(BotError::Unproven { what: what(), problem })
}

/// Whether everything was read, and is as it was signed, or is again.
pub fn is_sound(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Done { damaged, left_out, .. } => damaged.is_empty() && left_out.is_none(),
        Outcome::Heard { .. } | Outcome::TooOld { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::testkit::{World, seal};

    #[test]
    fn what_a_node_says_of_an_order_counts_for_those_before_it() {
        let world = World::new(Timestamp::from_seconds(1_800_000_000));
        let given = |offset| {
            let id = seal(&world.scrub(offset), world.key("farm")).id().unwrap();
            Order { id, issued: world.at(offset) }
        };
        assert_eq!(progress(&given(0), &world.node(1)), Progress::Unheard);
        let mut node = world.node_scrubbed(1, &world.scrub(0));
        for offset in [0, -1] {
            assert!(matches!(progress(&given(offset), &node), Progress::Over(_)));
        }
        assert_eq!(progress(&given(1), &node), Progress::Unheard);
        node.scrub.as_mut().unwrap().outcome = Outcome::Heard { at: world.now };
        assert_eq!(progress(&given(0), &node), Progress::Heard);
    }

    #[test]
    fn sound_is_what_was_read_and_has_everything_back() {
        let world = World::new(Timestamp::from_seconds(1_800_000_000));
        let outcome = |change: &dyn Fn(&mut Vec<contract::FlistId>, &mut Option<String>)| {
            let mut outcome = world.node_scrubbed(1, &world.scrub(0)).scrub.unwrap().outcome;
            let Outcome::Done { damaged, left_out, .. } = &mut outcome else { panic!() };
            change(damaged, left_out);
            outcome
        };
        assert!(!is_sound(&outcome(&|_, _| {})));
        assert!(!is_sound(&outcome(&|damaged, _| damaged.clear())));
        assert!(!is_sound(&outcome(&|_, left_out| *left_out = None)));
        assert!(is_sound(&outcome(&|damaged, left_out| {
            damaged.clear();
            *left_out = None;
        })));
        assert!(!is_sound(&Outcome::TooOld { at: world.now }));
    }
}

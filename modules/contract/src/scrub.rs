//! The farm's order to a node to read its store through, and what the node says became of it.
//!
//! The order names a node and a time, and nothing else: all that it can bring about is that the node reads
//! now what it would read later by its own clock. Each is carried out once, for a node takes only one that
//! was issued after the last that it took.

use crate::{
    envelope::{Kind, Signed, Statement},
    id::{FlistId, IdentityId, NodeId, StatementId},
    identity::Signer,
    time::Timestamp,
};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// An order is taken until so long after it was issued. A node that was away for longer reads its store
/// through by its own clock anyhow.
pub const SCRUB_OPEN_S: i64 = 7 * 24 * 3600;
/// A registry takes one order for a node in so long: what is kept for ever grows slowly.
pub const SCRUB_EVERY_S: i64 = 3600;
/// An order may be issued so far ahead of who takes it: clocks differ.
pub const SCRUB_AHEAD_S: i64 = 300;
/// Flists that a node names in each list of a report.
pub const SCRUB_FLISTS_MAX: usize = 64;
/// Bytes of the sentence that says what was left out.
pub const SCRUB_TEXT_MAX: usize = 1024;

/// The payload of an order to read the store through, signed by the farm's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scrub {
    /// The grid that it belongs to.
    pub network: String,
    /// The farm that orders.
    pub farm: IdentityId,
    /// The node that is to read.
    pub node: NodeId,
    /// When it was written: a node takes only what is later than the order before. On the wire it has a name of
    /// its own, so that no order has the bytes, and with them the id, of an adoption.
    #[serde(rename = "ordered")]
    pub issued: Timestamp,
}

impl Statement for Scrub {
    const KIND: Kind = Kind::Scrub;
    const BYTES_MAX: usize = 4 * 1024;

    fn network(&self) -> &str {
        &self.network
    }

    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

/// Whether an order can be taken at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its time has not come.
    Early,
    /// It can.
    Open,
    /// Not any more.
    TooOld,
}

impl Scrub {
    /// Whether it can be taken now.
    pub fn standing(&self, now: Timestamp) -> Standing {
        if self.issued > now.plus(SCRUB_AHEAD_S) {
            Standing::Early
        } else if now > self.issued.plus(SCRUB_OPEN_S) {
            Standing::TooOld
        } else {
            Standing::Open
        }
    }
}

/// Whether this is an order of that farm: an enrolment key is not enough, for it stands in boot images.
pub fn orders(farm: &Signer, order: &Signed<Scrub>) -> bool {
    let about_this_farm = order.body.farm == farm.id && order.body.network == farm.identity.network;
    about_this_farm && farm.signed(order)
}

/// What became of an order, as the node says in its own statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scrubbed {
    /// The order. Those that were issued before it are done with it.
    pub order: StatementId,
    /// When that was issued.
    pub issued: Timestamp,
    /// How far it is.
    pub outcome: Outcome,
}

/// How far an order is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// The node has taken it, and reads, or will when what it has read before has rested.
    Heard {
        /// Since when.
        at: Timestamp,
    },
    /// The store was read through.
    Done {
        /// From when.
        begun: Timestamp,
        /// To when.
        ended: Timestamp,
        /// Files that were looked at, also those that were missing.
        files: u64,
        /// What was read of them. What was looked at twice counts twice.
        bytes: u64,
        /// Files that were bad, or missing, at a second look as well.
        bad: u64,
        /// Flists that need one of these, and do not have all of theirs back: the node fetches what contracts
        /// want. The first [`SCRUB_FLISTS_MAX`] that are left, so that none is named only when there is none;
        /// sorted.
        damaged: Vec<FlistId>,
        /// Flists that have theirs back. The first so many; sorted.
        repaired: Vec<FlistId>,
        /// The first thing that could not be looked at. The node reads everything again by itself, and says
        /// here what came of that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        left_out: Option<String>,
    },
    /// It was too old when the node heard of it. Nothing was read for it.
    TooOld {
        /// When it heard.
        at: Timestamp,
    },
}

impl Scrubbed {
    /// Rules that the types cannot hold; the error is a sentence.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let Outcome::Done { damaged, repaired, left_out, .. } = &self.outcome else {
            return Ok(());
        };
        let lists = [damaged, repaired];
        match left_out {
            _ if lists.iter().any(|list| list.len() > SCRUB_FLISTS_MAX) => {
                Err("a report of a scrub names at most 64 flists in each list")
            }
            _ if lists.iter().any(|list| !list.is_sorted_by(|a, b| a < b)) => {
                Err("flists of a scrub are sorted and unique")
            }
            Some(text) if text.len() > SCRUB_TEXT_MAX => {
                Err("what a scrub left out is said in at most 1024 bytes")
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Envelope, SigningKey,
        testkit::{World, seal},
    };
    use alloc::{string::ToString as _, vec};

    fn world() -> World {
        World::new(Timestamp::from_seconds(1_800_000_000))
    }

    fn signer(world: &World, name: &'static str) -> Signer {
        Signer::from_statement(&Signed::open(&world.identity(name)).unwrap()).unwrap()
    }

    #[test]
    fn an_order_is_taken_for_a_week_and_not_before_its_time() {
        let world = world();
        for (offset, standing) in [
            (SCRUB_AHEAD_S + 1, Standing::Early),
            (SCRUB_AHEAD_S, Standing::Open),
            (0, Standing::Open),
            (-SCRUB_OPEN_S, Standing::Open),
            (-SCRUB_OPEN_S - 1, Standing::TooOld),
            (i64::MIN / 2, Standing::TooOld),
        ] {
            assert_eq!(world.scrub(offset).standing(world.now), standing, "{offset}");
        }
    }

    /// The registry keeps statements by the hash of their bytes, whatever their kind.
    #[test]
    fn an_order_has_not_the_bytes_of_an_adoption() {
        let world = world();
        let adoption = seal(&world.adoption(), world.key("farm"));
        let order = seal(&world.scrub(0), world.key("farm"));
        assert_ne!(adoption.id().unwrap(), order.id().unwrap());
    }

    #[test]
    fn only_the_farm_itself_orders() {
        let world = world();
        let farm = signer(&world, "farm");
        let by = |key: &SigningKey| Signed::open(&seal(&world.scrub(0), key)).unwrap();
        assert!(orders(&farm, &by(world.key("farm"))));
        // Neither those who have a token, nor the node, nor a customer.
        for key in [&world.token, &world.node_key, world.key("owner"), world.key("it")] {
            assert!(!orders(&farm, &by(key)));
        }
        // Nor does the farm for another farm, or on another grid.
        let owner = Scrub { farm: world.id("owner"), ..world.scrub(0) };
        let elsewhere = Scrub { network: "main".into(), ..world.scrub(0) };
        for other in [owner, elsewhere] {
            let signed = Signed::open(&seal(&other, world.key("farm"))).unwrap();
            assert!(!orders(&farm, &signed) && !orders(&signer(&world, "owner"), &signed));
        }
    }

    #[test]
    fn a_report_is_bounded() {
        let world = world();
        let node = |change: &dyn Fn(&mut Outcome)| {
            let mut node = world.node_scrubbed(1, &world.scrub(0));
            change(&mut node.scrub.as_mut().unwrap().outcome);
            Envelope::seal(&node, &[&world.node_key]).map_err(|error| error.to_string())
        };
        assert!(node(&|_| {}).is_ok());
        let flists = |n: u8| (0..n).map(|n| FlistId([n; 32])).collect::<Vec<_>>();
        let with = |named: Vec<FlistId>, text: usize| {
            node(&|outcome: &mut Outcome| {
                let Outcome::Done { damaged, left_out, .. } = outcome else { panic!() };
                *damaged = named.clone();
                *left_out = Some("x".repeat(text));
            })
        };
        assert!(with(flists(64), SCRUB_TEXT_MAX).is_ok());
        assert!(with(flists(65), 0).is_err());
        assert!(with(flists(1), SCRUB_TEXT_MAX + 1).is_err());
        assert!(with(vec![FlistId([2; 32]), FlistId([1; 32])], 0).is_err());
    }

    #[test]
    fn a_node_that_was_ordered_nothing_says_what_it_always_said() {
        let text = serde_json::to_string(&world().node(1)).unwrap();
        assert!(!text.contains("scrub"));
    }
}

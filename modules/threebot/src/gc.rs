//! What may go from a place with published flists: everything that no flist needs that is kept.
//!
//! Mark and sweep, decided from a listing. Safe while somebody publishes there: what is younger than the grace
//! stays, with all that it needs, and who publishes gives a new age to what is there already; see
//! [`crate::place`]. A name that is not ours is not looked at.

use contract::{FlistId, PublicKey, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// The shortest grace: whoever publishes has looked at a file that long ago at most.
pub const GRACE_MIN_S: i64 = 2 * 3600;

/// What a name of a place stands for. Sorted in the order in which things go: first what names others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// `flists/<id>`.
    Body(FlistId),
    /// `releases/<id>/<publisher>`.
    Release(FlistId, PublicKey),
    /// `packs/<id>`.
    Pack(FlistId),
}

impl Item {
    /// What a name stands for, if it is ours to the letter.
    pub fn parse(name: &str) -> Option<Self> {
        let (folder, rest) = name.split_once('/')?;
        match (folder, rest.split_once('/')) {
            ("flists", None) => rest.parse().ok().map(Self::Body),
            ("packs", None) => rest.parse().ok().map(Self::Pack),
            ("releases", Some((flist, publisher))) => {
                Some(Self::Release(flist.parse().ok()?, publisher.parse().ok()?))
            }
            _ => None,
        }
    }

    /// Its name.
    pub fn name(&self) -> String {
        match self {
            Self::Body(id) => format!("flists/{id}"),
            Self::Release(id, publisher) => contract::release::name(id, publisher),
            Self::Pack(id) => format!("packs/{id}"),
        }
    }
}

/// Something in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub item: Item,
    /// Its size.
    pub bytes: u64,
    /// When it came, or was last published again.
    pub since: Timestamp,
}

/// What is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// These flists.
    pub flists: BTreeSet<FlistId>,
    /// And all that came after this.
    pub after: Option<Timestamp>,
    /// Whatever came after this stays, for somebody may be publishing.
    pub grace: Timestamp,
}

/// Why nothing may go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The list of what to keep is wrong, and what is meant would be deleted.
    #[error("flist {0} is to be kept and is not there")]
    NotThere(FlistId),
}

/// The flists that stay, whose bodies have to be read to know what they need.
pub fn kept(found: &[Found], keep: &Keep) -> Result<BTreeSet<FlistId>, Refused> {
    let mut bodies: BTreeMap<FlistId, Timestamp> = found
        .iter()
        .filter_map(|one| match one.item {
            Item::Body(id) => Some((id, one.since)),
            Item::Release(..) | Item::Pack(_) => None,
        })
        .collect();
    // An flist that somebody has signed lately is as young as that.
    for one in found {
        if let Item::Release(id, _) = one.item
            && let Some(since) = bodies.get_mut(&id)
        {
            *since = one.since.max(*since);
        }
    }
    if let Some(missing) = keep.flists.iter().find(|id| !bodies.contains_key(id)) {
        return Err(Refused::NotThere(*missing));
    }
    let stays = |id: &FlistId, since: Timestamp| {
        keep.flists.contains(id)
            || since > keep.grace
            || keep.after.is_some_and(|after| since > after)
    };
    Ok(bodies.into_iter().filter(|(id, since)| stays(id, *since)).map(|(id, _)| id).collect())
}

/// What may go, in the order in which it has to: nobody sees an flist without what it needs. `packs` are all
/// packs of all flists that stay.
pub fn goes(
    found: &[Found],
    keep: &Keep,
    kept: &BTreeSet<FlistId>,
    packs: &BTreeSet<FlistId>,
) -> Vec<Found> {
    let is_needed = |item: &Item| match item {
        Item::Body(id) | Item::Release(id, _) => kept.contains(id),
        Item::Pack(id) => packs.contains(id),
    };
    let mut goes: Vec<Found> = found
        .iter()
        .filter(|one| one.since <= keep.grace && !is_needed(&one.item))
        .copied()
        .collect();
    goes.sort_unstable_by_key(|one| one.item);
    goes
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::SigningKey;

    const GRACE: i64 = 1_000;

    fn id(n: u8) -> FlistId {
        FlistId([n; 32])
    }

    fn found(item: Item, since: i64) -> Found {
        Found { item, bytes: 1, since: Timestamp::from_seconds(since) }
    }

    fn publisher() -> PublicKey {
        SigningKey::from_seed(&[1; 32]).public()
    }

    fn other() -> PublicKey {
        SigningKey::from_seed(&[2; 32]).public()
    }

    /// What goes, of a place in which flist `n` needs the packs `n` and 100.
    fn check(place: &[Found], flists: &[u8], after: Option<i64>) -> Vec<Item> {
        let keep = Keep {
            flists: flists.iter().map(|n| id(*n)).collect(),
            after: after.map(Timestamp::from_seconds),
            grace: Timestamp::from_seconds(GRACE),
        };
        let kept = kept(place, &keep).unwrap();
        let packs = kept.iter().flat_map(|one| [*one, id(100)]).collect();
        goes(place, &keep, &kept, &packs).into_iter().map(|one| one.item).collect()
    }

    fn two(since: i64) -> Vec<Found> {
        let of = |n| [found(Item::Pack(id(n)), 1), found(Item::Body(id(n)), since)];
        let mut place: Vec<_> = [1, 2].into_iter().flat_map(of).collect();
        place.push(found(Item::Pack(id(100)), 1));
        place.push(found(Item::Release(id(1), publisher()), 1));
        place.push(found(Item::Release(id(2), publisher()), 1));
        place
    }

    #[test]
    fn what_no_kept_flist_needs_goes_and_names_go_before_what_they_name() {
        let second =
            [Item::Body(id(2)), Item::Release(id(2), publisher()), Item::Pack(id(2))].to_vec();
        assert_eq!(check(&two(1), &[1], None), second, "the shared pack stays");
        assert_eq!(check(&two(1), &[1, 2], None), []);
        let all = check(&two(1), &[], None);
        assert_eq!(all.len(), two(1).len());
        assert!(all.is_sorted());
    }

    #[test]
    fn what_is_young_stays_with_all_that_it_needs() {
        assert_eq!(check(&two(GRACE + 1), &[], None), []);
        assert_eq!(check(&two(GRACE), &[], None).len(), two(1).len());
        // Somebody publishes: the packs are there, the body is not yet.
        let arriving = [found(Item::Pack(id(7)), GRACE + 1), found(Item::Pack(id(8)), 1)];
        assert_eq!(check(&arriving, &[], None), [Item::Pack(id(8))]);
        // Somebody has signed an old flist lately.
        let mut signed = two(1);
        signed.push(found(Item::Release(id(2), other()), GRACE + 1));
        let first = [Item::Body(id(1)), Item::Release(id(1), publisher()), Item::Pack(id(1))];
        assert_eq!(check(&signed, &[], None), first);
        // They may ask for more time than the grace.
        assert_eq!(check(&two(500), &[], Some(499)), []);
        assert_eq!(check(&two(500), &[], Some(500)).len(), two(1).len());
    }

    #[test]
    fn a_list_with_a_mistake_deletes_nothing() {
        let grace = Timestamp::from_seconds(GRACE);
        let keep = Keep { flists: [id(1), id(3)].into(), after: None, grace };
        assert_eq!(kept(&two(1), &keep), Err(Refused::NotThere(id(3))));
        // A pack of that name is no flist.
        let keep = Keep { flists: [id(100)].into(), after: None, grace };
        assert_eq!(kept(&two(1), &keep), Err(Refused::NotThere(id(100))));
    }

    #[test]
    fn only_names_that_are_ours_to_the_letter_are_known() {
        for item in [Item::Body(id(1)), Item::Pack(id(0xab)), Item::Release(id(2), publisher())] {
            assert_eq!(Item::parse(&item.name()), Some(item));
        }
        let hex = "ab".repeat(32);
        for foreign in [
            String::new(),
            hex.clone(),
            format!("packs/{hex}/"),
            format!("packs//{hex}"),
            format!("/packs/{hex}"),
            format!("packs/{hex}.tmp"),
            format!("packs/{}", hex.to_uppercase()),
            format!("pack/{hex}"),
            format!("releases/{hex}"),
            format!("releases/{hex}/{hex}/x"),
            // No key: a point of small order.
            format!("releases/{hex}/01{}", "0".repeat(62)),
            "packs/.tmpAbCdEf".to_owned(),
            "index.html".to_owned(),
        ] {
            assert_eq!(Item::parse(&foreign), None, "{foreign}");
        }
    }
}

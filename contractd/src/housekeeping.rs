//! What may go: contracts when there is no room, files that nobody needs, ranges of user ids.
//! Pure: the reconciler looks and does.

use crate::{
    clock::{Now, Worth},
    database::{Kept, Room},
    plan::prefix,
    storage::Storage,
};
use contract::{
    ContractId, FlistId, Signed, Verdict,
    header::Header,
    verdict::{Cause, Code, Ended},
};
use std::collections::{BTreeMap, BTreeSet};

/// Files that no contract names stay so long, in milliseconds: a contract may come back, and what
/// a registry says may have been said by mistake.
pub(crate) const GRACE_MS: u64 = 3_600_000;

/// The contract that makes room for another, if one can. Nothing goes that was started and still
/// has time or data here, and no end by an order before the contract would be over anyway.
pub(crate) fn victim(
    contracts: &BTreeMap<ContractId, Kept>,
    verdicts: &BTreeMap<ContractId, Verdict>,
    storage: &Storage,
    room: Room,
    now: Now,
) -> Option<ContractId> {
    let has_data = |id: &ContractId| {
        let prefix = prefix(id);
        storage.volumes.iter().any(|volume| volume.id.starts_with(&prefix))
    };
    let candidates = contracts.values().filter(|kept| !has_data(&kept.id));
    let ranked = candidates.filter_map(|kept| {
        let rank = match room {
            Room::Enough => None,
            Room::FullOfLiving => rank_of_living(kept, verdicts.get(&kept.id)?, now),
            Room::FullOfEnded => rank_of_ended(kept.past.ended.as_ref()?, now),
        };
        Some((rank?, kept.id))
    });
    ranked.min().map(|(_, id)| id)
}

/// The lower, the sooner it goes.
fn rank_of_living(kept: &Kept, verdict: &Verdict, now: Now) -> Option<i64> {
    if kept.past.ended.is_some() {
        return None;
    }
    match verdict {
        Verdict::Refuse(refusal) if kept.started.is_none() => match refusal.code {
            Code::TooLate | Code::PoolExpired => Some(1),
            Code::Malformed
            | Code::TooLarge
            | Code::WrongNetwork
            | Code::NotLogged
            | Code::BrokenChain
            | Code::UnknownIdentity
            | Code::OwnerSignature
            | Code::QuorumMissing
            | Code::Rejected
            | Code::NotYet
            | Code::WrongNode
            | Code::DocumentMismatch
            | Code::PoolMismatch
            | Code::PoolTooSmall
            | Code::NoCapacity => Some(2),
        },
        Verdict::Stop(Ended { cause: Cause::Expired, .. }) => match kept.started {
            None => Some(0),
            Some(_) => (now.worth == Worth::Confirmed).then_some(3),
        },
        // An end by an order becomes final first.
        Verdict::Stop(Ended { cause: Cause::Cancelled { .. }, .. })
        | Verdict::Run(_)
        | Verdict::Refuse(_) => None,
    }
}

fn rank_of_ended(ended: &Ended, now: Now) -> Option<i64> {
    let over = now.worth == Worth::Confirmed && ended.expires <= now.at;
    over.then(|| ended.expires.seconds())
}

/// Every flist that a kept contract names, in any of its versions. For certain nothing needs those of one
/// whose time is over: a later version that gives it more has to fetch again. Nor those of one that was
/// never started, but for what its version in force is about to need, which the caller knows.
pub(crate) fn named(
    contracts: &BTreeMap<ContractId, Kept>,
    verdicts: &BTreeMap<ContractId, Verdict>,
    worth: Worth,
) -> BTreeSet<FlistId> {
    let is_idle = |kept: &Kept| {
        kept.started.is_none() || matches!(verdicts.get(&kept.id), Some(Verdict::Stop(_)))
    };
    let living = contracts.values().filter(|kept| worth == Worth::Unconfirmed || !is_idle(kept));
    let headers = living.flat_map(|kept| &kept.bundle.headers);
    headers
        .filter_map(|envelope| Signed::<Header>::open(envelope).ok())
        .flat_map(|header| header.body.flists)
        .map(|flist| flist.digest)
        .collect()
}

/// Notes since when each stored flist is not needed, and gives those that may go now.
pub(crate) fn idle_for_long(
    stored: &BTreeSet<FlistId>,
    needed: &BTreeSet<FlistId>,
    idle_since: &mut BTreeMap<FlistId, u64>,
    now_ms: u64,
) -> BTreeSet<FlistId> {
    idle_since.retain(|flist, _| stored.contains(flist) && !needed.contains(flist));
    for flist in stored.difference(needed) {
        idle_since.entry(*flist).or_insert(now_ms);
    }
    let long = |since: u64| now_ms.saturating_sub(since) >= GRACE_MS;
    idle_since.iter().filter(|(_, since)| long(**since)).map(|(flist, _)| *flist).collect()
}

/// The table of user ids without the workloads that are over: their contract has ended by an order
/// or is not known, and nothing of it is here, neither data nor process nor network.
pub(crate) fn ids_in_use(
    table: &BTreeMap<String, u32>,
    contracts: &BTreeMap<ContractId, Kept>,
    here: &BTreeSet<String>,
) -> BTreeMap<String, u32> {
    let living: Vec<String> = contracts
        .values()
        .filter(|kept| kept.past.ended.is_none())
        .map(|kept| prefix(&kept.id))
        .collect();
    let contract_of = |id: &str| id.get(..prefix_length()).map(str::to_owned);
    let present: BTreeSet<String> = here.iter().filter_map(|id| contract_of(id)).collect();
    let used = |id: &str| {
        living.iter().any(|prefix| id.starts_with(prefix))
            || contract_of(id).is_some_and(|prefix| present.contains(&prefix))
    };
    table.iter().filter(|(id, _)| used(id)).map(|(id, base)| (id.clone(), *base)).collect()
}

fn prefix_length() -> usize {
    prefix(&ContractId([0; 32])).len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{
        StatementId, Timestamp,
        decision::Retention,
        verdict::{Refusal, ToldBy},
    };

    fn id(n: u8) -> ContractId {
        ContractId([n; 32])
    }

    fn now(worth: Worth) -> Now {
        Now { at: Timestamp::from_seconds(1000), worth }
    }

    fn ended(n: u8, cause: Cause, expires: i64) -> Ended {
        Ended {
            contract: id(n),
            version: 1,
            header_id: StatementId([0; 32]),
            cause,
            expires: Timestamp::from_seconds(expires),
            told_by: ToldBy::Order,
        }
    }

    fn refused(code: Code) -> Verdict {
        Verdict::Refuse(Refusal { code, message: String::new() })
    }

    #[test]
    fn what_was_never_started_goes_first_and_what_lives_stays() {
        let expired = |n| Verdict::Stop(ended(n, Cause::Expired, 0));
        let rows = [
            (1, Some(1), expired(1)),
            (2, Some(2), refused(Code::TooLate)),
            (3, None, refused(Code::QuorumMissing)),
            (4, None, refused(Code::PoolExpired)),
            (5, None, expired(5)),
        ];
        let mut contracts = BTreeMap::new();
        let mut verdicts = BTreeMap::new();
        for (n, started, verdict) in rows {
            contracts.insert(id(n), Kept { started, ..Kept::new(id(n)) });
            verdicts.insert(id(n), verdict);
        }
        let mut storage = Storage::default();
        let mut order = Vec::new();
        let find = |contracts: &_, storage: &_, worth| {
            victim(contracts, &verdicts, storage, Room::FullOfLiving, now(worth))
        };
        while let Some(found) = find(&contracts, &storage, Worth::Unconfirmed) {
            contracts.remove(&found);
            order.push(found);
        }
        assert_eq!(order, [id(5), id(4), id(3)]);
        // What has run and expired goes when that is certain, and when it has no data.
        assert_eq!(find(&contracts, &storage, Worth::Confirmed), Some(id(1)));
        let volume = crate::plan::workload_id(&id(1), "data");
        storage.volumes.push(crate::storage::Volume {
            id: volume,
            pool: "p".into(),
            size_bytes: 1,
        });
        assert_eq!(find(&contracts, &storage, Worth::Confirmed), None);
    }

    #[test]
    fn an_end_by_an_order_is_forgotten_when_the_contract_is_over_for_certain() {
        let cause = || Cause::Cancelled { order: StatementId([1; 32]), retention: Retention::Wipe };
        let contracts: BTreeMap<_, _> = [(1, 1001), (2, 900), (3, 800)]
            .into_iter()
            .map(|(n, expires)| {
                let mut kept = Kept::new(id(n));
                kept.past.ended = Some(ended(n, cause(), expires));
                (id(n), kept)
            })
            .collect();
        let find = |worth| {
            let verdicts = BTreeMap::new();
            victim(&contracts, &verdicts, &Storage::default(), Room::FullOfEnded, now(worth))
        };
        assert_eq!(find(Worth::Confirmed), Some(id(3)));
        assert_eq!(find(Worth::Unconfirmed), None);
    }

    #[test]
    fn the_files_of_a_contract_are_needed_until_its_time_is_over_for_certain() {
        let world = contract::testkit::World::new(Timestamp::from_seconds(1_800_000_000));
        let bundle = crate::evidence::Evidence::of(world.agreed());
        let kept = |started| Kept { bundle: bundle.clone(), started, ..Kept::new(id(1)) };
        let mut contracts = BTreeMap::from([(id(1), kept(Some(1)))]);
        let flists = BTreeSet::from([FlistId([9; 32])]);
        let find = |contracts: &_, verdict, worth| {
            named(contracts, &BTreeMap::from([(id(1), verdict)]), worth)
        };
        assert_eq!(find(&contracts, refused(Code::NotYet), Worth::Confirmed), flists);
        let over = || Verdict::Stop(ended(1, Cause::Expired, 0));
        assert_eq!(find(&contracts, over(), Worth::Unconfirmed), flists);
        assert_eq!(find(&contracts, over(), Worth::Confirmed), BTreeSet::new());
        // Files that came early stayed until the time of a contract was over that had been rejected.
        contracts.insert(id(1), kept(None));
        for code in [Code::Rejected, Code::TooLate, Code::NotYet] {
            assert_eq!(find(&contracts, refused(code), Worth::Unconfirmed), flists);
            assert_eq!(find(&contracts, refused(code), Worth::Confirmed), BTreeSet::new());
        }
    }

    #[test]
    fn files_go_when_nobody_has_needed_them_for_long() {
        let [a, b, c] = [1, 2, 3].map(|n| FlistId([n; 32]));
        let (stored, needed) = (BTreeSet::from([a, b]), BTreeSet::from([a, c]));
        let mut since = BTreeMap::new();
        let mut look = |needed: &_, now_ms| idle_for_long(&stored, needed, &mut since, now_ms);
        assert_eq!(look(&needed, 5), BTreeSet::new());
        assert_eq!(look(&needed, 4 + GRACE_MS), BTreeSet::new());
        assert_eq!(look(&needed, 5 + GRACE_MS), BTreeSet::from([b]));
        // Needed in between: the time begins anew.
        assert_eq!(look(&stored, 6 + GRACE_MS), BTreeSet::new());
        assert_eq!(look(&needed, 7 + GRACE_MS), BTreeSet::new());
    }

    #[test]
    fn user_ids_are_given_back_when_the_contract_has_ended_and_nothing_of_it_is_left() {
        let mut contracts = BTreeMap::new();
        for n in [1, 2, 3] {
            let mut kept = Kept::new(id(n));
            kept.past.ended = (n > 1).then(|| ended(n, Cause::Expired, 0));
            contracts.insert(id(n), kept);
        }
        let web = |n| crate::plan::workload_id(&id(n), "web");
        let table = BTreeMap::from([(web(1), 1), (web(2), 2), (web(3), 3), (web(4), 4)]);
        let here = BTreeSet::from([crate::plan::workload_id(&id(2), "data")]);
        let left = ids_in_use(&table, &contracts, &here);
        assert_eq!(left, BTreeMap::from([(web(1), 1), (web(2), 2)]));
    }
}

//! From contracts to workloads: holds every contract against the consensus rule, and lists what
//! this node has to run. Pure.

use crate::{
    clock::{Now, Worth},
    database::Kept,
    plan::{Kind, Upcoming, Want, prefix, workload_id},
    storage::Storage,
};
use contract::{
    Capacity, ContractId, StatementId, Timestamp, Trust, Verdict,
    decision::Retention,
    id,
    verdict::{Agreed, Cause, Code, Ended, Refusal, ToldBy},
    workload::{Container, Medium, Spec},
};
use std::collections::{BTreeMap, BTreeSet};

/// So long before their time, in seconds, the files of a contract are fetched: those of a contract of next
/// year take no room of this one's.
const AHEAD_S: i64 = 7 * 86_400;

/// The verdict on every contract, and what they and the volumes that are kept leave of the node's
/// capacity.
///
/// What a contract holds is no one else's, until its own verdict gives it back. Of what is free, those
/// that were started first get theirs first; then the order of their ids decides who gets the last
/// room, so that the same contracts give the same verdicts.
pub(crate) fn judge(
    contracts: &BTreeMap<ContractId, Kept>,
    trust: &Trust,
    storage: &Storage,
    now: Timestamp,
) -> (BTreeMap<ContractId, Verdict>, Capacity) {
    let mut order: Vec<&Kept> = contracts.values().collect();
    order.sort_by_key(|kept| (kept.started.unwrap_or(u64::MAX), kept.id));
    let claim = |kept: &Kept, own: &Capacity| own.larger(&kept.past.holds.unwrap_or_default());
    // A volume takes its place for as long as it is there, also when its contract has ended.
    let mut claimed = storage.taken(|_| true);
    for kept in &order {
        let own = storage.taken_by(&kept.id);
        claimed = claimed.minus(&own).plus(&claim(kept, &own));
    }
    let mut rooms = storage.rooms();
    let mut verdicts = BTreeMap::new();
    for kept in order {
        let own = storage.taken_by(&kept.id);
        claimed = claimed.minus(&claim(kept, &own));
        let free = trust.free.minus(&claimed);
        // What a verdict gives back is there with the next judgement, for those that come first then.
        let mut used = claim(kept, &own);
        let trust = Trust { free, past: kept.past.clone(), ..trust.clone() };
        let mut verdict = kept.bundle.verdict(&trust, now);
        if let Verdict::Run(agreed) = &verdict {
            let volumes = volumes(agreed);
            let missing: Vec<(Medium, u64)> =
                volumes.iter().filter(|(id, _)| !storage.has(id)).map(|(_, one)| *one).collect();
            match rooms.place(&missing) {
                // What runs goes on: the volume that cannot be made says so for itself.
                Err(message) if kept.past.holds.unwrap_or_default() == Capacity::default() => {
                    verdict = Verdict::Refuse(Refusal { code: Code::NoCapacity, message });
                }
                Ok(()) | Err(_) => {
                    let prefix = prefix(&kept.id);
                    let left = |id: &str| id.starts_with(&prefix) && !volumes.contains_key(id);
                    used = used.larger(&agreed.document.demand().plus(&storage.taken(left)));
                }
            }
        }
        claimed = claimed.plus(&used);
        verdicts.insert(kept.id, verdict);
    }
    (verdicts, trust.free.minus(&claimed))
}

/// What a contract holds of the node after a verdict; `None`: it was never started.
///
/// While something of it runs that the verdict does not want, it holds what that was started with. It
/// keeps its place while its next version has no room, while a proof of the log is on its way, and when
/// only a clock that may be wrong says that its time has not come or is over.
pub(crate) fn holds(
    kept: &Kept,
    verdict: &Verdict,
    is_ending: bool,
    worth: Worth,
) -> Option<Capacity> {
    let before = kept.past.holds;
    let by_time = match verdict {
        Verdict::Refuse(refusal) => refusal.code == Code::NotYet,
        Verdict::Stop(ended) => ended.cause == Cause::Expired,
        Verdict::Run(_) => false,
    };
    let waits = matches!(verdict, Verdict::Refuse(refusal)
        if matches!(refusal.code, Code::NoCapacity | Code::NotLogged));
    let after = match verdict {
        Verdict::Run(agreed) => agreed.document.demand(),
        Verdict::Stop(_) | Verdict::Refuse(_) if waits => before?,
        Verdict::Stop(_) | Verdict::Refuse(_) if by_time && worth == Worth::Unconfirmed => before?,
        Verdict::Stop(_) | Verdict::Refuse(_) => before.map(|_| Capacity::default())?,
    };
    Some(if is_ending { after.larger(&before.unwrap_or_default()) } else { after })
}

/// Whether a contract that was judged to run may still do so now. It has its place, and what it holds
/// of the node: what may have changed is the time.
pub(crate) fn still_runs(kept: &Kept, trust: &Trust, now: Timestamp) -> bool {
    let trust = Trust { free: Capacity::default(), past: kept.past.clone(), ..trust.clone() };
    matches!(kept.bundle.verdict(&trust, now), Verdict::Run(_))
}

/// Medium and size of every volume that a contract wants here, by id.
fn volumes(agreed: &Agreed) -> BTreeMap<String, (Medium, u64)> {
    let workloads = agreed.document.workloads.iter();
    let volume = |workload: &contract::workload::Workload| match &workload.spec {
        Spec::Volume(volume) => {
            let id = workload_id(&agreed.header.contract, &workload.name);
            Some((id, (volume.class, volume.size_bytes)))
        }
        Spec::Container(_) => None,
    };
    workloads.filter_map(volume).collect()
}

/// The ends that are final from now on: nobody can doubt that their time has come.
pub(crate) fn ends(
    contracts: &BTreeMap<ContractId, Kept>,
    verdicts: &BTreeMap<ContractId, Verdict>,
    worth: Worth,
) -> Vec<Ended> {
    let is_new = |id: &ContractId| contracts.get(id).is_some_and(|kept| kept.past.ended.is_none());
    let end = |(id, verdict): (&ContractId, &Verdict)| match verdict {
        Verdict::Stop(ended) if is_new(id) && is_final(ended, worth) => Some(ended.clone()),
        Verdict::Run(_) | Verdict::Stop(_) | Verdict::Refuse(_) => None,
    };
    verdicts.iter().filter_map(end).collect()
}

fn is_final(ended: &Ended, worth: Worth) -> bool {
    match (&ended.cause, ended.told_by, worth) {
        // Another clock may disagree, and a later version may give more time.
        (Cause::Expired, ..) | (_, ToldBy::Clock, Worth::Unconfirmed) => false,
        (Cause::Cancelled { .. }, ToldBy::Order, _)
        | (Cause::Cancelled { .. }, ToldBy::Clock, Worth::Confirmed) => true,
    }
}

/// Every workload that the verdicts allow, each after what it needs.
pub(crate) fn wants(verdicts: &BTreeMap<ContractId, Verdict>) -> Vec<Want> {
    let agreed = verdicts.values().filter_map(|verdict| match verdict {
        Verdict::Run(agreed) => Some(agreed),
        Verdict::Stop(_) | Verdict::Refuse(_) => None,
    });
    agreed.flat_map(|agreed| wants_of(agreed)).collect()
}

/// What is to be there of one contract.
pub(crate) fn wants_of(agreed: &Agreed) -> Vec<Want> {
    let contract = agreed.header.contract;
    let id = |name: &String| workload_id(&contract, name);
    // A verdict of Run is given for documents without circles only.
    let order = agreed.document.start_order().unwrap_or_default();
    let want = |workload: &contract::workload::Workload| {
        let mut needs: Vec<String> = workload.needs.iter().map(id).collect();
        let kind = match &workload.spec {
            Spec::Volume(volume) => {
                Kind::Volume { size_bytes: volume.size_bytes, class: volume.class }
            }
            Spec::Container(container) => {
                let flist =
                    agreed.header.flists.iter().find(|flist| flist.name == container.flist)?;
                let volumes: Vec<(String, String)> = container
                    .mounts
                    .iter()
                    .filter_map(|mount| mount.source.volume())
                    .map(|name| (name.clone(), id(name)))
                    .collect();
                needs.extend(volumes.iter().map(|(_, id)| id.clone()));
                // Where its lines and statistics are sent, a running container takes up by itself.
                let lasting =
                    Container { logs: Vec::new(), stats: Vec::new(), ..container.clone() };
                let spec = serde_json::to_string(&Spec::Container(lasting))
                    .expect("a workload is strings and numbers");
                let mut text = format!("{}\n{spec}", flist.digest);
                // What was begun without this publisher's word is not what is agreed on now.
                if let Some(publisher) = &flist.publisher {
                    text += &format!("\n{} {}", publisher.key, publisher.revision);
                }
                let revision = id::sha256(text.as_bytes());
                Kind::Container {
                    container: Box::new(container.clone()),
                    flist: flist.digest,
                    urls: flist.urls.clone(),
                    bytes: flist.bytes,
                    publisher: flist.publisher.clone().map(Box::new),
                    revision: StatementId(revision).to_string(),
                    volumes,
                }
            }
        };
        Some(Want { id: id(&workload.name), contract, name: workload.name.clone(), needs, kind })
    };
    order.into_iter().filter_map(want).collect()
}

/// The flists of contracts that are agreed on and whose time comes soon, those first whose time comes
/// first: judged at that time, on a node on which nothing else runs then.
pub(crate) fn upcoming(
    contracts: &BTreeMap<ContractId, Kept>,
    verdicts: &BTreeMap<ContractId, Verdict>,
    trust: &Trust,
    now: Timestamp,
) -> Vec<Upcoming> {
    let mut upcoming = Vec::new();
    for (id, verdict) in verdicts {
        let waits = matches!(verdict, Verdict::Refuse(refusal) if refusal.code == Code::NotYet);
        let Some(kept) = contracts.get(id).filter(|_| waits) else { continue };
        let header = kept.bundle.case().ok().and_then(|case| case.in_force().ok().flatten());
        let Some(start) = header.map(|header| header.body.not_before) else { continue };
        if start > now.plus(AHEAD_S) {
            continue;
        }
        let trust = Trust { past: kept.past.clone(), ..trust.clone() };
        let Verdict::Run(agreed) = kept.bundle.verdict(&trust, start) else { continue };
        let containers = agreed.document.workloads.iter().filter_map(|one| match &one.spec {
            Spec::Container(container) => Some(&container.flist),
            Spec::Volume(_) => None,
        });
        let used: BTreeSet<&String> = containers.collect();
        let flists = agreed.header.flists.iter().filter(|flist| used.contains(&flist.name));
        upcoming.extend(flists.map(|one| {
            let (flist, urls, bytes) = (one.digest, one.urls.clone(), one.bytes);
            let publisher = one.publisher.clone().map(Box::new);
            (start, Upcoming { contract: *id, flist, urls, bytes, publisher })
        }));
    }
    upcoming.sort_by_key(|(start, one)| (*start, one.contract, one.flist));
    // It may have the same files under two names.
    upcoming.dedup_by_key(|(_, one)| (one.contract, one.flist));
    upcoming.into_iter().map(|(_, one)| one).collect()
}

/// The contracts whose data is to be deleted now, each with the signed order. Only an end that is
/// final deletes, and a time is only taken for past when a time server says so.
pub(crate) fn wipes(
    contracts: &BTreeMap<ContractId, Kept>,
    now: Now,
) -> BTreeMap<ContractId, StatementId> {
    let due = |kept: &Kept| Some((kept.id, wipe_order(kept.past.ended.as_ref()?, now)?));
    contracts.values().filter_map(due).collect()
}

fn wipe_order(ended: &Ended, now: Now) -> Option<StatementId> {
    let Cause::Cancelled { order, retention } = &ended.cause else { return None };
    match retention {
        Retention::Wipe => Some(*order),
        Retention::KeepUntil(time) => {
            (now.worth == Worth::Confirmed && *time <= now.at).then_some(*order)
        }
    }
}

#[cfg(test)]
mod tests;

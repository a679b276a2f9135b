//! From contracts to workloads: holds every contract against the consensus rule, and lists what
//! this node has to run. Pure.

use crate::{
    database::Kept,
    plan::{Kind, Want, workload_id},
};
use contract::{
    Capacity, ContractId, StatementId, Timestamp, Trust, Verdict,
    decision::Retention,
    id,
    verdict::{Agreed, Cause, Ended},
    workload::{MountSource, Spec},
};
use std::collections::BTreeMap;

/// The verdict on every contract, and what they leave of the node's capacity.
///
/// Contracts that were started first keep their place; of the others, the order of their ids
/// decides who gets the last room, so that the same contracts give the same verdicts.
pub(crate) fn judge(
    contracts: &BTreeMap<ContractId, Kept>,
    trust: &Trust,
    now: Timestamp,
) -> (BTreeMap<ContractId, Verdict>, Capacity) {
    let mut order: Vec<&Kept> = contracts.values().collect();
    order.sort_by_key(|kept| (kept.started.unwrap_or(u64::MAX), kept.id));
    let mut free = trust.free;
    let mut verdicts = BTreeMap::new();
    for kept in order {
        let holds = kept.started.map(|_| Capacity::default());
        let past = contract::Past { holds, ..contract::Past::default() };
        let trust = Trust { free, past, ..trust.clone() };
        let verdict = contract::verdict(&kept.bundle, &trust, now);
        if let Verdict::Run(agreed) = &verdict {
            free = free.minus(&agreed.document.demand());
        }
        verdicts.insert(kept.id, verdict);
    }
    (verdicts, free)
}

/// Every workload that the verdicts allow, each after what it needs.
pub(crate) fn wants(verdicts: &BTreeMap<ContractId, Verdict>) -> Vec<Want> {
    let agreed = verdicts.values().filter_map(|verdict| match verdict {
        Verdict::Run(agreed) => Some(agreed),
        Verdict::Stop(_) | Verdict::Refuse(_) => None,
    });
    agreed.flat_map(|agreed| wants_of(agreed)).collect()
}

fn wants_of(agreed: &Agreed) -> Vec<Want> {
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
                    .filter_map(|mount| match &mount.source {
                        MountSource::Volume(name) => Some((name.clone(), id(name))),
                        MountSource::Tmpfs(_) => None,
                    })
                    .collect();
                needs.extend(volumes.iter().map(|(_, id)| id.clone()));
                let spec = serde_json::to_string(&workload.spec)
                    .expect("a workload is strings and numbers");
                let revision = id::sha256(format!("{}\n{spec}", flist.digest).as_bytes());
                Kind::Container {
                    container: Box::new(container.clone()),
                    flist: flist.digest,
                    urls: flist.urls.clone(),
                    revision: StatementId(revision).to_string(),
                    volumes,
                }
            }
        };
        Some(Want { id: id(&workload.name), contract, name: workload.name.clone(), needs, kind })
    };
    order.into_iter().filter_map(want).collect()
}

/// The cancelled contracts whose data is to be deleted now, each with the signed order.
pub(crate) fn wipes(
    verdicts: &BTreeMap<ContractId, Verdict>,
    now: Timestamp,
) -> BTreeMap<ContractId, StatementId> {
    verdicts.iter().filter_map(|(id, verdict)| Some((*id, wipe_order(verdict, now)?))).collect()
}

/// The order to delete a contract's data, when its time has come.
pub(crate) fn wipe_order(verdict: &Verdict, now: Timestamp) -> Option<StatementId> {
    let Verdict::Stop(Ended { cause: Cause::Cancelled { order, retention }, .. }) = verdict else {
        return None;
    };
    match retention {
        Retention::Wipe => Some(*order),
        Retention::KeepUntil(time) => (*time <= now).then_some(*order),
    }
}

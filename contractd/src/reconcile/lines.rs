//! Lines and statistics of containers: tells logd where they are to be sent, and whose lines may go.
//!
//! A logd that is not there is told as soon as it is there again. One that hangs keeps a turn waiting
//! for two seconds: one in five seconds, and those in which sinks change. New links of containers do not
//! count as such a change: they come and go with everything that is started again.

use super::Reconciler;
use crate::plan::{self, Have, Kind, Want};
use contract::{ContractId, StatementId};
use node_api::{
    logd::{self, Delete, Send, Source},
    paths,
};
use std::{collections::BTreeMap, time::Duration};

/// It is told again this often, because it may have been started again, in milliseconds.
const TELL_MS: u64 = 5_000;
/// It only takes note.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Lines {
    told: Vec<Source>,
    /// Boot clock in milliseconds.
    again_ms: u64,
}

impl Reconciler {
    /// Sinks change while their container runs; it goes on.
    pub(super) fn send_lines(
        &mut self,
        wants: &[Want],
        have: &Have,
        wipes: &BTreeMap<ContractId, StatementId>,
    ) {
        let mut sources = sources(wants, &self.lines.told, have);
        match logd::cut(&mut sources) {
            0 => drop(self.complaints.remove("sinks")),
            n_cut => {
                let most = logd::SINKS_MAX;
                self.complain("sinks", format!("{n_cut} get nothing: a node has {most} at most"));
            }
        }
        sources.retain(|source| !source.logs.is_empty() || !source.stats.is_empty());
        if sources == self.lines.told && have.now_ms < self.lines.again_ms {
            return;
        }
        self.lines.again_ms = have.now_ms.saturating_add(TELL_MS);
        self.lines.told.clone_from(&sources);
        let (node, links) = (self.trust.node.to_string(), have.links.clone());
        let told = call(&Send { node, sources, links }).and_then(|reply| {
            let doomed = doomed(reply.kept, wipes, have);
            doomed.into_iter().try_for_each(|delete| call(&delete).map(drop))
        });
        match told {
            Ok(()) => drop(self.complaints.remove("lines")),
            // init starts it again, and says so.
            Err(ipc::CallError::Connect { .. }) => {}
            Err(error) => self.complain("lines", daemon::chain(&error)),
        }
    }
}

/// What is wanted, and what was wanted by containers that are still ending: their last words.
fn sources(wants: &[Want], told: &[Source], have: &Have) -> Vec<Source> {
    let source = |want: &Want| match &want.kind {
        Kind::Container { container, .. } => Some(Source {
            id: want.id.clone(),
            contract: want.contract.to_string(),
            workload: want.name.clone(),
            logs: container.logs.iter().map(|sink| sink.to.clone()).collect(),
            stats: container.stats.iter().map(|sink| sink.to.clone()).collect(),
        }),
        Kind::Volume { .. } => None,
    };
    let wanted: BTreeMap<String, Source> =
        wants.iter().filter_map(source).map(|source| (source.id.clone(), source)).collect();
    let is_ending = |id: &String| {
        !wanted.contains_key(id)
            && (have.processes.contains_key(id) || have.attachments.contains_key(id))
    };
    let ending = told.iter().filter(|source| is_ending(&source.id)).cloned();
    let mut all: Vec<Source> = wanted.values().cloned().chain(ending).collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

/// The lines of contracts whose data is to be deleted, once nothing of them runs.
fn doomed(
    kept: Vec<String>,
    wipes: &BTreeMap<ContractId, StatementId>,
    have: &Have,
) -> Vec<Delete> {
    let order = |id: &String| {
        let of =
            |(contract, _): &(&ContractId, &StatementId)| id.starts_with(&plan::prefix(contract));
        wipes.iter().find(of).map(|(_, order)| order.to_string())
    };
    kept.into_iter()
        .filter(|id| !have.processes.contains_key(id))
        .filter_map(|id| Some(Delete { order: order(&id)?, id }))
        .collect()
}

fn call<M: ipc::Method>(parameters: &M) -> Result<M::Reply, ipc::CallError> {
    ipc::Client::connect(paths::LOGD_SOCKET)?.with_timeout(PATIENCE).call(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use node_api::init::ProcessState;
    use std::net::{IpAddr, Ipv4Addr};

    fn source(id: &str) -> Source {
        let logs = vec!["redis://r/c".to_owned()];
        let (contract, workload) = ("c".into(), "w".into());
        Source { id: id.into(), contract, workload, logs, stats: vec![] }
    }

    #[test]
    fn who_is_ending_keeps_its_sinks() {
        let told = ["c-1", "c-2", "c-3"].map(source);
        let mut have = Have::default();
        have.processes.insert("c-1".into(), ProcessState::Running);
        have.attachments.insert("c-3".into(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(sources(&[], &told, &have), ["c-1", "c-3"].map(source));
        assert!(sources(&[], &[], &have).is_empty());
    }

    #[test]
    fn lines_go_only_by_an_order_and_when_nothing_runs() {
        let contract = ContractId([7; 32]);
        let other = ContractId([8; 32]);
        let order = StatementId([9; 32]);
        let id = |contract, name| plan::workload_id(contract, name);
        let kept = vec![id(&contract, "ends"), id(&contract, "web"), id(&other, "web")];
        let wipes = BTreeMap::from([(contract, order)]);
        let mut have = Have::default();
        have.processes.insert(id(&contract, "ends"), ProcessState::Exited(0));
        let doomed = doomed(kept.clone(), &wipes, &have);
        let [Delete { id: deleted, order: by }] = &*doomed else { panic!("{doomed:?}") };
        assert_eq!((deleted, by), (&id(&contract, "web"), &order.to_string()));
        assert!(super::doomed(kept, &BTreeMap::new(), &have).is_empty());
    }
}

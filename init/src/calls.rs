//! What callers may ask of PID 1: one line for each method.

use crate::{cgroup, node::Node, supervisor::Service};
use ipc::{Call, Failure, Method, Outcome};
use node_api::init::{
    Adopt, Done, Forget, Kill, Log, LogReply, Logs, LogsReply, Power, Publish, Signal, Status,
    StatusReply, Workloads, WorkloadsReply,
};
use std::time::Instant;

/// Answers one call. Nothing here waits.
pub(crate) fn handle(node: &mut Node, call: Call) -> Outcome {
    match call.method() {
        Status::NAME => call.answer(|Status {}| Ok::<_, Failure>(status(node))),
        Adopt::NAME => call.answer_with_fds(|Adopt { id, pid }, fds| {
            node.workloads.adopt(&id, pid, fds)?;
            node.changed();
            Ok::<_, Failure>((Done {}, Vec::new()))
        }),
        Workloads::NAME => call.answer(|Workloads {}| {
            Ok::<_, Failure>(WorkloadsReply { workloads: node.workloads.list() })
        }),
        Signal::NAME => call
            .answer(|Signal { id, signal }| node.workloads.signal(&id, signal).map(|()| Done {})),
        Kill::NAME => call.answer(|Kill { id }| node.workloads.kill(&id).map(|()| Done {})),
        Forget::NAME => call.answer(|Forget { id }| {
            node.workloads.forget(&id)?;
            node.changed();
            Ok::<_, Failure>(Done {})
        }),
        Logs::NAME => {
            call.answer(|Logs {}| Ok::<_, Failure>(LogsReply { logs: node.workloads.logs() }))
        }
        Log::NAME => call.answer(|request: Log| log(node, &request)),
        Publish::NAME => call.answer(|Publish { section, facts }| {
            node.publish(&section, &facts)
                .then_some(Done {})
                .ok_or_else(|| Failure::new("TooMany", "there are too many sections"))
        }),
        Power::NAME => call.answer(|Power { action }| {
            node.begin_shutdown(action);
            Ok::<_, Failure>(Done {})
        }),
        _ => call.unknown(),
    }
}

fn status(node: &Node) -> StatusReply {
    StatusReply {
        services: node.services.iter().map(Service::report).collect(),
        ready_after_ms: node.ready_after_ms,
        previous_panic: node.previous_panic.clone(),
    }
}

/// A service shadows a workload of the same name; contractd gives workloads longer ids than that.
fn log(node: &mut Node, Log { name, after, lines_max }: &Log) -> Result<LogReply, Failure> {
    if let Some(workload) = node.workloads.by_id.get_mut(name) {
        workload.log.keep(Instant::now());
    }
    let service = node.services.iter().find(|service| service.entry.name == name);
    let ring = match (service, node.workloads.ring(name)) {
        (Some(service), _) => &service.log.ring,
        (None, Some(ring)) => ring,
        (None, None) if name == "init" => &node.ring,
        (None, None) if !cgroup::is_id(name) => {
            return Err(Failure::new("BadId", "the name is not [a-z0-9-]{1,64}"));
        }
        (None, None) => return Err(Failure::new("NotFound", format!("nothing is called {name}"))),
    };
    Ok(ring.read(*after, usize::try_from(*lines_max).unwrap_or(usize::MAX)))
}

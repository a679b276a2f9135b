//! A contract version in words: what stakeholders read before they sign.
//!
//! One fact for each line, always in the same order, so that two versions can be compared line by
//! line. Ids stand in full: a short one can be imitated. Text of the owner is shown with control
//! characters escaped, so that nobody can paint over other lines.

use crate::{
    people::People,
    source::units::{show_bytes, show_milli},
};
use contract::{
    NodeId,
    decision::{Cancel, Retention},
    header::{Header, OnPartition, Publisher, Rule},
    workload::{
        Container, DiskLimits, Document, Health, Medium, MountSource, Probe, Protocol, Restart,
        Sink, Spec, Workload,
    },
};
use std::collections::BTreeMap;

/// A version, without what differs between versions anyway (its number, hash and predecessor).
pub fn version(header: &Header, documents: &[Document], people: &People) -> Vec<String> {
    let mut lines = vec![
        format!("title: {}", clean(&header.title)),
        format!("network: {}", header.network),
        format!("owner: {}", people.show_exactly(&header.owner)),
    ];
    lines.extend(header.purpose.lines().map(|line| format!("purpose: {}", clean(line))));
    for holder in &header.stakeholders {
        let who = people.show_exactly(&holder.identity);
        lines.push(format!("stakeholder: {who}, role {}, weight {}", holder.role, holder.weight));
    }
    let policy = &header.policy;
    for (action, rule) in
        [("create", &policy.create), ("update", &policy.update), ("cancel", &policy.cancel)]
    {
        lines.push(format!("to {action}: {}", self::rule(rule, people)));
    }
    lines.push(format!("approve by: {}", header.approve_by));
    lines.push(format!("not before: {}", header.not_before));
    lines.push(format!("start by: {}", header.start_by));
    lines.push(format!("expires: {}", header.expires));
    lines.push(match header.execution.on_partition {
        OnPartition::Keep => "without contact to the registry: goes on until it expires".to_owned(),
        OnPartition::StopAfterS(seconds) => {
            format!("without contact to the registry: stops after {seconds} s")
        }
    });
    lines.push(format!("paid from pool: {}", header.pool));
    for flist in &header.flists {
        let size = show_bytes(flist.bytes);
        lines.push(format!("may execute: {} = flist {} ({size})", flist.name, flist.digest));
        lines.extend(flist.urls.iter().map(|url| format!("  fetched from {}", clean(url))));
        lines.extend(flist.publisher.as_ref().map(|publisher| {
            let Publisher { key, revision } = publisher;
            format!("  only if publisher {key} has signed it as revision {revision} or later")
        }));
    }
    if !header.extensions.is_empty() {
        let text = serde_json::to_string(&header.extensions)
            .expect("strings, numbers, lists and maps always serialise");
        lines.push(format!("extensions, which change no meaning: {text}"));
    }
    for (workloads, nodes) in grouped(documents) {
        lines.extend(nodes.iter().map(|node| format!("node {node}")));
        lines.extend(workloads.iter().flat_map(workload));
    }
    lines
}

/// An order to end a contract.
pub fn cancel(cancel: &Cancel) -> Vec<String> {
    let data = match cancel.retention {
        Retention::Wipe => "deleted as soon as everything has stopped".to_owned(),
        Retention::KeepUntil(time) => format!("kept until {time}, then deleted"),
    };
    vec![
        format!("ends version: {}", cancel.version),
        format!("reason: {}", clean(&cancel.reason)),
        format!("workloads stop at: {}", cancel.effective_at),
        format!("all data of the contract: {data}"),
    ]
}

/// What it takes to agree, in one line.
pub fn rule(rule: &Rule, people: &People) -> String {
    let mut parts = Vec::new();
    if !rule.required.is_empty() {
        let names: Vec<_> = rule.required.iter().map(|id| people.show_exactly(id)).collect();
        parts.push(format!("approval of {}", names.join(" and ")));
    }
    parts.extend(rule.roles.iter().map(|quorum| format!("{} of role {}", quorum.min, quorum.role)));
    parts.push(format!("weight {} together", rule.min_weight));
    if !rule.veto_roles.is_empty() {
        let roles: Vec<_> = rule.veto_roles.iter().map(ToString::to_string).collect();
        parts.push(format!("no reject by role {}", roles.join(" or ")));
    }
    parts.join("; ")
}

/// Documents with the same workloads together, in the order of their first node.
fn grouped(documents: &[Document]) -> Vec<(&[Workload], Vec<NodeId>)> {
    let mut places: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut groups: Vec<(&[Workload], Vec<NodeId>)> = Vec::new();
    for document in documents {
        let key = serde_json::to_vec(&document.workloads)
            .expect("strings, numbers and lists always serialise");
        let place = *places.entry(key).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, nodes)) => nodes.push(document.node),
            None => groups.push((&document.workloads, vec![document.node])),
        }
    }
    groups
}

fn workload(workload: &Workload) -> Vec<String> {
    let mut lines = match &workload.spec {
        Spec::Volume(volume) => {
            let medium = match volume.class {
                Medium::Ssd => "flash",
                Medium::Hdd => "rotating disk",
            };
            let size = show_bytes(volume.size_bytes);
            vec![format!("  volume {}: {size} of {medium}", workload.name)]
        }
        Spec::Container(container) => self::container(&workload.name, container),
    };
    if !workload.needs.is_empty() {
        lines.push(format!("    starts after {}", workload.needs.join(", ")));
    }
    lines
}

fn container(name: &str, container: &Container) -> Vec<String> {
    let mut lines = vec![
        format!("  container {name}: runs {}", container.flist),
        format!(
            "    at most {} cores, {} of memory, {} processes",
            show_milli(u64::from(container.cpu_milli)),
            show_bytes(container.memory_bytes),
            container.pids_max
        ),
    ];
    if !container.command.is_empty() {
        let words: Vec<_> = container.command.iter().map(|word| format!("{word:?}")).collect();
        lines.push(format!("    command {}", words.join(" ")));
    }
    lines.extend(container.env.iter().map(|pair| format!("    variable {}", clean(pair))));
    lines.extend(container.cwd.iter().map(|path| format!("    works in {}", clean(path))));
    lines.extend(container.user.iter().map(|user| format!("    runs as user {}", clean(user))));
    for mount in &container.mounts {
        let path = clean(&mount.path);
        lines.push(match &mount.source {
            MountSource::Tmpfs(bytes) => {
                format!("    may write to {path}: {} of memory", show_bytes(*bytes))
            }
            MountSource::Volume(volume) => format!("    may write to {path}: volume {volume}"),
            MountSource::Overlay(volume) => format!(
                "    may change the flist's {path}: volume {volume} keeps the changes, also over a later \
                 flist; nothing in {path} can be executed, programs of the flist neither"
            ),
        });
    }
    for port in &container.ports {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let (host, inner) = (port.host, port.container);
        lines
            .push(format!("    open to the network: {protocol} port {host} of the node → {inner}"));
    }
    let stop = container.stop;
    lines.push(format!("    stopped by signal {}, killed after {} s", stop.signal, stop.grace_s));
    lines.extend(container.disk.as_ref().map(disk));
    lines.extend(restart(container.restart).map(|text| format!("    {text}")));
    lines.extend(container.health.as_deref().into_iter().flat_map(health));
    let to = |sink: &Sink| clean(&sink.to);
    lines.extend(
        container.logs.iter().map(|sink| format!("    its output is sent to {}", to(sink))),
    );
    lines.extend(
        container.stats.iter().map(|sink| format!("    what it uses is sent to {}", to(sink))),
    );
    lines
}

fn disk(limits: &DiskLimits) -> String {
    let bytes =
        |what, limit: Option<u64>| limit.map(|limit| format!("{what} {}", show_bytes(limit)));
    let ops = |what, limit: Option<u64>| limit.map(|limit| format!("{what} {limit} times"));
    let words = [
        bytes("reads", limits.read_bytes_s),
        ops("reads", limits.read_ops_s),
        bytes("writes", limits.write_bytes_s),
        ops("writes", limits.write_ops_s),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    format!("    on each disk, in a second, at most: {}", words.join(", "))
}

/// What is not so for every container.
fn restart(restart: Restart) -> Option<&'static str> {
    match restart {
        Restart::Always => None,
        Restart::OnFailure => {
            Some("a job: started again until it has returned 0, then not any more")
        }
        Restart::Never => Some("a job: started once, and not again, however it ends"),
    }
}

fn health(health: &Health) -> [String; 2] {
    let Health { probe, interval_s, timeout_s, retries, start_period_s } = health;
    let question = match probe {
        Probe::Tcp { port } => format!("a connection to its port {port}"),
        Probe::Http { port, path, status_min, status_max } => {
            let path = clean(path);
            format!("GET {path} at its port {port} gives a status of {status_min} to {status_max}")
        }
        Probe::Exec { command } => {
            let words: Vec<_> = command.iter().map(|word| format!("{word:?}")).collect();
            format!("the command {} in it returns 0", words.join(" "))
        }
    };
    [
        format!("    works when {question}, asked every {interval_s} s, within {timeout_s} s"),
        format!(
            "    started again after {retries} bad answers, of which those in the first \
             {start_period_s} s do not count"
        ),
    ]
}

/// Text of others on one line of ours.
pub fn clean(text: &str) -> String {
    spelled_out(text, |c| c.escape_unicode().to_string())
}

/// The same for a JSON text without line breaks, which means what it meant before.
pub fn clean_json(text: &str) -> String {
    // Outside of strings JSON has none of them.
    spelled_out(text, |c| {
        c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    })
}

fn spelled_out(text: &str, spell: impl Fn(char) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if registry_api::shown::steers(c) {
            out.push_str(&spell(c));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::Example;

    #[test]
    fn everything_that_is_signed_is_said() {
        let plan = Example::full().plan();
        let text = version(&plan.header, &plan.documents, &People::default()).join("\n");
        let header = &plan.header;
        let mut wanted = vec![
            header.title.clone(),
            header.owner.to_string(),
            header.pool.to_string(),
            header.flists[0].digest.to_string(),
            header.flists[0].urls[0].clone(),
            format!(
                "only if publisher {} has signed it as revision 3 or later",
                header.flists[0].publisher.as_ref().unwrap().key
            ),
            plan.documents[0].node.to_string(),
            "volume data: 10 GiB of flash".to_owned(),
            "container web: runs shop".to_owned(),
            "0.5 cores, 256 MiB of memory, 99 processes".to_owned(),
            "variable LANG=C".to_owned(),
            "command \"/bin/server\" \"-v\"".to_owned(),
            "may write to /data: volume data".to_owned(),
            "may write to /tmp: 64 MiB of memory".to_owned(),
            "tcp port 8080 of the node → 80".to_owned(),
            "starts after data".to_owned(),
            "works in /data".to_owned(),
            "runs as user 1000:1000".to_owned(),
            "signal 2, killed after 60 s".to_owned(),
            "GET /ready?full=1 at its port 80 gives a status of 200 to 204, asked every 10 s, within 5 s"
                .to_owned(),
            "again after 3 bad answers, of which those in the first 60 s do not count".to_owned(),
            "its output is sent to syslog+tcp://logs.example".to_owned(),
            "what it uses is sent to wss://stats.example/in".to_owned(),
            "stops after 43200 s".to_owned(),
            "1 of role legal; weight 2 together; no reject by role legal".to_owned(),
        ];
        wanted.extend(header.stakeholders.iter().map(|holder| holder.identity.to_string()));
        for part in wanted {
            assert!(text.contains(&part), "{part:?} is not in:\n{text}");
        }
    }

    #[test]
    fn nobody_can_paint_over_other_lines() {
        assert_eq!(clean("a\u{1b}[2Kb\nc\u{202e}d"), "a\\u{1b}[2Kb\\u{a}c\\u{202e}d");
        assert_eq!(clean("Käse → 10 €"), "Käse → 10 €");
    }

    #[test]
    fn json_is_spelled_out_without_changing_its_meaning() {
        let value = serde_json::json!({ "k\u{9b}": "a\u{1b}[2K\u{9b}2Kb\n\u{202e}Käse\u{7f}" });
        let text = clean_json(&value.to_string());
        assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text}");
        assert!(text.contains("Käse"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}

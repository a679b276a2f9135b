//! The calls to the other daemons of the node, in one place: looking, and doing one step.

use crate::{
    disks,
    plan::{Have, Kind, STORE_DAMAGED, Want},
    storage::Volume,
};
use container::reason::Reason;
use contract::workload::{Container, Medium, Protocol};
use flist::{Fault, Store};
use ipc::CallError;
use node_api::{init, launcher, netd, paths, storaged};
use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    path::Path,
};

/// Why a container could not be started.
#[derive(Debug)]
pub(crate) struct StartError {
    pub(crate) code: String,
    pub(crate) message: String,
    /// Whether its program may have been executed all the same.
    pub(crate) is_open: bool,
}

impl StartError {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), is_open: false }
    }

    fn refused(code: &str, error: &CallError) -> Self {
        // The name that the daemon gave its refusal is the stable code.
        match error {
            CallError::Refused { failure, .. } => {
                let name = failure.name.rsplit('.').next().unwrap_or(code);
                Self::new(&snake_case(name), failure.message.clone())
            }
            CallError::Connect { .. } | CallError::Broken { .. } | CallError::Protocol { .. } => {
                Self::new(code, daemon::chain(error))
            }
        }
    }
}

/// `NoSpace` as `no_space`: codes look alike wherever they come from.
fn snake_case(name: &str) -> String {
    let mut code = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() && !code.is_empty() {
            code.push('_');
        }
        code.push(c.to_ascii_lowercase());
    }
    code
}

/// What the other daemons have; the rest of [`Have`] is contractd's own.
pub(crate) fn observe() -> Result<(Have, Vec<Volume>), CallError> {
    let workloads = ipc::call(paths::INIT_SOCKET, &init::Workloads {})?.workloads;
    let attachments = ipc::call(paths::NETD_SOCKET, &netd::Attachments {})?.attachments;
    let volumes = ipc::call(paths::STORAGED_SOCKET, &storaged::Volumes {})?.volumes;
    let have = Have {
        pids: workloads.iter().map(|one| (one.id.clone(), one.pid)).collect(),
        processes: workloads.into_iter().map(|one| (one.id, one.state)).collect(),
        links: attachments.iter().map(|one| (one.id.clone(), one.link.clone())).collect(),
        attachments: attachments.into_iter().map(|one| (one.id, one.address)).collect(),
        volumes: volumes.iter().map(|one| (one.id.clone(), one.size_bytes)).collect(),
        ..Have::default()
    };
    let volume = |one: storaged::Volume| {
        let storaged::Volume { id, pool, size_bytes } = one;
        Volume { id, pool, size_bytes }
    };
    Ok((have, volumes.into_iter().map(volume).collect()))
}

/// Makes or resizes a volume, and gives its directory.
pub(crate) fn volume(id: &str, size_bytes: u64, class: Medium) -> Result<String, StartError> {
    let class = match class {
        Medium::Hdd => Some(storaged::DiskClass::Hdd),
        Medium::Ssd => Some(storaged::DiskClass::Ssd),
    };
    let ensure = storaged::VolumeEnsure { id: id.to_owned(), size_bytes, class };
    let reply = ipc::call(paths::STORAGED_SOCKET, &ensure)
        .map_err(|error| StartError::refused("volume_failed", &error))?;
    Ok(reply.path)
}

/// Makes the network of a container.
pub(crate) fn attach(want: &Want) -> Result<netd::AttachReply, StartError> {
    let Kind::Container { container, .. } = &want.kind else {
        return Err(StartError::new("not_a_container", "only containers have a network"));
    };
    let port = |port: &contract::workload::Port| netd::Port {
        protocol: match port.protocol {
            Protocol::Tcp => netd::Protocol::Tcp,
            Protocol::Udp => netd::Protocol::Udp,
        },
        host: port.host,
        container: port.container,
    };
    let attach =
        netd::Attach { id: want.id.clone(), ports: container.ports.iter().map(port).collect() };
    ipc::call(paths::NETD_SOCKET, &attach)
        .map_err(|error| StartError::refused("network_failed", &error))
}

/// The disks that the store and these directories lie on, for a container that has limits there.
pub(crate) fn disks<'d>(
    container: &Container,
    directories: impl Iterator<Item = &'d String>,
) -> Result<Vec<String>, StartError> {
    let mut found = BTreeSet::new();
    if container.disk.is_some() {
        for directory in iter::once(paths::STORE).chain(directories.map(String::as_str)) {
            let below = disks::below(Path::new(directory), Path::new(disks::BTRFS));
            found.extend(below.map_err(|error| {
                let message = format!("finding the disks of {directory}: {error}");
                StartError::new("disk_unknown", message)
            })?);
        }
    }
    Ok(found.into_iter().collect())
}

/// Everything that a start has been decided with.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) entrypoint_digest: String,
    pub(crate) image_digest: [u8; 32],
    pub(crate) files: u64,
}

/// Measures every file of the flist, then asks the launcher to start the container.
pub(crate) fn start(
    want: &Want,
    store: &Store,
    id_base: u32,
    volumes: BTreeMap<String, String>,
    disks: Vec<String>,
) -> Result<Started, StartError> {
    let Kind::Container { container, flist, .. } = &want.kind else {
        return Err(StartError::new("not_a_container", "only containers are started"));
    };
    let failed = |error: flist::StoreError| StartError::new(error.code(), daemon::chain(&error));
    let body = store.flist(*flist).map_err(failed)?;
    let root = store.root(*flist).map_err(failed)?;
    let faults = store.verify(*flist, flist::Depth::Measure).map_err(failed)?;
    if !faults.is_empty() {
        return Err(StartError::new(STORE_DAMAGED, describe(&faults)));
    }
    let network = attach(want)?;
    let run = run(&body.body().run);
    let attachments = container::plan::Attachments {
        id: want.id.clone(),
        root: launcher::Root {
            image: root.image.display().to_string(),
            image_digest: contract::FlistId(root.image_digest).to_string(),
            objects: root.objects.display().to_string(),
        },
        id_base,
        volumes,
        disks,
        netns: Some(network.netns),
        dns: network.dns,
    };
    let start = container::plan::plan(&want.name, container, &run, &attachments)
        .map_err(|error| StartError::new("spec_invalid", daemon::chain(&error)))?;
    let reply = ipc::call(paths::LAUNCHER_SOCKET, &start).map_err(|error| not_started(&error))?;
    Ok(Started {
        entrypoint_digest: reply.entrypoint_digest,
        image_digest: root.image_digest,
        files: body.body().contents.len() as u64 + 1,
    })
}

/// What the launcher has refused executed nothing; of what it did not answer, and of what it killed when it
/// was about to be executed, nobody knows.
fn not_started(error: &CallError) -> StartError {
    let refused = StartError::refused("start_failed", error);
    let is_open = match error {
        CallError::Connect { .. } => false,
        CallError::Refused { .. } => refused.code == Reason::ExecUnknown.code(),
        CallError::Broken { .. } | CallError::Protocol { .. } => true,
    };
    StartError { is_open, ..refused }
}

/// What the launcher has to know to execute the command of a health check.
pub(crate) fn command(
    want: &Want,
    store: &Store,
    pid: i32,
    (command, timeout_s): (&[String], u32),
) -> Result<launcher::Check, StartError> {
    let Kind::Container { container, flist, .. } = &want.kind else {
        return Err(StartError::new("not_a_container", "only containers are asked"));
    };
    let body = store
        .flist(*flist)
        .map_err(|error| StartError::new(error.code(), daemon::chain(&error)))?;
    let run = run(&body.body().run);
    container::plan::check(&want.name, container, &run, (&want.id, pid), (command, timeout_s))
        .map_err(|error| StartError::new("spec_invalid", daemon::chain(&error)))
}

/// How an flist wants to be run.
fn run(run: &flist::body::Run) -> container::plan::Run {
    container::plan::Run {
        command: run.entrypoint.iter().chain(&run.arguments).cloned().collect(),
        env: run.env.clone(),
        cwd: run.cwd.clone(),
        uid: run.uid,
        gid: run.gid,
    }
}

/// What is wrong with files of the store, in a sentence.
pub(crate) fn describe(faults: &[Fault]) -> String {
    /// More would make the reason long, and nobody wiser.
    const SHOWN: usize = 8;
    let shown: Vec<String> = faults.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if faults.len() > SHOWN { ", and others" } else { "" };
    format!("not as it was signed, on the node: {}{more}", shown.join(", "))
}

/// Codes of starts that may have failed because the disk did not give back what is on it.
pub(crate) const PERHAPS_DAMAGE: [&str; 5] = [
    "entrypoint_missing",
    "mount_target_missing",
    "cwd_missing",
    "exec_failed",
    "root_mount_failed",
];
/// Codes of starts after which the files of the flist are read and fetched again.
pub(crate) const DAMAGE: [&str; 6] = [
    STORE_DAMAGED,
    "record_damaged",
    "absent",
    "image_missing",
    "image_digest_mismatch",
    "entrypoint_digest_mismatch",
];

#[cfg(test)]
mod tests {
    use super::*;
    use flist::{FaultKind, Part};

    #[test]
    fn the_reason_names_the_files_that_are_wrong_and_how() {
        let fault = |part, kind| Fault { part, kind };
        let file = |path: &str| Part::File(path.into());
        let faults = [
            fault(Part::List, FaultKind::Unreadable),
            fault(Part::Image, FaultKind::Unreadable),
            fault(file("/bin/a"), FaultKind::Missing),
        ];
        let said = "not as it was signed, on the node: the list of files cannot be read, the image of the \
                    tree cannot be read, /bin/a is missing";
        assert_eq!(describe(&faults), said);
        let many = vec![fault(file("x"), FaultKind::WrongDigest); 9];
        assert!(describe(&many).ends_with("x has another digest, or none, and others"));
    }

    #[test]
    fn codes_are_written_alike() {
        for (name, code) in
            [("NoSpace", "no_space"), ("Failed", "failed"), ("exec_failed", "exec_failed")]
        {
            assert_eq!(snake_case(name), code);
        }
    }
}

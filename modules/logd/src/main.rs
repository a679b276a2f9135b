//! `/bin/logd`: lines of containers, kept and sent. A thread serves calls, one collects lines, and
//! one sends them; two wait for the disk.

#![forbid(unsafe_code)]

use ipc::{Call, Failure, Method as _, Outcome};
use logd::{
    collect::{self, Doomed},
    position::Notes,
    reach::{Reach, THREADS_MAX},
    send::{self, Job},
    sync::Syncer,
};
use node_api::{
    init::Done,
    logd::{Delete, Send, SendReply},
    paths::{LOGD_SOCKET, LOGS, NETD_SOCKET},
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};
use std::{
    collections::BTreeSet,
    error::Error,
    io,
    path::Path,
    process::ExitCode,
    sync::{Arc, mpsc},
    thread,
};
use tokio::sync::watch;

/// Deletions that wait; more come again.
const DOOMED_MAX: usize = 256;

fn main() -> ExitCode {
    daemon::run("logd", || -> Result<(), Box<dyn Error + std::marker::Send + Sync>> {
        drop_privileges()?;
        let listener = daemon::listen(Path::new(LOGD_SOCKET))?;
        let (jobs, wanted) = watch::channel(None);
        let wanted_here = wanted.clone();
        let (syncer, notes) = (Syncer::start()?, Notes::start()?);
        let (doomed, doomed_in) = mpsc::sync_channel(DOOMED_MAX);
        let (kept_shown, kept) = watch::channel(BTreeSet::new());
        let (heads_shown, heads) = watch::channel(Arc::default());
        thread::Builder::new().name("serve".to_owned()).spawn(move || {
            let error = ipc::serve(&listener, move |call| answer(call, &jobs, &doomed, &kept));
            daemon::error!("serving: {error}");
        })?;
        thread::Builder::new().name("collect".to_owned()).spawn(move || {
            collect::run(
                Path::new(LOGS),
                syncer,
                &doomed_in,
                &wanted_here,
                &heads_shown,
                &kept_shown,
            );
        })?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(THREADS_MAX).build()?;
        daemon::ready()?;
        let reach = Arc::new(Reach::new(Path::new(NETD_SOCKET)));
        runtime.block_on(send::run(Path::new(LOGS), &reach, &notes, wanted, heads));
        Err(io::Error::other("nobody serves calls any more").into())
    })
}

/// It speaks with strangers, and needs nothing for it but the files of its user.
fn drop_privileges() -> io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // A capability that is younger than the kernel.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(set_no_new_privs(true)?)
}

fn answer(
    call: Call,
    jobs: &watch::Sender<Option<Vec<Job>>>,
    doomed: &mpsc::SyncSender<Doomed>,
    kept: &watch::Receiver<BTreeSet<String>>,
) -> Outcome {
    match call.method() {
        Send::NAME => call.answer(|wanted: Send| {
            let wanted = Some(send::jobs(wanted)?);
            jobs.send_if_modified(|jobs| {
                let is_other = *jobs != wanted;
                *jobs = wanted;
                is_other
            });
            Ok::<_, Failure>(SendReply { kept: kept.borrow().iter().cloned().collect() })
        }),
        Delete::NAME => call.answer(|Delete { id, order }| {
            doomed
                .try_send(Doomed { id, order })
                .map_err(|_| Failure::new("Busy", "too much is being deleted"))?;
            Ok::<_, Failure>(Done {})
        }),
        _ => call.unknown(),
    }
}

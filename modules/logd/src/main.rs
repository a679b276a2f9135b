//! `/bin/logd`: lines of containers, kept and sent, and what they use. A thread serves calls, one
//! collects lines, one takes samples, and one sends both and serves the page of figures; two wait for the
//! disk.

#![forbid(unsafe_code)]

use ipc::{Call, Failure, Method as _, Outcome};
use logd::{
    collect::{self, Doomed},
    page,
    position::Notes,
    reach::{Reach, THREADS_MAX},
    sample::{self, Sampled},
    send::{self, Job},
    serve::{self, Pages},
    stats,
    sync::Syncer,
};
use node_api::{
    init::Done,
    logd::{Delete, Send, SendReply},
    paths::{CGROUP_WORK, LINKS, LOGD_SOCKET, LOGS, NETD_SOCKET},
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
    sync::{Arc, atomic::AtomicU64, mpsc},
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
        let (sampled_shown, sampled) = watch::channel(Sampled::default());
        let (rounds_shown, rounds) = watch::channel(Arc::default());
        let wants = Wants { jobs, sampled: sampled_shown };
        let sampled_here = sampled.clone();
        thread::Builder::new().name("serve".to_owned()).spawn(move || {
            let error = ipc::serve(&listener, move |call| answer(call, &wants, &doomed, &kept));
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
        thread::Builder::new().name("sample".to_owned()).spawn(move || {
            sample::run(Path::new(CGROUP_WORK), Path::new(LINKS), &sampled, &rounds_shown);
        })?;
        let metrics = daemon::boot_config()?.metrics;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(THREADS_MAX + 1).build()?;
        daemon::ready()?;
        let reach = Arc::new(Reach::new(Path::new(NETD_SOCKET)));
        let n_dropped = Arc::<AtomicU64>::default();
        runtime.block_on(async {
            if let Some(metrics) = metrics {
                let n_dropped = Arc::clone(&n_dropped);
                let read = move || {
                    // Copied: whoever tells what is wanted does not wait for a page.
                    let sampled = sampled_here.borrow().clone();
                    page::read(Path::new("/"), &sampled, &n_dropped)
                };
                tokio::spawn(serve::run(metrics, Pages::new(read)));
            }
            let lines = send::run(Path::new(LOGS), &reach, &notes, wanted.clone(), heads);
            tokio::join!(lines, stats::run(&reach, wanted, rounds, &n_dropped));
        });
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

/// What is wanted, for those who do it.
struct Wants {
    jobs: watch::Sender<Option<Vec<Job>>>,
    sampled: watch::Sender<Sampled>,
}

fn answer(
    call: Call,
    wants: &Wants,
    doomed: &mpsc::SyncSender<Doomed>,
    kept: &watch::Receiver<BTreeSet<String>>,
) -> Outcome {
    match call.method() {
        Send::NAME => call.answer(|wanted: Send| {
            let links = send::links(&wanted);
            let wanted = send::jobs(wanted)?;
            wants.sampled.send_replace(Sampled { ids: send::sampled(&wanted), links });
            let wanted = Some(wanted);
            wants.jobs.send_if_modified(|jobs| {
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

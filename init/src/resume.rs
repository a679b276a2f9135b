//! What survives a crash of PID 1: it runs itself again, and its children stay its children.
//!
//! The state is written whenever it changes; the descriptors that it names stay open over the
//! execve. Logs start anew. A PID 1 that crashes [`RESUMES_MAX`] times lets the kernel panic and
//! the machine start again.

use crate::board::Section;
use node_api::init::{Fact, ProcessState};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Write},
    os::{fd::RawFd, unix::process::CommandExt},
    path::Path,
    process::Command,
    sync::Mutex,
};

/// Beyond this, starting again does not help.
const RESUMES_MAX: u32 = 10;
/// First argument of a PID 1 that takes over from itself; the second one counts.
pub(crate) const ARGUMENT: &str = "--resume";
const STATE: &str = "/run/zos/services.json";

/// Descriptors that the written state names.
static KEPT: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Everything that cannot be found out again.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// Milliseconds from boot to the start of PID 1.
    pub(crate) started_ms: u64,
    pub(crate) ready_after_ms: Option<u64>,
    pub(crate) previous_panic: Option<String>,
    pub(crate) services: Vec<SavedService>,
    pub(crate) workloads: Vec<SavedWorkload>,
    pub(crate) sections: Vec<SavedSection>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedService {
    pub(crate) name: String,
    pub(crate) pid: Option<i32>,
    pub(crate) is_ready: bool,
    pub(crate) has_served: bool,
    pub(crate) ready: Option<RawFd>,
    pub(crate) log: Option<RawFd>,
    pub(crate) starts: u32,
    pub(crate) last_exit: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedWorkload {
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) pidfd: Option<RawFd>,
    pub(crate) log: Option<RawFd>,
    pub(crate) state: ProcessState,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedSection {
    pub(crate) title: String,
    pub(crate) facts: Vec<Fact>,
}

impl From<&Section> for SavedSection {
    fn from(section: &Section) -> Self {
        Self { title: section.title.clone(), facts: section.facts.clone() }
    }
}

impl Saved {
    /// Writes the state, whole or not at all.
    pub(crate) fn store(&self) -> io::Result<()> {
        let services = self.services.iter().flat_map(|it| [it.ready, it.log]);
        let workloads = self.workloads.iter().flat_map(|it| [it.pidfd, it.log]);
        let fds = services.chain(workloads).flatten().collect();
        *KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = fds;
        let path = Path::new(STATE);
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(self)?)?;
        fs::rename(fresh, path)
    }

    /// Reads the state of the PID 1 that crashed.
    pub(crate) fn load() -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(STATE)?)?)
    }
}

/// Whether a PID 1 wrote its state since the machine was started. The kernel passes words of its
/// command line on to us; none of them makes a fresh boot skip its preparations.
pub(crate) fn is_possible() -> bool {
    Path::new(STATE).exists()
}

/// After a panic, says why in the kernel log and starts this program again, for the `count`th time.
pub(crate) fn on_panic(count: u32) {
    std::panic::set_hook(Box::new(move |panic| {
        if let Ok(mut kmsg) = fs::OpenOptions::new().write(true).open("/dev/kmsg") {
            // Without a kernel log there is nowhere else to say it.
            drop(kmsg.write_all(format!("<2>zos: init crashed: {panic}\n").as_bytes()));
        }
        if count >= RESUMES_MAX {
            return;
        }
        let kept = KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for fd in kept.iter() {
            // A descriptor that is gone is missed by nobody but its reader.
            drop(sys::process::keep_over_exec(*fd));
        }
        // It returns only when there is no program to run; then the kernel panics.
        drop(Command::new("/proc/self/exe").args([ARGUMENT, &(count + 1).to_string()]).exec());
    }));
}

//! The launcher: `/bin/launcher`, a child of init with one thread.
//!
//! Owns nothing for longer than one start or one health check. Serves one connection at a time, because a
//! process with one thread can be copied safely; a start takes milliseconds, and for a check a copy waits.

#![forbid(unsafe_code)]

mod serve;

use container::launch::Launcher;
use node_api::paths;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use std::{io, path::Path, process::ExitCode};

/// Where mounts are attached for an instant, and the skeleton of roots.
const DIRECTORY: &str = "/run/zos/launcher";

fn main() -> ExitCode {
    daemon::run("launcher", || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // A child is a copy of us until it executes; nobody may look into it.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io::Error::from)?;
        let launcher = Launcher::new(Path::new(DIRECTORY))?;
        let listener = daemon::listen(paths::LAUNCHER_SOCKET.as_ref())?;
        daemon::ready()?;
        Err(serve::serve(&listener, &launcher).into())
    })
}

//! The program itself.

use registry_api::Client;
use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// A registry as a program, on a free port. Ends with its owner.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) client: Client,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The program for a data directory, which is not among its words yet.
pub(crate) fn registryd(data: &Path) -> Command {
    super::database::program(env!("CARGO_BIN_EXE_registryd"), data)
}

pub(crate) fn start(data: &Path) -> Process {
    start_with(data, &[])
}

pub(crate) fn start_with(data: &Path, words: &[&OsStr]) -> Process {
    let mut child = registryd(data)
        .args(["--listen", "127.0.0.1:0", "--network", super::NETWORK, "--data"])
        .arg(data)
        .args(words)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let base = line.trim().strip_prefix("registryd: listening on ").expect(&line);
    Process { client: Client::new([base]).unwrap(), child }
}

//! Pulls, verifies and executes the contracts of this node, and says what became of them.
//!
//! Decides and asks: it owns no kernel object itself. `judge` holds contracts against the consensus
//! rule, `plan` decides the next steps, `node_calls` has the other daemons take them, `checks` and
//! `probe` find out whether containers work, `strain` what to say of those that have too little,
//! `rounds` and `scrub` whether their files are still right, `results` signs what happened. It serves nobody, so nobody can tell it anything but by a signed statement.

#![forbid(unsafe_code)]

mod agent;
mod carriers;
mod checks;
mod clock;
mod console;
mod contact;
mod database;
mod disks;
mod evidence;
mod fetches;
mod housekeeping;
mod jobs;
mod judge;
mod log;
mod merge;
mod network;
mod node_calls;
mod orders;
mod patience;
mod plan;
mod probe;
mod reconcile;
mod register;
mod results;
mod rounds;
mod scrub;
mod status;
mod storage;
mod strain;

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::run("contractd", agent::run)
}

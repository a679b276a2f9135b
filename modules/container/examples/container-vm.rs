//! Checks of the launcher on the real kernel, run as root inside a virtual machine.
//!
//! `container-vm LAUNCHER BTRFS_DEVICE`: makes a store with a small verified image on the device,
//! starts the real launcher, plays init for it, and runs containers. One line for each check,
//! `PASS` or `FAIL`; the exit code is the number of failures. As `container-vm probe …` it is the
//! program inside the containers, as `container-vm oci …` the program `container`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a check program talks to its caller")]

#[path = "container-vm/cases.rs"]
mod cases;
#[path = "container-vm/checks.rs"]
mod checks;
#[path = "container-vm/cves.rs"]
mod cves;
#[path = "container-vm/disks.rs"]
mod disks;
#[path = "container-vm/node.rs"]
mod node;
#[path = "container-vm/oci.rs"]
mod oci;
#[path = "container-vm/oci_devices.rs"]
mod oci_devices;
#[path = "container-vm/oci_exec.rs"]
mod oci_exec;
#[path = "container-vm/oci_holes.rs"]
mod oci_holes;
#[path = "container-vm/oci_hooks.rs"]
mod oci_hooks;
#[path = "container-vm/oci_musts.rs"]
mod oci_musts;
#[path = "container-vm/oci_seccomp.rs"]
mod oci_seccomp;
#[path = "container-vm/oci_terminal.rs"]
mod oci_terminal;
#[path = "container-vm/overlays.rs"]
mod overlays;
#[path = "container-vm/probe.rs"]
mod probe;
#[path = "container-vm/ways.rs"]
mod ways;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [_, "probe", what @ ..] => probe::run(what),
        [_, "oci", ..] => container::oci::command_line(std::env::args_os().skip(1)),
        [_, launcher, device] => {
            let mut node = node::Node::new(launcher, device);
            cases::run(&mut node);
            println!("{} passed, {} failed", node.passed, node.failed);
            ExitCode::from(u8::try_from(node.failed).unwrap_or(u8::MAX))
        }
        _ => {
            println!("container-vm LAUNCHER BTRFS_DEVICE");
            ExitCode::from(2)
        }
    }
}

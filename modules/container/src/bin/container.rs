//! `container`: the launcher behind the command line of the OCI runtime specification.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    container::oci::command_line(std::env::args_os())
}

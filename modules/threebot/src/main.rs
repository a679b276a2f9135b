//! `3bot`: the command line of customers, stakeholders and farmers. A shell over the library.

#![forbid(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main(std::env::args_os())
}

//! `bench NAME [--json] [--runs N]`: measures the node. `cargo xtask bench` builds what this needs.

#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, bail};
use qemu_tests::bench;
use std::{env, io::Write as _, process::ExitCode};

fn main() -> ExitCode {
    match run(env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let (mut name, mut as_json, mut n_runs) = (None, false, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => as_json = true,
            "--runs" => {
                let number = arguments.next().context("--runs needs a number")?;
                let number: usize =
                    number.parse().with_context(|| format!("--runs {number}: no number"))?;
                n_runs = Some(number);
            }
            other if name.is_none() && !other.starts_with('-') => name = Some(other.to_owned()),
            other => bail!("{other} is not understood: bench NAME [--json] [--runs N]"),
        }
    }
    let Some(name) = name else {
        bail!("which benchmark? There are {}", bench::NAMES.join(", "));
    };
    if n_runs == Some(0) {
        bail!("--runs 0 measures nothing");
    }
    let report = bench::run(&name, n_runs, &tell)?;
    let mut out = std::io::stdout();
    if as_json {
        writeln!(out, "{:#}", report.json())?;
    } else {
        write!(out, "{}", report.table())?;
    }
    Ok(())
}

fn tell(text: &str) {
    // Nobody listens any more: then there is nothing to tell.
    drop(writeln!(std::io::stderr(), "{text}"));
}

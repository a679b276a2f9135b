//! `kills [--power-cuts] [--rounds N] [--seed N] [--json]`: kills a registry and its witnesses again
//! and again, or cuts the power of a machine with all of them. `cargo xtask kills` builds what this
//! needs.

#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, bail};
use qemu_tests::{chance, kills};
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
    let (mut as_json, mut cuts, mut rounds, mut seed) = (false, false, None, None);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64> {
            let number = arguments.next().with_context(|| format!("{argument} needs a number"))?;
            number.parse().with_context(|| format!("{argument} {number}: no number"))
        };
        match argument.as_str() {
            "--json" => as_json = true,
            "--power-cuts" => cuts = true,
            "--rounds" => rounds = Some(u32::try_from(number()?)?),
            "--seed" => seed = Some(number()?),
            other => bail!(
                "{other} is not understood: kills [--power-cuts] [--rounds N] [--seed N] [--json]"
            ),
        }
    }
    let rounds = kills::rounds(rounds)?;
    let seed = seed.map_or_else(chance::any_seed, Ok)?;
    tell(&format!("--seed {seed} repeats the random moments of this run"));
    let report = if cuts {
        kills::by_power_cut(rounds, seed, &tell)?
    } else {
        kills::by_signal(rounds, seed, &tell)?
    };
    let mut out = std::io::stdout();
    if as_json {
        writeln!(out, "{:#}", report.json())?;
    } else {
        write!(out, "{}", report.text())?;
    }
    Ok(())
}

fn tell(text: &str) {
    // Nobody listens any more: then there is nothing to tell.
    drop(writeln!(std::io::stderr(), "{text}"));
}

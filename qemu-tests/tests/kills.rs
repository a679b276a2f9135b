//! A registry and its witnesses, killed while people send, and a machine with all of them whose power
//! is cut: `cargo xtask kills` does 200 times what this does in a few rounds.

#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

use qemu_tests::{chance, kills};
use std::io::Write as _;

/// Past the test's own capture, so that a run that passes tells its seed too.
fn tell(text: &str) {
    // Nobody listens any more: then there is nothing to tell.
    drop(writeln!(std::io::stderr(), "{text}"));
}

fn seed() -> anyhow::Result<u64> {
    let seed = chance::any_seed()?;
    tell(&format!("ZOS_SEED={seed} repeats the random moments of this run"));
    Ok(seed)
}

#[test]
fn what_was_acknowledged_survives_kills_and_nothing_that_was_signed_is_taken_back()
-> anyhow::Result<()> {
    let report = kills::by_signal(5, seed()?, &tell)?;
    tell(&report.text());
    Ok(())
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_and_what_nobody_synced_does_not() -> anyhow::Result<()>
{
    let report = kills::by_power_cut(1, seed()?, &tell)?;
    tell(&report.text());
    Ok(())
}

//! Waiting for a state, with a deadline and a reason when it does not come.

use anyhow::{Context as _, Result, bail};
use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a state is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Looks until `state` gives something. A failing look is not the end; it is told when time is up.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut state: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let seen = state();
        match seen {
            Ok(Some(value)) => return Ok(value),
            Ok(None) if Instant::now() >= deadline => {
                bail!("{what}: not within {} s", limit.as_secs())
            }
            Err(error) if Instant::now() >= deadline => {
                return Err(error)
                    .with_context(|| format!("{what}: not within {} s", limit.as_secs()));
            }
            Ok(None) | Err(_) => thread::park_timeout(LOOK),
        }
    }
}

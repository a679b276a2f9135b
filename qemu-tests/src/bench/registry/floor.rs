//! What the disk allows at most: how often something can be put on it for good.

use super::arithmetic::per_second;
use anyhow::{Context as _, Result};
use rusqlite::Connection;
use std::{
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

/// How long each is tried.
const TIME: Duration = Duration::from_secs(2);
/// Written each time: a page of a file system.
const BLOCK: [u8; 4096] = [7; 4096];
/// The row of a transaction: as large as a statement.
const ROW: [u8; 1024] = [7; 1024];

/// In one second, by one writer.
pub(super) struct Floor {
    /// Blocks that are appended to a file and synced, one after the other.
    pub(super) fsync: f64,
    /// `SQLite` transactions of one row each, as durable as the registry's.
    pub(super) sqlite: f64,
}

pub(super) fn measure(directory: &Path) -> Result<Floor> {
    let directory = tempfile::tempdir_in(directory)?;
    let mut file = fs::File::create(directory.path().join("blocks"))?;
    let fsync = often(|| {
        file.write_all(&BLOCK)?;
        Ok(file.sync_data()?)
    })
    .context("syncing blocks")?;
    let database = Connection::open(directory.path().join("rows"))?;
    database.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE rows (row BLOB NOT NULL) STRICT;",
    )?;
    let mut insert = database.prepare("INSERT INTO rows (row) VALUES (?1)")?;
    let sqlite = often(|| Ok(insert.execute([&ROW[..]]).map(drop)?)).context("writing rows")?;
    Ok(Floor { fsync, sqlite })
}

/// How often `work` is done in one second.
fn often(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < TIME {
        work()?;
        number += 1;
    }
    Ok(per_second(number, begun.elapsed()))
}

//! Checks everything that the log is made of against everything else, and changes nothing.

use super::{Head, begun, files::Files, head, key};
use crate::{db::Fault, sql::Connection, store};
use anyhow::Context as _;
use contract::StatementId;
use std::path::Path;
use tlog::{Edge, Hash, Record, Resource, Tile, tile, tree};

/// Reads the whole log: every entry is a statement of the database at its place, with a payload
/// that has its hash; every file is there and follows from the entries; and the root over them is
/// that of the state that was signed. `None` when no log has begun.
pub fn check(connection: &Connection, data: &Path) -> anyhow::Result<Option<Head>> {
    let head = head(connection).map_err(Fault::into_error)?;
    let Some(head) = begun(head, data)? else { return Ok(None) };
    key::load(data, &head)?;
    let files = Files::new(data);
    let mut edge = Edge::default();
    for bundle in tile::new_tiles(0, head.size).into_iter().filter_map(Tile::bundle) {
        let content = files.read(Resource::Bundle(bundle))?;
        let entries = bundle.read(&content).with_context(|| format!("reading {bundle}"))?;
        for entry in entries {
            let index = edge.size();
            check_entry(connection, index, entry).with_context(|| format!("entry {index}"))?;
            push(&mut edge, &files, tree::leaf(entry))?;
        }
    }
    for (tile, hashes) in edge.partial() {
        check_tile(&files, tile, hashes)?;
    }
    anyhow::ensure!(
        (edge.size(), edge.root()) == (head.size, head.root),
        "the entries have another root than the one that was signed"
    );
    Ok(Some(head))
}

fn push(edge: &mut Edge, files: &Files, leaf: Hash) -> anyhow::Result<()> {
    let mut outcome = Ok(());
    edge.push(leaf, |tile, hashes| {
        if outcome.is_ok() {
            outcome = check_tile(files, tile, hashes);
        }
    });
    outcome
}

fn check_tile(files: &Files, tile: Tile, hashes: &[Hash]) -> anyhow::Result<()> {
    let content = files.read(Resource::Tile(tile))?;
    anyhow::ensure!(content == tile::content(hashes), "{tile} does not follow from the entries");
    Ok(())
}

fn check_entry(connection: &Connection, index: u64, entry: &[u8]) -> anyhow::Result<()> {
    let record = Record::read(entry)?;
    let place = i64::try_from(index + 1).context("the log is too large")?;
    let sql = "SELECT record FROM records WHERE place = ?1";
    let known: Option<Vec<u8>> = connection.query_optional(sql, &[&place], |row| row.get(0))?;
    anyhow::ensure!(known.as_deref() == Some(entry), "the database has another record");
    let sql = "SELECT id, payload FROM statements WHERE place = ?1";
    let found: Option<([u8; 32], Vec<u8>)> =
        connection.query_optional(sql, &[&place], |row| Ok((store::hash(row, 0)?, row.get(1)?)))?;
    let (id, payload) = found.context("no statement of the database has this place")?;
    anyhow::ensure!(id == record.statement.0, "another statement has this place");
    anyhow::ensure!(
        StatementId::of(&payload) == record.statement,
        "the payload of the statement has been changed"
    );
    let envelope = store::envelope(connection, &record.statement).map_err(Fault::into_error)?;
    let now = Record::of(&envelope).context("reading the statement")?;
    anyhow::ensure!(
        (now.kind, now.subject, now.version) == (record.kind, record.subject, record.version),
        "the record says something else than the statement"
    );
    Ok(())
}

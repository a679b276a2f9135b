//! The transparency log, as any static web server would serve it (c2sp.org/tlog-tiles).

use super::{App, extract::Segments, unknown};
use crate::{
    db::Fault,
    refusal,
    transparency::{self, Log},
};
use anyhow::Context as _;
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use contract::StatementId;
use registry_api::problem::codes;
use std::io::ErrorKind;
use tlog::{Resource, Tile, tile::WIDTH_MAX};

const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";
/// A cache in between may answer for so long: there is always a newer one soon.
const SHORTLY: &str = "public, max-age=2";
/// What is there never changes.
const FOREVER: &str = "public, max-age=31536000, immutable";

fn log(app: &App) -> Result<&Log, Fault> {
    app.log.as_ref().ok_or_else(|| unknown("transparency log", &"of this registry"))
}

/// What witnesses still have to cosign.
fn early(what: &str) -> Fault {
    let text = format!("{what}, and too few witnesses have cosigned that yet");
    refusal(503, codes::UNAVAILABLE, text, "Ask again later; /healthz says which witness lags.")
}

/// The newest checkpoint that enough witnesses have cosigned.
#[utoipa::path(get, path = "/checkpoint", tag = "log",
    responses((status = 200, body = String, description = "a signed note: c2sp.org/tlog-checkpoint"),
              (status = 404, body = registry_api::Problem),
              (status = 503, body = registry_api::Problem, description = "none is cosigned yet")))]
pub(super) async fn checkpoint(State(app): State<App>) -> Result<Response, Fault> {
    let note = log(&app)?.checkpoint().ok_or_else(|| early("the log has begun"))?;
    let headers = [(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, SHORTLY)];
    Ok((headers, note).into_response())
}

/// A tile of hashes, or a bundle of entries.
#[utoipa::path(get, path = "/tile/{path}", tag = "log",
    params(("path" = String, Path, description = "`LEVEL/INDEX` or `entries/INDEX`: c2sp.org/tlog-tiles")),
    responses((status = 200, body = Vec<u8>, description = "hashes, or entries"),
              (status = 404, body = registry_api::Problem)))]
pub(super) async fn tile(
    State(app): State<App>,
    Segments(path): Segments<String>,
) -> Result<Response, Fault> {
    let log = log(&app)?;
    let missing = || unknown("tile", &path);
    let resource: Resource = format!("tile/{path}").parse().map_err(|_| missing())?;
    let (level, index, width) = match resource {
        Resource::Tile(tile) => (tile.level, tile.index, tile.width),
        Resource::Bundle(bundle) => (0, bundle.index, bundle.width),
    };
    // What no checkpoint covers yet is not published, although it may be on the disk.
    let covered = Tile::at(level, index, log.size());
    if covered.is_none_or(|tile| tile.width < width) {
        return Err(missing());
    }
    let bytes = match tokio::fs::read(log.files().path(resource)).await {
        Ok(bytes) => bytes,
        // Partial ones go when the full one is there, and are not made for sizes never signed.
        Err(error) if error.kind() == ErrorKind::NotFound && width < WIDTH_MAX => {
            return Err(missing());
        }
        Err(error) => return Err(anyhow::Error::new(error).context(format!("{resource}")).into()),
    };
    let headers = [
        (header::CONTENT_TYPE, BYTES),
        (header::CACHE_CONTROL, FOREVER),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, bytes).into_response())
}

/// The proof that a statement is in the log. It carries the entry, in base64.
#[utoipa::path(get, path = "/v1/statements/{id}/proof", tag = "log",
    params(("id" = String, Path, description = "64 hexadecimal digits")),
    responses((status = 200, body = String, description = "c2sp.org/tlog-proof"),
              (status = 404, body = registry_api::Problem),
              (status = 503, body = registry_api::Problem, description = "not cosigned yet")))]
pub(super) async fn proof(
    State(app): State<App>,
    Segments(id): Segments<StatementId>,
) -> Result<Response, Fault> {
    let log = log(&app)?.clone();
    let entry = app.db.read(move |db| transparency::entry(db, &id)).await?;
    let entry = entry.ok_or_else(|| unknown("statement that counts", &id))?;
    let proof = tokio::task::spawn_blocking(move || log.proof(entry))
        .await
        .context("making a proof")?
        .context("making a proof")?;
    let proof = proof.ok_or_else(|| early("the statement counts"))?;
    let headers = [(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, proof.to_string()).into_response())
}

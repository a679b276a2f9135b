//! What the registry takes.

use super::{
    App,
    extract::{Segments, bytes},
    json,
};
use crate::{admit, db::Fault, documents, quota, refusal, results};
use axum::{
    body::Body,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use contract::{ContractId, DocumentId, Envelope, Kind, strict, workload::DOCUMENT_BYTES_MAX};
use registry_api::{
    paths::{DOCUMENTS_BYTES_MAX, STATEMENT_BYTES_MAX},
    problem::codes,
    write::Accepted,
};
use std::sync::Arc;

fn envelope(bytes: &[u8]) -> Result<Envelope, Fault> {
    strict::read(bytes, STATEMENT_BYTES_MAX).map_err(|error| {
        let hint = "Send a DSSE envelope: payloadType, payload, signatures.";
        refusal(400, codes::MALFORMED, crate::chain(&error), hint)
    })
}

fn created(new: bool) -> StatusCode {
    if new { StatusCode::CREATED } else { StatusCode::OK }
}

/// Any statement.
#[utoipa::path(post, path = "/v1/statements", tag = "statements",
    request_body(content = Object, description = "a DSSE envelope"),
    responses((status = 201, body = Accepted, description = "learned"),
              (status = 200, body = Accepted, description = "known already"),
              (status = "4XX", body = registry_api::Problem)))]
pub(super) async fn statement(State(app): State<App>, body: Body) -> Result<Response, Fault> {
    let envelope = envelope(&bytes(body, STATEMENT_BYTES_MAX).await?)?;
    let now = (app.now)();
    let accepted = match envelope.kind() {
        Some(kind @ Kind::Result) => {
            let network = Arc::clone(&app.network);
            let work = move |db: &_| results::accept(db, &envelope, &network, now);
            match app.db.write(work).await? {
                (id, results::Taken::Stored(_), new) => Accepted { id, kind, new, complete: true },
                (_, results::Taken::Conflict(seq), _) => return Err(results::conflict(seq)),
            }
        }
        Some(kind @ Kind::Heartbeat) => {
            let id = envelope
                .id()
                .map_err(|error| refusal(400, codes::MALFORMED, crate::chain(&error), ""))?;
            let network = Arc::clone(&app.network);
            app.db.write(move |db| results::heartbeat(db, &envelope, &network, now)).await?;
            Accepted { id, kind, new: true, complete: true }
        }
        kind => {
            let envelope = if kind == Some(Kind::Contract) {
                // Counting may take long, and the thread that writes serves everybody.
                let (network, now) = (Arc::clone(&app.network), now);
                let count =
                    move |db: &_| quota::check(db, &envelope, &network, now).map(|()| envelope);
                app.db.read(count).await?
            } else {
                envelope
            };
            let network = Arc::clone(&app.network);
            app.db.write(move |db| admit::accept(db, &envelope, &network, now)).await?
        }
    };
    logged(&app).await?;
    Ok((created(accepted.new), json(&accepted)).into_response())
}

/// What the log does not have is not acknowledged, if there is a log.
async fn logged(app: &App) -> Result<(), Fault> {
    match &app.log {
        Some(log) => log.covers(&app.db).await,
        None => Ok(()),
    }
}

/// All documents of a version.
#[utoipa::path(put, path = "/v1/contracts/{id}/versions/{version}/documents", tag = "statements",
    params(("id" = String, Path, description = "64 hexadecimal digits"),
           ("version" = u64, Path, description = "counts from 1")),
    request_body(content = Vec<String>, description = "documents in base64, sorted by node id"),
    responses((status = 201, body = registry_api::write::DocumentsAnswer, description = "learned"),
              (status = 200, body = registry_api::write::DocumentsAnswer, description = "known"),
              (status = "4XX", body = registry_api::Problem)))]
pub(super) async fn documents(
    State(app): State<App>,
    Segments((contract, version)): Segments<(ContractId, u64)>,
    body: Body,
) -> Result<Response, Fault> {
    let body = bytes(body, DOCUMENTS_BYTES_MAX).await?;
    let list: Vec<String> = strict::read(&body, DOCUMENTS_BYTES_MAX).map_err(|error| {
        let hint = "Send a JSON list of documents in base64, sorted by node id.";
        refusal(400, codes::MALFORMED, crate::chain(&error), hint)
    })?;
    drop(body);
    // Hashing is not for the thread that writes.
    let checked = app.db.read(move |db| documents::check(db, &contract, version, &list)).await?;
    let answer = app.db.write(move |db| documents::insert(db, &checked)).await?;
    Ok((created(answer.new), json(&answer)).into_response())
}

/// One document.
#[utoipa::path(put, path = "/v1/documents/{id}", tag = "statements",
    params(("id" = String, Path, description = "SHA-256 of the bytes")),
    request_body(content = Vec<u8>, content_type = "application/json"),
    responses((status = 201, description = "learned"), (status = 200, description = "known"),
              (status = "4XX", body = registry_api::Problem)))]
pub(super) async fn document(
    State(app): State<App>,
    Segments(id): Segments<DocumentId>,
    body: Body,
) -> Result<StatusCode, Fault> {
    let bytes = bytes(body, DOCUMENT_BYTES_MAX).await?;
    app.db.write(move |db| documents::insert_one(db, &id, &bytes)).await.map(created)
}

/// A batch of results.
#[utoipa::path(post, path = "/v1/results", tag = "nodes",
    request_body(content = Vec<Object>, description = "DSSE envelopes"),
    responses((status = 200, body = registry_api::write::ResultsAnswer),
              (status = "4XX", body = registry_api::Problem)))]
pub(super) async fn results(State(app): State<App>, body: Body) -> Result<Response, Fault> {
    let body = bytes(body, registry_api::paths::RESULTS_BYTES_MAX).await?;
    let batch = results::read_batch(&body)?;
    let now = (app.now)();
    let network = Arc::clone(&app.network);
    let work = move |db: &_| results::accept_all(db, &batch, &network, now);
    let answer = app.db.write(work).await?;
    logged(&app).await?;
    Ok(json(&answer))
}

/// A sign of life.
#[utoipa::path(post, path = "/v1/heartbeats", tag = "nodes",
    request_body(content = Object, description = "a DSSE envelope"),
    responses((status = 200, body = registry_api::write::HeartbeatAnswer),
              (status = "4XX", body = registry_api::Problem)))]
pub(super) async fn heartbeat(State(app): State<App>, body: Body) -> Result<Response, Fault> {
    let envelope = envelope(&bytes(body, STATEMENT_BYTES_MAX).await?)?;
    let now = (app.now)();
    let work = move |db: &_| results::heartbeat(db, &envelope, &app.network, now);
    Ok(json(&app.db.write(work).await?))
}

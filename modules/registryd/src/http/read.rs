//! What counts: statements, documents, bundles and inboxes, as they were signed.

use super::{
    App,
    extract::{Fields, Segments},
    unknown,
};
use crate::{
    bundle::{self, NodeInbox, Tagged},
    changes,
    db::Fault,
    documents, store,
    transparency::Standing,
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use contract::{ContractId, DocumentId, NodeId, StatementId, bundle::BUNDLE_BYTES_MAX};
use serde::Deserialize;

/// What is named by its hash never changes.
const FOREVER: &str = "public, max-age=31536000, immutable";

/// The envelope of a statement. Signatures may still be added, so only the payload is for ever.
#[utoipa::path(get, path = "/v1/statements/{id}", tag = "statements",
    params(("id" = String, Path, description = "SHA-256 of the payload")),
    responses((status = 200, body = Object, description = "a DSSE envelope"),
              (status = 404, body = registry_api::Problem)))]
pub(super) async fn statement(
    State(app): State<App>,
    headers: HeaderMap,
    Segments(id): Segments<StatementId>,
) -> Result<Response, Fault> {
    let stored = app.db.read(move |db| store::statement(db, &id)).await?;
    let stored = stored.ok_or_else(|| unknown("statement", &id))?;
    let tagged = Tagged::json(&stored.envelope)?;
    let cache = if stored.complete { FOREVER } else { "no-cache" };
    Ok(answer(tagged, &headers, cache))
}

/// The exact bytes of a document.
#[utoipa::path(get, path = "/v1/documents/{id}", tag = "statements",
    params(("id" = String, Path, description = "SHA-256 of the bytes")),
    responses((status = 200, body = Object, description = "the exact bytes"),
              (status = 404, body = registry_api::Problem)))]
pub(super) async fn document(
    State(app): State<App>,
    Segments(id): Segments<DocumentId>,
) -> Result<Response, Fault> {
    let bytes = app.db.read(move |db| documents::get(db, &id)).await?;
    let bytes = bytes.ok_or_else(|| unknown("document", &id))?;
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, FOREVER)];
    Ok((headers, bytes).into_response())
}

/// For whom a bundle is.
#[derive(Debug, Deserialize)]
pub(super) struct ForWhom {
    node: Option<NodeId>,
}

/// A contract with its evidence, and the documents of one node.
#[utoipa::path(get, path = "/v1/contracts/{id}/bundle", tag = "nodes",
    params(("id" = String, Path, description = "64 hexadecimal digits"),
           ("node" = Option<String>, Query, description = "with the documents of this node")),
    responses((status = 200, body = Object, description = "all that is needed to judge"),
              (status = 304, description = "as before"),
              (status = 404, body = registry_api::Problem)))]
pub(super) async fn bundle(
    State(app): State<App>,
    headers: HeaderMap,
    Segments(id): Segments<ContractId>,
    Fields(whom): Fields<ForWhom>,
) -> Result<Response, Fault> {
    let asked = Asked::of(&headers);
    let work = move |db: &_| {
        // Most who ask have it already; then it is not made.
        if let Some(node) = &whom.node
            && let Some(etag) = changes::known_etag(db, &id, node)?
            && asked.has(&etag)
        {
            return Ok(Some(Tagged { body: Vec::new(), etag }));
        }
        bundle::bundle_bytes(db, &id, whom.node.as_ref())
    };
    let tagged = app.db.read(work).await?.ok_or_else(|| unknown("contract", &id))?;
    Ok(answer(tagged, &headers, "no-cache"))
}

/// What concerns a node.
#[utoipa::path(get, path = "/v1/nodes/{id}/inbox", tag = "nodes",
    params(("id" = String, Path, description = "64 hexadecimal digits")),
    responses((status = 200, body = registry_api::view::Inbox),
              (status = 304, description = "as before"),
              (status = 404, body = registry_api::Problem)))]
pub(super) async fn inbox(
    State(app): State<App>,
    headers: HeaderMap,
    Segments(id): Segments<NodeId>,
) -> Result<Response, Fault> {
    let found = app.db.read(move |db| bundle::inbox(db, &id)).await?;
    let NodeInbox { answer: tagged, computed } = found.ok_or_else(|| unknown("node", &id))?;
    for one in computed.iter().filter(|one| one.known.bytes > BUNDLE_BYTES_MAX) {
        let (contract, bytes) = (one.contract, one.known.bytes);
        crate::log(&format!(
            "contract {contract} is left out of the inbox of node {id}: its bundle has {bytes} \
             bytes, more than a reader takes"
        ));
    }
    if !computed.is_empty() {
        app.db.write(move |db| changes::remember(db, &id, &computed)).await?;
    }
    Ok(answer(tagged, &headers, "no-cache"))
}

/// `ok` when the database answers; below it, how far the log and each of its witnesses are.
#[utoipa::path(get, path = "/healthz", tag = "operation",
    responses((status = 200, body = String)))]
pub(super) async fn healthz(State(app): State<App>) -> Result<String, Fault> {
    app.db.read(|db| store::count(db, "SELECT COUNT(*) FROM migrations", &[])).await?;
    let mut text = "ok\n".to_owned();
    if let Some(log) = &app.log {
        let (origin, signed, shown) = (log.origin(), log.size_signed(), log.size());
        text += &format!("log {origin}: {signed} entries, {shown} of them shown\n");
        for witness in log.standings() {
            text += &health(&witness, signed);
        }
    }
    Ok(text)
}

fn health(witness: &Standing, signed: u64) -> String {
    let Standing { name, size, at, problem } = witness;
    let at = at.map_or("not since the registry started".to_owned(), |at| {
        format!("{} seconds ago", at.elapsed().as_secs())
    });
    let lag = signed.saturating_sub(*size);
    let problem = problem.as_ref().map(|problem| format!("; {problem}")).unwrap_or_default();
    format!("witness {name}: {lag} entries behind, cosigned last {at}{problem}\n")
}

/// The entity tags that a caller has.
struct Asked(Vec<String>);

impl Asked {
    fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::IF_NONE_MATCH).into_iter();
        let texts = values.map(|value| value.to_str().unwrap_or_default());
        let tags = texts.flat_map(|text| text.split(',').map(str::trim));
        Self(tags.map(|tag| tag.trim_start_matches("W/").to_owned()).collect())
    }

    fn has(&self, etag: &str) -> bool {
        self.0.iter().any(|tag| tag == "*" || tag == etag)
    }
}

/// The body, or 304 when the caller has it already.
fn answer(tagged: Tagged, headers: &HeaderMap, cache: &'static str) -> Response {
    let same = Asked::of(headers).has(&tagged.etag);
    let headers = [
        (header::ETAG, tagged.etag),
        (header::CACHE_CONTROL, cache.into()),
        (header::CONTENT_TYPE, "application/json".into()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
    ];
    if same {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, tagged.body).into_response()
    }
}

//! Flists, packs and releases, as any static web server would serve them: whole, by `HEAD`, or in ranges.

use super::{
    App,
    extract::{Segments, bytes},
    unknown,
};
use crate::{content::Family, db::Fault, peers::Peer};
use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use contract::{FlistId, PublicKey, release::RECORD_BYTES_MAX};
use std::path::Path;
use tower::ServiceExt as _;
use tower_http::services::ServeFile;

/// What is named by its hash never changes.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// A published file; ranges are served.
#[utoipa::path(get, path = "/content/{family}/{id}", tag = "content",
    params(("family" = String, Path, description = "`flists` or `packs`"),
           ("id" = String, Path, description = "SHA-256 of an flist, BLAKE3 of a pack")),
    responses((status = 200, description = "the file"), (status = 206, description = "a range"),
              (status = 404, body = registry_api::Problem)))]
pub(super) async fn get(
    State(app): State<App>,
    Segments((folder, id)): Segments<(String, FlistId)>,
    request: Request,
) -> Result<Response, Fault> {
    let family = Family::from_folder(&folder).ok_or_else(|| unknown("folder", &folder))?;
    let path = app.content.path(family, &id);
    let mut response = serve(&path, &format!("{folder}/{id}"), request).await?;
    response.headers_mut().insert(header::CACHE_CONTROL, FOREVER);
    Ok(response)
}

async fn serve(path: &Path, name: &str, request: Request) -> Result<Response, Fault> {
    let response = match ServeFile::new(path).oneshot(request).await {
        Ok(response) => response.map(Body::new).into_response(),
        Err(impossible) => match impossible {},
    };
    match response.status() {
        StatusCode::NOT_FOUND => Err(unknown("file", &name)),
        StatusCode::INTERNAL_SERVER_ERROR => Err(anyhow::anyhow!("reading content/{name}").into()),
        _ => Ok(response),
    }
}

/// What a publisher has signed of an flist.
#[utoipa::path(get, path = "/content/releases/{id}/{publisher}", tag = "content",
    params(("id" = String, Path, description = "SHA-256 of an flist"),
           ("publisher" = String, Path, description = "Ed25519 key of who publishes it")),
    responses((status = 200, description = "a DSSE envelope"),
              (status = 404, body = registry_api::Problem)))]
pub(super) async fn get_release(
    State(app): State<App>,
    Segments((id, publisher)): Segments<(FlistId, PublicKey)>,
    request: Request,
) -> Result<Response, Fault> {
    let path = app.content.release_path(&id, &publisher);
    let mut response = serve(&path, &format!("releases/{id}/{publisher}"), request).await?;
    // Another may take its place.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// Publishes what a publisher has signed, unless something that says more is there.
#[utoipa::path(put, path = "/content/releases/{id}/{publisher}", tag = "content",
    params(("id" = String, Path, description = "SHA-256 of an flist"),
           ("publisher" = String, Path, description = "Ed25519 key of who publishes it")),
    request_body(content = Object, description = "a DSSE envelope"),
    responses((status = 201, description = "published"), (status = 200, description = "known"),
              (status = "4XX", body = registry_api::Problem)))]
pub(super) async fn put_release(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Segments((id, publisher)): Segments<(FlistId, PublicKey)>,
    body: Body,
) -> Result<StatusCode, Fault> {
    let _turn = app.content.turn(peer)?;
    let record = bytes(body, RECORD_BYTES_MAX).await?.to_vec();
    let new = app.content.put_release(&id, &publisher, record).await?;
    Ok(if new { StatusCode::CREATED } else { StatusCode::OK })
}

/// Publishes a file, once for ever.
#[utoipa::path(put, path = "/content/{family}/{id}", tag = "content",
    params(("family" = String, Path, description = "`flists` or `packs`"),
           ("id" = String, Path, description = "SHA-256 of an flist, BLAKE3 of a pack")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "published"), (status = 200, description = "known"),
              (status = "4XX", body = registry_api::Problem)))]
pub(super) async fn put(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Segments((folder, id)): Segments<(String, FlistId)>,
    body: Body,
) -> Result<Response, Fault> {
    let family = Family::from_folder(&folder).ok_or_else(|| unknown("folder", &folder))?;
    Ok(if app.content.put(peer, family, &id, body).await? {
        StatusCode::CREATED.into_response()
    } else {
        // Perhaps not all of the body has been read.
        (StatusCode::OK, [(header::CONNECTION, "close")]).into_response()
    })
}

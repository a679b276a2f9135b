//! Flists and packs, as any static web server would serve them: whole, by `HEAD`, or in ranges.

use super::{App, extract::Segments, unknown};
use crate::{content::Family, db::Fault, peers::Peer};
use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use contract::FlistId;
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
    let served = ServeFile::new(path).oneshot(request).await;
    let mut response = match served {
        Ok(response) => response.map(Body::new).into_response(),
        Err(impossible) => match impossible {},
    };
    match response.status() {
        StatusCode::NOT_FOUND => return Err(unknown("file", &format!("{folder}/{id}"))),
        StatusCode::INTERNAL_SERVER_ERROR => {
            return Err(anyhow::anyhow!("reading content/{folder}/{id}").into());
        }
        _ => {}
    }
    response.headers_mut().insert(header::CACHE_CONTROL, FOREVER);
    Ok(response)
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

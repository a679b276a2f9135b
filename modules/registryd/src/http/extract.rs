//! What a request brings, read with bounds; what cannot be read becomes a problem.

use crate::{db::Fault, refusal};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};
use registry_api::problem::codes;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// A body must have come by then: a connection that sends slowly takes the place of another.
const TIMEOUT_BODY: Duration = Duration::from_secs(20);
/// A body larger than [`SMALL_MAX`] may take longer.
const TIMEOUT_BODY_LARGE: Duration = Duration::from_mins(2);
/// Statements, batches of results, single documents.
const SMALL_MAX: usize = 4 << 20;

/// Parts of the path.
pub(super) struct Segments<T>(pub T);

/// The query.
pub(super) struct Fields<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Fault;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(found)) => Ok(Self(found)),
            Err(error) => Err(refusal(400, codes::BAD_REQUEST, error.body_text(), "")),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Fields<T> {
    type Rejection = Fault;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(found)) => Ok(Self(found)),
            Err(error) => Err(refusal(400, codes::BAD_REQUEST, error.body_text(), "")),
        }
    }
}

/// The whole body, of at most so many bytes.
pub(super) async fn bytes(body: Body, bytes_max: usize) -> Result<Bytes, Fault> {
    use hyper::body::Body as _;
    let too_large = || {
        let text = format!("the body has more than {bytes_max} bytes");
        refusal(413, codes::TOO_LARGE, text, "")
    };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let patience = if bytes_max > SMALL_MAX { TIMEOUT_BODY_LARGE } else { TIMEOUT_BODY };
    let deadline = Instant::now() + patience;
    let mut collected = Vec::new();
    let mut body = std::pin::pin!(body);
    loop {
        let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context));
        match timeout_at(deadline, frame).await {
            Err(_) => return Err(refusal(408, codes::TIMEOUT, "the body came too slowly", "")),
            Ok(None) => return Ok(collected.into()),
            Ok(Some(Err(error))) => {
                let text = format!("the body broke off: {error}");
                return Err(refusal(400, codes::BAD_REQUEST, text, ""));
            }
            Ok(Some(Ok(frame))) => {
                let Ok(chunk) = frame.into_data() else { continue };
                if collected.len() + chunk.len() > bytes_max {
                    return Err(too_large());
                }
                collected.extend_from_slice(&chunk);
            }
        }
    }
}

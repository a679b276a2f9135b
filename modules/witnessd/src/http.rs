//! The two paths of a witness (c2sp.org/tlog-witness): `POST /add-checkpoint`, and
//! `GET /HASH/checkpoint` with the hash of a log's origin.

use crate::witness::{Fault, Witness};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use std::{error::Error, sync::Arc, time::Duration};
use tlog::witness::REQUEST_BYTES_MAX;
use tokio::time::timeout;

/// A request must have come in whole by then.
const TIMEOUT_BODY: Duration = Duration::from_secs(20);
const TEXT: &str = "text/plain; charset=utf-8";
/// What a log says to its witness, so that it knows from where to prove.
const SIZE: &str = "text/x.tlog.size";

/// Every path.
pub fn router(witness: Arc<Witness>) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add))
        .route("/{hash}/checkpoint", get(newest))
        .fallback(|| async { say(StatusCode::NOT_FOUND, "there is nothing here\n".into()) })
        .with_state(witness)
}

async fn add(State(witness): State<Arc<Witness>>, body: Body) -> Response {
    let body = match timeout(TIMEOUT_BODY, to_bytes(body, REQUEST_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let text = format!("a request has at most {REQUEST_BYTES_MAX} bytes\n");
            return say(StatusCode::PAYLOAD_TOO_LARGE, text);
        }
        Err(_) => return say(StatusCode::REQUEST_TIMEOUT, "the request took too long\n".into()),
    };
    // Waits for the disk.
    let answer = tokio::task::spawn_blocking(move || witness.add(&body)).await;
    match answer {
        Ok(Ok(line)) => say(StatusCode::OK, line),
        Ok(Err(fault)) => refuse(&fault),
        Err(error) => {
            crate::log(&format!("answering a request: {error}"));
            say(StatusCode::INTERNAL_SERVER_ERROR, "the witness has a fault of its own\n".into())
        }
    }
}

async fn newest(State(witness): State<Arc<Witness>>, Path(hash): Path<String>) -> Response {
    match witness.newest(&hash) {
        Some(note) => {
            let headers = [(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, "max-age=5")];
            (headers, note).into_response()
        }
        None => say(StatusCode::NOT_FOUND, "no checkpoint of such a log was cosigned\n".into()),
    }
}

fn refuse(fault: &Fault) -> Response {
    let status = match fault {
        Fault::Malformed(_) => 400,
        Fault::Unknown { .. } => 404,
        Fault::Refused(refusal) => refusal.status(),
        Fault::Broken(error) => {
            crate::log(&format!("{fault}: {error:#}"));
            return say(StatusCode::INTERNAL_SERVER_ERROR, format!("{fault}\n"));
        }
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let size = match fault {
        Fault::Refused(refusal) => refusal.size_line(),
        Fault::Malformed(_) | Fault::Unknown { .. } | Fault::Broken(_) => None,
    };
    match size {
        Some(line) => (status, [(header::CONTENT_TYPE, SIZE)], line).into_response(),
        None => say(status, format!("{}\n", chain(fault))),
    }
}

fn say(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, TEXT)], text).into_response()
}

/// An error and its causes on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

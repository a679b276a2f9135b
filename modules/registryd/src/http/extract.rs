//! What a request brings, read with bounds; what cannot be read becomes a problem.

use crate::{db::Fault, pace::Paced, refusal};
use axum::{
    body::Body,
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};
use registry_api::problem::codes;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};

/// A body must have come by then: a connection that sends slowly takes the place of another.
const TIMEOUT_BODY: Duration = Duration::from_secs(20);
/// A body larger than [`SMALL_MAX`] may take longer.
const TIMEOUT_BODY_LARGE: Duration = Duration::from_mins(2);
/// All bodies that are in memory at a time count in units of so many bytes,
const UNIT: usize = 64 << 10;
/// and this is the room for them: 512 MiB.
static ROOM: Semaphore = Semaphore::const_new((512 << 20) / UNIT);
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

/// A whole body. Counts against the room for all of them as long as it is there.
#[derive(Debug)]
pub(super) struct Collected {
    bytes: Vec<u8>,
    held: Option<SemaphorePermit<'static>>,
}

impl std::ops::Deref for Collected {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Collected {
    /// Adds what came. Fails when there is no room, now.
    fn add(&mut self, chunk: &[u8], room: &'static Semaphore) -> Result<(), TryAcquireError> {
        let wanted = (self.bytes.len() + chunk.len()).div_ceil(UNIT);
        let has = self.held.as_ref().map_or(0, SemaphorePermit::num_permits);
        if wanted > has {
            let more = u32::try_from(wanted - has).unwrap_or(u32::MAX);
            let more = room.try_acquire_many(more)?;
            match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            }
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

/// The whole body, of at most so many bytes.
pub(super) async fn bytes(body: Body, bytes_max: usize) -> Result<Collected, Fault> {
    collect(body, bytes_max, &ROOM).await
}

async fn collect(
    body: Body,
    bytes_max: usize,
    room: &'static Semaphore,
) -> Result<Collected, Fault> {
    use hyper::body::Body as _;
    let too_large = || {
        let text = format!("the body has more than {bytes_max} bytes");
        refusal(413, codes::TOO_LARGE, text, "")
    };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let patience = if bytes_max > SMALL_MAX { TIMEOUT_BODY_LARGE } else { TIMEOUT_BODY };
    let mut collected = Collected { bytes: Vec::new(), held: None };
    let mut body = Paced::new(body, patience);
    while let Some(chunk) = body.next().await? {
        if collected.bytes.len() + chunk.len() > bytes_max {
            return Err(too_large());
        }
        collected.add(&chunk, room).map_err(|_| {
            let text = "too many bodies come at the same time";
            refusal(503, codes::UNAVAILABLE, text, "Try again.")
        })?;
    }
    Ok(collected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_share_one_room_and_give_it_back() {
        static SMALL_ROOM: Semaphore = Semaphore::const_new(3);
        let body = |units: usize| Body::from(vec![b'x'; units * UNIT]);
        let status = |fault: Fault| match fault {
            Fault::Refused(problem) => problem.status,
            Fault::Broken(error) => panic!("{error}"),
        };
        let first = collect(body(2), 10 * UNIT, &SMALL_ROOM).await.unwrap();
        assert_eq!(first.len(), 2 * UNIT);
        let second = collect(body(2), 10 * UNIT, &SMALL_ROOM).await;
        assert_eq!(second.map(|_| ()).map_err(status), Err(503));
        let small = collect(Body::from("x"), 10 * UNIT, &SMALL_ROOM).await.unwrap();
        drop((first, small));
        assert_eq!(collect(body(3), 10 * UNIT, &SMALL_ROOM).await.unwrap().len(), 3 * UNIT);
        assert_eq!(SMALL_ROOM.available_permits(), 3);
    }
}

//! How fast a body must come. A sender of a byte now and then would otherwise hold a connection, and
//! whatever waits for the body, for as long as it likes.

use crate::{db::Fault, refusal};
use axum::body::{Body, Bytes};
use registry_api::problem::codes;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// So long, the pace does not count: the first bytes may be on their way over a bad line.
const GRACE: Duration = Duration::from_secs(20);
/// From then on, this much must have come for each second since.
const BYTES_PER_SECOND_MIN: u64 = 16 << 10;

/// A body that is given up when it comes too slowly.
#[derive(Debug)]
pub struct Paced {
    body: Body,
    began: Instant,
    time_max: Duration,
    bytes: u64,
}

/// When the next piece must be there, counted from the beginning, after so many bytes.
fn time_for(bytes: u64, time_max: Duration) -> Duration {
    (GRACE + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN)).min(time_max)
}

impl Paced {
    /// A body that begins now and must be whole after `time_max`.
    pub fn new(body: Body, time_max: Duration) -> Self {
        Self { body, began: Instant::now(), time_max, bytes: 0 }
    }

    /// How many bytes have come.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next piece; nothing at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        use hyper::body::Body as _;
        let deadline = self.began + time_for(self.bytes, self.time_max);
        let mut body = std::pin::Pin::new(&mut self.body);
        let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context));
        match timeout_at(deadline, frame).await {
            Err(_) => {
                let text = format!("the body came too slowly: {} bytes so far", self.bytes);
                Err(refusal(408, codes::TIMEOUT, text, "Try again."))
            }
            Ok(None) => Ok(None),
            Ok(Some(Ok(frame))) => {
                let piece = frame.into_data().unwrap_or_default();
                self.bytes += piece.len() as u64;
                Ok(Some(piece))
            }
            Ok(Some(Err(error))) => {
                Err(refusal(400, codes::BAD_REQUEST, format!("the body broke off: {error}"), ""))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_time_is_earned_by_bytes_and_ends_all_the_same() {
        let (minute, hour) = (Duration::from_mins(1), Duration::from_hours(1));
        for (bytes, time_max, seconds) in [
            (0, hour, 20),
            (5, hour, 20),
            (16 << 10, hour, 21),
            (1 << 20, hour, 84),
            (1 << 20, minute, 60),
            (u64::MAX, hour, 3600),
            (0, Duration::from_secs(5), 5),
        ] {
            assert_eq!(time_for(bytes, time_max), Duration::from_secs(seconds), "{bytes}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_there_is_read_to_its_end() {
        let mut body = Paced::new(Body::from("abc"), Duration::from_mins(1));
        let piece = body.next().await;
        assert!(matches!(piece, Ok(Some(piece)) if *piece == *b"abc"));
        assert!(matches!(body.next().await, Ok(None)));
        assert_eq!(body.bytes(), 3);
    }
}

//! Reads files from web servers. Any static server will do; ranges make it fast.

use crate::{
    pace::Paced,
    progress::Cancel,
    source::{GetError, SourceError, Wanted, take},
};
use reqwest::{
    StatusCode,
    blocking::{Client, ClientBuilder, Response},
    header, redirect,
};
use std::{
    io,
    time::{Duration, Instant},
};

/// A server that has not accepted a connection by then is taken for dead.
const TIMEOUT_CONNECT: Duration = Duration::from_secs(10);
/// For the first byte of an answer, and between any two pieces of it. How fast the whole must be,
/// `pace` says.
const TIMEOUT_PIECE: Duration = Duration::from_secs(20);
/// A mirror may redirect within its host.
const REDIRECTS_MAX: usize = 4;

/// An HTTP client. It must be made and dropped outside of async code.
#[derive(Debug)]
pub(crate) struct Web {
    client: Client,
}

impl Web {
    pub(crate) fn new() -> Result<Self, SourceError> {
        let client = builder()
            .connect_timeout(TIMEOUT_CONNECT)
            .timeout(TIMEOUT_PIECE)
            .redirect(redirect::Policy::custom(follow))
            .user_agent("zero-os")
            .build()
            .map_err(|error| SourceError::Client(error.into()))?;
        Ok(Self { client })
    }

    pub(crate) fn get(
        &self,
        url: &str,
        wanted: Wanted,
        cancel: &Cancel,
    ) -> Result<Vec<u8>, GetError> {
        let mut request = self.client.get(url);
        if let Wanted::Range { offset, length } = wanted {
            let last = offset + length - 1;
            request = request.header(header::RANGE, format!("bytes={offset}-{last}"));
        }
        let begun = Instant::now();
        let answer = request.send().map_err(|error| GetError::Unreachable(error.into()))?;
        let skipped = unwanted_bytes(&answer, wanted)?;
        let mut bytes = Paced::new(answer, || begun.elapsed(), cancel);
        skip(&mut bytes, skipped)?;
        take(&mut bytes, wanted)
    }
}

/// Only to the host that the URL names, which those who signed it have read: otherwise a server could
/// have the node ask any address of the network that it stands in, and read what came of it.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let asked = attempt.previous().first().and_then(|url| url.host_str());
    if attempt.previous().len() > REDIRECTS_MAX {
        attempt.error("too many redirects")
    } else if asked.is_some() && asked == attempt.url().host_str() {
        attempt.follow()
    } else {
        attempt.error("a redirect to another host is not followed")
    }
}

#[cfg(not(feature = "https"))]
fn builder() -> ClientBuilder {
    Client::builder()
}

/// TLS with ring and the root certificates that are built in: a node has no files to read them
/// from. Nothing rests on it, as content proves itself; it hides what is fetched.
#[cfg(feature = "https")]
fn builder() -> ClientBuilder {
    // An error only says that the process has a provider already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = rustls::crypto::ring::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("ring speaks the versions that rustls thinks safe")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder().tls_backend_preconfigured(tls)
}

/// How many bytes come before the wanted ones: a server may send the whole file.
fn unwanted_bytes(answer: &Response, wanted: Wanted) -> Result<u64, GetError> {
    match (answer.status(), wanted) {
        (StatusCode::OK, Wanted::AtMost(_)) => Ok(0),
        (StatusCode::PARTIAL_CONTENT, Wanted::Range { offset, .. }) => {
            let range = answer.headers().get(header::CONTENT_RANGE);
            let expected = format!("bytes {offset}-");
            match range.map(|range| range.as_bytes().starts_with(expected.as_bytes())) {
                Some(true) => Ok(0),
                Some(false) | None => Err(unreachable_because("the server sent another range")),
            }
        }
        (StatusCode::OK, Wanted::Range { offset, .. }) => Ok(offset),
        (StatusCode::NOT_FOUND | StatusCode::GONE, _) => Err(GetError::Missing),
        (StatusCode::RANGE_NOT_SATISFIABLE, _) => Err(GetError::Truncated),
        (status, _) => Err(unreachable_because(&format!("the server answered {status}"))),
    }
}

fn skip(reader: &mut dyn io::Read, bytes: u64) -> Result<(), GetError> {
    let skipped = io::copy(&mut io::Read::take(reader, bytes), &mut io::sink())?;
    if skipped < bytes { Err(GetError::Truncated) } else { Ok(()) }
}

fn unreachable_because(reason: &str) -> GetError {
    GetError::Unreachable(io::Error::other(reason.to_owned()).into())
}

//! Reads files from web servers. Any static server will do; ranges make it fast.

use crate::source::{GetError, SourceError, Wanted, take};
use reqwest::{
    StatusCode,
    blocking::{Client, ClientBuilder, Response},
    header, redirect,
};
use std::{io, time::Duration};

/// A server that has not accepted a connection by then is taken for dead.
const TIMEOUT_CONNECT: Duration = Duration::from_secs(10);
/// For one range of a few MiB: slower than 35 kB/s is taken for dead.
const TIMEOUT_ANSWER: Duration = Duration::from_mins(2);
/// A mirror may redirect to a store behind it.
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
            .timeout(TIMEOUT_ANSWER)
            .redirect(redirect::Policy::limited(REDIRECTS_MAX))
            .user_agent("zero-os")
            .build()
            .map_err(|error| SourceError::Client(error.into()))?;
        Ok(Self { client })
    }

    pub(crate) fn get(&self, url: &str, wanted: Wanted) -> Result<Vec<u8>, GetError> {
        let mut request = self.client.get(url);
        if let Wanted::Range { offset, length } = wanted {
            let last = offset + length - 1;
            request = request.header(header::RANGE, format!("bytes={offset}-{last}"));
        }
        let answer = request.send().map_err(|error| GetError::Unreachable(error.into()))?;
        let mut answer = at_first_byte(answer, wanted)?;
        take(&mut answer, wanted)
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

/// Skips to the wanted range when the server sends the whole file.
fn at_first_byte(mut answer: Response, wanted: Wanted) -> Result<Response, GetError> {
    match (answer.status(), wanted) {
        (StatusCode::OK, Wanted::AtMost(_)) => Ok(answer),
        (StatusCode::PARTIAL_CONTENT, Wanted::Range { offset, .. }) => {
            let range = answer.headers().get(header::CONTENT_RANGE);
            let expected = format!("bytes {offset}-");
            match range.map(|range| range.as_bytes().starts_with(expected.as_bytes())) {
                Some(true) => Ok(answer),
                Some(false) | None => Err(unreachable_because("the server sent another range")),
            }
        }
        (StatusCode::OK, Wanted::Range { offset, .. }) => {
            let skipped = io::copy(&mut io::Read::take(&mut answer, offset), &mut io::sink())?;
            if skipped < offset { Err(GetError::Truncated) } else { Ok(answer) }
        }
        (StatusCode::NOT_FOUND | StatusCode::GONE, _) => Err(GetError::Missing),
        (StatusCode::RANGE_NOT_SATISFIABLE, _) => Err(GetError::Truncated),
        (status, _) => Err(unreachable_because(&format!("the server answered {status}"))),
    }
}

fn unreachable_because(reason: &str) -> GetError {
    GetError::Unreachable(io::Error::other(reason.to_owned()).into())
}

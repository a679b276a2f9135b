//! The calling side: one request, one answer, within a time limit.

use crate::{
    Failure, Incoming, Method, ProtocolError, Received,
    wire::{decode_answer, encode_call, send},
};
use std::{
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use thiserror::Error;

/// A daemon that has not answered by then is taken for stuck.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A call that brought no answer, or a refusal.
#[derive(Debug, Error)]
pub enum CallError {
    /// Nobody listens there.
    #[error("connecting to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke or the time was over. The call may have been done or not.
    #[error("calling {method}")]
    Broken {
        /// Name of the method.
        method: &'static str,
        /// Why; `TimedOut` when the time was over.
        #[source]
        source: io::Error,
    },
    /// The daemon's answer is not what the method promises, or the request is too long.
    #[error("calling {method}")]
    Protocol {
        /// Name of the method.
        method: &'static str,
        /// Why.
        #[source]
        source: ProtocolError,
    },
    /// The daemon answered that it could not.
    #[error("{method}: {}: {}", failure.name, failure.message)]
    Refused {
        /// Name of the method.
        method: &'static str,
        /// What the daemon said.
        failure: Failure,
    },
}

impl CallError {
    /// Whether the daemon refused with this name, for example `NotFound`.
    pub fn is_refusal(&self, name: &str) -> bool {
        matches!(self, Self::Refused { failure, .. } if failure.name == name)
    }
}

/// A connection to one daemon. After an error other than [`CallError::Refused`], make a new one.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    incoming: Incoming,
    timeout: Duration,
}

/// Connects, calls once, and closes: the usual way, since it survives the daemon's restarts.
pub fn call<M: Method>(path: impl AsRef<Path>, parameters: &M) -> Result<M::Reply, CallError> {
    Client::connect(path)?.call(parameters)
}

impl Client {
    /// Connects to the daemon that listens at `path`.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, CallError> {
        let path = path.as_ref();
        let stream = UnixStream::connect(path)
            .map_err(|source| CallError::Connect { path: path.to_owned(), source })?;
        Ok(Self::from_stream(stream))
    }

    /// Uses a socket that is connected already.
    pub fn from_stream(stream: UnixStream) -> Self {
        Self { stream, incoming: Incoming::default(), timeout: TIMEOUT }
    }

    /// Gives every call this long instead of [`TIMEOUT`].
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Calls and waits for the answer.
    pub fn call<M: Method>(&mut self, parameters: &M) -> Result<M::Reply, CallError> {
        self.call_with_fds(parameters, &[]).map(|(reply, _fds)| reply)
    }

    /// Like [`Client::call`], with descriptors in both directions.
    pub fn call_with_fds<M: Method>(
        &mut self,
        parameters: &M,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(M::Reply, Vec<OwnedFd>), CallError> {
        let protocol = |source| CallError::Protocol { method: M::NAME, source };
        let broken = |source| CallError::Broken { method: M::NAME, source };
        let request = encode_call(parameters).map_err(protocol)?;
        let deadline = Instant::now() + self.timeout;
        self.send_all(&request, fds, deadline).map_err(broken)?;
        let message = loop {
            if let Some(message) = self.incoming.parse().map_err(protocol)? {
                break message;
            }
            match self.receive(deadline).map_err(broken)? {
                Received::Bytes => {}
                Received::End => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
            }
        };
        match decode_answer(&message.bytes).map_err(protocol)? {
            Ok(reply) => Ok((reply, message.fds)),
            Err(failure) => Err(CallError::Refused { method: M::NAME, failure }),
        }
    }

    fn send_all(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], deadline: Instant) -> io::Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            self.stream.set_write_timeout(Some(left(deadline)?))?;
            let fds = if sent == 0 { fds } else { &[] };
            sent += again_if_interrupted(|| send(&self.stream, &bytes[sent..], fds))?;
        }
        Ok(())
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<Received> {
        self.stream.set_read_timeout(Some(left(deadline)?))?;
        again_if_interrupted(|| self.incoming.receive(&self.stream))
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Socket time limits end with `WouldBlock`, which the caller knows as `TimedOut`.
fn again_if_interrupted<T>(mut body: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match body() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            done => return done,
        }
    }
}

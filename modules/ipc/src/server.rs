//! The serving side: a thread for each connection, a bounded number of them.
//!
//! PID 1 does not use [`serve`]: it has [`Incoming`] in its own poll loop.

use crate::{Call, Failure, Incoming, Outcome, Received, encode_outcome, wire::send};
use rustix::net::sockopt::socket_peercred;
use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Each connection costs a thread; the callers on a node are few.
pub const CONNECTIONS_MAX: usize = 32;
/// A peer that does not read its answer for this long is dropped.
const TIMEOUT_WRITE: Duration = Duration::from_secs(10);

/// Listens at `path`, mode 0600, and makes its directory (0700). A socket that a former process
/// left there is replaced in one step, so that a caller never finds none.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Whether the process at the other end runs under our own user id, which is root on a node.
pub fn peer_is_ours(stream: impl AsFd) -> io::Result<bool> {
    let peer = socket_peercred(stream)?;
    Ok(peer.uid.as_raw() == nix::unistd::geteuid().as_raw())
}

/// Answers every call with `handler`, until the listener breaks.
///
/// Calls on different connections run at the same time. A peer that is not ours, and every
/// connection above [`CONNECTIONS_MAX`], is closed without an answer.
pub fn serve<H>(listener: &UnixListener, handler: H) -> io::Error
where
    H: Fn(Call) -> Outcome + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    let n_connections = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // The peer was gone before we came to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return error,
        };
        let slot = Slot::take(&n_connections);
        let ours = peer_is_ours(&stream).unwrap_or(false);
        let (Some(slot), true) = (slot, ours) else { continue };
        let handler = Arc::clone(&handler);
        let spawned = thread::Builder::new().name("ipc".to_owned()).spawn(move || {
            let _slot = slot;
            // A broken connection concerns only the peer, which sees it at its end.
            drop(converse(&stream, &*handler));
        });
        if let Err(error) = spawned {
            return error;
        }
    }
}

/// A place among [`CONNECTIONS_MAX`].
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(count: &Arc<AtomicUsize>) -> Option<Self> {
        let slot = Self(Arc::clone(count));
        (count.fetch_add(1, Ordering::AcqRel) < CONNECTIONS_MAX).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn converse(stream: &UnixStream, handler: &impl Fn(Call) -> Outcome) -> io::Result<()> {
    stream.set_write_timeout(Some(TIMEOUT_WRITE))?;
    let mut incoming = Incoming::default();
    loop {
        while let Some(message) = incoming.parse().map_err(io::Error::other)? {
            let (method, outcome) = match Call::parse(message) {
                Ok(call) => (call.method().to_owned(), handler(call)),
                Err(error) => (String::new(), Err(Failure::from(error))),
            };
            let bytes = encode_outcome(&method, &outcome);
            let fds = outcome.map(|answer| answer.fds).unwrap_or_default();
            send_all(stream, &bytes, &fds)?;
        }
        match incoming.receive(stream) {
            Ok(Received::Bytes) => {}
            Ok(Received::End) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn send_all(stream: &UnixStream, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let mut borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut sent = 0;
    while sent < bytes.len() {
        match send(stream, &bytes[sent..], &borrowed) {
            Ok(n) => {
                sent += n;
                borrowed.clear();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

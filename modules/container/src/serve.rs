//! Calls, one connection after the other on one thread.

use container::launch::{Launcher, Supervisor};
use ipc::{Call, Failure, Incoming, Method as _, Outcome, Received};
use node_api::{init::Adopt, launcher::Start, paths};
use std::{
    io,
    os::{
        fd::BorrowedFd,
        unix::net::{UnixListener, UnixStream},
    },
    time::Duration,
};

/// A peer that neither asks nor reads for so long gives way to the next one. The callers connect
/// for one call, so this only bounds a stuck one.
const PEER_TIME: Duration = Duration::from_secs(5);
/// Requests on one connection; the caller connects again.
const REQUESTS_MAX: u32 = 64;

/// Answers until the listener breaks.
pub(crate) fn serve(listener: &UnixListener, launcher: &Launcher) -> io::Error {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(error) => return error,
        };
        if !ipc::peer_is_ours(&stream).unwrap_or(false) {
            continue;
        }
        // A broken connection concerns only the peer, which sees it at its end.
        converse(&stream, launcher).ok();
    }
}

fn converse(stream: &UnixStream, launcher: &Launcher) -> io::Result<()> {
    stream.set_read_timeout(Some(PEER_TIME))?;
    stream.set_write_timeout(Some(PEER_TIME))?;
    let mut incoming = Incoming::default();
    for _ in 0..REQUESTS_MAX {
        let message = loop {
            if let Some(message) = incoming.parse().map_err(io::Error::other)? {
                break message;
            }
            match incoming.receive(stream) {
                Ok(Received::Bytes) => {}
                Ok(Received::End) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        let (method, outcome) = match Call::parse(message) {
            Ok(call) => (call.method().to_owned(), answer(call, launcher)),
            Err(error) => (String::new(), Err(Failure::from(error))),
        };
        send_all(stream, &ipc::encode_outcome(&method, &outcome))?;
    }
    Ok(())
}

fn answer(call: Call, launcher: &Launcher) -> Outcome {
    match call.method() {
        Start::NAME => call.answer(|start: Start| {
            let outcome = launcher.start(&start, &mut Init);
            match &outcome {
                Ok(reply) => daemon::info!("started {} as process {}", start.id, reply.pid),
                Err(failure) => {
                    daemon::warn!("{}: {}: {}", start.id, failure.reason, daemon::chain(failure));
                }
            }
            outcome.map_err(|failure| failure.to_wire())
        }),
        _ => call.unknown(),
    }
}

/// The real init.
struct Init;

impl Supervisor for Init {
    fn adopt(&mut self, adopt: &Adopt, fds: [BorrowedFd<'_>; 2]) -> Result<(), String> {
        let call = || {
            ipc::Client::connect(paths::INIT_SOCKET)?
                .with_timeout(PEER_TIME)
                .call_with_fds(adopt, &fds)
        };
        call().map(drop).map_err(|error| daemon::chain(&error))
    }
}

fn send_all(stream: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    let mut sent = 0;
    while let Some(rest @ [_, ..]) = bytes.get(sent..) {
        match ipc::send(stream, rest, &[]) {
            Ok(n) => sent += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

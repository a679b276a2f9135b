//! Connections of callers, in the one loop of PID 1: nothing here waits.

use ipc::{Answer, Call, Failure, Incoming, Outcome, Received, encode_outcome, peer_is_ours};
use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
};

/// The daemons of a node, twice; more are closed at once.
pub(crate) const CONNECTIONS_MAX: usize = 32;
/// How much one caller may say before the others have their turn.
const READS_MAX: usize = 16;

/// One caller.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    incoming: Incoming,
    outgoing: Vec<u8>,
}

/// Whether a connection is of any more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Keep,
    Close,
}

impl Connection {
    /// Takes a caller that waits at the listener, if it is one of ours.
    pub(crate) fn accept(listener: &UnixListener) -> io::Result<Option<Self>> {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        let connection = Self { stream, incoming: Incoming::default(), outgoing: Vec::new() };
        Ok(peer_is_ours(&connection.stream)?.then_some(connection))
    }

    /// What to wait on.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether an answer waits to be sent; until then no request is read.
    pub(crate) fn is_sending(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Reads what there is, answers whole requests, sends what fits.
    pub(crate) fn serve(&mut self, mut handler: impl FnMut(Call) -> Outcome) -> Next {
        match self.try_serve(&mut handler) {
            Ok(next) => next,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Next::Keep,
            // A broken connection concerns only the caller, which sees it at its end.
            Err(_) => Next::Close,
        }
    }

    fn try_serve(&mut self, handler: &mut impl FnMut(Call) -> Outcome) -> io::Result<Next> {
        for _ in 0..READS_MAX {
            self.send()?;
            while let Some(message) = self.incoming.parse().map_err(io::Error::other)? {
                let (method, outcome) = match Call::parse(message) {
                    Ok(call) => (call.method().to_owned(), handler(call)),
                    Err(error) => (String::new(), Err(Failure::from(error))),
                };
                // PID 1 gives no descriptor away.
                let outcome = outcome.map(|answer| Answer { fds: Vec::new(), ..answer });
                self.outgoing = encode_outcome(&method, &outcome);
                self.send()?;
            }
            match self.incoming.receive(&self.stream) {
                Ok(Received::Bytes) => {}
                Ok(Received::End) => return Ok(Next::Close),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Next::Keep)
    }

    /// Sends all that waits, or fails with `WouldBlock`.
    fn send(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match ipc::send(&self.stream, &self.outgoing, &[]) {
                Ok(n) => drop(self.outgoing.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use node_api::init::{Line, Log, LogReply};
    use std::{io::Write, path::PathBuf, thread};

    fn listener() -> (tempfile::TempDir, PathBuf, UnixListener) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("init.sock");
        let listener = ipc::listen(&path).unwrap();
        (directory, path, listener)
    }

    /// Serves one connection until it is closed.
    fn serve_one(listener: &UnixListener, handler: impl Fn(Call) -> Outcome) {
        let mut connection = Connection::accept(listener).unwrap().unwrap();
        while connection.serve(&handler) == Next::Keep {
            thread::yield_now();
        }
    }

    #[test]
    fn an_answer_larger_than_the_socket_goes_out_in_pieces() {
        let (_directory, path, listener) = listener();
        let caller = thread::spawn(move || {
            let log = Log { name: "x".to_owned(), after: None, lines_max: 1 };
            ipc::call(path, &log).unwrap().lines[0].text.len()
        });
        serve_one(&listener, |call| {
            call.answer(|_: Log| {
                let text = "x".repeat(1 << 20);
                let line = Line { number: 1, time_ms: 0, n_dropped: 0, text };
                Ok::<_, Failure>(LogReply { life: 1, last: 1, lines: vec![line], dropped: 0 })
            })
        });
        assert_eq!(caller.join().unwrap(), 1 << 20);
    }

    #[test]
    fn a_caller_that_stops_in_the_middle_holds_nobody() {
        let (_directory, path, listener) = listener();
        let mut half = UnixStream::connect(&path).unwrap();
        half.write_all(b"{\"method\":").unwrap();
        let mut connection = Connection::accept(&listener).unwrap().unwrap();
        let next = connection.serve(|_| unreachable!("there is no whole request"));
        assert_eq!(next, Next::Keep);
        drop(half);
        assert_eq!(connection.serve(|_| unreachable!("nor will there be")), Next::Close);
    }

    #[test]
    fn garbage_is_answered_with_an_error() {
        let (_directory, path, listener) = listener();
        let caller = thread::spawn(move || {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(b"garbage\0").unwrap();
            let mut incoming = Incoming::default();
            loop {
                incoming.receive(&stream).unwrap();
                if let Some(message) = incoming.parse().unwrap() {
                    return String::from_utf8(message.bytes).unwrap();
                }
            }
        });
        serve_one(&listener, |call| call.answer(|_: Log| Err(Failure::new("No", "no"))));
        assert!(caller.join().unwrap().contains("\"error\""));
    }
}

//! Calls, one connection after the other on one thread. A health check is answered by a process that
//! gets its connection.

use container::launch::{self, Launcher, Minders, Supervisor};
use ipc::{Answer, Call, Failure, Incoming, Method as _, Outcome, Received};
use node_api::{
    init::Adopt,
    launcher::{Check, CheckReply, Start},
    paths,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use std::{
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
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
    let mut minders = Minders::default();
    loop {
        match wait(listener, &minders) {
            Ok(true) => {}
            Ok(false) => {
                minders.reap(launcher);
                continue;
            }
            Err(errno) => return errno.into(),
        }
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
        converse(&stream, listener, launcher, &mut minders).ok();
    }
}

/// Waits until somebody calls, or a minder has ended; tells whether somebody calls.
fn wait(listener: &UnixListener, minders: &Minders) -> Result<bool, Errno> {
    let mut all = vec![PollFd::new(listener, PollFlags::IN)];
    all.extend(minders.pidfds().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
    match poll(&mut all, None) {
        Ok(_) => Ok(all.first().is_some_and(|first| !first.revents().is_empty())),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn converse(
    stream: &UnixStream,
    listener: &UnixListener,
    launcher: &Launcher,
    minders: &mut Minders,
) -> io::Result<()> {
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
            Ok(call) if call.method() == Check::NAME => {
                match execute(call, stream, listener, launcher, minders) {
                    // From here on the connection is another's.
                    Ok(()) => return Ok(()),
                    Err(failure) => (Check::NAME.to_owned(), Err(failure)),
                }
            }
            Ok(call) => (call.method().to_owned(), answer(call, stream, launcher)),
            Err(error) => (String::new(), Err(Failure::from(error))),
        };
        send_all(stream, &ipc::encode_outcome(&method, &outcome))?;
    }
    Ok(())
}

/// Has a health check's command executed by a process that answers by itself.
fn execute(
    call: Call,
    stream: &UnixStream,
    listener: &UnixListener,
    launcher: &Launcher,
    minders: &mut Minders,
) -> Result<(), Failure> {
    let check: Check = call.parameters()?;
    let answer = |done: Result<CheckReply, launch::Failure>| {
        let outcome = done.map_err(|failure| failure.to_wire()).and_then(Answer::of);
        // Who does not listen any more has no use for it.
        send_all(stream, &ipc::encode_outcome(Check::NAME, &outcome)).ok();
    };
    minders.spawn(launcher, &check, listener.as_fd(), answer).map_err(|failure| failure.to_wire())
}

fn answer(call: Call, caller: &UnixStream, launcher: &Launcher) -> Outcome {
    match call.method() {
        Start::NAME => call.answer(|start: Start| {
            let outcome = launcher.start(&start, &mut Init { caller });
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

/// The real init, on behalf of whoever asks for a start.
struct Init<'c> {
    caller: &'c UnixStream,
}

impl Supervisor for Init<'_> {
    fn adopt(&mut self, adopt: &Adopt, fds: [BorrowedFd<'_>; 2]) -> Result<(), String> {
        // Calls wait for each other here. Who has given up on one looks at what init has, and decides anew:
        // nothing may come later.
        if has_hung_up(self.caller).map_err(|errno| errno.to_string())? {
            return Err("whoever asked for it has given up".to_owned());
        }
        let call = || {
            ipc::Client::connect(paths::INIT_SOCKET)?
                .with_timeout(PEER_TIME)
                .call_with_fds(adopt, &fds)
        };
        call().map(drop).map_err(|error| daemon::chain(&error))
    }
}

/// Whether the other end is closed. What it has sent before can still be read.
fn has_hung_up(stream: &UnixStream) -> Result<bool, Errno> {
    let mut one = [PollFd::new(stream, PollFlags::empty())];
    poll(&mut one, Some(&Timespec::default()))?;
    Ok(one[0].revents().contains(PollFlags::HUP))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn who_has_given_up_is_known_behind_what_was_asked() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"a request").unwrap();
        assert_eq!(has_hung_up(&ours), Ok(false));
        drop(theirs);
        assert_eq!(has_hung_up(&ours), Ok(true));
    }
}

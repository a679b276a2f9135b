//! The loop of PID 1: wait for anything, take it in, settle, begin again. Nothing else waits.

use crate::{
    calls,
    node::Node,
    pstore,
    server::{CONNECTIONS_MAX, Connection, Next},
    watchdog,
};
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use node_api::init::PowerAction;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    time::Timespec,
};
use std::{
    io,
    os::unix::net::UnixListener,
    time::{Duration, Instant},
};

/// A power button comes with its driver, after the services. Whoever presses it as soon as the node is
/// ready is heard: it is looked for this often,
const BUTTON_INTERVAL: Duration = Duration::from_millis(200);
/// until the drivers have had this long. A machine without a button is then left in peace.
const BUTTON_MAX: Duration = Duration::from_mins(2);
/// The logs of workloads are read together, and then not for this long. However many of them write,
/// in however small pieces, they wake PID 1 this often and not once for each piece.
const LOGS_INTERVAL: Duration = Duration::from_millis(10);

/// Whom a descriptor belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Signals,
    Listener,
    Connection(usize),
    Ready(usize),
    ServiceLog(usize),
    WorkloadLog(String),
    Button,
    Terminal,
}

/// Signals that mean something to PID 1: a child ended, ctrl-alt-del, and the orders of a
/// hypervisor's guest tools.
pub(crate) fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPWR] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Serves until an ordered shutdown has ended; returns what follows it.
pub(crate) fn serve(
    node: &mut Node,
    listener: &UnixListener,
    signals: &SignalFd,
) -> io::Result<PowerAction> {
    let mut next_look = Instant::now();
    loop {
        let now = Instant::now();
        if next_look <= now {
            look_around(node);
            let is_awaited = node.buttons.open.is_empty() && now < node.started + BUTTON_MAX;
            next_look = now + if is_awaited { BUTTON_INTERVAL } else { watchdog::INTERVAL };
        }
        node.settle(now);
        if let Some(action) = node.is_down() {
            return Ok(action);
        }
        if std::mem::take(&mut node.is_changed)
            && let Err(error) = node.to_saved().store()
        {
            node.say(&format!("init: writing the state for a restart: {error}"));
        }
        let title = node.title.clone();
        node.console.update(&node.board, &title, now);
        let patience = node.patience(now, next_look);
        for source in ready(node, listener, signals, now, patience)? {
            take(node, listener, signals, &source);
        }
        node.connections.retain(Option::is_some);
        node.reap(Instant::now());
    }
}

/// What happens from time to time.
fn look_around(node: &mut Node) {
    match node.watchdog.pet() {
        Ok(true) => node.say("init: hardware watchdog armed"),
        Ok(false) => {}
        Err(error) => node.say(&format!("init: petting the watchdog: {error}")),
    }
    node.buttons.look();
    if node.previous_panic.is_none()
        && let Ok(Some(record)) = pstore::take()
    {
        node.say(&format!("init: the last boot ended in a panic: {}", pstore::headline(&record)));
        node.previous_panic = Some(record);
        node.changed();
    }
}

/// Waits, at most for `patience`, and tells who has something to say.
fn ready(
    node: &Node,
    listener: &UnixListener,
    signals: &SignalFd,
    now: Instant,
    patience: Duration,
) -> io::Result<Vec<Source>> {
    let mut sources = vec![Source::Signals, Source::Listener];
    let mut fds = vec![PollFd::new(signals, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
    for (index, connection) in node.connections.iter().enumerate() {
        let Some(connection) = connection else { continue };
        let flags = if connection.is_sending() { PollFlags::OUT } else { PollFlags::IN };
        sources.push(Source::Connection(index));
        fds.push(PollFd::from_borrowed_fd(connection.fd(), flags));
    }
    for (index, service) in node.services.iter().enumerate() {
        let pipes = [
            (Source::Ready(index), service.ready.as_ref()),
            (Source::ServiceLog(index), service.log.pipe()),
        ];
        for (source, pipe) in pipes {
            let Some(pipe) = pipe else { continue };
            sources.push(source);
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
    }
    let heard = if now < node.logs_after { None } else { Some(&node.workloads.by_id) };
    for (id, workload) in heard.into_iter().flatten() {
        let Some(pipe) = workload.log.pipe() else { continue };
        sources.push(Source::WorkloadLog(id.clone()));
        fds.push(PollFd::new(pipe, PollFlags::IN));
    }
    for device in node.buttons.open.values() {
        sources.push(Source::Button);
        fds.push(PollFd::new(device, PollFlags::IN));
    }
    for fd in node.console.pending() {
        sources.push(Source::Terminal);
        fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT));
    }
    // Rounded up, so that a deadline is over when the wait for it is.
    let wait = Timespec::try_from(patience + Duration::from_millis(1)).map_err(io::Error::other)?;
    match poll(&mut fds, Some(&wait)) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let spoke = fds.iter().map(|fd| !fd.revents().is_empty());
    Ok(sources
        .into_iter()
        .zip(spoke)
        .filter_map(|(source, spoke)| spoke.then_some(source))
        .collect())
}

/// Takes in what one source has to say.
fn take(node: &mut Node, listener: &UnixListener, signals: &SignalFd, source: &Source) {
    match source {
        Source::Signals => take_signals(node, signals),
        Source::Listener => accept(node, listener),
        Source::Connection(index) => serve_connection(node, *index),
        Source::Ready(index) => node.hear(*index, Instant::now()),
        Source::ServiceLog(index) => node.read_log(*index, Instant::now()),
        Source::WorkloadLog(id) => {
            let now = Instant::now();
            node.logs_after = now + LOGS_INTERVAL;
            if let Some(workload) = node.workloads.by_id.get_mut(id) {
                workload.log.keep(now);
            }
        }
        Source::Button => {
            if node.buttons.is_pressed() {
                node.say("init: the power button was pressed");
                node.begin_shutdown(PowerAction::Off);
            }
        }
        // The next turn of the loop sends.
        Source::Terminal => {}
    }
}

/// Children are reaped at the end of every turn, whatever woke us.
fn take_signals(node: &mut Node, signals: &SignalFd) {
    while let Ok(Some(signal)) = signals.read_signal() {
        match i32::try_from(signal.ssi_signo).map(Signal::try_from) {
            Ok(Ok(Signal::SIGINT)) => node.begin_shutdown(PowerAction::Reboot),
            Ok(Ok(Signal::SIGTERM | Signal::SIGPWR)) => node.begin_shutdown(PowerAction::Off),
            _ => {}
        }
    }
}

fn accept(node: &mut Node, listener: &UnixListener) {
    // A caller that is gone already, or is not ours, needs no answer.
    if let Ok(Some(connection)) = Connection::accept(listener)
        && node.connections.iter().flatten().count() < CONNECTIONS_MAX
    {
        node.connections.push(Some(connection));
    }
}

/// A closed connection leaves an empty place until the turn ends, so that the others keep theirs.
fn serve_connection(node: &mut Node, index: usize) {
    let Some(mut connection) = node.connections[index].take() else { return };
    if connection.serve(|call| calls::handle(node, call)) == Next::Keep {
        node.connections[index] = Some(connection);
    }
}

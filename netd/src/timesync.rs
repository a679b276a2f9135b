//! Asks the time servers, again and again, and sets the clock by what they say.
//!
//! A thread of its own: looking up names and waiting for answers block. It hears of new servers by
//! channel and tells how it stands; it calls nobody else.

use crate::{
    clock::{self, Bounds},
    sntp::{self, Flight, Rejected, Sample},
};
use node_api::netd::Time;
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};
use thiserror::Error;
use tokio::sync::watch;

const PORT: u16 = 123;
/// More servers than this add no trust.
const SERVERS_MAX: usize = 4;
/// A name may stand for many addresses; the first ones must do.
const ADDRESSES_MAX: usize = 2;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Waits after failures; the last one repeats.
const RETRY_S: [u64; 7] = [2, 4, 8, 16, 32, 64, 256];
/// A crystal drifts by milliseconds in this time.
const RESYNC: Duration = Duration::from_mins(15);
/// A smaller error is left as it is, so that the clock does not jump without need.
const STEP_MIN_NS: u128 = 20_000_000;

/// One server that gave no time.
#[derive(Debug, Error)]
enum AskError {
    #[error("looking up {server}")]
    Lookup {
        server: String,
        #[source]
        source: io::Error,
    },
    #[error("asking {address}")]
    Exchange {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("{address}: {rejected}")]
    Rejected { address: SocketAddr, rejected: Rejected },
}

/// Runs until the sender of `servers` is gone.
pub(crate) fn run(bounds: &Bounds, servers: &Receiver<Vec<String>>, time: &watch::Sender<Time>) {
    let mut known: Vec<String> = Vec::new();
    let mut failures = 0;
    let mut wait = RESYNC;
    loop {
        match servers.recv_timeout(wait) {
            Ok(fresh) => (known, failures) = (fresh, 0),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if known.is_empty() {
            report(time, false, "no time server known".to_owned());
            wait = RESYNC;
            continue;
        }
        match synchronise(&known, bounds) {
            Ok(server) => {
                report(time, true, server);
                (failures, wait) = (0, RESYNC);
            }
            Err(reason) => {
                wait = Duration::from_secs(RETRY_S[failures.min(RETRY_S.len() - 1)]);
                failures += 1;
                report(time, false, format!("{reason}; next try after {} s", wait.as_secs()));
            }
        }
    }
}

/// Once synchronised, a silent server does not make the clock wrong.
fn report(time: &watch::Sender<Time>, synchronised: bool, source: String) {
    let fresh = Time { synchronised, server_known: true, source };
    time.send_if_modified(|shown| {
        let changed = *shown != fresh && (synchronised || !shown.synchronised);
        if changed {
            if synchronised {
                daemon::info!("time from {}", fresh.source);
            } else {
                daemon::warn!("time: {}", fresh.source);
            }
            *shown = fresh;
        }
        changed
    });
}

/// Asks every server once and sets the clock. Gives the name of the one that was followed.
fn synchronise(servers: &[String], bounds: &Bounds) -> Result<String, String> {
    let mut samples = Vec::new();
    let mut problems = Vec::new();
    for server in servers.iter().take(SERVERS_MAX) {
        match ask(server, bounds) {
            Ok(sample) => samples.push(sample),
            Err(error) => problems.push(daemon::chain(&error)),
        }
    }
    let Some(sample) = sntp::choose(&samples) else {
        return Err(if samples.is_empty() {
            problems.join(", ")
        } else {
            format!("{} time servers contradict one another", samples.len())
        });
    };
    if sample.offset_ns.unsigned_abs() >= STEP_MIN_NS {
        let now = i128::try_from(clock::wall().as_nanos()).unwrap_or(i128::MAX);
        let right = u64::try_from(now.saturating_add(sample.offset_ns)).unwrap_or(0);
        clock::set(Duration::from_nanos(right)).map_err(|error| daemon::chain(&error))?;
        daemon::info!("clock stepped by {} ms", sample.offset_ns / 1_000_000);
    }
    Ok(sample.server.clone())
}

/// The first answer from one of the server's addresses, or why the last one gave none.
fn ask(server: &str, bounds: &Bounds) -> Result<Sample, AskError> {
    let lookup = |source| AskError::Lookup { server: server.to_owned(), source };
    let addresses = (server, PORT).to_socket_addrs().map_err(lookup)?;
    let mut last = lookup(io::ErrorKind::NotFound.into());
    for address in addresses.take(ADDRESSES_MAX) {
        match exchange(address, bounds, ANSWER_TIMEOUT) {
            Ok(offset_ns) => return Ok(Sample { server: server.to_owned(), offset_ns }),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(address: SocketAddr, bounds: &Bounds, timeout: Duration) -> Result<i128, AskError> {
    let failed = |source| AskError::Exchange { address, source };
    let own: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(own).map_err(failed)?;
    socket.connect(address).map_err(failed)?;
    let number = u64::from_ne_bytes(clock::random());
    let sent = clock::wall();
    let start = Instant::now();
    socket.send(&sntp::question(number)).map_err(failed)?;
    let mut rejected = None;
    let mut buffer = [0; 512];
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            // Somebody answered, but not our server.
            return Err(match rejected {
                Some(rejected) => AskError::Rejected { address, rejected },
                None => failed(io::ErrorKind::TimedOut.into()),
            });
        }
        socket.set_read_timeout(Some(left)).map_err(failed)?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        let flight = Flight { sent, received: sent + start.elapsed() };
        match sntp::offset_ns(&buffer[..length], number, flight, bounds) {
            Ok(offset_ns) => return Ok(offset_ns),
            // Not from our server, as far as we can tell: it may still answer.
            Err(other @ (Rejected::Origin | Rejected::Mode | Rejected::Length(_))) => {
                rejected = Some(other);
            }
            Err(rejected) => return Err(AskError::Rejected { address, rejected }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synchronised_clock_stays_so_when_the_server_falls_silent() {
        let (time, shown) =
            watch::channel(Time { synchronised: false, server_known: true, source: String::new() });
        report(&time, false, "no time server known".to_owned());
        assert_eq!(shown.borrow().source, "no time server known");
        report(&time, true, "10.0.0.1".to_owned());
        report(&time, false, "asking 10.0.0.1:123: timed out".to_owned());
        assert!(shown.borrow().synchronised);
        assert_eq!(shown.borrow().source, "10.0.0.1");
    }

    #[test]
    fn a_server_that_answers_is_heard_and_a_silent_one_is_not_waited_for_twice() {
        let floor = clock::wall();
        let bounds = Bounds { floor, ceiling: floor + Duration::from_hours(1) };
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = server.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut question = [0; sntp::LENGTH];
            let (_, client) = server.recv_from(&mut question).unwrap();
            let now = clock::wall() + Duration::from_secs(100);
            let stamp = ((now.as_secs() + 2_208_988_800) % (1 << 32)) << 32;
            let mut answer = [0; sntp::LENGTH];
            answer[..2].copy_from_slice(&[0x24, 1]);
            // A forger who has not seen the question speaks first.
            answer[32..40].copy_from_slice(&stamp.to_be_bytes());
            answer[40..].copy_from_slice(&stamp.to_be_bytes());
            server.send_to(&answer, client).unwrap();
            answer[24..32].copy_from_slice(&question[40..]);
            server.send_to(&answer, client).unwrap();
        });
        let begun = Instant::now();
        let offset_ns = exchange(address, &bounds, Duration::from_mins(1)).unwrap();
        answering.join().unwrap();
        // The stamps count whole seconds, and the way of the answer may take all the time there was.
        let error_ns = 1_000_000_000 + i128::try_from(begun.elapsed().as_nanos()).unwrap();
        let told = 100_000_000_000 - error_ns..=100_000_000_000 + error_ns;
        assert!(told.contains(&offset_ns), "{offset_ns}");
        // The port is closed now: the refusal arrives at once.
        let refused = exchange(address, &bounds, ANSWER_TIMEOUT);
        assert!(matches!(refused, Err(AskError::Exchange { .. })));
    }
}

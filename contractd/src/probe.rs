//! The thread that asks containers whether they work, at their addresses inside the node.
//!
//! It enters no namespace and has no rights in a container: it is a client of it like any other.
//! What a container sends is read up to [`STATUS_BYTES`] bytes, and an answer that takes longer
//! than the contract allows is none, however it trickles. No redirect is followed, so a container
//! cannot send the node anywhere. A thread of its own, because fetches may keep the other busy.

use crate::checks::{Answer, Question};
use container::health::{self, Bad, STATUS_BYTES};
use contract::workload::Probe;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{
        Semaphore,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    time::timeout,
};

/// Containers that are asked at once, each over a descriptor: as many as a node has, so that nobody waits
/// for those that do not answer.
const AT_ONCE_MAX: usize = 1024;

/// The way to the thread and back. As many are on it at most as there are containers.
#[derive(Debug)]
pub(crate) struct Probes {
    pub(crate) questions: UnboundedSender<Question>,
    pub(crate) answers: Receiver<Answer>,
}

/// Starts the thread. It ends when nobody asks any more.
pub(crate) fn spawn() -> io::Result<Probes> {
    let (questions, asked) = unbounded_channel();
    let (sender, answers) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new()
        .name("probes".to_owned())
        .spawn(move || runtime.block_on(serve(asked, sender)))?;
    Ok(Probes { questions, answers })
}

async fn serve(mut questions: UnboundedReceiver<Question>, answers: Sender<Answer>) {
    let places = Arc::new(Semaphore::new(AT_ONCE_MAX));
    while let Some(question) = questions.recv().await {
        let (places, answers) = (Arc::clone(&places), answers.clone());
        tokio::spawn(async move {
            let _place = places.acquire().await;
            let outcome = ask(&question).await;
            let Question { id, since_ms, .. } = question;
            // Nobody listens any more only when the process ends.
            drop(answers.send(Answer { id, since_ms, outcome }));
        });
    }
}

async fn ask(question: &Question) -> Result<(), Bad> {
    let wait = Duration::from_secs(question.health.timeout_s.into());
    let asking = converse(question.address, &question.health.probe);
    timeout(wait, asking).await.unwrap_or(Err(Bad::Late))
}

async fn converse(address: IpAddr, probe: &Probe) -> Result<(), Bad> {
    match probe {
        Probe::Tcp { port } => connect(address, *port).await.map(drop),
        Probe::Http { port, path, status_min, status_max } => {
            let stream = connect(address, *port).await?;
            let host = SocketAddr::new(address, *port);
            let request = health::request(path, host);
            let first = exchange(&stream, request.as_bytes()).await.map_err(|_| Bad::Closed)?;
            health::judge_status(&first, *status_min, *status_max)
        }
    }
}

async fn connect(address: IpAddr, port: u16) -> Result<TcpStream, Bad> {
    // Why it did not come about is the container's affair.
    TcpStream::connect((address, port)).await.map_err(|_| Bad::Closed)
}

/// Sends the request, and reads the first bytes of the answer.
async fn exchange(stream: &TcpStream, mut request: &[u8]) -> io::Result<Vec<u8>> {
    while !request.is_empty() {
        stream.writable().await?;
        match stream.try_write(request) {
            Ok(n) => request = &request[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let mut first = [0; STATUS_BYTES];
    let mut n_read = 0;
    while n_read < STATUS_BYTES {
        stream.readable().await?;
        match stream.try_read(&mut first[n_read..]) {
            Ok(0) => break,
            Ok(n) => n_read += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(first[..n_read].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::workload::Health;
    use std::{
        io::{Read as _, Write as _},
        net::{Ipv4Addr, TcpListener},
    };

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// Far above what an answer takes on a busy machine.
    const PATIENT_S: u32 = 60;
    /// For a server from which no answer is to come.
    const SHORT_S: u32 = 1;

    fn question(probe: Probe, timeout_s: u32) -> Question {
        let health = Health { probe, interval_s: 10, timeout_s, retries: 3, start_period_s: 0 };
        Question { id: "web".into(), since_ms: 7, address: LOOPBACK, health }
    }

    fn tcp(port: u16) -> Question {
        question(Probe::Tcp { port }, PATIENT_S)
    }

    fn http(port: u16, timeout_s: u32) -> Question {
        let path = "/health".to_owned();
        question(Probe::Http { port, path, status_min: 200, status_max: 399 }, timeout_s)
    }

    fn outcome(question: Question) -> Result<(), Bad> {
        let Probes { questions, answers } = spawn().unwrap();
        questions.send(question).unwrap();
        let answer = answers.recv_timeout(Duration::from_secs(120)).unwrap();
        assert_eq!((answer.id.as_str(), answer.since_ms), ("web", 7));
        answer.outcome
    }

    /// A server of one connection, which sends this and then waits until it is closed.
    fn server(answer: &'static [u8]) -> (u16, thread::JoinHandle<String>) {
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).unwrap();
            // The other side may have had enough.
            stream.write_all(answer).ok();
            stream.read_exact(&mut [0]).ok();
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        (port, served)
    }

    #[test]
    fn a_server_is_asked_and_judged_by_its_status() {
        for (answer, wanted) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..], Ok(())),
            (b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n\r\n", Ok(())),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", Err(Bad::Status(503))),
            (b"220 mail.example ESMTP\r\n", Err(Bad::NotHttp)),
            // It stops in the middle.
            (b"HTTP/1.1 20", Err(Bad::Late)),
        ] {
            let (port, served) = server(answer);
            let timeout_s = if wanted == Err(Bad::Late) { SHORT_S } else { PATIENT_S };
            assert_eq!(outcome(http(port, timeout_s)), wanted, "{}", answer.escape_ascii());
            let request = served.join().unwrap();
            assert!(request.starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
        }
    }

    #[test]
    fn a_port_is_open_or_not() {
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(outcome(tcp(port)), Ok(()));
        // It takes the connection and says nothing.
        assert_eq!(outcome(http(port, SHORT_S)), Err(Bad::Late));
        drop(listener);
        assert_eq!(outcome(tcp(port)), Err(Bad::Closed));
        assert_eq!(outcome(http(port, PATIENT_S)), Err(Bad::Closed));
    }
}

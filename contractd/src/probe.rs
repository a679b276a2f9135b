//! The thread that asks containers whether they work, at their addresses inside the node, or by a command
//! that the launcher executes.
//!
//! It enters no namespace and has no rights in a container: it is a client of it like any other.
//! What a container sends is read up to [`STATUS_BYTES`] bytes, and an answer that takes longer
//! than the contract allows is none, however it trickles. No redirect is followed, so a container
//! cannot send the node anywhere. A thread of its own, because fetches may keep the other busy.

use crate::{
    checks::{Answer, Outcome, Question},
    plan,
};
use container::{
    health::{self, Bad, STATUS_BYTES},
    reason::Reason,
};
use contract::workload::Probe;
use ipc::CallError;
use node_api::launcher::Check;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
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
/// Commands of one contract at once: those of a tenant that hang leave places to others.
const OF_CONTRACT_MAX: usize = Check::AT_ONCE_MAX / 8;
/// Why a command could not be executed that is the container's affair.
const OWN_FAULTS: [Reason; 3] = [Reason::EntrypointMissing, Reason::CwdMissing, Reason::ExecFailed];

/// How a container is asked.
#[derive(Debug)]
pub(crate) enum By {
    /// At its address.
    Network,
    /// By a command in it.
    Command(Box<Check>),
}

/// The way to the thread and back. As many are on it at most as there are containers.
#[derive(Debug)]
pub(crate) struct Probes {
    pub(crate) questions: UnboundedSender<(Question, By)>,
    pub(crate) answers: Receiver<Answer>,
}

/// Starts the thread, which reaches the launcher at this socket. It ends when nobody asks any more.
pub(crate) fn spawn(launcher: PathBuf) -> io::Result<Probes> {
    let (questions, asked) = unbounded_channel();
    let (sender, answers) = channel();
    // A call to the launcher waits on a thread of its own until the command has ended.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(Check::AT_ONCE_MAX)
        .build()?;
    thread::Builder::new()
        .name("probes".to_owned())
        .spawn(move || runtime.block_on(serve(asked, sender, launcher.into())))?;
    Ok(Probes { questions, answers })
}

async fn serve(
    mut questions: UnboundedReceiver<(Question, By)>,
    answers: Sender<Answer>,
    launcher: Arc<Path>,
) {
    let places = Arc::new(Semaphore::new(AT_ONCE_MAX));
    let commands = Arc::new(Semaphore::new(Check::AT_ONCE_MAX));
    let mut contracts = Contracts::default();
    while let Some((question, by)) = questions.recv().await {
        let of_contract = contracts.places(&question.id);
        let (places, commands) = (Arc::clone(&places), Arc::clone(&commands));
        let (answers, launcher) = (answers.clone(), Arc::clone(&launcher));
        tokio::spawn(async move {
            let outcome = match by {
                By::Network => {
                    let _place = places.acquire().await;
                    ask(&question).await.into()
                }
                // In the order in which they came: nobody's time begins before it is their turn.
                By::Command(check) => {
                    let _of_contract = of_contract.acquire().await;
                    let _place = commands.acquire().await;
                    execute(*check, launcher).await
                }
            };
            let Question { id, since_ms, .. } = question;
            // Nobody listens any more only when the process ends.
            drop(answers.send(Answer { id, since_ms, outcome }));
        });
    }
}

/// The places of each contract of which a question is on its way.
#[derive(Debug, Default)]
struct Contracts(BTreeMap<String, Arc<Semaphore>>);

impl Contracts {
    /// Those of the contract of a container.
    fn places(&mut self, id: &str) -> Arc<Semaphore> {
        self.0.retain(|_, places| Arc::strong_count(places) > 1);
        let contract = plan::prefix_of(id).to_owned();
        let new = || Arc::new(Semaphore::new(OF_CONTRACT_MAX));
        Arc::clone(self.0.entry(contract).or_insert_with(new))
    }
}

/// Has a command executed, and waits for its end: the launcher keeps its time.
async fn execute(check: Check, launcher: Arc<Path>) -> Outcome {
    let call = move || {
        let wait = Duration::from_secs(check.timeout_s.into()) + Check::TAKES_MAX;
        ipc::Client::connect(launcher)?.with_timeout(wait).call(&check)
    };
    match tokio::task::spawn_blocking(call).await {
        Ok(Ok(reply)) => health::judge_command(&reply).into(),
        Ok(Err(CallError::Refused { failure, .. }))
            if OWN_FAULTS.iter().any(|fault| fault.code() == failure.name) =>
        {
            Outcome::Bad(health::not_executed(&failure.message))
        }
        Ok(Err(error)) => Outcome::Unasked(daemon::chain(&error)),
        Err(error) => Outcome::Unasked(daemon::chain(&error)),
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
        // The launcher executes it: nobody listens at the address for that.
        Probe::Exec { .. } => Err(Bad::Closed),
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
    use node_api::launcher::{CheckEnd, CheckReply};
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

    fn outcome(question: Question) -> Outcome {
        outcome_by(question, By::Network, "/nobody/listens")
    }

    fn outcome_by(question: Question, by: By, launcher: impl Into<PathBuf>) -> Outcome {
        let Probes { questions, answers } = spawn(launcher.into()).unwrap();
        questions.send((question, by)).unwrap();
        let answer = answers.recv_timeout(Duration::from_secs(120)).unwrap();
        assert_eq!((answer.id.as_str(), answer.since_ms), ("web", 7));
        answer.outcome
    }

    #[test]
    fn a_command_is_the_launchers_and_only_its_own_faults_count() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("launcher.sock");
        let listener = ipc::listen(&socket).unwrap();
        thread::spawn(move || {
            ipc::serve(&listener, |call| {
                call.answer(|check: Check| match check.command[0].as_str() {
                    "good" => Ok(CheckReply { end: CheckEnd::Exited(0), said: String::new() }),
                    "bad" => Ok(CheckReply { end: CheckEnd::Exited(1), said: "no".to_owned() }),
                    fault => Err(ipc::Failure::new(fault, "so it is")),
                })
            })
        });
        let ask = |word: &str, socket: &Path| {
            let command = vec![word.to_owned()];
            let check = Check {
                id: "web".into(),
                pid: 7,
                command: command.clone(),
                env: vec![],
                cwd: "/".into(),
                uid: 0,
                gid: 0,
                timeout_s: PATIENT_S,
            };
            let question = question(Probe::Exec { command }, PATIENT_S);
            outcome_by(question, By::Command(Box::new(check)), socket)
        };
        assert_eq!(ask("good", &socket), Outcome::Good);
        let Outcome::Bad(Bad::Command(said)) = ask("bad", &socket) else { panic!() };
        assert_eq!(said, "it returned 1 and said \"no\"");
        for fault in OWN_FAULTS {
            let asked = ask(fault.code(), &socket);
            let Outcome::Bad(Bad::Command(said)) = asked else { panic!("{fault}") };
            assert_eq!(said, "it could not be executed: \"so it is\"");
        }
        for fault in [
            "already_running",
            "limits_refused",
            "namespace_failed",
            "root_mount_failed",
            "MethodNotFound",
        ] {
            assert!(matches!(ask(fault, &socket), Outcome::Unasked(_)), "{fault}");
        }
        let nobody = directory.path().join("nobody.sock");
        assert!(matches!(ask("good", &nobody), Outcome::Unasked(_)));
    }

    #[test]
    fn the_places_of_a_contract_are_its_own_and_go_with_its_last_question() {
        let mut contracts = Contracts::default();
        let id = |digit: &str, name: &str| format!("c-{}-{name}", digit.repeat(29));
        let (web, data, other) = (id("a", "web"), id("a", "data"), id("b", "web"));
        let places = contracts.places(&web);
        let _all = places.try_acquire_many(u32::try_from(OF_CONTRACT_MAX).unwrap()).unwrap();
        assert!(contracts.places(&data).try_acquire().is_err());
        assert!(contracts.places(&other).try_acquire().is_ok());
        assert_eq!(contracts.places(&web).available_permits(), 0);
        assert_eq!(contracts.0.len(), 1, "of those that are not asked nothing is kept");
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
            let said = answer.escape_ascii();
            assert_eq!(outcome(http(port, timeout_s)), wanted.into(), "{said}");
            let request = served.join().unwrap();
            assert!(request.starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
        }
    }

    #[test]
    fn a_port_is_open_or_not() {
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(outcome(tcp(port)), Outcome::Good);
        // It takes the connection and says nothing.
        assert_eq!(outcome(http(port, SHORT_S)), Outcome::Bad(Bad::Late));
        drop(listener);
        assert_eq!(outcome(tcp(port)), Outcome::Bad(Bad::Closed));
        assert_eq!(outcome(http(port, PATIENT_S)), Outcome::Bad(Bad::Closed));
    }
}

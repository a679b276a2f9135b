//! The program itself over HTTP: every status, evidence, kill, restart, orderly end.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

use reqwest::header::CONTENT_TYPE;
use std::{
    convert::Infallible,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;
use tlog::{
    Algorithm, Checkpoint, Edge, Hash, Note, Policy, Signer, Verifier, tree, witness::AddCheckpoint,
};

const ORIGIN: &str = "log.example/main";
const NAME: &str = "witness.example/1";

struct Bench {
    folder: TempDir,
    key: Verifier,
}

struct Process {
    child: Child,
    base: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn witnessd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_witnessd"))
}

fn log() -> Signer {
    Signer::new(ORIGIN, Algorithm::Ed25519, &[1; 32]).unwrap()
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = witnessd()
            .args(["key", "--name", NAME, "--out"])
            .arg(folder.path().join("witness.key"))
            .output()
            .unwrap();
        assert!(made.status.success());
        let key = String::from_utf8(made.stdout).unwrap().trim().parse().unwrap();
        let config = format!(
            "listen = \"127.0.0.1:0\"\ndata = \"state\"\nkey = \"witness.key\"\n\
             [[log]]\norigin = \"{ORIGIN}\"\nkeys = [\"{}\"]\n",
            log().verifier()
        );
        fs::write(folder.path().join("witness.toml"), config).unwrap();
        Self { folder, key }
    }

    fn command(&self) -> Command {
        let mut command = witnessd();
        command.args(["run", "--config"]).arg(self.folder.path().join("witness.toml"));
        command
    }

    fn start(&self) -> Process {
        let mut child = self.command().stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (key, base) = line.trim().split_once(" on ").expect(&line);
        assert_eq!(key, format!("witnessd: {}", self.key));
        Process { base: base.into(), child }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("state").join(folder()).join("checkpoint")
    }

    fn evidence(&self) -> Vec<String> {
        let folder = self.folder.path().join("state").join(folder()).join("evidence");
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    }

    fn policy(&self) -> Policy {
        let keys = vec![log().verifier().clone()];
        Policy::new(ORIGIN, keys, vec![self.key.clone()], 1).unwrap()
    }
}

fn folder() -> String {
    let hash = contract::id::sha256(ORIGIN.as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn leaf(index: u64, fork: &str) -> Hash {
    tree::leaf(format!("{fork} {index}").as_bytes())
}

fn note(size: u64, fork: &str, signer: &Signer) -> Note {
    let mut edge = Edge::default();
    (0..size).for_each(|n| edge.push(leaf(n, fork), |_, _| {}));
    let root = edge.root();
    let checkpoint = Checkpoint { origin: ORIGIN.into(), size, root, extensions: vec![] };
    let mut note = Note::new(checkpoint.to_string()).unwrap();
    note.add(signer.sign(note.text(), 0)).unwrap();
    note
}

fn proof(old: u64, new: u64, fork: &str) -> Vec<Hash> {
    let hash_of = |node: tree::Node| {
        let mut edge = Edge::default();
        let first = node.index << node.level;
        (first..first + (1 << node.level)).for_each(|n| edge.push(leaf(n, fork), |_, _| {}));
        Ok::<_, Infallible>(edge.root())
    };
    let Ok(hashes) = tree::hashes(tree::consistency(old, new).unwrap(), hash_of);
    hashes
}

fn request(old: u64, new: u64, fork: &str) -> String {
    let note = note(new, fork, &log());
    let checkpoint = note.text().parse().unwrap();
    AddCheckpoint { old, proof: proof(old, new, fork), checkpoint, note }.to_string()
}

struct Answer {
    status: u16,
    kind: String,
    body: String,
}

impl Process {
    async fn post(&self, body: impl Into<reqwest::Body>) -> Answer {
        let url = format!("{}/add-checkpoint", self.base);
        answer(http().post(url).body(body).send().await.unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        answer(http().get(format!("{}/{path}", self.base)).send().await.unwrap()).await
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

/// A client. In a build of the whole workspace it has TLS, which wants to be told how.
fn http() -> reqwest::Client {
    // An error only says that the process has a provider already.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::new()
}

async fn answer(response: reqwest::Response) -> Answer {
    let kind = response.headers().get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
    Answer {
        status: response.status().as_u16(),
        kind: kind.unwrap_or_default(),
        body: response.text().await.unwrap(),
    }
}

/// The size of the cosigned checkpoint that the witness shows to everybody.
async fn shown(bench: &Bench, process: &Process) -> u64 {
    let shown = process.get(&format!("{}/checkpoint", folder())).await;
    assert_eq!(shown.status, 200);
    let seen = bench.policy().open(shown.body.as_bytes()).unwrap();
    assert!(seen.time.unwrap() > 1_700_000_000);
    seen.checkpoint.size
}

#[tokio::test]
async fn a_log_that_grows_gets_cosignatures_that_others_verify() {
    let bench = Bench::new();
    let process = bench.start();
    assert_eq!(process.get(&format!("{}/checkpoint", folder())).await.status, 404);
    for (old, new) in [(0, 3), (3, 3), (3, 300), (300, 301)] {
        let answer = process.post(request(old, new, "a")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        // As a log does: it takes the lines to its own checkpoint.
        let cosigned = format!("{}{}", note(new, "a", &log()), answer.body);
        let seen = bench.policy().open(cosigned.as_bytes()).unwrap();
        assert_eq!(seen.checkpoint.size, new);
        assert_eq!(shown(&bench, &process).await, new);
    }
    assert!(bench.evidence().is_empty());
}

#[tokio::test]
async fn each_other_request_gets_its_status_and_changes_nothing() {
    let bench = Bench::new();
    let process = bench.start();
    assert_eq!(process.post(request(0, 5, "a")).await.status, 200);
    let conflict = process.post(request(3, 8, "a")).await;
    assert_eq!((conflict.status, conflict.body.as_str()), (409, "5\n"));
    assert_eq!(conflict.kind, "text/x.tlog.size");
    let stranger = Signer::new(ORIGIN, Algorithm::Ed25519, &[9; 32]).unwrap();
    let good = request(5, 8, "a");
    let unsigned =
        good.replace(&note(8, "a", &log()).to_string(), &note(8, "a", &stranger).to_string());
    let other = good.replace(ORIGIN, "log.example/other");
    for (what, body, status) in [
        ("not a request", "hello".to_owned(), 400),
        ("old above new", request(5, 5, "a").replace("old 5", "old 6"), 400),
        ("signed by a stranger", unsigned, 403),
        ("another signature", good.replace("\n8\n", "\n9\n"), 403),
        ("another log", other, 404),
        ("too large", "x".repeat(1 << 20), 413),
        ("another tree", request(5, 8, "b"), 422),
        ("another tree of the same size", request(5, 5, "b"), 422),
    ] {
        let answer = process.post(body).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
    }
    assert_eq!(process.get("add-checkpoint").await.status, 405);
    assert_eq!(process.get("nothing").await.status, 404);
    assert_eq!(process.get(&format!("{}/checkpoint", "0".repeat(64))).await.status, 404);
    assert_eq!(shown(&bench, &process).await, 5);
    assert_eq!(process.post(good).await.status, 200, "the log itself goes on");
}

#[tokio::test]
async fn what_speaks_against_a_log_is_kept_so_that_anybody_can_check_it() {
    let bench = Bench::new();
    let process = bench.start();
    assert_eq!(process.post(request(0, 5, "a")).await.status, 200);
    for _ in 0..3 {
        assert_eq!(process.post(request(5, 5, "b")).await.status, 422);
    }
    let [evidence] = &bench.evidence()[..] else { panic!("one piece of evidence") };
    for fork in ["a", "b"] {
        let signed = note(5, fork, &log()).to_string();
        assert!(evidence.contains(signed.trim_end()), "{evidence}");
    }
    // Signed by nobody: no evidence.
    let body = request(5, 8, "b").replace("\n8\n", "\n9\n");
    assert_eq!(process.post(body).await.status, 403);
    assert_eq!(bench.evidence().len(), 1);
}

#[tokio::test]
async fn a_witness_killed_before_it_answers_has_not_forgotten_what_it_signed() {
    let bench = Bench::new();
    let mut process = bench.start();
    assert_eq!(process.post(request(0, 1, "a")).await.status, 200);
    for size in 2..22 {
        // The file changes before the answer: killed then, with the answer not read.
        let before = fs::read(bench.file()).unwrap();
        let body = request(size - 1, size, "a");
        let mut stream = TcpStream::connect(process.base.strip_prefix("http://").unwrap()).unwrap();
        write!(
            stream,
            "POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        while fs::read(bench.file()).unwrap() == before {
            std::thread::yield_now();
        }
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        drop(stream);
        process = bench.start();
        assert_eq!(shown(&bench, &process).await, size);
        // The opposite is not signed, and the log learns where it stands.
        let fork = process.post(request(size - 1, size, "b")).await;
        assert_eq!((fork.status, fork.body), (409, format!("{size}\n")));
        assert_eq!(process.post(request(size, size, "b")).await.status, 422);
        assert_eq!(process.post(request(size, size, "a")).await.status, 200);
    }
}

#[tokio::test]
async fn a_witness_killed_at_any_time_has_kept_all_that_it_answered() {
    let bench = Bench::new();
    let mut process = bench.start();
    let mut acknowledged = 0;
    for round in 0..20_u64 {
        for step in 0..=round % 4 {
            let next = acknowledged + 1 + step % 2;
            let answer = process.post(request(acknowledged, next, "a")).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            acknowledged = next;
        }
        // One more is under way, at one place or another.
        let url = format!("{}/add-checkpoint", process.base);
        let body = request(acknowledged, acknowledged + 1, "a");
        let under_way = tokio::spawn(http().post(url).body(body).send());
        for _ in 0..round * 20 {
            tokio::task::yield_now().await;
        }
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        let answered = under_way.await.unwrap().is_ok_and(|answer| answer.status() == 200);
        process = bench.start();
        let size = shown(&bench, &process).await;
        let least = acknowledged + u64::from(answered);
        assert!((least..=acknowledged + 1).contains(&size), "{size} of {least}");
        acknowledged = size;
    }
}

#[tokio::test]
async fn two_requests_at_once_never_both_follow_the_same_checkpoint() {
    let bench = Bench::new();
    let process = bench.start();
    assert_eq!(process.post(request(0, 2, "a")).await.status, 200);
    let answers = [(2, 7), (2, 5), (2, 6), (2, 4), (2, 3)];
    let bodies = answers.map(|(old, new)| process.post(request(old, new, "a")));
    let [one, two, three, four, five] = bodies;
    let answers = tokio::join!(one, two, three, four, five);
    let answers = [answers.0, answers.1, answers.2, answers.3, answers.4];
    let signed = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.status == 409).count();
    assert_eq!((signed, refused), (1, 4));
}

#[tokio::test]
async fn it_ends_in_order_and_after_the_request_that_runs() {
    let bench = Bench::new();
    let mut process = bench.start();
    let body = request(0, 3, "a");
    let mut stream = TcpStream::connect(process.base.strip_prefix("http://").unwrap()).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: {length}\r\n\
         Expect: 100-continue\r\n\r\n"
    )
    .unwrap();
    // Whoever asks for the body has taken the request.
    let mut go_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut go_on).unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100"), "{}", go_on.escape_ascii());
    process.signal("-TERM");
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(process.child.wait().unwrap().success());
}

fn fails(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let bench = Bench::new();
    let help = witnessd().arg("--help").output().unwrap();
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("[[log]]"));
    let process = bench.start();
    assert_eq!(process.post(request(0, 3, "a")).await.status, 200);
    assert!(fails(bench.command()).contains("another witness works in"));
    drop(process);
    let spoil = |path: &Path, text: &str| {
        let before = fs::read(path).unwrap();
        fs::write(path, text).unwrap();
        let said = fails(bench.command());
        fs::write(path, before).unwrap();
        said
    };
    let said = spoil(&bench.file(), "half a check");
    assert!(said.contains(ORIGIN) && said.contains("damaged"), "{said}");
    let said = spoil(&bench.folder.path().join("witness.toml"), "listen = 1");
    assert!(said.contains("witness.toml"), "{said}");
    let said = spoil(&bench.folder.path().join("witness.key"), "secret");
    assert!(said.contains("witness.key") && !said.contains("secret"), "{said}");
    assert_eq!(shown(&bench, &bench.start()).await, 3);
}

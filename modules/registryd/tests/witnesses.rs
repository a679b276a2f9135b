//! The log and its witnesses, over real HTTP: what is shown when they are there, away, behind, ahead
//! or lying, and when the registry is killed in between.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use axum::{Router, body::Body, http::StatusCode, response::Response, routing::post};
use common::{Registry, World, agree, database, prepare, process, seal, world};
use contract::{Envelope, StatementId, report::State};
use registryd::{content::Access, transparency};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tlog::{
    Algorithm, Checkpoint, Note, Policy, Proof, Signer, Verifier, policy::Seen,
    witness::AddCheckpoint,
};
use tokio::{task::JoinSet, time::sleep};
use witnessd::{config, key, server};

const ORIGIN: &str = "registry.example/test";
/// Witnesses of this process so far.
static HOSTS: AtomicU8 = AtomicU8::new(0);
/// Longer than any wait for a witness that is tried again.
const PATIENCE: Duration = Duration::from_secs(60);

/// A real witness, which can be stopped and started at one address.
struct Witness {
    folder: TempDir,
    key: Verifier,
    config: config::Config,
    server: Option<server::Server>,
}

impl Witness {
    async fn new(number: usize, log: &Verifier) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let name = format!("witness.example/{number}");
        let key = key::create(&path, &name).unwrap().parse().unwrap();
        let logs = vec![config::Log { origin: ORIGIN.into(), keys: vec![log.clone()] }];
        // One that was stopped comes back at its port, which nobody takes meanwhile: each witness of
        // this process has an address of its own.
        let host = 2 + HOSTS.fetch_add(1, Ordering::Relaxed);
        let listen = format!("127.0.9.{host}:0").parse().unwrap();
        let data = folder.path().join("state");
        let config = config::Config { listen, data, key: path, logs };
        let mut witness = Self { folder, key, config, server: None };
        witness.start().await;
        witness
    }

    async fn start(&mut self) {
        let server = server::start(self.config.clone()).await.unwrap();
        self.config.listen = server.address;
        self.server = Some(server);
    }

    async fn stop(&mut self) {
        self.server.take().unwrap().stop().await.unwrap();
    }

    fn url(&self) -> String {
        format!("http://{}", self.config.listen)
    }

    /// Sends a checkpoint, as anybody may, and gives the status.
    async fn post(&self, old: u64, note: &Note) -> StatusCode {
        let checkpoint = note.text().parse().unwrap();
        let request = AddCheckpoint { old, proof: vec![], checkpoint, note: note.clone() };
        let url = format!("{}/add-checkpoint", self.url());
        let sent = reqwest::Client::new().post(url).body(request.to_string()).send().await;
        StatusCode::from_u16(sent.unwrap().status().as_u16()).unwrap()
    }
}

/// A log whose checkpoints `quorum` of the witnesses have to cosign.
struct Bench {
    data: TempDir,
    policy: Policy,
    file: PathBuf,
}

/// Begins a log. Gives its key.
fn begin(data: &Path) -> Verifier {
    transparency::begin(&database::open(data), data, ORIGIN).unwrap().parse().unwrap()
}

impl Bench {
    fn new(data: TempDir, log: Verifier, witnesses: &[(Verifier, String)], quorum: usize) -> Self {
        let mut text = format!("log {log}\n");
        for (number, (key, url)) in witnesses.iter().enumerate() {
            text += &format!("witness w{number} {key} {url}\n");
        }
        let names: Vec<String> = (0..witnesses.len()).map(|number| format!("w{number}")).collect();
        text += &format!("group all-of-them {quorum} {}\nquorum all-of-them\n", names.join(" "));
        let file = data.path().join("witnesses.policy");
        fs::write(&file, text).unwrap();
        let keys = witnesses.iter().map(|(key, _)| key.clone()).collect();
        let policy = Policy::new(ORIGIN, vec![log], keys, quorum).unwrap();
        Self { data, policy, file }
    }

    /// A log with real witnesses.
    async fn real(count: usize, quorum: usize) -> (Self, Vec<Witness>) {
        let data = tempfile::tempdir().unwrap();
        let log = begin(data.path());
        let mut witnesses = Vec::new();
        for number in 1..=count {
            witnesses.push(Witness::new(number, &log).await);
        }
        let known: Vec<_> = witnesses.iter().map(|one| (one.key.clone(), one.url())).collect();
        (Self::new(data, log, &known, quorum), witnesses)
    }

    async fn start(&self) -> Registry {
        let file = Some(self.file.clone());
        Registry::start_with(self.data.path(), Access::Writable, file).await
    }

    fn process(&self) -> process::Process {
        process::start_with(self.data.path(), &["--witnesses".as_ref(), self.file.as_ref()])
    }

    /// The checkpoint that is shown, if any is. It always has the quorum, and no false line.
    async fn shown(&self, base: &str) -> Option<Seen> {
        let response = reqwest::get(format!("{base}/checkpoint")).await.unwrap();
        if response.status() == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
            return None;
        }
        assert_eq!(response.status(), 200);
        Some(self.policy.open(&response.bytes().await.unwrap()).unwrap())
    }

    async fn size(&self, base: &str) -> u64 {
        self.shown(base).await.map_or(0, |seen| seen.checkpoint.size)
    }

    /// Waits until the checkpoint that is shown is what is wanted.
    async fn until(&self, base: &str, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let begun = Instant::now();
        loop {
            match self.shown(base).await {
                Some(seen) if wanted(&seen) => return seen,
                seen => assert!(begun.elapsed() < PATIENCE, "{what}: {seen:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn covers(&self, base: &str, size: u64) -> Seen {
        let seen = self.until(base, "too small", |seen| seen.checkpoint.size >= size).await;
        assert_eq!(seen.checkpoint.size, size, "nothing else was logged");
        seen
    }
}

async fn text(base: &str, path: &str) -> (u16, String) {
    let response = reqwest::get(format!("{base}/{path}")).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn health_says(base: &str, wanted: &str) -> String {
    let begun = Instant::now();
    loop {
        let (status, said) = text(base, "healthz").await;
        assert_eq!(status, 200);
        assert!(said.starts_with("ok\n"), "{said}");
        if said.contains(wanted) {
            return said;
        }
        assert!(begun.elapsed() < PATIENCE, "{wanted}: {said}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Results of the node, one after the other: each counts at once.
fn results(world: &World, numbers: std::ops::Range<u64>) -> Vec<Envelope> {
    let before = |seq| (seq > 1).then_some(StatementId([1; 32]));
    let one = |seq| seal(&world.report(seq, before(seq), State::Running), &world.node_key);
    numbers.map(one).collect()
}

#[tokio::test]
async fn what_a_quorum_has_cosigned_is_shown_and_proves_every_statement() {
    let (bench, witnesses) = Bench::real(3, 2).await;
    let registry = bench.start().await;
    let world = world();
    prepare(&world, &registry.client).await;
    let header = agree(&world, &registry.client).await;
    let size = world.keys.len() as u64 + 4 + 3;
    let seen = bench.covers(&registry.base, size).await;
    assert!(seen.time.unwrap() > 1_700_000_000);
    // The third is not needed, and is taken along all the same.
    let keys = witnesses.iter().map(|witness| witness.key.clone()).collect();
    let all = Policy::new(ORIGIN, bench.policy.keys().to_vec(), keys, 3).unwrap();
    let is_all = |seen: &Seen| all.open(seen.note.to_string().as_bytes()).is_ok();
    bench.until(&registry.base, "two of three", is_all).await;
    let id = header.id().unwrap();
    let (status, proof) = text(&registry.base, &format!("v1/statements/{id}/proof")).await;
    assert_eq!(status, 200, "{proof}");
    let proof = Proof::read(proof.as_bytes()).unwrap();
    let (record, seen) = proof.check_statement(&id, &all).unwrap();
    assert_eq!((record.statement, record.version, seen.checkpoint.size), (id, 1, size));
    let health = health_says(&registry.base, "witness.example/3: 0 entries behind").await;
    assert!(health.contains(&format!("log {ORIGIN}: {size} entries, {size} of them shown\n")));
    assert_eq!(health.lines().count(), 2 + 3, "{health}");
    assert_eq!(health.matches("seconds ago\n").count(), 3, "nobody has a problem: {health}");
}

#[tokio::test]
async fn witnesses_that_are_away_hold_up_what_is_shown_and_nothing_else() {
    let (bench, mut witnesses) = Bench::real(3, 2).await;
    witnesses[2].stop().await;
    let registry = bench.start().await;
    let base = &registry.base;
    let world = world();
    registry.client.push(&world.identity("owner")).await.unwrap();
    let seen = bench.covers(base, 1).await;
    let lag = "witness.example/3: 1 entries behind, cosigned last not since the registry started; ";
    health_says(base, &format!("{lag}no answer\n")).await;

    witnesses[1].stop().await;
    // Who waited for witnesses would be told to come again.
    let (it, legal) = (world.identity("it"), world.identity("legal"));
    registry.client.push(&it).await.unwrap();
    registry.client.push(&legal).await.unwrap();
    health_says(base, "witness.example/2: 2 entries behind").await;
    let same = bench.shown(base).await.unwrap();
    assert_eq!(same.checkpoint, seen.checkpoint, "shown is what a quorum has cosigned");
    let (status, said) = text(base, "healthz").await;
    assert!(said.contains("3 entries, 1 of them shown"), "{status} {said}");
    let proof = format!("v1/statements/{}/proof", legal.id().unwrap());
    let (status, said) = text(base, &proof).await;
    assert!(status == 503 && said.contains("too few witnesses"), "{status} {said}");
    assert_eq!(text(base, "tile/0/000.p/1").await.0, 200);
    assert_eq!(text(base, "tile/0/000.p/3").await.0, 404, "what is not shown is not served");

    // Behind by two checkpoints, and away for long enough to be asked seldom.
    witnesses[2].start().await;
    let seen = bench.covers(base, 3).await;
    assert_eq!(seen.note.lines().len(), 3, "the log and two of three");
    assert_eq!(text(base, &proof).await.0, 200);
    witnesses[1].start().await;
    bench.until(base, "the last one is missing", |seen| seen.note.lines().len() == 4).await;
}

/// What a witness says that is not to be believed.
#[derive(Debug, Clone, Copy)]
enum Lie {
    /// A cosignature of something else, with its own key.
    OtherText,
    /// A good cosignature of somebody else.
    OtherKey,
    Garbage,
    Endless,
    Silent,
    /// It has seen a tree of this size, whatever it is asked.
    Size(u64),
    /// What it was asked for plus one.
    AlwaysMore,
    Status(u16),
    /// Goes somewhere else.
    Redirect,
}

const LIES: [(Lie, &str); 12] = [
    (Lie::OtherText, "status 200 without a cosignature"),
    (Lie::OtherKey, "status 200 without a cosignature"),
    (Lie::Garbage, "status 200 without a cosignature"),
    (Lie::Endless, "an answer of more than 65536 bytes"),
    (Lie::Silent, "no answer within 5 seconds"),
    (Lie::Size(0), "another tree of 0 entries"),
    (Lie::Size(1 << 40), "it says that it has cosigned 1099511627776 entries"),
    (Lie::AlwaysMore, "it says that it has cosigned"),
    (Lie::Status(409), "status 409"),
    (Lie::Status(404), "it does not watch this log"),
    (Lie::Status(422), "nothing shows that the log only grew"),
    (Lie::Redirect, "status 307"),
];

/// A witness that lies.
async fn liar(signer: Signer, lie: Lie) -> SocketAddr {
    let stranger = Signer::new("stranger", Algorithm::Cosignature, &[9; 32]).unwrap();
    let key = signer.verifier().name().to_owned();
    let renamed = Signer::new(&key, Algorithm::Cosignature, &[10; 32]).unwrap();
    let signers = std::sync::Arc::new((signer, stranger, renamed));
    let answer = move |body: String| {
        let signers = std::sync::Arc::clone(&signers);
        async move {
            let request = AddCheckpoint::read(body.as_bytes()).unwrap();
            let (signer, stranger, renamed) = &*signers;
            let text = request.note.text();
            let (status, body) = match lie {
                Lie::OtherText => (200, signer.sign("something else\n", 1).to_string()),
                Lie::OtherKey => {
                    (200, format!("{}{}", stranger.sign(text, 1), renamed.sign(text, 1)))
                }
                Lie::Garbage => (200, "{\"ok\":true}".into()),
                Lie::Endless => (200, "x".repeat(1 << 20)),
                Lie::Silent => {
                    sleep(PATIENCE).await;
                    (200, String::new())
                }
                Lie::Size(size) => (409, format!("{size}\n")),
                Lie::AlwaysMore => (409, format!("{}\n", request.checkpoint.size + 1)),
                Lie::Status(status) => (status, "no\n".into()),
                Lie::Redirect => (307, String::new()),
            };
            let response = Response::builder().status(status).header("location", "/elsewhere");
            response.body(Body::from(body)).unwrap()
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/add-checkpoint", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

#[tokio::test]
async fn a_witness_that_lies_adds_nothing_and_holds_up_nobody() {
    let mut checks = JoinSet::new();
    for (lie, said) in LIES {
        checks.spawn(check_lie(lie, said));
    }
    while let Some(done) = checks.join_next().await {
        done.unwrap();
    }
}

async fn check_lie(lie: Lie, said: &str) {
    let data = tempfile::tempdir().unwrap();
    let log = begin(data.path());
    let name = "witness.example/liar";
    let signer = Signer::new(name, Algorithm::Cosignature, &[8; 32]).unwrap();
    let key = signer.verifier().clone();
    let (one, two) = tokio::join!(Witness::new(1, &log), Witness::new(2, &log));
    let liar = (key, format!("http://{}/", liar(signer, lie).await));
    let known = [liar, (one.key.clone(), one.url()), (two.key.clone(), two.url())];
    let bench = Bench::new(data, log, &known, 2);
    let registry = bench.start().await;
    let world = world();
    for (size, who) in (1..).zip(["owner", "it", "legal"]) {
        registry.client.push(&world.identity(who)).await.unwrap();
        let seen = bench.covers(&registry.base, size).await;
        assert_eq!(seen.note.lines().len(), 3, "{lie:?}: the log and two that are honest");
    }
    let health = health_says(&registry.base, said).await;
    assert!(health.contains(&format!("witness {name}: 3 entries behind")), "{lie:?}: {health}");
}

#[tokio::test]
async fn a_quorum_with_a_liar_in_it_is_never_reached() {
    let data = tempfile::tempdir().unwrap();
    let log = begin(data.path());
    let signer = Signer::new("witness.example/liar", Algorithm::Cosignature, &[8; 32]).unwrap();
    let one = Witness::new(1, &log).await;
    let key = signer.verifier().clone();
    let address = liar(signer, Lie::OtherKey).await;
    let known = [(key, format!("http://{address}")), (one.key.clone(), one.url())];
    let bench = Bench::new(data, log, &known, 2);
    let registry = bench.start().await;
    registry.client.push(&world().identity("owner")).await.unwrap();
    health_says(&registry.base, "witness.example/1: 0 entries behind").await;
    health_says(&registry.base, "without a cosignature").await;
    assert_eq!(bench.size(&registry.base).await, 0);
    let (status, said) = text(&registry.base, "checkpoint").await;
    assert!(status == 503 && said.contains("too few witnesses"), "{said}");
}

#[tokio::test]
async fn what_is_shown_stays_after_a_restart_and_goes_on_where_each_witness_is() {
    let (bench, mut witnesses) = Bench::real(3, 2).await;
    let world = world();
    let registry = bench.start().await;
    registry.client.push(&world.identity("owner")).await.unwrap();
    let full = |seen: &Seen| seen.note.lines().len() == 4 && seen.checkpoint.size == 1;
    let before = bench.until(&registry.base, "one is missing", full).await;
    // All are away when the next statement comes, and when the registry starts again.
    for witness in &mut witnesses {
        witness.stop().await;
    }
    registry.client.push(&world.identity("it")).await.unwrap();
    registry.server.stop().await.unwrap();
    let registry = bench.start().await;
    assert_eq!(bench.shown(&registry.base).await.unwrap(), before);
    health_says(&registry.base, "2 entries, 1 of them shown").await;
    registry.client.push(&world.identity("legal")).await.unwrap();
    for witness in &mut witnesses {
        witness.start().await;
    }
    bench.covers(&registry.base, 3).await;
    // Without witnesses again, the newest is shown as it was signed.
    registry.server.stop().await.unwrap();
    let registry = Registry::start(bench.data.path()).await;
    registry.client.push(&world.identity("farm")).await.unwrap();
    let (_, note) = text(&registry.base, "checkpoint").await;
    assert!(bench.policy.open(note.as_bytes()).is_err(), "nobody has cosigned it");
    registry.server.stop().await.unwrap();
    // And with them, it does not go back before it goes on.
    let registry = bench.start().await;
    let begun = Instant::now();
    loop {
        let (_, note) = text(&registry.base, "checkpoint").await;
        let size: u64 = note.lines().nth(1).unwrap().parse().unwrap();
        assert_eq!(size, 4);
        if bench.policy.open(note.as_bytes()).is_ok() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{note}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_witness_that_is_ahead_is_followed_up_to_where_the_log_is() {
    let (bench, mut witnesses) = Bench::real(1, 1).await;
    let witness = &mut witnesses[0];
    let world = world();
    witness.stop().await;
    let registry = bench.start().await;
    for who in ["owner", "it", "legal"] {
        registry.client.push(&world.identity(who)).await.unwrap();
    }
    registry.server.stop().await.unwrap();
    // It got the newest checkpoint, and the registry was gone before it had the answer.
    witness.start().await;
    let signed = fs::read(bench.data.path().join("log/signed")).unwrap();
    assert_eq!(witness.post(0, &Note::read(&signed).unwrap()).await, StatusCode::OK);
    let registry = bench.start().await;
    assert_eq!(bench.size(&registry.base).await, 0);
    bench.covers(&registry.base, 3).await;
    registry.client.push(&world.identity("farm")).await.unwrap();
    bench.covers(&registry.base, 4).await;

    // Somebody with the log's key has signed another history for this witness.
    let secret = fs::read_to_string(bench.data.path().join("log.key")).unwrap();
    let signer = Signer::read(secret.trim_end()).unwrap();
    let fresh = Witness::new(2, signer.verifier()).await;
    let checkpoint =
        Checkpoint { origin: ORIGIN.into(), size: 100, root: [7; 32], extensions: vec![] };
    let mut other = Note::new(checkpoint.to_string()).unwrap();
    other.add(signer.sign(other.text(), 0)).unwrap();
    assert_eq!(fresh.post(0, &other).await, StatusCode::OK);
    registry.server.stop().await.unwrap();
    let known = [(witness.key.clone(), witness.url()), (fresh.key.clone(), fresh.url())];
    let bench = Bench::new(bench.data, signer.verifier().clone(), &known, 1);
    let registry = bench.start().await;
    let wanted = "it says that it has cosigned 100 entries, more than the log has";
    health_says(&registry.base, wanted).await;
    // The other one makes the quorum, and what is shown is the log's own history.
    registry.client.push(&seal(&world.farm(1), world.key("farm"))).await.unwrap();
    bench.covers(&registry.base, 5).await;
}

#[tokio::test]
async fn a_registry_killed_at_any_time_shows_no_less_and_soon_all_that_it_acknowledged() {
    let (bench, witnesses) = Bench::real(3, 3).await;
    let world = world();
    let first = bench.process();
    prepare(&world, &first.client).await;
    agree(&world, &first.client).await;
    drop(first);
    let mut last = 0;
    let mut logged = world.keys.len() as u64 + 4 + 3;
    for round in 0..10_u64 {
        let mut process = bench.process();
        let base = process.client.bases()[0].clone();
        let shown = bench.size(&base).await;
        assert!(shown >= last, "round {round}: {shown} after {last}");
        let batch = results(&world, round * 10 + 1..round * 10 + 11);
        let pushed = process.client.push_results(&batch).await.unwrap();
        assert!(pushed.refused.is_empty());
        logged += 10;
        // Here or there between the signature, the witnesses and the file that is shown.
        sleep(Duration::from_millis(round * 3)).await;
        last = bench.size(&base).await;
        process.child.kill().unwrap();
        process.child.wait().unwrap();
    }
    let process = bench.process();
    let base = process.client.bases()[0].clone();
    let seen = bench.until(&base, "too small", |seen| seen.checkpoint.size == logged).await;
    assert_eq!(seen.note.lines().len(), 1 + witnesses.len());
    for id in results(&world, 1..101).iter().map(|result| result.id().unwrap()) {
        let (_, proof) = text(&base, &format!("v1/statements/{id}/proof")).await;
        Proof::read(proof.as_bytes()).unwrap().check_statement(&id, &bench.policy).unwrap();
    }
    for witness in witnesses {
        // A log that had signed two histories would have left evidence with one of them.
        let state = fs::read_dir(witness.folder.path().join("state")).unwrap();
        for entry in state.map(|entry| entry.unwrap().path().join("evidence")) {
            assert!(fs::read_dir(entry).map_or(0, Iterator::count) == 0);
        }
    }
}

#[tokio::test]
async fn a_policy_that_does_not_fit_the_log_stops_the_registry() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("policy");
    let start = || {
        let mut command = process::registryd(data.path());
        command.args(["--listen", "127.0.0.1:0", "--data"]).arg(data.path());
        let output = command.arg("--witnesses").arg(&file).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    fs::write(&file, "quorum none\n").unwrap();
    assert!(start().contains("no log for witnesses to watch"));
    let log = begin(data.path());
    let other = Signer::new(ORIGIN, Algorithm::Ed25519, &[7; 32]).unwrap();
    let witness = Signer::new("witness.example/1", Algorithm::Cosignature, &[8; 32]).unwrap();
    let key = witness.verifier();
    for (text, reason) in [
        (format!("log {log}\nquorum nobody\n"), "line 2"),
        (format!("log {}\nquorum none\n", other.verifier()), "does not name the key"),
        (format!("log {log}\nwitness w {key}\nquorum w\n"), "has no URL"),
        (format!("log {log}\nwitness w {key} ftp://x\nquorum w\n"), "the URL of the witness"),
        (String::new(), "ends with a newline"),
    ] {
        fs::write(&file, text).unwrap();
        let said = start();
        assert!(said.contains(reason) && said.contains("policy"), "{said}");
    }
    fs::remove_file(&file).unwrap();
    assert!(start().contains("reading the policy"));
}

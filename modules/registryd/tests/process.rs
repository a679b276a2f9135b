//! The program itself: ready line, kill, restart, rebuild, orderly end.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{
    World, agree,
    database::in_postgres,
    prepare,
    process::{Process, registryd, start},
    seal, world,
};
use contract::report::State;
use registry_api::{Client, Fetched, client::ResultFilter};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
};

fn send_terminate(process: &Process) {
    let pid = process.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
}

fn terminate(process: &mut Process) -> bool {
    send_terminate(process);
    process.child.wait().unwrap().success()
}

/// Everything that a reader can see of the world.
async fn picture(world: &World, client: &Client) -> String {
    let bundle = client.bundle_for(&world.contract(), &world.node_id(), None).await.unwrap();
    let Fetched::New { body: bundle, etag } = bundle else { panic!() };
    let pretty = |value: serde_json::Value| serde_json::to_string_pretty(&value).unwrap();
    [
        etag,
        pretty(serde_json::to_value(bundle).unwrap()),
        pretty(serde_json::to_value(client.farms().await.unwrap()).unwrap()),
        pretty(serde_json::to_value(client.nodes(None).await.unwrap()).unwrap()),
        pretty(serde_json::to_value(client.contract(&world.contract()).await.unwrap()).unwrap()),
        pretty(
            serde_json::to_value(client.results(&ResultFilter::default()).await.unwrap()).unwrap(),
        ),
    ]
    .join("\n")
}

async fn fill(world: &World, client: &Client) {
    prepare(world, client).await;
    let header = agree(world, client).await;
    // Several versions and decisions, so that their order matters.
    client.push(&seal(&world.farm(2), world.key("farm"))).await.unwrap();
    client.push(&seal(&world.node(2), &world.node_key)).await.unwrap();
    let second = seal(&world.header(2, header.id().ok()), world.key("owner"));
    client.push(&second).await.unwrap();
    let reject = world.decision("legal", &second, contract::decision::Decision::Reject);
    client.push(&seal(&reject, world.key("legal"))).await.unwrap();
    let mut better = world.header(2, header.id().ok());
    better.title = "Better".into();
    client.push(&seal(&better, world.key("owner"))).await.unwrap();
    client.push(&seal(&world.cancel(), world.key("owner"))).await.unwrap();
    let first = seal(&world.report(1, None, State::Running), &world.node_key);
    let other = seal(&world.report(1, None, State::Failed), &world.node_key);
    client.push_results(&[first, other]).await.unwrap();
    client.heartbeat(&seal(&world.heartbeat("b1", 1, 0), &world.node_key)).await.unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_a_rebuild_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let world = world();
    let mut process = start(data.path());
    fill(&world, &process.client).await;
    let before = picture(&world, &process.client).await;
    process.child.kill().unwrap();
    process.child.wait().unwrap();

    let mut process = start(data.path());
    assert_eq!(picture(&world, &process.client).await, before);
    assert!(terminate(&mut process), "SIGTERM ends it in order");

    let rebuilt =
        registryd(data.path()).args(["rebuild", "--data"]).arg(data.path()).output().unwrap();
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    let process = start(data.path());
    assert_eq!(picture(&world, &process.client).await, before);
    let contract = process.client.contract(&world.contract()).await.unwrap();
    assert_eq!(contract.summary.state.name(), "running");
}

#[test]
fn a_request_that_runs_is_answered_before_the_end() {
    let data = tempfile::tempdir().unwrap();
    let (world, mut process) = (world(), start(data.path()));
    let base = process.client.bases()[0].clone();
    let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    let body = serde_json::to_vec(&world.identity("owner")).unwrap();
    let head = format!(
        "POST /v1/statements HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    // It has begun to wait for the body.
    assert_eq!(lines.next().unwrap().unwrap(), "HTTP/1.1 100 Continue");
    send_terminate(&process);
    stream.write_all(&body).unwrap();
    assert!(lines.any(|line| line.unwrap() == "HTTP/1.1 201 Created"));
    assert!(process.child.wait().unwrap().success());
}

/// A second registry on the same data emptied the staging folder under the first.
#[tokio::test]
async fn a_directory_belongs_to_one_process() {
    let data = tempfile::tempdir().unwrap();
    let mut first = start(data.path());
    let staged = data.path().join("content/staging/staged");
    std::fs::write(&staged, "half").unwrap();
    let name = data.path().display().to_string();
    let again = ["--listen", "127.0.0.1:0", "--data", &name];
    for arguments in [&again[..], &["rebuild", "--data", &name]] {
        let second = registryd(data.path()).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(!second.status.success(), "{arguments:?}");
        assert!(text.contains(&name) && text.contains("stop it first"), "{text}");
    }
    assert!(staged.exists(), "nothing was touched under the first");
    assert!(first.client.farms().await.is_ok(), "the first still serves");
    // What is left of one that was killed keeps nobody out.
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let rebuilt = registryd(data.path()).args(["rebuild", "--data", &name]).output().unwrap();
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    assert!(start(data.path()).client.farms().await.is_ok());
}

/// Copying the one file after a stop lost what was only in the log beside it.
#[tokio::test]
async fn after_a_clean_stop_everything_is_in_one_file() {
    if in_postgres() {
        // There is no such file.
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let world = world();
    let mut process = start(data.path());
    fill(&world, &process.client).await;
    let before = picture(&world, &process.client).await;
    let log = data.path().join("registry.sqlite3-wal");
    assert!(std::fs::metadata(&log).unwrap().len() > 0, "there was something to do");
    assert!(terminate(&mut process));
    assert_eq!(std::fs::metadata(&log).map_or(0, |found| found.len()), 0);

    let copy = tempfile::tempdir().unwrap();
    let file = "registry.sqlite3";
    std::fs::copy(data.path().join(file), copy.path().join(file)).unwrap();
    let process = start(copy.path());
    assert_eq!(picture(&world, &process.client).await, before);
}

#[test]
fn a_wrong_command_is_explained() {
    let empty = tempfile::tempdir().unwrap();
    let missing = registryd(empty.path()).output().unwrap();
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("--data"));
    let help = registryd(empty.path()).arg("--help").output().unwrap();
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    let words = [
        "--data",
        "--database",
        "--listen",
        "--network",
        "--content-writable",
        "--witnesses",
        "rebuild",
    ];
    for word in words {
        assert!(text.contains(word), "{word}");
    }
    let nothing =
        registryd(empty.path()).args(["rebuild", "--data"]).arg(empty.path()).output().unwrap();
    assert!(!nothing.status.success());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = tempfile::tempdir().unwrap();
    let mut child = registryd(data.path())
        .args(["--listen", &address, "--data"])
        .arg(data.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(!child.wait().unwrap().success());
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains(&address), "{text}");
}

//! Clients that want to bring the registry down: it refuses them, and serves the others.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{Registry, world};
use registry_api::paths;
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// What a client of the node waits at most.
const PATIENCE: Duration = Duration::from_secs(30);

fn connect(base: &str) -> TcpStream {
    let stream = TcpStream::connect(base.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The status of the answer to a request that may break off.
fn status(base: &str, request: &[u8]) -> Option<u16> {
    let mut stream = connect(base);
    // The answer may come, and the connection end, before all is said.
    drop(stream.write_all(request));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    let text = String::from_utf8_lossy(&answer);
    text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

fn request(line: &str, headers: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: registry.test\r\nConnection: close\r\n{headers}\r\n").into()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_without_being_read() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    let base = registry.base.clone();
    let checks = tokio::task::spawn_blocking(move || {
        let check = |what: &str, request: &[u8], expected: Option<u16>| {
            assert_eq!(status(&base, request), expected, "{what}");
        };
        let post = format!("POST {}", paths::STATEMENTS);
        check("a good one", &request("GET /healthz", ""), Some(200));
        let gigabyte = request(&post, "Content-Length: 1073741824\r\n");
        check("a length of a gigabyte", &gigabyte, Some(413));
        let mut chunked = request(&post, "Transfer-Encoding: chunked\r\n");
        let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
        for _ in 0..4 {
            chunked.extend_from_slice(&chunk);
        }
        check("chunks without an end", &chunked, Some(413));
        let documents = format!("PUT /v1/contracts/{}/versions/1/documents", "0".repeat(64));
        let large = request(&documents, "Content-Length: 67108865\r\n");
        check("documents above their bound", &large, Some(413));
        let fields: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
        check("a hundred fields", &request("GET /healthz", &fields), Some(431));
        let long = format!("X: {}\r\n", "y".repeat(200_000));
        check("a long field", &request("GET /healthz", &long), Some(431));
        let url = format!("GET /{}", "y".repeat(70_000));
        let refused = status(&base, &request(&url, ""));
        assert!(matches!(refused, Some(414 | 431)), "a long address: {refused:?}");
        check("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", Some(400));
        let deep = "[".repeat(100_000);
        let body = format!("Content-Length: {}\r\n", deep.len());
        let nested = [request(&post, &body), deep.into_bytes()].concat();
        check("nesting without an end", &nested, Some(400));
        check("a good one after all", &request("GET /healthz", ""), Some(200));
    });
    checks.await.unwrap();
    // And it still takes statements.
    let world = world();
    assert!(registry.client.push(&world.identity("owner")).await.unwrap().new);
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// In a process of its own: it has as many descriptors as the hostile client.
fn start(data: &Path) -> (Process, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_registryd"))
        .args(["--listen", "127.0.0.1:0", "--network", common::NETWORK, "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = Vec::new();
    let mut out = child.stdout.take().unwrap();
    let mut byte = [0];
    while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    let line = String::from_utf8(line).unwrap();
    let base = line.strip_prefix("registryd: listening on ").unwrap().to_owned();
    (Process(child), base)
}

#[test]
fn those_who_hold_every_connection_are_put_out_and_others_served() {
    let data = tempfile::tempdir().unwrap();
    let (mut registry, base) = start(data.path());
    // More than the registry takes at a time, below what a process may open. Half of them begin a
    // request, none ends it.
    let held: Vec<TcpStream> = (0..960)
        .map(|number| {
            let mut stream = connect(&base);
            if number % 2 == 0 {
                stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ").unwrap();
            }
            stream
        })
        .collect();
    let began = Instant::now();
    assert_eq!(status(&base, &request("GET /healthz", "")), Some(200));
    // Those who came last had little time. This is far from both what it takes and what the first
    // of them were given.
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
    drop(held);
    assert_eq!(status(&base, &request("GET /healthz", "")), Some(200));
    assert!(registry.0.try_wait().unwrap().is_none(), "it still runs");
}

//! Clients that want to bring the registry down: it refuses them, and serves the others.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{Registry, world};
use registry_api::paths;
use rustix::net::{AddressFamily, SocketType, bind, connect as connect_from, socket};
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What a client of the node waits at most.
const PATIENCE: Duration = Duration::from_secs(30);

fn connect(base: &str) -> TcpStream {
    connect_as(1, base)
}

/// A connection from 127.0.0.`host`: each is a client of its own.
fn connect_as(host: u8, base: &str) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0))).unwrap();
    let to: SocketAddr = base.trim_start_matches("http://").parse().unwrap();
    connect_from(&socket, &to).unwrap();
    let stream = TcpStream::from(socket);
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

/// A process may open 1024 files, of which each of these tests needs nearly all.
static MANY_SOCKETS: Mutex<()> = Mutex::new(());

#[test]
fn those_who_hold_every_connection_are_put_out_and_others_served() {
    let _alone = MANY_SOCKETS.lock().unwrap_or_else(PoisonError::into_inner);
    let data = tempfile::tempdir().unwrap();
    let (mut registry, base) = start(data.path());
    // More than the registry takes at a time, from addresses that each take less than their share,
    // and below what a process may open. Half of them begin a request, none ends it.
    let held: Vec<TcpStream> = (0..960_u16)
        .map(|number| {
            let mut stream = connect_as(u8::try_from(2 + number % 4).unwrap(), &base);
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

/// Begins a `PUT` that has no end.
fn begin_put(host: u8, base: &str, path: &str) -> TcpStream {
    let mut stream = connect_as(host, base);
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: registry.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    );
    // The registry may have closed it already.
    drop(stream.write_all(head.as_bytes()));
    stream
}

/// 950 uploads of known content, a byte now and then, shut everybody out for an hour.
#[test]
fn one_client_that_uploads_without_an_end_takes_its_share_and_others_are_served() {
    let _alone = MANY_SOCKETS.lock().unwrap_or_else(PoisonError::into_inner);
    let data = tempfile::tempdir().unwrap();
    let (mut registry, base) = start(data.path());
    let path = paths::flist(&contract::FlistId::of(b"body"));
    let put = |body: &str| {
        let length = format!("Content-Length: {}\r\n", body.len());
        let mut whole = request(&format!("PUT {path}"), &length);
        whole.extend_from_slice(body.as_bytes());
        status(&base, &whole)
    };
    assert_eq!(put("body"), Some(201));
    let held: Vec<TcpStream> = (0..950).map(|_| begin_put(2, &base, &path)).collect();
    assert_eq!(status(&base, &request("GET /healthz", "")), Some(200));
    assert_eq!(put("body"), Some(200), "known content is taken as before");
    // Each is answered or closed, though none of them ends what it began.
    let mut answered = 0;
    for mut stream in held {
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        if answer.starts_with(b"HTTP/1.1 200") {
            assert!(String::from_utf8_lossy(&answer).contains("connection: close"));
            answered += 1;
        }
    }
    assert!(answered > 0, "some had a connection");
    assert!(registry.0.try_wait().unwrap().is_none(), "it still runs");
}

#[test]
fn one_client_does_not_hold_every_place_for_uploads() {
    let data = tempfile::tempdir().unwrap();
    let (_registry, base) = start(data.path());
    let path = |body: &[u8]| paths::flist(&contract::FlistId::of(body));
    let held: Vec<TcpStream> = (0..16).map(|_| begin_put(2, &base, &path(b"never"))).collect();
    let whole = |host: u8, body: &[u8]| {
        let length = format!("Content-Length: {}\r\n", body.len());
        let mut stream = connect_as(host, &base);
        let head = request(&format!("PUT {}", path(body)), &length);
        stream.write_all(&[&head, body].concat()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.get(9..12).unwrap().parse::<u16>().unwrap()
    };
    assert_eq!(whole(1, b"one"), 201);
    assert_eq!(whole(1, b"two"), 201);
    // Those beyond the share were told, and those who hold a place are told when they took too long.
    let mut found: Vec<u16> = held
        .into_iter()
        .map(|mut stream| {
            let mut answer = [0; 12];
            stream.set_read_timeout(None).unwrap();
            stream.read_exact(&mut answer).unwrap();
            String::from_utf8_lossy(&answer[9..]).parse().unwrap()
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, [vec![408; 8], vec![503; 8]].concat());
    assert_eq!(whole(2, b"three"), 201, "its places are free again");
}

//! Calls over real sockets: answers, refusals, descriptors, stuck and broken peers.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is tests"
)]

use ipc::{Call, CallError, Client, Failure, Method, Outcome};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::{fd::AsFd, unix::fs::PermissionsExt, unix::net::UnixStream},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

#[derive(Debug, Serialize, Deserialize)]
struct Echo {
    text: String,
}
impl Method for Echo {
    const NAME: &'static str = "io.zeroos.test.Echo";
    type Reply = String;
}

/// Appends to the file that travels with it and gives it back.
#[derive(Debug, Serialize, Deserialize)]
struct Append {
    text: String,
}
impl Method for Append {
    const NAME: &'static str = "io.zeroos.test.Append";
    type Reply = Done;
}

#[derive(Debug, Serialize, Deserialize)]
struct Done {}

#[derive(Debug, Serialize, Deserialize)]
struct Missing {}
impl Method for Missing {
    const NAME: &'static str = "io.zeroos.test.Missing";
    type Reply = Done;
}

fn handler(call: Call) -> Outcome {
    match call.method() {
        Echo::NAME => call.answer(|Echo { text }| match text.as_str() {
            "no" => Err(Failure::new("Unwilling", "not today")),
            _ => Ok(text),
        }),
        Append::NAME => call.answer_with_fds(|Append { text }, fds| {
            let [fd] = fds.try_into().map_err(|_| Failure::new("NoFile", "give one file"))?;
            let mut file = File::from(fd);
            file.write_all(text.as_bytes())?;
            Ok::<_, Failure>((Done {}, vec![file.into()]))
        }),
        _ => call.unknown(),
    }
}

fn server() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/test.sock");
    let listener = ipc::listen(&path).unwrap();
    thread::spawn(move || ipc::serve(&listener, handler));
    (directory, path)
}

fn echo(text: &str) -> Echo {
    Echo { text: text.to_owned() }
}

#[test]
fn one_connection_carries_many_calls_and_survives_refusals() {
    let (_directory, path) = server();
    let mut client = Client::connect(&path).unwrap();
    assert_eq!(client.call(&echo("a")).unwrap(), "a");
    assert!(client.call(&echo("no")).unwrap_err().is_refusal("Unwilling"));
    assert!(client.call(&Missing {}).unwrap_err().is_refusal("MethodNotFound"));
    let long = "x".repeat(ipc::MESSAGE_MAX / 2);
    assert_eq!(client.call(&echo(&long)).unwrap(), long);
    assert_eq!(ipc::call(&path, &echo("b")).unwrap(), "b");
}

#[test]
fn a_request_above_the_bound_is_not_sent() {
    let (_directory, path) = server();
    let mut client = Client::connect(&path).unwrap();
    let error = client.call(&echo(&"x".repeat(ipc::MESSAGE_MAX))).unwrap_err();
    assert!(matches!(error, CallError::Protocol { .. }), "{error:?}");
    assert_eq!(client.call(&echo("still here")).unwrap(), "still here");
}

#[test]
fn descriptors_travel_in_both_directions() {
    let (_directory, path) = server();
    let mut file = tempfile::tempfile().unwrap();
    let mut client = Client::connect(&path).unwrap();
    let append = Append { text: "hello".to_owned() };
    let (Done {}, fds) = client.call_with_fds(&append, &[file.as_fd()]).unwrap();
    let mut back = File::from(fds.into_iter().next().unwrap());
    back.write_all(b" again").unwrap();
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello again");
    assert!(client.call(&append).unwrap_err().is_refusal("NoFile"));
}

#[test]
fn a_peer_that_does_not_answer_costs_only_the_time_limit() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut client = Client::from_stream(ours).with_timeout(Duration::from_millis(20));
    let error = client.call(&echo("x")).unwrap_err();
    let CallError::Broken { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn garbage_gets_an_error_and_other_connections_do_not_notice() {
    let (_directory, path) = server();
    let mut raw = UnixStream::connect(&path).unwrap();
    raw.write_all(b"not json\0").unwrap();
    let mut answer = [0; 256];
    let n = raw.read(&mut answer).unwrap();
    assert!(answer[..n].starts_with(b"{\"error\":\"io.zeroos.Failed\""));
    assert_eq!(ipc::call(&path, &echo("x")).unwrap(), "x");
}

#[test]
fn connections_above_the_bound_are_closed_and_places_come_back() {
    let (_directory, path) = server();
    let mut held: Vec<_> = (0..ipc::CONNECTIONS_MAX)
        .map(|_| {
            let mut client = Client::connect(&path).unwrap();
            client.call(&echo("in")).unwrap();
            client
        })
        .collect();
    assert!(matches!(ipc::call(&path, &echo("out")), Err(CallError::Broken { .. })));
    held.pop();
    // The place is free once the server's thread has seen the end of the connection.
    let limit = Instant::now() + Duration::from_secs(60);
    while ipc::call(&path, &echo("in again")).is_err() {
        assert!(Instant::now() < limit, "no place came back");
        thread::yield_now();
    }
}

#[test]
fn a_stale_socket_is_replaced_and_only_its_owner_may_connect() {
    let (_directory, path) = server();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let listener = ipc::listen(&path).unwrap();
    thread::spawn(move || ipc::serve(&listener, handler));
    assert_eq!(ipc::call(&path, &echo("second")).unwrap(), "second");
}

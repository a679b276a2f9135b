//! Sinks of every kind on the loopback address: what counts as taken, and what does not.

use super::*;
use contract::workload::Sink;
use futures_util::FutureExt as _;
use node_api::init::Line;
use std::{
    net::{Ipv4Addr, UdpSocket as StdUdp},
    path::Path,
};
use tokio::net::TcpListener;
use tokio_rustls::rustls::RootCertStore;
use tokio_tungstenite::accept_async;

pub(crate) mod tls;

/// Nothing here takes a tenth of it.
const LIMIT: Duration = Duration::from_secs(30);

fn origin() -> Origin {
    Origin { node: "n1".into(), contract: "c1".into(), workload: "web".into() }
}

fn lines(texts: &[&str]) -> Vec<Line> {
    let line = |(at, text): (usize, &&str)| Line {
        number: at as u64 + 1,
        time_ms: 0,
        n_dropped: 0,
        text: (*text).to_owned(),
    };
    texts.iter().enumerate().map(line).collect()
}

fn run<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(LIMIT, body).await.expect("it takes too long") })
}

/// A socket as netd makes it, but here.
pub(crate) fn free_socket(protocol: Protocol) -> OwnedFd {
    let kind = match protocol {
        Protocol::Tcp => rustix::net::SocketType::STREAM,
        Protocol::Udp => rustix::net::SocketType::DGRAM,
    };
    let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    rustix::net::socket_with(rustix::net::AddressFamily::INET, kind, flags, None).unwrap()
}

async fn open(address: SocketAddr, url: &str) -> Result<Connection, SinkError> {
    open_by(address, url, tls::roots()).await
}

async fn open_by(
    address: SocketAddr,
    url: &str,
    roots: RootCertStore,
) -> Result<Connection, SinkError> {
    let nobody = |_: &str, _: u16| panic!("nothing is looked up");
    let reach = Reach::by(Path::new(""), Arc::new(nobody), roots);
    let sink = Sink { to: url.into() };
    let target = sink.target().unwrap();
    let protocol = match target.protocol {
        SinkProtocol::SyslogUdp => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    Connection::over(free_socket(protocol), address, &target, &reach.tls).await
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn lines_do_not_wait_for_an_acknowledgement_of_those_before() {
    run(async {
        let (_listener, address) = listener().await;
        let connection = open(address, "syslog+tcp://h").await.unwrap();
        let Connection::Syslog(stream) = connection else { panic!("it is a stream") };
        assert!(stream.nodelay().unwrap());
    });
}

#[test]
fn datagrams_hold_one_message_each() {
    let server = StdUdp::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    let address = server.local_addr().unwrap();
    run(async {
        let mut connection = open(address, "syslog://h").await.unwrap();
        connection.send(&origin(), &lines(&["one", "two"])).await.unwrap();
    });
    for (number, text) in [(1, "one"), (2, "two")] {
        let mut bytes = [0; 1024];
        let n = server.recv(&mut bytes).unwrap();
        let said = str::from_utf8(&bytes[..n]).unwrap();
        assert!(said.ends_with(&format!("[meta sequenceId=\"{number}\"] {text}")), "{said}");
    }
}

#[test]
fn messages_on_a_stream_are_counted_in_octets() {
    run(async {
        let (listener, address) = listener().await;
        let mut connection = open(address, "syslog+tcp://h").await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        connection.send(&origin(), &lines(&["a\nb", "Käse"])).await.unwrap();
        drop(connection);
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        for wanted in ["a b", "Käse"] {
            let (count, rest) = text.split_once(' ').unwrap();
            let (message, rest) = rest.split_at(count.parse().unwrap());
            assert!(message.starts_with("<134>1 ") && message.ends_with(wanted), "{message}");
            text = rest.to_owned();
        }
        assert!(text.is_empty());
    });
}

#[test]
fn a_sink_that_goes_is_noticed_while_nothing_is_sent() {
    run(async {
        for url in ["syslog+tcp://h", "redis://h/c"] {
            let (listener, address) = listener().await;
            let mut connection = open(address, url).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            drop(server);
            assert!(matches!(connection.watch().await, SinkError::Closed), "{url}");
        }
    });
}

/// What the server says to two messages, and whether they count as taken.
fn redis_says(answer: &'static str) -> Result<(), SinkError> {
    run(async {
        let (listener, address) = listener().await;
        let mut connection = open(address, "redis://h/shop").await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let serve = async {
            let mut request = vec![0; 4096];
            let n = server.read(&mut request).await.unwrap();
            let request = String::from_utf8(request[..n].to_vec()).unwrap();
            assert!(request.starts_with("*3\r\n$7\r\nPUBLISH\r\n$4\r\nshop\r\n$"), "{request}");
            assert_eq!(request.matches("\"line\":").count(), 2);
            server.write_all(answer.as_bytes()).await.unwrap();
            server.shutdown().await.unwrap();
            // Reads on, so that nothing is reset before it is read.
            server.read_to_end(&mut Vec::new()).await.unwrap();
        };
        let both = lines(&["one", "two"]);
        let send = async {
            let sent = connection.send(&origin(), &both).await;
            drop(connection);
            sent
        };
        tokio::join!(send, serve).0
    })
}

#[test]
fn redis_has_taken_what_it_has_answered() {
    redis_says(":0\r\n:3\r\n").unwrap();
    assert!(matches!(redis_says(":0\r\n"), Err(SinkError::Closed)));
    assert!(
        matches!(redis_says("-NOAUTH\r\n:0\r\n"), Err(SinkError::Refused(text)) if text == "NOAUTH")
    );
    assert!(matches!(redis_says("HTTP/1.1 400\r\n"), Err(SinkError::Nonsense)));
    assert!(matches!(redis_says(":0\r\n:3\r\n:4\r\n"), Err(SinkError::Nonsense)));
}

#[test]
fn a_websocket_has_taken_what_is_before_its_pong() {
    run(async {
        let (listener, address) = listener().await;
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut server = accept_async(stream).await.unwrap();
            let mut heard = Vec::new();
            for _ in 0..2 {
                heard.push(server.next().await.unwrap().unwrap().into_text().unwrap().to_string());
            }
            assert!(matches!(server.next().await.unwrap().unwrap(), Message::Ping(_)));
            server.flush().await.unwrap();
            server.close(None).await.unwrap();
            heard
        };
        let send = async {
            let mut connection = open(address, "ws://logs.example/in?x=1").await.unwrap();
            connection.send(&origin(), &lines(&["one", "two"])).await.unwrap();
            connection.watch().await
        };
        let (ended, heard) = tokio::join!(send, serve);
        assert!(matches!(ended, SinkError::Closed), "{ended}");
        assert!(heard[0].ends_with(r#""number":1,"time_ms":0,"line":"one"}"#), "{}", heard[0]);
        assert!(heard[1].ends_with(r#""line":"two"}"#), "{}", heard[1]);
    });
}

#[test]
fn what_is_no_websocket_gets_no_line() {
    for (url, answer) in [
        ("ws://h/", "HTTP/1.1 200 OK\r\n\r\n"),
        ("ws://h/", "HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1/\r\n\r\n"),
        ("ws://h/", "\0\0\0\0"),
        ("wss://h/", "HTTP/1.1 400 Bad Request\r\n\r\n"),
    ] {
        run(async {
            let (listener, address) = listener().await;
            let serve = async {
                let (mut server, _) = listener.accept().await.unwrap();
                assert!(server.read(&mut [0; 1024]).await.unwrap() > 0);
                server.write_all(answer.as_bytes()).await.unwrap();
                server.shutdown().await.unwrap();
                // The rest of what the other side says, until it goes.
                server.read_to_end(&mut Vec::new()).await.ok();
            };
            let connect = async { open(address, url).await.map(drop) };
            let (opened, ()) = tokio::join!(connect, serve);
            assert!(matches!(opened, Err(SinkError::Handshake(_) | SinkError::Tls(_))), "{url}");
        });
    }
}

#[test]
fn nobody_listens() {
    run(async {
        let (listener, address) = listener().await;
        drop(listener);
        assert!(matches!(open(address, "redis://h/c").await, Err(SinkError::Connect { .. })));
    });
}

/// A server that shows a certificate of the test's authority for `logs.example`.
fn tls_says(url: &str, roots: RootCertStore) -> (Result<(), SinkError>, bool) {
    run(async {
        let (listener, address) = listener().await;
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = tls::acceptor().accept(stream).await else { return false };
            let mut server = accept_async(stream).await.unwrap();
            let text = server.next().await.unwrap().unwrap().into_text().unwrap();
            server.next().await.unwrap().unwrap();
            server.flush().await.unwrap();
            text.contains("one")
        };
        let send = async {
            let mut connection = open_by(address, url, roots).await?;
            connection.send(&origin(), &lines(&["one"])).await
        };
        tokio::join!(send, serve)
    })
}

#[test]
fn only_a_server_that_an_authority_vouches_for_gets_a_line() {
    let (sent, heard) = tls_says("wss://logs.example/in", tls::roots());
    sent.unwrap();
    assert!(heard);
    let browsers = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for (url, roots) in
        [("wss://logs.example/in", browsers), ("wss://other.example/in", tls::roots())]
    {
        let (sent, heard) = tls_says(url, roots);
        assert!(matches!(sent, Err(SinkError::Tls(_))) && !heard, "{url}");
    }
}

/// Each new line asks who waits for the server, and its pongs count as heard.
#[test]
fn a_websocket_that_takes_many_batches_stays() {
    run(async {
        let (listener, address) = listener().await;
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut server = accept_async(stream).await.unwrap();
            while let Some(Ok(_)) = server.next().await {}
        };
        let send = async {
            let mut connection = open(address, "ws://h").await.unwrap();
            for _ in 0..=MESSAGES_MAX {
                connection.send::<Line>(&origin(), &[]).await.unwrap();
                assert!(connection.watch().now_or_never().is_none());
            }
        };
        tokio::join!(send, serve);
    });
}

#[test]
fn a_websocket_that_talks_without_end_is_left() {
    run(async {
        let (listener, address) = listener().await;
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut server = accept_async(stream).await.unwrap();
            while server.send(Message::text("and another thing")).await.is_ok() {}
        };
        let watch = async {
            let mut connection = open(address, "ws://h").await.unwrap();
            connection.watch().await
        };
        let (ended, ()) = tokio::join!(watch, serve);
        assert!(matches!(ended, SinkError::Nonsense), "{ended}");
    });
}

/// The other side's machine is there, but takes nothing any more.
#[test]
fn syslog_over_tcp_has_taken_what_is_acknowledged() {
    run(async {
        let (listener, address) = listener().await;
        let mut connection = open(address, "syslog+tcp://h").await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let text = "x".repeat(60 << 10);
        let (origin, lines) = (origin(), lines(&[&text]));
        let mut n_taken = 0;
        loop {
            let send = connection.send(&origin, &lines);
            match timeout(Duration::from_millis(500), send).await {
                Ok(sent) => sent.unwrap(),
                Err(_) => break,
            }
            n_taken += text.len();
        }
        // All that was said to be taken is there, also when the sender goes without another word.
        let Connection::Syslog(stream) = connection else { panic!("it is another kind") };
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.ok();
        assert!(n_taken > 0 && heard.len() >= n_taken, "{} of {n_taken}", heard.len());
    });
}

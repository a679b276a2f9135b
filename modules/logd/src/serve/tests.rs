//! Visitors of every kind, on the loopback address.

use super::*;
use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

/// Nothing here takes a tenth of it.
const LIMIT: Duration = Duration::from_secs(30);

const LOOPBACK: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::LOCALHOST), 8);

/// As many threads as a page needs.
fn run<T>(body: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
    let done = runtime.block_on(async { timeout(LIMIT, body).await.expect("it takes too long") });
    runtime.shutdown_background();
    done
}

/// Serves pages that count how often they were read; the port.
async fn served(n_reads: &Arc<AtomicUsize>) -> u16 {
    let n_reads = Arc::clone(n_reads);
    let read = move || format!("zos_reads {}\n", n_reads.fetch_add(1, Ordering::SeqCst) + 1);
    serve_by(read).await
}

async fn serve_by(read: impl Fn() -> String + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let pages = Pages::new(read);
    tokio::spawn(async move { serve(listener, vec![LOOPBACK], &pages).await });
    port
}

async fn ask(port: u16, question: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    stream.write_all(question.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[test]
fn the_page_is_read_once_for_many() {
    run(async {
        let n_reads = Arc::default();
        let port = served(&n_reads).await;
        let question = "GET /metrics HTTP/1.1\r\nHost: node:9100\r\nAccept: text/plain\r\n\r\n";
        let first = ask(port, question).await;
        let (head, body) = first.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        assert_eq!(body, "zos_reads 1\n");
        let begun = Instant::now();
        let second = ask(port, question).await;
        // On a machine that stood still meanwhile, it may be another.
        assert!(second.ends_with("zos_reads 1\n") || begun.elapsed() >= FRESH);
        // What it is not asked for, it does not read.
        for (question, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404 "),
            ("GET /metrics/x HTTP/1.1\r\n\r\n", "404 "),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "405 "),
            ("SSH-2.0-x\r\n\r\n", "400 "),
        ] {
            let n_before = n_reads.load(Ordering::SeqCst);
            let answer = ask(port, question).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{question}: {answer}");
            assert_eq!(n_reads.load(Ordering::SeqCst), n_before);
        }
    });
}

#[test]
fn of_many_visitors_of_a_slow_page_each_gets_it_and_one_reads() {
    run(async {
        let (begun, begins) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        let (begun, gate) = (Mutex::new(begun), Mutex::new(gate));
        let port = serve_by(move || {
            begun.lock().unwrap().send(()).unwrap();
            gate.lock().unwrap().recv().ok();
            "zos_page 1\n".to_owned()
        })
        .await;
        let visitors: Vec<_> = (0..VISITORS_MAX)
            .map(|_| tokio::spawn(ask(port, "GET /metrics HTTP/1.0\r\n\r\n")))
            .collect();
        // One of them has begun to read; who comes when all places are taken is turned away.
        while begins.try_recv().is_err() {
            sleep(Duration::from_millis(1)).await;
        }
        let mut more = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let mut text = String::new();
        // Closed without a word, before it has asked.
        more.read_to_string(&mut text).await.ok();
        assert_eq!(text, "");
        open.send(()).unwrap();
        for visitor in visitors {
            assert!(visitor.await.unwrap().ends_with("\r\n\r\nzos_page 1\n"));
        }
        assert!(begins.try_recv().is_err(), "it was read once");
    });
}

#[test]
fn who_asks_for_the_head_gets_no_more_and_who_says_more_is_answered() {
    run(async {
        let port = served(&Arc::default()).await;
        let head = ask(port, "HEAD /metrics HTTP/1.1\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 405 ") && head.ends_with("\r\n\r\n"), "{head}");
        let more = format!("GET /metrics HTTP/1.1\r\n\r\n{}", "x".repeat(QUESTION_MAX - 100));
        assert!(ask(port, &more).await.ends_with("\r\n\r\nzos_reads 1\n"));
    });
}

/// The firewall was the only door: when it could not be set, everybody read the page.
#[test]
fn who_is_not_named_gets_no_answer() {
    run(async {
        let others: IpAddr = "127.0.0.2".parse().unwrap();
        for (from, is_served) in [(LOOPBACK, true), ((others, 32), false)] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let pages = Pages::new(|| "zos_page 1\n".to_owned());
            tokio::spawn(async move { serve(listener, vec![from], &pages).await });
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            let mut text = String::new();
            // It is closed at once, perhaps while this is written.
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.ok();
            stream.read_to_string(&mut text).await.ok();
            assert_eq!(text.ends_with("zos_page 1\n"), is_served, "{from:?}: {text}");
            assert!(is_served || text.is_empty(), "{text}");
        }
    });
}

#[test]
fn a_range_is_the_bits_of_its_prefix() {
    for (from, prefix, peer, wanted) in [
        ("10.0.0.0", 8, "10.255.0.1", true),
        ("10.0.0.0", 8, "11.0.0.0", false),
        // Bits behind the prefix are nothing.
        ("10.0.0.7", 24, "10.0.0.9", true),
        ("10.0.0.7", 24, "10.0.1.7", false),
        ("10.0.0.7", 32, "10.0.0.7", true),
        ("10.0.0.7", 32, "10.0.0.6", false),
        ("10.0.0.0", 8, "::ffff:10.0.0.1", true),
        ("0.0.0.0", 0, "255.255.255.255", true),
        ("0.0.0.0", 0, "2001:db8::1", false),
        ("::", 0, "2001:db8::1", true),
        ("::", 0, "::ffff:10.0.0.1", false),
        ("2001:db8::", 32, "2001:db8:ffff::", true),
        ("2001:db8::", 32, "2001:db9::", false),
        ("2001:db8::1", 128, "2001:db8::1", true),
        ("2001:db8::1", 128, "2001:db8::", false),
    ] {
        let from = [(from.parse().unwrap(), prefix)];
        assert_eq!(may_ask(&from, peer.parse().unwrap()), wanted, "{from:?} {peer}");
    }
    assert!(!may_ask(&[], Ipv4Addr::LOCALHOST.into()));
}

#[test]
fn only_a_whole_question_is_answered() {
    for (text, wanted) in [
        ("", None),
        ("GET /metrics HTTP/1.1\r\n", None),
        ("GET /metrics HTTP/1.1\r\n\r\n", Some(Question::Page)),
        ("GET /metrics HTTP/1.0\r\nA: b\r\n\r\n", Some(Question::Page)),
        ("GET /metrics?x=1 HTTP/1.1\r\n\r\n", Some(Question::Page)),
        ("GET /metricsx HTTP/1.1\r\n\r\n", Some(Question::Missing)),
        ("GET /../metrics HTTP/1.1\r\n\r\n", Some(Question::Missing)),
        ("GET http://h/metrics HTTP/1.1\r\n\r\n", Some(Question::Missing)),
        ("HEAD /metrics HTTP/1.1\r\n\r\n", Some(Question::Head)),
        ("DELETE /metrics HTTP/1.1\r\n\r\n", Some(Question::Other)),
        ("GET /metrics HTTP/2\r\n\r\n", Some(Question::Bad)),
        ("GET  /metrics HTTP/1.1\r\n\r\n", Some(Question::Bad)),
        ("GET /metrics\r\n\r\n", Some(Question::Bad)),
        ("\r\n\r\n", Some(Question::Bad)),
        ("\u{e9} /metrics HTTP/1.1 \r\n\r\n", Some(Question::Bad)),
    ] {
        assert_eq!(question(text.as_bytes()), wanted, "{text:?}");
    }
    assert_eq!(question(b"\xff \xfe HTTP/1.1\r\n\r\n"), Some(Question::Bad));
    assert_eq!(question(&[b'x'; QUESTION_MAX]), None);
    assert_eq!(question(&[b'x'; QUESTION_MAX + 1]), Some(Question::Bad));
}

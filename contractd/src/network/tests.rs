//! What a registry can make the node hold, with a registry that sends whatever it likes.

use super::*;
use crate::log::{
    Past, take,
    tests::{TestLog, taken as take_unpinned},
};
use contract::testkit::World;
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::{
        Mutex,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
};

const PATIENCE: Duration = Duration::from_secs(20);
const EMPTY: &str =
    r#"{"headers":[],"approvals":[],"cancels":[],"identities":[],"pools":[],"documents":[]}"#;

/// Serves an inbox of that many contracts, and tells which paths of bundles were asked for.
fn registry(contracts: u16) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, bundles) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let path = head[0].split(' ').nth(1).unwrap().to_owned();
            let body = if path.contains("bundle") {
                asked.send(path).unwrap();
                EMPTY.to_owned()
            } else {
                let entry = |n: u16| {
                    let id = ContractId([u8::try_from(n % 256).unwrap(); 32]);
                    let id = format!("{n:04x}{}", &id.to_string()[4..]);
                    format!(r#"{{"contract":"{id}","version":1,"etag":"\"x\""}}"#)
                };
                let entries: Vec<String> = (0..contracts).map(entry).collect();
                format!(r#"{{"adopted":true,"contracts":[{}]}}"#, entries.join(","))
            };
            let length = body.len();
            let head = format!("content-length: {length}\r\netag: \"x\"\r\nconnection: close");
            write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").unwrap();
        }
    });
    (url, bundles)
}

fn next_bundle(events: &Receiver<Event>) -> OwnedSemaphorePermit {
    loop {
        match events.recv_timeout(PATIENCE).unwrap() {
            Event::Bundle { room, .. } => return room,
            other => assert!(!matches!(other, Event::Registry(Some(_))), "{other:?}"),
        }
    }
}

/// An inbox of a thousand contracts with 15 MB each was fetched faster than it was read, and kept in
/// memory meanwhile.
#[test]
fn a_bundle_is_asked_for_when_the_one_before_was_taken() {
    let (url, bundles) = registry(3);
    let client = Arc::new(Client::new([url]).unwrap());
    let (events, heard) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_again, unheard) = unbounded_channel();
    std::thread::spawn(move || runtime.block_on(pull(client, NodeId([7; 32]), unheard, events)));
    let mut room = next_bundle(&heard);
    bundles.recv_timeout(PATIENCE).unwrap();
    for _ in 1..3 {
        let early = bundles.recv_timeout(Duration::from_millis(300));
        assert_eq!(early, Err(RecvTimeoutError::Timeout));
        drop(room);
        bundles.recv_timeout(PATIENCE).unwrap();
        room = next_bundle(&heard);
    }
}

#[test]
fn no_more_of_an_inbox_is_heard_than_a_node_can_keep() {
    let listed = u16::try_from(INBOX_MAX + 5).unwrap();
    let (url, bundles) = registry(listed);
    let client = Client::new([url]).unwrap();
    let (events, heard) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || heard.into_iter().for_each(drop));
    let mut inbox = Inbox { tag: None, bundle_tags: BTreeMap::new() };
    let room = Arc::new(Semaphore::new(BUNDLES_MAX));
    runtime.block_on(inbox.pull(&client, &NodeId([7; 32]), &room, &events)).unwrap();
    assert_eq!(bundles.try_iter().count(), INBOX_MAX);
    assert_eq!(inbox.bundle_tags.len(), INBOX_MAX);

    // What there was no room for is asked for again when there is, and nothing else is.
    let contract = *inbox.bundle_tags.keys().next().unwrap();
    inbox.forget(&contract);
    runtime.block_on(inbox.pull(&client, &NodeId([7; 32]), &room, &events)).unwrap();
    let asked: Vec<String> = bundles.try_iter().collect();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].contains(&contract.to_string()), "{asked:?}");
}

/// A registry on a thin line answers, but cannot deliver the largest bundle in time: that is contact.
#[test]
fn a_bundle_that_cannot_be_had_is_no_loss_of_contact() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::new([format!("http://{}", listener.local_addr().unwrap())]).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            if head[0].contains("bundle") {
                continue;
            }
            let id = ContractId([1; 32]);
            let entry = format!(r#"{{"contract":"{id}","version":1,"etag":"x"}}"#);
            let body = format!(r#"{{"adopted":true,"contracts":[{entry}]}}"#);
            let head = format!("content-length: {}\r\nconnection: close", body.len());
            write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").unwrap();
        }
    });
    let (events, heard) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut inbox = Inbox { tag: None, bundle_tags: BTreeMap::new() };
    let room = Arc::new(Semaphore::new(BUNDLES_MAX));
    let pulled = inbox.pull(&client, &NodeId([7; 32]), &room, &events);
    assert!(runtime.block_on(pulled).is_err());
    assert!(matches!(heard.try_recv(), Ok(Event::Contact)));
}

/// What a node is told when a registry refuses its statement so.
fn told_when_refused(node: &contract::node::Node, world: &World, code: &str) -> Vec<Event> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::new([format!("http://{}", listener.local_addr().unwrap())]).unwrap();
    let body = format!(
        r#"{{"type":"about:blank","title":"no","status":400,"detail":"","code":"{code}"}}"#
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(&stream);
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let line = line.to_ascii_lowercase();
                if let Some(text) = line.strip_prefix("content-length:") {
                    length = text.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            let length = body.len();
            let head =
                format!("content-length: {length}\r\ncontent-type: application/problem+json");
            let head = format!("{head}\r\nconnection: close");
            write!(stream, "HTTP/1.1 400 Bad Request\r\n{head}\r\n\r\n{body}").unwrap();
        }
    });
    let (events, heard) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let node = Box::new(contract::testkit::seal(node, &world.node_key));
    runtime.block_on(register(Arc::new(client), node, None, events));
    heard.try_iter().collect()
}

/// A registry that is older than orders refused every statement of a node that had done one, for ever.
#[test]
fn a_registry_that_does_not_understand_what_became_of_an_order_is_noticed() {
    let world = World::new(contract::Timestamp::from_seconds(1_800_000_000));
    let scrubbed = world.node_scrubbed(1, &world.scrub(0));
    for (node, code, notices) in [
        (&scrubbed, codes::MALFORMED, true),
        (&scrubbed, codes::BAD_SIGNATURE, false),
        (&world.node(1), codes::MALFORMED, false),
    ] {
        let told = told_when_refused(node, &world, code);
        assert_eq!(matches!(told[..], [Event::OrdersUnknown, _]), notices, "{told:?}");
        let last = told.last().unwrap();
        assert!(matches!(last, Event::Registry(Some(text)) if text.contains(code)), "{told:?}");
    }
}

/// A registry that is nothing but a log.
fn log_server(log: Arc<Mutex<TestLog>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let found = log.lock().unwrap().serve(head[0].split(' ').nth(1).unwrap());
            let (status, body) = match found {
                Some(body) => (200, body),
                None => (503, b"{}".to_vec()),
            };
            let head = format!("content-length: {}\r\nconnection: close", body.len());
            write!(stream, "HTTP/1.1 {status} X\r\n{head}\r\n\r\n").unwrap();
            stream.write_all(&body).unwrap();
        }
    });
    url
}

/// From the order to the proof, over HTTP, while the log grows.
#[test]
fn what_the_log_shows_comes_with_what_it_takes_to_judge_it() {
    let world = World::new(contract::Timestamp::from_seconds(1_800_000_000));
    let bundle = world.agreed();
    let log = Arc::new(Mutex::new(TestLog::new()));
    log.lock().unwrap().add(&world.identity("owner"));
    let url = log_server(Arc::clone(&log));
    let (orders, taken) = unbounded_channel();
    let (events, heard) = channel();
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(directory.path()).unwrap());
    let client = Client::new([url]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(serve(
            Some(client),
            NodeId([7; 32]),
            store,
            Carriers::new().0,
            taken,
            events,
        ));
    });
    let ask = |known: Known, statements: Vec<StatementId>| {
        orders.send(Order::Log { known, statements }).unwrap();
        loop {
            if let Event::Log { shown, asked, problem } = heard.recv_timeout(PATIENCE).unwrap() {
                return (shown, asked, problem);
            }
        }
    };
    let terms = log.lock().unwrap().terms(2);
    let (shown, asked, problem) = ask(Known::default(), vec![]);
    assert_eq!((shown.len(), asked, problem), (1, vec![], None));
    let first = take_unpinned(&terms, None, &shown[0]).unwrap().newest;
    assert_eq!(first.size, 1);
    for one in bundle.headers.iter().chain(&bundle.approvals) {
        log.lock().unwrap().add(one);
    }
    let id = bundle.headers[0].id().unwrap();
    let other = StatementId([1; 32]);
    let (shown, asked, problem) = ask(Known { size: first.size, pinned: Some(3) }, vec![id, other]);
    assert!(problem.is_some(), "of the other one it has nothing");
    assert_eq!(asked, [id, other]);
    // Held once against what was pinned, which may be newer than what is known.
    let pinned = log.lock().unwrap().note(3, 0).text().parse().unwrap();
    let past = Past { newest: Some(first.clone()), unheld: Some(pinned), seen: None };
    let held = take(&terms, &past, &shown[0], world.now);
    assert!(held.unwrap().proven.unwrap().is_none() && shown[1].pinned.is_none());
    let second = take_unpinned(&terms, Some(&first), &shown[0]).unwrap().newest;
    let same = take_unpinned(&terms, Some(&second), &shown[1]).unwrap();
    assert_eq!((same.newest.size, same.proven.unwrap()), (4, Some(id)));
}

/// With a registry and without one.
#[test]
fn carriers_are_asked_again_for_a_contract_and_for_proofs() {
    let (url, _bundles) = registry(0);
    for registries in [vec![], vec![url]] {
        let client = (!registries.is_empty()).then(|| Client::new(registries).unwrap());
        let (orders, taken) = unbounded_channel();
        let (events, heard) = channel();
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path()).unwrap());
        let (carriers, again) = Carriers::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || {
            runtime.block_on(serve(client, NodeId([7; 32]), store, carriers, taken, events));
        });
        let contract = ContractId([3; 32]);
        orders.send(Order::AskAgain(contract)).unwrap();
        assert_eq!(again.recv_timeout(PATIENCE).unwrap(), contract);
        let statements = vec![StatementId([1; 32])];
        orders.send(Order::CarriedLog { known: Known::default(), statements }).unwrap();
        // An answer comes without any stick, or nobody would ever ask again.
        loop {
            if let Event::CarriedLog { shown, asked } = heard.recv_timeout(PATIENCE).unwrap() {
                assert!(shown.is_empty() && asked.is_empty());
                break;
            }
        }
    }
}

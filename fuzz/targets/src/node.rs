//! What reaches a node from its boot loader, its daemons from each other, and from containers, and a
//! runtime from engines.

use container::{
    health::{self, Bad, STATUS_BYTES},
    oci::{config, plan},
};
use ipc::{Call, Client, Incoming, Outcome, encode_outcome};
use logd::{
    record::{self, Found, HEADER_SIZE},
    redis::{self, Answer},
    serve::{self, QUESTION_MAX, Question},
};
use node_api::{boot::BootConfig, init, launcher, logd as logd_api, netd, storaged};
use std::{io::Write as _, os::unix::net::UnixStream, path::Path, time::Duration};

/// The kernel command line.
pub fn boot_options(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let config = BootConfig::parse(&text);
    let words = text.split_ascii_whitespace().filter(|word| word.starts_with("zos.")).count();
    assert!(config.problems.len() <= words);
    let hexadecimal = |id: &String| id.len() == 64 && id.bytes().all(|c| c.is_ascii_hexdigit());
    assert!(config.farm.iter().chain(&config.token).all(hexadecimal));
    assert!((1..=32).contains(&config.network.len()));
    words > 0 && config.problems.is_empty()
}

/// What a container sends to a health check: nothing behind the digits of the status matters.
pub fn health_answer(data: &[u8]) -> bool {
    let first = &data[..data.len().min(STATUS_BYTES)];
    let outcome = health::judge_status(data, 200, 399);
    assert_eq!(outcome, health::judge_status(first, 200, 399));
    match outcome {
        Ok(()) => true,
        Err(Bad::Status(status)) => {
            assert!((100..=599).contains(&status) && !(200..=399).contains(&status));
            true
        }
        Err(Bad::Closed | Bad::Late | Bad::NotHttp | Bad::Command(_)) => false,
    }
}

/// Lines on disk, as a power cut or a dying disk left them: what is believed once is believed when the
/// rest is cut off, and is written again byte for byte.
pub fn line_records(data: &[u8]) -> bool {
    let Some(scan) = record::scan(data) else { return false };
    assert!((HEADER_SIZE..=data.len()).contains(&scan.size));
    assert_eq!(record::scan(&data[..scan.size]), Some(scan));
    let mut again = record::encode_header(scan.header).to_vec();
    let mut last = None;
    while let Found::Record(line, size) = record::decode(&data[again.len()..scan.size]) {
        assert!(last < Some(line.number) && line.first() >= 1 && size <= record::RECORD_MAX);
        last = Some(line.number);
        record::encode(&line, &mut again);
    }
    assert_eq!((last, &*again), (scan.last, &data[..scan.size]));
    scan.last.is_some()
}

/// What a Redis answers, or whoever stands where one was expected.
pub fn redis_answer(data: &[u8]) -> bool {
    match redis::answer(data) {
        Answer::Taken(size) => {
            assert!((4..=redis::ANSWER_MAX).contains(&size) && data[..size].ends_with(b"\r\n"));
            assert_eq!(redis::answer(&data[..size]), Answer::Taken(size));
            assert_eq!(redis::answer(&data[..size - 1]), Answer::Short);
            true
        }
        Answer::Refused(_) => true,
        Answer::Short => {
            assert!(data.len() < redis::ANSWER_MAX);
            false
        }
        Answer::Bad => false,
    }
}

/// What a visitor of the page of figures sends: it has one meaning, whatever comes behind it, and a bound.
pub fn page_question(data: &[u8]) -> bool {
    let Some(asked) = serve::question(data) else {
        assert!(data.len() <= QUESTION_MAX);
        return false;
    };
    if data.windows(4).any(|four| four == b"\r\n\r\n") {
        assert_eq!(
            serve::question(&[data, b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"].concat()),
            Some(asked)
        );
    }
    let line = data.split(|byte| *byte == b'\r').next().unwrap_or_default();
    assert!(asked != Question::Page || line.starts_with(b"GET /metrics"));
    asked != Question::Bad
}

/// Requests as a daemon receives them. However the bytes are cut, the messages are the same.
pub fn ipc_frames(data: &[u8]) -> bool {
    let Some((cut, bytes)) = data.split_first() else { return false };
    let whole = messages(&[bytes]);
    let pieces: Vec<&[u8]> = bytes.chunks(usize::from(*cut).max(1)).collect();
    assert_eq!(whole, messages(&pieces));
    let mut taken = false;
    for message in whole {
        let message = ipc::Message { bytes: message, fds: Vec::new() };
        let Ok(call) = Call::parse(message) else { continue };
        let method = call.method().to_owned();
        let outcome = answer(call);
        taken |= outcome.is_ok();
        let encoded = encode_outcome(&method, &outcome);
        let (end, answer) = encoded.split_last().expect("an answer is not empty");
        assert!(*end == 0 && !answer.contains(&0));
        serde_json::from_slice::<serde_json::Value>(answer).expect("an answer is JSON");
    }
    taken
}

fn messages(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut incoming = Incoming::default();
    let mut found = Vec::new();
    for piece in pieces {
        incoming.push(piece);
        while let Ok(Some(message)) = incoming.parse() {
            found.push(message.bytes);
        }
    }
    found
}

/// Reads the parameters of the calls that have some.
fn answer(call: Call) -> Outcome {
    macro_rules! read {
        ($($method:ty),*) => {
            match call.method() {
                $(<$method as ipc::Method>::NAME => {
                    call.answer(|_: $method| Err(ipc::Failure::new("Read", "it was read")))
                })*
                _ => call.unknown(),
            }
        };
    }
    let outcome = read!(
        init::Adopt,
        init::Signal,
        init::Kill,
        init::Forget,
        init::Log,
        logd_api::Send,
        logd_api::Delete,
        init::Publish,
        init::Power,
        storaged::VolumeEnsure,
        storaged::VolumeDelete,
        netd::Attach,
        netd::Detach,
        netd::Socket,
        launcher::Start
    );
    match outcome {
        Err(failure) if failure.name == "Read" => Ok(ipc::Answer::default()),
        other => other,
    }
}

/// Answers as a caller receives them, over a real socket.
pub fn ipc_answer(data: &[u8]) -> bool {
    /// A socket takes this much without a reader.
    const BYTES_MAX: usize = 64 << 10;
    let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
    let data = &data[..data.len().min(BYTES_MAX)];
    theirs.write_all(data).expect("it fits");
    theirs.shutdown(std::net::Shutdown::Write).expect("the socket is open");
    let mut client = Client::from_stream(ours).with_timeout(Duration::from_secs(1));
    let disks = client.call(&storaged::Disks {}).is_ok();
    disks || client.call(&netd::Status {}).is_ok()
}

/// Configurations of OCI bundles, to the end of their plan, and a process alone, as `exec` takes it.
pub fn oci_config(data: &[u8]) -> bool {
    const BUNDLE: &[u8] = br#"{
        "ociVersion": "1.2.0", "root": { "path": "rootfs" }, "process": {},
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "user" }],
            "uidMappings": [{ "containerID": 0, "hostID": 1, "size": 9 }],
            "gidMappings": [{ "containerID": 0, "hostID": 1, "size": 9 }] }
    }"#;
    let config = config::parse(data).or_else(|_| {
        let process = config::parse_process(data)?;
        config::parse(BUNDLE).map(|config| config::Config { process: Some(process), ..config })
    });
    let reach = plan::Reach::Container;
    config.is_ok_and(|config| plan::plan("c", Path::new("/bundle"), config, reach).is_ok())
}

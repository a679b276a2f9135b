//! A network with IPv6 alone: the node gets its addresses from a router and from DHCPv6, and asks the
//! name servers that it was told of.
//!
//! The router is on the other end of an Ethernet cable to QEMU. It knows the five kinds of frames that
//! this takes, and is silent to all others; nothing leaves the machine.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Result, ensure};
use qemu_tests::{
    machine::{BOOT, Machine, Network},
    media::Image,
};
use std::{
    collections::BTreeMap,
    net::Ipv6Addr,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

/// A client on a busy machine sends a question again before it reads the answer.
const REPEATS_MAX: usize = 5;
/// Of the node's card; its address by advertisement follows from it.
const CARD: &str = "52:54:00:00:06:01";
const BY_ADVERTISEMENT: &str = "2001:db8:6:0:5054:ff:fe00:601/64";
const BY_DHCP: &str = "2001:db8:6::9/128";
const GIVEN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 9);
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 0);
/// The router says that this one is there by advertisement, and by DHCPv6.
const DNS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 0x53);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const MAC: [u8; 6] = [2, 0, 0, 0, 6, 1];
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
/// Length of the header of Ethernet, and of both that follow.
const ETHERNET: usize = 14;
const HEADERS: usize = ETHERNET + 40;
const FRAME_MAX: usize = 2048;
const ICMP: u8 = 58;
const UDP: u8 = 17;

#[test]
fn on_a_network_with_ipv6_alone_the_node_has_addresses_and_asks_for_names() -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let router = Router::start(directory.path())?;
    let mut machine = Machine::new("v6");
    // The other card leads nowhere: there is no IPv4 at all.
    machine.network = Network::Silent;
    let farm = "ab".repeat(32);
    machine.cmdline = format!("zos.farm={farm} zos.registry=http://registry.example:8080");
    let cable = format!(
        "dgram,id=cable6,local.type=unix,local.path={},remote.type=unix,remote.path={}",
        router.machine.display(),
        router.own.display()
    );
    let card = format!("virtio-net-pci,netdev=cable6,mac={CARD}");
    machine.arguments.extend(["-netdev", &cable, "-device", &card].map(str::to_owned));
    let running = machine.start(&Image::find()?, directory.path())?;
    running.wait_ready()?;
    let shown = running.serial.wait(BY_DHCP, BOOT)?;
    ensure!(shown.contains("zos: network: eth"), "{shown}");
    running.serial.wait(BY_ADVERTISEMENT, BOOT)?;
    // Said when there was no name server, or when it did not answer: it was asked by then.
    running.serial.wait("zos: registration: registry", BOOT)?;
    let limit = std::time::Instant::now() + BOOT;
    while router.heard("registry") == 0 && std::time::Instant::now() < limit {
        running.serial.idle(std::time::Duration::from_millis(200));
    }
    let heard = |what| router.heard(what);
    ensure!(heard("registry") > 0, "no question to the name server");
    ensure!(heard("solicit") > 0 && heard("request") > 0, "no DHCPv6");
    // What it was given, it uses in silence.
    ensure!(heard("request") == 1 && heard("unknown") == 0, "asked too often");
    ensure!(router.repeated("request") <= REPEATS_MAX, "asked again after the answer");
    let problems = running.power_button(BOOT)?.problems(&[]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    Ok(())
}

/// A router with a DHCPv6 server and a name server that hears and does not answer.
struct Router {
    own: PathBuf,
    machine: PathBuf,
    /// How often it heard each question: a packet that was sent again is the same question.
    heard: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Router {
    /// Starts one, with both ends of its cable in `directory`. Answers until the process ends.
    fn start(directory: &Path) -> Result<Self> {
        let (own, machine) = (directory.join("router"), directory.join("router-machine"));
        let cable = UnixDatagram::bind(&own)?;
        let heard = Arc::<Mutex<BTreeMap<String, usize>>>::default();
        let router = Self { own, machine: machine.clone(), heard: Arc::clone(&heard) };
        thread::spawn(move || {
            let mut frame = [0; FRAME_MAX];
            while let Ok(length) = cable.recv(&mut frame) {
                let Some((name, answer)) = hear(&frame[..length]) else { continue };
                *heard.lock().expect("nobody panics with it").entry(name).or_default() += 1;
                if let Some(answer) = answer {
                    // A machine that was unplugged meanwhile does not hear it.
                    drop(cable.send_to(&answer, &machine));
                }
            }
        });
        Ok(router)
    }

    /// How many such questions it was asked.
    fn heard(&self, name: &str) -> usize {
        let heard = self.heard.lock().expect("nobody panics with it");
        heard.keys().filter(|question| question.starts_with(name)).count()
    }

    /// How often it heard the same question, at most.
    fn repeated(&self, name: &str) -> usize {
        let heard = self.heard.lock().expect("nobody panics with it");
        let asked = heard.iter().filter(|(question, _)| question.starts_with(name));
        asked.map(|(_, count)| *count).max().unwrap_or_default()
    }
}

/// What a frame asks, and the frame that answers it.
fn hear(frame: &[u8]) -> Option<(String, Option<Vec<u8>>)> {
    let asker: [u8; 6] = frame.get(6..12)?.try_into().ok()?;
    let header = frame.get(ETHERNET..HEADERS).filter(|_| frame[12..14] == [0x86, 0xdd])?;
    let from = address(&header[8..24])?;
    let body = frame.get(HEADERS..)?;
    match (header[6], *body.first()?) {
        (ICMP, 133) => Some((
            "router".to_owned(),
            Some(icmp(ALL_NODES_MAC, ROUTER, ALL_NODES, advertisement())),
        )),
        // Who asks whether somebody has its own address wants no answer.
        (ICMP, 135) if !from.is_unspecified() => {
            let target = address(body.get(8..24)?)?;
            let ours = target == ROUTER || target == DNS;
            let mut answer = vec![136, 0, 0, 0, 0xe0, 0, 0, 0];
            answer.extend(target.octets());
            answer.extend([2, 1]);
            answer.extend(MAC);
            ours.then(|| ("neighbour".to_owned(), Some(icmp(asker, target, from, answer))))
        }
        (UDP, _) => {
            let (ports, datagram) = (body.get(..4)?, body.get(8..)?);
            match u16::from_be_bytes([ports[2], ports[3]]) {
                53 => Some((
                    if datagram.windows(8).any(|part| part == b"registry") {
                        "registry".to_owned()
                    } else {
                        "other name".to_owned()
                    },
                    None,
                )),
                547 => dhcp(datagram).map(|(name, answer)| {
                    let answer = answer.map(|answer| udp(asker, from, &answer));
                    (name, answer)
                }),
                _ => None,
            }
        }
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
    Some(<[u8; 16]>::try_from(bytes).ok()?.into())
}

/// RFC 4861, 4.2, with a prefix and, by RFC 8106, a name server; address by DHCPv6, and by prefix.
fn advertisement() -> Vec<u8> {
    const MANAGED: u8 = 0x80;
    const ON_LINK_AND_AUTONOMOUS: u8 = 0xc0;
    let hour = 3600_u32.to_be_bytes();
    let mut bytes = vec![134, 0, 0, 0, 64, MANAGED];
    bytes.extend(1800_u16.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend([1, 1]);
    bytes.extend(MAC);
    bytes.extend([3, 4, 64, ON_LINK_AND_AUTONOMOUS]);
    bytes.extend([hour, hour, [0; 4]].concat());
    bytes.extend(PREFIX.octets());
    bytes.extend([25, 3, 0, 0]);
    bytes.extend(hour);
    bytes.extend(DNS.octets());
    bytes
}

/// What a DHCPv6 server that knows one client answers (RFC 8415).
fn dhcp(query: &[u8]) -> Option<(String, Option<Vec<u8>>)> {
    let transaction = query.get(1..4)?;
    let (name, kind) = match query.first()? {
        1 => (format!("solicit {transaction:x?}"), 2),
        3 => (format!("request {transaction:x?}"), 7),
        other => return Some((format!("unknown {other}"), None)),
    };
    let option = |code: u16, value: &[u8]| {
        let length = u16::try_from(value.len()).expect("our options are short");
        [&code.to_be_bytes(), &length.to_be_bytes(), value].concat()
    };
    let find = |wanted: u16| {
        let mut rest = query.get(4..)?;
        loop {
            let (header, behind) = rest.split_first_chunk::<4>()?;
            let (code, length) = header.split_at(2);
            let length = usize::from(u16::from_be_bytes(length.try_into().ok()?));
            let (value, next) = behind.split_at_checked(length)?;
            if code == wanted.to_be_bytes() {
                return Some(value);
            }
            rest = next;
        }
    };
    let (client, association) = (find(1)?, find(3)?);
    let hour = 3600_u32.to_be_bytes();
    let given = option(5, &[&GIVEN.octets()[..], &hour, &hour].concat());
    let association = [association.get(..4)?, &[0; 8], &given].concat();
    let mut answer = vec![kind];
    answer.extend(transaction);
    answer.extend(option(1, client));
    answer.extend(option(2, &[&[0, 3, 0, 1][..], &MAC].concat()));
    answer.extend(option(3, &association));
    answer.extend(option(23, &DNS.octets()));
    Some((name, Some(answer)))
}

fn icmp(to: [u8; 6], source: Ipv6Addr, destination: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    let sum = checksum(source, destination, ICMP, &body);
    body[2..4].copy_from_slice(&sum);
    frame(to, source, destination, ICMP, &body)
}

fn udp(to: [u8; 6], destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).expect("our answers are short");
    let ports = [547_u16, 546, length, 0].map(u16::to_be_bytes).concat();
    let mut body = [&ports, payload].concat();
    let sum = checksum(ROUTER, destination, UDP, &body);
    body[6..8].copy_from_slice(&sum);
    frame(to, ROUTER, destination, UDP, &body)
}

fn frame(to: [u8; 6], source: Ipv6Addr, destination: Ipv6Addr, next: u8, body: &[u8]) -> Vec<u8> {
    /// Neighbours believe nobody from further away.
    const HOPS: u8 = 255;
    let length = u16::try_from(body.len()).expect("our answers are short").to_be_bytes();
    let ip = [0x60, 0, 0, 0, length[0], length[1], next, HOPS];
    [&to, &MAC, &[0x86, 0xdd][..], &ip, &source.octets(), &destination.octets(), body].concat()
}

/// The sum of RFC 1071 over the body and what RFC 8200, 8.1, puts before it.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, next: u8, body: &[u8]) -> [u8; 2] {
    let length = u32::try_from(body.len()).expect("our answers are short").to_be_bytes();
    let pseudo = [&source.octets()[..], &destination.octets(), &length, &[0, 0, 0, next]];
    let mut bytes = [&pseudo.concat(), body].concat();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).expect("it was folded")).to_be_bytes()
}

//! A time server on the node's network: answers ARP and SNTP (RFC 4330) on an Ethernet cable to QEMU.
//!
//! QEMU's own network lets no datagram out, so this one hangs on the same hub. It knows two kinds of
//! frames and is silent to all others.

use anyhow::{Context as _, Result};
use std::{
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

/// Its address on the node's network.
pub const ADDRESS: &str = "10.0.2.123";
const IP: [u8; 4] = [10, 0, 2, 123];
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 1, 0x23];
/// Longest frame.
const FRAME_MAX: usize = 2048;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
const SNTP: usize = 48;
/// Seconds from 1900, where SNTP counts from, to 1970.
const UNIX_EPOCH_S: u64 = 2_208_988_800;

/// A running time server. Answers until the process ends.
#[derive(Debug, Clone)]
pub struct TimeServer {
    /// Its end of the cable.
    pub own: PathBuf,
    /// QEMU's end.
    pub machine: PathBuf,
    n_answers: Arc<AtomicU32>,
}

impl TimeServer {
    /// Starts one, with both ends of its cable in `directory`.
    pub fn start(directory: &Path) -> Result<Self> {
        let (own, machine) = (directory.join("time-server"), directory.join("time-machine"));
        let cable = UnixDatagram::bind(&own).context("making the time server's cable")?;
        let n_answers = Arc::new(AtomicU32::new(0));
        let server = Self { own, machine, n_answers };
        let serving = server.clone();
        thread::spawn(move || {
            let mut frame = [0; FRAME_MAX];
            while let Ok(length) = cable.recv(&mut frame) {
                let frame = &frame[..length];
                let time = sntp(frame, now());
                serving.n_answers.fetch_add(time.is_some().into(), Ordering::Relaxed);
                if let Some(answer) = time.or_else(|| arp(frame)) {
                    // A machine that was unplugged meanwhile does not hear it.
                    drop(cable.send_to(&answer, &serving.machine));
                }
            }
        });
        Ok(server)
    }

    /// How often it was asked for the time.
    pub fn n_answers(&self) -> u32 {
        self.n_answers.load(Ordering::Relaxed)
    }
}

/// The time as SNTP writes it.
fn now() -> [u8; 8] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The era, which the upper bits would name, is not sent.
    let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
    ((now.as_secs() + UNIX_EPOCH_S) << 32 | fraction).to_be_bytes()
}

/// The answer to the question who has our address.
fn arp(frame: &[u8]) -> Option<Vec<u8>> {
    let ethernet = frame.get(..ETHERNET)?;
    let arp = frame.get(ETHERNET..ETHERNET + 28)?;
    // Ethernet, IPv4, their lengths, a question.
    let question = ethernet[12..] == [8, 6] && arp[..8] == [0, 1, 8, 0, 6, 4, 0, 1];
    if !question || arp[24..] != IP {
        return None;
    }
    let asker = &arp[8..18];
    Some([asker[..6].as_ref(), &MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &MAC, &IP, asker].concat())
}

/// The answer to the question what time it is.
fn sntp(frame: &[u8], now: [u8; 8]) -> Option<Vec<u8>> {
    let ethernet = frame.get(..ETHERNET)?;
    let ip = frame.get(ETHERNET..ETHERNET + IPV4)?;
    let udp = frame.get(ETHERNET + IPV4..ETHERNET + IPV4 + UDP)?;
    let question = frame.get(ETHERNET + IPV4 + UDP..ETHERNET + IPV4 + UDP + SNTP)?;
    // IPv4 without options, UDP, to us; port 123, from a client.
    let ours = ethernet[12..] == [8, 0] && ip[0] == 0x45 && ip[9] == 17 && ip[16..] == IP;
    if !ours || udp[2..4] != [0, 123] || question[0] & 7 != 3 {
        return None;
    }
    let mut header = [0x45, 0, 0, 76, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&IP);
    header[16..].copy_from_slice(&ip[12..16]);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    // From port 123; a checksum of 0 means none.
    let datagram = [0, 123, udp[0], udp[1], 0, 56, 0, 0];
    let mut time = [0; SNTP];
    // A server of version 4 that has its time from a clock of its own.
    time[..2].copy_from_slice(&[0x24, 1]);
    time[24..32].copy_from_slice(&question[40..]);
    time[32..40].copy_from_slice(&now);
    time[40..].copy_from_slice(&now);
    let addresses = [&ethernet[6..12], &MAC, &[8, 0]].concat();
    Some([addresses.as_slice(), &header, &datagram, &time].concat())
}

/// The sum of RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = u16::try_from(sum).unwrap_or(u16::MAX);
    (!sum).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_questions_to_us_are_answered() {
        let asker = [2, 0, 0, 0, 0, 9, 10, 0, 2, 15];
        let ask = |ip: [u8; 4]| {
            let head =
                [[0xff; 6].as_slice(), &asker[..6], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
            [head.as_slice(), &asker, &[0; 6], &ip].concat()
        };
        let answer = arp(&ask(IP)).unwrap();
        assert_eq!(answer[..6], asker[..6]);
        assert_eq!(answer[22..32], [MAC.as_slice(), &IP].concat());
        assert_eq!(arp(&ask([10, 0, 2, 2])), None);
        assert_eq!(sntp(&ask(IP), [1; 8]), None);
        assert_eq!(arp(&[]), None);
    }

    #[test]
    fn the_time_goes_back_to_who_asked_with_the_number_of_the_question() {
        let mut frame = vec![0; ETHERNET + IPV4 + UDP + SNTP];
        frame[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 9, 8, 0]);
        frame[14] = 0x45;
        frame[23] = 17;
        frame[26..30].copy_from_slice(&[10, 0, 2, 15]);
        frame[30..34].copy_from_slice(&IP);
        frame[34..38].copy_from_slice(&[0xab, 0xcd, 0, 123]);
        frame[42] = 0x23;
        frame[82..90].copy_from_slice(b"question");
        let answer = sntp(&frame, [7; 8]).unwrap();
        assert_eq!(answer[..6], [2, 0, 0, 0, 0, 9]);
        assert_eq!(answer[30..34], [10, 0, 2, 15]);
        assert_eq!(answer[34..38], [0, 123, 0xab, 0xcd]);
        assert_eq!(answer[66..74], *b"question");
        assert_eq!(answer[82..], [7; 8]);
        // The sum over a header with its sum is zero.
        assert_eq!(checksum(&answer[14..34]), [0, 0]);
        frame[33] = 99;
        assert_eq!(sntp(&frame, [7; 8]), None);
    }
}

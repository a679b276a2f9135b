//! SNTP: the 48 bytes to and from a time server (RFC 4330, RFC 5905), and whom to believe.
//!
//! Pure: no socket, no clock. An answer counts only when it repeats the random number of the
//! question, comes from a server that is itself synchronised, and says a time that can be.

use crate::clock::Bounds;
use std::time::Duration;
use thiserror::Error;

/// Length of a message without extensions.
pub const LENGTH: usize = 48;
/// Between the eras' start in 1900 and 1970.
const UNIX_EPOCH_S: i128 = 2_208_988_800;
/// An era lasts this long; the first ends in 2036.
const ERA_S: i128 = 1 << 32;
const NANOS: i128 = 1_000_000_000;
/// A server whose own error is larger is of no use (RFC 4330, 5).
const ROOT_ERROR_MAX: u32 = 1 << 16;
/// An answer that was under way for longer says too little.
const DELAY_MAX_NS: i128 = 3 * NANOS;
/// Servers whose times differ by less are of one opinion.
const AGREEMENT_NS: i128 = NANOS;

/// How far our clock is from a server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Who answered, for the log.
    pub server: String,
    /// What must be added to our clock.
    pub offset_ns: i128,
}

/// Why an answer says nothing about the time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rejected {
    /// Too short.
    #[error("the answer has {0} bytes")]
    Length(usize),
    /// A question, a broadcast, or another version.
    #[error("the answer is not one of a server")]
    Mode,
    /// It repeats another number.
    #[error("the answer is not to our question")]
    Origin,
    /// A kiss of death (RFC 4330, 8), with its code.
    #[error("the server asks to be left alone ({0})")]
    Kiss(String),
    /// It does not know the time itself.
    #[error("the server is not synchronised")]
    Unsynchronised,
    /// It took too long, or no time at all.
    #[error("the answer was under way for too long")]
    Delay,
    /// Before the image was made, or decades later.
    #[error("the server says {0} s since 1970, which cannot be for this image")]
    Impossible(i128),
}

/// When the question left and the answer came, by our clock, since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Flight {
    /// When the question left.
    pub sent: Duration,
    /// When the answer came.
    pub received: Duration,
}

/// The question. `number` stands where our time would: it tells the server nothing and makes an
/// answer by somebody who did not see the question worthless.
pub fn question(number: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    // No leap warning, version 4, client.
    bytes[0] = 0x23;
    bytes[40..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// What `bytes`, an answer to the question with `number`, say about our clock.
pub fn offset_ns(
    bytes: &[u8],
    number: u64,
    flight: Flight,
    bounds: &Bounds,
) -> Result<i128, Rejected> {
    // Extensions and a signature may follow.
    let Some((bytes, _)) = bytes.split_first_chunk::<LENGTH>() else {
        return Err(Rejected::Length(bytes.len()));
    };
    let (leap, version, mode) = (bytes[0] >> 6, bytes[0] >> 3 & 7, bytes[0] & 7);
    if mode != 4 || !(3..=4).contains(&version) {
        return Err(Rejected::Mode);
    }
    if timestamp(bytes, 24) != number {
        return Err(Rejected::Origin);
    }
    let stratum = bytes[1];
    if stratum == 0 {
        let code = bytes[12..16].iter().filter(|byte| byte.is_ascii_uppercase());
        return Err(Rejected::Kiss(code.map(|byte| char::from(*byte)).collect()));
    }
    let word =
        |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let root_error = word(4).max(word(8));
    let transmitted = timestamp(bytes, 40);
    if leap == 3 || stratum > 15 || root_error > ROOT_ERROR_MAX || transmitted == 0 {
        return Err(Rejected::Unsynchronised);
    }
    let server_received = since_1970_ns(timestamp(bytes, 32), bounds);
    let server_sent = since_1970_ns(transmitted, bounds);
    let (sent, received) = (nanos(flight.sent), nanos(flight.received));
    let delay = (received - sent) - (server_sent - server_received);
    if !(0..=DELAY_MAX_NS).contains(&delay) && !(-NANOS / 1000..=0).contains(&delay) {
        return Err(Rejected::Delay);
    }
    let time = Duration::from_nanos(u64::try_from(server_sent).unwrap_or(0));
    if !bounds.contains(time) {
        return Err(Rejected::Impossible(server_sent / NANOS));
    }
    Ok(i128::midpoint(server_received - sent, server_sent - received))
}

/// The sample to follow: the middle one of those that agree, when they are more than half.
pub fn choose(samples: &[Sample]) -> Option<&Sample> {
    let agreeing = |with: &Sample| {
        let near = |other: &&Sample| (other.offset_ns - with.offset_ns).abs() < AGREEMENT_NS;
        let mut group: Vec<&Sample> = samples.iter().filter(near).collect();
        group.sort_by_key(|sample| sample.offset_ns);
        group
    };
    let group = samples.iter().map(agreeing).max_by_key(Vec::len)?;
    (group.len() * 2 > samples.len()).then(|| group[group.len() / 2])
}

fn timestamp(bytes: &[u8; LENGTH], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(word)
}

/// A timestamp names a second of an era but not the era: it is the first one after the image was
/// made, since no time before that can be right.
fn since_1970_ns(timestamp: u64, bounds: &Bounds) -> i128 {
    let seconds = i128::from(timestamp >> 32) - UNIX_EPOCH_S;
    let fraction_ns = (i128::from(timestamp & 0xffff_ffff) * NANOS) >> 32;
    let floor = i128::from(bounds.floor.as_secs());
    let eras = (floor - seconds).max(0).unsigned_abs().div_ceil(ERA_S.unsigned_abs());
    (seconds + i128::try_from(eras).unwrap_or(0) * ERA_S) * NANOS + fraction_ns
}

fn nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: u64 = 0x0123_4567_89ab_cdef;
    const NOW_S: u64 = 1_800_000_100;

    fn bounds() -> Bounds {
        Bounds::parse("1800000000")
    }

    fn ntp(unix_s: u64) -> [u8; 8] {
        let seconds = (unix_s + 2_208_988_800) % (1 << 32);
        (seconds << 32).to_be_bytes()
    }

    /// An honest stratum-2 server that shows `unix_s`.
    fn answer(unix_s: u64) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[0] = 0x24;
        bytes[1] = 2;
        bytes[24..32].copy_from_slice(&NUMBER.to_be_bytes());
        bytes[32..40].copy_from_slice(&ntp(unix_s));
        bytes[40..].copy_from_slice(&ntp(unix_s));
        bytes
    }

    fn offset(bytes: &[u8]) -> Result<i128, Rejected> {
        let second = Duration::from_secs;
        let flight = Flight { sent: second(NOW_S), received: second(NOW_S + 2) };
        offset_ns(bytes, NUMBER, flight, &bounds())
    }

    #[test]
    fn the_question_shows_no_time_of_ours() {
        let bytes = question(NUMBER);
        assert_eq!(bytes[0], 0x23);
        assert_eq!(bytes[40..], NUMBER.to_be_bytes());
        assert!(bytes[1..40].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn half_of_the_way_there_and_back_is_taken_off() {
        // The server was asked half way between our 100 and 102.
        assert_eq!(offset(&answer(NOW_S + 1)), Ok(0));
        assert_eq!(offset(&answer(NOW_S + 11)), Ok(10 * NANOS));
        assert_eq!(offset(&answer(NOW_S - 9)), Ok(-10 * NANOS));
    }

    #[test]
    fn the_turn_of_the_era_in_2036_is_no_obstacle() {
        let bounds = Bounds::parse("2080000000");
        let later = 2_085_978_496 + 1000;
        let flight =
            Flight { sent: Duration::from_secs(later), received: Duration::from_secs(later) };
        assert_eq!(offset_ns(&answer(later), NUMBER, flight, &bounds), Ok(0));
    }

    #[test]
    fn answers_that_say_nothing_are_rejected_with_the_reason() {
        let change = |at: usize, values: &[u8]| {
            let mut bytes = answer(NOW_S + 1);
            bytes[at..at + values.len()].copy_from_slice(values);
            bytes.to_vec()
        };
        assert!(offset(&change(0, &[0x1c])).is_ok(), "version 3 is as good as 4");
        for (bytes, reason) in [
            (vec![], Rejected::Length(0)),
            (change(0, &[0x24])[..47].to_vec(), Rejected::Length(47)),
            (change(0, &[0x23]), Rejected::Mode),
            (change(0, &[0x14]), Rejected::Mode),
            (change(24, &[9]), Rejected::Origin),
            (change(1, &[0]), Rejected::Kiss(String::new())),
            ([&change(1, &[0])[..12], b"RATE", &change(1, &[0])[16..]].concat(), {
                Rejected::Kiss("RATE".to_owned())
            }),
            (change(0, &[0xe4]), Rejected::Unsynchronised),
            (change(1, &[16]), Rejected::Unsynchronised),
            (change(4, &[0, 2, 0, 0]), Rejected::Unsynchronised),
            (change(8, &[0, 2, 0, 0]), Rejected::Unsynchronised),
            (change(40, &[0; 8]), Rejected::Unsynchronised),
            (change(32, &ntp(NOW_S - 9)), Rejected::Delay),
            (answer(1_799_999_000).to_vec(), { Rejected::Impossible(1_799_999_000 + (1 << 32)) }),
            (answer(3_000_000_000).to_vec(), Rejected::Impossible(3_000_000_000)),
        ] {
            assert_eq!(offset(&bytes), Err(reason));
        }
    }

    #[test]
    fn more_than_half_of_the_servers_must_agree() {
        let sample = |offset_ms: i128| Sample {
            server: offset_ms.to_string(),
            offset_ns: offset_ms * 1_000_000,
        };
        for (offsets, chosen) in [
            (&[][..], None),
            (&[5], Some("5")),
            (&[5, 9], Some("9")),
            (&[5, 5000], None),
            (&[5, 5000, 9], Some("9")),
            (&[5, 5000, 9, 7], Some("7")),
            (&[5, 5000, 9, 5001], None),
        ] {
            let samples: Vec<_> = offsets.iter().map(|offset| sample(*offset)).collect();
            assert_eq!(
                choose(&samples).map(|sample| sample.server.as_str()),
                chosen,
                "{offsets:?}"
            );
        }
    }
}

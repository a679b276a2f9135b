//! How fast an answer must come. A server that sends a byte now and then would otherwise hold a fetch,
//! and everything that waits for its turn, for as long as it likes.

use crate::progress::Cancel;
use std::{
    io::{self, Read},
    time::Duration,
};

/// So long, the pace does not count: names are looked up, connections made, disks started.
const GRACE: Duration = Duration::from_secs(20);
/// From then on, this much must have come for each second since.
const BYTES_PER_SECOND_MIN: u64 = 16 << 10;

/// Whether a server that has sent so much in this time is given up on.
fn is_too_slow(bytes: u64, elapsed: Duration) -> bool {
    let counted_ms = elapsed.saturating_sub(GRACE).as_millis();
    u128::from(bytes) * 1000 < counted_ms * u128::from(BYTES_PER_SECOND_MIN)
}

/// A reader that fails when it becomes too slow or is stopped. `elapsed` tells the time since the
/// request.
pub(crate) struct Paced<'a, R, C> {
    reader: R,
    elapsed: C,
    cancel: &'a Cancel,
    bytes: u64,
}

impl<'a, R: Read, C: Fn() -> Duration> Paced<'a, R, C> {
    pub(crate) fn new(reader: R, elapsed: C, cancel: &'a Cancel) -> Self {
        Self { reader, elapsed, cancel, bytes: 0 }
    }
}

impl<R: Read, C: Fn() -> Duration> Read for Paced<'_, R, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_bytes = self.reader.read(buffer)?;
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("the caller stopped it"));
        }
        self.bytes += n_bytes as u64;
        let elapsed = (self.elapsed)();
        if n_bytes > 0 && is_too_slow(self.bytes, elapsed) {
            let text = format!(
                "too slow: {} bytes in {} s, and at least {BYTES_PER_SECOND_MIN} a second must come",
                self.bytes,
                elapsed.as_secs()
            );
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        Ok(n_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Reads 4 KiB with one piece each `between`, by a clock that only the pieces move.
    fn check(piece: usize, between: Duration) -> Result<usize, String> {
        struct Pieces<'a>(usize, Duration, &'a Cell<Duration>);
        impl Read for Pieces<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.2.set(self.2.get() + self.1);
                Ok(self.0.min(buffer.len()))
            }
        }
        let clock = Cell::new(Duration::ZERO);
        let cancel = Cancel::default();
        let paced = Paced::new(Pieces(piece, between, &clock), || clock.get(), &cancel);
        let mut bytes = Vec::new();
        let read = paced.take(1 << 20).read_to_end(&mut bytes);
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_that_drips_is_given_up_on_and_a_slow_line_is_not() {
        assert_eq!(check(32 << 10, Duration::from_secs(1)), Ok(1 << 20));
        assert_eq!(check(16 << 10, Duration::from_millis(999)), Ok(1 << 20));
        for (piece, between) in [(1, 19), (8 << 10, 1), (1, 60)] {
            let reason = check(piece, Duration::from_secs(between)).unwrap_err();
            assert!(reason.starts_with("too slow"), "{reason}");
        }
    }

    #[test]
    fn the_beginning_may_take_its_time() {
        assert!(!is_too_slow(0, GRACE));
        assert!(is_too_slow(0, GRACE + Duration::from_millis(1)));
        assert!(!is_too_slow(BYTES_PER_SECOND_MIN, GRACE + Duration::from_secs(1)));
        assert!(is_too_slow(BYTES_PER_SECOND_MIN - 1, GRACE + Duration::from_secs(1)));
    }
}

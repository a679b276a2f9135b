//! The clock: never before the image was made, never absurdly after, stepped by time servers.
//!
//! Owns `CLOCK_REALTIME` of the node. A battery-backed clock that says 1970 or 2040 would make
//! every certificate and every statement look wrong, so the floor is applied before all else.

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use thiserror::Error;

/// When this was written (1 November 2026, in hours since 1970): the floor of an image that does not say when it was made.
const CODE_TIME: Duration = Duration::from_hours(498_192);
/// A machine does not run an image that is older than this.
const IMAGE_AGE_MAX: Duration = Duration::from_hours(20 * 365 * 24);

/// The times that the clock may show, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// When the image was made.
    pub floor: Duration,
    /// When it is too old to be run.
    pub ceiling: Duration,
}

/// The clock could not be set.
#[derive(Debug, Error)]
#[error("setting the clock")]
pub struct ClockError(#[source] io::Error);

impl Bounds {
    /// From the text of the file `build-time`; a floor of our own when it says nothing sensible.
    pub fn parse(text: &str) -> Self {
        let built = text.trim().parse().map(Duration::from_secs);
        let plausible = CODE_TIME..CODE_TIME + 5 * IMAGE_AGE_MAX;
        let floor = built.ok().filter(|built| plausible.contains(built)).unwrap_or(CODE_TIME);
        Self { floor, ceiling: floor + IMAGE_AGE_MAX }
    }

    /// What the clock should be set to when it shows `now`; `None` when it may stay.
    pub fn correction(&self, now: Duration) -> Option<Duration> {
        (!self.contains(now)).then_some(self.floor)
    }

    /// Whether a clock may show this.
    pub fn contains(&self, now: Duration) -> bool {
        (self.floor..self.ceiling).contains(&now)
    }
}

/// Sets a clock that is out of bounds to the floor.
pub fn apply(bounds: &Bounds) -> Result<(), ClockError> {
    let now = wall();
    if let Some(floor) = bounds.correction(now) {
        set(floor)?;
        let (was, is) = (now.as_secs(), floor.as_secs());
        daemon::warn!("the clock showed {was} s since 1970; set to {is}, when the image was made");
    }
    Ok(())
}

/// Sets the clock to `time` since 1970.
pub fn set(time: Duration) -> Result<(), ClockError> {
    let out_of_range = |_| ClockError(io::ErrorKind::InvalidInput.into());
    let spec = Timespec {
        tv_sec: i64::try_from(time.as_secs()).map_err(out_of_range)?,
        tv_nsec: time.subsec_nanos().into(),
    };
    clock_settime(ClockId::Realtime, spec).map_err(|errno| ClockError(errno.into()))
}

/// Time since 1970 by the wall clock; zero when it shows an earlier time.
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Time since boot, including sleep. Nobody sets this clock.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).expect("time since boot is positive");
    Duration::new(seconds, u32::try_from(now.tv_nsec).expect("below a billion"))
}

/// A number that nobody on the net can guess.
pub fn chance() -> u32 {
    u32::from_ne_bytes(random())
}

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel's generator is ready before any program runs");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_the_image_or_decades_after_is_put_to_the_images_time() {
        let bounds = Bounds::parse("1800000000\n");
        let floor = Duration::from_hours(500_000);
        for (now, correction) in [
            (0, Some(floor)),
            (1_799_999_999, Some(floor)),
            (1_800_000_000, None),
            (2_000_000_000, None),
            (1_800_000_000 + 20 * 365 * 86_400, Some(floor)),
            (4_000_000_000, Some(floor)),
        ] {
            assert_eq!(bounds.correction(Duration::from_secs(now)), correction, "{now}");
        }
    }

    #[test]
    fn an_image_that_does_not_say_when_it_was_made_has_the_floor_of_the_code() {
        for text in ["", "yesterday", "0", "-5", "99999999999999", "18446744073709551615"] {
            assert_eq!(Bounds::parse(text).floor, CODE_TIME, "{text}");
        }
    }
}

//! When a container that ended is started again.
//!
//! ```text
//! ended ── up for less than 60 s ──► wait 1 s, 2 s, 4 s … 60 s ──► start
//!       └─ up for 60 s or more ────► wait 1 s ───────────────────► start
//! ```
//!
//! There is no last try: a start deletes nothing, and only the end of the contract ends it.

use std::time::Duration;

/// The first wait, and the one after a good run.
pub const DELAY_MIN: Duration = Duration::from_secs(1);
/// No wait is longer.
pub const DELAY_MAX: Duration = Duration::from_mins(1);
/// A container that ran for so long is taken for healthy.
pub const HEALTHY_AFTER: Duration = Duration::from_mins(1);

/// How long to wait before the next start, given the wait before this one (`None` for the first
/// start) and how long it ran (zero when it did not start).
pub fn next(previous: Option<Duration>, up: Duration) -> Duration {
    match previous {
        Some(delay) if up < HEALTHY_AFTER => delay.saturating_mul(2).clamp(DELAY_MIN, DELAY_MAX),
        Some(_) | None => DELAY_MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_minute_and_stay_there() {
        let mut delay = None;
        let mut seconds = Vec::new();
        for _ in 0..9 {
            delay = Some(next(delay, Duration::from_secs(3)));
            seconds.extend(delay.map(|delay| delay.as_secs()));
        }
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_healthy_minute_resets_the_wait() {
        assert_eq!(next(Some(DELAY_MAX), HEALTHY_AFTER), DELAY_MIN);
        assert_eq!(next(Some(DELAY_MAX), Duration::from_secs(59)), DELAY_MAX);
    }

    #[test]
    fn nonsense_from_the_disk_is_pulled_into_the_bounds() {
        assert_eq!(next(Some(Duration::ZERO), Duration::ZERO), DELAY_MIN);
        assert_eq!(next(Some(Duration::MAX), Duration::ZERO), DELAY_MAX);
    }
}

//! What figures are made of: percentiles, rates, and what one core would do for many nodes.

use std::time::Duration;

/// The value that this share of all values (0 to 1) does not exceed: the nearest rank, so that it is
/// one that was measured. Of no values, 0.
pub(super) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let below = sorted.iter().enumerate().find(|(index, _)| {
        let rank = count(index + 1);
        rank >= share * count(sorted.len())
    });
    below.map_or(0.0, |(_, value)| *value)
}

/// So many in this time, as a number in one second.
pub(super) fn per_second(number: usize, time: Duration) -> f64 {
    count(number) / time.as_secs_f64().max(1e-9)
}

/// Processors that so many nodes keep busy, each asking once in `interval`, when one processor
/// answers `per_core` in a second. Nobody has measured so many: it is extrapolated.
pub(super) fn cores_for(nodes: usize, interval: Duration, per_core: f64) -> f64 {
    count(nodes) / interval.as_secs_f64() / per_core.max(1e-9)
}

/// Milliseconds.
pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Numbers of this size are exact.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(super) fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.5), 50.0);
        assert_eq!(percentile(&hundred, 0.99), 99.0);
        assert_eq!(percentile(&hundred, 1.0), 100.0);
        assert_eq!(percentile(&[7.0, 3.0], 0.5), 3.0);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert_eq!(percentile(&[], 0.99), 0.0);
    }

    #[test]
    fn a_million_nodes_once_a_minute_are_one_core_at_16667_a_second() {
        let minute = Duration::from_secs(60);
        assert_eq!(cores_for(60_000, minute, 1000.0), 1.0);
        assert_eq!(cores_for(1_000_000, minute, 1_000_000.0 / 60.0), 1.0);
        assert_eq!(cores_for(60_000, minute, 500.0), 2.0);
    }

    #[test]
    fn a_rate_counts_in_seconds() {
        assert_eq!(per_second(500, Duration::from_millis(250)), 2000.0);
        assert_eq!(ms(Duration::from_micros(1500)), 1.5);
    }
}

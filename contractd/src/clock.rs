//! The two clocks: the time of day, which verdicts need, and the boot clock, which never jumps.

use contract::Timestamp;
use nix::time::{ClockId, clock_gettime};
use std::io;

/// The time of day with what it is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) at: Timestamp,
    pub(crate) worth: Worth,
}

/// What the time of day is worth. What cannot be undone, such as deleting, waits for the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worth {
    /// A time server has confirmed it since the start of the kernel.
    Confirmed,
    /// Whatever the machine's own clock said.
    Unconfirmed,
}

/// The time of day, as netd has set it.
pub(crate) fn now() -> io::Result<Timestamp> {
    Ok(Timestamp::from_seconds(clock_gettime(ClockId::CLOCK_REALTIME)?.tv_sec()))
}

/// Milliseconds since the kernel started.
pub(crate) fn boot_ms() -> io::Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let ms = time.tv_sec().saturating_mul(1000).saturating_add(time.tv_nsec() / 1_000_000);
    Ok(u64::try_from(ms).unwrap_or(0))
}

/// The kernel's random name for this boot.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

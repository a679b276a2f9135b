//! Points in time, in whole seconds, written in the one form of RFC 3339 that is accepted:
//! `2026-01-31T23:59:59Z`.

use alloc::string::{String, ToString as _};
use core::{fmt, str::FromStr};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Seconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

/// A text that is no time of the accepted form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a time is written as 2026-01-31T23:59:59Z (RFC 3339, UTC, whole seconds)")]
pub struct NotATime;

/// 9999-12-31T23:59:59Z, the last second that the written form can name.
const SECONDS_MAX: i64 = 253_402_300_799;

impl Timestamp {
    /// A time outside the years 1970 to 9999 is moved to the nearest end.
    pub fn from_seconds(seconds: i64) -> Self {
        Self(seconds.clamp(0, SECONDS_MAX))
    }

    /// Seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.0
    }

    /// This time and so many seconds more (or fewer).
    pub fn plus(self, seconds: i64) -> Self {
        Self::from_seconds(self.0.saturating_add(seconds))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_second(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{time}")
    }
}

impl FromStr for Timestamp {
    type Err = NotATime;
    fn from_str(text: &str) -> Result<Self, NotATime> {
        let time: jiff::Timestamp = text.parse().map_err(|_| NotATime)?;
        let time = Self(time.as_second());
        // Offsets, fractions and lower case parse as well: only the one form is taken.
        if (0..=SECONDS_MAX).contains(&time.0) && time.to_string() == text {
            Ok(time)
        } else {
            Err(NotATime)
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_written_form_is_taken() {
        let good: Timestamp = "2026-01-31T23:59:59Z".parse().unwrap();
        assert_eq!(good.to_string(), "2026-01-31T23:59:59Z");
        for bad in [
            "2026-01-31T23:59:59+00:00",
            "2026-01-31T23:59:59.0Z",
            "2026-01-31t23:59:59z",
            "2026-01-31 23:59:59Z",
            "2026-02-30T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-01-31",
            "",
        ] {
            assert_eq!(bad.parse::<Timestamp>(), Err(NotATime), "{bad}");
        }
    }
}

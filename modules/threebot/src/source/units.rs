//! Quantities as people write them: `256 MiB`, `0.5` cores, `90d`.

use contract::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};
use std::{fmt, str::FromStr};

/// An amount of bytes, written `4096`, `"256 MiB"` or `"1 GB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// The amount.
    pub bytes: u64,
}

/// A share of logical cores, written `2`, `0.5` or `"500m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// Thousandths of a core.
    pub milli: u32,
}

/// A length of time, written `"90d"`, `"12h"` or `"1d12h"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its length.
    pub seconds: u32,
}

/// A point in time, or a length of time from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// So long after the plan is made.
    In(Span),
    /// Then.
    At(Timestamp),
}

/// A text that is no quantity of the wanted kind; the message shows how to write one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}, {example}")]
pub struct NotAQuantity {
    text: String,
    what: &'static str,
    example: &'static str,
}

impl When {
    /// The point in time, when the plan is made `now`.
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::In(span) => now.plus(i64::from(span.seconds)),
            Self::At(time) => time,
        }
    }
}

impl FromStr for Size {
    type Err = NotAQuantity;
    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        parse_size(text).map(|bytes| Self { bytes }).ok_or_else(|| NotAQuantity {
            text: text.to_owned(),
            what: "size",
            example: "as in \"256 MiB\", \"10 GiB\" or \"1 TB\"",
        })
    }
}

impl FromStr for Cpu {
    type Err = NotAQuantity;
    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        let milli = match text.strip_suffix('m') {
            Some(number) => whole(number),
            None => thousandths(text),
        };
        let milli = milli.and_then(|milli| u32::try_from(milli).ok()).filter(|milli| *milli > 0);
        milli.map(|milli| Self { milli }).ok_or_else(|| NotAQuantity {
            text: text.to_owned(),
            what: "share of cores",
            example: "as in 2, 0.5 or \"500m\" (thousandths are the finest)",
        })
    }
}

impl FromStr for Span {
    type Err = NotAQuantity;
    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        parse_span(text).map(|seconds| Self { seconds }).ok_or_else(|| NotAQuantity {
            text: text.to_owned(),
            what: "length of time",
            example: "as in \"90d\", \"12h\", \"30m\", \"10s\" or \"2w\"",
        })
    }
}

impl FromStr for When {
    type Err = NotAQuantity;
    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        if let Ok(span) = text.parse() {
            return Ok(Self::In(span));
        }
        text.parse().map(Self::At).map_err(|_| NotAQuantity {
            text: text.to_owned(),
            what: "time",
            example: "as in \"90d\" from now, or \"2026-12-31T23:59:59Z\"",
        })
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    let bytes = u128::from(thousandths(number)?) * u128::from(factor) / 1000;
    u64::try_from(bytes).ok()
}

fn parse_span(text: &str) -> Option<u32> {
    let (mut rest, mut sum) = (text, 0_u64);
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let seconds: u64 = match rest.as_bytes()[end] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 24 * 3600,
            b'w' => 7 * 24 * 3600,
            b'y' => 365 * 24 * 3600,
            _ => return None,
        };
        // From the largest unit down, each once: `1d12h`, and never `12h1d` or `1h1h`.
        if seconds >= last {
            return None;
        }
        last = seconds;
        sum = sum.checked_add(whole(&rest[..end])?.checked_mul(seconds)?)?;
        rest = &rest[end + 1..];
    }
    u32::try_from(sum).ok().filter(|_| !text.is_empty())
}

fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// A decimal number in thousandths, without passing through a float. `None` for finer ones.
fn thousandths(text: &str) -> Option<u64> {
    let (integer, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 3 || !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let part = whole(&format!("{fraction:0<3}"))?;
    whole(integer)?.checked_mul(1000)?.checked_add(part)
}

/// Reads a quantity from a string, or from a number when the kind allows it.
struct Reader<T> {
    what: &'static str,
    numbers: bool,
    kind: std::marker::PhantomData<T>,
}

impl<T: FromStr<Err = NotAQuantity>> Visitor<'_> for Reader<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        if self.numbers {
            return self.visit_str(&number.to_string());
        }
        Err(E::invalid_type(de::Unexpected::Unsigned(number), &self))
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        if self.numbers {
            return self.visit_str(&number.to_string());
        }
        Err(E::invalid_type(de::Unexpected::Signed(number), &self))
    }
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        if self.numbers {
            // The shortest text that means this number: what the person wrote.
            return self.visit_str(&number.to_string());
        }
        Err(E::invalid_type(de::Unexpected::Float(number), &self))
    }
}

macro_rules! read {
    ($kind:ty, $what:literal, numbers: $numbers:literal) => {
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Reader {
                    what: $what,
                    numbers: $numbers,
                    kind: std::marker::PhantomData,
                })
            }
        }
    };
}
read!(Size, "a size as in \"256 MiB\"", numbers: true);
read!(Cpu, "a share of cores as in 0.5", numbers: true);
read!(Span, "a length of time in quotes, as in \"10s\"", numbers: false);
read!(When, "a time in quotes, as in \"90d\" or \"2026-12-31T23:59:59Z\"", numbers: false);

/// Bytes as people read them, exact when a unit fits, else rounded to a tenth.
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    while unit + 1 < UNITS.len() && bytes >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let (whole, rest) = (bytes >> (10 * unit), bytes & ((1 << (10 * unit)) - 1));
    let tenths = (u128::from(rest) * 10) >> (10 * unit);
    if tenths == 0 {
        format!("{whole} {}", UNITS[unit])
    } else {
        format!("{whole}.{tenths} {}", UNITS[unit])
    }
}

/// Seconds as people read them, in the two largest units.
pub fn show_seconds(seconds: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds.max(0);
    let mut parts = Vec::new();
    for (length, name) in UNITS {
        if rest >= length && parts.len() < 2 {
            parts.push(format!("{} {name}", rest / length));
            rest %= length;
        }
    }
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

/// Thousandths as a decimal number: 1500 is `1.5`.
pub fn show_milli(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact() {
        let check = |text: &str, wanted: Option<u64>| {
            assert_eq!(text.parse::<Size>().ok().map(|size| size.bytes), wanted, "{text}");
        };
        check("4096", Some(4096));
        check("256 MiB", Some(256 << 20));
        check("256MiB", Some(256 << 20));
        check("0.5 GiB", Some(512 << 20));
        check("1.5 TB", Some(1_500_000_000_000));
        check("16777216 TiB", None);
        for bad in ["", "MiB", "1 mib", "-1 MiB", "1 XiB", "1.2345 MiB", "1. 5 MiB", "1 MiB x"] {
            check(bad, None);
        }
    }

    #[test]
    fn cores_are_exact() {
        let check = |text: &str, wanted: Option<u32>| {
            assert_eq!(text.parse::<Cpu>().ok().map(|cpu| cpu.milli), wanted, "{text}");
        };
        check("2", Some(2000));
        check("0.5", Some(500));
        check("0.001", Some(1));
        check("250m", Some(250));
        for bad in ["0", "0.0001", "-1", "m", "1e3", "", "."] {
            check(bad, None);
        }
    }

    #[test]
    fn lengths_of_time_go_from_large_to_small() {
        let check = |text: &str, wanted: Option<u32>| {
            assert_eq!(text.parse::<Span>().ok().map(|span| span.seconds), wanted, "{text}");
        };
        check("90d", Some(90 * 86_400));
        check("1d12h", Some(36 * 3600));
        check("0s", Some(0));
        for bad in ["", "90", "d", "12h1d", "1h1h", "1 d", "-1d", "1x", "999999999y"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_time_is_absolute_or_from_now() {
        let now = Timestamp::from_seconds(1_800_000_000);
        let check = |text: &str, wanted: &str| {
            let time = text.parse::<When>().unwrap().resolve(now).to_string();
            assert_eq!(time, wanted, "{text}");
        };
        check("1h", "2027-01-15T09:00:00Z");
        check("2027-02-01T00:00:00Z", "2027-02-01T00:00:00Z");
        assert!("2027-02-01".parse::<When>().is_err());
    }

    #[test]
    fn quantities_are_shown_as_people_read_them() {
        assert_eq!(show_bytes(0), "0 B");
        assert_eq!(show_bytes(256 << 20), "256 MiB");
        assert_eq!(show_bytes((3 << 30) / 2), "1.5 GiB");
        assert_eq!(show_bytes(u64::MAX), "16777215.9 TiB");
        assert_eq!(show_seconds(36 * 3600 + 59), "1 d 12 h");
        assert_eq!(show_seconds(-5), "0 s");
        assert_eq!(show_milli(1500), "1.5");
        assert_eq!(show_milli(2000), "2");
    }
}

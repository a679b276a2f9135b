//! What strains a container that runs: limits that it meets, and pressure that it is under. Pure:
//! decides over samples what is said of it, and when.
//!
//! What is said is in a result, which is signed, kept and chained for ever. So no sample is told, but
//! a change, and of each kind not before a pause is over:
//!
//! ```text
//! a limit:   met oftener than was told ──────────────► told, with how often
//! pressure:  above its threshold for 30 s ───────────► told, with how much
//!            below half of it for 5 min ─────────────► not told any more
//! the pause: 1 min, doubled up to a day by what comes within an hour of its end, or within its own
//!            length; else 1 min again
//! ```
//!
//! What was told is remembered with the run of the container, and so is the pause: nothing is told
//! twice because contractd was started again. The next life of the container begins without strains, but
//! not without the pauses: one that meets its limit and ends, over and over, is told no oftener. Without
//! a sample nothing changes, and what nobody has seen did not last. All times are those of the boot clock.

use container::usage::{self, Pressure, Usage};
use serde::{Deserialize, Serialize};

/// A container is looked at this often at most, in milliseconds: what is looked at is of a minute.
pub(crate) const LOOK_MS: u64 = 10_000;
/// Between looks that are further apart, nobody knows what was.
const GAP_MS: u64 = 3 * LOOK_MS;
/// Pressure holds this long before it counts, and is gone this long before it does not.
const BEGIN_MS: u64 = 30_000;
const END_MS: u64 = 300_000;
/// The pause after something was told, and the longest one.
const PAUSE_MS: u64 = 60_000;
const PAUSE_MAX_MS: u64 = 24 * 60 * 60 * 1000;
/// So much rest, at least, makes the pause short again.
const REST_MS: u64 = 60 * 60 * 1000;
/// From where on pressure counts, in hundredths of a percent: a busy container waits for processors and
/// disks as part of its work, but who waits for memory reads the same pages again and again.
const BUSY: u32 = 5_000;
const SHORT_OF_MEMORY: u32 = 1_000;

/// What is known of one container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Strains {
    memory: Limit,
    killed: Limit,
    pids: Limit,
    throttled: Level,
    cpu: Level,
    memory_pressure: Level,
    io: Level,
    /// Periods of its processor's limit, and those of them without anything left, at the last look.
    #[serde(skip)]
    periods: Option<(u64, u64)>,
    /// When it was looked at.
    #[serde(skip)]
    looked_ms: u64,
    /// When there was something to see.
    #[serde(skip)]
    seen_ms: Option<u64>,
}

/// A limit that is met or not; how often, by two counters that mean it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Limit {
    told: [u64; 2],
    pause: Pause,
}

/// Something that there is more or less of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Level {
    /// Whether it counts.
    is_high: bool,
    /// Since when it has been on the other side.
    #[serde(skip)]
    since_ms: Option<u64>,
    /// How much of it some waited, and all, as it was told.
    told: Option<(u32, u32)>,
    pause: Pause,
}

/// When something may be told again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Pause {
    until_ms: u64,
    /// How long it is.
    ms: u64,
}

impl Strains {
    /// When it was looked at last.
    pub(crate) fn looked_ms(&self) -> u64 {
        self.looked_ms
    }

    /// Takes in a look at the container, or that there was nothing to see. Says whether something is
    /// to be remembered.
    pub(crate) fn look(&mut self, now_ms: u64, usage: Option<&Usage>) -> bool {
        self.looked_ms = now_ms;
        let Some(usage) = usage else { return false };
        let before = self.clone();
        let seen_ms = self.seen_ms.replace(now_ms);
        if seen_ms.is_some_and(|seen_ms| now_ms.saturating_sub(seen_ms) > GAP_MS) {
            self.periods = None;
            for level in self.levels() {
                level.since_ms = None;
            }
        }
        let events = usage.memory_events;
        self.memory.look(now_ms, [events.max, 0]);
        self.killed.look(now_ms, [events.oom, events.oom_kill]);
        self.pids.look(now_ms, [usage.pids_refused, 0]);
        let periods = (usage.cpu_periods, usage.cpu_periods_throttled);
        if let Some(former) = self.periods.replace(periods) {
            let part = part(former, periods);
            self.throttled.look(now_ms, (part, part), BUSY);
        }
        for (level, pressure, threshold) in [
            (&mut self.cpu, &usage.cpu_pressure, BUSY),
            (&mut self.memory_pressure, &usage.memory_pressure, SHORT_OF_MEMORY),
            (&mut self.io, &usage.io_pressure, BUSY),
        ] {
            let Pressure { some, full } = pressure;
            level.look(now_ms, (some.avg60, full.avg60), threshold);
        }
        !self.remembers_the_same(&before)
    }

    /// How the next life of the same container begins.
    pub(crate) fn of_next_life(&self) -> Self {
        let mut next = self.clone();
        let limit = |pause: Pause| Limit { pause, ..Limit::default() };
        next.memory = limit(self.memory.pause);
        next.killed = limit(self.killed.pause);
        next.pids = limit(self.pids.pause);
        for level in next.levels() {
            *level = Level { pause: level.pause, ..Level::default() };
        }
        (next.periods, next.looked_ms, next.seen_ms) = (None, 0, None);
        next
    }

    fn levels(&mut self) -> [&mut Level; 4] {
        [&mut self.throttled, &mut self.cpu, &mut self.memory_pressure, &mut self.io]
    }

    fn remembers_the_same(&self, other: &Self) -> bool {
        let limits = |of: &Self| [of.memory.clone(), of.killed.clone(), of.pids.clone()];
        let levels = |of: &Self| {
            [&of.throttled, &of.cpu, &of.memory_pressure, &of.io]
                .map(|level| (level.is_high, level.told, level.pause))
        };
        limits(self) == limits(other) && levels(self) == levels(other)
    }

    /// What was told last, to stand behind a sentence; nothing when nothing strains it.
    pub(crate) fn sentence(&self) -> String {
        let mut parts = Vec::new();
        let [n_met, _] = self.memory.told;
        if n_met > 0 {
            parts.push(format!("it met its limit of memory {}", usage::times(n_met)));
        }
        let [n_oom, n_killed] = self.killed.told;
        if n_oom > 0 || n_killed > 0 {
            let (oom, killed) = (usage::times(n_oom), usage::processes(n_killed));
            parts.push(format!("it ran out of memory {oom}, {killed} killed"));
        }
        let [n_refused, _] = self.pids.told;
        if n_refused > 0 {
            parts.push(format!("it met its limit of processes {}", usage::times(n_refused)));
        }
        if let Some((part, _)) = self.throttled.told {
            let part = percent(part);
            parts.push(format!("its share of processors was used up in {part} of its time"));
        }
        for (what, level) in
            [("a processor", &self.cpu), ("memory", &self.memory_pressure), ("disks", &self.io)]
        {
            if let Some((some, full)) = level.told {
                let (some, full) = (percent(some), percent(full));
                parts.push(format!("it waited for {what} {some} of a minute, as a whole {full}"));
            }
        }
        parts.iter().map(|part| format!("; {part}")).collect()
    }
}

impl Limit {
    fn look(&mut self, now_ms: u64, counted: [u64; 2]) {
        // Counters of a kernel only grow; one that could not be read is nothing.
        let is_news = counted.iter().zip(&self.told).any(|(now, told)| now > told);
        if is_news && self.pause.is_over(now_ms) {
            self.told = counted;
            self.pause.begin(now_ms);
        }
    }
}

impl Level {
    fn look(&mut self, now_ms: u64, (some, full): (u32, u32), threshold: u32) {
        let (is_other, hold_ms) = if self.is_high {
            (some < threshold / 2, END_MS)
        } else {
            (some >= threshold, BEGIN_MS)
        };
        if is_other {
            let since_ms = *self.since_ms.get_or_insert(now_ms);
            if now_ms.saturating_sub(since_ms) >= hold_ms {
                self.is_high = !self.is_high;
                self.since_ms = None;
            }
        } else {
            self.since_ms = None;
        }
        if self.is_high != self.told.is_some() && self.pause.is_over(now_ms) {
            self.told = self.is_high.then_some((some, full));
            self.pause.begin(now_ms);
        }
    }
}

impl Pause {
    fn is_over(self, now_ms: u64) -> bool {
        now_ms >= self.until_ms
    }

    /// Something is told at this moment.
    fn begin(&mut self, now_ms: u64) {
        let rest_ms = self.ms.max(REST_MS);
        // The first pause of all is none.
        let is_quick = self.ms > 0 && now_ms < self.until_ms.saturating_add(rest_ms);
        self.ms = if is_quick { (self.ms * 2).min(PAUSE_MAX_MS) } else { PAUSE_MS };
        self.until_ms = now_ms.saturating_add(self.ms);
    }
}

/// Which part of the periods between two looks had nothing left, in hundredths of a percent.
fn part(former: (u64, u64), now: (u64, u64)) -> u32 {
    let (all, without) = (now.0.saturating_sub(former.0), now.1.saturating_sub(former.1));
    let part = without.saturating_mul(10_000).checked_div(all).unwrap_or(0).min(10_000);
    u32::try_from(part).unwrap_or(10_000)
}

fn percent(hundredths: u32) -> String {
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests;

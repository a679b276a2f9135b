//! What the kernel counts for one container, or for the whole node: use, pressure, and how often a
//! limit was met.
//!
//! Parsing is pure. A word that this kernel adds is skipped, one that it lacks counts as nothing:
//! numbers about a container decide nothing, they are told.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// No file of the kernel that is read here has a tenth of it.
const FILE_MAX: u64 = 16 << 10;

/// `memory.events`: how often the container met the limit of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryEvents {
    /// Its use was about to go over the limit and something had to be given back.
    pub max: u64,
    /// Nothing could be given back.
    pub oom: u64,
    /// Processes of it that were killed for want of memory, its own or the node's.
    pub oom_kill: u64,
}

/// A line of PSI: the part of the time in which somebody waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stall {
    /// Of the last ten seconds, in hundredths of a percent.
    pub avg10: u32,
    /// Of the last minute.
    pub avg60: u32,
    /// Of the last five minutes.
    pub avg300: u32,
    /// Since the cgroup was made, in microseconds.
    pub total_us: u64,
}

/// A file of PSI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressure {
    /// At least one process waited.
    pub some: Stall,
    /// All of them did.
    pub full: Stall,
}

/// `io.stat`: what went to and came from disks, summed over all of them. A device that lies on another
/// is counted beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Io {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// What went through the link of a container, as the container sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes that the container was sent.
    pub received_bytes: u64,
    /// Bytes that it sent.
    pub sent_bytes: u64,
}

/// Everything about one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Time on processors, in microseconds.
    pub cpu_us: u64,
    /// Periods in which it wanted to run under its limit.
    pub cpu_periods: u64,
    /// Those of them in which its share was used up.
    pub cpu_periods_throttled: u64,
    /// Time that it was held back because its share was used up.
    pub cpu_throttled_us: u64,
    /// Memory now, page cache and tmpfs included.
    pub memory_bytes: u64,
    /// The most that it ever was.
    pub memory_peak_bytes: u64,
    /// Limits of memory that were met.
    pub memory_events: MemoryEvents,
    /// Processes and threads now.
    pub pids: u64,
    /// How often there were too many to make another.
    pub pids_refused: u64,
    /// Its disks.
    pub io: Io,
    /// Waiting for a processor.
    pub cpu_pressure: Pressure,
    /// Waiting for memory.
    pub memory_pressure: Pressure,
    /// Waiting for disks.
    pub io_pressure: Pressure,
}

/// Reads everything about the container with this cgroup, which counts time on processors whatever its
/// controllers are, and memory if it has that one. Fails when it does not: it is no cgroup, or is just
/// going.
pub fn read(group: &Path) -> io::Result<Usage> {
    let file = |name: &str| match read_file(&group.join(name)) {
        // A kernel without this counter.
        Err(error) if error.kind() == io::ErrorKind::NotFound && group.exists() => {
            Ok(String::new())
        }
        done => done,
    };
    let cpu = read_file(&group.join("cpu.stat"))?;
    let controllers = file("cgroup.controllers")?;
    let memory = if controllers.split_whitespace().any(|one| one == "memory") {
        read_file(&group.join("memory.current"))?
    } else {
        file("memory.current")?
    };
    Ok(Usage {
        cpu_us: keyed(&cpu, "usage_usec"),
        cpu_periods: keyed(&cpu, "nr_periods"),
        cpu_periods_throttled: keyed(&cpu, "nr_throttled"),
        cpu_throttled_us: keyed(&cpu, "throttled_usec"),
        memory_bytes: number(&memory),
        memory_peak_bytes: number(&file("memory.peak")?),
        memory_events: memory_events(&file("memory.events")?),
        pids: number(&file("pids.current")?),
        pids_refused: keyed(&file("pids.events")?, "max"),
        io: io_stat(&file("io.stat")?),
        cpu_pressure: pressure(&file("cpu.pressure")?),
        memory_pressure: pressure(&file("memory.pressure")?),
        io_pressure: pressure(&file("io.pressure")?),
    })
}

/// Time on processors of this cgroup, in microseconds: all that is counted of the root one.
pub fn cpu_us(group: &Path) -> io::Result<u64> {
    Ok(keyed(&read_file(&group.join("cpu.stat"))?, "usage_usec"))
}

impl Usage {
    /// Which limit the container met in its life, for the sentence that says how it ended.
    pub fn limit_met(&self) -> Option<String> {
        let MemoryEvents { oom, oom_kill, .. } = self.memory_events;
        if oom > 0 {
            let (oom, killed) = (times(oom), processes(oom_kill));
            Some(format!("it needed more memory than its contract gives it {oom}, {killed} killed"))
        } else if oom_kill > 0 {
            Some(format!("the node ran out of memory, {} killed", processes(oom_kill)))
        } else if self.pids_refused > 0 {
            let refused = times(self.pids_refused);
            Some(format!("it wanted more processes than its contract gives it {refused}"))
        } else {
            None
        }
    }
}

/// `once`, `7 times`.
pub fn times(n: u64) -> String {
    if n == 1 { "once".to_owned() } else { format!("{n} times") }
}

/// `1 process was`, `7 processes were`.
pub fn processes(n: u64) -> String {
    if n == 1 { "1 process was".to_owned() } else { format!("{n} processes were") }
}

/// Reads what went through a link of the node that leads to a container: what the node has sent there,
/// the container has received.
pub fn traffic(links: &Path, link: &str) -> io::Result<Traffic> {
    let counted = links.join(link).join("statistics");
    let count = |name: &str| read_file(&counted.join(name)).map(|text| number(&text));
    Ok(Traffic { received_bytes: count("tx_bytes")?, sent_bytes: count("rx_bytes")? })
}

/// Reads a file of the kernel, or as much of it as it may have.
pub fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Parses `memory.events`.
pub fn memory_events(text: &str) -> MemoryEvents {
    MemoryEvents {
        max: keyed(text, "max"),
        oom: keyed(text, "oom"),
        oom_kill: keyed(text, "oom_kill"),
    }
}

/// Parses `io.stat`.
pub fn io_stat(text: &str) -> Io {
    let sum = |key: &str| {
        let pair = |word: &str| Some(number(word.strip_prefix(key)?.strip_prefix('=')?));
        text.split_whitespace().filter_map(pair).fold(0, u64::saturating_add)
    };
    Io {
        read_bytes: sum("rbytes"),
        written_bytes: sum("wbytes"),
        reads: sum("rios"),
        writes: sum("wios"),
    }
}

/// Parses a file of PSI.
pub fn pressure(text: &str) -> Pressure {
    let stall = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
        let field = |name: &str| {
            let mut words = line.unwrap_or_default().split_whitespace();
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let percent = |name| field(name).and_then(hundredths).unwrap_or(0);
        Stall {
            avg10: percent("avg10"),
            avg60: percent("avg60"),
            avg300: percent("avg300"),
            total_us: field("total").map_or(0, number),
        }
    };
    Pressure { some: stall("some"), full: stall("full") }
}

/// The number behind `key` in lines of `key number`.
fn keyed(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.map_or(0, number)
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// `12.34`, the form of the kernel: two digits behind the point.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.')?;
    let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    if part.len() != 2 || !digits(whole) || !digits(part) {
        return None;
    }
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(part.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &str =
        "low 0\nhigh 0\nmax 2117\noom 3\noom_kill 2\noom_group_kill 1\nsock_throttled 0\n";
    const PSI: &str = "some avg10=12.34 avg60=0.05 avg300=100.00 total=2815927\n\
                       full avg10=1.00 avg60=0.00 avg300=0.00 total=77\n";

    #[test]
    fn events_are_found_by_their_whole_name() {
        let want = MemoryEvents { max: 2117, oom: 3, oom_kill: 2 };
        assert_eq!(memory_events(EVENTS), want);
        for nothing in ["", "\n", "max", "max x\n", "maximum 4\n", "max -1\n"] {
            assert_eq!(memory_events(nothing), MemoryEvents::default(), "{nothing:?}");
        }
    }

    #[test]
    fn pressure_is_read_in_hundredths() {
        let Pressure { some, full } = pressure(PSI);
        let want = Stall { avg10: 1234, avg60: 5, avg300: 10_000, total_us: 2_815_927 };
        assert_eq!(some, want);
        assert_eq!((full.avg10, full.total_us), (100, 77));
        for nothing in ["", "some", "some avg10", "some avg10=x total=", "something avg10=1.00"] {
            assert_eq!(pressure(nothing), Pressure::default(), "{nothing:?}");
        }
    }

    #[test]
    fn only_the_kernels_form_is_a_percentage() {
        let rows = [
            ("0.00", Some(0)),
            ("99.99", Some(9999)),
            ("1.5", None),
            ("1", None),
            ("-1.00", None),
            ("1.+5", None),
            ("99999999999.00", None),
            ("42949672.96", None),
        ];
        for (text, want) in rows {
            assert_eq!(hundredths(text), want, "{text}");
        }
    }

    #[test]
    fn the_limit_that_hurt_most_is_named() {
        let check = |events: MemoryEvents, pids_refused, wanted: Option<&str>| {
            let usage = Usage { memory_events: events, pids_refused, ..Usage::default() };
            assert_eq!(usage.limit_met().as_deref(), wanted);
        };
        let none = MemoryEvents::default();
        check(none, 0, None);
        // To have met `max` is what a busy page cache does all day.
        check(MemoryEvents { max: 9, ..none }, 0, None);
        check(none, 1, Some("it wanted more processes than its contract gives it once"));
        check(
            MemoryEvents { max: 9, oom: 2, oom_kill: 1 },
            1,
            Some("it needed more memory than its contract gives it 2 times, 1 process was killed"),
        );
        let nodes = MemoryEvents { oom_kill: 3, ..none };
        check(nodes, 0, Some("the node ran out of memory, 3 processes were killed"));
    }

    #[test]
    fn disks_are_summed() {
        let text = "8:0 rbytes=4096 wbytes=10 rios=1 wios=2 dbytes=7 dios=7\n\
                    7:1 rbytes=1 wbytes=x rios=3\n8:16 \n";
        let wanted = Io { read_bytes: 4097, written_bytes: 10, reads: 4, writes: 2 };
        assert_eq!(io_stat(text), wanted);
        let most = format!("8:0 rbytes={0}\n8:1 rbytes={0}\n", u64::MAX);
        assert_eq!(io_stat(&most).read_bytes, u64::MAX);
        for nothing in ["", "rbytes", "xrbytes=4", "rbytes=-4"] {
            assert_eq!(io_stat(nothing), Io::default(), "{nothing:?}");
        }
    }

    #[test]
    fn what_the_node_sends_the_container_receives() {
        let links = tempfile::tempdir().unwrap();
        assert!(traffic(links.path(), "zc2").is_err());
        let counted = links.path().join("zc2/statistics");
        std::fs::create_dir_all(&counted).unwrap();
        std::fs::write(counted.join("rx_bytes"), "11\n").unwrap();
        std::fs::write(counted.join("tx_bytes"), "22\n").unwrap();
        let wanted = Traffic { received_bytes: 22, sent_bytes: 11 };
        assert_eq!(traffic(links.path(), "zc2").unwrap(), wanted);
    }

    #[test]
    fn a_cgroup_that_is_gone_is_an_error_and_a_missing_counter_is_none() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("group");
        assert!(read(&directory).is_err());
        std::fs::create_dir(&directory).unwrap();
        let write = |name: &str, text| std::fs::write(directory.join(name), text).unwrap();
        write("pids.events", "max 7\n");
        assert!(read(&directory).is_err(), "every cgroup has cpu.stat");
        write("cpu.stat", "usage_usec 5\n");
        let usage = read(&directory).unwrap();
        assert_eq!(usage, Usage { cpu_us: 5, pids_refused: 7, ..Usage::default() });
        write("cgroup.controllers", "cpu memory\n");
        assert!(read(&directory).is_err(), "what was promised is not nothing");
        write("memory.current", "9\n");
        assert_eq!(read(&directory).unwrap(), Usage { memory_bytes: 9, ..usage });
    }
}

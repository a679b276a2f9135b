//! The page of figures: what the node and its containers use, in the text format of Prometheus, version
//! 0.0.4. Containers have their ids on the node and nothing else: no title, no owner.

use crate::sample::Sampled;
use container::usage::{self, Pressure, Traffic, Usage};
use node_api::paths;
use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Containers that are shown: more than a node can attach.
const CONTAINERS_MAX: usize = 2048;

/// Everything on the page. What could not be read is not on it: no figure is not zero.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figures {
    /// Version of the image.
    pub version: Option<String>,
    /// Since the kernel started, in seconds.
    pub uptime_s: Option<f64>,
    /// Time on processors of everything, in microseconds.
    pub cpu_us: Option<u64>,
    /// Memory of the machine, and what of it could be had.
    pub memory_bytes: Option<u64>,
    /// See there.
    pub memory_available_bytes: Option<u64>,
    /// Waiting for processors, memory and disks.
    pub pressures: Option<[Pressure; 3]>,
    /// Samples that sinks were not sent.
    pub n_dropped: u64,
    /// By the container's id.
    pub containers: BTreeMap<String, (Usage, Option<Traffic>)>,
}

/// Reads and renders everything. What cannot be read is not on the page.
pub fn read(root: &Path, sampled: &Sampled, n_dropped: &AtomicU64) -> String {
    let mut figures = read_node(root);
    figures.n_dropped = n_dropped.load(Ordering::Relaxed);
    let [groups, links] = [paths::CGROUP_WORK, paths::LINKS].map(|path| below(root, path));
    for id in ids(&groups) {
        // It has just ended.
        let Ok(usage) = usage::read(&groups.join(&id)) else { continue };
        let link = sampled.links.get(&id);
        let traffic = link.and_then(|link| usage::traffic(&links, link).ok());
        figures.containers.insert(id, (usage, traffic));
    }
    render(&figures)
}

fn read_node(root: &Path) -> Figures {
    let text = |path: &str| usage::read_file(&below(root, path)).ok();
    let memory = text("/proc/meminfo").unwrap_or_default();
    let kibibytes = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line?.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let pressure = |what: &str| Some(usage::pressure(&text(&format!("/proc/pressure/{what}"))?));
    let pressures = || Some([pressure("cpu")?, pressure("memory")?, pressure("io")?]);
    Figures {
        version: text(paths::VERSION).map(|version| version.trim().to_owned()),
        uptime_s: text("/proc/uptime")
            .and_then(|uptime| uptime.split_whitespace().next()?.parse().ok()),
        cpu_us: usage::cpu_us(&below(root, paths::CGROUP)).ok(),
        memory_bytes: kibibytes("MemTotal"),
        memory_available_bytes: kibibytes("MemAvailable"),
        pressures: pressures(),
        ..Figures::default()
    }
}

/// Names of the groups of containers.
fn ids(groups: &Path) -> Vec<String> {
    let entries = fs::read_dir(groups).into_iter().flatten().filter_map(Result::ok);
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let ids = directories.filter_map(|entry| entry.file_name().into_string().ok());
    let mut ids: Vec<String> = ids.collect();
    // When there are too many, they are the same ones on each page.
    ids.sort();
    ids.truncate(CONTAINERS_MAX);
    ids
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// A family of figures about containers: its name, its type, what it means, and its samples of one
/// container with their further labels.
type Family = (&'static str, &'static str, &'static str, fn(&Usage) -> Samples);

/// Values, each behind its labels.
type Samples = Vec<(String, String)>;

/// In the order of the page.
const FAMILIES: [Family; 15] = [
    ("cpu_seconds_total", "counter", "Time on processors.", |usage| one(seconds(usage.cpu_us))),
    (
        "cpu_throttled_seconds_total",
        "counter",
        "Time without a processor because its share was used up.",
        |usage| one(seconds(usage.cpu_throttled_us)),
    ),
    ("cpu_periods_total", "counter", "Periods of its share in which it wanted to run.", |usage| {
        one(usage.cpu_periods)
    }),
    ("cpu_throttled_periods_total", "counter", "Those in which its share was used up.", |usage| {
        one(usage.cpu_periods_throttled)
    }),
    ("memory_bytes", "gauge", "Memory now, page cache and tmpfs included.", |usage| {
        one(usage.memory_bytes)
    }),
    ("memory_peak_bytes", "gauge", "The most memory that it ever had.", |usage| {
        one(usage.memory_peak_bytes)
    }),
    ("memory_limit_met_total", "counter", "How often it met its limit of memory.", |usage| {
        one(usage.memory_events.max)
    }),
    ("memory_oom_total", "counter", "How often no memory could be given back.", |usage| {
        one(usage.memory_events.oom)
    }),
    ("memory_oom_kills_total", "counter", "Processes killed for want of memory.", |usage| {
        one(usage.memory_events.oom_kill)
    }),
    ("pids", "gauge", "Processes and threads now.", |usage| one(usage.pids)),
    ("pids_refused_total", "counter", "How often it met its limit of processes.", |usage| {
        one(usage.pids_refused)
    }),
    ("io_bytes_total", "counter", "Bytes from and to disks.", |usage| {
        let Usage { io, .. } = usage;
        directions(["read", "write"], [io.read_bytes, io.written_bytes])
    }),
    ("io_operations_total", "counter", "Reads and writes of disks.", |usage| {
        directions(["read", "write"], [usage.io.reads, usage.io.writes])
    }),
    ("pressure_seconds_total", "counter", PRESSURE, |usage| {
        pressures(&[usage.cpu_pressure, usage.memory_pressure, usage.io_pressure])
    }),
    ("pressure_ratio", "gauge", "The same, as part of the last ten seconds.", |usage| {
        ratios(&[usage.cpu_pressure, usage.memory_pressure, usage.io_pressure])
    }),
];
const PRESSURE: &str = "Time in which some of it, or all of it, waited.";

/// The page.
pub fn render(figures: &Figures) -> String {
    let mut page = String::new();
    let mut node = |name: &str, kind: &str, help: &str, samples: Option<Samples>| {
        let Some(samples) = samples else { return };
        head(&mut page, name, kind, help);
        for (labels, value) in samples {
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            line(&mut page, name, &labels, &value);
        }
    };
    let Figures { version, uptime_s, cpu_us, memory_bytes, memory_available_bytes, .. } = figures;
    let info =
        |version: &String| vec![(format!("version=\"{}\"", escaped(version)), "1".to_owned())];
    let info = version.as_ref().map(info);
    node("zos_node_info", "gauge", "The image that the node runs.", info);
    node("zos_node_uptime_seconds", "gauge", "Since the kernel started.", uptime_s.map(one));
    let cpu = cpu_us.map(|us| one(seconds(us)));
    node("zos_node_cpu_seconds_total", "counter", "Time on processors, of everything.", cpu);
    node("zos_node_memory_bytes", "gauge", "Memory of the machine.", memory_bytes.map(one));
    let available = memory_available_bytes.map(one);
    node("zos_node_memory_available_bytes", "gauge", "What of it could be had.", available);
    let pressed = figures.pressures.as_ref().map(pressures);
    node("zos_node_pressure_seconds_total", "counter", PRESSURE, pressed);
    let ratio = figures.pressures.as_ref().map(ratios);
    let help = "The same, as part of the last ten seconds.";
    node("zos_node_pressure_ratio", "gauge", help, ratio);
    let n_containers = Some(one(figures.containers.len()));
    node("zos_node_containers", "gauge", "Containers that are there.", n_containers);
    let help = "Samples that sinks of statistics were not sent.";
    node("zos_node_stats_dropped_total", "counter", help, Some(one(figures.n_dropped)));
    for (name, kind, help, samples) in FAMILIES {
        let name = format!("zos_container_{name}");
        head(&mut page, &name, kind, help);
        for (id, (usage, _)) in &figures.containers {
            for (labels, value) in samples(usage) {
                container_line(&mut page, &name, id, &labels, &value);
            }
        }
    }
    let name = "zos_container_network_bytes_total";
    head(&mut page, name, "counter", "Bytes that it was sent, and that it sent.");
    for (id, (_, traffic)) in &figures.containers {
        let Some(Traffic { received_bytes, sent_bytes }) = traffic else { continue };
        for (labels, value) in directions(["receive", "send"], [*received_bytes, *sent_bytes]) {
            container_line(&mut page, name, id, &labels, &value);
        }
    }
    page
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a String takes all");
}

fn line(page: &mut String, name: &str, labels: &str, value: &str) {
    writeln!(page, "{name}{labels} {value}").expect("a String takes all");
}

fn container_line(page: &mut String, name: &str, id: &str, labels: &str, value: &str) {
    let comma = if labels.is_empty() { "" } else { "," };
    line(page, name, &format!("{{id=\"{}\"{comma}{labels}}}", escaped(id)), value);
}

/// A value of a label, as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn one(value: impl Display) -> Samples {
    vec![(String::new(), format!("{value}"))]
}

fn directions(names: [&str; 2], values: [u64; 2]) -> Samples {
    let named = names.into_iter().zip(values);
    named.map(|(name, value)| (format!("direction=\"{name}\""), value.to_string())).collect()
}

/// Without rounding.
fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

fn pressures(of: &[Pressure; 3]) -> Samples {
    stalls(of, |stall| seconds(stall.total_us))
}

fn ratios(of: &[Pressure; 3]) -> Samples {
    stalls(of, |stall| format!("{}.{:04}", stall.avg10 / 10_000, stall.avg10 % 10_000))
}

fn stalls(of: &[Pressure; 3], value: fn(&usage::Stall) -> String) -> Samples {
    let mut samples = Vec::new();
    for (what, pressure) in ["cpu", "memory", "io"].iter().zip(of) {
        for (who, stall) in [("some", &pressure.some), ("full", &pressure.full)] {
            samples.push((format!("resource=\"{what}\",waiting=\"{who}\""), value(stall)));
        }
    }
    samples
}

#[cfg(test)]
mod tests;

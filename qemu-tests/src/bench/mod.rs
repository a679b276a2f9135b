//! Measurements of the node: what each one is, and how it is reported. `docs/benchmarks.md` has the
//! figures.
//!
//! What is compared is measured in turns on the same machine, and the median counts: the host is
//! rarely quiet.

mod boot;
mod container;
mod flist;
pub(crate) mod inside;
mod memory;
pub(crate) mod registry;
mod size;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write as _, fs};

/// Names of the benchmarks.
pub const NAMES: [&str; 6] = ["boot", "container", "flist", "memory", "registry", "size"];

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// `boot.ready_s` and the like.
    pub id: String,
    /// What it counts in.
    pub unit: &'static str,
    /// The node's.
    pub ours: f64,
    /// What it is compared with.
    pub peers: BTreeMap<&'static str, f64>,
    /// What it must not exceed.
    pub limit: Option<f64>,
    /// How often it was measured.
    pub n_runs: usize,
}

impl Figure {
    fn new(id: &str, unit: &'static str, ours: f64, n_runs: usize) -> Self {
        Self { id: id.to_owned(), unit, ours, peers: BTreeMap::new(), limit: None, n_runs }
    }

    fn beside(mut self, peer: &'static str, value: f64) -> Self {
        self.peers.insert(peer, value);
        self
    }

    fn at_most(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Ours, divided by that of the first peer.
    fn ratio(&self) -> Option<f64> {
        self.peers.values().next().filter(|peer| **peer > 0.0).map(|peer| self.ours / peer)
    }

    fn is_kept(&self) -> Option<bool> {
        self.limit.map(|limit| self.ours <= limit)
    }
}

/// Everything that one benchmark found.
#[derive(Debug)]
pub struct Report {
    name: String,
    machine: String,
    figures: Vec<Figure>,
}

/// Runs the benchmark `name`; what is measured several times is measured `n_runs` times, or as often
/// as is usual for it. `tell` hears how far it is.
pub fn run(name: &str, n_runs: Option<usize>, tell: &dyn Fn(&str)) -> Result<Report> {
    let figures = match name {
        "boot" => boot::measure(n_runs.unwrap_or(boot::RUNS), tell)?,
        "container" => container::measure(n_runs.unwrap_or(container::RUNS), tell)?,
        "flist" => flist::measure(n_runs.unwrap_or(flist::RUNS), tell)?,
        "memory" => memory::measure(tell)?,
        "registry" => registry::measure(n_runs.unwrap_or(registry::RUNS), tell)?,
        "size" => size::measure()?,
        _ => bail!("no benchmark {name}; there are {}", NAMES.join(", ")),
    };
    let guest = if name == "registry" { "no virtual machine" } else { "QEMU without KVM" };
    Ok(Report { name: name.to_owned(), machine: host(guest)?, figures })
}

impl Report {
    /// One JSON object.
    pub fn json(&self) -> Value {
        let figure = |figure: &Figure| {
            json!({
                "id": figure.id,
                "unit": figure.unit,
                "ours": figure.ours,
                "peers": figure.peers,
                "ratio": figure.ratio(),
                "limit": figure.limit,
                "runs": figure.n_runs,
            })
        };
        let results: Vec<_> = self.figures.iter().map(figure).collect();
        json!({"name": self.name, "machine": self.machine, "results": results})
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = format!("{}, on {}\n", self.name, self.machine);
        let width = self.figures.iter().map(|figure| figure.id.len()).max().unwrap_or(0);
        for figure in &self.figures {
            write!(text, "  {:width$}  {:>12}", figure.id, show(figure.ours, figure.unit))
                .expect("a String takes everything");
            for (name, value) in &figure.peers {
                let value = show(*value, figure.unit);
                write!(text, "   {name} {value}").expect("a String takes everything");
            }
            if let Some(ratio) = figure.ratio() {
                write!(text, "   ratio {ratio:.2}").expect("a String takes everything");
            }
            if let (Some(limit), Some(is_kept)) = (figure.limit, figure.is_kept()) {
                let word = if is_kept { "within" } else { "MISSES" };
                let limit = show(limit, figure.unit);
                write!(text, "   {word} {limit}").expect("a String takes everything");
            }
            text.push('\n');
        }
        text
    }
}

fn show(value: f64, unit: &str) -> String {
    match unit {
        "bytes" if value < 1e5 => format!("{value:.0} B"),
        "bytes" => format!("{:.2} MB", value / 1e6),
        "s" => format!("{value:.2} s"),
        "ms" => format!("{value:.1} ms"),
        "count" => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

/// The middle one; of an even number, the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.get(sorted.len() / 2)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => 0.0,
    }
}

/// Bytes and counts of this size are exact.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn exact(bytes: u64) -> f64 {
    bytes as f64
}

/// What the machine is that measures, and what it runs.
fn host(guest: &str) -> Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown processor", |(_, name)| name.trim());
    let n_processors = std::thread::available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    Ok(format!("{n_processors} x {model}, {guest}, load {load} at the end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "halves are exact")]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_missed_limit_is_said_and_a_kept_one_too() {
        let figure = |ours| Figure::new("boot.ready_s", "s", ours, 5).beside("kernel", 2.0);
        let report = |figure: Figure| Report {
            name: "boot".to_owned(),
            machine: "test".to_owned(),
            figures: vec![figure.at_most(3.5)],
        };
        let kept = report(figure(3.0));
        assert!(kept.table().contains("ratio 1.50   within 3.50 s"), "{}", kept.table());
        assert!(report(figure(4.0)).table().contains("MISSES 3.50 s"));
        let result = &kept.json()["results"][0];
        assert_eq!(result["ratio"], 1.5);
        assert_eq!(result["peers"]["kernel"], 2.0);
        assert_eq!(result["runs"], 5);
    }
}

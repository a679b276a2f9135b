//! The page as its readers parse it.

use super::*;
use container::usage::{Io, MemoryEvents, Stall};
use std::collections::BTreeSet;

fn usage() -> Usage {
    let some = Stall { avg10: 1234, total_us: 1_500_000, ..Stall::default() };
    Usage {
        cpu_us: 12_000_345,
        memory_events: MemoryEvents { max: 7, oom: 2, oom_kill: 1 },
        io: Io { read_bytes: 4096, ..Io::default() },
        memory_pressure: Pressure { some, ..Pressure::default() },
        ..Usage::default()
    }
}

fn figures() -> Figures {
    let traffic = Traffic { received_bytes: 11, sent_bytes: 22 };
    Figures {
        version: Some("0.1.0".into()),
        uptime_s: Some(12.5),
        containers: BTreeMap::from([
            ("c-1-web".to_owned(), (usage(), Some(traffic))),
            ("c-2-alone".to_owned(), (Usage::default(), None)),
        ]),
        ..Figures::default()
    }
}

/// Every sample by its name and labels; each has its family's head before it, and is there once.
fn samples(page: &str) -> BTreeMap<String, String> {
    let (mut samples, mut helped, mut kinds) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    let mut current = "";
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            current = help.split_once(' ').unwrap().0;
            assert!(helped.insert(current), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, current, "{line}");
            kinds.insert(name, kind);
        } else {
            let (key, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(key.split('{').next(), Some(current), "{line}");
            assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{line}");
            assert!(samples.insert(key.to_owned(), value.to_owned()).is_none(), "{line}");
        }
    }
    for (name, kind) in kinds {
        let good = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.starts_with("zos_") && name.chars().all(good), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert!(["counter", "gauge"].contains(&kind), "{name}");
    }
    samples
}

#[test]
fn every_figure_is_there_with_its_unit() {
    let page = render(&figures());
    let samples = samples(&page);
    for (key, wanted) in [
        ("zos_node_info{version=\"0.1.0\"}", "1"),
        ("zos_node_uptime_seconds", "12.5"),
        ("zos_node_containers", "2"),
        ("zos_container_cpu_seconds_total{id=\"c-1-web\"}", "12.000345"),
        ("zos_container_memory_limit_met_total{id=\"c-1-web\"}", "7"),
        ("zos_container_memory_limit_met_total{id=\"c-2-alone\"}", "0"),
        ("zos_container_io_bytes_total{id=\"c-1-web\",direction=\"read\"}", "4096"),
        ("zos_container_network_bytes_total{id=\"c-1-web\",direction=\"receive\"}", "11"),
        ("zos_container_network_bytes_total{id=\"c-1-web\",direction=\"send\"}", "22"),
        (
            "zos_container_pressure_seconds_total{id=\"c-1-web\",resource=\"memory\",waiting=\"some\"}",
            "1.500000",
        ),
        (
            "zos_container_pressure_ratio{id=\"c-1-web\",resource=\"memory\",waiting=\"some\"}",
            "0.1234",
        ),
    ] {
        assert_eq!(samples.get(key).map(String::as_str), Some(wanted), "{key} in\n{page}");
    }
    let of_nobody = "zos_container_network_bytes_total{id=\"c-2-alone\"";
    assert!(!page.contains(of_nobody), "no figure is not zero");
}

#[test]
fn labels_end_where_they_should() {
    assert_eq!(escaped("c-1-web"), "c-1-web");
    assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    let mut figures = figures();
    figures.version = Some("0.1\"} 7\nzos_evil 1".into());
    let odd = "x\"} 1\nzos_node_containers 99".to_owned();
    figures.containers.insert(odd, (Usage::default(), None));
    let samples = samples(&render(&figures));
    assert_eq!(samples["zos_node_containers"], "3");
    assert!(!samples.keys().any(|key| key.starts_with("zos_evil")));
}

#[test]
fn what_the_kernel_shows_is_read() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = below(root.path(), path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let n_dropped = AtomicU64::new(5);
    // Nothing can be read, and a page is there all the same.
    let empty = samples(&read(root.path(), &Sampled::default(), &n_dropped));
    let keys: Vec<&str> = empty.keys().map(String::as_str).collect();
    assert_eq!(keys, ["zos_node_containers", "zos_node_stats_dropped_total"]);
    write("/proc/uptime", "350735.47 234388.90\n");
    write("/proc/meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable: 500 kB\n");
    for what in ["cpu", "memory"] {
        write(&format!("/proc/pressure/{what}"), "");
    }
    write("/proc/pressure/io", "some avg10=1.00 avg60=0.00 avg300=0.00 total=3000000\n");
    // The root of all groups has controllers, and hardly any of their files.
    write(&format!("{}/cgroup.controllers", paths::CGROUP), "cpu io memory pids\n");
    write(&format!("{}/cpu.stat", paths::CGROUP), "usage_usec 7000000\n");
    write(&format!("{}/cgroup.procs", paths::CGROUP_WORK), "");
    write(&format!("{}/c-1-web/cpu.stat", paths::CGROUP_WORK), "usage_usec 1\n");
    write(&format!("{}/c-1-web/memory.current", paths::CGROUP_WORK), "42\n");
    write(&format!("{}/zc2/statistics/rx_bytes", paths::LINKS), "1\n");
    write(&format!("{}/zc2/statistics/tx_bytes", paths::LINKS), "2\n");
    let links = BTreeMap::from([("c-1-web".to_owned(), "zc2".to_owned())]);
    let page = read(root.path(), &Sampled { links, ..Sampled::default() }, &n_dropped);
    let samples = samples(&page);
    for (key, wanted) in [
        ("zos_node_uptime_seconds", "350735.47"),
        ("zos_node_cpu_seconds_total", "7.000000"),
        ("zos_node_memory_bytes", "1024000"),
        ("zos_node_memory_available_bytes", "512000"),
        ("zos_node_pressure_seconds_total{resource=\"io\",waiting=\"some\"}", "3.000000"),
        ("zos_node_stats_dropped_total", "5"),
        ("zos_node_containers", "1"),
        ("zos_container_memory_bytes{id=\"c-1-web\"}", "42"),
        ("zos_container_network_bytes_total{id=\"c-1-web\",direction=\"receive\"}", "2"),
    ] {
        assert_eq!(samples.get(key).map(String::as_str), Some(wanted), "{key} in\n{page}");
    }
}

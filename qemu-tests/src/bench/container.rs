//! How long our OCI runtime takes for a container, beside crun and runc in the same machine, and what
//! it leaves behind after many. `guest/runtimes.rs` measures.

use super::{Figure, exact, inside, median};
use crate::{archive, machine::Machine, media::Image, trial};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// So many runs of ours unless another number is given.
pub(super) const RUNS: usize = 300;
/// So often all are measured in turns, or as often as ours runs: more would not change medians.
const ROUNDS_MAX: usize = 25;
/// Where our runtime was built: static and small, as the node's own programs are.
const PROGRAM: &str = "ZOS_CONTAINER";
/// Debian's, with the path in the package of each.
const PEERS: [(&str, &str); 2] = [("crun", "usr/bin/crun"), ("runc", "usr/sbin/runc")];
/// Makes the verified root, static (`modules/container/examples/measure-vm.rs`).
const HELPER: &str = "ZOS_MEASURE_VM";
/// What our own launcher lets a container call, as far as a name says it; see [`seccomp`].
const CALLS: &str = include_str!("../../../modules/container/seccomp.txt");
/// For the verified root.
const DISK_MIB: u64 = 512;
/// Between two lines of the guest lie at most a hundred runs, or a command that hangs.
const NEXT_LINE: Duration = Duration::from_secs(1800);

pub(super) fn measure(n_runs: usize, tell: &dyn Fn(&str)) -> Result<Vec<Figure>> {
    let temporary = crate::scratch()?;
    let directory = temporary.path();
    let image = Image::find()?;
    let n_rounds = n_runs.min(ROUNDS_MAX);
    let mut machine = Machine::new("container");
    machine.overlay = Some(overlay(&image, directory, n_runs, n_rounds)?);
    machine.disks.push((inside::disk(directory, DISK_MIB)?, "DISK".to_owned()));
    let heard = inside::hear(&machine, &image, directory, NEXT_LINE, tell)?;
    figures(&heard.lines, heard.scale, n_runs, n_rounds)
}

/// The runner of the launcher's checks with `guest/runtimes.rs` in their place, and behind it the
/// runtimes, their libraries and the bundle's configuration.
fn overlay(image: &Image, directory: &Path, n_runs: usize, n_rounds: usize) -> Result<PathBuf> {
    let ours = inside::program(PROGRAM)?;
    let measurer = archive::guest_program("runtimes", directory)?;
    let path = trial::overlay(image, &measurer, directory)?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let mut files = BTreeMap::from([
        ("usr/bin/container".to_owned(), read(&ours)?),
        ("usr/bin/measure-vm".to_owned(), read(&inside::program(HELPER)?)?),
        ("usr/bin/bench-config.json".to_owned(), configuration().to_string().into_bytes()),
        ("usr/bin/bench-plan".to_owned(), format!("{n_runs} {n_rounds}").into_bytes()),
    ]);
    for (name, program) in PEERS {
        inside::add_package(&mut files, name, program)?;
    }
    inside::append(&path, &files)?;
    Ok(path)
}

/// What all three take and do.
fn configuration() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    let mount = |destination, kind, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let quiet = ["nosuid", "noexec", "nodev"];
    let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup", "user"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "container",
        "mounts": [
            mount("/proc", "proc", &quiet),
            mount("/dev", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &quiet),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"])
        ],
        "linux": {
            "cgroupsPath": "/bench/c",
            "uidMappings": ids,
            "gidMappings": ids,
            "resources": {
                "devices": [{ "allow": false, "access": "rwm" }],
                "memory": { "limit": 67_108_864 },
                "cpu": { "quota": 100_000, "period": 100_000 },
                "pids": { "limit": 64 }
            },
            "namespaces": kinds.map(|kind| json!({ "type": kind })),
            "seccomp": seccomp(),
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
                "/sys/firmware"
            ],
            "readonlyPaths":
                ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// The filter of our launcher (`modules/container/build.rs`) as a profile that all three understand. All
/// of it but one thing: that two requests of `ioctl` are refused takes two conditions about one argument,
/// which libseccomp does not put into one rule.
fn seccomp() -> Value {
    let lines = CALLS.lines().map(|line| line.split('#').next().unwrap_or_default());
    let mut names: Vec<&str> = lines
        .flat_map(str::split_ascii_whitespace)
        .filter_map(|word| word.split_once('=').map(|(name, _)| name))
        .collect();
    names.push("ioctl");
    let allow = |names: Value, args: Value| json!({ "names": names, "action": "SCMP_ACT_ALLOW", "args": args });
    let is = |value: u64| json!([{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }]);
    // Unix, IPv4, IPv6, netlink; Linux with and without address randomisation and UNAME26, and the question.
    let families = [1, 2, 10, 16].map(|family| allow(json!(["socket", "socketpair"]), is(family)));
    let personalities = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
    let personalities = personalities.map(|value| allow(json!(["personality"]), is(value)));
    // No flag of a namespace.
    let masked =
        json!([{ "index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }]);
    let mut rules = vec![
        allow(json!(names), json!([])),
        allow(json!(["clone"]), masked),
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }),
    ];
    rules.extend(families.into_iter().chain(personalities));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules
    })
}

/// What the guest said, as figures; `scale` corrects its clock.
fn figures(said: &[String], scale: f64, n_runs: usize, n_rounds: usize) -> Result<Vec<Figure>> {
    let mut took: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    let mut left = BTreeMap::new();
    for line in said {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["took", what, runtime, us] => {
                let us: u64 = us.parse().with_context(|| format!("no time in {line:?}"))?;
                took.entry((what, runtime)).or_default().push(exact(us) / 1000.0 * scale);
            }
            ["left", thing, before, after] => {
                let number = |text: &str| {
                    text.parse::<u64>().with_context(|| format!("no number in {line:?}"))
                };
                left.insert(thing, number(after)?.saturating_sub(number(before)?));
            }
            _ => {}
        }
    }
    let middle = |what, runtime| {
        let times = took.get(&(what, runtime)).map_or(&[][..], Vec::as_slice);
        ensure!(times.len() == n_rounds, "{} times of {runtime}, {what}", times.len());
        Ok(median(times))
    };
    let mut figures = Vec::new();
    for (what, id) in [("run", "run"), ("life", "create_start_delete")] {
        for (peer, _) in PEERS {
            let id = format!("container.{id}_vs_{peer}");
            let figure = Figure::new(&id, "ms", middle(what, "ours")?, n_rounds);
            figures.push(figure.beside(peer, middle(what, peer)?));
        }
    }
    let n_hung = said.iter().filter(|line| line.starts_with("hung ours ")).count() as u64;
    let mut nothing =
        |id: &str, n| figures.push(Figure::new(id, "count", exact(n), n_runs).at_most(0.0));
    nothing("container.hangs", n_hung);
    for thing in ["cgroups", "mounts", "netns", "processes"] {
        let n_left = left.get(thing).with_context(|| format!("nobody counted {thing}"))?;
        nothing(&format!("container.leaked_{thing}"), *n_left);
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Vec<String> {
        let mut said = vec!["ours 100 of 100".to_owned()];
        for thing in ["cgroups", "mounts", "netns"] {
            said.push(format!("left {thing} 7 7"));
        }
        said.push("left processes 5 8".to_owned());
        for (ours, crun, runc) in [(40_000, 80_000, 99_000), (20_000, 80_000, 101_000)] {
            for what in ["run", "life"] {
                said.push(format!("took {what} ours {ours}"));
                said.push(format!("took {what} crun {crun}"));
                said.push(format!("took {what} runc {runc}"));
            }
        }
        said
    }

    #[test]
    fn each_median_stands_beside_that_of_a_peer() {
        let figures = figures(&said(), 0.5, 100, 2).unwrap();
        let of = |id: &str| figures.iter().find(|figure| figure.id == id).unwrap();
        let run = of("container.run_vs_crun");
        assert_eq!((run.ours, run.peers["crun"]), (15.0, 40.0), "the clock was twice too fast");
        assert_eq!(run.ratio(), Some(30.0 / 80.0));
        assert_eq!(of("container.create_start_delete_vs_runc").ratio(), Some(30.0 / 100.0));
        assert_eq!(of("container.run_vs_runc").n_runs, 2);
        assert_eq!(
            (of("container.leaked_netns").is_kept(), of("container.hangs").is_kept()),
            (Some(true), Some(true))
        );
    }

    #[test]
    fn what_is_left_and_what_hung_is_said() {
        let mut said = said();
        said.push("hung ours run -b /b c".to_owned());
        said.push("hung runc run -b /b c".to_owned());
        let figures = figures(&said, 0.5, 100, 2).unwrap();
        for (id, want) in [("container.leaked_processes", 3.0), ("container.hangs", 1.0)] {
            let figure = figures.iter().find(|figure| figure.id == id).unwrap();
            assert!((figure.ours - want).abs() < 0.1, "{figure:?}");
            assert_eq!((figure.is_kept(), figure.n_runs), (Some(false), 100));
        }
    }

    #[test]
    fn a_lost_line_is_an_error() {
        for lost in 1..said().len() {
            let mut said = said();
            said.remove(lost);
            assert!(figures(&said, 0.5, 100, 2).is_err(), "line {lost}");
        }
    }
}

//! Limits of a configuration, as the files of cgroup v2 take them. Pure.

use super::config::{BlockIo, Cpu, Memory, Resources, Throttle};
use crate::check::{Invalid, refuse};

/// Files that a configuration may name itself.
const UNIFIED_MAX: usize = 64;
/// Disks that a limit of a kind names.
const THROTTLES_MAX: usize = 64;
/// Bytes of a value; none of the kernel's takes more.
const VALUE_MAX: usize = 4096;
/// Period of `cpu.max` when none is given, in microseconds: the kernel's.
const PERIOD_US: u64 = 100_000;

/// File and value, in the order of writing.
pub(super) fn settings(resources: Resources) -> Result<Vec<(String, String)>, Invalid> {
    for (what, other) in [
        ("hugepageLimits", &resources.hugepage_limits),
        ("network", &resources.network),
        ("rdma", &resources.rdma),
    ] {
        if other.is_set() {
            return refuse(format!("linux.resources.{what}: this runtime has no such thing"));
        }
    }
    let mut settings = Vec::new();
    let mut put = |file: &str, value: String| settings.push((file.to_owned(), value));
    if let Some(memory) = resources.memory {
        self::memory(&memory, &mut put)?;
    }
    if let Some(cpu) = resources.cpu {
        self::cpu(&cpu, &mut put)?;
    }
    if let Some(pids) = resources.pids {
        put("pids.max", if pids.limit > 0 { pids.limit.to_string() } else { "max".to_owned() });
    }
    if let Some(block_io) = resources.block_io {
        self::block_io(&block_io, &mut put)?;
    }
    let unified = resources.unified.unwrap_or_default();
    if unified.len() > UNIFIED_MAX {
        return refuse(format!("linux.resources.unified: at most {UNIFIED_MAX}"));
    }
    for (file, value) in unified {
        let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
        let names_file = file.bytes().all(good) && file.split('.').all(|part| !part.is_empty());
        if !names_file || !file.contains('.') || file.starts_with("cgroup.") {
            return refuse(format!("linux.resources.unified: {file:?} is not a limit"));
        }
        if value.len() > VALUE_MAX || value.contains('\0') {
            return refuse(format!("linux.resources.unified: the value of {file}"));
        }
        put(&file, value);
    }
    Ok(settings)
}

fn memory(memory: &Memory, put: &mut impl FnMut(&str, String)) -> Result<(), Invalid> {
    for (what, other) in [
        ("kernel", &memory.kernel),
        ("kernelTCP", &memory.kernel_tcp),
        ("swappiness", &memory.swappiness),
        ("disableOOMKiller", &memory.disable_oom_killer),
    ] {
        if other.is_set() {
            return refuse(format!("linux.resources.memory.{what}: cgroup v2 has no such thing"));
        }
    }
    let bytes = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    if let Some(limit) = memory.limit {
        put("memory.max", bytes(limit));
    }
    if let Some(reservation) = memory.reservation {
        put("memory.low", bytes(reservation));
    }
    // The configuration counts memory and swap together, the kernel swap alone.
    match (memory.swap, memory.limit) {
        (None, _) => {}
        (Some(swap), _) if swap < 0 => put("memory.swap.max", "max".to_owned()),
        (Some(swap), Some(limit)) if (0..=swap).contains(&limit) => {
            put("memory.swap.max", (swap - limit).to_string());
        }
        (Some(_), _) => {
            return refuse("linux.resources.memory.swap: it is not below the limit of memory");
        }
    }
    Ok(())
}

fn cpu(cpu: &Cpu, put: &mut impl FnMut(&str, String)) -> Result<(), Invalid> {
    if cpu.realtime_period.is_set() || cpu.realtime_runtime.is_set() {
        return refuse("linux.resources.cpu: cgroup v2 has no realtime limits");
    }
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        // 2 to 262144 shares of cgroup v1 become 1 to 10000.
        let shares = shares.clamp(2, 262_144);
        put("cpu.weight", (1 + (shares - 2) * 9999 / 262_142).to_string());
    }
    if cpu.quota.is_some() || cpu.period.is_some() {
        let quota = cpu.quota.filter(|quota| *quota > 0);
        let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        let period = cpu.period.filter(|period| *period != 0).unwrap_or(PERIOD_US);
        put("cpu.max", format!("{quota} {period}"));
    }
    if let Some(burst) = cpu.burst {
        put("cpu.max.burst", burst.to_string());
    }
    if let Some(idle) = cpu.idle {
        put("cpu.idle", idle.to_string());
    }
    for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        let Some(list) = list.as_deref().filter(|list| !list.is_empty()) else { continue };
        let good = |c: u8| c.is_ascii_digit() || c == b',' || c == b'-';
        if list.len() > VALUE_MAX || !list.bytes().all(good) {
            return refuse(format!("linux.resources.cpu: {list:?} is no list of numbers"));
        }
        put(file, list.to_owned());
    }
    Ok(())
}

fn block_io(block_io: &BlockIo, put: &mut impl FnMut(&str, String)) -> Result<(), Invalid> {
    for (what, other) in [
        ("weight", &block_io.weight),
        ("leafWeight", &block_io.leaf_weight),
        ("weightDevice", &block_io.weight_device),
    ] {
        if other.is_set() {
            return refuse(format!(
                "linux.resources.blockIO.{what}: this runtime has no such thing"
            ));
        }
    }
    for (word, limits) in [
        ("rbps", &block_io.throttle_read_bps_device),
        ("wbps", &block_io.throttle_write_bps_device),
        ("riops", &block_io.throttle_read_iops_device),
        ("wiops", &block_io.throttle_write_iops_device),
    ] {
        let limits = limits.as_deref().unwrap_or_default();
        if limits.len() > THROTTLES_MAX {
            return refuse(format!("linux.resources.blockIO: at most {THROTTLES_MAX} of a kind"));
        }
        for Throttle { major, minor, rate } in limits {
            if *rate == 0 {
                return refuse("linux.resources.blockIO: a rate is above 0");
            }
            put("io.max", format!("{major}:{minor} {word}={rate}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, Invalid> {
        settings(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn limits_become_files() {
        let rows: [(&str, &[(&str, &str)]); 11] = [
            ("{}", &[]),
            (r#"{"memory":{"limit":1000}}"#, &[("memory.max", "1000")]),
            (
                r#"{"memory":{"limit":-1,"swap":-1}}"#,
                &[("memory.max", "max"), ("memory.swap.max", "max")],
            ),
            (
                r#"{"memory":{"limit":10,"swap":15}}"#,
                &[("memory.max", "10"), ("memory.swap.max", "5")],
            ),
            (r#"{"pids":{"limit":32}}"#, &[("pids.max", "32")]),
            (r#"{"pids":{"limit":-1}}"#, &[("pids.max", "max")]),
            (r#"{"cpu":{"quota":5000,"period":10000}}"#, &[("cpu.max", "5000 10000")]),
            (
                r#"{"cpu":{"shares":1024,"cpus":"0-1"}}"#,
                &[("cpu.weight", "39"), ("cpuset.cpus", "0-1")],
            ),
            (r#"{"unified":{"memory.high":"7"}}"#, &[("memory.high", "7")]),
            (
                r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}],
                    "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":30}]}}"#,
                &[("io.max", "8:0 rbps=600"), ("io.max", "8:16 wiops=30")],
            ),
            (
                r#"{"blockIO":{"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2}],
                    "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":1}]}}"#,
                &[("io.max", "8:0 wbps=2"), ("io.max", "8:0 riops=1")],
            ),
        ];
        for (text, want) in rows {
            let want: Vec<_> = want
                .iter()
                .map(|(file, value)| ((*file).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(read(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_cgroup_v2_lacks_and_paths_are_refused() {
        for text in [
            r#"{"memory":{"swappiness":0}}"#,
            r#"{"memory":{"swap":5}}"#,
            r#"{"memory":{"limit":9,"swap":5}}"#,
            r#"{"blockIO":{"weight":10}}"#,
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0}]}}"#,
            r#"{"hugepageLimits":[{}]}"#,
            r#"{"cpu":{"cpus":"0\n1"}}"#,
            r#"{"cpu":{"realtimePeriod":1}}"#,
            r#"{"unified":{"../x.max":"1"}}"#,
            r#"{"unified":{"cgroup.procs":"1"}}"#,
            r#"{"unified":{"..":"1"}}"#,
            r#"{"unified":{"memory":"1"}}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}

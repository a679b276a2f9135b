//! `config.json` of an OCI bundle, as far as it concerns a Linux container.
//!
//! Unknown names are skipped, as the specification demands. What is known to it and not to us is
//! read nevertheless, so that [`super::plan`] can refuse it: nothing that a caller asked for is
//! dropped in silence.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use thiserror::Error;

/// Bytes of a configuration. Those of engines have some 20 KiB, most of it system calls.
pub const CONFIG_MAX: usize = 1 << 20;

/// Not a configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Longer than [`CONFIG_MAX`].
    #[error("a configuration is larger than {CONFIG_MAX} bytes")]
    TooLarge,
    /// Not JSON, or something of another type than the specification gives it.
    #[error("reading a configuration of the OCI runtime specification")]
    Json(#[source] serde_json::Error),
    /// Not a version that we know.
    #[error("ociVersion {0:?} is none of 1.0 to 1.2")]
    Version(String),
}

/// Reads a configuration.
pub fn parse(bytes: &[u8]) -> Result<Config, ConfigError> {
    if bytes.len() > CONFIG_MAX {
        return Err(ConfigError::TooLarge);
    }
    let config: Config = serde_json::from_slice(bytes).map_err(ConfigError::Json)?;
    let mut numbers = config.oci_version.split(['.', '-', '+']);
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some("1"), Some("0" | "1" | "2" | "3"), Some(patch)) if patch.parse::<u32>().is_ok() => {
            Ok(config)
        }
        _ => Err(ConfigError::Version(config.oci_version)),
    }
}

/// Reads the `process` of a configuration alone.
pub fn parse_process(bytes: &[u8]) -> Result<Process, ConfigError> {
    if bytes.len() > CONFIG_MAX {
        return Err(ConfigError::TooLarge);
    }
    serde_json::from_slice(bytes).map_err(ConfigError::Json)
}

/// What a configuration says of something that we do not do.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Other(Value);

impl Other {
    /// Whether it asks for anything.
    pub fn is_set(&self) -> bool {
        match &self.0 {
            Value::Null | Value::Bool(false) => false,
            Value::Bool(true) | Value::Number(_) => true,
            Value::String(text) => !text.is_empty(),
            Value::Array(all) => !all.is_empty(),
            Value::Object(all) => !all.is_empty(),
        }
    }
}

macro_rules! objects {
    ($($(#[$of:meta])* $name:ident { $($(#[$on:meta])* $field:ident: $kind:ty,)* })*) => {
        $(
            $(#[$of])*
            #[derive(Debug, Default, Deserialize)]
            #[serde(rename_all = "camelCase", default)]
            pub struct $name {
                $(
                    $(#[$on])*
                    #[doc = concat!("`", stringify!($field), "` of the specification.")]
                    pub $field: $kind,
                )*
            }
        )*
    };
}

objects! {
    /// The whole file.
    Config {
        oci_version: String,
        root: Option<Root>,
        mounts: Vec<Mount>,
        process: Option<Process>,
        hostname: Option<String>,
        domainname: Option<String>,
        hooks: Option<Hooks>,
        annotations: Option<BTreeMap<String, String>>,
        linux: Option<Linux>,
        vm: Other,
        windows: Other,
        solaris: Other,
        zos: Other,
    }
    /// The root file system.
    Root {
        path: String,
        readonly: bool,
    }
    /// One mount.
    Mount {
        destination: String,
        r#type: Option<String>,
        source: Option<String>,
        options: Option<Vec<String>>,
        uid_mappings: Other,
        gid_mappings: Other,
    }
    /// Programs of the machine that are run at points of a container's life.
    Hooks {
        prestart: Option<Vec<Hook>>,
        create_runtime: Option<Vec<Hook>>,
        create_container: Option<Vec<Hook>>,
        start_container: Option<Vec<Hook>>,
        poststart: Option<Vec<Hook>>,
        poststop: Option<Vec<Hook>>,
    }
    /// One of them.
    Hook {
        path: String,
        args: Option<Vec<String>>,
        env: Option<Vec<String>>,
        timeout: Option<i64>,
    }
    /// The program.
    Process {
        terminal: bool,
        console_size: Option<ConsoleSize>,
        user: User,
        args: Option<Vec<String>>,
        env: Option<Vec<String>>,
        cwd: String,
        capabilities: Option<Capabilities>,
        rlimits: Option<Vec<Rlimit>>,
        no_new_privileges: bool,
        oom_score_adj: Option<i32>,
        apparmor_profile: Other,
        selinux_label: Other,
        scheduler: Other,
        #[serde(rename = "ioPriority")]
        io_priority: Other,
        #[serde(rename = "execCPUAffinity")]
        exec_cpu_affinity: Other,
    }
    /// How large its terminal is, in characters.
    ConsoleSize {
        height: u64,
        width: u64,
    }
    /// Its user.
    User {
        uid: u32,
        gid: u32,
        umask: Option<u32>,
        additional_gids: Option<Vec<u32>>,
    }
    /// Its capabilities, by name.
    Capabilities {
        bounding: Option<Vec<String>>,
        effective: Option<Vec<String>>,
        inheritable: Option<Vec<String>>,
        permitted: Option<Vec<String>>,
        ambient: Option<Vec<String>>,
    }
    /// A resource limit of the process.
    Rlimit {
        r#type: String,
        soft: u64,
        hard: u64,
    }
    /// What is particular to Linux.
    Linux {
        namespaces: Option<Vec<Namespace>>,
        uid_mappings: Option<Vec<Mapping>>,
        gid_mappings: Option<Vec<Mapping>>,
        devices: Option<Vec<Device>>,
        cgroups_path: Option<String>,
        resources: Option<Resources>,
        sysctl: Option<BTreeMap<String, String>>,
        rootfs_propagation: Option<String>,
        masked_paths: Option<Vec<String>>,
        readonly_paths: Option<Vec<String>>,
        seccomp: Option<Seccomp>,
        mount_label: Other,
        intel_rdt: Other,
        personality: Other,
        time_offsets: Other,
        net_devices: Other,
        memory_policy: Other,
    }
    /// A namespace, new or of others.
    Namespace {
        r#type: String,
        path: Option<String>,
    }
    /// A range of ids.
    Mapping {
        #[serde(rename = "containerID")]
        container_id: u32,
        #[serde(rename = "hostID")]
        host_id: u32,
        size: u32,
    }
    /// A device node.
    Device {
        r#type: String,
        path: String,
        major: Option<i64>,
        minor: Option<i64>,
        file_mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    }
    /// A filter of system calls.
    Seccomp {
        default_action: String,
        default_errno_ret: Option<u32>,
        architectures: Option<Vec<String>>,
        flags: Option<Vec<String>>,
        listener_path: Other,
        listener_metadata: Other,
        syscalls: Option<Vec<Syscall>>,
    }
    /// What is done with some calls.
    Syscall {
        names: Option<Vec<String>>,
        action: String,
        errno_ret: Option<u32>,
        args: Option<Vec<Argument>>,
    }
    /// A condition about one argument of a call.
    Argument {
        index: Option<u32>,
        value: Option<u64>,
        value_two: Option<u64>,
        op: String,
    }
    /// Limits of the cgroup.
    Resources {
        devices: Option<Vec<DeviceRule>>,
        memory: Option<Memory>,
        cpu: Option<Cpu>,
        pids: Option<Pids>,
        unified: Option<BTreeMap<String, String>>,
        #[serde(rename = "blockIO")]
        block_io: Option<BlockIo>,
        hugepage_limits: Other,
        network: Other,
        rdma: Other,
    }
    /// Which devices may be used.
    DeviceRule {
        allow: bool,
        r#type: Option<String>,
        major: Option<i64>,
        minor: Option<i64>,
        access: Option<String>,
    }
    /// Memory.
    Memory {
        limit: Option<i64>,
        reservation: Option<i64>,
        swap: Option<i64>,
        kernel: Other,
        #[serde(rename = "kernelTCP")]
        kernel_tcp: Other,
        swappiness: Other,
        #[serde(rename = "disableOOMKiller")]
        disable_oom_killer: Other,
    }
    /// Processors.
    Cpu {
        shares: Option<u64>,
        quota: Option<i64>,
        period: Option<u64>,
        burst: Option<u64>,
        idle: Option<i64>,
        cpus: Option<String>,
        mems: Option<String>,
        realtime_runtime: Other,
        realtime_period: Other,
    }
    /// Processes.
    Pids {
        limit: i64,
    }
    /// Reading and writing of disks.
    BlockIo {
        weight: Other,
        leaf_weight: Other,
        weight_device: Other,
        throttle_read_bps_device: Option<Vec<Throttle>>,
        throttle_write_bps_device: Option<Vec<Throttle>>,
        #[serde(rename = "throttleReadIOPSDevice")]
        throttle_read_iops_device: Option<Vec<Throttle>>,
        #[serde(rename = "throttleWriteIOPSDevice")]
        throttle_write_iops_device: Option<Vec<Throttle>>,
    }
    /// A limit on one disk.
    Throttle {
        major: u32,
        minor: u32,
        rate: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_specification_is_skipped() {
        let config = parse(br#"{"ociVersion":"1.2.0","news":{"of":["tomorrow"]}}"#).unwrap();
        assert!(config.process.is_none() && config.linux.is_none());
    }

    #[test]
    fn versions_of_another_major_number_are_refused() {
        for (version, good) in [
            ("1.0.2", true),
            ("1.0.2-dev", true),
            ("1.2.1+x", true),
            ("2.0.0", false),
            ("0.5.0", false),
            ("1.0", false),
            ("one", false),
            ("", false),
        ] {
            let text = format!(r#"{{"ociVersion":"{version}"}}"#);
            assert_eq!(parse(text.as_bytes()).is_ok(), good, "{version}");
        }
    }

    #[test]
    fn types_sizes_and_rubbish_are_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"ociVersion":"1.0.0","process":{"user":{"uid":-1}}}"#,
            r#"{"ociVersion":"1.0.0","mounts":{}}"#,
            r#"{"ociVersion":"1.0.0","ociVersion":"1.0.0"}"#,
            r#"{"ociVersion":"1.0.0"} more"#,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        let nested = format!(r#"{{"ociVersion":"1.0.0","x":{}"#, "[".repeat(100_000));
        assert!(parse(nested.as_bytes()).is_err());
        assert!(matches!(parse(&vec![b' '; CONFIG_MAX + 1]), Err(ConfigError::TooLarge)));
        let process = |text: &str| parse_process(text.as_bytes()).is_ok();
        assert!(process(r#"{"args":["sh"],"news":1}"#), "the control");
        assert!(!["", "[0]", r#"{"args":"sh"}"#, "{} more"].into_iter().any(process));
    }

    #[test]
    fn nothing_is_asked_for_by_an_empty_value() {
        let set = |text| serde_json::from_str::<Other>(text).unwrap().is_set();
        assert!(!["null", "false", "\"\"", "[]", "{}"].into_iter().any(set));
        assert!(["true", "0", "\"x\"", "[0]", "{\"a\":null}"].into_iter().all(set));
    }
}

//! What the program says of itself, and the configuration to begin with.

/// The version of the specification that is spoken.
pub(super) const OCI_VERSION: &str = "1.2.0";

pub(super) const VERSION: &str =
    concat!("container version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0\n");

pub(super) const HELP: &str = "\
NAME
    container - runs OCI bundles with the launcher of Zero-OS

SYNOPSIS
    container [GLOBAL OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]

COMMANDS
    run [-b DIR] [--pid-file FILE] [--console-socket SOCKET] [-d] ID
        Makes a container from the bundle in DIR (here without -b), executes its
        program, waits for its end, passes signals on meanwhile, and forgets it.
        The exit code is that of the program, or 128 and its signal. With -d,
        --detach, it returns as soon as the program is executed.
    create [-b DIR] [--pid-file FILE] [--console-socket SOCKET] ID
        Makes a container whose program is not executed yet.
    start ID
        Executes the program of a created container.
    state ID
        Prints the state of a container as JSON.
    exec [-d] [--pid-file FILE] [-t --console-socket SOCKET]
         [-u UID[:GID]] [-g GID]... [-e NAME=VALUE]... [--cwd DIR]
         [-c CAPABILITY]... [--no-new-privs] ID PROGRAM [ARGUMENTS]
    exec [-d] [--pid-file FILE] [-t --console-socket SOCKET] -p FILE ID
        Executes one more program in a container that runs, behind the same walls:
        as the container's own, with these words, or as the process in FILE says
        (-p, --process). -g, --additional-gids and -c, --cap add to what the
        container's own has; nothing can be added that no container gets. Waits and
        exits as run does; with -d, --detach, it returns as soon as the program is
        executed.
    kill [-a] ID [SIGNAL]
        Sends a signal, SIGTERM without one, to the first process of a container,
        with -a, --all to all of them.
    delete [-f] ID
        Forgets a container that has ended, and removes its cgroup. With -f,
        --force it is killed first, and need not exist.
    list [--format table|json] [-q]
        Lists containers, with -q their ids alone.
    spec [-b DIR]
        Writes a config.json to begin with.
    features
        Prints what the runtime can do, as JSON.

    A process with a terminal sends its other end to the --console-socket. exec
    makes one with -t, --tty.

GLOBAL OPTIONS
    --root DIR                Records of containers; /run/zos/oci without it
    --log FILE                Errors are added to this file too
    --log-format text|json    How they are written there
    --privileged              Gives a container what capabilities its configuration
                              asks for, CAP_SYS_ADMIN too: it may then do to the
                              machine what root may
    -v, --version             Prints the version
    -h, --help                Prints this

    --debug, --no-new-keyring and --preserve-fds 0 are accepted and change nothing.

REFUSED
    What a configuration asks for is done or refused, never left out: profiles
    of AppArmor, mounts of disks, capabilities that reach beyond the container,
    and more; docs/containers.md has the list.

EXIT STATUS
    0 when it was done, 1 with a line on stderr when not; see run.
";

pub(super) const FEATURES: &str = r#"{
  "ociVersionMin": "1.0.0",
  "ociVersionMax": "1.2.0",
  "hooks": [
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"
  ],
  "mountOptions": [
    "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "iversion",
    "lazytime", "loud", "noatime", "nodev", "nodiratime", "noexec", "noiversion", "nolazytime",
    "norelatime", "nostrictatime", "nosuid", "private", "rbind", "relatime", "remount", "ro",
    "rprivate", "rshared", "rslave", "runbindable", "rw", "shared", "silent", "slave",
    "strictatime", "suid", "sync", "unbindable"
  ],
  "linux": {
    "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
    "cgroup": { "v1": false, "v2": true, "systemd": false, "systemdUser": false, "rdma": false },
    "seccomp": {
      "enabled": true,
      "actions": [
        "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"
      ],
      "operators": [
        "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
        "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"
      ],
      "archs": ["SCMP_ARCH_X86_64"],
      "knownFlags": [
        "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"
      ],
      "supportedFlags": [
        "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"
      ]
    },
    "apparmor": { "enabled": false },
    "selinux": { "enabled": false },
    "intelRdt": { "enabled": false },
    "mountExtensions": { "idmap": { "enabled": false } }
  }
}
"#;

pub(super) const SPEC: &str = r#"{
  "ociVersion": "1.2.0",
  "process": {
    "terminal": false,
    "user": { "uid": 0, "gid": 0 },
    "args": ["sh"],
    "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
    "cwd": "/",
    "capabilities": {
      "bounding": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
      "effective": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
      "permitted": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    },
    "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
    "noNewPrivileges": true
  },
  "root": { "path": "rootfs", "readonly": true },
  "hostname": "container",
  "mounts": [
    { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
    { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"] },
    { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
    { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
    { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
    { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
    { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
  ],
  "linux": {
    "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
    "namespaces": [
      { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
      { "type": "mount" }, { "type": "cgroup" }
    ],
    "maskedPaths": [
      "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
      "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
      "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"
    ],
    "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
  }
}
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{config, plan};
    use std::path::Path;

    #[test]
    fn the_configuration_to_begin_with_is_one() {
        let config = config::parse(SPEC.as_bytes()).unwrap();
        plan::plan("c", Path::new("/bundle"), config, plan::Reach::Container).unwrap();
    }

    #[test]
    fn the_features_name_one_version_and_are_json() {
        let features: serde_json::Value = serde_json::from_str(FEATURES).unwrap();
        assert_eq!(features["ociVersionMax"], OCI_VERSION);
        assert!(VERSION.ends_with(&format!("spec: {OCI_VERSION}\n")));
        let spec: serde_json::Value = serde_json::from_str(SPEC).unwrap();
        assert_eq!(spec["ociVersion"], OCI_VERSION);
    }
}

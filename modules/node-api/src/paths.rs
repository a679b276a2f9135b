//! Paths that more than one daemon of the node knows.

/// Sockets of the daemons: `/run/zos/<daemon>.sock`, mode 0600, owner root.
pub const RUN: &str = "/run/zos";
/// PID 1.
pub const INIT_SOCKET: &str = "/run/zos/init.sock";
/// Disks and pools.
pub const STORAGED_SOCKET: &str = "/run/zos/storaged.sock";
/// Network and time.
pub const NETD_SOCKET: &str = "/run/zos/netd.sock";
/// Starts container processes.
pub const LAUNCHER_SOCKET: &str = "/run/zos/launcher.sock";
/// Keeps and sends what containers say.
pub const LOGD_SOCKET: &str = "/run/zos/logd.sock";

/// Appears when the services are all up for the first time. What can wait until then waits.
pub const ALL_READY: &str = "/run/zos/all-ready";
/// Appears when every device that was there at boot has its driver.
pub const DRIVERS_LOADED: &str = "/run/zos/drivers-loaded";

/// Pools, one directory for each, named by its UUID. Owned by storaged.
pub const POOLS: &str = "/pools";
/// Durable state of contractd, on the primary pool (a tmpfs while the node has none).
pub const STATE: &str = "/state";
/// What containers have said, one directory for each. Owned by logd.
pub const LOGS: &str = "/state/logs";
/// Objects and images of flists, on the primary pool.
pub const STORE: &str = "/store";
/// Network namespaces that netd made, one file for each container.
pub const NETNS: &str = "/run/zos/netns";

/// Links of the node, one directory for each.
pub const LINKS: &str = "/sys/class/net";
/// Root of the cgroup v2 hierarchy.
pub const CGROUP: &str = "/sys/fs/cgroup";
/// The daemons live in `/sys/fs/cgroup/system/<name>`.
pub const CGROUP_SYSTEM: &str = "/sys/fs/cgroup/system";
/// Workloads live in `/sys/fs/cgroup/work/<id>`.
pub const CGROUP_WORK: &str = "/sys/fs/cgroup/work";

/// Time (seconds since 1970, ASCII) at which the image was built: the clock never goes below it.
pub const BUILD_TIME: &str = "/etc/zos/build-time";
/// Version of the image, as in `0.1.0`.
pub const VERSION: &str = "/etc/zos/version";

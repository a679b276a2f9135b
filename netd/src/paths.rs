//! Paths that netd alone knows. Those that other daemons know too are in `node_api::paths`.

/// Leases and attachments, kept over a restart of the daemon.
pub(crate) const STATE: &str = "/run/zos/netd";
/// Name servers for every program of the node; `/etc/resolv.conf` is a link to it.
pub(crate) const RESOLV_CONF: &str = "/run/zos/resolv.conf";
/// The firewall's front end, a Debian program.
pub(crate) const NFT: &str = "/usr/sbin/nft";
/// One entry for each link; those of hardware have a link `device`.
pub(crate) const SYS_NET: &str = "/sys/class/net";
/// Kernel settings of the network.
pub(crate) const PROC_NET: &str = "/proc/sys/net";

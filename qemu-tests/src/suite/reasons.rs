//! Groups of the suite that our runtime does not pass on purpose, each with the reason, and those that
//! say nothing. docs/containers.md has the same lists.

/// Group, what fails first in it for this reason, and the reason. For anything else it has no excuse.
pub(super) const REASONS: [(&str, &str, &str); 2] = [
    (
        "linux_ns_itype",
        "cannot run validation tests: exit status 1",
        "a container has a mount namespace of its own: its root would be the machine's",
    ),
    (
        "linux_ns_path",
        "set mnt namespace by path",
        "mount namespaces are made, not joined: a new root would be that of others too",
    ),
];

/// Groups that print nothing when they pass: they want a container not to be made. Where no runtime works
/// at all they pass too.
pub(super) const SILENT: [&str; 2] = ["process_capabilities_fail", "process_rlimits_fail"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_in_the_documentation() {
        let page = include_str!("../../../docs/containers.md");
        for (group, _, reason) in REASONS {
            assert!(page.contains(&format!("| `{group}` | {reason} |")), "{group}");
        }
        for group in SILENT {
            assert!(page.contains(&format!("`{group}`")), "{group}");
        }
    }
}

//! Groups of the suite that our runtime does not pass on purpose, each with the reason.
//! docs/containers.md has the same list.

/// Group and reason.
pub(super) const REASONS: [(&str, &str); 2] = [
    (
        "linux_ns_itype",
        "a container has a mount namespace of its own: its root would be the machine's",
    ),
    (
        "linux_ns_path",
        "mount namespaces are made, not joined: a new root would be that of others too",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_in_the_documentation() {
        let page = include_str!("../../../docs/containers.md");
        for (group, reason) in REASONS {
            assert!(page.contains(&format!("| `{group}` | {reason} |")), "{group}");
        }
    }
}

//! The services of a node, in the order in which they start; they stop in the reverse order.

/// One service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name, its cgroup and its log.
    pub(crate) name: &'static str,
    /// Program and arguments.
    pub(crate) command: &'static [&'static str],
    /// Services that must have been ready once before it starts.
    pub(crate) needs: &'static [&'static str],
    /// What the kernel never takes from it, in MiB (`memory.min`).
    pub(crate) memory_min_mib: u32,
    /// Whether the node's decisions wait for it. The others leave it a single processor.
    pub(crate) urgent: bool,
    /// How unlikely the kernel is to choose it when memory runs out, -1000 to 1000.
    pub(crate) oom_score_adj: i32,
}

/// Every long-lived process that is not a workload.
pub(crate) const SERVICES: &[Entry] = &[
    Entry {
        name: "devices",
        command: &["/init", "devices"],
        needs: &[],
        memory_min_mib: 4,
        urgent: true,
        oom_score_adj: -900,
    },
    Entry {
        name: "launcher",
        command: &["/bin/launcher"],
        needs: &[],
        memory_min_mib: 8,
        urgent: false,
        // Workloads inherit it, and none of them may outlive a daemon.
        oom_score_adj: 0,
    },
    Entry {
        name: "storaged",
        command: &["/bin/storaged"],
        needs: &["devices"],
        memory_min_mib: 16,
        urgent: true,
        oom_score_adj: -900,
    },
    Entry {
        name: "netd",
        command: &["/bin/netd"],
        needs: &["devices"],
        memory_min_mib: 16,
        urgent: false,
        oom_score_adj: -900,
    },
    Entry {
        name: "logd",
        command: &["/bin/logd"],
        needs: &["storaged"],
        memory_min_mib: 8,
        urgent: false,
        oom_score_adj: -500,
    },
    Entry {
        name: "contractd",
        command: &["/bin/contractd"],
        needs: &["storaged"],
        memory_min_mib: 48,
        urgent: true,
        oom_score_adj: -900,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_need_is_a_service_that_starts_earlier() {
        let mut earlier = BTreeSet::new();
        for service in SERVICES {
            for need in service.needs {
                assert!(earlier.contains(need), "{} needs {need}", service.name);
            }
            assert!(earlier.insert(service.name), "{} is listed twice", service.name);
        }
    }

    #[test]
    fn every_entry_can_be_spawned_and_named() {
        for service in SERVICES {
            assert!(service.command[0].starts_with('/'));
            assert!(service.name.bytes().all(|c| c.is_ascii_lowercase()));
            assert!((-1000..=1000).contains(&service.oom_score_adj));
        }
    }
}

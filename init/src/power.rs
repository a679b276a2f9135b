//! The way down, as a pure state machine.
//!
//! ```text
//!  Deciders ──none left──► Workloads ──none left or grace over──► Services ──none left──► Halt
//!  (contractd)             (SIGTERM, then cgroup.kill)            (all others)
//! ```
//!
//! contractd ends first, because it would start again what is being stopped; the daemons that own
//! disks and network end last, because workloads use both until their end.

use node_api::init::PowerAction;
use std::time::{Duration, Instant};

/// A workload that does not follow SIGTERM for this long is killed.
const WORKLOAD_GRACE: Duration = Duration::from_secs(10);
/// Killed processes are gone by then, unless the kernel holds them; it may keep them.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// Who decides what runs on the node.
pub(crate) const DECIDER: &str = "contractd";

/// How far the way down has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The decider was asked to stop.
    Deciders,
    /// Workloads were asked to stop; they are killed at `until`.
    Workloads { until: Instant },
    /// Workloads were killed; whatever is left at `until` is left.
    Killed { until: Instant },
    /// The other services were asked to stop. Each has its own time limit.
    Services,
    /// Nothing of ours runs.
    Halt,
}

/// What still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) decider: bool,
    pub(crate) workloads: bool,
    pub(crate) services: bool,
}

/// What is to be done on entering the next phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    None,
    TerminateWorkloads,
    KillWorkloads,
    StopServices,
    Halt,
}

/// A shutdown on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shutdown {
    pub(crate) phase: Phase,
    pub(crate) action: PowerAction,
}

/// The next phase. Called again until it answers [`Action::None`].
pub(crate) fn step(phase: Phase, running: Running, now: Instant) -> (Phase, Action) {
    match phase {
        Phase::Deciders if !running.decider => {
            (Phase::Workloads { until: now + WORKLOAD_GRACE }, Action::TerminateWorkloads)
        }
        Phase::Workloads { until } if running.workloads && until <= now => {
            (Phase::Killed { until: now + KILL_GRACE }, Action::KillWorkloads)
        }
        Phase::Workloads { .. } if !running.workloads => (Phase::Services, Action::StopServices),
        Phase::Killed { until } if !running.workloads || until <= now => {
            (Phase::Services, Action::StopServices)
        }
        Phase::Services if !running.services => (Phase::Halt, Action::Halt),
        Phase::Deciders
        | Phase::Workloads { .. }
        | Phase::Killed { .. }
        | Phase::Services
        | Phase::Halt => (phase, Action::None),
    }
}

/// When [`step`] may have something to say without an event.
pub(crate) fn deadline(phase: Phase) -> Option<Instant> {
    match phase {
        Phase::Workloads { until } | Phase::Killed { until } => Some(until),
        Phase::Deciders | Phase::Services | Phase::Halt => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Running = Running { decider: true, workloads: true, services: true };
    const NONE: Running = Running { decider: false, workloads: false, services: false };

    #[test]
    fn a_quiet_node_goes_down_without_waiting() {
        let now = Instant::now();
        let (mut phase, mut actions) = (Phase::Deciders, Vec::new());
        loop {
            let (next, action) = step(phase, NONE, now);
            if action == Action::None {
                break;
            }
            actions.push(action);
            phase = next;
        }
        assert_eq!(phase, Phase::Halt);
        assert_eq!(actions, [Action::TerminateWorkloads, Action::StopServices, Action::Halt]);
    }

    #[test]
    fn a_workload_outlives_its_grace_only_until_it_is_killed() {
        let now = Instant::now();
        assert_eq!(step(Phase::Deciders, ALL, now), (Phase::Deciders, Action::None));
        let busy = Running { decider: false, ..ALL };
        let (phase, _) = step(Phase::Deciders, busy, now);
        assert_eq!(step(phase, busy, now), (phase, Action::None));
        let later = now + WORKLOAD_GRACE;
        assert_eq!(deadline(phase), Some(later));
        let (phase, action) = step(phase, busy, later);
        assert_eq!(action, Action::KillWorkloads);
        assert_eq!(step(phase, busy, later), (phase, Action::None));
        // A process that the kernel cannot end does not hold the machine.
        let (phase, action) = step(phase, busy, later + KILL_GRACE);
        assert_eq!((phase, action), (Phase::Services, Action::StopServices));
    }

    #[test]
    fn disks_and_network_stay_until_the_workloads_are_gone() {
        let now = Instant::now();
        let busy = Running { decider: false, ..ALL };
        let (phase, _) = step(Phase::Deciders, busy, now);
        let (phase, action) = step(phase, Running { workloads: false, ..busy }, now);
        assert_eq!(action, Action::StopServices);
        assert_eq!(step(phase, Running { services: true, ..NONE }, now), (phase, Action::None));
        assert_eq!(step(phase, NONE, now), (Phase::Halt, Action::Halt));
        assert_eq!(step(Phase::Halt, NONE, now), (Phase::Halt, Action::None));
    }
}

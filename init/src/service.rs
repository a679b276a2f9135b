//! The life of one service, as a pure state machine: no clock, no fork.
//!
//! ```text
//!            NeedsMet          Ready
//!  Blocked ─────────► Starting ─────► Ready
//!                      ▲    │           │ Exited
//!               Timer  │    ▼ Exited    ▼
//!                     Waiting ◄─────────┘      any ──Stop──► Stopping ──Exited──► Stopped
//! ```
//!
//! Refuses to look at other services: whether its needs are met is an event.

use rustix::process::Pid;
use std::time::{Duration, Instant};

/// A service that dies at once is started again after this long; then twice as long, and so on.
const DELAY_MIN: Duration = Duration::from_millis(250);
/// A service that never comes up is tried this often, for ever: the node has no other way out.
const DELAY_MAX: Duration = Duration::from_secs(30);
/// Who ran this long did not die of the way it was started: the delay is small again.
const HEALTHY_AFTER: Duration = Duration::from_mins(1);
/// Who has not said by then that it is ready is killed and started again. Long, because a first
/// boot makes file systems on slow disks.
const READY_LIMIT: Duration = Duration::from_mins(5);
/// Who does not follow SIGTERM for this long gets SIGKILL.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What a service does now. `delay` is how long its next restart will wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// A service that it needs is not ready yet.
    Blocked,
    /// Runs, has not said that it is ready.
    Starting { pid: Pid, since: Instant, delay: Duration },
    /// Runs and serves.
    Ready { pid: Pid, since: Instant, delay: Duration },
    /// Ended; is started again at `until`.
    Waiting { until: Instant, delay: Duration },
    /// The machine goes down; SIGKILL comes at `until`.
    Stopping { pid: Pid, until: Instant },
    /// The machine goes down; nothing follows.
    Stopped,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Every service that it needs has been ready.
    NeedsMet,
    /// It runs.
    Spawned(Pid),
    /// It could not be started.
    SpawnFailed,
    /// It said that it serves.
    Ready,
    /// It was reaped.
    Exited,
    /// Time went by.
    Timer,
    /// The machine goes down.
    Stop,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    None,
    Spawn,
    Terminate(Pid),
    Kill(Pid),
}

/// The next state, and what is to be done on the way there.
pub(crate) fn step(state: State, event: Event, now: Instant) -> (State, Action) {
    use {Event as E, State as S};
    match (state, event) {
        (S::Blocked, E::NeedsMet) => (state, Action::Spawn),
        (S::Blocked, E::Spawned(pid)) => {
            (S::Starting { pid, since: now, delay: DELAY_MIN }, Action::None)
        }
        (S::Waiting { delay, .. }, E::Spawned(pid)) => {
            (S::Starting { pid, since: now, delay }, Action::None)
        }
        (S::Blocked, E::SpawnFailed) => (waiting(DELAY_MIN, now), Action::None),
        (S::Waiting { delay, .. }, E::SpawnFailed) => (waiting(delay, now), Action::None),
        (S::Starting { pid, since, delay }, E::Ready) => {
            (S::Ready { pid, since, delay }, Action::None)
        }
        (S::Starting { since, delay, .. } | S::Ready { since, delay, .. }, E::Exited) => {
            let healthy = now.duration_since(since) >= HEALTHY_AFTER;
            (waiting(if healthy { DELAY_MIN } else { delay }, now), Action::None)
        }
        (S::Waiting { until, .. }, E::Timer) if until <= now => (state, Action::Spawn),
        (S::Starting { pid, since, .. }, E::Timer) if since + READY_LIMIT <= now => {
            (state, Action::Kill(pid))
        }
        (S::Starting { pid, .. } | S::Ready { pid, .. }, E::Stop) => {
            (S::Stopping { pid, until: now + STOP_LIMIT }, Action::Terminate(pid))
        }
        (S::Blocked | S::Waiting { .. } | S::Stopped, E::Stop)
        | (S::Stopping { .. }, E::Exited) => (S::Stopped, Action::None),
        (S::Stopping { pid, until }, E::Timer) if until <= now => (state, Action::Kill(pid)),
        // Stale: it speaks of a process that is already replaced, or of a time not yet come.
        (
            state,
            E::NeedsMet
            | E::Spawned(_)
            | E::SpawnFailed
            | E::Ready
            | E::Exited
            | E::Timer
            | E::Stop,
        ) => (state, Action::None),
    }
}

/// Waits for `delay`, and twice as long the next time.
fn waiting(delay: Duration, now: Instant) -> State {
    State::Waiting { until: now + delay, delay: (delay * 2).min(DELAY_MAX) }
}

/// When a [`Event::Timer`] may change something.
pub(crate) fn deadline(state: State) -> Option<Instant> {
    match state {
        State::Waiting { until, .. } | State::Stopping { until, .. } => Some(until),
        State::Starting { since, .. } => Some(since + READY_LIMIT),
        State::Blocked | State::Ready { .. } | State::Stopped => None,
    }
}

/// The process, while there is one.
pub(crate) fn pid(state: State) -> Option<Pid> {
    match state {
        State::Starting { pid, .. } | State::Ready { pid, .. } | State::Stopping { pid, .. } => {
            Some(pid)
        }
        State::Blocked | State::Waiting { .. } | State::Stopped => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid7() -> Pid {
        Pid::from_raw(7).unwrap()
    }

    fn starting(since: Instant) -> State {
        State::Starting { pid: pid7(), since, delay: DELAY_MIN }
    }

    fn ready(since: Instant) -> State {
        State::Ready { pid: pid7(), since, delay: DELAY_MIN }
    }

    #[test]
    fn a_service_starts_when_its_needs_are_met_and_not_before() {
        let now = Instant::now();
        assert_eq!(step(State::Blocked, Event::Timer, now), (State::Blocked, Action::None));
        assert_eq!(step(State::Blocked, Event::NeedsMet, now), (State::Blocked, Action::Spawn));
        let (state, _) = step(State::Blocked, Event::Spawned(pid7()), now);
        assert_eq!(state, starting(now));
        assert_eq!(step(state, Event::Ready, now), (ready(now), Action::None));
        // Needs that come and go do not start it twice.
        assert_eq!(step(state, Event::NeedsMet, now), (state, Action::None));
    }

    #[test]
    fn a_service_that_dies_young_waits_longer_each_time_up_to_a_bound() {
        let mut now = Instant::now();
        let mut state = starting(now);
        let mut waits = Vec::new();
        for _ in 0..10 {
            (state, _) = step(state, Event::Exited, now);
            let State::Waiting { until, .. } = state else { panic!("{state:?}") };
            assert_eq!(step(state, Event::Timer, now), (state, Action::None));
            waits.push((until - now).as_millis());
            now = until;
            assert_eq!(step(state, Event::Timer, now), (state, Action::Spawn));
            (state, _) = step(state, Event::Spawned(pid7()), now);
        }
        assert_eq!(waits[..4], [250, 500, 1000, 2000]);
        assert_eq!(waits[9], DELAY_MAX.as_millis());
    }

    #[test]
    fn a_service_that_ran_long_is_started_again_soon() {
        let born = Instant::now();
        let old = State::Ready { pid: pid7(), since: born, delay: DELAY_MAX };
        let (state, _) = step(old, Event::Exited, born + HEALTHY_AFTER);
        assert_eq!(deadline(state), Some(born + HEALTHY_AFTER + DELAY_MIN));
        let (state, _) = step(old, Event::Exited, born + HEALTHY_AFTER / 2);
        assert_eq!(deadline(state), Some(born + HEALTHY_AFTER / 2 + DELAY_MAX));
    }

    #[test]
    fn a_service_that_cannot_be_started_is_tried_again() {
        let now = Instant::now();
        let (state, action) = step(State::Blocked, Event::SpawnFailed, now);
        assert_eq!((deadline(state), action), (Some(now + DELAY_MIN), Action::None));
        let (state, _) = step(state, Event::SpawnFailed, now);
        assert_eq!(deadline(state), Some(now + DELAY_MIN * 2));
    }

    #[test]
    fn a_service_that_is_never_ready_is_killed() {
        let born = Instant::now();
        let late = born + READY_LIMIT;
        assert_eq!(deadline(starting(born)), Some(late));
        assert_eq!(step(starting(born), Event::Timer, late).1, Action::Kill(pid7()));
        assert_eq!(step(starting(born), Event::Timer, born).1, Action::None);
        assert_eq!(step(ready(born), Event::Timer, late).1, Action::None);
    }

    #[test]
    fn a_stopped_service_gets_time_then_sigkill_and_never_comes_back() {
        let now = Instant::now();
        let (state, action) = step(ready(now), Event::Stop, now);
        assert_eq!(action, Action::Terminate(pid7()));
        assert_eq!(step(state, Event::Stop, now), (state, Action::None));
        assert_eq!(step(state, Event::Timer, now), (state, Action::None));
        assert_eq!(step(state, Event::Timer, now + STOP_LIMIT).1, Action::Kill(pid7()));
        let (state, _) = step(state, Event::Exited, now);
        assert_eq!(state, State::Stopped);
        for event in [Event::Timer, Event::NeedsMet, Event::Stop, Event::Exited] {
            assert_eq!(step(state, event, now), (State::Stopped, Action::None));
        }
        let (waiting, _) = step(starting(now), Event::Exited, now);
        assert_eq!(step(waiting, Event::Stop, now), (State::Stopped, Action::None));
        assert_eq!(step(State::Blocked, Event::Stop, now), (State::Stopped, Action::None));
    }

    #[test]
    fn news_of_a_process_that_is_gone_change_nothing() {
        let now = Instant::now();
        let (waiting, _) = step(ready(now), Event::Exited, now);
        assert_eq!(step(waiting, Event::Ready, now), (waiting, Action::None));
        assert_eq!(step(waiting, Event::Exited, now), (waiting, Action::None));
        assert_eq!(pid(waiting), None);
        assert_eq!(pid(ready(now)), Some(pid7()));
    }
}

//! Which checkpoint goes to which witness, and when: decisions only. Who asks and what is shown is
//! the publisher's.
//!
//! All witnesses are asked about one checkpoint, the target, because a quorum has to be of one. It
//! moves on to the newest when enough have cosigned it, or when nobody is left who may.
//!
//! ```text
//!            plan                 cosigned, or knows a larger tree
//!   free ───────────▶ asked ───────────────────────────────────────▶ free
//!    ▲                  │ failed
//!    └───── later ◀─────┘
//! ```

use std::time::Duration;
use tokio::time::Instant;

/// The target stays for so long: a witness of the public network wants no more than one request in
/// about a second from one log.
const PACE: Duration = Duration::from_secs(1);
/// A witness that has failed is asked again after this time, then after twice as much, ...
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// ... and at least this often: one that comes back is missed for no longer.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);
/// A cosignature is renewed after this time, because those who read the checkpoint see by its age
/// whether somebody keeps newer ones from them.
const RENEWAL: Duration = Duration::from_secs(300);

/// What is known of the witnesses, in the order of the policy.
#[derive(Debug)]
pub(super) struct Rounds {
    quorum: usize,
    /// Entries that the checkpoint has about which witnesses are asked.
    target: u64,
    begun: Instant,
    seats: Vec<Seat>,
}

/// One witness.
#[derive(Debug, Clone)]
struct Seat {
    /// Size of the tree that it has cosigned last, as far as known.
    known: u64,
    /// The last cosignature that it gave to this process: of which size, and when.
    cosigned: Option<(u64, Instant)>,
    turn: Turn,
    /// Failures in a row.
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Free,
    Asked,
    Later(Instant),
}

/// One witness is to cosign the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    /// Which one, in the order of the policy.
    pub(super) seat: usize,
    /// Size of the tree that it has cosigned last, as far as known.
    pub(super) old: u64,
    /// Size of the target.
    pub(super) size: u64,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has cosigned.
    Cosigned,
    /// It has cosigned a tree of this size already, which is larger than the target, and not larger
    /// than the log.
    Ahead(u64),
    /// Anything else.
    Failed,
}

impl Rounds {
    /// Begins with a target. `known` says of each witness what it has cosigned, 0 for nothing.
    pub(super) fn new(quorum: usize, known: Vec<u64>, target: u64, now: Instant) -> Self {
        let seat = |known| Seat { known, cosigned: None, turn: Turn::Free, failures: 0 };
        Self { quorum, target, begun: now, seats: known.into_iter().map(seat).collect() }
    }

    /// Size of the target.
    pub(super) fn target(&self) -> u64 {
        self.target
    }

    /// Whether enough witnesses have cosigned the target.
    pub(super) fn is_reached(&self) -> bool {
        self.seats.iter().filter(|seat| seat.has(self.target)).count() >= self.quorum
    }

    /// Moves the target to the newest checkpoint if it is time, and says whom to ask. Those count as
    /// asked from now on.
    pub(super) fn plan(&mut self, newest: u64, now: Instant) -> Vec<Ask> {
        if newest > self.target && self.may_move() && now >= self.begun + self.pace() {
            (self.target, self.begun) = (newest, now);
        }
        let (target, begun) = (self.target, self.begun);
        let mut asks = Vec::new();
        for (number, seat) in self.seats.iter_mut().enumerate() {
            if seat.wants(target, begun).is_some_and(|at| at <= now) {
                seat.turn = Turn::Asked;
                asks.push(Ask { seat: number, old: seat.known, size: target });
            }
        }
        asks
    }

    /// When to plan again, if nothing happens before.
    pub(super) fn wake(&self, newest: u64) -> Option<Instant> {
        let moves = (newest > self.target && self.may_move()).then(|| self.begun + self.pace());
        let seats = self.seats.iter().filter_map(|seat| seat.wants(self.target, self.begun));
        // What is free is asked when it is planned: only what comes later is waited for.
        moves.into_iter().chain(seats).min()
    }

    /// A witness that was asked has answered, or has not.
    pub(super) fn answered(&mut self, ask: Ask, outcome: Outcome, now: Instant) {
        let seat = &mut self.seats[ask.seat];
        match outcome {
            Outcome::Cosigned => {
                let (known, cosigned) = (ask.size, Some((ask.size, now)));
                *seat = Seat { known, cosigned, turn: Turn::Free, failures: 0 };
            }
            Outcome::Ahead(size) => {
                seat.known = size;
                seat.turn = Turn::Free;
            }
            Outcome::Failed => {
                let delay = RETRY_DELAY.saturating_mul(1 << seat.failures.min(16));
                seat.failures = seat.failures.saturating_add(1);
                seat.turn = Turn::Later(now + delay.min(RETRY_DELAY_MAX));
            }
        }
    }

    /// A quorum is not torn apart: the target stays while somebody may still cosign it.
    fn may_move(&self) -> bool {
        self.is_reached() || self.seats.iter().all(|seat| seat.turn != Turn::Asked)
    }

    /// Without witnesses there is nobody to spare.
    fn pace(&self) -> Duration {
        if self.seats.is_empty() { Duration::ZERO } else { PACE }
    }
}

impl Seat {
    fn has(&self, target: u64) -> bool {
        self.cosigned.is_some_and(|(size, _)| size == target)
    }

    /// From when on it is to be asked about the target, which began then. `None` while it cannot be.
    fn wants(&self, target: u64, begun: Instant) -> Option<Instant> {
        let due = match self.cosigned {
            Some((size, at)) if size == target => at + RENEWAL,
            Some(_) | None => begun,
        };
        match self.turn {
            Turn::Free | Turn::Later(_) if self.known > target => None,
            Turn::Free => Some(due),
            Turn::Later(until) => Some(due.max(until)),
            Turn::Asked => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(seat: usize, old: u64, size: u64) -> Ask {
        Ask { seat, old, size }
    }

    #[test]
    fn a_quorum_moves_the_target_on_and_one_that_is_down_holds_nobody_up() {
        let now = Instant::now();
        let mut rounds = Rounds::new(2, vec![0, 0, 4], 5, now);
        assert_eq!(rounds.plan(5, now), [ask(0, 0, 5), ask(1, 0, 5), ask(2, 4, 5)]);
        assert_eq!(rounds.plan(9, now + PACE), [], "the target stays while they are asked");
        rounds.answered(ask(0, 0, 5), Outcome::Cosigned, now);
        assert!(!rounds.is_reached());
        rounds.answered(ask(2, 4, 5), Outcome::Cosigned, now);
        assert!(rounds.is_reached());
        assert_eq!(rounds.plan(9, now), [], "not at once");
        assert_eq!(rounds.wake(9), Some(now + PACE));
        // The second still has not answered.
        let now = now + PACE;
        assert_eq!(rounds.plan(9, now), [ask(0, 5, 9), ask(2, 5, 9)]);
        assert_eq!(rounds.target(), 9);
        rounds.answered(ask(1, 0, 5), Outcome::Cosigned, now);
        assert!(!rounds.is_reached(), "what it has cosigned is the tree before");
        assert_eq!(rounds.plan(9, now), [ask(1, 5, 9)]);
    }

    #[test]
    fn without_a_quorum_the_target_moves_when_nobody_is_left_to_ask() {
        let now = Instant::now();
        let mut rounds = Rounds::new(2, vec![0, 0], 5, now);
        assert_eq!(rounds.plan(5, now).len(), 2);
        rounds.answered(ask(0, 0, 5), Outcome::Cosigned, now);
        assert_eq!(rounds.plan(9, now + PACE), []);
        assert_eq!(rounds.target(), 5);
        rounds.answered(ask(1, 0, 5), Outcome::Failed, now + PACE);
        assert_eq!(rounds.plan(9, now + PACE), [ask(0, 5, 9)]);
        assert_eq!(rounds.target(), 9);
    }

    #[test]
    fn a_witness_that_fails_is_asked_less_and_less_often_and_never_given_up() {
        let mut now = Instant::now();
        let mut rounds = Rounds::new(1, vec![0], 5, now);
        for delay in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(rounds.plan(5, now), [ask(0, 0, 5)]);
            rounds.answered(ask(0, 0, 5), Outcome::Failed, now);
            let again = now + Duration::from_secs(delay);
            assert_eq!(rounds.wake(5), Some(again));
            assert_eq!(rounds.plan(5, again - Duration::from_millis(1)), []);
            now = again;
        }
        assert_eq!(rounds.plan(5, now), [ask(0, 0, 5)]);
        rounds.answered(ask(0, 0, 5), Outcome::Cosigned, now);
        assert_eq!(rounds.plan(6, now + PACE), [ask(0, 5, 6)]);
        rounds.answered(ask(0, 5, 6), Outcome::Failed, now + PACE);
        assert_eq!(rounds.wake(6), Some(now + PACE + RETRY_DELAY), "the count begins anew");
    }

    #[test]
    fn a_witness_that_is_ahead_of_the_target_is_asked_about_the_next_one() {
        let now = Instant::now();
        let mut rounds = Rounds::new(1, vec![0], 5, now);
        assert_eq!(rounds.plan(9, now), [ask(0, 0, 5)]);
        rounds.answered(ask(0, 0, 5), Outcome::Ahead(7), now);
        assert_eq!(rounds.plan(9, now), []);
        assert_eq!(rounds.wake(9), Some(now + PACE));
        assert_eq!(rounds.plan(9, now + PACE), [ask(0, 7, 9)]);
    }

    #[test]
    fn a_cosignature_is_renewed_while_the_log_stands_still() {
        let now = Instant::now();
        let mut rounds = Rounds::new(1, vec![0], 5, now);
        rounds.plan(5, now);
        rounds.answered(ask(0, 0, 5), Outcome::Cosigned, now);
        assert_eq!(rounds.plan(5, now + PACE), []);
        assert_eq!(rounds.wake(5), Some(now + RENEWAL));
        assert_eq!(rounds.plan(5, now + RENEWAL), [ask(0, 5, 5)]);
        assert!(rounds.is_reached(), "what it has signed still counts");
    }

    #[test]
    fn a_log_without_witnesses_waits_for_nobody() {
        let now = Instant::now();
        let mut rounds = Rounds::new(0, vec![], 0, now);
        assert!(rounds.is_reached());
        assert_eq!(rounds.plan(7, now), []);
        assert_eq!((rounds.target(), rounds.is_reached()), (7, true));
        assert_eq!(rounds.wake(7), None);
    }
}

//! Sends samples where contracts want them: one task for each sink, each at its own pace.
//!
//! ```text
//! Idle ──it runs──► connect ──► the next sample ──► send ──taken──┐
//!                      │                  ▲          │            │
//!                      │                  └──────────┼────────────┘
//!                      └──────── failed ─────────────┴──► wait 1 s, 2 s … 1 min
//! ```
//!
//! What is sampled while a sink is away, or takes its time, is not sent to it later. The next sample
//! that it gets says how many there were.

use crate::{
    connection::{Connection, SinkError},
    message::Told,
    reach::Reach,
    sample::{Round, Sample},
    send::{self, Job, Kind, PAUSE, PAUSE_MAX, place},
};
use contract::workload::Sink;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use thiserror::Error;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep},
};

#[derive(Debug, Error)]
enum StatsError {
    #[error("understanding the URL: {0}")]
    Url(&'static str),
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// Keeps a task for each wanted sink of statistics until nobody can want any more. Samples that a sink
/// was not sent are counted in `n_dropped`.
pub async fn run(
    reach: &Arc<Reach>,
    wanted: watch::Receiver<Option<Vec<Job>>>,
    rounds: watch::Receiver<Round>,
    n_dropped: &Arc<AtomicU64>,
) {
    send::keep(Kind::Stats, wanted, |job, _| {
        let (reach, share) = (Arc::clone(reach), reach.share(&job.origin.contract));
        let (job, n_dropped) = (job.clone(), Arc::clone(n_dropped));
        let task = Task { job, reach, share, last: None, n_unsent: 0, n_dropped };
        tokio::spawn(task.run(rounds.clone()))
    })
    .await;
}

struct Task {
    job: Job,
    reach: Arc<Reach>,
    /// What its contract has of the lookups.
    share: Arc<Semaphore>,
    /// Count of the last sample that was seen.
    last: Option<u64>,
    /// Samples that the sink was not sent since the last one that it was.
    n_unsent: u64,
    /// The same, of all sinks, for ever.
    n_dropped: Arc<AtomicU64>,
}

impl Task {
    async fn run(mut self, mut rounds: watch::Receiver<Round>) {
        let mut pause = Duration::ZERO;
        let mut said = String::new();
        loop {
            let mut connected = None;
            let Err(error) = self.attempt(&mut rounds, &mut connected).await else { return };
            let lasted = connected.map_or(Duration::ZERO, |at: Instant| at.elapsed());
            pause = next_pause(pause, lasted);
            let error = daemon::chain(&error);
            if error != said {
                let (id, place) = (&self.job.id, place(&self.job.url));
                daemon::info!("{id}: sending statistics to {place}: {error}");
                said = error;
            }
            sleep(pause).await;
        }
    }

    /// Connects when the container runs, and sends each sample until something fails.
    async fn attempt(
        &mut self,
        rounds: &mut watch::Receiver<Round>,
        connected: &mut Option<Instant>,
    ) -> Result<(), StatsError> {
        while !self.skip(rounds) {
            if rounds.changed().await.is_err() {
                return Ok(());
            }
        }
        let sink = Sink { to: self.job.url.clone() };
        let target = sink.target().map_err(StatsError::Url)?;
        let mut connection =
            Connection::open(&self.reach, &self.share, &self.job.id, &target).await?;
        *connected = Some(Instant::now());
        // What was sampled meanwhile is old.
        self.skip(rounds);
        loop {
            tokio::select! {
                error = connection.watch() => return Err(error.into()),
                changed = rounds.changed() => if changed.is_err() { return Ok(()) },
            }
            let sample = rounds.borrow_and_update().get(&self.job.id).copied();
            let Some(sample) = sample else { continue };
            let told = Told { n_dropped: self.unsent_before(&sample), sample };
            if let Err(error) = connection.send(&self.job.origin, &[told]).await {
                self.count(1);
                return Err(error.into());
            }
            self.n_unsent = 0;
        }
    }

    /// Takes no sample of those that there are. Whether there is one.
    fn skip(&mut self, rounds: &mut watch::Receiver<Round>) -> bool {
        let Some(sample) = rounds.borrow_and_update().get(&self.job.id).copied() else {
            return false;
        };
        // The first one says that the container runs; nobody has missed it.
        if let Some(last) = self.last.replace(sample.count) {
            self.count(sample.count.saturating_sub(last));
        }
        true
    }

    /// Accounts for this sample and those before it, and gives how many of those the sink has missed.
    fn unsent_before(&mut self, sample: &Sample) -> u64 {
        let last = self.last.replace(sample.count).unwrap_or(0);
        self.count(sample.count.saturating_sub(last).saturating_sub(1));
        self.n_unsent
    }

    fn count(&mut self, n_missed: u64) {
        self.n_unsent += n_missed;
        self.n_dropped.fetch_add(n_missed, Ordering::Relaxed);
    }
}

/// The pause after a connection that has lasted for so long: one that was good for a while is tried again
/// soon; one that a sink takes and closes at once is worth no more than none.
fn next_pause(pause: Duration, lasted: Duration) -> Duration {
    if lasted >= PAUSE_MAX { PAUSE } else { (pause * 2).clamp(PAUSE, PAUSE_MAX) }
}

#[cfg(test)]
mod tests;

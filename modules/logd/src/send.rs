//! Who sends what where: one task for each sink, at its own pace.
//!
//! ```text
//! Idle ──line──► connect ──► send ──taken──► Idle (connected)
//!                   │          │
//!                   └─ failed ─┴──► wait 1 s, 2 s … 1 min ──► connect
//! ```
//!
//! A task holds its place in the lines on disk, and while it sends the few lines that it sends: some
//! 50 KiB, and never more than 100. What is sent and not said to be taken is sent again.

use crate::{
    book::Reader,
    collect::Heads,
    connection::{Connection, SinkError},
    message::{Origin, with_marks},
    position::{self, Notes},
    reach::Reach,
};
use contract::workload::Sink;
use ipc::Failure;
use node_api::logd::{self, SINKS_MAX};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Longest name of a link (`IFNAMSIZ`, without the zero behind it).
const LINK_MAX: usize = 15;
/// The pause after a failure, which doubles, and the longest one.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
pub(crate) const PAUSE_MAX: Duration = Duration::from_mins(1);
/// How often it is written down at most how far a sink is.
const STORE_INTERVAL: Duration = Duration::from_secs(2);

/// What a sink takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What a container says.
    Lines,
    /// What it uses.
    Stats,
}

/// One sink of one container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Job {
    /// Id of the workload.
    pub id: String,
    /// What it takes.
    pub kind: Kind,
    /// Whose lines or samples they are.
    pub origin: Origin,
    /// Where they are sent.
    pub url: String,
}

#[derive(Debug, Error)]
enum SendError {
    #[error("reading lines")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("a sink is written as {0}")]
    Url(&'static str),
}

/// What a caller wants, as jobs. The caller has chosen, when they are too many.
pub fn jobs(wanted: logd::Send) -> Result<Vec<Job>, Failure> {
    let mut jobs = Vec::new();
    for source in wanted.sources {
        let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if !(1..=64).contains(&source.id.len()) || !source.id.bytes().all(good) {
            return Err(Failure::new("BadId", "the id is not [a-z0-9-]{1,64}"));
        }
        let (node, contract, workload) = (&wanted.node, source.contract, source.workload);
        let origin = Origin { node: node.clone(), contract, workload };
        for (kind, urls) in [(Kind::Lines, source.logs), (Kind::Stats, source.stats)] {
            let job = |url| Job { id: source.id.clone(), kind, origin: origin.clone(), url };
            jobs.extend(urls.into_iter().map(job));
        }
    }
    if jobs.len() > SINKS_MAX {
        return Err(Failure::new("TooMany", format!("there are more than {SINKS_MAX} sinks")));
    }
    jobs.sort();
    jobs.dedup();
    Ok(jobs)
}

/// Of which containers samples are wanted.
pub fn sampled(jobs: &[Job]) -> BTreeSet<String> {
    jobs.iter().filter(|job| job.kind == Kind::Stats).map(|job| job.id.clone()).collect()
}

/// The links of containers, by the containers' ids. A name becomes a part of a path.
pub fn links(wanted: &logd::Send) -> BTreeMap<String, String> {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_link = |link: &str| (1..=LINK_MAX).contains(&link.len()) && link.bytes().all(good);
    wanted.links.clone().into_iter().filter(|(_, link)| is_link(link)).collect()
}

/// Keeps a task for each wanted sink of lines until nobody can want any more.
pub async fn run(
    directory: &Path,
    reach: &Arc<Reach>,
    notes: &Notes,
    wanted: watch::Receiver<Option<Vec<Job>>>,
    heads: watch::Receiver<Heads>,
) {
    keep(Kind::Lines, wanted, |job, jobs| {
        let own = jobs.iter().filter(|one| one.id == job.id).map(|one| one.url.clone()).collect();
        let book = directory.join(&job.id);
        notes.wanted(&book, own);
        tokio::spawn(Task::new(reach, notes, &book, job.clone()).run(heads.clone()))
    })
    .await;
}

/// Keeps a task for each wanted job of a kind until nobody can want any more. A task is started with all
/// jobs of its kind in sight.
pub(crate) async fn keep(
    kind: Kind,
    mut wanted: watch::Receiver<Option<Vec<Job>>>,
    start: impl Fn(&Job, &[Job]) -> JoinHandle<()>,
) {
    let mut running: BTreeMap<Job, JoinHandle<()>> = BTreeMap::new();
    while wanted.changed().await.is_ok() {
        let mut jobs = wanted.borrow_and_update().clone().unwrap_or_default();
        jobs.retain(|job| job.kind == kind);
        running.retain(|job, task| {
            let stays = jobs.contains(job);
            if !stays {
                task.abort();
            }
            stays
        });
        for job in &jobs {
            if !running.contains_key(job) {
                running.insert(job.clone(), start(job, &jobs));
            }
        }
    }
}

struct Task {
    job: Job,
    reach: Arc<Reach>,
    /// What its contract has of the lookups.
    share: Arc<Semaphore>,
    notes: Notes,
    book: PathBuf,
    position: PathBuf,
    /// Number of the last line that the sink has.
    taken: u64,
    /// The same, as it was noted to be written down.
    stored: u64,
    stored_at: Instant,
}

impl Task {
    fn new(reach: &Arc<Reach>, notes: &Notes, book: &Path, job: Job) -> Self {
        let position = position::path(book, &job.url);
        let taken = position::load(&position);
        let stored_at = Instant::now();
        let (reach, share) = (Arc::clone(reach), reach.share(&job.origin.contract));
        let (notes, book) = (notes.clone(), book.to_owned());
        Self { job, reach, share, notes, book, position, taken, stored: taken, stored_at }
    }

    async fn run(mut self, mut heads: watch::Receiver<Heads>) {
        let mut pause = PAUSE;
        let mut said = String::new();
        loop {
            let before = self.taken;
            let Err(error) = self.attempt(&mut heads).await else { return };
            self.store();
            // Who has taken something is tried again soon.
            pause = if self.taken > before { PAUSE } else { pause };
            let error = daemon::chain(&error);
            if error != said {
                daemon::info!("{}: sending to {}: {error}", self.job.id, place(&self.job.url));
                said = error;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Connects when there is something to send, and sends until something fails.
    async fn attempt(&mut self, heads: &mut watch::Receiver<Heads>) -> Result<(), SendError> {
        let mut reader = Reader::new(&self.book, self.taken);
        let mut lines = self.news(&mut reader, heads)?;
        while lines.is_empty() {
            if heads.changed().await.is_err() {
                return Ok(());
            }
            lines = self.news(&mut reader, heads)?;
        }
        let sink = Sink { to: self.job.url.clone() };
        let target = sink.target().map_err(SendError::Url)?;
        let mut connection =
            Connection::open(&self.reach, &self.share, &self.job.id, &target).await?;
        loop {
            if lines.is_empty() {
                tokio::select! {
                    error = connection.watch() => return Err(error.into()),
                    changed = heads.changed() => if changed.is_err() { return Ok(()) },
                    () = sleep(STORE_INTERVAL) => self.store(),
                }
                lines = self.news(&mut reader, heads)?;
                continue;
            }
            let last = lines.last().map_or(self.taken, |line| line.number);
            let told = with_marks(self.taken, lines);
            connection.send(&self.job.origin, &told).await?;
            self.taken = last;
            if self.stored_at.elapsed() >= STORE_INTERVAL {
                self.store();
            }
            lines = self.news(&mut reader, heads)?;
        }
    }

    /// Lines that are new, if the collector says that there are some.
    fn news(
        &mut self,
        reader: &mut Reader,
        heads: &mut watch::Receiver<Heads>,
    ) -> Result<Vec<node_api::init::Line>, SendError> {
        let head = heads.borrow_and_update().get(&self.job.id).copied().unwrap_or(0);
        if head == 0 || head == self.taken {
            return Ok(Vec::new());
        }
        // The disk has lost lines that the sink has: their numbers are given again.
        if head < self.taken {
            self.taken = head;
            *reader = Reader::new(&self.book, head);
        }
        reader.read(head).map_err(SendError::Read)
    }

    /// Has it written down how far the sink is.
    fn store(&mut self) {
        if self.taken != self.stored && self.notes.taken(&self.position, self.taken) {
            self.stored = self.taken;
        }
        self.stored_at = Instant::now();
    }
}

/// Host and port: a path may hold what is nobody's business.
pub(crate) fn place(url: &str) -> String {
    let sink = Sink { to: url.to_owned() };
    sink.target().map_or_else(
        |_| "a sink that is not understood".to_owned(),
        |target| format!("{}:{}", target.host, target.port),
    )
}

#[cfg(test)]
pub(crate) mod tests;

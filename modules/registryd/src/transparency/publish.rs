//! The publisher: has the newest checkpoint cosigned, and shows it when enough witnesses have.
//!
//! What is shown never goes back: neither to a smaller tree, nor to fewer cosignatures of the same
//! one. Witnesses that are down, slow or lying keep it where it is, and hold up nothing else.

use super::{
    Sealed, Standing,
    files::{Files, Kept},
    rounds::{Ask, Outcome, Rounds},
    witnesses::{AskError, Told, Witnesses},
};
use anyhow::Context as _;
use std::time::Duration;
use tlog::note::Signed;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, sleep, sleep_until},
};

/// After a failure, such as a full disk.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Looks for itself that often, although every event is waited for.
const INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Publisher {
    files: Files,
    http: reqwest::Client,
    witnesses: Witnesses,
    signed: watch::Receiver<Sealed>,
    public: watch::Sender<Option<Sealed>>,
    standings: watch::Sender<Vec<Standing>>,
    rounds: Rounds,
    /// The checkpoint about which witnesses are asked, with what they have signed.
    target: Sealed,
    asks: JoinSet<Asked>,
}

/// A turn of one witness.
struct Asked {
    ask: Ask,
    told: Result<Told, AskError>,
}

impl Publisher {
    pub(super) fn new(
        files: Files,
        http: reqwest::Client,
        witnesses: Witnesses,
        signed: watch::Receiver<Sealed>,
        public: watch::Sender<Option<Sealed>>,
        standings: watch::Sender<Vec<Standing>>,
    ) -> Self {
        let shown = public.borrow().clone();
        let known = |key| {
            let shown = shown.as_ref()?;
            // A false line has been refused when the checkpoint was read.
            matches!(shown.note.signed_by(key), Ok(Signed::At(_))).then_some(shown.size)
        };
        let known: Vec<u64> =
            witnesses.list.iter().map(|one| known(&one.key).unwrap_or_default()).collect();
        let standing = |(witness, size): (_, &u64)| Standing::new(witness, *size);
        let names = witnesses.list.iter().map(|one| one.key.name());
        standings.send_replace(names.zip(&known).map(standing).collect());
        let target = begin(&signed.borrow(), shown.as_ref());
        let rounds = Rounds::new(witnesses.quorum, known, target.size, Instant::now());
        let asks = JoinSet::new();
        Self { files, http, witnesses, signed, public, standings, rounds, target, asks }
    }

    /// Goes on until nobody reads the log any more. May be dropped at any point before.
    pub(super) async fn run(mut self) {
        while !self.public.is_closed() {
            let newest = self.signed.borrow_and_update().clone();
            let now = Instant::now();
            let asks = self.rounds.plan(newest.size, now);
            if self.rounds.target() > self.target.size {
                self.target = newest.clone();
            }
            for ask in asks {
                self.ask(ask, newest.size);
            }
            if let Err(error) = self.publish().await {
                crate::log(&format!("publishing a checkpoint: {error:#}"));
                sleep(RETRY_DELAY).await;
                continue;
            }
            let wake = now + INTERVAL;
            let wake = self.rounds.wake(newest.size).map_or(wake, |at| at.min(wake));
            tokio::select! {
                changed = self.signed.changed() => if changed.is_err() { return },
                Some(asked) = self.asks.join_next() => self.take(asked),
                () = sleep_until(wake) => {}
            }
        }
    }

    fn ask(&mut self, ask: Ask, newest: u64) {
        let (http, files) = (self.http.clone(), self.files.clone());
        let (witness, note) = (self.witnesses.list[ask.seat].clone(), self.target.note.clone());
        self.asks.spawn(async move {
            let told = witness.ask(&http, &files, &note, ask.old, newest).await;
            Asked { ask, told }
        });
    }

    fn take(&mut self, asked: Result<Asked, JoinError>) {
        // It would be a fault of ours: without its answer the witness would never be asked again.
        let Asked { ask, told } = asked.expect("a turn ends by itself");
        let key = &self.witnesses.list[ask.seat].key;
        let outcome = match &told {
            Ok(Told::Cosigned(_)) => Outcome::Cosigned,
            Ok(Told::Ahead(size)) => Outcome::Ahead(*size),
            Err(_) => Outcome::Failed,
        };
        if let Ok(Told::Cosigned(line)) = &told
            && ask.size == self.target.size
            && let Err(error) = self.target.note.replace(key, line.clone())
        {
            crate::log(&format!("keeping a cosignature of {}: {error}", key.name()));
        }
        self.rounds.answered(ask, outcome, Instant::now());
        self.standings.send_modify(|all| all[ask.seat].take(ask.size, told));
    }

    /// Shows the target, if it may be shown and says something new.
    pub(super) async fn publish(&self) -> anyhow::Result<()> {
        let shown = self.public.borrow().clone();
        let (size, note) = (self.target.size, self.target.note.clone());
        let shown_size = shown.as_ref().map(|shown| shown.size);
        // More of the same is always good.
        let may = self.rounds.is_reached() || shown_size == Some(size);
        if !may || shown.is_some_and(|shown| shown.note == note) {
            return Ok(());
        }
        let files = self.files.clone();
        let keep = tokio::task::spawn_blocking(move || {
            files.keep(Kept::Shown, &note)?;
            files.tidy(shown_size.unwrap_or_default(), size);
            Ok::<_, anyhow::Error>(())
        });
        keep.await.context("writing it")??;
        self.public.send_replace(Some(self.target.clone()));
        Ok(())
    }
}

/// The first target: what was signed last, with the cosignatures that are shown already.
fn begin(signed: &Sealed, shown: Option<&Sealed>) -> Sealed {
    match shown.filter(|shown| shown.size == signed.size) {
        Some(shown) => shown.clone(),
        None => signed.clone(),
    }
}

//! A registry and its witnesses that lose their lives again and again while people send statements:
//! what each round does, and what has to be true after it. Asks only what everybody may ask.
//!
//! ```text
//! clients send ───────────────────────────────► stop ─┐
//! a watcher reads checkpoints ────────────────────────┼─► audit: nothing acknowledged is lost,
//!      strike ──► down ──► mend ──► a little longer ──┘   nothing that was signed is taken back
//! ```

mod audit;
mod clients;
mod guest;
mod reader;
mod site;
mod watcher;

use crate::{
    chance::Chance,
    house::{Member, WITNESSES},
};
use anyhow::{Context as _, Result, ensure};
use audit::Audit;
use clients::{Client, Sent};
use contract::StatementId;
use serde_json::{Value, json};
use site::Site;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Rounds of a whole run.
pub const ROUNDS: u32 = 200;
/// For so long at most clients send before the strike.
const BEFORE: Duration = Duration::from_millis(600);
/// For so long at most nobody mends what was struck.
const DOWN: Duration = Duration::from_millis(200);
/// For so long at most clients go on afterwards.
const AFTER: Duration = Duration::from_millis(200);
/// Statements of earlier rounds whose proofs are asked for again in each round.
const SAMPLE: usize = 16;

/// What came of all rounds, none of which found anything wrong.
#[derive(Debug)]
pub struct Report {
    method: &'static str,
    seed: u64,
    rounds: u32,
    struck: BTreeMap<String, u32>,
    sent: Sent,
    acknowledged: usize,
    abandoned_logged: usize,
    entries: u64,
    checkpoints: usize,
    proofs: u64,
    took: Duration,
    toll: Option<guest::Toll>,
}

/// Kills programs on this machine with SIGKILL, round after round, and fails on the first thing that
/// is not as it has to be.
pub fn by_signal(rounds: u32, seed: u64, tell: &dyn Fn(&str)) -> Result<Report> {
    let temporary = crate::scratch()?;
    let mut house = crate::house::House::start(temporary.path(), None)?;
    run("kill -9", &mut house, rounds, seed, tell)
}

/// Cuts the power of a machine with a disk that forgets what was not flushed. Needs the image.
pub fn by_power_cut(rounds: u32, seed: u64, tell: &dyn Fn(&str)) -> Result<Report> {
    let temporary = crate::scratch()?;
    let mut guest = guest::Guest::start(temporary.path())?;
    let report = run("power cut", &mut guest, rounds, seed, tell)?;
    Ok(Report { toll: Some(guest.toll), ..report })
}

fn run(
    method: &'static str,
    site: &mut dyn Site,
    rounds: u32,
    seed: u64,
    tell: &dyn Fn(&str),
) -> Result<Report> {
    let begun = Instant::now();
    let chance = Chance::new(seed);
    let mut run = Run {
        audit: Audit::new(),
        clients: Client::all(&chance)?,
        sent: Sent::default(),
        struck: BTreeMap::new(),
        proofs: 0,
    };
    let first = clients::found(site.address(Member::Registry), &run.clients)?;
    run.audit.acknowledge(&first);
    for number in 1..=rounds {
        let context = || format!("round {number} of {rounds}, seed {seed}");
        let struck = run.round(site, &chance).with_context(context)?;
        let (entries, acknowledged) = (run.audit.size(), run.audit.acknowledged().len());
        tell(&format!(
            "round {number} of {rounds}: struck {struck}; {acknowledged} acknowledged, {entries} in \
             the log, after {} s",
            begun.elapsed().as_secs()
        ));
    }
    run.whole_log(site).context("reading the whole log at the end")?;
    site.finish(&chance).context("at the end")?;
    Ok(run.report(method, seed, rounds, begun.elapsed()))
}

/// Everything that is known by now.
struct Run {
    audit: Audit,
    clients: Vec<Client>,
    sent: Sent,
    struck: BTreeMap<String, u32>,
    proofs: u64,
}

/// Raises a flag when it goes out of scope, so that no thread waits for ever.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Run {
    fn round(&mut self, site: &mut dyn Site, chance: &Chance) -> Result<String> {
        let registry = site.address(Member::Registry);
        let witnesses: [SocketAddr; WITNESSES] =
            std::array::from_fn(|number| site.address(Member::Witness(number)));
        let (policy, pace) = (site.policy().clone(), site.pace());
        let (enough, seen_enough) = (AtomicBool::new(false), AtomicBool::new(false));
        let (clients, audit, proofs) = (&mut self.clients, &mut self.audit, &mut self.proofs);
        let (struck, sent, sightings) = thread::scope(|scope| -> Result<_> {
            let watcher =
                scope.spawn(|| watcher::watch(registry, &witnesses, &policy, &seen_enough));
            let watching = Raise(&seen_enough);
            let senders: Vec<_> = clients
                .iter_mut()
                .map(|client| scope.spawn(|| client.send(registry, &enough)))
                .collect();
            let sending = Raise(&enough);
            thread::park_timeout(chance.below(BEFORE * pace));
            let struck = site.strike(chance)?;
            thread::park_timeout(chance.below(DOWN * pace));
            site.mend(chance).context("starting what was struck")?;
            thread::park_timeout(chance.below(AFTER * pace));
            drop(sending);
            let mut sent = Sent::default();
            for sender in senders {
                sent.add(sender.join().expect("a client does not panic")?);
            }
            // The watcher sees how what was struck comes back, until everything is shown.
            let older = sample(audit.acknowledged(), chance);
            for id in sent.acknowledged.iter().chain(&older) {
                let (index, checkpoint) = reader::proof(registry, id, &policy)?;
                audit.proven(id, index, &checkpoint)?;
                *proofs += 1;
            }
            for id in &sent.acknowledged {
                reader::statement(registry, id)?;
            }
            drop(watching);
            let sightings = watcher.join().expect("the watcher does not panic")?;
            Ok((struck, sent, sightings))
        })?;
        audit.acknowledge(&sent.acknowledged);
        audit.sent(&sent.abandoned);
        self.sent.add(sent);
        for sighting in &sightings {
            audit.see(sighting)?;
        }
        // Where each stands now: what a witness has signed it may not have forgotten.
        for sighting in watcher::look(registry, &witnesses, &policy)? {
            audit.see(&sighting)?;
            audit.remembers(&sighting)?;
        }
        let shown = reader::shown(registry, &policy)?;
        reader::entries(registry, audit.size(), shown.size, |entry| audit.extend(entry))?;
        audit.check(&shown)?;
        *self.struck.entry(struck.clone()).or_default() += 1;
        Ok(struck)
    }

    /// Reads everything from the first entry on, as somebody who comes new, and asks for the proof of
    /// every statement that was ever acknowledged.
    fn whole_log(&mut self, site: &dyn Site) -> Result<()> {
        let registry = site.address(Member::Registry);
        let shown = reader::shown(registry, site.policy())?;
        let mut fresh = Audit::new();
        fresh.sent(self.audit.known());
        reader::entries(registry, 0, shown.size, |entry| fresh.extend(entry))?;
        fresh.acknowledge(self.audit.acknowledged());
        fresh.check(&shown)?;
        for id in self.audit.acknowledged() {
            let (index, checkpoint) = reader::proof(registry, id, site.policy())?;
            fresh.proven(id, index, &checkpoint)?;
            self.proofs += 1;
        }
        self.audit.nothing_waits()
    }

    fn report(self, method: &'static str, seed: u64, rounds: u32, took: Duration) -> Report {
        let Self { audit, sent, struck, proofs, .. } = self;
        Report {
            method,
            seed,
            rounds,
            struck,
            acknowledged: audit.acknowledged().len(),
            abandoned_logged: audit.logged(&sent.abandoned),
            entries: audit.size(),
            checkpoints: audit.checkpoints(),
            sent,
            proofs,
            took,
            toll: None,
        }
    }
}

/// Some of those that were acknowledged in earlier rounds.
fn sample(known: &[StatementId], chance: &Chance) -> Vec<StatementId> {
    (0..SAMPLE.min(known.len())).map(|_| known[chance.one_of(known.len())]).collect()
}

impl Report {
    /// One JSON object.
    pub fn json(&self) -> Value {
        json!({
            "method": self.method,
            "seed": self.seed,
            "rounds": self.rounds,
            "struck": self.struck,
            "acknowledged": self.acknowledged,
            "repeated": self.sent.repeated,
            "broken_off": self.sent.broken_off,
            "abandoned": self.sent.abandoned.len(),
            "abandoned_logged": self.abandoned_logged,
            "entries": self.entries,
            "checkpoints": self.checkpoints,
            "proofs": self.proofs,
            "took_s": self.took.as_secs(),
            "power_cuts": self.toll.map(|toll| json!({
                "cuts": toll.cuts,
                "blocks_kept": toll.blocks_kept,
                "blocks_lost": toll.blocks_lost,
                "older_after": toll.forgotten,
            })),
        })
    }

    /// Lines for people.
    pub fn text(&self) -> String {
        let toll = self.toll.map_or_else(String::new, |toll| {
            format!(
                "  disk: {} cuts, after {} of which a file that nobody synced was older; of blocks \
                 that were written and not flushed, {} were lost and {} not\n",
                toll.cuts, toll.forgotten, toll.blocks_lost, toll.blocks_kept,
            )
        });
        let struck = self.struck.iter().map(|(what, times)| format!("{what} {times}"));
        format!(
            "{} rounds of {} with seed {}, in {} s: nothing lost, nothing taken back\n  \
             struck: {}\n  \
             statements: {} acknowledged, {} of them sent again; {} requests broke off; {} given up, \
             {} of which the log has\n  \
             log: {} entries, each once; {} checkpoints, all of one history; {} proofs\n{toll}",
            self.rounds,
            self.method,
            self.seed,
            self.took.as_secs(),
            struck.collect::<Vec<_>>().join(", "),
            self.acknowledged,
            self.sent.repeated,
            self.sent.broken_off,
            self.sent.abandoned.len(),
            self.abandoned_logged,
            self.entries,
            self.checkpoints,
            self.proofs,
        )
    }
}

/// A number from the command line, or one of its own.
pub fn rounds(given: Option<u32>) -> Result<u32> {
    let rounds = given.unwrap_or(ROUNDS);
    ensure!(rounds > 0, "0 rounds show nothing");
    Ok(rounds)
}

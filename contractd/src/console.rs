//! What the node's screen shows: who it is, what it has, what it does, what ails it.

use crate::register::{Machine, state_name};
use node_api::{
    boot::BootConfig,
    init::{Fact, Level, Publish},
    paths,
    storaged::DiskState,
};
use std::collections::BTreeMap;

/// Contracts that fit on a screen; of more, only the number is shown.
const CONTRACTS_SHOWN: usize = 12;

/// Remembers what each section shows, so that only changes are sent.
#[derive(Debug, Default)]
pub(crate) struct Console(BTreeMap<&'static str, Vec<Fact>>);

impl Console {
    /// Shows `facts`, if the section shows something else.
    pub(crate) fn show(&mut self, section: &'static str, facts: Vec<Fact>) {
        // A section that was never shown and has nothing to show stays away.
        if self.0.get(section).map_or(facts.is_empty(), |shown| *shown == facts) {
            return;
        }
        let publish = Publish { section: section.to_owned(), facts };
        // A console that cannot be reached is tried again with the next look.
        if ipc::call(paths::INIT_SOCKET, &publish).is_ok() {
            self.0.insert(section, publish.facts);
        }
    }
}

pub(crate) fn fact(label: impl Into<String>, text: impl Into<String>, level: Level) -> Fact {
    Fact { label: label.into(), text: text.into(), level }
}

/// Who the node is.
pub(crate) fn node(id: &str, boot: &BootConfig, image: &str) -> Vec<Fact> {
    let mut facts = vec![
        fact("id", id, Level::Plain),
        fact("network", boot.network.as_str(), Level::Plain),
        match &boot.farm {
            Some(farm) => fact("farm", farm.as_str(), Level::Plain),
            None => fact("farm", "none: give zos.farm=... on the command line", Level::Bad),
        },
        fact("image", image, Level::Plain),
    ];
    let problems = boot.problems.iter().map(|text| fact("boot option", text, Level::Warning));
    facts.extend(problems);
    facts
}

/// Links, addresses and the clock.
pub(crate) fn network(machine: &Machine) -> Vec<Fact> {
    let mut facts: Vec<Fact> = machine
        .network
        .links
        .iter()
        .map(|link| match &link.problem {
            Some(problem) => fact(&link.name, problem, Level::Warning),
            None => fact(&link.name, link.addresses.join(" "), Level::Good),
        })
        .collect();
    if facts.is_empty() {
        facts.push(fact("links", "no network card found", Level::Bad));
    }
    let time = &machine.network.time;
    let level = if time.synchronised { Level::Good } else { Level::Warning };
    facts.push(fact("time", &time.source, level));
    facts
}

/// Each disk with its state and the reason.
pub(crate) fn disks(machine: &Machine) -> Vec<Fact> {
    let mut facts: Vec<Fact> = machine
        .disks
        .disks
        .iter()
        .map(|disk| {
            let level = match disk.state {
                DiskState::Pool => Level::Good,
                DiskState::Ignored => Level::Plain,
                DiskState::Foreign | DiskState::TooSmall => Level::Warning,
                DiskState::Failed => Level::Bad,
            };
            fact(&disk.name, format!("{}: {}", state_name(disk.state), disk.reason), level)
        })
        .collect();
    if machine.disks.primary_pool.is_none() {
        facts.push(fact("storage", "in memory only: nothing survives a power-off", Level::Bad));
    }
    facts
}

/// The contracts, one line each.
pub(crate) fn contracts(standings: &[(contract::report::Standing, String)]) -> Vec<Fact> {
    use contract::report::State;
    if standings.is_empty() {
        return vec![fact("none", "no contract names this node yet", Level::Plain)];
    }
    let mut facts: Vec<Fact> = standings
        .iter()
        .take(CONTRACTS_SHOWN)
        .map(|(standing, text)| {
            let level = match standing.state {
                State::Running | State::Done => Level::Good,
                State::Accepted | State::Stopped | State::Wiped => Level::Plain,
                State::Refused | State::Failed => Level::Warning,
            };
            fact(standing.contract.short(), text, level)
        })
        .collect();
    if standings.len() > CONTRACTS_SHOWN {
        let more = format!("{} more", standings.len() - CONTRACTS_SHOWN);
        facts.push(fact("and", more, Level::Plain));
    }
    facts
}

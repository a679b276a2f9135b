//! Machines that are not as one would wish: no disk, no DHCP answer, a wrong clock, power cuts at any
//! moment. The node boots, says what is wrong, and goes on when it is right.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Context as _, Result, ensure};
use qemu_tests::{
    chance::Chance,
    content,
    machine::{BOOT, Machine, Network, Running},
    media::Image,
    story::{START, Stage, Terms},
    time_server::{self, TimeServer},
};
use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

#[test]
fn without_a_disk_the_node_registers_as_degraded_and_says_why() -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let stage = Stage::set(directory.path(), false)?;
    let mut machine = stage.machine("diskless")?;
    machine.disks.clear();
    let running = stage.boot(&machine)?;
    running.serial.wait("zos: disks: storage: in memory only", START)?;
    let node = stage.wait_node(&running)?;
    let shown = stage.bot.json(&["node", "show", &node])?;
    let degraded = shown["statement"]["degraded"].as_array().context("no list of reasons")?;
    ensure!(
        degraded.iter().any(|reason| reason.as_str().is_some_and(|text| text.contains("disk")))
    );
    Ok(())
}

#[test]
fn without_an_answer_to_dhcp_the_node_serves_and_keeps_asking() -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let mut machine = Machine::new("silent");
    machine.network = Network::Silent;
    let running = machine.start(&Image::find()?, directory.path())?;
    running.wait_ready()?;
    running.serial.wait("no DHCP answer", BOOT)?;
    Ok(())
}

#[test]
fn a_wrong_clock_does_not_stop_a_node() -> Result<()> {
    for clock in ["1970-01-02", "2040-06-01"] {
        let directory = qemu_tests::scratch()?;
        let mut machine = Machine::new("clock");
        machine.clock = Some(clock.into());
        let running = machine.start(&Image::find()?, directory.path())?;
        running.wait_ready()?;
        let problems = running.power_cut().problems(&[]);
        ensure!(problems.is_empty(), "on the console: {problems:?}");
    }
    Ok(())
}

#[test]
fn with_a_time_server_the_clock_is_right_before_the_node_says_anything() -> Result<()> {
    for clock in ["1970-01-02", "2040-06-01"] {
        let directory = qemu_tests::scratch()?;
        let stage = Stage::set(directory.path(), false)?;
        let server = TimeServer::start(directory.path())?;
        let mut machine = stage.machine("clock")?;
        machine.clock = Some(clock.into());
        machine.cmdline += &format!(" zos.ntp={}", time_server::ADDRESS);
        machine.time_server = Some(server.clone());
        let before = now_s()?;
        let running = stage.boot(&machine)?;
        let node = stage.wait_node(&running)?;
        running.serial.wait(&format!("zos: network: time: {}", time_server::ADDRESS), START)?;
        ensure!(server.n_answers() > 0, "nobody asked for the time");
        let shown = stage.bot.json(&["node", "show", &node])?;
        let (issued, after) = (shown["statement"]["issued"].to_string(), now_s()?);
        // The first statement of a node has the number of its second, so no other came before.
        let version = shown["statement"]["version"].as_u64().context("no version")?;
        ensure!((before..=after).contains(&version), "{clock}: version {version}, {issued}");
        let problems = running.power_cut().problems(&[]);
        ensure!(problems.is_empty(), "on the console: {problems:?}");
    }
    Ok(())
}

/// Seconds since 1970 by the clock of this machine.
fn now_s() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// First starts, and how often each is cut at a random moment.
const ROUNDS: usize = 2;
const CUTS: usize = 2;
/// Cuts while a contract's files are fetched and its container starts, and the latest moment.
const CUTS_OF_START: usize = 3;
const START_CUT_MAX: Duration = Duration::from_secs(5);

/// A node loses power again and again during its first start, at random moments; left alone it does
/// what was agreed on, with one identity all along.
#[test]
fn power_cuts_at_random_moments_leave_nothing_broken() -> Result<()> {
    let chance = Chance::from_environment()?;
    cut_again_and_again(&chance).with_context(|| format!("{chance}"))
}

fn cut_again_and_again(chance: &Chance) -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let stage = Stage::set(directory.path(), false)?;
    // How long a first start takes here and now.
    let reference = stage.boot(&stage.machine("reference")?)?;
    let first_start = reference.age();
    drop(reference);
    // On blank disks: after a cut, the next start is cut as well; then it is left alone.
    let mut ids = BTreeSet::new();
    let mut converged = None;
    for round in 0..ROUNDS {
        let machine = stage.machine(&format!("cut-{round}"))?;
        ids.clear();
        for _ in 0..CUTS {
            let running = machine.start(&stage.image, directory.path())?;
            running.serial.idle(chance.below(first_start));
            ids.extend(cut(running)?);
        }
        let running = stage.boot(&machine)?;
        running.serial.wait("it holds the node's state", BOOT)?;
        running.serial.wait("it holds volumes", BOOT)?;
        let node = stage.wait_node(&running)?;
        ids.extend(cut(running)?);
        ensure!(ids.len() == 1, "several identities: {ids:?}");
        converged = Some((machine, node));
    }
    let (machine, node) = converged.context("no rounds")?;

    // The same while files are fetched and a container starts.
    let pool = stage.grant(&node)?;
    let flist = stage.publish_nginx()?;
    let terms = Terms::of_web(&node, &pool, &flist);
    let contract = stage.propose(&stage.write_source(&terms)?)?;
    stage.approve_all(&contract)?;
    for _ in 0..CUTS_OF_START {
        let running = machine.start(&stage.image, directory.path())?;
        running.serial.wait("zos: registration: registry: registered", BOOT)?;
        running.serial.idle(chance.below(START_CUT_MAX));
        ids.extend(cut(running)?);
    }
    let running = stage.boot(&machine)?;
    ensure!(stage.wait_page()?.contains(content::PAGE));
    ids.extend(cut(running)?);
    ensure!(ids.len() == 1, "several identities: {ids:?}");
    Ok(())
}

/// Pulls the plug; gives the identity that the node has shown, if it came so far.
fn cut(running: Running) -> Result<Option<String>> {
    let console = running.power_cut();
    let problems = console.problems(&[]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    let lines = console.lines();
    let shown = lines.iter().find_map(|line| line.split_once("zos: node: id: "));
    // The plug may be pulled in the middle of the line.
    Ok(shown.map(|(_, id)| id.to_owned()).filter(|id| id.len() == 64))
}

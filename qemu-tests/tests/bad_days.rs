//! Machines that are not as one would wish: no disk, no DHCP answer, a wrong clock, a power cut in
//! the middle of everything. The node boots, says what is wrong, and goes on when it is right.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Context as _, Result, ensure};
use qemu_tests::{
    content,
    machine::{BOOT, Machine, Network},
    media::Image,
    story::{START, Stage, Terms},
};
use std::time::Duration;

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

/// A node loses power again and again during its first start, earlier and later; left alone it does
/// what was agreed on, with one identity all along.
#[test]
fn power_cuts_during_the_first_start_leave_nothing_broken() -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let stage = Stage::set(directory.path(), false)?;
    let machine = stage.machine("cut")?;
    // While pools are being made, while the node registers.
    for line in ["zos: service devices: ready", "zos: service storaged: ready"] {
        let running = machine.start(&stage.image, directory.path())?;
        running.serial.wait(line, BOOT)?;
        running.power_cut();
    }
    let running = stage.boot(&machine)?;
    let node = stage.wait_node(&running)?;
    running.power_cut();
    let pool = stage.grant(&node)?;
    let flist = stage.publish_nginx()?;
    let terms = Terms {
        name: "web",
        node: &node,
        pool: &pool,
        flist: &flist,
        published: "published",
        port: 8080,
    };
    let contract = stage.propose(&stage.write_source(&terms)?)?;
    stage.approve_all(&contract)?;
    // While it fetches and starts: so long after it could have begun.
    for delay_ms in [300, 1500, 4000] {
        let running = machine.start(&stage.image, directory.path())?;
        running.serial.wait("zos: registration: registry: registered", BOOT)?;
        let from = running.serial.lines().len();
        drop(running.serial.wait_from(from, "no such line", Duration::from_millis(delay_ms)));
        let problems = running.power_cut().problems(&[]);
        ensure!(problems.is_empty(), "on the console: {problems:?}");
    }
    let running = stage.boot(&machine)?;
    ensure!(stage.wait_page()?.contains(content::PAGE));
    let line = running.serial.wait("zos: node: id: ", BOOT)?;
    ensure!(line.ends_with(&node), "another identity: {line}, before {node}");
    let problems = running.power_cut().problems(&[]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    Ok(())
}

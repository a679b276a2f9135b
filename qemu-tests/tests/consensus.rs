//! The life of a contract on a node: nothing before consensus, a page after it, tampering refused,
//! daemons killed, power cut, registry lost, cancel. Each refusal is followed by its repair, so
//! that a test which could not run anything would fail too.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Context as _, Result, ensure};
use qemu_tests::{
    content,
    farm::page,
    hostile::Mood,
    machine::blank_disk,
    saboteur::{self, Saboteur},
    story::{START, Stage, Terms},
    tamper, wait,
};
use std::{path::Path, process::Command, time::Duration};

/// Errors that a run asks for.
const EXPECTED: [&str; 0] = [];

#[test]
fn a_contract_lives_and_ends_as_its_stakeholders_decide() -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let stage = Stage::set(directory.path(), false)?;
    let mut machine = stage.machine("node")?;
    let foreign = foreign_disk(&directory.path().join("foreign.img"))?;
    let foreign_before = digest(&foreign)?;
    machine.disks.push((foreign.clone(), "FOREIGN".into()));
    machine.overlay = Some(saboteur::overlay(&stage.image, directory.path())?);
    let running = stage.boot(&machine)?;
    running.serial.wait("zos: disks: vdc: foreign: holds an ext4 file system", START)?;

    // Registration.
    let node = stage.wait_node(&running)?;
    let pool = stage.grant(&node)?;

    // No run before quorum.
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
    stage.wait_result(&contract, "quorum_missing", 0)?;
    stage.approve(&contract, "it-expert")?;
    stage.approve(&contract, "lawyer")?;
    // The node has seen these two, says what is missing, and runs nothing.
    wait::until("the node waits for the last approval", START, || {
        let results = stage.results(&contract)?;
        let last = results.last().and_then(|one| one["message"].as_str().map(str::to_owned));
        Ok(last.filter(|message| message.matches("approval").count() == 1))
    })?;
    ensure!(page(&stage.page_url())?.is_none(), "a page before consensus");

    // Run after quorum.
    stage.approve(&contract, "controller")?;
    ensure!(stage.wait_page()?.contains(content::PAGE));
    let result = stage.wait_result(&contract, "running", 0)?;
    ensure!(result["ran"]["flist"] == flist.as_str(), "the result names what ran: {result}");

    // A byte flipped in the content store is refused, and fetched again once it is right.
    let content_store = stage.registry.as_ref().context("no registry")?.content();
    let packs_before = tamper::packs(&content_store)?;
    let second_flist = stage.publish("Another page.", "published-2")?;
    let new_pack = tamper::packs(&content_store)?.difference(&packs_before).next().cloned();
    let new_pack = new_pack.context("the second flist has no pack of its own")?;
    tamper::flip(&new_pack)?;
    let terms = Terms {
        name: "web-2",
        flist: &second_flist,
        published: "published-2",
        port: 8081,
        ..terms
    };
    let second = stage.propose(&stage.write_source(&terms)?)?;
    stage.approve_all(&second)?;
    let refused = stage.wait_result(&second, "content_mismatch", 0)?;
    ensure!(refused["state"] == "refused", "{refused}");
    tamper::flip(&new_pack)?;
    stage.wait_result(&second, "running", 0)?;

    // An approval of one contract, replayed into another, does not count.
    let url = format!("{}/v1/contracts/{contract}/bundle", registry_url(&stage)?);
    let bundle: serde_json::Value = serde_json::from_str(&page(&url)?.context("no bundle")?)?;
    let approvals = bundle["approvals"].as_array().context("no approvals")?.clone();
    ensure!(approvals.len() == 3, "three approvals were given");
    stage.hostile.set(Mood::Replay(approvals));
    let terms = Terms { name: "web-3", port: 8082, ..terms };
    let third = stage.propose(&stage.write_source(&terms)?)?;
    let refused = stage.wait_result(&third, "quorum_missing", 0)?;
    ensure!(refused["message"].as_str().is_some_and(|text| text.matches("approval").count() == 3));
    stage.hostile.set(Mood::Honest);
    stage.approve_all(&third)?;
    stage.wait_result(&third, "running", 0)?;

    // A registry that forgets, lies or breaks stops nothing.
    for mood in [Mood::Empty, Mood::Older, Mood::Garbage, Mood::Half] {
        stage.hostile.set(mood);
        let from = running.serial.lines().len();
        drop(running.serial.wait_from(from, "zos: contracts:", Duration::from_secs(8)));
        ensure!(stage.wait_page()?.contains(content::PAGE));
    }
    stage.hostile.set(Mood::Honest);

    // Any daemon may be killed: the container does not notice, and the daemon comes back.
    for service in ["contractd", "storaged", "launcher", "netd"] {
        let from = running.serial.lines().len();
        Saboteur::connect(&running)?.kill(service)?;
        let exited = format!("zos: service {service}: exited by signal 9");
        let (from, _) = running.serial.wait_from(from, &exited, START)?;
        ensure!(page(&stage.page_url())?.is_some_and(|text| text.contains(content::PAGE)));
        let ready = format!("zos: service {service}: ready");
        running.serial.wait_from(from, &ready, START)?;
        ensure!(page(&stage.page_url())?.is_some_and(|text| text.contains(content::PAGE)));
    }
    let exits = stage.results(&contract)?;
    ensure!(exits.iter().all(|one| one["code"] != "exited"), "a container ended: {exits:?}");

    // Power cut; then a boot with the registry gone: the page is back, measured again.
    let problems = running.power_cut().problems(&EXPECTED);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    stage.hostile.set(Mood::Silent);
    let seen = stage.results(&contract)?.len();
    let running = stage.boot(&machine)?;
    ensure!(stage.wait_page()?.contains(content::PAGE));
    stage.hostile.set(Mood::Honest);
    let again = stage.wait_result(&contract, "running", seen)?;
    ensure!(again["ran"]["flist"] == flist.as_str(), "measured again: {again}");

    // Cancel stops it and deletes its data.
    stage.cancel_and_wipe(&contract)?;
    wait::until("the data is wiped", START, || {
        let results = stage.results(&contract)?;
        Ok(results.iter().any(|one| one["state"] == "wiped").then_some(()))
    })?;
    ensure!(page(&stage.page_url())?.is_none(), "a page after the cancel");

    // An orderly end, and nobody wrote to the foreign disk.
    let console = running.power_button(START)?;
    let problems = console.problems(&EXPECTED);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    ensure!(digest(&foreign)? == foreign_before, "the foreign disk was written");
    Ok(())
}

fn registry_url(stage: &Stage) -> Result<String> {
    Ok(stage.registry.as_ref().context("no registry")?.url())
}

/// SHA-256 of a whole disk.
fn digest(disk: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(disk).output()?;
    ensure!(output.status.success(), "sha256sum failed");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A disk with somebody's ext4 file system.
fn foreign_disk(path: &Path) -> Result<std::path::PathBuf> {
    let path = blank_disk(path, 2048)?;
    let made = Command::new("/sbin/mkfs.ext4").args(["-q", "-F"]).arg(&path).status()?;
    ensure!(made.success(), "mkfs.ext4 failed");
    Ok(path)
}

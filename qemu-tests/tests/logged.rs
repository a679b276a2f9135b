//! A node that asks for a transparency log, on real machines: it starts what is proven to be in the log.
//! A log that has forgotten what it showed is an alarm; nothing new starts by it, what runs goes on, and
//! when the true one is back so is everything else.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Context as _, Result, ensure};
use qemu_tests::{
    content,
    farm::{Registry, page, text, wait_page},
    machine::free_port,
    story::{START, Stage, Terms},
    wait,
};
use serde_json::Value;
use std::{path::Path, process::Command};

const ORIGIN: &str = "registry.example/test";

#[test]
fn a_node_that_asks_for_the_log_starts_only_what_is_in_it() -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let mut stage = Stage::set(directory.path(), false)?;
    let key = restarted(&mut stage, |data| Registry::begin_log(data, ORIGIN))?;
    let policy = directory.path().join("grid.policy");
    std::fs::write(&policy, format!("log {key}\nquorum none\n"))?;
    let policy = policy.to_str().context("no path of text")?;
    let pinned = wait::until("the log has what was there before it", START, || {
        Ok(stage.bot.quiet().json(&["log", "checkpoint", "--policy", policy]).ok())
    })?;
    let options = text(&pinned, "/options")?;
    ensure!(options.starts_with(&format!("zos.log={key} zos.checkpoint=")), "{pinned}");
    let mut machine = stage.machine("asks")?;
    machine.cmdline = format!("{} {options}", machine.cmdline);
    let second_port = free_port()?;
    let second_url = format!("http://127.0.0.1:{second_port}/");
    machine.forwards.push((second_port, 8081));
    let running = stage.boot(&machine)?;
    let node = stage.wait_node(&running)?;
    let pool = stage.grant(&node)?;
    let flist = stage.publish_nginx()?;
    let copy = directory.path().join("older");
    restarted(&mut stage, |data| copied(data, &copy))?;

    let terms = Terms::of_web(&node, &pool, &flist);
    let first = stage.propose(&stage.write_source(&terms)?)?;
    stage.approve_all(&first)?;
    ensure!(stage.wait_page()?.contains(content::PAGE));
    running.serial.wait(&format!("zos: registration: log: what starts is in {ORIGIN}"), START)?;

    // The registry is what it was before the contract. Its log has shown more than it has now.
    let from = running.serial.lines().len();
    let newest = directory.path().join("newest");
    restarted(&mut stage, |data| {
        std::fs::rename(data, &newest)?;
        copied(&copy, data)
    })?;
    let alarm = "zos: registration: log: nothing new starts: the log has shown";
    running.serial.wait_from(from, alarm, START)?;
    let source = stage.write_source(&Terms { name: "web-2", port: 8081, ..terms })?;
    let second = stage.propose(&source)?;
    stage.approve_all(&second)?;
    let refused = stage.wait_result(&second, "not_logged", 0)?;
    ensure!(refused["state"] == "refused", "{refused}");
    wait::until("the node signs that it is alarmed", START, || {
        let shown = stage.bot.quiet().json(&["node", "show", &node])?;
        Ok(shown.to_string().contains("the log does not continue what it has shown").then_some(()))
    })?;
    ensure!(page(&second_url)?.is_none(), "a page that is in no log");
    ensure!(stage.wait_page()?.contains(content::PAGE));

    // The true one is back, which has never heard of the second contract until it is told.
    let from = running.serial.lines().len();
    restarted(&mut stage, |data| {
        std::fs::remove_dir_all(data)?;
        std::fs::rename(&newest, data).context("putting the registry back")
    })?;
    let unheard = "zos: registration: log: asking the log";
    running.serial.wait_from(from, unheard, START)?;
    ensure!(page(&second_url)?.is_none(), "a page that is in no log");
    let plan = format!("{}.plan", source.display());
    let pushed = stage.bot.json(&["contract", "push", &plan, "--as", "customer"])?;
    ensure!(pushed.get("contract").and_then(Value::as_str) == Some(&second), "{pushed}");
    stage.approve_all(&second)?;
    ensure!(wait_page(&second_url, START)?.contains(content::PAGE));
    let results = stage.results(&first)?;
    ensure!(results.iter().all(|one| one["code"] != "exited"), "it has ended: {results:?}");
    let problems = running.power_button(START)?.problems(&[]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    Ok(())
}

/// Something is done to the data of the registry while it is stopped.
fn restarted<T>(stage: &mut Stage, act: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let (data, port) = stage.registry.take().context("no registry")?.stop();
    let done = act(&data)?;
    stage.registry = Some(Registry::start(&data, Some(port))?);
    Ok(done)
}

fn copied(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").args([from, to]).status()?;
    ensure!(status.success(), "cp has failed");
    Ok(())
}

//! Files come before they are needed: a contract starts in time although nobody has its files any more,
//! beside one that may run at once and cannot.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Context as _, Result, ensure};
use contract::Timestamp;
use qemu_tests::{
    content,
    farm::wait_page,
    machine::free_port,
    story::{START, Stage, Terms},
    tamper::Damage,
    wait,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Long enough for a slow machine to fetch, in seconds.
const AHEAD_S: u64 = 240;

#[test]
fn what_was_fetched_before_its_time_starts_without_its_source() -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let stage = Stage::set(directory.path(), false)?;
    let mut machine = stage.machine("node")?;
    let control_port = free_port()?;
    machine.forwards.push((control_port, 8081));
    let running = stage.boot(&machine)?;
    let node = stage.wait_node(&running)?;
    let pool = stage.grant(&node)?;

    // Agreed on, and its time has not come: the node says when, and that it has the files.
    let later = stage.publish_apart(content::PAGE, "published")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let start = Timestamp::from_seconds(i64::try_from(now + AHEAD_S)?);
    let text = start.to_string();
    let terms = Terms { not_before: Some(&text), ..Terms::of_web(&node, &pool, &later.id) };
    let contract = stage.propose(&stage.write_source(&terms)?)?;
    stage.approve_all(&contract)?;
    let here = format!("it starts at {text}; its files are here");
    wait::until("the files are fetched ahead", START, || {
        let results = stage.results(&contract)?;
        let is = |one: &serde_json::Value| one["code"] == "not_yet" && one["message"] == *here;
        Ok(results.iter().any(is).then_some(()))
    })?;

    // Nobody has them any more, nor those of one that may run now: that one waits.
    let control = stage.publish_apart("Another page.", "published-2")?;
    for apart in [&later, &control] {
        apart.list.damage(Damage::Missing)?;
        apart.pack.damage(Damage::Missing)?;
    }
    let at_once = Terms {
        name: "web-2",
        flist: &control.id,
        published: "published-2",
        port: 8081,
        not_before: None,
        ..terms
    };
    let waiting = stage.propose(&stage.write_source(&at_once)?)?;
    stage.approve_all(&waiting)?;
    stage.wait_result(&waiting, "content_missing", 0)?;

    // The other one starts, and not before its time.
    let in_time = START + Duration::from_secs(AHEAD_S);
    ensure!(wait_page(&stage.page_url(), in_time)?.contains(content::PAGE));
    let said = stage.wait_result(&contract, "running", 0)?;
    let at: Timestamp = said["at"].as_str().context("no time")?.parse()?;
    ensure!(at >= start, "it began too early: {said}");
    control.list.repair()?;
    control.pack.repair()?;
    let url = format!("http://127.0.0.1:{control_port}/");
    ensure!(wait_page(&url, START)?.contains("Another page."));

    let problems = running.power_cut().problems(&[]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    Ok(())
}

//! Health checks on a whole node: a server that works stays up, one that does not is started again,
//! keeps its data, and the node signs why.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Context as _, Result, ensure};
use qemu_tests::{
    content,
    farm::text,
    listener::Listener,
    story::{START, Stage, Terms},
    wait,
};
use serde_json::Value;

/// The page is there; a machine under test may be slow.
const GOOD: &str = r#"{ http = { port = 80 }, interval = "5s", timeout = "5s", retries = 5 }"#;
/// There is no such page.
const BAD: &str = "{ http = { port = 80, path = \"/missing\" }, interval = \"5s\", timeout = \"5s\", \
                   retries = 3, start_period = \"10s\" }";
/// A command that passes twice after each start, and then fails. It may take its time on a slow machine.
const ASKED: &str =
    r#"{ exec = ["/bin/patient", "ask"], interval = "20s", timeout = "20s", retries = 1 }"#;
/// A sink of lines in the farmer's own network.
const LAN: &str = "redis://10.0.2.101/lines";

#[test]
fn what_works_stays_up_and_what_does_not_is_started_again() -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let stage = Stage::set(directory.path(), false)?;
    // A contract cannot bring a node to speak with the farmer's own network for it.
    let listener = Listener::start()?;
    let mut machine = stage.machine("node")?;
    machine.doors.push(("10.0.2.101:6379", listener.port));
    let running = stage.boot(&machine)?;
    let node = stage.wait_node(&running)?;
    let pool = stage.grant(&node)?;
    let flist = stage.publish_nginx()?;

    let terms = Terms { health: Some(GOOD), ..Terms::of_web(&node, &pool, &flist) };
    let good = stage.propose(&stage.write_source(&terms)?)?;
    stage.approve_all(&good)?;
    stage.wait_result(&good, "running", 0)?;
    ensure!(stage.wait_page()?.contains(content::PAGE));
    let states = codes(&stage, &good)?;
    ensure!(states == ["starting", "running"], "{states:?}");

    let terms = Terms { name: "web-2", port: 8081, health: Some(BAD), logs: Some(LAN), ..terms };
    let bad = stage.propose(&stage.write_source(&terms)?)?;
    stage.approve_all(&bad)?;
    let said = stage.wait_result(&bad, "unhealthy", 0)?;
    ensure!(said["state"] == "failed", "{said}");
    let message = said["message"].as_str().context("no message")?;
    ensure!(message.contains("status 404, not 200 to 399"), "{message}");
    // It comes again, and again it is found out; never does it count as running.
    wait::until("it is started once more", START, || {
        let codes = codes(&stage, &bad)?;
        Ok((codes.iter().filter(|code| *code == "unhealthy").count() >= 2).then_some(()))
    })?;
    let states = codes(&stage, &bad)?;
    let pattern = ["starting", "unhealthy"].iter().cycle();
    ensure!(states.iter().zip(pattern).all(|(have, wanted)| have == wanted), "{states:?}");
    let status = stage.status(&bad)?;
    ensure!(text(&status, "/state")? != "running", "{status}");

    // One that is asked by a command: it works, then it does not, and the command says why.
    let tree = directory.path().join("patient");
    content::patient(&tree)?;
    let patient = stage.publish_tree(&tree, "published-3", &["--entrypoint=/bin/patient"])?;
    let terms = Terms {
        name: "web-3",
        port: 8082,
        flist: &patient,
        published: "published-3",
        health: Some(ASKED),
        logs: None,
        ..terms
    };
    let asked = stage.propose(&stage.write_source(&terms)?)?;
    stage.approve_all(&asked)?;
    let said = stage.wait_result(&asked, "unhealthy", 0)?;
    let message = said["message"].as_str().context("no message")?;
    let wanted = "failed 1 times in a row; the last by \"/bin/patient\": it returned 3 and said \
                  \"/tmp/asked has ?3? bytes\"";
    ensure!(message.contains(wanted), "{message}");
    wait::until("it is started once more, and works", START, || {
        let codes = codes(&stage, &asked)?;
        Ok((codes.iter().filter(|code| *code == "running").count() >= 2).then_some(()))
    })?;
    let states = codes(&stage, &asked)?;
    let pattern = ["starting", "running", "unhealthy"].iter().cycle();
    ensure!(states.iter().zip(pattern).all(|(have, wanted)| have == wanted), "{states:?}");

    // It said why, and nobody in the farmer's network heard of it.
    ensure!(listener.n_connections() == 0, "somebody connected: {:?}", listener.messages());

    // All the while nothing happened to the other.
    let states = codes(&stage, &good)?;
    ensure!(states == ["starting", "running"], "{states:?}");
    ensure!(stage.wait_page()?.contains(content::PAGE));
    let problems = running.power_cut().problems(&["its health check failed"]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    Ok(())
}

/// What the node has said of the server of a contract, oldest first.
fn codes(stage: &Stage, contract: &str) -> Result<Vec<String>> {
    let results = stage.results(contract)?;
    let of_web = results.iter().filter(|one| one["workload"] == "web");
    Ok(of_web
        .filter_map(|one| one.get("code").and_then(Value::as_str).map(str::to_owned))
        .collect())
}

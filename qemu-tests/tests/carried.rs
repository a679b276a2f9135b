//! Contracts that are carried to a node by hand: it runs what everybody has agreed on, from a stick alone,
//! and refuses what lacks one approval, as it would from a registry.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Result, ensure};
use qemu_tests::{
    content,
    farm::page,
    machine::{Machine, Running, blank_disk},
    story::{STAKEHOLDERS, START, Stage, Terms},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Large enough for the web server of the story.
const STICK_MIB: u64 = 128;

#[test]
fn what_was_agreed_on_runs_from_a_stick_without_a_registry_and_nothing_else_does() -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let stage = Stage::set(directory.path(), false)?;
    let mut machine = stage.machine("carried")?;
    let running = stage.boot(&machine)?;
    let node = stage.wait_node(&running)?;
    let problems = running.power_button(START)?.problems(&[]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    let pool = stage.grant(&node)?;
    let flist = stage.publish_nginx()?;
    let contract = stage.propose(&stage.write_source(&Terms::of_web(&node, &pool, &flist))?)?;
    let [first, rest @ ..] = STAKEHOLDERS;
    for (name, _) in rest {
        stage.approve(&contract, name)?;
    }
    let lacking = stick(&stage, &contract, "lacking")?;
    ensure!(lacking.1["in_force"] == Value::Null, "{}", lacking.1);
    stage.approve(&contract, first.0)?;
    let whole = stick(&stage, &contract, "whole")?;
    ensure!(whole.1["in_force"] == 1, "{}", whole.1);

    // The same node, with a cable that leads nowhere.
    let port = machine.registry_port.take();
    add_stick(&mut machine, "lacking", &lacking.0);
    add_stick(&mut machine, "whole", &whole.0);
    let running = stage.boot(&machine)?;
    push(&running, "lacking")?;
    running.serial.wait("contracts read: 1", START)?;
    running.serial.wait("quorum_missing", START)?;
    ensure!(page(&stage.page_url())?.is_none(), "a page that not everybody has agreed on");
    let from = running.serial.lines().len();
    pull(&running, "lacking")?;
    push(&running, "whole")?;
    running.serial.wait_from(from, "contracts read: 1", START)?;
    ensure!(stage.wait_page()?.contains(content::PAGE));
    // What runs needs no stick.
    pull(&running, "whole")?;
    ensure!(stage.wait_page()?.contains(content::PAGE));
    ensure!(stage.results(&contract)?.is_empty(), "nobody could tell the registry");
    let problems = running.power_button(START)?.problems(&[]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");

    // Neither does it after a power cut; and what has happened is told as soon as there is somebody.
    machine.arguments.clear();
    machine.registry_port = port;
    let running = stage.boot(&machine)?;
    stage.wait_result(&contract, "running", 0)?;
    ensure!(stage.wait_page()?.contains(content::PAGE));
    running.power_button(START).map(drop)
}

/// A stick with what `3bot` writes, and what that says.
fn stick(stage: &Stage, contract: &str, name: &str) -> Result<(PathBuf, Value)> {
    let folder = stage.directory.join(name);
    fs::create_dir(&folder)?;
    let to = folder.display().to_string();
    let said = stage.bot.json(&["contract", "carry", contract, "--to", &to])?;
    ensure!(said["nodes"].as_array().is_some_and(|nodes| nodes.len() == 1), "{said}");
    // A second time writes nothing.
    let again = stage.bot.json(&["contract", "carry", contract, "--to", &to])?;
    ensure!(again["bytes"] == 0 && said["bytes"] != 0, "{said} {again}");
    let disk = blank_disk(&stage.directory.join(format!("{name}.img")), STICK_MIB)?;
    run(Command::new("mformat")
        .args(["-T", &(STICK_MIB * 2048).to_string(), "-i"])
        .arg(&disk)
        .arg("::"))?;
    run(Command::new("mcopy")
        .args(["-s", "-i"])
        .arg(&disk)
        .arg(folder.join("zos-carry"))
        .arg("::"))?;
    Ok((disk, said))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.env("MTOOLS_SKIP_CHECK", "1").status()?;
    ensure!(status.success(), "{command:?} has failed");
    Ok(())
}

/// The machine has such a stick lying beside it.
fn add_stick(machine: &mut Machine, name: &str, disk: &Path) {
    if !machine.arguments.iter().any(|argument| argument.contains("qemu-xhci")) {
        machine.arguments.extend(["-device".to_owned(), "qemu-xhci,id=usb".to_owned()]);
    }
    let drive = json!({
        "driver": "raw",
        "node-name": name,
        "file": {"driver": "file", "filename": disk},
    });
    machine.arguments.extend(["-blockdev".to_owned(), drive.to_string()]);
}

fn push(running: &Running, name: &str) -> Result<()> {
    let device = json!({
        "driver": "usb-storage",
        "bus": "usb.0",
        "drive": name,
        "id": format!("in-{name}"),
        "removable": true,
    });
    running.qmp(&json!({"execute": "device_add", "arguments": device}).to_string())
}

fn pull(running: &Running, name: &str) -> Result<()> {
    let device = json!({"id": format!("in-{name}")});
    running.qmp(&json!({"execute": "device_del", "arguments": device}).to_string())
}

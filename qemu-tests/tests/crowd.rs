//! Two hundred containers on a machine of 4 GiB: started, stopped and started again, while the node
//! answers and its daemons stay as small as they were.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Result, ensure};
use qemu_tests::{
    content,
    machine::REGISTRY_URL,
    saboteur::{self, Saboteur},
    story::{STAKEHOLDERS, START, Stage},
    wait,
};
use serde_json::Value;
use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf, time::Duration};

const CONTAINERS: usize = 200;
/// For two hundred starts or ends on a slow machine, under emulation.
const CROWD: Duration = Duration::from_secs(600);
/// What all daemons together may take, as on an idle node.
const DAEMONS_PSS_MAX: u64 = 64 << 20;

#[test]
fn two_hundred_containers_start_stop_and_start_again() -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let stage = Stage::set(directory.path(), false)?;
    let mut machine = stage.machine("crowd")?;
    machine.memory_mib = 4096;
    machine.overlay = Some(saboteur::overlay(&stage.image, directory.path())?);
    let running = stage.boot(&machine)?;
    let mut saboteur = Saboteur::connect(&running)?;
    let node = stage.wait_node(&running)?;
    let pool = stage.grant(&node)?;
    let tree = directory.path().join("sleeper");
    content::sleeper(&tree)?;
    let flist = stage.publish_tree(&tree, "published-sleeper", &["--entrypoint=/bin/sleeper"])?;
    let contract = stage.propose(&source(&stage, &node, &pool, &flist)?)?;
    stage.approve_all(&contract)?;
    all_run(&stage, &contract, &node, 0)?;
    let bytes = daemons(&mut saboteur)?;
    ensure!(bytes <= DAEMONS_PSS_MAX, "the daemons take {bytes} bytes");

    // Those who start containers are killed, and find all of them again.
    let before = stage.results(&contract)?.len();
    for service in ["launcher", "contractd"] {
        let from = running.serial.lines().len();
        saboteur.kill(service)?;
        running.serial.wait_from(from, &format!("zos: service {service}: ready"), START)?;
    }
    let problems = running.power_button(CROWD)?.problems(&[]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    let after = stage.results(&contract)?;
    let ended = after.iter().skip(before).filter(|one| one["code"] == "exited").count();
    ensure!(ended == 0, "{ended} containers ended by themselves");

    let running = stage.boot(&machine)?;
    let mut saboteur = Saboteur::connect(&running)?;
    all_run(&stage, &contract, &node, after.len())?;
    stage.cancel_and_wipe(&contract)?;
    wait::until("everything has ended", CROWD, || {
        Ok(stage.results(&contract)?.iter().any(|one| one["state"] == "wiped").then_some(()))
    })?;
    let bytes = daemons(&mut saboteur)?;
    ensure!(bytes <= DAEMONS_PSS_MAX, "the daemons take {bytes} bytes");
    let problems = running.power_button(START)?.problems(&[]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    Ok(())
}

/// Waits until every container has been told of as running after the first `seen` results. The node
/// is online all the time.
fn all_run(stage: &Stage, contract: &str, node: &str, seen: usize) -> Result<()> {
    let mut answered = 0;
    wait::until("two hundred containers run", CROWD, || {
        let shown = stage.bot.quiet().json(&["node", "show", node])?;
        answered += usize::from(shown["online"] == Value::Bool(true));
        let results = stage.results(contract)?;
        let up = results.iter().skip(seen).filter(|one| one["state"] == "running");
        let up: BTreeSet<_> = up.filter_map(|one| one["workload"].as_str()).collect();
        Ok((up.len() == CONTAINERS).then_some(()))
    })?;
    ensure!(answered > 0, "the node was never online");
    Ok(())
}

/// The proportional set size of PID 1 and all daemons, in bytes.
fn daemons(saboteur: &mut Saboteur) -> Result<u64> {
    let answer = saboteur.order("memory", "memory ")?;
    let sizes = answer.split_ascii_whitespace().filter_map(|word| word.split_once('='));
    let sizes: Vec<(&str, u64)> =
        sizes.map(|(name, bytes)| Ok((name, bytes.parse()?))).collect::<Result<_>>()?;
    ensure!(sizes.iter().any(|(name, bytes)| *name == "contractd" && *bytes > 0), "{answer}");
    Ok(sizes.iter().map(|(_, bytes)| bytes).sum())
}

fn source(stage: &Stage, node: &str, pool: &str, flist: &str) -> Result<PathBuf> {
    let mut text = format!(
        "title = \"crowd\"\npurpose = \"Many that do little.\"\npool = \"{pool}\"\n\
         nodes = [\"{node}\"]\nexpires = \"7d\"\n\n\
         [flists.sleeper]\nid = \"{flist}\"\ndir = \"published-sleeper\"\n\
         urls = [\"{REGISTRY_URL}/content\"]\n"
    );
    for (name, role) in STAKEHOLDERS {
        write!(text, "[[stakeholders]]\nidentity = \"{name}\"\nrole = \"{role}\"\n")?;
    }
    for number in 0..CONTAINERS {
        write!(
            text,
            "[containers.c{number:03}]\nflist = \"sleeper\"\ncpu = 0.005\nmemory = \"8 MiB\"\n\
             stop = {{ signal = 9 }}\n"
        )?;
    }
    let path = stage.directory.join("crowd.toml");
    fs::write(&path, text)?;
    Ok(path)
}

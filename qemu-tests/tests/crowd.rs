//! Two hundred containers on a machine of 4 GiB: started, stopped and started again, while the daemons
//! answer and stay small. What it took is printed, and nothing of it is asserted.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]
#![expect(clippy::print_stdout, reason = "what was measured is for whoever wants to see it")]

use anyhow::{Context as _, Result, ensure};
use qemu_tests::{
    content,
    machine::REGISTRY_URL,
    saboteur::{self, Saboteur},
    story::{STAKEHOLDERS, START, Stage},
    wait,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

const CONTAINERS: usize = 200;
/// For all starts or all ends on a slow, busy machine under emulation.
const CROWD: Duration = Duration::from_secs(900);
/// What PID 1 and all daemons together may take, as on an idle node.
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
    all_run(&stage, &mut saboteur, &contract, 0)?;

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
    all_run(&stage, &mut saboteur, &contract, after.len())?;
    stage.cancel_and_wipe(&contract)?;
    watched("everything has ended", &mut saboteur, || {
        Ok(stage.results(&contract)?.iter().any(|one| one["state"] == "wiped"))
    })?;
    let problems = running.power_button(START)?.problems(&[]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    Ok(())
}

/// Waits until every container has been told of as running after the first `seen` results.
fn all_run(stage: &Stage, saboteur: &mut Saboteur, contract: &str, seen: usize) -> Result<()> {
    watched("all containers run", saboteur, || {
        let results = stage.results(contract)?;
        let up = results.iter().skip(seen).filter(|one| one["state"] == "running");
        let up: BTreeSet<_> = up.filter_map(|one| one["workload"].as_str()).collect();
        Ok(up.len() == CONTAINERS)
    })
}

/// Waits; meanwhile every daemon that is asked has to answer, and in the end all have to be small.
fn watched(
    what: &str,
    saboteur: &mut Saboteur,
    mut is_done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let begun = Instant::now();
    let (mut slowest, mut n_answers) = (0, 0);
    wait::until(what, CROWD, || {
        let answer = saboteur.order("status", "status ")?;
        let took = numbers(&answer)?.into_values().max();
        slowest = slowest.max(took.with_context(|| format!("nobody answered: {answer}"))?);
        n_answers += 1;
        Ok(is_done()?.then_some(()))
    })?;
    let memory = saboteur.order("memory", "memory ")?;
    let bytes: u64 = numbers(&memory)?.into_values().sum();
    println!(
        "{what} after {:.0?}; the slowest of {n_answers} looks at all daemons took {} ms; {memory}; {}",
        begun.elapsed(),
        slowest / 1000,
        saboteur.order("processor", "processor ")?
    );
    ensure!(memory.contains(" contractd=") && bytes <= DAEMONS_PSS_MAX, "{bytes}: {memory}");
    Ok(())
}

/// `word NAME=NUMBER …`, where one of several with the same name counts.
fn numbers(answer: &str) -> Result<BTreeMap<&str, u64>> {
    let pairs = answer.split_ascii_whitespace().filter_map(|word| word.split_once('='));
    pairs.map(|(name, number)| Ok((name, number.parse()?))).collect()
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

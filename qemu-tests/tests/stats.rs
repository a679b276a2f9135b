//! What containers use, on a whole node: samples come to a sink, a limit that is met is signed with how
//! often, and the node's figures are read by those whom the farmer names, and by nobody else. Each beside a
//! container that does not ask for it, or has what it needs.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Context as _, Result, ensure};
use qemu_tests::{
    content,
    farm::{page, wait_page},
    listener::Listener,
    machine::free_port,
    story::{START, Stage, Terms},
    wait,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// A sink beside the node.
const SINK: &str = "redis://10.0.2.101/lines";
/// More than the memory of its container: every page that is written costs another one its place.
const FILL_MIB: u32 = 160;
/// What comes before the number in a result.
const MET: &str = "; it met its limit of memory ";
/// More than all that the visits before may have cost.
const SENT: u64 = 4096;

#[test]
fn what_containers_use_is_sent_signed_and_shown() -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let stage = Stage::set(directory.path(), false)?;
    let listener = Listener::start()?;
    let mut machine = stage.machine("node")?;
    machine.doors.push(("10.0.2.101:6379", listener.port));
    let (fill_port, figures_port) = (free_port()?, free_port()?);
    let fill_url = format!("http://127.0.0.1:{fill_port}/");
    let figures_url = format!("http://127.0.0.1:{figures_port}/metrics");
    machine.forwards.extend([(fill_port, 8081), (figures_port, 9100)]);
    let options = format!("{} zos.lan=open", machine.cmdline);
    // The machine of the test is the gateway of QEMU's network.
    machine.cmdline = format!("{options} zos.metrics=9100,10.0.2.2");
    let running = stage.boot(&machine)?;
    let node = stage.wait_node(&running)?;
    let pool = stage.grant(&node)?;

    // One that has what it needs, and wants to hear nothing of it.
    let flist = stage.publish_nginx()?;
    let calm_terms = Terms::of_web(&node, &pool, &flist);
    let calm = stage.propose(&stage.write_source(&calm_terms)?)?;
    stage.approve_all(&calm)?;
    ensure!(stage.wait_page()?.contains(content::PAGE));

    // One whose files do not fit into its memory.
    let tree = directory.path().join("filler");
    content::filler(&tree)?;
    let filler = stage.publish_tree(&tree, "published-2", &["--entrypoint=/bin/filler"])?;
    let terms = Terms {
        name: "filler",
        flist: &filler,
        published: "published-2",
        port: 8081,
        cpu: "0.5",
        volume_mib: FILL_MIB,
        stats: Some(SINK),
        // So much that nothing waits for it: it starts only if the node finds the disk of its volume, and the
        // kernel takes the limit there.
        disk: Some("{ read = \"1 TiB\", write = \"1 TiB\" }"),
        ..calm_terms
    };
    let full = stage.propose(&stage.write_source(&terms)?)?;
    stage.approve_all(&full)?;
    let first = listener.wait("a sample", 0, START, |_| true)?;
    let filled = wait_page(&fill_url, START)?;
    ensure!(filled.contains("bytes, then "), "{filled}");

    // Its samples grow with what it does: here, with what it has written, and with what it sends.
    let written = u64::from(FILL_MIB / 8) << 20;
    let wrote = listener.wait("what it has written", 0, START, |sample| {
        figure(sample, "io_written_bytes") > written && figure(sample, "memory_max") > 0
    })?;
    ensure!(figure(&wrote, "cpu_us") > figure(&first, "cpu_us"), "{first} and then {wrote}");
    ensure!(figure(&wrote, "memory_bytes") <= 128 << 20, "above its limit: {wrote}");
    let (sent, seen) = (figure(&wrote, "net_sent_bytes"), listener.messages().len());
    let sends = |sample: &Value| figure(sample, "net_sent_bytes") > sent + SENT;
    wait::until("what it has sent", START, || {
        ensure!(page(&fill_url)?.is_some(), "no page");
        Ok(listener.messages().iter().skip(seen).any(sends).then_some(()))
    })?;
    let samples = listener.messages();
    let numbers: Vec<u64> = samples.iter().filter_map(|one| one["number"].as_u64()).collect();
    ensure!(numbers.len() == samples.len() && numbers.is_sorted(), "{numbers:?}");
    ensure!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "one is told twice: {numbers:?}");
    let own = |one: &Value| one["contract"] == full.as_str() && one["workload"] == "web";
    ensure!(samples.iter().all(own), "a sample of a container that sends none: {samples:?}");

    // The node signs that it met its limit, and how often; of the other it signs nothing like it.
    let result = wait::until("a result that tells the limit", START, || {
        Ok(stage.results(&full)?.into_iter().find(|one| n_met(one).is_some()))
    })?;
    ensure!(result["state"] == "running" && result["code"] == "running", "{result}");
    let told = n_met(&result).context("no number")?;
    let counted = listener
        .wait("as much in a sample", 0, START, |sample| figure(sample, "memory_max") >= told)?;
    ensure!(told > 0, "{result} and {counted}");
    let results = stage.results(&calm)?;
    ensure!(results.iter().all(|one| n_met(one).is_none()), "{results:?}");

    // The page of figures says the same of both.
    let id = |contract: &str| format!("{{id=\"c-{}-web\"}}", &contract[..29]);
    let limits = "zos_container_memory_limit_met_total";
    let shown = figures(&wait_page(&figures_url, START)?)?;
    let of = |name: &str, labels: &str| {
        let key = format!("{name}{labels}");
        shown.get(&key).copied().with_context(|| format!("no {key} in {shown:?}"))
    };
    #[expect(clippy::cast_precision_loss, reason = "a count of a minute")]
    let told = told as f64;
    ensure!(of(limits, &id(&full))? >= told, "{shown:?}");
    ensure!(of(limits, &id(&calm))? < 1.0, "{shown:?}");
    ensure!((of("zos_node_containers", "")? - 2.0).abs() < 0.5, "{shown:?}");
    ensure!(of("zos_node_cpu_seconds_total", "")? > 0.0, "{shown:?}");
    ensure!(of("zos_container_cpu_seconds_total", &id(&calm))? > 0.0, "{shown:?}");
    ensure!(!shown.keys().any(|key| key.contains("filler")), "the title of a contract: {shown:?}");
    ensure!(page(&format!("http://127.0.0.1:{figures_port}/"))?.is_none(), "another page");

    // No container takes the place of the page.
    let terms = Terms { name: "thief", port: 9100, cpu: "0.1", ..calm_terms };
    let thief = stage.propose(&stage.write_source(&terms)?)?;
    stage.approve_all(&thief)?;
    let refused = stage.wait_result(&thief, "refused", 0)?;
    ensure!(refused.to_string().contains("port 9100/tcp belongs to the node"), "{refused}");

    // Who is not named reads nothing, from a node that serves all the rest: also logd is there, which serves
    // the page, for it sends samples of this boot.
    let problems = running.power_button(START)?.problems(&["port 9100/tcp belongs to the node"]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    machine.cmdline = format!("{options} zos.metrics=9100,10.0.2.77");
    let seen = listener.messages().len();
    let running = stage.boot(&machine)?;
    ensure!(stage.wait_page()?.contains(content::PAGE));
    listener.wait("a sample of the second boot", seen, START, |_| true)?;
    ensure!(page(&figures_url)?.is_none(), "a stranger reads the node's figures");
    ensure!(stage.wait_page()?.contains(content::PAGE));
    let problems = running.power_cut().problems(&["port 9100/tcp belongs to the node"]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    Ok(())
}

/// A figure of a sample.
fn figure(sample: &Value, name: &str) -> u64 {
    sample["stats"][name].as_u64().unwrap_or(0)
}

/// How often it met its limit of memory, as a result tells it.
fn n_met(result: &Value) -> Option<u64> {
    let (_, behind) = result["message"].as_str()?.split_once(MET)?;
    let word = behind.split([' ', ';']).next()?;
    if word == "once" { Some(1) } else { word.parse().ok() }
}

/// Every figure of a page by its name and labels; all of the page has to be understood.
fn figures(page: &str) -> Result<BTreeMap<String, f64>> {
    let mut figures = BTreeMap::new();
    let mut family = "";
    for line in page.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').context("a type without a name")?;
            ensure!(kind == "counter" || kind == "gauge", "{line}");
            family = name;
        } else if !line.starts_with("# HELP ") {
            let (key, value) = line.rsplit_once(' ').with_context(|| format!("{line:?}"))?;
            ensure!(key.split('{').next() == Some(family), "{line} in the family {family}");
            let value = value.parse().with_context(|| format!("{line:?}"))?;
            ensure!(figures.insert(key.to_owned(), value).is_none(), "{line} is there twice");
        }
    }
    Ok(figures)
}

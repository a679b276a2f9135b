//! The life of a contract on a node: nothing before consensus, a page after it, tampering refused,
//! daemons killed, power cut, registry lost, cancel. Each refusal is followed by its repair, so
//! that a test which could not run anything would fail too.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Context as _, Result, ensure};
use flist::{Flist, FlistId};
use qemu_tests::{
    content,
    farm::{page, text, wait_page},
    hostile::Mood,
    listener::Listener,
    machine::{blank_disk, free_port},
    saboteur::{self, Saboteur},
    story::{START, Stage, Terms},
    tamper::Damage,
    wait,
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

/// What was said so long ago survives a power cut, on a slow machine too.
const LINES_KEPT: Duration = Duration::from_secs(20);
/// Errors that a run asks for.
const EXPECTED: [&str; 0] = [];
/// What a console says of a registry that answers with something else than it was asked for.
const NONSENSE: &str = "/inbox answers nonsense";
/// And of one whose answer does not come, or not to its end.
const UNREACHABLE: &str = "zos: registration: registry: asking http";

#[test]
fn a_contract_lives_and_ends_as_its_stakeholders_decide() -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let stage = Stage::set(directory.path(), false)?;
    let mut machine = stage.machine("node")?;
    let foreign = foreign_disk(&directory.path().join("foreign.img"))?;
    let foreign_before = digest(&foreign)?;
    machine.disks.push((foreign.clone(), "FOREIGN".into()));
    let second_port = free_port()?;
    let second_url = format!("http://127.0.0.1:{second_port}/");
    machine.forwards.push((second_port, 8081));
    machine.overlay = Some(saboteur::overlay(&stage.image, directory.path())?);
    // A sink of a container's output. It stands beside the node, in the farmer's own network.
    let listener = Listener::start()?;
    machine.doors.push(("10.0.2.101:6379", listener.port));
    machine.cmdline += " zos.lan=open";
    let talk_port = free_port()?;
    let talk_url = format!("http://127.0.0.1:{talk_port}/");
    machine.forwards.push((talk_port, 8083));
    let running = stage.boot(&machine)?;
    running.serial.wait("zos: disks: vdc: foreign: holds an ext4 file system", START)?;

    // Registration.
    let node = stage.wait_node(&running)?;
    let pool = stage.grant(&node)?;

    // No run before quorum.
    let flist = stage.publish_nginx()?;
    let terms = Terms::of_web(&node, &pool, &flist);
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

    // What is damaged in the content store is refused, and runs by itself once it is right.
    let flipped = stage.publish_apart("Another page.", "published-2")?;
    flipped.pack.damage(Damage::Flipped)?;
    let terms =
        Terms { name: "web-2", flist: &flipped.id, published: "published-2", port: 8081, ..terms };
    let (second, refused) = stage.agree_on_damaged(&terms, "content_mismatch")?;
    ensure!(refused["state"] == "refused", "{refused}");
    for (damage, code) in
        [(Damage::Truncated, "content_truncated"), (Damage::Missing, "content_missing")]
    {
        flipped.pack.damage(damage)?;
        stage.wait_result(&second, code, 0)?;
    }
    ensure!(page(&second_url)?.is_none(), "a page of damaged files");
    flipped.pack.repair()?;
    ensure!(wait_page(&second_url, START)?.contains("Another page."));

    // An approval of one contract, replayed into another, does not count.
    let unlisted = stage.publish_apart("A third page.", "published-3")?;
    let terms =
        Terms { name: "web-3", flist: &unlisted.id, published: "published-3", port: 8082, ..terms };
    let (third, _) = stage.replay(&contract, &terms)?;

    // Nor does a damaged list of files.
    unlisted.list.damage(Damage::Missing)?;
    stage.approve_all(&third)?;
    stage.wait_result(&third, "content_missing", 0)?;
    unlisted.list.damage(Damage::Truncated)?;
    stage.wait_result(&third, "content_mismatch", 0)?;
    unlisted.list.repair()?;
    stage.wait_result(&third, "running", 0)?;

    // What a container says arrives where its contract wants it, in order and with numbers.
    let tree = directory.path().join("talker");
    content::talker(&tree)?;
    let talking = stage.publish_tree(&tree, "published-4", &["--entrypoint=/bin/talker"])?;
    let published = directory.path().join("published-4").display().to_string();
    let publish = || stage.bot.json(&["flist", "push", &published]);
    let sign = |publisher: &str| {
        let words = ["flist", "sign", &published, "--name", "talker", "--revision", "1", "--as"];
        text(&stage.bot.json(&[&words[..], &[publisher]].concat())?, "/publisher")
    };
    let (ours, theirs) = (sign("farmer")?, sign("customer")?);
    publish()?;
    let terms = Terms {
        publisher: Some(&ours),
        name: "talker",
        flist: &talking,
        published: "published-4",
        port: 8083,
        cpu: "0.1",
        logs: Some("redis://10.0.2.101/lines"),
        ..terms
    };
    let talker = stage.propose(&stage.write_source(&terms)?)?;
    // Nothing starts that its publisher has not signed, whatever lies there in the place of that.
    let content = stage.registry.as_ref().context("no registry")?.content();
    let [ours, theirs] =
        [&ours, &theirs].map(|key| content.join("releases").join(&talking).join(key));
    fs::copy(&theirs, &ours)?;
    stage.approve_all(&talker)?;
    let refused = stage.wait_result(&talker, "publisher_invalid", 0)?;
    ensure!(refused["state"] == "refused", "{refused}");
    fs::remove_file(&ours)?;
    stage.wait_result(&talker, "publisher_unsigned", 0)?;
    ensure!(listener.messages().is_empty(), "it runs without its publisher's word");
    publish()?;
    let said =
        listener.wait("what the talker says", 0, START, |message| message["line"] == "say 20")?;
    ensure!(said["contract"] == talker.as_str() && said["workload"] == "web", "{said}");
    ensure!(said["number"] == 20 && listener.check()? == 0, "{said}");

    // A registry that forgets, lies or breaks stops nothing, and deletes nothing.
    let volumes = Saboteur::connect(&running)?.order("volumes", "volumes")?;
    ensure!(volumes.split(' ').count() == 1 + 4, "four contracts have a volume each: {volumes}");
    let said = stage.results(&contract)?.len();
    let served = || -> Result<()> {
        let shown = page(&stage.page_url())?;
        ensure!(shown.is_some_and(|text| text.contains(content::PAGE)), "no page");
        Ok(())
    };
    let unchanged = || -> Result<()> {
        served()?;
        let now = Saboteur::connect(&running)?.order("volumes", "volumes")?;
        ensure!(now == volumes, "{volumes} became {now}");
        Ok(())
    };
    // These are answers like any other.
    for mood in [Mood::Empty, Mood::Older] {
        stage.hostile.set(mood.clone());
        stage.hostile.wait_taken(START)?;
        unchanged().with_context(|| format!("{mood:?}"))?;
    }
    for (mood, problem) in [(Mood::Garbage, NONSENSE), (Mood::Half, UNREACHABLE)] {
        let from = running.serial.lines().len();
        stage.hostile.set(mood.clone());
        let (from, _) = running.serial.wait_from(from, problem, START)?;
        unchanged().with_context(|| format!("{mood:?}"))?;
        stage.hostile.set(Mood::Honest);
        running.serial.wait_from(from, "registration: registry: registered and", START)?;
    }

    // While it says nothing, any daemon may be killed: the container does not notice, and the daemon
    // comes back.
    let silence = running.serial.lines().len();
    stage.hostile.set(Mood::Silent);
    for service in ["contractd", "storaged", "logd", "launcher", "netd"] {
        let from = running.serial.lines().len();
        Saboteur::connect(&running)?.kill(service)?;
        let exited = format!("zos: service {service}: exited by signal 9");
        let (from, _) = running.serial.wait_from(from, &exited, START)?;
        served()?;
        let ready = format!("zos: service {service}: ready");
        running.serial.wait_from(from, &ready, START)?;
        served()?;
    }
    // It has missed no line, nor did anybody lose one.
    let (last, seen) = last_said(&listener)?;
    listener.wait("the lines after that", seen, START, says(last + 20))?;
    ensure!(listener.check()? == 0, "lines were dropped");
    ensure!(consecutive(&listener), "{:?}", listener.messages());

    // A sink that is gone keeps nobody from talking, as fast as it likes; it hears what was dropped.
    listener.set_deaf(true);
    ensure!(wait_page(&talk_url, START)?.contains("700000 lines"));
    served()?;
    listener.set_deaf(false);
    wait::until("marks of dropped lines", START, || {
        Ok(Some(listener.check()?).filter(|dropped| *dropped > 500_000))
    })?;
    let (last, seen) = last_said(&listener)?;
    listener.wait("lines after the flood", seen, START, says(last + 20))?;
    let dropped = listener.check()?;

    let (from, _) = running.serial.wait_from(silence, UNREACHABLE, START)?;
    unchanged()?;
    stage.hostile.set(Mood::Honest);
    running.serial.wait_from(from, "registration: registry: registered and", START)?;
    stage.hostile.wait_taken(START)?;
    let results = stage.results(&contract)?;
    ensure!(results.len() == said, "something happened to the container: {results:?}");

    // Files of the store are lost, exchanged, and put back without their seals, under containers that go
    // on with what they have open. What starts is refused them, the others that need them are stopped,
    // and they come back.
    let mut saboteur = Saboteur::connect(&running)?;
    let objects = |out: &str, flist: &str| objects(&stage.directory.join(out), flist);
    let [first, other] = [objects("published", &flist)?, objects("published-2", &flipped.id)?];
    let talkers = objects("published-4", &talking)?;
    let shared = first.intersection(&other).filter(|object| !talkers.contains(*object)).cloned();
    let spoilt: Vec<String> = shared.take(4).collect();
    let spoilt = spoilt.join(" ");
    let seen_second = stage.results(&second)?.len();
    saboteur.order(&format!("spoil {flist} {spoilt}"), "spoilt")?;
    served()?;
    saboteur.order(&format!("end c-{}-web", &contract[..29]), "ended")?;
    let refused = stage.wait_result(&contract, "store_damaged", said)?;
    ensure!(refused["state"] == "failed", "{refused}");
    let message = refused["message"].as_str().unwrap_or_default();
    let count = |what: &str| message.matches(what).count();
    // The image and two objects; the object that is not there.
    ensure!(count("has another digest, or none") == 3 && count("is missing") == 1, "{refused}");
    ensure!(count("the image of the tree") == 1, "{refused}");
    let seen = stage.results(&contract)?.iter().position(|one| *one == refused).unwrap_or(said);
    stage.wait_result(&contract, "running", seen)?;
    stage.wait_page()?;
    let stopped = stage.wait_result(&second, "store_damaged", seen_second)?;
    let seen = stage.results(&second)?.iter().position(|one| *one == stopped);
    stage.wait_result(&second, "running", seen.unwrap_or(seen_second))?;
    ensure!(wait_page(&second_url, START)?.contains("Another page."));

    // Power cut; then a boot with the registry gone: the page is back, measured again.
    listener.set_deaf(true);
    let (last, heard) = last_said(&listener)?;
    // What was said a while ago is on disk.
    running.serial.idle(LINES_KEPT);
    let problems = running.power_cut().problems(&EXPECTED);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    stage.hostile.set(Mood::Silent);
    let seen = stage.results(&contract)?.len();
    let running = stage.boot(&machine)?;
    ensure!(stage.wait_page()?.contains(content::PAGE));
    // And so are the lines that were on their way when the power went, with those of before and now.
    listener.set_deaf(false);
    listener.wait("a line of after the cut", heard, START, says(1))?;
    // The talker counts anew, and says this number again later: here it is the one of before.
    let since = listener.messages().into_iter().skip(heard);
    let before: Vec<_> = since.take_while(|message| !says(1)(message)).collect();
    let begin = || listener.messages().into_iter().skip(heard).take(3).collect::<Vec<_>>();
    ensure!(before.iter().any(says(last + 1)), "no {} of before the cut: {:?}", last + 1, begin());
    ensure!(before.last().is_some_and(|mark| mark["dropped"] == 1), "no mark: {before:?}");
    ensure!(listener.check()? == dropped + 1, "lines were dropped");
    stage.hostile.set(Mood::Honest);
    let again = stage.wait_result(&contract, "running", seen)?;
    ensure!(again["ran"]["flist"] == flist.as_str(), "measured again: {again}");

    // Cancel stops it and deletes its data.
    stage.cancel_and_wipe(&contract)?;
    stage.wait_wiped(&contract)?;
    ensure!(page(&stage.page_url())?.is_none(), "a page after the cancel");
    let left = Saboteur::connect(&running)?.order("volumes", "volumes")?;
    ensure!(left.split(' ').count() == 1 + 3, "of {volumes} one was to go: {left}");

    // An orderly end, and nobody wrote to the foreign disk.
    let console = running.power_button(START)?;
    let problems = console.problems(&EXPECTED);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    ensure!(digest(&foreign)? == foreign_before, "the foreign disk was written");
    Ok(())
}

/// The number of the last `say`, and how many messages there are up to it.
fn last_said(listener: &Listener) -> Result<(u64, usize)> {
    let messages = listener.messages();
    let last = messages.iter().rev().find_map(said).context("nothing was said")?;
    Ok((last, messages.len()))
}

fn said(message: &Value) -> Option<u64> {
    message["line"].as_str()?.strip_prefix("say ")?.parse().ok()
}

fn says(number: u64) -> impl Fn(&Value) -> bool {
    move |message| said(message) == Some(number)
}

/// Whether what was heard is `say 1`, `say 2` and so on, but for what came twice.
fn consecutive(listener: &Listener) -> bool {
    let mut last = 0;
    listener.messages().iter().all(|message| {
        let number = said(message).unwrap_or(0);
        let follows = number == message["number"] && number <= last + 1;
        last = last.max(number);
        follows
    })
}

/// The digests of the objects of an flist that was published in a directory.
fn objects(published: &Path, flist: &str) -> Result<BTreeSet<String>> {
    let path = published.join("flists").join(flist);
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let list = Flist::decode(&bytes).context("decoding an flist")?;
    let digests = list.body().contents.iter().map(|content| FlistId(content.digest).to_string());
    Ok(digests.collect())
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

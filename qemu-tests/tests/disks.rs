//! Disks that are full, and disks that are pulled out while the node uses them. What does not need
//! them goes on; what does says why it cannot, and goes on when it can.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Context as _, Result, bail, ensure};
use qemu_tests::{
    content,
    farm::{page, wait_page},
    machine::{Plug, blank_disk, free_port},
    raw_disk,
    saboteur::{self, Saboteur},
    story::{START, Stage, Terms},
    wait,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Size of a volume of which a disk of 1 GiB can hold one and not two.
const VOLUME_MIB: u32 = 450;
/// Size of a file that is larger than the share of the store on that disk.
const LARGE_MIB: u64 = 300;

/// For a page that comes when half a gigabyte was written, with a third of an emulated processor.
const FILLED: Duration = Duration::from_secs(600);

/// Lines of a file that the server reads in pieces.
const LONG_LINES: u32 = 10_000;

/// Codes of a container whose files are damaged.
const DAMAGED: [&str; 1] = ["store_damaged"];
/// And of one whose metadata image is: it depends on who reads it first, the launcher or the check that
/// follows from the disk's errors.
const NO_IMAGE: [&str; 3] = ["root_mount_failed", "image_missing", "store_damaged"];

/// What btrfs says of a disk that is not there any more.
const VOLUMES_GONE: &str = "BTRFS error (device vda";
const VOLUMES_GONE_TOO: &str = "BTRFS: error (device vda";
const STATE_GONE: &str = "BTRFS error (device nvme0n1";
const STATE_GONE_TOO: &str = "BTRFS: error (device nvme0n1";

#[test]
fn a_full_disk_stops_nobody_else_and_what_waits_starts_when_there_is_room() -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let stage = Stage::set(directory.path(), false)?;
    let mut machine = stage.machine("full")?;
    machine.disks.truncate(1);
    blank_disk(&machine.disks[0].0, 1024)?;
    let ports = [free_port()?, free_port()?];
    machine.forwards.extend([(ports[0], 8081), (ports[1], 8082)]);
    let [first_url, second_url] = ports.map(|port| format!("http://127.0.0.1:{port}/"));
    let running = stage.boot(&machine)?;
    let node = stage.wait_node(&running)?;
    let pool = stage.grant(&node)?;

    // One that needs little, and goes on.
    let flist = stage.publish_nginx()?;
    let terms = Terms::of_web(&node, &pool, &flist);
    let small = stage.propose(&stage.write_source(&terms)?)?;
    stage.approve_all(&small)?;
    ensure!(stage.wait_page()?.contains(content::PAGE));

    // One whose files are larger than the store: what was fetched of them is in nobody's way.
    let file = directory.path().join("nginx/large");
    fs::File::create(&file)?.set_len(LARGE_MIB << 20)?;
    let flist = stage.publish("A large page.", "published-large")?;
    fs::remove_file(&file)?;
    let large = stage.propose(&stage.write_source(&Terms {
        name: "large",
        flist: &flist,
        published: "published-large",
        port: 8081,
        ..terms
    })?)?;
    stage.approve_all(&large)?;
    stage.wait_result(&large, "store_too_small", 0)?;
    ensure!(page(&first_url)?.is_none(), "a page of files that do not fit");
    ensure!(served(&stage)?, "no page because of files that do not fit");
    stage.cancel_and_wipe(&large)?;
    stage.wait_wiped(&large)?;

    // Two that want the same room. The first writes until its quota refuses.
    let late_flist = stage.publish("A late page.", "published-late")?;
    let late = stage.propose(&stage.write_source(&Terms {
        name: "late",
        flist: &late_flist,
        published: "published-late",
        port: 8082,
        volume_mib: VOLUME_MIB,
        ..terms
    })?)?;
    let tree = directory.path().join("filler");
    content::filler(&tree)?;
    let flist = stage.publish_tree(&tree, "published-filler", &["--entrypoint=/bin/filler"])?;
    let filler = stage.propose(&stage.write_source(&Terms {
        name: "filler",
        flist: &flist,
        published: "published-filler",
        port: 8081,
        volume_mib: VOLUME_MIB,
        ..terms
    })?)?;
    stage.approve_all(&filler)?;
    let said = wait_page(&first_url, FILLED)?;
    let (bytes, refusal) = said.split_once(" bytes, then ").context("another page")?;
    ensure!(refusal.trim() == "QuotaExceeded", "{said}");
    let (written_mib, quota_mib) = (bytes.parse::<u64>()? >> 20, u64::from(VOLUME_MIB));
    ensure!((quota_mib * 9 / 10..=quota_mib).contains(&written_mib), "{said}");
    ensure!(served(&stage)?, "no page because of a full volume");
    stage.approve_all(&late)?;
    let refused = stage.wait_result(&late, "no_capacity", 0)?;
    ensure!(refused["state"] == "refused", "{refused}");
    ensure!(page(&second_url)?.is_none(), "a page without room");

    // Room is made, by an order: the second starts by itself.
    stage.cancel_and_wipe(&filler)?;
    ensure!(wait_page(&second_url, START)?.contains("A late page."));
    ensure!(page(&first_url)?.is_none(), "a page after the cancel");
    ensure!(served(&stage)?, "no page because of another's end");
    let results = stage.results(&small)?;
    ensure!(results.iter().all(|one| one["code"] != "exited"), "a container ended: {results:?}");
    let problems = running.power_button(START)?.problems(&[]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    Ok(())
}

#[test]
fn a_pulled_disk_is_told_of_the_rest_goes_on_and_with_the_disk_everything_is_back() -> Result<()> {
    let directory = qemu_tests::scratch()?;
    let stage = Stage::set(directory.path(), false)?;
    let mut machine = stage.machine("pulled")?;
    machine.disks.clear();
    let plug = |slot, driver, size_mib| -> Result<Plug> {
        let disk = blank_disk(&directory.path().join(format!("{slot}.img")), size_mib)?;
        Ok(Plug { slot, driver, disk })
    };
    // The fast one holds state and store; the large one has the most room for volumes.
    let (fast, large) = (plug("fast", "nvme", 4096)?, plug("large", "virtio-blk-pci", 8192)?);
    machine.add_pluggable(&fast)?;
    machine.add_pluggable(&large)?;
    machine.overlay = Some(saboteur::overlay(&stage.image, directory.path())?);
    let running = stage.boot(&machine)?;
    let node = stage.wait_node(&running)?;
    let pool = stage.grant(&node)?;
    let tree = directory.path().join("nginx");
    let long: String = (0..LONG_LINES).map(|number| format!("line {number}\n")).collect();
    fs::create_dir_all(tree.join("srv"))?;
    fs::write(tree.join("srv/long.txt"), &long)?;
    let flist = stage.publish_nginx()?;
    let terms = Terms::of_web(&node, &pool, &flist);
    let contract = stage.propose(&stage.write_source(&terms)?)?;
    stage.approve_all(&contract)?;
    stage.wait_page()?;

    // The disk of the volume goes, and comes back. The program and its page are on the other.
    let from = running.serial.lines().len();
    running.pull(&large)?;
    let (from, _) =
        running.serial.wait_from(from, "zos: disks: vda: failed: was removed", START)?;
    ensure!(served(&stage)?, "no page without the disk of a volume");
    running.push(&large)?;
    running.serial.wait_from(from, "; it holds volumes", START)?;
    stage.wait_page()?;
    let problems = running.power_cut().problems(&[VOLUMES_GONE, VOLUMES_GONE_TOO]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");

    // While the machine is off, its disk loses two bits: one where the server's first library begins,
    // one that nobody reads. The server cannot be loaded; both files are fetched again, and it starts.
    raw_disk::flip_block(&fast.disk, &library(&tree, "libz.so")?, 0)?;
    raw_disk::flip_block(&fast.disk, &library(&tree, "libcrypto.so")?, 300)?;
    let seen = stage.results(&contract)?.len();
    let running = stage.boot(&machine)?;
    let seen = repaired(&stage, &contract, &DAMAGED, seen)?;
    let mut saboteur = Saboteur::connect(&running)?;
    saboteur.order("forget", "forgot")?;
    ensure!(bad_objects(&mut saboteur)? == 0, "what nobody reads was not repaired");

    // While it runs, another one, in a file that it serves. What the kernel has in memory is good; when
    // it reads the disk again, it refuses, and the node hears of that from the disk.
    let whole = || -> Result<bool> {
        Ok(page(&format!("{}long.txt", stage.page_url()))?.is_some_and(|text| text == long))
    };
    ensure!(whole()?, "the file is not served");
    raw_disk::flip_block(&fast.disk, &tree.join("srv/long.txt"), 12)?;
    ensure!(whole()?, "the file is not served from memory");
    saboteur.order("forget", "forgot")?;
    ensure!(bad_objects(&mut saboteur)? == 1, "one file is not on the disk any more");
    ensure!(!whole()?, "a file that the disk does not have");
    repaired(&stage, &contract, &DAMAGED, seen)?;
    ensure!(whole()?, "the file is not back");

    // Then the disk with the node's own state goes: nothing can be started or noted any more, and the
    // node says so and stays.
    let from = running.serial.lines().len();
    running.pull(&fast)?;
    running.serial.wait_from(from, "disk nvme0n1 was removed", START)?;
    let console = running.power_button(START)?;
    let problems = console.problems(&[STATE_GONE, STATE_GONE_TOO]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    // The next boot finds everything, but for the beginning of the metadata image.
    raw_disk::flip_images(&fast.disk)?;
    let seen = stage.results(&contract)?.len();
    let running = stage.boot(&machine)?;
    repaired(&stage, &contract, &NO_IMAGE, seen)?;
    let results = stage.results(&contract)?;
    ensure!(results.iter().all(|one| one["state"] != "wiped"), "data is gone: {results:?}");
    let problems = running.power_button(START)?.problems(&[STATE_GONE]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    Ok(())
}

/// Waits until the node has signed, after the first `seen` results, that the container cannot run,
/// and then that it does; and for its page. Gives the number of results then.
fn repaired(stage: &Stage, contract: &str, codes: &[&str], seen: usize) -> Result<usize> {
    let seen = wait::until(&format!("a result of {codes:?}, then running"), START, || {
        let results = stage.results(contract)?;
        let next = |codes: &[&str], from: usize| {
            let mut rest = results.iter().enumerate().skip(from);
            let found = rest.find(|(_, one)| codes.iter().any(|code| one["code"] == *code));
            found.map(|(number, _)| number + 1)
        };
        Ok(next(codes, seen).and_then(|refused| next(&["running"], refused)))
    })?;
    stage.wait_page()?;
    Ok(seen)
}

/// How many objects of the store cannot be read.
fn bad_objects(saboteur: &mut Saboteur) -> Result<u32> {
    let said = saboteur.order("check", "checked")?;
    let words: Vec<&str> = said.split(' ').collect();
    let ["checked", all, "bad", bad] = words[..] else { bail!("the saboteur said {said}") };
    ensure!(all.parse::<u32>()? > 4, "the store has few objects: {said}");
    Ok(bad.parse()?)
}

/// A library of the server, as it was published.
fn library(tree: &Path, name: &str) -> Result<PathBuf> {
    let mut directories = vec![tree.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if entry.file_name().to_string_lossy().starts_with(name) {
                return Ok(entry.path());
            }
        }
    }
    bail!("the server has no library {name}")
}

/// Whether the page of the contract that needs no more is there.
fn served(stage: &Stage) -> Result<bool> {
    Ok(page(&stage.page_url())?.is_some_and(|text| text.contains(content::PAGE)))
}

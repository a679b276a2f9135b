//! `3bot contract carry`: what it writes is what a node judges as it would judge the registry's, and a second
//! time it goes on where it was.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{FakeNode, NETWORK, World, bot, capacity, decide, grant, now, propose, source};
use contract::{Bundle, ContractId, Trust, Verdict, decision::Decision, verdict};
use registryd::{db, transparency};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use threebot::{content, stakeholder::Matter};
use tlog::{Checkpoint, PolicyFile, Proof};

const ORIGIN: &str = "registry.example/test";

/// Every file below a folder, with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// What the node says of the bundle that was carried to it.
fn judge(world: &World, folder: &Path, node: &FakeNode, contract: &ContractId) -> Verdict {
    let bundle = Bundle::read(&fs::read(folder.join(carry::bundle(&node.id(), contract))).unwrap());
    let trust = Trust {
        network: NETWORK.into(),
        farm: world.actor("farmer").id(),
        node: node.id(),
        free: capacity(),
        past: contract::Past::default(),
    };
    verdict(&bundle.unwrap(), &trust, now())
}

async fn carried(world: &World, folder: &Path, more: &[&str]) -> (i32, Value, String) {
    let words = ["contract", "carry", more[0], "--to", folder.to_str().unwrap()];
    bot(world, &world.url(), &[&words, &more[1..]].concat()).await
}

#[tokio::test]
async fn what_is_carried_is_judged_like_what_a_registry_says() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("registry");
    fs::create_dir(&data).unwrap();
    let key = transparency::begin(&db::open(&data).unwrap(), &data, ORIGIN).unwrap();
    let world = World::at(home).await;
    let node = world.farm_with_node().await;
    let dir = world.flist();
    content::push_directory(&world.grid, &dir).await.unwrap();
    let pool = grant(&world, &node).await;
    let contract = propose(&world, &source(&pool, &node.id(), &dir, ""), None).await;
    let id = contract.to_string();
    let folder = world.home.path().join("stick");
    let (code, _, said) = carried(&world, &folder, &[&id]).await;
    assert!(code == 1 && said.contains("mount the stick first"), "{said}");
    fs::create_dir(&folder).unwrap();

    for name in ["it", "legal"] {
        decide(&world, name, contract, Matter::Newest, Decision::Approve).await;
    }
    let (code, answer, said) = carried(&world, &folder, &[&id, "--without-files"]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!((&answer["in_force"], &answer["flists"]), (&Value::Null, &serde_json::json!([])));
    assert!(!folder.join(carry::content("flists")).exists());
    let Verdict::Refuse(refusal) = judge(&world, &folder, &node, &contract) else {
        panic!("one approval is missing")
    };
    assert_eq!(refusal.code, verdict::Code::QuorumMissing);

    decide(&world, "budget", contract, Matter::Newest, Decision::Approve).await;
    let (code, answer, said) = carried(&world, &folder, &[&id]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(answer["in_force"], 1);
    assert_eq!(answer["nodes"], serde_json::json!([node.id()]));
    assert_eq!((&answer["proofs"], &answer["unproven"]), (&4.into(), &0.into()), "with the header");
    assert_eq!(answer["missing"], serde_json::json!([]));
    assert!(matches!(judge(&world, &folder, &node, &contract), Verdict::Run(_)));
    // The flist is there as it was published, and so is all that proves it.
    for (path, bytes) in files(&dir) {
        let name = path.strip_prefix(&dir).unwrap().to_str().unwrap();
        assert_eq!(fs::read(folder.join(carry::content(name))).unwrap(), bytes, "{name}");
    }
    let policy = PolicyFile::read(format!("log {key}\nquorum none\n").as_bytes()).unwrap().policy;
    let newest = fs::read(folder.join(carry::checkpoint())).unwrap();
    let newest = policy.open(&newest).unwrap().checkpoint;
    proven(&folder, &newest);

    // Nothing is new, and nothing is written.
    let before = files(&folder);
    let (_, answer, _) = carried(&world, &folder, &[&id]).await;
    assert_eq!(answer["bytes"], 0);
    assert_eq!(files(&folder), before);
    // What was half written, or spoiled, is written again.
    let pack = before.keys().find(|path| path.to_str().unwrap().contains("/packs/")).unwrap();
    let mut spoiled = before[pack].clone();
    spoiled[0] ^= 1;
    fs::write(pack, spoiled).unwrap();
    let half = folder.join(carry::bundle(&node.id(), &contract));
    fs::write(&half, &before[&half][..100]).unwrap();
    let (code, answer, said) = carried(&world, &folder, &[&id]).await;
    assert_eq!(code, 0, "{said}");
    assert!(answer["bytes"] != 0);
    assert_eq!(files(&folder), before);

    // The log has grown: what was proven before is proven again, under one checkpoint.
    world.grid.register(&world.actor("stranger").own).await.unwrap();
    let (code, _, said) = carried(&world, &folder, &[&id]).await;
    assert_eq!(code, 0, "{said}");
    let grown = fs::read(folder.join(carry::checkpoint())).unwrap();
    let grown = policy.open(&grown).unwrap().checkpoint;
    assert!(grown.size > newest.size);
    proven(&folder, &grown);

    // A folder of another log is left alone.
    let other = fs::read_to_string(folder.join(carry::checkpoint())).unwrap();
    let other = other.replacen(ORIGIN, "registry.example/other", 1);
    fs::write(folder.join(carry::checkpoint()), other).unwrap();
    let (code, _, said) = carried(&world, &folder, &[&id]).await;
    assert!(code == 1 && said.contains("use another folder"), "{said}");
}

/// Every proof of the folder is under this checkpoint.
fn proven(folder: &Path, newest: &Checkpoint) {
    let mut count = 0;
    for (path, bytes) in files(&folder.join(carry::proofs())) {
        let id = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        assert!(Proof::read(&bytes).unwrap().holds_statement(&id, newest).is_ok());
        count += 1;
    }
    assert_eq!(count, 4);
}

#[tokio::test]
async fn a_registry_without_a_log_and_one_without_the_files_are_told() {
    let world = World::new().await;
    let node = world.farm_with_node().await;
    let dir = world.flist();
    let pool = grant(&world, &node).await;
    let contract = propose(&world, &source(&pool, &node.id(), &dir, ""), None).await;
    let id = contract.to_string();
    let folder = world.home.path().join("stick");
    fs::create_dir(&folder).unwrap();
    let (code, _, said) = carried(&world, &folder, &[&id]).await;
    assert!(code == 1 && said.contains("content_missing"), "{said}");
    assert!(!folder.join(carry::bundle(&node.id(), &contract)).exists(), "files come first");
    let from = dir.to_str().unwrap();
    let (code, answer, said) = carried(&world, &folder, &[&id, "--content", from]).await;
    assert_eq!((code, &answer["proofs"]), (0, &Value::Null), "{said}");
    assert!(folder.join(carry::bundle(&node.id(), &contract)).exists());
    assert!(!folder.join(carry::checkpoint()).exists());
}

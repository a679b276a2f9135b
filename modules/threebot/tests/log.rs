//! `3bot log verify` and `log checkpoint`: what they believe, and what they do not, with and without a registry.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{World, bot};
use registryd::{db, transparency};
use serde_json::Value;
use std::fs;

const ORIGIN: &str = "registry.example/test";

#[tokio::test]
async fn a_statement_is_shown_to_be_in_the_log_without_believing_or_asking_anybody() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("registry");
    fs::create_dir(&data).unwrap();
    let key = transparency::begin(&db::open(&data).unwrap(), &data, ORIGIN).unwrap();
    let world = World::at(home).await;
    let path = |name: &str| world.home.path().join(name).to_str().unwrap().to_owned();
    let url = world.url();
    let mut ids = Vec::new();
    for name in ["owner", "it"] {
        let (code, _, said) = bot(&world, &url, &["key", "register", name]).await;
        assert_eq!(code, 0, "{said}");
        ids.push(world.actor(name).id().to_string());
    }
    let policy = path("grid.policy");
    fs::write(&policy, format!("log {key}\nquorum none\n")).unwrap();
    let proof = path("it.tlog-proof");
    let verify = ["log", "verify", &ids[1], "--policy", &policy];
    let (code, online, said) =
        bot(&world, &url, &[&verify[..], &["--save", &proof]].concat()).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!((&online["kind"], &online["index"]), (&"identity".into(), &1.into()));
    assert_eq!((&online["log"], &online["size"]), (&ORIGIN.into(), &2.into()));
    assert_eq!((&online["quorum"], &online["seen"]), (&0.into(), &Value::Null));

    let newest = ["log", "checkpoint", "--policy", &policy];
    let (code, checkpoint, said) = bot(&world, &url, &newest).await;
    assert_eq!((code, &checkpoint["log"]), (0, &ORIGIN.into()), "{said}");
    assert_eq!((&checkpoint["size"], &checkpoint["seen"]), (&2.into(), &Value::Null));
    let root = checkpoint["root"].as_str().unwrap();
    let options = format!("zos.log={key} zos.checkpoint=2+{root}");
    assert_eq!(checkpoint["options"], options.as_str());

    let nobody = "http://127.0.0.1:1";
    let file = path("it.json");
    let statement = world.grid.client.statement(&ids[1].parse().unwrap()).await.unwrap();
    fs::write(&file, serde_json::to_vec(&statement).unwrap()).unwrap();
    for statement in [ids[1].as_str(), &file] {
        let words = ["log", "verify", statement, "--policy", &policy, "--proof", &proof];
        let (code, offline, said) = bot(&world, nobody, &words).await;
        assert_eq!((code, &offline), (0, &online), "{said}");
    }

    let good = fs::read_to_string(&proof).unwrap();
    let spoiled = path("spoiled.tlog-proof");
    fs::write(&spoiled, good.replace("index 1\n", "index 0\n")).unwrap();
    let half = path("half.tlog-proof");
    fs::write(&half, &good[..good.len() / 2]).unwrap();
    let witnessed = path("witnessed.policy");
    let witness = "witness w remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";
    fs::write(&witnessed, format!("log {key}\n{witness}\nquorum w\n")).unwrap();
    let other = path("other.policy");
    fs::write(&other, "log sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8\n")
        .unwrap();
    for (policy, code, reason) in [
        (&witnessed, 4, "0 known witnesses have cosigned"),
        (&other, 1, "no line of the policy says `quorum`"),
    ] {
        let (found, answer, said) =
            bot(&world, &url, &["log", "checkpoint", "--policy", policy]).await;
        assert!(found == code && said.contains(reason), "{found} {said}");
        assert_eq!(answer["options"], Value::Null);
    }
    let missing = path("missing");
    for (statement, policy, proof, code, reason) in [
        (ids[0].as_str(), &policy, &proof, 4, "is about the statement"),
        (&ids[1], &policy, &spoiled, 4, "is not shown to be at 0 of the 2 entries"),
        (&ids[1], &policy, &half, 1, "reading the proof"),
        (&ids[1], &witnessed, &proof, 4, "0 known witnesses have cosigned"),
        (&ids[1], &other, &proof, 1, "no line of the policy says `quorum`"),
        (&ids[1], &missing, &proof, 1, "missing"),
        (&missing, &policy, &proof, 64, "no id of a statement, and no file"),
        (&policy, &policy, &proof, 1, "reading the statement in"),
    ] {
        let words = ["log", "verify", statement, "--policy", policy, "--proof", proof];
        let (found, answer, said) = bot(&world, nobody, &words).await;
        assert!(found == code && said.contains(reason), "{words:?}: {found} {said}");
        assert_eq!(answer["statement"], Value::Null, "nothing is said to be shown");
    }
    let (code, _, said) = bot(&world, nobody, &verify).await;
    assert!(code == 1 && said.contains("127.0.0.1:1"), "{said}");
    let unknown = ["log", "verify", &"0".repeat(64), "--policy", &policy];
    let (code, _, said) = bot(&world, &url, &unknown).await;
    assert!(code == 1 && said.contains("not known"), "{said}");
}

//! `3bot flist sign`, and what comes of a contract that demands a publisher.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{World, decide, grant, now, propose, source};
use contract::{ContractId, Release, Timestamp, decision::Decision};
use serde_json::Value;
use std::path::Path;
use threebot::{
    content, customer,
    plan::world::Severity,
    source::{Language, parse},
    stakeholder::Matter,
};

async fn bot(world: &World, words: &[&str]) -> (i32, Value, String) {
    common::bot(world, &world.url(), words).await
}

async fn done(world: &World, words: &[&str]) -> Value {
    let (code, answer, stderr) = bot(world, words).await;
    assert_eq!(code, 0, "{words:?}: {stderr}");
    answer
}

#[tokio::test]
async fn a_publisher_signs_and_everybody_sees_it() {
    let world = World::new().await;
    let dir = world.flist();
    let dir = dir.to_str().unwrap();
    assert_eq!(done(&world, &["flist", "verify", dir]).await["releases"], serde_json::json!([]));
    let sign = |revision: &'static str, until: &'static str| {
        let words = ["flist", "sign", dir, "--as", "owner", "--name", "shop", "--revision"];
        [&words[..], &[revision, "--not-after", until]].concat()
    };
    let signed = done(&world, &sign("3", "30d")).await;
    assert_eq!((&signed["name"], &signed["revision"]), (&Value::from("shop"), &Value::from(3)));
    for command in ["inspect", "verify"] {
        let shown = done(&world, &["flist", command, dir]).await;
        assert_eq!(shown["releases"][0], signed, "{command}");
    }
    // It never says less than before.
    for words in [sign("2", "90d"), sign("3", "29d")] {
        let (code, _, stderr) = bot(&world, &words).await;
        assert_eq!(code, 1);
        assert!(stderr.contains("revision 3 is signed already"), "{stderr}");
    }
    assert_eq!(bot(&world, &sign("3", "2001-01-01T00:00:00Z")).await.0, 64, "that is over");
    done(&world, &sign("3", "31d")).await;
    done(&world, &["flist", "push", dir]).await;
    let flist = signed["flist"].as_str().unwrap().to_owned();
    let name = format!("releases/{flist}/{}", signed["publisher"].as_str().unwrap());
    let pushed = world.home.path().join("registry/content").join(&name);
    let here = std::fs::read(Path::new(dir).join(&name)).unwrap();
    assert_eq!(std::fs::read(pushed).unwrap(), here);

    // What does not verify is not intact.
    let flist = signed["flist"].as_str().unwrap();
    let publisher = signed["publisher"].as_str().unwrap();
    let record = Path::new(dir).join("releases").join(flist).join(publisher);
    let good = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, good.replace("\"sig\":\"", "\"sig\":\"A")).unwrap();
    let (code, _, stderr) = bot(&world, &["flist", "verify", dir]).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("is not signed by the publisher"), "{stderr}");
    assert_eq!(bot(&world, &["flist", "push", dir]).await.0, 1);
}

#[tokio::test]
async fn a_contract_demands_what_is_there_and_says_so() {
    let world = World::new().await;
    let node = world.farm_with_node().await;
    let pool = grant(&world, &node).await;
    let dir = world.flist();
    let sign = ["flist", "sign", dir.to_str().unwrap(), "--as", "owner", "--name", "shop"];
    let signed = done(&world, &[&sign[..], &["--revision", "3"]].concat()).await;
    let key = signed["publisher"].as_str().unwrap();
    let file = world.home.path().join("shop.toml");
    let good = source(&pool, &node.id(), &dir, "");
    let place = format!("{{ dir = \"{}\" }}", dir.display());
    assert!(good.contains(&place), "{good}");
    let plan = async |demand: &str| {
        let demanding = place.replace(" }", &format!(", publisher = {demand} }}"));
        let text = good.replace(&place, &demanding);
        std::fs::write(&file, text).unwrap();
        bot(&world, &["contract", "plan", file.to_str().unwrap(), "--as", "owner"]).await
    };
    for demand in [format!("{{ key = \"{key}\", revision = 3 }}"), format!("{{ key = \"{key}\" }}")]
    {
        let (code, _, stderr) = plan(&demand).await;
        assert_eq!(code, 0, "{stderr}");
    }
    let other = contract::SigningKey::from_seed(&[9; 32]).public();
    for (demand, told) in [
        (format!("{{ key = \"{key}\", revision = 4 }}"), "publisher_revision"),
        (format!("{{ key = \"{other}\", revision = 3 }}"), "publisher_unsigned"),
        (format!("{{ key = \"01{}\" }}", "0".repeat(62)), "the key is weak"),
    ] {
        let (code, _, stderr) = plan(&demand).await;
        assert_eq!(code, 1, "{demand}");
        assert!(stderr.contains(told), "{stderr}");
    }
}

/// Nobody could update what ran once the time to begin with its flist was over.
#[tokio::test]
async fn what_was_begun_can_be_updated_after_the_end_of_its_release() {
    let world = World::new().await;
    let node = world.farm_with_node().await;
    let pool = grant(&world, &node).await;
    let dir = world.flist();
    let owner = world.actor("owner");
    let key = &owner.key.secret;
    let end = now().plus(3600);
    let release = Release {
        flist: content::only_flist(&dir).unwrap(),
        publisher: key.public(),
        name: "shop".into(),
        revision: 3,
        not_after: Some(end),
    };
    content::sign(&dir, &release, key).unwrap();
    content::push_directory(&world.grid, &dir).await.unwrap();
    let place = format!("{{ dir = \"{}\" }}", dir.display());
    let demanding = |revision: u64| {
        let demand =
            format!(", publisher = {{ key = \"{}\", revision = {revision} }} }}", key.public());
        source(&pool, &node.id(), &dir, "").replace(&place, &place.replace(" }", &demand))
    };
    let text = demanding(2);
    let contract = propose(&world, &text, None).await;
    for name in ["it", "legal", "budget"] {
        decide(&world, name, contract, Matter::Newest, Decision::Approve).await;
    }
    let people = world.people();
    let plan = async |text: &str, update: Option<ContractId>, now: Timestamp| {
        let request = customer::Request {
            source: &parse(text, Language::Toml).unwrap(),
            base: Path::new("/"),
            people: &people,
            signer: owner.id(),
            now,
            content: &[],
            update,
        };
        let planned = customer::plan(&world.grid, &request).await;
        planned.map_err(|error| threebot::error::chain(&error))
    };
    let update = Some(contract);
    assert_eq!(plan(&text, update, end).await.unwrap().findings, []);
    let over = end.plus(1);
    let planned = plan(&text, update, over).await.unwrap();
    let [finding] = &planned.findings[..] else { panic!("{:?}", planned.findings) };
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.text.contains("nodes that have begun with it go on"), "{}", finding.text);
    // A new contract would begin, and so would a demand that was never met.
    for (text, update) in [(&text, None), (&demanding(3), update)] {
        let refused = plan(text, update, over).await.unwrap_err();
        assert!(refused.contains("publisher_expired"), "{refused}");
    }
}

//! The command line as scripts use it: words in, JSON and exit codes out.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{FakeNode, World, source};
use contract::{
    FlistId, Timestamp,
    report::State,
    scrub::{Outcome, Scrubbed},
};
use serde_json::Value;
use std::process::{Command, Output, Stdio};

/// Runs `3bot` beside the registry, which lives in this process.
async fn bot(world: &World, words: &[&str]) -> (i32, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_3bot"));
    command.args(["--json", "--network", common::NETWORK, "--registry", &world.url()]);
    command.arg("--home").arg(world.home.path()).args(words);
    command.env_clear().stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output());
    let Output { status, stdout, stderr } = run.await.unwrap().unwrap();
    let answer = String::from_utf8(stdout).unwrap();
    let answer = answer.lines().last().map_or(Value::Null, |line| {
        serde_json::from_str(line).unwrap_or(Value::String(line.to_owned()))
    });
    (status.code().unwrap(), answer, String::from_utf8(stderr).unwrap())
}

/// The same for a command that must succeed.
async fn done(world: &World, words: &[&str]) -> Value {
    let (code, answer, stderr) = bot(world, words).await;
    assert_eq!(code, 0, "{words:?}: {stderr}");
    answer
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string")).to_owned()
}

/// From an empty grid to a pool, by commands alone; the node is ours.
async fn pool_by_commands(world: &World) -> (FakeNode, String) {
    done(world, &["farm", "create", "Cellar", "--location", "Ghent", "--as", "farmer"]).await;
    let token = done(world, &["farm", "token", "--expires", "1h", "--as", "farmer"]).await;
    let options = text(&token["boot_options"]);
    let boot = node_api_words(&options);
    assert_eq!(boot["zos.network"], common::NETWORK);
    assert_eq!(boot["zos.registry"], world.url());
    let node = FakeNode::new(7, &world.actor("farmer").own.signer);
    node.register(&world.grid).await;
    node.heartbeat(&world.grid, 1).await;
    let id = node.id().to_string();
    let shown = done(world, &["node", "show", &id]).await;
    assert_eq!(shown["adopted"], false);
    done(world, &["farm", "approve", &id, "--as", "farmer"]).await;
    let shown = done(world, &["node", "show", &id]).await;
    assert_eq!(shown["adopted"], true);
    assert_eq!(shown["statement"]["hardware"]["disks"][0]["reason"], "it was blank");
    let grant = ["pool", "grant", "--to", "owner", "--node", &id, "--as", "farmer"];
    let amounts = ["--cu-hours", "100", "--su-hours", "100", "--expires", "10d"];
    let pool = done(world, &[&grant[..], &amounts[..]].concat()).await;
    let pool = text(&pool["pool"]);
    assert_eq!(done(world, &["pool", "show", &pool]).await["signed"], true);
    (node, pool)
}

fn node_api_words(options: &str) -> std::collections::BTreeMap<&str, &str> {
    options.split(' ').filter_map(|word| word.split_once('=')).collect()
}

#[tokio::test]
async fn a_contract_is_written_approved_and_watched_by_commands() {
    let world = World::new().await;
    let (node, pool) = pool_by_commands(&world).await;
    let dir = world.flist();
    let dir = dir.to_str().unwrap();
    assert_eq!(done(&world, &["flist", "push", dir]).await["sent"], 2);
    assert_eq!(done(&world, &["flist", "push", dir]).await["skipped"], 2);
    let flist = text(&done(&world, &["flist", "verify", dir]).await["flist"]);
    let remote = done(&world, &["flist", "inspect", &flist]).await;
    assert_eq!(remote["entrypoint"][0], "/server");

    let file = world.home.path().join("shop.toml");
    std::fs::write(&file, source(&pool.parse().unwrap(), &node.id(), dir.as_ref(), "")).unwrap();
    let (file, plan) = (file.to_str().unwrap(), world.home.path().join("shop.plan"));
    let plan = plan.to_str().unwrap();
    assert_eq!(done(&world, &["contract", "validate", file]).await["valid"], true);
    let made = done(&world, &["contract", "plan", file, "--out", plan, "--as", "owner"]).await;
    let (id, header) = (text(&made["contract"]), text(&made["header"]));
    let (code, _, stderr) = bot(&world, &["contract", "push", plan]).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("not signed by its owner"), "{stderr}");
    done(&world, &["contract", "sign", plan, "--as", "owner"]).await;
    assert_eq!(done(&world, &["contract", "push", plan]).await["new"], true);
    assert_eq!(done(&world, &["contract", "push", plan]).await["new"], false);
    let results = done(&world, &["contract", "results", &id]).await;
    assert_eq!(results["results"], serde_json::json!([]), "nothing is reported yet");

    let (code, status, _) = bot(&world, &["contract", "status", &id]).await;
    assert_eq!((code, &status["state"]), (2, &Value::from("proposed")));
    let waiting = done(&world, &["contract", "list", "--waiting-for", "legal"]).await;
    assert_eq!(waiting[0]["id"], id.as_str());
    let approve = ["contract", "approve", &id, "--yes"];
    let (code, _, stderr) = bot(&world, &[&approve[..], &["--as", "it"]].concat()).await;
    assert_eq!(code, 64, "a script has to say which statement it means");
    assert!(stderr.contains("--hash"), "{stderr}");
    let wrong = [&approve[..], &["--as", "it", "--hash", "00000000"]].concat();
    assert_eq!(bot(&world, &wrong).await.0, 4);
    for name in ["it", "legal", "budget"] {
        done(&world, &[&approve[..], &["--as", name, "--hash", &header[..8]]].concat()).await;
    }
    let watch = ["contract", "watch", &id, "--until"];
    done(&world, &[&watch[..], &["agreed"]].concat()).await;
    let short = [&watch[..], &["running", "--timeout", "1s"]].concat();
    assert_eq!(bot(&world, &short).await.0, 3, "nothing runs yet");

    let contract = id.parse().unwrap();
    node.report(&world.grid, contract, 1, Some("data"), State::Running).await;
    node.report(&world.grid, contract, 1, Some("web"), State::Running).await;
    done(&world, &[&watch[..], &["running"]].concat()).await;
    let results = done(&world, &["contract", "results", &id]).await;
    assert_eq!(results["results"][1]["workload"], "web");
    assert_eq!(results["results"][1]["chained"], "yes");

    let cancel = ["contract", "cancel", &id, "--reason", "moved", "--wipe", "--as", "owner"];
    let order = text(&done(&world, &cancel).await["order"]);
    for name in ["it", "legal", "budget"] {
        let words = ["--cancel", "--as", name, "--hash", &order[..8]];
        done(&world, &[&approve[..], &words[..]].concat()).await;
    }
    node.report(&world.grid, contract, 1, None, State::Wiped).await;
    done(&world, &[&watch[..], &["wiped"]].concat()).await;
    assert_eq!(bot(&world, &[&watch[..], &["running"]].concat()).await.0, 4, "it never will");
}

/// The commands that the registry's page shows to somebody, each after its first words.
async fn shown_commands(world: &World, name: &str) -> Vec<String> {
    let url = format!("{}/inbox?identity={}", world.url(), world.actor(name).id());
    let answer = registry_api::client::http().unwrap().get(url).send().await.unwrap();
    let html = answer.text().await.unwrap();
    let html = html.replace("<span class=\"option\">", "").replace("</span>", "");
    let start = "<code>3bot contract ";
    let rest = html.match_indices(start).map(|(at, _)| &html[at + "<code>".len()..]);
    rest.map(|rest| rest.split("</code>").next().unwrap().to_owned()).collect()
}

/// Runs a line as somebody would who has copied it into a shell.
async fn in_a_shell(world: &World, line: &str, name: &str) -> (i32, String) {
    let line = line.replacen("3bot", "\"$0\"", 1);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &line, env!("CARGO_BIN_EXE_3bot")]).env_clear().stdin(Stdio::null());
    command.env("ZOS_HOME", world.home.path()).env("ZOS_KEY", name);
    let run = tokio::task::spawn_blocking(move || command.output());
    let Output { status, stderr, .. } = run.await.unwrap().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn the_commands_of_a_page_decide_on_what_it_showed() {
    let world = World::new().await;
    let (node, pool) = pool_by_commands(&world).await;
    let dir = world.flist();
    done(&world, &["flist", "push", dir.to_str().unwrap()]).await;
    let file = world.home.path().join("shop.toml");
    std::fs::write(&file, source(&pool.parse().unwrap(), &node.id(), &dir, "")).unwrap();
    let (file, plan) = (file.to_str().unwrap(), world.home.path().join("shop.plan"));
    let plan = plan.to_str().unwrap();
    let made = done(&world, &["contract", "plan", file, "--out", plan, "--as", "owner"]).await;
    let (id, header) = (text(&made["contract"]), text(&made["header"]));
    done(&world, &["contract", "sign", plan, "--as", "owner"]).await;
    done(&world, &["contract", "push", plan]).await;

    let commands = shown_commands(&world, "it").await;
    let [approve, reject] = commands.as_slice() else { panic!("{commands:?}") };
    let (code, stderr) = in_a_shell(&world, reject, "it").await;
    assert_eq!(code, 64, "it waits for a reason: {stderr}");
    let reject = &format!("{reject} 'too dear'");
    assert!(approve.contains(&id) && approve.contains(&format!("--hash {header}")), "{approve}");
    // It would ask; a script says yes. Another statement than the one shown is not signed.
    let yes = format!("{approve} --yes");
    let other = "00".repeat(32);
    for line in [&yes, reject] {
        let (code, stderr) = in_a_shell(&world, &line.replace(&header, &other), "it").await;
        assert_eq!(code, 4, "{line}: {stderr}");
    }
    let withdraw = ["contract", "withdraw", &id, "--as", "it", "--hash", &other];
    assert_eq!(bot(&world, &withdraw).await.0, 4);
    assert_eq!(shown_commands(&world, "it").await, commands, "nothing was decided");
    let (code, stderr) = in_a_shell(&world, &yes, "it").await;
    assert_eq!(code, 0, "{stderr}");
    assert!(shown_commands(&world, "it").await.is_empty(), "it has decided");
    let commands = shown_commands(&world, "legal").await;
    let (code, stderr) = in_a_shell(&world, &format!("{} 'too dear'", commands[1]), "legal").await;
    assert_eq!(code, 0, "{stderr}");
    let (_, status, _) = bot(&world, &["contract", "status", &id]).await;
    assert_eq!(status["state"], "rejected");
}

#[tokio::test]
async fn refusals_and_mistakes_have_their_own_codes() {
    let world = World::new().await;
    let (node, pool) = pool_by_commands(&world).await;
    let dir = world.flist();
    let file = world.home.path().join("shop.toml");
    let path = file.to_str().unwrap();
    let plan = ["contract", "plan", path, "--as", "owner"];
    let good = source(&pool.parse().unwrap(), &node.id(), &dir, "");
    std::fs::write(&file, &good).unwrap();
    assert_eq!(done(&world, &plan).await["refused"], false);

    let out = world.home.path().join("never");
    std::fs::write(&file, good.replace("256 MiB", "256 GiB")).unwrap();
    let (code, answer, _) =
        bot(&world, &[&plan[..], &["--out", out.to_str().unwrap()]].concat()).await;
    assert_eq!((code, &answer["refused"]), (4, &Value::from(true)));
    assert!(!out.exists(), "a plan that cannot work is not written");

    std::fs::write(&file, good.replace("[volumes.data]", "[volumes.dta]")).unwrap();
    let (code, answer, _) = bot(&world, &plan).await;
    assert_eq!(code, 4);
    assert!(text(&answer["error"]).contains("no [volumes.data]"), "{answer}");

    std::fs::write(&file, good.replace("cpu", "cpus")).unwrap();
    let (code, answer, _) = bot(&world, &plan).await;
    assert_eq!(code, 1);
    assert!(text(&answer["error"]).contains("unknown field `cpus`"), "{answer}");

    assert_eq!(bot(&world, &["contract", "list"]).await.0, 0);
    assert_eq!(bot(&world, &["contract", "lst"]).await.0, 64);
    assert_eq!(bot(&world, &["key", "new", "../x"]).await.0, 64);
    assert_eq!(bot(&world, &["key", "register"]).await.0, 64, "several keys, none chosen");
    assert_eq!(bot(&world, &["key", "new", "owner"]).await.0, 1, "it is there already");
    assert_eq!(bot(&world, &["contract", "status", &"00".repeat(32)]).await.0, 1);
    let (code, _, stderr) = bot(&world, &["contract", "results", &"00".repeat(32)]).await;
    assert_eq!(code, 1, "there is no such contract");
    assert!(stderr.contains("looking for the contract"), "{stderr}");
    assert_eq!(bot(&world, &["--help"]).await.0, 0);
}

#[tokio::test]
async fn flists_are_compared_exported_and_built_again() {
    let world = World::new().await;
    let dir = world.flist();
    let at = |name: &str| world.home.path().join(name).to_str().unwrap().to_owned();
    let dir = dir.to_str().unwrap();
    let flist = text(&done(&world, &["flist", "verify", dir]).await["flist"]);

    let (layout, again) = (at("layout"), at("again"));
    let exported = done(&world, &["flist", "export", dir, &layout, "--to", "oci"]).await;
    assert_eq!(exported["flist"], flist.as_str());
    let built = done(&world, &["flist", "build", &layout, "--out", &again]).await;
    assert_eq!(built["flist"], flist.as_str());
    let (code, answer, _) = bot(&world, &["flist", "diff", dir, &again]).await;
    assert_eq!((code, &answer["same"]), (0, &Value::from(true)));

    let (tar, other) = (at("app.tar"), at("other"));
    done(&world, &["flist", "export", dir, &tar, "--to", "tar"]).await;
    done(&world, &["flist", "build", &tar, "--out", &other, "--env", "NEW=1"]).await;
    let (code, answer, _) = bot(&world, &["flist", "diff", dir, &other]).await;
    assert_eq!((code, &answer["changed"]), (5, &serde_json::json!([])));
    let run = answer["run"].as_array().unwrap();
    assert!(run.iter().any(|fact| fact["what"] == "env"), "{answer}");
    assert_eq!(bot(&world, &["flist", "export", dir, &tar, "--to", "tar"]).await.0, 1);

    // Of an earlier format, even an empty one says where its blocks are.
    let earlier = at("app.fl");
    std::fs::write(&earlier, "SQLite format 3\0").unwrap();
    let words = ["flist", "build", &earlier, "--out", &other];
    let (code, answer, _) = bot(&world, &words).await;
    assert_eq!(code, 1);
    assert!(text(&answer["error"]).contains("--blocks says where"), "{answer}");
    let (code, answer, _) = bot(&world, &[&words[..], &["--blocks", dir]].concat()).await;
    assert_eq!(code, 1);
    assert!(text(&answer["error"]).contains("has no table inode"), "{answer}");

    let root = at("root");
    done(&world, &["flist", "unpack", dir, &root]).await;
    assert_eq!(bot(&world, &["flist", "unpack", dir, &root]).await.0, 1, "it is not empty");
}

#[tokio::test]
async fn a_registry_of_another_network_is_not_taken_for_an_empty_one() {
    let world = World::new().await;
    assert_eq!(bot(&world, &["node", "list"]).await.0, 0);
    let (code, _, stderr) = bot(&world, &["node", "list", "--network", "other"]).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("and \"other\" is asked for"), "{stderr}");
}

#[tokio::test]
async fn a_contract_that_is_still_the_example_is_not_valid() {
    let world = World::new().await;
    let file = world.home.path().join("shop.toml");
    let file = file.to_str().unwrap();
    done(&world, &["contract", "init", file]).await;
    let (code, _, stderr) = bot(&world, &["contract", "validate", file]).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("still as in the example: pool, nodes, flists.shop"), "{stderr}");
}

#[tokio::test]
async fn manual_pages_and_completions_are_made() {
    let world = World::new().await;
    let dir = world.home.path().join("man");
    done(&world, &["man", dir.to_str().unwrap()]).await;
    for page in ["3bot.1", "3bot-contract-plan.1", "3bot-flist-push.1"] {
        assert!(dir.join(page).exists(), "{page}");
    }
    let (code, _, _) = bot(&world, &["completions", "bash"]).await;
    assert_eq!(code, 0);
}

/// What a node says when it has read seven files, of which one was bad.
fn read(issued: Timestamp, damaged: Vec<FlistId>) -> Outcome {
    Outcome::Done {
        begun: issued,
        ended: issued,
        files: 7,
        bytes: 8,
        bad: 1,
        damaged,
        repaired: vec![],
        left_out: None,
    }
}

#[tokio::test]
async fn a_farmer_orders_that_a_store_is_read_and_sees_what_came_of_it() {
    let world = World::new().await;
    let node = world.farm_with_node().await;
    let id = node.id().to_string();
    let words = ["node", "scrub", &id, "--as"];
    // A stranger's order is not even sent.
    assert_eq!(bot(&world, &[&words[..], &["owner"]].concat()).await.0, 4);
    let shown = done(&world, &["node", "show", &id]).await;
    assert_eq!(
        (&shown["scrub_unheard"], &shown["statement"]["scrub"]),
        (&Value::Null, &Value::Null)
    );
    let given = done(&world, &[&words[..], &["farmer"]].concat()).await;
    let shown = done(&world, &["node", "show", &id]).await;
    assert_eq!(shown["scrub_unheard"], given["order"]);
    let stderr = loop {
        let (code, answer, stderr) = bot(&world, &[&words[..], &["farmer"]].concat()).await;
        if code != 0 {
            assert_eq!(code, 1);
            break stderr;
        }
        assert_eq!(answer["order"], given["order"], "in the same second it is the same order");
    };
    assert!(stderr.contains("one in 3600 seconds"), "{stderr}");

    let (order, issued) =
        (text(&given["order"]).parse().unwrap(), text(&given["issued"]).parse().unwrap());
    let said = |outcome| Some(Scrubbed { order, issued, outcome });
    node.say(&world.grid, 2, said(Outcome::Heard { at: issued })).await;
    let shown = done(&world, &["node", "show", &id]).await;
    assert_eq!(shown["scrub_unheard"], Value::Null, "the node says so itself");
    assert_eq!(shown["statement"]["scrub"]["order"], given["order"]);
    node.say(&world.grid, 3, said(read(issued, vec![]))).await;
    let shown = done(&world, &["node", "show", &id]).await;
    assert_eq!(shown["statement"]["scrub"]["outcome"]["done"]["files"], 7);
}

#[tokio::test]
async fn whoever_waits_for_a_scrub_is_told_how_it_ended() {
    for (damaged, code) in [(vec![], 0), (vec![FlistId([1; 32])], 3)] {
        let world = World::new().await;
        let node = world.farm_with_node().await;
        let id = node.id();
        let words = id.to_string();
        let words = ["node", "scrub", &words, "--as", "farmer", "--wait", "--timeout", "10m"];
        let node_answers = async {
            // It hears of the order as a node does.
            let ordered = loop {
                let registry_api::Fetched::New { body, .. } =
                    world.grid.client.inbox(&id, None).await.unwrap()
                else {
                    panic!("nothing was known before")
                };
                if let Some(ordered) = body.scrub {
                    break ordered.order;
                }
                tokio::task::yield_now().await;
            };
            let order = contract::Signed::<contract::scrub::Scrub>::open(&ordered).unwrap();
            let issued = order.body.issued;
            let outcome = read(issued, damaged);
            node.say(&world.grid, 2, Some(Scrubbed { order: order.id, issued, outcome })).await;
        };
        let ((ended, answer, stderr), ()) = tokio::join!(bot(&world, &words), node_answers);
        assert_eq!(ended, code, "{stderr}");
        assert_eq!(answer["scrub"]["outcome"]["done"]["bad"], 1);
    }
}

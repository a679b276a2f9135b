//! The transparency log: what it serves, what it survives, and what it refuses to go along with.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{
    Registry, World, agree,
    database::{self, Backup},
    prepare, process, seal, world,
};
use contract::{Envelope, StatementId};
use registry_api::log::{self, Answer, Known};
use registryd::{sql::Argument, transparency};
use std::{fs, path::Path, process::Output};
use tlog::{Bundle, Checkpoint, Note, Policy, Proof, Record, Signer, Tile, policy::Seen, tree};

const ORIGIN: &str = "registry.example/test";

fn begin(data: &Path) -> Policy {
    let key = transparency::begin(&database::open(data), data, ORIGIN).unwrap();
    Policy::new(ORIGIN, vec![key.parse().unwrap()], vec![], 0).unwrap()
}

async fn get(registry: &Registry, path: &str) -> reqwest::Response {
    reqwest::get(format!("{}/{path}", registry.base)).await.unwrap()
}

async fn newest(registry: &Registry, policy: &Policy) -> Seen {
    let note = get(registry, "checkpoint").await.bytes().await.unwrap();
    policy.open(&note).unwrap()
}

/// Every entry of the log, by HTTP alone, checked against the checkpoint.
async fn entries(registry: &Registry, checkpoint: &Checkpoint) -> Vec<Record> {
    let (mut edge, mut records) = (tlog::Edge::default(), Vec::new());
    let tiles = tlog::tile::new_tiles(0, checkpoint.size);
    for bundle in tiles.into_iter().filter_map(Tile::bundle) {
        let content = get(registry, &bundle.to_string()).await.bytes().await.unwrap();
        for entry in bundle.read(&content).unwrap() {
            edge.push(tree::leaf(entry), |_, _| {});
            records.push(Record::read(entry).unwrap());
        }
    }
    assert_eq!((edge.size(), edge.root()), (checkpoint.size, checkpoint.root));
    records
}

fn of_size(checkpoint: &Checkpoint) -> Known {
    Known { size: checkpoint.size, pinned: None }
}

/// A proof from tiles that a client has fetched. `new` is the newest.
async fn consistent(registry: &Registry, old: &Checkpoint, new: &Checkpoint) -> bool {
    let Answer { shown, problem, .. } = log::ask(&registry.client, of_size(old), &[]).await;
    assert!(problem.is_none(), "{problem:?}");
    assert_eq!(shown[0].note.text(), new.to_string());
    new.extends(old, &shown[0].consistency)
}

#[tokio::test]
async fn every_acknowledged_statement_is_in_the_log_with_a_proof() {
    let data = tempfile::tempdir().unwrap();
    let policy = begin(data.path());
    let registry = Registry::start(data.path()).await;
    assert_eq!(newest(&registry, &policy).await.checkpoint.size, 0);
    let world = world();
    prepare(&world, &registry.client).await;
    let header = agree(&world, &registry.client).await;
    let seen = newest(&registry, &policy).await.checkpoint;
    let records = entries(&registry, &seen).await;
    assert_eq!(records.len(), world.keys.len() + 4 + 3, "identities, the grid, the contract");
    for (index, record) in records.iter().enumerate() {
        let text = get(&registry, &format!("v1/statements/{}/proof", record.statement)).await;
        let proof = Proof::read(&text.bytes().await.unwrap()).unwrap();
        assert_eq!(proof.index, index as u64);
        let (proven, _) = proof.check_statement(&record.statement, &policy).unwrap();
        assert_eq!(proven, *record);
        let stored = registry.client.statement(&record.statement).await.unwrap();
        assert_eq!(Record::of(&stored).unwrap(), *record);
    }
    let id = header.id().unwrap();
    assert_eq!(records.iter().filter(|record| record.statement == id).count(), 1);
    registry.client.push(&header).await.unwrap();
    assert_eq!(newest(&registry, &policy).await.checkpoint, seen, "a second time is no entry");
}

#[tokio::test]
async fn a_reader_gets_with_each_proof_how_the_log_came_there() {
    let data = tempfile::tempdir().unwrap();
    let policy = begin(data.path());
    let registry = Registry::start(data.path()).await;
    let world = world();
    prepare(&world, &registry.client).await;
    let mut known = newest(&registry, &policy).await.checkpoint;
    let header = agree(&world, &registry.client).await;
    let statements = [header.id().unwrap(), StatementId([9; 32]), StatementId(world.id("it").0)];
    let answer = log::ask(&registry.client, of_size(&known), &statements).await;
    let Answer { shown, asked, problem } = answer;
    assert_eq!(asked, 3);
    let problem = problem.unwrap().to_string();
    assert!(problem.contains("asking the log"), "the one that it does not have: {problem}");
    let mut proven = Vec::new();
    for one in &shown {
        let seen = policy.open(one.note.to_string().as_bytes()).unwrap();
        assert_eq!(one.from, known.size);
        assert!(seen.checkpoint.extends(&known, &one.consistency));
        known = seen.checkpoint;
        let Some((id, proof)) = &one.proof else { continue };
        proof.check_statement(id, &policy).unwrap();
        proven.push(*id);
    }
    assert_eq!(proven, [statements[0], statements[2]], "and the others all the same");
    // What it never has is not asked for a hundred times in a row.
    let strangers: Vec<_> = (0..20).map(|number| StatementId([number; 32])).collect();
    let Answer { shown, asked, .. } = log::ask(&registry.client, of_size(&known), &strangers).await;
    assert_eq!((shown.len(), asked), (1, 8));
    registry.server.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_served_can_be_cached_as_long_as_it_is_true() {
    let data = tempfile::tempdir().unwrap();
    begin(data.path());
    let registry = Registry::start(data.path()).await;
    let world = world();
    registry.client.push(&world.identity("owner")).await.unwrap();
    let header = |response: &reqwest::Response, name: &str| {
        response.headers()[name].to_str().unwrap().to_owned()
    };
    let checkpoint = get(&registry, "checkpoint").await;
    assert_eq!(header(&checkpoint, "content-type"), "text/plain; charset=utf-8");
    assert_eq!(header(&checkpoint, "cache-control"), "public, max-age=2");
    let tile = get(&registry, "tile/0/000.p/1").await;
    assert_eq!(header(&tile, "content-type"), "application/octet-stream");
    assert_eq!(header(&tile, "cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(tile.bytes().await.unwrap().len(), 32);
    for missing in [
        "tile/0/000",
        "tile/0/000.p/2",
        "tile/1/000.p/1",
        "tile/entries/001.p/1",
        "tile/0/0",
        "tile/..%2f..%2flog.key",
        "tile/x",
        "v1/statements/0000000000000000000000000000000000000000000000000000000000000000/proof",
    ] {
        assert_eq!(get(&registry, missing).await.status(), 404, "{missing}");
    }
}

#[tokio::test]
async fn a_registry_without_a_log_says_so_and_one_that_begins_late_logs_everything() {
    let data = tempfile::tempdir().unwrap();
    let world = world();
    let registry = Registry::start(data.path()).await;
    prepare(&world, &registry.client).await;
    for path in ["checkpoint", "tile/0/000.p/1"] {
        assert_eq!(get(&registry, path).await.status(), 404);
    }
    registry.server.stop().await.unwrap();
    let policy = begin(data.path());
    let again = transparency::begin(&database::open(data.path()), data.path(), ORIGIN).unwrap_err();
    assert!(again.to_string().contains("has begun already"));
    let registry = Registry::start(data.path()).await;
    agree(&world, &registry.client).await;
    let seen = newest(&registry, &policy).await.checkpoint;
    let records = entries(&registry, &seen).await;
    assert_eq!(records.len(), world.keys.len() + 4 + 3);
    assert_eq!(records[0].kind, contract::Kind::Identity, "in the order in which they counted");
}

/// Statements that count at once: results of the node, one after the other.
fn results(world: &World, numbers: std::ops::Range<u64>) -> Vec<Envelope> {
    let state = contract::report::State::Running;
    let before = |seq| (seq > 1).then_some(StatementId([1; 32]));
    numbers.map(|seq| seal(&world.report(seq, before(seq), state), &world.node_key)).collect()
}

fn program(data: &Path, words: &[&str]) -> Output {
    process::registryd(data).args(words).arg("--data").arg(data).output().unwrap()
}

#[tokio::test]
async fn a_log_of_many_tiles_goes_on_after_each_restart_and_is_whole() {
    let data = tempfile::tempdir().unwrap();
    let policy = begin(data.path());
    let world = world();
    let mut registry = Registry::start(data.path()).await;
    prepare(&world, &registry.client).await;
    agree(&world, &registry.client).await;
    let mut last = newest(&registry, &policy).await.checkpoint;
    let mut next = 1;
    for count in [3, 230, 256, 40, 1] {
        let batch = results(&world, next..next + count);
        next += count;
        let answer = registry.client.push_results(&batch).await.unwrap();
        assert_eq!(answer.refused.len(), 0, "{answer:?}");
        let seen = newest(&registry, &policy).await.checkpoint;
        assert_eq!(seen.size, last.size + count);
        assert!(consistent(&registry, &last, &seen).await);
        registry.server.stop().await.unwrap();
        registry = Registry::start(data.path()).await;
        assert_eq!(newest(&registry, &policy).await.checkpoint, seen);
        last = seen;
    }
    assert_eq!(entries(&registry, &last).await.len() as u64, last.size);
    assert!(!data.path().join("log/tile/0/000.p").exists(), "partial tiles go with time");
    assert!(data.path().join("log/tile/0/000").exists());
    registry.server.stop().await.unwrap();
    let checked = program(data.path(), &["fsck"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{checked:?}");
    assert!(said.contains(&format!("is whole, {} entries", last.size)), "{said}");
    assert!(program(data.path(), &["rebuild"]).status.success());
    let registry = Registry::start(data.path()).await;
    assert_eq!(newest(&registry, &policy).await.checkpoint, last);
}

#[tokio::test]
async fn fsck_finds_each_change_and_says_where() {
    let data = tempfile::tempdir().unwrap();
    begin(data.path());
    let registry = Registry::start(data.path()).await;
    let world = world();
    prepare(&world, &registry.client).await;
    let size = world.keys.len() + 4;
    registry.server.stop().await.unwrap();
    let finds = |what: &str, reason: &str| {
        let checked = program(data.path(), &["fsck"]);
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(!checked.status.success() && said.contains(reason), "{what}: {said}");
    };
    let path = |name: &str| data.path().join("log").join(name);
    let bundle = Bundle { index: 0, width: u16::try_from(size).unwrap() };
    for (what, file, reason) in [
        ("a hash", bundle.tile().to_string(), "does not follow from the entries"),
        ("an entry", bundle.to_string(), "another record"),
    ] {
        let before = fs::read(path(&file)).unwrap();
        let mut changed = before.clone();
        *changed.last_mut().unwrap() ^= 1;
        fs::write(path(&file), &changed).unwrap();
        finds(what, reason);
        fs::remove_file(path(&file)).unwrap();
        finds("nothing", "reading");
        fs::write(path(&file), before).unwrap();
    }
    assert!(program(data.path(), &["fsck"]).status.success(), "as it was");
    let change = |sql: &str, value: &dyn Argument| {
        let changed = database::tamper(data.path()).execute(sql, &[value]).unwrap();
        assert_eq!(changed, 1, "{sql}");
    };
    let select = "SELECT payload FROM statements WHERE place = ?1";
    let payload: Vec<u8> =
        database::tamper(data.path()).query_one(select, &[&3_i64], |row| row.get(0)).unwrap();
    let longer = [&payload[..], b" "].concat();
    let update = "UPDATE statements SET payload = ?1 WHERE place = 3";
    change(update, &longer);
    finds(update, "entry 2: the payload of the statement has been changed");
    change(update, &payload);

    change("UPDATE statements SET place = ?1 WHERE place = 2", &1000_i64);
    finds("place", "entry 1: no statement");
    change("UPDATE statements SET place = ?1 WHERE place = 1000", &2_i64);

    let update = "UPDATE log SET size = size + ?1";
    change(update, &-1_i64);
    finds(update, "another root");
    change(update, &1_i64);
    assert!(program(data.path(), &["fsck"]).status.success(), "as it was");

    let update = "UPDATE log SET root = ?1";
    change(update, &[0; 32]);
    finds(update, "another root than the one that was signed");
}

#[tokio::test]
async fn a_database_from_a_backup_does_not_take_the_log_back() {
    let data = tempfile::tempdir().unwrap();
    let policy = begin(data.path());
    let world = world();
    let registry = Registry::start(data.path()).await;
    registry.client.push(&world.identity("owner")).await.unwrap();
    let before = newest(&registry, &policy).await.checkpoint;
    registry.server.stop().await.unwrap();
    let backup = Backup::of(data.path());
    let registry = Registry::start(data.path()).await;
    registry.client.push(&world.identity("it")).await.unwrap();
    assert_eq!(newest(&registry, &policy).await.checkpoint.size, before.size + 1);
    registry.server.stop().await.unwrap();
    backup.restore();
    let started = program(data.path(), &["--listen", "127.0.0.1:0"]);
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success(), "it signs nothing");
    assert!(said.contains("it is older than the log, which never goes back"), "{said}");
}

/// One that was put back under a registry that runs.
#[tokio::test]
async fn nothing_is_acknowledged_over_a_database_that_is_older_than_the_log() {
    let data = tempfile::tempdir().unwrap();
    let policy = begin(data.path());
    let registry = Registry::start(data.path()).await;
    let world = world();
    for name in ["owner", "it"] {
        registry.client.push(&world.identity(name)).await.unwrap();
    }
    let known = newest(&registry, &policy).await.checkpoint;
    let beside = database::tamper(data.path());
    let set = |size: i64| beside.execute("UPDATE log SET size = ?1", &[&size]).unwrap();
    set(1);
    assert!(registry.client.push(&world.identity("it")).await.is_err());
    assert_eq!(newest(&registry, &policy).await.checkpoint, known);
    set(2);
    registry.client.push(&world.identity("it")).await.unwrap();
    registry.client.push(&world.identity("legal")).await.unwrap();
    assert!(newest(&registry, &policy).await.checkpoint.size > known.size);
    // A database that knows nothing of the log.
    registry.server.stop().await.unwrap();
    beside.execute_batch("CREATE TABLE kept AS SELECT * FROM log; DELETE FROM log").unwrap();
    for words in [&["fsck"][..], &["rebuild"], &["--listen", "127.0.0.1:0"]] {
        let said = program(data.path(), words);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && text.contains("the database does not know"), "{text}");
    }
    beside.execute_batch("INSERT INTO log SELECT * FROM kept; DROP TABLE kept").unwrap();
    assert!(program(data.path(), &["fsck"]).status.success(), "the control");
}

#[tokio::test]
async fn a_statement_that_cannot_be_logged_is_not_acknowledged() {
    let data = tempfile::tempdir().unwrap();
    let policy = begin(data.path());
    let world = world();
    let registry = Registry::start(data.path()).await;
    registry.client.push(&world.identity("owner")).await.unwrap();
    // Somebody else's tile stands where the next one belongs.
    let tile = data.path().join("log/tile/0/000.p/2");
    fs::write(&tile, [0; 64]).unwrap();
    let url = format!("{}/v1/statements", registry.base);
    let body = serde_json::to_vec(&world.identity("it")).unwrap();
    let push = || reqwest::Client::new().post(&url).body(body.clone()).send();
    assert_eq!(push().await.unwrap().status(), 503);
    assert_eq!(newest(&registry, &policy).await.checkpoint.size, 1);
    fs::remove_file(&tile).unwrap();
    assert_eq!(push().await.unwrap().status(), 200, "it was stored, and is logged now");
    assert_eq!(newest(&registry, &policy).await.checkpoint.size, 2);
}

#[tokio::test]
async fn a_checkpoint_that_could_not_be_written_is_made_up_for() {
    for obstacle in [".signed.new", ".checkpoint.new"] {
        let data = tempfile::tempdir().unwrap();
        let policy = begin(data.path());
        let world = world();
        let registry = Registry::start(data.path()).await;
        assert_eq!(newest(&registry, &policy).await.checkpoint.size, 0);
        // The disk takes the tiles and the state, and not the checkpoint.
        let obstacle = data.path().join("log").join(obstacle);
        fs::create_dir(&obstacle).unwrap();
        let identity = world.identity("owner");
        let push = registry.client.push(&identity);
        let watch = async {
            while !data.path().join("log/tile/0/000.p/1").exists() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            assert_eq!(newest(&registry, &policy).await.checkpoint.size, 0);
            fs::remove_dir(&obstacle).unwrap();
        };
        let (pushed, ()) = tokio::join!(push, watch);
        assert!(pushed.unwrap().complete, "acknowledged after all");
        assert_eq!(newest(&registry, &policy).await.checkpoint.size, 1);
    }
}

#[tokio::test]
async fn files_of_another_history_are_not_taken_up() {
    let data = tempfile::tempdir().unwrap();
    begin(data.path());
    let world = world();
    let registry = Registry::start(data.path()).await;
    registry.client.push(&world.identity("owner")).await.unwrap();
    registry.server.stop().await.unwrap();
    let secret = fs::read_to_string(data.path().join("log.key")).unwrap();
    let signer = Signer::read(secret.trim_end()).unwrap();
    for name in ["signed", "checkpoint"] {
        let path = data.path().join("log").join(name);
        let before = fs::read(&path).unwrap();
        let other =
            Checkpoint { origin: ORIGIN.into(), size: 1, root: [7; 32], extensions: vec![] };
        let mut note = Note::new(other.to_string()).unwrap();
        note.add(signer.sign(note.text(), 0)).unwrap();
        for (content, reason) in [
            (note.to_string(), "another tree of 1 entries"),
            (note.to_string().replace("\n1\n", "\n2\n"), "checking the signatures"),
            ("half a check".into(), name),
        ] {
            fs::write(&path, content).unwrap();
            let started = program(data.path(), &["--listen", "127.0.0.1:0"]);
            let said = String::from_utf8_lossy(&started.stderr).into_owned();
            assert!(!started.status.success() && said.contains(reason), "{said}");
        }
        fs::write(&path, before).unwrap();
    }
    Registry::start(data.path()).await;
}

#[tokio::test]
async fn a_registry_killed_at_any_time_has_logged_all_that_it_acknowledged() {
    let data = tempfile::tempdir().unwrap();
    let policy = begin(data.path());
    let world = world();
    let registry = Registry::start(data.path()).await;
    prepare(&world, &registry.client).await;
    agree(&world, &registry.client).await;
    let mut last = newest(&registry, &policy).await.checkpoint;
    registry.server.stop().await.unwrap();
    let mut acknowledged: Vec<StatementId> = Vec::new();
    for round in 0..12_u64 {
        let mut process = process::start(data.path());
        let (first, second) = (round * 20 + 1, round * 20 + 11);
        let batch = results(&world, first..second);
        process.client.push_results(&batch).await.unwrap();
        acknowledged.extend(batch.iter().map(|envelope| envelope.id().unwrap()));
        let (client, batch) = (process.client.clone(), results(&world, second..second + 10));
        let under_way = tokio::spawn(async move { client.push_results(&batch).await.is_ok() });
        tokio::time::sleep(std::time::Duration::from_millis(round * 4)).await;
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        if under_way.await.unwrap() {
            let ids = results(&world, second..second + 10);
            acknowledged.extend(ids.iter().map(|envelope| envelope.id().unwrap()));
        }
        let registry = Registry::start(data.path()).await;
        let seen = newest(&registry, &policy).await.checkpoint;
        assert!(consistent(&registry, &last, &seen).await, "round {round}");
        let records = entries(&registry, &seen).await;
        for id in &acknowledged {
            assert!(records.iter().any(|record| record.statement == *id), "round {round}");
        }
        last = seen;
        registry.server.stop().await.unwrap();
    }
    assert!(program(data.path(), &["fsck"]).status.success());
}

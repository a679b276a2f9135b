//! What a node is told, how little it costs to say it again, and who may be in it.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{Registry, World, agree, database, prepare, propose, seal, world};
use contract::{SigningKey, farm::Pool, testkit::bytes};
use registry_api::{Client, Fetched, view::Inbox};

async fn inbox(world: &World, client: &Client) -> (Inbox, String) {
    match client.inbox(&world.node_id(), None).await.unwrap() {
        Fetched::New { body, etag } => (body, etag),
        Fetched::Same => panic!("nothing was known before"),
    }
}

#[tokio::test]
async fn what_has_not_changed_is_not_made_again() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    prepare(&world, client).await;
    agree(&world, client).await;
    let (before, etag) = inbox(&world, client).await;
    let entry = &before.contracts[0];
    let (contract, node) = (world.contract(), world.node_id());

    // Whoever reads the contract from now on fails.
    database::tamper(data.path())
        .execute(
            "UPDATE statements SET payload = ?1 WHERE kind IN ('contract', 'approval')",
            &[&vec![0]],
        )
        .unwrap();
    assert!(client.bundle_for(&contract, &node, None).await.is_err(), "it is read here");
    assert_eq!(client.inbox(&node, Some(&etag)).await.unwrap(), Fetched::Same);
    assert_eq!(inbox(&world, client).await.0, before);
    let same = client.bundle_for(&contract, &node, Some(&entry.etag)).await.unwrap();
    assert_eq!(same, Fetched::Same);
}

#[tokio::test]
async fn everything_that_a_bundle_carries_changes_its_tag() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    for name in ["owner", "farm"] {
        client.push(&world.identity(name)).await.unwrap();
    }
    client.push(&seal(&world.farm(1), world.key("farm"))).await.unwrap();
    client.push(&seal(&world.node(1), &world.node_key)).await.unwrap();
    client.push(&seal(&world.adoption(), &world.token)).await.unwrap();
    let header = propose(&world, client).await;
    client.push(&seal(&world.pool(), world.key("farm"))).await.unwrap();
    let (contract, node) = (world.contract(), world.node_id());
    let mut tags = Vec::new();
    let mut look = async |what: &str| {
        let (inbox, _) = inbox(&world, client).await;
        let tag = inbox.contracts[0].etag.clone();
        let fetched = client.bundle_for(&contract, &node, tags.last().map(String::as_str)).await;
        let Fetched::New { body, etag } = fetched.unwrap() else {
            panic!("{what} changed nothing")
        };
        assert_eq!(etag, tag, "{what}");
        assert!(!tags.contains(&tag), "{what}");
        tags.push(tag);
        body
    };
    assert_eq!(look("the pool").await.pools.len(), 1);
    client.push(&world.identity("it")).await.unwrap();
    assert_eq!(look("a stakeholder's identity").await.identities.len(), 3);
    client.push(&world.approve("it", &header)).await.unwrap();
    assert_eq!(look("an approval").await.approvals.len(), 1);
    client.push(&seal(&world.cancel(), world.key("owner"))).await.unwrap();
    assert_eq!(look("a cancel").await.cancels.len(), 1);
    // What it does not carry leaves it as it is.
    client.push(&world.identity("stranger")).await.unwrap();
    client.push(&seal(&world.farm(2), world.key("farm"))).await.unwrap();
    let tag = tags.last().unwrap();
    assert_eq!(inbox(&world, client).await.0.contracts[0].etag, *tag);
    let same = client.bundle_for(&contract, &node, Some(tag)).await.unwrap();
    assert_eq!(same, Fetched::Same);
}

#[tokio::test]
async fn a_bundle_that_nobody_would_take_is_named_and_hides_no_other() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    let client = &registry.client;
    let large = world().with_contract(1);
    let small = World::new(large.now).with_contract(2);
    prepare(&large, client).await;
    agree(&large, client).await;
    agree(&small, client).await;
    let (both, etag) = inbox(&large, client).await;
    assert_eq!((both.contracts.len(), both.oversize.len()), (2, 0));

    // No admission lets it grow so far: an approval of 13 MB, past all rules.
    let database = database::tamper(data.path());
    let of_large = large.contract().0;
    database
        .execute(
            "UPDATE statements SET payload = ?2
             WHERE id = (SELECT statement FROM approvals WHERE contract = ?1 LIMIT 1)",
            &[&of_large, &vec![0; 13_000_000]],
        )
        .unwrap();
    let change = "UPDATE changes SET tag = ?2 WHERE contract = ?1";
    assert_eq!(database.execute(change, &[&of_large, &vec![7; 16]]).unwrap(), 1);
    let Fetched::New { body, .. } = client.inbox(&large.node_id(), Some(&etag)).await.unwrap()
    else {
        panic!("it has changed")
    };
    assert_eq!(body.oversize, [large.contract()]);
    let listed: Vec<_> = body.contracts.iter().map(|entry| entry.contract).collect();
    assert_eq!(listed, [small.contract()]);
    assert_eq!(inbox(&large, client).await.0, body, "and it stays so");
}

#[tokio::test]
async fn contracts_without_a_grant_of_the_nodes_farm_are_not_listed() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    let client = &registry.client;
    let good = world().with_contract(1);
    prepare(&good, client).await;
    propose(&good, client).await;

    // Each in the name of an owner who has keys, with documents for the node.
    let by = |number: u32, owner: &'static str, pool: Pool| {
        let mut stranger = World::new(good.now).with_contract(number);
        if owner != "owner" {
            stranger.keys.insert("owner", SigningKey::from_seed(&[50; 32]));
        }
        let mut header = stranger.header(1, None);
        header.pool = seal(&pool, stranger.key("owner")).id().unwrap();
        (stranger, header)
    };
    let ours = good.pool();
    let own_farm = {
        let other = by(9, "stranger", ours.clone()).0;
        Pool { farm: other.id("owner"), owner: other.id("owner"), ..ours.clone() }
    };
    let other_node = Pool { nodes: vec![contract::NodeId([1; 32])], ..ours.clone() };
    let unsigned = Pool { serial: 99, ..ours.clone() };
    let owner_key = SigningKey::from_seed(&[50; 32]);
    client.push(&by(9, "stranger", ours.clone()).0.identity("owner")).await.unwrap();
    client.push(&seal(&own_farm, &owner_key)).await.unwrap();
    client.push(&seal(&other_node, good.key("farm"))).await.unwrap();
    for (number, owner, pool, why) in [
        (2, "stranger", ours, "somebody else's grant"),
        (3, "stranger", own_farm, "a grant by themselves"),
        (4, "owner", other_node, "a grant on another node"),
        (5, "owner", unsigned, "a grant that the farm has not signed"),
    ] {
        let (stranger, header) = by(number, owner, pool);
        let header = seal(&header, stranger.key("owner"));
        client.push(&header).await.unwrap();
        let document = bytes(&stranger.document(1));
        client.push_documents(&stranger.contract(), 1, &[document]).await.unwrap();
        let listed = inbox(&good, client).await.0.contracts;
        let listed: Vec<_> = listed.iter().map(|entry| entry.contract).collect();
        assert_eq!(listed, [good.contract()], "{why}");
    }
}

#[tokio::test]
async fn a_registry_of_the_first_schema_is_upgraded_with_what_it_holds() {
    let data = tempfile::tempdir().unwrap();
    let world = world();
    let registry = Registry::start(data.path()).await;
    prepare(&world, &registry.client).await;
    agree(&world, &registry.client).await;
    let before = inbox(&world, &registry.client).await.0;
    registry.server.stop().await.unwrap();
    database::tamper(data.path())
        .execute_batch(
            "DROP TABLE evidence; DROP TABLE grants; DROP TABLE changes; DROP TABLE bundles;
             DROP INDEX headers_by_pool;
             ALTER TABLE headers DROP COLUMN pool; ALTER TABLE headers DROP COLUMN expires;
             DROP TABLE log; DROP TABLE records; DROP TABLE scrubs;
             DELETE FROM migrations WHERE step >= 1;",
        )
        .unwrap();
    let registry = Registry::start(data.path()).await;
    assert_eq!(inbox(&world, &registry.client).await.0, before);
}

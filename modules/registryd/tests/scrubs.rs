//! The farm's order to a node to read its store through: who may give it, how often, and how the node hears.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{NETWORK, Registry, World, database, prepare, seal, world};
use contract::{
    Envelope, IdentityId, NodeId, SigningKey,
    farm::{Adoption, Farm},
    identity::Identity,
    node::{Node, node_id},
    scrub::{SCRUB_AHEAD_S, SCRUB_EVERY_S, SCRUB_OPEN_S, Scrub},
};
use registry_api::{
    Client, Fetched,
    view::{Inbox, Ordered},
};

async fn push(client: &Client, order: &Scrub, key: &SigningKey) -> Result<bool, String> {
    let answer = client.push(&seal(order, key)).await;
    answer.map(|accepted| accepted.new).map_err(|error| error.code().unwrap().to_owned())
}

async fn inbox(world: &World, client: &Client) -> Inbox {
    match client.inbox(&world.node_id(), None).await.unwrap() {
        Fetched::New { body, .. } => body,
        Fetched::Same => panic!("nothing was known before"),
    }
}

#[tokio::test]
async fn a_farm_orders_its_own_nodes_in_time() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    let farm = world.key("farm");
    let order = world.scrub(0);
    assert_eq!(push(client, &order, farm).await.unwrap_err(), "unknown_identity");
    client.push(&world.identity("farm")).await.unwrap();
    assert_eq!(push(client, &order, farm).await.unwrap_err(), "unknown_node");
    prepare(&world, client).await;

    // A node that has not been adopted, of this farm or of another.
    let stranger = SigningKey::from_seed(&[55; 32]);
    let other = Node { key: stranger.public(), ..world.node(1) };
    client.push(&seal(&other, &stranger)).await.unwrap();
    let node = node_id(&stranger.public());
    for (order, key, code) in [
        (world.scrub(0), &world.token, "bad_signature"),
        (world.scrub(0), world.key("owner"), "bad_signature"),
        (Scrub { farm: world.id("owner"), ..world.scrub(0) }, world.key("owner"), "unknown_node"),
        (Scrub { node, ..world.scrub(0) }, farm, "unknown_node"),
        (Scrub { node: NodeId([1; 32]), ..world.scrub(0) }, farm, "unknown_node"),
        (Scrub { network: "main".into(), ..world.scrub(0) }, farm, "wrong_network"),
        // With a minute for the test.
        (world.scrub(SCRUB_AHEAD_S + 60), farm, "in_the_future"),
        (world.scrub(-SCRUB_OPEN_S - 60), farm, "too_late"),
    ] {
        assert_eq!(push(client, &order, key).await.unwrap_err(), code, "{order:?}");
    }
    assert_eq!(inbox(&world, client).await.scrub, None);
    let adoption = Adoption { node, ..world.adoption() };
    client.push(&seal(&adoption, &world.token)).await.unwrap();
    assert!(push(client, &Scrub { node, ..world.scrub(0) }, farm).await.unwrap());
    assert_eq!(inbox(&world, client).await.scrub, None, "of another node");
    assert!(push(client, &order, farm).await.unwrap());
    assert!(!push(client, &order, farm).await.unwrap(), "known already");
}

#[tokio::test]
async fn the_node_hears_the_last_order_and_there_is_one_in_an_hour() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    prepare(&world, client).await;
    let farm = world.key("farm");
    let hears = async |offset: i64| {
        let ordered =
            Ordered { order: seal(&world.scrub(offset), farm), farm: world.identity("farm") };
        let view = client.node(&world.node_id()).await.unwrap();
        assert_eq!(view.scrub.as_ref(), Some(&ordered.order));
        assert_eq!(inbox(&world, client).await.scrub, Some(ordered));
    };
    let first = -3 * SCRUB_EVERY_S;
    assert!(push(client, &world.scrub(first), farm).await.unwrap());
    hears(first).await;
    for offset in [first - 1, first + 1, first + SCRUB_EVERY_S - 1] {
        assert_eq!(push(client, &world.scrub(offset), farm).await.unwrap_err(), "too_many");
    }
    let second = first + SCRUB_EVERY_S;
    assert!(push(client, &world.scrub(second), farm).await.unwrap());
    hears(second).await;
    // The one before is known, and does not come back.
    assert!(!push(client, &world.scrub(first), farm).await.unwrap());
    hears(second).await;

    // Nor does it when the tables are made anew.
    registry.server.stop().await.unwrap();
    registryd::db::rebuild(&database::open(data.path())).unwrap();
    let registry = Registry::start(data.path()).await;
    let order = inbox(&world, &registry.client).await.scrub.unwrap().order;
    assert_eq!(order, seal(&world.scrub(second), farm));

    // A farm that the node does not belong to any more orders it no more.
    let (owner, key, client) = (world.id("owner"), world.key("owner"), &registry.client);
    let moved = Node { farm: owner, ..world.node(2) };
    client.push(&seal(&moved, &world.node_key)).await.unwrap();
    client.push(&seal(&Farm { farm: owner, ..world.farm(1) }, key)).await.unwrap();
    client.push(&seal(&Adoption { farm: owner, ..world.adoption() }, key)).await.unwrap();
    let heard = inbox(&world, client).await;
    assert!(heard.adopted && heard.scrub.is_none(), "{heard:?}");
    assert_eq!(push(client, &world.scrub(0), farm).await.unwrap_err(), "unknown_node");
    let theirs = Scrub { farm: owner, ..world.scrub(0) };
    assert!(push(client, &theirs, key).await.unwrap());
    let heard = inbox(&world, client).await.scrub.unwrap();
    assert_eq!((heard.order, heard.farm), (seal(&theirs, key), world.identity("owner")));
}

#[tokio::test]
async fn a_farm_with_two_keys_orders_with_both() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    let keys = [world.key("farm"), world.key("it")];
    let mut public = keys.map(SigningKey::public).to_vec();
    public.sort();
    let both = Identity {
        network: NETWORK.into(),
        version: 1,
        prev: None,
        name: "both".into(),
        keys: public,
        threshold: 2,
    };
    let identity = Envelope::seal(&both, &keys).unwrap();
    let farm = IdentityId(identity.id().unwrap().0);
    let adoption = Adoption { farm, ..world.adoption() };
    for statement in [
        identity,
        Envelope::seal(&Farm { farm, ..world.farm(1) }, &keys).unwrap(),
        seal(&Node { farm, ..world.node(1) }, &world.node_key),
        Envelope::seal(&adoption, &keys).unwrap(),
    ] {
        client.push(&statement).await.unwrap();
    }
    let order = Scrub { farm, ..world.scrub(0) };
    for (key, complete) in keys.into_iter().zip([false, true]) {
        let accepted = client.push(&seal(&order, key)).await.unwrap();
        assert_eq!((accepted.new, accepted.complete), (true, complete));
        assert_eq!(inbox(&world, client).await.scrub.is_some(), complete);
    }
}

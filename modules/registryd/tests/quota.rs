//! How much one owner may keep in the registry.

#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{Registry, World, prepare, propose, seal, world};
use contract::{Envelope, decision::Decision};
use registry_api::{Client, ClientError, problem::codes};
use registryd::quota::POOL_MAX;

fn header(world: &World) -> Envelope {
    seal(&world.header(1, None), world.key("owner"))
}

async fn push(client: &Client, envelope: &Envelope) -> Result<(), (u16, String)> {
    match client.push(envelope).await {
        Ok(_) => Ok(()),
        Err(ClientError::Problem { problem, .. }) => Err((problem.status, problem.code)),
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_pool_holds_so_many_open_contracts_until_one_of_them_ends() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    let client = &registry.client;
    let first = world().with_contract(0);
    let other = |number| World::new(first.now).with_contract(number);
    prepare(&first, client).await;
    let standing = propose(&first, client).await;
    for number in 1..u32::try_from(POOL_MAX).unwrap() {
        push(client, &header(&other(number))).await.unwrap();
    }
    let one_more = other(10_000);
    let full = (429, codes::TOO_MANY.to_owned());
    assert_eq!(push(client, &header(&one_more)).await.unwrap_err(), full);
    // What stands is known still, and goes on.
    push(client, &standing).await.unwrap();
    push(client, &first.approve("it", &standing)).await.unwrap();
    // In another pool there is room.
    let mut elsewhere = one_more.header(1, None);
    elsewhere.pool = contract::StatementId([9; 32]);
    push(client, &seal(&elsewhere, one_more.key("owner"))).await.unwrap();
    let another = other(10_001);
    assert_eq!(push(client, &header(&another)).await.unwrap_err(), full);
    // One ends before its time.
    let reject = first.decide("legal", &standing, Decision::Reject, 0);
    push(client, &reject).await.unwrap();
    push(client, &header(&another)).await.unwrap();
}

#[tokio::test]
async fn all_versions_of_a_contract_have_a_bound_together() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    prepare(&world, client).await;
    let mut prev = None;
    let mut refused = None;
    for version in 1..=8 {
        let mut header = world.header(version, prev);
        let filler = contract::strict::StrictValue::Text("x".repeat(900_000));
        header.extensions.0.insert("filler".into(), filler);
        let header = seal(&header, world.key("owner"));
        if let Err(problem) = push(client, &header).await {
            refused = Some((version, problem));
            break;
        }
        for name in ["it", "legal"] {
            push(client, &world.approve(name, &header)).await.unwrap();
        }
        prev = header.id().ok();
    }
    assert_eq!(refused, Some((5, (413, codes::TOO_LARGE.to_owned()))));
    assert_eq!(client.bundle(&world.contract()).await.unwrap().headers.len(), 4);
}

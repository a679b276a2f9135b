//! What the registry does not take, each next to the same thing that it takes.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{NETWORK, Registry, World, agree, prepare, seal, world};
use contract::{
    Envelope, IdentityId, SigningKey,
    bundle::Deployment,
    decision::{Action, Decision},
    farm::Adoption,
    header::Stakeholder,
    identity::Identity,
    node::Node,
};
use registry_api::{Client, write::Accepted};

/// The code of a refusal, or what was accepted.
async fn push(client: &Client, envelope: &Envelope) -> Result<Accepted, String> {
    client.push(envelope).await.map_err(|error| match error.code() {
        Some(code) => code.to_owned(),
        None => panic!("{error}"),
    })
}

fn refused(outcome: Result<Accepted, String>) -> String {
    outcome.expect_err("it must be refused")
}

async fn ready() -> (tempfile::TempDir, World, Registry) {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    prepare(&world, &registry.client).await;
    (data, world, registry)
}

#[tokio::test]
async fn a_statement_is_learned_once() {
    let (_data, world, registry) = ready().await;
    let header = seal(&world.header(1, None), world.key("owner"));
    let first = push(&registry.client, &header).await.unwrap();
    assert!(first.new && first.complete);
    let second = push(&registry.client, &header).await.unwrap();
    assert_eq!(second, Accepted { new: false, ..first.clone() });
    assert_eq!(registry.client.statement(&first.id).await.unwrap(), header);
}

#[tokio::test]
async fn signatures_of_others_are_dropped_and_of_co_signers_are_merged() {
    let (_data, world, registry) = ready().await;
    let (one, two) = (SigningKey::from_seed(&[31; 32]), SigningKey::from_seed(&[32; 32]));
    let mut keys = vec![one.public(), two.public()];
    keys.sort();
    let body = Identity {
        network: NETWORK.into(),
        version: 1,
        prev: None,
        name: "both".into(),
        keys,
        threshold: 2,
    };
    let stranger = world.key("stranger");
    assert_eq!(refused(push(&registry.client, &seal(&body, stranger)).await), "bad_signature");
    let half = Envelope::seal(&body, &[&one, stranger]).unwrap();
    let accepted = push(&registry.client, &half).await.unwrap();
    assert!(accepted.new && !accepted.complete);
    let id = IdentityId(accepted.id.0);
    assert!(registry.client.identity(&id).await.is_err(), "half an identity is none");
    let accepted = push(&registry.client, &seal(&body, &two)).await.unwrap();
    assert!(accepted.new && accepted.complete);
    let stored = registry.client.identity(&id).await.unwrap().statement;
    assert_eq!(stored.signatures.len(), 2);
}

#[tokio::test]
async fn a_statement_of_another_grid_or_form_is_refused() {
    let (_data, world, registry) = ready().await;
    let client = &registry.client;
    let farm = world.farm(2);
    let other = contract::farm::Farm { network: "main".into(), ..farm.clone() };
    assert_eq!(refused(push(client, &seal(&other, world.key("farm"))).await), "wrong_network");
    let mut unknown = seal(&farm, world.key("farm"));
    unknown.payload_type = "application/vnd.zero-os.release.v1+json".into();
    assert_eq!(refused(push(client, &unknown).await), "malformed");
    let mut moved = seal(&farm, world.key("farm"));
    moved.payload_type = contract::Kind::Pool.payload_type();
    assert_eq!(refused(push(client, &moved).await), "malformed");
    assert!(push(client, &seal(&farm, world.key("farm"))).await.unwrap().new);
}

#[tokio::test]
async fn farms_and_nodes_are_signed_by_themselves_and_only_go_forward() {
    let (_data, world, registry) = ready().await;
    let client = &registry.client;
    let farm = |version| world.farm(version);
    assert_eq!(refused(push(client, &seal(&farm(2), world.key("owner"))).await), "bad_signature");
    assert!(push(client, &seal(&farm(2), world.key("farm"))).await.unwrap().new);
    let mut old = farm(1);
    old.location = "Brugge".into();
    assert_eq!(refused(push(client, &seal(&old, world.key("farm"))).await), "old_version");
    assert!(!push(client, &seal(&farm(1), world.key("farm"))).await.unwrap().new, "known already");

    assert_eq!(refused(push(client, &seal(&world.node(2), &world.token)).await), "bad_signature");
    assert!(push(client, &seal(&world.node(2), &world.node_key)).await.unwrap().new);
    let old = Node { image: "older".into(), ..world.node(2) };
    assert_eq!(refused(push(client, &seal(&old, &world.node_key)).await), "old_version");

    let nobody = contract::farm::Farm { farm: IdentityId([5; 32]), ..farm(1) };
    assert_eq!(refused(push(client, &seal(&nobody, world.key("farm"))).await), "unknown_identity");
}

#[tokio::test]
async fn a_node_is_adopted_by_its_farm_or_a_token_that_has_not_expired() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    let by_token = seal(&world.adoption(), &world.token);
    assert_eq!(refused(push(client, &by_token).await), "unknown_identity");
    client.push(&world.identity("farm")).await.unwrap();
    assert_eq!(refused(push(client, &by_token).await), "unknown_farm");
    client.push(&seal(&world.farm(1), world.key("farm"))).await.unwrap();
    client.push(&seal(&world.node(1), &world.node_key)).await.unwrap();
    let node = async || client.node(&world.node_id()).await.unwrap();

    let late = Adoption { issued: world.at(4000), ..world.adoption() };
    assert_eq!(refused(push(client, &seal(&late, &world.token)).await), "bad_signature");
    let foreign = seal(&world.adoption(), &world.node_key);
    assert_eq!(refused(push(client, &foreign).await), "bad_signature");
    assert!(!node().await.adopted);
    assert_eq!(client.farm(&world.id("farm")).await.unwrap().waiting, 1);
    assert!(push(client, &by_token).await.unwrap().new);
    assert!(node().await.adopted);
    assert_eq!(node().await.adoption, Some(by_token));

    // The farm's own signature serves as well, also long after.
    assert!(push(client, &seal(&late, world.key("farm"))).await.unwrap().new);
}

#[tokio::test]
async fn versions_of_a_contract_follow_each_other() {
    let (_data, world, registry) = ready().await;
    let client = &registry.client;
    let owner = world.key("owner");
    let first = seal(&world.header(1, None), owner);
    let id = first.id().ok();
    assert_eq!(refused(push(client, &seal(&world.header(2, id), owner)).await), "broken_chain");
    let by_other = seal(&world.header(1, None), world.key("stranger"));
    assert_eq!(refused(push(client, &by_other).await), "bad_signature");
    assert!(push(client, &first).await.unwrap().new);

    // Not agreed yet: neither a further version nor another first one.
    assert_eq!(refused(push(client, &seal(&world.header(2, id), owner)).await), "version_taken");
    let mut other = world.header(1, None);
    other.title = "Other".into();
    assert_eq!(refused(push(client, &seal(&other, owner)).await), "version_taken");
    for name in ["it", "legal"] {
        client.push(&world.approve(name, &first)).await.unwrap();
    }
    assert_eq!(refused(push(client, &seal(&other, owner)).await), "version_taken");
    let wrong = world.header(2, Some(contract::StatementId([3; 32])));
    assert_eq!(refused(push(client, &seal(&wrong, owner)).await), "broken_chain");
    let second = seal(&world.header(2, id), owner);
    assert!(push(client, &second).await.unwrap().new);

    // A version that was rejected gives way to another.
    let mut better = world.header(2, id);
    better.title = "Better".into();
    assert_eq!(refused(push(client, &seal(&better, owner)).await), "version_taken");
    let reject = world.decision("legal", &second, Decision::Reject);
    client.push(&seal(&reject, world.key("legal"))).await.unwrap();
    assert!(push(client, &seal(&better, owner)).await.unwrap().new);
    let view = client.contract(&world.contract()).await.unwrap();
    assert_eq!((view.summary.in_force, view.summary.version), (Some(1), 2));
    assert_eq!(Some(view.versions[1].header), seal(&better, owner).id().ok());
}

#[tokio::test]
async fn only_decisions_that_can_count_are_taken() {
    let (_data, world, registry) = ready().await;
    let client = &registry.client;
    let header = seal(&world.header(1, None), world.key("owner"));
    assert_eq!(refused(push(client, &world.approve("it", &header)).await), "unknown_contract");
    client.push(&header).await.unwrap();

    let base = world.decision("it", &header, Decision::Approve);
    let mut subject = base.clone();
    subject.subject = contract::StatementId([4; 32]);
    let mut late = base.clone();
    late.issued = world.at(1001);
    let mut ahead = base.clone();
    ahead.issued = world.at(900);
    let mut cancel = base.clone();
    cancel.action = Action::Cancel;
    let stranger = world.decision("stranger", &header, Decision::Approve);
    for (body, signer, code) in [
        (&subject, "it", "unknown_contract"),
        (&late, "it", "too_late"),
        (&ahead, "it", "in_the_future"),
        (&cancel, "it", "unknown_contract"),
        (&stranger, "stranger", "not_a_stakeholder"),
        (&base, "legal", "bad_signature"),
    ] {
        assert_eq!(refused(push(client, &seal(body, world.key(signer))).await), code);
    }
    assert!(push(client, &seal(&base, world.key("it"))).await.unwrap().new);
}

#[tokio::test]
async fn no_stakeholder_takes_the_room_of_another() {
    let (_data, world, registry) = ready().await;
    let client = &registry.client;
    let mut header = world.header(1, None);
    let with = |n: u8| Stakeholder { identity: IdentityId([n; 32]), ..header.stakeholders[0] };
    let others: Vec<_> = (0..61).map(with).collect();
    header.stakeholders.extend(others);
    header.stakeholders.sort_by_key(|holder| holder.identity);
    let header = seal(&header, world.key("owner"));
    client.push(&header).await.unwrap();
    for second in 0..64 {
        let decision = world.decide("it", &header, Decision::Approve, -second);
        assert!(push(client, &decision).await.unwrap().new);
    }
    let more = world.decide("it", &header, Decision::Approve, -64);
    assert_eq!(refused(push(client, &more).await), "too_many");
    assert!(push(client, &world.approve("legal", &header)).await.unwrap().new);
}

#[tokio::test]
async fn a_cancel_is_the_owners() {
    let (_data, world, registry) = ready().await;
    let client = &registry.client;
    let cancel = world.cancel();
    assert_eq!(refused(push(client, &seal(&cancel, world.key("owner"))).await), "unknown_contract");
    agree(&world, client).await;
    assert_eq!(refused(push(client, &seal(&cancel, world.key("it"))).await), "bad_signature");
    assert!(push(client, &seal(&cancel, world.key("owner"))).await.unwrap().new);
}

#[tokio::test]
async fn pools_and_results_are_signed_by_farm_and_node() {
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    let client = &registry.client;
    let report = world.report(1, None, contract::report::State::Accepted);
    let report_of_node = seal(&report, &world.node_key);
    assert_eq!(refused(push(client, &report_of_node).await), "unknown_node");
    prepare(&world, client).await;
    assert!(push(client, &report_of_node).await.unwrap().new);
    let report = world.report(2, report_of_node.id().ok(), contract::report::State::Running);
    assert_eq!(refused(push(client, &seal(&report, &world.token)).await), "bad_signature");

    let pool = contract::farm::Pool { serial: 2, ..world.pool() };
    assert_eq!(refused(push(client, &seal(&pool, world.key("owner"))).await), "bad_signature");
    assert!(push(client, &seal(&pool, world.key("farm"))).await.unwrap().new);
}

#[tokio::test]
async fn documents_must_hash_into_the_root_that_was_signed() {
    let (_data, world, registry) = ready().await;
    let client = &registry.client;
    let put = async |documents: &[Vec<u8>]| {
        let answer = client.push_documents(&world.contract(), 1, documents).await;
        answer.map_err(|error| error.code().unwrap().to_owned())
    };
    let document = world.document_bytes(1);
    assert_eq!(put(std::slice::from_ref(&document)).await.unwrap_err(), "unknown_contract");
    client.push(&seal(&world.header(1, None), world.key("owner"))).await.unwrap();
    let text = String::from_utf8(document.clone()).unwrap();
    let changed = text.replace("\"cpu_milli\":500", "\"cpu_milli\":501").into_bytes();
    assert_ne!(changed, document);
    assert_eq!(put(&[changed]).await.unwrap_err(), "wrong_root");
    assert_eq!(put(&[]).await.unwrap_err(), "wrong_root");
    assert_eq!(put(&[b"{}".to_vec()]).await.unwrap_err(), "malformed");
    assert_eq!(put(&[document.clone(), document.clone()]).await.unwrap_err(), "malformed");
    assert!(put(std::slice::from_ref(&document)).await.unwrap().new);
    assert!(!put(std::slice::from_ref(&document)).await.unwrap().new);

    let fetched = client.bundle_for(&world.contract(), &world.node_id(), None).await.unwrap();
    let registry_api::Fetched::New { body, .. } = fetched else { panic!() };
    assert_eq!(body.documents.len(), 1);
    assert_eq!(Deployment::bytes(&body.documents[0]).unwrap(), document);
    assert!(client.bundle(&world.contract()).await.unwrap().documents.is_empty());
}

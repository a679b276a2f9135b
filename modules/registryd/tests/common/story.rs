//! A small grid in which something happens: what its pages look like to people.

use super::{World, seal};
use contract::{
    Envelope, IdentityId, StatementId, Timestamp,
    capacity::GIB,
    decision::Decision,
    header::{Deployments, Header},
    merkle,
    node::{Disk, Node},
    report::{Ran, Report, Standing, State},
    testkit::bytes,
    workload::{Document, Port, Protocol, Spec},
};
use registry_api::Client;

pub(crate) const ORIGIN: &str = "registry.example/test";

/// People with ordinary names.
pub(crate) fn world(now: Timestamp) -> World {
    let call = |name: &str| match name {
        "owner" => "Harbour Books".to_owned(),
        "farm" => "Lighthouse farm".to_owned(),
        "it" => "Operations".to_owned(),
        "legal" => "Legal desk".to_owned(),
        "budget" => "Treasury".to_owned(),
        other => other.to_owned(),
    };
    World { call, ..World::new(now) }
}

fn node(world: &World) -> Node {
    let mut node = world.node(1);
    node.hardware.vendor = "Fabrikat".into();
    node.hardware.product = "R2 server".into();
    node.hardware.cpu = "8-core processor".into();
    let disk = |name: &str, class: &str, state: &str, reason: &str| Disk {
        name: name.into(),
        model: "U.2 drive".into(),
        size_bytes: 960_000_000_000,
        class: class.into(),
        state: state.into(),
        reason: reason.into(),
    };
    node.hardware.disks = vec![
        disk("nvme0n1", "nvme", "pool", "it was blank, and is a pool of this node"),
        disk("sda", "hdd", "foreign", "it carries a file system that is not ours"),
    ];
    node.degraded = vec!["sda is not used: it carries a file system that is not ours".into()];
    node
}

/// A version with what its one node has to do.
fn version(world: &World, number: u64, prev: Option<StatementId>) -> (Header, Document) {
    let mut document = world.document(number);
    let mut header = world.header(number, prev);
    header.title = "Web shop".into();
    header.purpose = "Sells books to whoever comes by.".into();
    if number > 1 {
        header.flists[0].digest = contract::FlistId([0x2a; 32]);
        header.purpose = "Sells books and maps to whoever comes by.".into();
        let Spec::Container(container) = &mut document.workloads[0].spec else { unreachable!() };
        container.memory_bytes = 2 * GIB;
        container.ports.push(Port { protocol: Protocol::Tcp, host: 8443, container: 443 });
    }
    let leaf = merkle::leaf(&bytes(&document));
    header.deployments = Deployments { count: 1, root: StatementId(merkle::root(&[leaf])) };
    (header, document)
}

async fn push(world: &World, client: &Client, number: u64, prev: Option<StatementId>) -> Envelope {
    let (header, document) = version(world, number, prev);
    let header = seal(&header, world.key("owner"));
    client.push(&header).await.unwrap();
    client.push_documents(&world.contract(), number, &[bytes(&document)]).await.unwrap();
    header
}

/// A farm with a node; a contract that runs, with a second version that one of two has approved; and
/// a contract that nobody has approved. Whose approval is missing is given back.
pub(crate) async fn tell(world: &World, client: &Client) -> IdentityId {
    for name in world.keys.keys() {
        client.push(&world.identity(name)).await.unwrap();
    }
    let mut farm = world.farm(1);
    farm.name = "Lighthouse".into();
    client.push(&seal(&farm, world.key("farm"))).await.unwrap();
    client.push(&seal(&node(world), &world.node_key)).await.unwrap();
    client.push(&seal(&world.adoption(), &world.token)).await.unwrap();
    client.push(&seal(&world.pool(), world.key("farm"))).await.unwrap();

    let first = push(world, client, 1, None).await;
    for name in ["it", "legal"] {
        client.push(&world.approve(name, &first)).await.unwrap();
    }
    let mut beat = world.heartbeat("b1", 1, 0);
    beat.uptime_s = 273_900;
    beat.contracts =
        vec![Standing { contract: world.contract(), version: 1, state: State::Running }];
    client.heartbeat(&seal(&beat, &world.node_key)).await.unwrap();
    let digest = |byte: u8| StatementId([byte; 32]);
    let accepted = Report {
        workload: None,
        code: "accepted".into(),
        message: "everybody agreed who must".into(),
        ..world.report(1, None, State::Accepted)
    };
    let accepted = seal(&accepted, &world.node_key);
    let running = Report {
        message: "it runs, and answers on port 80".into(),
        ran: Some(Ran {
            flist: contract::FlistId([9; 32]),
            image: contract::FlistId(digest(0x71).0),
            entrypoint: contract::FlistId(digest(0x72).0),
            files: 214,
        }),
        ..world.report(2, accepted.id().ok(), State::Running)
    };
    client.push_results(&[accepted, seal(&running, &world.node_key)]).await.unwrap();

    let second = push(world, client, 2, first.id().ok()).await;
    let approval = world.decision("it", &second, Decision::Approve);
    client.push(&seal(&approval, world.key("it"))).await.unwrap();

    let other = self::world(world.now).with_contract(2);
    let (mut header, document) = version(&other, 1, None);
    header.title = "Archive of charts".into();
    client.push(&seal(&header, other.key("owner"))).await.unwrap();
    client.push_documents(&other.contract(), 1, &[bytes(&document)]).await.unwrap();
    world.id("legal")
}

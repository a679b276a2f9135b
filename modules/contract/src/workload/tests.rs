//! Overlays in documents: whose their volumes are, what they take, and that older bytes stay.

use super::*;
use crate::{testkit::World, time::Timestamp};
use alloc::vec;

fn volume(name: &str) -> Workload {
    let spec = Spec::Volume(Volume { size_bytes: 1 << 30, class: Medium::Ssd });
    Workload { name: name.into(), spec, needs: vec![] }
}

fn mount(path: &str, source: MountSource) -> Mount {
    Mount { path: path.into(), source }
}

/// Two containers with these mounts, and two volumes.
fn document(one: Vec<Mount>, two: Vec<Mount>) -> Document {
    let mut document = World::new(Timestamp::from_seconds(0)).document(1);
    let Some(Workload { spec: Spec::Container(container), .. }) = document.workloads.first() else {
        panic!("it is a container");
    };
    let with = |name: &str, mounts| {
        let spec = Spec::Container(Container { mounts, ..container.clone() });
        Workload { name: name.into(), spec, needs: vec![] }
    };
    document.workloads = vec![with("a", one), with("b", two), volume("x"), volume("y")];
    document
}

fn overlay(path: &str, volume: &str) -> Mount {
    mount(path, MountSource::Overlay(volume.into()))
}

#[test]
fn a_volume_of_overlays_belongs_to_one_container_and_to_overlays() {
    let shared = |path: &str| mount(path, MountSource::Volume("x".into()));
    let alone =
        Err("a volume of overlays belongs to one container, and is mounted in no other way");
    let unknown = Err("a mount names a volume of the same document");
    let place = Err("an overlay is over a directory below /, whose path has at most 80 bytes");
    let long = |bytes: usize| alloc::format!("/{}", "a".repeat(bytes - 1));
    for (one, two, wanted) in [
        (vec![overlay("/etc", "x"), overlay("/var", "x")], vec![overlay("/etc", "y")], Ok(())),
        (vec![shared("/a"), shared("/b")], vec![shared("/a"), overlay("/etc", "y")], Ok(())),
        (vec![overlay("/etc", "x")], vec![overlay("/etc", "x")], alone),
        (vec![overlay("/etc", "x"), shared("/data")], vec![], alone),
        (vec![shared("/data")], vec![overlay("/etc", "x")], alone),
        (vec![overlay("/etc", "x")], vec![shared("/data")], alone),
        (vec![overlay("/etc", "z")], vec![], unknown),
        (vec![overlay("/etc", "b")], vec![], unknown),
        (vec![overlay("/", "x")], vec![], place),
        (vec![overlay(&long(OVERLAY_PATH_MAX), "x")], vec![], Ok(())),
        (vec![overlay(&long(OVERLAY_PATH_MAX + 1), "x")], vec![], place),
    ] {
        assert_eq!(document(one.clone(), two.clone()).check(), wanted, "{one:?} {two:?}");
    }
}

#[test]
fn an_overlay_starts_after_its_volume_and_takes_no_more_than_that() {
    let document = document(vec![overlay("/etc", "x")], vec![]);
    let order = document.start_order().unwrap();
    let at = |name: &str| order.iter().position(|workload| workload.name == name);
    assert!(at("x") < at("a"));
    assert_eq!(document.demand().sru_bytes, 2 << 30);
}

#[test]
fn an_overlay_is_a_word_and_the_others_are_as_they_were() {
    let bytes = |source: MountSource| serde_json::to_string(&source).unwrap();
    assert_eq!(bytes(MountSource::Tmpfs(5)), "{\"tmpfs\":5}");
    assert_eq!(bytes(MountSource::Volume("x".into())), "{\"volume\":\"x\"}");
    assert_eq!(bytes(MountSource::Overlay("x".into())), "{\"overlay\":\"x\"}");
}

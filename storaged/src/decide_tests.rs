//! The table of cases for [`decide`].

use super::*;
use node_api::storaged::DiskClass;

const SIZE: u64 = 2 << 30;

fn disk() -> Disk {
    Disk {
        name: "vda".to_owned(),
        serial: "S1".to_owned(),
        model: "M".to_owned(),
        size_bytes: SIZE,
        class: DiskClass::Ssd,
        sequence: 1,
        obstacle: None,
    }
}

fn pool() -> Uuid {
    Uuid::from_random([1; 16])
}

fn making(takeover: bool) -> Claim {
    Claim::making(3, takeover, DiskClass::Ssd, pool(), SIZE, "S1")
}

fn order(serial: &str) -> Orders {
    Orders { takeover: [serial.to_owned()].into(), ambiguous: BTreeSet::new() }
}

fn make(permission: Permission, generation: u64) -> Decision {
    Decision::Make(Make { permission, generation })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Ignore,
    TooSmall,
    Foreign,
    Failed,
    Make(Permission),
    Mount,
}

fn kind(decision: &Decision) -> Kind {
    match decision {
        Decision::Ignore(_) => Kind::Ignore,
        Decision::TooSmall(_) => Kind::TooSmall,
        Decision::Foreign(_) => Kind::Foreign,
        Decision::Failed(_) => Kind::Failed,
        Decision::Make(make) => Kind::Make(make.permission),
        Decision::Mount(_) => Kind::Mount,
    }
}

/// Claim, superblock, signatures, remains; kind without an order, with an order.
type Row = (Option<Claim>, Option<Uuid>, &'static [&'static str], Remains, Kind, Kind);

/// Every combination of claim, superblock, signature, remains and order.
#[test]
fn every_combination_of_traces_has_the_decision_of_the_table() {
    use Kind::{Failed, Foreign, Make, Mount};
    use Permission::{Blank, Interrupted, Takeover};
    let (none, some) = (None, Some(pool()));
    let other = Some(Uuid::from_random([2; 16]));
    let gpt: &'static [&'static str] = &["a GPT partition table"];
    let made = |takeover| Some(making(takeover).made());
    let making = |takeover| Some(making(takeover));
    let rows: Vec<Row> = vec![
        (None, none, &[], Remains::Blank, Make(Blank), Make(Blank)),
        (None, none, &[], Remains::Strange, Foreign, Make(Takeover)),
        (None, none, gpt, Remains::Strange, Foreign, Make(Takeover)),
        (None, some, &[], Remains::Strange, Foreign, Make(Takeover)),
        (making(false), none, &[], Remains::Blank, Make(Interrupted), Make(Interrupted)),
        (making(false), none, &[], Remains::Unfinished, Make(Interrupted), Make(Interrupted)),
        (making(false), some, &[], Remains::Unfinished, Make(Interrupted), Make(Interrupted)),
        (making(false), none, &[], Remains::Cleared, Foreign, Make(Takeover)),
        (making(false), none, &[], Remains::Strange, Foreign, Make(Takeover)),
        (making(false), some, &[], Remains::Strange, Foreign, Make(Takeover)),
        (making(false), none, gpt, Remains::Strange, Foreign, Make(Takeover)),
        (making(false), other, &[], Remains::Strange, Foreign, Make(Takeover)),
        (making(true), none, &[], Remains::Unfinished, Make(Takeover), Make(Takeover)),
        (making(true), none, &[], Remains::Cleared, Make(Takeover), Make(Takeover)),
        (making(true), none, &[], Remains::Strange, Foreign, Make(Takeover)),
        (making(true), none, gpt, Remains::Strange, Foreign, Make(Takeover)),
        (made(false), some, &[], Remains::Strange, Mount, Mount),
        (made(true), some, &[], Remains::Strange, Mount, Mount),
        (made(false), none, &[], Remains::Strange, Failed, Make(Takeover)),
        (made(true), none, &[], Remains::Strange, Failed, Failed),
        (made(false), some, gpt, Remains::Strange, Foreign, Make(Takeover)),
        (made(true), some, gpt, Remains::Strange, Foreign, Foreign),
        (made(false), other, &[], Remains::Strange, Foreign, Make(Takeover)),
        (made(true), other, &[], Remains::Strange, Foreign, Foreign),
    ];
    for (claim, btrfs, foreign, remains, without, with) in rows {
        let traces = Traces { claim, btrfs, foreign: foreign.to_vec(), remains };
        let content = Content::Read(traces);
        let decided = kind(&decide(&disk(), &content, &Orders::default()));
        assert_eq!(decided, without, "without order: {content:?}");
        assert_eq!(kind(&decide(&disk(), &content, &order("S2"))), without, "order for another");
        assert_eq!(kind(&decide(&disk(), &content, &order("S1"))), with, "ordered: {content:?}");
    }
}

fn foreign() -> Content {
    let traces = Traces {
        claim: None,
        btrfs: None,
        foreign: vec!["an ext4 file system"],
        remains: Remains::Strange,
    };
    Content::Read(traces)
}

fn blank() -> Content {
    Content::Read(Traces { claim: None, btrfs: None, foreign: vec![], remains: Remains::Blank })
}

#[test]
fn what_sysfs_says_counts_before_any_order() {
    let hindered = Disk { obstacle: Some("it is removable".to_owned()), ..disk() };
    let tiny = Disk { size_bytes: SIZE_MIN - 1, ..disk() };
    for content in [foreign(), blank()] {
        assert_eq!(kind(&decide(&hindered, &content, &order("S1"))), Kind::Ignore);
        assert_eq!(kind(&decide(&tiny, &content, &order("S1"))), Kind::TooSmall);
    }
    let unreadable = Content::Unreadable("reading the first MiB: I/O error".to_owned());
    assert_eq!(kind(&decide(&disk(), &unreadable, &order("S1"))), Kind::Failed);
    assert_eq!(kind(&decide(&disk(), &Content::BootMedium, &order("S1"))), Kind::Ignore);
}

#[test]
fn an_order_cannot_name_a_disk_without_a_serial_number_or_one_of_two() {
    let nameless = Disk { serial: String::new(), ..disk() };
    assert_eq!(kind(&decide(&nameless, &foreign(), &order(""))), Kind::Foreign);
    let ambiguous = Orders { ambiguous: ["S1".to_owned()].into(), ..order("S1") };
    assert_eq!(kind(&decide(&disk(), &foreign(), &ambiguous)), Kind::Foreign);
    // The same disk under a clear order is taken.
    let taken = decide(&disk(), &foreign(), &order("S1"));
    assert_eq!(taken, make(Permission::Takeover, 1));
}

#[test]
fn a_foreign_disk_says_what_is_on_it_and_how_to_use_it() {
    let Decision::Foreign(reason) = decide(&disk(), &foreign(), &Orders::default()) else {
        panic!()
    };
    assert!(reason.contains("an ext4 file system"), "{reason}");
    assert!(reason.contains("zos.takeover=S1"), "{reason}");
}

#[test]
fn a_copy_of_a_disk_in_the_making_is_not_written() {
    let traces = Traces {
        claim: Some(making(false)),
        btrfs: None,
        foreign: vec![],
        remains: Remains::Unfinished,
    };
    let content = Content::Read(traces);
    let copies =
        [Disk { serial: "S9".to_owned(), ..disk() }, Disk { size_bytes: SIZE * 2, ..disk() }];
    for copy in copies {
        assert_eq!(kind(&decide(&copy, &content, &Orders::default())), Kind::Foreign);
    }
    let decided = decide(&disk(), &content, &Orders::default());
    assert_eq!(decided, make(Permission::Interrupted, 4));
}

#[test]
fn a_pool_is_mounted_behind_another_controller_and_after_the_disk_has_grown() {
    let claim = making(false).made();
    let traces = Traces {
        claim: Some(claim.clone()),
        btrfs: Some(pool()),
        foreign: vec![],
        remains: Remains::Strange,
    };
    let moved = Disk { serial: "RAID-1".to_owned(), size_bytes: SIZE * 2, ..disk() };
    let decided = decide(&moved, &Content::Read(traces), &Orders::default());
    assert_eq!(decided, Decision::Mount(claim));
}

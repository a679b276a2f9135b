//! What becomes of a disk: a pure function of what sysfs and the disk say and of the orders given.
//!
//! ```text
//!                    foreign signature      nothing known            our file system
//! no claim           Foreign *              blank: Make, else        Foreign *
//!                                           Foreign *
//! claim, making      Foreign **             ours alone: Make again,  the same
//!                                           else Foreign **
//! claim, made        Foreign **             Failed *                 Mount
//!
//! *  Make, when an order names the serial number and none was carried out on this disk before.
//! ** Make, when the order that is being carried out was interrupted and is still given.
//! ```
//!
//! A disk whose pool was complete once is never made again by itself, whatever it looks like. One
//! whose pool was in the making is made again by itself only when it is the disk that was claimed and
//! everything on it is zero or comes from the mkfs that was interrupted; of a disk that was being
//! taken over, only the ends were cleared, and so only they count.

use crate::claim::{Claim, Phase};
use crate::disk::Disk;
use crate::uuid::Uuid;
use std::collections::BTreeSet;

/// The smallest disk that is of use to a customer.
pub const SIZE_MIN: u64 = 1 << 30;

/// What the disk itself says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Reading failed: what was read, and the cause.
    Unreadable(String),
    /// It holds the boot loader that started this node.
    BootMedium,
    /// It was read.
    Read(Traces),
}

/// What was found on a disk that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// The ownership record with the highest generation.
    pub claim: Option<Claim>,
    /// A complete btrfs superblock, ours or not.
    pub btrfs: Option<Uuid>,
    /// Signatures of anything but btrfs.
    pub foreign: Vec<&'static str>,
    /// What was looked at, our record apart. Known when nothing above says whose the disk is.
    pub remains: Remains,
}

/// What was looked at on a disk without a signature, from the least to the most that speaks against
/// writing there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remains {
    /// Everything is zero, a torn record of ours apart.
    Blank,
    /// Everything is zero, or belongs to the file system that the record says is being made.
    Unfinished,
    /// The same at both ends of the disk. Between them is something else.
    Cleared,
    /// Something else, or it was not looked at.
    Strange,
}

/// Farmer's orders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orders {
    /// Serial numbers of disks to be wiped and taken over.
    pub takeover: BTreeSet<String>,
    /// Serial numbers that name more than one disk.
    pub ambiguous: BTreeSet<String>,
}

/// What becomes of a disk. Every variant but `Make` leaves it as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Not ours to use.
    Ignore(String),
    /// Below the smallest useful size.
    TooSmall(String),
    /// Belongs to somebody else.
    Foreign(String),
    /// Ours, or may be ours, and of no use now.
    Failed(String),
    /// Write the claim, make the file system.
    Make(Make),
    /// Mount the pool.
    Mount(Claim),
}

/// How a pool is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Make {
    /// Why the disk may be written.
    pub permission: Permission,
    /// Generation of the record to write.
    pub generation: u64,
}

/// Why a disk may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Nothing is on it.
    Blank,
    /// It was blank when it was claimed, and mkfs did not finish.
    Interrupted,
    /// An order names it. Whatever is on it goes.
    Takeover,
}

/// Decides what can be decided without reading the disk.
pub fn decide_unread(disk: &Disk) -> Option<Decision> {
    if let Some(obstacle) = &disk.obstacle {
        return Some(Decision::Ignore(format!("not used: {obstacle}")));
    }
    if disk.size_bytes < SIZE_MIN {
        let mib = disk.size_bytes >> 20;
        let reason = format!("{mib} MiB; a pool needs {} MiB", SIZE_MIN >> 20);
        return Some(Decision::TooSmall(reason));
    }
    None
}

/// Decides, once the disk was read.
pub fn decide(disk: &Disk, content: &Content, orders: &Orders) -> Decision {
    if let Some(decision) = decide_unread(disk) {
        return decision;
    }
    match content {
        Content::Unreadable(why) => Decision::Failed(format!("{why}; check cable and disk")),
        Content::BootMedium => Decision::Ignore("not used: the node was booted from it".to_owned()),
        Content::Read(traces) => decide_read(disk, traces, orders),
    }
}

fn decide_read(disk: &Disk, traces: &Traces, orders: &Orders) -> Decision {
    let order = order(disk, orders);
    let Some(claim) = &traces.claim else { return decide_unclaimed(traces, &order) };
    let on_its_disk = claim.is_of(&disk.serial, disk.size_bytes);
    let again = |permission| Decision::Make(Make { permission, generation: claim.generation + 1 });
    let other_btrfs = traces.btrfs.filter(|found| *found != claim.pool());
    let mut foreign = traces.foreign.clone();
    foreign.extend(other_btrfs.map(|_| BTRFS));
    let allowed = if claim.takeover { Remains::Cleared } else { Remains::Unfinished };
    match (claim.phase, foreign.as_slice(), traces.btrfs) {
        (Phase::Making, _, _) if !on_its_disk => Decision::Foreign(
            "holds the record of a pool in the making of another disk: it looks like a copy; wipe \
             it elsewhere to use it"
                .to_owned(),
        ),
        (Phase::Making, [], _) if traces.remains <= allowed && claim.takeover => {
            again(Permission::Takeover)
        }
        (Phase::Making, [], _) if traces.remains <= allowed => again(Permission::Interrupted),
        (Phase::Making, names, _) => match order {
            Order::Given => again(Permission::Takeover),
            Order::Absent(how) if names.is_empty() => Decision::Foreign(format!(
                "a pool was being made on it, and it holds something else as well; {how}"
            )),
            Order::Absent(how) if claim.takeover => Decision::Foreign(format!(
                "its takeover was interrupted, {} is still on it; {how}",
                names.join(", ")
            )),
            Order::Absent(how) => foreign_names(names, &how),
        },
        (Phase::Made, [], Some(_)) => Decision::Mount(claim.clone()),
        (Phase::Made, [], None) => match order {
            Order::Given if !claim.takeover => again(Permission::Takeover),
            Order::Given | Order::Absent(_) => Decision::Failed(
                "held a pool of this grid whose superblock is damaged or gone; it is left as it \
                 is, so that its data can be rescued"
                    .to_owned(),
            ),
        },
        (Phase::Made, names, _) => match order {
            Order::Given if !claim.takeover => again(Permission::Takeover),
            Order::Given => Decision::Foreign(format!(
                "holds {}; the order to take it over was carried out before and counts once; \
                 wipe it elsewhere to use it",
                names.join(", ")
            )),
            Order::Absent(how) => foreign_names(names, &how),
        },
    }
}

const BTRFS: &str = "a btrfs file system that is not ours";

fn decide_unclaimed(traces: &Traces, order: &Order) -> Decision {
    let make = |permission| Decision::Make(Make { permission, generation: 1 });
    let mut foreign = traces.foreign.clone();
    foreign.extend(traces.btrfs.map(|_| BTRFS));
    let is_blank = traces.remains == Remains::Blank;
    match (foreign.as_slice(), is_blank, order) {
        ([], true, _) => make(Permission::Blank),
        (_, _, Order::Given) => make(Permission::Takeover),
        ([], false, Order::Absent(how)) => foreign_names(&["data of an unknown kind"], how),
        (names, _, Order::Absent(how)) => foreign_names(names, how),
    }
}

fn foreign_names(names: &[&str], how: &str) -> Decision {
    Decision::Foreign(format!("holds {} and is left alone; {how}", names.join(", ")))
}

enum Order {
    Given,
    /// How it could be given, as the end of a sentence.
    Absent(String),
}

fn order(disk: &Disk, orders: &Orders) -> Order {
    let serial = &disk.serial;
    if serial.is_empty() {
        return Order::Absent("it has no serial number to order a takeover by".to_owned());
    }
    if orders.ambiguous.contains(serial) {
        return Order::Absent(format!(
            "serial {serial} names several disks: no order can name one"
        ));
    }
    if orders.takeover.contains(serial) {
        return Order::Given;
    }
    Order::Absent(format!("to wipe it and use it, boot with zos.takeover={serial}"))
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

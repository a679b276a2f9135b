//! The node's secret: 32 bytes, the same on every pool, made once.
//!
//! [`plan`] decides from what the pools say. It never makes a second identity for a node that had
//! one: while any pool shows earlier use, or any disk that may be ours cannot be read, a missing
//! identity is a problem to report.

use crate::file;
use crate::uuid::Uuid;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// Name of the file in a pool's identity subvolume.
const FILE: &str = "seed";

/// The secret. Printed as dots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seed([u8; 32]);

impl Seed {
    /// Makes a new one.
    pub(crate) fn mint() -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes))
    }

    /// The form on disk and on the wire.
    pub(crate) fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// What a pool says about the identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Copy {
    /// It holds this one.
    Found(Seed),
    /// It holds none.
    Missing,
    /// It holds one that cannot be read, for this reason.
    Broken(String),
}

/// One pool, as far as the identity is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Witness {
    /// Which pool.
    pub(crate) pool: Uuid,
    /// Its copy.
    pub(crate) copy: Copy,
    /// Whether anything of a customer or of the node is on it.
    pub(crate) used: bool,
}

/// What is to be done and said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Where the identity comes from.
    pub(crate) source: Source,
    /// Pools that get a copy.
    pub(crate) write_to: Vec<Uuid>,
    /// Whether it survives a power-off once the copies are written.
    pub(crate) durable: bool,
    /// Why there is none, or why it is not durable.
    pub(crate) problem: Option<String>,
}

/// Where the identity comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// There is none.
    None,
    /// This one is known.
    Known(Seed),
    /// A new one has to be made.
    Mint,
}

/// Decides. `doubtful` names disks that may hold the identity and cannot be read; `running` is the
/// identity that the node already uses since it was booted.
pub(crate) fn plan(witnesses: &[Witness], doubtful: &[String], running: Option<Seed>) -> Plan {
    let found = |witness: &Witness| match witness.copy {
        Copy::Found(seed) => Some((seed, witness.pool)),
        Copy::Missing | Copy::Broken(_) => None,
    };
    let mut found: Vec<(Seed, Uuid)> = witnesses.iter().filter_map(found).collect();
    found.sort_unstable_by_key(|(_, pool)| *pool);
    let first = found.first().copied();
    let other = first.and_then(|(seed, _)| found.iter().find(|(next, _)| *next != seed));
    let Some(seed) = running.or(first.map(|(seed, _)| seed)) else {
        return plan_first(witnesses, doubtful);
    };
    if running.is_none()
        && let (Some((_, one)), Some((_, two))) = (first, other)
    {
        return none(format!(
            "pools {one} and {two} hold different identities: they come from two nodes; remove \
             the disk that does not belong here"
        ));
    }
    // A node that runs without a disk must not put its name on a pool that had another one.
    let known_elsewhere = found.iter().any(|(copy, _)| *copy == seed);
    let may_write = |witness: &&Witness| known_elsewhere || !witness.used;
    let lacking = witnesses.iter().filter(|witness| !matches!(witness.copy, Copy::Found(_)));
    let write_to: Vec<Uuid> = lacking.filter(may_write).map(|witness| witness.pool).collect();
    let durable = known_elsewhere || !write_to.is_empty();
    let alien = found.iter().find(|(copy, _)| *copy != seed).map(|(_, pool)| {
        format!(
            "pool {pool} holds another identity than the one that this node started with; remove \
             its disk, or boot again to use it"
        )
    });
    let problem = alien.or_else(|| (!durable).then(|| NOT_DURABLE.to_owned()));
    Plan { source: Source::Known(seed), write_to, durable, problem }
}

/// No pool tells an identity, and none is in use.
fn plan_first(witnesses: &[Witness], doubtful: &[String]) -> Plan {
    if let Some(used) = witnesses.iter().find(|witness| witness.used) {
        let why = match &used.copy {
            Copy::Broken(why) => why.as_str(),
            Copy::Missing | Copy::Found(_) => "it is missing",
        };
        return none(format!(
            "pool {} was in use before, but its identity cannot be read: {why}",
            used.pool
        ));
    }
    if let Some(disk) = doubtful.first() {
        return none(format!(
            "disk {disk} may hold the identity and cannot be used; repair or remove it, and boot \
             again"
        ));
    }
    let write_to: Vec<Uuid> = witnesses.iter().map(|witness| witness.pool).collect();
    let durable = !write_to.is_empty();
    let problem = (!durable).then(|| NOT_DURABLE.to_owned());
    Plan { source: Source::Mint, write_to, durable, problem }
}

const NOT_DURABLE: &str = "no usable pool holds the identity: without one it is gone at power-off";

fn none(problem: String) -> Plan {
    Plan { source: Source::None, write_to: Vec::new(), durable: false, problem: Some(problem) }
}

/// Reads the copy in `directory`.
pub(crate) fn load(directory: &Path) -> Copy {
    match fs::read(directory.join(FILE)) {
        Ok(bytes) => parse(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Copy::Missing,
        Err(error) => Copy::Broken(error.to_string()),
    }
}

fn parse(bytes: &[u8]) -> Copy {
    let mut seed = [0; 32];
    match bytes.strip_suffix(b"\n").map(|digits| hex::decode_to_slice(digits, &mut seed)) {
        Some(Ok(())) => Copy::Found(Seed(seed)),
        Some(Err(_)) | None => Copy::Broken("the file is damaged".to_owned()),
    }
}

/// Writes a copy into `directory`, whole or not at all, durable on return.
pub(crate) fn store(directory: &Path, seed: Seed) -> io::Result<()> {
    file::replace(directory, FILE, format!("{}\n", seed.to_hex()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Seed = Seed([1; 32]);
    const B: Seed = Seed([2; 32]);

    fn pool(n: u8) -> Uuid {
        Uuid::from_random([n; 16])
    }

    fn witness(n: u8, copy: Copy, used: bool) -> Witness {
        Witness { pool: pool(n), copy, used }
    }

    fn broken() -> Copy {
        Copy::Broken("I/O error".to_owned())
    }

    #[test]
    fn one_identity_is_made_for_blank_disks_and_copied_to_new_ones() {
        let fresh = [witness(1, Copy::Missing, false), witness(2, Copy::Missing, false)];
        let first = plan(&fresh, &[], None);
        assert_eq!((first.source, first.durable), (Source::Mint, true));
        assert_eq!(first.write_to, [pool(1), pool(2)]);
        let grown = [witness(1, Copy::Found(A), true), witness(3, Copy::Missing, false)];
        let next = plan(&grown, &["sdx".to_owned()], None);
        assert_eq!((next.source, next.write_to), (Source::Known(A), vec![pool(3)]));
        assert!(next.durable && next.problem.is_none());
    }

    #[test]
    fn a_lost_copy_is_repaired_from_another_pool() {
        for copy in [Copy::Missing, broken()] {
            let pools = [witness(1, copy, true), witness(2, Copy::Found(A), true)];
            let plan = plan(&pools, &[], None);
            assert_eq!((plan.source, plan.write_to), (Source::Known(A), vec![pool(1)]));
        }
    }

    #[test]
    fn a_node_that_was_in_use_never_gets_a_second_identity() {
        let fresh = witness(2, Copy::Missing, false);
        let cases = [
            (vec![witness(1, Copy::Missing, true), fresh.clone()], vec![]),
            (vec![witness(1, broken(), true), fresh.clone()], vec![]),
            (vec![fresh.clone()], vec!["sda".to_owned()]),
            (vec![], vec!["sda".to_owned()]),
        ];
        for (witnesses, doubtful) in cases {
            let plan = plan(&witnesses, &doubtful, None);
            assert_eq!(plan.source, Source::None, "{witnesses:?}");
            assert!(plan.write_to.is_empty() && plan.problem.is_some());
        }
        // Without the doubt the same disk gets one.
        assert_eq!(plan(&[fresh], &[], None).source, Source::Mint);
    }

    #[test]
    fn pools_that_disagree_are_both_named_and_neither_is_written() {
        let pools = [
            witness(1, Copy::Found(A), true),
            witness(2, Copy::Found(B), true),
            witness(3, Copy::Missing, false),
        ];
        let plan = plan(&pools, &[], None);
        assert_eq!((plan.source, plan.write_to.len()), (Source::None, 0));
        let problem = plan.problem.unwrap();
        assert!(problem.contains(&pool(1).to_string()), "{problem}");
        assert!(problem.contains(&pool(2).to_string()), "{problem}");
    }

    #[test]
    fn without_a_disk_the_identity_is_not_durable_until_a_blank_one_comes() {
        let memory = plan(&[], &[], None);
        assert_eq!((memory.source, memory.durable), (Source::Mint, false));
        assert!(memory.problem.is_some());
        let plugged = plan(&[witness(1, Copy::Missing, false)], &[], Some(A));
        assert_eq!((plugged.source, plugged.durable), (Source::Known(A), true));
        assert_eq!(plugged.write_to, [pool(1)]);
    }

    #[test]
    fn a_pool_of_another_node_changes_nothing_while_this_one_runs() {
        let alien = witness(9, Copy::Found(B), true);
        let nameless = witness(8, Copy::Missing, true);
        let plan = plan(&[alien, nameless], &[], Some(A));
        assert_eq!((plan.source, plan.durable), (Source::Known(A), false));
        assert!(plan.write_to.is_empty());
        assert!(plan.problem.unwrap().contains(&pool(9).to_string()));
    }

    #[test]
    fn a_copy_survives_the_disk_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(load(directory.path()), Copy::Missing);
        store(directory.path(), A).unwrap();
        assert_eq!(load(directory.path()), Copy::Found(A));
        for bad in ["", "\n", "00\n", &A.to_hex(), &format!("{}zz\n", &A.to_hex()[..62])] {
            fs::write(directory.path().join(FILE), bad).unwrap();
            assert!(matches!(load(directory.path()), Copy::Broken(_)), "{bad:?}");
        }
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert!(!format!("{:?}", Copy::Found(A)).contains("0101"));
    }
}

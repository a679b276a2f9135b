//! Which pools the node has had, kept on every one of them.
//!
//! At boot, a node that sees them all need not wait for further disks: none of those can hold a
//! later choice of the primary pool. A pool is never forgotten. One that is gone for good costs a
//! boot the wait for the machine's other drivers, and nothing else.

use crate::file;
use crate::uuid::Uuid;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// Pools of one node.
pub(crate) type Peers = BTreeSet<Uuid>;

/// Name of the file in a pool's identity subvolume.
const FILE: &str = "pools";

/// What one pool says: its own id, and the pools that it knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Voice<'p> {
    /// Which pool.
    pub(crate) pool: Uuid,
    /// Pools that it knows; none before it was told.
    pub(crate) knows: &'p Peers,
}

/// All pools that are known, those that speak included.
pub(crate) fn merge(voices: &[Voice<'_>]) -> Peers {
    let known = voices.iter().flat_map(|voice| voice.knows.iter().copied());
    known.chain(voices.iter().map(|voice| voice.pool)).collect()
}

/// Whether every pool that is known speaks, and every one that speaks was told of the others.
pub(crate) fn are_all_here(voices: &[Voice<'_>]) -> bool {
    let all = merge(voices);
    let here: Peers = voices.iter().map(|voice| voice.pool).collect();
    !here.is_empty() && here == all && voices.iter().all(|voice| *voice.knows == all)
}

/// Reads the copy in `directory`. A missing or damaged one knows nothing, and so is not believed.
pub(crate) fn load(directory: &Path) -> Peers {
    std::fs::read_to_string(directory.join(FILE)).map_or_else(|_| Peers::new(), |text| parse(&text))
}

/// One id on each line. A line that is none makes all worthless: it was another pool.
fn parse(text: &str) -> Peers {
    let pools: Option<Peers> = text.lines().map(Uuid::parse).collect();
    pools.unwrap_or_default()
}

/// Writes a copy into `directory`, whole or not at all, durable on return.
pub(crate) fn store(directory: &Path, peers: &Peers) -> io::Result<()> {
    let lines: Vec<String> = peers.iter().map(|pool| format!("{pool}\n")).collect();
    file::replace(directory, FILE, lines.concat().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(n: u8) -> Uuid {
        Uuid::from_random([n; 16])
    }

    fn peers(numbers: &[u8]) -> Peers {
        numbers.iter().copied().map(pool).collect()
    }

    #[test]
    fn all_are_here_only_when_each_was_told_of_all() {
        let (both, one, none) = (peers(&[1, 2]), peers(&[1]), peers(&[]));
        let voice = |n, knows| Voice { pool: pool(n), knows };
        assert!(are_all_here(&[voice(1, &one)]));
        assert!(are_all_here(&[voice(1, &both), voice(2, &both)]));
        assert!(!are_all_here(&[voice(1, &both)]), "pool 2 may hold a later choice");
        assert!(!are_all_here(&[voice(1, &one), voice(2, &both)]), "pool 1 was away meanwhile");
        assert!(!are_all_here(&[voice(1, &none)]), "nobody told it yet");
        assert!(!are_all_here(&[]));
    }

    #[test]
    fn a_copy_survives_and_a_damaged_one_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        assert!(load(directory.path()).is_empty());
        store(directory.path(), &peers(&[1, 2])).unwrap();
        assert_eq!(load(directory.path()), peers(&[1, 2]));
        assert!(parse(&format!("{}\nx\n", pool(1))).is_empty());
    }
}

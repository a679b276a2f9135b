//! Which volume is on which pool, kept on every pool of the node.
//!
//! Without it, a volume whose disk has died would be made anew, empty, on another pool, and its
//! owner would take the empty one for lost data. A pool that can be read is believed about itself;
//! the catalogue speaks for those that cannot.

use crate::file;
use crate::uuid::Uuid;
use crate::volume::Quotas;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Pools by volume id.
pub(crate) type Catalogue = BTreeMap<String, Uuid>;

/// Name of the file in a pool's identity subvolume.
const FILE: &str = "volumes";

/// What one usable pool says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Voice<'p> {
    /// Which pool.
    pub(crate) pool: Uuid,
    /// Volumes that it holds.
    pub(crate) holds: &'p Quotas,
    /// Volumes that it knows of, its own or others'.
    pub(crate) knows: &'p Catalogue,
}

/// All that is known: what each pool holds, and what any pool knows of pools that are not there.
pub(crate) fn merge(voices: &[Voice<'_>]) -> Catalogue {
    let is_here = |pool: &Uuid| voices.iter().any(|voice| voice.pool == *pool);
    let known = voices.iter().flat_map(|voice| voice.knows);
    let elsewhere = known.filter(|(_, pool)| !is_here(pool));
    let mut merged: Catalogue = elsewhere.map(|(id, pool)| (id.clone(), *pool)).collect();
    for voice in voices {
        merged.extend(voice.holds.keys().map(|id| (id.clone(), voice.pool)));
    }
    merged
}

/// Reads the copy in `directory`. A missing or damaged one knows nothing: other pools have theirs.
pub(crate) fn load(directory: &Path) -> Catalogue {
    std::fs::read_to_string(directory.join(FILE))
        .map_or_else(|_| Catalogue::new(), |text| parse(&text))
}

/// One line for each volume: id, space, pool.
fn parse(text: &str) -> Catalogue {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.filter_map(|(id, pool)| Some((id.to_owned(), Uuid::parse(pool)?))).collect()
}

/// Writes a copy into `directory`, whole or not at all, durable on return.
pub(crate) fn store(directory: &Path, catalogue: &Catalogue) -> io::Result<()> {
    let lines: Vec<String> = catalogue.iter().map(|(id, pool)| format!("{id} {pool}\n")).collect();
    file::replace(directory, FILE, lines.concat().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(n: u8) -> Uuid {
        Uuid::from_random([n; 16])
    }

    fn holds(ids: &[&str]) -> Quotas {
        ids.iter().map(|id| ((*id).to_owned(), 1)).collect()
    }

    fn knows(rows: &[(&str, u8)]) -> Catalogue {
        rows.iter().map(|(id, n)| ((*id).to_owned(), pool(*n))).collect()
    }

    #[test]
    fn a_volume_on_a_pool_that_is_gone_stays_known() {
        let (own, old) = (holds(&["a"]), knows(&[("a", 1), ("b", 2)]));
        let merged = merge(&[Voice { pool: pool(1), holds: &own, knows: &old }]);
        assert_eq!(merged, knows(&[("a", 1), ("b", 2)]));
    }

    #[test]
    fn a_pool_is_believed_about_itself() {
        // Pool 1 was away while `a` was deleted on pool 2 and `b` was made there.
        let (first, stale) = (holds(&[]), knows(&[("a", 2), ("c", 1)]));
        let (second, fresh) = (holds(&["b"]), knows(&[("b", 2)]));
        let merged = merge(&[
            Voice { pool: pool(1), holds: &first, knows: &stale },
            Voice { pool: pool(2), holds: &second, knows: &fresh },
        ]);
        assert_eq!(merged, knows(&[("b", 2)]));
        assert!(merge(&[]).is_empty());
    }

    #[test]
    fn a_copy_survives_the_disk_and_damage_loses_only_lines() {
        let directory = tempfile::tempdir().unwrap();
        assert!(load(directory.path()).is_empty());
        let catalogue = knows(&[("a", 1), ("b-2", 2)]);
        store(directory.path(), &catalogue).unwrap();
        assert_eq!(load(directory.path()), catalogue);
        let damaged = format!("\0\nx y\na {}\n", pool(1));
        assert_eq!(parse(&damaged), knows(&[("a", 1)]));
    }
}

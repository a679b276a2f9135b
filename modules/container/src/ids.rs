//! Which ids of the node a container's user namespace maps: disjoint ranges, one for each workload.
//!
//! The table is data that contractd keeps in its durable state. A workload keeps its range for as
//! long as it exists, because the files of writable roots would belong to somebody else otherwise.

use crate::check::IDS;
use std::collections::BTreeMap;
use thiserror::Error;

/// The first range. What is below belongs to the node and to a margin for its own services.
pub const BASE_FIRST: u32 = 1 << 20;
/// Ranges that there are.
pub const RANGES_MAX: u32 = 4096;

/// Every range is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("all {RANGES_MAX} ranges of user ids are taken")]
pub struct Exhausted;

/// The range of `id` in `table`, which maps ids of workloads to first ids.
///
/// Deterministic: the range it has, or the lowest free one. The caller adds the answer to the
/// table and makes it durable before it starts the container.
pub fn base(table: &BTreeMap<String, u32>, id: &str) -> Result<u32, Exhausted> {
    if let Some(base) = table.get(id) {
        return Ok(*base);
    }
    let mut taken: Vec<u32> = table.values().copied().collect();
    taken.sort_unstable();
    (0..RANGES_MAX)
        .map(|number| BASE_FIRST + number * IDS)
        .find(|base| taken.binary_search(base).is_err())
        .ok_or(Exhausted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_keeps_its_range_and_others_get_the_lowest_free_one() {
        let mut table = BTreeMap::new();
        for id in ["a", "b", "c"] {
            let base = base(&table, id).unwrap();
            table.insert(id.to_owned(), base);
        }
        assert_eq!(base(&table, "b"), Ok(BASE_FIRST + IDS));
        table.remove("b");
        assert_eq!(base(&table, "d"), Ok(BASE_FIRST + IDS));
        assert_eq!(base(&table, "c"), Ok(BASE_FIRST + 2 * IDS));
    }

    #[test]
    fn the_ranges_end_before_the_numbers_do() {
        let full: BTreeMap<String, u32> =
            (0..RANGES_MAX).map(|n| (n.to_string(), BASE_FIRST + n * IDS)).collect();
        assert_eq!(base(&full, "x"), Err(Exhausted));
        let last = full.values().max().unwrap();
        assert!(last.checked_add(IDS).is_some_and(|end| end < 1 << 31));
    }
}

//! Where the node's volumes are, what they take, and whether more of them fit. Pure.
//!
//! A volume is on one pool as a whole, so what is free on all pools together says little.

use crate::plan::prefix;
use contract::{Capacity, ContractId, workload::Medium};

/// A pool that can be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) uuid: String,
    pub(crate) medium: Medium,
    /// What all its volumes together may be promised.
    pub(crate) size_bytes: u64,
}

/// A volume that is there. It takes its place whether or not its contract still runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) id: String,
    /// UUID of its pool.
    pub(crate) pool: String,
    pub(crate) size_bytes: u64,
}

/// All of both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Storage {
    pub(crate) pools: Vec<Pool>,
    pub(crate) volumes: Vec<Volume>,
}

/// What is free on each pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rooms(Vec<(Medium, u64)>);

impl Storage {
    /// What the volumes take whose ids pass.
    pub(crate) fn taken(&self, passes: impl Fn(&str) -> bool) -> Capacity {
        self.volumes.iter().filter(|volume| passes(&volume.id)).fold(
            Capacity::default(),
            |sum, volume| {
                let pool = self.pools.iter().find(|pool| pool.uuid == volume.pool);
                sum.plus(
                    &pool.map_or(Capacity::default(), |pool| {
                        of_medium(pool.medium, volume.size_bytes)
                    }),
                )
            },
        )
    }

    /// What the volumes of a contract take.
    pub(crate) fn taken_by(&self, contract: &ContractId) -> Capacity {
        let prefix = prefix(contract);
        self.taken(|id| id.starts_with(&prefix))
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.volumes.iter().any(|volume| volume.id == id)
    }

    pub(crate) fn rooms(&self) -> Rooms {
        let free = |pool: &Pool| {
            let here = self.volumes.iter().filter(|volume| volume.pool == pool.uuid);
            let promised = here.fold(0_u64, |sum, one| sum.saturating_add(one.size_bytes));
            (pool.medium, pool.size_bytes.saturating_sub(promised))
        };
        Rooms(self.pools.iter().map(free).collect())
    }
}

impl Rooms {
    /// Takes room for all of these volumes or, with the reason, for none: each on the pool of its
    /// medium with the most room, as storaged will do it.
    pub(crate) fn place(&mut self, volumes: &[(Medium, u64)]) -> Result<(), String> {
        let mut rooms = self.0.clone();
        for &(medium, size_bytes) in volumes {
            let best = rooms.iter_mut().filter(|room| room.0 == medium).max_by_key(|room| room.1);
            match best {
                Some(room) if size_bytes <= room.1 => room.1 -= size_bytes,
                room => {
                    let (free, kind) = (room.map_or(0, |room| room.1), name(medium));
                    return Err(format!(
                        "a volume of {size_bytes} bytes fits no {kind} disk: the most that is free \
                         on one is {free} bytes"
                    ));
                }
            }
        }
        self.0 = rooms;
        Ok(())
    }
}

fn name(medium: Medium) -> &'static str {
    match medium {
        Medium::Ssd => "flash",
        Medium::Hdd => "rotating",
    }
}

fn of_medium(medium: Medium, bytes: u64) -> Capacity {
    match medium {
        Medium::Ssd => Capacity { sru_bytes: bytes, ..Capacity::default() },
        Medium::Hdd => Capacity { hru_bytes: bytes, ..Capacity::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage() -> Storage {
        let pool = |uuid: &str, medium, size_bytes| Pool { uuid: uuid.into(), medium, size_bytes };
        let volume = |id: &str, pool: &str, size_bytes| Volume {
            id: id.into(),
            pool: pool.into(),
            size_bytes,
        };
        Storage {
            pools: vec![
                pool("a", Medium::Ssd, 100),
                pool("b", Medium::Ssd, 60),
                pool("c", Medium::Hdd, 1000),
            ],
            volumes: vec![volume("x-1", "a", 70), volume("y-1", "c", 10), volume("x-2", "gone", 9)],
        }
    }

    #[test]
    fn a_volume_needs_one_pool_of_its_medium_that_holds_it_whole() {
        let fits = |volumes: &[(Medium, u64)]| storage().rooms().place(volumes).is_ok();
        assert!(fits(&[(Medium::Ssd, 60)]));
        // 90 are free, on two pools.
        assert!(!fits(&[(Medium::Ssd, 61)]));
        assert!(fits(&[(Medium::Ssd, 60), (Medium::Ssd, 30)]));
        assert!(!fits(&[(Medium::Ssd, 60), (Medium::Ssd, 31)]));
        assert!(fits(&[(Medium::Hdd, 990)]));
        assert!(!fits(&[(Medium::Hdd, 991)]));
    }

    #[test]
    fn what_does_not_fit_takes_nothing() {
        let mut rooms = storage().rooms();
        let reason = rooms.place(&[(Medium::Ssd, 60), (Medium::Ssd, 31)]).unwrap_err();
        assert!(reason.contains("31 bytes fits no flash disk"), "{reason}");
        assert!(reason.ends_with("is 30 bytes"), "{reason}");
        assert_eq!(rooms, storage().rooms());
    }

    #[test]
    fn volumes_take_what_they_are_promised_on_the_medium_where_they_are() {
        let taken = storage().taken(|_| true);
        assert_eq!((taken.sru_bytes, taken.hru_bytes), (70, 10));
        let taken = storage().taken(|id| id.starts_with("y-"));
        assert_eq!((taken.sru_bytes, taken.hru_bytes), (0, 10));
    }
}

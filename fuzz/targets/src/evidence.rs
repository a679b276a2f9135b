//! The life of a contract as a file, which anybody may have made, and what an auditor is told of it.

use contract::{
    FlistId,
    testkit::{NETWORK, World},
};
use std::sync::LazyLock;
use threebot::{
    People,
    audit::{Expected, audit},
    evidence::Evidence,
};
use tlog::{Algorithm, Policy, Signer};

/// The grid of the seed.
static WORLD: LazyLock<World> = LazyLock::new(|| World::new(crate::now()));

/// The log of the seed, and both of its witnesses.
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let key = |name: &str, algorithm, seed: u8| {
        let signer = Signer::new(name, algorithm, &[seed; 32]).expect("the name is one");
        signer.verifier().clone()
    };
    let witness = |n: u8| key(&format!("witness.example/{n}"), Algorithm::Cosignature, n);
    let log = key("log.example/life", Algorithm::Ed25519, 90);
    let witnesses = vec![witness(91), witness(92)];
    Policy::new("log.example/life", vec![log], witnesses, 2).expect("it can be met")
});

/// Evidence, with and without a log. Whatever is done to it without the keys, a run that is not the one
/// that was agreed on and reported is never called good.
pub fn evidence(data: &[u8]) -> bool {
    let Ok(evidence) = Evidence::read(data) else { return false };
    let expected = Expected { contract: WORLD.contract(), network: NETWORK, from_first: false };
    for policy in [None, Some(&*POLICY)] {
        let Ok(found) = audit(&evidence, policy, &expected, &People::default()) else { continue };
        assert_eq!(found.owner, WORLD.id("owner"));
        if !found.findings.is_empty() {
            continue;
        }
        for run in found.runs {
            assert_eq!((run.node, run.version), (WORLD.node_id(), 1), "a forgery");
            assert_eq!(run.ran.flist, FlistId([9; 32]), "a forgery");
            assert!(policy.is_none() || run.entry.is_some(), "a forgery");
        }
    }
    true
}

//! Answers of a registry, which nobody trusts, as a node and the command line read them.

use registry_api::{
    problem::Problem,
    view,
    write::{Accepted, DocumentsAnswer, HeartbeatAnswer, ResultsAnswer},
};
use serde::{Serialize, de::DeserializeOwned};

/// The first byte says what was asked for.
pub fn registry_answers(data: &[u8]) -> bool {
    let Some((which, bytes)) = data.split_first() else { return false };
    let readers: [fn(&[u8]) -> bool; 16] = [
        read::<view::Inbox>,
        read::<Problem>,
        read::<Accepted>,
        read::<DocumentsAnswer>,
        read::<ResultsAnswer>,
        read::<HeartbeatAnswer>,
        read::<view::IdentityView>,
        read::<view::Farms>,
        read::<view::FarmView>,
        read::<view::Nodes>,
        read::<view::NodeView>,
        read::<view::Contracts>,
        read::<view::ContractView>,
        read::<view::Results>,
        read::<view::ResultView>,
        read::<view::Decisions>,
    ];
    readers[usize::from(*which) % readers.len()](bytes)
}

/// What was read can be written, and then says the same.
fn read<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> bool {
    let Ok(answer) = serde_json::from_slice::<T>(bytes) else { return false };
    let written = serde_json::to_vec(&answer).expect("an answer has a JSON form");
    let again: T = serde_json::from_slice(&written).expect("what was written reads");
    assert_eq!(answer, again);
    true
}

//! Statements, envelopes, bundles, and the verdict that is made from them.

use arbitrary::{Arbitrary, Unstructured};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use contract::{
    Bundle, Capacity, Envelope, Kind, Past, Release, Signed, Statement, Timestamp, Trust, Verdict,
    bundle::BUNDLE_BYTES_MAX,
    decision::{Approval, Cancel, Decision},
    envelope::pae,
    farm::{Adoption, Farm, Pool},
    header::Header,
    identity::Identity,
    node::Node,
    release::RECORD_BYTES_MAX,
    report::{Heartbeat, Report},
    scrub::Scrub,
    strict::{self, StrictValue},
    testkit::{NETWORK, World, seal},
    workload::{DOCUMENT_BYTES_MAX, Document},
};
use std::sync::LazyLock;

/// When the fixtures happen, so that seeds stay what they are.
pub fn now() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}

/// The strict reader alone: what it takes has one meaning.
pub fn strict_json(data: &[u8]) -> bool {
    let Ok(value) = strict::read::<StrictValue>(data, BUNDLE_BYTES_MAX) else { return false };
    let written = serde_json::to_vec(&value).expect("a value has a JSON form");
    let again = strict::read::<StrictValue>(&written, usize::MAX).expect("what was written reads");
    assert_eq!(value, again);
    // What we take, everybody takes, and understands in the same way.
    let other: serde_json::Value = serde_json::from_slice(data).expect("it is JSON");
    assert_eq!(other, serde_json::to_value(&value).expect("a value has a JSON form"));
    true
}

/// An envelope of any kind, opened as what it says that it is.
pub fn envelope(data: &[u8]) -> bool {
    let Ok(envelope) = strict::read::<Envelope>(data, BUNDLE_BYTES_MAX) else { return false };
    envelope.kind().is_some_and(|kind| open(kind, &envelope))
}

/// What a publisher signs of an flist. What opens is theirs, within its bounds, and says the same when it is
/// written again.
pub fn release(data: &[u8]) -> bool {
    let Ok(release) = Release::open(data) else { return false };
    assert!(data.len() <= RECORD_BYTES_MAX);
    assert!(release.revision > 0 && !release.name.is_empty());
    let (flist, publisher) = (release.flist, release.publisher);
    assert_eq!(release.fits(&flist, &publisher, release.revision), Ok(()));
    assert!(
        release.revision == u64::MAX
            || release.fits(&flist, &publisher, release.revision + 1).is_err()
    );
    assert!(release.not_after.is_none_or(|end| release.begins(end)));
    assert!(!release.replaces(&release));
    let envelope: Envelope = strict::read(data, RECORD_BYTES_MAX).expect("it was opened");
    let payload = envelope.payload_bytes().expect("it was opened");
    let again = serde_json::to_vec(&release).expect("it is strings and numbers");
    let read = strict::read::<Release>(&again, RECORD_BYTES_MAX).expect("what was written reads");
    assert_eq!(read, strict::read(&payload, RECORD_BYTES_MAX).expect("it was opened"));
    true
}

/// The payload of each kind, and the deployment document: the first byte says which.
pub fn statement(data: &[u8]) -> bool {
    let Some((which, payload)) = data.split_first() else { return false };
    match Kind::ALL.get(usize::from(*which) % (Kind::ALL.len() + 1)) {
        Some(kind) => {
            let mut envelope = WORLD.identity("owner");
            envelope.payload_type = kind.payload_type();
            envelope.payload = base64(payload);
            open(*kind, &envelope)
        }
        None => document(payload),
    }
}

fn base64(payload: &[u8]) -> String {
    BASE64.encode(payload)
}

fn open(kind: Kind, envelope: &Envelope) -> bool {
    match kind {
        Kind::Identity => opened::<Identity>(envelope),
        Kind::Farm => opened::<Farm>(envelope),
        Kind::Adoption => opened::<Adoption>(envelope),
        Kind::Pool => opened::<Pool>(envelope),
        Kind::Node => opened::<Node>(envelope),
        Kind::Contract => opened::<Header>(envelope),
        Kind::Approval => opened::<Approval>(envelope),
        Kind::Cancel => opened::<Cancel>(envelope),
        Kind::Result => opened::<Report>(envelope),
        Kind::Heartbeat => opened::<Heartbeat>(envelope),
        Kind::Scrub => opened::<Scrub>(envelope),
    }
}

/// What was accepted can be written and signed again, and says the same.
fn opened<T: Statement>(envelope: &Envelope) -> bool {
    let Ok(signed) = Signed::<T>::open(envelope) else { return false };
    let payload = envelope.payload_bytes().expect("it was opened");
    assert_eq!(signed.id, contract::StatementId::of(&payload));
    let first = serde_json::to_vec(&signed.body).expect("a statement has a JSON form");
    // Our own form may be longer than the bound, and may not mean anything else.
    if let Ok(again) = strict::read::<T>(&first, T::BYTES_MAX) {
        assert!(again.check().is_ok(), "the same statement is valid again");
        let second = serde_json::to_vec(&again).expect("a statement has a JSON form");
        assert_eq!(first, second);
    } else {
        assert!(first.len() > T::BYTES_MAX || first.len() > payload.len());
    }
    true
}

fn document(payload: &[u8]) -> bool {
    let Ok(document) = strict::read::<Document>(payload, DOCUMENT_BYTES_MAX) else { return false };
    let demand = document.demand();
    if document.check().is_err() {
        return false;
    }
    let order = document.start_order().expect("a valid document has an order");
    assert_eq!(order.len(), document.workloads.len());
    for (index, workload) in order.iter().enumerate() {
        let before = &order[..index];
        let stands = |need: &String| before.iter().any(|earlier| earlier.name == *need);
        assert!(workload.needs.iter().all(stands), "{} starts before its needs", workload.name);
    }
    assert!(demand.fits(&demand));
    true
}

static WORLD: LazyLock<World> = LazyLock::new(|| World::new(now()));
/// All that honest people have ever signed in this grid.
static SIGNED: LazyLock<Vec<Bundle>> = LazyLock::new(|| {
    let mut rejected = WORLD.agreed();
    rejected.approvals.push(WORLD.decide("legal", &rejected.headers[0], Decision::Reject, 30));
    let mut cancelled = WORLD.agreed();
    cancelled.cancels.push(seal(&WORLD.cancel(), WORLD.key("owner")));
    let half = WORLD.updated(|header| header.title = "Half".into(), &["it"]);
    vec![WORLD.agreed(), WORLD.updated(|_| {}, &["it", "legal"]), half, rejected, cancelled]
});

fn trust() -> Trust {
    Trust {
        network: NETWORK.into(),
        farm: WORLD.id("farm"),
        node: WORLD.node_id(),
        free: WORLD.node(1).capacity,
        past: Past::default(),
    }
}

/// Whatever the bundle is: it runs only what the owner, IT and legal have signed, all of them.
fn judged(bundle: &Bundle, trust: &Trust, now: Timestamp) -> Verdict {
    let verdict = contract::verdict(bundle, trust, now);
    let Verdict::Run(agreed) = &verdict else { return verdict };
    let carries = |envelope: &Envelope, name: &'static str| {
        let key = WORLD.key(name).public();
        let payload = envelope.payload_bytes().expect("it counted");
        let message = pae(&envelope.payload_type, &payload);
        // The keys sign the same message always in the same way.
        let signature = WORLD.key(name).sign(&message);
        let wanted = base64(&signature);
        envelope.signatures.iter().any(|entry| entry.keyid == key.id() && entry.sig == wanted)
    };
    let header = bundle.headers.iter().find(|header| header.id().ok() == Some(agreed.header_id));
    let header = header.expect("the version that runs is in the bundle");
    assert!(carries(header, "owner"), "the owner has not signed");
    for name in ["it", "legal"] {
        let approves = |envelope: &&Envelope| {
            Signed::<Approval>::open(envelope).is_ok_and(|approval| {
                approval.body.subject == agreed.header_id
                    && approval.body.decision == Decision::Approve
                    && approval.body.signer == WORLD.id(name)
            })
        };
        let approved =
            bundle.approvals.iter().filter(approves).any(|envelope| carries(envelope, name));
        assert!(approved, "{name} has not approved");
    }
    let granted = |pool: &&Envelope| pool.id().ok() == Some(agreed.header.pool);
    assert!(bundle.pools.iter().filter(granted).any(|pool| carries(pool, "farm")));
    let known = [1, 2].map(|version| WORLD.document(version));
    assert!(known.contains(&agreed.document), "nobody signed for this document");
    assert_eq!(agreed.document.node, trust.node);
    assert!(agreed.header.not_before <= now && now < agreed.header.expires);
    verdict
}

/// A bundle as a registry sends it.
pub fn bundle(data: &[u8]) -> bool {
    let Ok(bundle) = Bundle::read(data) else { return false };
    matches!(judged(&bundle, &trust(), now().plus(50)), Verdict::Run(_))
}

/// What a hostile registry can do to statements without anybody's keys.
#[derive(Debug, Arbitrary)]
enum Edit {
    Remove(List, u8),
    Repeat(List, u8),
    Swap(List, u8, u8),
    /// From another bundle.
    Take(List, u8, u8),
    /// Takes it for something else.
    Move(List, u8, List),
    Payload(List, u8, u16, u8),
    /// Rewrites a place in the payload.
    Text(List, u8, u16, String),
    Type(List, u8, u8),
    Keyid(List, u8, u8),
    Signature(List, u8, u16, u8),
    /// The signatures of another statement.
    Signatures(List, u8, List, u8),
    Document(u16, u8),
    Path(u8, u8, u8),
    Time(i16),
    Started,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum List {
    Headers,
    Approvals,
    Cancels,
    Identities,
    Pools,
}

fn list(bundle: &mut Bundle, which: List) -> &mut Vec<Envelope> {
    match which {
        List::Headers => &mut bundle.headers,
        List::Approvals => &mut bundle.approvals,
        List::Cancels => &mut bundle.cancels,
        List::Identities => &mut bundle.identities,
        List::Pools => &mut bundle.pools,
    }
}

/// Edits that one input makes.
const EDITS_MAX: usize = 16;

/// A bundle that is right, changed in places.
pub fn verdict(data: &[u8]) -> bool {
    let mut source = Unstructured::new(data);
    let first = usize::from(source.arbitrary::<u8>().unwrap_or(0)) % SIGNED.len();
    let mut bundle = SIGNED[first].clone();
    let (mut trust, mut time) = (trust(), now().plus(50));
    for _ in 0..EDITS_MAX {
        if source.is_empty() {
            break;
        }
        let Ok(edit) = source.arbitrary::<Edit>() else { break };
        match edit {
            Edit::Time(offset) => time = now().plus(i64::from(offset)),
            Edit::Started => trust.past.holds = Some(Capacity::default()),
            edit => apply(&mut bundle, edit),
        }
    }
    matches!(judged(&bundle, &trust, time), Verdict::Run(_))
}

fn apply(bundle: &mut Bundle, edit: Edit) {
    let place = |which: u8, list: &[Envelope]| {
        (!list.is_empty()).then(|| usize::from(which) % list.len().max(1))
    };
    let mut change = |which, index, with: &mut dyn FnMut(&mut Envelope)| {
        let list = list(bundle, which);
        if let Some(index) = place(index, list) {
            with(&mut list[index]);
        }
    };
    match edit {
        Edit::Remove(which, index) => {
            let list = list(bundle, which);
            if let Some(index) = place(index, list) {
                list.remove(index);
            }
        }
        Edit::Repeat(which, index) => {
            let list = list(bundle, which);
            if let Some(index) = place(index, list) {
                list.push(list[index].clone());
            }
        }
        Edit::Swap(which, a, b) => {
            let list = list(bundle, which);
            if let (Some(a), Some(b)) = (place(a, list), place(b, list)) {
                list.swap(a, b);
            }
        }
        Edit::Take(which, from, index) => {
            let mut other = SIGNED[usize::from(from) % SIGNED.len()].clone();
            let theirs = list(&mut other, which);
            if let Some(index) = place(index, theirs) {
                list(bundle, which).push(theirs.swap_remove(index));
            }
        }
        Edit::Move(from, index, to) => {
            let found = list(bundle, from);
            if let Some(index) = place(index, found) {
                let moved = found[index].clone();
                list(bundle, to).push(moved);
            }
        }
        Edit::Payload(which, index, at, byte) => change(which, index, &mut |envelope| {
            let mut payload = envelope.payload_bytes().unwrap_or_default();
            let length = payload.len().max(1);
            if let Some(place) = payload.get_mut(usize::from(at) % length) {
                *place = byte;
            }
            envelope.payload = base64(&payload);
        }),
        Edit::Text(which, index, at, text) => change(which, index, &mut |envelope| {
            let mut payload = envelope.payload_bytes().unwrap_or_default();
            let at = usize::from(at) % (payload.len() + 1);
            let end = payload.len().min(at + text.len());
            payload.splice(at..end, text.bytes());
            envelope.payload = base64(&payload);
        }),
        Edit::Type(which, index, kind) => change(which, index, &mut |envelope| {
            let kind = Kind::ALL[usize::from(kind) % Kind::ALL.len()];
            envelope.payload_type = kind.payload_type();
        }),
        Edit::Keyid(which, index, bit) => change(which, index, &mut |envelope| {
            if let Some(entry) = envelope.signatures.first_mut() {
                entry.keyid.0[usize::from(bit / 8)] ^= 1 << (bit % 8);
            }
        }),
        Edit::Signature(which, index, at, byte) => change(which, index, &mut |envelope| {
            if let Some(entry) = envelope.signatures.first_mut() {
                let mut text = std::mem::take(&mut entry.sig).into_bytes();
                let length = text.len().max(1);
                if let Some(place) = text.get_mut(usize::from(at) % length) {
                    *place = byte & 0x7f;
                }
                entry.sig = String::from_utf8_lossy(&text).into_owned();
            }
        }),
        Edit::Signatures(from, a, to, b) => {
            let found = list(bundle, from);
            let Some(a) = place(a, found) else { return };
            let signatures = found[a].signatures.clone();
            let found = list(bundle, to);
            if let Some(b) = place(b, found) {
                found[b].signatures.extend(signatures);
            }
        }
        Edit::Document(at, byte) => {
            if let Some(first) = bundle.documents.first_mut() {
                let mut bytes = first.bytes().unwrap_or_default();
                let length = bytes.len().max(1);
                if let Some(place) = bytes.get_mut(usize::from(at) % length) {
                    *place = byte;
                }
                first.document = base64(&bytes);
            }
        }
        Edit::Path(index, count, byte) => {
            if let Some(first) = bundle.documents.first_mut() {
                first.path.index = u64::from(index);
                let hash = contract::StatementId([byte; 32]);
                first.path.siblings = vec![hash; usize::from(count)];
            }
        }
        Edit::Time(_) | Edit::Started => {}
    }
}

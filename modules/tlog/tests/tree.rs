//! Trees, proofs and tiles against two other ways to compute them: the recursive definitions of
//! RFC 6962, written down as they stand there, and a crate of somebody else.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "the whole file is tests"
)]

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, convert::Infallible};
use tlog::{
    Bundle, Edge, Hash, Resource, Tile, tile,
    tree::{self, Node},
};

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

fn entries(size: u64) -> Vec<Vec<u8>> {
    (0..size).map(entry).collect()
}

fn split(n: usize) -> usize {
    let mut k = 1;
    while k * 2 < n {
        k *= 2;
    }
    k
}

/// MTH of RFC 6962 section 2.1.
fn mth(entries: &[Vec<u8>]) -> Hash {
    match entries {
        [] => Sha256::digest(b"").into(),
        [one] => Sha256::digest([&[0], one.as_slice()].concat()).into(),
        _ => {
            let (left, right) = entries.split_at(split(entries.len()));
            let text = [&[1], mth(left).as_slice(), mth(right).as_slice()].concat();
            Sha256::digest(text).into()
        }
    }
}

/// PATH of RFC 6962 section 2.1.1.
fn path(m: usize, entries: &[Vec<u8>]) -> Vec<Hash> {
    if entries.len() == 1 {
        return vec![];
    }
    let (left, right) = entries.split_at(split(entries.len()));
    let (mut below, sibling) = if m < left.len() {
        (path(m, left), mth(right))
    } else {
        (path(m - left.len(), right), mth(left))
    };
    below.push(sibling);
    below
}

/// SUBPROOF of RFC 6962 section 2.1.2.
fn subproof(m: usize, entries: &[Vec<u8>], is_whole: bool) -> Vec<Hash> {
    if m == entries.len() {
        return if is_whole { vec![] } else { vec![mth(entries)] };
    }
    let (left, right) = entries.split_at(split(entries.len()));
    let (mut below, sibling) = if m <= left.len() {
        (subproof(m, left, is_whole), mth(right))
    } else {
        (subproof(m - left.len(), right, false), mth(left))
    };
    below.push(sibling);
    below
}

/// Everything that a log of this size has ever published, by path.
struct Published {
    files: BTreeMap<String, Vec<u8>>,
    roots: Vec<Hash>,
}

fn publish(size: u64) -> Published {
    let (mut edge, mut files) = (Edge::default(), BTreeMap::new());
    let mut roots = vec![edge.root()];
    for index in 0..size {
        edge.push(tree::leaf(&entry(index)), |tile, hashes| {
            files.insert(tile.to_string(), tile::content(hashes));
        });
        for (tile, hashes) in edge.partial() {
            files.insert(tile.to_string(), tile::content(hashes));
        }
        roots.push(edge.root());
    }
    Published { files, roots }
}

impl Published {
    fn hashes(&self, tile: Tile) -> Vec<Hash> {
        tile.read(&self.files[&tile.to_string()]).unwrap()
    }

    /// As a client of a tree of `size` leaves gets it.
    fn hash(&self, node: Node, size: u64) -> Hash {
        let tile = Tile::of(node, size).unwrap();
        tile.hash(&self.hashes(tile), node).unwrap()
    }
}

const SIZE: u64 = 600;

#[test]
fn what_is_computed_from_tiles_is_what_the_rfc_defines() {
    let (log, entries) = (publish(SIZE), entries(SIZE));
    for size in [1, 2, 3, 7, 8, 9, 255, 256, 257, 511, 512, 513, 600_u64] {
        let all = &entries[..usize::try_from(size).unwrap()];
        let hash_of = |node| Ok::<_, Infallible>(log.hash(node, size));
        let root = mth(all);
        assert_eq!(tree::root(size, hash_of), Ok(root));
        assert_eq!(log.roots[all.len()], root);
        for index in (0..size).step_by(13).chain([size - 1]) {
            let ranges = tree::inclusion(index, size).unwrap();
            let Ok(proof) = tree::hashes(ranges, hash_of);
            assert_eq!(proof, path(usize::try_from(index).unwrap(), all), "{index} of {size}");
            let leaf = tree::leaf(&entry(index));
            assert!(tree::includes(&leaf, index, size, &root, &proof));
        }
        for old in (1..=size).step_by(17).chain([size]) {
            let ranges = tree::consistency(old, size).unwrap();
            let Ok(proof) = tree::hashes(ranges, hash_of);
            let m = usize::try_from(old).unwrap();
            assert_eq!(proof, subproof(m, all, true), "{old} to {size}");
            assert!(tree::extends((old, &log.roots[m]), (size, &root), &proof));
        }
    }
}

#[test]
fn a_log_goes_on_from_its_partial_tiles() {
    let log = publish(SIZE);
    for size in [0, 1, 255, 256, 257, 300, 512, 599_u64] {
        let Ok(mut edge) = Edge::resume(size, |tile| Ok::<_, Infallible>(log.hashes(tile)));
        assert_eq!(edge.root(), log.roots[usize::try_from(size).unwrap()]);
        for index in size..SIZE {
            edge.push(tree::leaf(&entry(index)), |tile, hashes| {
                assert_eq!(log.files[&tile.to_string()], tile::content(hashes));
            });
        }
        assert_eq!((edge.size(), edge.root()), (SIZE, log.roots[600]));
    }
}

#[test]
fn a_log_publishes_what_the_sizes_say() {
    // The example of c2sp.org/tlog-tiles.
    let tiles = tile::new_tiles(0, 70_000);
    let full = |level| tiles.iter().filter(|t| (t.level, t.width) == (level, 256)).count();
    let partial: Vec<_> =
        tiles.iter().filter(|t| t.width < 256).map(|t| (t.level, t.width)).collect();
    assert_eq!((full(0), full(1)), (273, 1));
    assert_eq!(partial, [(0, 112), (1, 17), (2, 1)]);
    let paths =
        |old, new| tile::new_tiles(old, new).iter().map(Tile::to_string).collect::<Vec<_>>();
    assert_eq!(paths(0, 0), [""; 0]);
    assert_eq!(paths(5, 5), [""; 0]);
    assert_eq!(paths(255, 256), ["tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(paths(256, 257), ["tile/0/001.p/1"]);
    let (mut edge, mut written) = (Edge::default(), Vec::new());
    for index in 0..70_000 {
        edge.push([u8::try_from(index % 251).unwrap(); 32], |tile, _| written.push(tile));
    }
    written.extend(edge.partial().map(|(tile, _)| tile));
    written.sort();
    assert_eq!(written, tiles);
}

#[test]
fn paths_are_those_of_the_specification() {
    for (path, resource) in [
        ("tile/0/000", Resource::Tile(Tile { level: 0, index: 0, width: 256 })),
        ("tile/0/x001/x234/067", Resource::Tile(Tile { level: 0, index: 1_234_067, width: 256 })),
        ("tile/3/999.p/7", Resource::Tile(Tile { level: 3, index: 999, width: 7 })),
        ("tile/entries/x001/000", Resource::Bundle(Bundle { index: 1000, width: 256 })),
        ("tile/entries/000.p/255", Resource::Bundle(Bundle { index: 0, width: 255 })),
    ] {
        assert_eq!(path.parse(), Ok(resource));
        assert_eq!(resource.to_string(), path);
    }
    for bad in [
        "",
        "tile/0/0",
        "tile/00/000",
        "tile/8/000",
        "tile/-1/000",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/x000/001",
        "tile/0/000/",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p/1.p/1",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        "tile/data/000",
        "tile/entries",
        "/tile/0/000",
        "tile/0/../000",
    ] {
        assert!(bad.parse::<Resource>().is_err(), "{bad}");
    }
}

#[test]
fn a_bundle_holds_its_entries_and_nothing_else() {
    let mut content = Vec::new();
    for entry in [&b"one"[..], b"", b"three"] {
        Bundle::push(&mut content, entry).unwrap();
    }
    let bundle = Bundle { index: 0, width: 3 };
    assert_eq!(bundle.read(&content).unwrap(), [&b"one"[..], b"", b"three"]);
    assert_eq!(bundle.hashes(&content).unwrap()[1], tree::leaf(b""));
    for width in [1, 2, 4] {
        assert!(Bundle { index: 0, width }.read(&content).is_err(), "{width}");
    }
    assert!(bundle.read(&content[..content.len() - 1]).is_err());
    assert!(bundle.read(&[content.as_slice(), b"\0"].concat()).is_err());
    assert_eq!(Bundle::push(&mut content, &vec![0; 65_536]), None);
    assert_eq!(bundle.read(&content).unwrap().len(), 3, "nothing was added");
}

proptest! {
    #[test]
    fn two_implementations_make_the_same_proofs(new in 1_u64..400, pick in any::<prop::sample::Index>()) {
        let mut other = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        let old = 1 + pick.index(usize::try_from(new).unwrap()) as u64;
        let index = old - 1;
        (0..old).for_each(|index| other.push(entry(index)));
        let old_root: Hash = (*other.root().as_bytes()).into();
        (old..new).for_each(|index| other.push(entry(index)));
        let new_root: Hash = (*other.root().as_bytes()).into();
        let all = entries(new);
        let hash_of = |node: Node| {
            let first = usize::try_from(node.index << node.level).unwrap();
            Ok::<_, Infallible>(mth(&all[first..first + (1 << node.level)]))
        };
        prop_assert_eq!(tree::root(new, hash_of), Ok(new_root));
        let Ok(inclusion) = tree::hashes(tree::inclusion(index, new).unwrap(), hash_of);
        let theirs = other.prove_inclusion(usize::try_from(index).unwrap());
        prop_assert_eq!(inclusion.concat(), theirs.as_bytes());
        let Ok(consistency) = tree::hashes(tree::consistency(old, new).unwrap(), hash_of);
        if old < new {
            let theirs = other.prove_consistency(usize::try_from(new - old).unwrap());
            prop_assert_eq!(consistency.concat(), theirs.as_bytes());
        }
        prop_assert!(tree::extends((old, &old_root), (new, &new_root), &consistency));
    }

    #[test]
    fn a_proof_with_anything_changed_proves_nothing(
        new in 2_u64..300,
        pick in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let all = entries(new);
        let old = 1 + pick.index(usize::try_from(new - 1).unwrap()) as u64;
        let hash_of = |node: Node| {
            let first = usize::try_from(node.index << node.level).unwrap();
            Ok::<_, Infallible>(mth(&all[first..first + (1 << node.level)]))
        };
        let (old_root, new_root) = (mth(&all[..usize::try_from(old).unwrap()]), mth(&all));
        let Ok(proof) = tree::hashes(tree::consistency(old, new).unwrap(), hash_of);
        let holds = |old_size, old: &Hash, new_size, new: &Hash, proof: &[Hash]| {
            tree::extends((old_size, old), (new_size, new), proof)
        };
        prop_assert!(holds(old, &old_root, new, &new_root, &proof));
        let mut bytes = [old_root, new_root].concat();
        bytes.extend(proof.concat());
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let (hashes, _) = bytes.as_chunks::<32>();
        prop_assert!(!holds(old, &hashes[0], new, &hashes[1], &hashes[2..]));
        prop_assert!(!holds(old, &old_root, new, &new_root, &proof[..proof.len() - 1]));
        let longer = [proof.as_slice(), &[[0; 32]]].concat();
        prop_assert!(!holds(old, &old_root, new, &new_root, &longer));
        prop_assert!(!holds(new, &new_root, old, &old_root, &proof), "backwards");
    }

    #[test]
    fn no_sizes_and_no_proof_make_the_checks_fail_otherwise_than_by_saying_no(
        sizes in prop::array::uniform3(any::<u64>()),
        proof in prop::collection::vec(prop::array::uniform32(any::<u8>()), 0..70),
    ) {
        let [one, two, three] = sizes;
        let hash = [1; 32];
        prop_assert!(!tree::includes(&hash, one, two, &hash, &proof) || proof.is_empty());
        prop_assert!(!tree::extends((one, &hash), (two, &[2; 32]), &proof));
        let node = Node { level: (three % 64) as u8, index: two };
        if let Some(tile) = Tile::of(node, one) {
            prop_assert!((1..=256).contains(&tile.width));
        }
        if let Some(ranges) = tree::inclusion(one, two) {
            prop_assert!(ranges.len() <= tree::PROOF_MAX);
        }
        if let Some(ranges) = tree::consistency(one, two) {
            prop_assert!(ranges.len() <= tree::PROOF_MAX);
        }
    }
}

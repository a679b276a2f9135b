//! Our fs-verity digests against the program that everybody else uses.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is tests"
)]

mod common;

use common::{run, text};
use flist::verity;

#[test]
fn digests_equal_those_of_the_fsverity_program() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    // Around a block, around one and two levels of 128 hashes, and ragged ends.
    let level = 128 * 4096;
    let sizes = [0, 1, 64, 4095, 4096, 4097, level - 1, level, level + 1, 128 * level + 5];
    for size in sizes {
        let bytes: Vec<u8> = (0..size).map(|n: usize| (n ^ (n >> 8)).to_le_bytes()[0]).collect();
        std::fs::write(&path, &bytes).unwrap();
        let theirs = run("fsverity", &["digest", "--hash-alg=sha256", text(&path)]);
        let ours = hex::encode(verity::digest(&bytes));
        assert_eq!(theirs.split([':', ' ']).nth(1), Some(ours.as_str()), "{size} bytes");
        let mut file = std::fs::File::open(&path).unwrap();
        assert_eq!(hex::encode(verity::digest_reader(&mut file).unwrap()), ours);
    }
}

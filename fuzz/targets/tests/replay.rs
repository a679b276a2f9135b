//! Every seed and every finding, and thousands of changes of them, on each stable build.
//!
//! The changes come from a fixed generator: a failure repeats, and its message holds the input.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "the whole file is tests, and a checkout that cannot be read fails them"
)]

use fuzz_targets::{TARGETS, Target};
use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// Changed inputs for each target.
const CHANGES: usize = 2000;
/// Fewer for targets that write files, or read a whole disk, for each input.
const CHANGES_SLOW: usize = 100;
const SLOW: [&str; 7] = [
    "carried_disk",
    "disk_claim",
    "disk_probe",
    "docker_import",
    "earlier_import",
    "oci_import",
    "tar_import",
];
/// A changed input grows no further.
const INPUT_MAX: usize = 64 << 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn names_in(directory: &str, extension: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz().join(directory)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(extension).map(str::to_owned)).collect()
}

/// Name and bytes of every file, in the order of their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = fuzz().join("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("reading {}: {error}", directory.display()))
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Numbers that look random and are the same each time (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % end.max(1)
    }
}

/// Values at which parsers turn.
const TOKENS: &[&[u8]] = &[
    b"\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80",
    b"18446744073709551615",
    b"-1",
    b"null",
    b"{}",
    b"[]",
    b"\"\"",
    b"\xc3\xa9",
    b"\xff",
    b"\n",
    b"1e9",
    b"..",
    b"/",
];

fn changed(files: &[(String, Vec<u8>)], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = files[numbers.below(files.len())].1.clone();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        let end = (at + numbers.below(16)).min(bytes.len());
        match numbers.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(numbers.below(256)).unwrap(),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let token = TOKENS[numbers.below(TOKENS.len())];
                bytes.splice(at..end, token.iter().copied());
            }
            4 => {
                // The start of one and the end of another.
                let other = &files[numbers.below(files.len())].1;
                let from = numbers.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
    bytes.truncate(INPUT_MAX);
    bytes
}

/// Whether the target took it. A panic ends the test with the input in its message.
fn run(name: &str, target: Target, what: &str, bytes: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| target(bytes))).unwrap_or_else(|_| {
        let shown: String = bytes.iter().take(4096).map(|byte| format!("{byte:02x}")).collect();
        panic!("{name} failed on {what}, {} bytes: {shown}", bytes.len())
    })
}

fn replay(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let files = corpus(name);
    let taken: Vec<&String> = files
        .iter()
        .filter(|(file, bytes)| run(name, *target, file, bytes))
        .map(|(file, _)| file)
        .collect();
    let lost: Vec<_> = files
        .iter()
        .filter(|(file, _)| file.starts_with("seed-") && !taken.contains(&file))
        .map(|(file, _)| file)
        .collect();
    assert!(!taken.is_empty() && lost.is_empty(), "{name} does not take its seeds {lost:?}");
    let count = if SLOW.contains(&name) { CHANGES_SLOW } else { CHANGES };
    let mut numbers = Numbers(0x005e_ed0f_2e40_0001);
    for number in 0..count {
        let bytes = changed(&files, &mut numbers);
        run(name, *target, &format!("change {number}"), &bytes);
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

replays! {
    boot_options bucket_error bucket_listing bundle carried_disk dhcp6_client dhcp6_message dhcp_client dhcp_message disk_claim disk_probe docker_import earlier_import envelope erofs_image
    evidence flist_body health_answer ipc_answer ipc_frames line_records modules_database oci_config oci_import page_question redis_answer registry_answers release router_announcement sntp_answer
    log_answer log_note log_policy log_proof log_record log_request log_tile
    statement strict_json tar_import uevent verdict
}

#[test]
fn every_target_has_a_wrapper_a_corpus_and_a_replay() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets, REPLAYED.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(targets, names_in("corpus", ""));
    assert_eq!(targets, names_in("fuzz_targets", ".rs"));
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in &targets {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} has no [[bin]]");
        let wrapper = fs::read_to_string(fuzz().join("fuzz_targets").join(format!("{name}.rs")));
        assert!(wrapper.unwrap().contains(&format!("fuzz_targets::{name}(")), "{name}");
    }
}

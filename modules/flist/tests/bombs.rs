//! Small inputs that would become large: each is refused within bounds of time and memory, beside the
//! harmless one that is taken. What is measured runs in a process of its own.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is tests"
)]

mod common;

use common::{
    image::{CONFIG, gzip, layout, long_member, member, zstd},
    sample,
};
use flist::{
    Cancel, Flist, Source,
    body::{Body, Chunk, Content, Data, ENTRIES_MAX, Entry, Meta, Node, Pack},
    create::{self, CreateError, Options},
    erofs, fetch,
};
use std::{
    env,
    error::Error,
    fs,
    io::{self, Read, Write as _},
    iter,
    process::Command,
};

const MIB: usize = 1 << 20;
/// Of processor time: far more than any of these takes, far less than unpacking a bomb would.
const SECONDS_MAX: u64 = 60;
/// Set in the process that does the work.
const ALONE: &str = "BOMBS_ALONE";

/// Does `work` in a process of its own, which may need this much memory and some time.
/// `test` is the calling test, which is run again there.
fn within(test: &str, memory_max_mib: u64, work: impl FnOnce()) {
    if env::var_os(ALONE).is_some() {
        work();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        // Behind the name: state is the third field, times in user and kernel are 14 and 15.
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        let answer = format!("\n{peak}\nticks: {ticks}\n");
        io::stdout().write_all(answer.as_bytes()).unwrap();
        return;
    }
    let mut alone = Command::new(env::current_exe().unwrap());
    let output = alone.args([test, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let number = |name: &str| -> u64 {
        let found = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        found.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let (mib, seconds) = (number("VmHWM:") / 1024, number("ticks:") / 100);
    assert!(mib <= memory_max_mib, "{test} needed {mib} MiB");
    assert!(seconds <= SECONDS_MAX, "{test} took {seconds} s");
}

fn chain(error: &dyn Error) -> String {
    let cause = error.source().map_or_else(String::new, chain);
    format!("{error}: {cause}")
}

fn build(archive: &[u8], options: &Options) -> Result<Flist, CreateError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), archive).unwrap();
    create::build_archive(file.path(), options, &()).map(|built| built.flist)
}

fn check(hostile: &[u8], options: &Options, problem: &str, harmless: &[u8]) {
    build(harmless, options).unwrap();
    let error = chain(&build(hostile, options).unwrap_err());
    assert!(error.contains(problem), "{error}");
}

#[test]
fn an_archive_that_unpacks_to_more_than_allowed_is_refused() {
    let options = Options { unpacked_bytes_max: MIB as u64, ..Options::default() };
    let file = |size: usize| member("a", b'0', "", &vec![0; size]);
    let behind = |size: usize| [file(1), vec![0; size]].concat();
    let archives = |size| [file(size), behind(size)];
    for compress in [gzip, zstd] {
        for (large, small) in archives(64 * MIB).into_iter().zip(archives(MIB / 2)) {
            let (large, small) = (compress(&large), compress(&small));
            assert!(large.len() < MIB);
            check(&large, &options, "unpacks to more than is allowed", &small);
        }
    }
}

/// What a layer says to leave out has to be unpacked as well.
#[test]
fn layers_that_unpack_to_more_than_allowed_together_are_refused() {
    let options = Options { unpacked_bytes_max: 4 * MIB as u64, ..Options::default() };
    let build = |size: usize| {
        let layer = |name: &str| {
            let plain = member(name, b'0', "", &vec![0; size]);
            (plain.clone(), gzip(&plain))
        };
        let config = CONFIG.replace("\"web\"", "\"0\"");
        let image = layout(&[layer(".wh.a"), layer(".wh..wh.plnk"), layer("b")], &config);
        create::build_image(image.path(), &options, &())
    };
    build(MIB).unwrap();
    let error = chain(&build(2 * MIB).unwrap_err());
    assert!(error.contains("unpacks to more than is allowed"), "{error}");
}

#[test]
fn attributes_that_would_fill_memory_are_refused() {
    let test = "attributes_that_would_fill_memory_are_refused";
    within(test, 700, || {
        let with_attribute = |number: usize, size: usize| {
            let value = "x".repeat(size);
            let record = |length: usize| format!("{length} SCHILY.xattr.user.a={value}\n");
            // The length counts its own digits, which are as many for all of these sizes.
            let length = record(100_000).len() - usize::from(size < 90_000);
            let extension = member("x", b'x', "", record(length).as_bytes());
            [extension, member(&format!("f{number}"), b'0', "", b"")].concat()
        };
        let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
        for number in 0..300 {
            packed.write_all(&with_attribute(number, 990_000)).unwrap();
        }
        let hostile = packed.finish().unwrap();
        assert!(hostile.len() < MIB);
        let harmless = with_attribute(0, 60_000);
        check(&hostile, &Options::default(), "more than 256 MiB of names", &harmless);
    });
}

#[test]
fn paths_that_imply_a_million_directories_are_refused() {
    within("paths_that_imply_a_million_directories_are_refused", 700, || {
        let archive = |count: usize| {
            let path = |number: usize| format!("{number}/{}x", "a/".repeat(1900));
            let file = |number: usize| long_member(&path(number), b'0', "", b"");
            (0..count).flat_map(file).collect::<Vec<_>>()
        };
        check(&archive(500), &Options::default(), "more than 256 MiB of names", &archive(2));
    });
}

/// An flist with this many files, all without a byte.
fn many(count: usize) -> Body {
    let mut body = sample();
    let meta = Meta { mode: 0o644, ..Meta::default() };
    let file = |number| Entry {
        path: format!("srv/{number:07}").into_bytes(),
        node: Node::File(meta.clone(), Data::Inline(Vec::new())),
    };
    let place = body.entries.iter().position(|entry| entry.path == b"srv/file").unwrap();
    let files = (0..count - body.entries.len()).map(file);
    body.entries.splice(place..place, files);
    body
}

#[test]
fn an_flist_of_a_million_names_is_taken_and_one_more_is_not() {
    within("an_flist_of_a_million_names_is_taken_and_one_more_is_not", 1500, || {
        let mut body = many(ENTRIES_MAX);
        let flist = Flist::decode(&postcard::to_stdvec(&body).unwrap()).unwrap();
        assert_eq!(flist.body().entries.len(), ENTRIES_MAX);
        erofs::digest(flist.body());
        drop(flist);
        let last = Entry { path: b"srv/last".to_vec(), node: Node::Directory(Meta::default()) };
        body.entries.push(last);
        let bytes = postcard::to_stdvec(&body).unwrap();
        assert_eq!(Flist::decode(&bytes).unwrap_err().code.name(), "malformed");
    });
}

/// 64 MiB of attributes of two bytes each would be more than a GiB in memory.
#[test]
fn attributes_without_names_are_refused_before_they_fill_memory() {
    within("attributes_without_names_are_refused_before_they_fill_memory", 300, || {
        let mut body = sample();
        body.entries.clear();
        let mut bytes = postcard::to_stdvec(&body).unwrap();
        // The number of entries, which was one byte for none.
        bytes.pop();
        let count = 400_000_u32;
        bytes.extend(postcard::to_stdvec(&count).unwrap());
        // Directories without a path, mode, owner or time, and with 64 attributes of nothing.
        let entry = [&[0, 0, 0, 0, 0, 0, 64][..], &[0; 128]].concat();
        bytes.extend(iter::repeat_n(entry, count as usize).flatten());
        let refusal = Flist::decode(&bytes).unwrap_err();
        assert_eq!(refusal.code.name(), "malformed", "{refusal}");
        Flist::decode(&postcard::to_stdvec(&sample()).unwrap()).unwrap();
    });
}

/// Whoever agreed to a few bytes does not have to fetch many.
#[test]
fn a_chunk_that_is_far_larger_than_what_it_unpacks_to_is_refused() {
    let with_packed = |packed: u32| {
        let mut body = sample();
        body.packs[0].size = 1 << 20;
        body.contents[0].chunks[0].packed = packed;
        Flist::from_body(body)
    };
    with_packed(65 + 1024).unwrap();
    assert_eq!(with_packed(65 + 1025).unwrap_err().code.name(), "bad_content");
}

/// Fetches from a pack of these frames what contents of one chunk each say: the plain bytes, and where
/// the frame lies.
fn fetched(pack: &[u8], wanted: &[(&[u8], u64, usize)]) -> Result<(), fetch::FetchError> {
    let (place, staging) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id = *blake3::hash(pack).as_bytes();
    fs::create_dir(place.path().join("packs")).unwrap();
    fs::write(place.path().join("packs").join(hex::encode(id)), pack).unwrap();
    let content = |(plain, offset, packed): &(&[u8], u64, usize)| Content {
        digest: flist::verity::digest(plain),
        size: plain.len() as u64,
        chunks: vec![Chunk {
            id: *blake3::hash(plain).as_bytes(),
            pack: 0,
            offset: *offset,
            packed: u32::try_from(*packed).unwrap(),
        }],
    };
    let mut contents: Vec<Content> = wanted.iter().map(content).collect();
    contents.sort_by_key(|content| content.digest);
    let mut body = sample();
    body.entries.truncate(1);
    for number in 0..u32::try_from(contents.len()).unwrap() {
        let node = Node::File(Meta::default(), Data::Content(number));
        body.entries.push(Entry { path: vec![b'a' + u8::try_from(number).unwrap()], node });
    }
    body.packs = vec![Pack { id, size: pack.len() as u64 }];
    body.contents = contents;
    let flist = Flist::from_body(body).unwrap();
    let source = Source::new([place.path().to_str().unwrap()]).unwrap();
    let all: Vec<u32> = (0..).take(wanted.len()).collect();
    fetch::contents(&flist, &all, &source, staging.path(), &(), &Cancel::default())
}

#[test]
fn a_chunk_that_unpacks_to_more_than_it_says_is_refused() {
    within("a_chunk_that_unpacks_to_more_than_it_says_is_refused", 100, || {
        let mut bomb = zstd::Encoder::new(Vec::new(), 19).unwrap();
        io::copy(&mut io::repeat(0).take(1 << 30), &mut bomb).unwrap();
        let bomb = bomb.finish().unwrap();
        let plain = vec![0; MIB];
        let error = fetched(&bomb, &[(&plain, 0, bomb.len())]).unwrap_err();
        assert_eq!(error.reason.code(), "content_mismatch");
        let harmless = zstd(&plain);
        fetched(&harmless, &[(&plain, 0, harmless.len())]).unwrap();
    });
}

/// What one chunk is cannot be a part of another.
#[test]
fn chunks_that_overlap_in_a_pack_are_refused() {
    let (one, two) = (vec![b'1'; 4000], vec![b'2'; 4000]);
    let (first, second) = (zstd(&one), zstd(&two));
    let pack = [&first[..], &second].concat();
    let begin = first.len() as u64;
    fetched(&pack, &[(&one, 0, first.len()), (&two, begin, second.len())]).unwrap();
    // Over the whole of another, in the same place, and from the middle of one.
    for (plain, offset, packed) in
        [(&two, 0, pack.len()), (&two, 0, first.len()), (&two, begin - 1, second.len() + 1)]
    {
        let wanted = [(&one[..], 0, first.len()), (&plain[..], offset, packed)];
        let error = fetched(&pack, &wanted).unwrap_err();
        assert_eq!(error.reason.code(), "content_mismatch");
    }
    // Both at once: an end that is the other's, with the plain bytes of both.
    let both = [&one[..], &two].concat();
    let wanted = [(&one[..], 0, first.len()), (&both[..], 0, pack.len())];
    assert_eq!(fetched(&pack, &wanted).unwrap_err().reason.code(), "content_mismatch");
}

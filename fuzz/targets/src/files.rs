//! File lists as a node gets them, images as a customer brings them.

use arbitrary::Unstructured;
use blake2::{
    Blake2b,
    digest::consts::{U16, U32},
};
use flist::{
    Flist,
    body::{
        Body, CHUNK, Chunk, Content, Data, Entry, FORMAT, INLINE_MAX, MAGIC, Meta, Node, Pack, Run,
        Xattr,
    },
    create::{self, Options, Special},
    erofs,
};
use sha2::{Digest as _, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The body of an flist as it is fetched.
pub fn flist_body(data: &[u8]) -> bool {
    let Ok(flist) = Flist::decode(data) else { return false };
    assert_eq!(flist.encode(), data, "a body has one encoding");
    assert!(Flist::decode_as(flist.identity(), data).is_ok());
    image(&flist);
    true
}

/// Blocks that the kernel reads.
const BLOCK: usize = 4096;

/// The metadata image of a checked body: whole blocks, a superblock, and always the same.
fn image(flist: &Flist) {
    let mut bytes = Vec::new();
    erofs::write(flist.body(), &mut bytes).expect("memory takes every byte");
    assert_eq!(bytes.len() % BLOCK, 0);
    assert_eq!(bytes[1024..1028], 0xe0f5_e1e2_u32.to_le_bytes());
    let digest = flist::verity::digest(&bytes);
    assert_eq!(erofs::digest(flist.body()), digest);
}

/// A body made of the input, with sorted lists and right references, then its image.
pub fn erofs_image(data: &[u8]) -> bool {
    let Ok(body) = body(&mut Unstructured::new(data)) else { return false };
    let Ok(flist) = Flist::from_body(body) else { return false };
    let bytes = flist.encode();
    assert_eq!(Flist::decode(&bytes).expect("what was made is right"), flist);
    image(&flist);
    true
}

/// Entries that one input makes.
const ENTRIES_MAX: usize = 64;

fn body(source: &mut Unstructured<'_>) -> arbitrary::Result<Body> {
    let mut paths = BTreeMap::from([(Vec::new(), Node::Directory(meta(source)?))]);
    let mut contents = Vec::new();
    while paths.len() < ENTRIES_MAX && !source.is_empty() {
        let directories: Vec<&Vec<u8>> = paths
            .iter()
            .filter(|(_, node)| matches!(node, Node::Directory(_)))
            .map(|(path, _)| path)
            .collect();
        let mut path = (*source.choose(&directories)?).clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        let name: Vec<u8> = source.arbitrary()?;
        // Long names, so that directories outgrow a block.
        let times = usize::from(source.arbitrary::<u8>()?) / name.len().max(1) + 1;
        path.extend(name.repeat(times));
        let node = match source.int_in_range(0..=3)? {
            0 => Node::Directory(meta(source)?),
            1 => {
                let bytes: Vec<u8> = source.arbitrary()?;
                let meta = meta(source)?;
                if bytes.len() > INLINE_MAX || source.arbitrary()? {
                    contents.push(content(source)?);
                    let last = u32::try_from(contents.len() - 1).expect("a few");
                    Node::File(meta, Data::Content(last))
                } else {
                    Node::File(meta, Data::Inline(bytes))
                }
            }
            2 => {
                let target: Vec<u8> = source.arbitrary()?;
                let times = usize::from(source.arbitrary::<u8>()?) + 1;
                let meta = Meta { mode: 0o777, ..meta(source)? };
                Node::Symlink(meta, target.repeat(times))
            }
            _ => Node::Link(source.arbitrary()?),
        };
        paths.entry(path).or_insert(node);
    }
    let mut entries: Vec<Entry> =
        paths.into_iter().map(|(path, node)| Entry { path, node }).collect();
    // Links lead to some earlier file; contents are numbered in the order of their digests.
    let files: Vec<u32> = (0..)
        .zip(&entries)
        .filter(|(_, entry)| matches!(entry.node, Node::File(..)))
        .map(|(index, _)| index)
        .collect();
    let mut used = BTreeSet::new();
    for entry in &mut entries {
        match &mut entry.node {
            Node::Link(target) if !files.is_empty() => {
                *target = files[*target as usize % files.len()];
            }
            Node::File(_, Data::Content(content)) => {
                used.insert(*content);
            }
            Node::Directory(_) | Node::File(..) | Node::Symlink(..) | Node::Link(_) => {}
        }
    }
    for entry in &mut entries {
        if let Node::File(_, Data::Content(content)) = &mut entry.node {
            let place = used.iter().position(|index| index == content).expect("it was noted");
            *content = u32::try_from(place).expect("a few");
        }
    }
    let contents: Vec<Content> = (0..)
        .zip(contents)
        .filter(|(index, _)| used.contains(index))
        .zip(0_u8..)
        .map(|((_, content), place)| Content { digest: [place; 32], ..content })
        .collect();
    let packs =
        if contents.is_empty() { vec![] } else { vec![Pack { id: [7; 32], size: 1 << 20 }] };
    let run = Run { cwd: source.arbitrary()?, ..Run::default() };
    Ok(Body { magic: MAGIC, format: FORMAT, run, packs, contents, entries })
}

fn content(source: &mut Unstructured<'_>) -> arbitrary::Result<Content> {
    let size = source.int_in_range(65..=3 * CHUNK)?;
    let chunk = Chunk { id: [1; 32], pack: 0, offset: 0, packed: 9 };
    let count = usize::try_from(size.div_ceil(CHUNK)).expect("a few");
    Ok(Content { digest: [0; 32], size, chunks: vec![chunk; count] })
}

fn meta(source: &mut Unstructured<'_>) -> arbitrary::Result<Meta> {
    let names: BTreeSet<Vec<u8>> = source.arbitrary()?;
    let mut xattrs = Vec::new();
    for name in names.into_iter().take(8) {
        let value: Vec<u8> = source.arbitrary()?;
        let times = usize::from(source.arbitrary::<u16>()?) / value.len().max(1) + 1;
        xattrs.push(Xattr { name: [&b"user."[..], &name].concat(), value: value.repeat(times) });
    }
    Ok(Meta {
        mode: source.arbitrary::<u16>()? & 0o7777,
        uid: source.arbitrary()?,
        gid: source.arbitrary()?,
        mtime: source.arbitrary::<u32>()?.into(),
        xattrs,
    })
}

/// A directory that costs no disk, where the system has one.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
        .expect("a temporary directory")
}

fn options(scratch: PathBuf, special: Special) -> Options {
    Options { scratch, special, ..Options::default() }
}

/// A tar file that a customer made or got from somewhere: of files, or of an image.
pub fn tar_import(data: &[u8]) -> bool {
    let directory = scratch();
    let file = directory.path().join("input.tar");
    fs::write(&file, data).expect("writing to memory");
    let options = options(directory.path().to_owned(), Special::Omit);
    create::build_archive(&file, &options, &()).is_ok_and(|built| built_twice(&built.flist))
}

/// What was built is what a node takes.
fn built_twice(flist: &Flist) -> bool {
    assert_eq!(&Flist::decode(&flist.encode()).expect("what was built is right"), flist);
    image(flist);
    true
}

/// The parts of a layout, cut at lines with two percent signs: index, manifest, configuration, layer.
///
/// In each text `@layer`, `@plain`, `@config` and `@manifest` stand for the digests of the others,
/// and with `-size` for their sizes, so that the texts can be changed and the digests stay right.
pub fn oci_import(data: &[u8]) -> bool {
    let [index, manifest, config, layer] = parts(data);
    let directory = scratch();
    let blobs = directory.path().join("layout/blobs/sha256");
    fs::create_dir_all(&blobs).expect("writing to memory");
    let put = |bytes: &[u8]| {
        let digest = hex::encode(Sha256::digest(bytes));
        fs::write(blobs.join(&digest), bytes).expect("writing to memory");
        digest
    };
    let layer_digest = put(layer);
    let layer = ("layer", layer_digest.as_str(), layer.len());
    let config = filled(config, &[layer]);
    let config_digest = put(&config);
    let config = ("config", config_digest.as_str(), config.len());
    let manifest = filled(manifest, &[layer, config]);
    let manifest_digest = put(&manifest);
    let manifest = ("manifest", manifest_digest.as_str(), manifest.len());
    let index = filled(index, &[layer, config, manifest]);
    let layout = directory.path().join("layout");
    fs::write(layout.join("index.json"), index).expect("writing to memory");
    let options = options(directory.path().to_owned(), Special::Omit);
    create::build_image(&layout, &options, &()).is_ok_and(|built| built_twice(&built.flist))
}

/// The parts of what docker saves, cut like those of a layout: manifest, configuration, layer.
///
/// `@config` in the manifest is the name of the configuration, `@layer` in both is the layer: its
/// name in the manifest, its digest in the configuration.
pub fn docker_import(data: &[u8]) -> bool {
    let [manifest, config, layer] = parts(data);
    let directory = scratch();
    let image = directory.path().join("image");
    fs::create_dir(&image).expect("writing to memory");
    let put = |name: &str, bytes: &[u8]| fs::write(image.join(name), bytes).expect("to memory");
    let digest = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    put("layer.tar", layer);
    let config = filled(config, &[("layer", &digest(layer), layer.len())]);
    let name = format!("{}.json", digest(&config));
    put(&name, &config);
    let manifest = String::from_utf8_lossy(manifest);
    let manifest = manifest.replace("@config", &name).replace("@layer", "layer.tar");
    put("manifest.json", manifest.as_bytes());
    let options = options(directory.path().to_owned(), Special::Omit);
    create::build_image(&image, &options, &()).is_ok_and(|built| built_twice(&built.flist))
}

/// An flist of an earlier format, `.fl` or the tar file of a `.flist`, then two blocks.
pub fn earlier_import(data: &[u8]) -> bool {
    let [file, first, second] = parts(data);
    let directory = scratch();
    let path = directory.path().join("flist");
    fs::write(&path, file).expect("writing to memory");
    for block in [first, second] {
        let short = hex::encode(Blake2b::<U16>::digest(block));
        let long = hex::encode(Blake2b::<U32>::digest(block));
        for id in [short, long] {
            fs::write(directory.path().join(id), block).expect("writing to memory");
        }
    }
    let blocks = flist::Source::new([directory.path().to_str().expect("a plain name")]);
    let blocks = blocks.expect("a directory");
    let options = options(directory.path().to_owned(), Special::Omit);
    create::build_earlier(&path, &blocks, &options, &())
        .is_ok_and(|built| built_twice(&built.flist))
}

/// Cuts an input into its parts; those that are not there are empty.
fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    const CUT: &[u8] = b"\n%%\n";
    let mut rest = data;
    std::array::from_fn(|_| match rest.windows(CUT.len()).position(|window| window == CUT) {
        Some(at) => {
            let found = &rest[..at];
            rest = &rest[at + CUT.len()..];
            found
        }
        None => std::mem::take(&mut rest),
    })
}

/// Puts digests and sizes where their names stand.
fn filled(text: &[u8], names: &[(&str, &str, usize)]) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(text).into_owned();
    for (name, digest, size) in names {
        text = text.replace(&format!("@{name}-size"), &size.to_string());
        text = text.replace(&format!("@{name}"), &format!("sha256:{digest}"));
    }
    text.into_bytes()
}

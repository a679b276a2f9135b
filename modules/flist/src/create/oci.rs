//! Reads an OCI image layout (image-spec 1.1): index, manifest, configuration, layers.
//!
//! Every blob must have the digest and size that leads to it, and every layer the digest that the
//! configuration gives for it when unpacked. Archives of a layout are unpacked into a temporary
//! directory under names made of their digests.

use super::{
    CreateError, Options, Special,
    run::set_variable,
    spool::{Spool, decompressed},
    tarball::{self, Names},
    tree::{Layer, LayerNode, Tree, TreeNode},
};
use crate::body::Run;
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use std::{
    cell::RefCell,
    fs::{self, File},
    io::{self, Read},
    path::Path,
    rc::Rc,
};

/// Indexes, manifests and configurations.
const JSON_MAX: u64 = 4 << 20;
/// As overlay file systems have it.
const LAYERS_MAX: usize = 500;
/// Indexes that lead to indexes.
const INDEX_DEPTH_MAX: u32 = 3;
const REFERENCE: &str = "org.opencontainers.image.ref.name";

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Image {
    #[serde(default)]
    config: Option<Config>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
}

/// Reads the image, with its run configuration.
pub(super) fn read(path: &Path, options: &Options) -> Result<Tree, CreateError> {
    if path.is_dir() {
        return read_layout(path, options);
    }
    let unpacked = unpack_archive(path, options)?;
    read_layout(unpacked.path(), options)
}

fn read_layout(layout: &Path, options: &Options) -> Result<Tree, CreateError> {
    let path = layout.join("index.json");
    let file = File::open(&path).map_err(CreateError::io("opening", &path))?;
    let mut bytes = Vec::new();
    file.take(JSON_MAX + 1).read_to_end(&mut bytes).map_err(CreateError::io("reading", &path))?;
    let manifest = find_manifest(layout, parse(&bytes, "index.json")?, options)?;
    let image: Image = json(layout, &manifest.config)?;
    let diff_ids = &image.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() || diff_ids.len() > LAYERS_MAX {
        return Err(CreateError::input("the image", "has another number of layers than it says"));
    }
    let mut tree = Tree::default();
    let mut spool = Spool::new(&options.scratch)?;
    for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
        let layer = read_layer(layout, layer, diff_id, &mut spool, options.special)?;
        tree.apply(layer)?;
    }
    (tree.run, tree.user) = run(image.config.unwrap_or_default())?;
    Ok(tree)
}

/// Follows indexes to the one manifest for this platform.
fn find_manifest(
    layout: &Path,
    mut index: Index,
    options: &Options,
) -> Result<Manifest, CreateError> {
    for depth in 0..INDEX_DEPTH_MAX {
        let wanted = options.reference.as_deref().filter(|_| depth == 0);
        let mut found = index.manifests.into_iter().filter(|manifest| suits(manifest, wanted));
        let (first, second) = (found.next(), found.next());
        let Some(descriptor) = first else {
            return Err(CreateError::input("the layout", "has no image for linux/amd64"));
        };
        if second.is_some() {
            let problem = "has more than one image; name one by its reference or digest";
            return Err(CreateError::input("the layout", problem));
        }
        if descriptor.media_type.ends_with("index.v1+json")
            || descriptor.media_type.ends_with("manifest.list.v2+json")
        {
            index = json(layout, &descriptor)?;
        } else {
            return json(layout, &descriptor);
        }
    }
    Err(CreateError::input("the layout", "has indexes that lead to indexes"))
}

fn suits(manifest: &Descriptor, wanted: Option<&str>) -> bool {
    let platform = manifest.platform.as_ref();
    let ours = platform.is_none_or(|p| p.os == "linux" && p.architecture == "amd64");
    let named = wanted.is_none_or(|wanted| {
        manifest.digest == wanted
            || manifest.annotations.get(REFERENCE).is_some_and(|n| n == wanted)
    });
    ours && named
}

fn run(config: Config) -> Result<(Run, String), CreateError> {
    let mut env = Vec::new();
    for variable in config.env.unwrap_or_default() {
        if !variable.contains('=') {
            let problem = "has no value in the image configuration";
            return Err(CreateError::input(format!("variable {variable}"), problem));
        }
        set_variable(&mut env, &variable);
    }
    let run = Run {
        entrypoint: config.entrypoint.unwrap_or_default(),
        arguments: config.cmd.unwrap_or_default(),
        env,
        cwd: config.working_dir.unwrap_or_default(),
        ..Run::default()
    };
    Ok((run, config.user.unwrap_or_default()))
}

fn read_layer(
    layout: &Path,
    descriptor: &Descriptor,
    diff_id: &str,
    spool: &mut Spool,
    special: Special,
) -> Result<Layer, CreateError> {
    let path = blob(layout, descriptor)?;
    let failed = || CreateError::io("reading layer", &path);
    let file = File::open(&path).map_err(failed())?;
    let packed = Hashed::new(file.take(descriptor.size.saturating_add(1)));
    let plain = Hashed::new(decompressed(Box::new(packed.clone()), &path)?);
    let layer = tarball::read(&mut plain.clone(), spool, Names::Whiteouts, special)
        .map_err(|error| within(&descriptor.digest, error))?;
    // The tar file may end before its stream does.
    for stream in [&mut plain.clone() as &mut dyn Read, &mut packed.clone()] {
        io::copy(stream, &mut io::sink()).map_err(failed())?;
    }
    packed.expect(&descriptor.digest, Some(descriptor.size))?;
    plain.expect(diff_id, None)?;
    Ok(layer)
}

fn within(digest: &str, error: CreateError) -> CreateError {
    match error {
        CreateError::Input { subject, problem } => {
            CreateError::input(format!("in layer {digest}: {subject}"), problem)
        }
        error => error,
    }
}

/// A stream that is hashed as it is read. Copies read from the same stream.
struct Hashed<R> {
    state: Rc<RefCell<(R, Sha256, u64)>>,
}

impl<R> Clone for Hashed<R> {
    fn clone(&self) -> Self {
        Self { state: Rc::clone(&self.state) }
    }
}

impl<R: Read> Hashed<R> {
    fn new(reader: R) -> Self {
        Self { state: Rc::new(RefCell::new((reader, Sha256::new(), 0))) }
    }

    /// Compares what was read.
    fn expect(&self, digest: &str, size: Option<u64>) -> Result<(), CreateError> {
        let state = self.state.borrow();
        let found = format!("sha256:{}", hex::encode(state.1.clone().finalize()));
        if found != digest || size.is_some_and(|size| size != state.2) {
            return Err(CreateError::input(format!("blob {digest}"), "has another digest or size"));
        }
        Ok(())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (reader, hash, size) = &mut *self.state.borrow_mut();
        let count = reader.read(buffer)?;
        hash.update(&buffer[..count]);
        *size += count as u64;
        Ok(count)
    }
}

/// Reads, compares and parses a small blob.
fn json<T: DeserializeOwned>(layout: &Path, descriptor: &Descriptor) -> Result<T, CreateError> {
    let path = blob(layout, descriptor)?;
    if descriptor.size > JSON_MAX {
        return Err(CreateError::input(format!("blob {}", descriptor.digest), "is too large"));
    }
    let file = File::open(&path).map_err(CreateError::io("opening", &path))?;
    let mut blob = Hashed::new(file.take(descriptor.size.saturating_add(1)));
    let mut bytes = Vec::new();
    blob.read_to_end(&mut bytes).map_err(CreateError::io("reading", &path))?;
    blob.expect(&descriptor.digest, Some(descriptor.size))?;
    parse(&bytes, &descriptor.digest)
}

fn parse<T: DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T, CreateError> {
    serde_json::from_slice(bytes)
        .map_err(|error| CreateError::input(name, format!("is not what it has to be: {error}")))
}

/// Where a blob is. Its name is checked, for it becomes a path.
fn blob(layout: &Path, descriptor: &Descriptor) -> Result<std::path::PathBuf, CreateError> {
    let name = descriptor.digest.strip_prefix("sha256:").unwrap_or_default();
    let hexadecimal = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if name.len() != 64 || !name.bytes().all(hexadecimal) {
        let problem = "is not a SHA-256 digest, the only kind that is read";
        return Err(CreateError::input(format!("digest {}", descriptor.digest), problem));
    }
    Ok(layout.join("blobs/sha256").join(name))
}

/// Unpacks a tar file of a layout. Only its index and its blobs are taken.
fn unpack_archive(path: &Path, options: &Options) -> Result<tempfile::TempDir, CreateError> {
    let file = File::open(path).map_err(CreateError::io("opening", path))?;
    let mut spool = Spool::new(&options.scratch)?;
    let mut plain = decompressed(Box::new(file), path)?;
    let archive = tarball::read(&mut plain, &mut spool, Names::Literal, Special::Refuse)?;
    let to = tempfile::tempdir_in(&options.scratch)
        .map_err(CreateError::io("making a temporary directory in", &options.scratch))?;
    let blobs = to.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(CreateError::io("making directory", &blobs))?;
    for (name, node) in &archive.nodes {
        let LayerNode::Node(TreeNode::File(file)) = node else { continue };
        let target = match name.strip_prefix(b"blobs/sha256/") {
            _ if name == b"index.json" => to.path().join("index.json"),
            Some(digest) if digest.iter().all(u8::is_ascii_hexdigit) => {
                blobs.join(str::from_utf8(digest).expect("hexadecimal digits are text"))
            }
            Some(_) | None => continue,
        };
        let copied = file.bytes.open().and_then(|mut bytes| {
            let mut out = File::create_new(&target)?;
            io::copy(&mut bytes, &mut out)
        });
        copied.map_err(CreateError::io("writing", &target))?;
    }
    if !to.path().join("index.json").exists() {
        let problem = "has no index.json, so it is no OCI layout; save it with a newer docker";
        return Err(CreateError::input(path.display().to_string(), problem));
    }
    Ok(to)
}

//! Reads a container image into a tree, whichever way it is packed: the configuration says how it is
//! run and what each layer unpacks to; the layers lie on top of each other.
//!
//! Every layer must unpack to the digest that the configuration gives for it. Where a file is packed
//! under its own digest, that digest must be right too.

use super::{
    CreateError, Options, Special, docker,
    image_files::ImageFiles,
    oci,
    run::set_variable,
    spool::{Spool, decompressed},
    tarball::{self, Names},
    tree::{Layer, Tree},
};
use crate::body::Run;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{
    cell::RefCell,
    io::{self, Read},
    rc::Rc,
};

/// As overlay file systems have it.
const LAYERS_MAX: usize = 500;

/// What an image consists of.
pub(super) struct Parts {
    pub(super) config: ImageConfig,
    /// The lowest first.
    pub(super) layers: Vec<LayerFile>,
}

/// A file with a layer.
pub(super) struct LayerFile {
    pub(super) name: String,
    /// Digest and size as it is packed, if somebody said them.
    pub(super) packed: Option<(String, u64)>,
}

/// The configuration as OCI and docker have it.
#[derive(Deserialize)]
pub(super) struct ImageConfig {
    architecture: Option<String>,
    os: Option<String>,
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

/// Whether the files are an image, and not those of a root.
pub(super) fn recognise(files: ImageFiles<'_>) -> bool {
    (files.has("oci-layout") && files.has("index.json")) || docker::recognise(files)
}

/// Puts the layers of the image on top of each other, and reads its run configuration.
pub(super) fn read(files: ImageFiles<'_>, options: &Options) -> Result<Tree, CreateError> {
    let Parts { config: image, layers } = if files.has("index.json") {
        oci::find(files, options)
    } else if files.has(docker::MANIFEST) {
        docker::find(files, options)
    } else {
        let problem = "has neither index.json nor manifest.json, so it is no image";
        Err(CreateError::input("the input", problem))
    }?;
    if image.os.is_some_and(|os| os != "linux")
        || image.architecture.is_some_and(|architecture| architecture != "amd64")
    {
        return Err(CreateError::input("the image", "is not for linux/amd64"));
    }
    let diff_ids = &image.rootfs.diff_ids;
    if diff_ids.len() != layers.len() || diff_ids.len() > LAYERS_MAX {
        return Err(CreateError::input("the image", "has another number of layers than it says"));
    }
    let mut tree = Tree::default();
    let mut spool = Spool::new(options)?;
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let layer = read_layer(files, layer, diff_id, &mut spool, options.special)?;
        tree.apply(layer)?;
    }
    (tree.run, tree.user) = run(image.config.unwrap_or_default())?;
    Ok(tree)
}

/// Compares bytes with their digest.
pub(super) fn expect(bytes: &[u8], digest: &str) -> Result<(), CreateError> {
    if format!("sha256:{}", hex::encode(Sha256::digest(bytes))) != digest {
        return Err(CreateError::input(format!("blob {digest}"), "has another digest or size"));
    }
    Ok(())
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
    files: ImageFiles<'_>,
    layer: &LayerFile,
    diff_id: &str,
    spool: &mut Spool,
    special: Special,
) -> Result<Layer, CreateError> {
    let name = &layer.name;
    let failed = || CreateError::io("reading layer", name.as_ref());
    let size_max = layer.packed.as_ref().map_or(u64::MAX, |(_, size)| size.saturating_add(1));
    let packed = Hashed::new(files.reader(name)?.take(size_max));
    let plain = Hashed::new(decompressed(Box::new(packed.clone()), name.as_ref(), spool)?);
    let read = tarball::read(&mut plain.clone(), spool, Names::Whiteouts, special)
        .map_err(|error| within(name, error))?;
    // The tar file may end before its stream does.
    for stream in [&mut plain.clone() as &mut dyn Read, &mut packed.clone()] {
        io::copy(stream, &mut io::sink()).map_err(failed())?;
    }
    if let Some((digest, size)) = &layer.packed {
        packed.expect(digest, Some(*size))?;
    }
    plain.expect(diff_id, None)?;
    Ok(read)
}

fn within(name: &str, error: CreateError) -> CreateError {
    match error {
        CreateError::Input { subject, problem } => {
            CreateError::input(format!("in layer {name}: {subject}"), problem)
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

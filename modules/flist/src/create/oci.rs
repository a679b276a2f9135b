//! Finds the parts of an image in an OCI image layout (image-spec 1.1): index, manifest, blobs.
//!
//! Every blob must have the digest and size that leads to it. A layout that docker saved says the
//! same in a second way; the two must agree, for other readers look there.

use super::{
    CreateError, Options, docker,
    image::{LayerFile, Parts, expect},
    image_files::{ImageFiles, parse},
};
use serde::{Deserialize, de::DeserializeOwned};

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

/// The one image that suits.
pub(super) fn find(files: ImageFiles<'_>, options: &Options) -> Result<Parts, CreateError> {
    let index = parse(&files.bytes("index.json")?, "index.json")?;
    let manifest = find_manifest(files, index, options)?;
    let name = blob(&manifest.config)?;
    if files.has(docker::MANIFEST) && !docker::names(files, &name)? {
        let problem = "name different images; which one is meant cannot be told";
        return Err(CreateError::input("index.json and manifest.json", problem));
    }
    let config = json(files, &manifest.config)?;
    let layer = |layer: Descriptor| {
        Ok(LayerFile { name: blob(&layer)?, packed: Some((layer.digest, layer.size)) })
    };
    let layers: Result<Vec<_>, CreateError> = manifest.layers.into_iter().map(layer).collect();
    Ok(Parts { config, layers: layers? })
}

/// Follows indexes to the one manifest for this platform.
fn find_manifest(
    files: ImageFiles<'_>,
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
            index = json(files, &descriptor)?;
        } else {
            return json(files, &descriptor);
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

/// Reads, compares and parses a small blob.
fn json<T: DeserializeOwned>(
    files: ImageFiles<'_>,
    descriptor: &Descriptor,
) -> Result<T, CreateError> {
    parse(&blob_bytes(files, descriptor)?, &descriptor.digest)
}

fn blob_bytes(files: ImageFiles<'_>, descriptor: &Descriptor) -> Result<Vec<u8>, CreateError> {
    let bytes = files.bytes(&blob(descriptor)?)?;
    if bytes.len() as u64 != descriptor.size {
        let problem = "has another digest or size";
        return Err(CreateError::input(format!("blob {}", descriptor.digest), problem));
    }
    expect(&bytes, &descriptor.digest)?;
    Ok(bytes)
}

/// Where a blob is. Its name is checked, for it becomes a path.
fn blob(descriptor: &Descriptor) -> Result<String, CreateError> {
    let name = descriptor.digest.strip_prefix("sha256:").unwrap_or_default();
    if !is_digest(name) {
        let problem = "is not a SHA-256 digest, the only kind that is read";
        return Err(CreateError::input(format!("digest {}", descriptor.digest), problem));
    }
    Ok(format!("blobs/sha256/{name}"))
}

/// 64 hexadecimal digits in their one form.
pub(super) fn is_digest(name: &str) -> bool {
    let hexadecimal = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    name.len() == 64 && name.bytes().all(hexadecimal)
}

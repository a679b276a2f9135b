//! Finds the parts of an image in what `docker save` and its relatives write: a `manifest.json` that
//! names a configuration and layers.
//!
//! No digest leads to the manifest, so it is only believed where digests confirm it: a configuration
//! whose name is its digest must have it, and each layer the one that the configuration demands.

use super::{
    CreateError, Options,
    image::{LayerFile, Parts, expect},
    image_files::{ImageFiles, parse},
    oci::is_digest,
};
use serde::Deserialize;

pub(super) const MANIFEST: &str = "manifest.json";
/// Images of one archive; more is a mistake.
const IMAGES_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Whether there is a manifest whose configurations are there: a root may have a file of that name.
pub(super) fn recognise(files: ImageFiles<'_>) -> bool {
    manifest(files).is_ok_and(|saved| saved.iter().any(|image| files.has(&image.config)))
}

/// Whether the manifest names the image with this configuration.
pub(super) fn names(files: ImageFiles<'_>, config: &str) -> Result<bool, CreateError> {
    Ok(manifest(files)?.iter().any(|image| image.config == config))
}

/// The one image that suits.
pub(super) fn find(files: ImageFiles<'_>, options: &Options) -> Result<Parts, CreateError> {
    let wanted = options.reference.as_deref();
    let suits = |image: &Saved| {
        wanted.is_none_or(|wanted| {
            let tags = image.repo_tags.iter().flatten();
            tags.into_iter().any(|tag| tag == wanted)
                || digest_of(&image.config).is_some_and(|digest| digest == wanted)
        })
    };
    let mut found = manifest(files)?.into_iter().filter(suits);
    let (first, second) = (found.next(), found.next());
    let Some(image) = first else {
        return Err(CreateError::input("the archive", "has no image of that name"));
    };
    if second.is_some() {
        let problem = "has more than one image; name one by its tag or digest";
        return Err(CreateError::input("the archive", problem));
    }
    let bytes = files.bytes(&image.config)?;
    if let Some(digest) = digest_of(&image.config) {
        expect(&bytes, &digest)?;
    }
    let config = parse(&bytes, &image.config)?;
    let layers = image.layers.into_iter().map(|name| LayerFile { name, packed: None }).collect();
    Ok(Parts { config, layers })
}

fn manifest(files: ImageFiles<'_>) -> Result<Vec<Saved>, CreateError> {
    let images: Vec<Saved> = parse(&files.bytes(MANIFEST)?, MANIFEST)?;
    if images.len() > IMAGES_MAX {
        return Err(CreateError::input(MANIFEST, "names more than a thousand images"));
    }
    Ok(images)
}

/// The digest that a name claims: `<digest>.json`, `sha256:<digest>`, `blobs/sha256/<digest>`.
fn digest_of(name: &str) -> Option<String> {
    let last = name.rsplit('/').next().unwrap_or_default();
    let last = last.strip_prefix("sha256:").unwrap_or(last);
    let digits = last.strip_suffix(".json").unwrap_or(last);
    is_digest(digits).then(|| format!("sha256:{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_claim_a_digest_are_known() {
        let digits = "0123456789abcdef".repeat(4);
        let digest = format!("sha256:{digits}");
        for name in [
            digits.clone(),
            format!("{digits}.json"),
            digest.clone(),
            format!("blobs/sha256/{digits}"),
        ] {
            assert_eq!(digest_of(&name), Some(digest.clone()), "{name}");
        }
        assert_eq!(digest_of("config.json"), None);
        assert_eq!(digest_of(&digits.to_uppercase()), None);
    }
}

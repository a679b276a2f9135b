//! Where things are in a store and at a publisher. The one place for these names.

use contract::{FlistId, PublicKey};
use std::path::{Path, PathBuf};

/// Of an object, below [`objects`]: `aa/bbbb…`. The metadata image points there.
pub(crate) fn object(digest: &[u8; 32]) -> String {
    let name = hex::encode(digest);
    format!("{}/{}", &name[..2], &name[2..])
}

pub(crate) fn objects(store: &Path) -> PathBuf {
    store.join("objects")
}

pub(crate) fn images(store: &Path) -> PathBuf {
    store.join("images")
}

pub(crate) fn staging(store: &Path) -> PathBuf {
    store.join("staging")
}

/// The metadata image.
pub(crate) fn image(store: &Path, identity: FlistId) -> PathBuf {
    images(store).join(format!("{identity}.erofs"))
}

/// The body. It is written last: where it is, everything else is.
pub(crate) fn record(store: &Path, identity: FlistId) -> PathBuf {
    images(store).join(format!("{identity}.flist"))
}

/// Of a body at a publisher.
pub(crate) fn published_body(identity: FlistId) -> String {
    format!("flists/{identity}")
}

/// Of a pack at a publisher.
pub(crate) fn published_pack(id: &[u8; 32]) -> String {
    format!("packs/{}", hex::encode(id))
}

/// Of a publisher's word for a body, beside it.
pub(crate) fn published_release(identity: FlistId, publisher: &PublicKey) -> String {
    contract::release::name(&identity, publisher)
}

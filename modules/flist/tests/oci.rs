//! OCI image layouts: layers on top of each other, configuration, digests.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is tests"
)]

mod common;

use common::image::{CONFIG, gzip, layer, layout, two_layers};
use flist::{
    Flist,
    body::{Data, Node},
    create::{self, Options},
};
use std::{fs, path::Path};

fn build(layout: &Path) -> Result<Flist, create::CreateError> {
    let options = Options { mount_points: Vec::new(), ..Options::default() };
    create::build_image(layout, &options, &()).map(|built| built.flist)
}

fn names(flist: &Flist) -> Vec<String> {
    let entries = &flist.body().entries;
    entries.iter().map(|entry| String::from_utf8(entry.path.clone()).unwrap()).collect()
}

#[test]
fn layers_hide_replace_and_add() {
    let layout = layout(&two_layers(), CONFIG);
    let flist = build(layout.path()).unwrap();
    assert_eq!(
        names(&flist),
        [
            "",
            "bin",
            "bin/app",
            "etc",
            "etc/passwd",
            "gone",
            "gone/back",
            "kept",
            "lib",
            "opaque",
            "opaque/new",
            "usr",
            "usr/lib",
            "usr/lib/x",
            "usr/lib/y",
        ]
    );
    let Node::File(_, Data::Inline(app)) = &flist.body().entries[2].node else { panic!() };
    assert_eq!(app, b"second");
    assert!(matches!(flist.body().entries[14].node, Node::Link(13)));
    let run = &flist.body().run;
    assert_eq!(run.entrypoint, ["/bin/app"]);
    assert_eq!(run.arguments, ["-v"]);
    assert_eq!(run.env, ["PATH=/sbin", "A="]);
    assert_eq!((run.cwd.as_str(), run.uid, run.gid), ("/usr", 33, 34));
}

#[test]
fn the_same_image_always_has_the_same_identity() {
    let layout = layout(&two_layers(), CONFIG);
    let flist = build(layout.path()).unwrap();
    assert_eq!(
        flist.identity().to_string(),
        "1f828b1eeab1f584ed4b9ea9996f50052830bf80538810b33441b06a39d7cde4"
    );
    // Also from an archive of the layout.
    let archive = tempfile::NamedTempFile::new().unwrap();
    let (from, to) = (common::text(layout.path()), common::text(archive.path()));
    common::run("tar", &["-C", from, "-cf", to, "oci-layout", "index.json", "blobs"]);
    assert_eq!(build(archive.path()).unwrap(), flist);
}

#[test]
fn a_blob_with_another_digest_is_refused() {
    let good = layout(&two_layers(), CONFIG);
    let blobs = good.path().join("blobs/sha256");
    for blob in fs::read_dir(&blobs).unwrap() {
        let path = blob.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        // Behind the end, so that every parser would be content without the digest.
        fs::write(&path, [&bytes[..], b" "].concat()).unwrap();
        build(good.path()).unwrap_err();
        let mut changed = bytes.clone();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        fs::write(&path, changed).unwrap();
        build(good.path()).unwrap_err();
        fs::remove_file(&path).unwrap();
        build(good.path()).unwrap_err();
        fs::write(&path, bytes).unwrap();
    }
    build(good.path()).unwrap();
}

#[test]
fn a_layer_that_unpacks_to_something_else_is_refused() {
    let [first, second, third] = two_layers();
    let other = layer(&["other"]);
    let layout = layout(&[first, (second.0, gzip(&other)), third], CONFIG);
    let error = build(layout.path()).unwrap_err().to_string();
    assert!(error.contains("another digest"), "{error}");
}

#[test]
fn a_digest_cannot_lead_out_of_the_layout() {
    let layout = layout(&two_layers(), CONFIG);
    let index = r#"{"manifests":[{"digest":"sha256:../../index.json","size":10}]}"#;
    fs::write(layout.path().join("index.json"), index).unwrap();
    let error = build(layout.path()).unwrap_err().to_string();
    assert!(error.contains("is not a SHA-256 digest"), "{error}");
}

#[test]
fn one_of_several_images_has_to_be_named() {
    let layout = layout(&two_layers(), CONFIG);
    let index = layout.path().join("index.json");
    let text = fs::read_to_string(&index).unwrap();
    let one = text.split_once('[').unwrap().1.strip_suffix("]}").unwrap();
    let named = one
        .replace(r#""size""#, r#""annotations":{"org.opencontainers.image.ref.name":"v2"},"size""#);
    let foreign =
        one.replace(r#""size""#, r#""platform":{"os":"linux","architecture":"arm64"},"size""#);
    fs::write(&index, format!(r#"{{"manifests":[{one},{foreign}]}}"#)).unwrap();
    build(layout.path()).unwrap();
    fs::write(&index, format!(r#"{{"manifests":[{one},{named}]}}"#)).unwrap();
    let error = build(layout.path()).unwrap_err().to_string();
    assert!(error.contains("more than one image"), "{error}");
    let options = Options { reference: Some("v2".into()), ..Options::default() };
    create::build_image(layout.path(), &options, &()).unwrap();
    let options = Options { reference: Some("v3".into()), ..Options::default() };
    create::build_image(layout.path(), &options, &()).unwrap_err();
}

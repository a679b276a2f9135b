//! OCI image layouts: layers on top of each other, configuration, digests.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is tests"
)]

mod common;

use flist::{
    Flist,
    body::{Data, Node},
    create::{self, Options},
};
use sha2::{Digest as _, Sha256};
use std::{fs, io::Write as _, path::Path};
use tempfile::TempDir;

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A layer: `path` with a slash at the end is a directory, `a -> b` a symlink, `a = b` a hard link.
fn layer(names: &[&str]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for name in names {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if name.ends_with('/') { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(0);
        if let Some((name, target)) = name.split_once(" -> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            archive.append_link(&mut header, name, target).unwrap();
        } else if let Some((name, target)) = name.split_once(" = ") {
            header.set_entry_type(tar::EntryType::Link);
            archive.append_link(&mut header, name, target).unwrap();
        } else if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            archive.append_data(&mut header, name, &[][..]).unwrap();
        } else {
            let (name, text) = name.split_once(": ").unwrap_or((name, ""));
            header.set_size(text.len() as u64);
            archive.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap()
}

/// Writes a layout of these layers, each as (unpacked, as stored).
fn layout(layers: &[(Vec<u8>, Vec<u8>)], config: &str) -> TempDir {
    let layout = tempfile::tempdir().unwrap();
    let blobs = layout.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = digest(bytes);
        fs::write(blobs.join(&digest[7..]), bytes).unwrap();
        format!(r#"{{"mediaType":"","digest":"{digest}","size":{}}}"#, bytes.len())
    };
    let diff_ids: Vec<_> =
        layers.iter().map(|(plain, _)| format!("\"{}\"", digest(plain))).collect();
    let stored: Vec<_> = layers.iter().map(|(_, stored)| put(stored)).collect();
    let image = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{config},
            "rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        put(image.as_bytes()),
        stored.join(",")
    );
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, put(manifest.as_bytes()));
    fs::write(layout.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(layout.path().join("index.json"), index).unwrap();
    layout
}

fn two_layers() -> [(Vec<u8>, Vec<u8>); 3] {
    let base = layer(&[
        "bin/",
        "bin/app: first",
        "bin/old: x",
        "etc/",
        "etc/passwd: web:x:33:34::/:/bin/sh\n",
        "opaque/",
        "opaque/a",
        "opaque/b/",
        "opaque/b/c",
        "gone/",
        "gone/deep/",
        "gone/deep/x",
        "usr/",
        "usr/lib/",
        "usr/lib/x: lib",
        "lib -> usr/lib",
        "kept",
    ]);
    let second = layer(&[
        "bin/",
        "bin/.wh.old",
        "bin/app: second",
        ".wh.gone",
        "opaque/",
        "opaque/.wh..wh..opq",
        "opaque/new: n",
        ".wh..wh.plnk/",
        ".wh.never",
    ]);
    let third = layer(&["usr/lib/y = usr/lib/x", "gone/", "gone/back"]);
    [(base.clone(), base), (second.clone(), gzip(&second)), (third.clone(), zstd(&third))]
}

const CONFIG: &str = r#"{"User":"web","Env":["PATH=/bin","PATH=/sbin","A="],"Entrypoint":["/bin/app"],
    "Cmd":["-v"],"WorkingDir":"/usr"}"#;

fn build(layout: &Path) -> Result<Flist, create::CreateError> {
    let options = Options { mount_points: Vec::new(), ..Options::default() };
    create::build_oci(layout, &options, &()).map(|built| built.flist)
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
    create::build_oci(layout.path(), &options, &()).unwrap();
    let options = Options { reference: Some("v3".into()), ..Options::default() };
    create::build_oci(layout.path(), &options, &()).unwrap_err();
}

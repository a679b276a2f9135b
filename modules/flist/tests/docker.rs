//! What `docker save` and its relatives write: the same image as a layout of it, and what is refused.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is tests"
)]

mod common;

use common::image::{CONFIG, Saved, gzip, layer, layout, member, two_layers};
use flist::{
    Flist,
    create::{self, CreateError, Options},
};
use std::{fs, path::Path};

fn options() -> Options {
    Options { mount_points: Vec::new(), ..Options::default() }
}

fn build_bytes(archive: &[u8], options: &Options) -> Result<Flist, CreateError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), archive).unwrap();
    create::build_image(file.path(), options, &()).map(|built| built.flist)
}

fn build(saved: &Saved) -> Result<Flist, CreateError> {
    build_bytes(&saved.tar(), &options())
}

fn image() -> Saved {
    Saved::new(&two_layers().map(|(plain, _)| plain), CONFIG)
}

/// Refused with these words; the image without the change is taken.
fn refused(saved: &Saved, problem: &str) {
    build(&image()).unwrap();
    let error = build(saved).unwrap_err().to_string();
    assert!(error.contains(problem), "{error}");
}

fn layout_of(path: &Path) -> Flist {
    create::build_image(path, &options(), &()).unwrap().flist
}

#[test]
fn a_saved_image_gives_the_flist_of_its_layout() {
    let expected = layout_of(layout(&two_layers(), CONFIG).path());
    assert_eq!(build(&image()).unwrap(), expected);
    assert_eq!(build_bytes(&gzip(&image().tar()), &options()).unwrap(), expected);
    // Layers may be packed, as by some relatives of docker.
    let mut packed = image();
    for (name, bytes) in &mut packed.files {
        if name.ends_with("layer.tar") {
            *bytes = gzip(bytes);
        }
    }
    assert_eq!(build(&packed).unwrap(), expected);
}

/// Nobody has to say that it is an image, and a root with a file of that name stays a root.
#[test]
fn an_archive_of_an_image_is_recognised() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let found = || {
        let built = create::build_archive(file.path(), &options(), &()).unwrap();
        built.flist.body().run.entrypoint.clone()
    };
    fs::write(file.path(), image().tar()).unwrap();
    assert_eq!(found(), ["/bin/app"]);
    let root = [member("manifest.json", b'0', "", b"[]"), member("a", b'0', "", b"")].concat();
    fs::write(file.path(), root).unwrap();
    assert_eq!(found(), [""; 0]);
    let layout = layout(&two_layers(), CONFIG);
    let (from, to) = (common::text(layout.path()), common::text(file.path()));
    common::run("tar", &["-C", from, "-cf", to, "oci-layout", "index.json", "blobs"]);
    assert_eq!(found(), ["/bin/app"]);
}

/// Docker stores a layer that comes twice once, and leads to it by a symlink.
#[test]
fn a_layer_that_comes_twice_is_behind_a_symlink() {
    let one = layer(&["a: 1"]);
    let saved = Saved::new(&[one.clone(), one.clone()], "{}");
    let expected = build(&saved).unwrap();
    let mut linked = saved;
    let name = linked.files[0].0.clone();
    linked.edit(&format!("\"{name}\",\"{name}\""), &format!("\"{name}\",\"second/layer.tar\""));
    let archive = |target: &str| {
        let link = member("second/layer.tar", b'2', target, b"");
        build_bytes(&[link, linked.tar()].concat(), &options())
    };
    assert_eq!(archive(&format!("../{name}")).unwrap(), expected);
    for (target, problem) in [
        ("../../layer.tar", "leads out of the archive"),
        ("/etc/passwd", "leads out of the archive"),
        ("../second/layer.tar", "too many symlinks"),
        ("../nowhere", "is not in the archive"),
    ] {
        let error = archive(target).unwrap_err().to_string();
        assert!(error.contains(problem), "{target}: {error}");
    }
}

#[test]
fn one_of_several_saved_images_has_to_be_named() {
    let other = Saved::new(&[layer(&["other: 1"])], r#"{"Cmd":["/other"]}"#);
    let mut both = image();
    let inner = |saved: &Saved| {
        let text = String::from_utf8(saved.files.last().unwrap().1.clone()).unwrap();
        text.strip_prefix('[').unwrap().strip_suffix(']').unwrap().to_owned()
    };
    let joined = format!("[{},{}]", inner(&both), inner(&other).replace("app:1", "other:2"));
    *both.file("manifest.json") = joined.into_bytes();
    both.files.splice(0..0, other.files.into_iter().filter(|(name, _)| name != "manifest.json"));
    let named = |name: &str| {
        build_bytes(&both.tar(), &Options { reference: Some(name.into()), ..options() })
    };
    let error = build(&both).unwrap_err().to_string();
    assert!(error.contains("more than one image"), "{error}");
    assert_eq!(named("app:1").unwrap(), build(&image()).unwrap());
    assert_eq!(named("other:2").unwrap().body().run.arguments, ["/other"]);
    assert!(named("app:2").unwrap_err().to_string().contains("no image of that name"));
}

#[test]
fn a_configuration_that_is_not_what_its_name_says_is_refused() {
    let mut saved = image();
    let name = saved.files[saved.files.len() - 2].0.clone();
    saved.file(&name).push(b' ');
    refused(&saved, "another digest");
}

#[test]
fn a_layer_that_the_configuration_does_not_know_is_refused() {
    let mut saved = image();
    let name = saved.files[0].0.clone();
    *saved.file(&name) = layer(&["other"]);
    refused(&saved, "another digest");
}

#[test]
fn another_number_of_layers_is_refused() {
    let mut saved = image();
    saved.edit("\"Layers\":[", "\"Layers\":[\"extra/layer.tar\",");
    refused(&saved, "another number of layers");
}

#[test]
fn a_layer_that_is_not_there_is_refused() {
    let mut saved = image();
    drop(saved.files.remove(0));
    refused(&saved, "is not in the archive");
}

#[test]
fn a_layer_name_that_leads_out_is_refused() {
    for name in ["../layer.tar", "/etc/passwd", "a/../../b"] {
        let mut saved = image();
        let first = saved.files[0].0.clone();
        saved.edit(&first, name);
        let error = build(&saved).unwrap_err().to_string();
        assert!(error.contains("leads out") || error.contains(". or .."), "{name}: {error}");
    }
}

#[test]
fn a_manifest_with_a_word_twice_is_refused() {
    let mut saved = image();
    saved.edit("\"RepoTags\"", "\"Layers\":[],\"RepoTags\"");
    refused(&saved, "duplicate field");
}

#[test]
fn a_manifest_that_comes_twice_is_refused() {
    let mut saved = image();
    let manifest = saved.files.last().unwrap().clone();
    saved.files.push(manifest);
    refused(&saved, "comes twice");
}

#[test]
fn an_image_for_another_processor_is_refused() {
    let mut saved = image();
    let name = saved.files[saved.files.len() - 2].0.clone();
    let text = String::from_utf8(saved.file(&name).clone()).unwrap();
    *saved.file(&name) = text.replace("amd64", "arm64").into_bytes();
    let (old, new) = (name.clone(), "config.json".to_owned());
    saved.edit(&old, &new);
    saved.files.iter_mut().find(|(known, _)| *known == old).unwrap().0 = new;
    refused(&saved, "is not for linux/amd64");
}

/// A reader of layouts and a reader of manifests must see the same image.
#[test]
fn a_layout_whose_manifest_names_another_image_is_refused() {
    let layout = layout(&two_layers(), CONFIG);
    let expected = layout_of(layout.path());
    let mut saved = image();
    let config = saved.files[saved.files.len() - 2].0.clone();
    let digits = config.strip_suffix(".json").unwrap();
    saved.edit(&config, &format!("blobs/sha256/{digits}"));
    let manifest = layout.path().join("manifest.json");
    fs::write(&manifest, saved.file("manifest.json")).unwrap();
    assert_eq!(layout_of(layout.path()), expected);
    let other = Saved::new(&[layer(&["other"])], CONFIG);
    fs::write(&manifest, &other.files.last().unwrap().1).unwrap();
    let error = create::build_image(layout.path(), &options(), &()).unwrap_err().to_string();
    assert!(error.contains("name different images"), "{error}");
}

#[test]
fn what_is_no_image_is_refused() {
    let error = build_bytes(&member("a", b'0', "", b""), &options()).unwrap_err().to_string();
    assert!(error.contains("neither index.json nor manifest.json"), "{error}");
}

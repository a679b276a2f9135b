//! Images as tests build them: layers, layouts, what docker saves, and tar members byte by byte.

use sha2::{Digest as _, Sha256};
use std::{fs, io::Write as _};
use tempfile::TempDir;

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A layer: `path` with a slash at the end is a directory, `a -> b` a symlink, `a = b` a hard link.
pub(crate) fn layer(names: &[&str]) -> Vec<u8> {
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

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap()
}

/// The file that says what the layers unpack to, and how the image is run.
fn configuration<'a>(layers: impl IntoIterator<Item = &'a Vec<u8>>, config: &str) -> String {
    let diff_ids: Vec<_> =
        layers.into_iter().map(|layer| format!("\"{}\"", digest(layer))).collect();
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{config},
            "rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    )
}

/// Writes a layout of these layers, each as (unpacked, as stored).
pub(crate) fn layout(layers: &[(Vec<u8>, Vec<u8>)], config: &str) -> TempDir {
    let layout = tempfile::tempdir().unwrap();
    let blobs = layout.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = digest(bytes);
        fs::write(blobs.join(&digest[7..]), bytes).unwrap();
        format!(r#"{{"mediaType":"","digest":"{digest}","size":{}}}"#, bytes.len())
    };
    let stored: Vec<_> = layers.iter().map(|(_, stored)| put(stored)).collect();
    let image = configuration(layers.iter().map(|(plain, _)| plain), config);
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

pub(crate) fn two_layers() -> [(Vec<u8>, Vec<u8>); 3] {
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
/// The configuration of most test images.
pub(crate) const CONFIG: &str = r#"{"User":"web","Env":["PATH=/bin","PATH=/sbin","A="],"Entrypoint":["/bin/app"],
    "Cmd":["-v"],"WorkingDir":"/usr"}"#;

/// One header with its data, as small as the format allows.
pub(crate) fn member(path: &str, kind: u8, target: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_link_name_literal(target).unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    let mut member = header.as_bytes().to_vec();
    member.extend(bytes);
    member.resize(member.len().next_multiple_of(512), 0);
    member
}

/// What an image consists of when docker saves it: files of an archive by name.
pub(crate) struct Saved {
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

impl Saved {
    /// As docker did before it wrote layouts: a directory for each layer.
    pub(crate) fn new(layers: &[Vec<u8>], config: &str) -> Self {
        let image = configuration(layers, config);
        let config = format!("{}.json", &digest(image.as_bytes())[7..]);
        let names: Vec<_> =
            layers.iter().map(|layer| format!("{}/layer.tar", &digest(layer)[7..])).collect();
        let manifest = format!(
            r#"[{{"Config":"{config}","RepoTags":["app:1"],"Layers":["{}"]}}]"#,
            names.join("\",\"")
        );
        let mut files: Vec<_> =
            names.into_iter().zip(layers).map(|(name, bytes)| (name, bytes.clone())).collect();
        files.sort();
        files.dedup();
        files.push((config, image.into_bytes()));
        files.push(("manifest.json".into(), manifest.into_bytes()));
        Self { files }
    }

    /// The file with this name.
    pub(crate) fn file(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.files.iter_mut().find(|(known, _)| known == name).unwrap().1
    }

    /// Replaces text in the manifest.
    pub(crate) fn edit(&mut self, from: &str, to: &str) {
        let manifest = self.file("manifest.json");
        let text = String::from_utf8(manifest.clone()).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        *manifest = text.replace(from, to).into_bytes();
    }

    /// The archive.
    pub(crate) fn tar(&self) -> Vec<u8> {
        let members = self.files.iter().map(|(name, bytes)| long_member(name, b'0', "", bytes));
        [members.collect::<Vec<_>>().concat(), vec![0; 1024]].concat()
    }
}

/// A member whose name may be long.
pub(crate) fn long_member(path: &str, kind: u8, target: &str, bytes: &[u8]) -> Vec<u8> {
    if path.len() <= 100 {
        return member(path, kind, target, bytes);
    }
    let record = |length: usize| format!("{length} path={path}\n");
    let length = (0..10_000).find(|length| record(*length).len() == *length).unwrap();
    let extension = member("x", b'x', "", record(length).as_bytes());
    [extension, member(&path[..100], kind, target, bytes)].concat()
}

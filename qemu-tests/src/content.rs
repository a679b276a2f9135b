//! What to put into a container: nginx from Debian's package, with its libraries; a program that fills
//! its disk; one that talks.

use crate::archive;
use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What the page says.
pub const PAGE: &str = "Served by a verified container.";

/// Makes the tree of a container in `root`: nginx, its libraries, a configuration, a page. A second
/// time only the page changes.
pub fn nginx(root: &Path, page: &str) -> Result<()> {
    let program = root.join("usr/sbin/nginx");
    if !program.exists() {
        for directory in ["srv", "etc/nginx", "usr/sbin", "var/lib/nginx", "var/log/nginx"] {
            fs::create_dir_all(root.join(directory))?;
        }
        let unpacked = unpack_package("nginx")?;
        let unpacked = unpacked.path().join("usr/sbin/nginx");
        for library in libraries(&unpacked)? {
            copy(&library, root)?;
        }
        fs::copy(&unpacked, &program).context("copying nginx")?;
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/none\nwww:x:33:33::/:/none\n")?;
        fs::write(root.join("etc/group"), "root:x:0:\nwww:x:33:\n")?;
        fs::write(root.join("etc/nginx/nginx.conf"), CONFIGURATION)?;
    }
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Zero-OS</title>\n\
         <p>{page}</p>\n</html>\n"
    );
    fs::write(root.join("srv/index.html"), page)?;
    Ok(())
}

/// Makes the tree of a container in `root` that fills its volume (`guest/filler.rs`).
pub fn filler(root: &Path) -> Result<()> {
    for directory in ["bin", "var/lib/nginx"] {
        fs::create_dir_all(root.join(directory))?;
    }
    archive::guest_program("filler", &root.join("bin")).map(drop)
}

/// Makes the tree of a container in `root` that only sleeps (`guest/sleeper.rs`).
pub fn sleeper(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("bin"))?;
    archive::guest_program("sleeper", &root.join("bin")).map(drop)
}

/// Makes the tree of a container in `root` whose health check looks for a file (`guest/patient.rs`).
pub fn patient(root: &Path) -> Result<()> {
    for directory in ["bin", "var/lib/nginx"] {
        fs::create_dir_all(root.join(directory))?;
    }
    archive::guest_program("patient", &root.join("bin")).map(drop)
}

/// Makes the tree of a container in `root` that talks (`guest/talker.rs`).
pub fn talker(root: &Path) -> Result<()> {
    for directory in ["bin", "var/lib/nginx"] {
        fs::create_dir_all(root.join(directory))?;
    }
    archive::guest_program("talker", &root.join("bin")).map(drop)
}

/// The files of a Debian package, fetched and authenticated by apt. Nothing is installed, so that no
/// server starts on this machine.
pub(crate) fn unpack_package(name: &str) -> Result<tempfile::TempDir> {
    let package = fetched_package(name).or_else(|_| {
        // The lists may be missing or name a version that the archive has replaced.
        apt_get(&["update", "-q"], Path::new("/"))?;
        fetched_package(name)
    });
    let package = package.context("run `apt-get update` as root")?;
    let directory = tempfile::tempdir()?;
    let unpacked = Command::new("dpkg").arg("-x").args([&package, directory.path()]).status()?;
    ensure!(unpacked.success(), "dpkg -x {} failed", package.display());
    Ok(directory)
}

/// The file of a package. It is kept, so that the network is needed only for the first test.
fn fetched_package(name: &str) -> Result<PathBuf> {
    let cache = crate::own_directory().join("../build/cache/content");
    fs::create_dir_all(&cache)?;
    // Where the file lies already, apt describes nothing.
    let described = apt_get(&["download", "-q", "--print-uris", name], Path::new("/"))?;
    let file = described.split_ascii_whitespace().nth(1).context("apt describes no package")?;
    let kept = cache.join(file);
    if !kept.exists() {
        // Renamed only when complete.
        let fresh = tempfile::tempdir_in(&cache)?;
        apt_get(&["download", "-q", name], fresh.path())?;
        fs::rename(fresh.path().join(file), &kept)?;
    }
    Ok(kept)
}

fn apt_get(arguments: &[&str], directory: &Path) -> Result<String> {
    let output = Command::new("apt-get").args(arguments).current_dir(directory).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "apt-get {} failed: {said}", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

/// Everything that nginx writes goes to /tmp, the one writable place.
const CONFIGURATION: &str = "\
daemon off;
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr warn;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    types { text/html html; }
    server { listen 80; root /srv; }
}
";

/// Copies a file to the same place below `root`, following links.
fn copy(file: &Path, root: &Path) -> Result<()> {
    let inside = root.join(file.strip_prefix("/").context("an absolute path is needed")?);
    if let Some(directory) = inside.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::copy(file, &inside).with_context(|| format!("copying {}", file.display()))?;
    Ok(())
}

/// Shared libraries that a program needs, and its loader.
pub(crate) fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("running ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(!text.contains("not found"), "libraries of {} are missing: {text}", program.display());
    let paths = text.split_ascii_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

//! A real server to put into a container: nginx from Debian's package, with its libraries.

use anyhow::{Context as _, Result, bail};
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
    let program = Path::new("/usr/sbin/nginx");
    if !program.exists() {
        bail!("nginx is not installed; `cargo xtask demo` and `cargo xtask test` install it");
    }
    for directory in
        ["tmp", "run", "proc", "sys", "dev", "etc/nginx", "srv", "var/lib/nginx", "var/log/nginx"]
    {
        fs::create_dir_all(root.join(directory))?;
    }
    copy(program, root)?;
    for library in libraries(program)? {
        copy(&library, root)?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/none\nwww:x:33:33::/:/none\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nwww:x:33:\n")?;
    for file in ["etc/hosts", "etc/hostname", "etc/resolv.conf"] {
        fs::write(root.join(file), "")?;
    }
    fs::write(root.join("etc/nginx/nginx.conf"), CONFIGURATION)?;
    fs::write(
        root.join("srv/index.html"),
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Zero-OS</title>\n<p>{page}</p>\n</html>\n"
        ),
    )?;
    Ok(())
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
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("running ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text.split_ascii_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

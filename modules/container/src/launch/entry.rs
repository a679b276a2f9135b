//! The program: found in the verified root, its digest measured by the kernel, opened before the
//! container exists.
//!
//! A binary is executed by its descriptor. A script cannot be: its interpreter opens it again by
//! name, and a descriptor that stays open for it would be all the program sees of its name. So a
//! script is executed by path inside the read-only root, after the child has checked that the path
//! still leads to the measured file.

use super::{
    failure::{Context as _, Failure, fail},
    root::Layers,
};
use crate::{plan::PATH, reason::Reason};
use node_api::launcher::Start;
use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fgetxattr, fstat, openat2},
    io::Errno,
};
use sha2::{Digest as _, Sha256};
use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Bytes of `struct ovl_metacopy` with a SHA-256 digest: version, length, flags, algorithm, digest.
const METACOPY_LENGTH: usize = 36;
/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256: u8 = 1;
/// fs-verity hashes files in blocks of this size.
const BLOCK: usize = 4096;
/// Bytes of an object's path in the store.
const REDIRECT_MAX: usize = 256;
/// Directories of a `PATH` that are searched.
const PATH_PARTS_MAX: usize = 64;

/// A program that can be executed.
#[derive(Debug)]
pub(super) struct Entry {
    /// The file, in the overlay.
    pub(super) file: OwnedFd,
    /// The digest that the kernel enforces on its content.
    pub(super) digest: [u8; 32],
    /// Set for a script.
    pub(super) script: Option<Script>,
}

/// A script: its absolute path, and the numbers of the measured file.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) path: CString,
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// Finds the program of a request.
pub(super) fn find(start: &Start, layers: &Layers) -> Result<Entry, Failure> {
    let program = start.command.first().map_or("", String::as_str);
    for path in candidates(program, &start.env, &start.cwd) {
        let file = match openat2(layers.overlay(), &path, READ, Mode::empty(), INSIDE) {
            // The overlay answers EIO for content with another digest, ENOENT for none at all.
            Err(Errno::IO | Errno::NOENT | Errno::NOTDIR) => {
                let known = openat2(layers.metadata(), &path, READ, Mode::empty(), INSIDE).is_ok();
                if known {
                    return fail(
                        Reason::EntrypointDigestMismatch,
                        format!("the content of {path} is missing or damaged"),
                    );
                }
                continue;
            }
            done => done.context(Reason::EntrypointMissing, format!("opening {path}"))?,
        };
        let stat = fstat(&file).context(Reason::EntrypointMissing, format!("looking at {path}"))?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !regular || stat.st_mode & 0o111 == 0 {
            continue;
        }
        let digest = measured(&path, layers, &start.root.objects)?;
        let script = match is_script(file.as_fd()) {
            Ok(true) => {
                let path = CString::new(path.as_str())
                    .context(Reason::EntrypointMissing, "naming the script")?;
                Some(Script { path, device: stat.st_dev, inode: stat.st_ino })
            }
            Ok(false) => None,
            Err(errno) => {
                return Err(errno)
                    .context(Reason::EntrypointDigestMismatch, format!("reading {path}"));
            }
        };
        return Ok(Entry { file, digest, script });
    }
    fail(
        Reason::EntrypointMissing,
        format!("the flist has no executable file {program:?}, also not along PATH"),
    )
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);
/// Symbolic links of the image lead around inside the image.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Absolute paths to try, in order, as a shell would.
pub(super) fn candidates(program: &str, env: &[String], cwd: &str) -> Vec<String> {
    if program.starts_with('/') {
        return vec![program.to_owned()];
    }
    let below = |directory: &str| format!("{}/{program}", directory.trim_end_matches('/'));
    if program.contains('/') {
        return vec![below(cwd)];
    }
    let variable = env.iter().map(String::as_str).find(|variable| variable.starts_with("PATH="));
    variable
        .unwrap_or(PATH)
        .trim_start_matches("PATH=")
        .split(':')
        .filter(|part| part.starts_with('/'))
        .take(PATH_PARTS_MAX)
        .map(below)
        .collect()
}

pub(super) fn is_script(file: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let mut start = [0; 2];
    let n = rustix::io::pread(file, &mut start, 0)?;
    Ok(start.get(..n) == Some(b"#!"))
}

/// The digest of the object behind `path`, as the kernel measures it; it must be the one that the
/// metadata image says.
fn measured(path: &str, layers: &Layers, objects: &str) -> Result<[u8; 32], Failure> {
    let metadata = openat2(layers.metadata(), path, READ, Mode::empty(), INSIDE)
        .context(Reason::EntrypointMissing, format!("opening the metadata of {path}"))?;
    let mut metacopy = [0; METACOPY_LENGTH];
    let wanted = match fgetxattr(&metadata, "trusted.overlay.metacopy", &mut metacopy) {
        Ok(n) => parse_metacopy(metacopy.get(..n).unwrap_or_default()),
        // A file that is so small that its bytes are in the image itself.
        Err(Errno::NODATA) => return inline_digest(metadata.as_fd(), path),
        Err(errno) => {
            return Err(errno)
                .context(Reason::EntrypointMissing, format!("reading the digest of {path}"));
        }
    };
    let Some(wanted) = wanted else {
        return fail(
            Reason::EntrypointDigestMismatch,
            format!("the metadata of {path} has no fs-verity digest"),
        );
    };
    let mut redirect = [0; REDIRECT_MAX];
    let n = fgetxattr(&metadata, "trusted.overlay.redirect", &mut redirect)
        .context(Reason::EntrypointDigestMismatch, format!("finding the content of {path}"))?;
    let object = redirect.get(..n).unwrap_or_default();
    let object = object.strip_prefix(b"/").unwrap_or(object);
    let below = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let attempt = || format!("measuring the content of {path}");
    let objects = rustix::fs::open(objects, below, Mode::empty())
        .context(Reason::EntrypointDigestMismatch, attempt())?;
    let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let object = openat2(&objects, object, READ, Mode::empty(), strict)
        .context(Reason::EntrypointDigestMismatch, attempt())?;
    match sys::verity::measure(&object).context(Reason::EntrypointDigestMismatch, attempt())? {
        Some(have) if have == wanted => Ok(have),
        Some(have) => fail(
            Reason::EntrypointDigestMismatch,
            format!("{path} has digest {}, wanted {}", hex::encode(have), hex::encode(wanted)),
        ),
        None => fail(
            Reason::EntrypointDigestMismatch,
            format!("the content of {path} has no fs-verity"),
        ),
    }
}

/// `struct ovl_metacopy` of the kernel's fs/overlayfs: version 0, no flags, SHA-256.
fn parse_metacopy(bytes: &[u8]) -> Option<[u8; 32]> {
    match bytes {
        [0, 36, 0, SHA256, digest @ ..] => digest.try_into().ok(),
        _ => None,
    }
}

/// The fs-verity digest of a file in the image itself. The kernel enforces the image's own digest
/// on these bytes, so computing it here gives nothing away.
fn inline_digest(file: BorrowedFd<'_>, path: &str) -> Result<[u8; 32], Failure> {
    let mut block = [0; BLOCK];
    let n = rustix::io::pread(file, &mut block, 0)
        .context(Reason::EntrypointDigestMismatch, format!("reading {path}"))?;
    if n == BLOCK {
        return fail(
            Reason::EntrypointDigestMismatch,
            format!("{path} is too large to be without an object"),
        );
    }
    Ok(one_block_digest(&block, n))
}

/// What `fsverity digest` prints for a file of `size` bytes that fills less than one block.
fn one_block_digest(block: &[u8; BLOCK], size: usize) -> [u8; 32] {
    // struct fsverity_descriptor: version, algorithm, log2 of the block size, size, root hash.
    let mut descriptor = [0; 256];
    descriptor[..3].copy_from_slice(&[1, SHA256, 12]);
    descriptor[8..16].copy_from_slice(&(size as u64).to_le_bytes());
    if size > 0 {
        descriptor[16..48].copy_from_slice(&Sha256::digest(block));
    }
    Sha256::digest(descriptor).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_as_a_shell_does() {
        let env = ["A=1".to_owned(), "PATH=/a:relative::/b/".to_owned()];
        let rows: [(&str, &str, &[&str]); 4] = [
            ("/bin/x", "/", &["/bin/x"]),
            ("./x", "/srv", &["/srv/./x"]),
            ("bin/x", "/", &["/bin/x"]),
            ("x", "/srv", &["/a/x", "/b/x"]),
        ];
        for (program, cwd, want) in rows {
            assert_eq!(candidates(program, &env, cwd), want, "{program}");
        }
        assert_eq!(candidates("x", &[], "/").len(), 6);
        let endless = format!("PATH={}", "/a:".repeat(1000));
        assert_eq!(candidates("x", &[endless], "/").len(), PATH_PARTS_MAX);
    }

    #[test]
    fn only_a_sha256_digest_without_flags_counts() {
        let mut good = [0_u8; METACOPY_LENGTH];
        good[..4].copy_from_slice(&[0, 36, 0, SHA256]);
        good[4..].fill(7);
        assert_eq!(parse_metacopy(&good), Some([7; 32]));
        for (at, value) in [(0, 1), (1, 4), (2, 1), (3, 2)] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(parse_metacopy(&bad), None);
        }
        assert_eq!(parse_metacopy(&good[..35]), None);
        assert_eq!(parse_metacopy(&[]), None);
    }

    #[test]
    fn the_digest_of_a_small_file_is_what_fsverity_prints() {
        let mut block = [0; BLOCK];
        let empty = "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95";
        assert_eq!(hex::encode(one_block_digest(&block, 0)), empty);
        block[..6].copy_from_slice(b"hello\n");
        assert_eq!(hex::encode(one_block_digest(&block, 6)), HELLO);
    }

    /// `printf 'hello\n' > f; fsverity digest f`
    const HELLO: &str = "9c76eecc7b76fcb46199cb27b90cf59a660e10575bb0412128905129d5b1c2aa";
}

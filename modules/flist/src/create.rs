//! Makes, publishes, checks, compares, unpacks and exports flists on a host. The API of `3bot flist`.
//!
//! Same input, same options, same version of this crate: same bytes. What cannot be said in an
//! flist (device nodes, fifos, sockets, foreign attributes) or is ambiguous is refused with its
//! path, unless the options say to leave it out.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use flist::create::{Options, build_directory, publish};
//! let built = build_directory("rootfs".as_ref(), &Options::default(), &())?;
//! publish(&built, "public".as_ref())?;
//! println!("{}", built.flist.identity());
//! # Ok(())
//! # }
//! ```

mod blocks;
mod capnp;
mod diff;
mod directory;
mod docker;
mod earlier;
mod export;
mod image;
mod image_files;
mod oci;
mod pack;
mod pax;
mod published;
mod reader;
mod rfs;
mod run;
mod spool;
mod sqlite;
mod tar_file;
mod tarball;
mod tree;
mod unpack;
mod zflist;

use crate::{Flist, Progress, Refusal, body::MTIME_MAX};
use image_files::ImageFiles;
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};
use tree::Tree;

pub use diff::{Changed, Diff, Fact, Named, diff};
pub use export::{export_oci, export_tar};
pub use published::{
    Summary, inspect, pack_id, publish, published_files, publishing, verify_published, write_new,
};
pub use run::Overrides;
pub use unpack::unpack;

/// Small files may unpack to a lot; somebody's disk has to take it.
const UNPACKED_BYTES_MAX: u64 = 64 << 30;

/// How an flist is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to change in the run configuration that the input brings.
    pub run: Overrides,
    /// Everything belongs to this user and group, instead of what the input says.
    pub owner: Option<(u32, u32)>,
    /// Later times become this one, in seconds since 1970.
    pub mtime_max: u64,
    /// What happens to device nodes, fifos and sockets.
    pub special: Special,
    /// Directories, and empty files, that a container needs to mount on; made where they are
    /// missing. A name that ends in `/` is a directory.
    pub mount_points: Vec<String>,
    /// Which image of a layout or an archive: its reference name, its tag or its digest. Needed if
    /// there are several.
    pub reference: Option<String>,
    /// Where temporary files go; needs room for the unpacked input.
    pub scratch: PathBuf,
    /// An archive, or all layers of an image, that unpacks to more is refused.
    pub unpacked_bytes_max: u64,
}

impl Default for Options {
    /// Owners and times as in the input, special files refused, the mount points of a container.
    fn default() -> Self {
        let points = ["dev/", "etc/hostname", "etc/hosts", "etc/resolv.conf", "proc/", "run/"];
        Self {
            run: Overrides::default(),
            owner: None,
            mtime_max: MTIME_MAX,
            special: Special::Refuse,
            mount_points: points.into_iter().chain(["sys/", "tmp/"]).map(str::to_owned).collect(),
            reference: None,
            scratch: std::env::temp_dir(),
            unpacked_bytes_max: UNPACKED_BYTES_MAX,
        }
    }
}

/// What happens to device nodes, fifos and sockets of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// The input is refused.
    Refuse,
    /// They are left out.
    Omit,
}

/// A new flist with its packs, in a directory that goes away with it.
#[derive(Debug)]
pub struct Built {
    /// The flist.
    pub flist: Flist,
    packs: tempfile::TempDir,
}

/// Why an flist was not made, published, checked or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The disk or the file system.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The input cannot become an flist.
    #[error("{subject} {problem}")]
    Input {
        /// Which part of it.
        subject: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The result, or what was published, breaks a rule of flists.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A published file is missing, short or wrong.
    #[error("checking {file}")]
    Published {
        /// Path inside the image, or name of the flist.
        file: String,
        /// What is wrong with it.
        #[source]
        source: crate::FetchError,
    },
}

impl CreateError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    fn input(subject: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Input { subject: subject.into(), problem: problem.into() }
    }
}

/// Makes an flist of the files in a directory.
pub fn build_directory(
    path: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Built, CreateError> {
    let tree = directory::read(path, options)?;
    pack::pack(tree, options, progress)
}

/// Makes an flist of the files in a tar file: plain, or compressed with gzip or zstd.
pub fn build_tar(
    path: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Built, CreateError> {
    pack::pack(read_archive(path, options)?, options, progress)
}

/// Makes an flist of a container image: an OCI image layout or what `docker save` wrote, as a
/// directory or as a tar file (`skopeo copy … oci-archive:` and `podman save` write those too).
pub fn build_image(
    path: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Built, CreateError> {
    let tree = if path.is_dir() {
        image::read(ImageFiles::Directory(path), options)?
    } else {
        image::read(ImageFiles::Archive(&read_archive(path, options)?), options)?
    };
    pack::pack(tree, options, progress)
}

/// Makes an flist of a tar file: of the image if it is one, or else of its files.
pub fn build_archive(
    path: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Built, CreateError> {
    let mut tree = read_archive(path, options)?;
    if ImageFiles::Archive(&tree).has(earlier::DATABASE) {
        let problem = "is an flist of an earlier Zero-OS, which needs a place with its blocks";
        return Err(CreateError::input(path.display().to_string(), problem));
    }
    if image::recognise(ImageFiles::Archive(&tree)) {
        tree = image::read(ImageFiles::Archive(&tree), options)?;
    }
    pack::pack(tree, options, progress)
}

/// Makes an flist of one in either of the earlier Zero-OS formats: `.flist` (a gzipped tar file) or
/// `.fl` (a database). `blocks` is where its blocks are, under their names in hexadecimal digits:
/// beside each other, or in directories by their first two digits.
pub fn build_earlier(
    path: &Path,
    blocks: &crate::Source,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Built, CreateError> {
    pack::pack(earlier::read(path, blocks, options, progress)?, options, progress)
}

fn read_archive(path: &Path, options: &Options) -> Result<Tree, CreateError> {
    let file = File::open(path).map_err(CreateError::io("opening", path))?;
    let mut spool = spool::Spool::new(options)?;
    let mut plain = spool::decompressed(Box::new(file), path, &spool)?;
    let mut tree = Tree::default();
    let names = tarball::Names::Literal;
    tree.apply(tarball::read(&mut plain, &mut spool, names, options.special)?)?;
    Ok(tree)
}

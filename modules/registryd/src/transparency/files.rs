//! The files of the log: tiles and bundles of entries, under the paths by which they are served
//! (c2sp.org/tlog-tiles). Written once, and only ever with the same content.

use anyhow::Context as _;
use std::{
    collections::BTreeSet,
    fmt, fs,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
};
use tlog::{
    Bundle, Edge, Hash, Note, Resource, Tile,
    tile::{self, WIDTH_MAX},
    tree::{self, Node},
};

/// A checkpoint that is kept as a file beside the tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The newest that was signed, before anybody has seen it: how far the log is bound.
    Signed,
    /// The one that is shown, with the cosignatures of witnesses.
    Shown,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signed => "signed",
            Self::Shown => "checkpoint",
        })
    }
}

/// The folder of a log's files.
#[derive(Debug, Clone)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// The files below a data directory.
    pub fn new(data: &Path) -> Self {
        Self { root: data.join("log") }
    }

    /// Where a resource is.
    pub fn path(&self, resource: Resource) -> PathBuf {
        self.root.join(resource.to_string())
    }

    /// The right edge of the tree of this size.
    pub fn edge(&self, size: u64) -> anyhow::Result<Edge> {
        Edge::resume(size, |tile| self.tile(tile))
    }

    /// The hash of a complete subtree of the tree of this size.
    pub fn hash(&self, node: Node, size: u64) -> anyhow::Result<Hash> {
        let tile = Tile::of(node, size).context("the tree has no such node")?;
        tile.hash(&self.tile(tile)?, node).context("the tile has no such node")
    }

    /// The hashes of a tile.
    pub fn tile(&self, tile: Tile) -> anyhow::Result<Vec<Hash>> {
        let partial = self.read(Resource::Tile(tile));
        match partial {
            Ok(content) => Ok(tile.read(&content)?),
            // A partial tile goes when the full one has come.
            Err(_) if tile.width < WIDTH_MAX => {
                let full = Tile { width: WIDTH_MAX, ..tile };
                let mut hashes = full.read(&self.read(Resource::Tile(full))?)?;
                hashes.truncate(tile.width.into());
                Ok(hashes)
            }
            Err(error) => Err(error),
        }
    }

    /// The bytes of a resource.
    pub fn read(&self, resource: Resource) -> anyhow::Result<Vec<u8>> {
        let path = self.path(resource);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Adds entries at the edge: everything that the larger tree needs is on the disk when this
    /// returns. A second time does the same again.
    pub fn append(&self, edge: &mut Edge, records: &[Vec<u8>]) -> anyhow::Result<()> {
        let width = |size: u64| u16::try_from(size % u64::from(WIDTH_MAX)).unwrap_or_default();
        let bundle = |index: u64, width: u16| Resource::Bundle(Bundle { index, width });
        let number = |size: u64| size / u64::from(WIDTH_MAX);
        let mut entries = match width(edge.size()) {
            0 => Vec::new(),
            width => self.read(bundle(number(edge.size()), width))?,
        };
        let mut writes: Vec<(Resource, Vec<u8>)> = Vec::new();
        for record in records {
            Bundle::push(&mut entries, record).context("a record is too large")?;
            edge.push(tree::leaf(record), |tile, hashes| {
                writes.push((Resource::Tile(tile), tile::content(hashes)));
            });
            if width(edge.size()) == 0 {
                let full = bundle(number(edge.size()) - 1, WIDTH_MAX);
                writes.push((full, std::mem::take(&mut entries)));
            }
        }
        if width(edge.size()) > 0 {
            writes.push((bundle(number(edge.size()), width(edge.size())), entries));
        }
        for (tile, hashes) in edge.partial() {
            writes.push((Resource::Tile(tile), tile::content(hashes)));
        }
        let mut folders = BTreeSet::new();
        for (resource, content) in &writes {
            self.write(*resource, content, &mut folders)?;
        }
        // The deepest first: a folder is on the disk before its name in the one above is.
        folders.iter().rev().try_for_each(|folder| {
            let syncing = || format!("syncing {}", folder.display());
            fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(syncing)
        })
    }

    fn write(
        &self,
        resource: Resource,
        content: &[u8],
        folders: &mut BTreeSet<PathBuf>,
    ) -> anyhow::Result<()> {
        let path = self.path(resource);
        let writing = || format!("writing {}", path.display());
        let folder = path.parent().context("a resource is in a folder").with_context(writing)?;
        fs::create_dir_all(folder).with_context(writing)?;
        // Up to the data directory, which holds the folder of the log.
        let above = self.root.parent().into_iter();
        let within = folder.ancestors().take_while(|folder| folder.starts_with(&self.root));
        folders.extend(within.chain(above).map(Path::to_owned));
        match fs::read(&path) {
            Ok(known) if known == content => return Ok(()),
            Ok(_) => anyhow::bail!(
                "{} is there with another content: see `registryd fsck`",
                path.display()
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(writing),
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.context("a resource has a name").with_context(writing)?;
        replace(folder, name, content).with_context(writing)
    }

    /// A checkpoint that was kept, to be held against a database that may have been restored.
    pub fn kept(&self, which: Kept) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.root.join(which.to_string());
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Keeps a checkpoint in place of the one before. It is on the disk when this returns.
    pub fn keep(&self, which: Kept, note: &Note) -> anyhow::Result<()> {
        fs::create_dir_all(&self.root)
            .and_then(|()| replace(&self.root, &which.to_string(), note.to_string().as_bytes()))
            .and_then(|()| fs::File::open(&self.root)?.sync_all())
            .with_context(|| format!("writing {}", self.root.join(which.to_string()).display()))
    }

    /// Removes the partial tiles and bundles between these sizes whose full ones are there and
    /// served. What stays behind does no harm.
    pub fn tidy(&self, old: u64, new: u64) {
        let full = tile::new_tiles(old, new).into_iter().filter(|tile| tile.width == WIDTH_MAX);
        for tile in full {
            let bundle = tile.bundle().map(Resource::Bundle);
            for resource in [Some(Resource::Tile(tile)), bundle].into_iter().flatten() {
                let mut folder = self.path(resource).into_os_string();
                folder.push(".p");
                match fs::remove_dir_all(&folder) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => crate::log(&format!("removing {}: {error}", folder.display())),
                }
            }
        }
    }
}

/// The name is there only when the content is on the disk. Syncing the folder is the caller's, and
/// so is that nobody else writes the same name.
fn replace(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(format!(".{name}.new"));
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(name))
}

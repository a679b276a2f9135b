//! `3bot flist`.

use super::{Exit, context::Context, output::Output};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use contract::FlistId;
use flist::{
    Progress, Stage,
    create::{self, Options, Overrides, Special, Summary},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::path::{Path, PathBuf};
use threebot::{Grid, content, source::units::show_bytes};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an flist of a directory, a tar file or an OCI image. Same input, same id.
    #[command(after_help = "\
Examples:
  3bot flist build rootfs --out public --entrypoint /bin/server
  3bot flist build image.tar --out public --env LANG=C
  3bot flist build oci-layout --out public --reference latest")]
    Build(Box<Build>),
    /// Show what an flist contains.
    Inspect {
        /// File of an flist, directory with one, or an id in the registry's content store.
        flist: String,
    },
    /// Read everything that was published for an flist and compare every hash.
    Verify {
        /// Directory made by `flist build`.
        dir: PathBuf,
        /// The flist; may be left out when the directory holds one.
        id: Option<FlistId>,
    },
    /// Upload flists to the registry's content store; what is there already is skipped.
    #[command(
        after_help = "Example:\n  3bot flist push public --registry http://registry.example:8000"
    )]
    Push {
        /// Directory made by `flist build`.
        dir: PathBuf,
        /// Only these flists; all unless given.
        #[arg(long, value_name = "ID")]
        id: Vec<FlistId>,
        /// Another store than that of the registry: URL that ends in /content.
        #[arg(long, value_name = "URL")]
        to: Option<String>,
    },
    /// Write the files of an flist into a new directory.
    Unpack {
        /// Directory made by `flist build`.
        dir: PathBuf,
        /// The new directory.
        to: PathBuf,
        /// The flist; may be left out when the directory holds one.
        #[arg(long)]
        id: Option<FlistId>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Directory, tar file (plain, gzip or zstd), or OCI layout (directory or archive).
    source: PathBuf,
    /// Directory that takes flists and packs; may hold others.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Program and its first arguments, instead of what the source says; repeat for each word.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Argument behind the entry point; repeat for each word.
    #[arg(long = "arg", value_name = "WORD", allow_hyphen_values = true)]
    arguments: Vec<String>,
    /// Variable; repeat for more.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Working directory.
    #[arg(long, value_name = "PATH")]
    cwd: Option<String>,
    /// User and group, by name or number.
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Everything belongs to this user and group.
    #[arg(long, value_name = "UID:GID", value_parser = owner)]
    owner: Option<(u32, u32)>,
    /// Leave out device nodes, fifos and sockets instead of refusing them.
    #[arg(long)]
    omit_special: bool,
    /// Directory to mount a volume on, made when it is missing; repeat for more.
    #[arg(long, value_name = "PATH")]
    mount_point: Vec<String>,
    /// Which image of an OCI layout.
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    /// What the source is; found out unless given.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// The files of a directory.
    Directory,
    /// The files of a tar file.
    Tar,
    /// An OCI image layout, as a directory or an archive.
    Oci,
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let numbers =
        text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    numbers.ok_or_else(|| "two numbers are needed, as in 0:0".to_owned())
}

pub(crate) async fn run(
    context: &impl Fn() -> anyhow::Result<Context>,
    output: &Output,
    command: Command,
) -> anyhow::Result<Exit> {
    match command {
        Command::Build(build) => {
            let out = build.out.clone();
            // Reading and compressing blocks for long.
            let built = tokio::task::spawn_blocking(move || build.run()).await?;
            let id = built.context("building the flist")?;
            show(output, &id, Some(&out));
        }
        Command::Inspect { flist } => show(output, &inspect(context, &flist).await?, None),
        Command::Verify { dir, id } => {
            let (id, bar) = (id.map_or_else(|| content::only_flist(&dir), Ok)?, Bar::new());
            let source = absolute(&dir)?;
            let verified = tokio::task::spawn_blocking(move || {
                let source = flist::Source::new([source])?;
                anyhow::Ok(create::verify_published(&source, id, &bar)?)
            });
            let summary = verified.await?.with_context(|| format!("{id} is not intact"))?;
            show(output, &summary, None);
            output.say("every byte has its hash");
        }
        Command::Push { dir, id, to } => push(context, output, &dir, id, to).await?,
        Command::Unpack { dir, to, id } => {
            let (id, bar) = (id.map_or_else(|| content::only_flist(&dir), Ok)?, Bar::new());
            let (source, target) = (absolute(&dir)?, to.clone());
            let unpacked = tokio::task::spawn_blocking(move || {
                let source = flist::Source::new([source])?;
                anyhow::Ok(create::unpack(&source, id, &target, &bar)?)
            });
            let summary = unpacked.await??;
            output.answer(&json!({ "flist": id, "to": to }));
            output.say(format_args!("wrote {} files to {}", summary.files, to.display()));
        }
    }
    Ok(Exit::Done)
}

impl Build {
    fn run(&self) -> anyhow::Result<Summary> {
        let optional = |words: &Vec<String>| (!words.is_empty()).then(|| words.clone());
        let mut options = Options {
            run: Overrides {
                entrypoint: optional(&self.entrypoint),
                arguments: optional(&self.arguments),
                env: self.env.clone(),
                cwd: self.cwd.clone(),
                user: self.user.clone(),
            },
            owner: self.owner,
            special: if self.omit_special { Special::Omit } else { Special::Refuse },
            reference: self.reference.clone(),
            ..Options::default()
        };
        let points = self.mount_point.iter();
        options.mount_points.extend(points.map(|path| format!("{}/", path.trim_matches('/'))));
        let bar = Bar::new();
        let built = match self.kind.map_or_else(|| guess(&self.source), Ok)? {
            Kind::Directory => create::build_directory(&self.source, &options, &bar),
            Kind::Tar => create::build_tar(&self.source, &options, &bar),
            Kind::Oci => create::build_oci(&self.source, &options, &bar),
        }?;
        create::publish(&built, &self.out)?;
        Ok(create::inspect(&built.flist.encode())?)
    }
}

/// A directory with an `oci-layout` file is a layout; a file is a tar file unless its name says OCI.
fn guess(source: &Path) -> anyhow::Result<Kind> {
    let found =
        std::fs::metadata(source).with_context(|| format!("reading {}", source.display()))?;
    let name = source.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Ok(match found.is_dir() {
        true if source.join("oci-layout").is_file() => Kind::Oci,
        true => Kind::Directory,
        false if name.contains("oci") => Kind::Oci,
        false => Kind::Tar,
    })
}

/// As the flist library wants a directory.
fn absolute(dir: &Path) -> anyhow::Result<String> {
    let path = std::fs::canonicalize(dir).with_context(|| format!("reading {}", dir.display()))?;
    path.to_str().map(str::to_owned).context("the directory's name is not UTF-8")
}

async fn inspect(
    context: &impl Fn() -> anyhow::Result<Context>,
    flist: &str,
) -> anyhow::Result<Summary> {
    let path = Path::new(flist);
    let bytes = if path.is_dir() {
        content::read_published(path, content::only_flist(path)?)?.encode()
    } else if let (Ok(id), false) = (flist.parse::<FlistId>(), path.exists()) {
        let grid = context()?.grid()?;
        let wanted = threebot::source::Flist { id: Some(id), ..Default::default() };
        let wanted = [("flist".to_owned(), wanted)].into();
        let mut found = content::look_up(&wanted, Path::new(""), &[grid.content_url()]).await?;
        found.pop_first().context("nothing was found")?.1.flist.encode()
    } else {
        std::fs::read(path).with_context(|| format!("reading {}", path.display()))?
    };
    Ok(create::inspect(&bytes)?)
}

async fn push(
    context: &impl Fn() -> anyhow::Result<Context>,
    output: &Output,
    dir: &Path,
    ids: Vec<FlistId>,
    to: Option<String>,
) -> anyhow::Result<()> {
    let grid = match to {
        None => context()?.grid()?,
        Some(url) => {
            let base = url.trim_end_matches('/').trim_end_matches("/content").to_owned();
            Grid::new("main", [base])?
        }
    };
    let ids = if ids.is_empty() { content::published_flists(dir)? } else { ids };
    anyhow::ensure!(!ids.is_empty(), "{} holds no flist", dir.display());
    let files = content::uploads(dir, &ids)?;
    let bar = Bar::new();
    bar.start("uploading", files.iter().map(|file| file.bytes).sum());
    let (mut sent, mut sent_bytes) = (0_u64, 0_u64);
    for file in &files {
        if content::upload(&grid, file).await? {
            sent += 1;
            sent_bytes += file.bytes;
        }
        bar.advance(file.bytes);
    }
    bar.0.finish_and_clear();
    let skipped = files.len() as u64 - sent;
    let store = grid.content_url();
    output.answer(&json!({
        "flists": ids, "store": store, "sent": sent, "sent_bytes": sent_bytes, "skipped": skipped,
    }));
    for id in &ids {
        output.say(format_args!("{store}/flists/{id}"));
    }
    let size = show_bytes(sent_bytes);
    output.say(format_args!("{sent} files sent ({size}), {skipped} were there already"));
    Ok(())
}

fn show(output: &Output, summary: &Summary, out: Option<&Path>) {
    let run = &summary.run;
    output.answer(&json!({
        "flist": summary.identity,
        "out": out,
        "entrypoint": run.entrypoint,
        "arguments": run.arguments,
        "env": run.env,
        "cwd": run.cwd,
        "uid": run.uid,
        "gid": run.gid,
        "directories": summary.directories,
        "files": summary.files,
        "symlinks": summary.symlinks,
        "links": summary.links,
        "contents": summary.contents,
        "content_bytes": summary.content_bytes,
        "packs": summary.packs,
        "packed_bytes": summary.packed_bytes,
        "body_bytes": summary.body_bytes,
    }));
    let words = |words: &[String]| {
        let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
        if words.is_empty() { "(none)".to_owned() } else { words.join(" ") }
    };
    output.say(format_args!("flist       {}", summary.identity));
    output.say(format_args!("entrypoint  {}", words(&run.entrypoint)));
    output.say(format_args!("arguments   {}", words(&run.arguments)));
    output.say(format_args!("env         {}", words(&run.env)));
    output.say(format_args!("cwd         {}", if run.cwd.is_empty() { "/" } else { &run.cwd }));
    output.say(format_args!("user        {}:{}", run.uid, run.gid));
    output.say(format_args!(
        "tree        {} files, {} directories, {} symlinks, {} hard links",
        summary.files, summary.directories, summary.symlinks, summary.links
    ));
    output.say(format_args!(
        "content     {} in {} files, {} packed",
        show_bytes(summary.content_bytes),
        summary.contents,
        show_bytes(summary.packed_bytes)
    ));
}

/// A bar on a terminal; nothing elsewhere.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        // Hidden by itself when stderr is no terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(
            "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {eta}",
        );
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    fn start(&self, what: &'static str, total: u64) {
        self.0.reset();
        self.0.set_message(what);
        self.0.set_length(total);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn begin(&self, stage: Stage, total: u64) {
        let what = match stage {
            Stage::Packing => "packing",
            Stage::Reading => "reading",
            Stage::Fetching => "fetching",
            Stage::Sealing => "sealing",
        };
        self.start(what, total);
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

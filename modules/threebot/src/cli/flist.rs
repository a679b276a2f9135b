//! `3bot flist`.

mod compare;
mod gc;
mod push;

use super::{
    Exit,
    context::{Context, later, now},
    output::Output,
};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use contract::{FlistId, Release};
use flist::{
    Flist, Progress, Stage,
    create::{self, Options, Overrides, Special, Summary},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::path::{Path, PathBuf};
use threebot::{
    content,
    source::{When, units::show_bytes},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an flist of a directory, a tar file or a container image. Same input, same id.
    #[command(after_help = "\
Examples:
  3bot flist build rootfs --out public --entrypoint /bin/server
  3bot flist build rootfs.tar.zst --out public --env LANG=C
  docker save app:1 | gzip > app.tar.gz && 3bot flist build app.tar.gz --out public
  3bot flist build oci-layout --out public --reference latest
  3bot flist build app.fl --blocks https://blocks.example --out public --entrypoint /bin/app")]
    Build(Box<Build>),
    /// Show what an flist contains.
    Inspect {
        /// File of an flist, directory with one, or an id in the registry's content store.
        flist: String,
    },
    /// Sign an flist of a directory as its publisher. A contract can demand that.
    #[command(after_help = "\
Beginning with the flist ends at --not-after; what was begun goes on. To let it be begun with for longer,
sign it again.

Example:
  3bot flist sign public --name shop --revision 3 --not-after 180d --as publisher")]
    Sign {
        /// Directory made by `flist build`.
        dir: PathBuf,
        /// The flist; may be left out when the directory holds one.
        id: Option<FlistId>,
        /// What you call it.
        #[arg(long)]
        name: String,
        /// Which of your revisions it is; counts up from 1.
        #[arg(long, value_name = "N")]
        revision: u64,
        /// Nothing begins with it afterwards: a length of time, or a time. For ever unless given.
        #[arg(long, value_name = "WHEN")]
        not_after: Option<When>,
    },
    /// Read everything that was published for an flist and compare every hash.
    Verify {
        /// Directory made by `flist build`.
        dir: PathBuf,
        /// The flist; may be left out when the directory holds one.
        id: Option<FlistId>,
    },
    /// Upload flists to the registry's content store, or into a bucket; what is there already is skipped.
    #[command(after_help = "\
The key of a bucket comes from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN;
so do AWS_REGION and, for servers that are not Amazon's, AWS_ENDPOINT_URL.

Examples:
  3bot flist push public --registry http://registry.example:8000
  3bot flist push public --to s3://bucket/content")]
    Push(push::Push),
    /// Clear up a place: show, or delete, what no flist needs that stays.
    #[command(after_help = "\
Flists that stay are named, or young; so is all that they need. Files with other names than those of flists
are not looked at. What came within --grace stays in any case.

Examples:
  3bot flist gc public --keep-file running.txt
  3bot flist gc public --keep ID --keep-newer 30d --delete
  3bot flist gc s3://bucket/content --keep-file running.txt")]
    Gc(gc::Gc),
    /// Compare two flists file by file. Exit code 0: the same; 5: different.
    #[command(after_help = "Example:\n  3bot flist diff public-old public-new")]
    Diff {
        /// File of an flist, directory with one, or an id in the registry's content store.
        old: String,
        /// The same for the other one.
        new: String,
    },
    /// Write the files of an flist into a new or empty directory.
    Unpack {
        /// Directory made by `flist build`.
        dir: PathBuf,
        /// The new directory.
        to: PathBuf,
        /// The flist; may be left out when the directory holds one.
        #[arg(long)]
        id: Option<FlistId>,
    },
    /// Write an flist as a tar file or an OCI image layout. Same flist, same bytes.
    #[command(after_help = "\
A layout built again is the same flist. A tar file has the files only: to get the same flist again, give
`flist build` the run configuration that is printed.

Examples:
  3bot flist export public app.tar --to tar
  3bot flist export public app-oci --to oci --reference app:1 && podman pull oci:app-oci:app:1")]
    Export {
        /// Directory made by `flist build`.
        dir: PathBuf,
        /// The new tar file, or the new directory of the layout.
        out: PathBuf,
        /// What to write.
        #[arg(long, value_enum)]
        to: Format,
        /// The flist; may be left out when the directory holds one.
        #[arg(long)]
        id: Option<FlistId>,
        /// Name of the image in a layout.
        #[arg(long, value_name = "NAME")]
        reference: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Directory, tar file (plain, gzip or zstd), image (OCI layout, or what docker save writes), or
    /// flist of an earlier Zero-OS (.flist, .fl; needs --blocks).
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
    /// Which image, if there are several: its reference name, tag or digest.
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    /// Where the blocks of an earlier Zero-OS are, under their names in hexadecimal digits: directory
    /// or URL; repeat for mirrors.
    #[arg(long, value_name = "DIR|URL")]
    blocks: Vec<String>,
    /// What the source is; found out unless given.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// The files of a directory.
    Directory,
    /// The files of a tar file, even if they are an image.
    Tar,
    /// A container image, as a directory or a tar file: an OCI layout, or what docker save writes.
    #[value(alias = "oci")]
    Image,
    /// An flist of an earlier Zero-OS: .flist or .fl.
    Earlier,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A tar file (pax).
    Tar,
    /// A directory with an OCI image layout, of one layer.
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
        Command::Inspect { flist } => {
            let bytes = load(context, &flist).await?.encode();
            let summary = create::inspect(&bytes)?;
            let dir = Path::new(&flist);
            // Beside a file nobody looks for releases, and for an id one would have to know the publisher.
            let releases = dir.is_dir().then(|| content::releases(dir, summary.identity));
            show_with(output, &summary, None, releases.transpose()?.as_deref());
        }
        Command::Sign { dir, id, name, revision, not_after } => {
            let id = id.map_or_else(|| content::only_flist(&dir), Ok)?;
            let (context, now) = (context()?, now());
            let key = context.keys().load(&context.signer()?)?;
            let not_after = not_after.map(|when| later(when, now, "--not-after")).transpose()?;
            let publisher = key.secret.public();
            let release = Release { flist: id, publisher, name, revision, not_after };
            content::sign(&dir, &release, &key.secret)?;
            output.answer(&release);
            say_release(output, &release);
        }
        Command::Verify { dir, id } => {
            let summary = with_published(&dir, id, create::verify_published).await;
            let intact = || format!("{} is not intact", dir.display());
            let summary = summary.with_context(intact)?;
            let releases = content::releases(&dir, summary.identity).with_context(intact)?;
            show_with(output, &summary, None, Some(&releases));
            output.say("every byte has its hash");
        }
        Command::Push(push) => push::run(context, output, push).await?,
        Command::Gc(gc) => gc::run(output, gc).await?,
        Command::Diff { old, new } => {
            let (old, new) = (load(context, &old).await?, load(context, &new).await?);
            return Ok(compare::show(output, &old, &new));
        }
        Command::Unpack { dir, to, id } => {
            let target = to.clone();
            let summary = with_published(&dir, id, move |source, id, bar| {
                create::unpack(source, id, &target, bar)
            });
            let summary = summary.await.context("unpacking the flist")?;
            output.answer(&json!({ "flist": summary.identity, "to": to }));
            output.say(format_args!("wrote {} files to {}", summary.files, to.display()));
        }
        Command::Export { dir, out, to, id, reference } => {
            let target = out.clone();
            let summary = with_published(&dir, id, move |source, id, bar| match to {
                Format::Tar => create::export_tar(source, id, &target, bar),
                Format::Oci => create::export_oci(source, id, &target, reference.as_deref(), bar),
            });
            show(output, &summary.await.context("exporting the flist")?, Some(&out));
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
        let source = self.source.as_path();
        let built = match self.kind.map_or_else(|| self.found_out(), |kind| Ok(Some(kind)))? {
            Some(Kind::Directory) => create::build_directory(source, &options, &bar),
            Some(Kind::Tar) => create::build_tar(source, &options, &bar),
            Some(Kind::Image) => create::build_image(source, &options, &bar),
            Some(Kind::Earlier) => {
                let blocks = self.blocks.iter().map(|place| block_place(place));
                let blocks = flist::Source::new(blocks.collect::<Result<Vec<_>, _>>()?)
                    .context("--blocks says where the blocks are")?;
                create::build_earlier(source, &blocks, &options, &bar)
            }
            None => create::build_archive(source, &options, &bar),
        }?;
        create::publish(&built, &self.out)?;
        Ok(create::inspect(&built.flist.encode())?)
    }

    /// `None` is some tar file, into which the library looks.
    fn found_out(&self) -> anyhow::Result<Option<Kind>> {
        let source = &self.source;
        let found =
            std::fs::metadata(source).with_context(|| format!("reading {}", source.display()))?;
        let name = source.extension().unwrap_or_default();
        Ok(match found.is_dir() {
            true if source.join("oci-layout").is_file() => Some(Kind::Image),
            true => Some(Kind::Directory),
            false if !self.blocks.is_empty() || name == "fl" || name == "flist" => {
                Some(Kind::Earlier)
            }
            false => None,
        })
    }
}

/// A URL as it is, a directory as the flist library wants it.
fn block_place(place: &str) -> anyhow::Result<String> {
    if place.contains("://") { Ok(place.to_owned()) } else { absolute(Path::new(place)) }
}

/// As the flist library wants a directory.
fn absolute(dir: &Path) -> anyhow::Result<String> {
    let path = std::fs::canonicalize(dir).with_context(|| format!("reading {}", dir.display()))?;
    path.to_str().map(str::to_owned).context("the directory's name is not UTF-8")
}

/// Does something that takes long with an flist of a published directory.
async fn with_published<F>(dir: &Path, id: Option<FlistId>, act: F) -> anyhow::Result<Summary>
where
    F: FnOnce(&flist::Source, FlistId, &dyn Progress) -> Result<Summary, create::CreateError>
        + Send
        + 'static,
{
    let id = id.map_or_else(|| content::only_flist(dir), Ok)?;
    let source = absolute(dir)?;
    let done = tokio::task::spawn_blocking(move || {
        let source = flist::Source::new([source])?;
        anyhow::Ok(act(&source, id, &Bar::new())?)
    });
    done.await?.with_context(|| format!("reading flist {id}"))
}

/// A file, a directory with one flist, or an id at the registry.
async fn load(
    context: &impl Fn() -> anyhow::Result<Context>,
    flist: &str,
) -> anyhow::Result<Flist> {
    let path = Path::new(flist);
    if path.is_dir() {
        return Ok(content::read_published(path, content::only_flist(path)?)?);
    }
    if let (Ok(id), false) = (flist.parse::<FlistId>(), path.exists()) {
        let grid = context()?.grid()?;
        let wanted = threebot::source::Flist { id: Some(id), ..Default::default() };
        let wanted = [("flist".to_owned(), wanted)].into();
        let urls = [grid.client.content_url()];
        let (mut found, _) = content::look_up(&wanted, Path::new(""), &urls, now(), &[]).await?;
        return Ok(found.pop_first().context("nothing was found")?.1.flist);
    }
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(Flist::decode(&bytes)?)
}

fn show(output: &Output, summary: &Summary, out: Option<&Path>) {
    show_with(output, summary, out, None);
}

/// With releases, where somebody has looked for them.
fn show_with(output: &Output, summary: &Summary, out: Option<&Path>, releases: Option<&[Release]>) {
    let run = &summary.run;
    let mut answer = json!({
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
    });
    if let Some(releases) = releases {
        answer["releases"] = json!(releases);
    }
    output.answer(&answer);
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
    for release in releases.unwrap_or_default() {
        say_release(output, release);
    }
}

fn say_release(output: &Output, release: &Release) {
    let Release { publisher, name, revision, not_after, .. } = release;
    output.say(format_args!("publisher   {publisher}"));
    let end = match not_after {
        None => "to begin with for ever".to_owned(),
        Some(end) if *end < now() => format!("nobody begins with it since {end}"),
        Some(end) => format!("to begin with until {end}"),
    };
    output.say(format_args!("release     {name}, revision {revision}, {end}"));
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

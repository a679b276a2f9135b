//! `cargo xtask`: the project's own tasks, as commands over the `image-build` library.

#![forbid(unsafe_code)]

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use image_build::check::{self, Deny, Extent};
use image_build::{image, machines, packages, progress, sizes};
use std::path::PathBuf;
use std::process::ExitCode;

/// Builds, checks and tries Zero-OS.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Builds the boot image and its media.
    ///
    /// Writes zero-os.efi (UEFI), zero-os.img (USB stick, BIOS and UEFI), boot.ipxe with vmlinuz and
    /// initramfs.img (network boot), sbom.spdx.json and sizes.json.
    Image(ImageArgs),
    /// Prints what the image weighs, part by part, and fails above the budget.
    Sizes {
        /// Directory of the image [default: build/image]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Checks format, lints, licences, layers and house rules.
    Check {
        /// Install cargo-deny when it is missing
        #[arg(long)]
        deny: bool,
    },
    /// Runs every test: on this machine, then in virtual machines.
    ///
    /// Installs the Debian packages that it needs, and says which and why.
    Test {
        /// Only what needs no virtual machine
        #[arg(long)]
        host: bool,
    },
    /// Shows the whole story on this machine: a farm, a node, a contract, three stakeholders, a page.
    ///
    /// Builds the image, starts a registry and a node under QEMU, runs a web server in a contract that
    /// three stakeholders approve, and shows two attacks refused. Stays up until Ctrl-C.
    Demo {
        /// Run through and end
        #[arg(long)]
        once: bool,
        /// Print a report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Measures: boot, container, flist, memory, registry or size.
    Bench {
        /// What to measure
        name: String,
        /// Print the figures as JSON
        #[arg(long)]
        json: bool,
        /// How often each thing is measured
        #[arg(long, value_name = "N")]
        runs: Option<u32>,
    },
    /// Runs the validation suite of opencontainers runtime-tools against `container` and Debian's crun.
    ///
    /// Fails when fewer groups of tests pass than with crun, or when crun passes one that we do not and
    /// nobody has written down why. docs/containers.md says what the directory must contain.
    OciSuite {
        /// Directory of the suite, built
        #[arg(long, value_name = "DIR")]
        suite: PathBuf,
        /// Print the table as JSON
        #[arg(long)]
        json: bool,
        /// Only these groups
        groups: Vec<String>,
    },
    /// Kills a registry and its witnesses again and again while people send statements.
    ///
    /// After each round, everything that was acknowledged has to be in the log, and nothing that was
    /// signed may be taken back.
    Kills {
        /// Cut the power of a virtual machine with all of them, instead of killing programs here
        #[arg(long)]
        power_cuts: bool,
        /// How often that happens [default: 200]
        #[arg(long, value_name = "N")]
        rounds: Option<u32>,
        /// The random moments of an earlier run
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// Print what happened as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct ImageArgs {
    /// Directory for the outputs [default: build/image]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Identity id of the farm that the node belongs to
    #[arg(long, value_name = "HEX")]
    farm: Option<String>,
    /// Base URLs of the registry, separated by commas
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
    /// Seed of an enrolment key of the farm
    #[arg(long, value_name = "HEX")]
    token: Option<String>,
    /// Name of the grid
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// More words for the kernel command line
    #[arg(long, value_name = "WORDS")]
    cmdline: Option<String>,
    /// Compress quickly instead of well
    #[arg(long)]
    fast: bool,
    /// Also write the uncompressed initramfs.cpio, which virtual machines boot fastest
    #[arg(long)]
    test_media: bool,
    /// Compile the programs quickly instead of small: for a try, not for a node
    #[arg(long)]
    dev: bool,
    /// Only these of the project's programs, separated by commas: for a try, not for a node
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// Make the media twice and compare them, instead of keeping them
    #[arg(long, conflicts_with_all = ["out", "json"])]
    check: bool,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Image(args) => {
            if args.check {
                return image::check_reproducible(&args.into());
            }
            let json = args.json;
            let outputs = image::build(&args.into())?;
            if json {
                progress::print(&serde_json::to_string_pretty(&outputs)?)?;
            }
            Ok(())
        }
        Task::Sizes { out } => sizes::show(out.as_deref()),
        Task::Check { deny } => check::check(if deny { Deny::Install } else { Deny::IfInstalled }),
        Task::Demo { once, json } => {
            let options = [("--once", once), ("--json", json)];
            machines::run(packages::Task::Demo, "demo", &chosen(&options))
        }
        Task::Bench { name, json, runs } => {
            let mut arguments = chosen(&[("--json", json)]);
            arguments.extend(runs.into_iter().flat_map(|n| ["--runs".to_owned(), n.to_string()]));
            if name == "registry" {
                return machines::bench_registry(&arguments);
            }
            arguments.insert(0, name);
            machines::run(packages::Task::Bench, "bench", &arguments)
        }
        Task::OciSuite { suite, json, groups } => {
            let suite =
                suite.canonicalize().with_context(|| format!("finding {}", suite.display()))?;
            let suite = suite.to_str().context("the directory's name is not UTF-8")?;
            let mut arguments = vec!["--suite".to_owned(), suite.to_owned()];
            arguments.extend(chosen(&[("--json", json)]));
            arguments.extend(groups);
            machines::run(packages::Task::Bench, "oci-suite", &arguments)
        }
        Task::Kills { power_cuts, rounds, seed, json } => {
            let mut arguments = chosen(&[("--json", json), ("--power-cuts", power_cuts)]);
            let numbers = [("--rounds", rounds.map(u64::from)), ("--seed", seed)];
            for (name, number) in numbers {
                arguments.extend(number.into_iter().flat_map(|n| [name.to_owned(), n.to_string()]));
            }
            if power_cuts {
                return machines::run(packages::Task::Test, "kills", &arguments);
            }
            machines::kills(&arguments)
        }
        Task::Test { host } => check::test(if host { Extent::Host } else { Extent::Full }),
    }
}

/// The options that are switched on.
fn chosen(options: &[(&str, bool)]) -> Vec<String> {
    options.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).to_owned()).collect()
}

impl From<ImageArgs> for image::Options {
    fn from(args: ImageArgs) -> Self {
        Self {
            out: args.out,
            bake: image::Bake {
                farm: args.farm,
                registry: args.registry,
                token: args.token,
                network: args.network,
                cmdline: args.cmdline,
            },
            fast: args.fast,
            test_media: args.test_media,
            dev: args.dev,
            only: args.only,
        }
    }
}

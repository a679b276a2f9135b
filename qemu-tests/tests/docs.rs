//! The quick starts do what they say: their commands are run as they stand there, against a node that
//! boots from the stick image which they have built. Every reason has its advice, and no page links to
//! a file that is not there.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]

use anyhow::{Context as _, Result, ensure};
use container::reason::Reason;
use contract::verdict::Code;
use qemu_tests::{
    content,
    docs::{Block, Terminal, Use, blocks, dead_links},
    farm::{page, program},
    machine::{BOOT, Machine, REGISTRY_URL, Running, blank_disk, free_port},
    media::{FAST, Image, Medium},
};
use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

/// For a block: it may fetch, boot and wait.
const BLOCK: Duration = Duration::from_secs(720);
/// For the block that builds the image, when nothing was compiled before.
const IMAGE: Duration = Duration::from_secs(3600);
/// Blocks that a test cannot run, by the beginning of their first line. All others are run.
const SKIPPED: [(&str, Use, &str); 4] = [
    ("farmer", Use::Install, "sudo apt-get install -y gcc libc6-dev curl jq"),
    ("farmer", Use::Hardware, "sudo dd if="),
    ("farmer", Use::Hardware, "cd \"$HOME/zero-os\" && python3 -m http.server"),
    ("customer", Use::Install, "sudo apt-get install -y gcc libc6-dev curl jq"),
];
/// Options for `cargo xtask image` beside those of the page, such as `--dev --fast` for a quick try.
const IMAGE_OPTIONS: &str = "ZOS_DOCS_IMAGE_OPTIONS";

fn checkout() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().context("finding the checkout")
}

#[test]
fn the_quick_starts_work_as_they_are_written() -> Result<()> {
    let files = tempfile::tempdir()?;
    // The pages fetch nginx with apt: this renews its lists if it has to.
    content::nginx(&files.path().join("nginx"), "")?;
    let mut reader = Reader::sit_down(files.path())?;
    reader.follow("farmer")?;
    let running = reader.running.as_ref().context("no page says how to boot")?;
    running.serial.wait("zos: registration: registry: registered and adopted", BOOT)?;
    let url = format!("http://127.0.0.1:{}/", reader.page_port);
    ensure!(page(&url)?.is_none(), "a page before the customer came");
    reader.follow("customer")?;
    ensure!(page(&url)?.is_none(), "a page after the end of the contract");
    let skipped: Vec<_> =
        reader.skipped.iter().map(|(page, purpose, _)| (*page, *purpose)).collect();
    let known: Vec<_> = SKIPPED.iter().map(|(page, purpose, _)| (*page, *purpose)).collect();
    ensure!(skipped == known, "other blocks than those of the list were left out: {skipped:?}");
    let lines = reader.skipped.iter().zip(SKIPPED);
    for ((_, _, line), (_, _, beginning)) in lines {
        ensure!(line.starts_with(beginning), "left out: {line}");
    }
    let problems = reader.running.context("no machine")?.power_cut().problems(&[]);
    ensure!(problems.is_empty(), "on the console: {problems:?}");
    Ok(())
}

/// Somebody with the pages, a terminal and a machine.
struct Reader {
    files: PathBuf,
    terminal: Terminal,
    registry_port: u16,
    page_port: u16,
    running: Option<Running>,
    skipped: Vec<(&'static str, Use, String)>,
}

impl Reader {
    fn sit_down(files: &Path) -> Result<Self> {
        let mut terminal = Terminal::open(files, &checkout()?)?;
        let programs = files.join("bin");
        fs::create_dir_all(&programs)?;
        for name in ["3bot", "registryd"] {
            symlink(program(name)?, programs.join(name))?;
        }
        cargo_for_machines(&programs.join("cargo"))?;
        let path = env::var("PATH").unwrap_or_default();
        let mut set = |name: &str, value: String| terminal.environment.push((name.into(), value));
        set("PATH", format!("{}:{path}", programs.display()));
        // What the real home holds and building needs.
        let home = PathBuf::from(env::var_os("HOME").context("HOME is not set")?);
        for (name, place) in [
            ("CARGO_HOME", ".cargo"),
            ("RUSTUP_HOME", ".rustup"),
            ("GIT_CONFIG_GLOBAL", ".gitconfig"),
        ] {
            let place = home.join(place);
            if env::var_os(name).is_none() && place.exists() {
                set(name, place.display().to_string());
            }
        }
        Ok(Self {
            files: files.to_owned(),
            terminal,
            registry_port: free_port()?,
            page_port: free_port()?,
            running: None,
            skipped: Vec::new(),
        })
    }

    /// Does what the page for a role says.
    fn follow(&mut self, role: &'static str) -> Result<()> {
        let page = checkout()?.join(format!("docs/quick-start-{role}.md"));
        let text = fs::read_to_string(&page)?;
        for block in blocks(&text).with_context(|| format!("in {}", page.display()))? {
            self.obey(role, &block).with_context(|| format!("in {}", page.display()))?;
        }
        Ok(())
    }

    fn obey(&mut self, role: &'static str, block: &Block) -> Result<()> {
        match block.purpose {
            Use::Run => {
                let limit = if block.text.contains("cargo xtask image") { IMAGE } else { BLOCK };
                self.terminal.run(block, limit).map(drop)
            }
            Use::Settings => self.terminal.run(&self.settings(block)?, BLOCK).map(drop),
            Use::Background => self.terminal.start(block, "listening on", BLOCK),
            Use::Install | Use::Hardware => {
                let line = block.text.lines().next().unwrap_or_default();
                self.skipped.push((role, block.purpose, line.to_owned()));
                if line.starts_with("sudo dd") {
                    self.running = Some(self.plug_in()?);
                }
                Ok(())
            }
        }
    }

    /// The same variables with what is right for this machine.
    fn settings(&self, block: &Block) -> Result<Block> {
        let ours = [
            ("REGISTRY", format!("http://127.0.0.1:{}", self.registry_port)),
            ("NODE_REGISTRY", REGISTRY_URL.to_owned()),
            ("LISTEN", format!("127.0.0.1:{}", self.registry_port)),
            ("PAGE", format!("http://127.0.0.1:{}/", self.page_port)),
        ];
        let known: BTreeSet<&str> = ours.iter().map(|(name, _)| *name).collect();
        let wanted = block.variables();
        ensure!(!wanted.is_empty() && wanted.is_subset(&known), "other settings: {wanted:?}");
        let lines = block.text.lines().map(|line| {
            let name = line.split('=').next().unwrap_or_default();
            let own = ours.iter().find(|(known, _)| *known == name);
            own.map_or_else(|| line.to_owned(), |(name, value)| format!("{name}={value}")) + "\n"
        });
        Ok(Block { text: lines.collect(), ..block.clone() })
    }

    /// Boots a machine from the stick that the page has made.
    fn plug_in(&self) -> Result<Running> {
        let mut machine = Machine::new("node");
        machine.medium = Medium::UsbUefi;
        for (letter, size_mib) in [("a", 8192), ("b", 4096)] {
            let disk = blank_disk(&self.files.join(format!("{letter}.img")), size_mib)?;
            machine.disks.push((disk, format!("DISK-{letter}")));
        }
        machine.registry_port = Some(self.registry_port);
        machine.forwards = vec![(self.page_port, 8080)];
        let image = Image { directory: self.terminal.home().join("zero-os") };
        let running = machine.start(&image, &self.files)?;
        running.wait_ready()?;
        Ok(running)
    }
}

/// Writes a `cargo` that adds to `xtask image` the words which a virtual machine boots fast with.
fn cargo_for_machines(path: &Path) -> Result<()> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let options = env::var(IMAGE_OPTIONS).unwrap_or_default();
    let script = format!(
        "#!/bin/sh\n\
         [ \"$1 $2\" = 'xtask image' ] && set -- \"$@\" --cmdline '{FAST}' {options}\n\
         exec '{cargo}' \"$@\"\n"
    );
    fs::write(path, script)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[test]
fn no_page_links_to_a_file_that_is_not_there() -> Result<()> {
    let root = checkout()?;
    let mut pages = Vec::new();
    for directory in [root.clone(), root.join("docs"), root.join("docs/decisions")] {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    ensure!(pages.len() > 10, "only {} pages were found", pages.len());
    let mut dead = Vec::new();
    for page in pages {
        let links = dead_links(&page)?;
        dead.extend(links.iter().map(|link| format!("{}: {link}", page.display())));
    }
    ensure!(dead.is_empty(), "{}", dead.join("\n"));
    Ok(())
}

#[test]
fn every_reason_of_the_rule_and_of_a_start_has_its_advice() -> Result<()> {
    let read = |name: &str| -> Result<String> { Ok(fs::read_to_string(checkout()?.join(name))?) };
    let (advice, rule) = (read("docs/troubleshooting.md")?, read("docs/contract.md")?);
    let told = |text: &str, word: &str| text.contains(&format!("`{word}`"));
    for word in Code::ALL.map(Code::name) {
        ensure!(told(&advice, word), "{word} is not in docs/troubleshooting.md");
        ensure!(told(&rule, word), "{word} is not in docs/contract.md");
    }
    for word in Reason::ALL.map(Reason::code) {
        ensure!(told(&advice, word), "{word} is not in docs/troubleshooting.md");
    }
    for text in [&advice, &rule] {
        ensure!(told(text, "partitioned"), "partitioned is not in both");
    }
    ensure!(!told(&advice, "no_such_reason"), "anything is found");
    Ok(())
}

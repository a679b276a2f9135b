//! The story that the demo tells and the tests check: a farm, a node, a customer, three
//! stakeholders, a web server in a contract. Each chapter uses the real programs.

use crate::{
    content,
    farm::{Bot, Registry, page, text, wait_page},
    hostile::{Hostile, Mood},
    machine::{BOOT, Machine, REGISTRY_URL, Running, blank_disk, free_port},
    media::Image,
    tamper::{self, Victim},
    wait,
};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// From an agreed contract to a page, fetch included, on a slow machine.
pub const START: Duration = Duration::from_secs(180);
/// Stakeholders: name of the key and role.
pub const STAKEHOLDERS: [(&str, &str); 3] =
    [("it-expert", "it"), ("lawyer", "legal"), ("controller", "budget")];

/// What differs between contracts of the story.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Title and file name.
    pub name: &'a str,
    /// Node id.
    pub node: &'a str,
    /// Pool id.
    pub pool: &'a str,
    /// Flist id.
    pub flist: &'a str,
    /// Directory of the published flist, beside the source.
    pub published: &'a str,
    /// Port of the node.
    pub port: u16,
    /// Its share of logical cores.
    pub cpu: &'a str,
    /// Size of its volume.
    pub volume_mib: u32,
    /// How it is found out whether the server works; `None`: while it runs.
    pub health: Option<&'a str>,
    /// A URL that its output is sent to.
    pub logs: Option<&'a str>,
    /// A URL that its statistics are sent to.
    pub stats: Option<&'a str>,
    /// Limits of reading and writing on disks.
    pub disk: Option<&'a str>,
    /// The key that has to have signed the flist.
    pub publisher: Option<&'a str>,
    /// When it may start; `None`: at once.
    pub not_before: Option<&'a str>,
}

impl<'a> Terms<'a> {
    /// The contract that every story begins with: the page of [`Stage::publish_nginx`], with a
    /// small volume.
    pub fn of_web(node: &'a str, pool: &'a str, flist: &'a str) -> Self {
        let (name, published) = ("web", "published");
        let (port, cpu, volume_mib) = (8080, "0.3", 64);
        let (health, logs, stats, disk) = (None, None, None, None);
        let (publisher, not_before) = (None, None);
        Self {
            name,
            node,
            pool,
            flist,
            published,
            port,
            cpu,
            volume_mib,
            health,
            logs,
            stats,
            disk,
            publisher,
            not_before,
        }
    }
}

/// An flist, and the files in the content store that only it has.
#[derive(Debug)]
pub struct Apart {
    /// Its id.
    pub id: String,
    /// The flist itself.
    pub list: Victim,
    /// Its pack.
    pub pack: Victim,
}

/// Everything that a story needs, in one directory.
#[derive(Debug)]
pub struct Stage {
    /// Files of this run.
    pub directory: PathBuf,
    /// The image that the node boots.
    pub image: Image,
    /// The registry, while it runs.
    pub registry: Option<Registry>,
    /// Stands between the nodes and the registry; honest until it is told otherwise.
    pub hostile: Hostile,
    /// The people's command line.
    pub bot: Bot,
    /// The farm's id.
    pub farm: String,
    /// Seed of its enrolment key.
    pub token: String,
    /// Port of the loopback address that leads to port 8080 of the node.
    pub page_port: u16,
}

impl Stage {
    /// Starts a registry and founds a farm.
    pub fn set(directory: &Path, show: bool) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let registry = Registry::start(&directory.join("registry"), None)?;
        let mut bot = Bot::new(&directory.join("keys"), &registry.url());
        bot.show = show;
        for name in ["farmer", "customer"].into_iter().chain(STAKEHOLDERS.map(|(name, _)| name)) {
            bot.json(&["key", "new", name])?;
            bot.json(&["key", "register", name])?;
        }
        let farm =
            bot.json(&["farm", "create", "Green Farm", "--location", "Ghent", "--as", "farmer"])?;
        let farm = text(&farm, "/farm")?;
        let token = bot.json(&["farm", "token", "--as", "farmer", "--expires", "30d"])?;
        let token = text(&token, "/token")?;
        let page_port = free_port()?;
        Ok(Self {
            directory: directory.to_owned(),
            image: Image::find()?,
            hostile: Hostile::start(registry.port)?,
            registry: Some(registry),
            bot,
            farm,
            token,
            page_port,
        })
    }

    /// A node with two disks that belongs to the farm. Starting it again uses the same disks.
    pub fn machine(&self, name: &str) -> Result<Machine> {
        let mut machine = Machine::new(name);
        for (letter, size_mib) in [("a", 8192), ("b", 4096)] {
            let path = self.directory.join(format!("{name}-{letter}.img"));
            if !path.exists() {
                blank_disk(&path, size_mib)?;
            }
            machine.disks.push((path, format!("DISK-{}", letter.to_uppercase())));
        }
        machine.cmdline = self.boot_options();
        machine.registry_port = Some(self.hostile.port);
        machine.forwards = vec![(self.page_port, 8080)];
        Ok(machine)
    }

    /// What the farmer gives a node.
    pub fn boot_options(&self) -> String {
        format!(
            "zos.network=test zos.farm={} zos.token={} zos.registry={REGISTRY_URL}",
            self.farm, self.token
        )
    }

    /// Starts a machine and waits until its node serves.
    pub fn boot(&self, machine: &Machine) -> Result<Running> {
        let running = machine.start(&self.image, &self.directory)?;
        running.wait_ready()?;
        Ok(running)
    }

    /// Waits until a node is registered, adopted and online; gives its id.
    pub fn wait_node(&self, running: &Running) -> Result<String> {
        let line = running.serial.wait("zos: node: id: ", BOOT)?;
        let id = line.rsplit(' ').next().context("no node id on the console")?.to_owned();
        wait::until("the node is registered and adopted", START, || {
            let node = self.bot.quiet().json(&["node", "show", &id])?;
            let is = |name| node.get(name).and_then(Value::as_bool).unwrap_or(false);
            Ok((is("adopted") && is("online")).then_some(()))
        })?;
        Ok(id)
    }

    /// Builds the web server's flist and pushes it to the registry's content store.
    pub fn publish_nginx(&self) -> Result<String> {
        self.publish(content::PAGE, "published")
    }

    /// Builds a web server with this page into the directory `out`, and pushes it.
    pub fn publish(&self, page: &str, out: &str) -> Result<String> {
        let root = self.directory.join("nginx");
        content::nginx(&root, page)?;
        let run = [
            "--user",
            "33:33",
            "--entrypoint=/usr/sbin/nginx",
            "--arg=-e",
            "--arg=stderr",
            "--arg=-c",
            "--arg=/etc/nginx/nginx.conf",
        ];
        self.publish_tree(&root, out, &run)
    }

    /// Builds an flist of a tree into the directory `out` with these options, and pushes it.
    pub fn publish_tree(&self, root: &Path, out: &str, options: &[&str]) -> Result<String> {
        let (root, out) = (root.display().to_string(), self.directory.join(out));
        let out = out.display().to_string();
        let build = ["flist", "build", &root, "--out", &out];
        let built = self.bot.json(&[&build, options].concat())?;
        self.bot.json(&["flist", "push", &out])?;
        text(&built, "/flist")
    }

    /// Builds a web server with this page, pushes it, and gives the files that only it has.
    pub fn publish_apart(&self, page: &str, out: &str) -> Result<Apart> {
        let content = self.registry.as_ref().context("no registry")?.content();
        let before = tamper::packs(&content)?;
        let id = self.publish(page, out)?;
        let pack = tamper::packs(&content)?.difference(&before).next().cloned();
        let pack = pack.context("the flist has no pack of its own")?;
        let list = Victim::of(&content.join("flists").join(&id))?;
        Ok(Apart { id, list, pack: Victim::of(&pack)? })
    }

    /// The farmer grants the customer capacity on a node.
    pub fn grant(&self, node: &str) -> Result<String> {
        let customer = text(&self.bot.json(&["key", "show", "customer"])?, "/identity")?;
        let pool = self.bot.json(&[
            "pool",
            "grant",
            "--to",
            &customer,
            "--node",
            node,
            "--cu-hours",
            "1000",
            "--su-hours",
            "1000",
            "--expires",
            "90d",
            "--as",
            "farmer",
        ])?;
        text(&pool, "/pool")
    }

    /// Writes the source of a contract that runs a web server on a node.
    pub fn write_source(&self, terms: &Terms<'_>) -> Result<PathBuf> {
        let Terms { name, node, pool, flist, published, port, cpu, .. } = terms;
        let Terms { volume_mib, health, logs, stats, disk, publisher, not_before, .. } = terms;
        let publisher = publisher.map(|key| format!("publisher = {{ key = \"{key}\" }}\n"));
        let publisher = publisher.unwrap_or_default();
        let not_before =
            not_before.map(|time| format!("not_before = \"{time}\"\n")).unwrap_or_default();
        let health = health.map(|health| format!("health = {health}\n")).unwrap_or_default();
        let disk = disk.map(|disk| format!("disk = {disk}\n")).unwrap_or_default();
        let sink = |word: &str, to: Option<&str>| {
            to.map(|to| format!("{word} = [{{ to = \"{to}\" }}]\n")).unwrap_or_default()
        };
        let (logs, stats) = (sink("logs", *logs), sink("stats", *stats));
        let stakeholders: String = STAKEHOLDERS
            .map(|(name, role)| {
                format!("[[stakeholders]]\nidentity = \"{name}\"\nrole = \"{role}\"\n\n")
            })
            .concat();
        let source = format!(
            "title = \"{name}\"\n\
             purpose = \"A page for everybody; holds no personal data.\"\n\
             pool = \"{pool}\"\n\
             nodes = [\"{node}\"]\n\
             expires = \"7d\"\n{not_before}\n\
             {stakeholders}\
             [flists.nginx]\nid = \"{flist}\"\ndir = \"{published}\"\n\
             urls = [\"{REGISTRY_URL}/content\"]\n{publisher}\n\
             [containers.web]\nflist = \"nginx\"\ncpu = {cpu}\nmemory = \"128 MiB\"\n\
             ports = [\"{port}:80/tcp\"]\n\
             mounts = [{{ path = \"/var/lib/nginx\", volume = \"data\" }}]\n{health}{logs}{stats}{disk}\n\
             [volumes.data]\nsize = \"{volume_mib} MiB\"\n"
        );
        let path = self.directory.join(format!("{name}.toml"));
        fs::write(&path, source)?;
        Ok(path)
    }

    /// Plans, signs and pushes a contract; gives its id.
    pub fn propose(&self, source: &Path) -> Result<String> {
        let source = source.display().to_string();
        let plan = format!("{source}.plan");
        self.bot.json(&["contract", "plan", &source, "--out", &plan, "--as", "customer"])?;
        self.bot.json(&["contract", "sign", &plan, "--as", "customer"])?;
        let pushed = self.bot.json(&["contract", "push", &plan, "--as", "customer"])?;
        text(&pushed, "/contract")
    }

    /// One stakeholder approves.
    pub fn approve(&self, contract: &str, name: &str) -> Result<()> {
        let header = text(&self.status(contract)?, "/header")?;
        self.bot
            .json(&[
                "contract",
                "approve",
                contract,
                "--as",
                name,
                "--yes",
                "--hash",
                &header[..16],
            ])
            .map(drop)
    }

    /// Everybody approves.
    pub fn approve_all(&self, contract: &str) -> Result<()> {
        STAKEHOLDERS.iter().try_for_each(|(name, _)| self.approve(contract, name))
    }

    /// The customer orders the end of a contract, and everybody approves.
    pub fn cancel_and_wipe(&self, contract: &str) -> Result<()> {
        self.bot.json(&[
            "contract",
            "cancel",
            contract,
            "--reason",
            "The demo is over.",
            "--wipe",
            "--as",
            "customer",
        ])?;
        let status = self.status(contract)?;
        let order =
            text(&status, "/cancels/0/order").or_else(|_| text(&status, "/cancels/0/id"))?;
        for (name, _) in STAKEHOLDERS {
            self.bot.json(&[
                "contract",
                "approve",
                contract,
                "--cancel",
                "--as",
                name,
                "--yes",
                "--hash",
                &order[..16],
            ])?;
        }
        Ok(())
    }

    /// Waits until the node has signed that a contract's data is deleted.
    pub fn wait_wiped(&self, contract: &str) -> Result<()> {
        wait::until("the data is wiped", START, || {
            let results = self.results(contract)?;
            Ok(results.iter().any(|one| one["state"] == "wiped").then_some(()))
        })
    }

    /// Agrees on a contract whose content in the store is damaged; gives it, and what the node says.
    pub fn agree_on_damaged(&self, terms: &Terms<'_>, code: &str) -> Result<(String, Value)> {
        let contract = self.propose(&self.write_source(terms)?)?;
        self.approve_all(&contract)?;
        let said = self.wait_result(&contract, code, 0)?;
        ensure!(said["state"] != "running", "it runs: {said}");
        Ok((contract, said))
    }

    /// The registry shows the node the approvals of the contract `from` with a new one, which nobody
    /// has approved. Gives the new one, and what the node says.
    pub fn replay(&self, from: &str, terms: &Terms<'_>) -> Result<(String, Value)> {
        let registry = self.registry.as_ref().context("no registry")?.url();
        let url = format!("{registry}/v1/contracts/{from}/bundle");
        let bundle: Value = serde_json::from_str(&page(&url)?.context("no bundle")?)?;
        let approvals = bundle["approvals"].as_array().context("no approvals")?.clone();
        ensure!(approvals.len() == STAKEHOLDERS.len(), "not everybody has approved {from}");
        self.hostile.set(Mood::Replay(approvals));
        let contract = self.propose(&self.write_source(terms)?)?;
        let said = self.wait_result(&contract, "quorum_missing", 0)?;
        let missing = said["message"].as_str().unwrap_or_default().matches("approval").count();
        ensure!(missing == STAKEHOLDERS.len(), "a replayed approval counts: {said}");
        self.hostile.set(Mood::Honest);
        Ok((contract, said))
    }

    /// Status of a contract.
    pub fn status(&self, contract: &str) -> Result<Value> {
        let said = self.bot.quiet().run(&["contract", "status", contract, "--json"])?;
        if said.out.is_empty() {
            bail!("3bot contract status: {}", said.err);
        }
        serde_json::from_str(&said.out).context("reading the status")
    }

    /// Everything that nodes have signed about a contract, oldest first.
    pub fn results(&self, contract: &str) -> Result<Vec<Value>> {
        let answer = self.bot.quiet().json(&["contract", "results", contract])?;
        answer.get("results").and_then(Value::as_array).cloned().context("no results")
    }

    /// Waits for a node's signed result with this code after the first `seen` ones; gives it.
    pub fn wait_result(&self, contract: &str, code: &str, seen: usize) -> Result<Value> {
        wait::until(&format!("a result {code}"), START, || {
            let results = self.results(contract)?;
            let is = |one: &&Value| one.get("code").and_then(Value::as_str) == Some(code);
            Ok(results.iter().skip(seen).find(is).cloned())
        })
    }

    /// Where the page is, from this machine.
    pub fn page_url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.page_port)
    }

    /// Waits for the page.
    pub fn wait_page(&self) -> Result<String> {
        wait_page(&self.page_url(), START)
    }
}

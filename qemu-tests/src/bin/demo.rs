//! The whole story on one machine: a farm, a node under QEMU, a customer, three stakeholders, a web
//! server; then two attacks that the node refuses. `cargo xtask demo` builds what this needs.

#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, ensure};
use qemu_tests::{
    content,
    farm::page,
    story::{STAKEHOLDERS, Stage, Terms},
    tamper::Damage,
};
use serde_json::{Value, json};
use std::{
    env,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let tell = Tell { json: has("--json"), since: Instant::now() };
    match run(&tell, has("--once")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell.line(&format!("The demo failed: {error:#}"));
            if tell.json {
                print_report(&json!({"ok": false, "error": format!("{error:#}")}));
            }
            ExitCode::FAILURE
        }
    }
}

/// Tells the story on stderr; the report goes to stdout.
struct Tell {
    json: bool,
    since: Instant,
}

impl Tell {
    fn line(&self, text: &str) {
        let mut out = std::io::stderr();
        let (bold, plain) = if out.is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        // Nobody listens any more: then there is nothing to tell.
        drop(writeln!(out, "{bold}[{:>4} s]{plain} {text}", self.since.elapsed().as_secs()));
    }
}

fn print_report(report: &Value) {
    drop(writeln!(std::io::stdout(), "{report:#}"));
}

fn run(tell: &Tell, once: bool) -> Result<()> {
    let kept = env::var_os("ZOS_DEMO_DIR").map(PathBuf::from);
    let temporary = tempfile::tempdir()?;
    let directory = kept.unwrap_or_else(|| temporary.path().to_owned());

    tell.line("A registry starts, and a farmer founds a farm.");
    let stage = Stage::set(&directory, true)?;
    let registry = stage.registry.as_ref().context("no registry")?.url();
    tell.line(&format!("The registry's pages: {registry}/"));

    tell.line("A machine with two blank disks boots the image with the farm's boot options.");
    let machine = stage.machine("node")?;
    let mut running = stage.boot(&machine)?;
    let boot_s = running.age().as_secs();
    let node = stage.wait_node(&running)?;
    tell.line(&format!("Node {node} is registered and adopted by the farm."));
    let pool = stage.grant(&node)?;

    tell.line("The customer makes an flist of nginx and writes a contract for three stakeholders.");
    let flist = stage.publish_nginx()?;
    let terms = Terms::of_web(&node, &pool, &flist);
    let contract = stage.propose(&stage.write_source(&terms)?)?;

    let refusal = stage.wait_result(&contract, "quorum_missing", 0)?;
    ensure!(page(&stage.page_url())?.is_none(), "something ran before consensus");
    tell.line(&format!("Nothing runs yet. The node, signed: {}", reason(&refusal)));
    for (name, role) in STAKEHOLDERS {
        tell.line(&format!("The stakeholder for {role} reads the contract and approves."));
        stage.approve(&contract, name)?;
    }
    let text = stage.wait_page()?;
    ensure!(text.contains(content::PAGE), "another page came: {text}");
    let ran = stage.wait_result(&contract, "running", 0)?;
    tell.line(&format!(
        "The node has verified and started it: {} says “{}”",
        stage.page_url(),
        content::PAGE
    ));

    tell.line("Attack 1: bits are flipped in a file of the content store.");
    let second = stage.publish_apart("Another page.", "published-2")?;
    second.pack.damage(Damage::Flipped)?;
    let terms = Terms {
        name: "tampered",
        flist: &second.id,
        published: "published-2",
        port: 8081,
        ..terms
    };
    let (_, flipped) = stage.agree_on_damaged(&terms, "content_mismatch")?;
    tell.line(&format!("Refused by the node, signed: {}", reason(&flipped)));

    tell.line("Attack 2: the registry replays the approvals of the first contract for a third.");
    let (_, replayed) =
        stage.replay(&contract, &Terms { name: "replayed", port: 8082, ..terms })?;
    tell.line(&format!("Refused by the node, signed: {}", reason(&replayed)));

    let problems = running.serial.problems(&[]);
    ensure!(problems.is_empty(), "on the node's console: {problems:?}");
    if tell.json {
        print_report(&json!({
            "ok": true,
            "node": node,
            "contract": contract,
            "page": text,
            "ran": ran["ran"],
            "before_consensus": refusal,
            "tampered": flipped,
            "replayed": replayed,
            "boot_s": boot_s,
            "total_s": tell.since.elapsed().as_secs(),
        }));
    }
    if once {
        return Ok(());
    }
    tell.line("Everything stays up until Ctrl-C.");
    tell.line(&format!("  the page       {}", stage.page_url()));
    tell.line(&format!("  the registry   {registry}/"));
    tell.line(&format!(
        "  the people     3bot --home {} --registry {registry} --network test",
        directory.join("keys").display()
    ));
    running.wait()
}

fn reason(result: &Value) -> String {
    let text = |name| result[name].as_str().unwrap_or("?");
    format!("{} ({}): {}", text("state"), text("code"), text("message"))
}

//! What reaches the user: answers that cannot be written, and words of others that could steer a
//! terminal.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::World;
use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Command, Output, Stdio},
};

/// Characters by which text steers a terminal: escape, control sequence introducer, line feed,
/// and the mark that turns the direction of writing.
const STEERING: [char; 4] = ['\u{1b}', '\u{9b}', '\n', '\u{202e}'];

fn command(world: &World, registry: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_3bot"));
    command.args(["--network", common::NETWORK, "--registry", registry]);
    command.arg("--home").arg(world.home.path()).args(words);
    command.env_clear().stdin(Stdio::null());
    command
}

async fn run(mut command: Command) -> (i32, String, String) {
    let run = tokio::task::spawn_blocking(move || command.stderr(Stdio::piped()).output());
    let Output { status, stdout, stderr } = run.await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// With a standard output of our choice.
async fn into(world: &World, words: &[&str], stdout: impl Into<Stdio>) -> (i32, String) {
    let mut command = command(world, &world.url(), words);
    command.stdout(stdout);
    let (code, _, stderr) = run(command).await;
    (code, stderr)
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A pipe that nobody reads any more.
fn closed() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

async fn n_tokens(world: &World) -> usize {
    let owner = world.actor("farmer").own.signer;
    world.grid.farm(&owner).await.unwrap().unwrap().body.enrolment.len()
}

/// A farmer ran `3bot farm token --json > token.json` on a full disk: exit code 0, a token at the
/// farm, and its secret nowhere.
#[tokio::test]
async fn a_token_whose_secret_cannot_be_written_is_not_published() {
    let world = World::new().await;
    let create = ["farm", "create", "Cellar", "--location", "Ghent", "--as", "farmer"];
    assert_eq!(run(command(&world, &world.url(), &create)).await.0, 0);
    for json in [&["--json"][..], &[]] {
        let token = [&["farm", "token", "--as", "farmer"], json].concat();
        let (code, stderr) = into(&world, &token, full()).await;
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("writing to standard output: No space left"), "{stderr}");
        let (code, stderr) = into(&world, &token, Stdio::null()).await;
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("would be lost"), "{stderr}");
        let (code, stderr) = into(&world, &token, closed()).await;
        assert_eq!((code, stderr.as_str()), (141, ""));
        assert_eq!(n_tokens(&world).await, 0, "nobody has read its secret");
    }
    // A shell that closes standard output.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec \"$0\" \"$@\" >&-", env!("CARGO_BIN_EXE_3bot")]);
    shell.args(command(&world, &world.url(), &["farm", "token", "--as", "farmer"]).get_args());
    assert_eq!(run(shell).await.0, 1);
    assert_eq!(n_tokens(&world).await, 0, "nobody has read its secret");

    let expired = ["farm", "token", "--as", "farmer", "--expires", "0d"];
    assert_eq!(run(command(&world, &world.url(), &expired)).await.0, 64);
    assert_eq!(n_tokens(&world).await, 0, "it would adopt nothing");

    let token = ["farm", "token", "--as", "farmer"];
    let (code, stdout, _) = run(command(&world, &world.url(), &token)).await;
    assert_eq!(code, 0);
    assert!(stdout.starts_with("token "), "{stdout}");
    assert_eq!(n_tokens(&world).await, 1);
}

#[tokio::test]
async fn an_answer_that_cannot_be_written_is_an_error_unless_its_reader_has_gone_away() {
    let world = World::new().await;
    let commands: [&[&str]; 5] = [
        &["key", "list"],
        &["key", "list", "--json"],
        &["contract", "init"],
        &["completions", "bash"],
        &["--help"],
    ];
    for words in commands {
        let (code, stderr) = into(&world, words, full()).await;
        assert_eq!(code, 1, "{words:?}: {stderr}");
        assert!(stderr.contains("writing to standard output"), "{words:?}: {stderr}");
        assert_eq!(into(&world, words, closed()).await, (141, String::new()), "{words:?}");
        // Nobody is told, as they asked for.
        assert_eq!(into(&world, words, Stdio::null()).await, (0, String::new()), "{words:?}");
    }
}

#[tokio::test]
async fn settings_and_errors_say_what_they_are_about() {
    let world = World::new().await;
    let (_, stdout, _) = run(command(&world, &world.url(), &["config"])).await;
    assert!(stdout.contains("(several keys: say which one signs by --as ("), "{stdout}");
    let (_, stdout, _) = run(command(&world, &world.url(), &["config", "--as", "it"])).await;
    assert!(stdout.contains("key       it\n"), "{stdout}");
    let (code, _, stderr) = run(command(&world, &world.url(), &["man", "/proc/foo"])).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("writing manual pages to /proc/foo: No such file"), "{stderr}");
}

#[tokio::test]
async fn a_broken_key_is_named_and_the_others_are_listed() {
    let world = World::new().await;
    let (code, whole, _) = run(command(&world, &world.url(), &["key", "list"])).await;
    assert_eq!((code, whole.lines().count()), (0, 7), "{whole}");
    std::fs::write(world.home.path().join("keys/it.key"), "x").unwrap();
    let (code, stdout, stderr) = run(command(&world, &world.url(), &["key", "list"])).await;
    assert_eq!((code, stdout.lines().count()), (1, 6), "{stdout}");
    assert!(stdout.contains("legal") && stderr.contains("keys/it.key"), "{stdout}{stderr}");
}

/// Answers everything with the same status and body, until the test ends.
fn registry_that_says(status: &str, kind: &str, body: &str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The request fits into one segment; what is in it does not matter.
            let n = stream.read(&mut [0; 8192]).unwrap_or_default();
            // A client that goes away early is its own affair.
            drop((n, stream.write_all(answer.as_bytes())));
        }
    });
    url
}

fn assert_tame(text: &str) {
    for line in text.lines() {
        assert!(!line.contains(STEERING), "{line:?} steers the terminal");
    }
}

/// A stakeholder asked a hostile registry, whose refusal erased the screen and wrote its own.
#[tokio::test]
async fn a_registry_cannot_steer_the_terminal_by_an_error() {
    let world = World::new().await;
    let detail = "Käse\u{1b}[2J\u{9b}2J\u{202e}\n3bot: approved";
    let problem = serde_json::json!({
        "type": "about:blank", "title": "Not Found", "status": 404,
        "detail": detail, "code": "not_found\u{1b}]0;x\u{7}", "hint": "\u{1b}c",
    });
    let url = registry_that_says("404 Not Found", "application/problem+json", &problem.to_string());
    for words in [&["node", "list"][..], &["contract", "status", &"11".repeat(32)]] {
        let (code, stdout, stderr) = run(command(&world, &url, words)).await;
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains("Käse\\u{1b}[2J"), "it is quoted all the same: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert_tame(&stderr);

        let (code, stdout, stderr) =
            run(command(&world, &url, &[words, &["--json"]].concat())).await;
        assert_eq!(code, 1);
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        assert_tame(&stdout);
        assert_tame(&stderr);
        let told: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert!(told["error"].as_str().unwrap().contains(detail), "programs get it as it is");
    }
    let huge = problem.to_string().replace("Käse", &"K".repeat(50_000));
    let url = registry_that_says("404 Not Found", "application/problem+json", &huge);
    let (_, _, stderr) = run(command(&world, &url, &["node", "list"])).await;
    assert!(stderr.len() < 4000 && stderr.contains("characters more"), "{}", stderr.len());
}

#[tokio::test]
async fn a_registry_cannot_steer_the_terminal_by_an_answer() {
    let world = World::new().await;
    world.farm_with_node().await;
    let words = ["node", "list", "--json"];
    let (_, nodes, _) = run(command(&world, &world.url(), &words)).await;
    let page = format!("{{\"nodes\":{nodes}}}");
    let honest = registry_that_says("200 OK", "application/json", &page);
    let (code, stdout, stderr) = run(command(&world, &honest, &words[..2])).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("  Cellar  ") && stdout.lines().count() == 2, "{stdout}");

    let page = page.replace("Cellar", "Cel\\u001b[2J\\u009b2J\\u202e\\nlar");
    let hostile = registry_that_says("200 OK", "application/json", &page);
    let (code, stdout, stderr) = run(command(&world, &hostile, &words[..2])).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("Cel\\u{1b}[2J"), "{stdout}");
    assert_eq!(stdout.lines().count(), 2, "{stdout}");
    assert_tame(&stdout);
}

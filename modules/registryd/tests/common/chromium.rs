//! Debian's Chromium without a screen, asked over the `DevTools` protocol through a pipe.
//!
//! Messages are JSON that ends in a zero byte (`--remote-debugging-pipe`): no port, no driver, and
//! nothing that has to be waited for but answers. It ends with its owner.

use serde_json::{Value, json};
use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};
use tempfile::TempDir;

const PROGRAM: &str = "chromium";
/// Its standard error, in its home.
const ERRORS: &str = "errors";
/// It reads commands from descriptor 3 and writes answers to 4.
const START: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null";
/// No answer takes so long, also on a slow machine that does much else.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Messages that may come before the one that is wanted.
const MESSAGES_MAX: usize = 10_000;

pub(crate) struct Chromium {
    child: Child,
    commands: ChildStdin,
    /// From a thread that reads, and ends with the program.
    messages: Receiver<Vec<u8>>,
    count: u64,
    session: Value,
    /// Its profile, its temporary files, and what it says of itself.
    home: TempDir,
}

/// Every message until the program closes its end.
fn read(from: ChildStdout) -> Receiver<Vec<u8>> {
    let (sender, messages) = mpsc::channel();
    let mut from = BufReader::new(from);
    thread::spawn(move || {
        loop {
            let mut bytes = Vec::new();
            // What is cut off is no message.
            let whole = from.read_until(0, &mut bytes).is_ok() && bytes.pop() == Some(0);
            if !whole || sender.send(bytes).is_err() {
                break;
            }
        }
    });
    messages
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // It may have ended already. When it closes by itself, so do the processes that it started.
        self.session = Value::Null;
        drop(self.write("Browser.close", &json!({})));
        while self.messages.recv_timeout(TIMEOUT).is_ok() {}
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Chromium {
    /// Starts it with one empty page.
    pub(crate) fn start() -> Self {
        let there = Command::new(PROGRAM).arg("--version").output();
        assert!(
            there.is_ok_and(|found| found.status.success()),
            "{PROGRAM} is missing, with which people's view of the pages is tested: \
             `apt-get install chromium`, or let `cargo xtask test --host` do it"
        );
        let home = tempfile::tempdir().unwrap();
        let profile = format!("--user-data-dir={}", home.path().display());
        let errors = File::create(home.path().join(ERRORS)).unwrap();
        let mut child = Command::new("sh")
            // Its sandbox does not start for root, nor in a container without namespaces of users.
            // The pages are ours.
            .args(["-c", START, PROGRAM, "--headless", "--no-sandbox", "--disable-gpu"])
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .stderr(errors)
            // A container's /dev/shm may be small; nothing is asked of anybody but the registry.
            .args(["--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run"])
            .args(["--hide-scrollbars", "--remote-debugging-pipe", &profile, "about:blank"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let messages = read(child.stdout.take().unwrap());
        let session = Value::Null;
        let mut new = Self { child, commands, messages, count: 0, session, home };
        let target = new.ask("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        new.session = new.ask("Target.attachToTarget", &attach)["sessionId"].clone();
        new.ask("Page.enable", &json!({}));
        new
    }

    /// One message. Whoever waits for one that never comes fails, with what the program said.
    fn message(&mut self) -> Value {
        let bytes = self.messages.recv_timeout(TIMEOUT).unwrap_or_else(|error| {
            let said = std::fs::read(self.home.path().join(ERRORS)).unwrap_or_default();
            panic!("{PROGRAM} answers nothing: {error}\n{}", String::from_utf8_lossy(&said))
        });
        serde_json::from_slice(&bytes).unwrap()
    }

    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..MESSAGES_MAX {
            let message = self.message();
            if wanted(&message) {
                return message;
            }
        }
        panic!("{PROGRAM} does not say what is waited for");
    }

    fn send(&mut self, method: &str, parameters: &Value) -> u64 {
        self.write(method, parameters).unwrap();
        self.count
    }

    fn write(&mut self, method: &str, parameters: &Value) -> io::Result<()> {
        self.count += 1;
        let mut message = json!({ "id": self.count, "method": method, "params": parameters });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.commands.write_all(&bytes)
    }

    /// What a command is answered with.
    pub(crate) fn ask(&mut self, method: &str, parameters: &Value) -> Value {
        let id = self.send(method, parameters);
        let mut answer = self.until(|message| message["id"] == id);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].take()
    }

    /// The window from now on.
    pub(crate) fn view(&mut self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.ask("Emulation.setDeviceMetricsOverride", &metrics);
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", &features);
    }

    /// Opens a page and returns when everything of it is there.
    pub(crate) fn open(&mut self, url: &str) {
        let id = self.send("Page.navigate", &json!({ "url": url }));
        let (mut answered, mut loaded) = (false, false);
        while !(answered && loaded) {
            let message =
                self.until(|one| one["id"] == id || one["method"] == "Page.loadEventFired");
            if message["id"] == id {
                let problem = &message["result"]["errorText"];
                assert!(problem.is_null(), "{url}: {problem}");
                answered = true;
            } else {
                loaded = true;
            }
        }
    }

    /// Shows a page that nobody serves.
    pub(crate) fn show(&mut self, html: &str) {
        let frame = self.ask("Page.getFrameTree", &json!({}))["frameTree"]["frame"]["id"].clone();
        self.ask("Page.setDocumentContent", &json!({ "frameId": frame, "html": html }));
    }

    /// The value of an expression. The page's own policy forbids scripts to it, not to its reader.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        let answer = self.ask("Runtime.evaluate", &parameters);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// What a screen reader is told: role and name of each node, in order.
    pub(crate) fn spoken(&mut self) -> Vec<(String, String)> {
        let tree = self.ask("Accessibility.getFullAXTree", &json!({}));
        let nodes = tree["nodes"].as_array().unwrap().iter();
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        nodes
            .filter(|node| node["ignored"] != json!(true))
            .map(|node| (text(&node["role"]), text(&node["name"])))
            .collect()
    }

    /// Writes a picture, so many times as large, from the top of the first element that fits on.
    pub(crate) fn picture(
        &mut self,
        path: &Path,
        from: &str,
        (width, height): (u32, u32),
        scale: f64,
    ) {
        use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
        let top = format!("document.querySelector('{from}').getBoundingClientRect().top + scrollY");
        let top = self.value(&top);
        let clip = json!({ "x": 0, "y": top, "width": width, "height": height, "scale": scale });
        let wanted = json!({ "format": "png", "clip": clip, "captureBeyondViewport": true });
        let answer = self.ask("Page.captureScreenshot", &wanted);
        std::fs::write(path, BASE64.decode(answer["data"].as_str().unwrap()).unwrap()).unwrap();
    }
}

//! A registry that misbehaves: stands between a node and the real one, and lies as it is told.

use crate::wait;
use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Longest head and body that pass.
const HEAD_MAX: u64 = 64 * 1024;
const BODY_MAX: u64 = 64 << 20;
/// Nobody waits longer for the other side.
const PATIENCE: Duration = Duration::from_secs(60);

/// How it treats the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mood {
    /// Passes everything on.
    Honest,
    /// Takes connections and says nothing.
    Silent,
    /// Answers every question with bytes that mean nothing.
    Garbage,
    /// Cuts every answer in half.
    Half,
    /// Says that no contract concerns the node.
    Empty,
    /// Serves contracts without approvals and cancels, as they were before, and says that they are new.
    Older,
    /// Puts one contract's approvals into every bundle.
    Replay(Vec<Value>),
}

/// The registry between. Serves until the process ends.
#[derive(Debug, Clone)]
pub struct Hostile {
    /// Its port on the loopback address.
    pub port: u16,
    now: Arc<Mutex<Now>>,
}

/// The mood, and how often a node has asked for its contracts since it began.
#[derive(Debug, Clone)]
struct Now {
    mood: Mood,
    n_asked: u64,
}

impl Hostile {
    /// Stands before the registry at this port of the loopback address.
    pub fn start(upstream: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let now = Now { mood: Mood::Honest, n_asked: 0 };
        let hostile = Self { port: listener.local_addr()?.port(), now: Arc::new(Mutex::new(now)) };
        let own = hostile.clone();
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let own = own.clone();
                // A connection that breaks is the node's to try again.
                thread::spawn(move || drop(serve(connection, upstream, &own)));
            }
        });
        Ok(hostile)
    }

    /// Changes how it treats questions from now on.
    pub fn set(&self, mood: Mood) {
        *self.now() = Now { mood, n_asked: 0 };
    }

    /// Waits until the node has taken in an answer of the present mood about its contracts: it asks
    /// for them again only then.
    pub fn wait_taken(&self, limit: Duration) -> Result<()> {
        wait::until("the node has heard the registry", limit, || {
            Ok((self.now().n_asked >= 2).then_some(()))
        })
    }

    /// The mood for a question, which counts when it asks for a node's contracts.
    fn mood(&self, inbox: bool) -> Mood {
        let mut now = self.now();
        now.n_asked += u64::from(inbox);
        now.mood.clone()
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request on each connection.
fn serve(mut node: TcpStream, upstream: u16, hostile: &Hostile) -> Result<()> {
    node.set_read_timeout(Some(PATIENCE))?;
    let (head, body) = read_request(&node)?;
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (inbox, bundle) = (path.contains("/inbox"), path.contains("/bundle"));
    let mood = hostile.mood(inbox);
    let mut answer = match &mood {
        Mood::Silent => {
            // Until the node gives up.
            drop(io::copy(&mut node, &mut io::sink()));
            return Ok(());
        }
        Mood::Garbage => reply(b"\x00\xff{\"contracts\": [\"garbage"),
        Mood::Honest | Mood::Half | Mood::Empty | Mood::Older | Mood::Replay(_) => {
            forward(&head, &body, upstream)?
        }
    };
    match mood {
        Mood::Half => answer.truncate(answer.len() / 2),
        Mood::Empty if inbox => {
            answer = changed(&answer, |inbox| inbox["contracts"] = json!([]))?;
        }
        // A tag that the node has not seen makes it ask for the contract.
        Mood::Older if inbox => {
            answer = changed(&answer, |inbox| {
                for entry in inbox["contracts"].as_array_mut().into_iter().flatten() {
                    entry["etag"] = json!("\"older\"");
                }
            })?;
        }
        Mood::Older if bundle => {
            answer = changed(&answer, |bundle| {
                bundle["approvals"] = json!([]);
                bundle["cancels"] = json!([]);
            })?;
        }
        Mood::Replay(approvals) if bundle => {
            answer = changed(&answer, |bundle| {
                let own = bundle["approvals"].as_array().cloned().unwrap_or_default();
                bundle["approvals"] = own.into_iter().chain(approvals.iter().cloned()).collect();
            })?;
        }
        Mood::Honest
        | Mood::Silent
        | Mood::Garbage
        | Mood::Empty
        | Mood::Older
        | Mood::Replay(_) => {}
    }
    node.write_all(&answer)?;
    Ok(())
}

/// Head without its empty line, and body.
fn read_request(node: &TcpStream) -> Result<(String, Vec<u8>)> {
    let mut reader = BufReader::new(node.try_clone()?).take(HEAD_MAX);
    let mut head = String::new();
    loop {
        let start = head.len();
        ensure!(reader.read_line(&mut head)? > 0, "the node has gone");
        if head[start..].trim().is_empty() {
            head.truncate(start);
            break;
        }
    }
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned)
        })
        .map_or(Ok(0), |text| text.trim().parse::<u64>())?;
    ensure!(length <= BODY_MAX, "the body is too long");
    reader.set_limit(length);
    let mut body = Vec::new();
    reader.read_to_end(&mut body)?;
    Ok((head, body))
}

/// Asks the real registry; one question on each connection, and never "not modified".
fn forward(head: &str, body: &[u8], upstream: u16) -> Result<Vec<u8>> {
    let mut registry = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?;
    registry.set_read_timeout(Some(PATIENCE))?;
    let dropped = ["connection:", "if-none-match:"];
    let kept = head.lines().filter(|line| {
        let lower = line.to_ascii_lowercase();
        !dropped.iter().any(|name| lower.starts_with(name))
    });
    let head: String = kept.map(|line| format!("{line}\r\n")).collect();
    registry.write_all(format!("{head}connection: close\r\n\r\n").as_bytes())?;
    registry.write_all(body)?;
    let mut answer = Vec::new();
    registry.take(BODY_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

fn reply(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\netag: \"h-{}\"\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        BASE64.encode(&body[..body.len().min(16)]),
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The answer with something else inside.
fn changed(answer: &[u8], change: impl FnOnce(&mut Value)) -> Result<Vec<u8>> {
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no body")?;
    let Ok(mut body) = serde_json::from_slice::<Value>(&answer[split + 4..]) else {
        return Ok(answer.to_vec());
    };
    change(&mut body);
    Ok(reply(&serde_json::to_vec(&body)?))
}

//! A Redis that only listens: takes PUBLISH of nodes, answers, and remembers every message. When it is
//! deaf it hangs up without an answer.

use crate::wait;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Longest word of a request.
const WORD_MAX: usize = 64 << 10;

/// What it has heard.
#[derive(Debug, Default)]
struct Heard {
    messages: Vec<Value>,
    n_connections: usize,
    deaf: bool,
}

/// The listener. It ends with the test.
#[derive(Debug)]
pub struct Listener {
    /// Its port on the loopback address.
    pub port: u16,
    heard: Arc<Mutex<Heard>>,
}

impl Listener {
    /// Begins to listen.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let heard = Arc::<Mutex<Heard>>::default();
        let shared = Arc::clone(&heard);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                lock(&shared).n_connections += 1;
                let shared = Arc::clone(&shared);
                // A node that has gone comes again.
                thread::spawn(move || drop(listen(&stream, &shared)));
            }
        });
        Ok(Self { port, heard })
    }

    /// From now on, whether it hangs up on everybody.
    pub fn set_deaf(&self, deaf: bool) {
        lock(&self.heard).deaf = deaf;
    }

    /// How often somebody connected.
    pub fn n_connections(&self) -> usize {
        lock(&self.heard).n_connections
    }

    /// Every message, in the order of their arrival.
    pub fn messages(&self) -> Vec<Value> {
        lock(&self.heard).messages.clone()
    }

    /// Waits for a message behind the first `seen` ones.
    pub fn wait(
        &self,
        what: &str,
        seen: usize,
        limit: Duration,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let find = || self.messages().into_iter().skip(seen).find(|message| is_it(message));
        wait::until(what, limit, || Ok(find()))
    }

    /// Holds the numbers of all messages together: none is missing without a mark that says so, from
    /// the first on. Messages may come twice. Gives how many lines the marks stand for.
    pub fn check(&self) -> Result<u64> {
        let (mut last, mut n_dropped) = (0, 0);
        for message in self.messages() {
            let number = message["number"].as_u64().context("no number")?;
            let dropped = message["dropped"].as_u64().unwrap_or(0);
            let first = (number + 1).saturating_sub(dropped.max(1));
            ensure!(first <= last + 1, "after number {last} comes {message}");
            if number > last {
                n_dropped += dropped;
            }
            last = last.max(number);
        }
        Ok(n_dropped)
    }
}

fn listen(stream: &TcpStream, heard: &Mutex<Heard>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut words = Vec::new();
        for _ in 0..number(&mut reader, '*')? {
            let size = number(&mut reader, '$')?;
            ensure!(size <= WORD_MAX, "a word of {size} bytes");
            let mut word = vec![0; size + 2];
            reader.read_exact(&mut word)?;
            word.truncate(size);
            words.push(String::from_utf8(word)?);
        }
        let [command, channel, message] = &*words else { anyhow::bail!("{words:?}") };
        ensure!(command == "PUBLISH" && channel == "lines", "{words:?}");
        let mut heard = lock(heard);
        if heard.deaf {
            return Ok(());
        }
        heard.messages.push(serde_json::from_str(message)?);
        drop(heard);
        writer.write_all(b":1\r\n")?;
    }
}

fn number(reader: &mut BufReader<&TcpStream>, kind: char) -> Result<usize> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let digits = line.strip_prefix(kind).context("not what is expected")?;
    Ok(digits.trim_end().parse()?)
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

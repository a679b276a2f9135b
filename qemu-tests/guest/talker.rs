//! A program in a container that says something ten times a second, and far too much whenever
//! somebody connects; its answer comes when all of it is said. One file, the standard library only,
//! compiled by `rustc` alone.

#![forbid(unsafe_code)]

use std::{
    io::{self, Read, Write},
    net::TcpListener,
    thread,
    time::Duration,
};

/// Lines of a flood, and how often it is said.
const FLOOD_LINES: usize = 100_000;
const FLOODS: usize = 7;

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:80")?;
    thread::spawn(|| {
        for number in 1_u64.. {
            println!("say {number}");
            thread::sleep(Duration::from_millis(100));
        }
    });
    let flood = b"flood\n".repeat(FLOOD_LINES);
    for connection in listener.incoming() {
        let mut connection = connection?;
        // Health checks of a test may connect without a word; this one asks.
        if !matches!(connection.read(&mut [0; 512]), Ok(1..)) {
            continue;
        }
        for _ in 0..FLOODS {
            io::stdout().lock().write_all(&flood)?;
        }
        let text = format!("{} lines\n", FLOOD_LINES * FLOODS);
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
        // A visitor who has gone needs no answer.
        drop(connection.write_all(format!("{head}{text}").as_bytes()));
    }
    Ok(())
}

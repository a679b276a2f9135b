//! A program in a container that waits; as `patient ask` the command of its health check. That is well until
//! it has been asked twice, of which a file keeps count, and says then what ails it. One file, the standard
//! library only, compiled by `rustc` alone.

#![forbid(unsafe_code)]

use std::{
    env,
    fs::OpenOptions,
    io::{self, Write},
    process::ExitCode,
    thread,
};

/// One byte for each question. Gone when the container is started again, as all of `/tmp`.
const COUNT: &str = "/tmp/asked";
/// Questions that are answered well.
const GOOD: u64 = 2;

fn main() -> io::Result<ExitCode> {
    if env::args().nth(1).as_deref() != Some("ask") {
        println!("waiting");
        loop {
            thread::park();
        }
    }
    let mut count = OpenOptions::new().create(true).append(true).open(COUNT)?;
    count.write_all(b".")?;
    let n_asked = count.metadata()?.len();
    if n_asked <= GOOD {
        return Ok(ExitCode::SUCCESS);
    }
    println!("{COUNT} has \"{n_asked}\" bytes");
    Ok(ExitCode::from(3))
}

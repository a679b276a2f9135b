//! A program in a container that fills its volume until the disk refuses, and serves a page that tells
//! how far it came. One file, the standard library only, compiled by `rustc` alone.

#![forbid(unsafe_code)]

use std::{
    fs::{self, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    net::TcpListener,
};

const FILE: &str = "/var/lib/nginx/fill";
/// The disk has to refuse by then.
const BYTES_MAX: u64 = 8 << 30;

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:80")?;
    let refusal = match fill() {
        Ok(()) => "nothing refused".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    };
    let length = fs::metadata(FILE).map_or(0, |file| file.len());
    let page = format!("{length} bytes, then {refusal}\n");
    for connection in listener.incoming() {
        let mut connection = connection?;
        let lines = BufReader::new(connection.try_clone()?).lines();
        // A visitor who has gone needs no page.
        drop(lines.map_while(Result::ok).find(String::is_empty));
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
        drop(connection.write_all(format!("{head}{page}").as_bytes()));
    }
    Ok(())
}

/// Writes noise, which no file system can make smaller, to the end of the file.
fn fill() -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(FILE)?;
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0; 1 << 20];
    while file.metadata()?.len() < BYTES_MAX {
        for word in block.chunks_exact_mut(8) {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            word.copy_from_slice(&noise.to_le_bytes());
        }
        file.write_all(&block)?;
        file.sync_data()?;
    }
    Ok(())
}

//! A program in a container that is one of many: it says that it is there, and sleeps. One file, the
//! standard library only, compiled by `rustc` alone.

#![forbid(unsafe_code)]

fn main() {
    println!("asleep");
    loop {
        std::thread::park();
    }
}

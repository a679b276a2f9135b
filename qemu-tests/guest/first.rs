//! The shortest PID 1: says that it runs, and waits to be unplugged. It shows how long the kernel
//! takes alone. One file, the standard library only, compiled by `rustc` alone.

#![forbid(unsafe_code)]

fn main() {
    println!("zos-bench: PID 1 runs");
    loop {
        std::thread::park();
    }
}

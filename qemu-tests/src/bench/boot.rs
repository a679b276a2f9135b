//! How long the node takes until contractd and then all services are ready, beside the kernel alone with the same initramfs.

use super::{Figure, median};
use crate::{
    archive,
    machine::{BOOT, Machine, Running, blank_disk},
    media::{Image, Medium},
};
use anyhow::{Context as _, Result};
use std::{fs, path::Path, time::Duration};

/// Measured so often when nothing else is said.
pub(super) const RUNS: usize = 5;
/// A node is ready in at most this times the kernel's own time.
const READY_RATIO_MAX: f64 = 1.5;
/// A node that is idle goes down within this time.
const DOWN: Duration = Duration::from_secs(90);
const DISK_MIB: u64 = 8192;

/// Starts of one kind: seconds on the clock, and seconds of the host's processor.
struct Starts {
    wall: Vec<f64>,
    processor: Vec<f64>,
}

impl Starts {
    const fn new() -> Self {
        Self { wall: Vec::new(), processor: Vec::new() }
    }

    fn take(&mut self, running: &Running) -> Result<f64> {
        let age = running.age().as_secs_f64();
        self.processor.push(running.processor_time()?.as_secs_f64());
        self.wall.push(age);
        Ok(age)
    }
}

pub(super) fn measure(n_runs: usize, tell: &dyn Fn(&str)) -> Result<Vec<Figure>> {
    let temporary = tempfile::tempdir()?;
    let directory = temporary.path();
    let image = Image::find()?;
    let [mut kernel, mut first, mut ready, mut all] = [const { Starts::new() }; 4];
    let [mut unpacked_kernel, mut unpacked_ready, mut unpacked_all] = [const { Starts::new() }; 3];
    let mut own = Vec::new();
    for run in 1..=n_runs {
        let disk = blank_disk(&directory.join("disk.img"), DISK_MIB)?;
        let node = |name: &str, medium| Machine {
            medium,
            disks: vec![(disk.clone(), "BENCH".to_owned())],
            ..Machine::new(name)
        };
        let bare = |medium, starts: &mut Starts| {
            let bare =
                Machine { overlay: Some(bare_overlay(directory)?), ..node("kernel", medium) };
            let running = bare.start(&image, directory)?;
            running.serial.wait("zos-bench: PID 1 runs", BOOT)?;
            starts.take(&running)
        };
        let again = |medium, ready: &mut Starts, all: &mut Starts| {
            let running = node("again", medium).start(&image, directory)?;
            running.serial.wait("zos: service contractd: ready", BOOT)?;
            let ready_s = ready.take(&running)?;
            let line = running.serial.wait("zos: all services ready", BOOT)?;
            all.take(&running)?;
            anyhow::Ok((ready_s, own_time(&line).context("how long did init take?")?))
        };

        let bare_s = bare(Medium::Shipped, &mut kernel)?;
        // It ends by itself, so that the next boot finds a pool that was left in order.
        let ending =
            Machine { cmdline: "zos.bench=poweroff".to_owned(), ..node("first", Medium::Shipped) };
        let mut running = ending.start(&image, directory)?;
        running.wait_ready()?;
        let first_s = first.take(&running)?;
        running.wait_off(DOWN).context("after the first boot")?;
        drop(running);
        let (ready_s, own_s) = again(Medium::Shipped, &mut ready, &mut all)?;
        own.push(own_s);

        bare(Medium::Direct, &mut unpacked_kernel)?;
        again(Medium::Direct, &mut unpacked_ready, &mut unpacked_all)?;
        tell(&format!(
            "run {run} of {n_runs}: kernel alone {bare_s:.1} s, first boot {first_s:.1} s, \
             boot {ready_s:.1} s"
        ));
    }
    let seconds = |id: &str, starts: &Starts, beside: &Starts| {
        Figure::new(id, "s", median(&starts.wall), n_runs).beside("kernel", median(&beside.wall))
    };
    let processor = |id: &str, starts: &Starts| {
        Figure::new(id, "s", median(&starts.processor), n_runs)
            .beside("kernel", median(&kernel.processor))
    };
    // The boots of a run see about the same load, so the ratio of each run is taken first.
    let ratio = |id: &str, starts: &Starts, beside: &Starts| {
        let ratios: Vec<_> =
            starts.wall.iter().zip(&beside.wall).map(|(ours, kernel)| ours / kernel).collect();
        Figure::new(id, "ratio", median(&ratios), n_runs)
    };
    Ok(vec![
        Figure::new("boot.kernel_s", "s", median(&kernel.wall), n_runs),
        seconds("boot.ready_s", &ready, &kernel),
        seconds("boot.all_ready_s", &all, &kernel),
        seconds("boot.first_s", &first, &kernel),
        ratio("boot.ready_ratio", &ready, &kernel).at_most(READY_RATIO_MAX),
        ratio("boot.all_ready_ratio", &all, &kernel),
        ratio("boot.first_ratio", &first, &kernel),
        processor("boot.ready_processor_s", &ready),
        processor("boot.first_processor_s", &first),
        Figure::new("boot.pid1_to_all_ready_s", "s", median(&own), n_runs),
        seconds("boot.unpacked_ready_s", &unpacked_ready, &unpacked_kernel),
        ratio("boot.unpacked_ready_ratio", &unpacked_ready, &unpacked_kernel),
        ratio("boot.unpacked_all_ready_ratio", &unpacked_all, &unpacked_kernel),
    ])
}

/// An archive whose `/init` says that it runs, and does nothing else.
fn bare_overlay(directory: &Path) -> Result<std::path::PathBuf> {
    let path = directory.join("first.cpio");
    if !path.exists() {
        let program = fs::read(archive::guest_program("first", directory)?)?;
        fs::write(&path, archive::programs(&[("init", &program)]))?;
    }
    Ok(path)
}

/// Seconds in `zos: all services ready after 1234 ms`.
fn own_time(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once("ready after ")?;
    let ms: f64 = rest.split(' ').next()?.parse().ok()?;
    Some(ms / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_tells_its_own_time() {
        assert_eq!(own_time("zos: all services ready after 1250 ms"), Some(1.25));
        assert_eq!(own_time("zos: service netd: ready"), None);
    }
}

//! How long the node takes until contractd and then all services are ready, beside the kernel alone with the same initramfs.

use super::{Figure, median};
use crate::{
    archive,
    machine::{BOOT, Machine, Running, blank_disk},
    media::Image,
};
use anyhow::{Context as _, Result};
use std::{fs, path::Path, time::Duration};

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
    let mut own = Vec::new();
    for run in 1..=n_runs {
        let disk = blank_disk(&directory.join("disk.img"), DISK_MIB)?;
        let node = |name: &str| Machine {
            disks: vec![(disk.clone(), "BENCH".to_owned())],
            ..Machine::new(name)
        };

        let bare = Machine { overlay: Some(bare_overlay(directory)?), ..node("kernel") };
        let running = bare.start(&image, directory)?;
        running.serial.wait("zos-bench: PID 1 runs", BOOT)?;
        let bare_s = kernel.take(&running)?;
        running.power_cut();

        // It ends by itself, so that the next boot finds a pool that was left in order.
        let ending = Machine { cmdline: "zos.bench=poweroff".to_owned(), ..node("first") };
        let mut running = ending.start(&image, directory)?;
        running.wait_ready()?;
        let first_s = first.take(&running)?;
        running.wait_off(DOWN).context("after the first boot")?;
        drop(running);

        let running = node("second").start(&image, directory)?;
        running.serial.wait("zos: service contractd: ready", BOOT)?;
        let ready_s = ready.take(&running)?;
        let line = running.serial.wait("zos: all services ready", BOOT)?;
        all.take(&running)?;
        own.push(own_time(&line).context("how long did init take?")?);
        running.power_cut();
        tell(&format!(
            "run {run} of {n_runs}: kernel alone {bare_s:.1} s, first boot {first_s:.1} s, \
             boot {ready_s:.1} s"
        ));
    }
    let ratios = |starts: &Starts| -> Vec<f64> {
        starts.wall.iter().zip(&kernel.wall).map(|(ours, kernel)| ours / kernel).collect()
    };
    let figure = |id: &str, values: &[f64]| Figure::new(id, "s", median(values), n_runs);
    Ok(vec![
        figure("boot.kernel_s", &kernel.wall),
        figure("boot.ready_s", &ready.wall).beside("kernel", median(&kernel.wall)),
        figure("boot.all_ready_s", &all.wall).beside("kernel", median(&kernel.wall)),
        figure("boot.first_s", &first.wall).beside("kernel", median(&kernel.wall)),
        // Both boots of a run see about the same load, so the ratio of each run is taken first.
        Figure::new("boot.ready_ratio", "ratio", median(&ratios(&ready)), n_runs)
            .at_most(READY_RATIO_MAX),
        Figure::new("boot.all_ready_ratio", "ratio", median(&ratios(&all)), n_runs),
        Figure::new("boot.first_ratio", "ratio", median(&ratios(&first)), n_runs),
        figure("boot.ready_processor_s", &ready.processor)
            .beside("kernel", median(&kernel.processor)),
        figure("boot.first_processor_s", &first.processor)
            .beside("kernel", median(&kernel.processor)),
        figure("boot.pid1_to_ready_s", &own),
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

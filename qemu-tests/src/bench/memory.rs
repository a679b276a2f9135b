//! What an idle node takes of its machine's memory.

use super::{Figure, exact};
use crate::{
    machine::{Machine, blank_disk},
    media::Image,
    saboteur::{self, Saboteur},
};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{collections::BTreeMap, fs, thread, time::Duration};

/// All daemons together, PID 1 included.
const DAEMONS_PSS_MAX: f64 = 64.0 * 1024.0 * 1024.0;
/// Services; `devices` is a part of init that runs beside PID 1.
const DAEMONS: [&str; 7] = ["init", "devices", "storaged", "netd", "launcher", "logd", "contractd"];
/// After it was ready, what was needed to start is given back, and the modules of the first
/// workload come.
const SETTLE: Duration = Duration::from_secs(30);
const DISK_MIB: u64 = 8192;

pub(super) fn measure(tell: &dyn Fn(&str)) -> Result<Vec<Figure>> {
    let temporary = tempfile::tempdir()?;
    let directory = temporary.path();
    let image = Image::find()?;
    let mut machine = Machine::new("memory");
    machine.overlay = Some(saboteur::overlay(&image, directory)?);
    machine.disks = vec![(blank_disk(&directory.join("disk.img"), DISK_MIB)?, "BENCH".to_owned())];
    let running = machine.start(&image, directory)?;
    running.wait_ready()?;
    tell(&format!("ready; looking again in {} s", SETTLE.as_secs()));
    thread::park_timeout(SETTLE);
    let mut saboteur = Saboteur::connect(&running)?;
    let daemons = pairs(&saboteur.order("memory", "memory ")?);
    let memory = pairs(&saboteur.order("machine", "machine ")?);

    let daemon = |name: &str| {
        let bytes = daemons.get(name).filter(|bytes| **bytes > 0);
        bytes.copied().with_context(|| format!("nobody knows the memory of {name}"))
    };
    let mut total = 0;
    let mut each = Vec::new();
    for name in DAEMONS {
        let bytes = daemon(name)?;
        total += bytes;
        each.push(Figure::new(&format!("memory.{name}_pss_bytes"), "bytes", exact(bytes), 1));
    }
    let all = memory.get("total").context("no total memory")?;
    let available = memory.get("available").context("no available memory")?;
    let sizes: Value = serde_json::from_str(&fs::read_to_string(image.file("sizes.json"))?)?;
    let unpacked = sizes["initramfs_unpacked"].as_u64().context("no size of the initramfs")?;
    let mut figures = vec![
        Figure::new("memory.daemons_pss_bytes", "bytes", exact(total), 1).at_most(DAEMONS_PSS_MAX),
    ];
    figures.extend(each);
    // The root file system is in memory: it cannot be given back.
    figures.push(Figure::new("memory.image_bytes", "bytes", exact(unpacked), 1));
    let taken = all.saturating_sub(*available);
    figures.push(Figure::new("memory.taken_bytes", "bytes", exact(taken), 1));
    Ok(figures)
}

/// `word NAME=BYTES NAME=BYTES …`
fn pairs(answer: &str) -> BTreeMap<String, u64> {
    let words = answer.split_ascii_whitespace().filter_map(|word| word.split_once('='));
    words.filter_map(|(name, bytes)| Some((name.to_owned(), bytes.parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_figures() {
        let answer = pairs("memory init=1024 netd=0 odd x=y");
        assert_eq!(
            answer.into_iter().collect::<Vec<_>>(),
            [("init".into(), 1024), ("netd".into(), 0)]
        );
    }
}

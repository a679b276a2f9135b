//! The end of the kernel log of a boot that ended in a panic, kept by the firmware.

use std::{fs, io, path::Path};

/// Where the kernel shows the records.
const DIRECTORY: &str = "/sys/fs/pstore";
/// Enough for the panic and what led to it.
const RECORD_MAX: usize = 8 << 10;
/// A store holds a handful of records.
const RECORDS_MAX: usize = 64;

/// Reads and erases every record. The text is the newest end of the log, if there is any.
pub(crate) fn take() -> io::Result<Option<String>> {
    take_from(Path::new(DIRECTORY))
}

fn take_from(directory: &Path) -> io::Result<Option<String>> {
    let mut records = Vec::new();
    for entry in fs::read_dir(directory)?.take(RECORDS_MAX) {
        let path = entry?.path();
        let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        records.push(text);
        // Erasing makes room for the next panic.
        fs::remove_file(&path)?;
    }
    Ok(join(records))
}

/// A long log is split into records whose first line is, for example, `Panic#1 Part2`; part 1 is
/// the newest.
fn join(mut records: Vec<String>) -> Option<String> {
    records.retain(|record| record.starts_with("Panic#") || record.starts_with("Oops#"));
    records.sort_by_key(|record| std::cmp::Reverse(part(record)));
    let whole = records
        .iter()
        .map(|record| record.split_once('\n').map_or("", |(_, log)| log).trim_end())
        .collect::<Vec<_>>()
        .join("\n");
    let tail = whole.len().saturating_sub(RECORD_MAX);
    let start = (tail..whole.len()).find(|at| whole.is_char_boundary(*at))?;
    Some(whole[start..].to_owned())
}

fn part(record: &str) -> u32 {
    let first = record.lines().next().unwrap_or_default();
    first.rsplit_once("Part").and_then(|(_, number)| number.trim().parse().ok()).unwrap_or(0)
}

/// The line that says why, for the console.
pub(crate) fn headline(record: &str) -> &str {
    let why = record.lines().find(|line| line.contains("Kernel panic"));
    why.or_else(|| record.lines().last()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_log_come_in_the_order_of_time() {
        let records = vec![
            "Panic#1 Part1\n<0>[ 2.0] Kernel panic - not syncing: test\n".to_owned(),
            "Panic#1 Part2\n<6>[ 1.0] before\n".to_owned(),
            "Shutdown#1 Part1\nnot this\n".to_owned(),
        ];
        let text = join(records).unwrap();
        assert_eq!(text, "<6>[ 1.0] before\n<0>[ 2.0] Kernel panic - not syncing: test");
        assert!(headline(&text).ends_with("Kernel panic - not syncing: test"));
        assert_eq!(join(Vec::new()), None);
    }

    #[test]
    fn a_long_log_keeps_its_end() {
        let text = join(vec![format!("Panic#1 Part1\n{}end", "é".repeat(RECORD_MAX))]).unwrap();
        assert!(text.len() <= RECORD_MAX);
        assert!(text.ends_with("end"));
    }

    #[test]
    fn records_are_erased_once_read() {
        let store = tempfile::tempdir().unwrap();
        let directory = store.path();
        fs::write(directory.join("dmesg-erst-1"), "Panic#1 Part1\nboom\n").unwrap();
        assert_eq!(take_from(directory).unwrap().as_deref(), Some("boom"));
        assert_eq!(take_from(directory).unwrap(), None);
    }
}

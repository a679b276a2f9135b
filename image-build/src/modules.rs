//! Chooses the kernel modules of the image: the named ones, and everything that they need.
//!
//! Reads the files that depmod left in the kernel package. Modules stay `.ko.xz`, the kernel takes
//! them so; only those of a group that says `unpacked` become `.ko`, which the kernel loads faster.

use crate::recipe::ModuleGroup;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The index files of one kernel, as depmod wrote them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Index<'a> {
    /// `modules.dep`.
    pub(crate) dep: &'a str,
    /// `modules.alias`.
    pub(crate) alias: &'a str,
    /// `modules.softdep`.
    pub(crate) softdep: &'a str,
    /// `modules.builtin`.
    pub(crate) builtin: &'a str,
}

/// What the image ships.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Paths below `lib/modules/<release>`, sorted.
    pub(crate) files: BTreeSet<String>,
    /// Those of them that are shipped unpacked, under [`unpacked_path`].
    pub(crate) unpacked: BTreeSet<String>,
    /// `modules.dep` for these files.
    pub(crate) dep: String,
    /// `modules.alias` for these files.
    pub(crate) alias: String,
    /// `modules.softdep` for these files.
    pub(crate) softdep: String,
}

/// Closes the groups over hard and soft dependencies.
///
/// A named module that the kernel neither has nor contains is an error that names its group.
pub(crate) fn select(groups: &[ModuleGroup], index: Index<'_>) -> Result<Selection> {
    let dependencies = parse_dep(index.dep);
    let by_name: BTreeMap<String, &str> =
        dependencies.keys().map(|path| (module_name(path), *path)).collect();
    let builtin: BTreeSet<String> = index.builtin.lines().map(module_name).collect();
    let softdeps = parse_softdep(index.softdep);
    let exact_aliases = parse_exact_aliases(index.alias);

    let mut wanted: Vec<&str> = Vec::new();
    let mut unpacked = BTreeSet::new();
    for group in groups {
        for name in &group.names {
            match by_name.get(&normal(name)) {
                Some(path) => {
                    wanted.push(path);
                    if group.unpacked {
                        unpacked.insert((*path).to_owned());
                    }
                }
                None if builtin.contains(&normal(name)) => {}
                None => bail!("this kernel has no module {name} (group {})", group.group),
            }
        }
    }

    let mut files = BTreeSet::new();
    while let Some(path) = wanted.pop() {
        if !files.insert(path.to_owned()) {
            continue;
        }
        wanted.extend(dependencies.get(path).into_iter().flatten());
        for need in softdeps.get(&module_name(path)).into_iter().flatten() {
            // A soft dependency that is no module of this kernel is built in or simply absent.
            wanted.extend(by_name.get(&normal(need)));
            let providers = exact_aliases.get(need.as_str()).into_iter().flatten();
            wanted.extend(providers.filter_map(|name| by_name.get(name)));
        }
    }

    let shipped: BTreeSet<String> = files.iter().map(|path| module_name(path)).collect();
    let shown =
        |path: &str| if unpacked.contains(path) { unpacked_path(path) } else { path }.to_owned();
    let mut dep = String::new();
    for path in &files {
        let needs = dependencies.get(path.as_str()).into_iter().flatten();
        let needs: String = needs.map(|need| format!(" {}", shown(need))).collect();
        writeln!(dep, "{}:{needs}", shown(path)).expect("a string takes any text");
    }
    let alias = lines_about(index.alias, |words| words.last().copied(), &shipped);
    let softdep = lines_about(index.softdep, |words| words.get(1).copied(), &shipped);
    Ok(Selection { files, unpacked, dep, alias, softdep })
}

/// Path of a module without its compression.
pub(crate) fn unpacked_path(path: &str) -> &str {
    path.strip_suffix(".xz").unwrap_or(path)
}

/// Name of a module file: the stem, with `-` written as `_`.
pub(crate) fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split_once(".ko").map_or(file, |(stem, _)| stem))
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn parse_dep(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(path, needs)| (path, needs.split_ascii_whitespace().collect())).collect()
}

/// `softdep NAME pre: A B post: C`, all of A, B and C for each NAME.
fn parse_softdep(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut softdeps: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("softdep") {
            continue;
        }
        let Some(name) = words.next() else { continue };
        let needs = words.filter(|word| !matches!(*word, "pre:" | "post:")).map(str::to_owned);
        softdeps.entry(normal(name)).or_default().extend(needs);
    }
    softdeps
}

/// Aliases without a pattern in them: crypto algorithms and the like.
fn parse_exact_aliases(text: &str) -> BTreeMap<&str, Vec<String>> {
    let mut aliases: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some("alias"), Some(alias), Some(name)) = (words.next(), words.next(), words.next())
            && !alias.contains(['*', '?', '['])
        {
            aliases.entry(alias).or_default().push(normal(name));
        }
    }
    aliases
}

fn lines_about(
    text: &str,
    subject: impl for<'a> Fn(&[&'a str]) -> Option<&'a str>,
    shipped: &BTreeSet<String>,
) -> String {
    let mut kept = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if subject(&words).is_some_and(|name| shipped.contains(&normal(name))) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: Index<'static> = Index {
        dep: "kernel/fs/btrfs/btrfs.ko.xz: kernel/lib/raid6_pq.ko.xz kernel/lib/libcrc32c.ko.xz\n\
              kernel/lib/raid6_pq.ko.xz:\nkernel/lib/libcrc32c.ko.xz:\n\
              kernel/arch/x86/crypto/crc32c-intel.ko.xz:\nkernel/crypto/crc32c_generic.ko.xz:\n\
              kernel/drivers/net/tun.ko.xz:\nkernel/drivers/net/phy/realtek.ko.xz:\n",
        alias: "# comment\nalias crypto-crc32c crc32c_intel\nalias crypto-crc32c crc32c_generic\n\
                alias fs-btrfs btrfs\nalias char-major-10-200 tun\nalias mdio:* realtek\n",
        softdep: "softdep btrfs pre: crypto-crc32c\nsoftdep btrfs pre: sha256\n\
                  softdep tun post: nothing\n",
        builtin: "kernel/crypto/sha256_generic.ko\nkernel/drivers/virtio/virtio_pci.ko\n",
    };

    fn group(names: &[&str]) -> Vec<ModuleGroup> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        vec![ModuleGroup { group: "test".into(), reason: "test".into(), names, unpacked: false }]
    }

    #[test]
    fn hard_and_soft_dependencies_come_along_and_nothing_else() {
        let selection = select(&group(&["btrfs"]), INDEX).unwrap();
        let names: Vec<_> = selection.files.iter().map(|path| module_name(path)).collect();
        assert_eq!(names, ["crc32c_intel", "crc32c_generic", "btrfs", "libcrc32c", "raid6_pq"]);
        assert!(selection.alias.contains("fs-btrfs") && !selection.alias.contains("tun"));
        assert!(selection.softdep.contains("btrfs") && !selection.softdep.contains("tun"));
        assert!(selection.dep.starts_with("kernel/arch/x86/crypto/crc32c-intel.ko.xz:\n"));
    }

    #[test]
    fn an_unpacked_module_has_another_name_and_what_it_needs_has_not() {
        let mut groups = group(&["btrfs"]);
        groups[0].unpacked = true;
        let selection = select(&groups, INDEX).unwrap();
        let btrfs = "kernel/fs/btrfs/btrfs.ko.xz";
        assert_eq!(selection.unpacked, BTreeSet::from([btrfs.to_owned()]));
        assert!(selection.files.contains(btrfs));
        let line = "kernel/fs/btrfs/btrfs.ko: kernel/lib/raid6_pq.ko.xz kernel/lib/libcrc32c.ko.xz";
        assert!(selection.dep.lines().any(|it| it == line), "{}", selection.dep);
    }

    #[test]
    fn a_builtin_module_needs_no_file_and_a_missing_one_is_named() {
        assert!(select(&group(&["virtio_pci"]), INDEX).unwrap().files.is_empty());
        assert_eq!(select(&group(&["crc32c-intel"]), INDEX).unwrap().files.len(), 1);
        let error = select(&group(&["nosuch"]), INDEX).unwrap_err().to_string();
        assert!(error.contains("nosuch") && error.contains("group test"), "{error}");
    }
}

//! What the kernel build says about its modules: which devices they drive and what they need.
//!
//! Pure but for [`Database::load`]. Names have `_` where files may have `-`, as in the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

/// Soft dependencies may go round in a circle.
const DEPTH_MAX: usize = 16;

/// The text files beside the modules.
#[derive(Debug, Default)]
pub struct Database<'t> {
    /// By what stands before the first colon or star, so that a PCI device is not compared with
    /// every USB pattern.
    aliases: BTreeMap<&'t str, Vec<(&'t str, &'t str)>>,
    modules: BTreeMap<String, Module>,
}

#[derive(Debug, Default)]
struct Module {
    path: String,
    /// In the order in which they are loaded.
    needs: Vec<String>,
    before: Vec<String>,
    after: Vec<String>,
}

/// One module to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// As the kernel calls it.
    pub name: String,
    /// Below the modules' directory.
    pub path: String,
}

/// What becomes of modules that another one would only like to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Soft {
    /// They come along.
    Load,
    /// The kernel asks for them when it uses them.
    Skip,
}

impl Database<'static> {
    /// Reads the files. Without soft dependencies an image is complete.
    pub fn load(directory: &Path) -> io::Result<Self> {
        let read = |name: &str| {
            fs::read_to_string(directory.join(name))
                .map_err(|error| io::Error::new(error.kind(), format!("reading {name}: {error}")))
        };
        // Read once in the life of the process, and used until its end: thousands of copies would
        // cost every boot a part of a second. Few modules have soft dependencies; an image may have
        // none.
        Ok(Self::parse(
            &read("modules.dep")?,
            read("modules.alias")?.leak(),
            &read("modules.softdep").unwrap_or_default(),
        ))
    }
}

impl<'t> Database<'t> {
    /// Understands `modules.dep`, `modules.alias` and `modules.softdep`; passes over odd lines.
    pub fn parse(dep: &str, alias: &'t str, softdep: &str) -> Self {
        let mut database = Self::default();
        for line in dep.lines() {
            let Some((path, needs)) = line.split_once(':') else { continue };
            // The file lists the nearest first; the farthest is loaded first.
            let needs = needs.split_ascii_whitespace().rev().map(name_of).collect();
            let module = Module { path: path.to_owned(), needs, ..Module::default() };
            database.modules.insert(name_of(path), module);
        }
        // Thousands of lines, with those of a family mostly together; every boot waits for this.
        let lines = alias.lines().filter_map(|line| line.strip_prefix("alias ")?.split_once(' '));
        let mut lines =
            lines.map(|(pattern, module)| (family(pattern), pattern, module)).peekable();
        while let Some((of, ..)) = lines.peek().copied() {
            let together = std::iter::from_fn(|| lines.next_if(|line| line.0 == of));
            let together = together.map(|(_, pattern, module)| (pattern, module));
            database.aliases.entry(of).or_default().extend(together);
        }
        for line in softdep.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some("softdep"), Some(module)) = (words.next(), words.next()) else { continue };
            let Some(module) = database.modules.get_mut(&normal(module)) else { continue };
            let mut list = None;
            for word in words {
                match (word, &mut list) {
                    ("pre:", _) => list = Some(false),
                    ("post:", _) => list = Some(true),
                    (name, Some(false)) => module.before.push(name.to_owned()),
                    (name, Some(true)) => module.after.push(name.to_owned()),
                    (_, None) => {}
                }
            }
        }
        database
    }

    /// Modules with this name, or else with an alias that fits it.
    pub fn resolve(&self, name: &str) -> Vec<String> {
        let module = normal(name);
        if self.modules.contains_key(&module) { vec![module] } else { self.by_alias(name) }
    }

    /// Modules that drive a device which says this of itself.
    pub fn by_alias(&self, alias: &str) -> Vec<String> {
        // A pattern may begin with a star, or have one before its first colon.
        let families = BTreeSet::from([family(alias), ""]);
        let patterns =
            families.iter().rev().filter_map(|family| self.aliases.get(*family)).flatten();
        let fitting = patterns.filter(|(pattern, _)| fits(pattern.as_bytes(), alias.as_bytes()));
        let mut modules: Vec<_> = fitting.map(|(_, module)| normal(module)).collect();
        modules.dedup();
        modules
    }

    /// What to load, in this order, so that `modules` and all that they need are there. Leaves out
    /// what is `done`, and what this image does not have.
    pub fn plan(&self, modules: &[String], soft: Soft, done: &BTreeSet<String>) -> Vec<Step> {
        let mut plan = Plan { database: self, soft, seen: done.clone(), steps: Vec::new() };
        for module in modules {
            plan.add(module, DEPTH_MAX);
        }
        plan.steps
    }
}

struct Plan<'a> {
    database: &'a Database<'a>,
    soft: Soft,
    seen: BTreeSet<String>,
    steps: Vec<Step>,
}

impl Plan<'_> {
    fn add(&mut self, name: &str, depth: usize) {
        let Some(module) = self.database.modules.get(name) else { return };
        if depth == 0 || !self.seen.insert(name.to_owned()) {
            return;
        }
        for soft in &module.before {
            self.add_soft(soft, depth);
        }
        for need in &module.needs {
            self.add(need, depth - 1);
        }
        self.steps.push(Step { name: name.to_owned(), path: module.path.clone() });
        for soft in &module.after {
            self.add_soft(soft, depth);
        }
    }

    fn add_soft(&mut self, soft: &str, depth: usize) {
        if self.soft == Soft::Skip {
            return;
        }
        for module in self.database.resolve(soft) {
            self.add(&module, depth - 1);
        }
    }
}

/// `kernel/fs/btrfs/btrfs.ko.xz` is `btrfs`.
fn name_of(path: &str) -> String {
    let file = path.rsplit_once('/').map_or(path, |(_, file)| file);
    normal(file.split_once(".ko").map_or(file, |(name, _)| name))
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// What stands before the first colon, when nothing variable does.
fn family(alias: &str) -> &str {
    match alias.find([':', '*', '?', '[']) {
        Some(end) if alias.as_bytes()[end] == b':' => &alias[..end],
        _ => "",
    }
}

/// Whether `text` has the form of a pattern with `*`, `?` and `[..]`; `-` and `_` are the same.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when it does not fit: the last star takes one byte more.
    let mut retry = None;
    loop {
        let step = match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            None if t == text.len() => return true,
            Some(b'[') => text.get(t).and_then(|byte| class(&pattern[p..], *byte)),
            Some(b'?') if t < text.len() => Some(1),
            Some(byte) => text.get(t).filter(|other| same(*byte, **other)).map(|_| 1),
            None => None,
        };
        match (step, retry) {
            (Some(length), _) => {
                p += length;
                t += 1;
            }
            (None, Some((star, taken))) if taken < text.len() => {
                retry = Some((star, taken + 1));
                (p, t) = (star, taken + 1);
            }
            (None, _) => return false,
        }
    }
}

fn same(a: u8, b: u8) -> bool {
    let plain = |byte| if byte == b'-' { b'_' } else { byte };
    plain(a) == plain(b)
}

/// Length of the class at the start of `pattern`, if `byte` is in it.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let end = pattern.iter().position(|byte| *byte == b']')?;
    let mut members = &pattern[1..end];
    loop {
        members = match members {
            [] => return None,
            [first, b'-', last, rest @ ..] => {
                if (*first..=*last).contains(&byte) {
                    return Some(end + 1);
                }
                rest
            }
            [one, rest @ ..] => {
                if *one == byte {
                    return Some(end + 1);
                }
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of a Debian 6.12 kernel.
    const DEP: &str = "\
kernel/lib/raid6/raid6_pq.ko.xz:
kernel/crypto/xor.ko.xz:
kernel/lib/libcrc32c.ko.xz:
kernel/arch/x86/crypto/crc32c-intel.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
kernel/fs/btrfs/btrfs.ko.xz: kernel/lib/libcrc32c.ko.xz kernel/crypto/xor.ko.xz kernel/lib/raid6/raid6_pq.ko.xz
kernel/drivers/virtio/virtio.ko.xz:
kernel/drivers/virtio/virtio_ring.ko.xz: kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko.xz
kernel/net/netfilter/nf_tables.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko.xz:
kernel/drivers/net/ethernet/realtek/r8169.ko.xz:
kernel/drivers/net/phy/realtek.ko.xz:
";
    const ALIAS: &str = "\
# Aliases extracted from modules themselves.
alias virtio:d00000002v* virtio_blk
alias fs-btrfs btrfs
alias devname:btrfs-control btrfs
alias crypto-crc32c crc32c_generic
alias crypto-crc32c crc32c_intel
alias cpu:type:x86,ven*fam*mod*:feature:*0094* crc32c_intel
alias nfnetlink-subsys-10 nf_tables
alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e
alias pci:v000010ECd00008168sv*sd*bc*sc*i* r8169
alias usb:v0B95p772[0-9A-F]d*dc*dsc*dp*ic*isc*ip*in* asix
";
    const SOFTDEP: &str = "\
# Soft dependencies extracted from modules themselves.
softdep btrfs pre: crypto-crc32c
softdep r8169 pre: realtek
softdep libcrc32c pre: crypto-crc32c
softdep virtio_blk post: virtio_ring btrfs
";

    fn database() -> Database<'static> {
        Database::parse(DEP, ALIAS, SOFTDEP)
    }

    fn plan(names: &[&str]) -> Vec<String> {
        let database = database();
        let modules: Vec<_> = names.iter().flat_map(|name| database.resolve(name)).collect();
        let steps = database.plan(&modules, Soft::Load, &BTreeSet::new());
        steps.into_iter().map(|step| step.name).collect()
    }

    #[test]
    fn devices_find_their_drivers() {
        let database = database();
        let check = |alias: &str, modules: &[&str]| {
            assert_eq!(database.by_alias(alias), modules, "{alias}");
        };
        check("virtio:d00000002v00001AF4", &["virtio_blk"]);
        check("virtio:d00000003v00001AF4", &[]);
        check("pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00", &["e1000e"]);
        check("pci:v00008086d000010D4sv00008086sd0000A01Fbc02sc00i00", &[]);
        check("usb:v0B95p772Ad0001dc00dsc00dp00ic00isc00ip00in00", &["asix"]);
        check("usb:v0B95p772Gd0001dc00dsc00dp00ic00isc00ip00in00", &[]);
        check("cpu:type:x86,ven0000fam0006mod0055:feature:,0001,0094,0098", &["crc32c_intel"]);
        check("fs-btrfs", &["btrfs"]);
        check("nfnetlink-subsys-10", &["nf_tables"]);
    }

    #[test]
    fn what_a_module_needs_is_loaded_before_it() {
        assert_eq!(plan(&["virtio_blk"])[..3], ["virtio", "virtio_ring", "virtio_blk"]);
        assert_eq!(
            plan(&["fs-btrfs"]),
            ["crc32c_generic", "crc32c_intel", "raid6_pq", "xor", "libcrc32c", "btrfs"]
        );
        assert_eq!(plan(&["r8169"]), ["realtek", "r8169"]);
    }

    #[test]
    fn soft_dependencies_may_follow_and_nothing_is_loaded_twice() {
        let steps = plan(&["virtio_blk", "btrfs", "virtio-blk"]);
        assert_eq!(steps.last().unwrap(), "btrfs");
        let unique: BTreeSet<_> = steps.iter().collect();
        assert_eq!(unique.len(), steps.len());
    }

    #[test]
    fn what_is_done_or_missing_is_left_out() {
        let database = database();
        let done = BTreeSet::from(["libcrc32c".to_owned(), "xor".to_owned()]);
        let steps = database.plan(&["btrfs".to_owned(), "no_such".to_owned()], Soft::Load, &done);
        let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["crc32c_generic", "crc32c_intel", "raid6_pq", "btrfs"]);
        assert_eq!(steps[3].path, "kernel/fs/btrfs/btrfs.ko.xz");
        assert!(database.resolve("no-such").is_empty());
    }

    #[test]
    fn what_is_only_liked_can_be_skipped() {
        let steps = database().plan(&["btrfs".to_owned()], Soft::Skip, &BTreeSet::new());
        let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["raid6_pq", "xor", "libcrc32c", "btrfs"]);
    }

    #[test]
    fn circles_end() {
        let dep = "a.ko:\nb.ko:\n";
        let database = Database::parse(dep, "", "softdep a pre: b\nsoftdep b pre: a\n");
        let steps = database.plan(&["a".to_owned()], Soft::Load, &BTreeSet::new());
        assert_eq!(steps.len(), 2);
    }

    #[test]
    fn patterns_fit_as_the_shell_does_it() {
        let check = |pattern: &str, text: &str, expected| {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        };
        for (pattern, text) in [
            ("a*c", "abbc"),
            ("*", ""),
            ("a*b*c", "aXbXbYc"),
            ("a?c", "abc"),
            ("a-b", "a_b"),
            ("[0-9]x", "7x"),
        ] {
            check(pattern, text, true);
        }
        for (pattern, text) in [
            ("a*c", "abb"),
            ("", "a"),
            ("a", ""),
            ("a?c", "ac"),
            ("[0-9]x", "ax"),
            ("[0-9", "7"),
            ("a*b*c", "ac"),
        ] {
            check(pattern, text, false);
        }
    }

    #[test]
    fn odd_lines_are_passed_over() {
        let database =
            Database::parse("nothing\n\n:\n", "alias x\nalias\n", "softdep\nsoftdep x pre:\n");
        assert!(database.resolve("x").is_empty());
    }
}

//! Devices of a configuration: which nodes there are, and which of them may be used, as a program
//! that the kernel asks before a device is opened or made. Pure.
//!
//! What no rule allows is denied, whatever mount or node leads to it. Rules that allow whole kinds of
//! devices are refused: among them are the disks of the machine. Which disks, if any, whoever calls says.

use super::{
    config::{Device, DeviceRule, Linux, Mapping},
    plan::Reach,
};
use crate::check::{Invalid, check_path, refuse};
use rustix::fs::FileType;
use std::ffi::CString;

/// Nodes of one container.
const NODES_MAX: usize = 256;
/// Rules of one container.
const RULES_MAX: usize = 256;
/// What fits into the number of a device, as a node has it: the kernel would make another device.
const MAJOR_MAX: u32 = 0xfff;
const MINOR_MAX: u32 = 0xf_ffff;
/// What may be asked for, as the kernel counts it (`BPF_DEVCG_ACC_…`).
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// The devices that every container has, by name and numbers.
const OWN: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// Names in `/dev` that are taken besides these.
const TAKEN: [&str; 10] =
    ["fd", "stdin", "stdout", "stderr", "ptmx", "core", "pts", "shm", "mqueue", ".zos"];
/// What opens terminals: `ptmx`, and the terminals of every `devpts`.
const TERMINALS: [(u32, Option<u32>); 2] = [(5, Some(2)), (136, None)];

/// A node below `/dev`, decided.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Relative to `/dev`. One that every container has is there already.
    pub(crate) path: CString,
    pub(crate) kind: FileType,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    /// As the machine sees it.
    pub(crate) owner: (u32, u32),
}

/// Nodes, also those that every container has: their mode and owner may be others.
pub(super) fn nodes(linux: &Linux) -> Result<Vec<Node>, Invalid> {
    let all = linux.devices.as_deref().unwrap_or_default();
    if all.len() > NODES_MAX {
        return refuse(format!("linux.devices: at most {NODES_MAX}"));
    }
    let mut nodes: Vec<Node> = Vec::with_capacity(all.len());
    for device in all {
        let node = node(device, linux)?;
        if nodes.iter().any(|other| other.path == node.path) {
            return refuse(format!("linux.devices: {} is there twice", device.path));
        }
        nodes.push(node);
    }
    Ok(nodes)
}

fn node(device: &Device, linux: &Linux) -> Result<Node, Invalid> {
    let wrong = |why: &str| refuse(format!("linux.devices: {}: {why}", device.path));
    check_path("linux.devices", &device.path)?;
    let Some(path) = device.path.strip_prefix("/dev/") else {
        return wrong("devices are below /dev");
    };
    let kind = match device.r#type.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        _ => return wrong("its type is none of c, u, b, p"),
    };
    let number = |number: Option<i64>| u32::try_from(number.unwrap_or(-1)).ok();
    let (major, minor) = match (kind, number(device.major), number(device.minor)) {
        (FileType::Fifo, ..) => (0, 0),
        (_, Some(major), Some(minor)) => (major, minor),
        _ => return wrong("it has no numbers"),
    };
    if major > MAJOR_MAX || minor > MINOR_MAX {
        return wrong("no device has such numbers");
    }
    let is_own = OWN.contains(&(path, major, minor)) && kind == FileType::CharacterDevice;
    let first = path.split('/').next().unwrap_or(path);
    let is_taken = OWN.iter().any(|(name, ..)| *name == first) || TAKEN.contains(&first);
    if is_taken && !is_own {
        return wrong("every container has another one there");
    }
    let owner = (
        host_id(device.uid.unwrap_or(0), linux.uid_mappings.as_deref()),
        host_id(device.gid.unwrap_or(0), linux.gid_mappings.as_deref()),
    );
    let (Some(uid), Some(gid)) = owner else { return wrong("its owner has no id outside") };
    let Ok(path) = CString::new(path) else { return wrong("its path has a NUL") };
    let mode = device.file_mode.unwrap_or(0o666) & 0o777;
    Ok(Node { path, kind, major, minor, mode, owner: (uid, gid) })
}

fn host_id(id: u32, mappings: Option<&[Mapping]>) -> Option<u32> {
    let Some(mappings) = mappings.filter(|all| !all.is_empty()) else { return Some(id) };
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id).filter(|at| *at < mapping.size)?;
        mapping.host_id.checked_add(offset)
    })
}

/// One rule: which devices it is about, and what may be done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// `None` is both kinds, and any number.
    is_block: Option<bool>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

impl Rule {
    fn is_about_everything(self) -> bool {
        let any = self.is_block.is_none() && self.major.is_none() && self.minor.is_none();
        any && self.access == ALL
    }
}

/// The program of these rules: of those that are about a device the last one counts, and the devices
/// that every container has are always allowed.
pub(super) fn program(rules: &[DeviceRule], reach: Reach) -> Result<Vec<[u8; 8]>, Invalid> {
    if rules.len() > RULES_MAX {
        return refuse(format!("linux.resources.devices: at most {RULES_MAX}"));
    }
    let mut all = rules.iter().map(|one| rule(one, reach)).collect::<Result<Vec<_>, _>>()?;
    all.extend(always().map(|(major, minor)| Rule {
        allow: true,
        is_block: Some(false),
        major: Some(major),
        minor,
        access: ALL,
    }));
    Ok(assemble(&all))
}

/// The numbers of what every container may use.
fn always() -> impl Iterator<Item = (u32, Option<u32>)> {
    OWN.iter().map(|(_, major, minor)| (*major, Some(*minor))).chain(TERMINALS)
}

fn rule(rule: &DeviceRule, reach: Reach) -> Result<Rule, Invalid> {
    let wrong = |why: &str| refuse(format!("linux.resources.devices: {why}"));
    let is_block = match rule.r#type.as_deref() {
        None | Some("" | "a") => None,
        Some("b") => Some(true),
        Some("c" | "u") => Some(false),
        Some(_) => return wrong("a type is none of a, b, c"),
    };
    let mut access = 0;
    for c in rule.access.as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm").chars() {
        access |= match c {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => return wrong("access is one of r, w, m, or more"),
        };
    }
    // A negative number is any.
    let number = |number: Option<i64>| match number.filter(|number| *number >= 0) {
        None => Ok(None),
        Some(number) => i32::try_from(number).map(|_| u32::try_from(number).ok()),
    };
    let (Ok(major), Ok(minor)) = (number(rule.major), number(rule.minor)) else {
        return wrong("a number is too large");
    };
    // What denies everything before others allow some of it is not about these.
    let is_about = |(own, any): (u32, Option<u32>)| {
        major == Some(own) && (minor.is_none() || any.is_none() || minor == any)
    };
    if !rule.allow && is_block != Some(true) && always().any(is_about) {
        return wrong(
            "every container may use null, zero, full, random, urandom, tty and terminals",
        );
    }
    // Making a node is not using it.
    if rule.allow && access != MKNOD && (is_block.is_none() || major.is_none()) {
        return wrong("what is allowed has a type and a major number");
    }
    let is_own = TERMINALS.iter().any(|(own, any)| Some(*own) == major && any.is_none());
    let reaches_far = is_block == Some(true) || (minor.is_none() && !is_own);
    if rule.allow && access != MKNOD && reaches_far && reach == Reach::Container {
        return wrong(
            "disks, and all devices of one major number, reach beyond the container, \
             which container --privileged allows",
        );
    }
    Ok(Rule { allow: rule.allow, is_block, major, minor, access })
}

/// Registers: what is answered, the context that the kernel hands over, and what is read from it.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// Operations of eBPF, each with an immediate operand but the first and the third.
const LOAD_WORD: u8 = 0x61;
const SET: u8 = 0xb7;
const COPY: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> [u8; 8] {
    let ([o0, o1], [v0, v1, v2, v3]) = (offset.to_ne_bytes(), value.to_ne_bytes());
    [code, from << 4 | to, o0, o1, v0, v1, v2, v3]
}

/// `struct bpf_cgroup_dev_ctx` has the access above the kind in one word, then the two numbers.
fn assemble(rules: &[Rule]) -> Vec<[u8; 8]> {
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(COPY, ACCESS, KIND, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(one(*rule));
        // The kernel takes no instructions that are never reached.
        if rule.is_about_everything() {
            return program;
        }
    }
    program.extend(answer(false));
    program
}

fn answer(allow: bool) -> [[u8; 8]; 2] {
    [instruction(SET, ANSWER, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)]
}

/// Answers when the rule decides, and goes on behind itself when not.
fn one(rule: Rule) -> Vec<[u8; 8]> {
    // Operation that leads on, register, value; where it leads is known only at the end.
    let mut program = Vec::new();
    if let Some(is_block) = rule.is_block {
        let kind = if is_block { BLOCK } else { CHARACTER };
        program.push((JUMP_UNLESS_EQUAL, KIND, kind));
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        // Every number of a rule fits.
        if let Some(number) = number.and_then(|number| i32::try_from(number).ok()) {
            program.push((JUMP_UNLESS_EQUAL, register, number));
        }
    }
    if rule.access != ALL {
        program.push((COPY, CONTEXT, 0));
        // All that is asked for has to be allowed; any of it can be denied.
        if rule.allow {
            program.push((AND, CONTEXT, i32::from(ALL & !rule.access)));
            program.push((JUMP_UNLESS_EQUAL, CONTEXT, 0));
        } else {
            program.push((AND, CONTEXT, i32::from(rule.access)));
            program.push((JUMP_IF_EQUAL, CONTEXT, 0));
        }
    }
    let end = program.len() + 2;
    let with_offsets = program.iter().zip(1..).map(|((code, to, value), next)| {
        let jumps = [JUMP_IF_EQUAL, JUMP_UNLESS_EQUAL].contains(code);
        let offset = if jumps { end - next } else { 0 };
        let from = if *code == COPY { ACCESS } else { 0 };
        let offset = i16::try_from(offset).expect("a rule has a few instructions");
        instruction(*code, *to, from, offset, *value)
    });
    with_offsets.chain(answer(rule.allow)).collect()
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;

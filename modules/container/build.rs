//! Compiles the system call filter of containers to BPF, so that a start compiles nothing.
//!
//! Two programs, which the kernel runs both, the stricter answer winning:
//!
//! - `allow`: a list of what a program may call; everything else is `EPERM`. It allows no more than
//!   the default profiles of the usual container engines do for a process without capabilities.
//! - `absent`: `ENOSYS` for `clone3`, whose flags a filter cannot read, for files in memory without a
//!   name, whose pages could be executed on no mount's terms, and for calls younger than this list. C
//!   libraries then fall back to older calls, which they do not after `EPERM`.
//!   Calls of another architecture, or of the x32 ABI, kill the process.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, sock_filter,
};
use std::{collections::BTreeMap, env, error::Error, fs, path::Path};

/// The last system call that Linux 6.12 has (`mseal`); see `absent`.
const YOUNGEST: u32 = 462;
/// `AUDIT_ARCH_X86_64` of linux/audit.h.
const ARCH_X86_64: u32 = 0xc000_003e;
/// Bit of the x32 ABI in a system call number.
const X32: u32 = 0x4000_0000;

/// Where a request of ioctl(2) has its type (asm-generic/ioctl.h).
const REQUEST_TYPE_SHIFT: u32 = 8;
/// `BTRFS_IOCTL_MAGIC` of linux/btrfs.h.
const BTRFS_TYPE: u64 = 0x94;
/// `FICLONE`, `FICLONERANGE` and `FIDEDUPERANGE` of linux/fs.h.
const COPIES: [u64; 3] = [0x4004_9409, 0x4020_940d, 0xc018_9436];

/// Every namespace flag of clone(2).
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=seccomp.txt");
    let directory = env::var("OUT_DIR")?;
    let directory = Path::new(&directory);
    fs::write(directory.join("allow.bpf"), bytes(&allow(include_str!("seccomp.txt"))?))?;
    fs::write(directory.join("absent.bpf"), bytes(&absent()))?;
    Ok(())
}

fn allow(list: &str) -> Result<BpfProgram, Box<dyn Error>> {
    let mut rules = BTreeMap::new();
    for line in list.lines() {
        let line = line.split('#').next().unwrap_or_default();
        for word in line.split_ascii_whitespace() {
            let number = word.split_once('=').ok_or("a call is written name=number")?.1;
            if rules.insert(number.parse()?, Vec::new()).is_some() {
                return Err(format!("{word} is there twice").into());
            }
        }
    }
    rules.extend(conditional()?);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    Ok(filter.try_into()?)
}

/// Calls that depend on an argument. The rules of one call are alternatives.
fn conditional() -> Result<Vec<(i64, Vec<SeccompRule>)>, seccompiler::BackendError> {
    let is = |argument, value| {
        let equal = SeccompCondition::new(argument, Dword, SeccompCmpOp::Eq, value)?;
        SeccompRule::new(vec![equal])
    };
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let families = families.map(|family| is(0, u64::from(family.unsigned_abs())));
    let families = families.into_iter().collect::<Result<Vec<_>, _>>()?;
    // Linux, Linux without address randomisation, either with UNAME26; and the question.
    let personalities = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff].map(|value| is(0, value));
    let personalities = personalities.into_iter().collect::<Result<Vec<_>, _>>()?;
    let no_namespace =
        SeccompCondition::new(0, Qword, SeccompCmpOp::MaskedEq(CLONE_NAMESPACES), 0)?;
    Ok(vec![
        (libc::SYS_socket, families.clone()),
        (libc::SYS_socketpair, families),
        (libc::SYS_personality, personalities),
        (libc::SYS_clone, vec![SeccompRule::new(vec![no_namespace])?]),
        (libc::SYS_ioctl, requests()?),
    ])
}

/// Requests of ioctl(2): all but those of a terminal into which characters are pushed, which is the way
/// out of a session, and those of btrfs, which let everybody make a subvolume, and what is written into
/// that counts for no quota of the volume. Copies that share their blocks are requests of btrfs by
/// their number only.
fn requests() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let condition = |operation, value| SeccompCondition::new(1, Dword, operation, value);
    // A filter knows no "another type than this one". One whose type has another bit anywhere is one.
    let differs_in = |bit: u32| {
        let bit = 1 << (REQUEST_TYPE_SHIFT + bit);
        let btrfs = BTRFS_TYPE << REQUEST_TYPE_SHIFT;
        SeccompRule::new(vec![
            condition(SeccompCmpOp::MaskedEq(bit), !btrfs & bit)?,
            condition(SeccompCmpOp::Ne, libc::TIOCSTI)?,
            condition(SeccompCmpOp::Ne, libc::TIOCLINUX)?,
        ])
    };
    let copies = COPIES.map(|one| SeccompRule::new(vec![condition(SeccompCmpOp::Eq, one)?]));
    (0..8).map(differs_in).chain(copies).collect()
}

fn absent() -> BpfProgram {
    let load = |offset| sock_filter { code: 0x20, jt: 0, jf: 0, k: offset };
    let jump = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    let ret = |k| sock_filter { code: 0x06, jt: 0, jf: 0, k };
    let (equal, at_least) = (0x15, 0x35);
    let number = |call: libc::c_long| u32::try_from(call).expect("a small number");
    vec![
        load(4),                                           // seccomp_data.arch
        jump(equal, ARCH_X86_64, 0, 7),                    // else kill
        load(0),                                           // seccomp_data.nr
        jump(at_least, X32, 5, 0),                         // kill
        jump(at_least, YOUNGEST + 1, 5, 0),                // ENOSYS
        jump(equal, number(libc::SYS_clone3), 4, 0),       // ENOSYS
        jump(equal, number(libc::SYS_memfd_create), 3, 0), // ENOSYS
        jump(equal, number(libc::SYS_memfd_secret), 2, 0), // ENOSYS
        ret(0x7fff_0000),                                  // SECCOMP_RET_ALLOW
        ret(0x8000_0000),                                  // SECCOMP_RET_KILL_PROCESS
        ret(0x0005_0000 | libc::ENOSYS.unsigned_abs()),    // SECCOMP_RET_ERRNO
    ]
}

fn bytes(program: &BpfProgram) -> Vec<u8> {
    let bytes = |one: &sock_filter| {
        let [c0, c1] = one.code.to_ne_bytes();
        let [k0, k1, k2, k3] = one.k.to_ne_bytes();
        [c0, c1, one.jt, one.jf, k0, k1, k2, k3]
    };
    program.iter().flat_map(bytes).collect()
}

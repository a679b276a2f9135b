//! A program in the kernel that decides which devices the processes of a cgroup may use: `bpf(2)`.

#![expect(unsafe_code, reason = "nix and rustix have no bpf")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// `BPF_PROG_LOAD` and `BPF_PROG_ATTACH` of linux/bpf.h.
const LOAD: libc::c_int = 5;
const ATTACH: libc::c_int = 8;
/// `BPF_PROG_TYPE_CGROUP_DEVICE` and `BPF_CGROUP_DEVICE`.
const KIND: u32 = 15;
const PLACE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: with those of the groups above, all of which have to agree.
const MULTI: u32 = 2;
/// Far below the kernel's bound.
const INSTRUCTIONS_MAX: usize = 4096;

/// The beginning of `union bpf_attr` for [`LOAD`].
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The beginning of `union bpf_attr` for [`ATTACH`].
#[repr(C)]
struct Attach {
    cgroup: u32,
    program: u32,
    place: u32,
    flags: u32,
}

/// Puts all processes that are or will be in a cgroup, and below it, under a program of instructions
/// (`struct bpf_insn`) that is asked before a device is opened or made. It goes with the cgroup.
///
/// Fails with `EINVAL` or `EACCES` when the kernel's verifier does not like the program, with `EPERM`
/// without the right to load one, and with `EINVAL` on a kernel without such programs.
pub fn guard_devices(cgroup: impl AsFd, instructions: &[[u8; 8]]) -> io::Result<()> {
    if instructions.is_empty() || instructions.len() > INSTRUCTIONS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let load = Load {
        prog_type: KIND,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: instructions.as_ptr().expose_provenance() as u64,
        license: c"".as_ptr().expose_provenance() as u64,
        ..Load::default()
    };
    // SAFETY: the struct is the beginning of the union, its size is passed along and the rest counts
    // as zero; it names `insn_cnt` instructions of eight bytes and a C string, which the kernel copies
    // before it returns. It writes nothing, for no log is asked for.
    let loaded =
        unsafe { libc::syscall(libc::SYS_bpf, LOAD, std::ptr::from_ref(&load), size_of::<Load>()) };
    let number = match libc::c_int::try_from(loaded) {
        Ok(number) if number >= 0 => number,
        _ => return Err(io::Error::last_os_error()),
    };
    // SAFETY: the kernel has just made this descriptor, close-on-exec, and nobody else knows it.
    let program = unsafe { OwnedFd::from_raw_fd(number) };
    let attach = Attach {
        cgroup: cgroup.as_fd().as_raw_fd().unsigned_abs(),
        program: program.as_raw_fd().unsigned_abs(),
        place: PLACE,
        flags: MULTI,
    };
    // SAFETY: the struct is the beginning of the union, and its size is passed along. The kernel only
    // reads it, and keeps the program by itself.
    let attached = unsafe {
        libc::syscall(libc::SYS_bpf, ATTACH, std::ptr::from_ref(&attach), size_of::<Attach>())
    };
    match attached {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structs_have_the_sizes_of_the_kernel_header() {
        assert_eq!((size_of::<Load>(), size_of::<Attach>()), (48, 16));
    }

    #[test]
    fn only_a_cgroup_is_guarded_and_only_by_a_program() {
        let file = std::fs::File::open("/").unwrap();
        let error = guard_devices(&file, &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        // r0 = 0; exit
        let deny = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
        guard_devices(&file, &deny).unwrap_err();
    }
}

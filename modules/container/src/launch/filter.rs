//! The system call filters that the build compiled, see `build.rs`.

use super::failure::{Failure, fail};
use crate::reason::Reason;
use sys::seccomp::Program;

const ALLOW: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/allow.bpf"));
const ABSENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/absent.bpf"));

/// Both filters, in the order in which they are installed: when both refuse a call, the one that was
/// installed last gives the error number, `ENOSYS`.
pub(super) fn load() -> Result<[Program; 2], Failure> {
    match (Program::from_bytes(ALLOW), Program::from_bytes(ABSENT)) {
        (Some(allow), Some(absent)) => Ok([allow, absent]),
        _ => fail(Reason::IsolationFailed, "reading the built-in system call filter"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf_tests::{call, interpret};

    const ALLOWED: u32 = 0x7fff_0000;
    const KILLED: u32 = 0x8000_0000;
    const EPERM: u32 = 0x0005_0001;
    const ENOSYS: u32 = 0x0005_0026;
    const X86_64: u32 = 0xc000_003e;

    /// What the kernel answers: the stricter of the two, the younger one's if they are equally
    /// strict (`seccomp_run_filters`).
    fn answer(arch: u32, number: u32, arguments: &[u64]) -> u32 {
        let data = call(arch, number, arguments);
        let (older, younger) = (interpret(ALLOW, &data), interpret(ABSENT, &data));
        let strictness = |answer: u32| (answer & 0xffff_0000).cast_signed();
        if strictness(older) < strictness(younger) { older } else { younger }
    }

    fn check(number: u32, arguments: &[u64], want: u32) {
        assert_eq!(answer(X86_64, number, arguments), want, "call {number} {arguments:x?}");
    }

    #[test]
    fn what_a_program_needs_is_allowed() {
        // read, mmap, fork, execve, socket(AF_INET), clone of a thread, ioctl(TCGETS), personality
        for (number, arguments) in [
            (0, vec![]),
            (9, vec![]),
            (57, vec![]),
            (59, vec![]),
            (41, vec![2]),
            (56, vec![0x003d_0f00]),
            (16, vec![0, 0x5401]),
            (135, vec![0xffff_ffff]),
            (439, vec![]),
        ] {
            check(number, &arguments, ALLOWED);
        }
    }

    #[test]
    fn the_surface_of_the_kernel_is_closed() {
        for (name, number) in [
            ("ptrace", 101),
            ("syslog", 103),
            ("pivot_root", 155),
            ("chroot", 161),
            ("mount", 165),
            ("umount2", 166),
            ("swapon", 167),
            ("reboot", 169),
            ("init_module", 175),
            ("kexec_load", 246),
            ("add_key", 248),
            ("request_key", 249),
            ("keyctl", 250),
            ("unshare", 272),
            ("perf_event_open", 298),
            ("fanotify_init", 300),
            ("open_by_handle_at", 304),
            ("setns", 308),
            ("process_vm_readv", 310),
            ("process_vm_writev", 311),
            ("finit_module", 313),
            ("kexec_file_load", 320),
            ("bpf", 321),
            ("userfaultfd", 323),
            ("io_uring_setup", 425),
            ("io_uring_enter", 426),
            ("io_uring_register", 427),
            ("open_tree", 428),
            ("move_mount", 429),
            ("fsopen", 430),
            ("fsconfig", 431),
            ("fsmount", 432),
            ("fspick", 433),
            ("pidfd_getfd", 438),
            ("mount_setattr", 442),
            ("quotactl_fd", 443),
        ] {
            assert_eq!(answer(X86_64, number, &[]), EPERM, "{name}");
        }
    }

    #[test]
    fn arguments_decide_where_they_matter() {
        for namespace in
            [0x2_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
        {
            check(56, &[namespace | 0x11], EPERM);
        }
        check(56, &[17], ALLOWED);
        // Packet, vsock, AF_ALG and Bluetooth sockets.
        for family in [17, 40, 38, 31] {
            check(41, &[family, 3], EPERM);
            check(53, &[family, 3], EPERM);
        }
        // TIOCSTI and TIOCLINUX, also with rubbish in the half that the kernel ignores.
        for request in [0x5412, 0x541c, 0xdead_0000_0000_5412] {
            check(16, &[0, request], EPERM);
        }
        // Subvolumes and snapshots of btrfs, in both forms, their removal, and what comes with a later kernel.
        for request in [0x5000_940e, 0x5000_9418, 0x5000_9401, 0x5000_9417, 0x5000_940f, 0x94ff] {
            check(16, &[0, request], EPERM);
            check(16, &[0, request | 0xdead_0000_0000_0000], EPERM);
        }
        // FICLONE, FICLONERANGE, FIDEDUPERANGE; FS_IOC_GETFLAGS, FIONREAD and types that are one bit from it.
        for request in [
            0x4004_9409,
            0x4020_940d,
            0xc018_9436,
            0x8008_6601,
            0x541b,
            0x5000_950e,
            0x5000_960e,
            0x5000_900e,
            0x5000_140e,
        ] {
            check(16, &[0, request], ALLOWED);
        }
        check(135, &[0x0400_0000], EPERM);
    }

    #[test]
    fn young_calls_are_absent_and_foreign_ones_are_deadly() {
        // clone3, memfd_create, memfd_secret, the call after the last known one, and far beyond.
        for number in [435, 319, 447, 463, 1000] {
            assert_eq!(answer(X86_64, number, &[]), ENOSYS, "{number}");
        }
        assert_eq!(answer(X86_64, 462, &[]), ALLOWED);
        // The same numbers in the x32 and i386 ABIs mean other calls.
        assert_eq!(answer(X86_64, 0x4000_0000, &[]), KILLED);
        assert_eq!(answer(0x4000_0003, 0, &[]), KILLED);
    }
}

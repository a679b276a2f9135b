//! Settings of the kernel that take abilities away, for good.
//!
//! Signed modules still load. `user.max_user_namespaces` stays as it is: containers need them.

use std::{fs, io, path::Path};

/// In `/proc/sys`, with dots for slashes. A kernel without one of them is no problem.
const SYSCTLS: &[(&str, &str)] = &[
    ("kernel.kptr_restrict", "2"),
    ("kernel.dmesg_restrict", "1"),
    ("kernel.unprivileged_bpf_disabled", "1"),
    ("net.core.bpf_jit_harden", "2"),
    ("kernel.kexec_load_disabled", "1"),
    ("kernel.yama.ptrace_scope", "1"),
    ("kernel.perf_event_paranoid", "3"),
    ("kernel.sysrq", "0"),
    // So many that containers, each with a limit of its own, cannot use up the node's.
    ("kernel.pid_max", "4194304"),
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
    ("fs.protected_symlinks", "1"),
    ("fs.protected_hardlinks", "1"),
    ("fs.protected_fifos", "2"),
    ("fs.protected_regular", "2"),
    ("fs.suid_dumpable", "0"),
    // Memory files are not executable unless their maker says so; 2 would break workloads.
    ("vm.memfd_noexec", "1"),
    // Errors and warnings only: the console belongs to the status screen.
    ("kernel.printk", "5 4 1 5"),
    // Ctrl-alt-del is an ordered shutdown, not a reset.
    ("kernel.ctrl-alt-del", "0"),
    // The kernel asks for modules that it misses: a file system, a cipher, a kind of link.
    ("kernel.modprobe", "/init"),
];

/// Applies all of it. Returns what failed, as sentences.
pub(crate) fn apply() -> Vec<String> {
    let mut problems = Vec::new();
    for (name, value) in SYSCTLS {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        match fs::write(&path, value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                problems.push(format!("setting {name}: {error}"));
            }
            _ => {}
        }
    }
    if let Err(error) = lock_down(Path::new("/sys/kernel/security/lockdown")) {
        problems.push(format!("locking down the kernel: {error}"));
    }
    problems
}

/// Lockdown never goes back; a kernel that came up stricter stays so.
fn lock_down(path: &Path) -> io::Result<()> {
    let levels = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        levels => levels?,
    };
    if levels.contains("[none]") { fs::write(path, "integrity") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_setting_is_given_twice() {
        let names: BTreeSet<_> = SYSCTLS.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), SYSCTLS.len());
    }

    #[test]
    fn lockdown_is_raised_from_none_and_never_lowered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lockdown");
        for (before, after) in [
            ("[none] integrity confidentiality\n", "integrity"),
            ("none [integrity] confidentiality\n", "none [integrity] confidentiality\n"),
            ("none integrity [confidentiality]\n", "none integrity [confidentiality]\n"),
        ] {
            fs::write(&path, before).unwrap();
            lock_down(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after);
        }
        fs::remove_file(&path).unwrap();
        lock_down(&path).unwrap();
    }
}

//! The Debian packages that the tools need on the developer's machine, with the reason for each.
//!
//! Image, tests, demo and benchmarks call [`ensure`]; what is missing is named, explained and
//! installed with apt-get, as root or through sudo. Nothing that is there is upgraded.

use crate::process;
use crate::progress;
use anyhow::{Context, Result, bail};
use std::process::Command;

/// What the packages are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// `cargo xtask image`.
    Image,
    /// `cargo xtask test`, with virtual machines.
    Test,
    /// `cargo xtask demo`.
    Demo,
    /// `cargo xtask bench` and `cargo xtask oci-suite`.
    Bench,
    /// `cargo xtask bench registry`.
    Registry,
}

struct Needed {
    package: &'static str,
    reason: &'static str,
    tasks: &'static [Task],
}

use Task::{Bench, Demo, Image, Registry, Test};

const NEEDED: &[Needed] = &[
    Needed {
        package: "gcc",
        reason: "links the programs and compiles SQLite and zstd",
        tasks: &[Image, Test, Demo, Bench],
    },
    Needed {
        package: "libc6-dev",
        reason: "the C library that the static programs contain",
        tasks: &[Image, Test, Demo, Bench],
    },
    Needed {
        package: "mtools",
        reason: "fills the boot partition of the disk image without root",
        tasks: &[Image, Test, Demo, Bench],
    },
    Needed {
        package: "gdisk",
        reason: "writes the partition table of the disk image",
        tasks: &[Image, Test, Demo, Bench],
    },
    Needed {
        package: "kmod",
        reason: "depmod indexes the kernel's modules",
        tasks: &[Image, Test, Demo, Bench],
    },
    Needed {
        package: "xz-utils",
        reason: "unpacks the kernel modules that every boot waits for",
        tasks: &[Image, Test, Demo, Bench],
    },
    Needed { package: "cpio", reason: "lists the initramfs in a test", tasks: &[Test] },
    Needed {
        package: "binutils",
        reason: "objcopy takes debug information out of the programs of a quick try",
        tasks: &[Image, Test, Demo, Bench],
    },
    Needed {
        package: "qemu-system-x86",
        reason: "runs nodes as virtual machines",
        tasks: &[Test, Demo, Bench],
    },
    Needed { package: "ovmf", reason: "UEFI firmware for virtual machines", tasks: &[Test, Demo] },
    Needed {
        package: "ipxe-qemu",
        reason: "network boot ROMs for virtual machines",
        tasks: &[Test],
    },
    Needed { package: "nftables", reason: "checks the rulesets that netd plans", tasks: &[Test] },
    Needed {
        package: "libssl3",
        reason: "a library of nginx, which the demo puts into a container",
        tasks: &[Test, Demo],
    },
    Needed { package: "libpcre2-8-0", reason: "a library of nginx", tasks: &[Test, Demo] },
    Needed {
        package: "libcap2",
        reason: "a library of crun, which containers are measured beside",
        tasks: &[Bench],
    },
    Needed {
        package: "libseccomp2",
        reason: "a library of crun and runc, which containers are measured beside",
        tasks: &[Bench],
    },
    Needed { package: "libsystemd0", reason: "a library of crun", tasks: &[Bench] },
    Needed { package: "libyajl2", reason: "a library of crun", tasks: &[Bench] },
    Needed { package: "procps", reason: "kill ends a registry in a test", tasks: &[Test] },
    Needed {
        package: "zstd",
        reason: "compresses archives that tests import, and that flists are measured beside",
        tasks: &[Test, Bench],
    },
    Needed {
        package: "e2fsprogs",
        reason: "makes the foreign disk that no node may write",
        tasks: &[Test],
    },
    Needed {
        package: "btrfs-progs",
        reason: "makes and checks file systems in tests and benchmarks",
        tasks: &[Test, Bench],
    },
    Needed {
        package: "erofs-utils",
        reason: "checks flist images against the reference implementation",
        tasks: &[Test],
    },
    Needed {
        package: "fsverity",
        reason: "checks file digests against the reference implementation",
        tasks: &[Test],
    },
    Needed {
        package: "jq",
        reason: "the quick starts pick ids with it, and a test follows them",
        tasks: &[Test],
    },
    Needed {
        package: "chromium",
        reason: "opens the registry's pages as people see them, at the widths of a phone and a desk",
        tasks: &[Test],
    },
    Needed {
        package: "postgresql",
        reason: "runs private clusters under registries; Debian starts one besides, which is not used",
        tasks: &[Test, Registry],
    },
    Needed { package: "curl", reason: "opens the page of the quick starts", tasks: &[Test] },
];

/// Installs what is missing for a task.
pub fn ensure(task: Task) -> Result<()> {
    let missing: Vec<&Needed> = NEEDED
        .iter()
        .filter(|needed| needed.tasks.contains(&task) && !is_installed(needed.package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    progress::say("These Debian packages are missing and are installed now:");
    for needed in &missing {
        progress::say(&format!("  {:<18} {}", needed.package, needed.reason));
    }
    let names: Vec<&str> = missing.iter().map(|needed| needed.package).collect();
    if names.iter().any(|name| !has_candidate(name)) {
        update_lists()?;
    }
    let step = progress::step("Installing packages");
    if install(&names).is_err() {
        // The lists may name versions that the archive has replaced since.
        update_lists()?;
        install(&names)?;
    }
    step.done("");
    Ok(())
}

/// Renews apt's lists.
pub fn update_lists() -> Result<()> {
    let step = progress::step("Renewing the package lists");
    process::run(as_root("apt-get")?.args(["update", "-q"]))?;
    step.done("");
    Ok(())
}

/// A machine that has just booted may be renewing its own packages.
const LOCK_WAIT: &str = "DPkg::Lock::Timeout=600";

// A machine may hold qemu-utils from backports, which conflicts with bookworm's qemu-system-x86.
// Naming only what is needed lets apt remove it; naming both would fail.
fn install(names: &[&str]) -> Result<()> {
    process::run(
        as_root("apt-get")?
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(["-o", LOCK_WAIT])
            .args(names)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .with_context(|| format!("installing {}", names.join(" ")))
}

fn is_installed(package: &str) -> bool {
    let status = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).output();
    status.is_ok_and(|result| result.stdout.starts_with(b"install ok installed"))
}

fn has_candidate(package: &str) -> bool {
    process::exists_with("apt-cache", &["show", "--no-all-versions", package])
}

fn as_root(program: &str) -> Result<Command> {
    let user = process::output(Command::new("id").arg("-u"))?;
    if user.trim() == "0" {
        return Ok(Command::new(program));
    }
    if !process::exists_with("sudo", &["-V"]) {
        bail!(
            "installing packages needs root or sudo; run `{program}` yourself or start again as root"
        );
    }
    let mut command = Command::new("sudo");
    command.args(["--preserve-env=DEBIAN_FRONTEND", program]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_listed_once_with_a_reason() {
        for (index, needed) in NEEDED.iter().enumerate() {
            assert!(needed.reason.len() > 10, "{}", needed.package);
            assert!(!needed.tasks.is_empty(), "{}", needed.package);
            assert!(NEEDED[..index].iter().all(|other| other.package != needed.package));
        }
    }
}

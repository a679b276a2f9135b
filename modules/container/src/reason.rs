//! Why a start failed: codes that callers and users may rely on.

use std::fmt;

/// Why a container did not start. [`Reason::code`] is the short name of the error on the wire and
/// the code in the result that the stakeholders see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The request contradicts itself or a bound.
    PlanInvalid,
    /// A process of this workload still runs.
    AlreadyRunning,
    /// The metadata image is not there or has no fs-verity.
    ImageMissing,
    /// The kernel measured another digest on the metadata image than the request names.
    ImageDigestMismatch,
    /// The verified root could not be mounted, or a program of it not read that runs beside another.
    RootMountFailed,
    /// No regular, executable file of the flist has the name of the program.
    EntrypointMissing,
    /// The program's object is missing or has another digest than the flist says.
    EntrypointDigestMismatch,
    /// The flist has no directory where something is to be mounted, or its path has a symbolic
    /// link.
    MountTargetMissing,
    /// What is to be mounted could not be opened or attached.
    MountFailed,
    /// The kernel did not take a resource limit, or the process did not fit into it.
    LimitsRefused,
    /// The network namespace could not be entered.
    NetworkMissing,
    /// Namespaces or ids could not be set up.
    NamespaceFailed,
    /// Capabilities, system call filter or another wall could not be put up.
    IsolationFailed,
    /// The working directory does not exist or may not be entered.
    CwdMissing,
    /// init did not take the process over.
    AdoptFailed,
    /// The kernel refused to execute the program.
    ExecFailed,
    /// The process was killed because it did not say in time whether the program was executed.
    ExecUnknown,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 17] = [
        Self::PlanInvalid,
        Self::AlreadyRunning,
        Self::ImageMissing,
        Self::ImageDigestMismatch,
        Self::RootMountFailed,
        Self::EntrypointMissing,
        Self::EntrypointDigestMismatch,
        Self::MountTargetMissing,
        Self::MountFailed,
        Self::LimitsRefused,
        Self::NetworkMissing,
        Self::NamespaceFailed,
        Self::IsolationFailed,
        Self::CwdMissing,
        Self::AdoptFailed,
        Self::ExecFailed,
        Self::ExecUnknown,
    ];

    /// The stable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::PlanInvalid => "plan_invalid",
            Self::AlreadyRunning => "already_running",
            Self::ImageMissing => "image_missing",
            Self::ImageDigestMismatch => "image_digest_mismatch",
            Self::RootMountFailed => "root_mount_failed",
            Self::EntrypointMissing => "entrypoint_missing",
            Self::EntrypointDigestMismatch => "entrypoint_digest_mismatch",
            Self::MountTargetMissing => "mount_target_missing",
            Self::MountFailed => "mount_failed",
            Self::LimitsRefused => "limits_refused",
            Self::NetworkMissing => "network_missing",
            Self::NamespaceFailed => "namespace_failed",
            Self::IsolationFailed => "isolation_failed",
            Self::CwdMissing => "cwd_missing",
            Self::AdoptFailed => "adopt_failed",
            Self::ExecFailed => "exec_failed",
            Self::ExecUnknown => "exec_unknown",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_words() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        let word = |c: u8| c.is_ascii_lowercase() || c == b'_';
        assert!(codes.iter().all(|code| code.bytes().all(word)));
    }
}

//! Installing a system call filter: of the image's build, or of a bundle's configuration.

#![expect(unsafe_code, reason = "nix and rustix have no seccomp filters")]

use std::io;

/// The kernel's own bound (`BPF_MAXINSNS`).
const INSTRUCTIONS_MAX: usize = 4096;
/// `SECCOMP_SET_MODE_FILTER`.
const SET_MODE_FILTER: libc::c_uint = 1;

/// All threads of the process come under the filter, not the calling one alone.
pub const TSYNC: u32 = 1;
/// The kernel logs what the filter does not allow.
pub const LOG: u32 = 2;
/// Speculative store bypass stays as it is.
pub const SPEC_ALLOW: u32 = 4;
/// What [`Program::with_flags`] may be asked for.
const FLAGS: u32 = TSYNC | LOG | SPEC_ALLOW;

/// A classic BPF program over `struct seccomp_data`.
#[derive(Debug)]
pub struct Program {
    instructions: Vec<libc::sock_filter>,
    flags: u32,
}

impl Program {
    /// Understands `struct sock_filter` after `struct sock_filter`, in the byte order of the
    /// machine; `None` when it is no program at all. The kernel checks what the instructions say.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (instructions, []) = bytes.as_chunks::<8>() else { return None };
        if instructions.is_empty() || instructions.len() > INSTRUCTIONS_MAX {
            return None;
        }
        let instructions = instructions
            .iter()
            .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
                code: u16::from_ne_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_ne_bytes([k0, k1, k2, k3]),
            })
            .collect();
        Some(Self { instructions, flags: 0 })
    }

    /// Installs it with these of [`TSYNC`], [`LOG`] and [`SPEC_ALLOW`]; others are dropped.
    #[must_use]
    pub fn with_flags(self, flags: u32) -> Self {
        Self { flags: flags & FLAGS, ..self }
    }

    /// Puts this process and all its descendants under the filter, for ever. Allocates nothing.
    ///
    /// Fails with `EACCES` unless `no_new_privs` is set or the caller has `CAP_SYS_ADMIN`.
    pub fn install(&self) -> io::Result<()> {
        let length = u16::try_from(self.instructions.len()).map_err(io::Error::other)?;
        let program =
            libc::sock_fprog { len: length, filter: self.instructions.as_ptr().cast_mut() };
        // SAFETY: `program` names `len` instructions that live in `self`; the kernel copies them
        // and writes nothing, though the C declaration lacks the const.
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, self.flags, &raw const program)
        };
        match result {
            0 => Ok(()),
            -1 => Err(io::Error::last_os_error()),
            // The id of a thread that has filters of its own.
            _ => Err(io::ErrorKind::ResourceBusy.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_whole_instructions_and_bounded() {
        assert!(Program::from_bytes(&[0; 8]).is_some());
        assert!(Program::from_bytes(&[]).is_none());
        assert!(Program::from_bytes(&[0; 9]).is_none());
        assert!(Program::from_bytes(&vec![0; 8 * (INSTRUCTIONS_MAX + 1)]).is_none());
    }
}

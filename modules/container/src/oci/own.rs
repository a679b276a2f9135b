//! The program's own file, which no container shall reach.
//!
//! Until a child executes the container's program, its `/proc/self/exe` is ours. A script whose
//! interpreter has that name executes it inside the container, and root in there could write to what
//! it executes (CVE-2019-5736). So before there is a child we execute ourselves once more, from a
//! copy in memory that is sealed: all that a container can reach is the copy, and nobody writes to
//! that.
//!
//! A copy rather than a read-only mount of the file: the file is then in no container at all, instead
//! of behind an attribute of a mount; and the seals say for certain whether we are the copy, where
//! one mount looks like another.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use std::{
    env,
    fs::File,
    io::{self, Read as _},
    os::{fd::AsFd as _, unix::ffi::OsStringExt},
};
use sys::clone::{self, Strings};

/// Nobody writes to the copy, changes its length or mode, or takes a seal off.
const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE)
    .union(SealFlags::EXEC);
/// Bytes of the program, many times over.
const PROGRAM_MAX: u64 = 256 << 20;

/// Returns when the program that runs is a sealed copy; in any other, this one starts anew.
pub(super) fn execute_copy() -> io::Result<()> {
    let own = File::open("/proc/self/exe")?;
    // The kernel has no seals on a file that is not in memory.
    if fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SEALS)) {
        return Ok(());
    }
    let copy = sealed(&own)?;
    let variables = env::vars_os().map(|(name, value)| {
        let (mut variable, value) = (name.into_vec(), value.into_vec());
        variable.push(b'=');
        variable.extend(value);
        variable
    });
    let arguments = Strings::new(env::args_os().map(OsStringExt::into_vec))?;
    Err(clone::execveat(copy.as_fd(), c"", &arguments, &Strings::new(variables)?))
}

fn sealed(program: &File) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::EXEC;
    let mut copy = File::from(memfd_create("container", flags)?);
    if io::copy(&mut program.take(PROGRAM_MAX), &mut copy)? != program.metadata()?.len() {
        return Err(io::Error::other("the program changed, or is too long to be one"));
    }
    fcntl_add_seals(&copy, SEALS)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};

    #[test]
    fn a_copy_is_the_program_and_can_only_be_read() {
        let mut program = tempfile::tempfile().unwrap();
        program.write_all(b"program").unwrap();
        program.rewind().unwrap();
        let mut copy = sealed(&program).unwrap();
        assert!(fcntl_get_seals(&copy).unwrap().contains(SEALS));
        let mut bytes = Vec::new();
        copy.rewind().unwrap();
        copy.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"program");
        copy.write_all(b"more").unwrap_err();
        copy.rewind().unwrap();
        copy.write_all(b"other").unwrap_err();
        copy.set_len(0).unwrap_err();
        // The control: the program itself can be written.
        program.write_all(b"more").unwrap();
    }
}

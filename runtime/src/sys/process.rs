//! What `std::process` can't do without unsafe.

use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets descriptors of this process stay open in the program that a command starts.
pub(crate) fn keep_on_exec(command: &mut Command, descriptors: Vec<RawFd>) {
    let keep = move || {
        for descriptor in &descriptors {
            // SAFETY: F_SETFD changes one flag of a number; no memory is involved, and a closed number is EBADF.
            if unsafe { libc::fcntl(*descriptor, libc::F_SETFD, 0) } != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure calls fcntl alone, which is async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(keep) };
}

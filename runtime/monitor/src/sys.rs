//! Every raw system call of the monitor: one function a call, borrowed descriptors in, owned ones out, no decisions.
//!
//! Nothing here allocates unless it says so, so that a fresh child may use it.

pub(crate) mod file;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod tty;

use std::os::fd::{FromRawFd, OwnedFd};

/// A failed system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Error {
    /// The call's name.
    pub(crate) call: &'static str,
    /// The system's error number.
    pub(crate) errno: i32,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.call, std::io::Error::from_raw_os_error(self.errno))
    }
}

/// The result of a system call.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The last error of this thread, as the error of `call`.
fn last(call: &'static str) -> Error {
    Error { call, errno: std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) }
}

/// Turns the -1 of a call into its error.
fn check(call: &'static str, value: impl Into<i64>) -> Result<i64> {
    match value.into() {
        -1 => Err(last(call)),
        value => Ok(value),
    }
}

/// As [`check`], for calls whose value says nothing more.
fn done(call: &'static str, value: impl Into<i64>) -> Result<()> {
    check(call, value).map(drop)
}

/// As [`check`], for calls whose value counts bytes.
fn count(call: &'static str, value: isize) -> Result<usize> {
    usize::try_from(value).map_err(|_| last(call))
}

/// As [`check`], for calls that make a descriptor.
fn descriptor(call: &'static str, value: impl Into<i64>) -> Result<OwnedFd> {
    let raw = i32::try_from(check(call, value)?).map_err(|_| Error { call, errno: libc::EBADF })?;
    // SAFETY: the kernel has just returned this number as a new descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

//! `openat2(2)` that goes on where renames and mounts elsewhere disturb it.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// How often an open is tried. A try takes microseconds, so that all of them are a few milliseconds.
const TRIES: usize = 1000;

/// Opens an existing path below a directory. The kernel answers `EAGAIN` when a rename or mount anywhere on the machine
/// crosses its resolution of `..` in a bounded look-up; containers rename in loops, so that it is tried again, many times.
pub(crate) fn open(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    again(|| rustix::fs::openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve))
}

/// Repeats a bounded look-up while it is disturbed.
pub(crate) fn again<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 1..TRIES {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    call()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbed_look_up_is_repeated_and_not_for_ever() {
        let mut calls = 0;
        let mut answer = |disturbed: usize| {
            again(|| {
                calls += 1;
                if calls <= disturbed { Err(Errno::AGAIN) } else { Ok(calls) }
            })
        };
        assert_eq!(answer(10), Ok(11));
        assert_eq!(again::<()>(|| Err(Errno::AGAIN)), Err(Errno::AGAIN));
        assert_eq!(again::<()>(|| Err(Errno::NOENT)), Err(Errno::NOENT));
    }
}

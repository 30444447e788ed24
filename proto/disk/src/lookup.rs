//! `openat2(2)` that is repeated where renames and mounts elsewhere disturb it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// How often a look-up is tried. One takes microseconds, so that all of them are a few milliseconds.
const TRIES: usize = 1000;

/// Opens a path below a directory, close-on-exec; a file that is created gets `mode`. The kernel answers `EAGAIN` when a
/// rename or mount anywhere on the machine crosses its resolution of `..` in a bounded look-up. Containers rename in
/// loops, so that it is tried again, many times.
///
/// # Errors
/// As openat2(2) (Linux 5.6); `EAGAIN` when each of a thousand tries was disturbed.
pub fn openat2(
    directory: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let directory = directory.as_fd();
    repeated(|| rustix::fs::openat2(directory, path, flags | OFlags::CLOEXEC, mode, resolve))
}

fn repeated<T>(mut look_up: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 1..TRIES {
        match look_up() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    look_up()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbed_look_up_is_repeated_and_not_for_ever() {
        let mut calls = 0;
        let mut answer = |disturbed: usize| {
            repeated(|| {
                calls += 1;
                if calls <= disturbed { Err(Errno::AGAIN) } else { Ok(calls) }
            })
        };
        assert_eq!(answer(10), Ok(11));
        assert_eq!(repeated::<()>(|| Err(Errno::AGAIN)), Err(Errno::AGAIN));
        assert_eq!(repeated::<()>(|| Err(Errno::NOENT)), Err(Errno::NOENT));
    }

    #[test]
    fn a_path_is_opened_below_its_directory_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("below")).unwrap();
        let top = std::fs::File::open(folder.path()).unwrap();
        let open = |path: &str| openat2(&top, path, OFlags::PATH, Mode::empty(), ResolveFlags::BENEATH);
        assert!(open("below").is_ok());
        assert_eq!(open("..").unwrap_err(), Errno::XDEV);
    }
}

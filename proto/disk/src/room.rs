//! Full file systems: which of bytes and inodes is used up.

use std::fmt;
use std::io;
use std::path::Path;

use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};
use rustix::io::Errno;

/// The kernel's answer about a path, with what it does not say: `ENOSPC` also means that there is room for bytes, and
/// none for another inode. The kind of the error stays.
pub fn explained(path: &Path, answer: io::Error) -> io::Error {
    let is_full = Errno::from_io_error(&answer) == Some(Errno::NOSPC);
    if is_full && file_system(path).is_some_and(|found| has_no_inode(&found)) {
        return io::Error::new(answer.kind(), NoInode(answer));
    }
    answer
}

/// Why a mount over this directory turned out read-only: its file system is, or overlayfs could not make its own
/// directories there and went on without them ("mounting read-only" in the kernel's log).
pub fn why_read_only(path: &Path) -> io::Error {
    let errno = match file_system(path) {
        Some(found) if found.f_flag.contains(StatVfsMountFlags::RDONLY) => Errno::ROFS,
        Some(found) if found.f_bavail == 0 || has_no_inode(&found) => Errno::NOSPC,
        _ => Errno::ROFS,
    };
    explained(path, errno.into())
}

/// The file system of a path, or of what is above it where it does not exist.
fn file_system(path: &Path) -> Option<StatVfs> {
    path.ancestors().filter(|above| above.is_absolute()).find_map(|above| statvfs(above).ok())
}

/// Inodes so few that what failed may have needed more, and has given back those that it had got.
const FEW_INODES: u64 = 64;
/// Bytes so many that they are not what failed for want of room.
const MANY_BYTES: u64 = 1 << 20;

/// Whether it is inodes that there is no more room for. File systems without a fixed number of them, such as btrfs, say
/// that they have none at all.
fn has_no_inode(found: &StatVfs) -> bool {
    let bytes = found.f_bavail.saturating_mul(found.f_frsize);
    found.f_files > 0 && (found.f_favail == 0 || found.f_favail < FEW_INODES && bytes >= MANY_BYTES)
}

/// The kernel's answer in words that help.
#[derive(Debug)]
struct NoInode(io::Error);

impl fmt::Display for NoInode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: no inode is left on its file system: remove files, images or containers",
            self.0
        )
    }
}

impl std::error::Error for NoInode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_answer_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        for errno in [Errno::NOSPC, Errno::ROFS, Errno::NOENT] {
            let error = explained(&folder.path().join("absent/below"), errno.into());
            assert_eq!(Errno::from_io_error(&error), Some(errno));
        }
        assert_eq!(Errno::from_io_error(&why_read_only(folder.path())), Some(Errno::ROFS));
        assert!(file_system(Path::new("relative")).is_none());
    }

    #[test]
    fn no_inode_left_is_said_and_the_kind_stays() {
        let error = io::Error::new(io::ErrorKind::StorageFull, NoInode(Errno::NOSPC.into()));
        assert_eq!(error.kind(), io::Error::from(Errno::NOSPC).kind());
        assert!(
            error.to_string().contains("No space left") && error.to_string().contains("no inode is left")
        );
    }
}

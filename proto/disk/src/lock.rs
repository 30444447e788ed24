//! Locks by which one process has a directory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use crate::atomic;

/// The files that this process has locked, by device and inode: its locks don't exclude one another in the kernel.
static TAKEN: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

/// A file that no other process can lock while this lives.
///
/// It is a record lock (`F_SETLK` of fcntl(2)), which is the process's: a child between fork and exec does not have it,
/// and the lock of a process that is killed is free when the process is gone. A lock of flock(2) is the open file's, which
/// such a child has too, and outlives its process for as long as the child takes to exec.
#[derive(Debug)]
pub struct Lock {
    /// Absent only while it is dropped.
    file: Option<File>,
    identity: (u64, u64),
}

impl Lock {
    /// Locks a file, which is made where it is absent; none when it is locked already, by another process or by this one.
    ///
    /// Nothing else in the process may open the file: the kernel takes the lock away when any of its descriptors is
    /// closed.
    ///
    /// # Errors
    /// When the file can't be opened or locked.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        let mut taken = taken();
        if fs::symlink_metadata(path).is_ok_and(|known| taken.contains(&(known.dev(), known.ino()))) {
            return Ok(None);
        }
        let file = atomic::open_lock(path).map_err(|error| error.source)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        let known = file.metadata()?;
        let identity = (known.dev(), known.ino());
        taken.insert(identity);
        Ok(Some(Self { file: Some(file), identity }))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut taken = taken();
        // Closed before another in this process may take it, whose lock the closing would take away.
        drop(self.file.take());
        taken.remove(&self.identity);
    }
}

fn taken() -> MutexGuard<'static, BTreeSet<(u64, u64)>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_locked_once_until_its_lock_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("lock"), folder.path().join("other"));
        let first = Lock::take(&path).unwrap();
        assert!(first.is_some());
        assert!(Lock::take(&path).unwrap().is_none());
        assert!(Lock::take(&other).unwrap().is_some());
        drop(first);
        assert!(Lock::take(&path).unwrap().is_some());
    }

    #[test]
    fn another_process_is_kept_out_and_a_child_has_no_part_in_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = Lock::take(&path).unwrap().unwrap();
        // Of a process of its own, F_GETLK says who is in the way; /proc/locks says the same to anyone.
        let inode = fs::metadata(&path).unwrap().ino();
        let listed = || {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            let ours = |line: &&str| line.contains("POSIX") && line.contains(&format!(":{inode} "));
            locks.lines().find(ours).map(str::to_owned)
        };
        let line = listed().unwrap();
        assert!(line.contains(&format!(" {} ", std::process::id())), "{line}");
        drop(lock);
        assert_eq!(listed(), None);
    }
}

//! Small files that survive a power cut: written under a temporary name, synced, renamed, and the directory synced.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use slipway_disk::walker;

use crate::error::{Error, Result};

const RECORD_MAX: u64 = 16 << 20;
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A name that no other draft has, not one of an earlier process either: what can't be removed keeps its name.
pub(crate) fn temporary_name() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    let process = PROCESS.get_or_init(|| {
        let mut bytes = [0_u8; 8];
        // Without randomness a name that is taken is refused, and the next call tries the next one.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        u64::from_le_bytes(bytes)
    });
    format!(".tmp-{process:016x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Whether a name is one of a write that never finished.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with(".tmp-")
}

/// Replaces a file's content, durably.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let draft = parent.join(temporary_name());
    let written =
        write_draft(&draft, bytes).and_then(|()| fs::rename(&draft, path).map_err(Error::io("write", path)));
    if written.is_err() {
        drop(fs::remove_file(&draft));
    }
    written?;
    sync_directory(parent)
}

fn write_draft(draft: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create_new(draft).map_err(Error::io("create", draft))?;
    file.write_all(bytes).map_err(Error::io("write", draft))?;
    file.sync_all().map_err(Error::io("sync", draft))
}

/// Makes renames and removals in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(Error::io("sync", path))
}

/// Writes a record.
pub(crate) fn write_record<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    let corrupt =
        |error: serde_json::Error| Error::Corrupt { path: path.to_path_buf(), reason: error.to_string() };
    write(path, &serde_json::to_vec(record).map_err(corrupt)?)
}

/// Reads a record; one that is absent is none, one that can't be understood is `Corrupt`.
pub(crate) fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let corrupt = |reason: String| Error::Corrupt { path: path.to_path_buf(), reason };
    let length = match fs::symlink_metadata(path) {
        Ok(stat) => stat.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    if length > RECORD_MAX {
        return Err(corrupt(format!("it has {length} bytes, more than {RECORD_MAX}")));
    }
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| corrupt(error.to_string()))
}

/// Locks a file if nobody else has, and if it still has its name.
pub(crate) fn lock_named(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let locked = rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
    let inode = |metadata: std::io::Result<fs::Metadata>| metadata.map(|stat| stat.ino()).ok();
    locked && inode(file.metadata()).is_some_and(|one| Some(one) == inode(fs::symlink_metadata(path)))
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a directory and all in it; one that is not there is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    Ok(walker::remove(path, &walker::never)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_record_is_corrupt_and_an_absent_one_none() -> Result<()> {
        let folder = tempfile::tempdir().map_err(Error::io("create", "a folder"))?;
        let path = folder.path().join("record");
        assert!(read_record::<u32>(&path)?.is_none());
        write_record(&path, &7_u32)?;
        assert_eq!(read_record::<u32>(&path)?, Some(7));
        write(&path, b"{")?;
        assert!(matches!(read_record::<u32>(&path), Err(Error::Corrupt { .. })));
        Ok(())
    }
}

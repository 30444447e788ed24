//! The store's small files, which survive a power cut.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use oci_spec::image::ImageConfiguration;
use serde::Serialize;
use serde::de::DeserializeOwned;
use slipway_disk::atomic::{self, Durability};
pub(crate) use slipway_disk::atomic::{is_aside, is_temporary, temporary_name};

use crate::error::{Error, Result};
use crate::records::Stored;

/// The longest object that is read as a whole: a manifest, an index or a configuration.
const OBJECT_MAX: u64 = 16 << 20;

/// Replaces a file's content, durably.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(atomic::write_atomic(path, bytes, Durability::PowerCut)?)
}

/// Makes renames and removals in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    Ok(atomic::sync_directory(path)?)
}

/// Reads a manifest, an index or a configuration.
pub(crate) fn read_object(path: &Path) -> Result<Vec<u8>> {
    atomic::read_regular(path, OBJECT_MAX).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => Error::Corrupt { path: path.to_path_buf(), reason: error.to_string() },
        _ => Error::io("read", path)(error),
    })
}

/// Writes a record.
pub(crate) fn write_record<T: Serialize + Stored>(path: &Path, record: &T) -> Result<()> {
    Ok(T::KIND.write(path, &T::name(path), record)?)
}

/// Reads a record; one that is absent is none, one that can't be used is `Corrupt`.
pub(crate) fn read_record<T: DeserializeOwned + Stored>(path: &Path) -> Result<Option<T>> {
    let loaded = T::KIND.read::<T>(path, &T::name(path))?;
    let record = loaded.map(|loaded| loaded.value);
    if let Some(reason) = record.as_ref().and_then(|record| record.refusal(&T::name(path))) {
        return Err(Error::Corrupt { path: path.to_path_buf(), reason });
    }
    Ok(record)
}

/// Locks a file if nobody else has, and if it still has its name.
pub(crate) fn lock_named(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let locked = rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
    let inode = |metadata: std::io::Result<fs::Metadata>| metadata.map(|stat| stat.ino()).ok();
    locked && inode(file.metadata()).is_some_and(|one| Some(one) == inode(fs::symlink_metadata(path)))
}

/// Reads an image's configuration.
pub(crate) fn read_config(path: &Path) -> Result<(ImageConfiguration, u64)> {
    let bytes = read_object(path)?;
    let config = serde_json::from_slice(&bytes)
        .map_err(|error| Error::Corrupt { path: path.to_path_buf(), reason: error.to_string() })?;
    Ok((config, bytes.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{Digest, ImageId};
    use crate::records::{TagRecord, VERSION};
    use slipway_reference::Reference;

    fn tag(folder: &Path, name: &str) -> (std::path::PathBuf, TagRecord) {
        let name: Reference = name.parse().unwrap();
        let path = folder.join(Digest::of(name.to_string().as_bytes()).hex());
        (path, TagRecord { version: VERSION, name, image: ImageId(Digest::of(b"image")) })
    }

    #[test]
    fn a_damaged_record_is_corrupt_and_an_absent_one_none() {
        let folder = tempfile::tempdir().unwrap();
        let (path, record) = tag(folder.path(), "web:1");
        assert!(read_record::<TagRecord>(&path).unwrap().is_none());
        write_record(&path, &record).unwrap();
        assert_eq!(read_record::<TagRecord>(&path).unwrap().unwrap().name, record.name);
        write(&path, b"{").unwrap();
        assert!(matches!(read_record::<TagRecord>(&path), Err(Error::Corrupt { .. })));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(read_record::<TagRecord>(&path), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn a_record_under_another_name_is_noticed_in_every_form() {
        let folder = tempfile::tempdir().unwrap();
        let ((one, record), (two, _)) = (tag(folder.path(), "web:1"), tag(folder.path(), "web:2"));
        write_record(&one, &record).unwrap();
        fs::copy(&one, &two).unwrap();
        assert!(matches!(read_record::<TagRecord>(&two), Err(Error::Corrupt { .. })));
        write(&one, &serde_json::to_vec(&record).unwrap()).unwrap();
        fs::copy(&one, &two).unwrap();
        assert!(read_record::<TagRecord>(&one).unwrap().is_some(), "its form before records had checksums");
        assert!(matches!(read_record::<TagRecord>(&two), Err(Error::Corrupt { .. })));
    }
}

//! Records on disk: JSON behind one line that says whether it is whole and of which boot.
//!
//! ```text
//! slipway-record 1 <boot id> <length> <checksum>\n
//! { … }
//! ```
//! A record is renamed into place, not synced: it survives the daemon, and a torn one after a power cut is of another
//! boot, when nothing of what it describes runs any more.

use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use slipway_disk::walker;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::OnceLock;

const MAGIC: &str = "slipway-record 1";

/// A record as it was found.
#[derive(Debug)]
pub(crate) struct Loaded<T> {
    pub(crate) value: T,
    /// Whether it was written since the machine has started.
    pub(crate) this_boot: bool,
}

/// This boot's name.
pub(crate) fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let id = id.trim();
        if id.is_empty() { "unknown".into() } else { id.into() }
    })
}

/// Writes a record whole or not at all.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let body = serde_json::to_vec(value)
        .map_err(|error| Error::Record { path: path.into(), why: format!("can't be written: {error}") })?;
    let mut bytes = format!("{MAGIC} {} {} {:016x}\n", boot_id(), body.len(), checksum(&body)).into_bytes();
    bytes.extend_from_slice(&body);
    replace(path, &bytes)
}

/// Puts contents in a file's place at once.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("new");
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action, source: slipway_disk::explained(&path, source), path }
    };
    fs::write(&fresh, bytes)
        .map_err(failed("write", &fresh))
        .and_then(|()| fs::rename(&fresh, path).map_err(failed("rename into", path)))
        // Half a file on a full disk is of no use.
        .inspect_err(|_| drop(fs::remove_file(&fresh)))
}

/// Reads a record; none when it is absent, or was torn by a power cut: what it describes does not run any more.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<Loaded<T>>> {
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { action: "read", path: path.into(), source }),
    };
    match decode(&bytes) {
        Ok((value, boot)) => Ok(Some(Loaded { value, this_boot: boot == boot_id() })),
        Err(_) if is_torn(&bytes) => {
            tracing::warn!(path = %path.display(), "a record was torn by a power cut; what it told of is removed");
            Ok(None)
        }
        Err(why) => Err(Error::Record { path: path.into(), why }),
    }
}

/// The longest record: a request of the longest message that the daemon takes, and as much again.
const LONGEST: u64 = 32 << 20;

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a power cut has left a file without its bytes, or with some of another boot's: a rename is whole else.
fn is_torn(bytes: &[u8]) -> bool {
    let head = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let boot = std::str::from_utf8(head).ok().and_then(|head| head.strip_prefix(MAGIC)?.split(' ').nth(1));
    let other = boot.is_some_and(|boot| boot != boot_id());
    bytes.iter().all(|byte| *byte == 0) || other && matches!(split(bytes), Err(why) if why == TORN)
}

const TORN: &str = "it is torn";

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> std::result::Result<(T, String), String> {
    let (body, boot) = split(bytes)?;
    let value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok((value, boot.into()))
}

/// The body of a whole record and its boot.
fn split(bytes: &[u8]) -> std::result::Result<(&[u8], &str), &'static str> {
    let split = bytes.iter().position(|byte| *byte == b'\n').ok_or("it has no first line")?;
    let (head, body) = bytes.split_at(split);
    let body = body.get(1..).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| "its first line is not text")?;
    let head = head.strip_prefix(MAGIC).ok_or("it is of an unknown version")?;
    let mut words = head.split_whitespace();
    let boot = words.next().ok_or("it names no boot")?;
    let length: usize = words.next().and_then(|word| word.parse().ok()).ok_or("it names no length")?;
    let sum = words.next().and_then(|word| u64::from_str_radix(word, 16).ok()).ok_or("it has no checksum")?;
    if length != body.len() || sum != checksum(body) {
        return Err(TORN);
    }
    Ok((body, boot))
}

/// FNV-1a: it tells a torn record from a whole one, nothing more.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Makes a directory for root alone, with its parents.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| Error::Io {
        action: "create directory",
        path: path.into(),
        source: slipway_disk::explained(path, source),
    })
}

/// Removes a directory and what is in it; an absent one is fine.
pub(crate) fn remove_directory(path: &Path) -> Result<()> {
    Ok(walker::remove(path, &walker::never)?)
}

/// The names in a directory; none in an absent one.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Io { action: "read directory", path: path.into(), source }),
    };
    entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()
        .map_err(|source| Error::Io { action: "read directory", path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        assert!(read::<String>(&path).unwrap().is_none());
        write(&path, &String::from("pod\n1")).unwrap();
        let loaded = read::<String>(&path).unwrap().unwrap();
        assert_eq!((loaded.value.as_str(), loaded.this_boot), ("pod\n1", true));
    }

    #[test]
    fn a_torn_record_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        write(&path, &vec![1, 2, 3]).unwrap();
        let bytes = fs::read(&path).unwrap();
        for length in 1..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            assert!(read::<Vec<u8>>(&path).is_err(), "{length}");
        }
    }

    #[test]
    fn a_record_that_a_power_cut_has_torn_is_as_good_as_absent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        write(&path, &vec![1, 2, 3]).unwrap();
        let other = fs::read_to_string(&path).unwrap().replace(boot_id(), "another-boot");
        for text in ["", "\0\0\0", &other[..other.len() - 1]] {
            fs::write(&path, text).unwrap();
            assert!(read::<Vec<u8>>(&path).unwrap().is_none(), "{text:?}");
        }
        fs::write(&path, other.replace("record 1", "record 2")).unwrap();
        assert!(read::<Vec<u8>>(&path).is_err(), "of an unknown version");
    }
}

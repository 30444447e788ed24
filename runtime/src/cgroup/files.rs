//! Reading and writing the kernel's control files, with errors that name file and value.

use crate::{Error, Result};
use rustix::fs::{Mode, OFlags};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// Control files are small; a tree of processes is the longest.
const LONGEST: u64 = 16 << 20;

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

/// Whether an error says that the file or cgroup does not exist, or has been removed meanwhile.
pub(super) fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

pub(super) fn read_raw(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// The contents of a file in an open directory.
pub(super) fn read_at(directory: BorrowedFd<'_>, name: &str) -> std::io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let mut text = String::new();
    std::fs::File::from(file).take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

pub(super) fn read(path: &Path) -> Result<String> {
    read_raw(path).map_err(failed("read", path))
}

/// The contents, or nothing when the file or its cgroup is not there.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>> {
    match read_raw(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

pub(super) fn write_raw(path: &Path, value: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

pub(super) fn write(path: &Path, value: &str) -> Result<()> {
    write_raw(path, value).map_err(|source| rejected(path, value, source))
}

pub(super) fn rejected(path: &Path, value: &str, source: std::io::Error) -> Error {
    Error::Kernel { call: format!("write {value:?} to {}", path.display()), source }
}

/// Make a directory unless it is there.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(failed("create cgroup", path)(error))
        }
        _ => Ok(()),
    }
}

pub(super) fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed("open cgroup", path)(error.into()))
}

/// The number after a name in a file of `name number` lines.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

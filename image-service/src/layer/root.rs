//! A directory as the root of names that a tar made up: nothing resolves to outside of it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// An open directory that bounds name resolution.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
        let path = std::fs::read_link(proc_path(fd.as_fd())).map_err(Error::io("resolve", path))?;
        Ok(Self { fd, path })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens a directory by a path that has no symbolic link in it.
    pub(crate) fn directory(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.resolve(path, ResolveFlags::NO_SYMLINKS)
    }

    /// Opens a directory through links, all of which stay inside; also says its path without links.
    pub(crate) fn directory_through_links(&self, path: &[u8]) -> Result<(OwnedFd, Vec<u8>), Errno> {
        let fd = self.resolve(path, ResolveFlags::empty())?;
        let real = std::fs::read_link(proc_path(fd.as_fd())).map_err(|_| Errno::IO)?;
        let real = real.strip_prefix(&self.path).map_err(|_| Errno::XDEV)?;
        Ok((fd, real.as_os_str().as_bytes().to_vec()))
    }

    fn resolve(&self, path: &[u8], more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        slipway_disk::openat2(&self.fd, OsStr::from_bytes(path), flags, Mode::empty(), resolve)
    }

    /// Opens a regular file for reading by a path without links.
    pub(crate) fn open_file(&self, path: &[u8]) -> Result<File> {
        let name = || self.path.join(OsStr::from_bytes(path));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let fd = slipway_disk::openat2(&self.fd, OsStr::from_bytes(path), flags, Mode::empty(), resolve)
            .map_err(Error::io("open", name()))?;
        Ok(File::from(fd))
    }
}

/// The path of a descriptor in proc.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// The path of a name in an open directory, for calls that take no descriptor.
pub(crate) fn proc_child(fd: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    proc_path(fd).join(OsStr::from_bytes(name))
}

/// The status of a name, not following it.
pub(crate) fn stat(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Stat> {
    rustix::fs::statat(parent, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
}

/// Whether this is overlayfs' mark for a removed name.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice
        && stat.st_rdev == 0
}

/// The extended attributes of a path, not following it, sorted.
pub(crate) fn xattrs(path: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    xattrs_shown(path, path)
}

/// The extended attributes of a path, not following it, sorted; errors call it `shown`.
pub(crate) fn xattrs_shown(path: &Path, shown: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0_u8; 64 << 10];
    let count = match rustix::fs::llistxattr(path, &mut names) {
        Ok(count) => count,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(Error::io("list the attributes of", shown)(error)),
    };
    names.truncate(count);
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 64 << 10];
        let count = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value)
            .map_err(Error::io("read an attribute of", shown))?;
        value.truncate(count);
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}

/// Where a symbolic link points.
pub(crate) fn read_link(path: &Path) -> Result<Vec<u8>> {
    Ok(std::fs::read_link(path).map_err(Error::io("read the link", path))?.into_os_string().into_vec())
}

/// The name of the attribute that makes a directory opaque: the user's form where the trusted one is out of reach.
pub(crate) fn opaque_name() -> &'static str {
    if rustix::process::geteuid().is_root() { "trusted.overlay.opaque" } else { "user.overlay.opaque" }
}

/// Has overlayfs hide a directory's whiteouts in listings of it, also where no other layer has the directory: it lists
/// such a directory as it is, whiteouts included, unless the directory says that it was copied up (ovl_get_inode and
/// ovl_dir_is_real, Linux 4.15). An empty value means that its origin is not known.
pub(crate) fn mark_whiteouts(directory: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let name =
        if rustix::process::geteuid().is_root() { "trusted.overlay.origin" } else { "user.overlay.origin" };
    match rustix::fs::fsetxattr(directory, name, b"", rustix::fs::XattrFlags::empty()) {
        // A file system without attributes can't be overlayfs' upper or hold an opaque directory either.
        Err(Errno::OPNOTSUPP) => Ok(()),
        set => set,
    }
}

/// Whether overlayfs owns this attribute.
pub(crate) fn is_overlay(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

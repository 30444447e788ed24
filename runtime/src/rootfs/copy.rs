//! Copies a directory's content with its owners, modes, times, extended attributes, devices and hard links.
//!
//! The source may be hostile: every path is opened below its directory and through no link.

use super::inside::again;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, futimens, linkat, mkdirat, mknodat, openat2,
    readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The longest value of an extended attribute.
const LONGEST_VALUE: usize = 64 * 1024;

/// Copies what is in `from`, and its own attributes, to `to`, which is empty.
pub(crate) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut copy = Copy { from, to, known: HashMap::new() };
    let mut directories = vec![PathBuf::from(".")];
    let mut next = 0;
    while let Some(directory) = directories.get(next).cloned() {
        next += 1;
        let opened = open(from, &directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let path = directory.join(OsStr::from_bytes(name));
            if copy.entry(&path)? {
                directories.push(path);
            }
        }
    }
    // Their times are set last, for what is made in a directory changes them.
    for directory in directories.iter().rev() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let (source, target) = (open(from, directory, flags)?, open(to, directory, flags)?);
        attributes(source.as_fd(), target.as_fd())?;
    }
    Ok(())
}

struct Copy<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    /// Files with several names, by the first that was copied.
    known: HashMap<(u64, u64), PathBuf>,
}

impl Copy<'_> {
    /// Copies one entry; whether it is a directory.
    fn entry(&mut self, path: &Path) -> io::Result<bool> {
        let stat = statat(self.from, path, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            mkdirat(self.to, path, Mode::RWXU)?;
            return Ok(true);
        }
        let inode = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.known.get(&inode) {
            linkat(self.to, first, self.to, path, AtFlags::empty())?;
            return Ok(false);
        }
        match kind {
            FileType::RegularFile => self.file(path)?,
            FileType::Symlink => symlinkat(readlinkat(self.from, path, Vec::new())?, self.to, path)?,
            other => {
                mknodat(self.to, path, other, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
            }
        }
        if kind != FileType::RegularFile {
            let (owner, group) = owners(&stat);
            chownat(self.to, path, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
            utimensat(self.to, path, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if stat.st_nlink > 1 {
            self.known.insert(inode, path.to_owned());
        }
        Ok(false)
    }

    fn file(&self, path: &Path) -> io::Result<()> {
        let mut source = File::from(open(self.from, path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let mut target = File::from(open(self.to, path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?);
        io::copy(&mut source, &mut target)?;
        attributes(source.as_fd(), target.as_fd())
    }
}

fn open(base: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let mode = if flags.contains(OFlags::CREATE) { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(again(|| openat2(base, path, flags | OFlags::CLOEXEC, mode, resolve))?)
}

/// Gives a file or directory another's owner, mode, extended attributes and times.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let (owner, group) = owners(&stat);
    // A change of owner takes the set-id bits and capabilities away, so these come after.
    fchown(to, Some(owner), Some(group))?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = vec![0; LONGEST_VALUE];
    let length = match flistxattr(from, &mut names[..]) {
        Err(Errno::NOTSUP) => 0,
        length => length?,
    };
    let mut value = vec![0; LONGEST_VALUE];
    for name in names.get(..length).unwrap_or_default().split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let length = fgetxattr(from, name, &mut value[..])?;
        fsetxattr(to, name, value.get(..length).unwrap_or_default(), XattrFlags::empty())?;
    }
    Ok(futimens(to, &times(&stat))?)
}

fn owners(stat: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn names_links_modes_and_times_are_kept() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| from.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("a/b/file"), "cargo").unwrap();
        std::fs::set_permissions(at("a/b/file"), PermissionsExt::from_mode(0o640)).unwrap();
        std::fs::hard_link(at("a/b/file"), at("again")).unwrap();
        symlink("/etc/passwd", at("a/link")).unwrap();
        let source = File::open(from.path()).unwrap();
        tree(source.as_fd(), File::open(to.path()).unwrap().as_fd()).unwrap();
        let copied = |name: &str| std::fs::symlink_metadata(to.path().join(name)).unwrap();
        assert_eq!(std::fs::read(to.path().join("again")).unwrap(), b"cargo");
        assert_eq!(copied("again").ino(), copied("a/b/file").ino());
        assert_eq!(copied("again").mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_link(to.path().join("a/link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(copied("a").mtime_nsec(), std::fs::metadata(at("a")).unwrap().mtime_nsec());
    }
}

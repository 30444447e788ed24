//! Copies a directory's content with its owners, modes, times, extended attributes, devices and hard links.
//!
//! The source may be hostile: it is walked by descriptors ([`slipway_disk::walker`]), so that nothing depends on its depth
//! or size, and no link is followed. A file with several names is linked from a staging directory, where it is named by
//! its inode, so that no table of such files is needed.

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat,
    openat, readlinkat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use slipway_disk::walker::{Options, Step, Walker};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The longest value of an extended attribute.
const LONGEST_VALUE: usize = 64 * 1024;
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Copies the entries of `from`, and its own attributes, to `to`, which is empty. `staging` is a directory on the file system
/// of `to` that does not exist; it is gone afterwards.
pub(crate) fn tree(from: OwnedFd, to: &OwnedFd, staging: &Path) -> crate::Result<()> {
    let top = Path::new("/");
    let source = from.try_clone().map_err(failed("open", top))?;
    let mut walker = Walker::of(from, top, Options::default())?;
    let copied = Copy { here: to.try_clone().map_err(failed("open", top))?, staging, staged: None };
    let outcome = copied.all(&mut walker);
    let removed = slipway_disk::remove_tree(staging);
    outcome?;
    removed?;
    attributes(source.as_fd(), to.as_fd()).map_err(failed("copy the attributes of", top))
}

fn failed(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> crate::Error {
    let path = path.into();
    move |source| crate::Error::Io { action, path, source }
}

struct Copy<'a> {
    /// The copy of the directory that the walk is in.
    here: OwnedFd,
    staging: &'a Path,
    staged: Option<OwnedFd>,
}

impl Copy<'_> {
    fn all(mut self, walker: &mut Walker<'_>) -> crate::Result<()> {
        while let Some(step) = walker.next()? {
            match step {
                Step::Found => {
                    let stat = walker.stat()?;
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                        self.enter(walker.name()).map_err(failed("copy", walker.shown()))?;
                        walker.enter()?;
                    } else {
                        let copied = self.entry(walker.directory()?, walker.name(), &stat);
                        copied.map_err(failed("copy", walker.shown()))?;
                    }
                }
                Step::Left => {
                    // Its times come last, for what is made in a directory changes them.
                    let copied = attributes(walker.directory()?, self.here.as_fd());
                    copied.and_then(|()| self.leave()).map_err(failed("copy", walker.shown()))?;
                }
            }
        }
        Ok(())
    }

    fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        mkdirat(&self.here, name, Mode::RWXU)?;
        self.here = openat(&self.here, name, DIRECTORY, Mode::empty())?;
        Ok(())
    }

    /// Nobody else knows the copy yet, so that `..` is where it was.
    fn leave(&mut self) -> io::Result<()> {
        self.here = openat(&self.here, "..", DIRECTORY, Mode::empty())?;
        Ok(())
    }

    /// Copies what is no directory.
    fn entry(&mut self, from: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> io::Result<()> {
        let staged = (stat.st_nlink > 1).then(|| format!("{:x}-{:x}", stat.st_dev, stat.st_ino));
        if let Some(staged) = &staged
            && self.link(staged, name)?
        {
            return Ok(());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(from, name)?,
            FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, &self.here, name)?,
            other => {
                mknodat(&self.here, name, other, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
            }
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            let (owner, group) = owners(stat);
            chownat(&self.here, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
            utimensat(&self.here, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        match staged {
            Some(staged) => self.stage(name, &staged),
            None => Ok(()),
        }
    }

    /// Links a file that was copied under another name; false when it was not.
    fn link(&self, staged: &str, name: &OsStr) -> io::Result<bool> {
        let Some(staging) = &self.staged else { return Ok(false) };
        match linkat(staging, staged, &self.here, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            // It has as many names as the file system allows, the staged one among them: the rest get another copy.
            Err(Errno::MLINK) => {
                unlinkat(staging, staged, AtFlags::empty())?;
                Ok(false)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn stage(&mut self, name: &OsStr, staged: &str) -> io::Result<()> {
        if self.staged.is_none() {
            mkdirat(CWD, self.staging, Mode::RWXU)?;
            self.staged = Some(openat(CWD, self.staging, DIRECTORY, Mode::empty())?);
        }
        let staging = self.staged.as_ref().ok_or(Errno::NOENT)?;
        Ok(linkat(&self.here, name, staging, staged, AtFlags::empty())?)
    }

    fn file(&self, from: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        let mut source = File::from(open_file(from, name)?);
        // It may have become something else since it was looked at.
        if FileType::from_raw_mode(fstat(&source)?.st_mode) != FileType::RegularFile {
            return Err(Errno::STALE.into());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut target = File::from(openat(&self.here, name, flags, Mode::RUSR | Mode::WUSR)?);
        io::copy(&mut source, &mut target)?;
        attributes(source.as_fd(), target.as_fd())
    }
}

fn open_file(from: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(slipway_disk::openat2(from, name, flags, Mode::empty(), resolve)?)
}

/// Gives a file or directory another's owner, mode, extended attributes and times.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = fstat(from)?;
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
        let source = OwnedFd::from(source);
        let target = OwnedFd::from(File::open(to.path()).unwrap());
        tree(source, &target, &to.path().with_extension("links")).unwrap();
        assert!(!to.path().with_extension("links").exists());
        let copied = |name: &str| std::fs::symlink_metadata(to.path().join(name)).unwrap();
        assert_eq!(std::fs::read(to.path().join("again")).unwrap(), b"cargo");
        assert_eq!(copied("again").ino(), copied("a/b/file").ino());
        assert_eq!(copied("again").mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_link(to.path().join("a/link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(copied("a").mtime_nsec(), std::fs::metadata(at("a")).unwrap().mtime_nsec());
    }
}

//! Owner, attributes, mode and times of what an entry made, in that order.

use super::super::root::{is_overlay, proc_child};
use super::{
    AsFd as _, AtFlags, BorrowedFd, Entry, Errno, Error, Failure, Gid, Kind, Mode, OsStr, OsStrExt as _,
    Path, PathBuf, Place, Timespec, Timestamps, Uid,
};

/// A regular file's, through its descriptor.
pub(super) fn file(fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), Failure> {
    directory(fd, entry)?;
    times(fd, entry.mtime)
}

/// A directory's, through its descriptor, but for its times.
pub(super) fn directory(fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), Failure> {
    let failed = |what| move |errno: Errno| refused(entry, what, errno, &path_of(entry));
    rustix::fs::fchown(fd, uid(entry), gid(entry)).map_err(failed("get its owner"))?;
    attributes(entry, |name, value| rustix::fs::fsetxattr(fd, name, value, rustix::fs::XattrFlags::empty()))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(failed("get its mode"))
}

/// A link's, device's or pipe's: no descriptor opens them, so it goes by name in the open parent.
pub(super) fn leaf(place: &Place<'_>, entry: &Entry) -> Result<(), Failure> {
    let failed = |what| move |errno: Errno| refused(entry, what, errno, &path_of(entry));
    let (name, nofollow) = (OsStr::from_bytes(place.name), AtFlags::SYMLINK_NOFOLLOW);
    rustix::fs::chownat(place.parent, name, uid(entry), gid(entry), nofollow)
        .map_err(failed("get its owner"))?;
    let path = proc_child(place.parent.as_fd(), place.name);
    attributes(entry, |name, value| {
        // No file system has user attributes on what is neither file nor directory, xattr(7): other runtimes drop them too.
        if name.as_bytes().starts_with(b"user.") {
            return Ok(());
        }
        rustix::fs::lsetxattr(&path, name, value, rustix::fs::XattrFlags::empty())
    })?;
    if entry.kind != Kind::Symlink {
        // Just made here, in a directory that nobody else writes to: the name is what was made.
        rustix::fs::chmodat(place.parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
            .map_err(failed("get its mode"))?;
    }
    rustix::fs::utimensat(place.parent, name, &timestamps(entry.mtime), nofollow)
        .map_err(failed("get its time"))
}

/// Sets the attributes that are the image's own. A file system without an attribute's namespace holds the file all the
/// same; the exact tar keeps the attribute.
fn attributes(entry: &Entry, set: impl Fn(&OsStr, &[u8]) -> rustix::io::Result<()>) -> Result<(), Failure> {
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| !is_overlay(name)) {
        match set(OsStr::from_bytes(name), value) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => {
                let what = format!("get its attribute {:?}", String::from_utf8_lossy(name));
                return Err(refused(entry, &what, errno, &path_of(entry)));
            }
        }
    }
    Ok(())
}

/// The times, through a descriptor.
pub(super) fn times(fd: BorrowedFd<'_>, mtime: (i64, u32)) -> Result<(), Failure> {
    let set = rustix::fs::futimens(fd, &timestamps(mtime));
    Ok(set.map_err(Error::io("set the time of", Path::new("a directory or file of a layer")))?)
}

fn timestamps((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

fn uid(entry: &Entry) -> Option<Uid> {
    Some(Uid::from_raw(entry.uid))
}

fn gid(entry: &Entry) -> Option<Gid> {
    Some(Gid::from_raw(entry.gid))
}

fn path_of(entry: &Entry) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&entry.path))
}

/// The meaning of the kernel's refusal: the entry is impossible, or the machine is in trouble.
pub(super) fn refused(entry: &Entry, what: &str, errno: Errno, path: &Path) -> Failure {
    match errno {
        Errno::PERM
        | Errno::INVAL
        | Errno::TOOBIG
        | Errno::RANGE
        | Errno::NAMETOOLONG
        | Errno::NOENT
        | Errno::MLINK
        | Errno::FBIG
        | Errno::OVERFLOW => {
            let cause = std::io::Error::from(errno);
            Failure::entry(&entry.path, &format!("it can't {what}: {cause}"))
        }
        errno => Error::io("unpack", path)(errno).into(),
    }
}

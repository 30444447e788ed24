//! Owner, attributes, mode and times of what an entry made, in that order.

use super::super::root::{is_overlay, proc_child};
use super::{
    AsFd as _, AtFlags, BorrowedFd, Entry, Errno, Error, Failure, Gid, Kind, Mode, OsStr, OsStrExt as _,
    Path, Place, Timespec, Timestamps, Uid,
};

/// A regular file's, through its descriptor.
pub(super) fn file(fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), Failure> {
    directory(fd, entry)?;
    times(fd, entry.mtime)
}

/// A directory's, through its descriptor, but for its times.
pub(super) fn directory(fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), Failure> {
    let failed = |action| move |errno: Errno| refused(entry, action, errno);
    rustix::fs::fchown(fd, uid(entry), gid(entry)).map_err(failed("set the owner of"))?;
    for (name, value) in &entry.xattrs {
        if !is_overlay(name) {
            let set =
                rustix::fs::fsetxattr(fd, OsStr::from_bytes(name), value, rustix::fs::XattrFlags::empty());
            unsupported_is_fine(set).map_err(failed("set an attribute of"))?;
        }
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(failed("set the mode of"))
}

/// A link's, device's or pipe's: no descriptor opens them, so it goes by name in the open parent.
pub(super) fn leaf(place: &Place<'_>, entry: &Entry) -> Result<(), Failure> {
    let failed = |action| move |errno: Errno| refused(entry, action, errno);
    let (name, nofollow) = (OsStr::from_bytes(place.name), AtFlags::SYMLINK_NOFOLLOW);
    rustix::fs::chownat(place.parent, name, uid(entry), gid(entry), nofollow)
        .map_err(failed("set the owner of"))?;
    let path = proc_child(place.parent.as_fd(), place.name);
    for (key, value) in &entry.xattrs {
        if !is_overlay(key) {
            let set =
                rustix::fs::lsetxattr(&path, OsStr::from_bytes(key), value, rustix::fs::XattrFlags::empty());
            unsupported_is_fine(set).map_err(failed("set an attribute of"))?;
        }
    }
    if entry.kind != Kind::Symlink {
        // Just made here, in a directory that nobody else writes to: the name is what was made.
        rustix::fs::chmodat(place.parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
            .map_err(failed("set the mode of"))?;
    }
    rustix::fs::utimensat(place.parent, name, &timestamps(entry.mtime), nofollow)
        .map_err(failed("set the time of"))
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

/// A file system without an attribute's namespace holds the file all the same; the exact tar keeps the attribute.
fn unsupported_is_fine(set: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match set {
        Err(Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

fn refused(entry: &Entry, action: &'static str, errno: Errno) -> Failure {
    let path = Path::new(OsStr::from_bytes(&entry.path)).to_path_buf();
    Error::io(action, path)(errno).into()
}

//! Writing one entry of a draft layer: its data, owner, mode, attributes and times.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};

use super::hash::attributes;
use super::origin::{Item, Origin};
use crate::cancel::Cancellation;
use crate::error::{Error, Result};
use crate::tree::kind;

/// The owner, mode and times that an entry gets.
pub(super) struct Owned {
    pub(super) owner: (u32, u32),
    pub(super) mode: u32,
    pub(super) times: Timestamps,
}

/// Copies what is no directory.
pub(super) fn leaf(origin: &Origin<'_>, item: &Item, place: (&OwnedFd, &OsStr), owned: &Owned) -> Result<()> {
    let path = &item.source;
    let (parent, name) = place;
    let from = origin.tree.directory(item.source.parent().unwrap_or(Path::new("")))?;
    let source_name = item.source.file_name().unwrap_or_default();
    match kind(&item.stat) {
        FileType::RegularFile => {
            let mut source = from.open_file(source_name).map_err(Error::io("open", path))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
            let mut target = File::from(target.map_err(Error::io("create a copy of", path))?);
            let copied = copy_data(&mut source, &mut target, origin.cancel);
            origin.cancel.check()?;
            copied.map_err(Error::io("copy", path))?;
            give(&target, owned.owner, owned.mode).map_err(Error::io("set the owner of a copy of", path))?;
            set_attributes(&target, &source, &item.source)?;
            return rustix::fs::futimens(&target, &owned.times)
                .map_err(Error::io("set the times of a copy of", path));
        }
        FileType::Symlink => {
            let target = from.read_link(source_name).map_err(Error::io("read link", path))?;
            rustix::fs::symlinkat(&target, parent, name).map_err(Error::io("copy link", path))?;
        }
        kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
            let mode = Mode::from_raw_mode(owned.mode);
            rustix::fs::mknodat(parent, name, kind, mode, item.stat.st_rdev)
                .map_err(Error::io("copy", path))?;
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty())
                .map_err(Error::io("set the mode of", path))?;
        }
        _ => {
            return Err(Error::Invalid(format!(
                "{} is a socket: exclude it by .dockerignore",
                path.display()
            )));
        }
    }
    let (uid, gid) = ids(owned.owner);
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), nofollow)
        .map_err(Error::io("set the owner of", path))?;
    rustix::fs::utimensat(parent, name, &owned.times, nofollow).map_err(Error::io("set the times of", path))
}

/// How much of a file is copied before it is asked whether the build is given up.
const PIECE: u64 = 16 << 20;

/// Copies what there is, and leaves the holes of the source holes. It ends early when the build is given up.
fn copy_data(source: &mut File, target: &mut File, cancel: &Cancellation) -> std::io::Result<()> {
    use rustix::fs::{SeekFrom, seek};
    use std::io::Read as _;
    let length = source.metadata()?.len();
    let mut at = 0;
    while at < length && !cancel.is_cancelled() {
        let from = match seek(&*source, SeekFrom::Data(at)) {
            Ok(from) => from,
            // Only a hole is left.
            Err(rustix::io::Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(rustix::io::Errno::INVAL) => at,
            Err(errno) => return Err(errno.into()),
        };
        let to = seek(&*source, SeekFrom::Hole(from)).unwrap_or(length).min(from.saturating_add(PIECE));
        seek(&*source, SeekFrom::Start(from))?;
        seek(&*target, SeekFrom::Start(from))?;
        std::io::copy(&mut source.take(to.saturating_sub(from)), target)?;
        at = to.max(from.saturating_add(1));
    }
    target.set_len(length)
}

fn ids((uid, gid): (u32, u32)) -> (Uid, Gid) {
    (Uid::from_raw(uid), Gid::from_raw(gid))
}

/// The owner first: a change of owner clears setuid.
pub(super) fn give(fd: impl AsFd, owner: (u32, u32), mode: u32) -> rustix::io::Result<()> {
    let (uid, gid) = ids(owner);
    rustix::fs::fchown(&fd, Some(uid), Some(gid))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode & 0o7777))
}

/// Copies the attributes that are content.
pub(super) fn set_attributes(to: &impl AsFd, from: &impl AsFd, path: &Path) -> Result<()> {
    for (name, value) in attributes(from) {
        rustix::fs::fsetxattr(to, name.as_str(), &value, XattrFlags::empty())
            .map_err(Error::io("set an attribute of", path))?;
    }
    Ok(())
}

/// The time of the last change of an entry of the origin, for both times of its copy.
pub(super) fn times(stat: &Stat) -> Timestamps {
    let nanos = stat.st_mtime_nsec.try_into().unwrap_or_default();
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos };
    Timestamps { last_access: time, last_modification: time }
}

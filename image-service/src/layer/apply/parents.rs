//! The slow way to a parent directory: through links, and over what lies below when the tar leans on it.

use super::{
    Applier, AsFd as _, AtFlags, BorrowedFd, DISK_BLOCK, Entry, Errno, Error, Failure, FileType, Gid, Mode,
    OFlags, OsStr, OsStrExt as _, OwnedFd, Timespec, Timestamps, Uid, VecDeque, name, root,
};
use crate::layer::below::{Below, Found};

/// More steps than a path of 2,048 names takes, and a link in it.
const STEPS_MAX: usize = 5000;
/// As many links as the kernel follows in a path.
const LINKS_MAX: usize = 40;

impl Failure {
    /// Adds the entry's name where it is not said yet.
    pub(super) fn at(self, path: &[u8]) -> Self {
        match self {
            Self::Rejected(reason) if !reason.starts_with("entry ") => Self::entry(path, &reason),
            other => other,
        }
    }
}

impl Applier<'_> {
    /// Opens a parent through links; what is missing comes from below.
    pub(super) fn enter_slowly(&mut self, path: &[u8]) -> Result<(OwnedFd, Vec<u8>), Failure> {
        if let Some(below) = self.below {
            let real = self.walk(path, below)?;
            let fd = self.root.directory(&real).map_err(Error::io("open", self.path(&real)))?;
            return Ok((fd, real));
        }
        match self.root.directory_through_links(path) {
            Ok(found) => Ok(found),
            Err(Errno::NOENT) => Err(Failure::NeedsBelow),
            Err(Errno::NOTDIR) => Err(Failure::Rejected("its parent is no directory".into())),
            Err(Errno::LOOP) => Err(Failure::Rejected("its parent is a loop of links".into())),
            Err(errno) => Err(Error::io("open", self.path(path))(errno).into()),
        }
    }

    /// Goes down name by name, making what is missing; returns the path without links.
    fn walk(&mut self, path: &[u8], below: &Below) -> Result<Vec<u8>, Failure> {
        let mut ahead: VecDeque<Vec<u8>> = components(path);
        let mut real: Vec<u8> = Vec::new();
        let mut links = 0;
        for _ in 0..STEPS_MAX {
            let Some(next) = ahead.pop_front() else { return Ok(real) };
            if next == b".." {
                real = name::split(&real).map(|(parent, _)| parent.to_vec()).unwrap_or_default();
                continue;
            }
            let Some(link) = self.step(&real, &next, below)? else {
                real = name::join(&real, &next);
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(Failure::Rejected("its parent is a loop of links".into()));
            }
            if link.starts_with(b"/") {
                real.clear();
            }
            for component in components(&link).into_iter().rev() {
                ahead.push_front(component);
            }
        }
        Err(Failure::Rejected(format!("its parent is more than {STEPS_MAX} names away")))
    }

    /// Makes sure that a directory of this name is here; or says where its link points.
    fn step(&mut self, parent: &[u8], leaf: &[u8], below: &Below) -> Result<Option<Vec<u8>>, Failure> {
        let real = name::join(parent, leaf);
        let fd = self.root.directory(parent).map_err(Error::io("open", self.path(parent)))?;
        let hidden = match root::stat(fd.as_fd(), leaf) {
            Ok(stat) if root::is_whiteout(&stat) => true,
            Ok(stat) => {
                return match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => Ok(None),
                    FileType::Symlink => Ok(Some(root::read_link(&self.path(&real))?)),
                    _ => Err(Failure::Rejected("its parent is no directory".into())),
                };
            }
            Err(Errno::NOENT) => false,
            Err(errno) => return Err(Error::io("read", self.path(&real))(errno).into()),
        };
        let found = if hidden { None } else { below.find(&real)? };
        match found {
            Some(found) if kind(&found) == FileType::Symlink => Ok(Some(root::read_link(&found.path)?)),
            Some(found) if kind(&found) != FileType::Directory => {
                Err(Failure::Rejected("its parent is no directory".into()))
            }
            found => self.make_parent(fd.as_fd(), leaf, &real, (found, hidden)).map(|()| None),
        }
    }

    fn make_parent(
        &mut self,
        parent: BorrowedFd<'_>,
        leaf: &[u8],
        real: &[u8],
        (found, hidden): (Option<Found>, bool),
    ) -> Result<(), Failure> {
        let path = self.path(real);
        let name = OsStr::from_bytes(leaf);
        if hidden {
            rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(Error::io("replace", &path))?;
        }
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(Error::io("create", &path))?;
        self.contents.inodes += 1;
        self.contents.bytes += DISK_BLOCK;
        match found {
            Some(found) => {
                copy_metadata(&found, &path)?;
                self.times.push(real, mtime(&found))?;
            }
            None => rustix::fs::chmod(&path, Mode::from_raw_mode(0o755))
                .map_err(Error::io("set the mode of", &path))?,
        }
        if hidden {
            self.make_opaque(real)?;
        }
        Ok(())
    }

    /// Copies a hard link's target from below, so that the link has something to share.
    pub(super) fn bring_up(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        real: &[u8],
        leaf: &[u8],
    ) -> Result<(), Failure> {
        let Some(below) = self.below else { return Err(Failure::NeedsBelow) };
        let found = below.find(real)?;
        let Some(found) = found.filter(|found| kind(found) == FileType::RegularFile) else {
            return Err(Failure::entry(&entry.path, "it links to a file that is not there"));
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = rustix::fs::openat(parent, OsStr::from_bytes(leaf), flags, Mode::RUSR | Mode::WUSR)
            .map_err(Error::io("create", self.path(real)))?;
        let mut from = std::fs::File::open(&found.path).map_err(Error::io("open", &found.path))?;
        let size =
            std::io::copy(&mut from, &mut std::fs::File::from(to)).map_err(Error::io("copy", &found.path))?;
        self.contents.inodes += 1;
        self.contents.bytes += size.div_ceil(DISK_BLOCK) * DISK_BLOCK;
        let path = self.path(real);
        copy_metadata(&found, &path)?;
        let (seconds, nanoseconds) = mtime(&found);
        let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
        let times = Timestamps { last_access: time, last_modification: time };
        let set = rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW);
        Ok(set.map_err(Error::io("set the time of", &path))?)
    }
}

/// Owner, attributes and mode, onto a path that holds no link (it was just made in a walked parent).
fn copy_metadata(found: &Found, path: &std::path::Path) -> Result<(), Failure> {
    let stat = &found.stat;
    rustix::fs::chown(path, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
        .map_err(Error::io("set the owner of", path))?;
    for (name, value) in root::xattrs(&found.path)? {
        if !root::is_overlay(&name) {
            let set = rustix::fs::lsetxattr(
                path,
                OsStr::from_bytes(&name),
                &value,
                rustix::fs::XattrFlags::empty(),
            );
            set.map_err(Error::io("set an attribute of", path))?;
        }
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    Ok(rustix::fs::chmod(path, mode).map_err(Error::io("set the mode of", path))?)
}

fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec).collect()
}

fn kind(found: &Found) -> FileType {
    FileType::from_raw_mode(found.stat.st_mode)
}

fn mtime(found: &Found) -> (i64, u32) {
    (found.stat.st_mtime, u32::try_from(found.stat.st_mtime_nsec).unwrap_or(0))
}

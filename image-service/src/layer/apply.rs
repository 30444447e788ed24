//! Writes a tar's entries into a directory in overlayfs form. Parents are reached through descriptors that can't leave
//! the root, the last name is never followed, and metadata goes in the order that keeps it: owner, attributes, mode,
//! times; directories' times when all is written.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::below::Below;
use super::root::{self, Root};
use super::skeleton::{MOVES_MAX, SkeletonWriter, cost_of_move};
use super::tar::{Bounds, Entry, Kind, Segment, TarReader};
use super::{Contents, Failure};
use crate::error::Error;

mod metadata;
pub(crate) mod name;
mod parents;
mod times;
mod whiteout;

use times::DirectoryTimes;

const BUFFER: usize = 128 << 10;
const DISK_BLOCK: u64 = 4096;

/// Unpacks a tar into `layer/fs`, with its skeleton beside it. `below` is needed only by a tar that leans on it; without
/// it such a tar fails with `NeedsBelow`. Returns what was written and the tar's size.
pub(crate) fn apply(
    tar: impl Read,
    layer: &Path,
    below: Option<&Below>,
    bounds: Bounds,
) -> Result<(Contents, u64), Failure> {
    let files = layer.join("fs");
    std::fs::create_dir(&files).map_err(Error::io("create", &files))?;
    let skeleton = SkeletonWriter::create(&layer.join("skeleton"))?;
    let mut reader = TarReader::new(tar, skeleton, bounds);
    let mut applier = Applier {
        root: Root::open(&files)?,
        files,
        keep: layer.join("kept"),
        below,
        parent: None,
        times: DirectoryTimes::create(layer)?,
        moves: 0,
        contents: Contents { bytes: DISK_BLOCK, inodes: 1, kept: 0 },
        buffer: vec![0; BUFFER],
    };
    while let Some(entry) = reader.next()? {
        applier.entry(&entry, &mut reader)?;
    }
    let contents = applier.finish()?;
    let (skeleton, size) = reader.finish()?;
    skeleton.finish()?;
    Ok((contents, size))
}

/// An open parent directory: as its children's paths say it, and without links.
struct Parent {
    asked: Vec<u8>,
    real: Vec<u8>,
    fd: OwnedFd,
}

struct Applier<'a> {
    root: Root,
    files: PathBuf,
    keep: PathBuf,
    below: Option<&'a Below>,
    parent: Option<Parent>,
    times: DirectoryTimes,
    /// The memory that rebuilding the tar will take for the entries that were replaced, in bytes.
    moves: usize,
    contents: Contents,
    buffer: Vec<u8>,
}

/// Where an entry goes.
struct Place<'a> {
    parent: BorrowedFd<'a>,
    name: &'a [u8],
    /// The path without links.
    real: Vec<u8>,
}

impl Applier<'_> {
    fn entry(&mut self, entry: &Entry, tar: &mut TarReader<impl Read>) -> Result<(), Failure> {
        let path = name::normalise(&entry.path)?;
        let Some((parent, leaf)) = name::split(&path) else {
            return self.root_entry(entry);
        };
        self.enter(parent).map_err(|failure| failure.at(&entry.path))?;
        let Some(current) = self.parent.take() else {
            return Err(Failure::entry(&entry.path, "it has no parent"));
        };
        let place = Place { parent: current.fd.as_fd(), name: leaf, real: name::join(&current.real, leaf) };
        let done = match leaf.strip_prefix(b".wh.") {
            Some(hidden) => self.whiteout(entry, &place, hidden, tar),
            None => self.create(entry, &place, tar),
        };
        if done? == Keeps::Parent {
            self.parent = Some(current);
        }
        Ok(())
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<(), Failure> {
        if entry.kind != Kind::Directory {
            return Err(Failure::entry(&entry.path, "only a directory can be the root"));
        }
        metadata::directory(self.root.fd(), entry)?;
        Ok(self.times.push(b"", entry.mtime)?)
    }

    /// Makes `self.parent` the directory of this path.
    fn enter(&mut self, path: &[u8]) -> Result<(), Failure> {
        if self.parent.as_ref().is_some_and(|parent| parent.asked == path) {
            return Ok(());
        }
        let asked = path.to_vec();
        let (fd, real) = match self.root.directory(path) {
            Ok(fd) => (fd, path.to_vec()),
            Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR) => self.enter_slowly(path)?,
            Err(errno) => {
                return Err(Error::io("open", self.files.join(OsStr::from_bytes(path)))(errno).into());
            }
        };
        self.parent = Some(Parent { asked, real, fd });
        Ok(())
    }

    fn create(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        tar: &mut TarReader<impl Read>,
    ) -> Result<Keeps, Failure> {
        let mut keeps = Keeps::Parent;
        if entry.kind == Kind::HardLink {
            let target = name::normalise(&entry.link)
                .map_err(|_| Failure::entry(&entry.path, "its link leaves the root"))?;
            if target == place.real {
                return Ok(keeps);
            }
        }
        for _ in 0..2 {
            match self.try_create(entry, place, tar) {
                Err(Attempt::Exists) => keeps = keeps.and(self.displace(entry, place, tar.skeleton())?),
                Err(Attempt::Failed(failure)) => return Err(failure),
                Err(Attempt::Kernel(errno)) => {
                    return Err(metadata::refused(entry, "be made", errno, &self.path(&place.real)));
                }
                Ok(()) => {
                    self.contents.inodes += u64::from(entry.kind != Kind::HardLink);
                    return Ok(keeps);
                }
            }
        }
        Err(Failure::entry(&entry.path, "its name is taken"))
    }

    fn try_create(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        tar: &mut TarReader<impl Read>,
    ) -> Result<(), Attempt> {
        let name = OsStr::from_bytes(place.name);
        match entry.kind {
            Kind::Directory => return self.directory(entry, place),
            Kind::File => return self.file(entry, place, tar),
            Kind::HardLink => return self.hard_link(entry, place),
            Kind::Symlink => rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), place.parent, name)?,
            Kind::Character | Kind::Block | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::Character => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                if kind == FileType::CharacterDevice && entry.device == (0, 0) {
                    return Err(Failure::entry(&entry.path, "device 0:0 would hide what lies below").into());
                }
                // mknod(2) takes 12 and 20 bits; more would be cut off, and 4096:0 be 0:0.
                if entry.device.0 >= 1 << 12 || entry.device.1 >= 1 << 20 {
                    return Err(Failure::entry(&entry.path, "its device number is out of range").into());
                }
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                rustix::fs::mknodat(place.parent, name, kind, Mode::from_raw_mode(0o600), device)?;
            }
        }
        Ok(metadata::leaf(place, entry)?)
    }

    fn directory(&mut self, entry: &Entry, place: &Place<'_>) -> Result<(), Attempt> {
        let name = OsStr::from_bytes(place.name);
        match rustix::fs::mkdirat(place.parent, name, Mode::RWXU) {
            Ok(()) => self.contents.bytes += DISK_BLOCK,
            Err(Errno::EXIST) => {
                let stat = root::stat(place.parent, place.name)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    return Err(Attempt::Exists);
                }
                self.contents.inodes = self.contents.inodes.saturating_sub(1);
            }
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(place.parent, name, flags, Mode::empty())?;
        metadata::directory(fd.as_fd(), entry)?;
        Ok(self.times.push(&place.real, entry.mtime).map_err(Failure::from)?)
    }

    fn file(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        tar: &mut TarReader<impl Read>,
    ) -> Result<(), Attempt> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = rustix::fs::openat(place.parent, OsStr::from_bytes(place.name), flags, mode)?;
        let file = File::from(fd);
        let whole = [Segment { offset: 0, count: entry.size }];
        let segments = entry.sparse.as_ref().map_or(&whole[..], |map| &map.segments);
        for segment in segments {
            self.segment(&file, *segment, place, tar)?;
        }
        if let Some(map) = &entry.sparse {
            rustix::fs::ftruncate(&file, map.size)
                .map_err(|errno| metadata::refused(entry, "get its size", errno, &self.path(&place.real)))?;
        }
        metadata::file(file.as_fd(), entry)?;
        Ok(())
    }

    /// Writes a part of a file's data to its place.
    fn segment(
        &mut self,
        file: &File,
        segment: Segment,
        place: &Place<'_>,
        tar: &mut TarReader<impl Read>,
    ) -> Result<(), Failure> {
        let Segment { offset, count } = segment;
        let mut done = 0;
        while done < count {
            let most = usize::try_from(count - done).unwrap_or(usize::MAX).min(self.buffer.len());
            let buffer = self.buffer.get_mut(..most).unwrap_or_default();
            let read = tar.data(buffer)?;
            let part = buffer.get(..read).unwrap_or_default();
            file.write_all_at(part, offset + done).map_err(Error::io("write", self.path(&place.real)))?;
            done += read as u64;
        }
        tar.skeleton().file(&place.real, offset, count)?;
        self.contents.bytes += count.div_ceil(DISK_BLOCK).saturating_mul(DISK_BLOCK);
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, place: &Place<'_>) -> Result<(), Attempt> {
        let target = name::normalise(&entry.link)
            .map_err(|_| Failure::entry(&entry.path, "its link leaves the root"))?;
        let Some((parent, leaf)) = name::split(&target) else {
            return Err(Failure::entry(&entry.path, "it links to the root").into());
        };
        let (fd, real) = match self.root.directory(parent) {
            Ok(fd) => (fd, parent.to_vec()),
            Err(_) => self.enter_slowly(parent).map_err(|failure| failure.at(&entry.path))?,
        };
        match root::stat(fd.as_fd(), leaf) {
            Ok(stat)
                if root::is_whiteout(&stat)
                    || FileType::from_raw_mode(stat.st_mode) == FileType::Directory =>
            {
                return Err(Failure::entry(&entry.path, "it links to what is no file").into());
            }
            Ok(_) => {}
            Err(Errno::NOENT) => self.bring_up(entry, fd.as_fd(), &name::join(&real, leaf), leaf)?,
            Err(errno) => return Err(errno.into()),
        }
        let (from, to) = (OsStr::from_bytes(leaf), OsStr::from_bytes(place.name));
        Ok(rustix::fs::linkat(fd, from, place.parent, to, AtFlags::empty())?)
    }

    /// Moves away what a later entry replaces: the exact tar still has its data.
    fn displace(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        skeleton: &mut SkeletonWriter,
    ) -> Result<Keeps, Failure> {
        let name = OsStr::from_bytes(place.name);
        let failed = |errno: Errno| Failure::from(Error::io("replace", self.path(&place.real))(errno));
        let stat = root::stat(place.parent, place.name).map_err(failed)?;
        if root::is_whiteout(&stat) {
            rustix::fs::unlinkat(place.parent, name, AtFlags::empty()).map_err(failed)?;
            if entry.kind == Kind::Directory {
                rustix::fs::mkdirat(place.parent, name, Mode::RWXU).map_err(failed)?;
                self.contents.inodes += 1;
                self.make_opaque(&place.real)?;
            }
            return Ok(Keeps::Parent);
        }
        let moves = self.moves.saturating_add(cost_of_move(&place.real));
        if moves > MOVES_MAX {
            return Err(Failure::entry(
                &entry.path,
                "it replaces an entry of its own layer, as too many before it do",
            ));
        }
        if self.contents.kept == 0 {
            std::fs::create_dir(&self.keep).map_err(Error::io("create", &self.keep))?;
        }
        let number = self.contents.kept;
        let to = self.keep.join(number.to_string());
        rustix::fs::renameat(place.parent, name, rustix::fs::CWD, &to).map_err(failed)?;
        skeleton.moved(&place.real, number)?;
        self.moves = moves;
        self.contents.kept += 1;
        Ok(Keeps::Nothing)
    }

    /// Sets the times of the directories.
    fn finish(self) -> Result<Contents, Failure> {
        let Self { root, files, times, contents, .. } = self;
        times.each(|path, mtime| match root.directory(path) {
            Ok(fd) => metadata::times(fd.as_fd(), mtime),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()), // replaced later in the tar
            Err(errno) => Err(Error::io("open", files.join(OsStr::from_bytes(path)))(errno).into()),
        })?;
        Ok(contents)
    }

    fn path(&self, real: &[u8]) -> PathBuf {
        self.files.join(OsStr::from_bytes(real))
    }
}

/// Whether the open parent is still what its path says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeps {
    Parent,
    Nothing,
}

impl Keeps {
    fn and(self, other: Self) -> Self {
        if self == Self::Parent { other } else { self }
    }
}

enum Attempt {
    Exists,
    Kernel(Errno),
    Failed(Failure),
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Errno> for Attempt {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EXIST => Self::Exists,
            errno => Self::Kernel(errno),
        }
    }
}

#[cfg(test)]
mod tests;

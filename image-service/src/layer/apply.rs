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
use super::skeleton::SkeletonWriter;
use super::tar::{Bounds, Entry, Kind, Segment, TarReader};
use super::{Contents, Failure};
use crate::error::Error;

mod metadata;
pub(crate) mod name;
mod parents;
mod whiteout;

const BUFFER: usize = 128 << 10;
const DISK_BLOCK: u64 = 4096;
/// What the paths of a layer's directories may take in memory, in bytes.
const PATHS_MAX: usize = 512 << 20;

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
        directories: Vec::new(),
        paths: 0,
        contents: Contents { bytes: DISK_BLOCK, inodes: 1, kept: 0 },
        buffer: vec![0; BUFFER],
    };
    while let Some(entry) = reader.next()? {
        applier.entry(&entry, &mut reader)?;
    }
    applier.directory_times()?;
    let (skeleton, size) = reader.finish()?;
    skeleton.finish()?;
    Ok((applier.contents, size))
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
    directories: Vec<(Vec<u8>, (i64, u32))>,
    /// The bytes of the paths in `directories`.
    paths: usize,
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
        self.remember_times(Vec::new(), entry.mtime)
    }

    /// A directory's times are set at the end: what is made in it changes them.
    fn remember_times(&mut self, path: Vec<u8>, mtime: (i64, u32)) -> Result<(), Failure> {
        self.paths += path.len();
        if self.paths > PATHS_MAX {
            let reason = format!("the paths of its directories have more than {PATHS_MAX} bytes together");
            return Err(Failure::Rejected(reason));
        }
        self.directories.push((path, mtime));
        Ok(())
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
        Ok(self.remember_times(place.real.clone(), entry.mtime)?)
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
        if self.contents.kept == 0 {
            std::fs::create_dir(&self.keep).map_err(Error::io("create", &self.keep))?;
        }
        let number = self.contents.kept;
        let to = self.keep.join(number.to_string());
        rustix::fs::renameat(place.parent, name, rustix::fs::CWD, &to).map_err(failed)?;
        skeleton.moved(&place.real, number)?;
        self.contents.kept += 1;
        Ok(Keeps::Nothing)
    }

    fn directory_times(&mut self) -> Result<(), Failure> {
        for (path, mtime) in std::mem::take(&mut self.directories) {
            match self.root.directory(&path) {
                Ok(fd) => metadata::times(fd.as_fd(), mtime)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {} // replaced later in the tar
                Err(errno) => return Err(Error::io("open", self.path(&path))(errno).into()),
            }
        }
        Ok(())
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
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use proptest::prelude::*;

    use super::*;
    use crate::layer::skeleton::rebuild;

    const BOUNDS: Bounds = Bounds { entries: 1000, bytes: 1 << 20 };

    /// One entry of a test's tar: the name goes into the header as it is, however hostile.
    struct Line<'a>(&'a str, ::tar::EntryType, &'a str, &'a [u8]);

    const FILE: ::tar::EntryType = ::tar::EntryType::Regular;
    const DIR: ::tar::EntryType = ::tar::EntryType::Directory;
    const LINK: ::tar::EntryType = ::tar::EntryType::Symlink;
    const HARD: ::tar::EntryType = ::tar::EntryType::Link;

    fn tar(lines: &[Line<'_>]) -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        for Line(name, kind, link, data) in lines {
            let mut header = ::tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(data.len() as u64);
            header.set_mode(if *kind == DIR { 0o750 } else { 0o4711 });
            header.set_uid(rustix::process::geteuid().as_raw().into());
            header.set_gid(rustix::process::getegid().as_raw().into());
            header.set_mtime(1_000_000_000);
            header.set_cksum();
            builder.append(&header, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn try_apply(tar: &[u8], below: Option<&Below>) -> (tempfile::TempDir, Result<(Contents, u64), Failure>) {
        let folder = tempfile::tempdir().unwrap();
        let applied = apply(tar, folder.path(), below, BOUNDS);
        (folder, applied)
    }

    fn reason(tar: &[u8]) -> String {
        match try_apply(tar, None).1 {
            Err(Failure::Rejected(reason)) => reason,
            other => panic!("not rejected: {other:?}"),
        }
    }

    /// A file of 64 KiB with data at its begin, in its middle and at its end, the rest holes, as GNU tar packs it.
    #[test]
    fn sparse_files_of_every_form_are_unpacked_and_their_tars_come_back() {
        let source = tempfile::tempdir().unwrap();
        let file = File::create(source.path().join("f")).unwrap();
        for (offset, data) in [(0, &b"begin"[..]), (1 << 20, &[7; 5000]), ((8 << 20) - 3, b"end")] {
            file.write_all_at(data, offset).unwrap();
        }
        // More parts than an old GNU header holds.
        for part in 0..40 {
            file.write_all_at(b"part", (2 << 20) + part * 65_536).unwrap();
        }
        drop(file);
        for form in [
            &["--format=gnu"][..],
            &["--format=pax", "--sparse-version=0.0"],
            &["--format=pax", "--sparse-version=0.1"],
            &["--format=pax", "--sparse-version=1.0"],
        ] {
            let packed = std::process::Command::new("tar")
                .args(["--create", "--sparse", "--file=-", "--directory"])
                .arg(source.path())
                .args(form)
                .args(["--numeric-owner", "f"])
                .output()
                .unwrap();
            assert!(packed.status.success(), "{form:?}: {packed:?}");
            assert!(packed.stdout.len() < 400 << 10, "{form:?}: the tar is not sparse");
            let folder = tempfile::tempdir().unwrap();
            let bounds = Bounds { entries: 10, bytes: 16 << 20 };
            let (contents, _) = apply(packed.stdout.as_slice(), folder.path(), None, bounds).unwrap();
            let unpacked = folder.path().join("fs/f");
            assert!(
                std::fs::read(&unpacked).unwrap() == std::fs::read(source.path().join("f")).unwrap(),
                "{form:?}"
            );
            assert!(std::fs::metadata(&unpacked).unwrap().blocks() < 1 << 11, "{form:?}: holes take room");
            let mut again = Vec::new();
            rebuild(folder.path(), contents.kept, &mut again).unwrap();
            assert!(again == packed.stdout, "{form:?}: the tar did not come back");
        }
    }

    #[test]
    fn the_holes_of_a_sparse_file_count_as_unpacked() {
        let mut builder = ::tar::Builder::new(Vec::new());
        let records = [("GNU.sparse.size", &b"1099511627776"[..]), ("GNU.sparse.map", b"0,4")];
        builder.append_pax_extensions(records).unwrap();
        let mut header = ::tar::Header::new_ustar();
        header.set_size(4);
        header.set_mode(0o644);
        builder.append_data(&mut header, "f", &b"data"[..]).unwrap();
        assert!(reason(&builder.into_inner().unwrap()).contains("1048576 bytes"));
    }

    fn same_again(tar: &[u8]) -> tempfile::TempDir {
        let (folder, applied) = try_apply(tar, None);
        let (contents, size) = applied.unwrap();
        assert_eq!(size, tar.len() as u64);
        let mut again = Vec::new();
        rebuild(folder.path(), contents.kept, &mut again).unwrap();
        assert!(again == tar, "the tar did not come back");
        folder
    }

    #[test]
    fn a_tar_comes_back_bit_for_bit() {
        let folder = same_again(&tar(&[
            Line("a/", DIR, "", b""),
            Line("a/f", FILE, "", b"content"),
            Line("a/link", LINK, "/etc/passwd", b""),
            Line("a/hard", HARD, "a/f", b""),
            Line("a/empty", FILE, "", b""),
            Line("a/.wh.gone", FILE, "", b""),
        ]));
        let stat = std::fs::metadata(folder.path().join("fs/a/f")).unwrap();
        assert_eq!(
            (stat.permissions().mode() & 0o7777, stat.mtime(), stat.nlink()),
            (0o4711, 1_000_000_000, 2)
        );
        let directory = std::fs::metadata(folder.path().join("fs/a")).unwrap();
        assert_eq!((directory.permissions().mode() & 0o7777, directory.mtime()), (0o750, 1_000_000_000));
        let gone = std::fs::symlink_metadata(folder.path().join("fs/a/gone")).unwrap();
        assert_eq!(gone.rdev(), 0);
    }

    #[test]
    fn the_last_duplicate_wins_and_the_tar_still_comes_back() {
        let folder = same_again(&tar(&[
            Line("f", FILE, "", b"first"),
            Line("d/", DIR, "", b""),
            Line("d/g", FILE, "", b"within"),
            Line("f", FILE, "", b"second"),
            Line("hard", HARD, "f", b""),
            Line("d", FILE, "", b"a file now"),
            Line("f", FILE, "", b"third"),
        ]));
        assert_eq!(std::fs::read(folder.path().join("fs/f")).unwrap(), b"third");
        assert_eq!(std::fs::read(folder.path().join("fs/hard")).unwrap(), b"second");
        assert_eq!(std::fs::read(folder.path().join("fs/d")).unwrap(), b"a file now");
    }

    #[test]
    fn a_tar_that_leaves_its_root_is_refused() {
        for lines in [
            vec![Line("../x", FILE, "", b"x")],
            vec![Line("a/../../x", FILE, "", b"x")],
            vec![Line("x", HARD, "../../etc/passwd", b"")],
            vec![Line("f", FILE, "", b""), Line("f/x", FILE, "", b"x")],
            vec![Line(".wh.", FILE, "", b"")],
            vec![Line(".wh...", FILE, "", b"")],
            vec![Line("l", LINK, "l", b""), Line("l/x", FILE, "", b"x")],
        ] {
            let reason = reason(&tar(&lines));
            assert!(!reason.is_empty());
        }
    }

    #[test]
    fn absolute_names_and_names_with_dots_are_taken_from_the_layers_root() {
        let folder = same_again(&tar(&[
            Line("/etc/", DIR, "", b""),
            Line("/etc/x", FILE, "", b"x"),
            Line("etc/../y", FILE, "", b"y"),
            Line("hard", HARD, "/etc/../etc/x", b""),
            Line("/etc/.wh.gone", FILE, "", b""),
        ]));
        let read = |name: &str| std::fs::read(folder.path().join("fs").join(name)).unwrap();
        assert_eq!((read("etc/x"), read("y"), read("hard")), (b"x".to_vec(), b"y".to_vec(), b"x".to_vec()));
    }

    #[test]
    fn a_link_out_of_the_root_leads_back_into_it() {
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().to_str().unwrap();
        let lines = [Line("l", LINK, target, b""), Line("l/x", FILE, "", b"x")];
        assert!(matches!(try_apply(&tar(&lines), None).1, Err(Failure::NeedsBelow)));
        let up = [Line("l", LINK, "../../../..", b""), Line("l/x", FILE, "", b"x")];
        let folder = same_again(&tar(&up));
        assert!(folder.path().join("fs/x").exists());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_over_a_link_replaces_the_link() {
        let outside = tempfile::NamedTempFile::new().unwrap();
        let target = outside.path().to_str().unwrap();
        let folder = same_again(&tar(&[Line("f", LINK, target, b""), Line("f", FILE, "", b"mine")]));
        assert_eq!(std::fs::read(folder.path().join("fs/f")).unwrap(), b"mine");
        assert_eq!(std::fs::read(outside.path()).unwrap(), b"");
    }

    #[test]
    fn limits_refuse_with_their_numbers() {
        let names: Vec<String> = (0..1001).map(|number| format!("f{number}")).collect();
        let lines: Vec<Line<'_>> = names.iter().map(|name| Line(name, FILE, "", b"")).collect();
        assert!(reason(&tar(&lines)).contains("1000 entries"));
        let large = vec![0_u8; 2 << 20];
        assert!(reason(&tar(&[Line("f", FILE, "", &large)])).contains("1048576 bytes"));
    }

    #[test]
    fn a_cut_or_altered_tar_is_refused() {
        let whole = tar(&[Line("f", FILE, "", b"content"), Line("g", FILE, "", b"more")]);
        assert!(reason(&whole[..700]).contains("ends within"));
        let mut altered = whole;
        altered[0] ^= 1;
        assert!(reason(&altered).contains("checksum"));
    }

    #[test]
    fn missing_parents_and_link_targets_come_from_below() {
        let (under, applied) = try_apply(
            &tar(&[
                Line("usr/", DIR, "", b""),
                Line("usr/lib/", DIR, "", b""),
                Line("usr/lib/old", FILE, "", b"old"),
                Line("lib", LINK, "usr/lib", b""),
            ]),
            None,
        );
        applied.unwrap();
        let lines = [
            Line("lib/new", FILE, "", b"new"),
            Line("lib/same", HARD, "lib/old", b""),
            Line("x/y", FILE, "", b"y"),
        ];
        assert!(matches!(try_apply(&tar(&lines), None).1, Err(Failure::NeedsBelow)));
        let below = Below { layers: vec![under.path().join("fs")] };
        let (over, applied) = try_apply(&tar(&lines), Some(&below));
        let (contents, _) = applied.unwrap();
        let files = over.path().join("fs");
        assert_eq!(std::fs::read(files.join("usr/lib/new")).unwrap(), b"new");
        assert_eq!(std::fs::read(files.join("usr/lib/same")).unwrap(), b"old");
        assert_eq!(std::fs::metadata(files.join("usr/lib")).unwrap().permissions().mode() & 0o7777, 0o750);
        assert_eq!(std::fs::metadata(files.join("x")).unwrap().permissions().mode() & 0o7777, 0o755);
        let mut again = Vec::new();
        rebuild(over.path(), contents.kept, &mut again).unwrap();
        assert_eq!(again, tar(&lines));
    }

    #[test]
    fn a_whiteout_hides_what_lies_below_and_not_the_layers_own() {
        let folder = same_again(&tar(&[
            Line("f", FILE, "", b"mine"),
            Line(".wh.f", FILE, "", b""),
            Line(".wh.d", FILE, "", b""),
            Line("d/", DIR, "", b""),
            Line("d/x", FILE, "", b"x"),
        ]));
        assert_eq!(std::fs::read(folder.path().join("fs/f")).unwrap(), b"mine");
        let attributes = root::xattrs(&folder.path().join("fs/d")).unwrap();
        assert!(
            attributes.iter().any(|(name, value)| name == root::opaque_name().as_bytes() && value == b"y")
        );
    }

    #[test]
    fn names_and_attributes_of_pax_are_honoured_but_for_overlays_own() {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
        let mut builder = ::tar::Builder::new(Vec::new());
        let attributes =
            [("SCHILY.xattr.user.colour", &b"bl\nue"[..]), ("SCHILY.xattr.user.overlay.opaque", b"y")];
        builder.append_pax_extensions(attributes).unwrap();
        let mut header = ::tar::Header::new_ustar();
        header.set_size(4);
        header.set_mode(0o644);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_cksum();
        builder.append_data(&mut header, "plain", &b"data"[..]).unwrap();
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(DIR);
        header.set_mode(0o755);
        header.set_size(0);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        builder.append_data(&mut header.clone(), "d".repeat(120), &b""[..]).unwrap();
        header.set_entry_type(FILE);
        header.set_size(3);
        builder.append_data(&mut header, &long, &b"far"[..]).unwrap();
        let folder = same_again(&builder.into_inner().unwrap());
        assert_eq!(std::fs::read(folder.path().join("fs").join(&long)).unwrap(), b"far");
        let found = root::xattrs(&folder.path().join("fs/plain")).unwrap();
        let expected = vec![(b"user.colour".to_vec(), b"bl\nue".to_vec())];
        assert!(found == expected || found.is_empty(), "{found:?}"); // a tmpfs may be without user attributes
    }

    /// Parents that a tar leaves out were given up after a thousand names, as a loop of links.
    #[test]
    fn parents_as_deep_as_a_path_leads_are_made_where_a_tar_leaves_them_out() {
        let mut builder = ::tar::Builder::new(Vec::new());
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(FILE);
        header.set_mode(0o644);
        header.set_size(3);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        let path = format!("{}/f", ["d"; 1950].join("/"));
        builder.append_data(&mut header, &path, &b"far"[..]).unwrap();
        let tar = builder.into_inner().unwrap();
        let (folder, applied) = try_apply(&tar, Some(&Below::default()));
        applied.unwrap();
        assert_eq!(std::fs::read(folder.path().join("fs").join(path)).unwrap(), b"far");
        slipway_disk::walker::remove(&folder.path().join("fs"), &slipway_disk::walker::never).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_bytes_make_the_reader_panic(noise in proptest::collection::vec((0_usize..2048, any::<u8>()), 0..12)) {
            let mut bytes = tar(&[Line("a/", DIR, "", b""), Line("a/f", FILE, "", b"content")]);
            for (at, value) in noise {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            drop(try_apply(&bytes, None));
        }

        #[test]
        fn any_plain_tar_comes_back(files in proptest::collection::btree_map("[a-z]{1,8}", proptest::collection::vec(any::<u8>(), 0..1500), 0..8)) {
            let lines: Vec<Line<'_>> = files.iter().map(|(name, data)| Line(name, FILE, "", data)).collect();
            same_again(&tar(&lines));
        }
    }
}

//! A draft layer: an overlayfs upper directory that is written without a mount, under the eyes of the layers below.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};

use super::select::attributes;
use super::{Item, Origin, Request, Selection, landing};
use crate::error::{Error, Result};
use crate::tree::{Node, Tree, kind};

/// A draft.
#[derive(Debug)]
pub(crate) struct Draft {
    upper: PathBuf,
    root: OwnedFd,
    tree: Tree,
    times: Vec<(PathBuf, Timestamps)>,
    links: BTreeMap<(u64, u64), PathBuf>,
}

/// What a new entry gets.
struct Owned {
    owner: (u32, u32),
    mode: u32,
    times: Timestamps,
}

impl Draft {
    /// A draft in an empty directory over these lowers, the topmost first.
    pub(crate) fn new(upper: PathBuf, lowers: &[PathBuf]) -> Result<Self> {
        std::fs::create_dir_all(&upper).map_err(Error::io("create", &upper))?;
        let root = open_directory(rustix::fs::CWD, upper.as_os_str(), &upper)?;
        let below = Tree::open(lowers)?;
        let stat = match below.root().top() {
            Some(top) => Some(rustix::fs::fstat(top).map_err(Error::io("stat", "/"))?),
            None => None,
        };
        let (owner, mode) = stat.map_or(((0, 0), 0o755), |stat| ((stat.st_uid, stat.st_gid), stat.st_mode));
        give(&root, owner, mode).map_err(Error::io("set the owner of", "/"))?;
        let mut stack = vec![upper.clone()];
        stack.extend_from_slice(lowers);
        let tree = Tree::open(&stack)?;
        Ok(Self { upper, root, tree, times: Vec::new(), links: BTreeMap::new() })
    }

    /// The draft over its lowers.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Sets the times that later writes have changed; gives the directory to commit.
    pub(crate) fn finish(mut self) -> Result<PathBuf> {
        while let Some((path, times)) = self.times.pop() {
            let fd = self.open_written(&path)?;
            rustix::fs::futimens(&fd, &times).map_err(Error::io("set the times of", &path))?;
        }
        Ok(self.upper)
    }

    /// Makes a directory and what is missing above it; false when it was there.
    pub(crate) fn make_directory(&mut self, path: &Path, owner: (u32, u32)) -> Result<bool> {
        let resolved = self.tree.resolve(path)?;
        match resolved.node {
            Some(Node::Directory(..)) => Ok(false),
            Some(Node::Leaf(_)) => Err(not_directory(&resolved.path)),
            None => self.parents(&resolved.path, owner).map(|_| true),
        }
    }

    /// Makes an empty file and what is missing above it; false when there was something.
    pub(crate) fn make_file(&mut self, path: &Path) -> Result<bool> {
        let resolved = self.tree.resolve(path)?;
        let (None, Some(name)) = (resolved.node, resolved.path.file_name()) else { return Ok(false) };
        let parent = self.parents(resolved.path.parent().unwrap_or(Path::new("")), (0, 0))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let made = rustix::fs::openat(&parent, name, flags, mode).map_err(Error::io("create", path))?;
        give(&made, (0, 0), 0o644).map_err(Error::io("set the mode of", path))?;
        Ok(true)
    }

    /// Copies the selections.
    pub(crate) fn copy(&mut self, origin: &Origin<'_>, found: &[Selection], request: &Request) -> Result<()> {
        let destination = &request.destination;
        let there = self.tree.resolve(Path::new(destination))?;
        let into = destination.ends_with('/') || matches!(there.node, Some(Node::Directory(..)));
        if !into && (found.len() > 1 || request.sources.len() > 1) {
            return Err(Error::Invalid(format!(
                "several sources go into one directory: write {destination}/ with a / at its end"
            )));
        }
        for selection in found {
            let name = if into && !selection.directory { selection.name.as_path() } else { Path::new("") };
            let wanted = self.tree.resolve(&landing(destination, name))?.path;
            let parent = wanted.parent().unwrap_or(Path::new(""));
            self.parents(parent, request.owner.unwrap_or((0, 0)))?;
            for item in &selection.items {
                origin.cancel.check()?;
                let path =
                    if item.name.as_os_str().is_empty() { wanted.clone() } else { wanted.join(&item.name) };
                self.item(origin, item, &path, request)?;
            }
        }
        Ok(())
    }

    /// Opens the directory in the draft, making it and what is above: like below where it is there, else new.
    fn parents(&mut self, path: &Path, owner: (u32, u32)) -> Result<OwnedFd> {
        let mut here = self.root.try_clone().map_err(Error::io("open", path))?;
        let mut so_far = PathBuf::new();
        for name in path {
            let whole = so_far.join(name);
            if !is_directory(&here, name) {
                let seen = self.tree.directory(&so_far)?.child(name).map_err(Error::io("look up", &whole))?;
                let stat = seen.as_ref().map(|node| *node.stat());
                if matches!(seen, Some(Node::Leaf(_))) {
                    return Err(not_directory(&whole));
                }
                rustix::fs::mkdirat(&here, name, Mode::RWXU).map_err(Error::io("create", &whole))?;
                let fd = open_directory(&here, name, &whole)?;
                match stat {
                    Some(stat) => {
                        give(&fd, (stat.st_uid, stat.st_gid), stat.st_mode)
                            .map_err(Error::io("set the owner of", &whole))?;
                        self.times.push((whole.clone(), times(&stat)));
                        if let Some(Node::Directory(below, _)) = &seen {
                            below.top().map(|top| set_attributes(&fd, top, &whole)).transpose()?;
                        }
                    }
                    None => give(&fd, owner, 0o755).map_err(Error::io("set the owner of", &whole))?,
                }
            }
            here = open_directory(&here, name, &whole)?;
            so_far = whole;
        }
        Ok(here)
    }

    fn item(&mut self, origin: &Origin<'_>, item: &Item, path: &Path, request: &Request) -> Result<()> {
        let stat = &item.stat;
        let kept = if origin.ignore.is_some() { (0, 0) } else { (stat.st_uid, stat.st_gid) };
        let is_directory = kind(stat) == FileType::Directory;
        let mode = stat.st_mode & 0o7777;
        let owned = Owned {
            owner: request.owner.unwrap_or(kept),
            mode: request.chmod.as_ref().map_or(mode, |chmod| chmod.apply(mode, is_directory)),
            times: times(stat),
        };
        if is_directory {
            return self.directory(origin, item, path, &owned);
        }
        let parent_path = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().ok_or_else(|| not_directory(path))?;
        let parent = self.parents(parent_path, (0, 0))?;
        let seen = self.tree.directory(parent_path)?.child(name).map_err(Error::io("look up", path))?;
        if matches!(seen, Some(Node::Directory(..))) {
            return Err(Error::Invalid(format!(
                "/{} is a directory: a file can't replace it",
                path.display()
            )));
        }
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(Error::io("replace", path)(errno)),
        }
        let identity = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&identity).filter(|_| stat.st_nlink > 1) {
            return rustix::fs::linkat(&self.root, first, &parent, name, AtFlags::empty())
                .map_err(Error::io("link", path));
        }
        if stat.st_nlink > 1 {
            self.links.insert(identity, path.to_owned());
        }
        leaf(origin, item, (&parent, name), &owned)
    }

    fn directory(&mut self, origin: &Origin<'_>, item: &Item, path: &Path, owned: &Owned) -> Result<()> {
        let there = self.tree.resolve(path)?;
        if there.path != path || matches!(there.node, Some(Node::Leaf(_))) {
            return Err(not_directory(path));
        }
        let exists = there.node.is_some();
        let fd = self.parents(path, owned.owner)?;
        if exists {
            return Ok(());
        }
        give(&fd, owned.owner, owned.mode).map_err(Error::io("set the owner of", path))?;
        self.times.push((path.to_owned(), owned.times.clone()));
        match origin.tree.directory(&item.source)?.top() {
            Some(top) => set_attributes(&fd, top, path),
            None => Ok(()),
        }
    }

    fn open_written(&self, path: &Path) -> Result<OwnedFd> {
        let mut here = self.root.try_clone().map_err(Error::io("open", path))?;
        for name in path {
            here = open_directory(&here, name, path)?;
        }
        Ok(here)
    }
}

fn leaf(origin: &Origin<'_>, item: &Item, place: (&OwnedFd, &OsStr), owned: &Owned) -> Result<()> {
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
            copy_data(&mut source, &mut target).map_err(Error::io("copy", path))?;
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

/// Copies what there is, and leaves the holes of the source holes.
fn copy_data(source: &mut File, target: &mut File) -> std::io::Result<()> {
    use rustix::fs::{SeekFrom, seek};
    use std::io::Read as _;
    let length = source.metadata()?.len();
    let mut at = 0;
    while at < length {
        let from = match seek(&*source, SeekFrom::Data(at)) {
            Ok(from) => from,
            // Only a hole is left.
            Err(rustix::io::Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(rustix::io::Errno::INVAL) => at,
            Err(errno) => return Err(errno.into()),
        };
        let to = seek(&*source, SeekFrom::Hole(from)).unwrap_or(length);
        seek(&*source, SeekFrom::Start(from))?;
        seek(&*target, SeekFrom::Start(from))?;
        std::io::copy(&mut source.take(to.saturating_sub(from)), target)?;
        at = to.max(from.saturating_add(1));
    }
    target.set_len(length)
}

fn not_directory(path: &Path) -> Error {
    Error::Invalid(format!("/{} is no directory in the image: choose another destination", path.display()))
}

fn is_directory(parent: &OwnedFd, name: &OsStr) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| kind(&stat) == FileType::Directory)
}

fn open_directory(parent: impl std::os::fd::AsFd, name: &OsStr, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(Error::io("open", path))
}

fn ids((uid, gid): (u32, u32)) -> (Uid, Gid) {
    (Uid::from_raw(uid), Gid::from_raw(gid))
}

/// The owner first: a change of owner clears setuid.
fn give(fd: impl std::os::fd::AsFd, owner: (u32, u32), mode: u32) -> rustix::io::Result<()> {
    let (uid, gid) = ids(owner);
    rustix::fs::fchown(&fd, Some(uid), Some(gid))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode & 0o7777))
}

fn set_attributes(to: &impl std::os::fd::AsFd, from: &impl std::os::fd::AsFd, path: &Path) -> Result<()> {
    for (name, value) in attributes(from) {
        rustix::fs::fsetxattr(to, name.as_str(), &value, XattrFlags::empty())
            .map_err(Error::io("set an attribute of", path))?;
    }
    Ok(())
}

fn times(stat: &Stat) -> Timestamps {
    let nanos = stat.st_mtime_nsec.try_into().unwrap_or_default();
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos };
    Timestamps { last_access: time, last_modification: time }
}

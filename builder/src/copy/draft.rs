//! A draft layer: an overlayfs upper directory that is written without a mount, under the eyes of the layers below.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timestamps, XattrFlags};

use super::entry::{Owned, give, leaf, set_attributes, times};
use super::mode::Chmod;
use super::origin::{Item, Origin, Selection};
use super::request::Request;
use crate::error::{Error, Result};
use crate::tree::{Node, OPAQUE, Resolved, Tree, kind};

/// A draft.
#[derive(Debug)]
pub(crate) struct Draft {
    upper: PathBuf,
    root: OwnedFd,
    tree: Tree,
    below: Tree,
    times: BTreeMap<PathBuf, Timestamps>,
    links: BTreeMap<(u64, u64), PathBuf>,
    /// The memory that the paths in those have taken, in bytes.
    memory: usize,
}

/// The memory that the directories and hard links of one draft may take until it is finished, in bytes.
const MEMORY_MAX: usize = 128 << 20;

/// The owner and mode of a directory that is made on the way to something.
#[derive(Clone, Copy)]
struct Made {
    /// Root where absent, and the group that a set-group-ID directory hands down.
    owner: Option<(u32, u32)>,
    mode: u32,
}

/// Root's, and open to all.
const PLAIN: Made = Made { owner: None, mode: 0o755 };

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
        Ok(Self { upper, root, tree, below, times: BTreeMap::new(), links: BTreeMap::new(), memory: 0 })
    }

    /// The draft over its lowers.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Sets the times that later writes have changed; gives the directory to commit.
    pub(crate) fn finish(self) -> Result<PathBuf> {
        for (path, times) in &self.times {
            let fd = self.open_written(path)?;
            rustix::fs::futimens(&fd, times).map_err(Error::io("set the times of", path))?;
        }
        Ok(self.upper)
    }

    /// Makes a directory and what is missing above it; false when it was there.
    pub(crate) fn make_directory(&mut self, path: &Path, owner: Option<(u32, u32)>) -> Result<bool> {
        let resolved = self.tree.resolve(path)?;
        match resolved.node {
            Some(Node::Directory(..)) => Ok(false),
            Some(Node::Leaf(_)) => Err(not_directory(&resolved.path)),
            None => self.parents(&resolved.path, Made { owner, ..PLAIN }).map(|_| true),
        }
    }

    /// Makes an empty file and what is missing above it; false when there was something.
    pub(crate) fn make_file(&mut self, path: &Path) -> Result<bool> {
        let resolved = self.tree.resolve(path)?;
        let (None, Some(name)) = (resolved.node, resolved.path.file_name()) else { return Ok(false) };
        let parent = self.parents(resolved.path.parent().unwrap_or(Path::new("")), PLAIN)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let made = rustix::fs::openat(&parent, name, flags, mode).map_err(Error::io("create", path))?;
        give(&made, (0, 0), 0o644).map_err(Error::io("set the mode of", path))?;
        Ok(true)
    }

    /// Copies the selections.
    pub(crate) fn copy(&mut self, origin: &Origin<'_>, found: &[Selection], request: &Request) -> Result<()> {
        let several = found.len() > 1 || request.sources.len() > 1;
        for selection in found {
            // Two sources are two copies, also of one file.
            self.links.clear();
            let made = made(request);
            let mut moved = BTreeMap::new();
            let top = if selection.directory {
                self.enter(&request.destination, made)?
            } else {
                self.landing(&request.destination, &selection.name, several)?
            };
            for item in selection.items(origin) {
                let item = &item?;
                if !item.name.as_os_str().is_empty() {
                    let path = moved_to(&top, &item.name, &moved);
                    if is_implied(item, request) {
                        if let Some(real) = self.implied(&path)? {
                            self.hold(&item.name)?;
                            self.hold(&real)?;
                            moved.insert(item.name.clone(), real);
                        }
                    } else {
                        self.item(origin, item, &path, request)?;
                    }
                } else if selection.directory {
                    // Whether it is new or not, it is no copy of the source's.
                    if request.archive.is_none() {
                        self.set_times_of(&top, times(&item.stat))?;
                    }
                } else {
                    self.parents(top.parent().unwrap_or(Path::new("")), made)?;
                    self.item(origin, item, &top, request)?;
                }
            }
        }
        Ok(())
    }

    /// A directory that an archive has no entry for: made where it is missing. Where there is a link to one, its path.
    fn implied(&mut self, path: &Path) -> Result<Option<PathBuf>> {
        let there = self.tree.resolve(path)?;
        if there.path != path && matches!(there.node, Some(Node::Directory(..))) {
            return Ok(Some(there.path));
        }
        self.parents(path, Made { owner: Some((0, 0)), ..PLAIN }).map(|_| None)
    }

    /// Remembers the times of a directory, which what is written into it changes, for the end.
    fn set_times_of(&mut self, path: &Path, times: Timestamps) -> Result<()> {
        if self.times.insert(path.to_owned(), times).is_none() {
            self.hold(path)?;
        }
        Ok(())
    }

    /// Counts a path that is kept in memory until the draft is finished.
    fn hold(&mut self, path: &Path) -> Result<()> {
        const BESIDES: usize = 128;
        self.memory = self.memory.saturating_add(path.as_os_str().len().saturating_add(BESIDES));
        if self.memory <= MEMORY_MAX {
            return Ok(());
        }
        let reason = "too many directories and hard links are copied at once: copy fewer, or exclude some by .dockerignore";
        Err(Error::Invalid(reason.to_owned()))
    }

    /// Makes the destination a directory; its path without links.
    fn enter(&mut self, destination: &str, made: Made) -> Result<PathBuf> {
        let path = self.tree.resolve(Path::new(destination))?.path;
        self.parents(&path, made)?;
        Ok(path)
    }

    /// Where a file of this name lands: links of the destination are followed, that of the file in it is not.
    fn landing(&self, destination: &str, name: &Path, several: bool) -> Result<PathBuf> {
        let there = self.tree.resolve(Path::new(destination))?;
        if destination.ends_with('/') || matches!(there.node, Some(Node::Directory(..))) {
            return Ok(there.path.join(name));
        }
        if several {
            return Err(Error::Invalid(format!(
                "several sources go into one directory: write {destination}/ with a / at its end"
            )));
        }
        Ok(there.path)
    }

    /// Opens the directory in the draft, making it and what is above: like below where it is there, else new.
    fn parents(&mut self, path: &Path, made: Made) -> Result<OwnedFd> {
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
                        if !self.times.contains_key(&whole) {
                            self.set_times_of(&whole, times(&stat))?;
                        }
                        if let Some(Node::Directory(below, _)) = &seen {
                            below.top().map(|top| set_attributes(&fd, top, &whole)).transpose()?;
                        }
                    }
                    None => {
                        let (owner, mode) = handed_down(&here, made).map_err(Error::io("stat", &so_far))?;
                        give(&fd, owner, mode).map_err(Error::io("set the owner of", &whole))?;
                    }
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
            return self.directory(origin, item, path, (&owned, request.archive.is_some()));
        }
        let parent_path = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().ok_or_else(|| not_directory(path))?;
        let parent = self.parents(parent_path, PLAIN)?;
        let seen = self.tree.directory(parent_path)?.child(name).map_err(Error::io("look up", path))?;
        if matches!(seen, Some(Node::Directory(..))) {
            if request.archive.is_none() {
                return Err(Error::Invalid(format!(
                    "/{} is a directory: a file can't replace it",
                    path.display()
                )));
            }
            self.forget(path)?;
        } else {
            unlink(&parent, name).map_err(Error::io("replace", path))?;
        }
        let identity = (stat.st_dev, stat.st_ino);
        let is_linked = stat.st_nlink > 1 && kind(stat) == FileType::RegularFile;
        if let Some(first) = self.links.get(&identity).filter(|_| is_linked) {
            return rustix::fs::linkat(&self.root, first, &parent, name, AtFlags::empty())
                .map_err(Error::io("link", path));
        }
        if is_linked {
            self.hold(path)?;
            self.links.insert(identity, path.to_owned());
        }
        leaf(origin, item, (&parent, name), &owned)
    }

    /// A directory of the source, which gives its mode and owner also to one that is there.
    fn directory(
        &mut self,
        origin: &Origin<'_>,
        item: &Item,
        path: &Path,
        (owned, replaces): (&Owned, bool),
    ) -> Result<()> {
        let parent_path = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().ok_or_else(|| not_directory(path))?;
        let seen = self.tree.directory(parent_path)?.child(name).map_err(Error::io("look up", path))?;
        if matches!(seen, Some(Node::Leaf(_))) {
            if !replaces {
                return Err(not_directory(path));
            }
            self.clear(path)?;
        }
        let fd = self.parents(path, PLAIN)?;
        give(&fd, owned.owner, owned.mode).map_err(Error::io("set the owner of", path))?;
        self.set_times_of(path, owned.times.clone())?;
        match origin.tree.directory(&item.source)?.top() {
            Some(top) => set_attributes(&fd, top, path),
            None => Ok(()),
        }
    }

    /// Puts an empty directory in the place of what is none. Nothing shows through it from below.
    fn clear(&mut self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default();
        let parent = self.parents(path.parent().unwrap_or(Path::new("")), PLAIN)?;
        unlink(&parent, name).map_err(Error::io("replace", path))?;
        rustix::fs::mkdirat(&parent, name, Mode::RWXU).map_err(Error::io("create", path))?;
        if matches!(self.below.resolve(path)?, Resolved { path: at, node: Some(Node::Directory(..)) } if at == path)
        {
            let fd = open_directory(&parent, name, path)?;
            rustix::fs::fsetxattr(&fd, OPAQUE, b"y", XattrFlags::empty())
                .map_err(Error::io("hide what lies below", path))?;
        }
        Ok(())
    }

    /// Removes a directory of the draft, with the times that it was to have.
    fn forget(&mut self, path: &Path) -> Result<()> {
        self.times.retain(|known, _| !known.starts_with(path));
        Ok(slipway_disk::remove_tree(&self.upper.join(path))?)
    }

    fn open_written(&self, path: &Path) -> Result<OwnedFd> {
        let mut here = self.root.try_clone().map_err(Error::io("open", path))?;
        for name in path {
            here = open_directory(&here, name, path)?;
        }
        Ok(here)
    }
}

/// The owner and mode of directories that a copy makes on its way. An archive's modes are its own.
fn made(request: &Request) -> Made {
    let chmod = request.chmod.as_ref().filter(|_| request.archive.is_none());
    let mode = chmod.and_then(Chmod::octal).map_or(PLAIN.mode, |mode| mode & 0o777);
    Made { owner: request.owner, mode }
}

/// The owner and mode of a directory that is made in another: from one with the set-group-ID bit, that bit and its group.
fn handed_down(parent: &OwnedFd, made: Made) -> rustix::io::Result<((u32, u32), u32)> {
    const SET_GID: u32 = 0o2000;
    let stat = rustix::fs::fstat(parent)?;
    let handed = stat.st_mode & SET_GID;
    let group = if handed == 0 { 0 } else { stat.st_gid };
    Ok((made.owner.unwrap_or((0, group)), made.mode | handed))
}

/// Whether an archive only needs this directory, and has no entry for it.
fn is_implied(item: &Item, request: &Request) -> bool {
    let is_directory = kind(&item.stat) == FileType::Directory;
    request.archive.as_ref().is_some_and(|named| is_directory && !named.contains(&item.name))
}

/// Where an entry goes whose directories may have been found behind links.
fn moved_to(top: &Path, name: &Path, moved: &BTreeMap<PathBuf, PathBuf>) -> PathBuf {
    let found = name.ancestors().skip(1).find_map(|above| Some((above, moved.get(above)?)));
    match found {
        Some((above, real)) => real.join(name.strip_prefix(above).unwrap_or(name)),
        None => top.join(name),
    }
}

fn unlink(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(errno) if errno != rustix::io::Errno::NOENT => Err(errno),
        _ => Ok(()),
    }
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

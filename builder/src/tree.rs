//! A file tree seen through a stack of overlayfs lowers, without a mount: whiteouts hide, opaque directories end the
//! search, symbolic links are followed inside the root only. A build context is a stack of one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::error::{Error, Result};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// The attribute of a directory that hides what lies below it.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// A directory as the stack shows it: its parts, the topmost first.
#[derive(Clone, Debug)]
pub(crate) struct Directory(Vec<Arc<OwnedFd>>);

/// The file or directory that a name leads to.
#[derive(Debug)]
pub(crate) enum Node {
    /// A directory, and what the topmost part says of it.
    Directory(Directory, Stat),
    /// Anything else.
    Leaf(Stat),
}

impl Node {
    /// Its status in the topmost layer.
    pub(crate) fn stat(&self) -> &Stat {
        match self {
            Self::Directory(_, stat) | Self::Leaf(stat) => stat,
        }
    }
}

/// Some of the names in a directory, in order.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) names: Vec<OsString>,
    /// The last name that was read, also where it is a whiteout: more are behind it.
    pub(crate) last: Option<OsString>,
    /// The memory that they take, in bytes.
    pub(crate) memory: usize,
    /// Whether there are more.
    pub(crate) more: bool,
}

/// The memory that the names of one directory may take at a time, in bytes.
pub(crate) const NAMES_MAX: usize = 32 << 20;

/// The memory that a name takes, in bytes.
fn cost(name: &OsStr) -> usize {
    const BESIDES: usize = 64;
    name.len().saturating_add(BESIDES)
}

/// Where a path leads once its links are followed.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The path from the root, without links, `.` and `..`.
    pub(crate) path: PathBuf,
    /// The file or directory there.
    pub(crate) node: Option<Node>,
}

/// The tree.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Directory,
}

/// The kind of a file.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

impl Tree {
    /// The tree of these directories, the topmost first.
    pub(crate) fn open(lowers: &[PathBuf]) -> Result<Self> {
        let open = |path: &PathBuf| {
            let fd = rustix::fs::open(path, flags(), Mode::empty()).map_err(Error::io("open layer", path))?;
            Ok(Arc::new(fd))
        };
        Ok(Self { root: Directory(lowers.iter().map(open).collect::<Result<_>>()?) })
    }

    /// The tree of one directory.
    pub(crate) fn of(directory: OwnedFd) -> Self {
        Self { root: Directory(vec![Arc::new(directory)]) }
    }

    /// The root directory.
    pub(crate) fn root(&self) -> &Directory {
        &self.root
    }

    /// Follows a path from the root, never out of it. The last component's link is followed too. What does not exist
    /// is resolved as far as it goes.
    pub(crate) fn resolve(&self, path: &Path) -> Result<Resolved> {
        self.resolve_without(path, &|_| false)
    }

    /// The same as if the links at the paths that `hides` names did not exist.
    pub(crate) fn resolve_without(&self, path: &Path, hides: &dyn Fn(&Path) -> bool) -> Result<Resolved> {
        let failed = || Error::io("look up", path);
        let mut todo: Vec<OsString> = components(path);
        let mut done: Vec<(OsString, Option<Node>)> = Vec::new();
        let mut links = 0_usize;
        while let Some(name) = todo.pop() {
            if name == ".." {
                done.pop();
                continue;
            }
            let here = match done.last() {
                None => Some(&self.root),
                Some((_, Some(Node::Directory(directory, _)))) => Some(directory),
                Some((_, Some(Node::Leaf(_)))) => {
                    return Err(failed()(io::Error::from(io::ErrorKind::NotADirectory)));
                }
                Some((_, None)) => None,
            };
            let node = here.map(|here| here.child(&name)).transpose().map_err(failed())?.flatten();
            let is_link = node.as_ref().is_some_and(|node| kind(node.stat()) == FileType::Symlink);
            if let (true, Some(here)) = (is_link, here) {
                let at: PathBuf = done.iter().map(|(name, _)| name).chain([&name]).collect();
                if hides(&at) {
                    done.push((name, None));
                    continue;
                }
                links = links.saturating_add(1);
                if links > MAX_LINKS {
                    return Err(failed()(io::Error::from(rustix::io::Errno::LOOP)));
                }
                let target = here.read_link(&name).map_err(failed())?;
                if target.is_absolute() {
                    done.clear();
                }
                todo.extend(components(&target));
                continue;
            }
            done.push((name, node));
        }
        let path = done.iter().map(|(name, _)| name).collect();
        let node = match done.pop() {
            Some((_, node)) => node,
            None => self.root.as_node().map_err(failed())?,
        };
        Ok(Resolved { path, node })
    }

    /// The directory at a path without links.
    pub(crate) fn directory(&self, path: &Path) -> Result<Directory> {
        let mut here = self.root.clone();
        for name in path {
            here = match here.child(name).map_err(Error::io("open", path))? {
                Some(Node::Directory(directory, _)) => directory,
                _ => return Err(Error::io("open", path)(io::Error::from(io::ErrorKind::NotADirectory))),
            };
        }
        Ok(here)
    }

    /// A small file's bytes, none when it does not exist.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        let found = self.resolve(path)?;
        match &found.node {
            None => return Ok(None),
            Some(node) if kind(node.stat()) != FileType::RegularFile => {
                return Err(Error::Invalid(format!("{} is no regular file", path.display())));
            }
            Some(_) => {}
        }
        let parent = self.directory(found.path.parent().unwrap_or(Path::new("")))?;
        let name = found.path.file_name().unwrap_or_default();
        let file = parent.open_file(name).map_err(Error::io("open", path))?;
        let mut bytes = Vec::new();
        let mut limited = io::Read::take(file, limit.saturating_add(1));
        io::Read::read_to_end(&mut limited, &mut bytes).map_err(Error::io("read", path))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
            return Err(Error::Invalid(format!("{} has more than {limit} bytes", path.display())));
        }
        Ok(Some(bytes))
    }
}

impl Directory {
    fn as_node(&self) -> io::Result<Option<Node>> {
        let stat = self.0.first().map(rustix::fs::fstat).transpose()?;
        Ok(stat.map(|stat| Node::Directory(self.clone(), stat)))
    }

    /// The topmost part, for what is asked of the directory itself.
    pub(crate) fn top(&self) -> Option<&OwnedFd> {
        self.0.first().map(AsRef::as_ref)
    }

    /// The file or directory of a name.
    pub(crate) fn child(&self, name: &OsStr) -> io::Result<Option<Node>> {
        let mut parts = Vec::new();
        let mut top = None;
        for fd in &self.0 {
            let stat = match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(rustix::io::Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            if kind(&stat) != FileType::Directory {
                if top.is_none() && !is_whiteout(&stat) {
                    return Ok(Some(Node::Leaf(stat)));
                }
                break;
            }
            let part = rustix::fs::openat(fd, name, flags(), Mode::empty())?;
            let opaque = is_opaque(&part);
            parts.push(Arc::new(part));
            top.get_or_insert(stat);
            if opaque {
                break;
            }
        }
        Ok(top.map(|stat| Node::Directory(Self(parts), stat)))
    }

    /// The first names in order behind `after`, or from the beginning, that take no more than `most` bytes of memory (but
    /// always one). Each call reads the whole directory, and keeps no more than that.
    pub(crate) fn names_after(&self, after: Option<&OsStr>, most: usize) -> io::Result<Names> {
        let mut kept = std::collections::BTreeMap::new();
        let (mut memory, mut ceiling) = (0_usize, None::<OsString>);
        for fd in &self.0 {
            for entry in rustix::fs::Dir::read_from(fd)? {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                let is_behind = after.is_none_or(|after| name > after);
                let is_near = ceiling.as_ref().is_none_or(|ceiling| name < ceiling.as_os_str());
                if name == "." || name == ".." || !is_behind || !is_near || kept.contains_key(name) {
                    continue;
                }
                let hides = entry.file_type() == FileType::CharacterDevice
                    && is_whiteout(&rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?);
                memory = memory.saturating_add(cost(name));
                kept.insert(name.to_owned(), !hides);
                while memory > most && kept.len() > 1 {
                    let Some((last, _)) = kept.pop_last() else { break };
                    memory = memory.saturating_sub(cost(&last));
                    ceiling = Some(last);
                }
            }
        }
        let last = kept.last_key_value().map(|(name, _)| name.clone());
        let names = kept.into_iter().filter_map(|(name, visible)| visible.then_some(name)).collect();
        Ok(Names { names, last, memory, more: ceiling.is_some() })
    }

    /// The part that shows a leaf.
    fn holder(&self, name: &OsStr) -> io::Result<&OwnedFd> {
        let has = |fd: &&Arc<OwnedFd>| rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        self.0.iter().find(has).map(AsRef::as_ref).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Where a link leads.
    pub(crate) fn read_link(&self, name: &OsStr) -> io::Result<PathBuf> {
        let target = rustix::fs::readlinkat(self.holder(name)?, name, Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// A regular file's content.
    pub(crate) fn open_file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(File::from(rustix::fs::openat(self.holder(name)?, name, flags, Mode::empty())?))
    }
}

/// A path's components, the last one first; `.` and the root fall away.
fn components(path: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    names.reverse();
    names
}

fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0_u8; 4];
    let length = rustix::fs::fgetxattr(directory, OPAQUE, &mut value);
    length.is_ok_and(|length| length == 1 && value.first() == Some(&b'y'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/f"), "text").unwrap();
        symlink("/a", root.path().join("absolute")).unwrap();
        symlink("../../../../a/b/..", root.path().join("up")).unwrap();
        symlink("loop", root.path().join("loop")).unwrap();
        let tree = Tree::open(&[root.path().to_owned()]).unwrap();
        for path in ["absolute/f", "up/f", "../../a/f", "/a/./f"] {
            assert_eq!(tree.resolve(Path::new(path)).unwrap().path, Path::new("a/f"), "{path}");
        }
        assert!(tree.resolve(Path::new("loop")).is_err());
        assert!(tree.resolve(Path::new("a/f/x")).is_err());
        assert!(tree.resolve(Path::new("etc/passwd")).unwrap().node.is_none());
        assert_eq!(tree.read(Path::new("absolute/f"), 10).unwrap().as_deref(), Some(&b"text"[..]));
        assert!(tree.read(Path::new("a/f"), 3).is_err());
    }

    #[test]
    fn an_upper_file_hides_a_lower_directory_and_directories_merge() {
        let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(lower.path().join("d/x")).unwrap();
        fs::create_dir(lower.path().join("e")).unwrap();
        fs::create_dir(upper.path().join("d")).unwrap();
        fs::write(upper.path().join("d/y"), "").unwrap();
        fs::write(upper.path().join("e"), "").unwrap();
        let tree = Tree::open(&[upper.path().to_owned(), lower.path().to_owned()]).unwrap();
        let names = tree.directory(Path::new("d")).unwrap().names_after(None, NAMES_MAX).unwrap();
        assert_eq!((names.names, names.more), (vec!["x".into(), "y".into()], false));
        assert!(matches!(tree.root().child("e".as_ref()).unwrap(), Some(Node::Leaf(_))));
    }

    /// All names of a directory were in memory at once, and with them all paths of a copy.
    #[test]
    fn names_come_some_at_a_time_and_in_order_also_where_layers_hide_some() {
        let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let names: Vec<OsString> = (0..100).map(|number| format!("{number:03}").into()).collect();
        for (at, name) in names.iter().enumerate() {
            let folder = if at % 3 == 0 { &upper } else { &lower };
            fs::write(folder.path().join(name), "").unwrap();
            if at % 7 == 0 {
                fs::write(lower.path().join(name), "").unwrap();
            }
        }
        let tree = Tree::open(&[upper.path().to_owned(), lower.path().to_owned()]).unwrap();
        for most in [1, 200, 1000, NAMES_MAX] {
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let found = tree.root().names_after(after.as_deref(), most).unwrap();
                assert!(found.memory <= most.max(cost(&names[0])));
                all.extend(found.names);
                after = found.last;
                if !found.more {
                    break;
                }
            }
            assert_eq!(all, names, "{most}");
        }
    }
}

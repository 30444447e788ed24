//! Which entries a COPY takes, and the hash of all that they say: never their times.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use sha2::{Digest as _, Sha256};

use super::Origin;
use crate::error::{Error, Result};
use crate::glob::{self, Pattern};
use crate::tree::{Directory, Node, Resolved, kind};

/// Extended attributes that are content.
pub(crate) type Attributes = BTreeMap<String, Vec<u8>>;

/// One file or directory to copy.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Its path in the origin's tree, without links on the way.
    pub(crate) source: PathBuf,
    /// Its path below where the selection lands; empty for the directory whose contents are copied.
    pub(crate) name: PathBuf,
    /// What the origin says of it.
    pub(crate) stat: Stat,
}

/// What one source leads to.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Whether the source is a directory, whose contents are taken.
    pub(crate) directory: bool,
    /// The file's own name.
    pub(crate) name: PathBuf,
    /// The entries, parents first.
    pub(crate) items: Vec<Item>,
}

/// Finds what the sources name.
pub(crate) fn select(origin: &Origin<'_>, sources: &[String]) -> Result<Vec<Selection>> {
    let mut found = Vec::new();
    for source in sources {
        let clean = super::normal(source);
        if glob::is_wild(&clean) {
            for path in wild(origin, &clean, source)? {
                let is_out = excluded(origin, &path);
                match one(origin, &path)? {
                    Some(selection) => found.push(selection),
                    None if is_out => {}
                    // A link that leads nowhere.
                    None => return Err(missing(origin, &path.display().to_string())),
                }
            }
        } else {
            found.push(one(origin, Path::new(&clean))?.ok_or_else(|| missing(origin, source))?);
        }
    }
    Ok(found)
}

/// Finds files by their names, which have no wildcards.
pub(crate) fn named(origin: &Origin<'_>, names: &[&str]) -> Result<Vec<Selection>> {
    let find = |name: &&str| one(origin, Path::new(name))?.ok_or_else(|| missing(origin, name));
    names.iter().map(find).collect()
}

fn missing(origin: &Origin<'_>, path: &str) -> Error {
    Error::Missing { path: path.to_owned(), place: origin.place.clone() }
}

/// The paths that a pattern matches. What stands before its first wildcard must be there, links and all; behind it only
/// real directories are looked into.
fn wild(origin: &Origin<'_>, clean: &str, source: &str) -> Result<Vec<PathBuf>> {
    let parts: Vec<&str> = clean.split('/').filter(|part| !part.is_empty()).collect();
    let first = parts.iter().position(|part| glob::is_wild(part)).unwrap_or(parts.len());
    let (before, patterns) = parts.split_at_checked(first).unwrap_or((&parts, &[]));
    let begin: PathBuf = before.iter().collect();
    let Some(Node::Directory(..)) = resolve(origin, &begin)?.node else {
        return Err(missing(origin, source));
    };
    let mut paths = vec![begin];
    for (number, part) in patterns.iter().enumerate() {
        let pattern = Pattern::component(part)
            .ok_or_else(|| Error::Invalid(format!("{source} is no pattern: close its [")))?;
        let mut next = Vec::new();
        for path in paths {
            origin.cancel.check()?;
            let place = if number == 0 { resolve(origin, &path)?.path } else { path.clone() };
            let directory = origin.tree.directory(&place)?;
            let is_last = number.saturating_add(1) == patterns.len();
            for name in directory.names().map_err(Error::io("list", &path))? {
                if pattern.matches(&name.to_string_lossy())
                    && (is_last || is_directory(&directory, &name).map_err(Error::io("look up", &path))?)
                {
                    next.push(place.join(name));
                }
            }
        }
        paths = next;
    }
    Ok(paths)
}

fn is_directory(directory: &Directory, name: &OsStr) -> std::io::Result<bool> {
    Ok(matches!(directory.child(name)?, Some(Node::Directory(..))))
}

/// Follows a path as if links that stay out were not there.
fn resolve(origin: &Origin<'_>, path: &Path) -> Result<Resolved> {
    origin.tree.resolve_without(path, &|link| excluded(origin, link))
}

/// What a path leads to; none when nothing is there or all of it stays out.
fn one(origin: &Origin<'_>, path: &Path) -> Result<Option<Selection>> {
    let resolved = resolve(origin, path)?;
    let name = PathBuf::from(path.file_name().unwrap_or_default());
    let out = excluded(origin, &resolved.path);
    match resolved.node {
        None => Ok(None),
        Some(Node::Leaf(stat)) => {
            let item = Item { source: resolved.path, name: PathBuf::new(), stat };
            Ok((!out).then(|| Selection { directory: false, name, items: vec![item] }))
        }
        Some(Node::Directory(directory, stat)) => {
            let root = Item { source: resolved.path, name: PathBuf::new(), stat };
            let items = walk(origin, directory, root)?;
            Ok((!out || items.len() > 1).then_some(Selection { directory: true, name, items }))
        }
    }
}

/// Takes the sockets out, which no layer can hold, and gives their paths.
pub(crate) fn take_sockets(found: &mut Vec<Selection>) -> Vec<PathBuf> {
    let mut sockets = Vec::new();
    for selection in found.iter_mut() {
        selection.items.retain(|item| {
            let is_socket = kind(&item.stat) == FileType::Socket;
            if is_socket {
                sockets.push(item.source.clone());
            }
            !is_socket
        });
    }
    found.retain(|selection| !selection.items.is_empty());
    sockets
}

fn excluded(origin: &Origin<'_>, path: &Path) -> bool {
    !path.as_os_str().is_empty() && origin.ignore.is_some_and(|ignore| ignore.excludes(path))
}

/// The longest path that a layer can hold: no path that a process gives the kernel is longer.
const PATH_MAX: usize = 4095;
/// What the paths of one selection may take in memory, in bytes.
const PATHS_MAX: usize = 512 << 20;
/// How many directories are open at once; those above are opened again when the walk comes back to them.
const OPEN: usize = 16;

/// A directory that is being walked.
struct Level {
    /// Absent while it is closed.
    directory: Option<Directory>,
    item: Item,
    /// The names to come.
    names: std::vec::IntoIter<OsString>,
    /// Its place among the items, when it only counts with something in it.
    excluded_at: Option<usize>,
}

impl Level {
    fn new(directory: Directory, item: Item, excluded_at: Option<usize>) -> Result<Self> {
        let names = directory.names().map_err(Error::io("list", &item.source))?.into_iter();
        Ok(Self { directory: Some(directory), item, names, excluded_at })
    }

    /// The directory, opened again where it was closed.
    fn opened(&mut self, origin: &Origin<'_>) -> Result<&Directory> {
        match &mut self.directory {
            Some(directory) => Ok(directory),
            closed => Ok(closed.insert(origin.tree.directory(&self.item.source)?)),
        }
    }
}

/// A directory and what is below it, parents first. The depth is the context's or an image's: nothing recurses, and few
/// directories are open at once.
fn walk(origin: &Origin<'_>, directory: Directory, root: Item) -> Result<Vec<Item>> {
    let mut items = vec![root.clone()];
    let mut paths = 0_usize;
    let mut levels = vec![Level::new(directory, root, None)?];
    while let Some(level) = levels.last_mut() {
        origin.cancel.check()?;
        let Some(name) = level.names.next() else {
            if level.excluded_at.is_some_and(|at| items.len() == at.saturating_add(1)) {
                items.pop();
            }
            levels.pop();
            continue;
        };
        let source = level.item.source.join(&name);
        let out = excluded(origin, &source);
        if out && !has_exceptions(origin, &source) {
            continue;
        }
        let node = level.opened(origin)?.child(&name).map_err(Error::io("look up", &source))?;
        let Some(node) = node else { continue };
        let item = Item { source, name: level.item.name.join(&name), stat: *node.stat() };
        paths = paths.saturating_add(check_path(origin, &item)?);
        if paths > PATHS_MAX {
            return Err(Error::Invalid(format!(
                "the paths of all that is copied from {} take more than {PATHS_MAX} bytes: copy less at once",
                origin.place
            )));
        }
        match node {
            Node::Leaf(_) if out => {}
            Node::Leaf(_) => items.push(item),
            Node::Directory(below, _) => {
                let at = items.len();
                items.push(item.clone());
                levels.push(Level::new(below, item, out.then_some(at))?);
                if let Some(far) = levels.len().checked_sub(OPEN.saturating_add(1)) {
                    levels.get_mut(far).map(|level| level.directory.take());
                }
            }
        }
    }
    Ok(items)
}

/// Whether something below what is excluded may come back in: nothing that lies deeper than a layer can hold.
fn has_exceptions(origin: &Origin<'_>, path: &Path) -> bool {
    path.as_os_str().len() <= PATH_MAX && origin.ignore.is_some_and(|ignore| ignore.has_exceptions())
}

/// What an item's paths take in memory; an error where no layer can hold it.
fn check_path(origin: &Origin<'_>, item: &Item) -> Result<usize> {
    let length = item.source.as_os_str().len();
    if length <= PATH_MAX {
        return Ok(length.saturating_add(item.name.as_os_str().len()));
    }
    let text = item.source.to_string_lossy();
    let begin: String = text.chars().take(200).collect();
    Err(Error::Invalid(format!(
        "{begin}... in {} has a path of more than {PATH_MAX} bytes, the most that a layer can hold: remove the directories that lie so deep{}",
        origin.place,
        if origin.ignore.is_some() { ", or exclude them by .dockerignore" } else { "" }
    )))
}

/// A hash over names, kinds, modes, owners, sizes, links, devices, attributes and contents.
pub(crate) fn hash(origin: &Origin<'_>, selections: &[Selection], owned: bool) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    for selection in selections {
        field(&mut hasher, &[u8::from(selection.directory)]);
        field(&mut hasher, selection.name.as_os_str().as_encoded_bytes());
        for item in &selection.items {
            origin.cancel.check()?;
            let stat = &item.stat;
            field(&mut hasher, item.name.as_os_str().as_encoded_bytes());
            field(&mut hasher, &stat.st_mode.to_le_bytes());
            if owned {
                field(&mut hasher, &stat.st_uid.to_le_bytes());
                field(&mut hasher, &stat.st_gid.to_le_bytes());
            }
            content(origin, item, &mut hasher)?;
        }
    }
    Ok(hasher.finalize().into())
}

fn content(origin: &Origin<'_>, item: &Item, hasher: &mut Sha256) -> Result<()> {
    let failed = |action| Error::io(action, &item.source);
    let parent = origin.tree.directory(item.source.parent().unwrap_or(Path::new("")))?;
    let name = item.source.file_name().unwrap_or_default();
    match kind(&item.stat) {
        FileType::RegularFile => {
            let mut file = parent.open_file(name).map_err(failed("open"))?;
            for (name, value) in attributes(&file) {
                field(hasher, name.as_bytes());
                field(hasher, &value);
            }
            field(hasher, &digest(origin, &mut file, &item.source)?);
        }
        FileType::Symlink => {
            let target = parent.read_link(name).map_err(failed("read link"))?;
            field(hasher, target.as_os_str().as_encoded_bytes());
        }
        FileType::CharacterDevice | FileType::BlockDevice => field(hasher, &item.stat.st_rdev.to_le_bytes()),
        _ => {}
    }
    Ok(())
}

fn digest(origin: &Origin<'_>, file: &mut File, path: &Path) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        origin.cancel.check()?;
        let read = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if read == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
}

/// A field with its length before it, so that two fields never run into one another.
fn field(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
    hasher.update(bytes);
}

/// The attributes that are copied: file capabilities and the user's own.
pub(crate) fn attributes(file: &impl std::os::fd::AsFd) -> Attributes {
    let mut list = vec![0_u8; 1 << 16];
    let length = rustix::fs::flistxattr(file, list.as_mut_slice()).unwrap_or(0);
    let names = list.get(..length).unwrap_or_default().split(|byte| *byte == 0);
    let mut found = Attributes::new();
    for name in names.filter_map(|name| std::str::from_utf8(name).ok()) {
        if name != "security.capability" && !name.starts_with("user.") {
            continue;
        }
        let mut value = vec![0_u8; 1 << 16];
        if let Ok(length) = rustix::fs::fgetxattr(file, name, value.as_mut_slice()) {
            value.truncate(length);
            found.insert(name.to_owned(), value);
        }
    }
    found
}

//! Which entries a COPY takes, and the hash of all that they say: never their times.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use sha2::{Digest as _, Sha256};

use super::Origin;
use crate::error::{Error, Result};
use crate::glob::{self, Pattern};
use crate::tree::{Directory, Node, kind};

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
                found.extend(one(origin, &path)?);
            }
        } else {
            let literal = clean.replace('\\', "");
            let missing = || Error::Missing { path: source.clone(), place: origin.place.clone() };
            found.push(one(origin, Path::new(&literal))?.ok_or_else(missing)?);
        }
    }
    Ok(found)
}

fn wild(origin: &Origin<'_>, clean: &str, source: &str) -> Result<Vec<PathBuf>> {
    let mut paths = vec![PathBuf::new()];
    for part in clean.split('/').filter(|part| !part.is_empty()) {
        if !glob::is_wild(part) {
            let literal = part.replace('\\', "");
            paths = paths.into_iter().map(|path| path.join(&literal)).collect();
            continue;
        }
        let pattern = Pattern::component(part)
            .ok_or_else(|| Error::Invalid(format!("{source} is no pattern: close its [")))?;
        let mut next = Vec::new();
        for path in paths {
            let Some(Node::Directory(directory, _)) = origin.tree.resolve(&path)?.node else { continue };
            let names = directory.names().map_err(Error::io("list", &path))?;
            let matching = names.iter().filter(|name| pattern.matches(&name.to_string_lossy()));
            next.extend(matching.map(|name| path.join(name)));
        }
        paths = next;
    }
    Ok(paths)
}

/// What a path leads to; none when nothing is there or all of it stays out.
fn one(origin: &Origin<'_>, path: &Path) -> Result<Option<Selection>> {
    let resolved = origin.tree.resolve(path)?;
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
            let mut items = vec![root.clone()];
            walk(origin, &directory, &root, &mut items)?;
            Ok((!out || items.len() > 1).then_some(Selection { directory: true, name, items }))
        }
    }
}

fn excluded(origin: &Origin<'_>, path: &Path) -> bool {
    !path.as_os_str().is_empty() && origin.ignore.is_some_and(|ignore| ignore.excludes(path))
}

fn walk(origin: &Origin<'_>, directory: &Directory, parent: &Item, items: &mut Vec<Item>) -> Result<()> {
    for name in directory.names().map_err(Error::io("list", &parent.source))? {
        let source = parent.source.join(&name);
        let out = excluded(origin, &source);
        if out && !origin.ignore.is_some_and(|ignore| ignore.has_exceptions()) {
            continue;
        }
        let node = directory.child(&name).map_err(Error::io("look up", &source))?;
        let Some(node) = node else { continue };
        let item = Item { source, name: parent.name.join(&name), stat: *node.stat() };
        match node {
            Node::Leaf(_) if out => {}
            Node::Leaf(_) => items.push(item),
            Node::Directory(below, _) => {
                let before = items.len();
                items.push(item.clone());
                walk(origin, &below, &item, items)?;
                if out && items.len() == before.saturating_add(1) {
                    items.pop();
                }
            }
        }
    }
    Ok(())
}

/// A hash over names, kinds, modes, owners, sizes, links, devices, attributes and contents.
pub(crate) fn hash(origin: &Origin<'_>, selections: &[Selection], owned: bool) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    for selection in selections {
        field(&mut hasher, &[u8::from(selection.directory)]);
        field(&mut hasher, selection.name.as_os_str().as_encoded_bytes());
        for item in &selection.items {
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
            field(hasher, &digest(&mut file).map_err(failed("read"))?);
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

fn digest(file: &mut File) -> std::io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
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

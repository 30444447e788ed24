//! The files and directories that the sources of a COPY name.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::origin::{Item, Origin, Selection, Sockets, excluded};
use super::paths::normal;
use crate::error::{Error, Result};
use crate::glob::{self, Pattern};
use crate::tree::{Directory, NAMES_MAX, Node, Resolved, kind};

/// The memory that the matches of the wildcards of one source may take, in bytes.
const MATCHES_MAX: usize = 128 << 20;
/// The memory that a match takes besides its path, in bytes.
const MATCH: usize = 512;

/// Finds the files and directories that the sources name.
pub(crate) fn select(origin: &Origin<'_>, sources: &[String]) -> Result<Vec<Selection>> {
    let mut found = Vec::new();
    for source in sources {
        let clean = normal(source);
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

/// The paths that a pattern matches. The part before its first wildcard must be there, links and all; behind it only real
/// directories are looked into.
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
        let is_last = number.saturating_add(1) == patterns.len();
        let mut next = Matches { paths: Vec::new(), memory: 0 };
        for path in paths {
            let place = if number == 0 { resolve(origin, &path)?.path } else { path };
            let directory = origin.tree.directory(&place)?;
            let fits = |name: &OsStr| {
                Ok(pattern.matches(&name.to_string_lossy()) && (is_last || is_directory(&directory, name)?))
            };
            matching(origin, (&directory, &place), &fits, &mut next)
                .map_err(|error| named_source(source, error))?;
        }
        paths = next.paths;
    }
    Ok(paths)
}

fn named_source(source: &str, error: Error) -> Error {
    match error {
        Error::Invalid(reason) => Error::Invalid(format!("{source}: {reason}")),
        other => other,
    }
}

/// The paths that match so far.
struct Matches {
    paths: Vec<PathBuf>,
    memory: usize,
}

/// Adds the names in a directory that fit, some at a time.
fn matching(
    origin: &Origin<'_>,
    (directory, place): (&Directory, &Path),
    fits: &dyn Fn(&OsStr) -> std::io::Result<bool>,
    matches: &mut Matches,
) -> Result<()> {
    let mut after = None;
    loop {
        origin.cancel.check()?;
        let found = directory.names_after(after.as_deref(), NAMES_MAX).map_err(Error::io("list", place))?;
        after = found.last;
        for name in found.names {
            if fits(&name).map_err(Error::io("look up", place))? {
                let path = place.join(name);
                let cost = path.as_os_str().len().saturating_add(MATCH);
                matches.memory = matches.memory.saturating_add(cost);
                if matches.memory > MATCHES_MAX {
                    let reason =
                        "it matches too many files: copy their directory, or exclude some by .dockerignore";
                    return Err(Error::Invalid(reason.to_owned()));
                }
                matches.paths.push(path);
            }
        }
        if !found.more {
            return Ok(());
        }
    }
}

fn is_directory(directory: &Directory, name: &OsStr) -> std::io::Result<bool> {
    Ok(matches!(directory.child(name)?, Some(Node::Directory(..))))
}

/// Follows a path as if links that stay out were not there.
fn resolve(origin: &Origin<'_>, path: &Path) -> Result<Resolved> {
    origin.tree.resolve_without(path, &|link| excluded(origin, link))
}

/// The file or directory that a path leads to; none when nothing is there or all of it stays out.
fn one(origin: &Origin<'_>, path: &Path) -> Result<Option<Selection>> {
    let resolved = resolve(origin, path)?;
    let name = PathBuf::from(path.file_name().unwrap_or_default());
    let is_out = excluded(origin, &resolved.path);
    let Some(node) = resolved.node else { return Ok(None) };
    let root = Item { source: resolved.path, name: PathBuf::new(), stat: *node.stat() };
    let selection = Selection { directory: matches!(node, Node::Directory(..)), name, root };
    if is_out && (!selection.directory || selection.is_empty(origin)?) {
        return Ok(None);
    }
    Ok(Some(selection))
}

impl Selection {
    /// Whether nothing is taken but the directory itself.
    fn is_empty(&self, origin: &Origin<'_>) -> Result<bool> {
        let second = self.items(origin).nth(1).transpose()?;
        Ok(second.is_none())
    }
}

/// Takes out the sources that are sockets, which no layer can hold.
pub(crate) fn take_sockets(found: &mut Vec<Selection>) -> Sockets {
    let mut sockets = Sockets::default();
    found.retain(|selection| {
        let is_socket = kind(&selection.root.stat) == FileType::Socket;
        if is_socket {
            sockets.add(selection.root.source.clone());
        }
        !is_socket
    });
    sockets
}

//! The tree that a COPY takes from, and the entries in it.

use std::path::{Path, PathBuf};

use rustix::fs::Stat;

use crate::cancel::Cancellation;
use crate::ignore::Ignore;
use crate::tree::Tree;

/// The tree that a COPY takes from.
#[derive(Debug)]
pub(crate) struct Origin<'a> {
    /// The files.
    pub(crate) tree: &'a Tree,
    /// The rules of what stays out.
    pub(crate) ignore: Option<&'a Ignore>,
    /// `the build context`, `stage base`, `image x`.
    pub(crate) place: String,
    /// Gives the copy up.
    pub(crate) cancel: &'a Cancellation,
}

/// One file or directory to copy.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Its path in the origin's tree, without links on the way.
    pub(crate) source: PathBuf,
    /// Its path below where the selection lands; empty for the directory whose contents are copied.
    pub(crate) name: PathBuf,
    /// Its status in the origin.
    pub(crate) stat: Stat,
}

/// A file or directory that a source leads to. What is in a directory is walked whenever it is needed
/// (`walk`): a list of it could take any amount of memory.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Whether the source is a directory, whose contents are taken.
    pub(crate) directory: bool,
    /// The file's own name.
    pub(crate) name: PathBuf,
    /// The file, or the directory.
    pub(crate) root: Item,
}

/// Sockets, which no layer can hold and which are left out.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// The first one's path.
    pub(crate) first: Option<PathBuf>,
    /// How many there are.
    pub(crate) count: usize,
}

impl Sockets {
    pub(super) fn add(&mut self, path: PathBuf) {
        self.first.get_or_insert(path);
        self.count = self.count.saturating_add(1);
    }

    pub(super) fn extend(&mut self, others: Self) {
        self.count = self.count.saturating_add(others.count);
        self.first = self.first.take().or(others.first);
    }
}

/// Whether the rules of an origin keep a path out.
pub(super) fn excluded(origin: &Origin<'_>, path: &Path) -> bool {
    !path.as_os_str().is_empty() && origin.ignore.is_some_and(|ignore| ignore.excludes(path))
}

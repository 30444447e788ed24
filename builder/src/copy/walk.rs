//! A walk over what a COPY takes, parents first and names in order, in bounded memory: the tree is a client's or an image's,
//! of any depth, with any number of entries in a directory.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use rustix::fs::FileType;

use super::origin::{Item, Origin, Selection, Sockets, excluded};
use crate::error::{Error, Result};
use crate::tree::{Directory, NAMES_MAX, Node, kind};

/// The longest path that a layer can hold: no path that a process gives the kernel is longer.
const PATH_MAX: usize = 4095;
/// How many directories are open at once; those above are opened again when the walk comes back to them.
const OPEN: usize = 16;
/// A walk; it ends with its first error.
pub(crate) struct Walk<'a> {
    origin: &'a Origin<'a>,
    levels: Vec<Level>,
    /// The memory that the names of all levels take, in bytes. Those of one directory take `names_max` at most; where all
    /// take twice that, those of the topmost are dropped, and read again when the walk comes back to them.
    held: usize,
    names_max: usize,
    /// Items that are found: also the excluded directories above one that is not.
    ready: VecDeque<Item>,
    sockets: Sockets,
}

/// A directory that is being walked.
struct Level {
    /// Absent while it is closed.
    directory: Option<Directory>,
    item: Item,
    /// Some of the names to come, and the memory that they took when they were read.
    names: std::vec::IntoIter<OsString>,
    held: usize,
    /// The last name that was taken, and the last one that was read.
    taken: Option<OsString>,
    last: Option<OsString>,
    /// Whether there are names behind those.
    more: bool,
    /// It is excluded, and only counts with something in it.
    waits: bool,
}

impl Selection {
    /// The file, or the directory and what is below it, without what stays out.
    pub(crate) fn items<'a>(&self, origin: &'a Origin<'a>) -> Walk<'a> {
        self.items_by(origin, NAMES_MAX)
    }

    fn items_by<'a>(&self, origin: &'a Origin<'a>, names_max: usize) -> Walk<'a> {
        let mut walk = Walk {
            origin,
            levels: Vec::new(),
            held: 0,
            names_max,
            ready: VecDeque::from([self.root.clone()]),
            sockets: Sockets::default(),
        };
        if self.directory {
            walk.levels.push(Level::new(None, self.root.clone(), false));
        }
        walk
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        let next = self.advance();
        if next.is_err() {
            self.levels.clear();
        }
        next.transpose()
    }
}

impl Walk<'_> {
    /// The sockets that were met.
    pub(super) fn sockets(self) -> Sockets {
        self.sockets
    }

    fn advance(&mut self) -> Result<Option<Item>> {
        loop {
            self.origin.cancel.check()?;
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            let Some(name) = self.next_name()? else {
                match self.levels.pop() {
                    Some(level) => self.held = self.held.saturating_sub(level.held),
                    None => return Ok(None),
                }
                continue;
            };
            self.entry(&name)?;
        }
    }

    /// The next name in the deepest directory; none at its end.
    fn next_name(&mut self) -> Result<Option<OsString>> {
        let Some(level) = self.levels.last_mut() else { return Ok(None) };
        loop {
            if let Some(name) = level.names.next() {
                level.taken = Some(name.clone());
                return Ok(Some(name));
            }
            self.held = self.held.saturating_sub(std::mem::take(&mut level.held));
            if !level.more {
                return Ok(None);
            }
            level.read(self.origin, self.names_max)?;
            self.held = self.held.saturating_add(level.held);
        }
    }

    /// Looks at a name in the deepest directory.
    fn entry(&mut self, name: &OsStr) -> Result<()> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let source = level.item.source.join(name);
        let is_out = excluded(self.origin, &source);
        if is_out && !has_exceptions(self.origin, &source) {
            return Ok(());
        }
        let node = level.opened(self.origin)?.child(name).map_err(Error::io("look up", &source))?;
        let Some(node) = node else { return Ok(()) };
        let item = Item { source, name: level.item.name.join(name), stat: *node.stat() };
        check_path(self.origin, &item)?;
        match node {
            Node::Leaf(_) if is_out => {}
            Node::Leaf(stat) if kind(&stat) == FileType::Socket => self.sockets.add(item.source),
            Node::Leaf(_) => self.found(item),
            Node::Directory(below, _) => {
                if !is_out {
                    self.found(item.clone());
                }
                self.levels.push(Level::new(Some(below), item, is_out));
                self.let_go();
            }
        }
        Ok(())
    }

    /// Gives an item, after the excluded directories above it that had waited for one.
    fn found(&mut self, item: Item) {
        for level in self.levels.iter_mut().filter(|level| level.waits) {
            level.waits = false;
            self.ready.push_back(level.item.clone());
        }
        self.ready.push_back(item);
    }

    /// Closes the directories that are far above, and drops names where there are too many.
    fn let_go(&mut self) {
        if let Some(far) = self.levels.len().checked_sub(OPEN.saturating_add(1)) {
            self.levels.get_mut(far).map(|level| level.directory.take());
        }
        let mut above = self.levels.iter_mut();
        while self.held > self.names_max.saturating_mul(2) {
            let Some(level) = above.next() else { return };
            if level.names.len() > 0 {
                (level.more, level.last) = (true, level.taken.clone());
                level.names = Vec::new().into_iter();
            }
            self.held = self.held.saturating_sub(std::mem::take(&mut level.held));
        }
    }
}

impl Level {
    fn new(directory: Option<Directory>, item: Item, waits: bool) -> Self {
        Self {
            directory,
            item,
            names: Vec::new().into_iter(),
            held: 0,
            taken: None,
            last: None,
            more: true,
            waits,
        }
    }

    /// The directory, opened again where it was closed.
    fn opened(&mut self, origin: &Origin<'_>) -> Result<&Directory> {
        match &mut self.directory {
            Some(directory) => Ok(directory),
            closed => Ok(closed.insert(origin.tree.directory(&self.item.source)?)),
        }
    }

    /// Reads the names that follow the last one.
    fn read(&mut self, origin: &Origin<'_>, most: usize) -> Result<()> {
        let last = self.last.take();
        let found = self.opened(origin)?.names_after(last.as_deref(), most);
        let found = found.map_err(Error::io("list", &self.item.source))?;
        (self.names, self.held) = (found.names.into_iter(), found.memory);
        (self.more, self.last) = (found.more, found.last);
        Ok(())
    }
}

/// Whether something below what is excluded may come back in: nothing that lies deeper than a layer can hold.
fn has_exceptions(origin: &Origin<'_>, path: &Path) -> bool {
    path.as_os_str().len() <= PATH_MAX && origin.ignore.is_some_and(|ignore| ignore.has_exceptions())
}

/// Refuses an item whose path no layer can hold.
fn check_path(origin: &Origin<'_>, item: &Item) -> Result<()> {
    if item.source.as_os_str().len() <= PATH_MAX {
        return Ok(());
    }
    let text = item.source.to_string_lossy();
    let begin: String = text.chars().take(200).collect();
    Err(Error::Invalid(format!(
        "{begin}... in {} has a path of more than {PATH_MAX} bytes, the most that a layer can hold: remove the directories that lie so deep{}",
        origin.place,
        if origin.ignore.is_some() { ", or exclude them by .dockerignore" } else { "" }
    )))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::select::select;
    use super::*;
    use crate::cancel::Cancellation;
    use crate::ignore::Ignore;
    use crate::tree::Tree;

    /// Three levels of directories with files, sockets and more directories in each.
    fn fill(directory: &Path, levels: usize) {
        for number in 0..4 {
            std::fs::write(directory.join(format!("file{number}")), "").unwrap();
        }
        std::os::unix::net::UnixListener::bind(directory.join("socket")).unwrap();
        for number in (0..3).filter(|_| levels > 0) {
            let below = directory.join(format!("d{number}"));
            std::fs::create_dir(&below).unwrap();
            fill(&below, levels - 1);
        }
    }

    fn walked(context: &Path, rules: &str, names_max: usize) -> (Vec<String>, usize) {
        let tree = Tree::open(&[context.to_owned()]).unwrap();
        let ignore = Ignore::parse(".dockerignore", rules.as_bytes()).unwrap();
        let cancel = &Cancellation::default();
        let origin = Origin { tree: &tree, ignore: Some(&ignore), place: "the build context".into(), cancel };
        let found = select(&origin, &["/".to_owned()]).unwrap();
        let mut walk = found[0].items_by(&origin, names_max);
        let items = walk.by_ref().map(|item| item.unwrap().source.display().to_string()).collect();
        (items, walk.sockets().count)
    }

    /// A list of all that a COPY takes could have any size; names that are dropped on the way are read again.
    #[test]
    fn little_memory_gives_the_same_walk_as_much() {
        let context = tempfile::Builder::new().prefix("w").tempdir_in("/tmp").unwrap();
        fill(context.path(), 3);
        let (all, sockets) = walked(context.path(), "", NAMES_MAX);
        assert_eq!((all.len(), sockets), (40 * 4 + 40, 40));
        let mut sorted: Vec<_> = all.iter().map(PathBuf::from).collect();
        sorted.sort();
        assert!(all.iter().map(PathBuf::from).eq(sorted), "parents first, names in order");
        for names_max in [1, 150, 400, 1000] {
            assert_eq!(walked(context.path(), "", names_max), (all.clone(), sockets), "{names_max}");
        }
    }

    #[test]
    fn an_excluded_directory_comes_with_what_comes_back_in_alone() {
        let context = tempfile::Builder::new().prefix("w").tempdir_in("/tmp").unwrap();
        fill(context.path(), 2);
        for names_max in [1, NAMES_MAX] {
            let (items, sockets) = walked(context.path(), "*\n!d1/d0/file2\n!d2/socket", names_max);
            assert_eq!((items, sockets), (["", "d1", "d1/d0", "d1/d0/file2"].map(str::to_owned).to_vec(), 1));
        }
    }
}

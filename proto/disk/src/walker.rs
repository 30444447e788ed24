//! Walks over trees that containers, builds and images wrote, and that a live container may change meanwhile.
//!
//! A [`Walker`] visits every entry below a directory, depth first, and holds to these rules whatever the tree looks like:
//! - Each directory is opened by its name in its parent's descriptor, never through a symbolic link, and by default never
//!   across a mount point. Paths are only shown, not resolved, so that they may be longer than `PATH_MAX`.
//! - Nothing recurses. At most [`DESCRIPTORS`] directories are open at once, however deep the tree is: the levels between
//!   the first and the last ones are closed and are opened again through `..`, which counts only if device and inode are
//!   those of the directory that the walk came from. Where they are not, a live container has moved a directory: the walk
//!   reports [`Error::Moved`] and goes on in the nearest directory above that is still open.
//! - Memory is bounded: a directory's names are read in pieces, also in sorted order.
//! - The walk stops at the next entry once [`Options::stop`] says so.
//!
//! [`remove`] removes a tree, [`usage`] adds up what it takes.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

mod level;
mod removal;
mod sweep;
mod usage;

pub use removal::{remove, remove_tree};
pub use sweep::{Remnants, told};
pub use usage::{Usage, usage};

use level::Level;

/// How many directories a walk has open at most.
pub const DESCRIPTORS: usize = HEAD + TAIL;
/// The first levels stay open: where a live container moves directories deep down, the walk goes on from one of these.
const HEAD: usize = 16;
/// The last levels stay open, so that a tree of ordinary depth is never opened twice.
const TAIL: usize = 48;
/// The longest path that a walk follows, in bytes: 250,000 levels of the longest names.
const PATH_LIMIT: usize = 64 << 20;
/// The deepest level that a walk enters.
const DEPTH_LIMIT: usize = 1 << 20;
/// Names of directories that wait in memory, in bytes with what each takes besides, before those of the outer levels are
/// dropped and read again later.
const NAMES_LIMIT: usize = 48 << 20;

/// Asked at each entry; true ends the walk with [`Error::Stopped`].
pub type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// Never stops.
pub fn never() -> bool {
    false
}

/// An error of an entry or directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{action} {path}")]
    Io {
        /// The action, as a verb phrase.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it can't be.
        source: io::Error,
    },
    /// A directory is no longer where the walk found it.
    #[error("{path} was moved while it was read")]
    Moved {
        /// Where it was.
        path: PathBuf,
    },
    /// The tree is deeper than anything that is walked.
    #[error("{path} lies deeper than {DEPTH_LIMIT} levels or {PATH_LIMIT} bytes of path: remove it")]
    TooDeep {
        /// The beginning of the path.
        path: PathBuf,
    },
    /// [`Options::stop`] said so.
    #[error("it was stopped")]
    Stopped,
}

impl Error {
    /// The action, its path and the system's answer: the shape that every crate's own error has.
    #[must_use]
    pub fn into_parts(self) -> (&'static str, PathBuf, io::Error) {
        match self {
            Self::Io { action, path, source } => (action, path, source),
            Self::Moved { path } => ("read", path, io::Error::other("it was moved meanwhile")),
            Self::TooDeep { path } => {
                let reason =
                    format!("it lies deeper than {DEPTH_LIMIT} levels or {PATH_LIMIT} bytes of path");
                ("read", path, io::Error::other(reason))
            }
            Self::Stopped => ("read", PathBuf::new(), io::Error::from(io::ErrorKind::Interrupted)),
        }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(Errno) -> Self {
        let path = path.into();
        move |errno| Self::Io { action, path, source: errno.into() }
    }
}

/// The options of a walk.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Options<'a> {
    /// Visit the entries of each directory in the order of their bytes: the order of tars and hashes. A directory that is
    /// too large to be sorted in memory is read several times.
    pub sorted: bool,
    /// Enter what is mounted in the tree.
    pub cross_mounts: bool,
    /// Asked at each entry whether to stop.
    pub stop: Stop<'a>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { sorted: false, cross_mounts: false, stop: &never }
    }
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Options")
            .field("sorted", &self.sorted)
            .field("cross_mounts", &self.cross_mounts)
            .finish_non_exhaustive()
    }
}

impl<'a> Options<'a> {
    /// In no order, within one mount, until `stop` says so.
    #[must_use]
    pub fn until(stop: Stop<'a>) -> Self {
        Self { stop, ..Self::default() }
    }

    /// The same in the order of bytes.
    #[must_use]
    pub fn sorted(self) -> Self {
        Self { sorted: true, ..self }
    }
}

/// The place that the walk has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An entry of the current directory: [`Walker::name`], [`Walker::kind`]. [`Walker::enter`] visits what is below it.
    Found,
    /// All entries of a directory that was entered are visited: it is [`Walker::directory`] and [`Walker::path`] once more.
    Left,
}

/// A walk over the entries below a directory.
///
/// ```no_run
/// # use slipway_disk::walker::{Options, Step, Walker};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut walker = Walker::open("/var/lib/x".as_ref(), Options::default())?;
/// while let Some(step) = walker.next()? {
///     if step == Step::Found && walker.is_directory()? {
///         walker.enter()?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Walker<'a> {
    options: Options<'a>,
    top: PathBuf,
    levels: Vec<Level>,
    /// The path of the current entry or directory, relative to the top; each level knows where its own ends.
    path: Vec<u8>,
    kind: FileType,
    /// Whether the directory on top of the stack is to be left by the next step.
    leaving: bool,
    /// Memory that the names of all levels take.
    names: usize,
}

impl<'a> Walker<'a> {
    /// A walk over what is below a directory. Its own last name may not be a symbolic link.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(top: &Path, options: Options<'a>) -> Result<Self, Error> {
        let opened = rustix::fs::open(top, FLAGS, Mode::empty()).map_err(Error::io("open", top))?;
        Self::of(opened, top, options)
    }

    /// A walk over what is below an open directory, which errors call `top`. The descriptor's position is used.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn of(directory: OwnedFd, top: &Path, options: Options<'a>) -> Result<Self, Error> {
        let level = Level::new(directory, 0).map_err(Error::io("read", top))?;
        Ok(Self {
            options,
            top: top.to_owned(),
            levels: vec![level],
            path: Vec::new(),
            kind: FileType::Unknown,
            leaving: false,
            names: 0,
        })
    }

    /// Goes on to the next entry, or out of a directory whose entries are all visited; none when all is visited. After an
    /// error the walk can go on: the rest of the directory that can't be read is passed over.
    ///
    /// # Errors
    /// [`Error::Stopped`], [`Error::Moved`], and what the kernel says of a directory.
    #[expect(
        clippy::should_implement_trait,
        reason = "what it gives is read from the walker, which an iterator would borrow"
    )]
    pub fn next(&mut self) -> Result<Option<Step>, Error> {
        if (self.options.stop)() {
            return Err(Error::Stopped);
        }
        if std::mem::take(&mut self.leaving) {
            self.go_up()?;
        }
        let is_top = self.levels.len() == 1;
        let Some(level) = self.levels.last_mut() else { return Ok(None) };
        let child = self.path.get(level.end..).unwrap_or_default();
        let found =
            if self.options.sorted { level.next_sorted(child, &mut self.names) } else { level.next() };
        self.path.truncate(level.end);
        match found {
            Ok(Some((name, kind))) => {
                if level.end > 0 {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(&name);
                self.kind = kind;
                Ok(Some(Step::Found))
            }
            Ok(None) if is_top => Ok(None),
            Ok(None) => {
                self.leaving = true;
                self.kind = FileType::Directory;
                Ok(Some(Step::Left))
            }
            Err(errno) => {
                level.exhaust(&mut self.names);
                Err(Error::io("read", self.shown())(errno))
            }
        }
    }

    /// Goes down into the directory that was just found.
    ///
    /// # Errors
    /// When it is no directory any more, lies on another mount, or can't be opened; and [`Error::TooDeep`].
    pub fn enter(&mut self) -> Result<(), Error> {
        if self.path.len() > PATH_LIMIT || self.levels.len() > DEPTH_LIMIT {
            return Err(Error::TooDeep { path: self.shown() });
        }
        let opened = self.open_found().and_then(|directory| Level::new(directory, self.path.len()));
        let level = opened.map_err(|errno| Error::io("open", self.shown())(errno))?;
        self.levels.push(level);
        let closed = self.levels.len().checked_sub(TAIL + 1).filter(|index| *index >= HEAD);
        if let Some(level) = closed.and_then(|index| self.levels.get_mut(index)) {
            level.close();
        }
        self.spare_names();
        Ok(())
    }

    fn open_found(&self) -> Result<OwnedFd, Errno> {
        let directory = self.descriptor().ok_or(Errno::STALE)?;
        let crossing = if self.options.cross_mounts { ResolveFlags::empty() } else { ResolveFlags::NO_XDEV };
        open_below(directory, self.name(), crossing)
    }

    /// The name of the current entry or directory.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        let name = self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        OsStr::from_bytes(name)
    }

    /// The path of the current entry or directory, relative to where the walk began.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The kind of the entry by its directory; `Unknown` where the file system does not say.
    #[must_use]
    pub fn kind(&self) -> FileType {
        self.kind
    }

    /// The directory in which the current entry was found; after [`Step::Left`] the one that is left.
    ///
    /// # Errors
    /// [`Error::Moved`] for a directory that is left and was lost on the way.
    pub fn directory(&self) -> Result<BorrowedFd<'_>, Error> {
        self.descriptor().ok_or_else(|| Error::Moved { path: self.shown() })
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.levels.last().and_then(Level::descriptor)
    }

    /// The status of the current entry, not following it.
    ///
    /// # Errors
    /// When it is gone by now, and others of `statat(2)`.
    pub fn stat(&self) -> Result<Stat, Error> {
        let stat = rustix::fs::statat(self.directory()?, self.name(), AtFlags::SYMLINK_NOFOLLOW);
        stat.map_err(|errno| Error::io("read", self.shown())(errno))
    }

    /// Whether the current entry is a directory; asks the kernel where the directory does not say.
    ///
    /// # Errors
    /// As [`Walker::stat`].
    pub fn is_directory(&self) -> Result<bool, Error> {
        match self.kind {
            FileType::Unknown => Ok(FileType::from_raw_mode(self.stat()?.st_mode) == FileType::Directory),
            kind => Ok(kind == FileType::Directory),
        }
    }

    /// The whole path of the current entry, to be shown: one that is longer than any path may be is cut.
    #[must_use]
    pub fn shown(&self) -> PathBuf {
        show(&self.top, &self.path)
    }

    /// Leaves the directory on top of the stack.
    fn go_up(&mut self) -> Result<(), Error> {
        let Some(left) = self.levels.pop() else { return Ok(()) };
        self.names -= left.held();
        let Some(above) = self.levels.last_mut() else { return Ok(()) };
        if above.descriptor().is_some() {
            return Ok(());
        }
        let Some(below) = left.descriptor() else {
            // Lost with the directory below, which was told of.
            above.exhaust(&mut self.names);
            return Ok(());
        };
        if above.reopen(below).is_err() {
            above.exhaust(&mut self.names);
            return Err(Error::Moved { path: self.shown() });
        }
        Ok(())
    }

    /// Drops the names that wait in the outer levels while all take too much memory; they are read again later.
    fn spare_names(&mut self) {
        let mut levels = self.levels.iter_mut().filter(|level| level.held() > 0);
        while self.names > NAMES_LIMIT {
            let Some(level) = levels.next() else { return };
            self.names -= level.drop_names();
        }
    }
}

/// How directories are opened.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory by its name in its parent, never through a link.
fn open_below(parent: BorrowedFd<'_>, name: &OsStr, more: ResolveFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | more;
    crate::openat2(parent, name, FLAGS, Mode::empty(), resolve)
}

/// A path to be shown. A whole one may have megabytes.
fn show(top: &Path, path: &[u8]) -> PathBuf {
    const LONGEST: usize = 1024;
    if path.len() <= LONGEST {
        return top.join(OsStr::from_bytes(path));
    }
    let mut cut = path.get(..LONGEST).unwrap_or_default().to_vec();
    cut.extend_from_slice(format!("... ({} bytes)", path.len()).as_bytes());
    top.join(OsString::from_vec(cut))
}

#[cfg(test)]
mod tests;

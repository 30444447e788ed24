//! Removes a tree of any depth. A directory that lies deep is renamed to the top of the tree and removed from there, so that each
//! directory is visited once and no more than [`DEPTH`] of them are open.

use std::ffi::{CString, OsStr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Error, Stop, never, open_below};

/// How many levels of the tree are open at once.
const DEPTH: usize = 64;

/// Removes a file, or a directory with all below it, as [`remove`] does; nothing stops it.
///
/// # Errors
/// The first of what could not be removed; what does not exist is fine.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    remove(path, &never)
}

/// Removes a file, or a directory with all below it; what does not exist is fine. It never follows a link and never
/// enters a mount. It removes all that can be removed and returns the first error, which names what could not be: an
/// immutable file, for example, or a mount point. A further call tries again.
///
/// Memory and descriptors do not depend on the size and depth of the tree. A `PATH_MAX` does not apply, nor does a full
/// disk hinder it.
///
/// # Errors
/// [`Error::Stopped`] once `stop` says so, else the first of what could not be removed.
pub fn remove(path: &Path, stop: Stop<'_>) -> Result<(), Error> {
    let failed = |action| Error::io(action, path);
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed("remove")(Errno::INVAL));
    };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = match rustix::fs::open(above, flags, Mode::empty()) {
        Ok(above) => above,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed("remove")(errno)),
    };
    let name = CString::new(name.as_bytes()).map_err(|_| failed("remove")(Errno::INVAL))?;
    match unlink(as_fd(&above), &name) {
        Ok(Unlinked::Gone) => Ok(()),
        Ok(Unlinked::Directory) => directory(&above, &name, path, stop),
        Err(errno) => Err(failed("remove")(errno)),
    }
}

fn directory(above: &OwnedFd, name: &CString, path: &Path, stop: Stop<'_>) -> Result<(), Error> {
    let failed = |action| Error::io(action, path);
    let top = match open_below(as_fd(above), OsStr::from_bytes(name.to_bytes()), ResolveFlags::NO_XDEV) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed("open")(errno)),
    };
    let mut removal = Removal { top, shown: path, stop, first: None, progress: true, flattened: 0 };
    // Each pass but the last one removes or moves something, so that they come to an end.
    while std::mem::take(&mut removal.progress) {
        removal.pass()?;
        match rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => {
                removal.first.get_or_insert_with(|| failed("remove")(errno));
            }
        }
    }
    Err(removal.first.unwrap_or_else(|| failed("remove")(Errno::NOTEMPTY)))
}

enum Unlinked {
    Gone,
    Directory,
}

/// Removes a name that may be a directory's.
fn unlink(parent: BorrowedFd<'_>, name: &CString) -> Result<Unlinked, Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(Unlinked::Gone),
        Err(Errno::ISDIR) => Ok(Unlinked::Directory),
        Err(errno) => {
            // An immutable directory, and a directory on some file systems, is refused by EPERM.
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
            let is_directory =
                stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
            if is_directory { Ok(Unlinked::Directory) } else { Err(errno) }
        }
    }
}

struct Removal<'a> {
    top: OwnedFd,
    shown: &'a Path,
    stop: Stop<'a>,
    first: Option<Error>,
    /// Whether the pass has removed or moved anything.
    progress: bool,
    flattened: u64,
}

/// A directory that is being emptied.
struct Frame {
    stream: Dir,
    /// Its name in the one before; empty for the top.
    name: CString,
    /// Whether something in it stays, so that it stays too.
    stays: bool,
}

impl Frame {
    fn descriptor(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.stream.fd()
    }
}

impl Removal<'_> {
    /// Goes once through all that is below the top.
    fn pass(&mut self) -> Result<(), Error> {
        let stream = Dir::read_from(&self.top).map_err(Error::io("read", self.shown))?;
        let mut frames = vec![Frame { stream, name: CString::default(), stays: false }];
        while let Some(frame) = frames.last_mut() {
            if (self.stop)() {
                return Err(Error::Stopped);
            }
            match frame.stream.read() {
                None => self.leave(&mut frames),
                Some(Ok(entry)) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Some(Ok(entry)) => {
                    let (name, kind) = (entry.file_name().to_owned(), entry.file_type());
                    self.entry(&mut frames, name, kind);
                }
                Some(Err(errno)) => {
                    self.note("read", &frames, None, errno);
                    stay(&mut frames);
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, frames: &mut Vec<Frame>, name: CString, kind: FileType) {
        let Some(Ok(parent)) = frames.last().map(Frame::descriptor) else { return };
        let gone = match kind {
            FileType::Directory => Ok(Unlinked::Directory),
            _ => unlink(parent, &name),
        };
        let depth = frames.len();
        let moved = match gone {
            Ok(Unlinked::Gone) => Ok(None),
            Ok(Unlinked::Directory) if depth < DEPTH => descend(parent, &name).map(Some),
            Ok(Unlinked::Directory) => self.flatten(parent, &name).map(|()| None),
            Err(errno) => Err(("remove", errno)),
        };
        match moved {
            Ok(None) => self.progress = true,
            Ok(Some(stream)) => frames.push(Frame { stream, name, stays: false }),
            // Gone, or no directory any more: the next pass sees.
            Err((_, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {}
            Err((action, errno)) => {
                self.note(action, frames, Some(&name), errno);
                stay(frames);
            }
        }
    }

    /// Moves a directory that lies deep to the top of the tree, where a later pass finds it.
    fn flatten(&mut self, parent: BorrowedFd<'_>, name: &CString) -> Result<(), (&'static str, Errno)> {
        loop {
            self.flattened += 1;
            let flat = format!(".removed-{}", self.flattened);
            match rustix::fs::renameat_with(parent, name, &self.top, flat, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                other => return other.map_err(|errno| ("move", errno)),
            }
        }
    }

    /// All of a directory is visited: it goes, unless something in it stays.
    fn leave(&mut self, frames: &mut Vec<Frame>) {
        let Some(left) = frames.pop() else { return };
        let Some(Ok(parent)) = frames.last().map(Frame::descriptor) else { return };
        if left.stays {
            return;
        }
        match rustix::fs::unlinkat(parent, &left.name, AtFlags::REMOVEDIR) {
            Ok(()) => self.progress = true,
            // Entries that came, or that the file system passed over while others went: the next pass sees them.
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            Err(errno) => {
                self.note("remove", frames, Some(&left.name), errno);
                stay(frames);
            }
        }
    }

    fn note(&mut self, action: &'static str, frames: &[Frame], name: Option<&CString>, errno: Errno) {
        let names = frames.iter().map(|frame| &frame.name).chain(name);
        let shown = || {
            let names = names.filter(|name| !name.is_empty()).map(|name| OsStr::from_bytes(name.to_bytes()));
            let mut path: PathBuf = self.shown.to_owned();
            path.extend(names);
            path
        };
        if self.first.is_none() {
            self.first = Some(Error::io(action, shown())(errno));
        }
    }
}

/// Something in the last of these directories stays.
fn stay(frames: &mut [Frame]) {
    frames.iter_mut().for_each(|frame| frame.stays = true);
}

fn descend(parent: BorrowedFd<'_>, name: &CString) -> Result<Dir, (&'static str, Errno)> {
    let name = OsStr::from_bytes(name.to_bytes());
    open_below(parent, name, ResolveFlags::NO_XDEV).and_then(Dir::new).map_err(|errno| match errno {
        Errno::XDEV => ("remove what is mounted on", Errno::BUSY),
        errno => ("open", errno),
    })
}

fn as_fd(fd: &OwnedFd) -> BorrowedFd<'_> {
    use std::os::fd::AsFd as _;
    fd.as_fd()
}

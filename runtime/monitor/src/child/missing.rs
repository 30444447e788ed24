//! Making what is missing on a path whose links dangle, inside of the container's root: for mounts on links that a volume
//! holds. All of it is on the stack.

use crate::sys::file::{How, resolve};
use crate::sys::{Error, Result, file};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// As many links as the kernel follows.
const LINKS: u8 = 40;
/// The longest path, its NUL included.
const LENGTH: usize = 4096;

/// The last name of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Directory { mode: u32 },
    File { mode: u32 },
}

/// Follows a path name by name, and makes a directory of each that is missing, or a file of the last. Links lead inside of
/// the root, those of proc nowhere. What others change meanwhile can only make it fail: every name is resolved again inside
/// of the root, and no link is followed by the kernel.
pub(super) fn make(root: BorrowedFd<'_>, path: &CStr, last: Last) -> Result<()> {
    let mut left = Left::new();
    left.prepend(path.to_bytes())?;
    let mut at = Found::new();
    let mut links = 0;
    while at.advance(&mut left)? {
        let is_last = left.is_empty();
        let found = match open(root, at.path()?, libc::O_NOFOLLOW) {
            Err(error) if error.errno == libc::ENOENT => {
                make_one(root, &at, if is_last { last } else { Last::Directory { mode: 0o755 } })?;
                continue;
            }
            found => found?,
        };
        if !file::fstat(found.as_fd())?.is(libc::S_IFLNK) {
            continue;
        }
        links += 1;
        if links > LINKS || file::is_proc(found.as_fd())? {
            return Err(Error { call: "follow the link", errno: libc::ELOOP });
        }
        let mut target = [0_u8; LENGTH];
        let length = file::readlinkat(found.as_fd(), c"", &mut target)?;
        let target = target.get(..length).unwrap_or_default();
        at.leave(target.first() == Some(&b'/'));
        left.prepend(target)?;
    }
    Ok(())
}

fn open(root: BorrowedFd<'_>, path: &CStr, flags: i32) -> Result<OwnedFd> {
    let resolve = resolve::IN_ROOT | resolve::NO_MAGICLINKS | resolve::NO_SYMLINKS;
    file::openat2(root, path, How { flags: libc::O_PATH | flags, mode: 0, resolve })
}

fn make_one(root: BorrowedFd<'_>, at: &Found, last: Last) -> Result<()> {
    let mut above = Found::new();
    above.copy(at.parent())?;
    let parent = open(root, above.path()?, libc::O_DIRECTORY)?;
    let name = at.name()?;
    unless_there(make_in(parent.as_fd(), name, last))
}

/// Makes a name in a directory; one that is there is an error.
pub(super) fn make_in(directory: BorrowedFd<'_>, name: &CStr, last: Last) -> Result<()> {
    match last {
        Last::Directory { mode } => file::mkdirat(directory, name, mode),
        Last::File { mode } => {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_RDONLY;
            file::openat(directory, name, flags, mode).map(drop)
        }
    }
}

const TOO_LONG: Error = Error { call: "follow the link", errno: libc::ENAMETOOLONG };

/// The names that are still to be followed, at the end of their room, so that a link's target goes before them.
struct Left {
    bytes: [u8; LENGTH],
    start: usize,
}

impl Left {
    fn new() -> Self {
        Self { bytes: [0; LENGTH], start: LENGTH }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Whether no name is left.
    fn is_empty(&self) -> bool {
        self.rest().iter().all(|byte| *byte == b'/')
    }

    fn prepend(&mut self, path: &[u8]) -> Result<()> {
        let start = self.start.checked_sub(path.len() + 1).ok_or(TOO_LONG)?;
        let room = self.bytes.get_mut(start..self.start).ok_or(TOO_LONG)?;
        for (place, byte) in room.iter_mut().zip(path.iter().chain(b"/")) {
            *place = *byte;
        }
        self.start = start;
        Ok(())
    }

    /// The bounds of the first name, which is left behind.
    fn take(&mut self) -> Option<(usize, usize)> {
        let skipped = self.rest().iter().position(|byte| *byte != b'/')?;
        let begin = self.start + skipped;
        let name = self.bytes.get(begin..)?;
        let end = begin + name.iter().position(|byte| *byte == b'/').unwrap_or(name.len());
        self.start = end;
        Some((begin, end))
    }
}

/// A path below the root without links; empty is the root.
struct Found {
    bytes: [u8; LENGTH],
    length: usize,
}

impl Found {
    fn new() -> Self {
        Self { bytes: [0; LENGTH], length: 0 }
    }

    /// Goes on by one name; whether there was one.
    fn advance(&mut self, left: &mut Left) -> Result<bool> {
        while let Some((begin, end)) = left.take() {
            match left.bytes.get(begin..end).unwrap_or_default() {
                b"." => {}
                b".." => self.leave(false),
                name => {
                    if self.length > 0 {
                        self.push(b"/")?;
                    }
                    self.push(name)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Goes back to the directory above, or to the root.
    fn leave(&mut self, for_the_root: bool) {
        let length = if for_the_root { 0 } else { self.parent().len() };
        if let Some(gone) = self.bytes.get_mut(length..) {
            gone.fill(0);
        }
        self.length = length;
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.length + bytes.len();
        // One byte is left for the NUL.
        if end >= LENGTH {
            return Err(TOO_LONG);
        }
        for (place, byte) in self.bytes.iter_mut().skip(self.length).zip(bytes) {
            *place = *byte;
        }
        self.length = end;
        Ok(())
    }

    fn copy(&mut self, path: &[u8]) -> Result<()> {
        self.leave(true);
        self.push(if path.is_empty() { b"." } else { path })
    }

    fn whole(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn parent(&self) -> &[u8] {
        let cut = self.whole().iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.bytes.get(..cut).unwrap_or_default()
    }

    fn path(&self) -> Result<&CStr> {
        CStr::from_bytes_until_nul(&self.bytes).map_err(|_| TOO_LONG)
    }

    fn name(&self) -> Result<&CStr> {
        let begin = self.whole().iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        CStr::from_bytes_until_nul(self.bytes.get(begin..).unwrap_or_default()).map_err(|_| TOO_LONG)
    }
}

/// The result of making an entry, for which one that exists already is as good.
pub(super) fn unless_there(made: Result<()>) -> Result<()> {
    match made {
        Err(error) if error.errno == libc::EEXIST => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn make_in(root: &Path, path: &str, last: Last) -> Result<()> {
        let opened = std::fs::File::open(root).map_err(|_| TOO_LONG)?;
        make(opened.as_fd(), &CString::new(path).map_err(|_| TOO_LONG)?, last)
    }

    #[test]
    fn links_lead_inside_of_the_root_and_what_they_name_is_made() -> std::io::Result<()> {
        let root = std::env::temp_dir().join(format!("slipway-missing-{}", std::process::id()));
        std::fs::create_dir_all(root.join("v"))?;
        for (name, target) in [
            ("up", "../../../out/of/it"),
            ("whole", "/whole"),
            ("chain", "up/./more"),
            ("loop", "loop"),
            ("file", "/f"),
        ] {
            symlink(target, root.join("v").join(name))?;
        }
        let directory = Last::Directory { mode: 0o755 };
        for (path, made) in
            [("v/up", "out/of/it"), ("v/whole/a//b/", "whole/a/b"), ("v/chain", "out/of/it/more")]
        {
            assert_eq!(make_in(&root, path, directory), Ok(()), "{path}");
            assert!(root.join(made).is_dir(), "{made}");
        }
        assert_eq!(make_in(&root, "v/file", Last::File { mode: 0o644 }), Ok(()));
        assert!(root.join("f").is_file());
        assert_eq!(make_in(&root, "v/loop/x", directory).map_err(|error| error.errno), Err(libc::ELOOP));
        assert_eq!(make_in(&root, "f/x", directory).map_err(|error| error.errno), Err(libc::ENOTDIR));
        let long = "n/".repeat(2100);
        assert_eq!(make_in(&root, &long, directory).map_err(|error| error.errno), Err(libc::ENAMETOOLONG));
        std::fs::remove_dir_all(&root)
    }
}

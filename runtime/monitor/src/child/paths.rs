//! Steps that make directories, files, links and devices below the container's root.

use super::missing::{self, Last, unless_there};
use crate::sys::file::{How, resolve};
use crate::sys::{Error, Result, file};
use slipway_monitor::plan::Step;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Links are followed inside the root alone, and `/proc/*/fd/*` not at all.
const INSIDE: u64 = resolve::IN_ROOT | resolve::NO_MAGICLINKS;

/// Executes one step of this module.
pub(super) fn execute(step: &Step, base: Option<BorrowedFd<'_>>) -> Result<()> {
    match step {
        Step::MakeDirectory { path, mode } => make(base, path, Last::Directory { mode: *mode }),
        Step::MakeFile { path, mode } => make(base, path, Last::File { mode: *mode }),
        Step::MakeLink { path, target } => {
            let (parent, name) = split(base, path)?;
            unless_there(file::symlinkat(target, parent.as_fd(), name))
        }
        Step::MakeDevice { path, mode, device, uid, gid } => {
            let (parent, name) = split(base, path)?;
            file::mknodat(parent.as_fd(), name, *mode, *device)?;
            file::fchownat(parent.as_fd(), name, *uid, *gid)
        }
        Step::WorkingDirectory { path } => working_directory(path),
        _ => Err(Error { call: "path step", errno: libc::ENOSYS }),
    }
}

/// Opens a place below the root to mount on or to look at.
pub(super) fn place(base: Option<BorrowedFd<'_>>, path: &CStr) -> Result<OwnedFd> {
    let base = base.ok_or(Error { call: "root step", errno: libc::EINVAL })?;
    file::openat2(base, path, How { flags: libc::O_PATH, mode: 0, resolve: INSIDE })
}

/// The parent directory of a path, opened, and the path's last name.
fn split<'a>(base: Option<BorrowedFd<'_>>, path: &'a CStr) -> Result<(OwnedFd, &'a CStr)> {
    let invalid = Error { call: "plan's path", errno: libc::EINVAL };
    let bytes = path.to_bytes_with_nul();
    let cut = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (head, name) = bytes.split_at_checked(cut).ok_or(invalid)?;
    let name = CStr::from_bytes_with_nul(name).map_err(|_| invalid)?;
    if name.is_empty() || name == c"." || name == c".." {
        return Err(invalid);
    }
    let mut buffer = [0_u8; 4096];
    // One byte is left for the NUL.
    if head.len() >= buffer.len() {
        return Err(Error { call: "plan's path", errno: libc::ENAMETOOLONG });
    }
    for (place, byte) in buffer.iter_mut().zip(head) {
        *place = *byte;
    }
    let parent = CStr::from_bytes_until_nul(&buffer).map_err(|_| invalid)?;
    let parent = if parent.is_empty() { c"." } else { parent };
    let base = base.ok_or(Error { call: "root step", errno: libc::EINVAL })?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    Ok((file::openat2(base, parent, How { flags, mode: 0, resolve: INSIDE })?, name))
}

/// Makes a directory or file to mount on, unless it is there, also where a link of a volume leads to nothing yet.
fn make(base: Option<BorrowedFd<'_>>, path: &CStr, last: Last) -> Result<()> {
    let made =
        split(base, path).and_then(|(parent, name)| match missing::make_in(parent.as_fd(), name, last) {
            Err(error) if error.errno == libc::EEXIST && !is_link(parent.as_fd(), name) => Ok(()),
            made => made,
        });
    match made {
        Err(error) if error.errno == libc::EEXIST => match place(base, path) {
            Err(error) if error.errno == libc::ENOENT => {}
            found => return found.map(drop),
        },
        // A link above it dangles.
        Err(error) if error.errno == libc::ENOENT => {}
        made => return made,
    }
    missing::make(base.ok_or(Error { call: "root step", errno: libc::EINVAL })?, path, last)
}

fn is_link(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    file::readlinkat(directory, name, &mut [0; 1]).is_ok()
}

/// Enters a directory that is reached by no link of the kernel's and is inside the root.
fn working_directory(path: &CStr) -> Result<()> {
    let how = How { flags: libc::O_PATH | libc::O_DIRECTORY, mode: 0, resolve: resolve::NO_MAGICLINKS };
    let directory = file::openat2(file::here(), path, how)?;
    file::fchdir(directory.as_fd())?;
    file::is_inside_root()
}

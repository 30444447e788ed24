//! Steps that mount, hide and change the root.

use super::paths::place;
use super::{Child, Progress};
use crate::launch::report;
use crate::launch::report::Kind;
use crate::stdio::NULL_DEVICE;
use crate::sys::mount::Change;
use crate::sys::{Error, Result, file, mount};
use slipway_monitor::plan::{MOUNTED_IN_PROC, Parameter, Step};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const READ_ONLY: Change = Change { set: libc::MOUNT_ATTR_RDONLY, propagation: 0, recursive: false };
const PRIVATE: Change = Change { set: 0, propagation: libc::MS_PRIVATE, recursive: true };

/// Executes one step of this module.
pub(super) fn execute(child: &Child<'_>, step: &Step, progress: &mut Progress) -> Result<()> {
    match step {
        Step::Root { descriptor } => {
            progress.root = Some(enter_root(child.descriptor(*descriptor)?)?);
            Ok(())
        }
        Step::Mount { kind, target, attributes, parameters } => {
            let target = mount_point(progress.base(), target)?;
            let made = make(kind, *attributes, &parameters.0)?;
            mount::attach(made.as_fd(), target.as_fd())
        }
        Step::Attach { descriptor, target } => {
            let target = mount_point(progress.base(), target)?;
            mount::attach(child.descriptor(*descriptor)?, target.as_fd())
        }
        Step::Mask { path, file } => match present(progress.base(), path)? {
            Some(target) => mask(target.as_fd(), child.descriptor(*file)?, progress),
            None => Ok(()),
        },
        Step::ReadOnly { path } => match present(progress.base(), path)? {
            Some(target) => read_only(target.as_fd()),
            None => Ok(()),
        },
        Step::Propagation { flags } => {
            let recursive = flags & libc::MS_REC != 0;
            let change = Change { set: 0, propagation: flags & !libc::MS_REC, recursive };
            mount::set_attributes(root(progress)?, change)
        }
        Step::Pivot {} => {
            pivot(root(progress)?)?;
            child.let_go(progress)?;
            progress.pivoted = true;
            Ok(())
        }
        Step::ReadOnlyRoot {} => {
            let root = file::openat(file::here(), c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
            mount::set_attributes(root.as_fd(), READ_ONLY)
        }
        Step::SendProc {} => {
            let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
            let proc = make(c"proc", attributes, &[])?;
            report::tell_right(child.channel, Kind::Mount, proc.as_fd())
        }
        _ => Err(Error { call: "mount step", errno: libc::ENOSYS }),
    }
}

fn root(progress: &Progress) -> Result<BorrowedFd<'_>> {
    progress.base().ok_or(Error { call: "root step", errno: libc::EINVAL })
}

/// Attaches the root at its private place and opens it.
fn enter_root(tree: BorrowedFd<'_>) -> Result<OwnedFd> {
    let whole = file::openat(file::here(), c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    mount::set_attributes(whole.as_fd(), PRIVATE)?;
    let new = file::openat(file::here(), c"/new", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    mount::attach(tree, new.as_fd())?;
    file::openat(file::here(), c"/new", libc::O_PATH | libc::O_DIRECTORY, 0)
}

/// Makes a detached file system.
fn make(kind: &CStr, attributes: u64, parameters: &[Parameter]) -> Result<OwnedFd> {
    let context = mount::fsopen(kind)?;
    for parameter in parameters {
        mount::fsconfig_set(context.as_fd(), &parameter.key, parameter.value.as_deref())?;
    }
    mount::fsconfig_create(context.as_fd())?;
    mount::fsmount(context.as_fd(), attributes)
}

/// A place to mount on. One that a link in a volume leads to, which others may change meanwhile, can't cover parts of
/// proc.
fn mount_point(base: Option<BorrowedFd<'_>>, path: &CStr) -> Result<OwnedFd> {
    let found = place(base, path)?;
    let named = path.to_bytes().strip_prefix(b"proc/");
    let allowed = named.is_some_and(|name| MOUNTED_IN_PROC.iter().any(|file| file.as_bytes() == name));
    if !allowed && file::is_proc(found.as_fd())? {
        return Err(Error { call: "mount over a part of proc", errno: libc::EPERM });
    }
    Ok(found)
}

/// A place that may be absent.
fn present(base: Option<BorrowedFd<'_>>, path: &CStr) -> Result<Option<OwnedFd>> {
    match place(base, path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.errno, libc::ENOENT | libc::ENOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

fn mask(target: BorrowedFd<'_>, null: BorrowedFd<'_>, progress: &mut Progress) -> Result<()> {
    if !file::fstat(target)?.is(libc::S_IFDIR) {
        return mask_file(target, null, progress);
    }
    if let Some(empty) = &progress.empty {
        return mount::attach(mount::clone_tree(empty.as_fd(), false)?.as_fd(), target);
    }
    let attributes =
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let empty = make(c"tmpfs", attributes, &[])?;
    mount::attach(empty.as_fd(), target)?;
    progress.empty = Some(empty);
    Ok(())
}

/// Hides a file below /dev/null, by a mount through which its mode, owner and times can't be changed: the inode may be the
/// host's. The descriptor may be a detached mount, which this namespace can clone only once it is attached in it, so that
/// the first use attaches it as it is; a file of another namespace can be neither cloned nor attached, and the container's
/// own /dev/null does, if it is one.
fn mask_file(target: BorrowedFd<'_>, null: BorrowedFd<'_>, progress: &Progress) -> Result<()> {
    if let Ok(clone) = mount::clone_tree(null, false) {
        mount::set_attributes(clone.as_fd(), READ_ONLY)?;
        return mount::attach(clone.as_fd(), target);
    }
    if mount::set_attributes(null, READ_ONLY).and_then(|()| mount::attach(null, target)).is_ok() {
        return Ok(());
    }
    let own = place(progress.base(), c"dev/null")?;
    let stat = file::fstat(own.as_fd())?;
    if !stat.is(libc::S_IFCHR) || stat.device != NULL_DEVICE {
        return Err(Error { call: "container's /dev/null", errno: libc::ENODEV });
    }
    let clone = mount::clone_tree(own.as_fd(), false)?;
    mount::set_attributes(clone.as_fd(), READ_ONLY)?;
    mount::attach(clone.as_fd(), target)
}

/// Mounts a read-only copy of what is at a place over it.
fn read_only(target: BorrowedFd<'_>) -> Result<()> {
    let copy = mount::clone_tree(target, true)?;
    mount::set_attributes(copy.as_fd(), Change { recursive: true, ..READ_ONLY })?;
    mount::attach(copy.as_fd(), target)
}

fn pivot(root: BorrowedFd<'_>) -> Result<()> {
    file::fchdir(root)?;
    mount::pivot_root_here()?;
    // The old root lies over the new one now, at the working directory.
    mount::detach_here()?;
    file::chdir(c"/")
}

//! Mount calls that no crate wraps.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The changes to a mount's attributes, `mount_setattr(2)`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MountChange<'a> {
    /// The user namespace whose maps the mount applies, with `MOUNT_ATTR_IDMAP`.
    pub(crate) idmap: Option<BorrowedFd<'a>>,
    /// `MOUNT_ATTR_*` to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub(crate) clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or 0.
    pub(crate) propagation: u64,
    /// Whether the mounts below it are changed too (`AT_RECURSIVE`).
    pub(crate) recursive: bool,
}

/// `mount_setattr(2)` on an open mount.
pub(crate) fn change_mount(mount: BorrowedFd<'_>, change: MountChange<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: change.idmap.map_or(0, |namespace| u64::from(namespace.as_raw_fd().cast_unsigned())),
    };
    let recursive = if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is borrowed for the call, the path is a NUL-terminated constant, and `attributes` is a
    // live repr(C) struct whose exact size is passed along; the kernel only reads it.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the calling thread a mount namespace and a working directory of its own.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: CLONE_FS and CLONE_NEWNS concern the calling thread's root, working directory and mounts alone; no
    // memory or descriptor table changes hands.
    let answer = unsafe { libc::unshare(libc::CLONE_FS | libc::CLONE_NEWNS) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the calling thread a root and a working directory of its own, as `setns(2)` into a mount namespace wants it.
pub(crate) fn unshare_root() -> io::Result<()> {
    // SAFETY: CLONE_FS concerns the calling thread's root, working directory and umask alone.
    let answer = unsafe { libc::unshare(libc::CLONE_FS) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

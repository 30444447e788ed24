//! Mounts, by the descriptor-based calls.

use super::{Result, descriptor, done};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

/// `fsopen(2)`.
pub(crate) fn fsopen(kind: &CStr) -> Result<OwnedFd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    // SAFETY: the name is NUL-terminated.
    let value = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
    descriptor("fsopen", value)
}

/// `fsconfig(2)` with a flag or a string.
pub(crate) fn fsconfig_set(context: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> Result<()> {
    const SET_FLAG: u32 = 0;
    const SET_STRING: u32 = 1;
    let (command, value) = value.map_or((SET_FLAG, ptr::null()), |value| (SET_STRING, value.as_ptr()));
    // SAFETY: the descriptor is borrowed for the call; key and value are NUL-terminated or, for a flag, null.
    let value =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key.as_ptr(), value, 0) };
    done("fsconfig", value)
}

/// `fsconfig(2)`: make the superblock.
pub(crate) fn fsconfig_create(context: BorrowedFd<'_>) -> Result<()> {
    const CMD_CREATE: u32 = 6;
    let none = ptr::null::<libc::c_char>();
    // SAFETY: the descriptor is borrowed for the call; this command takes neither key nor value.
    let value = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CMD_CREATE, none, none, 0) };
    done("fsconfig create", value)
}

/// `fsmount(2)`.
pub(crate) fn fsmount(context: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    const FSMOUNT_CLOEXEC: u32 = 1;
    // SAFETY: takes plain numbers; the descriptor is borrowed for the call.
    let value = unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) };
    descriptor("fsmount", value)
}

/// A detached clone of the mount at a descriptor (`open_tree(2)`), with what is mounted below it if `recursive`.
pub(crate) fn clone_tree(tree: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH.cast_unsigned();
    if recursive {
        flags |= libc::AT_RECURSIVE.cast_unsigned();
    }
    // SAFETY: the descriptor is borrowed for the call and the path is an empty NUL-terminated constant.
    let value = unsafe { libc::syscall(libc::SYS_open_tree, tree.as_raw_fd(), c"".as_ptr(), flags) };
    descriptor("open_tree", value)
}

/// Attaches a mount to the place that a descriptor holds (`move_mount(2)`).
pub(crate) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    let empty = c"".as_ptr();
    // SAFETY: both descriptors are borrowed for the call and both paths are an empty NUL-terminated constant.
    let value = unsafe {
        libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), empty, target.as_raw_fd(), empty, flags)
    };
    done("move_mount", value)
}

/// A change of a mount's attributes, for [`set_attributes`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Change {
    /// `MOUNT_ATTR_*` bits to set.
    pub(crate) set: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
    pub(crate) propagation: u64,
    /// Whether the mounts below change too.
    pub(crate) recursive: bool,
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `mount_setattr(2)` of the mount at a descriptor.
pub(crate) fn set_attributes(mount: BorrowedFd<'_>, change: Change) -> Result<()> {
    let attributes =
        MountAttr { set: change.set, clear: 0, propagation: change.propagation, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is borrowed for the call, the path is an empty NUL-terminated constant, and
    // `attributes` is a live repr(C) struct whose exact size is passed along; the kernel only reads it.
    let value = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    done("mount_setattr", value)
}

/// `pivot_root(".", ".")`: the working directory becomes the root, with the old root mounted over it.
pub(crate) fn pivot_root_here() -> Result<()> {
    let dot = c".".as_ptr();
    // SAFETY: both paths are NUL-terminated constants.
    done("pivot_root", unsafe { libc::syscall(libc::SYS_pivot_root, dot, dot) })
}

/// Detaches the topmost mount at the working directory.
pub(crate) fn detach_here() -> Result<()> {
    // SAFETY: the path is a NUL-terminated constant.
    done("umount2", unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) })
}

//! The small mount namespace that every monitor joins, and namespaces kept by bind mounts.
//!
//! The small one holds a tmpfs root, an unobscured /proc and /sys, and `/new`, where a child attaches its root. Clones
//! of it cost the same however many mounts the host has.

use crate::sys::mount::unshare_mounts;
use crate::{Error, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_bind, mount_change, move_mount, unmount,
};
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

fn kernel(call: &str) -> impl FnOnce(rustix::io::Errno) -> Error + '_ {
    move |errno| Error::Kernel { call: call.into(), source: errno.into() }
}

/// Makes the small mount namespace on a thread of its own. `place` is any directory of the host to mount on meanwhile.
pub(crate) fn small_mount_namespace(place: &Path) -> Result<OwnedFd> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| make_small(place));
        thread.join().unwrap_or_else(|_| {
            Err(Error::Kernel {
                call: "make a mount namespace".into(),
                source: std::io::Error::other("thread ended"),
            })
        })
    })
}

fn make_small(place: &Path) -> Result<OwnedFd> {
    unshare_mounts().map_err(|source| Error::Kernel { call: "unshare(CLONE_NEWNS)".into(), source })?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(kernel("make mounts private"))?;
    let root = tmpfs(&[("mode", "0755"), ("size", "1m")], MountAttrFlags::empty())?;
    move_mount(&root, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(kernel("move_mount tmpfs"))?;
    for name in ["proc", "sys", "new", "dev"] {
        mkdirat(&root, name, Mode::from_raw_mode(0o755))
            .map_err(kernel("mkdir in the small mount namespace"))?;
    }
    for (kind, target) in [("proc", "proc"), ("sysfs", "sys")] {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(kernel(kind))?;
        fsconfig_create(&context).map_err(kernel(kind))?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(kernel(kind))?;
        move_mount(&mount, "", &root, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(kernel(kind))?;
    }
    rustix::process::fchdir(&root).map_err(kernel("fchdir"))?;
    rustix::process::pivot_root(".", ".").map_err(kernel("pivot_root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(kernel("detach the host's mounts"))?;
    openat(CWD, "/proc/thread-self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(kernel("open the small mount namespace"))
}

/// A detached tmpfs.
pub(crate) fn tmpfs(parameters: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(kernel("fsopen tmpfs"))?;
    for (key, value) in parameters {
        fsconfig_set_string(&context, *key, *value).map_err(kernel("configure tmpfs"))?;
    }
    fsconfig_create(&context).map_err(kernel("create tmpfs"))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(kernel("fsmount tmpfs"))
}

/// Attaches a detached mount at a path.
pub(crate) fn attach(mount: BorrowedFd<'_>, path: &Path) -> Result<()> {
    move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(|errno| Error::Io {
        action: "mount on",
        path: path.into(),
        source: errno.into(),
    })
}

/// Keeps a namespace by a bind mount.
pub(crate) fn keep(namespace: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let failed = |source| Error::Io { action: "keep a namespace at", path: path.into(), source };
    File::create(path).map_err(failed)?;
    mount_bind(format!("/proc/self/fd/{}", namespace.as_raw_fd()), path).map_err(|errno| failed(errno.into()))
}

/// Takes away what is mounted on a path, however often; nothing there is fine.
pub(crate) fn unmount_all(path: &Path) -> Result<()> {
    loop {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(errno) => {
                return Err(Error::Io { action: "unmount", path: path.into(), source: errno.into() });
            }
        }
    }
}

/// Opens a namespace or a file that stands for one.
pub(crate) fn open(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| Error::Io {
        action: "open",
        path: path.into(),
        source: errno.into(),
    })
}

/// Whether two descriptors mean one file.
pub(crate) fn same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    match (rustix::fs::fstat(one), rustix::fs::fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

/// Whether something exists at a path, links not followed.
pub(crate) fn exists(path: &Path) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

//! The small mount namespace that every monitor joins, and namespaces kept by bind mounts.
//!
//! The small one holds a tmpfs root, an unobscured /proc and /sys, and `/new`, where a child attaches its root. Clones
//! of it cost the same however many mounts the host has.

use crate::sys::mount::{MountChange, change_mount, unshare_mounts, unshare_root};
use crate::{Error, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, fstat, fstatfs, mkdirat, openat, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_bind, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// `PROC_ROOT_INO`, the inode of a proc's root.
const PROC_ROOT: u64 = 1;

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

/// A detached clone of the proc that a container's first process has at /proc, taken from inside its mount namespace by a
/// thread that nobody waits for beyond ten seconds: what the container has made of its root may not answer.
pub(crate) fn proc_of(container: &str, pid: i32) -> Result<OwnedFd> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let mounts = open(Path::new(&format!("/proc/{pid}/ns/mnt")))?;
    let pids = open(Path::new(&format!("/proc/{pid}/ns/pid")))?;
    let call = || format!("take /proc of container {container}");
    let (sender, receiver) = mpsc::channel();
    let take = move || {
        // The receiver may have given up waiting.
        let _ = sender.send(take_proc(&mounts, &pids));
    };
    std::thread::Builder::new()
        .name("proc".into())
        .spawn(take)
        .map_err(|source| Error::Kernel { call: "start a thread".into(), source })?;
    let taken = receiver.recv_timeout(PATIENCE).map_err(|_| std::io::Error::from(ErrorKind::TimedOut));
    taken.and_then(|taken| taken).map_err(|source| Error::Kernel { call: call(), source })
}

fn take_proc(mounts: &OwnedFd, pids: &OwnedFd) -> std::io::Result<OwnedFd> {
    unshare_root()?;
    move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let proc = openat2(CWD, "/proc", flags, Mode::empty(), resolve)?;
    if !is_proc(proc.as_fd())? {
        return Err(std::io::Error::other("it has no proc there"));
    }
    let shown = openat(&proc, "1/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    if !same(shown.as_fd(), pids.as_fd()) {
        return Err(std::io::Error::other("it has the proc of other processes there"));
    }
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(&proc, "", flags)?;
    // Attributes that the container may have set on its own mount are not for the other.
    let all =
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    change_mount(
        clone.as_fd(),
        MountChange { clear: all, propagation: libc::MS_PRIVATE, ..MountChange::default() },
    )?;
    Ok(clone)
}

/// Whether a directory is the root of a proc.
pub(crate) fn is_proc(directory: BorrowedFd<'_>) -> std::io::Result<bool> {
    let is_root = fstat(directory)?.st_ino == PROC_ROOT;
    Ok(is_root && fstatfs(directory)?.f_type == libc::PROC_SUPER_MAGIC)
}

/// Attaches a detached mount at a path.
pub(crate) fn attach(mount: BorrowedFd<'_>, path: &Path) -> Result<()> {
    move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(|errno| Error::Io {
        action: "mount on",
        path: path.into(),
        source: errno.into(),
    })
}

/// Keeps a namespace by a bind mount on a file, which is made where it is absent.
pub(crate) fn keep(namespace: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let failed = |source| Error::Io {
        action: "keep a namespace at",
        path: path.into(),
        source: slipway_disk::explained(path, source),
    };
    OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
    mount_bind(format!("/proc/self/fd/{}", namespace.as_raw_fd()), path).map_err(|errno| failed(errno.into()))
}

/// Gives up a namespace that is kept at a path, with the file there; nothing there is fine.
pub(crate) fn release(path: &Path) -> Result<()> {
    unmount_all(path)?;
    Ok(slipway_disk::remove_tree(path)?)
}

/// Unmounts every mount on a path; nothing there is fine.
pub(crate) fn unmount_all(path: &Path) -> Result<()> {
    loop {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // A file in the place of a directory has no mount below it either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                return Ok(());
            }
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
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

/// Whether something exists at a path, links not followed.
pub(crate) fn exists(path: &Path) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

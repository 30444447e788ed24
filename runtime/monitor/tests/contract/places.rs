//! Where a monitor and its containers are: a small mount namespace, a root with busybox.

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

pub(crate) fn open(path: &Path, flags: OFlags) -> OwnedFd {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from(0o600)).unwrap()
}

/// A root with busybox and the libraries that it needs.
pub(crate) fn make_root(root: &Path) {
    let busybox = "/usr/bin/busybox";
    let listed = Command::new("ldd").arg(busybox).output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    std::fs::create_dir(root.join("bin")).unwrap();
    for library in libraries {
        let copy = root.join(&library[1..]);
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(library, copy).unwrap();
    }
    std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for name in ["sh", "sleep", "cat", "head", "tail", "hostname", "ls", "id", "stty", "tty"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

/// Whose /proc a monitor's mount namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proc {
    /// One of its own.
    Fresh,
    /// One of its own, made where the daemon's is partly covered.
    FreshBesideCovered,
    /// The daemon's, partly covered.
    Covered,
}

/// A mount namespace with a proc, a sysfs and the place for a root; on a thread of its own, which ends in it.
#[expect(deprecated, reason = "the safe form; this thread opens no descriptor that another one uses")]
pub(crate) fn small_namespace(directory: &Path, proc: Proc) -> OwnedFd {
    use rustix::thread::UnshareFlags;
    rustix::thread::unshare(UnshareFlags::FS | UnshareFlags::NEWNS).unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
    if proc != Proc::Fresh {
        rustix::mount::mount("tmpfs", "/proc/sys", "tmpfs", MountFlags::empty(), None).unwrap();
    }
    rustix::mount::mount("tmpfs", directory, "tmpfs", MountFlags::empty(), None).unwrap();
    for name in ["proc", "sys", "new"] {
        std::fs::create_dir(directory.join(name)).unwrap();
    }
    let own = directory.join("proc");
    if proc == Proc::Covered {
        rustix::mount::mount_bind_recursive("/proc", own).unwrap();
    } else {
        rustix::mount::mount("proc", own, "proc", MountFlags::empty(), None).unwrap();
    }
    rustix::mount::mount("sysfs", directory.join("sys"), "sysfs", MountFlags::empty(), None).unwrap();
    rustix::process::chdir(directory).unwrap();
    rustix::process::pivot_root(".", ".").unwrap();
    rustix::mount::unmount(".", UnmountFlags::DETACH).unwrap();
    open(Path::new("/proc/thread-self/ns/mnt"), OFlags::RDONLY)
}

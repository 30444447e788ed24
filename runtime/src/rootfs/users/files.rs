//! Reading /etc/passwd and /etc/group of a root that an image, or a process that runs in it, controls.
//!
//! Read are regular files of the root's own file system, or of a mount there that the request named; links are followed
//! inside of that alone. Nothing else is ever opened: opening /proc/kmsg, a pipe or a device can wait for ever, or do
//! something.

use crate::{Error, Result, patience};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A passwd or group file beyond this is refused.
const LARGEST: u64 = 4 * 1024 * 1024;
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// A root in which users are looked up.
#[derive(Debug)]
pub(crate) struct Root {
    /// Its directory.
    pub(crate) directory: OwnedFd,
    /// The container, for errors.
    pub(crate) container: String,
    /// Where the request has mounted something: on these the files may lie too. Nothing where the root is looked at
    /// before its mounts are made.
    pub(crate) mounts: Vec<PathBuf>,
}

/// The texts that tell of users.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) passwd: String,
    pub(super) group: String,
}

/// Reads both files within a deadline; an absent one is empty.
pub(super) fn read(root: Root) -> Result<Files> {
    let key = format!("users of container {}", root.container);
    let work = move || {
        Ok(Files {
            passwd: read_inside(&root, Path::new(PASSWD))?,
            group: read_inside(&root, Path::new(GROUP))?,
        })
    };
    let read = patience::in_time("look-up", &key, work);
    read.map_err(|source| failed(Path::new(PASSWD), source))?
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Io { action: "read the container's", path: path.into(), source }
}

fn read_inside(root: &Root, path: &Path) -> Result<String> {
    let failed = |source| failed(path, source);
    let found = match find(root, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(Errno::XDEV) => return Err(elsewhere(path)),
        found => found.map_err(|errno| failed(errno.into()))?,
    };
    let stat = fstat(&found).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::Invalid(format!("the container's {} is not a regular file", path.display())));
    }
    if is_of_the_kernel(found.as_fd()).map_err(|errno| failed(errno.into()))? {
        return Err(elsewhere(path));
    }
    let too_large =
        || Error::Invalid(format!("the container's {} is larger than {LARGEST} bytes", path.display()));
    if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > LARGEST {
        return Err(too_large());
    }
    // The file itself is opened, whatever its name leads to by now; a lease that a process holds on it is not waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let name = format!("/proc/self/fd/{}", found.as_raw_fd());
    let file = openat(rustix::fs::CWD, name, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    let mut bytes = Vec::new();
    File::from(file).take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LARGEST {
        return Err(too_large());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn elsewhere(path: &Path) -> Error {
    Error::Invalid(format!(
        "the container's {} is not on its own root file system, nor on a mount that was asked for there",
        path.display()
    ))
}

/// The place of a file: below the root, or below the deepest mount of the request's above it.
fn find(root: &Root, path: &Path) -> rustix::io::Result<OwnedFd> {
    let inside = ResolveFlags::NO_MAGICLINKS | ResolveFlags::IN_ROOT;
    let open = |base: BorrowedFd<'_>, path: &Path, resolve| {
        slipway_disk::openat2(base, path, OFlags::PATH, Mode::empty(), resolve)
    };
    let below = |path: &Path| PathBuf::from(".").join(path.strip_prefix("/").unwrap_or(path));
    let covering = root.mounts.iter().filter(|mount| path.starts_with(mount));
    let Some(mount) = covering.max_by_key(|mount| mount.components().count()) else {
        return open(root.directory.as_fd(), &below(path), inside | ResolveFlags::NO_XDEV);
    };
    let base = open(root.directory.as_fd(), &below(mount), inside)?;
    match path.strip_prefix(mount) {
        Ok(rest) if !rest.as_os_str().is_empty() => {
            let resolve = ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
            open(base.as_fd(), rest, resolve)
        }
        _ => Ok(base),
    }
}

/// Whether a file is one of the kernel's own, whose reading may wait or have an effect.
fn is_of_the_kernel(file: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    /// proc, sysfs, debugfs, tracefs, securityfs, cgroup, cgroup2 (`linux/magic.h`).
    const KERNELS: [i64; 7] =
        [0x9fa0, 0x6265_6572, 0x6462_6720, 0x7472_6163, 0x7363_6673, 0x0027_e0eb, 0x6367_7270];
    Ok(KERNELS.contains(&fstatfs(file)?.f_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root(directory: &Path, mounts: &[&str]) -> Root {
        Root {
            directory: File::open(directory).unwrap().into(),
            container: directory.display().to_string(),
            mounts: mounts.iter().map(PathBuf::from).collect(),
        }
    }

    #[test]
    fn links_lead_inside_of_the_root_alone() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("etc")).unwrap();
        std::fs::create_dir_all(at("srv")).unwrap();
        std::fs::write(at("srv/passwd"), "a:x:1:1::/:").unwrap();
        symlink("../../../srv/./passwd", at("etc/passwd")).unwrap();
        symlink("/srv/none", at("etc/group")).unwrap();
        let files = read(root(directory.path(), &[])).unwrap();
        assert_eq!((files.passwd.as_str(), files.group.as_str()), ("a:x:1:1::/:", ""));
    }

    #[test]
    fn a_link_does_not_lead_out_of_the_mount_that_the_file_is_on() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("etc/sub")).unwrap();
        std::fs::write(at("other"), "a:x:1:1::/:").unwrap();
        std::fs::write(at("etc/sub/passwd"), "b:x:1:1::/:").unwrap();
        symlink("../other", at("etc/passwd")).unwrap();
        let error = read(root(directory.path(), &["/etc"])).unwrap_err();
        assert!(error.to_string().contains("not on its own root"), "{error}");
        std::fs::remove_file(at("etc/passwd")).unwrap();
        symlink("sub/passwd", at("etc/passwd")).unwrap();
        assert_eq!(read(root(directory.path(), &["/etc", "/"])).unwrap().passwd, "b:x:1:1::/:");
    }

    #[test]
    fn what_is_no_regular_file_or_too_large_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("etc/passwd")).unwrap();
        let error = |words: &str| {
            let error = read(root(directory.path(), &[])).unwrap_err().to_string();
            assert!(error.contains("/etc/passwd") && error.contains(words), "{error}");
        };
        error("not a regular file");
        std::fs::remove_dir(at("etc/passwd")).unwrap();
        File::create(at("etc/passwd")).unwrap().set_len(1 << 30).unwrap();
        error("larger than 4194304 bytes");
    }
}

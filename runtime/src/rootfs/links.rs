//! Where a path leads in a root file system, its links followed inside of it alone.

use crate::{Error, Result};
use rustix::fs::readlinkat;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// The path without links that `path` leads to in the root whose directory is open, whether it exists or not. Below one
/// of `mounts` nothing is followed: what is there is not the image's.
///
/// Nothing may change the root meanwhile; what is done at the result is still to be resolved inside of the root.
pub(crate) fn follow(root: BorrowedFd<'_>, path: &Path, mounts: &BTreeSet<PathBuf>) -> Result<PathBuf> {
    let mut left: Vec<OsString> = Vec::new();
    let push = |left: &mut Vec<OsString>, path: &Path| {
        left.extend(path.components().rev().filter_map(|part| match part {
            Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
            _ => None,
        }));
    };
    push(&mut left, path);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let parent = at.clone();
        at.push(&name);
        if at.ancestors().any(|above| mounts.contains(above)) {
            continue;
        }
        let failed = |errno: Errno| Error::Io {
            action: "follow the image's",
            path: path.into(),
            source: errno.into(),
        };
        match readlinkat(root, at.strip_prefix("/").unwrap_or(&at), Vec::new()) {
            Ok(target) => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(failed(Errno::LOOP));
                }
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                at = if target.is_absolute() { PathBuf::from("/") } else { parent };
                push(&mut left, &target);
            }
            // No link, or nothing there.
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_where_the_container_would_go() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        symlink("../../../../etc", at("a/up")).unwrap();
        symlink("/a/b", at("direct")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let opened = std::fs::File::open(root.path()).unwrap();
        let none = BTreeSet::new();
        let follow = |path: &str, mounts| follow(opened.as_fd(), Path::new(path), mounts);
        for (path, target) in [
            ("/a/up/hosts", "/etc/hosts"),
            ("/direct/x/y", "/a/b/x/y"),
            ("/not/there", "/not/there"),
            ("/../..", "/"),
        ] {
            assert_eq!(follow(path, &none).unwrap(), Path::new(target), "{path}");
        }
        assert!(follow("/loop/x", &none).is_err());
        assert_eq!(follow("/a/up", &BTreeSet::from(["/a".into()])).unwrap(), Path::new("/a/up"));
    }
}

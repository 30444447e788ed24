//! Where mounts are made: where the links of the image lead from each destination, parents first, and never over what
//! tells a process of itself and of the kernel.

use super::gather::Descriptors;
use crate::plan::{PreparedMount, Source};
use crate::rootfs::links::follow;
use crate::{Error, Result};
use rustix::fs::fstatfs;
use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

const PROC: &str = "/proc";
const PROC_MAGIC: i64 = 0x9fa0;

/// Finds where each mount's destination leads in the image, and orders them by depth: a parent comes first.
pub(super) fn settle(
    root: BorrowedFd<'_>,
    mounts: &mut [PreparedMount],
    descriptors: &Descriptors,
) -> Result<()> {
    let depth = |path: &Path| path.components().count();
    mounts.sort_by_key(|mount| depth(&mount.destination));
    let mut places = BTreeSet::new();
    for mount in mounts.iter_mut() {
        mount.place = follow(root, &mount.destination, &places)?;
        check(mount, descriptors)?;
        places.insert(mount.place.clone());
    }
    mounts.sort_by_key(|mount| depth(&mount.place));
    Ok(())
}

/// Where mounts are made.
pub(super) fn of(mounts: &[PreparedMount]) -> BTreeSet<PathBuf> {
    mounts.iter().map(|mount| mount.place.clone()).collect()
}

fn check(mount: &PreparedMount, descriptors: &Descriptors) -> Result<()> {
    let (path, place) = (mount.destination.display(), mount.place.display());
    let led = if mount.place == mount.destination {
        String::new()
    } else {
        format!(", where the image's {path} leads")
    };
    let guarded = matches!(&mount.source, Source::New { kind, .. } if kind == "proc" || kind == "sysfs")
        // They may come as detached mounts, too.
        || [PROC, "/sys"].iter().any(|kernels| mount.destination == Path::new(kernels));
    if guarded && mount.place != mount.destination {
        // What is hidden below it would be hidden somewhere else.
        return Err(Error::Invalid(format!("the image's {path} is a link to {place}: make it a directory")));
    }
    if mount.place == Path::new("/") {
        return Err(Error::Invalid(format!("mount {path}: nothing can be mounted on the root{led}")));
    }
    let Ok(below) = mount.place.strip_prefix(PROC) else { return Ok(()) };
    if below.as_os_str().is_empty() {
        if is_proc(&mount.source, descriptors) {
            return Ok(());
        }
        return Err(Error::Invalid(format!(
            "mount {path}: only a proc file system can be mounted on {PROC}{led}"
        )));
    }
    if slipway_monitor::plan::MOUNTED_IN_PROC.iter().any(|name| below == Path::new(name)) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "mount {path}: {place} is inside of {PROC}{led}, and nothing may stand for that"
    )))
}

fn is_proc(source: &Source, descriptors: &Descriptors) -> bool {
    match source {
        Source::New { kind, .. } => kind == "proc",
        Source::Detached { descriptor, .. } => descriptors
            .get(*descriptor)
            .and_then(|mount| fstatfs(mount).ok())
            .is_some_and(|found| found.f_type == PROC_MAGIC),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::filesystem;
    use crate::rootfs::binds::{self, BindOptions};
    use std::os::fd::AsFd;

    fn settled(root: &Path, mounts: &[(&str, Source)]) -> Result<Vec<String>> {
        let root = std::fs::File::open(root).unwrap();
        let mut mounts: Vec<_> =
            mounts.iter().map(|(path, source)| PreparedMount::new(path, source.clone())).collect();
        settle(root.as_fd(), &mut mounts, &Descriptors::default())?;
        Ok(mounts.iter().map(|mount| mount.place.display().to_string()).collect())
    }

    fn bind() -> Source {
        Source::Detached { descriptor: 0, is_directory: true }
    }

    #[test]
    fn a_parent_comes_first_and_links_are_followed_in_the_image() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/run/data", root.path().join("data")).unwrap();
        let order = [("/data/sub", bind()), ("/data", bind()), ("/run", bind())];
        assert_eq!(settled(root.path(), &order).unwrap(), ["/run", "/run/data", "/run/data/sub"]);
    }

    #[test]
    fn proc_is_never_mounted_where_a_link_leads() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/elsewhere", root.path().join("proc")).unwrap();
        let error = settled(root.path(), &[("/proc", filesystem("proc", &[]))]).unwrap_err();
        assert!(error.to_string().contains("/elsewhere"), "{error}");
    }

    #[test]
    fn nothing_but_proc_is_mounted_on_proc_and_little_below() {
        let root = tempfile::tempdir().unwrap();
        for (name, target) in [("link", "/proc"), ("deep", "/proc/self/attr"), ("top", "/")] {
            std::os::unix::fs::symlink(target, root.path().join(name)).unwrap();
        }
        for bad in [
            "/proc",
            "/proc/self",
            "/proc/sys/kernel/core_pattern",
            "/proc/meminfo/x",
            "/link",
            "/link/1",
            "/deep",
            "/top",
        ] {
            let error = settled(root.path(), &[(bad, bind())]).unwrap_err();
            assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains(bad), "{bad}: {error}");
        }
        for fine in ["/proc/meminfo", "/proc/sys/crypto/fips_enabled", "/procs", "/sys/fs/bpf"] {
            assert_eq!(settled(root.path(), &[(fine, bind())]).unwrap(), [fine]);
        }
        assert!(settled(root.path(), &[("/proc", filesystem("proc", &[]))]).is_ok());
    }

    #[test]
    fn a_source_is_a_proc_when_its_file_system_is() {
        let Ok(bound) = binds::open(Path::new("/proc"), BindOptions::plain()) else { return };
        let mut descriptors = Descriptors::default();
        let descriptor = descriptors.add(bound.mount).unwrap();
        assert!(is_proc(&Source::Detached { descriptor, is_directory: true }, &descriptors));
    }
}

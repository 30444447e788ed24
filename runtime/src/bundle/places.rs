//! Where mounts are made: where the links of the image lead from each destination, parents first, and never over files
//! by which a process knows itself and the kernel.

use super::mounts::{BundleMount, PlannedMount, Source, depth};
use crate::plan::PreparedMount;
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
    mut planned: Vec<PlannedMount>,
) -> Result<Vec<(PathBuf, PlannedMount)>> {
    planned.sort_by_key(|planned| depth(planned.destination()));
    let mut places = BTreeSet::new();
    let mut settled = Vec::with_capacity(planned.len());
    for planned in planned {
        let place = follow(root, planned.destination(), &places)?;
        places.insert(place.clone());
        settled.push((place, planned));
    }
    settled.sort_by_key(|(place, _)| depth(place));
    Ok(settled)
}

/// Where mounts are made.
pub(crate) fn of(mounts: &[PreparedMount]) -> BTreeSet<PathBuf> {
    mounts.iter().map(|mount| mount.place.clone()).collect()
}

/// Refuses a mount over files by which a process knows itself and the kernel.
pub(super) fn check(mount: &BundleMount) -> Result<()> {
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
        // Masked paths below it would hide files of some other directory.
        return Err(Error::Invalid(format!("the image's {path} is a link to {place}: make it a directory")));
    }
    if mount.place == Path::new("/") {
        return Err(Error::Invalid(format!("mount {path}: nothing can be mounted on the root{led}")));
    }
    let Ok(below) = mount.place.strip_prefix(PROC) else { return Ok(()) };
    if below.as_os_str().is_empty() {
        if is_proc(&mount.source) {
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

fn is_proc(source: &Source) -> bool {
    match source {
        Source::New { kind, .. } => kind == "proc",
        Source::Opened(bind) => fstatfs(&bind.mount).is_ok_and(|found| found.f_type == PROC_MAGIC),
        Source::Cgroup { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::mounts::Origin;
    use super::*;
    use crate::rootfs::binds::{self, Bind, BindOptions};
    use oci_spec::runtime::Mount;
    use std::os::fd::AsFd;

    /// A source that is no proc.
    fn bind() -> Source {
        let mount = std::fs::File::open("/").unwrap().into();
        Source::Opened(Bind { mount, is_directory: true })
    }

    fn new(kind: &str) -> Source {
        Source::New { kind: kind.into(), options: Vec::new() }
    }

    fn planned(destination: &str) -> PlannedMount {
        let mut mount = Mount::default();
        mount.set_destination(destination.into());
        PlannedMount { mount, origin: Origin::Request }
    }

    fn places(root: &Path, destinations: &[&str]) -> Vec<String> {
        let root = std::fs::File::open(root).unwrap();
        let planned = destinations.iter().map(|destination| planned(destination)).collect();
        let settled = settle(root.as_fd(), planned).unwrap();
        settled.iter().map(|(place, _)| place.display().to_string()).collect()
    }

    fn checked(root: &Path, destination: &str, source: Source) -> Result<()> {
        let place = places(root, &[destination]).remove(0).into();
        check(&BundleMount { destination: destination.into(), place, source })
    }

    #[test]
    fn a_parent_comes_first_and_links_are_followed_in_the_image() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/run/data", root.path().join("data")).unwrap();
        let order = ["/data/sub", "/data", "/run"];
        assert_eq!(places(root.path(), &order), ["/run", "/run/data", "/run/data/sub"]);
    }

    #[test]
    fn proc_is_never_mounted_where_a_link_leads() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/elsewhere", root.path().join("proc")).unwrap();
        let error = checked(root.path(), "/proc", new("proc")).unwrap_err();
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
            let error = checked(root.path(), bad, bind()).unwrap_err();
            assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains(bad), "{bad}: {error}");
        }
        for fine in ["/proc/meminfo", "/proc/sys/crypto/fips_enabled", "/procs", "/sys/fs/bpf"] {
            assert_eq!(places(root.path(), &[fine]), [fine]);
            checked(root.path(), fine, bind()).unwrap();
        }
        assert!(checked(root.path(), "/proc", new("proc")).is_ok());
    }

    #[test]
    fn a_source_is_a_proc_when_its_file_system_is() {
        let Ok(bound) = binds::open(Path::new("/proc"), BindOptions::plain()) else { return };
        assert!(is_proc(&Source::Opened(bound)));
    }
}

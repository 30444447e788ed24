//! Which hierarchies the node has, and where in them this process is: `/proc/self/mountinfo` and `/proc/self/cgroup`.
//!
//! Version 2 counts only where no controller is bound to version 1: a hybrid node is a version 1 node.

use super::files;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The version 1 controllers in use here.
const LEGACY: [&str; 8] = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids", "hugetlb"];

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Its controllers; none is named for version 2.
    pub(super) controllers: Vec<String>,
    /// Where it is mounted.
    pub(super) point: PathBuf,
    /// This process's directory in it, below `point`.
    pub(super) own: PathBuf,
}

/// The hierarchies that containers are put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) unified: bool,
    pub(super) mounts: Vec<Mount>,
}

/// A cgroup's directory in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The hierarchy's controllers; none is named for version 2.
    pub controllers: Vec<String>,
    /// The directory.
    pub path: PathBuf,
}

/// A cgroup, by its directory in each hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Whether it is the one directory of version 2.
    pub unified: bool,
    /// One for version 2, one a hierarchy for version 1.
    pub directories: Vec<Directory>,
}

impl Location {
    pub(super) fn join(&self, below: &Path) -> Self {
        let directories = self.directories.iter();
        let joined = directories
            .map(|one| Directory { controllers: one.controllers.clone(), path: one.path.join(below) });
        Self { unified: self.unified, directories: joined.collect() }
    }

    pub(super) fn child(&self, name: &str) -> Self {
        self.join(Path::new(name))
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.directories.iter().map(|directory| directory.path.clone()).collect()
    }

    /// Where the files of a controller are.
    pub(super) fn controller(&self, name: &str) -> Option<&Path> {
        let directory = self
            .directories
            .iter()
            .find(|one| self.unified || one.controllers.iter().any(|known| known == name));
        directory.map(|directory| directory.path.as_path())
    }
}

impl Hierarchy {
    /// Reads the hierarchies and this process's place in them. A last component named `leaf` is cut off: an earlier
    /// daemon moved itself there.
    pub(super) fn detect(leaf: &str) -> Result<Self> {
        let mounts = files::read(Path::new("/proc/self/mountinfo"))?;
        let own = files::read(Path::new("/proc/self/cgroup"))?;
        Self::parse(&mounts, &own, leaf)
    }

    fn parse(mountinfo: &str, own: &str, leaf: &str) -> Result<Self> {
        let lines: Vec<MountLine> = mountinfo.lines().filter_map(MountLine::parse).collect();
        let mut mounts: Vec<Mount> = Vec::new();
        for line in lines.iter().filter(|line| line.kind == "cgroup") {
            let controllers: Vec<String> =
                line.options.split(',').filter(|option| LEGACY.contains(option)).map(str::to_owned).collect();
            if controllers.is_empty() || mounts.iter().any(|mount| mount.controllers == controllers) {
                continue;
            }
            let own = own_path(own, |listed| {
                controllers.iter().any(|name| listed.split(',').any(|one| one == name))
            });
            mounts.push(Mount { own: line.below(&own), point: line.point.clone(), controllers });
        }
        if mounts.iter().any(|mount| mount.controllers.iter().any(|name| name == "memory" || name == "cpu")) {
            return Ok(Self { unified: false, mounts });
        }
        let Some(line) = lines.iter().find(|line| line.kind == "cgroup2") else {
            return Err(Error::Unsupported(
                "no cgroup hierarchy is mounted; mount cgroup2 at /sys/fs/cgroup".to_owned(),
            ));
        };
        let mut own = line.below(&own_path(own, str::is_empty));
        if own.file_name().is_some_and(|name| name == leaf) {
            own.pop();
        }
        let mount = Mount { controllers: Vec::new(), point: line.point.clone(), own };
        Ok(Self { unified: true, mounts: vec![mount] })
    }

    /// The mounted roots.
    pub(super) fn top(&self) -> Location {
        self.location(|mount| mount.point.clone())
    }

    /// Where this process is.
    pub(super) fn own(&self) -> Location {
        self.location(|mount| mount.point.join(&mount.own))
    }

    /// Whether this process is in a systemd service of version 2. It must stay without limited children: systemd puts a
    /// service that starts again into its cgroup itself, which then could hold no process while containers live.
    pub(super) fn is_service(&self) -> bool {
        let service = |mount: &Mount| mount.own.extension().is_some_and(|suffix| suffix == "service");
        self.unified && self.mounts.iter().any(service)
    }

    fn location(&self, path: impl Fn(&Mount) -> PathBuf) -> Location {
        let directories = self.mounts.iter();
        let directories =
            directories.map(|mount| Directory { controllers: mount.controllers.clone(), path: path(mount) });
        Location { unified: self.unified, directories: directories.collect() }
    }
}

/// The path of this process in the hierarchy whose list of controllers is the right one.
fn own_path(cgroup: &str, is_right: impl Fn(&str) -> bool) -> PathBuf {
    let path = cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        is_right(controllers).then_some(path)
    });
    PathBuf::from(path.unwrap_or("/"))
}

/// The fields of a line of mountinfo that describe a cgroup mount (`proc_pid_mountinfo(5)`).
struct MountLine<'a> {
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> MountLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (unescape(mount.next()?), unescape(mount.next()?));
        let mut file_system = file_system.split(' ');
        let kind = file_system.next()?;
        Some(Self { root, point, kind, options: file_system.nth(1).unwrap_or_default() })
    }

    /// A path of the hierarchy as seen below the mount; its top when the mount shows another part.
    fn below(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(&self.root).unwrap_or(Path::new(""));
        let upwards = below.components().any(|part| part == std::path::Component::ParentDir);
        if upwards { PathBuf::new() } else { below.strip_prefix("/").unwrap_or(below).to_owned() }
    }
}

/// Spaces and the like are octal in mountinfo.
fn unescape(text: &str) -> PathBuf {
    let plain =
        text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_daemons_own_leaf_is_not_its_root() {
        let detected = Hierarchy::parse(UNIFIED, "0::/system.slice/node/slipwayd\n", "slipwayd").unwrap();
        assert!(detected.unified);
        assert_eq!(detected.own().paths(), [Path::new("/sys/fs/cgroup/system.slice/node")]);
    }

    #[test]
    fn a_service_is_known_by_its_name_on_version_2_alone() {
        let is_service =
            |mounts: &str, own: &str| Hierarchy::parse(mounts, own, "slipwayd").unwrap().is_service();
        assert!(is_service(UNIFIED, "0::/system.slice/slipwayd.service\n"));
        assert!(is_service(UNIFIED, "0::/system.slice/slipwayd.service/slipwayd\n"));
        for own in ["0::/\n", "0::/user.slice/session-1.scope\n", "0::/system.slice/a.service/below\n"] {
            assert!(!is_service(UNIFIED, own), "{own}");
        }
        assert!(!is_service(HYBRID, "2:cpu,cpuacct:/a.service\n4:memory:/a.service\n0::/a.service\n"));
    }

    #[test]
    fn a_hybrid_node_is_a_version_1_node() {
        let own = "2:cpu,cpuacct:/a\n4:memory:/b/c\n1:name=systemd:/z\n0::/u\n";
        let detected = Hierarchy::parse(HYBRID, own, "slipwayd").unwrap();
        assert!(!detected.unified);
        let paths = detected.own().paths();
        assert_eq!(
            paths,
            [Path::new("/sys/fs/cgroup/cpu,cpuacct/a"), Path::new("/sys/fs/cgroup/memory/b/c")]
        );
        assert_eq!(detected.own().controller("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/a")));
        assert_eq!(detected.own().controller("pids"), None);
    }

    #[test]
    fn a_mount_of_a_part_shows_that_part() {
        let mount = "30 23 0:26 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let own =
            |path: &str| Hierarchy::parse(mount, &format!("0::{path}\n"), "leaf").unwrap().own().paths();
        assert_eq!(own("/docker/x/y"), [Path::new("/sys/fs/cgroup/y")]);
        assert_eq!(own("/../other"), [Path::new("/sys/fs/cgroup")]);
        assert!(Hierarchy::parse("", "", "leaf").is_err());
    }
}

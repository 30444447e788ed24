//! Where monitors are, and how each comes there.
//!
//! To move a process between cgroups the kernel waits for a grace period of the whole machine, ten milliseconds and more;
//! one that is born in its cgroup waits for nothing.

use super::{Location, files};
use crate::{Features, Result};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Where a monitor is, and how it comes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MonitorPlace {
    /// It stays in the daemon's cgroups (version 1).
    WithDaemon,
    /// It is born in a cgroup of version 2.
    Born(Leaf),
    /// It is moved to a cgroup of version 2.
    Moved(Leaf),
}

impl MonitorPlace {
    pub(super) fn of(location: &Location, features: &Features) -> Self {
        let path = location.paths().into_iter().next().filter(|_| location.unified);
        match path.map(|path| Leaf { path }) {
            Some(leaf) if features.clone_into_cgroup => Self::Born(leaf),
            Some(leaf) => Self::Moved(leaf),
            None => Self::WithDaemon,
        }
    }
}

/// The cgroup of version 2 that holds monitors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// Its directory.
    pub(crate) path: PathBuf,
}

impl Leaf {
    /// Open it, for a process to be born in.
    pub(crate) fn open(&self) -> Result<OwnedFd> {
        files::open_directory(&self.path)
    }

    /// Move a process into it.
    pub(crate) fn take(&self, pid: u32) -> Result<()> {
        files::write(&self.path.join("cgroup.procs"), &pid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Directory;
    use super::*;

    #[test]
    fn a_monitor_is_born_in_its_cgroup_where_the_kernel_can_and_moved_where_it_may_not() {
        let path = PathBuf::from("/sys/fs/cgroup/slipway-monitors");
        let place = |unified, clone_into_cgroup| {
            let directories = vec![Directory { controllers: Vec::new(), path: path.clone() }];
            let features = Features { clone_into_cgroup, ..Features::default() };
            MonitorPlace::of(&Location { unified, directories }, &features)
        };
        let leaf = Leaf { path: path.clone() };
        assert_eq!(place(true, true), MonitorPlace::Born(leaf.clone()));
        assert_eq!(place(true, false), MonitorPlace::Moved(leaf));
        assert_eq!(place(false, false), MonitorPlace::WithDaemon);
    }
}

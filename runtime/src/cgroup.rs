//! Control groups: one directory a container, on version 2 or on a set of version 1 hierarchies.
//!
//! ```text
//! root (the daemon's own cgroup, /slipway where that is a systemd service of version 2, or the configured one)
//! ├─ slipwayd            the daemon, when it sat in the root itself (version 2)
//! ├─ slipway-monitors    monitors (version 2)
//! └─ pod-<sandbox>       a pod without a parent of its own
//!    └─ <container>
//! kubepods/…/pod<uid>    a parent that kubelet names: from the hierarchy's root
//! └─ <container>
//! ```
//!
//! A cgroup is known by its directories alone, which can be stored and read again: nothing here is held open.

mod devices;
mod files;
mod hierarchy;
mod monitors;
mod settings;
mod stats;
mod teardown;
mod v1;
mod v2;

pub use hierarchy::{Directory, Location};
pub(crate) use monitors::MonitorPlace;
pub use stats::Stats;

use crate::features::CgroupSupport;
use crate::{Error, Features, Result};
use hierarchy::Hierarchy;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};
use serde::{Deserialize, Serialize};
use slipway_monitor::protocol;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// A process that the kernel can't end sooner is stuck in a system call.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Where the daemon moves itself when it sits in its root.
const DAEMON_LEAF: &str = "slipwayd";
/// Where monitors are.
const MONITOR_LEAF: &str = "slipway-monitors";
/// The root of a daemon that is a systemd service.
const SERVICE_ROOT: &str = "slipway";

/// The configuration of cgroups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupConfig {
    /// Where pods without a parent go: absolute from the hierarchy's root, else below the daemon's own cgroup, which
    /// is meant when absent. Of a systemd service on version 2 nothing goes below: a relative one is from the
    /// hierarchy's root then, and `slipway` is meant when absent.
    pub root: Option<String>,
}

/// The node's cgroups.
#[derive(Clone, Debug)]
pub struct Cgroups {
    hierarchy: Hierarchy,
    root: Location,
    /// The directories that are the node's own and outlive the daemon.
    made: Vec<PathBuf>,
}

impl Cgroups {
    /// Find the hierarchies, make the root and share its controllers out.
    pub fn open(config: &CgroupConfig) -> Result<Self> {
        let hierarchy = Hierarchy::detect(DAEMON_LEAF)?;
        let service = hierarchy.is_service();
        let root = match config.root.as_deref().filter(|root| !root.is_empty()) {
            None if service => hierarchy.top().child(SERVICE_ROOT),
            None => hierarchy.own(),
            Some(path) if service || path.starts_with('/') => {
                hierarchy.top().join(&plain(path, "cgroup root")?)
            }
            Some(path) => hierarchy.own().join(&plain(path, "cgroup root")?),
        };
        let mut cgroups = Self { hierarchy, root, made: Vec::new() };
        cgroups.made = cgroups.root.paths().iter().flat_map(|path| missing(path)).collect();
        cgroups.prepare(&cgroups.root)?;
        if cgroups.root != cgroups.hierarchy.own() {
            cgroups.made.extend(cgroups.root.paths());
        }
        if cgroups.unified() {
            for directory in &cgroups.root.child(MONITOR_LEAF).directories {
                files::make_directory(&directory.path)?;
            }
            let leaves = [cgroups.root.child(MONITOR_LEAF), cgroups.hierarchy.own().child(DAEMON_LEAF)];
            cgroups.made.extend(leaves.iter().flat_map(Location::paths));
        }
        Ok(cgroups)
    }

    /// The cgroups that outlive the daemon: its root with what was made above it, and the leaves.
    pub fn made(&self) -> &[PathBuf] {
        &self.made
    }

    /// Whether pods' cgroups are of version 2.
    pub fn unified(&self) -> bool {
        self.hierarchy.unified
    }

    /// The features of the hierarchies.
    pub(crate) fn support(&self) -> CgroupSupport {
        let unified = self.unified();
        let mut directories = self.root.directories.iter();
        let kill = unified && directories.any(|directory| directory.path.join("cgroup.kill").exists());
        CgroupSupport { unified, kill }
    }

    /// The controllers that containers can be limited by.
    pub fn controllers(&self) -> Result<Vec<String>> {
        if self.unified() {
            let path =
                self.root.directories.first().map(|directory| directory.path.join("cgroup.subtree_control"));
            let words = path.map(|path| files::read(&path)).transpose()?.unwrap_or_default();
            return Ok(words.split_ascii_whitespace().map(str::to_owned).collect());
        }
        Ok(self.root.directories.iter().flat_map(|directory| directory.controllers.clone()).collect())
    }

    /// A container's cgroup as a path from the hierarchy's root, as an OCI specification names it: of version 1, in its first
    /// hierarchy.
    pub(crate) fn path(&self, container: &ContainerCgroup) -> Option<PathBuf> {
        self.below_top(&container.location)
    }

    /// The same of a pod's cgroup.
    pub(crate) fn pod_path(&self, pod: &PodCgroup) -> Option<PathBuf> {
        self.below_top(&pod.location)
    }

    fn below_top(&self, location: &Location) -> Option<PathBuf> {
        let top = self.hierarchy.top();
        let (top, directory) = (top.directories.first()?, location.directories.first()?);
        directory.path.strip_prefix(&top.path).ok().map(|below| Path::new("/").join(below))
    }

    /// Where monitors are, and how they come there.
    pub(crate) fn monitor_place(&self, features: &Features) -> MonitorPlace {
        MonitorPlace::of(&self.root.child(MONITOR_LEAF), features)
    }

    /// Where a pod's cgroup is to be: its own, or the parent that kubelet names. Nothing is made, so that what will be
    /// can be recorded first.
    pub fn plan(&self, parent: Option<&str>, id: &str) -> Result<PodCgroup> {
        let Some(parent) = parent.filter(|parent| !parent.is_empty()) else {
            let location = self.root.child(&format!("pod-{}", name(id, "sandbox")?));
            return Ok(PodCgroup { created: location.paths(), location, own: true });
        };
        if parent.split('/').any(|part| part.ends_with(".slice")) {
            return Err(Error::Unsupported(format!(
                "cgroup parent {parent} is a systemd slice; the systemd driver is not supported, use kubelet's cgroupfs driver"
            )));
        }
        let below = plain(parent, "cgroup parent")?;
        let location =
            if parent.starts_with('/') { self.hierarchy.top().join(&below) } else { self.root.join(&below) };
        let created = location.paths().iter().flat_map(|path| missing(path)).collect();
        Ok(PodCgroup { location, created, own: false })
    }

    /// Make a planned cgroup.
    pub fn make(&self, pod: &PodCgroup) -> Result<()> {
        if !pod.own {
            return self.prepare(&pod.location);
        }
        for directory in &pod.location.directories {
            files::make_directory(&directory.path)?;
        }
        pod.share_out()
    }

    /// Find a container's cgroup by its name alone, wherever a pod's parent has it: a name that nothing else has, made
    /// of an id of 64 hexadecimal digits.
    pub(crate) fn find(&self, name: &str) -> Option<ContainerCgroup> {
        let id = name.rsplit('-').next().unwrap_or_default();
        if id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let top = self.hierarchy.top();
        let below = top.paths().into_iter().find_map(|top| teardown::find(&top, name))?;
        Some(ContainerCgroup { location: top.join(&below) })
    }

    /// Make every directory down to a place, with controllers shared out along the way.
    fn prepare(&self, location: &Location) -> Result<()> {
        for (directory, mount) in location.directories.iter().zip(&self.hierarchy.mounts) {
            if self.unified() {
                v2::prepare(&directory.path, mount, DAEMON_LEAF)?;
            } else {
                v1::prepare(directory, mount)?;
            }
        }
        Ok(())
    }
}

/// Says what of these resources can't be had here, before anything is made.
pub(crate) fn check(resources: &LinuxResources, unified: bool) -> Result<()> {
    settings::plan(resources, unified)?;
    devices::Rules::of(resources.devices().as_deref().unwrap_or_default()).map(drop)
}

/// A pod's cgroup, to be stored with the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodCgroup {
    location: Location,
    /// The directories that the pod has made, from the top.
    created: Vec<PathBuf>,
    /// Whether nothing of another pod is in it.
    own: bool,
}

impl PodCgroup {
    /// Where a container's cgroup is to be; nothing is made.
    pub fn plan(&self, id: &str) -> Result<ContainerCgroup> {
        Ok(ContainerCgroup { location: self.location.child(name(id, "container")?) })
    }

    /// Where the files of a controller are, if the pod has it.
    pub(crate) fn controller(&self, name: &str) -> Option<&Path> {
        self.location.controller(name)
    }

    /// Make a container's cgroup and limit it. One of the same name is replaced when it is empty.
    pub fn container(&self, id: &str, resources: &LinuxResources) -> Result<ContainerCgroup> {
        let container = self.plan(id)?;
        let plan = settings::plan(resources, self.location.unified)?;
        let rules = devices::Rules::of(resources.devices().as_deref().unwrap_or_default())?;
        if !container.is_empty()? {
            return Err(Error::InUse(format!(
                "cgroup of container {id} still has processes; kill them first"
            )));
        }
        container.remove()?;
        container.fill(&plan, &rules).inspect_err(|_| drop(container.remove()))?;
        Ok(container)
    }

    /// Remove the directories made for the pod; kubelet's parent stays.
    pub fn remove(&self) -> Result<()> {
        let mut first = Ok(());
        for path in self.created.iter().rev() {
            if self.own {
                first = first.and(teardown::remove(path));
            } else {
                // It may be in use by other pods of the same parent.
                drop(std::fs::remove_dir(path));
            }
        }
        first
    }

    fn share_out(&self) -> Result<()> {
        for directory in &self.location.directories {
            if self.location.unified { v2::share_out(&directory.path)? } else { v1::fill_in(directory)? }
        }
        Ok(())
    }
}

/// A container's cgroup, to be stored with the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerCgroup {
    location: Location,
}

impl ContainerCgroup {
    fn fill(&self, plan: &[settings::Setting], rules: &devices::Rules) -> Result<()> {
        for directory in &self.location.directories {
            files::make_directory(&directory.path)?;
            if !self.location.unified {
                v1::fill_in(directory)?;
            }
        }
        settings::write(plan, &self.location)?;
        devices::apply(rules, &self.location)
    }

    /// Change limits. Devices are decided at creation.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        if resources.devices().as_ref().is_some_and(|devices: &Vec<LinuxDeviceCgroup>| !devices.is_empty()) {
            return Err(Error::Unsupported(
                "the devices of a container can't be changed after its creation".to_owned(),
            ));
        }
        settings::write(&settings::plan(resources, self.location.unified)?, &self.location)
    }

    /// The directories.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Whether one of its directories is there.
    pub(crate) fn exists(&self) -> bool {
        self.location.paths().iter().any(|path| path.exists())
    }

    /// The directories, opened for a child to be placed in. The monitor does without `CLONE_INTO_CGROUP` and
    /// `cgroup.kill` together.
    pub fn placement(&self, features: &Features) -> Result<Placement> {
        let hierarchy = match self.location.unified {
            false => protocol::Hierarchy::Legacy {},
            true if features.clone_into_cgroup && features.cgroup_kill => protocol::Hierarchy::Unified {},
            true => protocol::Hierarchy::UnifiedByHand {},
        };
        let directories =
            self.location.directories.iter().map(|directory| files::open_directory(&directory.path));
        Ok(Placement { hierarchy, directories: directories.collect::<Result<_>>()? })
    }

    /// Kill every process in it and below, and wait until none is left; at most some seconds.
    pub fn kill(&self, features: &Features) -> Result<()> {
        self.kill_until(features, Instant::now() + KILL_LIMIT)
    }

    /// The same, waiting until `end`.
    pub(crate) fn kill_until(&self, features: &Features, end: Instant) -> Result<()> {
        teardown::kill(&self.location, features.cgroup_kill, end)
    }

    /// Remove it with all below; nothing to do when it is gone.
    pub fn remove(&self) -> Result<()> {
        let mut first = Ok(());
        for path in self.location.paths() {
            first = first.and(teardown::remove(&path));
        }
        first
    }

    /// The processes in it and below.
    pub fn procs(&self) -> Result<Vec<i32>> {
        teardown::processes(&self.location)
    }

    /// Whether no process is in it or below; true when it is gone.
    pub fn is_empty(&self) -> Result<bool> {
        teardown::is_empty(&self.location)
    }

    /// Processes of it that were killed for want of memory; 0 where nothing counts them.
    pub fn oom_kills(&self) -> Result<u64> {
        stats::oom_kills(&self.location)
    }

    /// Its usage now.
    pub fn stats(&self) -> Result<Stats> {
        stats::read(&self.location)
    }
}

/// The open directories of a cgroup, as a monitor takes them.
#[derive(Debug)]
pub struct Placement {
    /// How a child comes into them.
    pub hierarchy: protocol::Hierarchy,
    /// Directories, opened for reading.
    pub directories: Vec<OwnedFd>,
}

/// A name that is one directory.
fn name<'a>(id: &'a str, kind: &str) -> Result<&'a str> {
    let mut parts = Path::new(id).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part.as_encoded_bytes() == id.as_bytes() => Ok(id),
        _ => {
            Err(Error::Invalid(format!("{kind} id {id:?} can't name a cgroup; it must be a plain file name")))
        }
    }
}

/// A path without its leading slash, that can't lead upwards.
fn plain(path: &str, what: &str) -> Result<PathBuf> {
    let mut below = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => below.push(part),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::Invalid(format!("{what} {path:?} must not contain ..")));
            }
        }
    }
    Ok(below)
}

/// The directories down to a path that are not there, from the top.
fn missing(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<_> = path.ancestors().take_while(|one| !one.exists()).map(Path::to_owned).collect();
    missing.reverse();
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_directory() {
        assert!(name("abc-1.2_x", "container").is_ok());
        for bad in ["", "..", ".", "a/b", "a/", "/a", "./a"] {
            assert!(name(bad, "container").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_parent_never_leads_upwards() {
        assert_eq!(plain("/kubepods/burstable/pod1", "x").unwrap(), Path::new("kubepods/burstable/pod1"));
        assert!(plain("/kubepods/../x", "x").is_err());
    }

    #[test]
    fn a_container_is_read_back_as_stored() {
        let path = PathBuf::from("/sys/fs/cgroup/pod-a/b");
        let location =
            Location { unified: true, directories: vec![Directory { controllers: Vec::new(), path }] };
        let container = ContainerCgroup { location };
        let stored = serde_json::to_string(&container).unwrap();
        assert_eq!(serde_json::from_str::<ContainerCgroup>(&stored).unwrap(), container);
    }
}

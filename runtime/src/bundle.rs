//! From a container's request to what is started: a whole OCI specification.
//!
//! ```text
//! ContainerRequest ─ CreateContainer ─► ContainerSpec  whole but for named users, namespace paths and the root
//!                  ─ StartContainer ──► Bundle         whole; its root is mounted, its sources and namespaces are open
//!                                         ├─► launch plan, which the pod's monitor executes
//!                                         └─► config.json, which any other OCI runtime executes
//! ```
//! A consumer of a bundle reads nothing of the request any more. A [`ContainerSpec`] follows from the container's record
//! and its pod's alone, so that it is made again where it is needed and kept nowhere: a default seccomp profile takes
//! tens of kilobytes.

pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod places;
mod pod_files;
pub(crate) mod process;
mod volumes;

use crate::capabilities::{Capabilities, CapabilitySet};
use crate::pod::{Container, Pod, PodSnapshot};
use crate::rootfs::overlay;
use crate::rootfs::users::{self, Identity};
use crate::runtime::Shared;
use crate::sandbox::host_name;
use crate::{ContainerRequest, Error, Result, Seccomp, namespace, seccomp, spec};
use mounts::{BundleMount, PlannedMount};
use namespaces::{Joined, Wanted};
use oci_spec::runtime::{
    LinuxDevice, LinuxNamespace, LinuxNamespaceType, LinuxResources, LinuxSeccomp, Process, Root, Spec,
};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// The specification that bundles follow. Nothing of a later one is used, and runtimes of distributions refuse those.
pub(crate) const VERSION: &str = "1.0.2";
/// The root's path in a bundle.
const ROOT: &str = "rootfs";

/// A container's specification before its start: whole but for named users, namespace paths and the root.
#[derive(Debug)]
pub(crate) struct ContainerSpec {
    spec: Spec,
    /// The specification's mounts, in the same order, with their origins.
    mounts: Vec<PlannedMount>,
}

impl ContainerSpec {
    /// Makes it, or says which part of the request can't be had. `identity` is known from the container's start on.
    pub(crate) fn of(
        shared: &Shared,
        pod: &Pod,
        container: &Container,
        identity: Option<&Identity>,
    ) -> Result<Self> {
        let (request, record) = (&container.record.request, pod.record());
        let mut spec = request.spec.clone();
        let mut process = process_of(request)?.clone();
        let hostname = host_name(&record.config);
        let origin = process::Origin {
            raw_env: &request.raw_env,
            terminal: request.tty,
            hostname: &hostname,
            features: shared.features,
            identity,
        };
        let capabilities = process::complete(&mut process, &origin, CapabilitySet::available()?)?;
        let mounts = mounts::plan(&mounts::Origins { pod, record: &record, container })?;
        let mut linux = spec.linux().clone().unwrap_or_default();
        let devices = devices(linux.devices().as_deref().unwrap_or_default());
        let resources = resources(linux.resources().as_ref());
        linux
            .set_seccomp(profile(&request.seccomp, &capabilities)?)
            .set_devices(Some(devices))
            .set_resources(Some(resources))
            .set_cgroups_path(cgroups_path(shared, &record, request))
            .set_namespaces(Some(namespaces::without_paths(&record.config, &request.pid)));
        let mut root = Root::default();
        root.set_path(ROOT.into()).set_readonly(Some(request.rootfs.readonly));
        spec.set_version(VERSION.into())
            .set_root(Some(root))
            .set_hostname(None)
            .set_process(Some(process))
            .set_linux(Some(linux))
            .set_mounts(Some(mounts.iter().map(|planned| planned.mount.clone()).collect()));
        Ok(Self { spec, mounts })
    }

    /// The process: arguments, environment, limits, capabilities; its user, too, where the identity is known.
    pub(crate) fn process(&self) -> Result<&Process> {
        self.spec.process().as_ref().ok_or_else(|| Error::Invalid("a specification has no process".into()))
    }

    /// The seccomp profile; none where every call is allowed.
    pub(crate) fn seccomp(&self) -> Option<&LinuxSeccomp> {
        self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref())
    }

    /// The specification as it is known now: what a bundle of the container has, or will have, but for the order in
    /// which links of the image put its mounts.
    fn shown(self, shared: &Shared, pod: &Pod, container: &Container) -> Spec {
        let Self { mut spec, mounts } = self;
        let started = container.identity().is_some();
        let present = mounts.into_iter().filter(|planned| !started || planned.is_prepared());
        spec.set_mounts(Some(present.map(|planned| planned.mount).collect()));
        let request = &container.record.request;
        for namespace in listed(&mut spec) {
            let wanted = Wanted { shared, pod, request, kind: namespace.typ() };
            // The namespace of a container that does not run any more has no path.
            if let Ok(path) = wanted.path() {
                namespace.set_path(path);
            }
        }
        if let (Ok(pid), Some(root)) = (container.pid("show"), spec.root_mut())
            && pid > 0
        {
            // The root is mounted in the container's own mount namespace alone.
            root.set_path(format!("/proc/{pid}/root").into());
        }
        spec
    }
}

/// A container that is about to be started: all is decided, and all that its processes get from outside is open.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// The whole specification.
    pub(crate) spec: Spec,
    /// The user, by the root's own files.
    pub(crate) identity: Identity,
    /// The root, mounted and attached nowhere.
    pub(crate) root: OwnedFd,
    /// The specification's mounts, in the same order: parents first.
    pub(crate) mounts: Vec<BundleMount>,
    /// The specification's namespaces, in the same order: the user namespace first.
    pub(crate) namespaces: Vec<Joined>,
    /// Variables whose values are no text, set over those of the specification, whose strings can't hold them.
    pub(crate) raw_env: Vec<(String, Vec<u8>)>,
}

impl Bundle {
    /// Resolves a container's request: mounts the root, finds the user in it, opens the sources of mounts, fills volumes.
    pub(crate) fn resolve(shared: &Shared, pod: &Pod, container: &Container) -> Result<Self> {
        let request = &container.record.request;
        let root = mount_root(shared, pod, container)?;
        let directory = root.try_clone().map_err(|source| Error::Kernel { call: "dup".into(), source })?;
        let files = users::Root { directory, container: request.id.to_string(), mounts: Vec::new() };
        let identity = users::resolve(files, &request.user)?;
        let whole = ContainerSpec::of(shared, pod, container, Some(&identity))?;
        let ContainerSpec { mut spec, mounts: planned } = whole;
        let mut namespaces = Vec::new();
        for listed in listed(&mut spec) {
            let path = Wanted { shared, pod, request, kind: listed.typ() }.path()?;
            let descriptor = path.as_deref().map(namespace::open).transpose()?;
            listed.set_path(path);
            namespaces.push(Joined { kind: listed.typ(), descriptor });
        }
        let record = pod.record();
        let place = mounts::Place {
            opener: &shared.opener,
            origins: mounts::Origins { pod, record: &record, container },
            root: root.as_fd(),
            proc: namespaces::proc(shared, pod, request)?,
        };
        let (settled, mounts) = mounts::open(&place, planned)?;
        spec.set_mounts(Some(settled));
        Ok(Self { spec, identity, root, mounts, namespaces, raw_env: request.raw_env.clone() })
    }

    /// The resources that its cgroup is made with.
    pub(crate) fn resources(&self) -> LinuxResources {
        let linux = self.spec.linux().as_ref();
        linux.and_then(|linux| linux.resources().clone()).unwrap_or_default()
    }

    /// Whether its processes are in no pid namespace of their own.
    pub(crate) fn shares_processes(&self) -> bool {
        let own = |joined: &Joined| joined.kind == LinuxNamespaceType::Pid && joined.descriptor.is_none();
        !self.namespaces.iter().any(own)
    }
}

impl Shared {
    /// A container's specification as it is known now.
    pub(crate) fn container_spec(&self, container: &Container) -> Result<Spec> {
        if let Some(damage) = &container.record.damage {
            return Err(Error::Record { path: damage.path.clone(), why: damage.reason.clone() });
        }
        let pod = self.pod(&container.record.request.sandbox)?;
        let whole = ContainerSpec::of(self, &pod, container, container.identity().as_ref())?;
        Ok(whole.shown(self, &pod, container))
    }
}

fn listed(spec: &mut Spec) -> &mut [LinuxNamespace] {
    let linux = spec.linux_mut().as_mut();
    linux.and_then(|linux| linux.namespaces_mut().as_deref_mut()).unwrap_or_default()
}

fn process_of(request: &ContainerRequest) -> Result<&Process> {
    let process = request.spec.process().as_ref();
    process
        .ok_or_else(|| Error::Invalid(format!("container {}: its specification has no process", request.id)))
}

/// Mounts the container's root, through the pod's id map when it has one.
fn mount_root(shared: &Shared, pod: &Pod, container: &Container) -> Result<OwnedFd> {
    let rootfs = &container.record.request.rootfs;
    let Some(map) = pod.record().config.userns else {
        return overlay::mount_detached(rootfs, &container.directory, &shared.features, None);
    };
    let namespace = namespace::open(&pod.state.join("user"))?;
    let (uid, gid) = (map.root_uid()?, map.root_gid()?);
    let owner = overlay::Owner { namespace: namespace.as_fd(), uid, gid };
    overlay::mount_detached(rootfs, &container.directory, &shared.features, Some(owner))
}

fn profile(wanted: &Seccomp, capabilities: &Capabilities) -> Result<Option<LinuxSeccomp>> {
    match wanted {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Profile(profile) => Ok(Some(profile.as_ref().clone())),
        Seccomp::RuntimeDefault => {
            let machine = seccomp::Machine::native()
                .ok_or_else(|| Error::Unsupported("the default seccomp profile on this machine".into()))?;
            Ok(Some(seccomp::default_profile(capabilities, machine)))
        }
    }
}

/// The devices that every container has and the request's; for one path the last counts.
fn devices(own: &[LinuxDevice]) -> Vec<LinuxDevice> {
    let mut seen = BTreeSet::new();
    let all = spec::default_devices();
    let last = all.iter().chain(own).rev().filter(|device| seen.insert(device.path().clone()));
    let mut chosen: Vec<_> = last.cloned().collect();
    chosen.reverse();
    chosen
}

/// The resources asked for, with the default device rules where there are none.
pub(crate) fn resources(asked: Option<&LinuxResources>) -> LinuxResources {
    let mut resources = asked.cloned().unwrap_or_default();
    if resources.devices().as_ref().is_none_or(Vec::is_empty) {
        resources.set_devices(Some(spec::device_rules(false)));
    }
    resources
}

/// The container's cgroup from the hierarchy's root; none while its pod has none.
fn cgroups_path(shared: &Shared, record: &PodSnapshot, request: &ContainerRequest) -> Option<PathBuf> {
    let planned = record.cgroup.as_ref()?.plan(request.id.as_str()).ok()?;
    shared.cgroups.path(&planned)
}

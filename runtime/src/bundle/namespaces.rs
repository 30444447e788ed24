//! The namespaces of a container's processes: its pod's, another container's, or new ones.

use crate::pod::Pod;
use crate::rootfs::binds::{self, BindOptions};
use crate::runtime::Shared;
use crate::sandbox::PROC;
use crate::{
    ContainerId, ContainerPid, ContainerRequest, Error, IpcMode, Network, PidMode, Result, SandboxConfig,
    namespace,
};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A namespace of a bundle.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) kind: LinuxNamespaceType,
    /// The namespace; none where a new one is made.
    pub(crate) descriptor: Option<OwnedFd>,
}

/// The namespaces of a pod that its processes join, the user namespace first: it decides what may be joined after it.
pub(crate) fn of_pod(config: &SandboxConfig) -> Vec<LinuxNamespaceType> {
    let wanted = [
        (config.userns.is_some(), LinuxNamespaceType::User),
        (true, LinuxNamespaceType::Uts),
        (config.ipc == IpcMode::Pod, LinuxNamespaceType::Ipc),
        (config.network != Network::Host, LinuxNamespaceType::Network),
    ];
    wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, kind)| kind).collect()
}

/// A container's namespaces, those that it joins first; each is still without its path.
pub(super) fn without_paths(config: &SandboxConfig, pid: &ContainerPid) -> Vec<LinuxNamespace> {
    let mut kinds = of_pod(config);
    if !(*pid == ContainerPid::OfPod && config.pid == PidMode::Host) {
        kinds.push(LinuxNamespaceType::Pid);
    }
    kinds.extend([LinuxNamespaceType::Mount, LinuxNamespaceType::Cgroup]);
    let namespace = |kind| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(None);
        namespace
    };
    kinds.into_iter().map(namespace).collect()
}

/// A pod's namespace as a file; none for a kind that a pod does not keep.
pub(crate) fn path_of_pod(pod: &Pod, kind: LinuxNamespaceType) -> Option<PathBuf> {
    match kind {
        LinuxNamespaceType::User => Some(pod.state.join("user")),
        LinuxNamespaceType::Uts => Some(pod.state.join("uts")),
        LinuxNamespaceType::Ipc => Some(pod.state.join("ipc")),
        LinuxNamespaceType::Pid => Some(pod.state.join("pid")),
        LinuxNamespaceType::Network => pod.record().netns,
        LinuxNamespaceType::Mount | LinuxNamespaceType::Cgroup | LinuxNamespaceType::Time => None,
    }
}

/// A namespace that a container is to have.
pub(super) struct Wanted<'a> {
    pub(super) shared: &'a Shared,
    pub(super) pod: &'a Pod,
    pub(super) request: &'a ContainerRequest,
    pub(super) kind: LinuxNamespaceType,
}

impl Wanted<'_> {
    /// The file of the namespace that is joined; none where a new one is made.
    pub(super) fn path(&self) -> Result<Option<PathBuf>> {
        let own_processes = match &self.request.pid {
            ContainerPid::Own => true,
            ContainerPid::OfPod => self.pod.record().config.pid == PidMode::Container,
            ContainerPid::Target(_) => false,
        };
        match (self.kind, &self.request.pid) {
            (LinuxNamespaceType::Pid, ContainerPid::Target(id)) => self.of_target(id).map(Some),
            (LinuxNamespaceType::Pid, _) if own_processes => Ok(None),
            (kind, _) => Ok(path_of_pod(self.pod, kind)),
        }
    }

    fn of_target(&self, id: &ContainerId) -> Result<PathBuf> {
        let target = self.shared.container(id)?;
        if target.record.request.sandbox != self.request.sandbox {
            return Err(Error::Invalid(format!(
                "container {id} is of another pod: its processes can't be shared"
            )));
        }
        Ok(PathBuf::from(format!("/proc/{}/ns/pid", target.pid("share the processes of")?)))
    }
}

/// A proc of the pid namespace that a container joins, as a detached mount: its own child is in that namespace only once
/// it can't mount any more. None where the container's is new, and in a pod of a monitor that does not know the step by
/// which it is made: that one mounts it from inside.
pub(super) fn proc(shared: &Shared, pod: &Pod, request: &ContainerRequest) -> Result<Option<OwnedFd>> {
    match &request.pid {
        ContainerPid::OfPod if pod.record().config.pid == PidMode::Pod => {
            let kept = pod.state.join(PROC);
            namespace::exists(&kept).then(|| open_proc(&kept)).transpose()
        }
        ContainerPid::Target(id) => {
            let pid = shared.container(id)?.pid("share the processes of")?;
            namespace::proc_of(id.as_str(), pid).map(Some)
        }
        ContainerPid::OfPod | ContainerPid::Own => Ok(None),
    }
}

/// A clone of a proc that is kept at a path; a directory from which it was unmounted is not mistaken for it.
fn open_proc(kept: &Path) -> Result<OwnedFd> {
    let failed = |source| Error::Io { action: "use the pod's proc at", path: kept.into(), source };
    let mount = binds::open(kept, BindOptions::plain())?.mount;
    if namespace::is_proc(mount.as_fd()).map_err(failed)? {
        return Ok(mount);
    }
    Err(failed(std::io::Error::other("it has been unmounted: make the pod anew")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dns, Owner, SandboxId};

    fn config(pid: PidMode, network: Network) -> SandboxConfig {
        SandboxConfig {
            id: SandboxId::new("pod").unwrap(),
            owner: Owner::Cri,
            document: crate::Document::default(),
            hostname: "pod".into(),
            network,
            cgroup_parent: None,
            sysctls: [].into(),
            pid,
            ipc: IpcMode::Host,
            userns: None,
            dns: Dns::default(),
            shm_size: 0,
            capabilities: None,
        }
    }

    #[test]
    fn the_hosts_namespaces_are_no_namespaces_of_the_specification() {
        use LinuxNamespaceType::{Cgroup, Mount, Network as Net, Pid, Uts};
        let of = |config: &SandboxConfig, pid| {
            let all = without_paths(config, &pid);
            assert!(all.iter().all(|namespace| namespace.path().is_none()));
            all.iter().map(LinuxNamespace::typ).collect::<Vec<_>>()
        };
        let host = config(PidMode::Host, Network::Host);
        assert_eq!(of(&host, ContainerPid::OfPod), [Uts, Mount, Cgroup]);
        assert_eq!(of(&host, ContainerPid::Own), [Uts, Pid, Mount, Cgroup]);
        let pod = config(PidMode::Pod, Network::Pod { ports: Vec::new() });
        assert_eq!(of(&pod, ContainerPid::OfPod), [Uts, Net, Pid, Mount, Cgroup]);
    }
}

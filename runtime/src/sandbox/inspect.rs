//! A sandbox in more detail than its status has, for tools that enter it.

use crate::bundle::namespaces::{of_pod, path_of_pod};
use crate::life::PodState;
use crate::pod::{Pod, PodSnapshot};
use crate::runtime::Shared;
use crate::{IpcMode, Network, PidMode, Result, SandboxId, namespace};
use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Spec};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A sandbox in detail. A stopped one has a specification alone.
#[derive(Debug, Clone)]
pub struct SandboxDetails {
    /// A process in the pod's network, IPC and UTS namespaces: its monitor, else the first process of its shared pid
    /// namespace. The number is the one of the daemon's pid namespace.
    pub pid: Option<i32>,
    /// The pod's namespaces with their paths, its cgroup, kernel parameters and hostname as an OCI specification has them.
    pub spec: Spec,
    /// Its link to the built-in bridge.
    pub interface: Option<Interface>,
}

/// A pod's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name inside of the pod.
    pub name: String,
    /// Its hardware address, such as `0a:58:0a:58:00:02`.
    pub hardware: String,
    /// The pod's addresses, each with the gateway of its default route.
    pub addresses: Vec<(IpAddr, Option<IpAddr>)>,
}

impl Shared {
    pub(crate) fn sandbox_details(&self, id: &SandboxId) -> Result<SandboxDetails> {
        let pod = self.pod(id)?;
        let record = pod.record();
        let ready = record.state == PodState::Ready;
        let linked = ready && record.config.network != Network::Host;
        Ok(SandboxDetails {
            pid: ready.then(|| process_inside(&pod, &record)).flatten(),
            spec: self.sandbox_spec(&pod, &record),
            interface: linked.then(|| self.network.interface(id.as_str(), &record.addresses)),
        })
    }

    fn sandbox_spec(&self, pod: &Pod, record: &PodSnapshot) -> Spec {
        let config = &record.config;
        let shared_processes = (config.pid == PidMode::Pod).then_some(LinuxNamespaceType::Pid);
        let kinds = of_pod(config).into_iter().chain(shared_processes);
        let kept = kinds.map(|kind| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind).set_path(path_of_pod(pod, kind));
            namespace
        });
        let mut linux = Linux::default();
        linux
            .set_namespaces(Some(kept.collect()))
            .set_sysctl(Some(config.sysctls.clone().into_iter().collect()))
            .set_cgroups_path(record.cgroup.as_ref().and_then(|cgroup| self.cgroups.pod_path(cgroup)))
            .set_resources(None)
            .set_seccomp(None)
            .set_devices(None)
            .set_masked_paths(None)
            .set_readonly_paths(None);
        let mut spec = Spec::default();
        spec.set_version(crate::bundle::VERSION.into())
            .set_root(None)
            .set_mounts(None)
            .set_process(None)
            .set_annotations(None)
            .set_hostname(Some(config.hostname.clone()).filter(|name| !name.is_empty()))
            .set_linux(Some(linux));
        spec
    }
}

/// A process that is in the pod's network, IPC and UTS namespaces. The monitor of an earlier daemon is not: the first
/// process of a shared pid namespace is then, if there is one.
fn process_inside(pod: &Pod, record: &PodSnapshot) -> Option<i32> {
    let monitor = record.monitor.filter(|monitor| !monitor.is_dead()).map(|monitor| monitor.pid);
    let pause = record.pause.as_ref().and_then(|pause| pause.procs().ok()?.into_iter().next());
    monitor.into_iter().chain(pause).find(|pid| is_inside(pod, record, *pid))
}

fn is_inside(pod: &Pod, record: &PodSnapshot, pid: i32) -> bool {
    let on_host = |name: &str| PathBuf::from(format!("/proc/self/ns/{name}"));
    let of = |kind, shared: bool, name: &str| {
        if shared { Some(on_host(name)) } else { path_of_pod(pod, kind) }
    };
    let config = &record.config;
    let wanted = [
        ("net", of(LinuxNamespaceType::Network, config.network == Network::Host, "net")),
        ("ipc", of(LinuxNamespaceType::Ipc, config.ipc == IpcMode::Host, "ipc")),
        ("uts", of(LinuxNamespaceType::Uts, false, "uts")),
    ];
    wanted.iter().all(|(name, path)| {
        let theirs = namespace::open(Path::new(&format!("/proc/{pid}/ns/{name}")));
        let own = path.as_deref().map(namespace::open);
        matches!((theirs, own), (Ok(theirs), Some(Ok(own))) if namespace::same(theirs.as_fd(), own.as_fd()))
    })
}

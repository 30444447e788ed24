//! Making, stopping and removing a sandbox. A failed creation is undone by the same teardown as a stop.

use super::{IpcMode, Network, PidMode, SandboxConfig, files};
use crate::capabilities::CapabilitySet;
use crate::life::PodEvent;
use crate::link::Contact;
use crate::monitor_client::{Connection, Failure, PROMPT};
use crate::monitor_process::{self, MonitorProgram, borrowed};
use crate::network::{self, NetnsSource};
use crate::pod::{FoundPod, Pod, PodRecord, lock};
use crate::process::Process;
use crate::runtime::Shared;
use crate::state::Place;
use crate::{Error, Result, SandboxId, SandboxStatus, launch, namespace, recovery, state};
use rustix::mount::MountAttrFlags;
use rustix::process::Signal;
use slipway_monitor::protocol::{IdRange, Parameter, Reply, Request};
use slipway_monitor::wire::List;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How many port sockets the monitor takes with one request.
const HELD_AT_ONCE: usize = 512;
/// How long a monitor may take to end: once it has been told to, and again once it has been killed.
const LAST_STEPS: Duration = Duration::from_secs(2);
const DEFAULT_SHM: u64 = 64 * 1024 * 1024;
/// Kernel parameters of a pod's ipc namespace; those of the network begin with `net/`.
const IPC_SYSCTLS: [&str; 4] = ["kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/"];

/// The names under which a pod's namespaces are kept, with their `CLONE_NEW*`, from the lowest bit.
const KEPT: [(&str, i32); 4] = [
    ("uts", libc::CLONE_NEWUTS),
    ("ipc", libc::CLONE_NEWIPC),
    ("user", libc::CLONE_NEWUSER),
    ("net", libc::CLONE_NEWNET),
];

/// The name under which the proc of a pod's shared pid namespace is kept.
pub(crate) const PROC: &str = "proc";

pub(crate) fn bits(flags: i32) -> u64 {
    u64::from(flags.cast_unsigned())
}

impl Shared {
    pub(crate) fn create_sandbox(self: &Arc<Self>, config: &SandboxConfig) -> Result<SandboxStatus> {
        check(config)?;
        let pod = self.claim(config)?;
        let _operation = lock(&pod.operation);
        let made = self.make_sandbox(&pod);
        if let Err(error) = made {
            let cleaned = self.tear_down(&pod).and_then(|()| self.forget_sandbox(&pod));
            if let Err(left) = cleaned {
                tracing::warn!(sandbox = %config.id, error = %left, "a failed sandbox left something behind");
            }
            return Err(error);
        }
        Ok(pod.status())
    }

    fn claim(&self, config: &SandboxConfig) -> Result<Arc<Pod>> {
        let id = config.id.as_str();
        let place = Place::pod(&self.config, id);
        let own = self.config.state.join("pods").join(id);
        let cgroup = self.cgroups.plan(config.cgroup_parent.as_deref(), id)?;
        let pause = match config.pid {
            PidMode::Pod => Some(cgroup.plan(&format!("pause-{id}"))?),
            PidMode::Container | PidMode::Host => None,
        };
        let made = PodRecord::new(config, Some(cgroup), pause);
        let pod = Pod::new(place, own, FoundPod::new(made), Contact::Answering);
        let pod = Arc::new(pod);
        let mut pods = lock(&self.pods);
        if pods.contains_key(&config.id) {
            return Err(Error::InUse(format!("sandbox {id} exists already")));
        }
        pods.insert(config.id.clone(), Arc::clone(&pod));
        Ok(pod)
    }

    fn make_sandbox(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let config = pod.record().config;
        state::make_directory(&pod.root)?;
        pod.place.record().write(&pod.made)?;
        state::make_directory(&pod.state)?;
        if let Some(cgroup) = &pod.made.cgroup {
            self.cgroups.make(cgroup)?;
        }
        let mut held = Vec::new();
        if config.userns.is_none() {
            held = self.attach_network(pod, NetnsSource::Fresh)?;
        }
        let connection = self.start_monitor(pod)?;
        let made = self.make_namespaces(pod, &connection, &config)?;
        if let Some(net) = made.get("net") {
            held = self.attach_network(pod, NetnsSource::Existing(net.as_fd()))?;
        }
        for (index, sockets) in held.chunks(HELD_AT_ONCE).enumerate() {
            connection.order(&Request::Hold { name: format!("ports {index}") }, &borrowed(sockets))?;
        }
        self.write_network_sysctls(pod, &config)?;
        files::write(&pod.root, &config, &pod.record().addresses)?;
        mount_shm(pod, &config)?;
        let watched = self.connect_now(pod)?;
        watched.order(&Request::Watch {}, &[])?;
        self.watch(pod, Some(watched))?;
        if config.pid == PidMode::Pod {
            launch::start_pause(self, pod, &connection)?;
        }
        pod.enter(PodEvent::Made)
    }

    /// Connects a pod that has a network of its own; gives the sockets that keep its host ports.
    fn attach_network(&self, pod: &Pod, netns: NetnsSource<'_>) -> Result<Vec<OwnedFd>> {
        let config = pod.record().config;
        let Network::Pod { ports } = &config.network else { return Ok(Vec::new()) };
        let attachment = self.network.attach(config.id.as_str(), ports, netns)?;
        pod.attached(&attachment);
        Ok(attachment.port_sockets)
    }

    fn start_monitor(&self, pod: &Pod) -> Result<Connection> {
        let record = pod.record();
        let id = record.config.id.as_str();
        let place = self.cgroups.monitor_place(&self.features);
        self.reap();
        let (monitor, connection, pid) = self.program.start(id, &pod.state, &place)?;
        *lock(&pod.monitor) = Some(monitor);
        pod.monitored_by(Process::of(pid));
        let directory = namespace::open(&pod.state)?;
        // One of a pod with a user namespace does not exist yet.
        let network = record.netns.as_deref().map(namespace::open).transpose()?;
        let mut descriptors = vec![directory.as_fd(), self.small.as_fd()];
        descriptors.extend(network.as_ref().map(AsFd::as_fd));
        connection.order(&Request::Setup { pod: id.into() }, &descriptors)?;
        let available = CapabilitySet::available()?;
        let own = CapabilitySet::of_monitor().within(available);
        let permitted = own.with(record.config.may_be_given(available));
        let keep = Request::Keep { permitted: permitted.bits(), effective: own.bits() };
        connection.order(&keep, &[])?;
        Ok(connection)
    }

    /// The pod's namespaces, made by the monitor and kept below the state directory.
    fn make_namespaces(
        &self,
        pod: &Pod,
        connection: &Connection,
        config: &SandboxConfig,
    ) -> Result<BTreeMap<&'static str, OwnedFd>> {
        let mut kinds = bits(libc::CLONE_NEWUTS);
        if config.ipc == IpcMode::Pod {
            kinds |= bits(libc::CLONE_NEWIPC);
        }
        if config.userns.is_some() {
            kinds |= bits(libc::CLONE_NEWUSER);
            if matches!(config.network, Network::Pod { .. }) {
                kinds |= bits(libc::CLONE_NEWNET);
            }
        }
        let ranges = |ranges: &[super::IdRange]| {
            let range = |range: &super::IdRange| IdRange {
                inside: range.inside,
                outside: range.outside,
                count: range.count,
            };
            List(ranges.iter().map(range).collect())
        };
        let map = config.userns.as_ref();
        let sysctls = config.sysctls.iter().map(|(name, value)| (name.replace('.', "/"), value));
        let sysctls = sysctls.filter(|(name, _)| !name.starts_with("net/"));
        let request = Request::Namespaces {
            kinds,
            uids: ranges(map.map_or(&[], |map| &map.uids)),
            gids: ranges(map.map_or(&[], |map| &map.gids)),
            hostname: host_name(config),
            sysctls: List(sysctls.map(|(name, value)| Parameter { name, value: value.clone() }).collect()),
        };
        let answer = connection.request(&request, &[], PROMPT)?;
        if answer.reply != (Reply::Done {}) {
            return Err(connection.unexpected(&answer.reply));
        }
        let names = KEPT.iter().filter(|(_, flag)| kinds & bits(*flag) != 0).map(|(name, _)| *name);
        let made: BTreeMap<_, _> = names.zip(answer.descriptors).collect();
        for (name, descriptor) in &made {
            namespace::keep(descriptor.as_fd(), &pod.state.join(name))?;
        }
        Ok(made)
    }

    fn write_network_sysctls(&self, pod: &Pod, config: &SandboxConfig) -> Result<()> {
        let names = config.sysctls.iter().map(|(name, value)| (name.replace('.', "/"), value));
        let wanted: Vec<_> = names.filter(|(name, _)| name.starts_with("net/")).collect();
        let Some(netns) = pod.record().netns.filter(|_| !wanted.is_empty()) else { return Ok(()) };
        let netns = namespace::open(&netns)?;
        network::in_netns(netns.as_fd(), || {
            wanted.iter().try_for_each(|(name, value)| {
                let path = Path::new("/proc/sys").join(name);
                std::fs::write(&path, value.as_bytes()).map_err(|source| Error::Io {
                    action: "write kernel parameter",
                    path,
                    source,
                })
            })
        })?
    }

    pub(crate) fn stop_sandbox(&self, id: &SandboxId) -> Result<()> {
        let Some(pod) = self.find_pod(id) else { return Ok(()) };
        let _operation = lock(&pod.operation);
        self.tear_down(&pod)
    }

    pub(crate) fn remove_sandbox(&self, id: &SandboxId) -> Result<()> {
        let Some(pod) = self.find_pod(id) else { return Ok(()) };
        let _operation = lock(&pod.operation);
        pod.end(PodEvent::Remove);
        self.tear_down(&pod)?;
        let mut outcome = Ok(());
        for container in self.containers_of(id) {
            outcome = outcome.and(self.remove_container(&container.record.request.id));
        }
        outcome?;
        self.forget_sandbox(&pod)
    }

    fn forget_sandbox(&self, pod: &Pod) -> Result<()> {
        slipway_disk::remove_tree(&pod.state)?;
        pod.place.remove()?;
        lock(&self.pods).remove(&pod.record().config.id);
        Ok(())
    }

    /// Gives everything of a sandbox back but its records; each part succeeds when there is nothing to do.
    pub(crate) fn tear_down(&self, pod: &Pod) -> Result<()> {
        pod.end(PodEvent::Stop);
        let record = pod.record();
        let containers = self.containers_of(&record.config.id);
        let mut outcome = self.kill_containers(pod, &containers);
        if let Some(pause) = &record.pause {
            outcome = outcome.and(pause.kill(&self.features)).and(pause.remove());
        }
        // The ports lead nowhere before the monitor lets go of them for others.
        outcome = outcome.and(self.network.detach(record.config.id.as_str()));
        let ended = self.end_monitor(pod);
        if ended.is_ok() {
            containers.iter().for_each(|container| recovery::settle(self, container));
        }
        outcome = outcome.and(ended);
        for (name, _) in KEPT {
            outcome = outcome.and(namespace::unmount_all(&pod.state.join(name)));
        }
        for name in ["pid", "shm", PROC] {
            outcome = outcome.and(namespace::unmount_all(&pod.state.join(name)));
        }
        if let Some(cgroup) = &record.cgroup {
            outcome = outcome.and(cgroup.remove());
        }
        outcome
    }

    /// Asks the monitor to end, and kills it when it does not, or does not answer. One that the kernel holds in a system
    /// call, as by a log on a file system that hangs, has its SIGKILL pending: it executes nothing any more, and is not
    /// waited for.
    fn end_monitor(&self, pod: &Pod) -> Result<()> {
        let record = pod.record();
        let id = record.config.id.as_str();
        let mut process = record.monitor;
        let mut refusal = None;
        // A monitor that a damaged record does not name is known by its answer alone, and is not left behind.
        if namespace::exists(&pod.state) && (process.is_none() || !pod.link.is_silent()) {
            match Connection::open(id, &pod.state) {
                Ok((connection, pid)) => {
                    // The answer on its own socket is what says that this process is the monitor.
                    process = process.filter(|process| process.pid == pid).or_else(|| Process::of(pid));
                    if connection.order(&Request::Shutdown {}, &[]).is_ok() {
                        // The end of the connection is the monitor's.
                        let _ = connection.receive(Some(LAST_STEPS));
                    }
                }
                Err(Failure::Absent(_)) => {}
                Err(failure) => refusal = Some(failure.error(id)),
            }
        }
        match (process, &*lock(&pod.monitor), refusal) {
            (Some(process), ..) => end_process(id, process)?,
            (None, Some(started), _) => started.kill(),
            (None, None, Some(refusal)) => end_unnamed(id, refusal)?,
            (None, None, None) => {}
        }
        if let Some(started) = lock(&pod.monitor).take() {
            lock(&self.unreaped).push(started);
            self.reap();
        }
        Ok(())
    }

    /// Reaps the monitors of this daemon that have ended since their sandboxes were given up.
    pub(crate) fn reap(&self) {
        lock(&self.unreaped).retain(|monitor| !monitor.has_ended());
    }
}

/// Ends a monitor that does not answer and that no record names; where it can't be looked for, gives back why it could not
/// be asked.
fn end_unnamed(sandbox: &str, refusal: Error) -> Result<()> {
    let found = monitor_process::running(sandbox).map_err(|error| {
        tracing::warn!(sandbox, %error, "its monitor can't be looked for");
        refusal
    })?;
    found.into_iter().try_for_each(|process| end_process(sandbox, process))
}

/// Waits a little for the end of a monitor, and kills it.
fn end_process(sandbox: &str, process: Process) -> Result<()> {
    if process.is_dead() {
        return Ok(());
    }
    process.signal(Signal::KILL).map_err(|source| Error::Kernel {
        call: format!("kill the monitor of sandbox {sandbox}, process {}", process.pid),
        source,
    })?;
    if !process.wait(LAST_STEPS) {
        let pid = process.pid;
        tracing::warn!(
            sandbox,
            pid,
            "its monitor is killed, but the kernel holds it in a system call, as by a log on a file system that hangs: \
             until that answers it keeps the sandbox's host ports"
        );
    }
    Ok(())
}

/// The name of the pod's uts namespace.
pub(crate) fn host_name(config: &SandboxConfig) -> String {
    if config.hostname.is_empty() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        config.hostname.clone()
    }
}

fn check(config: &SandboxConfig) -> Result<()> {
    if config.hostname.len() > 64 {
        return Err(Error::Invalid(format!("hostname {:?} has more than 64 bytes", config.hostname)));
    }
    for name in config.sysctls.keys() {
        let path = name.replace('.', "/");
        let odd = path.split('/').any(str::is_empty)
            || path.contains(|c: char| !c.is_ascii_alphanumeric() && !"/_-".contains(c));
        let net = path.starts_with("net/") && config.network != Network::Host;
        let ipc = IPC_SYSCTLS.iter().any(|prefix| path.starts_with(prefix)) && config.ipc == IpcMode::Pod;
        if odd || !(net || ipc) {
            return Err(Error::Invalid(format!("sysctl {name} is not one of the pod's own namespaces")));
        }
    }
    Ok(())
}

fn mount_shm(pod: &Pod, config: &SandboxConfig) -> Result<()> {
    if config.ipc == IpcMode::Host {
        return Ok(());
    }
    let size = if config.shm_size == 0 { DEFAULT_SHM } else { config.shm_size };
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = namespace::tmpfs(&[("mode", "1777"), ("size", &size.to_string())], attributes)?;
    let path = pod.state.join("shm");
    state::make_directory(&path)?;
    namespace::attach(mount.as_fd(), &path)
}

/// Where the program of a shared pid namespace's first process is.
pub(crate) fn pause_program(root: &Path) -> Result<std::path::PathBuf> {
    let path = root.join("pause");
    MonitorProgram::write_to(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dns;

    fn config(name: &str, network: Network) -> SandboxConfig {
        SandboxConfig {
            id: SandboxId::new("pod").unwrap(),
            owner: crate::Owner::Cri,
            document: crate::Document::default(),
            hostname: "pod".into(),
            network,
            cgroup_parent: None,
            sysctls: [(name.to_owned(), "1".to_owned())].into(),
            pid: PidMode::Container,
            ipc: IpcMode::Pod,
            userns: None,
            dns: Dns::default(),
            shm_size: 0,
            capabilities: None,
        }
    }

    #[test]
    fn a_sysctl_of_the_host_is_refused() {
        let pod = || Network::Pod { ports: Vec::new() };
        assert!(check(&config("net.ipv4.ip_forward", pod())).is_ok());
        assert!(check(&config("kernel.shm_rmid_forced", pod())).is_ok());
        for bad in ["kernel.core_pattern", "net.ipv4/../../kernel/core_pattern", "net..x", "kernel.shm+net"] {
            assert!(check(&config(bad, pod())).is_err(), "{bad}");
        }
        assert!(check(&config("net.ipv4.ip_forward", Network::Host)).is_err());
    }
}

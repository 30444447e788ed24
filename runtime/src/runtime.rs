//! The way in: every verb on sandboxes and containers.

use crate::cgroup::{CgroupConfig, Cgroups};
use crate::container::check_signal;
use crate::damage::Damages;
use crate::life::PodEvent;
use crate::monitor_process::{MonitorProgram, Started};
use crate::opener::Opener;
use crate::plan::Filter;
use crate::pod::{Container, Pod, lock};
use crate::{
    AttachSession, Bound, ContainerEvent, ContainerId, ContainerRequest, ContainerState, Damaged, Error,
    Exec, ExecOutput, ExecSession, Features, Identity, Numbers, Result, RuntimeConfig, SandboxConfig,
    SandboxDetails, SandboxId, SandboxStatus, Unreachable, dismantle, namespace, network, recovery,
};
use oci_spec::runtime::{LinuxSeccomp, Spec};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// Whether pods get a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkStatus {
    /// Pods can start with a network of their own.
    pub ready: bool,
    /// One word for machines, when not all is well.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Host ports can be mapped.
    pub host_ports: bool,
    /// The node forwards the packets of each family that pods have.
    pub forwarding: bool,
}

/// The runtime of one state directory; clones share it.
#[derive(Debug, Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: RuntimeConfig,
    pub(crate) features: Features,
    pub(crate) cgroups: Cgroups,
    pub(crate) network: network::Network,
    pub(crate) program: MonitorProgram,
    pub(crate) opener: Opener,
    /// The small mount namespace.
    pub(crate) small: OwnedFd,
    /// Filters of the last few profiles.
    pub(crate) filters: Mutex<Vec<(LinuxSeccomp, Filter)>>,
    pub(crate) pods: Mutex<BTreeMap<SandboxId, Arc<Pod>>>,
    pub(crate) containers: Mutex<BTreeMap<ContainerId, Arc<Container>>>,
    pub(crate) subscribers: Mutex<Vec<mpsc::Sender<ContainerEvent>>>,
    /// Monitors that were killed and had not ended when their sandboxes were given up.
    pub(crate) unreaped: Mutex<Vec<Started>>,
    /// Damage that was found to records when they were taken up.
    pub(crate) damages: Damages,
}

impl Shared {
    pub(crate) fn find_pod(&self, id: &SandboxId) -> Option<Arc<Pod>> {
        lock(&self.pods).get(id).cloned()
    }

    pub(crate) fn pod(&self, id: &SandboxId) -> Result<Arc<Pod>> {
        self.find_pod(id).ok_or_else(|| Error::NotFound { kind: "sandbox", id: id.to_string() })
    }
}

/// The network's part of the configuration.
pub(crate) fn network_config(config: &RuntimeConfig) -> Result<network::NetworkConfig> {
    let settings = &config.network;
    Ok(network::NetworkConfig {
        bridge: settings.bridge.clone(),
        subnets: settings.subnets.iter().map(|subnet| subnet.parse()).collect::<Result<_>>()?,
        table: settings.table.clone(),
        nftables: settings.nftables,
        unprivileged: network::Unprivileged {
            ports: settings.unprivileged_ports,
            icmp: settings.unprivileged_icmp,
        },
        state: config.state.clone(),
        root: config.root.clone(),
        ..network::NetworkConfig::default()
    })
}

impl Runtime {
    /// Takes up the directories: until [`Runtime::adopt`] all is as its record says. The opener opens what clients name.
    ///
    /// # Errors
    /// When the directories, cgroups or network can't be used at all; one broken sandbox is logged and left.
    pub fn open(config: RuntimeConfig, opener: Opener) -> Result<Self> {
        Features::check(&config.disable_features)?;
        let state = ["pods", "copies/pods", "copies/containers"].map(|name| config.state.join(name));
        let root = ["pods", "containers"].map(|name| config.root.join(name));
        for directory in state.iter().chain(&root) {
            if let Some(aside) = slipway_disk::atomic::make_directory(directory, 0o700)? {
                tracing::error!(aside = %aside.display(), "it stood where a directory belongs and was renamed");
            }
        }
        let network = network::Network::open(network_config(&config)?)?;
        let cgroups = Cgroups::open(&CgroupConfig { root: config.cgroup_root.clone() })?;
        dismantle::remember(&config.state, cgroups.made())?;
        let shared = Shared {
            features: Features::probe(&config.disable_features, cgroups.support())?,
            cgroups,
            network,
            program: MonitorProgram::load()?,
            opener,
            small: namespace::small_mount_namespace(&config.state)?,
            filters: Mutex::default(),
            pods: Mutex::default(),
            containers: Mutex::default(),
            subscribers: Mutex::default(),
            unreaped: Mutex::default(),
            damages: Damages::default(),
            config,
        };
        let shared = Arc::new(shared);
        recovery::recover(&shared)?;
        Ok(Self { shared })
    }

    /// Begins to take up what runs, and to end what a dead daemon left half-made; returns when that is done, or after
    /// `patience`, and it goes on in the background. Who subscribed to
    /// [`Runtime::events`] before it hears of every container that has ended meanwhile. Until its sandbox is taken up, a
    /// call that needs a sandbox's monitor waits for that, at most ten seconds.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn adopt(&self, patience: Duration) -> Result<()> {
        self.shared.adopt(patience)
    }

    /// The sandboxes whose monitors do not answer or can't be asked: all of them is as it was last known.
    #[must_use]
    pub fn unreachable_sandboxes(&self) -> Vec<Unreachable> {
        self.shared.unreachable()
    }

    /// Removes what a runtime leaves on the node for the next one: bridge, nftables table, cgroups, state directory.
    /// Images and records stay. No runtime of these directories may be open.
    ///
    /// # Errors
    /// [`Error::InUse`] while sandboxes exist, and the first of what could not be removed.
    pub fn dismantle(config: &RuntimeConfig) -> Result<()> {
        dismantle::dismantle(config)
    }

    /// The features that the kernel offers and the configuration leaves in use.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.shared.features
    }

    /// Whether pods get a network.
    #[must_use]
    pub fn network_status(&self) -> NetworkStatus {
        let status = self.shared.network.status();
        NetworkStatus {
            ready: status.ready,
            reason: status.reason.into(),
            message: status.message,
            host_ports: status.host_ports,
            forwarding: status.forwarding,
        }
    }

    /// Accepts the subnets that someone says pods have, if they are those of the built-in bridge.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no subnet, [`Error::Unsupported`] for others than the bridge's.
    pub fn check_pod_cidrs(&self, told: &[&str]) -> Result<()> {
        self.shared.network.check_subnets(told)
    }

    /// Makes a sandbox ready for containers. Failing, it leaves nothing.
    ///
    /// # Errors
    /// [`Error::InUse`] for a name or port in use, [`Error::Invalid`] and [`Error::Unsupported`] for what can't be.
    pub fn create_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus> {
        self.shared.create_sandbox(config)
    }

    /// Kills the sandbox's containers and gives its network, cgroup and namespaces back. Stopping twice is fine, as is
    /// stopping what does not exist.
    ///
    /// # Errors
    /// The first of what could not be given back; a further call tries again.
    pub fn stop_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.shared.stop_sandbox(id)
    }

    /// Stops the sandbox, removes its containers and forgets it. An unknown sandbox is no error.
    ///
    /// # Errors
    /// As [`Runtime::stop_sandbox`].
    pub fn remove_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.shared.remove_sandbox(id)
    }

    /// A sandbox's removal begins: it is recorded, and no container is created or started in it from now on. An unknown
    /// sandbox is no error.
    pub fn begin_removal(&self, id: &SandboxId) {
        if let Some(pod) = self.shared.find_pod(id) {
            pod.end(PodEvent::Remove);
        }
    }

    /// One sandbox.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn sandbox_status(&self, id: &SandboxId) -> Result<SandboxStatus> {
        self.shared.pod(id).map(|pod| pod.status())
    }

    /// One sandbox in detail, for tools that enter it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn sandbox_details(&self, id: &SandboxId) -> Result<SandboxDetails> {
        self.shared.sandbox_details(id)
    }

    /// All sandboxes.
    #[must_use]
    pub fn sandboxes(&self) -> Vec<SandboxStatus> {
        let pods: Vec<_> = lock(&self.shared.pods).values().cloned().collect();
        pods.iter().map(|pod| pod.status()).collect()
    }

    /// The processors or memory nodes that containers of a sandbox can be bound to.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the kernel does not say.
    pub fn numbers(&self, id: &SandboxId, bound: Bound) -> Result<Numbers> {
        self.shared.numbers(id, bound)
    }

    /// Records a container: no process, no mount.
    ///
    /// # Errors
    /// [`Error::InUse`] for a name in use, [`Error::NotFound`] and [`Error::WrongState`] for its sandbox.
    pub fn create_container(&self, request: ContainerRequest) -> Result<()> {
        self.shared.create_container(request)
    }

    /// Starts a created container and returns when its program runs. After a failure it has ended, with code 128,
    /// [`crate::ExitReason::StartError`] and the error as its message; one that can't be started at all
    /// ([`Error::WrongState`], [`Error::NotFound`]) is as it was.
    ///
    /// # Errors
    /// [`Error::Program`] when the program can't be executed, [`Error::Start`] for a step before, and others.
    pub fn start_container(&self, id: &ContainerId) -> Result<()> {
        self.shared.start_container(id)
    }

    /// Sends the signal and, after the grace, kills whatever is left of the container; returns when it has ended.
    /// A container that does not run is left as it is. Where its monitor does not answer in ten seconds, all of this is
    /// done without it.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when it can't be killed. [`Error::Unreachable`] when it is killed and only its monitor,
    /// which does not answer, knows how it has ended.
    pub fn stop_container(&self, id: &ContainerId, signal: i32, grace: Duration) -> Result<()> {
        self.shared.stop_container(id, check_signal(signal)?, grace)
    }

    /// Sends a signal to a running container's first process.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`].
    pub fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<()> {
        self.shared.signal_container(id, check_signal(signal)?)
    }

    /// Kills a container if it runs and removes all of it. An unknown container is no error.
    ///
    /// # Errors
    /// When something of it can't be removed; a further call tries again.
    pub fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.shared.remove_container(id)
    }

    /// A container's state.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn container_state(&self, id: &ContainerId) -> Result<ContainerState> {
        self.shared.container(id).map(|container| container.state())
    }

    /// When a container was created, in nanoseconds since the epoch.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn container_created_at(&self, id: &ContainerId) -> Result<i64> {
        self.shared.container(id).map(|container| container.record.created_at)
    }

    /// Whether a container's removal has been begun, or it is gone.
    #[must_use]
    pub fn is_container_removed(&self, id: &ContainerId) -> bool {
        self.shared.find_container(id).is_none_or(|container| container.is_removing())
    }

    /// A container's request, as it was created.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn container_request(&self, id: &ContainerId) -> Result<ContainerRequest> {
        self.shared.container(id).map(|container| container.record.request.clone())
    }

    /// A container's OCI specification as it is known now, whole: before its first start it lacks the user, and while it
    /// does not run the root's path and namespaces of other containers.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Record`] of a damaged record, or when the record is of a daemon that could do more.
    pub fn container_spec(&self, id: &ContainerId) -> Result<Spec> {
        self.shared.container(id).and_then(|container| self.shared.container_spec(&container))
    }

    /// The user and groups that a container runs as; none before its first start.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn container_identity(&self, id: &ContainerId) -> Result<Option<Identity>> {
        self.shared.container(id).map(|container| container.identity())
    }

    /// All containers.
    #[must_use]
    pub fn containers(&self) -> Vec<ContainerId> {
        lock(&self.shared.containers).keys().cloned().collect()
    }

    /// Waits until a container has ended; none when it has not after `timeout`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn wait(&self, id: &ContainerId, timeout: Duration) -> Result<Option<ContainerState>> {
        self.shared.container(id).map(|container| container.wait(timeout))
    }

    /// How many writes to a container's log were lost, once it has ended; none when that is not known.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn log_writes_dropped(&self, id: &ContainerId) -> Result<Option<u64>> {
        self.shared.container(id).map(|container| container.log_writes_dropped.get().copied())
    }

    /// Ends of containers from now on, and recorded starts that [`Runtime::adopt`] finds to have come to nothing: the
    /// container is as it was created.
    #[must_use]
    pub fn events(&self) -> mpsc::Receiver<ContainerEvent> {
        let (sender, receiver) = mpsc::channel();
        lock(&self.shared.subscribers).push(sender);
        receiver
    }

    /// Runs a process to its end and collects what it writes. It is killed when the other end of the pipe `client` is
    /// closed.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`], [`Error::Program`], and others.
    pub fn exec_sync(&self, id: &ContainerId, exec: &Exec, client: &OwnedFd) -> Result<ExecOutput> {
        let exec = Exec { stdin: false, tty: false, ..exec.clone() };
        self.shared.exec(id, &exec)?.collect(client)
    }

    /// Runs a process whose streams are the caller's.
    ///
    /// # Errors
    /// As [`Runtime::exec_sync`].
    pub fn exec(&self, id: &ContainerId, exec: &Exec) -> Result<ExecSession> {
        self.shared.exec(id, exec)
    }

    /// Follows a container's streams, also before it starts, so that no line is lost.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the monitor refuses.
    pub fn attach(&self, id: &ContainerId, stdin: bool) -> Result<AttachSession> {
        self.shared.attach(id, stdin)
    }

    /// Goes on logging into a fresh file at the container's log path.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`], or when the file can't be opened.
    pub fn reopen_log(&self, id: &ContainerId) -> Result<()> {
        self.shared.reopen_log(id)
    }

    /// Changes the size of a container's terminal.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`], or when it has none.
    pub fn resize(&self, id: &ContainerId, width: u16, height: u16) -> Result<()> {
        self.shared.resize(id, width, height)
    }

    /// Records that are known to be damaged, or were and are whole again; the disk is not looked at.
    #[must_use]
    pub fn damaged(&self) -> Vec<Damaged> {
        self.shared.damaged_records()
    }

    /// The damage to a sandbox's records, where some of them are lost.
    #[must_use]
    pub fn damage_of_sandbox(&self, id: &SandboxId) -> Option<String> {
        self.shared.find_pod(id).and_then(|pod| pod.record().damage).map(|damage| damage.reason)
    }

    /// The damage to a container's records, where some of them are lost.
    #[must_use]
    pub fn damage_of_container(&self, id: &ContainerId) -> Option<String> {
        let container = self.shared.find_container(id)?;
        container.record.damage.as_ref().map(|damage| damage.reason.clone())
    }

    /// Verifies every record of pods and containers on disk. With `repair` a damaged one is written again.
    #[must_use]
    pub fn check(&self, repair: bool) -> Vec<Damaged> {
        self.shared.check_records(repair)
    }

    /// The directory that holds what a container has written, in overlayfs's form.
    #[must_use]
    pub fn upper_dir(&self, id: &ContainerId) -> PathBuf {
        self.shared.config.root.join("containers").join(id.as_str()).join("upper")
    }
}

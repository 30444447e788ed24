//! The way in: every verb on sandboxes and containers.

use crate::{
    AttachSession, ContainerEvent, ContainerId, ContainerRequest, ContainerState, Error, Exec, ExecOutput,
    ExecSession, Features, Result, RuntimeConfig, SandboxConfig, SandboxId, SandboxStatus,
};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
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
}

/// The runtime of one state directory; clones share it.
#[derive(Debug, Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: RuntimeConfig,
    features: Features,
}

fn coming<T>(what: &str) -> Result<T> {
    Err(Error::Unsupported(format!("{what} is not built into this version")))
}

#[expect(clippy::missing_errors_doc, reason = "each error is the variant of `Error` that names its object")]
impl Runtime {
    /// Takes up the directories, adopts what runs and ends what a dead daemon left half-made.
    pub fn open(config: RuntimeConfig) -> Result<Self> {
        let features = config.features.ok_or_else(|| Error::Unsupported("no features".into()))?;
        Ok(Self { shared: Arc::new(Shared { config, features }) })
    }

    /// What the kernel offers.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.shared.features
    }

    /// Whether pods get a network.
    #[must_use]
    pub fn network_status(&self) -> NetworkStatus {
        NetworkStatus { ready: false, reason: String::new(), message: String::new(), host_ports: false }
    }

    /// Makes a sandbox ready for containers. Failing, it leaves nothing.
    pub fn create_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus> {
        let _ = config;
        coming("create_sandbox")
    }

    /// Kills the sandbox's containers and gives its network, cgroup and namespaces back. Stopping twice is fine, as is
    /// stopping what does not exist.
    pub fn stop_sandbox(&self, id: &SandboxId) -> Result<()> {
        let _ = id;
        coming("stop_sandbox")
    }

    /// Stops the sandbox, removes its containers and forgets it. An unknown sandbox is no error.
    pub fn remove_sandbox(&self, id: &SandboxId) -> Result<()> {
        let _ = id;
        coming("remove_sandbox")
    }

    /// One sandbox.
    pub fn sandbox_status(&self, id: &SandboxId) -> Result<SandboxStatus> {
        let _ = id;
        coming("sandbox_status")
    }

    /// All sandboxes.
    #[must_use]
    pub fn sandboxes(&self) -> Vec<SandboxStatus> {
        Vec::new()
    }

    /// Records a container: no process, no mount.
    pub fn create_container(&self, request: ContainerRequest) -> Result<()> {
        let _ = request;
        coming("create_container")
    }

    /// Starts a created container and returns when its program runs.
    pub fn start_container(&self, id: &ContainerId) -> Result<()> {
        let _ = id;
        coming("start_container")
    }

    /// Sends the signal and, after the grace, kills whatever is left of the container; returns when it has ended.
    pub fn stop_container(&self, id: &ContainerId, signal: i32, grace: Duration) -> Result<()> {
        let _ = (id, signal, grace);
        coming("stop_container")
    }

    /// Sends a signal to a running container's first process.
    pub fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<()> {
        let _ = (id, signal);
        coming("signal_container")
    }

    /// Kills a container if it runs and removes all of it. An unknown container is no error.
    pub fn remove_container(&self, id: &ContainerId) -> Result<()> {
        let _ = id;
        coming("remove_container")
    }

    /// A container's state.
    pub fn container_state(&self, id: &ContainerId) -> Result<ContainerState> {
        let _ = id;
        coming("container_state")
    }

    /// A container's request, as it was created.
    pub fn container_request(&self, id: &ContainerId) -> Result<ContainerRequest> {
        let _ = id;
        coming("container_request")
    }

    /// All containers.
    #[must_use]
    pub fn containers(&self) -> Vec<ContainerId> {
        Vec::new()
    }

    /// Waits until a container has ended; none when it has not after `timeout`.
    pub fn wait(&self, id: &ContainerId, timeout: Duration) -> Result<Option<ContainerState>> {
        let _ = (id, timeout);
        coming("wait")
    }

    /// Ends of containers from now on.
    #[must_use]
    pub fn events(&self) -> mpsc::Receiver<ContainerEvent> {
        mpsc::channel().1
    }

    /// Runs a process to its end and collects what it writes.
    pub fn exec_sync(&self, id: &ContainerId, exec: &Exec) -> Result<ExecOutput> {
        let _ = (id, exec);
        coming("exec_sync")
    }

    /// Runs a process whose streams are the caller's.
    pub fn exec(&self, id: &ContainerId, exec: &Exec) -> Result<ExecSession> {
        let _ = (id, exec);
        coming("exec")
    }

    /// Follows a container's streams, also before it starts, so that no line is lost.
    pub fn attach(&self, id: &ContainerId, stdin: bool) -> Result<AttachSession> {
        let _ = (id, stdin);
        coming("attach")
    }

    /// Goes on logging into a fresh file at the container's log path.
    pub fn reopen_log(&self, id: &ContainerId) -> Result<()> {
        let _ = id;
        coming("reopen_log")
    }

    /// Changes the size of a container's terminal.
    pub fn resize(&self, id: &ContainerId, width: u16, height: u16) -> Result<()> {
        let _ = (id, width, height);
        coming("resize")
    }

    /// The directory that holds what a container has written, in overlayfs's form.
    #[must_use]
    pub fn upper_dir(&self, id: &ContainerId) -> PathBuf {
        self.shared.config.root.join("containers").join(id.as_str()).join("upper")
    }
}

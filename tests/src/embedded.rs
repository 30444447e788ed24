//! The runtime as a library, with pods of a test's own: for what the CRI surface refuses (user namespaces) and for tests
//! that start hundreds of processes. Its containers have busybox, `probe` and `spy`.

use crate::{busybox, node, probe};
use slipway_runtime::{
    ContainerId, ContainerPid, ContainerRequest, ContainerState, Dns, Document, Exec, ExecOutput, IdMap,
    IdRange, IpcMode, Network, NetworkConfig, Opener, Owner, PidMode, RootFs, Runtime, RuntimeConfig,
    SandboxConfig, SandboxId, Seccomp, User, spec,
};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// The uid of the host that is root of a pod with a user namespace.
pub const OUTSIDE: u32 = 300_000;
const APPLETS: [&str; 12] =
    ["cat", "chmod", "echo", "find", "ls", "mkdir", "readlink", "sh", "sleep", "stat", "touch", "true"];

/// A runtime in a directory of its own.
#[derive(Debug)]
pub struct Embedded {
    /// The runtime.
    pub runtime: Runtime,
    directory: TempDir,
    cgroup_root: String,
}

impl Embedded {
    /// Opens a runtime. `number` keeps the tests of one file apart; numbers to 250 are those of nodes.
    ///
    /// # Panics
    /// When it can't be opened.
    #[must_use]
    pub fn start(number: u32) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let home = directory.path();
        busybox::context(&home.join("context"), "");
        let root = home.join("context/root");
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("an applet");
        }
        probe::compile(&root.join("bin"));
        let cgroup_root = node::cgroup_root(number);
        let config = RuntimeConfig {
            state: home.join("run"),
            root: home.join("lib"),
            cgroup_root: Some(cgroup_root.clone()),
            network: NetworkConfig { bridge: format!("slipe{number}"), ..NetworkConfig::default() },
            disable_features: Vec::new(),
        };
        Self { runtime: Runtime::open(config, Opener::default()).expect("a runtime"), directory, cgroup_root }
    }

    /// A path of its directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The root directory that its containers see as their image.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.path("context/root")
    }

    /// Starts a pod on the host's network.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn pod(&self, name: &str, pid: PidMode, user_namespace: bool) -> SandboxId {
        let id = SandboxId::new(name).expect("an id");
        let map = || vec![IdRange { inside: 0, outside: OUTSIDE, count: 65_536 }];
        let config = SandboxConfig {
            id: id.clone(),
            owner: Owner::Cri,
            document: Document::default(),
            hostname: name.into(),
            network: Network::Host,
            cgroup_parent: None,
            sysctls: [].into(),
            pid,
            ipc: IpcMode::Pod,
            userns: user_namespace.then(|| IdMap { uids: map(), gids: map() }),
            dns: Dns::default(),
            shm_size: 0,
            capabilities: None,
        };
        let _ = self.runtime.create_sandbox(&config).expect("a sandbox");
        id
    }

    /// A request for a container of the default specification.
    ///
    /// # Panics
    /// When its name is no id.
    #[must_use]
    pub fn request(&self, pod: &SandboxId, name: &str, arguments: &[&str]) -> ContainerRequest {
        self.request_with(pod, name, arguments, spec::Privilege::Confined)
    }

    /// The same, confined or privileged. A privileged one has no seccomp filter.
    ///
    /// # Panics
    /// When its name is no id.
    #[must_use]
    pub fn request_with(
        &self,
        pod: &SandboxId,
        name: &str,
        arguments: &[&str],
        privilege: spec::Privilege,
    ) -> ContainerRequest {
        let mut wanted = spec::default_spec(privilege);
        let mut process = wanted.process().clone().expect("a process");
        process.set_args(Some(arguments.iter().map(ToString::to_string).collect()));
        wanted.set_process(Some(process));
        let seccomp = match privilege {
            spec::Privilege::Confined => Seccomp::RuntimeDefault,
            spec::Privilege::Privileged => Seccomp::Unconfined,
        };
        ContainerRequest {
            id: ContainerId::new(name).expect("an id"),
            sandbox: pod.clone(),
            owner: Owner::Cri,
            document: Document::default(),
            spec: wanted,
            rootfs: RootFs { lowers: vec![self.image()], readonly: false, volatile: true },
            log_path: Some(self.log_path(name)),
            stdin: false,
            stdin_once: false,
            tty: false,
            volumes: Vec::new(),
            user: User::default(),
            seccomp,
            raw_env: Vec::new(),
            pid: ContainerPid::default(),
        }
    }

    /// Creates and starts a container.
    ///
    /// # Errors
    /// When it does not start.
    pub fn run(&self, request: ContainerRequest) -> slipway_runtime::Result<ContainerId> {
        let id = request.id.clone();
        self.runtime.create_container(request)?;
        self.runtime.start_container(&id)?;
        Ok(id)
    }

    /// Waits for a container's end, removes it, and gives its exit code and log.
    ///
    /// # Panics
    /// When it does not end in a minute.
    #[must_use]
    pub fn ended(&self, id: &ContainerId) -> (i32, String) {
        let end = self.runtime.wait(id, Duration::from_secs(60)).expect("a known container");
        let Some(ContainerState::Exited { code, .. }) = end else { panic!("{id} does not end: {end:?}") };
        let log = self.log(id.as_str());
        self.runtime.remove_container(id).expect("it is removed");
        (code, log)
    }

    /// Both outputs of a container so far, without the log's columns.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.log_path(name)).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
        lines.flat_map(|line| [line, "\n"]).collect()
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.path("logs").join(name)
    }

    /// Runs a process in a container to its end.
    ///
    /// # Errors
    /// When it does not start.
    pub fn exec(&self, container: &ContainerId, arguments: &[&str]) -> slipway_runtime::Result<ExecOutput> {
        let argv = arguments.iter().map(ToString::to_string).collect();
        // A client that stays.
        let (client, _other) = std::io::pipe().expect("a pipe");
        self.runtime.exec_sync(container, &Exec { argv, ..Exec::default() }, &client.into())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        for pod in self.runtime.sandboxes() {
            if let Err(error) = self.runtime.remove_sandbox(&pod.config.id) {
                eprintln!("sandbox {} is left behind: {error}", pod.config.id);
            }
        }
        node::remove_cgroups(&self.cgroup_root);
    }
}

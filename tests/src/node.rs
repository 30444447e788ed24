//! A daemon of a test's own: private root, state, cgroup, bridge, subnet and nft table.

use crate::output::Output;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A node with a running daemon. Its end kills what it started and unmounts what is left.
#[derive(Debug)]
pub struct Node {
    directory: TempDir,
    number: u32,
    daemon: Option<Child>,
    environment: Vec<(String, String)>,
    netns: Option<PathBuf>,
}

impl Node {
    /// Starts a daemon and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start() -> Self {
        Self::with("")
    }

    /// Starts a daemon with more lines of configuration, sections included.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn with(more: &str) -> Self {
        Self::with_environment(more, &[])
    }

    /// The same with variables in the daemon's environment.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn with_environment(more: &str, environment: &[(&str, &Path)]) -> Self {
        let environment =
            environment.iter().map(|(key, value)| ((*key).to_owned(), value.display().to_string())).collect();
        Self::launched(&["10.77.NUMBER.0/24"], more, None, environment)
    }

    /// Starts a daemon that does without these kernel features.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn without(features: &[&str]) -> Self {
        let mut node = Self::start();
        node.relaunch_without(features);
        node
    }

    /// Ends the daemon and starts it again without these kernel features.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn relaunch_without(&mut self, features: &[&str]) {
        self.kill();
        let path = self.path("config.toml");
        let config = std::fs::read_to_string(&path).expect("the configuration is read");
        let kept: Vec<&str> = config.lines().filter(|line| !line.starts_with("disable_features")).collect();
        let denied = format!("[runtime]\ndisable_features = {features:?}");
        std::fs::write(path, kept.join("\n").replace("[runtime]", &denied)).expect("it is written");
        self.launch();
    }

    /// Starts a daemon inside a network namespace of the test's own, with these subnets for its pods and more lines of
    /// configuration, which begin in the section of the network.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn inside(netns: &Path, subnets: &[&str], more: &str) -> Self {
        Self::launched(subnets, more, Some(netns.to_owned()), Vec::new())
    }

    fn launched(
        subnets: &[&str],
        more: &str,
        netns: Option<PathBuf>,
        environment: Vec<(String, String)>,
    ) -> Self {
        // Several test programs may run at once, each counting from one: the process id keeps them apart.
        let number = (NUMBER.fetch_add(1, Ordering::Relaxed) + std::process::id() * 16) % 250 + 1;
        let directory = tempfile::tempdir_in("/var/tmp").expect("a directory for the node");
        let config = format!(
            "log = \"info\"\n[runtime]\ncgroup_root = \"{}\"\n[network]\nbridge = \"slipt{number}\"\nsubnets = {}\ntable = \"slipway_test_{number}\"\n{more}",
            cgroup_root(number),
            json!(subnets).to_string().replace("NUMBER", &number.to_string())
        );
        std::fs::write(directory.path().join("config.toml"), config).expect("the configuration is written");
        let mut node = Self { directory, number, daemon: None, environment, netns };
        node.launch();
        node
    }

    /// Starts the daemon again after [`Node::kill`], and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn launch(&mut self) {
        let program = crate::folder("SLIPWAY_PROGRAMS").join("slipwayd");
        self.launch_by(match &self.netns {
            Some(netns) => crate::netns::entering(netns, &program),
            None => Command::new(program),
        });
    }

    /// The same by a command that executes the daemon with the arguments that are added to it.
    ///
    /// # Panics
    /// When the daemon does not answer.
    pub fn launch_by(&mut self, mut command: Command) {
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path("slipwayd.log"))
            .expect("the daemon's log opens");
        let daemon = command
            .arg("--config")
            .arg(self.path("config.toml"))
            .arg("--root")
            .arg(self.path("lib"))
            .arg("--state")
            .arg(self.path("run"))
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("slipwayd starts");
        self.daemon = Some(daemon);
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < deadline, "the daemon does not answer; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `kill -9` of the daemon; what it runs lives on.
    ///
    /// # Panics
    /// When it can't be killed.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().expect("the daemon is killed");
            daemon.wait().expect("the daemon is reaped");
        }
    }

    /// `SIGTERM` to the daemon, and its exit status.
    ///
    /// # Panics
    /// When it does not end.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        let mut daemon = self.daemon.take().expect("a running daemon");
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the signal is sent");
        daemon.wait().expect("the daemon is reaped")
    }

    /// The daemon's log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("slipwayd.log")).unwrap_or_default()
    }

    /// The daemon's process.
    ///
    /// # Panics
    /// When none runs.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a running daemon").id()
    }

    /// A path in the node's directory.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("run/slipway.sock")
    }

    /// The bridge's name.
    #[must_use]
    pub fn bridge(&self) -> String {
        format!("slipt{}", self.number)
    }

    /// The nftables table's name.
    #[must_use]
    pub fn table(&self) -> String {
        format!("slipway_test_{}", self.number)
    }

    /// The name of the cgroup below which everything of the node is.
    #[must_use]
    pub fn cgroup(&self) -> String {
        cgroup_root(self.number)
    }

    /// Unmounts what is mounted below the node's directory.
    pub fn unmount(&self) {
        unmount_below(self.directory.path());
    }

    /// Removes every cgroup of the node that no process is in.
    pub fn remove_cgroups(&self) {
        remove_cgroups(&self.cgroup());
    }

    /// Whether the daemon has ended by itself; it is reaped then.
    ///
    /// # Panics
    /// When it can't be waited for.
    pub fn has_died(&mut self) -> bool {
        let Some(daemon) = &mut self.daemon else { return true };
        let died = daemon.try_wait().expect("the daemon is waited for").is_some();
        if died {
            self.daemon = None;
        }
        died
    }

    /// The real crictl.
    #[must_use]
    pub fn crictl(&self, arguments: &[&str]) -> Output {
        Output::of(&mut self.crictl_command(arguments))
    }

    /// The real crictl, to be started by the caller.
    #[must_use]
    pub fn crictl_command(&self, arguments: &[&str]) -> Command {
        let endpoint = format!("unix://{}", self.socket().display());
        let mut command = Command::new(crate::folder("SLIPWAY_PEERS").join("crictl"));
        command
            .args(["--config", "/dev/null", "--timeout", "60s", "--runtime-endpoint", &endpoint])
            .args(["--image-endpoint", &endpoint])
            .args(arguments);
        command
    }

    /// Slipway's own command line.
    #[must_use]
    pub fn slipway(&self, arguments: &[&str]) -> Output {
        Output::of(self.command().args(arguments))
    }

    /// Slipway's own command line, to be started by the caller.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(crate::folder("SLIPWAY_PROGRAMS").join("slipway"));
        command.arg("--address").arg(format!("unix://{}", self.socket().display()));
        command
    }

    /// Builds the busybox image, with more Dockerfile lines, under a name.
    ///
    /// # Panics
    /// When the build fails.
    pub fn build(&self, name: &str, more: &str) {
        let context = tempfile::tempdir_in(self.directory.path()).expect("a build context");
        crate::busybox::context(context.path(), more);
        let output = self.slipway(&["build", "-t", name, &context.path().display().to_string()]);
        assert_eq!(output.status, 0, "{output:#?}\n{}", self.log());
    }

    /// Writes a pod's configuration for crictl; `more` is merged over it.
    ///
    /// # Panics
    /// When it can't be written.
    #[must_use]
    pub fn pod_file(&self, name: &str, more: Value) -> String {
        let mut config = json!({
            "metadata": {"name": name, "uid": format!("uid-{name}"), "namespace": "test", "attempt": 0},
            "log_directory": self.path(format!("logs/{name}")),
            "linux": {"security_context": {"namespace_options": {"network": 2, "pid": 1}}},
        });
        merge(&mut config, more);
        self.write_json(&format!("{name}.pod.json"), &config)
    }

    /// Writes a container's configuration for crictl; `more` is merged over it.
    ///
    /// # Panics
    /// When it can't be written.
    #[must_use]
    pub fn container_file(&self, name: &str, image: &str, script: &str, more: Value) -> String {
        let mut config = json!({
            "metadata": {"name": name, "attempt": 0},
            "image": {"image": image},
            "command": ["sh", "-c", script],
            "log_path": format!("{name}.log"),
            "linux": {},
        });
        merge(&mut config, more);
        self.write_json(&format!("{name}.container.json"), &config)
    }

    fn write_json(&self, name: &str, value: &Value) -> String {
        let path = self.path(name);
        std::fs::write(&path, value.to_string()).expect("a configuration is written");
        path.display().to_string()
    }

    /// Starts a pod and returns its id.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn pod(&self, name: &str, more: Value) -> String {
        self.crictl(&["runp", &self.pod_file(name, more)]).ok().to_owned()
    }

    /// Creates and starts a container that runs a shell script in a pod of [`Node::pod`], and returns its id.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn container(&self, pod: &str, pod_name: &str, name: &str, script: &str) -> String {
        let container = self.container_file(name, "busybox:1", script, json!({}));
        let pod_file = self.path(format!("{pod_name}.pod.json")).display().to_string();
        let id = self.crictl(&["create", pod, &container, &pod_file]).ok().to_owned();
        let _ = self.crictl(&["start", &id]).ok();
        id
    }

    /// A container's `status` as crictl inspects it.
    ///
    /// # Panics
    /// When it can't be inspected.
    #[must_use]
    pub fn status(&self, container: &str) -> Value {
        self.crictl(&["inspect", container]).json()["status"].clone()
    }

    /// Waits until a container has ended and returns its status.
    ///
    /// # Panics
    /// When it does not end in a minute.
    #[must_use]
    pub fn exited(&self, container: &str) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status = self.status(container);
            if status["state"] == "CONTAINER_EXITED" {
                return status;
            }
            assert!(Instant::now() < deadline, "{container} does not end: {status:#}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.daemon.is_none() && !std::thread::panicking() {
            self.launch();
        }
        if self.daemon.is_some() {
            let _ = self.crictl(&["rmp", "-f", "-a"]);
            for container in self.slipway(&["ps", "-a", "-q"]).stdout.split_whitespace() {
                let _ = self.slipway(&["rm", "-f", container]);
            }
        }
        if std::thread::panicking() {
            eprint!("{}", self.log());
        }
        if let Some(mut daemon) = self.daemon.take() {
            let pid = rustix::process::Pid::from_child(&daemon);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = daemon.wait();
        }
        // The bridge and the table outlive a daemon by design, since pods do; the node ends here.
        let _ = Command::new("ip").args(["link", "del", &self.bridge()]).stderr(Stdio::null()).status();
        let table = self.table();
        for family in ["inet", "ip"] {
            let _ =
                Command::new("nft").args(["delete", "table", family, &table]).stderr(Stdio::null()).status();
        }
        unmount_below(self.directory.path());
        remove_cgroups(&cgroup_root(self.number));
    }
}

/// The cgroup of a node: its number is unique within one run of the tests, which `tests/isolated` gives a word of its own.
///
/// # Panics
/// When the tests were not started by `tests/run`.
#[must_use]
pub fn cgroup_root(number: u32) -> String {
    let run = std::env::var("SLIPWAY_RUN").expect("SLIPWAY_RUN is set: start the tests by tests/run");
    let name = format!("slipway-test-{run}-{number}");
    // On cgroup v2 the tests' own cgroup holds processes, so that nodes are beside it, not below.
    std::env::var("SLIPWAY_CGROUPS").map_or(name.clone(), |parent| format!("{parent}/{name}"))
}

fn unmount_below(directory: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = format!("{}/", directory.display());
    let targets: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|target| target.starts_with(&below))
        .collect();
    for target in targets.iter().rev() {
        let _ = rustix::mount::unmount(*target, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Removes the node's own cgroup tree, which a daemon leaves for the next: it fails where a process still lives in one.
pub fn remove_cgroups(name: &str) {
    let top = format!("*/{}", name.trim_start_matches('/'));
    let found = Command::new("find")
        // One name may begin another's: those of a node whose number begins with this one's are not its own.
        .args([
            "/sys/fs/cgroup",
            "-depth",
            "-type",
            "d",
            "(",
            "-path",
            &top,
            "-o",
            "-path",
            &format!("{top}/*"),
            ")",
        ])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    for directory in found.unwrap_or_default().lines() {
        let _ = std::fs::remove_dir(directory);
    }
}

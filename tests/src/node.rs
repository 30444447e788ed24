//! A daemon of a test's own: private root, state, cgroup, bridge, subnet and nft table.

mod verbs;

use serde_json::json;
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
        // A tree that a test has made may be deeper than what the standard library can remove.
        let _ = slipway_disk::walker::remove(self.directory.path(), &slipway_disk::walker::never);
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

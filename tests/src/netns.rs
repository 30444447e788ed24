//! Network namespaces that a test makes: one for its node, and one for the world outside.

use crate::output::Output;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A network namespace with its loopback up; it ends with this.
#[derive(Debug)]
pub struct Netns {
    holder: Child,
    path: PathBuf,
}

impl Netns {
    /// A new, empty one.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn new() -> Self {
        // It lives for as long as its standard input is open.
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("its standard output");
        BufReader::new(stdout).read_line(&mut line).expect("it answers");
        assert_eq!(line, "up\n", "unshare --net works");
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
        Self { holder, path }
    }

    /// Where it can be entered.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a shell script in it and returns its output.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        sh(&self.path, script).ok().to_owned()
    }
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// A command that runs a program in a network namespace.
#[must_use]
pub fn entering(netns: &Path, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.display())).arg("--").arg(program);
    command
}

/// Runs a shell script in a network namespace; `/sys` and `/proc/sys/net` are that namespace's in it.
#[must_use]
pub fn sh(netns: &Path, script: &str) -> Output {
    Output::of(entering(netns, Path::new("sh")).args(["-ec", script]))
}

/// Runs work on a thread inside a network namespace: sockets opened there belong to it, whoever uses them later.
///
/// # Panics
/// When it can't be entered, or the work panics.
pub fn within<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    let namespace = std::fs::File::open(netns).expect("the network namespace opens");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(kind))
                .expect("the network namespace is entered");
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A node's network namespace and one outside it, with a veth pair between them. Outside there is no route to any pod.
#[derive(Debug)]
pub struct World {
    /// Where the daemon runs.
    pub node: Netns,
    /// Where nothing of Slipway's is.
    pub outside: Netns,
}

impl World {
    /// The node's own address on the veth pair, in both families.
    pub const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
    /// The outside's address, in both families.
    pub const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

    /// Makes both and connects them.
    ///
    /// # Panics
    /// When they can't be made.
    #[must_use]
    pub fn new() -> Self {
        let (node, outside) = (Netns::new(), Netns::new());
        let there = outside.holder.id();
        let up = |[v4, v6]: [&str; 2]| {
            format!(
                "ip link set uplink up; ip address add {v4}/24 dev uplink; ip address add {v6}/64 dev uplink nodad"
            )
        };
        let _ = node.sh(&format!(
            "ip link add uplink type veth peer name uplink netns {there}; {}; \
             ip route add default via {}; ip -6 route add default via {}",
            up(Self::NODE),
            Self::OUTSIDE[0],
            Self::OUTSIDE[1],
        ));
        let _ = outside.sh(&up(Self::OUTSIDE));
        Self { node, outside }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

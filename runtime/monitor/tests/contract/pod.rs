//! A pod for one test: a monitor of its own, a small mount namespace, a root with busybox, and clients.

use crate::client::Client;
use crate::places::{Proc, make_root, open, small_namespace};
use crate::plans::{container_steps, exec_plan, plan, sealed};
use rustix::fs::{CWD, OFlags};
use rustix::mount::OpenTreeFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, WaitOptions};
use slipway_monitor::plan::{Join, Step};
use slipway_monitor::protocol::{Hierarchy, Reply, Request, Start, VERSION};
use slipway_monitor::wire::List;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const NEW_NS: u64 = 0x0002_0000;
pub(crate) const NEW_PID: u64 = 0x2000_0000;
/// Kinds in the order that `Namespaces` gives them back for these tests.
const KINDS: [u64; 4] = [0x0400_0000, 0x0800_0000, 0x1000_0000, 0x4000_0000];
const USER: usize = 2;

/// The program of a container and its settings.
pub(crate) struct Options {
    pub(crate) program: String,
    pub(crate) script: String,
    pub(crate) pause_at: u8,
    pub(crate) namespaces: Option<Vec<OwnedFd>>,
    /// A pid namespace to join.
    pub(crate) processes: Option<OwnedFd>,
    pub(crate) cgroup: Option<OwnedFd>,
    pub(crate) hierarchy: Hierarchy,
    /// Steps after the mounts.
    pub(crate) steps: Vec<Step>,
    /// Whether a detached mount of /dev/null comes along, as descriptor 1.
    pub(crate) null: bool,
    pub(crate) terminal: bool,
}

/// A new cgroup v2; `None` where none can be made.
pub(crate) fn make_unified(name: &str) -> Option<PathBuf> {
    let base = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let base = base.into_iter().map(Path::new).find(|base| base.join("cgroup.procs").exists());
    let path = base?.join(format!("slipway-monitor-{name}"));
    if std::fs::create_dir(&path).is_err() {
        eprintln!("skipped: no cgroup of version 2 can be made");
        return None;
    }
    Some(path)
}

/// A script for busybox's shell.
pub(crate) fn shell(script: &str) -> Options {
    Options {
        program: "/bin/sh".into(),
        script: script.into(),
        pause_at: 0,
        namespaces: None,
        processes: None,
        cgroup: None,
        hierarchy: Hierarchy::Legacy {},
        steps: Vec::new(),
        null: false,
        terminal: false,
    }
}

/// A monitor with a pod.
pub(crate) struct Pod {
    directory: tempfile::TempDir,
    monitor: Child,
    cgroups: std::cell::RefCell<Vec<PathBuf>>,
}

impl Pod {
    /// A pod with a /proc of its own; `None`, with a message, without root.
    pub(crate) fn new() -> Option<Self> {
        Self::with(Proc::Fresh)
    }

    /// As [`Pod::new`], with another /proc.
    pub(crate) fn with(proc: Proc) -> Option<Self> {
        Self::started(proc, Stdio::null())
    }

    /// As [`Pod::with`], with this standard output: the directory of the monitor's cgroup, or /dev/null.
    pub(crate) fn started(proc: Proc, output: Stdio) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: a monitor needs root");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        for name in ["state", "small", "root"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        make_root(&directory.path().join("root"));
        let kind = SocketType::SEQPACKET;
        let listener =
            rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let address = SocketAddrUnix::new(directory.path().join("monitor.sock")).unwrap();
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 16).unwrap();
        let program = env!("CARGO_BIN_EXE_slipway-monitor");
        let mut command = Command::new(program);
        let monitor = command.stdin(Stdio::from(listener)).stdout(output).process_group(0).spawn().unwrap();
        drop(command);
        let pod = Self { directory, monitor, cgroups: Vec::new().into() };
        let small = pod.path("small");
        let namespace = std::thread::spawn(move || small_namespace(&small, proc)).join().unwrap();
        let client = pod.connect();
        let state = open(&pod.path("state"), OFlags::PATH | OFlags::DIRECTORY);
        client.send_descriptors(&[state, namespace]);
        assert_eq!(client.ask(&Request::Setup { pod: "test".into() }), Reply::Done {});
        Some(pod)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn connect(&self) -> Client {
        let kind = SocketType::SEQPACKET;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let address = SocketAddrUnix::new(self.path("monitor.sock")).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        let client = Client(socket);
        let hello = client.ask(&Request::Hello { version: VERSION });
        assert!(matches!(hello, Reply::Hello { version: VERSION, .. }), "{hello:?}");
        client
    }

    /// Starts a container; returns the first reply.
    pub(crate) fn start(&self, client: &Client, container: &str, options: &Options) -> Reply {
        let log = self.path(&format!("state/{container}.log"));
        let log = open(&log, OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY);
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let root = rustix::mount::open_tree(CWD, self.path("root"), flags).unwrap();
        let mut rest = vec![root];
        if options.null {
            rest.push(rustix::mount::open_tree(CWD, "/dev/null", flags).unwrap());
        }
        let mut join = Vec::new();
        let namespaces = options.namespaces.as_deref().unwrap_or_default();
        for (number, namespace) in namespaces.iter().enumerate() {
            rest.push(namespace.try_clone().unwrap());
            let descriptor = u16::try_from(number + 1).unwrap();
            join.push(Join { descriptor, kind: KINDS[number] });
        }
        if !join.is_empty() {
            join.swap(0, USER);
        }
        let mut plan = plan(options, container_steps(options, join.is_empty()));
        plan.clone_flags = NEW_NS | NEW_PID;
        if let Some(processes) = &options.processes {
            plan.clone_flags = NEW_NS;
            join.push(Join { descriptor: u16::try_from(rest.len()).unwrap(), kind: NEW_PID });
            rest.push(processes.try_clone().unwrap());
        }
        plan.join = List(join);
        let mut descriptors = vec![sealed(&plan), log];
        descriptors.extend(options.cgroup.as_ref().map(|cgroup| cgroup.try_clone().unwrap()));
        descriptors.extend(rest);
        client.send_descriptors(&descriptors);
        let start = Start {
            container: container.into(),
            log: true,
            cgroups: u16::from(options.cgroup.is_some()),
            hierarchy: options.hierarchy,
            stdin: options.terminal,
            stdin_once: false,
            terminal: options.terminal,
            kill_rest: false,
        };
        client.ask(&Request::Start { start })
    }

    /// Runs a script in a container whose first process is known.
    pub(crate) fn exec(
        &self,
        client: &Client,
        (container, init): (&str, i32),
        script: &str,
        deadline_ms: u64,
    ) -> Reply {
        let mut descriptors = exec_plan(init, script, &[("pid", NEW_PID), ("mnt", NEW_NS)], false);
        for _ in 0..3 {
            descriptors.push(open(Path::new("/dev/null"), OFlags::RDWR));
        }
        client.send_descriptors(&descriptors);
        client.ask(&Request::Exec { container: container.into(), terminal: false, deadline_ms })
    }

    /// As [`Pod::exec`], with a terminal and inside the container's user namespace: the reply carries the
    /// terminal's master.
    pub(crate) fn exec_terminal(
        &self,
        client: &Client,
        (container, init): (&str, i32),
        script: &str,
    ) -> (Reply, Vec<OwnedFd>) {
        let kinds = [("user", KINDS[USER]), ("pid", NEW_PID), ("mnt", NEW_NS)];
        client.send_descriptors(&exec_plan(init, script, &kinds, true));
        client.send(&Request::Exec { container: container.into(), terminal: true, deadline_ms: 0 });
        client.receive()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.path("state").join(name)).unwrap_or_default()
    }

    /// Makes the writing of a file of the state directory fail, by a directory at the temporary file's path.
    pub(crate) fn obstruct(&self, name: &str) {
        std::fs::create_dir(self.path("state").join(format!(".{name}.new"))).unwrap();
    }

    pub(crate) fn give_way(&self, name: &str) {
        std::fs::remove_dir(self.path("state").join(format!(".{name}.new"))).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path("state").join(name)).unwrap();
    }

    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(10), "not in time: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn wait_for_file(&self, name: &str) -> String {
        self.wait_until(name, || !self.file(name).is_empty());
        self.file(name)
    }

    pub(crate) fn wait_for_text(&self, name: &str, text: &str) {
        self.wait_until(text, || self.file(name).contains(text));
    }

    pub(crate) fn is_alive(&self, pid: i32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    pub(crate) fn give_root_to(&self, id: u32) {
        std::os::unix::fs::chown(self.path("root"), Some(id), Some(id)).unwrap();
    }

    pub(crate) fn owner_of(&self, name: &str) -> u32 {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(self.path("root").join(name)).unwrap().uid()
    }

    /// A memory cgroup v1; `None` where none can be made.
    pub(crate) fn memory_cgroup(&self, limit: u64) -> Option<OwnedFd> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/memory/slipway-monitor-{}", self.monitor.id()));
        if std::fs::create_dir(&path).is_err() {
            eprintln!("skipped: no memory cgroup of version 1 can be made");
            return None;
        }
        self.cgroups.borrow_mut().push(path.clone());
        std::fs::write(path.join("memory.limit_in_bytes"), limit.to_string()).unwrap();
        Some(open(&path, OFlags::PATH | OFlags::DIRECTORY))
    }

    /// A cgroup v2; `None` where none can be made.
    pub(crate) fn unified_cgroup(&self) -> Option<OwnedFd> {
        let path = make_unified(&self.monitor.id().to_string())?;
        self.cgroups.borrow_mut().push(path.clone());
        Some(open(&path, OFlags::PATH | OFlags::DIRECTORY))
    }

    pub(crate) fn remove_cgroups(&self) {
        for path in self.cgroups.borrow_mut().drain(..) {
            self.wait_until("the cgroup is removed", || std::fs::remove_dir(&path).is_ok() || !path.exists());
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Reply::Containers { containers } = self.connect().ask(&Request::List {}) {
            for known in containers.0.into_iter().filter(|known| known.exit.is_none()) {
                let stop = Request::Stop { container: known.container, signal: 9, grace_ms: 0 };
                self.connect().ask(&stop);
            }
        }
        let begun = Instant::now();
        while self.connect().ask(&Request::Shutdown {}) != (Reply::Done {}) && begun.elapsed().as_secs() < 5 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.monitor.wait();
        // A monitor that was cloned into its cgroup has another pid than the spawned one.
        let _ = rustix::process::waitpgid(Pid::from_child(&self.monitor), WaitOptions::empty());
        for path in self.cgroups.get_mut() {
            let _ = std::fs::remove_dir(path);
        }
    }
}

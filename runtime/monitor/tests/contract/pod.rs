//! A pod for one test: a monitor of its own, a small mount namespace, a root with busybox, and clients.

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use slipway_monitor::plan::{Join, Plan, Step};
use slipway_monitor::protocol::{Reply, Request, Start};
use slipway_monitor::wire::{List, Wire};
use std::ffi::CString;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NEW_NS: u64 = 0x0002_0000;
const NEW_PID: u64 = 0x2000_0000;
/// Kinds in the order that `Namespaces` gives them back for these tests.
const KINDS: [u64; 4] = [0x0400_0000, 0x0800_0000, 0x1000_0000, 0x4000_0000];
const USER: usize = 2;

/// What to run.
pub(crate) struct Options {
    pub(crate) program: String,
    pub(crate) script: String,
    pub(crate) pause_at: u8,
    pub(crate) namespaces: Option<Vec<OwnedFd>>,
    pub(crate) cgroup: Option<OwnedFd>,
    pub(crate) unified: bool,
    /// Steps after the mounts.
    pub(crate) steps: Vec<Step>,
    /// Whether a detached mount of /dev/null comes along, as descriptor 1.
    pub(crate) null: bool,
    pub(crate) terminal: bool,
}

/// A script for busybox's shell.
pub(crate) fn shell(script: &str) -> Options {
    Options {
        program: "/bin/sh".into(),
        script: script.into(),
        pause_at: 0,
        namespaces: None,
        cgroup: None,
        unified: false,
        steps: Vec::new(),
        null: false,
        terminal: false,
    }
}

/// One connection to the monitor.
pub(crate) struct Client(OwnedFd);

impl Client {
    pub(crate) fn send_bytes(&self, bytes: &[u8]) {
        rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL).unwrap();
    }

    pub(crate) fn send(&self, request: &Request) {
        self.send_bytes(&request.encode());
    }

    fn send_descriptors(&self, descriptors: &[OwnedFd]) {
        let count = u16::try_from(descriptors.len()).unwrap();
        let bytes = Request::Descriptors { count }.encode();
        let rights: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&rights)));
        let parts = [IoSlice::new(&bytes)];
        rustix::net::sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL).unwrap();
    }

    pub(crate) fn send_with(&self, descriptors: &[OwnedFd], request: &Request) {
        self.send_descriptors(descriptors);
        assert_eq!(self.ask(request), Reply::Done {});
    }

    pub(crate) fn receive(&self) -> (Reply, Vec<OwnedFd>) {
        let mut bytes = vec![0; 65536];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received =
            rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        (Reply::decode(&bytes[..received.bytes]).expect("a reply"), descriptors)
    }

    pub(crate) fn next(&self) -> Reply {
        self.receive().0
    }

    pub(crate) fn ask(&self, request: &Request) -> Reply {
        self.send(request);
        self.next()
    }
}

/// A monitor with a pod.
pub(crate) struct Pod {
    directory: tempfile::TempDir,
    monitor: Child,
    cgroups: std::cell::RefCell<Vec<PathBuf>>,
}

impl Pod {
    /// None, and a word about it, without root.
    pub(crate) fn new() -> Option<Self> {
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
        let monitor = Command::new(program).stdin(Stdio::from(listener)).spawn().unwrap();
        let pod = Self { directory, monitor, cgroups: Vec::new().into() };
        let small = pod.path("small");
        let namespace = std::thread::spawn(move || small_namespace(&small)).join().unwrap();
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
        Client(socket)
    }

    /// Starts a container and gives the first answer.
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
        plan.join = List(join);
        let mut descriptors = vec![sealed(&plan), log];
        descriptors.extend(options.cgroup.as_ref().map(|cgroup| cgroup.try_clone().unwrap()));
        descriptors.extend(rest);
        client.send_descriptors(&descriptors);
        let start = Start {
            container: container.into(),
            log: true,
            cgroups: u16::from(options.cgroup.is_some()),
            unified: options.unified,
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

    /// The same with a terminal, and inside the container's user namespace: its master comes with the answer.
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

    /// A memory cgroup of version 1; none where there is none.
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

    /// A cgroup of version 2; none where there is none.
    pub(crate) fn unified_cgroup(&self) -> Option<OwnedFd> {
        let base = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let base = base.into_iter().map(Path::new).find(|base| base.join("cgroup.procs").exists());
        let path = base?.join(format!("slipway-monitor-{}", self.monitor.id()));
        if std::fs::create_dir(&path).is_err() {
            eprintln!("skipped: no cgroup of version 2 can be made");
            return None;
        }
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
        for path in self.cgroups.get_mut() {
            let _ = std::fs::remove_dir(path);
        }
    }
}

fn exec_plan(init: i32, script: &str, kinds: &[(&str, u64)], terminal: bool) -> Vec<OwnedFd> {
    let mut plan = plan(&shell(script), vec![Step::Session { terminal }]);
    let mut descriptors = Vec::new();
    for (number, (name, kind)) in kinds.iter().enumerate() {
        descriptors.push(open(Path::new(&format!("/proc/{init}/ns/{name}")), OFlags::RDONLY));
        plan.join.0.push(Join { descriptor: u16::try_from(number).unwrap(), kind: *kind });
    }
    descriptors.insert(0, sealed(&plan));
    descriptors
}

fn plan(options: &Options, steps: Vec<Step>) -> Plan {
    let text = |text: &str| CString::new(text).unwrap();
    Plan {
        clone_flags: 0,
        join: List::default(),
        steps: List(steps),
        pause_at: options.pause_at,
        environment: List(vec![text("PATH=/bin")]),
        arguments: List(vec![text("sh"), text("-c"), text(&options.script)]),
        programs: List(vec![text(&options.program)]),
    }
}

fn container_steps(options: &Options, devices: bool) -> Vec<Step> {
    let directory = |path: &str| Step::MakeDirectory { path: CString::new(path).unwrap(), mode: 0o755 };
    let mount = |kind: &str| Step::Mount {
        kind: CString::new(kind).unwrap(),
        target: CString::new(if kind == "tmpfs" { "dev" } else { &kind[..3] }).unwrap(),
        attributes: 0,
        parameters: List::default(),
    };
    let device = |path: &str, minor| Step::MakeDevice {
        path: CString::new(path).unwrap(),
        mode: 0o20666,
        device: rustix::fs::makedev(1, minor),
        uid: 0,
        gid: 0,
    };
    let link = |path: &str, target: &str| Step::MakeLink {
        path: CString::new(path).unwrap(),
        target: CString::new(target).unwrap(),
    };
    let mut steps = vec![Step::Root { descriptor: 0 }, directory("pro"), directory("sys"), directory("dev")];
    steps.extend([link("proc", "pro"), mount("proc"), mount("tmpfs"), link("dev/stdout", "/proc/self/fd/1")]);
    if devices {
        steps.extend([device("dev/null", 3), device("dev/zero", 5)]);
    } else {
        steps.push(mount("sysfs"));
    }
    steps.extend([Step::SyncPoint { point: 1 }, Step::SyncPoint { point: 2 }, Step::Pivot {}]);
    let before = |step: &Step| {
        matches!(step, Step::MakeDirectory { .. } | Step::MakeDevice { .. } | Step::Mount { .. })
    };
    let (early, late): (Vec<_>, Vec<_>) = options.steps.iter().cloned().partition(before);
    steps.extend(early);
    steps.extend([Step::Session { terminal: options.terminal }, Step::Umask { mask: 0o022 }]);
    steps.extend([Step::WorkingDirectory { path: c"/".into() }, Step::SyncPoint { point: 4 }]);
    steps.extend(late);
    steps
}

fn sealed(plan: &Plan) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = rustix::fs::memfd_create("plan", flags).unwrap();
    rustix::io::write(&memfd, &plan.encode()).unwrap();
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memfd, seals).unwrap();
    memfd
}

fn open(path: &Path, flags: OFlags) -> OwnedFd {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from(0o600)).unwrap()
}

/// A root with busybox and the libraries that it needs.
fn make_root(root: &Path) {
    let busybox = "/usr/bin/busybox";
    let listed = Command::new("ldd").arg(busybox).output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    std::fs::create_dir(root.join("bin")).unwrap();
    for library in libraries {
        let copy = root.join(&library[1..]);
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(library, copy).unwrap();
    }
    std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for name in ["sh", "sleep", "cat", "head", "tail", "hostname", "ls", "id", "stty", "tty"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

/// A mount namespace with a proc, a sysfs and the place for a root; on a thread of its own, which ends in it.
#[expect(deprecated, reason = "the safe form; this thread opens no descriptor that another one uses")]
fn small_namespace(directory: &Path) -> OwnedFd {
    use rustix::thread::UnshareFlags;
    rustix::thread::unshare(UnshareFlags::FS | UnshareFlags::NEWNS).unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
    rustix::mount::mount("tmpfs", directory, "tmpfs", MountFlags::empty(), None).unwrap();
    for name in ["proc", "sys", "new"] {
        std::fs::create_dir(directory.join(name)).unwrap();
    }
    rustix::mount::mount("proc", directory.join("proc"), "proc", MountFlags::empty(), None).unwrap();
    rustix::mount::mount("sysfs", directory.join("sys"), "sysfs", MountFlags::empty(), None).unwrap();
    rustix::process::chdir(directory).unwrap();
    rustix::process::pivot_root(".", ".").unwrap();
    rustix::mount::unmount(".", UnmountFlags::DETACH).unwrap();
    open(Path::new("/proc/thread-self/ns/mnt"), OFlags::RDONLY)
}

//! Where the daemon and its containers are among the cgroups.

use serde_json::json;
use slipway_tests::fault::{Strace, stopped};
use slipway_tests::{Need, Node, Output, Pod, Residue, folder, lacks, machine, monitor, node, residue, wait};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_limit_of_huge_pages_is_the_kernel_s() {
    if lacks("a_limit_of_huge_pages_is_the_kernel_s", &[Need::HugePages]) {
        return;
    }
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let asked =
        json!({"linux": {"resources": {"hugepage_limits": [{"page_size": "2MB", "limit": 4_194_304}]}}});
    let id = pod.run("main", "exec sleep 1000", asked);
    let file = if machine::unified() { "hugetlb.2MB.max" } else { "hugetlb/hugetlb.2MB.limit_in_bytes" };
    assert_eq!(pod.exec(&id, &format!("cat /sys/fs/cgroup/{file}")), "4194304");
    let none = json!({"linux": {"resources": {"hugepage_limits": [{"page_size": "2MB", "limit": 0}]}}});
    let id = pod.run("none", "exec sleep 1000", none);
    assert_eq!(pod.exec(&id, &format!("cat /sys/fs/cgroup/{file}")), "0");
}

/// The first processes of two pods had one cgroup where the pods had one parent, so that the second pod did not start and, in
/// going, ended the first one's.
#[test]
fn pods_of_one_cgroup_parent_share_nothing_else() {
    let node = Node::start();
    node.build("busybox:1", "");
    let more = json!({"linux": {
        "cgroup_parent": format!("{}/parent", node.cgroup()),
        "security_context": {"namespace_options": {"network": 2, "pid": 0}},
    }});
    let first = Pod::start(&node, "first", more.clone());
    let id = first.run("main", "exec sleep 1000", json!({}));
    let second = Pod::start(&node, "second", more);
    assert_eq!(second.says("main", "cat /proc/1/comm", json!({})), "pause\n");
    let _ = node.crictl(&["rmp", "-f", &second.id]).ok();
    assert_eq!(first.exec(&id, "cat /proc/1/comm"), "pause");
    assert_eq!(node.status(&id)["state"], "CONTAINER_RUNNING");
    let _ = node.crictl(&["rmp", "-f", &first.id]).ok();
}

/// A daemon that is not a [`Node`]'s: it is put into a cgroup, as an init system does it.
struct Placed {
    directory: tempfile::TempDir,
    cgroup: PathBuf,
    name: &'static str,
    daemon: Option<Child>,
}

impl Placed {
    /// Starts a daemon in a new cgroup; `name` keeps its links and rules apart.
    fn start(name: &'static str, subnet: &str, cgroup: &str, runtime: &str) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let config = format!(
            "[runtime]\n{runtime}\n[network]\nbridge = \"slipt{name}\"\nsubnets = [\"{subnet}\"]\ntable = \"slipway_test_{name}\"\n"
        );
        fs::write(directory.path().join("config.toml"), config).expect("a configuration");
        let cgroup = PathBuf::from(format!("/sys/fs/cgroup{cgroup}"));
        fs::create_dir(&cgroup).expect("a cgroup for the daemon");
        let mut placed = Self { directory, cgroup, name, daemon: None };
        placed.launch();
        placed
    }

    /// Starts the daemon in its cgroup and waits until it answers.
    fn launch(&mut self) {
        let path = |name: &str| self.directory.path().join(name);
        let daemon = Command::new("sh")
            .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
            .arg(self.cgroup.join("cgroup.procs"))
            .arg(folder("SLIPWAY_PROGRAMS").join("slipwayd"))
            .arg("--config")
            .arg(path("config.toml"))
            .arg("--root")
            .arg(path("lib"))
            .arg("--state")
            .arg(path("run"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(path("log")).expect("a log"))
            .spawn();
        self.daemon = Some(daemon.expect("the daemon starts"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.slipway(&["version"]).status != 0 {
            let log = fs::read_to_string(path("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the daemon does not answer:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn slipway(&self, arguments: &[&str]) -> Output {
        let socket = format!("unix://{}", self.directory.path().join("run/slipway.sock").display());
        let program = folder("SLIPWAY_PROGRAMS").join("slipway");
        Output::of(Command::new(program).args(["--address", &socket]).args(arguments))
    }

    fn build(&self) {
        let context = self.directory.path().join("context");
        slipway_tests::busybox::context(&context, "");
        let _ = self.slipway(&["build", "-t", "busybox:1", &context.display().to_string()]).ok();
    }

    fn place(&self) -> String {
        let pid = self.daemon.as_ref().expect("a daemon").id();
        fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroup").trim().to_owned()
    }

    fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon");
        daemon.kill().expect("it is killed");
        daemon.wait().expect("it is reaped");
    }

    fn terminate(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon");
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the daemon is told to end");
        assert!(daemon.wait().expect("the daemon is reaped").success());
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // The bridge and the table outlive a daemon by design, since pods do.
        let (bridge, table) = (format!("slipt{}", self.name), format!("slipway_test_{}", self.name));
        let _ = Command::new("ip").args(["link", "del", &bridge]).stderr(Stdio::null()).status();
        let _ = Command::new("nft").args(["delete", "table", "inet", &table]).stderr(Stdio::null()).status();
    }
}

/// As in a container whose init is the daemon: its cgroup is the only one it has, and it sits in it.
#[test]
fn a_daemon_that_sits_in_its_own_root_moves_to_a_leaf_and_limits_containers_beside_it() {
    let name = "a_daemon_that_sits_in_its_own_root_moves_to_a_leaf_and_limits_containers_beside_it";
    if lacks(name, &[Need::CgroupV2]) {
        return;
    }
    let own = node::cgroup_root(0);
    let mut daemon = Placed::start("leaf", "10.79.0.0/24", &own, "");
    assert_eq!(daemon.place(), format!("0::{own}/slipwayd"));
    daemon.build();
    let run =
        daemon.slipway(&["run", "--rm", "busybox:1", "sh", "-c", "cat /sys/fs/cgroup/cgroup.controllers"]);
    assert!(run.ok().contains("memory") && run.ok().contains("pids"), "{run:#?}");
    daemon.terminate();
    node::remove_cgroups(&own);
    assert!(!daemon.cgroup.exists(), "something is left in {}", daemon.cgroup.display());
}

/// systemd puts a service that starts again into the service's cgroup, whatever lives on below it.
#[test]
fn a_daemon_that_is_a_systemd_service_starts_again_in_its_cgroup_while_containers_live() {
    let name = "a_daemon_that_is_a_systemd_service_starts_again_in_its_cgroup_while_containers_live";
    if lacks(name, &[Need::CgroupV2]) {
        return;
    }
    let (own, root) = (format!("{}.service", node::cgroup_root(998)), node::cgroup_root(999));
    let relative = format!("cgroup_root = \"{}\"", root.trim_start_matches('/'));
    let mut daemon = Placed::start("svc", "10.79.1.0/24", &own, &relative);
    daemon.build();
    let id =
        daemon.slipway(&["run", "-d", "--network", "host", "busybox:1", "sleep", "1000"]).ok().to_owned();
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.place(), format!("0::{own}"));
    assert_eq!(daemon.slipway(&["exec", &id, "echo", "alive"]).ok(), "alive");
    let _ = daemon.slipway(&["rm", "-f", &id]).ok();
    daemon.terminate();
    for cgroup in [&own, &root] {
        node::remove_cgroups(cgroup);
        assert!(!Path::new(&format!("/sys/fs/cgroup{cgroup}")).exists(), "something is left in {cgroup}");
    }
}

#[test]
fn a_monitor_is_where_monitors_are_and_a_child_of_the_daemons_that_leaves_no_zombie() {
    let mut node = Node::start();
    for denied in [&[][..], &["clone-into-cgroup"]] {
        node.relaunch_without(denied);
        let pod = node.pod("web", json!({}));
        let monitor = monitor(&node, &pod);
        assert_eq!(residue::children(node.pid()), [monitor]);
        let place = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a cgroup");
        if machine::unified() {
            assert_eq!(place(monitor).trim(), format!("0::{}/slipway-monitors", node.cgroup()), "{denied:?}");
        } else {
            assert_eq!(place(monitor), place(node.pid()), "{denied:?}");
        }
        let _ = node.crictl(&["stopp", &pod]).ok();
        assert_eq!(residue::children(node.pid()), [0_u32; 0], "{denied:?}");
        let _ = node.crictl(&["rmp", &pod]).ok();
    }
}

#[test]
fn a_monitor_that_its_cgroup_refuses_is_told_by_the_cgroups_name_and_nothing_is_left() {
    let name = "a_monitor_that_its_cgroup_refuses_is_told_by_the_cgroups_name_and_nothing_is_left";
    if lacks(name, &[Need::CgroupV2]) {
        return;
    }
    let mut node = Node::start();
    let leaf = format!("{}/slipway-monitors", node.cgroup());
    let directory = PathBuf::from(format!("/sys/fs/cgroup{leaf}"));
    let file = node.pod_file("web", json!({}));
    for denied in [&[][..], &["clone-into-cgroup"]] {
        node.relaunch_without(denied);
        let _ = node.crictl(&["version"]).ok();
        let base = Residue::of(&node);
        // A cgroup that has limited children can't hold processes.
        fs::write(directory.join("cgroup.subtree_control"), "+memory").expect("a controller is shared out");
        let busy = node.crictl(&["runp", &file]);
        assert!(busy.error().contains(&leaf) && busy.error().contains("busy"), "{denied:?}: {busy:#?}");
        assert_eq!(residue::children(node.pid()), [0_u32; 0], "{denied:?}");
        base.returns(&node, "a pod whose monitor was refused");
        fs::write(directory.join("cgroup.subtree_control"), "-memory").expect("it is taken back");
        fs::remove_dir(&directory).expect("the cgroup is removed");
        let gone = node.crictl(&["runp", &file]);
        assert!(gone.error().contains(&leaf), "{denied:?}: {gone:#?}");
        fs::create_dir(&directory).expect("the cgroup is made again");
        let pod = node.crictl(&["runp", &file]).ok().to_owned();
        let _ = node.crictl(&["rmp", "-f", &pod]).ok();
    }
}

/// The daemon is dead while the first process of a monitor is about to be born anew in its cgroup.
#[test]
fn a_monitor_ends_whose_daemon_died_before_it_was_in_its_cgroup() {
    let mut node = Node::start();
    let _ = node.crictl(&["version"]).ok();
    let base = Residue::of(&node);
    let file = node.pod_file("web", json!({}));
    let record = node.path("calls");
    let options = ["--inject=setsid:signal=SIGSTOP", "-o", &record.display().to_string()];
    let strace = Strace::attach_to_all(node.pid(), &options);
    let mut run = node.crictl_command(&["runp", &file]);
    let mut run = run.stderr(Stdio::null()).spawn().expect("crictl starts");
    wait("the monitor's stop", || stopped(&record).is_some());
    let first = stopped(&record).and_then(|pid| rustix::process::Pid::from_raw(pid.try_into().ok()?));
    node.kill();
    assert!(!run.wait().expect("crictl ends").success());
    drop(strace);
    let first = first.expect("a stopped monitor");
    rustix::process::kill_process(first, rustix::process::Signal::CONT).expect("it goes on");
    node.launch();
    base.returns(&node, "a monitor without its daemon");
    let pod = node.crictl(&["runp", &file]).ok().to_owned();
    let _ = node.crictl(&["rmp", "-f", &pod]).ok();
}

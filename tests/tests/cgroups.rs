//! Where the daemon and its containers are among the cgroups.

use serde_json::json;
use slipway_tests::{Need, Node, Output, Pod, folder, lacks, machine, node};
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
}

/// As in a container whose init is the daemon: its cgroup is the only one it has, and it sits in it.
#[test]
fn a_daemon_that_sits_in_its_own_root_moves_to_a_leaf_and_limits_containers_beside_it() {
    let name = "a_daemon_that_sits_in_its_own_root_moves_to_a_leaf_and_limits_containers_beside_it";
    if lacks(name, &[Need::CgroupV2]) {
        return;
    }
    let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let own = node::cgroup_root(0);
    let cgroup = PathBuf::from(format!("/sys/fs/cgroup{own}"));
    fs::create_dir(&cgroup).expect("a cgroup for the daemon");
    let mut daemon = start_in(&cgroup, directory.path());
    let slipway = |arguments: &[&str]| {
        let socket = format!("unix://{}", directory.path().join("run/slipway.sock").display());
        let program = folder("SLIPWAY_PROGRAMS").join("slipway");
        Output::of(Command::new(program).args(["--address", &socket]).args(arguments))
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while slipway(&["version"]).status != 0 {
        assert!(Instant::now() < deadline, "the daemon does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    let place = fs::read_to_string(format!("/proc/{}/cgroup", daemon.id())).expect("its cgroup");
    assert_eq!(place.trim(), format!("0::{own}/slipwayd"));
    slipway_tests::busybox::context(&directory.path().join("context"), "");
    let _ =
        slipway(&["build", "-t", "busybox:1", &directory.path().join("context").display().to_string()]).ok();
    let run = slipway(&["run", "--rm", "busybox:1", "sh", "-c", "cat /sys/fs/cgroup/cgroup.controllers"]);
    assert!(run.ok().contains("memory") && run.ok().contains("pids"), "{run:#?}");
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the daemon is told to end");
    assert!(daemon.wait().expect("the daemon is reaped").success());
    node::remove_cgroups(&own);
    assert!(!cgroup.exists(), "something is left in {}", cgroup.display());
}

fn start_in(cgroup: &Path, directory: &Path) -> Child {
    let config =
        "[network]\nbridge = \"sliptleaf\"\nsubnets = [\"10.79.0.0/24\"]\ntable = \"slipway_test_leaf\"\n";
    fs::write(directory.join("config.toml"), config).expect("a configuration");
    Command::new("sh")
        .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
        .arg(cgroup.join("cgroup.procs"))
        .arg(folder("SLIPWAY_PROGRAMS").join("slipwayd"))
        .arg("--config")
        .arg(directory.join("config.toml"))
        .arg("--root")
        .arg(directory.join("lib"))
        .arg("--state")
        .arg(directory.join("run"))
        .stdin(Stdio::null())
        .stderr(fs::File::create(directory.join("log")).expect("a log"))
        .spawn()
        .expect("the daemon starts")
}

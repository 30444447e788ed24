//! A log volume that hangs: whoever writes to it waits in the kernel, deaf to SIGKILL, as on a server that is gone. Nothing
//! else of the node waits with it.

use serde_json::json;
use slipway_tests::fault::threads;
use slipway_tests::frozen::{Disk, is_held};
use slipway_tests::{Need, Node, Pod, Residue, lacks, monitor, residue, wait};

/// Counts into its log for as long as it lives.
const COUNT: &str = "n=0; while :; do echo $n; n=$((n + 1)); sleep 0.02; done";

/// A node whose logs are on a disk of their own, but for those of pods with `beside`.
fn node() -> (Node, Disk) {
    let node = Node::start();
    node.build("busybox:1", "");
    let disk = Disk::mount(&node, "logs");
    (node, disk)
}

fn beside(node: &Node) -> serde_json::Value {
    json!({"log_directory": node.path("beside")})
}

fn state(node: &Node, container: &str) -> String {
    node.status(container)["state"].as_str().expect("a state").to_owned()
}

/// The numbers that a counting container has logged.
fn counted(node: &Node, container: &str) -> Vec<u64> {
    let logs = node.crictl(&["logs", container]).stdout;
    logs.lines().map(|line| line.parse().expect("a number")).collect()
}

/// A daemon did not serve for as long as the log volume of one pod hung, and killed that pod's containers in the end.
#[test]
fn a_daemon_that_starts_beside_a_hung_log_volume_serves_and_loses_no_line() {
    if lacks("a_daemon_that_starts_beside_a_hung_log_volume_serves_and_loses_no_line", &[Need::LoopDevices]) {
        return;
    }
    let (mut node, disk) = node();
    let web = Pod::start(&node, "web", json!({}));
    let container = web.run("main", COUNT, json!({}));
    let other = node.pod("other", beside(&node));
    let neighbour = node.container_file("main", "busybox:1", "exec sleep 1000", json!({}));
    let file = node.path("other.pod.json").display().to_string();
    let neighbour = node.crictl(&["create", &other, &neighbour, &file]).ok().to_owned();
    let _ = node.crictl(&["start", &neighbour]).ok();
    let (web, held) = (web.id.clone(), monitor(&node, &web.id));
    wait("the first lines", || counted(&node, &container).len() > 3);
    let frozen = disk.freeze();
    wait("a write that hangs", || is_held(held));
    node.kill();
    node.launch();
    assert_eq!(node.crictl(&["exec", "-s", &neighbour, "echo", "afloat"]).ok(), "afloat");
    assert_eq!(state(&node, &container), "CONTAINER_RUNNING");
    let refused = node.crictl(&["exec", "-s", &container, "true"]);
    assert!(refused.error().contains("Unavailable") && refused.error().contains(&web), "{refused:#?}");
    assert_eq!(state(&node, &container), "CONTAINER_RUNNING");
    frozen.thaw();
    wait("the monitor's answer", || node.crictl(&["exec", "-s", &container, "true"]).status == 0);
    let _ = node.crictl(&["stop", "-t", "0", &container]).ok();
    let numbers = counted(&node, &container);
    assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "a line is lost: {numbers:?}");
}

/// Containers on a hung log volume could be neither stopped nor removed, and their daemon did not end.
#[test]
fn stop_removal_and_sigterm_end_beside_a_hung_log_volume() {
    if lacks("stop_removal_and_sigterm_end_beside_a_hung_log_volume", &[Need::LoopDevices]) {
        return;
    }
    let (mut node, disk) = node();
    let base = Residue::of(&node);
    let web = Pod::start(&node, "web", json!({}));
    let (first, second) = (web.run("first", COUNT, json!({})), web.run("second", COUNT, json!({})));
    let (web, held) = (web.id.clone(), monitor(&node, &web.id));
    wait("the first lines", || counted(&node, &second).len() > 3);
    let frozen = disk.freeze();
    wait("a write that hangs", || is_held(held));
    let _ = node.crictl(&["stop", "-t", "1", &first]).ok();
    assert_eq!(node.status(&first)["exitCode"], 137);
    remove(&node, &first);
    assert_eq!(state(&node, &second), "CONTAINER_RUNNING");
    ends(&mut node);
    node.launch();
    let _ = node.crictl(&["stopp", &web]).ok();
    assert_eq!(node.status(&second)["exitCode"], 137);
    let _ = node.crictl(&["rmp", &web]).ok();
    assert_eq!(node.crictl(&["pods", "-q"]).ok(), "");
    assert!(is_held(held), "the kernel still holds it");
    frozen.thaw();
    wait("the monitor's end", || residue::processes(&node).iter().all(|(pid, _)| *pid != held));
    base.returns(&node, "a hung log volume");
}

/// The daemon opened a log for as long as its file system hung, on one more thread with each attempt, and a thread that the
/// kernel holds keeps its process from ending.
#[test]
fn a_log_on_a_hung_volume_is_given_up_and_keeps_no_daemon_from_ending() {
    if lacks("a_log_on_a_hung_volume_is_given_up_and_keeps_no_daemon_from_ending", &[Need::LoopDevices]) {
        return;
    }
    let (mut node, disk) = node();
    let web = Pod::start(&node, "web", json!({}));
    // Its directory is there before.
    let _ = web.run("before", "exec sleep 1000", json!({}));
    let frozen = disk.freeze();
    let refused = refuses(&node, &web, "first");
    assert!(refused.contains("logs/web") && refused.contains("does not answer"), "{refused}");
    let before = threads(node.pid());
    for number in 0..12 {
        let refused = refuses(&node, &web, &format!("again-{number}"));
        assert!(refused.contains("still does not answer"), "{refused}");
    }
    // The threads that serve come and go.
    assert!(threads(node.pid()) < before + 8, "{} threads, {before} before", threads(node.pid()));
    ends(&mut node);
    node.launch();
    frozen.thaw();
    let file = node.path("web.pod.json").display().to_string();
    let config = node.container_file("last", "busybox:1", "exit 3", json!({}));
    let pod = node.crictl(&["pods", "-q"]).ok().to_owned();
    let last = node.crictl(&["create", &pod, &config, &file]).ok().to_owned();
    let _ = node.crictl(&["start", &last]).ok();
    assert_eq!(node.exited(&last)["exitCode"], 3);
}

/// Removes a container. (crictl would remove its log by itself, and hang.)
fn remove(node: &Node, container: &str) {
    let _ = node.slipway(&["rm", "-f", container]).ok();
}

/// The error of a container that can't be started; it is removed.
fn refuses(node: &Node, pod: &Pod<'_>, name: &str) -> String {
    let id = pod.create(name, "exit 0", json!({})).ok().to_owned();
    let error = node.crictl(&["start", &id]).error().to_owned();
    remove(node, &id);
    error
}

/// SIGTERM, and the daemon's end.
fn ends(node: &mut Node) {
    let pid = i32::try_from(node.pid()).ok().and_then(rustix::process::Pid::from_raw).expect("a daemon");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the signal is sent");
    wait("the daemon's end", || node.has_died());
}

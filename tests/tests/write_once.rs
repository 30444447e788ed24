//! The records of a pod and its containers: each file is written once, whatever happens to them and to the daemon.

use serde_json::json;
use slipway_tests::Node;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// The records of all pods and containers, with their inodes and contents.
fn records(node: &Node) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for group in ["lib/pods", "lib/containers"] {
        for directory in std::fs::read_dir(node.path(group)).expect("a directory of records").flatten() {
            for entry in std::fs::read_dir(directory.path()).expect("a directory of records").flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let stem = name.split('.').next().unwrap_or_default();
                if ["record", "request", "ready", "started", "ended", "intent"].contains(&stem) {
                    let inode = entry.metadata().expect("a record").ino();
                    found.insert(entry.path(), (inode, std::fs::read(entry.path()).expect("a record")));
                }
            }
        }
    }
    found
}

fn names(records: &BTreeMap<PathBuf, (u64, Vec<u8>)>, directory: &str) -> Vec<String> {
    let inside =
        records.keys().filter(|path| path.parent().is_some_and(|parent| parent.ends_with(directory)));
    inside.map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
}

/// A pod's record was replaced three times on its way to the end, and another one beside it as often: each time ext4
/// flushed the new file, about 5 ms.
#[test]
fn no_record_of_a_pod_or_a_container_is_ever_written_again() {
    let mut node = Node::start();
    node.build("busybox:1", "");
    let mut seen: BTreeMap<PathBuf, (u64, Vec<u8>)> = BTreeMap::new();
    let mut check = |node: &Node, after: &str| {
        let now = records(node);
        for (path, was) in &seen {
            assert!(now.get(path) == Some(was), "{} after {after}", path.display());
        }
        seen.extend(now);
        seen.clone()
    };
    let pod = node.pod("web", json!({}));
    let pod_file = node.path("web.pod.json").display().to_string();
    let made = check(&node, "the pod's creation");
    assert_eq!(names(&made, &pod), ["ready", "record"]);
    let file = node.container_file("main", "busybox:1", "exec sleep 1000", json!({}));
    let running = node.crictl(&["create", &pod, &file, &pod_file]).ok().to_owned();
    check(&node, "the container's creation");
    let _ = node.crictl(&["start", &running]).ok();
    let ended = node.container(&pod, "web", "other", "exit 7");
    assert_eq!(node.exited(&ended)["exitCode"], 7);
    check(&node, "the start");
    node.kill();
    node.launch();
    assert_eq!(node.crictl(&["exec", "-s", &running, "echo", "afloat"]).ok(), "afloat");
    check(&node, "the daemon's restart");
    let _ = node.crictl(&["stop", "--timeout", "0", &running]).ok();
    check(&node, "the container's stop");
    let _ = node.crictl(&["stopp", &pod]).ok();
    node.kill();
    node.launch();
    let _ = node.crictl(&["stopp", &pod]).ok();
    let all = check(&node, "the pod's stop");
    assert_eq!(names(&all, &pod), ["intent.1", "ready", "record"]);
    for container in [&running, &ended] {
        assert_eq!(names(&all, container), ["ended.1", "record", "started.1"]);
    }
    let _ = node.crictl(&["rmp", "-f", &pod]).ok();
    assert!(records(&node).is_empty());
}

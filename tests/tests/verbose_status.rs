//! The verbose status of pods and containers, which tools read: nsenter by `info.pid`, agents by `info.runtimeSpec`.
//!
//! It had no configuration, no process of a pod, and of the specification the part alone that the request had filled in:
//! neither namespaces nor cgroup, user, root or the pod's files.

use serde_json::{Value, json};
use slipway_tests::{Node, Pod};
use std::fs;
use std::os::unix::fs::MetadataExt as _;

fn inspect(node: &Node, id: &str) -> Value {
    node.crictl(&["inspect", id]).json()["info"].clone()
}

fn inspect_pod(node: &Node, id: &str) -> Value {
    node.crictl(&["inspectp", id]).json()["info"].clone()
}

/// The namespace of a process.
fn namespace(pid: &Value, kind: &str) -> u64 {
    inode(&format!("/proc/{pid}/ns/{kind}"))
}

fn inode(path: &str) -> u64 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{path}: {error}")).ino()
}

/// The file of a namespace in a specification; none for a new one.
fn path<'a>(info: &'a Value, kind: &str) -> Option<&'a str> {
    let all = info["runtimeSpec"]["linux"]["namespaces"].as_array().expect("namespaces");
    let found = all.iter().find(|one| one["type"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} namespace: {info:#}"))["path"].as_str()
}

fn bridge() -> Value {
    json!({"linux": {"security_context": {"namespace_options": {"network": 0, "pid": 1}}}})
}

fn on_bridge(node: &Node) -> Pod<'_> {
    Pod::start(node, "web", bridge())
}

const KINDS: [(&str, &str); 3] = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")];

#[test]
fn a_container_s_specification_is_whole_and_leads_to_what_runs() {
    let mut node = Node::start();
    node.build("busybox:1", "VOLUME /data\n");
    let more = json!({
        "labels": {"tier": "front"},
        "envs": [{"key": "A", "value": "1"}],
        "linux": {"security_context": {
            "namespace_options": {"network": 0, "pid": 1}, "run_as_username": "sailor", "seccomp": {"profile_type": 0},
        }},
    });
    let (pod, id) = {
        let pod = on_bridge(&node);
        let id = pod.run("main", "exec sleep 1000", more);
        (pod.id.clone(), id)
    };
    for again in [false, true] {
        if again {
            node.kill();
            node.launch();
        }
        let info = inspect(&node, &id);
        check_request(&info, &pod);
        check_places(&info);
        check_process(&info["runtimeSpec"]);
        check_mounts(&info["runtimeSpec"]);
    }
    let _ = node.crictl(&["stop", "-t", "0", &id]).ok();
    let info = inspect(&node, &id);
    assert_eq!(info["runtimeSpec"]["root"]["path"], "rootfs", "no process shows it any more");
}

fn check_request(info: &Value, pod: &str) {
    assert_eq!(info["sandboxID"], pod);
    assert_eq!(info["image"], "busybox:1");
    assert_eq!(info["config"]["metadata"], json!({"name": "main"}));
    assert_eq!(info["config"]["labels"]["tier"], "front");
    assert_eq!(info["config"]["linux"]["security_context"]["run_as_username"], "sailor");
    assert_eq!(info["runtimeSpec"]["annotations"]["io.kubernetes.cri.container-name"], "main");
    assert_eq!(info["runtimeSpec"]["annotations"]["io.kubernetes.cri.sandbox-id"], pod);
}

/// The namespaces, the root and the cgroup are those of the process.
fn check_places(info: &Value) {
    let spec = &info["runtimeSpec"];
    let pid = &info["pid"];
    for (kind, name) in KINDS {
        let path = path(info, kind).expect("the pod's");
        assert_eq!(inode(path), namespace(pid, name), "{kind}: {path}");
    }
    assert_eq!((path(info, "pid"), path(info, "mount")), (None, None), "they are the container's own");
    let root = spec["root"]["path"].as_str().expect("a root");
    assert_eq!(inode(root), inode(&format!("/proc/{pid}/root/")), "{root}");
    let cgroup = spec["linux"]["cgroupsPath"].as_str().expect("a cgroup");
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the process's cgroups");
    assert!(cgroups.lines().any(|line| line.ends_with(cgroup)), "{cgroup}: {cgroups}");
}

fn check_process(spec: &Value) {
    let user = &spec["process"]["user"];
    assert_eq!((&user["uid"], &user["additionalGids"]), (&json!(1000), &json!([1000, 1001])), "{user}");
    let env = spec["process"]["env"].as_array().expect("variables");
    assert!(env.contains(&json!("HOME=/home")) && env.contains(&json!("A=1")), "{env:?}");
    assert!(spec["linux"]["seccomp"]["syscalls"].as_array().is_some_and(|rules| !rules.is_empty()));
}

fn check_mounts(spec: &Value) {
    let mounts = spec["mounts"].as_array().expect("mounts");
    for at in [
        "/proc",
        "/dev",
        "/dev/shm",
        "/sys/fs/cgroup",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/etc/hostname",
        "/data",
    ] {
        let found = mounts.iter().find(|mount| mount["destination"] == at);
        let found = found.unwrap_or_else(|| panic!("{at}: {mounts:#?}"));
        if found["type"] == "bind" {
            let source = found["source"].as_str().expect("a source");
            assert!(fs::metadata(source).is_ok(), "{at}: {source}");
        }
    }
}

/// A container that was created only: its specification says all but the user, which its image's files decide.
#[test]
fn a_created_container_has_a_specification_already() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let id = pod.create("main", "true", json!({})).ok().to_owned();
    let info = inspect(&node, &id);
    assert_eq!(info["pid"], 0);
    let spec = &info["runtimeSpec"];
    assert_eq!(spec["root"]["path"], "rootfs");
    assert!(spec["process"]["user"]["additionalGids"].is_null(), "{spec:#}");
    assert!(spec["process"]["rlimits"].as_array().is_some_and(|limits| !limits.is_empty()), "{spec:#}");
    assert!(spec["linux"]["devices"].as_array().is_some_and(|devices| devices.len() >= 6), "{spec:#}");
}

#[test]
fn a_pod_names_a_process_of_its_namespaces_and_its_network() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = on_bridge(&node);
    let id = pod.run("main", "exec sleep 1000", bridge());
    let address = node.crictl(&["inspectp", &pod.id]).json()["status"]["network"]["ip"].clone();
    let (info, of_container) = (inspect_pod(&node, &pod.id), inspect(&node, &id));
    assert_eq!(info["config"]["metadata"]["name"], "web");
    assert_ne!(info["pid"], of_container["pid"]);
    for (kind, name) in KINDS {
        let own = namespace(&of_container["pid"], name);
        assert_eq!(namespace(&info["pid"], name), own, "{kind}");
        assert_eq!(inode(path(&info, kind).expect("a path")), own, "{kind}");
    }
    let link = &info["cniResult"]["Interfaces"]["eth0"];
    assert_eq!(link["IPConfigs"][0]["IP"], address, "{info:#}");
    let shown = pod.exec(&id, "cat /sys/class/net/eth0/address; ip route | awk '/default/ { print $3 }'");
    let told = [&link["Mac"], &link["IPConfigs"][0]["Gateway"]]
        .map(|value| value.as_str().unwrap_or_default().to_owned());
    assert_eq!(shown.lines().collect::<Vec<_>>(), told);
    assert_eq!(info["runtimeSpec"]["annotations"]["io.kubernetes.cri.sandbox-name"], "web");

    let _ = node.crictl(&["stopp", &pod.id]).ok();
    let info = inspect_pod(&node, &pod.id);
    assert!(info.get("pid").is_none() && info["cniResult"].is_null(), "{info:#}");
    assert_eq!(info["config"]["metadata"]["name"], "web");
}

#[test]
fn a_pod_of_the_host_s_network_names_a_process_too() {
    let node = Node::start();
    let pod = Pod::start(&node, "web", json!({}));
    let info = inspect_pod(&node, &pod.id);
    assert_eq!(namespace(&info["pid"], "net"), inode("/proc/self/ns/net"));
    assert_eq!(namespace(&info["pid"], "uts"), inode(path(&info, "uts").expect("a path")));
    assert!(info["cniResult"].is_null(), "{info:#}");
}

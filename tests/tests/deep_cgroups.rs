//! Cgroups that no path leads to.

use serde_json::json;
use slipway_tests::{Node, Pod, Residue, machine, probe, wait};

/// Names of 255 bytes: beyond `PATH_MAX` with a quarter of them.
const LEVELS: u32 = 64;

/// A container's cgroups were walked by path. A privileged container that nested cgroups beyond `PATH_MAX` could be neither
/// stopped nor removed, and a process in the last of them was never killed.
#[test]
fn a_container_that_nests_cgroups_beyond_any_path_is_stopped_and_removed() {
    for features in [&[][..], &["cgroup-kill", "clone-into-cgroup"]] {
        let mut node = Node::start();
        if machine::unified() {
            node.relaunch_without(features);
        } else if !features.is_empty() {
            continue;
        }
        probe::build(&node, "busybox:1", "");
        let base = Residue::of(&node);
        let pod = Pod::start(&node, "web", json!({}));
        let hierarchies = if machine::unified() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/*" };
        let script =
            format!("for one in {hierarchies}; do cd $one && probe nest {LEVELS} & done; exec sleep 1000");
        let more = json!({"linux": {"security_context": {"privileged": true}}});
        let [stopped, removed, left] = ["stopped", "removed", "left"].map(|name| {
            let container = pod.run(name, &script, more.clone());
            let count = format!("set -- {hierarchies}; echo $#");
            let count: usize = pod.exec(&container, &count).parse().expect("a count");
            wait("the nested cgroups", || {
                let said = node.crictl(&["logs", &container]).stdout;
                assert_eq!(said.replace("ok\n", ""), "");
                said.lines().count() == count
            });
            container
        });
        let stop = node.crictl(&["stop", "-t", "1", &stopped]);
        assert_eq!(stop.status, 0, "{stop:#?}\n{}", node.log());
        assert_eq!(node.status(&stopped)["state"], "CONTAINER_EXITED");
        let _ = node.crictl(&["rm", &stopped]).ok();
        let _ = node.crictl(&["rm", "-f", &removed]).ok();
        let pod = pod.id.clone();
        // A daemon that comes later knows of them by their records alone.
        node.kill();
        node.launch();
        assert_eq!(node.status(&left)["state"], "CONTAINER_RUNNING");
        let _ = node.crictl(&["rmp", "-f", &pod]).ok();
        let _ = std::fs::remove_dir_all(node.path("logs"));
        base.returns(&node, "nested cgroups");
    }
}

//! The files of a pod that its containers get copies of.

use serde_json::json;
use slipway_tests::{Node, Pod};
use std::path::Path;

/// A way in which a file is damaged.
type Way = (&'static str, fn(&Path));

const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// A pod's hosts, hostname and resolv.conf that were damaged or gone kept every further container of the pod from starting,
/// or reached it damaged, though the daemon knows what belongs in them.
#[test]
fn a_pod_s_files_are_made_again_when_its_next_container_starts() {
    let mut node = Node::start();
    node.build("busybox:1", "");
    let dns = json!({"servers": ["192.0.2.1"], "searches": ["svc.test"], "options": ["ndots:5"]});
    let network = json!({"security_context": {"namespace_options": {"network": 0}}});
    let more = json!({"hostname": "boat", "dns_config": dns, "linux": network});
    let own = Pod::start(&node, "own", more);
    let host = Pod::start(&node, "host", json!({}));
    let ways: [Way; 5] = [
        ("gone", |_| ()),
        ("empty", |path| std::fs::write(path, "").expect("an empty file")),
        ("other words", |path| std::fs::write(path, "192.0.2.9 elsewhere\n").expect("other words")),
        ("a directory", |path| std::fs::create_dir_all(path.join("below")).expect("a directory")),
        ("a link to nothing", |path| std::os::unix::fs::symlink("/no/such", path).expect("a link")),
    ];
    let script = "cd /etc && cat hosts hostname resolv.conf";
    for pod in [&own, &host] {
        let before = pod.says("before", script, json!({}));
        for (number, (way, damage)) in ways.iter().enumerate() {
            // Contents that were copied from the host can't be told from other words.
            if pod.id == host.id && *way == "other words" {
                continue;
            }
            let folder = node.path(format!("lib/pods/{}", pod.id));
            for file in FILES {
                let path = folder.join(file);
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
                damage(&path);
            }
            assert_eq!(pod.says(&format!("c{number}"), script, json!({})), before, "{way}");
        }
    }
    let (own, host) = (own.id.clone(), host.id.clone());
    node.kill();
    node.launch();
    for pod in [&own, &host] {
        let _ = node.crictl(&["rmp", "-f", pod]).ok();
    }
    assert_eq!(node.slipway(&["check"]).ok(), "");
}
